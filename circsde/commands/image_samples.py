"""Samples of a model of images, from the command line: phases to NetCDF, a sheet of pictures, and how they came."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circsde.commands import console

if TYPE_CHECKING:
    import xarray as xr
    from PIL import Image
    from torch import Tensor

    from circsde.encoding import Encoding
    from circsde.models.training import Trained
    from circsde.sampling.reverse import Recipe

SUCCESS = "success"

SHEET = 24
"""Samples on a sheet during training."""

ENCODING = ("encoding", "encoding_scale")
"""What a model and its samples say of the encoding."""

FRAMES, MILLISECONDS = 32, 80
"""Of a video; its last frame stays for a second and a half."""

GOLDEN = 0.6180339887498949
"""Multiples of the golden section are even on [0, 1), however many there are."""


@dataclass(frozen=True)
class Request:
    """What is asked of a model of images.

    Attributes:
        count: Samples.
        first_sample: The index of the first.
        batch: Samples at a time.
        seed: Of everything.
        start_law: ``"auto"``, ``"settled"``, or the file of a law.
        device: Where the network runs.
        frames: States on the way to keep; 0 for none.
        classes: Their names, for samples in turn; by default each as often as it was to be learned.
        guidance: How far samples are led to them.
    """

    count: int
    first_sample: int
    batch: int
    seed: int
    start_law: str
    device: str
    frames: int
    classes: tuple[str, ...] = ()
    guidance: float = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers that ask for nothing."""
        if min(self.count, self.batch) < 1 or self.first_sample < 0:
            raise ValueError(
                "count and batch must be positive and first-sample not negative, got"
                f" {self.count}, {self.batch} and {self.first_sample}"
            )

    @property
    def samples(self) -> range:
        """Their indices."""
        return range(self.first_sample, self.first_sample + self.count)

    def labels(self, known: Mapping[str, int]) -> "Tensor | None":
        """The class of each sample, of those that a model knows with the number of images that it learned them from.

        Raises:
            ValueError: If one is unknown, or guidance has no classes to lead to.
        """
        import numpy as np
        import torch

        from circsde.data.image_set import some

        unknown = [name for name in self.classes if name not in known]
        if unknown or (self.guidance != 1.0 and not known):
            asked = f"the classes {', '.join(unknown)}" if unknown else f"guidance={self.guidance:g}"
            has = f"knows the classes {some(known, ', ', most=12)}" if known else "was trained without classes"
            raise ValueError(f"got {asked}, and the model {has}")
        if not known:
            return None
        index = np.array(self.samples)
        if self.classes:
            names = list(known)
            return torch.tensor([names.index(self.classes[i % len(self.classes)]) for i in index])
        ends = np.cumsum(list(known.values()))
        return torch.from_numpy(np.searchsorted(ends, (index + 0.5) * GOLDEN % 1.0 * ends[-1], side="right"))


def draw(
    model: "Trained", run: Path, request: Request, recipe: "Recipe", progress: Callable[[int], object]
) -> "xr.Dataset":
    """Draw them; which law they started from is the attribute ``start_law``."""
    from circsde.models.variance_preserving import VariancePreserving
    from circsde.sampling.choose_start import start_law
    from circsde.sampling.generate import generate

    known: Mapping[str, int] = model.about.get("classes") or {}
    labels = request.labels(known)
    if isinstance(model.process, VariancePreserving):
        return _named(_standard(model, request, recipe, labels, progress), labels, known)
    law, name = start_law(model.chain, run, request.start_law)
    network = model.network.to(request.device)
    model.sde.to(request.device)
    result = generate(
        model.chain,
        network,
        law,
        request.count,
        recipe,
        labels=labels,
        guidance=request.guidance,
        seed=request.seed,
        first_sample=request.first_sample,
        batch_size=request.batch,
        frames=request.frames,
        device=request.device,
        on_failure="return",
        progress=progress,
    )
    encoding = {name: model.about[name] for name in ENCODING if name in model.about}
    return _named(result.assign_attrs(start_law=name, **encoding), labels, known)


def _named(result: "xr.Dataset", labels: "Tensor | None", known: Mapping[str, int]) -> "xr.Dataset":
    """With the names of the classes of samples."""
    if labels is None:
        return result
    names = list(known)
    return result.assign_coords({"class": ("sample", [names[i] for i in labels[: result.sizes["sample"]].tolist()])})


def _standard(
    model: "Trained",
    request: Request,
    recipe: "Recipe",
    labels: "Tensor | None",
    progress: Callable[[int], object],
) -> "xr.Dataset":
    """Values instead of phases, by multistep steps or along a flow, of a model of the standard diffusion."""
    from functools import partial

    import numpy as np
    import torch
    import xarray as xr

    from circsde.models.guidance import Conditioned
    from circsde.models.values import sample
    from circsde.models.variance_preserving import VariancePreserving
    from circsde.sampling.generate import shifted

    process = model.process
    assert isinstance(process, VariancePreserving)
    if request.frames:
        raise ValueError("a video is of phases, and this is a model of the standard diffusion: leave out video")
    parts = []
    for k in range(0, request.count, request.batch):
        samples = request.samples[k : k + request.batch]
        of = None if labels is None else labels[k : k + request.batch]
        drawn = sample(
            process,
            Conditioned(model.network, of, guidance=request.guidance).to(request.device),
            len(samples),
            n_steps=recipe.n_steps,
            method=recipe.flow or "multistep",
            seed=request.seed,
            first_sample=samples[0],
            device=request.device,
            progress=partial(shifted, progress, k // request.batch * recipe.n_steps),
        )
        parts.append(drawn.cpu())
    values, index = torch.cat(parts), np.array(request.samples)
    dims = ("sample", *(("channel",) if values.ndim == 4 else ()), "row", "column")
    attributes = {"status": SUCCESS, "message": "", "start_law": "standard normal"}
    return xr.Dataset({"value": (dims, values.numpy())}, {"sample": index}, attributes)


def event_shape(model: "Trained") -> tuple[int, ...]:
    """The shape of a sample of any model."""
    from circsde.models.variance_preserving import VariancePreserving

    process = model.process
    return tuple(process.event_shape if isinstance(process, VariancePreserving) else model.sde.event_shape)


def encoding_of(about: Mapping[str, Any]) -> "Encoding":
    """What phases stand for, by what a model or its samples say; else grey values on the whole circle."""
    from circsde.data.orientation import OrientationEncoding
    from circsde.encoding import PhaseEncoding

    if about.get("encoding") == "orientation":
        return OrientationEncoding()
    return PhaseEncoding(float(about.get("encoding_scale") or math.pi))


def pictures(result: "xr.Dataset", name: str | None = None) -> "Tensor":
    """Phases as values in ``[-1, 1]`` by their encoding, or values as they are; a single channel is grey.

    By default those at the end.
    """
    import torch

    shown = result[name or ("value" if "value" in result else "theta")]
    if "channel" in shown.dims and shown.sizes["channel"] == 1:
        shown = shown.isel(channel=0)
    values = torch.from_numpy(shown.to_numpy())
    return values if shown.name == "value" else encoding_of(result.attrs).decode(values)


def save_sheet(result: "xr.Dataset", path: Path, *, force: bool) -> None:
    """All samples on one sheet."""
    from circsde.data.sheet import sheet
    from circsde.record import replacing

    with replacing(path, force=force) as temporary:
        sheet(pictures(result), zoom=_zoom(result)).save(temporary)


def training_sheet(model: "Trained", out: Path, seed: int) -> None:
    """Samples of a network that is being trained, in the folder ``sheets`` of the run, named by the update."""
    from circsde.sampling.reverse import Recipe

    device = next(model.network.parameters()).device.type
    request = Request(SHEET, 0, SHEET, seed, "auto", device, 0)
    drawn = draw(model, out, request, Recipe("multistep", 25), lambda _: None)
    if drawn.attrs["status"] != SUCCESS:
        console.note(f"there is no sheet after update {model.update}: {drawn.attrs['message']}")
        return
    (out / "sheets").mkdir(exist_ok=True)
    save_sheet(drawn, out / "sheets" / f"{model.update:06d}.png", force=True)


def save_video(result: "xr.Dataset", path: Path, *, force: bool) -> None:
    """The sheet at each of the states that were kept, as an animated GIF that repeats."""
    from circsde.data.sheet import sheet
    from circsde.record import replacing

    shown: list[Image.Image] = [
        sheet(pictures(result.isel(time=i), "path"), zoom=_zoom(result)) for i in range(result.sizes["time"])
    ]
    durations = [MILLISECONDS] * (len(shown) - 1) + [1500]
    with replacing(path, force=force) as temporary:
        shown[0].save(temporary, format="GIF", save_all=True, append_images=shown[1:], duration=durations, loop=0)


def _zoom(result: "xr.Dataset") -> int:
    """So large that the sheet is about 512 pixels wide, if images are small; at least twice if they are not large."""
    columns = math.ceil(math.sqrt(result.sizes["sample"])) * result.sizes["column"]
    return max(2 if result.sizes["row"] <= 48 else 1, min(512 // columns, 16))

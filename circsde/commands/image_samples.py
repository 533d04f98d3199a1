"""Samples of a model of images, from the command line: phases to NetCDF, a sheet of pictures, and how they came."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circsde.commands import console

if TYPE_CHECKING:
    import xarray as xr
    from PIL import Image
    from torch import Tensor

    from circsde.models.training import Trained
    from circsde.sampling.reverse import Recipe

SHEET = 24
"""The number of samples on a sheet during training."""

FRAMES, MILLISECONDS = 32, 80
"""Frames of a video and the time of each; the last frame stays for a second and a half."""


def draw(model: "Trained", run: Path, recipe: "Recipe | None", law: str, count: int, **options: Any) -> "xr.Dataset":
    """Samples from the law ``"auto"``, ``"settled"`` or that of a file, said in the attribute ``start_law``.

    It takes the options of :func:`circsde.sampling.trained.sample`; a batch that fails ends the samples.
    """
    from circsde.matching.chain import Chain
    from circsde.sampling.choose_start import start_law
    from circsde.sampling.trained import sample

    if not isinstance(model.process, Chain):
        return sample(model, count, recipe, **options)
    start, name = start_law(model.chain, run, law)
    drawn = sample(model, count, recipe, start=start, on_failure="return", **options)
    return drawn.assign_attrs(start_law=name)


def pictures(result: "xr.Dataset", name: str | None = None) -> "Tensor":
    """Phases as values in ``[-1, 1]`` by their encoding, or values as they are; a single channel is grey.

    By default those at the end.
    """
    import torch

    from circsde.sampling.trained import encoding_of

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
    device = next(model.network.parameters()).device
    drawn = draw(model, out, None, "auto", SHEET, seed=seed, batch_size=SHEET, device=device)
    if drawn.attrs["status"] != "success":
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
    """The zoom that makes a sheet about 512 pixels wide if images are small; at least 2 if they are not large."""
    columns = math.ceil(math.sqrt(result.sizes["sample"])) * result.sizes["column"]
    return max(2 if result.sizes["row"] <= 48 else 1, min(512 // columns, 16))

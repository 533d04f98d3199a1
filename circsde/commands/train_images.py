"""``circsde train`` on images: windows, a process, a U-Net, and the law that sampling starts from."""

import math
import time
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from circsde.commands import console, options
from circsde.commands.answer import Answer, counted
from circsde.commands.training import ObjectiveName, Preset, ProcessName, RatesName, training_bar

if TYPE_CHECKING:
    import xarray as xr

    from circsde.data import ImageSet, Phases
    from circsde.data.fields import PhaseFields
    from circsde.encoding import Encoding
    from circsde.matching.chain import Chain
    from circsde.models.settings import Settings
    from circsde.models.transitions import DataSampler

FITTED, COMPARED = 1000, 250
"""States that laws to start from are fitted to, and compared with."""


Encoded = Literal["grey", "orientation", "phase"]
"""The encoding of phases: a grey level, an orientation of ridges, or the data themselves."""


@dataclass(frozen=True)
class Windows:
    """The windows that are cut out of images; see :func:`circsde.data.image_set`. ``scale`` is in units of pi."""

    source: str
    crop: str | None
    size: str | None
    colour: Literal["grey", "rgb"]
    scale: float
    mirror: bool
    turn: bool
    strict: bool
    cache: Path | None
    encode: Encoded = "grey"
    classes: bool = False
    reading: dict[str, Any] | None = None
    loaded: "Phases | None" = None

    @property
    def described(self) -> dict[str, object]:
        """All options but the folder of the cache, on which the windows do not depend."""
        names = {field.name for field in fields(self)} - {"cache", "loaded"}
        return {name: getattr(self, name) for name in sorted(names)}

    def shape(self, images: "ImageSet | PhaseFields") -> tuple[int, ...]:
        """The shape of the phases of one window; orientations have no colour."""
        return images.event_shape if self.encode == "grey" else images.event_shape[-2:]

    def known(self, training: "ImageSet | PhaseFields") -> dict[str, int]:
        """The classes to learn and the number of images of each; none, unless they are asked for.

        Raises:
            ValueError: If there are fewer than two.
        """
        if not self.classes:
            return {}
        counts = Counter(training.labels)
        if len(counts) < 2:
            raise ValueError(
                f"the images of {self.source} are not of two classes or more: put each into a folder named after its"
                " class, or leave out classes"
            )
        return dict(sorted(counts.items()))

    def part(self, part: Literal["train", "test"]) -> "ImageSet | PhaseFields":
        """The images for training, or those held out."""
        return self._read(part)

    def whole(self) -> "ImageSet | PhaseFields":
        """The windows of all images."""
        return self._read(None)

    def _read(self, part: Literal["train", "test"] | None) -> "ImageSet | PhaseFields":
        from circsde.commands import angles
        from circsde.commands.angles import Reading
        from circsde.data import image_set
        from circsde.data.fields import PhaseFields

        crop = options.size(self.crop)
        if self.encode == "phase":
            reading = Reading(**self.reading or {})
            tiles = crop if reading.drop_missing else None
            data = self.loaded or angles.read(self.source, reading, tiles=tiles)
            phases = PhaseFields(data.theta, None if tiles else crop, data.notes)
            return phases if part is None else phases.split()[part == "test"]
        return image_set(
            self.source,
            crop=crop,
            size=options.size(self.size),
            colour=self.colour,
            part=part,
            mirror=self.mirror,
            turn=self.turn,
            strict=self.strict,
            cache=self.cache,
        )


@dataclass(frozen=True)
class Forward:
    """The forward equation of the phases; the standard model has none."""

    process: ProcessName
    radius: int
    steps: int
    rates: RatesName

    @classmethod
    def chosen(
        cls,
        process: ProcessName,
        radius: int | None,
        steps: int,
        rates: RatesName | None,
        objective: ObjectiveName,
        encode: Encoded,
    ) -> "Forward":
        """Choose settling rates where they are of use, for phases on an arc in few steps, unless others are asked for.

        Raises:
            ValueError: If rates are asked for that the process does not have, or a radius where nothing has one.
        """
        from circsde.models.processes import IMAGES, RADIUS, Process

        if radius is not None and process != "local":
            raise ValueError(f"the process {process} couples no windows: leave radius out, or take the process local")
        weights = None if process == "standard" else IMAGES[Process(process)]
        if rates is not None and (weights is None or getattr(weights, rates) is None):
            raise ValueError(f"the process {process} has no {rates} rates: leave rates out")
        settles = weights is not None and weights.settling is not None
        useful = settles and objective != "one-step" and encode == "grey"
        rates = rates or (RatesName.SETTLING if useful else RatesName.PUBLISHED)
        return cls(process, radius or RADIUS, steps, rates)

    def scale(self, asked: float | None) -> float:
        """The phases of black and white, in units of pi."""
        return (0.15 if self.rates == "settling" else 0.5) if asked is None else asked


def fit(
    windows: Windows,
    forward: Forward,
    objective: ObjectiveName,
    preset: Preset,
    settings: "Settings",
    sheets: int | None,
    out: Path,
    device: str,
    begin: float,
) -> Answer:
    """Choose the law that sampling starts from, then train, with a sheet of samples every ``sheets`` epochs.

    The command began at the time ``begin`` of the monotonic clock.
    """
    import torch

    from circsde.commands.image_samples import training_sheet
    from circsde.matching.chain import Chain
    from circsde.models.linear_residual import LinearResidual
    from circsde.models.loop import LAST
    from circsde.models.preparation import check_time
    from circsde.models.processes import Family, Process, best_objective, image_process
    from circsde.models.training import Trained, train
    from circsde.models.transitions import Objective
    from circsde.models.unet import PRESETS, ScoreUNet
    from circsde.models.variance_preserving import EpsilonUNet, VariancePreserving
    from circsde.record import check_writable, held
    from circsde.sampling.choose_start import FILE
    from circsde.sampling.trained import encoding_of
    from circsde.streams import seed_torch

    training, held_out = windows.part("train"), windows.part("test")
    _check_windows(windows, training, held_out, 2 ** (len(PRESETS[preset]["multipliers"]) - 1))
    seed_torch(settings.seed, "weights")
    about: dict[str, object] = {"kind": "images", "source": windows.source, "windows": windows.described}
    classes = tuple(known := windows.known(training))
    # padding by zeros, as windows do not close on themselves
    architecture = {"padding": "zeros", **PRESETS[preset], "classes": len(classes) or None}
    if classes:
        about["classes"] = known
    if forward.process == "standard":
        if windows.encode != "grey":
            raise ValueError(
                "the standard model is of grey values, not of orientations or fields of phases: choose another process"
            )
        encoding, aim = None, Objective.DENOISING
        standard = VariancePreserving(training.event_shape)
        along: Chain | VariancePreserving = standard
        network: torch.nn.Module = EpsilonUNet(standard, **architecture)
    else:
        about |= {"encoding": windows.encode, "encoding_scale": windows.scale * math.pi}
        encoding = encoding_of(about)
        shape = windows.shape(training)
        if forward.process == "local":
            options.check_radius(forward.radius, shape)
        process = Process(forward.process)
        sde = image_process(process, shape, Family(forward.rates), forward.steps, forward.radius)
        aim = best_objective(process) if objective == "best" else Objective(objective)
        along = Chain.uniform(sde, forward.steps, published=aim is Objective.ONE_STEP)
        network = answer = ScoreUNet(shape, sde.schedule.diffusion, head="scalar", **architecture)
        if aim is Objective.PATHWISE:
            network = LinearResidual(answer, sde, forward.steps)
    out.mkdir(parents=True, exist_ok=True)
    check_writable(out / FILE, force=True)
    shown: list[str] = []
    values: dict[str, object] = {"training": len(training), "validation": len(held_out)}
    values["windows"] = training.event_shape
    if encoding is not None:
        assert isinstance(along, Chain)
        starts = _sampler(training, encoding)
        if settings.seconds is not None and not (out / LAST).exists():
            states = 0 if (out / FILE).exists() else FITTED + COMPARED
            check_time(along, aim, starts, settings, network, time.monotonic, begin, states)
        with held(out):
            table = _start_law(along, starts, out)
        shown.append(mismatch(table))
        values |= {"start_law": table.attrs["chosen"], "start_law_p": _least(table)}

    def draw_sheet(network: torch.nn.Module, update: int) -> None:
        training_sheet(Trained(network, along, aim, about, update), out, settings.seed)

    of = f" of {len(classes)} classes" if classes else ""
    parts = f"{counted(len(training), 'image')}{of} to learn from, {len(held_out)} to validate"
    size = " x ".join(map(str, training.event_shape))
    with training_bar(settings, [f"{parts}, windows of {size}", *training.remarks], begin) as moved:
        model = train(
            network,
            along,
            aim,
            _sampler(training, encoding, classes),
            _sampler(held_out, encoding, classes),
            out,
            settings,
            about=about,
            watch=None if sheets is None else draw_sheet,
            every=sheets or 1,
            accelerator=device,
            **moved,
        )
    shown.insert(0, f"least validation loss after update {model.update}")
    return Answer(shown, {"update": model.update, **values}, {"run": out})


def _sampler(
    data: "ImageSet | PhaseFields", encoding: "Encoding | None", classes: tuple[str, ...] = ()
) -> "DataSampler":
    """Make the sampler of windows: images are encoded as phases, fields are taken as they are."""
    from circsde.data import ImageSet, RandomWindows

    return RandomWindows(data, encoding, classes) if isinstance(data, ImageSet) else data


def _check_windows(
    windows: Windows, training: "ImageSet | PhaseFields", held_out: "ImageSet | PhaseFields", stride: int
) -> None:
    """Refuse windows of two sizes, and of a size that the U-Net cannot halve as often as it does."""
    if training.event_shape != held_out.event_shape:
        raise ValueError(
            f"{windows.source} is one picture, the upper rows of which are to learn from and the lower ones to validate"
            " by, so that windows must be smaller: give --crop"
        )
    if any(side % stride for side in training.event_shape[-2:]):
        raise ValueError(
            f"windows have {' x '.join(map(str, training.event_shape[-2:]))} pixels, and the network needs multiples of"
            f" {stride}: give such a --crop, or --size"
        )


def _start_law(chain: "Chain", starts: "DataSampler", out: Path) -> "xr.Dataset":
    """Choose the start law and keep it in the run, unless it is there; returns how far each candidate is off."""
    from circsde.sampling.choose_start import FILE, choose, load_law, save_law

    if (out / FILE).exists():
        return load_law(out / FILE)[1]
    with console.progress_bar("preparing the law to start from", 5) as progress:
        law, table = choose(chain, starts, fitted=FITTED, compared=COMPARED, progress=progress)
    save_law(law, table, out / FILE)
    return table


def mismatch(table: "xr.Dataset") -> str:
    """The candidates in one line: the least p-value of each, and which is chosen."""
    told = ", ".join(f"{name} p = {p:.2g}" for name, p in _least(table).items())
    return f"sampling starts from the law {table.attrs['chosen']!r} ({told}, of {table.attrs['compared']} states)"


def _least(table: "xr.Dataset") -> dict[str, float]:
    """The least p-value of each candidate."""
    return {str(name): float(table["p_value"].sel(candidate=name).min()) for name in table["candidate"].values}

"""``circsde train``: a score model of angles or of images, and the folder that it leaves."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circsde.commands import console, options
from circsde.commands.options import DATA, OUTPUT, option

if TYPE_CHECKING:
    from torch import Tensor

    from circsde.data import Phases
    from circsde.models.settings import Settings


class ProcessName(StrEnum):
    """What drives data to a known law."""

    DIFFUSION = "diffusion"
    REFERENCE = "reference"
    GLOBAL = "global"
    LOCAL = "local"
    STANDARD = "standard"


class Preset(StrEnum):
    """The size of a U-Net."""

    TINY = "tiny"
    SMALL = "small"
    BASE = "base"


class ObjectiveName(StrEnum):
    """What the network regresses on."""

    BEST = "best"
    DENOISING = "denoising"
    ONE_STEP = "one-step"
    PATHWISE = "pathwise"


MODEL, IMAGES, TRAINING = "Model", "Images", "Training"

Table = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A .csv, .tsv, .npy or .nc file of angles, a sample per row; or torsion:lys, also :arg-1m, :cispro, :cys,"
        " :his, :trp, and of these /train, /validation or /test alone. To train on images: a folder or a file of"
        " images, texture:brick, :grass or :gravel, fingerprint, brodatz:FOLDER, cifar10:FOLDER, socofing:FOLDER.",
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a training, or a checkpoint in it.")]

EXAMPLES = """
[bold]Examples[/]

Lysine torsions by wrapped diffusion, the test rows left out:

  [cyan]circsde train torsion:lys --out runs/lys[/]

Two columns of a table, attracted to their mean directions; a short training:

  [cyan]circsde train angles.csv --unit deg --columns phi,psi --process reference --epochs 10 --out runs/mine[/]

Windows of a texture, coupled to their neighbours, for two minutes:

  [cyan]circsde train texture:brick --process local --crop 64 --size 32 --seconds 120 --out runs/brick[/]

Then [cyan]circsde sample runs/brick -n 64[/], or [cyan]circsde sample runs/lys -n 1000[/],
[cyan]circsde loglik runs/lys torsion:lys/test[/] and [cyan]circsde diagnose runs/lys[/].
"""


@console.reporting_errors
def train(
    source: Table,
    out: Annotated[Path, option(OUTPUT, "The folder of the run; a run that it holds goes on.", "--out", metavar="RUN")],
    unit: options.Unit = None,
    columns: options.Columns = None,
    drop_missing: options.DropMissing = False,
    held_out: Annotated[float, option(DATA, "The part of the rows that validate; of torsions it is fixed.")] = 0.1,
    process: Annotated[
        ProcessName,
        option(
            MODEL,
            "Noise alone; attraction to mean directions; coupling too. Images: also local, and standard (no phases).",
        ),
    ] = ProcessName.DIFFUSION,
    attraction: Annotated[float, option(MODEL, "Angles: K_ref, and K if coupled, over D.")] = 1.0,
    objective: Annotated[ObjectiveName, option(MODEL, "What to regress on.")] = ObjectiveName.BEST,
    smallest_noise: Annotated[float, option(MODEL, "Angles: the finest detail to resolve, rad.")] = 0.1,
    steps: Annotated[int, option(MODEL, "Steps of the forward chain.")] = 100,
    width: Annotated[int, option(MODEL, "Angles: units per layer.")] = 256,
    depth: Annotated[int, option(MODEL, "Angles: residual blocks.")] = 4,
    harmonics: Annotated[int, option(MODEL, "Angles: harmonics of each that the network reads.")] = 4,
    preset: Annotated[Preset, option(IMAGES, "Size of the U-Net: 0.6, 4 or 36 million parameters.")] = Preset.TINY,
    radius: Annotated[int, option(IMAGES, "Of the window of local coupling.")] = 5,
    crop: options.Crop = None,
    size: options.Size = None,
    colour: options.Colours = options.Colour.GREY,
    scale: options.Scale = 0.5,
    mirror: Annotated[bool, option(IMAGES, "Mirror every second window.", "--mirror")] = False,
    turn: Annotated[bool, option(IMAGES, "Turn windows by quarter turns.", "--turn")] = False,
    strict: Annotated[bool, option(IMAGES, "Refuse the set if an image cannot be used.", "--strict")] = False,
    cache: Annotated[Path | None, option(IMAGES, "A folder for a file of all pixels, mapped into memory.")] = None,
    epochs: Annotated[int, option(TRAINING, "Epochs; each ends with validation and a checkpoint.")] = 40,
    updates: Annotated[int, option(TRAINING, "Updates per epoch.")] = 500,
    seconds: Annotated[float | None, option(TRAINING, "Train for this time instead, in short epochs.")] = None,
    batch: Annotated[int | None, option(TRAINING, "Pairs per update: 256, of images 64.")] = None,
    learning_rate: Annotated[float | None, option(TRAINING, "Its peak: 0.001, of images 0.002.")] = None,
    patience: Annotated[int | None, option(TRAINING, "Stop after this many epochs without improvement.")] = None,
    device: Annotated[str, option(TRAINING, "cpu, gpu or auto.")] = "auto",
    seed: options.Seed = 0,
) -> None:
    """Learn the score of a table of angles, for samples and likelihoods, or of images.

    Killed at any time, it goes on from the last epoch when called again.
    """
    from circsde.models.settings import Settings

    is_images = holds_images(source)
    settings = Settings(
        epochs,
        updates if seconds is None else 25,
        batch or (64 if is_images else 256),
        learning_rate or (2e-3 if is_images else 1e-3),
        warmup=100 if is_images else 500,
        averaging=0.99 if is_images and seconds is not None else 0.999,
        patience=patience,
        pool=32 if is_images else 8,  # for images, as correlated as 8 with a stride of 10 and a fraction of the cost
        stride=1 if is_images else 10,
        seed=seed,
        seconds=seconds,
    )
    if is_images:
        from circsde.commands import train_images

        windows = train_images.Windows(source, crop, size, colour.value, scale, mirror, turn, strict, cache)
        train_images.fit(windows, process, objective, preset, radius, steps, settings, out, device)
        return
    if process in (ProcessName.LOCAL, ProcessName.STANDARD):
        raise ValueError(f"--process {process} is for images, and {source} is a table of angles: take global")
    data = read(source, unit, columns, drop_missing)
    training, validation = _parts(source, data, held_out, seed)

    import torch

    from circsde.matching import Chain
    from circsde.models.mlp import ScoreMLP
    from circsde.models.presets import Process, forward_process
    from circsde.models.presets import objective as best
    from circsde.models.relative import Relative
    from circsde.models.training import train as fit
    from circsde.models.transitions import Objective
    from circsde.torus import difference, mean_direction

    if not attraction > 0:
        raise ValueError(f"attraction must be positive, got {attraction:g}; for none take --process diffusion")
    centre = mean_direction(training.double(), 0)
    sde = forward_process(Process(process), training.shape[1:], attraction)
    chain = Chain.geometric(sde, steps, smallest_noise, linear_from=2.0)
    torch.manual_seed(seed)
    network = ScoreMLP(
        training.shape[1:],
        sde.schedule.diffusion,
        width=width,
        depth=depth,
        harmonics=harmonics,
        smallest_noise=smallest_noise,
    )
    score = network if process is ProcessName.DIFFUSION else Relative(network, sde)
    about = {
        "source": source,
        "unit": data.unit,
        "columns": columns,
        "names": list(data.names),
        "centre": centre.tolist(),
    }
    console.say(f"{len(training)} rows to learn from, {len(validation)} to validate, {training.shape[1]} angles")
    with training_bar(settings) as progress:
        model = fit(
            score,
            chain,
            best(Process(process)) if objective is ObjectiveName.BEST else Objective(objective),
            difference(training, centre.float()),
            difference(validation, centre.float()),
            out,
            settings,
            about=about,
            progress=progress,
            accelerator=device,
        )
    console.say(f"least validation loss after update {model.update}\nrun      {out}")


def holds_images(source: str) -> bool:
    """Whether ``source`` is one of images: a folder, an image file, or one by its kind."""
    from circsde.data.image_reader import KINDS
    from circsde.data.images import SUFFIXES

    path = Path(source)
    return source.partition(":")[0] in KINDS or path.is_dir() or path.suffix.lower() in SUFFIXES


@contextmanager
def training_bar(settings: "Settings") -> Iterator[Callable[[int], object]]:
    """A bar moved by the number of finished updates, or by the time where that is what ends; a failure in a message."""
    begin = time.monotonic()
    try:
        if settings.seconds is None:
            with console.progress_bar("training", settings.epochs * settings.updates) as progress:
                yield progress
        else:
            with console.progress_bar("training, seconds", round(settings.seconds)) as progress:
                yield lambda _: progress(int(time.monotonic() - begin))
    except FloatingPointError as error:
        console.fail(str(error), console.FAILED)


def read(source: str, unit: str | None, columns: str | None, drop_missing: bool) -> "Phases":
    """The table that ``source`` names; says so where rows were left out."""
    from circsde.data import load
    from circsde.data.torsion import torsion

    if source.startswith("torsion:"):
        if unit is not None or columns is not None:
            raise ValueError("torsions have their columns and their unit: drop unit and columns")
        residue, _, part = source.removeprefix("torsion:").partition("/")
        data = torsion(residue, part or None)
    else:
        names = None if columns is None else [name.strip() for name in columns.split(",")]
        data = load(source, unit=unit, columns=names, drop_missing=drop_missing)
    if data.encoding is not None or data.theta.ndim != 2:
        raise ValueError(f"{source} holds images: this learns tables of angles, a sample per row")
    if data.dropped:
        console.say(f"left out {data.dropped} rows that lack an angle")
    return data


def _parts(source: str, data: "Phases", held_out: float, seed: int) -> "tuple[Tensor, Tensor]":
    """Rows for training and for validation; the test rows of torsions are in neither."""
    import torch

    from circsde.data.torsion import split

    if source.startswith("torsion:") and "/" not in source:
        training, validation, _ = (data.theta[torch.from_numpy(rows)] for rows in split(len(data.theta)))
        return training, validation
    if not 0 < held_out < 1:
        raise ValueError(f"the part held out must be between 0 and 1, got {held_out:g}")
    order = torch.randperm(len(data.theta), generator=torch.Generator().manual_seed(seed))
    cut = round(held_out * len(order))
    if not 0 < cut < len(order):
        raise ValueError(f"{len(order)} rows are too few to hold out {held_out:g} of them")
    return data.theta[order[cut:]], data.theta[order[:cut]]

"""Options that several commands take, each declared once, and how they are completed and read."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from circsde.commands.completion import BACK_IN_TIME, METHODS, complete_method, complete_step_back


class Colour(StrEnum):
    """Channels of an image."""

    GREY = "grey"
    RGB = "rgb"


Precision = StrEnum("Precision", ["FLOAT32", "FLOAT64"])
"""Floating dtype of the phases."""

DeviceName = StrEnum("DeviceName", ["AUTO", "CPU", "CUDA"])
"""The device on which a network runs."""

DATA, SOLVER, OUTPUT = "Data", "Solver", "Output"

MOST_PIXELS = 10**8
"""The most pixels of an image, as more do not fit the memory of most machines with their phases and a history."""


def option(
    panel: str,
    help: str,
    *names: str,
    metavar: str | None = None,
    least: int | None = None,
    complete: Callable[[str], list[str]] | None = None,
    check: Callable[[int], int] | None = None,
) -> Any:
    """A Typer option under the heading ``panel`` of the help, a whole number of at least ``least``."""
    metavar = "N" if least is not None else metavar
    return typer.Option(
        *names, help=help, metavar=metavar, min=least, autocompletion=complete, callback=check, rich_help_panel=panel
    )


def flag(panel: str, help: str, *names: str) -> Any:
    """A Typer option that is on or off, under the heading ``panel`` of the help."""
    return typer.Option(*names, help=help, metavar=" ", rich_help_panel=panel)


def check_seed(seed: int) -> int:
    """Refuse a seed that torch does not take."""
    if seed >= 2**63:
        raise typer.BadParameter("a seed must be below 2^63")
    return seed


def check_named(source: str) -> str:
    """Refuse an empty name, which as a path would be the folder at hand."""
    if not source:
        raise typer.BadParameter("it is empty: give the name of a file, a folder or a data set")
    return source


_FILE = "a file of angles, a sample per row (.csv, .txt, .npy, .nc, .parquet, ...: see the page on files)"
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help=f"An image file; a folder of images; {_FILE}; texture:brick, texture:grass or texture:gravel; fingerprint,"
        " if you like fingerprint:loop, :whorl or :arch; brodatz:FOLDER, cifar10:FOLDER, socofing:FOLDER; or"
        " torsion:lys and others.",
        callback=check_named,
    ),
]
_TABLE = (
    f"{_FILE.capitalize()}; or torsion:lys, also :arg-1m, :cispro, :cys, :his, :trp, and of these /train, /validation"
    " or /test alone."
)
Table = Annotated[str, typer.Argument(metavar="DATA", help=_TABLE, callback=check_named)]
TableOrImages = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help=f"{_TABLE} To train on images: a folder or a file of images, texture:brick, :grass or :gravel,"
        " fingerprint, brodatz:FOLDER, cifar10:FOLDER, socofing:FOLDER.",
        callback=check_named,
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a training, or a checkpoint in it.")]
Count = Annotated[int | None, option(DATA, "Samples to take; all, or one of a picture.", "-n", "--count", least=1)]
Size = Annotated[str | None, option(DATA, "Images: resize them to this many pixels.", metavar="N|RxC")]
Crop = Annotated[str | None, option(DATA, "Images: first cut out windows of this size.", metavar="N|RxC")]
Centre = Annotated[bool, flag(DATA, "Images: cut the window from the middle, not at random.", "--centre")]
Colours = Annotated[Colour, option(DATA, "Images: use one channel or three.", "--colour")]
_SCALE = "Images: black and white are at -/+ this many pi"
Scale = Annotated[float, option(DATA, f"{_SCALE}.")]
ScaleByRates = Annotated[float | None, option(DATA, f"{_SCALE}, by default 0.15 with settling rates, else 0.5.")]


class Encode(StrEnum):
    """Which property of a picture becomes the phase."""

    GREY = "grey"
    ORIENTATION = "orientation"


Unit = Annotated[str | None, option(DATA, "Angles: rad, deg, hours, or the length of a turn.", metavar="UNIT|PERIOD")]
Columns = Annotated[str | None, option(DATA, "Angles: columns to read, by name or as 1,2,...", metavar="A,B,...")]
DropMissing = Annotated[bool, flag(DATA, "Angles: leave out rows in which one is missing.", "--drop-missing")]
Missing = Annotated[
    str | None,
    option(DATA, "Angles: numbers that stand for a missing angle; none if no number does.", metavar="A,B,...|none"),
]
Along = Annotated[
    str | None, option(DATA, "Angles: the dimension whose entries are the samples, such as time.", metavar="NAME")
]
OfComplex = Annotated[bool, flag(DATA, "Angles: take the phases of complex numbers.", "--phases")]
Dtype = Annotated[Precision, option(SOLVER, "The precision of the phases.", "--dtype")]
Seed = Annotated[int, option(SOLVER, "The seed of all random numbers.", least=0, check=check_seed)]
Method = Annotated[str, option(SOLVER, f"{', '.join(METHODS)}.", metavar="METHOD", complete=complete_method)]
StepBack = Annotated[
    str | None,
    option(
        SOLVER,
        f"{', '.join((*METHODS, *BACK_IN_TIME))}; by default multistep for images, else heun.",
        metavar="METHOD",
        complete=complete_step_back,
    ),
]
Device = Annotated[DeviceName, option(SOLVER, "The device of the network; auto takes a graphics card if there is one.")]
Out = Annotated[
    Path | None,
    option(
        OUTPUT,
        "Write PATH.nc and PATH.png; for PATH.csv, write the last angles to it. By default, or if PATH is a folder,"
        " files are named after the source.",
        metavar="PATH",
    ),
]
SamplesOut = Annotated[
    Path | None,
    option(
        OUTPUT,
        "Write PATH.nc and PATH.png; if it is PATH.csv, write angles as a table. The default is the folder of the run.",
        metavar="PATH",
    ),
]
ModelOut = Annotated[
    Path | None,
    option(OUTPUT, "Write PATH.nc and PATH.png, if there is a picture; by default to the run.", metavar="PATH"),
]
Force = Annotated[bool, flag(OUTPUT, "Replace files that exist.", "--force")]


def size(text: str | None) -> tuple[int, int] | None:
    """``"64"`` or ``"64x96"`` as rows and columns.

    >>> size("64"), size("64x96")
    ((64, 64), (64, 96))
    """
    if text is None:
        return None
    rows, _, columns = text.lower().partition("x")
    try:
        pixels = int(rows), int(columns or rows)
    except ValueError:
        raise ValueError(f"{text!r} is not a size: give pixels, as 64, or rows x columns, as 64x96") from None
    if math.prod(pixels) > MOST_PIXELS:
        raise ValueError(f"{text!r} is too large a size: at most {MOST_PIXELS} pixels")
    return pixels


def rate(text: str | None) -> tuple[float, float]:
    """``"2"`` or ``"0.1,3"`` as the values of a rate at the start and at the end; zero if there is none.

    >>> rate("2"), rate("0.1,3"), rate(None)
    ((2.0, 2.0), (0.1, 3.0), (0.0, 0.0))
    """
    start, _, end = (text or "0").partition(",")
    try:
        return float(start), float(end or start)
    except ValueError:
        raise ValueError(f"{text!r} is not a rate: give one number, as 2, or start,end, as 0.1,3") from None


def beside(run: Path, name: str) -> Path:
    """Where a command on a model writes by default: in the folder of its run."""
    return (run if run.is_dir() else run.parent) / name


def names(text: str | None) -> list[str] | None:
    """``"heun,sra1"`` as names, each once.

    >>> names("heun, sra1,heun"), names(None)
    (['heun', 'sra1'], None)
    """
    if text is None:
        return None
    found = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not found:
        raise ValueError(f"{text!r} names nothing: give names with commas between")
    return found


def numbers(text: str | None) -> list[int] | None:
    """``"5,10"`` as whole numbers, each once.

    >>> numbers("5, 10")
    [5, 10]
    """
    try:
        found = None if text is None else list(dict.fromkeys(int(x) for x in text.split(",")))
    except ValueError:
        raise ValueError(f"{text!r} is not a list of whole numbers: give steps as 5,10,20") from None
    if found is not None and min(found) < 1:
        raise ValueError(f"numbers of steps must be positive, got {min(found)}")
    return found


def reals(text: str | None) -> list[float] | None:
    """``"0,0.5"`` as numbers, each once.

    >>> reals("0, 0.5")
    [0.0, 0.5]
    """
    try:
        return None if text is None else list(dict.fromkeys(float(x) for x in text.split(",")))
    except ValueError:
        raise ValueError(f"{text!r} is not a list of numbers: give them as 0,0.5,1") from None


def check_positive(**numbers: float | None) -> None:
    """Refuse numbers, by the names of their options, that are not positive and finite.

    >>> check_positive(seconds=None, learning_rate=0.0)
    Traceback (most recent call last):
    ValueError: --learning-rate must be positive and finite, got 0
    """
    for name, number in numbers.items():
        if number is not None and not 0.0 < number < math.inf:
            raise ValueError(f"{_dashed(name)} must be positive and finite, got {number:g}")


def check_probability(**numbers: float) -> None:
    """Refuse numbers, by the names of their options, that are not between 0 and 1.

    >>> check_probability(confidence=95.0)
    Traceback (most recent call last):
    ValueError: --confidence must be between 0 and 1, got 95
    """
    for name, number in numbers.items():
        if not 0.0 < number < 1.0:
            raise ValueError(f"{_dashed(name)} must be between 0 and 1, got {number:g}")


def check_forward(methods: Sequence[str], what: str) -> None:
    """Refuse methods for reversed equations, where ``what`` is none."""
    backward = [name for name in methods if name in BACK_IN_TIME]
    if backward:
        raise ValueError(f"{', '.join(backward)}: for reversed equations only, and {what} is not one; take heun")


def refuse(command: Callable[..., object], given: Mapping[str, object], names: Sequence[str], why: str) -> None:
    """Refuse those of the options ``names`` that differ from their defaults: they would be without effect."""
    parameters = inspect.signature(command).parameters
    changed = [_dashed(name) for name in names if given[name] != parameters[name].default]
    if changed:
        raise ValueError(f"{', '.join(changed)}: {why}")


def check_radius(radius: int, event_shape: Sequence[int]) -> None:
    """Refuse a window of local coupling that is wider than the data.

    >>> check_radius(5, (8, 8))
    Traceback (most recent call last):
    ValueError: --radius 5 is a window of 11, which does not fit data of 8 x 8: take a smaller one, or global coupling
    """
    if 2 * radius + 1 > min(event_shape[-2:]):
        raise ValueError(
            f"--radius {radius} is a window of {2 * radius + 1}, which does not fit data of"
            f" {' x '.join(map(str, event_shape))}: take a smaller one, or global coupling"
        )


def device(name: DeviceName) -> str:
    """The device by torch's name, "cpu" or "cuda"."""
    import torch

    if name is DeviceName.CUDA and not torch.cuda.is_available():
        raise ValueError("there is no graphics card for --device cuda: take cpu or auto")
    return "cuda" if name is not DeviceName.CPU and torch.cuda.is_available() else "cpu"


def _dashed(name: str) -> str:
    return "--" + name.replace("_", "-")

"""Options that several commands take, each declared once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Colour(StrEnum):
    """Channels of an image."""

    GREY = "grey"
    RGB = "rgb"


class Precision(StrEnum):
    """Floating dtype of the phases."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


DATA, SOLVER, OUTPUT = "Data", "Solver", "Output"


def option(panel: str, help: str, *names: str, metavar: str | None = None) -> Any:
    """A Typer option under the heading ``panel`` of the help."""
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel)


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="An image file; a folder of images; a .csv, .tsv, .npy or .nc file of angles; texture:brick, texture:grass"
        " or texture:gravel; or fingerprint, if you like fingerprint:loop, :whorl or :arch.",
    ),
]
Count = Annotated[int | None, option(DATA, "Samples: all by default, one of a picture.", "-n", "--count")]
Size = Annotated[str | None, option(DATA, "Images: resize to this many pixels.", metavar="N|RxC")]
Crop = Annotated[str | None, option(DATA, "Images: first cut out a window of this size.", metavar="N|RxC")]
Centre = Annotated[bool, option(DATA, "Images: cut it from the middle, not at random.", "--centre")]
Colours = Annotated[Colour, option(DATA, "Images: one channel or three.", "--colour")]
Scale = Annotated[float, option(DATA, "Images: black and white are at -/+ this many pi.")]
Unit = Annotated[str | None, option(DATA, "Angles: rad, deg, hours, or the length of a turn.", metavar="UNIT|PERIOD")]
Columns = Annotated[str | None, option(DATA, "Angles: columns, by name or, without names, 1,2,...", metavar="A,B,...")]
DropMissing = Annotated[bool, option(DATA, "Angles: leave out rows that lack one.", "--drop-missing")]
Dtype = Annotated[Precision, option(SOLVER, "Precision of the phases.", "--dtype")]
Seed = Annotated[int, option(SOLVER, "Seed of everything random.")]
Out = Annotated[
    Path | None, option(OUTPUT, "Write PATH.nc and PATH.png; by default named after the source.", metavar="PATH")
]
Force = Annotated[bool, option(OUTPUT, "Replace files that exist.", "--force")]


def size(text: str | None) -> tuple[int, int] | None:
    """``"64"`` or ``"64x96"`` as rows and columns.

    >>> size("64"), size("64x96")
    ((64, 64), (64, 96))
    """
    if text is None:
        return None
    rows, _, columns = text.lower().partition("x")
    try:
        return int(rows), int(columns or rows)
    except ValueError:
        raise ValueError(f"{text!r} is not a size: give pixels, as 64, or rows x columns, as 64x96") from None


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

"""The answer of a command: lines and tables for a person, values for a program, and the files that it wrote."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import xarray as xr

_PIPED = 160  # columns of a table where there is no terminal to ask


@dataclass(frozen=True)
class Answer:
    """The answer of a command.

    Attributes:
        shown: For a person, from top to bottom.
        values: The same for a program; :func:`plain` says how they become JSON.
        files: What was written, by what it holds.
    """

    shown: Sequence[str | Text | Table]
    values: Mapping[str, object]
    files: Mapping[str, Path] = field(default_factory=dict)


def show(answer: Answer) -> None:
    """Print an answer on stdout for a person; lines and paths as they are, however wide, so that they can be copied."""
    for part in answer.shown:
        if isinstance(part, Table):
            Console(width=None if sys.stdout.isatty() else _PIPED).print(part)
        else:
            say(part)
    for kind, path in answer.files.items():
        say(f"{kind:8} {path}")


def show_json(**members: object) -> None:
    """Print one JSON object on stdout, in ASCII, so that it is valid JSON in any encoding."""
    say(json.dumps(plain(members), indent=2, allow_nan=False))


def say(line: str | Text) -> None:
    """Print a line on stdout, as it is."""
    Console(soft_wrap=True, highlight=False).print(line if isinstance(line, Text) else Text(line))


def counted(number: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "row"), counted(2, "row")
    ('1 row', '2 rows')
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def plain(value: Any) -> Any:
    """``value`` as JSON knows it: arrays as lists, a number that is not finite as null, a path or a name as text.

    >>> plain({"steps": (5, 10), "order": math.nan, "file": Path("a.nc")})
    {'steps': [5, 10], 'order': None, 'file': 'a.nc'}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else str(value)


def records(table: "xr.Dataset", *names: str) -> list[dict[Any, Any]]:
    """The variables ``names``, of one shape, as a list of rows that know their coordinates."""
    return table[list(names)].to_dataframe().reset_index().to_dict("records")

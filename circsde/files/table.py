"""Shared by the readers of angles: a table as read, the choice of columns, and the reasons against the others."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from circsde.contracts import first_few
from circsde.files.units import is_of_angles, unit_name

HOUR = np.timedelta64(1, "h")

DATES = "dates: write the hour of the day, or the day of the year, as a number"
"""Why a column of dates cannot be taken."""


class Table(NamedTuple):
    """Angles as read, ``(batch, *event)`` in the unit of the file.

    Attributes:
        values: The angles, NaN where one is missing.
        names: One name per column; none of an array of more axes.
        unit: What the file states, by the name that :func:`circsde.files.units.stated` gives it; None if it does not.
        dropped: Rows left out because an angle was missing.
        left_out: Columns that were not taken, each with the reason.
        notes: What else is worth knowing about how the file was read.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...]
    unit: str | None = None
    dropped: int = 0
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def said(self, path: str | Path, unit: str) -> str:
        """One line on what was read: rows, columns, unit, range, what was left out.

        >>> Table(np.array([[10.0], [350.0]]), ("phi",), left_out=("station (text)",)).said("a.csv", "deg")
        'a.csv: read 2 rows of column phi, in deg from 10 to 350; left out station (text)'
        """
        what = (
            f"column{'s' * (len(self.names) > 1)} {first_few(self.names)}"
            if self.names
            else f"shape {'x'.join(map(str, self.values.shape[1:]))}"
        )
        text = f"{path}: read {_rows(len(self.values))} of {what}, in {unit_name(unit)}"
        text += f" from {self.values.min():g} to {self.values.max():g}"
        text += f"; left out {first_few(self.left_out)}" if self.left_out else ""
        return text + (f"; left out {_rows(self.dropped)} without all angles" if self.dropped else "")


def _rows(number: int) -> str:
    return "1 row" if number == 1 else f"{number} rows"


@dataclass(frozen=True)
class Column:
    """A column or a variable of a file, before it is taken.

    Attributes:
        name: Its name; empty for a column that has none.
        unit: The unit that the file states for it.
        fault: Why it cannot be taken, such as "text".
        doubt: Why it is not taken unless it is asked for.
        error: What is wrong with it once it is taken.
    """

    name: str
    unit: str | None = None
    fault: str = ""
    doubt: str = ""
    error: str = ""


@dataclass(frozen=True)
class Request:
    """A request for columns of a file.

    Attributes:
        columns: Names of the columns to take, in this order.
        like: Names to take if the file has them all and no columns are asked for.
        along: The dimension, or for arrays the axis from 0 on, whose entries are the samples.
        phases: Take the phases of complex numbers.
    """

    columns: Sequence[str] | None = None
    like: Sequence[str] | None = None
    along: str | int | None = None
    phases: bool = False


class Choice(NamedTuple):
    """The columns that are taken, their common unit, and the others, each with the reason."""

    names: tuple[str, ...]
    unit: str | None
    left_out: tuple[str, ...]


def choose(path: Path, columns: Sequence[Column], request: Request) -> Choice:
    """Which of ``columns`` are angles, or are asked for.

    Unless some are asked for, columns that state a unit of angles are taken, or if there is none, those that state no
    unit at all.

    Raises:
        ValueError: If an unknown column is asked for, one that is taken has a fault, units differ, or none is left.
    """
    usable = {column.name: column for column in columns if not column.fault}
    wanted = request.columns
    if wanted is None and request.like and usable.keys() >= set(request.like):
        wanted = request.like
    reasons = {column.name: column.fault or column.doubt for column in columns}
    if wanted is None:
        free = [column for column in usable.values() if not column.doubt]
        angular = [column.name for column in free if column.unit is not None and is_of_angles(column.unit)]
        wanted = angular or [column.name for column in free if column.unit is None]
        others = {
            column.name: f"in {column.unit}" if column.unit else "without a unit, which others have" for column in free
        }
        reasons |= {name: others[name] for name in others.keys() - set(wanted)}
    taken_names = set(wanted)
    left_out = tuple(
        f"{column.name} ({reason})" if column.name else reason
        for column in columns
        if column.name not in taken_names and (reason := reasons[column.name])
    )
    unknown = [name for name in wanted if name not in usable]
    if unknown:
        has = f"it has {first_few(tuple(usable))}" if usable else "it has no names"
        why = f" ({unknown[0]}: {reasons[unknown[0]]})" if reasons.get(unknown[0]) else ""
        raise ValueError(f"{path} has no column of angles {unknown[0]!r}: {has}{why}")
    if not wanted:
        why = f": {first_few(left_out)}" if left_out else ""
        ask = "; columns (--columns) takes one all the same" if any(column.unit for column in usable.values()) else ""
        raise ValueError(f"{path} has no column of numbers that may be angles{why}{ask}")
    if len(taken_names) < len(wanted):
        raise ValueError(f"columns are asked for twice: {first_few(wanted)}")
    taken = [usable[name] for name in wanted]
    for column in taken:
        if column.error:
            raise ValueError(f"{path}: {column.error}")
    units = {column.unit for column in taken}
    if len(units) > 1:
        each = first_few([f"{column.name} in {column.unit or 'no unit'}" for column in taken])
        raise ValueError(f"{path} has angles in different units ({each}): choose columns of one unit")
    return Choice(tuple(wanted), units.pop(), left_out)


def stacked(path: Path, arrays: Mapping[str, NDArray[np.float64]]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Several 1-D arrays as columns, or one array with its samples along the first axis, and the columns' names.

    Raises:
        ValueError: If there are several that are no columns of one length.
    """
    ((first, one), *others) = arrays.items()
    if not others and one.ndim > 1:
        return one, tuple(str(i + 1) for i in range(one.shape[1])) if one.ndim == 2 else ()
    if any(array.ndim != 1 or len(array) != len(one) for array in arrays.values()):
        shapes = first_few([f"{name} {array.shape}" for name, array in arrays.items()])
        raise ValueError(f"{path} has the arrays {shapes}: choose one, or several columns of one length, by columns")
    return np.stack(list(arrays.values()), axis=1), (first, *(name for name, _ in others))


def unique(names: Sequence[str]) -> list[str]:
    """Names of which the second of its kind ends in ``_2``, and so on; empty ones stay.

    >>> unique(["phi", "psi", "phi", "phi_2", ""])
    ['phi', 'psi', 'phi_3', 'phi_2', '']
    """
    taken, seen, result = set(names), set[str](), list[str]()
    for name in names:
        if name and name in seen:
            name = next(fresh for k in count(2) if (fresh := f"{name}_{k}") not in taken)
            taken.add(name)
        seen.add(name)
        result.append(name)
    return result


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name ``path`` in what a reader raises, which for a damaged file is nearly anything."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"cannot read {path}: {error}") from error


def needs(package: str, path: Path) -> None:
    """Refuse to read ``path`` without ``package``, which is not one that circsde brings with it."""
    try:
        import_module(package)
    except ImportError as error:
        raise ValueError(
            f"reading {path} needs {package} ({error}): pip install {package}, or save it as .csv or .nc"
        ) from None

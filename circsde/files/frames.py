"""Columns of a pandas frame as numbers: angles, times of day, durations, and what is none of these."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circsde.contracts import first_few
from circsde.files.table import DATES, HOUR, Column, Request, Table, choose, naming, needs, stacked, unique
from circsde.files.text_dialect import MISSING, TIME, is_number

if TYPE_CHECKING:
    Series: TypeAlias = pd.Series[Any]
else:
    Series = pd.Series  # takes no type parameter before pandas 3

_ROUNDS = tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1)
EXACT: Any = {"float_precision": "round_trip"} if _ROUNDS else {}
"""Options with which ``pandas.read_csv`` reads numbers to the last bit, as it does by itself from version 3.1 on."""

_LIKELY = r"^[+-]?(?:\d|[.,]\d|[iI][nN][fF])"  # how a cell begins that may be a number or a time


@dataclass
class Numbers:
    """The numbers of one column, gathered chunk by chunk.

    Attributes:
        parts: The numbers, NaN where there is none.
        unit: What the cells themselves say: "deg" by their sign, "hours" as times of day.
        other: The first cell that is no number, with its row from 1 on.
        dates: Whether it holds dates.
    """

    parts: list[NDArray[np.float64]] = field(default_factory=list)
    unit: str | None = None
    other: tuple[int, str] | None = None
    dates: bool = False

    def add(self, series: Series, decimal: str, first_row: int) -> None:
        """Append a column of the next chunk, which begins with that row."""
        kind = series.dtype.kind
        if kind in "fiu":
            self._keep(series.to_numpy(dtype=np.float64, na_value=np.nan), None)
        elif kind == "m":
            self._keep(series.to_numpy() / HOUR, "hours")
        elif kind == "M":
            self.dates = True
            self._keep(np.full(len(series), np.nan), None)
        else:
            values, unit, other = _read(series, decimal)
            if other is not None and self.other is None:
                self.other = (first_row + other, str(series.iloc[other]))
            self._keep(values, unit)

    def _keep(self, values: NDArray[Any], unit: str | None) -> None:
        mixed = "hours" in (unit, self.unit) and unit != self.unit and np.isfinite(values).any()
        if mixed and self.other is None and any(np.isfinite(part).any() for part in self.parts):
            self.other = (sum(map(len, self.parts)) + 1, "a number and times of day above or below it")
        self.unit = self.unit or unit
        self.parts.append(np.asarray(values, dtype=np.float64))

    def values(self) -> NDArray[np.float64]:
        """All numbers so far."""
        return np.concatenate(self.parts) if self.parts else np.empty(0)

    def gaps(self) -> bool:
        """Whether a row has no number here."""
        return any(np.isnan(part).any() for part in self.parts)

    def described(self, name: str, unit: str | None, *, counts: bool) -> Column:
        """The column as it may be taken."""
        row, cell = self.other or (0, "")
        if self.dates:
            return Column(name, fault=DATES)
        number = is_number(cell, ".") or is_number(cell, ",")  # with the other decimal mark, or beside times of day
        if not number and not any(np.isfinite(part).any() for part in self.parts):
            return Column(name, fault=f"text, such as {cell!r} in row {row}" if row else "", doubt="no number")
        error = f"row {row}, column {name} says {cell!r}, not a number" if row else ""
        error += "; put # before lines that are neither names nor data" if row == 1 else ""
        unit = self.unit or unit
        return Column(name, unit, doubt="it counts the rows" if counts and unit is None else "", error=error)


def gathered(frames: Iterable[pd.DataFrame], width: int, decimal: str = ".") -> list[Numbers]:
    """The columns of consecutive frames as numbers."""
    columns, rows = [Numbers() for _ in range(width)], 0
    for frame in frames:
        for j, numbers in enumerate(columns):
            numbers.add(frame.iloc[:, j], decimal, rows + 1)
        rows += len(frame)
    return columns


def table(
    path: Path, names: Sequence[str], columns: Sequence[Numbers], units: Mapping[str, str], request: Request
) -> Table:
    """The table of the gathered ``columns``: those asked for, or those that hold angles.

    Columns without a name that stand before all others number the rows, and are left out.
    """
    first = next((i for i, name in enumerate(names) if name), 0)
    values = [numbers.values() for numbers in columns]
    counts = [_counting(each) for each in values]
    if all(counts[i] or not np.isfinite(values[i]).any() for i in range(first, len(names))):
        counts = [False] * len(values)
    offered = [Column("", fault="the first column, without a name")] * first
    for i in range(first, len(names)):
        name = names[i] or str(i + 1)
        offered.append(columns[i].described(name, units.get(name), counts=counts[i]))
    times = [column.name for column, each in zip(offered, columns, strict=True) if each.unit == "hours" and column.name]
    others = [column.name for column in offered if column.unit is None and not (column.fault or column.doubt)]
    if times and others and request.columns is None:
        raise ValueError(
            f"{path} has times of day, {first_few(times)}, and numbers, {first_few(others)}: say which are the"
            " angles by columns (--columns)"
        )
    choice = choose(path, offered, request)
    known = {column.name: each for column, each in zip(offered, values, strict=True)}
    stack, names = stacked(path, {name: known[name] for name in choice.names})
    return Table(stack, names, choice.unit, left_out=choice.left_out)


def _counting(values: NDArray[np.float64]) -> bool:
    """Whether ``values`` are 0, 1, 2, ... or 1, 2, 3, ..., of at least three rows."""
    return len(values) > 2 and values[0] in (0.0, 1.0) and bool((np.diff(values) == 1.0).all())


def read_parquet(path: Path, request: Request) -> Table:
    """Angles from a parquet file, which needs pyarrow."""
    needs("pyarrow", path)
    with naming(path):
        frame = pd.read_parquet(path, engine="pyarrow")
    names = unique([str(name) for name in frame.columns])
    return table(path, names, gathered([frame], len(names)), {}, request)


def _read(series: Series, decimal: str) -> tuple[NDArray[np.float64], str | None, int | None]:
    """Numbers of cells of text, the unit that they state, and the first place where there is something else."""
    text = series.astype("string").str.strip().fillna("")
    likely = np.flatnonzero(text.str.contains(_LIKELY, regex=True).to_numpy(dtype=bool))
    times = text.iloc[likely].str.fullmatch(TIME).to_numpy(dtype=bool)
    plain, signed = text.iloc[likely[~times]], np.zeros(int((~times).sum()), dtype=bool)
    if decimal == ",":
        plain = plain.where(~plain.str.contains(".", regex=False), "?").str.replace(",", ".", regex=False)
    if plain.str.contains("[°º]", regex=True).any():
        signed = plain.str.contains("[°º]$", regex=True).to_numpy(dtype=bool)
        plain = plain.str.rstrip("°º ")
    values = np.full(len(text), np.nan)
    numbers = pd.to_numeric(plain, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if _ROUNDS:  # in the last digits, so that what is a number is read once more
        numbers = np.array([float(cell) if x == x else x for cell, x in zip(plain, numbers, strict=True)])
    values[likely[~times]] = numbers
    found = ~np.isnan(values)
    unit = "deg" if signed[found[likely[~times]]].any() else None
    if times.any() and not found.any():
        values[likely[times]] = [_hours(cell) for cell in text.iloc[likely[times]].tolist()]
        unit = "hours"
    rest = np.flatnonzero(np.isnan(values))
    rest = rest[~text.iloc[rest].str.lower().isin(MISSING).to_numpy(dtype=bool)]
    return values, unit, int(rest[0]) if len(rest) else None


def _hours(time: str) -> float:
    """The hours of a time of day, or of a duration as pandas writes it.

    >>> _hours("6:30"), _hours("06:30:36"), _hours("-1 days +23:30:00")
    (6.5, 6.51, -0.5)
    """
    *days, clock = time.split(" ")
    hours, minutes, *seconds = clock.lstrip("+").split(":")
    whole = 24.0 * int(days[0]) if days else 0.0
    return whole + int(hours) + int(minutes) / 60.0 + (float(seconds[0]) / 3600.0 if seconds else 0.0)

"""Doubts about angles that were read: codes for missing angles, radians that are called degrees, axial data."""

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circsde.contracts import first_few
from circsde.encoding import PERIODS, period
from circsde.files.table import Table
from circsde.files.units import is_of_angles, stated, unit_name

CODES = (-99.0, -999.0, -9999.0, -99999.0, -32768.0, 999.0, 999.9, 9999.0, 99999.0, 1e20, 4.0 * math.pi)
"""Numbers that stand for a missing angle in files of weather, sea and microscopes; EBSD maps have the last one."""

FEW, MANY = 3, 20
"""The fewest angles that show that they stay within a small part, and within one half, of the circle."""


def code(values: NDArray[np.float64], names: Sequence[str]) -> tuple[int, str, float] | None:
    """Row (from 1), column and value of the first number that seems to say that there is no angle.

    It is in :data:`CODES`, or too large for any angle, and far from all the other values of its column: half as large
    again beyond a turn of degrees or where the others could be radians, else negative where no other is.
    """
    labelled = list(_columns(values, names))
    matrix = values.reshape(-1, len(labelled))
    extremes = np.stack([np.fmin.reduce(matrix), np.fmax.reduce(matrix)])
    suspect = np.isclose(extremes[..., None], CODES, rtol=1e-6, atol=0.0).any(-1) | (np.abs(extremes) >= 1e20)
    for j, end in np.argwhere(suspect.T):
        (name, column), value = labelled[j], extremes[end, j]
        same = np.isclose(column, value, rtol=1e-6, atol=0.0)
        others = column[np.isfinite(column) & ~same]
        largest = float(np.abs(others).max()) if len(others) else 0.0
        far = abs(value) >= 1.5 * largest and (abs(value) > 360.0 or largest < 6.3)
        if np.isfinite(value) and (far or (value < 0.0 and not (others < 0.0).any())):
            return int(np.argmax(same)) * len(values) // len(column) + 1, name, float(value)
    return None


def radians_as_degrees(values: NDArray[np.float64], names: Sequence[str]) -> list[str]:
    """The columns that stay within 2 pi, as radians would, though they are called degrees."""
    return [
        name
        for name, column in _columns(values, names)
        if np.nanmax(np.abs(column), initial=0.0) <= 2.0 * math.pi + 1e-6
        and len(np.unique(column[np.isfinite(column) & (column != 0.0)][:1000])) >= FEW
    ]


def axial(values: NDArray[np.float64], names: Sequence[str], unit: str) -> list[str]:
    """The columns that fill one half of the circle up to its ends, as orientations do, and never leave it."""
    half = 0.5 * PERIODS[unit.lower()]
    found = []
    for name, column in _columns(values, names):
        finite = column[np.isfinite(column)]
        if len(finite) < MANY:
            continue
        low, high = finite.min(), finite.max()
        start = 0.0 if low >= 0.0 else -0.5 * half
        margin = 0.1 * half
        if start - 1e-9 <= low <= start + margin and start + half - margin <= high <= start + half * (1.0 + 1e-9):
            found.append(name)
    return found


def settled_unit(path: Path, table: Table, given: str | float | None, otherwise: str | None) -> str | float:
    """The unit in which ``table`` is to be read: the one given, else the one the file states, else ``otherwise``.

    Warns:
        UserWarning: If it is not the one that the file states; if degrees stay within 2 pi, as radians would; if
            angles fill half of the circle and never leave it, as axial data do.

    Raises:
        ValueError: If there is no unit, or one that is none of angles; if the file alone calls degrees what stays
            within 2 pi.
    """
    unit = given if given is not None else table.unit if table.unit is not None else otherwise
    if unit is None:
        raise ValueError(f"{path} does not state the unit of its angles: give unit rad, deg, hours, or a period")
    if given is None and table.unit is not None and not is_of_angles(table.unit):
        raise ValueError(
            f"{path} states the unit {unit}, which is not a unit of angles: give unit rad, deg, hours, or a period"
        )
    if given is not None and table.unit not in (None, stated(given)):
        _warn(f"{path} states the unit {table.unit}; it is read in {unit_name(str(given))}, as asked for")
    if not isinstance(unit, str) or unit.lower() not in PERIODS:
        return unit
    small = radians_as_degrees(table.values, table.names) if period(unit) == 360.0 else []
    if small:
        what = f"{path}: {first_few(small)} in degrees stay within 2 pi, as radians do"
        if given is None and table.unit is not None:
            raise ValueError(
                f"{what}: a conversion may have kept the unit of before, as numpy.deg2rad of an xarray array does. Give"
                " unit rad (--unit rad), or deg if they are degrees, or choose other columns"
            )
        _warn(f"{what}: if they are radians, give unit rad (--unit rad)")
    half = [] if small else axial(table.values, table.names, unit)
    if half:
        turn = 0.5 * period(unit)
        _warn(
            f"{path}: {first_few(half)} fill one half of the circle and never leave it. If they are the same after"
            f" half a turn, as orientations are, give unit={turn:.16g} (--unit {turn:.16g}), the length of their turn;"
            " if they are angles between two directions, they are no angles on a circle"
        )
    return unit


def largest(values: NDArray[np.float64], names: Sequence[str]) -> tuple[int, str]:
    """Row (from 1) and column of the largest angle, either way."""
    place = int(np.argmax(np.abs(values)))
    row, column = divmod(place, values[0].size)
    return row + 1, names[column] if names else str(column + 1)


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=4)  # the caller of load


def _columns(values: NDArray[np.float64], names: Sequence[str]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Each column by its name, or all of an array that has none as one."""
    if values.ndim == 2 and len(names) == values.shape[1]:
        yield from zip(names, values.T, strict=True)
    else:
        yield "of the array", values.reshape(-1)

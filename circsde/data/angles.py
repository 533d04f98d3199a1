"""Angles from CSV, NPY and NetCDF files, one sample per row."""

import csv
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circsde.record import interrupts_wait

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-"})
"""What a CSV cell says, in any case, where there is no angle."""


class Table(NamedTuple):
    """Angles as read, ``(batch, *event)`` in the unit of the file."""

    values: NDArray[np.float64]
    names: tuple[str, ...]
    unit: str | None = None
    dropped: int = 0


def read_angles(path: str | Path, columns: Sequence[str] | None = None, *, drop_missing: bool = False) -> Table:
    """Angles from a ``.csv``, ``.tsv``, ``.npy`` or ``.nc`` file.

    Args:
        path: The file.
        columns: Names of the columns (CSV) or variables (NetCDF) to take, in this order; in a CSV file without a
            header and in a 2-D array they are "1", "2", ... By default all that hold numbers.
        drop_missing: Leave out, and count, rows in which an angle is missing.

    Raises:
        ValueError: If the file cannot be read, a column is unknown or not numeric, or an angle is missing or
            infinite; it is named by row (the first row of data is 1) and column.
    """
    path = Path(path)
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".npy": _read_npy, ".nc": _read_netcdf}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"cannot tell what {path} holds: images end in .png, .jpg, ...; angles in {', '.join(readers)}"
        )
    table = reader(path, columns)
    if not table.values.size:
        raise ValueError(f"{path} has no row of angles: its shape is {table.values.shape}")
    rows = table.values.reshape(len(table.values), -1)
    incomplete = np.asarray(np.isnan(rows).any(axis=1))
    kept = ~incomplete if drop_missing else np.ones(len(rows), dtype=bool)
    bad = np.argwhere(~np.isfinite(rows) & kept[:, None])
    if len(bad):
        row, column = (int(i) for i in bad[0])
        where = f"{path}: the angle in row {row + 1}, column {table.names[column] if table.names else column + 1} is"
        if np.isinf(rows[row, column]):
            infinite = int(np.isinf(rows).any(axis=1).sum())
            raise ValueError(
                f"{where} {rows[row, column]}, as in {infinite} of {len(rows)} rows: an angle must be finite; correct"
                " the file (an empty cell or NaN says that an angle is missing), or choose other columns"
            )
        raise ValueError(
            f"{where} {rows[row, column]}; {incomplete.sum()} of {len(rows)} rows lack an angle: correct the file,"
            " drop such rows (drop_missing, --drop-missing), or choose other columns"
        )
    if not kept.any():
        raise ValueError(f"{path} has no row of angles in which none is missing")
    return table._replace(values=table.values[kept], dropped=int((~kept).sum()))


def _read_csv(path: Path, columns: Sequence[str] | None) -> Table:
    with _naming(path):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        separator = next((mark for mark in "\t;," if lines and mark in lines[0]), ",")
        rows = [row for row in csv.reader(lines, delimiter=separator, skipinitialspace=True) if row]
    if not rows:
        raise ValueError(f"{path} is empty")
    header = [str(i + 1) for i in range(len(rows[0]))]
    if not any(_is_angle(_number(cell)) for cell in rows[0]):
        header = [cell.strip() for cell in rows.pop(0)]
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"{path}: row {i + 1} has {len(row)} cells, the first line has {len(header)}")
    cells = {name: [_number(row[j]) for row in rows] for j, name in enumerate(header)}
    if columns is None:
        columns = [name for name, column in cells.items() if any(map(_is_angle, column))]
    for name in _known(columns, tuple(header), path):
        if None in cells[name]:
            i = cells[name].index(None)
            raise ValueError(f"{path}: row {i + 1}, column {name} says {rows[i][header.index(name)]!r}, not a number")
    return Table(np.array([cells[name] for name in columns], dtype=np.float64).T, tuple(columns))


def _number(cell: str) -> float | None:
    """The number in ``cell``, NaN where it says that there is none, None where it says something else."""
    if cell.strip().lower() in MISSING:
        return math.nan
    try:
        return float(cell)
    except ValueError:
        return None


def _is_angle(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def _read_npy(path: Path, columns: Sequence[str] | None) -> Table:
    with _naming(path):
        array = np.load(path, allow_pickle=False)
    if array.ndim == 0 or array.dtype.kind not in "fiu":
        raise ValueError(f"{path} must hold real numbers, one sample per row, got {array.dtype} of shape {array.shape}")
    values = array.astype(np.float64)[:, None] if array.ndim == 1 else array.astype(np.float64)
    names = tuple(str(i + 1) for i in range(values.shape[1])) if values.ndim == 2 else ()
    if columns is None:
        return Table(values, names)
    return Table(values[:, [names.index(name) for name in _known(columns, names, path)]], tuple(columns))


def _read_netcdf(path: Path, columns: Sequence[str] | None) -> Table:
    with _naming(path), interrupts_wait(), _opened(path) as dataset:
        numeric = tuple(str(name) for name, variable in dataset.data_vars.items() if variable.dtype.kind in "fiu")
        found = {name: dataset[name].load() for name in numeric if columns is None or name in columns}
    names = tuple(_known(numeric if columns is None else columns, numeric, path))
    variables = [found[name] for name in names]
    dims = {variable.dims for variable in variables}
    if len(dims) != 1 or (len(variables) > 1 and variables[0].ndim > 1):
        raise ValueError(
            f"{path} has the variables {', '.join(names)}: choose one, or several that share one dimension"
        )
    if "time" in variables[0].dims:
        raise ValueError(f"{names[0]} in {path} runs over time: save the time that you want on its own")
    units = {variable.attrs.get("units") for variable in variables}
    if len(units) > 1:
        raise ValueError(f"{path} has angles in different units ({units}): choose columns of one unit")
    values = np.stack([variable.to_numpy().astype(np.float64) for variable in variables], axis=1)
    if variables[0].ndim > 1:
        values, names = values[:, 0], ()
    return Table(values, names, units.pop())


def _opened(path: Path) -> xr.Dataset:
    """Angles in hours are no durations, which some versions of xarray take them for."""
    return xr.open_dataset(path, engine="netcdf4", decode_timedelta=False)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name ``path`` in what a reader raises, which for a damaged file is nearly anything."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"cannot read {path}: {error}") from error


def _known(columns: Sequence[str], available: tuple[str, ...], path: Path) -> Sequence[str]:
    """``columns``, if ``path`` has them all."""
    unknown = [name for name in columns if name not in available]
    if unknown:
        has = f"it has {', '.join(available)}" if available else "it is not a table"
        raise ValueError(f"{path} has no column of angles {unknown[0]!r}: {has}")
    if not columns:
        raise ValueError(f"{path} has no column of numbers")
    return columns

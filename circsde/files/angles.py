"""Angles from files: tables of text, parquet, arrays, NetCDF and zarr, one sample per row."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circsde.files import doubts
from circsde.files.arrays import read_matlab, read_npy, read_npz
from circsde.files.frames import read_parquet
from circsde.files.netcdf import read_netcdf
from circsde.files.rasters import read_nifti, read_tiff
from circsde.files.table import Request, Table
from circsde.files.text_tables import read_text

__all__ = ["READERS", "Table", "read_angles"]

Reader = Callable[[Path, Request], Table]
"""Reads the angles in a file that are asked for."""

_TEXT = (".csv", ".tsv", ".txt", ".dat", ".ecsv", ".xvg", ".ang")

READERS: dict[str, Reader] = {
    **dict.fromkeys((*_TEXT, *(f"{suffix}.gz" for suffix in _TEXT)), read_text),
    **{".parquet": read_parquet, ".npy": read_npy, ".npz": read_npz, ".mat": read_matlab},
    **dict.fromkeys((".nc", ".nc4", ".zarr"), read_netcdf),
    **dict.fromkeys((".tif", ".tiff"), read_tiff),
    **dict.fromkeys((".nii", ".nii.gz"), read_nifti),
}
"""The readers of files, by the end of the file's name. To add a kind, add its reader."""

KINDS = (
    f"{', '.join(_TEXT)} or one of these and .gz, .parquet, .npy, .npz, .mat, .nc, .nc4, .zarr, .nii, .nii.gz; with a"
    " unit .tif"
)
"""The ends of names in words."""


def read_angles(
    path: str | Path,
    columns: Sequence[str] | None = None,
    *,
    drop_missing: bool = False,
    missing: Sequence[float] | None = None,
    tiles: tuple[int, int] | None = None,
    along: str | int | None = None,
    phases: bool = False,
    like: Sequence[str] | None = None,
) -> Table:
    """Angles from a file, a sample per row, in the unit of the file.

    Args:
        path: The file; its name ends in one of :data:`READERS`, such as ``.csv``, ``.csv.gz``, ``.npy`` or ``.nc``.
        columns: Names of the columns, variables or arrays to take, in this order; in a text file without a header and
            in a single array they are "1", "2", ...; in a group "group/name". By default all that may be angles:
            those that state a unit of angles, or if there are none, those of numbers that state no unit.
        drop_missing: Leave out, and count, rows in which an angle is missing.
        missing: Numbers that say that an angle is missing, as -99. By default a number that looks like one is an
            error; with none, ``()``, all are angles.
        tiles: Fields of phases: cut each into tiles of this many rows and columns, which are then the samples.
        along: NetCDF: the dimension whose entries are the samples, such as "time"; arrays: the axis, from 0 on. By
            default the first.
        phases: Take the phases of complex numbers, in radians.
        like: Columns to take if the file has them all and ``columns`` names none.

    Returns:
        Values ``(batch, columns)``, or ``(batch, *event)`` of an array with more axes; and what was left out.

    Raises:
        ValueError: If the file cannot be read, a column is unknown or not numeric, or an angle is missing, infinite or
            a code for missing; it is named by row (the first row of data is 1) and column.
    """
    path = Path(path)
    end = path.name.lower()
    reader = next((READERS[suffix] for suffix in sorted(READERS, key=len, reverse=True) if end.endswith(suffix)), None)
    if reader is None:
        raise ValueError(f"cannot tell what {path} holds: images end in .png, .jpg, ...; angles in {KINDS}")
    if reader in (read_text, read_parquet) and (along is not None or phases):
        raise ValueError(f"along and phases are for NetCDF and arrays; {path} is a table, of which a sample is a row")
    table = reader(path, Request(columns, like, along, phases))
    if not table.values.size:
        raise ValueError(f"{path} has no row of angles: its shape is {table.values.shape}")
    for number in missing or ():
        says_none = np.isclose(table.values, number, rtol=1e-6, atol=0.0)
        table = table._replace(values=np.where(says_none, math.nan, table.values))
    if tiles is not None:
        table = table._replace(values=_tiled(path, table.values, *tiles))
    if missing is None:
        _refuse_codes(path, table)
    return table if _complete(table.values) else _without_gaps(path, table, drop_missing)


def _tiled(path: Path, fields: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """``(tiles, rows, columns)``, side by side from the upper left corner of each field."""
    if fields.ndim != 3 or fields.shape[1] < rows or fields.shape[2] < columns:
        raise ValueError(
            f"a crop of {rows}x{columns} is cut out of fields of phases, and {path} holds samples of shape"
            f" {'x'.join(map(str, fields.shape[1:]))}: leave it out, or take a smaller one"
        )
    down, across = fields.shape[1] // rows, fields.shape[2] // columns
    cut = fields[:, : down * rows, : across * columns].reshape(-1, down, rows, across, columns)
    return cut.swapaxes(2, 3).reshape(-1, rows, columns)


def _complete(values: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(values).all())


def _refuse_codes(path: Path, table: Table) -> None:
    """Refuse numbers that look like codes for a missing angle."""
    found = doubts.code(table.values, table.names)
    if found is not None:
        row, column, value = found
        raise ValueError(
            f"{path}: row {row}, column {column} says {value:.7g}, far from all other angles there: it may say that an"
            f" angle is missing. If so, give missing={value:.7g} (--missing {value:.7g}), perhaps with drop_missing"
            " (--drop-missing); if not, missing=() (--missing none)"
        )


def _without_gaps(path: Path, table: Table, drop_missing: bool) -> Table:
    """``table`` without the rows that lack an angle, if they may be dropped."""
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

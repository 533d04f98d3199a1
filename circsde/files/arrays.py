"""Angles from files of arrays: NPY, NPZ and MATLAB."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from circsde.files.table import DATES, HOUR, Column, Request, Table, choose, naming, stacked


def read_npy(path: Path, request: Request) -> Table:
    """Angles from an NPY file: an array with a sample per row, or a structured one with a field per column."""
    with naming(path):
        array = np.load(path, allow_pickle=False)
    if array.dtype.names is not None and not is_complex(array.dtype):
        return _table(path, {name: array[name] for name in array.dtype.names}, request)
    return _table(path, {"": array}, request)


def read_npz(path: Path, request: Request) -> Table:
    """Angles from an NPZ file: its one array, or arrays of one length as columns."""
    with naming(path), np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return _table(path, arrays, request)


def read_matlab(path: Path, request: Request) -> Table:
    """Angles from a MATLAB file up to version 7: its one matrix, or vectors of one length as columns."""
    with naming(path):
        try:
            found: dict[str, Any] = scipy.io.loadmat(path, squeeze_me=False)
        except NotImplementedError:
            raise ValueError("it is of MATLAB's version 7.3, which is HDF5: save it there with -v7") from None
    arrays = {name: np.asarray(value) for name, value in found.items() if not name.startswith("__")}
    vectors = {name: a.reshape(-1) if a.ndim == 2 and 1 in a.shape and a.size > 1 else a for name, a in arrays.items()}
    return _table(path, {name: a.reshape(()) if a.size == 1 else a for name, a in vectors.items()}, request)


def is_complex(dtype: np.dtype[Any]) -> bool:
    """Whether numbers of this type are complex, be it as pairs called r and i, as in HDF5."""
    return dtype.kind == "c" or (dtype.kind == "V" and dtype.names in (("r", "i"), ("real", "imag")))


def offered(name: str, array: Any, unit: str | None, *, phases: bool) -> Column:
    """The array, or variable, ``array`` as a column that may be taken."""
    kind = array.dtype.kind
    fault = {
        "M": DATES,
        "b": "true or false",
        "V": "structures",
        "O": "objects",
    }.get(kind, "" if kind in "fiucm" else "text")
    if is_complex(array.dtype):
        fault, unit = "" if phases else "complex numbers, whose phases phases=True (--phases) takes", "rad"
    elif array.ndim == 0 and not fault:
        fault = "a single value"
    return Column(name, "hours" if kind == "m" else unit, fault)


def numbers(array: NDArray[Any]) -> NDArray[np.float64]:
    """Real numbers as they are, phases of complex ones, durations in hours."""
    if is_complex(array.dtype):
        re, im = (
            (array.real, array.imag) if array.dtype.kind == "c" else (array[part] for part in array.dtype.names or ())
        )
        return np.asarray(np.where(np.isnan(re) | np.isnan(im), np.nan, np.arctan2(im, re)), dtype=np.float64)
    if array.dtype.kind == "m":
        return np.asarray(array / HOUR, dtype=np.float64)
    return np.asarray(array, dtype=np.float64)


def _table(path: Path, arrays: Mapping[str, NDArray[Any]], request: Request) -> Table:
    """Angles from arrays by name; a single one has its columns numbered from 1 on, and may be without a name."""
    columns = [offered(name, array, None, phases=request.phases) for name, array in arrays.items()]
    if set(arrays) == {""}:
        return _single(path, arrays[""], columns[0], request)
    choice = choose(path, columns, request)
    chosen = {name: _sampled(path, numbers(arrays[name]), request.along) for name in choice.names}
    values, names = stacked(path, chosen)
    return Table(values, names, choice.unit, left_out=choice.left_out)


def _single(path: Path, array: NDArray[Any], column: Column, request: Request) -> Table:
    """Angles from an array without a name, whose columns are taken by number."""
    if column.fault:
        raise ValueError(
            f"{path} must hold real numbers, one sample per row, and holds {array.dtype} of shape {array.shape}:"
            f" {column.fault}"
        )
    values, names = stacked(path, {"1": _sampled(path, numbers(array), request.along)})
    if request.columns is None or not names:
        if request.columns is not None:
            raise ValueError(f"{path} has no columns: its shape is {array.shape}")
        return Table(values, names, column.unit)
    choice = choose(path, [Column(name, column.unit) for name in names], request)
    return Table(values[:, [names.index(name) for name in choice.names]], choice.names, column.unit)


def _sampled(path: Path, array: NDArray[np.float64], along: str | int | None) -> NDArray[np.float64]:
    """``array`` with its samples along the first axis."""
    if along is None:
        return array
    try:
        return np.moveaxis(array, int(along), 0)
    except ValueError:
        raise ValueError(
            f"{path} has no axis {along!r}: give along, for an array of shape {array.shape}, as the number of an axis"
            " from 0 on"
        ) from None

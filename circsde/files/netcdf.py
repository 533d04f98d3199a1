"""Angles from NetCDF and zarr by the CF conventions: units, valid ranges, cells never written, groups."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circsde.contracts import first_few
from circsde.files.arrays import is_complex, numbers, offered
from circsde.files.table import Column, Request, Table, choose, naming, needs, stacked
from circsde.files.units import stated
from circsde.record import interrupts_wait

DAY = {"weeks": 168.0, "days": 24.0, "hours": 1.0, "minutes": 1 / 60, "seconds": 1 / 3600}
DAY |= {"milliseconds": 1e-3 / 3600, "microseconds": 1e-6 / 3600, "nanoseconds": 1e-9 / 3600}
"""How many hours the units of durations have."""


def read_netcdf(path: Path, request: Request) -> Table:
    """Angles from the variables of a NetCDF file, or of one group: the first axis, or ``along``, has the samples.

    Raises:
        ValueError: If the variables do not share their dimensions, or run over time and ``along`` is not given.
    """
    groups = {name.rpartition("/")[0] for name in request.columns or [*(request.like or ()), ""]}
    with ExitStack() as stack:
        variables: dict[str, xr.DataArray] = {}
        stack.enter_context(interrupts_wait())
        with naming(path):
            there = _groups(path)
            for group in sorted(groups & {"", *there}):
                dataset = stack.enter_context(_opened(path, group))
                prefix = f"{group}/" if group else ""
                variables |= {f"{prefix}{name}": variable for name, variable in dataset.data_vars.items()}
        if not variables and there and not request.columns:
            raise ValueError(f"{path} has the groups {first_few(there)}: name columns as {there[0]}/NAME")
        columns = [_column(name, variable, phases=request.phases) for name, variable in variables.items()]
        choice = choose(path, columns, request)
        chosen = {name: _sampled(path, name, variables[name], request.along) for name in choice.names}
        if len({variable.dims for variable in chosen.values()}) > 1:
            each = first_few([f"{name} ({', '.join(map(str, v.dims))})" for name, v in chosen.items()])
            raise ValueError(f"{path} has the variables {each}: choose one, or several that share one dimension")
        with naming(path):
            arrays = {name: _values(variable) for name, variable in chosen.items()}
    values, names = stacked(path, arrays)
    one = chosen[choice.names[0]]
    if values.ndim == 2 and one.ndim == 2 and one.dims[1] in one.coords and one[one.dims[1]].dtype.kind in "OUST":
        names = tuple(map(str, one[one.dims[1]].values))
    notes = (
        (f"{path} has the groups {first_few(there)} besides, which were not read",) if there and groups == {""} else ()
    )
    return Table(values, names, choice.unit, left_out=choice.left_out, notes=notes)


def _opened(path: Path, group: str) -> xr.Dataset:
    """The variables with their scale, and times as numbers, as one that cannot be decoded is in the way of all."""
    options: dict[str, Any] = {"engine": "netcdf4"}
    if path.suffix.lower() == ".zarr":
        needs("zarr", path)
        options = {"engine": "zarr", "consolidated": False}
    return xr.open_dataset(path, group=group or None, decode_times=False, decode_timedelta=False, **options)


def _groups(path: Path) -> list[str]:
    """The groups of a file, each by its path from the root."""
    if path.suffix.lower() == ".zarr":
        marks = {each.parent for mark in (".zgroup", "zarr.json") for each in path.rglob(mark)}
        arrays = {each.parent for each in path.rglob(".zarray")}
        return sorted(
            str(each.relative_to(path))
            for each in marks - arrays - {path}
            if any(each.glob("*/zarr.json")) or any(each.glob("*/.zarray"))
        )

    def below(group: Any, prefix: str) -> list[str]:
        return [
            name for key, child in group.groups.items() for name in (f"{prefix}{key}", *below(child, f"{prefix}{key}/"))
        ]

    with netCDF4.Dataset(path) as file:
        return below(file, "")


def _column(name: str, variable: xr.DataArray, *, phases: bool) -> Column:
    """The variable as it may be taken."""
    units = str(variable.attrs.get("units", ""))
    if " since " in units:
        return Column(name, fault=f"dates, in {units}: save the hour of the day, or the day of the year, as a number")
    return offered(name, variable, "hours" if _lasts(variable) else stated(units), phases=phases)


def _lasts(variable: xr.DataArray) -> bool:
    """Whether xarray wrote durations there."""
    kind = str(variable.attrs.get("dtype", variable.encoding.get("dtype", "")))
    return kind.startswith("timedelta64") and variable.attrs.get("units") in DAY


def _sampled(path: Path, name: str, variable: xr.DataArray, along: str | int | None) -> xr.DataArray:
    """``variable`` with its samples along the first dimension."""
    if along is not None and along not in variable.dims:
        dims = ", ".join(map(str, variable.dims))
        raise ValueError(f"{name} in {path} has no dimension {along!r}, along which samples would be: it has {dims}")
    if along is None and "time" in variable.dims:
        raise ValueError(
            f"{name} in {path} runs over time: give along='time' (--along time) to take each time as a sample, or save"
            " the time that you want on its own"
        )
    return variable if along is None else variable.transpose(along, ...)


def _values(variable: xr.DataArray) -> NDArray[np.float64]:
    """The numbers of a variable, in hours where they are durations, NaN where CF says that there is none."""
    values = numbers(variable.to_numpy())
    if is_complex(variable.dtype):
        return values
    values = np.where(_valid(variable, values), values, np.nan)
    return values * DAY[variable.attrs["units"]] if _lasts(variable) else values


def _valid(variable: xr.DataArray, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where ``values`` are in the valid range, and were written at all; xarray masks by ``_FillValue`` alone."""
    about, stored = variable.attrs, variable.encoding
    scale, offset = float(stored.get("scale_factor", 1.0)), float(stored.get("add_offset", 0.0))
    packed = (values - offset) / scale
    valid = np.ones(values.shape, dtype=bool)
    low, high = np.ravel(about["valid_range"])[:2] if "valid_range" in about else (None, None)
    for bound, sign in ((about.get("valid_min", low), 1.0), (about.get("valid_max", high), -1.0)):
        if bound is not None:
            whole = np.asarray(bound).dtype.kind in "iu" or (scale, offset) == (1.0, 0.0)
            rounding = 1e-6 * (1.0 + abs(float(bound)))
            valid &= sign * ((packed if whole else values) - float(bound)) >= -rounding
    written = np.dtype(stored.get("dtype", variable.dtype))
    default = netCDF4.default_fillvals.get(written.str[1:])
    if default is not None and written.itemsize > 1 and stored.get("_FillValue") is None:
        rounding = 1e-6 if written.str[1:] in ("i2", "u2", "f4") else 1e-12  # which xarray unpacks in float32
        valid &= ~np.isclose(packed, float(default), rtol=rounding, atol=0.0)
    return valid

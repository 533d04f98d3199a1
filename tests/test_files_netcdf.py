"""NetCDF and zarr files mean what CF says: units, ranges, fill values, times, groups, complex numbers."""

import json
import math
import warnings
from importlib.util import find_spec
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import torch
import xarray as xr

from circsde.data import load
from circsde.files.angles import read_angles
from circsde.torus import distance

DEGREES = np.array([10.0, 350.0, 181.5, 90.0])


def saved(tmp_path: Path, name: str = "a.nc", **variables: xr.Variable) -> Path:
    xr.Dataset(variables).to_netcdf(tmp_path / name)
    return tmp_path / name


def variable(values: object, units: str | None = None, dims: str = "station", **attributes: object) -> xr.Variable:
    return xr.Variable(dims.split(), values, attributes | ({} if units is None else {"units": units}))


@pytest.mark.parametrize(
    ("units", "turn"),
    [
        *[
            (text, 360.0)
            for text in ("degree", "degrees", "degree_true", "degrees_true", "degree_north", "degrees_east")
        ],
        *[(text, 360.0) for text in ("degreeT", "degrees_E", "Degrees", "arc_degree", "deg", "°", "degrees true")],
        *[(text, 2 * math.pi) for text in ("radian", "radians", "rad")],
        *[(text, 24.0) for text in ("h", "hour", "hours", "hourangle")],
        *[(text, 1_296_000.0) for text in ("arcsec", "arcsecond", "arc_seconds", "arcseconds")],
        *[(text, 21_600.0) for text in ("arcmin", "arcminutes", "arc_minute")],
        *[(text, 400.0) for text in ("gon", "grade")],
        *[(text, 1.0) for text in ("turn", "cycle", "revolutions", "circle")],
    ],
)
def test_units_of_angles_are_known(units: str, turn: float, tmp_path: Path) -> None:
    path = saved(tmp_path, a=variable(DEGREES / 360.0 * turn, units))
    theta = load(path, dtype=torch.float64).theta
    assert distance(theta[:, 0], torch.from_numpy(np.deg2rad(DEGREES))).max() < 1e-14


@pytest.mark.parametrize("units", [None, "", "1", "dimensionless"])
def test_a_unit_that_says_nothing_is_asked_for(units: str | None, tmp_path: Path) -> None:
    path = saved(tmp_path, a=variable(np.deg2rad(DEGREES), units))
    with pytest.raises(ValueError, match="does not state the unit of its angles"):
        load(path)
    assert distance(load(path, unit="rad").theta[:, 0], torch.from_numpy(np.deg2rad(DEGREES))).max() < 1e-6


def test_variables_of_other_units_are_left_out_and_named(tmp_path: Path) -> None:
    path = saved(
        tmp_path,
        speed=variable([3.0, 4.0, 5.0, 6.0], "m s-1"),
        wind=variable(DEGREES, "degree"),
        hint=variable(DEGREES),
        height=xr.Variable((), 10.0, {"units": "m"}),
        flag=variable([True, False, True, True]),
        label=variable(["a", "b", "c", "d"]),
    )
    phases = load(path)
    assert phases.names == ("wind",)
    left_out = "speed (in m s-1), hint (without a unit, which others have), height (a single value)"
    assert left_out in phases.notes[0]
    assert "label (text)" in phases.notes[0]
    with pytest.raises(ValueError, match=r"states the unit m s-1, which is not a unit of angles: give unit"):
        load(path, columns=["speed"])
    with pytest.warns(UserWarning, match=r"states the unit m s-1; it is read in units of which 7 are a turn, as asked"):
        assert load(path, columns=["speed"], unit=7).theta.shape == (4, 1)
    with pytest.raises(ValueError, match=r"no column of angles 'height': it has .*height: a single value"):
        load(path, columns=["height"])
    with pytest.raises(ValueError, match=r"different units \(wind in deg, hint in no unit\)"):
        load(path, columns=["wind", "hint"])


def test_a_file_without_any_angle_says_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no column of numbers that may be angles: speed \(in m s-1\)"):
        read_angles(saved(tmp_path, speed=variable(DEGREES, "m s-1")))


@pytest.mark.parametrize("kind", ["float", "packed"])
@pytest.mark.parametrize("stated", ["range", "limits"])
def test_values_outside_the_valid_range_are_missing_as_for_netcdf4(kind: str, stated: str, tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createDimension("station", 4)
        wind = file.createVariable("wind", "i2" if kind == "packed" else "f8", ("station",))
        scale = 0.1 if kind == "packed" else 1.0
        limits = np.array([0.0, 360.0 / scale]).astype(wind.dtype)
        wind.setncatts({"scale_factor": scale} if kind == "packed" else {})
        wind.setncatts(
            {"valid_range": limits} if stated == "range" else dict(zip(("valid_min", "valid_max"), limits, strict=True))
        )
        wind.set_auto_mask(False)
        wind.units = "degree"
        wind[:] = [10.0, -99.0, 360.0, 360.5]
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        masked = file["wind"][:]
    table = read_angles(tmp_path / "a.nc", drop_missing=True)
    assert table.values[:, 0] == pytest.approx(masked.compressed())
    assert table.dropped == masked.mask.sum() == 2
    with pytest.raises(ValueError, match="the angle in row 2, column wind is nan; 2 of 4 rows lack an angle"):
        read_angles(tmp_path / "a.nc")


@pytest.mark.parametrize("kind", ["f4", "f8", "i2", "i4"])
@pytest.mark.parametrize("packing", [{}, {"scale_factor": 0.1}, {"scale_factor": 0.01, "add_offset": 7.0}])
def test_cells_that_were_never_written_are_missing(kind: str, packing: dict[str, float], tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createDimension("station", 4)
        wind = file.createVariable("wind", kind, ("station",))
        wind.setncatts(packing)
        wind[1:3] = [20, 30]
    table = read_angles(tmp_path / "a.nc", drop_missing=True)
    assert (table.values[:, 0].tolist(), table.dropped) == (pytest.approx([20.0, 30.0], rel=1e-6), 2)


def test_radians_that_a_conversion_left_called_degrees_do_not_pass(tmp_path: Path) -> None:
    saved(tmp_path, wind=variable(np.deg2rad(DEGREES), "degree"))  # as numpy.deg2rad of an xarray array leaves it
    with pytest.raises(
        ValueError, match="wind in degrees stay within 2 pi, as radians do: .* numpy.deg2rad of an xarray"
    ):
        load(tmp_path / "a.nc")
    with pytest.warns(UserWarning, match="states the unit deg; it is read in rad, as asked for"):
        theta = load(tmp_path / "a.nc", unit="rad").theta
    assert distance(theta[:, 0], torch.from_numpy(np.deg2rad(DEGREES))).max() < 1e-6
    with pytest.warns(UserWarning, match="stay within 2 pi, as radians do: if they are radians, give unit rad"):
        load(tmp_path / "a.nc", unit="deg")


def test_times_of_a_record_are_its_samples_on_request(tmp_path: Path) -> None:
    times = xr.Variable("time", np.arange(4), {"units": "hours since 2020-01-01"})
    other = variable([1.0, 2.0], "days since the flood", "buoy")  # units that cannot be decoded
    dataset = xr.Dataset({"wind": variable(DEGREES, "degree", "time"), "drift": other}, {"time": times})
    dataset.to_netcdf(tmp_path / "a.nc")
    with pytest.raises(ValueError, match=r"wind in .*a\.nc runs over time: give along='time' \(--along time\)"):
        load(tmp_path / "a.nc")
    assert load(tmp_path / "a.nc", along="time").theta.shape == (4, 1)
    with pytest.raises(ValueError, match="has no dimension 'hour', along which samples would be: it has time"):
        load(tmp_path / "a.nc", along="hour")
    with pytest.raises(ValueError, match="drift: dates, in days since the flood"):
        load(tmp_path / "a.nc", columns=["drift"])


def test_samples_run_along_any_dimension(tmp_path: Path) -> None:
    grid = np.arange(12.0).reshape(3, 4)
    path = saved(tmp_path, wind=variable(grid, None, "buoy time"))
    assert np.array_equal(read_angles(path, along="time").values, grid.T)
    assert np.array_equal(read_angles(path, along="buoy").values, grid)


def test_a_matrix_has_the_names_of_its_columns(tmp_path: Path) -> None:
    data = xr.Dataset({"theta": (("row", "angle"), np.ones((3, 2)), {"units": "deg"})}, {"angle": ["phi", "psi"]})
    data.to_netcdf(tmp_path / "a.nc")
    assert read_angles(tmp_path / "a.nc").names == ("phi", "psi")


def test_groups_are_named_and_taken_by_path(tmp_path: Path) -> None:
    path = saved(tmp_path, a=variable(DEGREES, "deg"))
    for group in ("north", "south/deep"):
        xr.Dataset({"wind": variable(DEGREES[::-1], "deg")}).to_netcdf(path, mode="a", group=group)
    table = read_angles(path)
    assert table.names == ("a",)
    assert "has the groups north, south, south/deep besides, which were not read" in table.notes[0]
    table = read_angles(path, ["south/deep/wind", "a"])
    assert np.array_equal(table.values, np.stack([DEGREES[::-1], DEGREES], axis=1))
    assert read_angles(path, like=["north/wind", "south/deep/wind"]).names == ("north/wind", "south/deep/wind")
    with pytest.raises(ValueError, match="no column of angles 'east/wind'"):
        read_angles(path, ["east/wind"])
    xr.Dataset({"wind": variable(DEGREES, "deg")}).to_netcdf(tmp_path / "b.nc", group="north")
    with pytest.raises(ValueError, match=r"has the groups north: name columns as north/NAME"):
        read_angles(tmp_path / "b.nc")


def test_complex_numbers_give_their_phases_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    z = 3.0 * np.exp(1j * np.deg2rad(DEGREES))
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("station", 4)
        pair = file.createCompoundType(np.dtype([("r", "f8"), ("i", "f8")]), "complex")  # as xarray and h5py write it
        file.createVariable("z", pair, ("station",))[:] = z.view(pair.dtype)
    with pytest.raises(ValueError, match=r"z \(complex numbers, whose phases phases=True \(--phases\) takes\)"):
        load(path)
    phases = load(path, phases=True, dtype=torch.float64)
    assert phases.unit == "rad"
    assert distance(phases.theta[:, 0], torch.from_numpy(np.angle(z))).max() < 1e-14


def test_durations_are_hours_of_a_day_and_dates_say_what_to_do(tmp_path: Path) -> None:
    dates = np.array(["2020-01-01T06", "2020-01-02", "2020-01-03"], dtype="datetime64[ns]")
    path = saved(tmp_path, onset=variable([0, 390, 1080], "minutes", dtype="timedelta64[ns]"), day=variable(dates))
    table = read_angles(path)
    assert (table.names, table.unit, table.values[:, 0].tolist()) == (("onset",), "hours", [0.0, 6.5, 18.0])
    with pytest.raises(
        ValueError, match="day: dates, in hours since .*: save the hour of the day, or the day of the year"
    ):
        read_angles(path, ["day"])


def test_seconds_are_asked_for_their_turn(tmp_path: Path) -> None:
    path = saved(tmp_path, t=variable([0.0, 21_600.0], "s"))
    with pytest.raises(ValueError, match=r"t \(in s\)"):
        load(path)
    with pytest.warns(UserWarning, match="states the unit s; it is read in units of which 86400 are a turn"):
        assert load(path, columns=["t"], unit=86400).theta[1].item() == pytest.approx(math.pi / 2)


def test_axial_data_get_a_warning_with_what_to_do(tmp_path: Path) -> None:
    orientations = np.linspace(0.0, 180.0, 50)
    path = saved(tmp_path, a=variable(orientations, "degree"), b=variable(2.0 * orientations, "degree"))
    with pytest.warns(
        UserWarning, match=r"a fill one half of the circle and never leave it.*give unit=180 \(--unit 180\)"
    ):
        load(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(path, columns=["b"])
    with pytest.warns(UserWarning, match="it is read in units of which 180 are a turn"):
        doubled = load(path, columns=["a"], unit=180, dtype=torch.float64).theta
    assert distance(doubled, load(path, columns=["b"], dtype=torch.float64).theta).max() < 1e-13


@pytest.mark.parametrize("column", [np.linspace(60.0, 120.0, 50), np.linspace(0.0, 150.0, 50), np.linspace(0, 181, 50)])
def test_angles_that_fill_no_half_are_not_called_axial(column: np.ndarray, tmp_path: Path) -> None:
    load(saved(tmp_path, a=variable(column, "degree")))


def test_an_angle_beyond_a_turn_is_named_by_row_and_column(tmp_path: Path) -> None:
    path = saved(tmp_path, a=variable(DEGREES, "degree"), b=variable([1.0, 2.0, 500.0, 3.0], "degree"))
    with pytest.raises(
        ValueError, match=r"a\.nc: angles declared 'deg' reach 500.*; the largest is in row 3, column b"
    ):
        load(path)


def zarr_array(path: Path, values: np.ndarray, dims: list[str], **attributes: object) -> None:
    """An array as zarr's second format has it: plain bytes beside what describes them."""
    path.mkdir(parents=True)
    about: dict[str, object] = {
        "chunks": values.shape,
        "compressor": None,
        "dtype": values.dtype.str,
        "fill_value": None,
        "filters": None,
    }
    about.update({"order": "C", "shape": values.shape, "zarr_format": 2})
    (path / ".zarray").write_text(json.dumps(about))
    (path / ".zattrs").write_text(json.dumps(attributes | {"_ARRAY_DIMENSIONS": dims}))
    (path / ".".join("0" * values.ndim)).write_bytes(values.tobytes())


def test_zarr_is_read_or_says_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    zarr_array(path / "wind", DEGREES, ["station"], units="degree_true", valid_range=[0.0, 355.0])
    zarr_array(path / "deep" / "wind", DEGREES / 2, ["station"], units="degree")
    for group in (path, path / "deep"):
        (group / ".zgroup").write_text('{"zarr_format": 2}')
    if find_spec("zarr") is None:
        with pytest.raises(ValueError, match=r"a\.zarr needs zarr .*: pip install zarr"):
            load(path)
        return
    assert np.array_equal(read_angles(path).values[:, 0], DEGREES)
    assert np.array_equal(read_angles(path, ["deep/wind"]).values[:, 0], DEGREES / 2)

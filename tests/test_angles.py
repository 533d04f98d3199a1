"""Tables and arrays of angles become phases; gaps, wrong units and broken files are refused with the place."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from circsde.data import load
from circsde.files.angles import READERS, read_angles
from circsde.files.table import Column, Request, Table, choose
from circsde.torus import distance

REAL = Path(__file__).parents[2] / "shared" / "data"
DEGREES = np.array([[0.0, 90.0], [180.0, 270.0], [-90.0, 359.0]])


@pytest.fixture(params=["csv", "headed csv", "semicolons", "tsv", "npy", "nc"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same angles in every format, with labels beside them where a format has room."""
    kind, path = request.param, tmp_path / f"a.{request.param.split()[-1]}"
    if kind in ("csv", "headed csv"):
        head = "name,phi,psi\n" if kind == "headed csv" else ""
        path.write_text(head + "".join(f"row {i} x,{a},{b}\n" for i, (a, b) in enumerate(DEGREES)))
    elif kind == "semicolons":
        path = tmp_path / "a.csv"
        path.write_text("\ufeffphi; psi\r\n" + "".join(f"{a}; {b}\r\n" for a, b in DEGREES), encoding="utf-8")
    elif kind == "tsv":
        path.write_text("".join(f"{a}\t{b}\n" for a, b in DEGREES))
    elif kind == "npy":
        np.save(path, DEGREES)
    else:
        xr.Dataset({"phi": ("row", DEGREES[:, 0]), "psi": ("row", DEGREES[:, 1])}).to_netcdf(path)
    return path


def test_every_format_gives_the_same_angles(table: Path) -> None:
    phases = load(table, unit="deg", dtype=torch.float64)
    assert distance(phases.theta, torch.from_numpy(np.deg2rad(DEGREES))).max() < 1e-14
    assert phases.theta.max() < math.pi
    assert len(phases.names) == 2
    assert phases.unit == "deg"


def test_every_format_needs_its_unit_and_knows_the_known_ones(table: Path) -> None:
    with pytest.raises(ValueError, match="give unit rad, deg, hours, or a period"):
        load(table)
    with pytest.raises(ValueError, match="unknown unit 'furlong'"):
        load(table, unit="furlong")
    with pytest.raises(ValueError, match=r"are they degrees\?"):
        load(table, unit="rad")


def test_columns_are_chosen_by_name_in_the_order_given(table: Path) -> None:
    names = load(table, unit="deg").names
    swapped = load(table, unit="deg", columns=names[::-1])
    assert torch.equal(swapped.theta, load(table, unit="deg").theta.flip(1))
    with pytest.raises(ValueError, match=rf"no column of angles 'chi9': it has .*{names[0]}"):
        load(table, unit="deg", columns=["chi9"])


def test_images_options_are_refused_for_angles(table: Path) -> None:
    with pytest.raises(ValueError, match="size is for images"):
        load(table, unit="deg", size=8)


def test_a_netcdf_file_may_state_its_unit(tmp_path: Path) -> None:
    data = xr.Dataset({"onset": ("day", [0.0, 6.0, 18.0], {"units": "hours"})})
    data.to_netcdf(tmp_path / "a.nc")
    theta = load(tmp_path / "a.nc", dtype=torch.float64).theta
    assert theta.shape == (3, 1)
    assert theta.flatten().tolist() == pytest.approx([0.0, math.pi / 2, -math.pi / 2])


def test_arrays_of_any_shape_are_samples_of_an_event(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 3, 5)))
    assert load(tmp_path / "a.npy", unit="rad").theta.shape == (4, 3, 5)
    np.save(tmp_path / "b.npy", np.arange(7))
    assert load(tmp_path / "b.npy", unit="7").theta.shape == (7, 1)
    xr.Dataset({"theta": (("sample", "row", "column"), np.zeros((2, 3, 4)))}).to_netcdf(tmp_path / "c.nc")
    assert load(tmp_path / "c.nc", unit="rad").theta.shape == (2, 3, 4)


@pytest.mark.parametrize("gap", ["", "NULL", "nan", "inf"])
def test_a_gap_in_a_table_is_named_by_row_and_column(tmp_path: Path, gap: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"phi,psi\n1,2\n3,{gap}\n5,6\n")
    with pytest.raises(ValueError, match="row 2, column psi is"):
        load(path, unit="deg")
    if gap != "inf":
        phases = load(path, unit="deg", drop_missing=True)
        assert phases.theta.shape == (2, 2)
        assert phases.dropped == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("phi,psi\n", "no column of numbers"),
        ("phi,psi\nNA,NA\n", "no column of numbers"),
        ("phi,psi\n1,2\n3,abc\n", "row 2, column psi says 'abc', not a number"),
        ("phi,psi\n1,2\n3\n", "row 2 has 1 cells, the first line has 2"),
    ],
)
def test_a_broken_csv_file_is_refused_with_the_place(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "a.csv", unit="deg")


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".nc"])
def test_an_unreadable_table_is_named(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b"\xff\xfe\x00broken\x00" * 9)
    with pytest.raises(ValueError, match=rf"a\{suffix}"):
        load(tmp_path / f"a{suffix}", unit="deg")


def test_arrays_that_are_not_real_numbers_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array(["x"]))
    np.save(tmp_path / "b.npy", np.zeros(3, dtype=complex))
    np.save(tmp_path / "c.npy", np.array([{}], dtype=object))
    for name in "abc":
        with pytest.raises(ValueError, match=rf"{name}\.npy|pickle"):
            load(tmp_path / f"{name}.npy", unit="rad")


def test_an_infinite_angle_is_not_called_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2\ninf,NA\n-inf,3\n")
    with pytest.raises(ValueError, match="row 2, column 1 is inf, as in 2 of 3 rows: an angle must be finite"):
        load(tmp_path / "a.csv", unit="rad")


@pytest.mark.parametrize("shape", [(0,), (0, 2), (3, 0)])
def test_an_array_without_angles_says_so(shape: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(ValueError, match=r"a\.npy has no row of angles"):
        read_angles(str(tmp_path / "a.npy"))


def test_a_file_of_another_kind_and_too_many_rows_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(ValueError, match=r"angles in \.csv, \.tsv, .* \.npy, .* \.nc"):
        load(tmp_path / "a.docx")
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    with pytest.raises(ValueError, match="3 rows of angles, 4 are asked for"):
        load(tmp_path / "a.npy", unit="rad", count=4)


def test_along_and_phases_are_for_files_that_have_axes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2\n")
    with pytest.raises(ValueError, match=r"along and phases are for NetCDF and arrays; .*a\.csv is a table"):
        load(tmp_path / "a.csv", unit="rad", along="time")


def test_a_kind_of_file_of_ones_own_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, request: Request) -> Table:
        numbers = np.array([float(line) for line in path.read_text().split("/")])
        choice = choose(path, [Column("mine", "deg")], request)
        return Table(numbers[:, None], choice.names, choice.unit)

    monkeypatch.setitem(READERS, ".slashes", read)
    (tmp_path / "a.slashes").write_text("90/180/270")
    phases = load(tmp_path / "a.slashes", dtype=torch.float64)
    assert (phases.names, phases.unit) == (("mine",), "deg")
    assert phases.theta[:, 0].tolist() == pytest.approx([math.pi / 2, -math.pi, -math.pi / 2])
    with pytest.raises(ValueError, match="no column of angles 'yours': it has mine"):
        load(tmp_path / "a.slashes", columns=["yours"])


def test_a_trajectory_is_not_taken_for_samples(tmp_path: Path) -> None:
    xr.Dataset({"theta": (("time", "sample", "row"), np.zeros((2, 3, 4)))}).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(ValueError, match="runs over time"):
        load(tmp_path / "a.nc", unit="rad")


@pytest.mark.skipif(not REAL.exists(), reason="needs the real data sets beside the checkout")
def test_torsion_angles_of_real_proteins_load_as_downloaded() -> None:
    phases = load(REAL / "torsion" / "cys.csv", unit="deg", columns=["2", "3", "4"])
    assert phases.theta.shape == (16767, 3)
    first = torch.tensor([-163.317, 173.084, 58.677]).deg2rad()
    assert distance(phases.theta[0], first).max() < 1e-6

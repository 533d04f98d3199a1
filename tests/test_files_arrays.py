"""Files of arrays: NPY, structured or not, NPZ, MATLAB and parquet, real, complex or of times."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.io
import torch

from circsde.data import load
from circsde.files.angles import read_angles
from circsde.torus import distance

DEGREES = np.random.default_rng(0).uniform(-170.0, 170.0, (40, 2)).round(2)
Z = np.exp(1j * np.deg2rad(DEGREES))


def test_a_structured_array_has_a_column_per_field(tmp_path: Path) -> None:
    array = np.zeros(40, dtype=[("name", "U3"), ("phi", "f4"), ("psi", "f8"), ("box", "f8", (3,))])
    array["phi"], array["psi"] = DEGREES.T
    np.save(tmp_path / "a.npy", array)
    table = read_angles(tmp_path / "a.npy", ["psi", "phi"])
    assert table.names == ("psi", "phi")
    assert np.allclose(table.values, DEGREES[:, ::-1], rtol=1e-6)
    with pytest.raises(
        ValueError, match=r"arrays phi \(40,\), psi \(40,\), box \(40, 3\): choose one, or several columns"
    ):
        read_angles(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"'name'.*name: text"):
        read_angles(tmp_path / "a.npy", ["name"])


@pytest.mark.parametrize("kind", ["npz", "mat"])
def test_several_arrays_are_columns_and_one_is_a_table(kind: str, tmp_path: Path) -> None:
    def save(name: str, **arrays: Any) -> Path:
        path = tmp_path / f"{name}.{kind}"
        np.savez(path, **arrays) if kind == "npz" else scipy.io.savemat(path, arrays)
        return path

    phi, psi = DEGREES.T
    table = read_angles(save("a", phi=phi, psi=psi, temperature=300.0, label="alanine"))
    assert table.names == ("phi", "psi")
    assert np.array_equal(table.values, DEGREES)
    assert table.left_out == ("temperature (a single value)", "label (text)")
    table = read_angles(save("b", dihedrals=DEGREES))
    assert table.names == ("1", "2")
    assert np.array_equal(table.values, DEGREES)
    path = save("c", phi=phi, dihedrals=DEGREES, z=Z)
    with pytest.raises(ValueError, match=r"has the arrays phi \(40,\), dihedrals \(40, 2\): choose one"):
        read_angles(path)
    assert np.array_equal(read_angles(path, ["dihedrals"]).values, DEGREES)
    assert np.allclose(read_angles(path, ["z"], phases=True).values, np.deg2rad(DEGREES), atol=1e-15)
    with pytest.raises(ValueError, match="no column of angles 'z': .*complex numbers, whose phases phases=True"):
        read_angles(path, ["z"])


def test_a_row_vector_of_matlab_is_a_column(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"phi": DEGREES[:, 0]}, oned_as="row")
    assert np.array_equal(read_angles(tmp_path / "a.mat").values, DEGREES[:, :1])


def test_matlab_files_of_the_new_kind_say_how_to_save_them(tmp_path: Path) -> None:
    about = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    (tmp_path / "a.mat").write_bytes(about + b"\x00" * 400)
    with pytest.raises(
        ValueError, match=r"a\.mat: it is of MATLAB's version 7\.3, which is HDF5: save it there with -v7"
    ):
        read_angles(tmp_path / "a.mat")
    (tmp_path / "b.mat").write_bytes(b"broken" * 99)
    with pytest.raises(ValueError, match=r"cannot read .*b\.mat"):
        read_angles(tmp_path / "b.mat")


def test_complex_arrays_give_their_phases_on_request(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.where(np.arange(80).reshape(40, 2) == 5, np.nan, Z))
    with pytest.raises(ValueError, match="a.npy must hold real numbers.*complex numbers, whose phases phases=True"):
        load(tmp_path / "a.npy")
    phases = load(tmp_path / "a.npy", phases=True, drop_missing=True, dtype=torch.float64)
    assert (phases.unit, phases.dropped) == ("rad", 1)
    assert distance(phases.theta, torch.from_numpy(np.deg2rad(np.delete(DEGREES, 2, axis=0)))).max() < 1e-14


def test_the_samples_are_along_the_axis_asked_for(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", DEGREES.T)  # channels, times
    assert np.array_equal(read_angles(tmp_path / "a.npy", along=1).values, DEGREES)
    assert np.array_equal(read_angles(tmp_path / "a.npy", ["2"], along="1").values, DEGREES[:, 1:])
    for axis in ("2", "time"):
        with pytest.raises(
            ValueError, match=rf"a\.npy has no axis '{axis}': .* shape \(2, 40\), as the number of an axis"
        ):
            read_angles(tmp_path / "a.npy", along=axis)


def test_durations_and_dates_of_numpy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([0, 390, 1080], dtype="timedelta64[m]"))
    table = read_angles(tmp_path / "a.npy")
    assert (table.unit, table.values[:, 0].tolist()) == ("hours", [0.0, 6.5, 18.0])
    np.save(tmp_path / "b.npy", np.array(["2020-01-01"], dtype="datetime64[D]"))
    with pytest.raises(ValueError, match="dates: write the hour of the day, or the day of the year, as a number"):
        read_angles(tmp_path / "b.npy")


def test_a_code_in_a_field_of_angles_is_named_by_its_sample(tmp_path: Path) -> None:
    fields = np.full((5, 3, 4), 100.0)
    fields[3, 1, 2] = -9999.0
    np.save(tmp_path / "a.npy", fields)
    with pytest.raises(ValueError, match=r"row 4, column of the array says -9999"):
        read_angles(tmp_path / "a.npy")


def test_parquet_is_read_or_says_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        path.write_bytes(b"PAR1")
        with pytest.raises(ValueError, match="needs pyarrow .*: pip install pyarrow, or save it as"):
            read_angles(path)
        return
    frame = pd.DataFrame(DEGREES, columns=["phi", "psi"]).assign(name="x", start=pd.to_timedelta(np.arange(40), "h"))
    frame.loc[3, "psi"] = math.nan
    frame.to_parquet(path)
    table = read_angles(path, ["phi", "psi"], drop_missing=True)
    assert np.array_equal(table.values, np.delete(DEGREES, 3, axis=0))
    assert read_angles(path, ["start"]).values[:2].tolist() == [[0.0], [1.0]]
    with pytest.raises(ValueError, match="has times of day, start, and numbers, phi, psi: say which are the angles"):
        read_angles(path)

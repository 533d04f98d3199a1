"""One file means the same to every command, which matches columns by name and says what it read."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner, Result

from circsde.cli import app

TINY = "--epochs 1 --updates 60 --batch 16 --width 8 --depth 1 --steps 8 --device cpu"
PHI, PSI = np.random.default_rng(0).normal([[-60.0], [130.0]], 20.0, (2, 40)).round(2)


def ran(line: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, shlex.split(line), env={"COLUMNS": "500"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def likelihood(line: str) -> float:
    answer: dict[str, Any] = json.loads(ran(f"loglik {line} --json --quiet --force").stdout)
    return float(answer["result"]["negative_log_likelihood"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run on phi and psi in degrees, beside its table, which has an index."""
    folder = tmp_path_factory.mktemp("files")
    pd.DataFrame({"phi": PHI, "psi": PSI}).to_csv(folder / "table.csv")
    said = ran(f"train {folder}/table.csv --unit deg --out {folder}/run {TINY}").stderr
    assert "read 40 rows of columns phi, psi, in deg from -" in said
    assert "left out the first column, without a name" in said
    return folder / "run"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_all_ways_to_write_a_table_have_one_likelihood(run: Path) -> None:
    frame = pd.DataFrame({"phi": PHI, "psi": PSI})
    frame.to_csv("plain.csv", index=False)
    frame[["psi", "phi"]].to_csv("swapped.csv", sep=";", decimal=",")
    frame.assign(omega=900.0, chain="A").to_csv("more.csv", index=False)
    np.savez("a.npz", psi=PSI, phi=PHI)
    rad = {"units": "rad"}
    xr.Dataset({"psi": ("row", np.deg2rad(PSI), rad), "phi": ("row", np.deg2rad(PHI), rad)}).to_netcdf("rad.nc")
    expected = likelihood(f"{run} {run.parent}/table.csv")
    for file in ("plain.csv", "swapped.csv", "more.csv", "a.npz", "rad.nc"):
        assert likelihood(f"{run} {file}") == pytest.approx(expected, abs=1e-4), file
    assert likelihood(f"{run} swapped.csv --columns psi,phi") == pytest.approx(expected, abs=1e-4)
    np.save("swapped.npy", np.stack([PSI, PHI], axis=1))  # the twin that has no names shows that the order matters
    assert abs(likelihood(f"{run} swapped.npy") - expected) > 0.1
    np.save("right.npy", np.stack([PHI, PSI], axis=1))
    assert likelihood(f"{run} right.npy") == pytest.approx(expected, abs=1e-4)


@pytest.mark.usefixtures("undrawn")
def test_training_and_diagnosis_agree_however_a_table_is_written(run: Path) -> None:
    frame = pd.DataFrame({"phi": PHI, "psi": PSI})
    frame.to_csv("comma.csv", sep=";", decimal=",")
    frame[["psi", "phi"]].assign(chain="A").to_csv("swapped.csv", index=False)
    ran(f"train comma.csv --unit deg --out again {TINY}")
    expected = likelihood(f"{run} {run.parent}/table.csv")
    assert likelihood("again comma.csv") == pytest.approx(expected, abs=1e-6)
    found = [
        json.loads(ran(f"diagnose {run} --data {file} --json --quiet --force").stdout)["result"]
        for file in (f"{run.parent}/table.csv", "comma.csv", "swapped.csv")
    ]
    assert found[1] == found[2] == found[0]


def test_columns_of_other_names_are_taken_only_if_they_are_asked_for(run: Path) -> None:
    pd.DataFrame({"a": PHI, "b": PSI}).to_csv("other.csv", index=False)
    message = r"model knows phi, psi, and other\.csv has a, b: to take a for phi, b for psi, give --columns a,b"
    assert re.search(message, ran(f"loglik {run} other.csv --out x", status=2).stderr)
    assert (
        "took columns in their order: a for phi, b for psi"
        in ran(f"loglik {run} other.csv --columns a,b --out x").stderr
    )


def test_a_table_with_too_few_columns_names_them(run: Path) -> None:
    pd.DataFrame({"phi": PHI}).to_csv("few.csv", index=False)
    said = ran(f"loglik {run} few.csv --out x", status=2).stderr
    assert "the model knows 2 angles, phi, psi, and few.csv has 1: phi" in said


def test_samples_go_round(run: Path) -> None:
    ran(f"sample {run} -n 30 --steps 2 --out a.nc")
    expected = likelihood(f"{run} a.nc")
    with xr.open_dataset("a.nc") as samples:
        pd.DataFrame(samples["theta"].values, columns=samples["angle"].values).iloc[:, ::-1].to_csv("a.csv")
    assert likelihood(f"{run} a.csv") == pytest.approx(expected, abs=1e-4)


def test_simulation_reads_what_training_reads(run: Path) -> None:
    ran(f"simulate {run.parent}/table.csv --unit deg --steps 2 --out a")
    with xr.open_dataset("a.nc") as result:
        start = result["theta"].isel(time=0)
        assert start["oscillator"].values.tolist() == ["phi", "psi"]
        assert start.attrs["units"] == "deg"
        assert np.abs(start.values - np.stack([PHI, PSI], axis=1)).max() < 1e-4


@pytest.mark.filterwarnings("default:.*stay within 2 pi")
def test_a_warning_is_said_even_quietly() -> None:
    pd.DataFrame({"a": np.deg2rad(PHI)}).to_csv("a.csv", index=False)
    said = ran(f"train a.csv --unit deg --out run {TINY} --quiet").stderr
    assert "warning: a.csv: a in degrees stay within 2 pi, as radians do: if they are radians, give unit rad" in said

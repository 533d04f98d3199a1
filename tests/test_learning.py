"""Training and using a model from the command line, end to end and with bad input."""

import math
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image
from typer.testing import CliRunner, Result

from circsde.cli import app
from circsde.commands import train_angles, train_images
from circsde.commands.answer import Answer
from circsde.laws.distributions import WrappedNormal
from circsde.models.settings import Settings
from circsde.models.training import trained

TINY = "--epochs 2 --updates 3 --batch 16 --width 8 --depth 1 --steps 6 --device cpu"


def run(line: str) -> Result:
    result = CliRunner().invoke(app, shlex.split(line))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def good(line: str) -> str:
    result = run(line)
    assert result.exit_code == 0, result.output
    return result.output


def bad(line: str, status: int = 2) -> str:
    result = run(line)
    assert result.exit_code == status
    return result.output


def opened(path: Path) -> xr.Dataset:
    with xr.open_dataset(path) as dataset:
        return dataset.load()


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two columns of degrees, one row of which lacks an angle, and a run trained on them."""
    folder = tmp_path_factory.mktemp("learning")
    law = WrappedNormal(torch.tensor([2.5, -0.5]), 0.4)
    theta = law.sample((60,), generator=torch.Generator().manual_seed(0)).numpy() * 180 / math.pi
    rows = [f"r{i},{a:.3f},{b:.3f}" for i, (a, b) in enumerate(theta)]
    (folder / "table.csv").write_text("\n".join(["name,phi,psi", *rows, "r60,NULL,1.0"]) + "\n")
    said = good(f"train {folder}/table.csv --unit deg --columns phi,psi --drop-missing --out {folder}/run {TINY}")
    assert "left out 1 row without all angles" in said
    assert "54 rows to learn from, 6 to validate, 2 angles" in said
    return folder


def test_a_run_remembers_what_it_was_trained_on(made: Path) -> None:
    model = trained(made / "run")
    assert model.about["names"] == ["phi", "psi"]
    assert (model.about["unit"], model.about["columns"]) == ("deg", "phi,psi")
    assert model.about["centre"] == pytest.approx([2.5, -0.5], abs=0.2)


def test_samples_are_angles_in_a_file_and_a_picture(made: Path, tmp_path: Path) -> None:
    good(f"sample {made}/run -n 7 --steps 3 --out {tmp_path}/drawn")
    dataset = opened(tmp_path / "drawn.nc")
    assert dataset["theta"].shape == (7, 2)
    assert dataset["angle"].values.tolist() == ["phi", "psi"]
    assert dataset["theta"].attrs["units"] == "deg"
    assert math.pi < float(abs(dataset["theta"]).max()) <= 180.0
    assert size(tmp_path / "drawn.png")[0] > 200


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("unit", "turn", "least"),
    [("hours", 24.0, 0.0), ("deg", 360.0, -180.0), pytest.param("7", 7.0, 0.0, marks=pytest.mark.slow)],
)
def test_samples_come_back_in_the_unit_of_the_data(unit: str, turn: float, least: float, tmp_path: Path) -> None:
    """The same samples as in radians, on the turn that people count in, and the model finds them equally likely."""
    radians = np.random.default_rng(0).normal(-1.0, 0.3, (40, 2))
    np.save(tmp_path / "rad.npy", radians)
    np.save(tmp_path / "unit.npy", radians * turn / (2 * math.pi))
    for name, given in (("rad", "rad"), ("unit", unit)):
        good(f"train {tmp_path}/{name}.npy --unit {given} --out {tmp_path}/{name} {TINY}")
        good(f"sample {tmp_path}/{name} -n 9 --steps 3")
    drawn, expected = (opened(tmp_path / name / "samples.nc")["theta"] for name in ("unit", "rad"))
    assert (drawn.attrs["units"], expected.attrs["units"]) == (unit, "rad")
    assert least <= float(drawn.min()) <= float(drawn.max()) < least + turn
    phase = np.exp(2j * np.pi * drawn.values / turn)
    np.testing.assert_allclose(phase, np.exp(1j * expected.values), atol=1e-3)  # float32 data in another unit
    for name in ("rad", "unit"):
        good(f"loglik {tmp_path}/{name} {tmp_path}/rad/samples.nc --out {tmp_path}/of-{name}")
    first, second = (opened(tmp_path / f"of-{name}.nc")["log_prob"].values for name in ("rad", "unit"))
    np.testing.assert_allclose(first, second, atol=0.02)


@pytest.mark.usefixtures("undrawn")
def test_samples_may_be_a_table(made: Path, tmp_path: Path) -> None:
    good(f"sample {made}/run -n 7 --steps 3 --out {tmp_path}/a.csv")
    good(f"sample {made}/run -n 7 --steps 3 --out {tmp_path}/b")
    header, *rows = (tmp_path / "a.csv").read_text().splitlines()
    assert header == "phi,psi"
    written = np.array([[float(cell) for cell in row.split(",")] for row in rows])
    np.testing.assert_array_equal(written, opened(tmp_path / "b.nc")["theta"])
    assert (tmp_path / "a.png").exists()
    assert "exists already" in bad(f"sample {made}/run -n 7 --out {tmp_path}/a.csv")
    good(f"loglik {made}/run {tmp_path}/a.csv --out {tmp_path}/c")


def test_columns_are_known_by_their_names_and_a_file_that_states_its_unit_is_read_in_it(tmp_path: Path) -> None:
    """One density, of columns in another order and of radians for a model of degrees."""
    degrees = np.random.default_rng(0).normal((100.0, -20.0), 20.0, (40, 2)).round(3)
    for name, order in (("ab", (0, 1)), ("ba", (1, 0))):
        rows = ["ab"[order[0]] + "," + "ab"[order[1]], *(f"{row[order[0]]},{row[order[1]]}" for row in degrees)]
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n")
    columns = {name: ("row", np.deg2rad(degrees[:, i]), {"units": "rad"}) for i, name in enumerate("ab")}
    xr.Dataset(columns).to_netcdf(tmp_path / "rad.nc")
    good(f"train {tmp_path}/ab.csv --unit deg --out {tmp_path}/run {TINY}")
    found = []
    for file in ("ab.csv", "ba.csv", "rad.nc"):
        good(f"loglik {tmp_path}/run {tmp_path}/{file} --out {tmp_path}/values --force")
        found.append(opened(tmp_path / "values.nc")["log_prob"].values)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], found[2], atol=1e-4)


def test_likelihoods_are_a_value_per_row_with_the_mean_said(made: Path, tmp_path: Path) -> None:
    said = good(f"loglik {made}/run {made}/table.csv --drop-missing --out {tmp_path}/values")
    values = opened(tmp_path / "values.nc")["log_prob"].values
    assert values.shape == (60,)
    assert f"{-values.mean():.4f} +- {values.std(ddof=1) / 60**0.5:.4f} nats" in said


def test_a_diagnosis_says_what_may_be_wrong(made: Path, tmp_path: Path) -> None:
    said = good(f"diagnose {made}/run --out {tmp_path}/found")
    for words in (
        "the law at the horizon and",
        "samples and data: ",
        "a probability of 0.05",
        "the density integrates to",
    ):
        assert words in said
    dataset = opened(tmp_path / "found.nc")
    assert dataset["theta"].shape == dataset["sampled"].shape == (60, 2)
    assert (tmp_path / "found.png").exists()


def test_training_again_goes_on_and_other_options_are_refused(made: Path) -> None:
    line = f"train {made}/table.csv --unit deg --columns phi,psi --drop-missing --out {made}/run "
    before = (made / "run" / "metrics.csv").read_text()
    good(line + TINY)
    assert (made / "run" / "metrics.csv").read_text() == before
    assert "settings.batch was 16 and is now 32" in bad(line + TINY.replace("--batch 16", "--batch 32"))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("process", ["reference", "global"])
@pytest.mark.parametrize("objective", ["best", "one-step"])
def test_every_process_trains_and_samples(process: str, objective: str, made: Path, tmp_path: Path) -> None:
    table = f"{made}/table.csv --unit deg --columns phi,psi --drop-missing"
    good(f"train {table} --out {tmp_path}/run --process {process} --objective {objective} {TINY}")
    good(f"sample {tmp_path}/run -n 3 --steps 2")
    assert opened(tmp_path / "run" / "samples.nc")["theta"].shape == (3, 2)


@pytest.mark.usefixtures("undrawn")
def test_a_single_angle_is_drawn_as_histograms(made: Path, tmp_path: Path) -> None:
    good(f"train {made}/table.csv --unit deg --columns psi --out {tmp_path}/run {TINY}")
    good(f"diagnose {tmp_path}/run")
    assert opened(tmp_path / "run" / "diagnosis.nc")["log_density"].dims == ("first",)


def test_three_angles_are_drawn_as_two_pairs(tmp_path: Path) -> None:
    np.save(tmp_path / "three.npy", np.random.default_rng(0).uniform(-3, 3, (40, 3)))
    good(f"train {tmp_path}/three.npy --unit rad --out {tmp_path}/run {TINY}")
    good(f"sample {tmp_path}/run -n 5 --steps 2")
    width, height = size(tmp_path / "run" / "samples.png")
    assert width > 1.5 * height


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train {0}/table.csv --unit rad --columns phi,psi --drop-missing --out {1}/x", "are they degrees?"),
        ("train {0}/table.csv --unit deg --columns phi,psi --out {1}/x", "lack an angle"),
        ("train {0}/table.csv --unit deg --columns psi --process local --out {1}/x", "is for images"),
        ("train torsion:xyz --out {1}/x", "unknown residue 'xyz'"),
        ("train torsion:lys --unit deg --out {1}/x", "drop unit and columns"),
        ("train {0}/table.csv --unit deg --columns psi --attraction 0 --out {1}/x", "attraction must be positive"),
        ("train {0}/table.csv --unit deg --columns psi --held-out 1.5 --out {1}/x", "between 0 and 1"),
        (
            "train {0}/table.csv --unit deg --columns psi --attraction 2 --out {1}/x",
            "--attraction: the process diffusion",
        ),
        ("train {0}/table.csv --unit deg --columns psi --seconds 9 --epochs 3 --out {1}/x", "--epochs: with --seconds"),
        ("train torsion:lys --held-out 0.3 --out {1}/x", "--held-out: the rows of torsions that validate are fixed"),
        (
            "loglik {0}/run nope.csv --out {1}/x",
            "there is no file nope.csv: give a file of angles, its name ending in .csv,",
        ),
        ("sample {1}", "there is no checkpoint"),
        ("loglik {0}/run {0}/table.csv --columns psi --out {1}/x", "knows 2 angles, phi, psi, and"),
        ("sample {0}/run --method euler --out {1}/x", "unknown method 'euler'"),
        ("data fetch torsion-xyz", "choose one of torsion-cispro"),
        ("data fetch torsion-lys --from {1}/nowhere.csv", "there is no file"),
        ("data fetch torsion-lys --from {0}/table.csv", "not the file rota8000-lys.csv"),
    ],
)
def test_bad_input_is_answered_by_one_message(line: str, message: str, made: Path, tmp_path: Path) -> None:
    said = bad(line.format(made, tmp_path))
    assert message in " ".join(said.split())
    assert said.startswith("error: ")


@pytest.mark.parametrize(
    ("options", "seconds", "epochs", "updates", "patience"),
    [
        ("", 300.0, 40, 25, None),
        ("--seconds 20", 20.0, 40, 25, None),
        ("--epochs 40", None, 40, 500, None),
        ("--updates 70", None, 40, 70, None),
        ("--patience 3", None, 40, 500, 3),
        ("--seconds 20 --patience 3", 20.0, 40, 25, 3),
    ],
)
@pytest.mark.parametrize("data", ["a table", "images"])
def test_training_on_a_table_ends_in_minutes_unless_an_end_is_given(
    data: str,
    options: str,
    seconds: float | None,
    epochs: int,
    updates: int,
    patience: int | None,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[Settings] = []

    def fit(*arguments: object) -> Answer:
        kept.extend(x for x in arguments if isinstance(x, Settings))
        return Answer([], {}, {})

    monkeypatch.setattr(train_angles, "fit", fit)
    monkeypatch.setattr(train_images, "fit", fit)
    table = f"{made}/table.csv --unit deg --drop-missing"
    good(f"train {table if data == 'a table' else 'texture:brick --crop 16'} --out {made}/none {options}")
    if data == "images" and not options:
        seconds, updates = None, 500
    (found,) = kept
    assert (found.seconds, found.epochs, found.updates, found.patience) == (seconds, epochs, updates, patience)


def test_training_says_when_it_ends_at_the_latest(made: Path, tmp_path: Path) -> None:
    table = f"{made}/table.csv --unit deg --columns phi,psi --drop-missing"
    said = good(f"train {table} --out {tmp_path}/run {TINY} --patience 2")
    assert "ends after 2 epochs of 3 updates at the latest, or after 2 epochs without a lower validation loss" in said


def test_a_checkpoint_that_is_cut_off_is_answered_by_a_message(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    whole = (tmp_path / "run" / "best.safetensors").read_bytes()
    (tmp_path / "run" / "best.safetensors").write_bytes(whole[:-100])
    assert "only a part of one" in bad(f"sample {tmp_path}/run")


def test_a_loss_that_is_not_finite_leaves_with_status_1(made: Path, tmp_path: Path) -> None:
    table = f"{made}/table.csv --unit deg --columns phi,psi --drop-missing"
    said = bad(f"train {table} --out {tmp_path}/run --learning-rate 1e30 {TINY} --epochs 4", 1)
    assert "is not finite at update" in said


def test_torsions_are_known_by_name_once_their_file_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Callable[..., Path]
) -> None:
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    file = shared_data("data", "torsion", "cispro.csv")
    assert "2780 rows of 2 angles" in good(f"data fetch torsion-cispro --from {file}")
    assert "2224 rows to learn from, 278 to validate" in good(f"train torsion:cispro --out {tmp_path}/run {TINY}")
    assert "over 278 rows" in good(f"loglik {tmp_path}/run torsion:cispro/test")

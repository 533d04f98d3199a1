"""The command line as a newcomer meets it: a job from end to end, help, and one clear message for bad input."""

import json
import math
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner, Result

from circsde import plots
from circsde.cli import app
from circsde.commands import simulate as command
from circsde.data import load
from circsde.solvers.methods import METHODS

# 25 oscillators: too few for a mean-field limit, which takes time
TINY = "texture:brick --crop 64 --size 5 --steps 8 --frames 4"


class Run:
    """``circsde`` with a command line."""

    def __call__(self, line: str) -> Result:
        result = CliRunner().invoke(app, shlex.split(line))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result


@pytest.fixture
def drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the program in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Run()


@pytest.fixture
def run(drawing: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line with empty pictures, which takes less time."""
    monkeypatch.setattr(plots, "forward_process", lambda _: Figure(figsize=(1, 1)))
    return drawing


def opened(path: str) -> xr.Dataset:
    """Hours are angles here, and no durations, which some versions of xarray take them for."""
    with xr.open_dataset(path, decode_timedelta=False) as dataset:
        return dataset.load()


# --- simulate, from end to end


def test_a_texture_is_simulated_saved_and_drawn(drawing: Run) -> None:
    result = drawing(f"simulate {TINY} -n 2 --seed 3")
    assert result.exit_code == 0, result.output
    assert "texture-brick-forward.nc" in result.stdout
    with Image.open("texture-brick-forward.png") as picture:
        assert min(picture.size) > 500
    dataset = opened("texture-brick-forward.nc")
    assert dict(dataset["theta"].sizes) == {"time": 5, "sample": 2, "row": 5, "column": 5}
    assert dataset["theta"].attrs["units"] == "rad"
    np.testing.assert_allclose(dataset["time"], np.linspace(0, 1, 5))
    moment = np.exp(1j * dataset["theta"].to_numpy().astype(float)).mean((2, 3))
    np.testing.assert_allclose(dataset["order_parameter"], np.abs(moment), atol=1e-12)
    np.testing.assert_allclose(dataset["mean_direction"], np.angle(moment), atol=1e-12)
    assert dataset.attrs["status"] == "success"
    assert dataset.attrs["steps"] == 8
    assert json.loads(dataset.attrs["options"])["seed"] == 3
    assert "torch" in json.loads(dataset.attrs["versions"])


def test_the_first_frame_is_the_data(run: Run) -> None:
    run("simulate texture:grass --size 4x6 --steps 2 --scale 0.5")
    theta = opened("texture-grass-forward.nc")["theta"].isel(time=0)
    expected = load("texture:grass", size=(4, 6)).theta * (0.5 / 0.9)
    np.testing.assert_allclose(theta, expected, atol=1e-6)


def test_a_seed_fixes_the_result_and_another_changes_it(run: Run) -> None:
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(f"simulate texture:brick --crop 64 --size 5 --steps 3 --out {out} --seed {seed}")
    a, b, c = (opened(f"{name}.nc")["theta"] for name in "abc")
    xr.testing.assert_identical(a, b)
    assert not np.array_equal(a.isel(time=0), c.isel(time=0))
    assert not np.array_equal(a.isel(time=-1) - a.isel(time=0), c.isel(time=-1) - c.isel(time=0))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("coupling", ["none", "global", "local --radius 2 --boundary reflecting"])
def test_every_method_runs_with_every_coupling(run: Run, method: str, coupling: str) -> None:
    result = run(f"simulate {TINY} --method {method} --coupling {coupling} --dtype float64")
    assert result.exit_code == 0, result.output
    assert opened("texture-brick-forward.nc")["theta"].dtype == np.float64


def test_colour_images_have_a_channel_axis(run: Run) -> None:
    assert run(f"simulate {TINY} --colour rgb").exit_code == 0
    assert opened("texture-brick-forward.nc")["theta"].dims == ("time", "sample", "channel", "row", "column")


def test_a_table_of_angles_keeps_its_column_names_and_says_what_it_left_out(run: Run) -> None:
    Path("angles.csv").write_text("name,phi,psi\na,10,20\nb,NA,3\nc,350,180\n")
    result = run("simulate angles.csv --unit deg --columns psi,phi --drop-missing --steps 4")
    assert result.exit_code == 0, result.output
    assert "left out 1 row without all angles" in result.stderr
    dataset = opened("angles-forward.nc")
    assert dataset["oscillator"].values.tolist() == ["psi", "phi"]
    assert dataset["theta"].attrs["units"] == "deg"
    np.testing.assert_allclose(dataset["theta"][0, :, 1], [10, -10], atol=1e-6)


def test_images_that_cannot_be_used_are_left_out_and_named(run: Run) -> None:
    Path("photos").mkdir()
    for name, size in (("a", 16), ("b", 16), ("small", 4)):
        pixels = np.random.default_rng(0).integers(0, 256, (size, size), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{name}.png")
    Path("photos/bad.png").write_text("no picture")
    result = run("simulate photos --crop 5 --steps 2 --frames 1")
    assert result.exit_code == 0, result.output
    assert "left out 2 images: " in result.stderr
    assert "cannot read photos/bad.png as an image" in result.stderr
    assert "small.png: the image has 4x4 pixels, fewer than the crop" in result.stderr
    assert opened("photos-forward.nc").sizes["sample"] == 2
    run("simulate photos --crop 5 -n 5 --steps 2 --frames 1 --force")
    assert opened("photos-forward.nc")["image"].values.tolist() == [*["photos/a.png"] * 3, *["photos/b.png"] * 2]
    assert "2 images of photos can be used, 4 are asked for" in run("simulate photos --crop 8 -n 4 --force").stderr


@pytest.mark.parametrize("kind", ["brodatz", "socofing"])
def test_sets_of_images_to_train_on_are_simulated_too(run: Run, kind: str) -> None:
    Path("set").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (103, 96), dtype=np.uint8)
    Image.fromarray(pixels).save("set/100__M_Left_index_finger.png")
    result = run(f"simulate {kind}:set --steps 2 --frames 1 --out a")
    assert result.exit_code == 0, result.output
    assert opened("a.nc")["theta"].shape[2:] == ((97, 90) if kind == "socofing" else (103, 96))


def test_one_angle_has_no_order_parameter_but_a_resultant_length_over_samples(drawing: Run) -> None:
    theta = np.random.default_rng(0).normal(0.5, 1.0, (50, 1))
    np.save("one.npy", theta)
    result = drawing("simulate one.npy --unit rad --coupling none --steps 4 --frames 2")
    assert result.exit_code == 0, result.output
    start = abs(np.exp(1j * theta).mean())
    assert f"mean resultant length over 50 samples of one angle: {start:.3f} at the start" in result.stdout
    dataset = opened("one-forward.nc")
    assert "order_parameter" not in dataset
    moment = np.exp(1j * dataset["theta"].values.astype(float)).mean((1, 2))
    np.testing.assert_allclose(dataset["resultant_length"], abs(moment), atol=1e-12)
    np.save("single.npy", theta[:1])
    answer = json.loads(drawing("simulate single.npy --unit rad --coupling none --steps 4 --json").stdout)
    assert answer["result"]["order_parameter"] is answer["result"]["resultant_length"] is None


def test_rates_of_one_s_own_replace_the_schedule(run: Run) -> None:
    run(f"simulate {TINY} --diffusion-rate 0 --coupling-rate 0 --reference-rate 0,2 --horizon 3 --out a")
    dataset = opened("a.nc")
    assert dataset["time"][-1] == 3.0
    start, end = (dataset["theta"].isel(time=i).to_numpy().astype(float) for i in (0, -1))
    # theta' = -(2 t / 3) sin(theta): tan(theta/2) shrinks by exp(-3); Heun with 8 steps is 1e-2 close
    np.testing.assert_allclose(np.tan(end / 2), np.tan(start / 2) * math.exp(-3), atol=2e-2)


@pytest.mark.parametrize("out", ["here/run", "here/run.nc", "here/run.png"])
def test_outputs_go_where_they_are_told(run: Run, out: str) -> None:
    Path("here").mkdir()
    assert run(f"simulate {TINY} --out {out}").exit_code == 0
    assert sorted(path.name for path in Path("here").iterdir()) == ["run.nc", "run.png"]


@pytest.mark.parametrize("force", ["", "--force"])
def test_the_source_is_never_replaced(run: Run, force: str) -> None:
    Image.fromarray(np.zeros((5, 5), dtype=np.uint8)).save("photo.png")
    before = Path("photo.png").read_bytes()
    refused = run(f"simulate photo.png --steps 2 --out photo {force}")
    assert refused.exit_code == 2
    assert "photo.png is the source" in refused.stderr
    assert run(f"simulate photo.png --steps 2 {force}").exit_code == 0
    assert Path("photo.png").read_bytes() == before


def test_a_folder_as_output_receives_files_named_after_the_source(run: Run) -> None:
    Path("here").mkdir()
    assert run(f"simulate {TINY} --out here").exit_code == 0
    assert sorted(path.name for path in Path("here").iterdir()) == [
        "texture-brick-forward.nc",
        "texture-brick-forward.png",
    ]


def test_a_picture_can_be_drawn_again_from_the_file(drawing: Run) -> None:
    drawing(f"simulate {TINY} -n 2")
    plots.forward_process(opened("texture-brick-forward.nc")).savefig("again.png", dpi=150)
    with Image.open("again.png") as again, Image.open("texture-brick-forward.png") as first:
        assert np.array_equal(np.asarray(again), np.asarray(first))


# --- what goes wrong


def test_files_are_replaced_only_by_force_and_the_refusal_comes_before_the_work(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(f"simulate {TINY}").exit_code == 0
    before = Path("texture-brick-forward.nc").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("circsde.data.load", lambda *_, **__: pytest.fail("work was done"))
        refused = run(f"simulate {TINY} --seed 9")
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert Path("texture-brick-forward.nc").read_bytes() == before
    assert run(f"simulate {TINY} --seed 9 --force").exit_code == 0
    assert Path("texture-brick-forward.nc").read_bytes() != before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nowhere.png", "there is no file or folder nowhere.png; built in are texture:brick"),
        ("empty", "no images in the folder empty: it is empty"),
        ("mixed", "give size to resize them all, or crop"),
        ("bad.png", "cannot read bad.png as an image"),
        ("angles.csv --columns 1", "give unit rad, deg, hours, or a period"),
        ("angles.csv --unit furlong", "unknown unit 'furlong'"),
        ("angles.csv --unit rad --columns 1", "are they degrees?"),
        ("angles.csv --unit deg", "row 2, column 2 is nan"),
        ("angles.csv --unit deg --columns 7", "no column of angles '7': it has 1, 2"),
        ("texture:brick --size huge", "'huge' is not a size"),
        ("texture:brick --steps 0", "Invalid value for '--steps'"),
        ("texture:brick --seed -5", "Invalid value for '--seed'"),
        ("texture:brick --seed 9223372036854775808", "a seed must be below 2^63"),
        ("texture:brick --size 1000000", "too large a size"),
        ("texture:brick --frames 1000000000 --steps 1000000000", "GiB of memory"),
        ("texture:brick --method magic", "unknown method 'magic'; choose one of euler_maruyama, heun"),
        ("texture:brick --coupling-rate -1", "a rate must be finite and non-negative"),
        ("texture:brick --coupling-rate fast", "'fast' is not a rate"),
        ("texture:brick --coupling-rate 1 --schedule published:100", "not both"),
        ("texture:brick --horizon 2", "give rates of your own"),
        ("texture:brick --diffusion-rate 1 --horizon 0", "horizon must be positive"),
        ("texture:brick --schedule daily", "unknown schedule 'daily': give published:N"),
        ("texture:brick --schedule published:1", "at least 2 steps"),
        ("texture:brick --scale 1.5", "encoding scale must be in (0, pi]"),
        ("texture:brick --size 16 --coupling local --radius 9", "does not fit"),
        ("texture:brick --out missing/run", "the folder missing does not exist"),
        ("texture:brick --out bad.png/run", "bad.png is a file, not a folder"),
        ("texture:brick --coupling sideways", "'sideways' is not one of"),
        ("texture:brick --radius 3", "--radius: of local coupling: add --coupling local"),
        ("texture:brick --boundary reflecting --coupling none", "--boundary: of local coupling"),
        ("texture:brick --coupling none --coupling-rate 2", "--coupling-rate: without coupling it does nothing"),
        ("texture:brick --centre", "--centre: of a window, and none is cut out"),
        ("angles.csv --unit deg --columns 1 --scale 0.5", "--scale: for images, and angles.csv is a table"),
        ("angles.csv --unit deg --columns 1 --colour rgb", "--colour: for images"),
        ("torsion:lys --unit deg", "drop unit and columns"),
        ("socofing:nowhere", "there is no file or folder nowhere"),
    ],
)
def test_bad_input_gets_one_message_status_2_and_no_file(run: Run, line: str, message: str) -> None:
    Path("empty").mkdir()
    Path("mixed").mkdir()
    for name, size in (("a", 8), ("b", 9)):
        Image.fromarray(np.zeros((size, size), dtype=np.uint8)).save(f"mixed/{name}.png")
    Path("bad.png").write_text("not a picture")
    Path("angles.csv").write_text("10,20\n350,NULL\n")
    before = set(Path().rglob("*"))
    result = run(f"simulate {line}")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr
    assert set(Path().rglob("*")) == before


def test_a_failed_integration_has_status_1_says_where_and_keeps_what_was_computed(run: Run) -> None:
    result = run(f"simulate {TINY} --diffusion-rate 0,1e18 --out a")
    assert result.exit_code == 1
    assert "an angle of sample 0 moved by more than" in result.stderr
    dataset = opened("a.nc")
    assert dataset.attrs["status"] == "overflow"
    assert dataset.sizes["time"] >= 1
    assert np.isfinite(dataset["theta"]).all()


def test_ctrl_c_ends_with_status_130_and_no_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("circsde.studies.forward.sdeint", interrupted)
    result = run(f"simulate {TINY}")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert not list(Path().iterdir())


def test_a_full_disk_is_one_message_and_no_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: xr.Dataset, path: Path, **__: object) -> None:
        path.write_text("half")
        raise OSError("no space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    result = run(f"simulate {TINY}")
    assert result.exit_code == 2
    assert "could not write texture-brick-forward.nc" in result.stderr
    assert not list(Path().iterdir())


def test_a_bug_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_default", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(f"simulate {TINY}")


# --- help


def test_help_has_examples_that_name_real_options_and_every_method(run: Run) -> None:
    shown = run("simulate --help").stdout
    assert "circsde simulate texture:brick -n 4 --crop 256 --size 64" in shown
    for name in METHODS:
        assert name in shown
    options = set(shown.split("Examples")[0].split())
    for example in (line for line in shown.split("Examples")[1].splitlines() if "circsde simulate" in line):
        assert {word for word in example.split() if word.startswith("-")} <= options


def test_the_program_without_a_command_shows_its_commands_and_its_version(run: Run) -> None:
    assert "simulate" in run("").output
    assert run("--version").stdout.startswith("circsde ")


def test_the_command_line_starts_without_libraries_that_only_its_commands_need() -> None:
    program = (
        "import sys, circsde; before = set(sys.modules); import circsde.cli\n"
        "print(sorted({'torch', 'matplotlib', 'xarray', 'skimage', 'PIL'} & (set(sys.modules) - before)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("unit", ["deg", "hours", "7"])
def test_angles_are_written_in_the_unit_and_with_the_names_that_they_were_read_in(unit: str, run: Run) -> None:
    """Hardly moved, they are those of the file; a command that reads what another wrote finds them again."""
    values = np.array([[1.0, 2.5], [3.0, 6.0], [0.25, 4.0]]) * (20.0 if unit == "deg" else 1.0)
    Path("a.csv").write_text("\n".join(["phi,psi", *(",".join(map(str, row)) for row in values)]))
    still = "--coupling none --diffusion-rate 1e-14 --steps 1 --frames 1"
    run(f"simulate a.csv --unit {unit} --missing none {still} --out written")
    dataset = opened("written.nc")
    assert dataset["theta"].attrs["units"] == unit
    assert dataset["oscillator"].values.tolist() == ["phi", "psi"]
    np.testing.assert_allclose(dataset["theta"].values[-1], values, atol=2e-3)
    run(f"simulate a.csv --unit {unit} --missing none {still} --out b.csv")
    assert Path("b.csv").read_text().splitlines()[0] == "phi,psi"
    np.testing.assert_allclose(np.loadtxt("b.csv", delimiter=",", skiprows=1), values, atol=2e-3)
    again = load("written.nc", columns=["theta"], along="time", missing=())
    assert again.unit == unit
    assert "would be a table of angles" in run("simulate texture:brick --size 8 --steps 1 --out c.csv").stderr

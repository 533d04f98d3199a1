"""Conventions of all commands: --json, --quiet, exit status, help with examples, completion."""

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
import xarray as xr
from typer.testing import CliRunner, Result

from circsde import record
from circsde.cli import app
from circsde.commands import completion, console, doctor, fetch, options, tables
from circsde.commands.answer import Answer
from circsde.data import torsion
from circsde.exact import problems
from circsde.exact.catalogue import PROBLEMS
from circsde.models import checkpoint
from circsde.solvers.methods import METHODS

COMMANDS = (
    *("simulate", "study", "select", "problems", "train", "sample", "loglik", "diagnose", "verify", "doctor"),
    "data fetch",
)
TINY = "--epochs 1 --updates 2 --batch 8 --width 8 --depth 1 --steps 4 --device cpu"
PROGRAM = [sys.executable, "-c", "from circsde.cli import main; main()"]


def ran(line: str, **environment: str) -> Result:
    result = CliRunner().invoke(app, shlex.split(line), env={"COLUMNS": "200", **environment})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def documented(command: str) -> tuple[set[str], set[str]]:
    """The keys of files and of the result that the page on the command line names."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "command_line.md").read_text()
    (row,) = re.findall(rf"^\| `{command}` \|(.*)\|(.*)\|$", page, flags=re.MULTILINE)
    return tuple(set(re.findall(r"`(\w+)`", cell)) for cell in row)  # type: ignore[return-value]


def answered(line: str, status: int = 0) -> dict[str, Any]:
    """The JSON object that a command writes on stdout, and nothing else; ``--quiet`` keeps notes from stderr."""
    result = ran(f"{line} --json --quiet")
    assert result.exit_code == status, result.output
    answer: dict[str, Any] = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert answer["command"] == line.split()[0]
    assert answer["exit_code"] == status
    assert answer["versions"]["torch"] == torch.__version__
    assert bool(result.stderr) == bool(status)
    files, values = documented(answer["command"])
    assert set(answer) == {"command", "versions", "exit_code", "files", "error" if status else "result"}
    assert set(answer["files"]) <= files
    assert set(answer.get("result", ())) <= values
    for file in answer["files"].values():
        assert Path(file).exists()
    return answer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run, beside the table of angles that it was trained on."""
    folder = tmp_path_factory.mktemp("conventions")
    np.save(folder / "angles.npy", np.random.default_rng(0).normal(0.0, 0.4, (40, 2)))
    assert ran(f"train {folder}/angles.npy --unit rad --out {folder}/run {TINY}").exit_code == 0
    return folder / "run"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> None:  # noqa: ARG001
    monkeypatch.chdir(tmp_path)


# --- JSON


def test_a_simulation_answers_with_the_order_parameter_over_time() -> None:
    result = answered("simulate texture:brick --crop 64 --size 6 --steps 4 --frames 2")["result"]
    with xr.open_dataset("texture-brick-forward.nc") as dataset:
        np.testing.assert_allclose(result["order_parameter"], dataset["order_parameter"].mean("sample"), atol=1e-12)
    assert result["time"] == [0.0, 0.5, 1.0]
    assert len(result["mean_field_order_parameter"]) == 3


def test_a_study_answers_with_a_row_for_every_method_and_setting() -> None:
    result = answered("study published --methods heun,sra1 --steps 5,10,20")["result"]
    assert {(row["solver"], row["steps"]) for row in result["errors"]} == {
        (method, steps) for method in ("heun", "sra1") for steps in (5, 10, 20)
    }
    with xr.open_dataset("published-weak.nc") as study:
        for row in result["errors"]:
            assert row["error"] == float(study["error"].sel(solver=row["solver"], steps=row["steps"]))
            assert row["lower"] <= row["error"] <= row["upper"]
    assert [row["claimed_order"] for row in result["orders"]] == [2.0, 2.0]


def test_what_is_not_known_is_null() -> None:
    (order,) = answered("study published --methods heun --steps 5")["result"]["orders"]
    assert order["order"] is None
    assert order["verdict"] == "not resolved"


@pytest.mark.slow
def test_a_selection_answers_with_its_choice_or_null() -> None:
    line = "select reverse --methods heun --steps 5,10 --stochasticity 0,1"
    result = answered(f"{line} --tolerance 0.1")["result"]
    assert result["selected"] == {"method": "heun", "n_steps": 5, "power": 1.0, "stochasticity": 0.0, "nfe": 10.0}
    assert {row["stochasticity"] for row in result["candidates"] if row["accepted"]} == {0.0}
    result = answered(f"{line} --tolerance 1e-9 --out none")["result"]
    assert result["selected"] is None
    assert "nothing on offer qualifies" in result["advice"]


def test_an_installation_is_described_and_a_solve_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not there is named with its extra; a wrong answer is a failure."""
    result = answered("doctor")["result"]
    assert result["packages"]["torch"] == torch.__version__
    assert result["devices"][0] == "cpu"
    assert 0.0 < result["error"] < doctor.TOLERANCE
    assert result["compiled_error"] is None
    monkeypatch.setattr(doctor, "EXTRAS", {"some": ("no-such-package",)})
    monkeypatch.setattr(doctor, "_error", lambda *, compiled: 1e-6 * 10**compiled)
    said = ran("doctor --compile").stdout
    assert "extra some: pip install 'circsde[some]' adds no-such-package" in said
    assert "the same compiled is within 1.0e-05 rad" in said
    monkeypatch.setattr(doctor, "_error", lambda *, compiled: 1e-3)  # noqa: ARG005
    assert "a solve is 1.0e-03 rad from the exact answer" in answered("doctor", 1)["error"]


def test_problems_are_listed() -> None:
    listed = answered("problems")["result"]["problems"]
    assert set(listed[0]) == {"name", "description"}
    assert [problem["name"] for problem in listed] == problems.names()


def test_a_model_is_trained_sampled_and_judged_in_json(run: Path) -> None:
    data = run.parent / "angles.npy"
    answer = answered(f"train {data} --unit rad --out again {TINY}")
    assert answer["files"] == {"run": "again"}
    assert answer["result"] == {"update": 2, "training": 36, "validation": 4, "angles": ["1", "2"]}
    sampled = {"count": 3, "start_law": "settled", "angles": ["1", "2"], "unit": "rad"}
    assert answered("sample again -n 3 --steps 2")["result"] == sampled
    summary = answered(f"loglik again {data}")["result"]
    with xr.open_dataset("again/loglik.nc") as values:
        log_prob = values["log_prob"].to_numpy()
    assert summary["negative_log_likelihood"] == pytest.approx(-log_prob.mean(), rel=1e-5)
    assert summary["standard_error"] == pytest.approx(log_prob.std(ddof=1) / 40**0.5, rel=1e-3)
    found = answered("diagnose again")["result"]
    assert found["normalisation"] == pytest.approx(1.0, abs=1e-3)
    assert 0.0 < found["terminal_p"] <= 1.0


def test_a_likelihood_of_one_row_has_no_standard_error(run: Path) -> None:
    np.save("one.npy", np.zeros((1, 2)))
    assert answered(f"loglik {run} one.npy --unit rad --out one")["result"]["standard_error"] is None
    assert "(one row)" in ran(f"loglik {run} one.npy --unit rad --out again").stdout


def test_a_failure_is_an_object_too_and_names_what_was_kept() -> None:
    answer = answered("simulate texture:brick --crop 64 --size 5 --steps 4 --diffusion-rate 0,1e18 --out a", status=1)
    assert "result" not in answer
    assert answer["files"] == {"phases": "a.nc"}
    assert "a.nc" in answer["error"]
    assert "there is no problem 'nope'" in answered("study nope", status=2)["error"]


def test_notes_and_versions_go_to_stderr_and_quiet_leaves_results_alone() -> None:
    line = "simulate texture:brick --crop 64 --size 5 --steps 4 --frames 2 --force"
    loud, quiet = ran(line), ran(f"{line} -q")
    assert loud.stdout == quiet.stdout
    assert quiet.stderr == ""
    assert loud.stderr.splitlines()[0] == ran("--version").stdout.strip()
    assert f"torch {torch.__version__}" in loud.stderr


# --- exit status


def test_a_lack_of_memory_is_a_failure_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> Answer:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(tables, "problem_table", full)
    result = ran("problems")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: not enough memory")


def test_another_runtime_error_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Answer:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(tables, "problem_table", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        ran("problems")


def test_the_environment_asks_for_a_traceback() -> None:
    with pytest.raises(ValueError, match="there is no problem"):
        ran("study nope", CIRCSDE_TRACEBACK="1")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device of a full disk")
@pytest.mark.parametrize("form", ["", "--json"])
def test_an_answer_that_cannot_be_printed_is_one_message(form: str) -> None:
    with open("/dev/full", "w") as full:
        said = subprocess.run([*PROGRAM, "problems", *form.split()], stdout=full, stderr=subprocess.PIPE, text=True)
    assert said.returncode == 1
    assert said.stderr.startswith("error: could not print the answer")
    assert "Traceback" not in said.stderr


def test_a_training_that_is_interrupted_leaves_with_130_and_says_that_it_goes_on(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"train {run.parent}/angles.npy --unit rad --out long {TINY} --epochs 9"
    save = checkpoint.save

    def interrupted(state: Mapping[str, Any], path: str | Path) -> None:
        save(state, path)
        if state["epoch"] == 1:  # of two epochs, the second
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", interrupted)
        result = ran(line)
    assert result.exit_code == 130
    assert "the same command resumes" in result.stderr
    assert Path("long/last.safetensors").exists()
    assert ran(line).exit_code == 0


LONG = {
    "simulate": "simulate texture:brick --crop 64 --size 6 --steps 4 --out x",
    "study": "study drifting --methods heun --steps 2,4 --monte-carlo --paths 64 --out x",
    "select": "select drifting --methods heun --steps 2,4 --monte-carlo --tolerance 1 --out x",
    "study RUN": "study {run} --steps 4 --methods ancestral --paths 16 --device cpu --out x",
    "select RUN": "select {run} --tolerance 1 --methods ancestral --paths 16 --device cpu --out x",
    "train": "train {data} --unit rad --out new " + TINY,
    "sample": "sample {run} -n 3 --steps 2 --out x",
    "loglik": "loglik {run} {data} --unit rad --out x",
    "diagnose": "diagnose {run} --out x",
    "verify": "verify {run} --out x",
    "doctor": "doctor",
}
"""Commands that may compute for more than two seconds."""


@pytest.mark.parametrize("command", LONG)
def test_a_command_that_computes_shows_progress_and_ctrl_c_during_it_leaves_130_and_no_result(
    command: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes at the first sign of progress: without one, the command would end with its result."""

    @contextmanager
    def interrupted(*_: object, **__: object) -> Iterator[Callable[..., None]]:
        def update(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        yield update

    monkeypatch.setattr(console, "progress_bar", interrupted)
    before = set(run.rglob("*"))
    result = ran(LONG[command].format(run=run, data=run.parent / "angles.npy"))
    assert result.exit_code == 130
    assert result.stdout == ""
    assert {line.partition(":")[0] for line in result.stderr.splitlines() if "interrupted" in line} == {"error"}
    assert not {*Path().glob("x.*")} - {Path("x.cells")}
    assert set(run.rglob("*")) == before


def test_every_command_is_held_to_the_conventions() -> None:
    def named(group: Any, before: str = "") -> Iterator[str]:
        for name, found in group.commands.items():
            yield from named(found, f"{name} ") if hasattr(found, "commands") else [f"{before}{name}"]

    assert {*named(typer.main.get_command(app))} == {*COMMANDS}
    assert {*COMMANDS} - {name.removesuffix(" RUN") for name in LONG} == {"problems", "data fetch"}
    refused = {line.split()[0] for lines in BAD.values() for line in lines}
    assert {name.split()[0] for name in COMMANDS} - refused == {"problems", "doctor"}  # which take nothing to refuse


BAD = {
    "a file as a folder": [
        "simulate texture:brick --out file/x",
        "study published --out file/x",
        "select published --tolerance 1 --out file/x",
        "train {data} --unit rad --out file/x",
        "train texture:brick --crop 16 --cache file --out x",
        "sample {run} --out file/x",
        "loglik {run} {data} --unit rad --out file/x",
        "diagnose {run} --out file/x",
        "verify {run} --out file/x",
    ],
    "exists already": [
        "simulate texture:brick --out old",
        "study published --out old",
        "select published --tolerance 1 --out old",
        "sample {run} --out old",
        "loglik {run} {data} --unit rad --out old",
        "diagnose {run} --out old",
        "verify {run} --out old",
    ],
    "there is no": [
        "simulate nowhere",
        "study nowhere",
        "select nowhere --tolerance 1",
        "train nowhere --out x",
        "sample nowhere",
        "loglik nowhere {data}",
        "loglik {run} nowhere",
        "diagnose {run} --data nowhere",
        "verify nowhere",
        "verify {run} --data nowhere",
        "verify nowhere.py:log_prob --samples {data}",
        "data fetch torsion-lys --from nowhere",
    ],
    "Invalid value": [
        "simulate texture:brick -n 0",
        "simulate ''",
        "study published --paths 1",
        "select published --tolerance 1 --seed -1",
        "train {data} --unit rad --out x --epochs 0",
        "train {data} --unit rad --out x --updates -1",
        "train {data} --unit rad --out x --device tpu",
        "sample {run} -n 0",
        "diagnose {run} --seed 1e3",
        "verify {run} --points 5",
    ],
    "must be positive and finite": [
        "select published --tolerance 1 --budget 0",
        "train {data} --unit rad --out x --learning-rate 0",
        "train {data} --unit rad --out x --seconds nan",
        "train {data} --unit rad --out x --attraction inf",
    ],
    "multistep: for reversed equations": [
        "simulate texture:brick --method multistep",
        "study published --methods heun,multistep",
        "select published --methods multistep --tolerance 1",
    ],
    "give --samples": ["verify junk.py:log_prob"],
    "lacks the columns log_prob and log_proposal": ["verify rows.csv"],
    "--propose takes --samples": ["verify --propose x", "verify {run} --propose x --samples {data}"],
    "give a density": ["verify", "verify --samples {data}"],
    "is a table of angles": ["train {data} --unit rad --out x --crop 16 --mirror"],
    "holds images": ["train texture:brick --crop 16 --out x --unit deg", "loglik {run} texture:brick"],
    "is one of angles": ["sample {run} --noisy", "sample {run} --sheet a.png"],
    "was trained without classes": ["sample {run} --classes cat --out x", "sample {run} --guidance 2 --out x"],
    "cannot read": ["simulate junk.npy", "train junk.npy --out x", "loglik {run} junk.npy"],
    "is not a checkpoint": ["sample file", "loglik file {data}", "diagnose file"],
    "is damaged": ["sample damaged.safetensors"],
    "is the file of another version?": ["sample strange.safetensors"],
    "halves of the data": ["diagnose {run} --data one.npy"],
    "leaves none here or there": ["train one.npy --unit rad --out x"],
    "GiB of memory": ["sample {run} -n 100000000000 --out x"],
}


@pytest.mark.parametrize(("message", "line"), [(message, line) for message, lines in BAD.items() for line in lines])
def test_bad_input_of_any_command_is_one_message_with_status_2(message: str, line: str, run: Path) -> None:
    Path("file").write_text("")
    for name in ("old.nc", "old.png", "junk.npy"):
        Path(name).write_text("old")
    np.save("one.npy", np.zeros((1, 2)))
    Path("rows.csv").write_text("phi,psi,log_prob\n0.0,1.0,-2.0\n")
    _save_checkpoint("damaged.safetensors", "{")
    strange = {"items": [["description", {"items": [["network", {"items": [["type", "Strange"]]}]]}]]}
    _save_checkpoint("strange.safetensors", json.dumps(strange))
    before = set(Path().rglob("*")) | set(run.rglob("*"))
    result = ran(line.format(run=run, data=run.parent / "angles.npy"))
    assert result.exit_code == 2, result.output
    said = " ".join(result.stderr.replace("│", " ").split())
    assert ("is a file, not a folder" if message == "a file as a folder" else message) in said
    said = said.removeprefix("one.npy: read 1 row of columns 1, 2, in rad from 0 to 0 ")  # a note on what was read
    assert said.startswith(("error: ", "Usage: "))
    assert result.stdout == ""
    assert set(Path().rglob("*")) | set(run.rglob("*")) == before


def _save_checkpoint(name: str, state: str) -> None:
    from safetensors.torch import save_file

    save_file({}, name, metadata={"format": "1", "state": state})


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert options.device(options.DeviceName.AUTO) == "cpu"
    said = ran(f"train {run.parent}/angles.npy --unit rad --out x --device cuda")
    assert (said.exit_code, "there is no graphics card" in said.stderr) == (2, True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert options.device(options.DeviceName.AUTO) == "cuda"


# --- help


def _parameters(command: str) -> Iterator[Any]:
    found: Any = typer.main.get_command(app)
    for name in command.split():
        found = found.commands[name]
    yield from found.params


def flags(command: str) -> set[str]:
    return {flag for parameter in _parameters(command) for flag in parameter.opts if flag.startswith("-")}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_json_and_quiet_and_ends_its_help_with_examples_of_real_options(command: str) -> None:
    assert {"--json", "--quiet", "-q"} <= flags(command)
    shown = ran(f"{command} -h").stdout
    examples = [line.split() for line in shown.split("Examples")[1].splitlines() if line.strip().startswith("circsde ")]
    assert any(words[1 : 1 + len(command.split())] == command.split() for words in examples)
    for words in examples:
        named = next(name for name in COMMANDS if words[1 : 1 + len(name.split())] == name.split())
        assert {word for word in words if word.startswith("-")} <= flags(named)


def test_an_option_of_one_name_has_one_meaning() -> None:
    """Options that several commands take are declared once, but for what they are about."""
    helps: dict[str, set[str]] = {}
    for command in COMMANDS:
        for parameter in _parameters(command):
            helps.setdefault(parameter.opts[0], set()).add(str(parameter.help))
    for name in ("--json", "--quiet", "--force", "--unit", "--columns", "--drop-missing", "--device", "--methods"):
        assert len(helps[name]) == 1, name


NUMERICAL = {"lightning", "matplotlib", "netCDF4", "numpy", "pandas", "scipy", "skimage", "torch", "xarray"}


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("--help", False),
        pytest.param("simulate --help", False, marks=pytest.mark.slow),
        pytest.param("problems", False, marks=pytest.mark.slow),
        pytest.param("simulate missing", True, marks=pytest.mark.slow),  # the twin: what computes imports them
    ],
)
def test_the_program_starts_at_once_as_help_needs_no_numerical_package(line: str, some: bool) -> None:
    script = "import sys\ntry: from circsde.cli import main; main()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script, *line.split()], check=False, capture_output=True, text=True)
    assert done.returncode == (2 if some else 0)
    assert bool(NUMERICAL & set(done.stderr.split())) == some


# --- completion


def completed(*words: str) -> list[str]:
    arguments = {"COMP_WORDS": shlex.join(["circsde", *words]), "COMP_CWORD": str(len(words))}
    result = CliRunner().invoke(app, [], prog_name="circsde", env={"_CIRCSDE_COMPLETE": "complete_bash", **arguments})
    return result.output.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pro"], ["problems"]),
        (["study", "two"], ["two_coupled", "two_coupled_well"]),
        (["select", "published", "--methods", "heun,e"], ["heun,euler_maruyama"]),
        (["simulate", "x", "--method", "s"], ["sra1"]),
        (["simulate", "x", "--coupling", "l"], ["local"]),
        (["data", "fetch", "torsion-c"], ["torsion-cispro", "torsion-cys"]),
    ],
)
def test_names_are_completed(words: list[str], expected: list[str]) -> None:
    assert completed(*words) == expected


@pytest.mark.parametrize(
    ("written", "real"),
    [(PROBLEMS, problems.names), (completion.METHODS, METHODS.keys), (fetch.RESIDUES, torsion.TABLES.keys)],
)
def test_names_that_are_written_down_for_completion_are_the_real_ones(
    written: tuple[str, ...], real: Callable[[], Any]
) -> None:
    assert list(written) == list(real())


@pytest.mark.parametrize("name", completion.BACK_IN_TIME)
def test_methods_that_go_back_in_time_are_for_reversed_equations(name: str) -> None:
    assert name in str(next(p.help for p in _parameters("sample") if "--method" in p.opts))
    assert answered(f"study reverse --methods {name} --steps 5 --paths 512")["result"]["errors"][0]["solver"] == name


def test_a_folder_that_is_a_file_is_named_as_that(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=re.escape(f"{tmp_path / 'file'} is a file, not a folder")):
        record.check_writable(tmp_path / "file" / "x.nc")

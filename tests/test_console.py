"""Parts of every command: output in any encoding, usage errors in JSON, warnings, long names."""

import io
import json
import shlex
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from circsde.cli import app, main
from circsde.commands import tables
from circsde.commands.answer import Answer
from circsde.solvers.solution import Solution, SolveError, Stats, Status

SMALL = "simulate angles.npy --unit rad --coupling none --steps 2 --frames 2"


@pytest.fixture(autouse=True)
def in_a_folder_with_angles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> None:  # noqa: ARG001
    monkeypatch.chdir(tmp_path)
    np.save("angles.npy", np.random.default_rng(0).normal(0.0, 0.4, (5, 2)))


@pytest.mark.parametrize("form", ["", "--json"])
def test_an_answer_is_printed_where_only_ascii_can_be(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out, notes = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", notes)
    monkeypatch.setattr(sys, "argv", ["circsde", *shlex.split(f"{SMALL} --out ä {form}")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    for stream in (out, notes):
        stream.seek(0)
    said = out.read()
    assert (json.loads(said)["files"]["phases"] == "ä.nc") if form else ("\\xe4.nc" in said)
    assert "Traceback" not in notes.read()


@pytest.mark.parametrize(
    ("line", "command", "message"),
    [
        ("simulate --nothing --json", "simulate", "--nothing"),
        ("train --json", "train", "Missing argument"),
        ("nope --json", "circsde", "nope"),
        ("simulate texture:brick --json --steps 0", "simulate", "--steps"),
        ("data fetch --json", "fetch", "Missing argument"),
        ("--json problems", "circsde", "--json"),
    ],
)
def test_a_usage_error_is_an_object_too_where_json_is_asked_for(line: str, command: str, message: str) -> None:
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert set(answer) == {"command", "versions", "exit_code", "files", "error"}
    assert (answer["command"], answer["exit_code"]) == (command, 2)
    assert message in answer["error"]
    assert "Usage: " in result.stderr
    assert CliRunner().invoke(app, shlex.split(line.replace("--json", ""))).stdout == "" or line.startswith("--json")


@pytest.mark.parametrize("form", ["", "--quiet --json"])
def test_a_warning_is_one_line_and_never_quiet(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsure() -> Answer:
        warnings.simplefilter("default")
        warnings.warn("the step is\n  too long", stacklevel=1)
        return Answer([], {})

    monkeypatch.setattr(tables, "problem_values", dict)
    monkeypatch.setattr("circsde.commands.tables.problem_table", unsure)
    result = CliRunner().invoke(app, ["problems", *form.split()])
    assert result.stderr.splitlines()[-1] == "warning: the step is too long"
    assert "test_console" not in result.stderr


@pytest.mark.parametrize("length", [230, 243, 252])
def test_a_name_as_long_as_the_file_system_allows_is_written(length: int) -> None:
    result = CliRunner().invoke(app, shlex.split(f"{SMALL} --out {'a' * length}"))  # and .png makes 256
    assert result.exit_code == (2 if length == 252 else 0), result.output
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]
    if length == 252:
        assert "has more than 255 bytes: choose a shorter one" in result.stderr
        assert [path.name for path in Path().iterdir()] == ["angles.npy"]


@pytest.mark.parametrize("form", ["", "--json"])
def test_a_solve_that_fails_is_one_message_with_status_1_and_no_file(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_away(*_: object, **__: object) -> None:
        stats = Stats(nfe=3, steps=3, status=Status.OVERFLOW, message="an angle of sample 0 ran away")
        raise SolveError(Solution(torch.zeros(1), torch.zeros(1, 5, 2), torch.zeros(1, 5, 2, dtype=torch.long), stats))

    monkeypatch.setattr("circsde.studies.forward.forward", run_away)
    result = CliRunner().invoke(app, shlex.split(f"{SMALL} {form}"))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "error: overflow: an angle of sample 0 ran away"
    assert (json.loads(result.stdout)["exit_code"] == 1) if form else (result.stdout == "")
    assert [path.name for path in Path().iterdir()] == ["angles.npy"]


def test_an_unstable_step_is_warned_of_and_a_stable_one_is_not() -> None:
    """Rates of 80 over 20 steps: each step is four times what an explicit method bears at most."""
    line = f"{SMALL.replace('--steps 2', '')} --coupling global --coupling-rate 60 --reference-rate 20 --force"
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        unstable, stable = (CliRunner().invoke(app, shlex.split(f"{line} --steps {n}")) for n in (20, 300))
    assert any(line.startswith("warning: heun is unstable") for line in unstable.stderr.splitlines())
    assert "warning" not in stable.stderr
    assert (unstable.exit_code, stable.exit_code) == (0, 0)

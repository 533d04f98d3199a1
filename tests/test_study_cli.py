"""The commands study, select and problems, and the cells behind them: resumed, spread, and the same to the last bit."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure
from typer.testing import CliRunner

from circsde.cli import app
from circsde.commands import tables
from circsde.exact import problems
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.studies import Choice, Runner, Simulation, plots, select, strong_convergence, weak_convergence
from circsde.studies.runner import Cell

SMALL = ["--methods", "heun,euler_maruyama", "--steps", "5,10,20"]


@dataclass(frozen=True)
class Square:
    """A cell that computes a square, and fails where it is told to."""

    value: int
    fail: bool = False

    def key(self) -> str:
        return f"square {self.value}"

    def compute(self) -> xr.Dataset:
        if self.fail:
            raise KeyboardInterrupt
        return xr.Dataset({"square": self.value**2, "pid": os.getpid()})


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == status, result.output
    return re.sub(r"\s+", " ", result.output)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_finished_cells_are_not_computed_again(tmp_path: Path) -> None:
    """The first run is interrupted at its third cell; the second computes only what is missing."""
    steps = list[tuple[int, int]]()
    with pytest.raises(KeyboardInterrupt):
        Runner(tmp_path).map([Square(1), Square(2), Square(3, fail=True), Square(4)])
    assert len(list(tmp_path.glob("*.nc"))) == 2
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    results = Runner(tmp_path, progress=lambda *x: steps.append(x)).map([Square(n) for n in (1, 2, 3, 4)])
    assert [int(result["square"]) for result in results] == [1, 4, 9, 16]
    assert steps == [(2, 4), (3, 4), (4, 4)]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_sources_of_the_package_compute_cells_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Runner(tmp_path).map([Square(1)])
    monkeypatch.setattr("circsde.studies.runner.package_sources", lambda: "edited")
    Runner(tmp_path).map([Square(1)])
    assert len(list(tmp_path.iterdir())) == 2


def test_cells_know_all_that_they_depend_on(tmp_path: Path) -> None:
    """Any change of a study makes other cells; another number of paths shares whole blocks."""

    def files(**changed: object) -> set[str]:
        wanted: dict[str, object] = {"subject": "von_mises_well", "methods": ["heun"], "steps": [5], "paths": 16}
        before = {path.name for path in tmp_path.iterdir()}
        strong_convergence(**(wanted | changed), runner=Runner(tmp_path))  # type: ignore[arg-type]
        return {path.name for path in tmp_path.iterdir()} - before

    changes: list[dict[str, object]] = [{}, {"seed": 1}, {"steps": [4]}, {"methods": ["sra1"]}]
    changes += [{"subject": "drifting"}, {"refinement": 4}, {"paths": 17}]
    assert [len(files(**change)) for change in changes] == [1] * len(changes)
    assert not files()
    assert not files(confidence=0.5)
    weak_convergence("von_mises_well", ["heun"], [5], paths=16, refinement=8, runner=Runner(tmp_path))
    assert len(list(tmp_path.iterdir())) == len(changes) + 1


def test_a_simulation_without_a_name_is_kept_too(tmp_path: Path) -> None:
    """It is found by its content."""
    for rate in (1.0, 2.0, 1.0):
        subject = Simulation(KuramotoSDE((2,), schedule=Schedule.constant(reference=rate)))
        strong_convergence(subject, ["heun"], [5], paths=8, runner=Runner(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_told_apart_is_computed_anew_and_said(tmp_path: Path) -> None:
    """A start with a random generator of its own: what it draws next depends on what it has drawn."""
    own = torch.Generator().manual_seed(0)
    subject = Simulation(
        KuramotoSDE((2,)), lambda batch, _: torch.rand(batch, 2, generator=own, dtype=torch.float64), name="own"
    )
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"not kept in .*: .* is a Generator, whose state changes as it is used"):
            strong_convergence(subject, ["heun"], [5], paths=8, runner=Runner(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    said = run("study", "drifting", *SMALL, "--monte-carlo", "--paths", "8", "--dask", "tcp://localhost:1", status=2)
    assert "computing on Dask needs pip install 'dask[distributed]'" in said


def test_no_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one worker, got 0"):
        Runner(workers=0)


def studied(runner: Runner) -> xr.Dataset:
    """Three blocks of paths, the last of them short."""
    return weak_convergence("von_mises_well", ["heun", "sra1"], (3, 5), paths=20_000, refinement=2, runner=runner)


def same_bits(a: xr.Dataset, b: xr.Dataset) -> bool:
    return all(np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f") for name in a.variables)


@pytest.mark.slow
def test_workers_and_dask_change_no_bit(tmp_path: Path) -> None:
    """One process, two processes, a Dask cluster, and cells read back from disk."""
    distributed = pytest.importorskip("dask.distributed")
    alone = studied(Runner())
    assert same_bits(studied(Runner(tmp_path / "cells", workers=2)), alone)
    assert same_bits(studied(Runner(tmp_path / "cells")), alone)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        assert same_bits(studied(Runner(dask=cluster.scheduler_address)), alone)


@pytest.mark.slow
def test_ctrl_c_keeps_finished_cells_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """A signal to the running program and its workers; what it had finished is not computed again."""
    command = [sys.executable, "-c", "from circsde.cli import main; main()", "study", "two_coupled"]
    command += [
        "--metric",
        "strong",
        "--methods",
        "heun",
        "--steps",
        "10,20",
        "--paths",
        "80000",
        "--workers",
        "2",
        "--out",
        "x",
    ]
    program = subprocess.Popen(
        command,
        cwd=tmp_path,
        start_new_session=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    cells = tmp_path / "x.cells"
    deadline = time.monotonic() + 600  # only to end where it hangs
    while len(list(cells.glob("[!.]*.nc"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(program.pid, signal.SIGINT)
    said = program.communicate(timeout=600)[1]
    finished = {path: path.stat().st_mtime_ns for path in cells.glob("*.nc")}
    assert program.returncode == 130
    assert "the same command resumes" in said
    assert 2 <= len(finished) < 20
    assert not (tmp_path / "x.nc").exists()
    assert not list(cells.glob(".*"))
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert (tmp_path / "x.nc").exists()


def test_study_prints_a_table_and_writes_numbers_and_a_picture() -> None:
    said = run("study", "von_mises_well", *SMALL)
    assert re.search(r"heun \S+ [\d.]+e-\d\d .* 2\.\d\d\d? ± \d.\d+ \S+ 2 \S+ resolved", said)
    assert "picture von_mises_well-weak.png" in said
    with xr.open_dataset("von_mises_well-weak.nc") as study:
        assert study["error"].sizes == {"solver": 2, "steps": 3}
        assert study.attrs["evidence"] == "transfer operators"
        assert '"problem": "von_mises_well"' in study.attrs["options"]
    assert Path("von_mises_well-weak.png").stat().st_size > 10_000


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--metric", "strong", "--paths", "64"], "drifting-strong"),
        (["--monte-carlo", "--paths", "64"], "drifting-weak"),
        (["--metric", "work-precision", "--paths", "64", "--monte-carlo"], "drifting-work-precision"),
    ],
)
def test_every_kind_of_study_runs(arguments: list[str], name: str) -> None:
    run("study", "drifting", *SMALL, *arguments)
    with xr.open_dataset(f"{name}.nc") as study:
        assert study["error"].notnull().all()
        assert study.attrs["paths"] == 64
    assert Path(f"{name}.png").exists()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_adaptive_methods_are_timed_on_a_flow() -> None:
    offered = ["--methods", "bosh3", "--atol", "0.1,0.01", "--paths", "256"]
    said = run("study", "probability_flow", "--metric", "work-precision", *offered)
    assert re.search(r"bosh3 \S+ 0.01 \S+ \d\d ", said)


@pytest.mark.usefixtures("undrawn")
def test_stationary_errors_need_a_stationary_law() -> None:
    run("study", "von_mises_well", "--metric", "stationary", *SMALL)
    assert "the stationary law of drifting is not known" in run("study", "drifting", "--metric", "stationary", status=2)


@pytest.mark.usefixtures("undrawn")
def test_results_are_not_overwritten_unless_asked() -> None:
    run("study", "von_mises_well", *SMALL)
    assert "exists already" in run("study", "von_mises_well", *SMALL, status=2)
    run("study", "von_mises_well", *SMALL, "--force")


def test_select_names_its_choice() -> None:
    methods = "heun,mobius_strang"
    said = run("select", "published", "--tolerance", "1e-2", "--methods", methods, "--steps", "5,10,20")
    assert "mobius_strang, 20 steps: 40 drift evaluations, weak error at most" in said  # as many as Heun's, nearer
    assert re.search(r"heun \S+ 10 \S+ 20 .* too large", said)
    with xr.open_dataset("published-select.nc") as evidence:
        choice = Choice(evidence)
        assert (choice.method, choice.n_steps) == ("mobius_strang", 20)
    assert Path("published-select.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_choice_is_in_the_table_and_alone_in_bold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for all candidates, and where others with the same method cost the same."""
    monkeypatch.setattr(tables, "_SHOWN", 3)
    choice = select("reverse", 0.05, methods=["heun"], steps=[5, 8, 10], stochasticity=[0.0, 0.5, 1.0])
    table = tables.selection_table(choice)
    names = list(table.columns[0].cells)
    (bold,) = [i for i, row in enumerate(table.rows) if row.style]
    assert names[bold] == f"heun, l = {choice.stochasticity:g}"
    assert len(names) == 3
    assert re.fullmatch(r"\d cheaper candidates are in the file", str(table.caption))


@pytest.mark.usefixtures("undrawn")
def test_select_says_what_would_be_needed() -> None:
    said = run("select", "published", "--tolerance", "1e-3", "--methods", "heun", "--steps", "5,10,20")
    assert "nothing on offer qualifies" in said
    assert "at order 2 about 43 do" in said


@pytest.mark.usefixtures("undrawn")
def test_select_offers_tolerances_for_a_flow() -> None:
    said = run(
        "select",
        "probability_flow",
        "--tolerance",
        "1e-2",
        "--metric",
        "strong",
        "--methods",
        "dopri5",
        "--atol",
        "1e-2,1e-3",
    )
    assert re.search(r"dopri5, atol 0\.0\d+: \d+ drift evaluations, strong error at most 0\.00\d+", said)


def test_problems_are_listed_with_what_they_are() -> None:
    said = run("problems")
    for name in problems.names():
        assert name in said
        assert problems.describe(name) in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study", "nope"], "there is no problem 'nope'; there are wrapped_brownian_motion"),
        (["study", "published", "--methods", "nope"], "unknown method 'nope'; choose one of euler_maruyama"),
        (["study", "published", "--steps", "5,x"], "'5,x' is not a list of whole numbers: give steps as 5,10,20"),
        (["study", "published", "--workers", "0"], "Invalid value for '--workers'"),
        (["study", "published", "--steps", "5,0"], "numbers of steps must be positive, got 0"),
        (["study", "published", "--methods", ","], "',' names nothing"),
        (["study", "published", "--confidence", "95"], "--confidence must be between 0 and 1, got 95"),
        (["study", "published", "--atol", "1e-3"], "--atol is for --metric work-precision"),
        (["select", "published", "--tolerance", "1", "--atol", "1e-3"], "--atol is for adaptive methods"),
        (["select", "published", "--tolerance", "1", "--budget", "nan"], "--budget must be positive and finite"),
        (["select", "published", "--tolerance", "-1"], "the tolerance must be positive"),
        (["select", "reverse", "--tolerance", "1", "--stochasticity", "a"], "'a' is not a list of numbers"),
    ],
)
def test_mistakes_are_answered_with_one_message(arguments: list[str], message: str) -> None:
    assert message in run(*arguments, status=2)


def test_a_picture_shows_what_is_not_resolved_as_hollow() -> None:
    """Every resolved error is drawn filled, every other hollow, and the floor where it matters."""
    study = weak_convergence("published_doubled", ["euler_maruyama", "sra1"], (5, 10, 20), paths=1000)
    assert study["resolved"].any()
    assert not study["resolved"].all()
    figure = plots.convergence(study)
    assert isinstance(figure, Figure)
    points = [line for line in figure.axes[0].get_lines() if str(line.get_marker()) in plots.MARKERS]
    filled = [np.size(line.get_xdata()) for line in points if line.get_markerfacecolor() != "white"]
    assert sum(filled) == int(study["resolved"].sum())
    assert any("distinguished from zero" in str(text) for text in figure.axes[0].get_legend_handles_labels()[1])


def test_cells_follow_the_protocol() -> None:
    assert isinstance(Square(1), Cell)

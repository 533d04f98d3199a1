"""Compiled loops against the step-by-step solve: the same angles on the same noise, and where they are taken."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.graph import GraphCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.solvers import Brownian, Solution, integrate, rows, sdeint, stages
from circsde.solvers.fused import Fused, fused
from circsde.solvers.registry import find_method
from circsde.solvers.schemes import SCHEMES
from strategies import random, random_angles, seeds

FUSED = ("euler_maruyama", "heun", "sra1", "leimkuhler_matthews")
RATES = Schedule.linear((0.0, 2.0, 0.5), (3.0, 1.0, 1.0))

CASES: dict[str, tuple[tuple[int, ...], Coupling, dict[str, Any]]] = {
    "free": ((70, 3), NoCoupling(), {}),
    "free, with a frequency": ((3, 1100), NoCoupling(), {"natural_frequency": 5.0}),
    "mean, two": ((300, 2), GlobalCoupling(), {}),
    "mean, some": ((20, 100), GlobalCoupling(), {"reference_phase": random(100, seed=1)}),
    "mean, a run": ((5, 1024), GlobalCoupling(), {}),
    "mean, many": ((2, 2500), GlobalCoupling(), {"natural_frequency": random(2500, seed=2)}),
    "mean, one long sample": ((1, 70_000), GlobalCoupling(), {}),
    "line": ((9, 70), LocalCoupling(5, "reflecting"), {}),
    "image": ((4, 3, 12, 17), LocalCoupling(2), {"natural_frequency": 1.0}),
    "mirrored image": ((4, 33, 40), LocalCoupling(7, "reflecting"), {}),
    "dense graph": ((9, 80), GraphCoupling(random(80, 80, seed=4).abs()), {}),
    "graph": ((30, 20), GraphCoupling(random(20, 20, seed=3).abs()), {"reference_phase": 1.0}),
}


def solve(name: str, method: str, dtype: torch.dtype, step_by_step: bool, monkeypatch: pytest.MonkeyPatch) -> Solution:
    shape, coupling, options = CASES[name]
    sde = KuramotoSDE(shape[1:], coupling, RATES, **options)
    theta0 = random_angles(*shape).to(dtype) * 3
    with monkeypatch.context() as patch:
        if step_by_step:
            patch.setattr(integrate, "fused", lambda *_: None)
        return sdeint(sde, theta0, (0.0, 0.4, 1.0), method=method, n_steps=10, generator=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", FUSED)
@pytest.mark.parametrize("name", CASES)
def test_loops_follow_the_step_by_step_solve(
    name: str, method: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2e-6 rad a step in float32 and 1e-13 in float64, each amplified by at most e^(K T) = e^2 over ten steps."""
    loops, steps = (solve(name, method, dtype, each, monkeypatch) for each in (False, True))
    bound = 10 * math.e**2 * (2e-6 if dtype == torch.float32 else 1e-13)
    assert (loops.lifted - steps.lifted).abs().max().item() < bound
    assert loops.stats == steps.stats
    assert loops.theta.dtype == dtype


def chosen(sde: KuramotoSDE, theta0: torch.Tensor, method: str = "heun", **path: Any) -> Fused | None:
    grid = tuple(i / 4 for i in range(5))
    brownian = replace(Brownian(grid, tuple(theta0.shape), 0, theta0.dtype), **path)
    return fused(sde, theta0.dtype, theta0, grid, find_method(method), brownian, 2)


def test_loops_are_taken_where_they_apply_and_nowhere_else() -> None:
    sde, theta0 = KuramotoSDE((3,), schedule=RATES), torch.zeros(2, 3)

    class Other(KuramotoSDE):
        def drift(self, t: Any, theta: torch.Tensor) -> torch.Tensor:
            return super().drift(t, theta) + theta.sin()

    class Uneven(KuramotoSDE):
        def diffusion(self, t: Any) -> Any:  # noqa: ARG002
            return torch.tensor([0.1, 0.2, 0.3])

    assert chosen(sde, theta0) is not None
    assert chosen(sde, theta0, "mobius_strang") is None
    assert chosen(Other((3,)), theta0) is None
    assert chosen(Uneven((3,)), theta0, "euler_maruyama") is None
    assert chosen(sde, theta0, grid=tuple(i / 8 for i in range(9))) is None
    assert chosen(sde, theta0, dtype=torch.float64) is None
    assert chosen(sde, theta0.clone().requires_grad_()) is None
    with torch.no_grad():
        assert chosen(sde, theta0.clone().requires_grad_()) is not None
    learnt = Schedule.linear((0.0, torch.tensor(1.0, requires_grad=True), 0.5), (1.0, 1.0, 1.0))
    assert chosen(KuramotoSDE((3,), schedule=learnt), theta0) is None
    assert set(FUSED) == {name for name in FUSED if find_method(name).step in SCHEMES}


@given(seeds, st.sampled_from(["mean, two", "mean, some", "mean, a run", "image"]), st.integers(0, 5))
def test_a_sample_is_the_same_in_every_batch(seed: int, name: str, first: int) -> None:
    shape, coupling, options = CASES[name]
    sde, theta0 = KuramotoSDE(shape[1:], coupling, RATES, **options), random_angles(*shape, seed=seed % 2**31) * 3
    batch = min(2, len(theta0) - 1)
    first = min(first, len(theta0) - batch)
    whole = sdeint(sde, theta0, (0.0, 1.0), n_steps=5, generator=seed)
    part = sdeint(sde, theta0[first : first + batch], (0.0, 1.0), n_steps=5, generator=seed, first_sample=first)
    assert torch.equal(part.theta, whole.theta[:, first : first + batch])
    assert torch.equal(part.winding, whole.winding[:, first : first + batch])


@pytest.mark.parametrize("name", ["mean, two", "mean, many", "mean, one long sample", "image", "graph"])
def test_threads_do_not_change_the_angles(name: str) -> None:
    shape, coupling, options = CASES[name]
    sde, theta0 = KuramotoSDE(shape[1:], coupling, RATES, **options), random_angles(*shape).float()
    before, ends = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            ends.append(sdeint(sde, theta0, (0.0, 1.0), n_steps=30, generator=0).theta[-1])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_many_turns_are_counted() -> None:
    """Frequency 40 rad/time without noise: the lift is exact, and as precise after a thousand turns as at first."""
    sde = KuramotoSDE((3,), NoCoupling(), Schedule.constant(0.0, 0.0, 0.0, horizon=200.0), natural_frequency=40.0)
    solution = sdeint(sde, random_angles(4, 3).float(), (0.0, 200.0), n_steps=1000, method="euler_maruyama")
    assert (solution.lifted[-1] - solution.lifted[0]).sub(8000.0).abs().max() < 1e-4
    assert int(solution.winding[-1].min()) > 1200


@pytest.mark.parametrize(("value", "status"), [(math.inf, "non_finite"), (1e12, "overflow")])
@pytest.mark.parametrize("shape", [(5, 3), (3, 2000), (1, 70_000)])
def test_a_lost_angle_stops_the_loops_with_its_step_and_sample(
    value: float, status: str, shape: tuple[int, ...]
) -> None:
    rates = Schedule.linear((0.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    frequency = torch.zeros(shape[1:], dtype=torch.float64)
    sde = KuramotoSDE(shape[1:], NoCoupling(), rates, natural_frequency=frequency)
    sde.natural_frequency[..., -1] = value
    stats = sdeint(sde, torch.zeros(shape), (0.0, 1.0), n_steps=4, method="euler_maruyama", on_failure="return").stats
    assert (stats.status, stats.steps, stats.samples) == (status, 0, tuple(range(shape[0])))


@pytest.mark.parametrize(
    ("terminal", "kept", "said"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_the_first_solve_of_an_installation_says_that_it_waits_for_the_compiler(
    terminal: bool,
    kept: bool,
    said: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stats = SimpleNamespace(cache_path=str(tmp_path))
    monkeypatch.setattr(stages, "walk", SimpleNamespace(stats=stats))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    if kept:
        (tmp_path / "stages.walk-118.py311.nbi").touch()
    for _ in range(2):
        rows.announce_compilation.__wrapped__()
    assert ("compiles its loops" in capsys.readouterr().err) == said


def test_numba_keeps_its_index_where_that_is_looked_for() -> None:
    sdeint(KuramotoSDE((3,)), torch.zeros(2, 3), (0.0, 1.0), n_steps=1, generator=0)
    compiled: Any = stages.walk
    assert any(Path(compiled.stats.cache_path).glob("stages.walk-*.nbi"))


WAKES = """
import os, torch
torch.set_num_threads(3)
from circsde import GlobalCoupling, KuramotoSDE, LocalCoupling, Schedule, sdeint
threads = lambda: len(os.listdir("/proc/self/task"))
theta = torch.randn(64, 1024)
sdes = [
    KuramotoSDE((1024,), GlobalCoupling(), Schedule.published(100)),
    KuramotoSDE((1024,), LocalCoupling(3), Schedule.published(100), natural_frequency=torch.ones(1024)),
]
for sde in sdes:
    for method in ("euler_maruyama", "heun", "sra1"):
        sdeint(sde, theta, (0.0, 0.5, 1.0), method=method, n_steps=100, generator=0)
solved = threads()
theta + 1.0
print(threads() - solved)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc, which Linux has")
def test_loops_wake_no_thread_of_torch() -> None:
    """Woken, torch's threads wait in a busy loop of milliseconds on the cores that the loops need; a sum wakes two."""
    said = subprocess.run([sys.executable, "-c", WAKES], check=True, capture_output=True, text=True).stdout
    assert int(said) == 2, "a solve has woken them before"

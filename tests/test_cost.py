"""Cost against accuracy: what evaluations buy, and that times are measured."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure

from circsde.exact import problems
from circsde.kuramoto import KuramotoSDE
from circsde.record import save_netcdf
from circsde.solvers.integrate import sdeint
from circsde.solvers.solution import Solution
from circsde.studies import exact_convergence, plots, work_precision
from circsde.studies.cost import add_times
from circsde.typing import Angles, Tangent, Time

WELL = problems.get("von_mises_well")


def cost(study: xr.Dataset, solver: str, error: float) -> float:
    """Drift evaluations at which a solver reaches an error, by interpolation in log-log."""
    one = study.sel(solver=solver)
    return float(np.exp(np.interp(-np.log(error), -np.log(one["error"].values), np.log(one["nfe"].values))))


@pytest.mark.slow
def test_splitting_is_cheaper_than_heun_and_srk_where_the_drift_is_stiff() -> None:
    """At equal weak error on the stiff well, in drift evaluations."""
    methods = ["mobius_strang", "heun", "torchsde:srk"]
    study = exact_convergence("stiff_well", "weak", methods, (10, 20, 40, 80))
    for error in (1e-1, 3e-2, 1e-2):
        ours = cost(study, "mobius_strang", error)
        assert cost(study, "heun", error) > 1.2 * ours
        assert cost(study, "torchsde:srk", error) > (1.2 if error < 2e-2 else 0.9) * ours


@pytest.mark.slow
def test_splitting_is_not_cheaper_where_noise_decides() -> None:
    """The twin: under rates that start near zero, torchsde's srk is cheaper at equal weak error."""
    study = exact_convergence("published", "weak", ["mobius_strang", "torchsde:srk"], (5, 10, 20, 40))
    assert cost(study, "torchsde:srk", 1e-2) < cost(study, "mobius_strang", 1e-2)


def test_a_study_times_the_solves_of_each_method_and_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of our own, on which an evaluation of the drift takes one second and nothing else takes time."""
    now, drift = 0.0, KuramotoSDE.drift

    def slow(sde: KuramotoSDE, t: Time, theta: Angles) -> Tangent:
        nonlocal now
        now += 1.0
        return drift(sde, t, theta)

    monkeypatch.setattr(KuramotoSDE, "drift", slow)
    monkeypatch.setattr("circsde.solvers.integrate.fused", lambda *_: None)  # compiled loops do not call it
    monkeypatch.setattr("circsde.studies.cost.time.perf_counter", lambda: now)
    study = work_precision(
        "von_mises_well", ["euler_maruyama", "torchsde:srk"], (4, 64), timed_paths=64, repeats=5, paths=64
    )
    assert study["nfe"].values.tolist() == [[4, 64], [12, 192]]
    for times in ("seconds_low", "seconds", "seconds_high"):
        assert study[times].values.tolist() == [[4, 64], [12, 192]]
    assert study.attrs["timed_paths"] == 64
    assert study["seconds"].attrs["units"] == "s"


def test_times_are_quartiles_of_the_runs_after_one_that_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of our own: the first solve takes 100 s, the following 1, 2, 3, 4 and 5."""
    now, left = 0.0, {"a": [100.0, 1, 2, 3, 4, 5], "b": [100.0, 50, 40, 30, 20, 10]}

    def solve(theta: Angles, solver: str, setting: float, seed: int) -> Solution:  # noqa: ARG001
        nonlocal now
        now += left[solver].pop(0)
        return sdeint(WELL.sde, theta, (0.0, 1.0), n_steps=1, generator=seed)

    monkeypatch.setattr("circsde.studies.cost.time.perf_counter", lambda: now)
    errors = xr.Dataset({"error": (("solver", "steps"), np.ones((2, 1)))}, {"solver": ["a", "b"], "steps": [1]})
    study = add_times(errors, WELL.sample(3, torch.Generator()), solve, repeats=5, seed=0)
    assert study["seconds_low"].values.ravel().tolist() == [2, 20]
    assert study["seconds"].values.ravel().tolist() == [3, 30]
    assert study["seconds_high"].values.ravel().tolist() == [4, 40]


@pytest.mark.slow
def test_adaptive_methods_of_torchdiffeq_are_compared_on_a_flow(tmp_path: Path) -> None:
    study = work_precision(
        "probability_flow",
        ["dopri5", "bosh3"],
        atol=(1e-2, 1e-4),
        metric="strong",
        paths=64,
        timed_paths=64,
        repeats=2,
    )
    assert study["error"].dims == study["seconds"].dims == ("solver", "atol")
    assert (study["error"].sel(atol=1e-4) < study["error"].sel(atol=1e-2)).all()
    assert (study["nfe"].sel(atol=1e-4) > study["nfe"].sel(atol=1e-2)).all()
    save_netcdf(study, tmp_path / "flow.nc")
    with xr.open_dataset(tmp_path / "flow.nc") as again:
        xr.testing.assert_identical(study, again.load())
    assert isinstance(plots.work_precision(study), Figure)


@pytest.mark.slow
def test_our_methods_are_compared_on_a_flow_too() -> None:
    """Without noise a method for SDEs is one for ODEs; Heun's errors are of the size of adaptive ones at equal cost."""
    study = work_precision("probability_flow", ["heun"], (32, 64), metric="strong", paths=64, timed_paths=8, repeats=1)
    assert study["error"].dims == ("solver", "steps")
    assert study["error"].values == pytest.approx(np.array([[1e-2, 3e-3]]), rel=0.9)

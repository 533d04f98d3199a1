"""Grids that follow the equation: within their tolerance, chosen by other noise, and better than equal steps."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from circsde import SDE, KuramotoSDE, Schedule, sdeint
from circsde.solvers import Brownian, BrownianTree, adapted_grid
from circsde.solvers.mesh import local_errors
from circsde.solvers.methods import HEUN, METHODS
from circsde.torus import distance

ONES = torch.ones(8, 1, dtype=torch.float64)


def peak(noise: float = 0.8, height: float = 40.0) -> SDE:
    """An attraction that is strong for a tenth of the time."""
    return SDE(
        lambda t, theta: -(1.0 + height * math.exp(-(((t - 0.5) / 0.05) ** 2))) * theta.sin(),
        lambda t: noise,
        horizon=1.0,
    )


def fine_error(sde: SDE, grid: list[float], method: str) -> float:
    """Root mean square distance at the end from sixteen times as many steps on the same path."""
    fine = np.interp(np.arange(16 * (len(grid) - 1) + 1) / 16, np.arange(len(grid)), grid).tolist()
    path = Brownian(tuple(fine), (2048, 1), seed=3, dtype=torch.float64)
    start = torch.ones(2048, 1, dtype=torch.float64)
    a, b = (sdeint(sde, start, (0.0, 1.0), grid=g, brownian=path, method=method).theta[-1] for g in (grid, fine))
    return float(distance(a, b).square().mean().sqrt())


@settings(max_examples=15)
@given(height=st.floats(0.0, 60.0), noise=st.floats(0.0, 1.0), atol=st.floats(3e-3, 0.1), output=st.floats(0.01, 0.99))
def test_every_step_is_within_the_tolerance_of_the_pilot_and_outputs_are_steps(
    height: float, noise: float, atol: float, output: float
) -> None:
    sde = peak(noise, height)
    grid = adapted_grid(sde, ONES, (0.0, output, 1.0), atol=atol)
    assert grid[0] == 0.0
    assert grid[-1] == 1.0
    assert output in grid
    assert all(np.diff(grid) > 0)
    assert local_errors(sde, ONES.repeat(128, 1), grid, HEUN).max() <= atol


@pytest.mark.parametrize("method", [name for name, one in METHODS.items() if one.strong_order])
def test_steps_are_short_where_the_equation_is_fast(method: str) -> None:
    sde = KuramotoSDE((1,), schedule=Schedule.linear((0.0, 1.0, 0.05), (0.0, 60.0, 0.05)))
    steps = np.diff(adapted_grid(sde, ONES, (0.0, 1.0), atol=1e-2, method=method))
    assert steps[-1] < 0.5 * steps[0]


@pytest.mark.parametrize("method", ["heun", "sra1", "euler_maruyama"])
def test_the_path_is_closer_than_with_as_many_equal_steps(method: str) -> None:
    grid = adapted_grid(peak(), ONES, (0.0, 1.0), atol=3e-3, method=method)
    even = np.linspace(0.0, 1.0, len(grid)).tolist()
    assert fine_error(peak(), grid, method) < 0.7 * fine_error(peak(), even, method)


def test_the_number_of_steps_follows_the_order_of_the_local_error() -> None:
    # without noise Heun's local error is of third order, with noise of order 3/2
    for noise, tolerances, order in ((0.0, (1e-4, 1e-6), 3.0), (0.8, (1e-2, 1e-3), 1.5)):
        few, many = (len(adapted_grid(peak(noise), ONES, (0.0, 1.0), atol=atol)) - 1 for atol in tolerances)
        assert math.log(tolerances[0] / tolerances[1]) / math.log(many / few) == pytest.approx(order, rel=0.15)


def test_the_grid_is_chosen_by_other_noise_than_that_of_the_solve() -> None:
    solves = [sdeint(peak(), ONES, (0.0, 1.0), atol=1e-2, generator=seed) for seed in (0, 1)]
    assert solves[0].stats.steps == solves[1].stats.steps
    grid = adapted_grid(peak(), ONES, (0.0, 1.0), atol=1e-2)
    again = sdeint(peak(), ONES, (0.0, 1.0), grid=grid, generator=0)
    assert torch.equal(solves[0].theta, again.theta)
    paths = (Brownian(tuple(grid), (512, 1), 0, purpose=purpose) for purpose in ("brownian", "pilot"))
    own, pilot = (torch.stack([n.dW for n in path.increments(grid, levy_area=False)]) for path in paths)
    correlation = torch.corrcoef(torch.stack([own.flatten(), pilot.flatten()]))[0, 1]
    assert abs(correlation) < 4.9 / own.numel() ** 0.5  # one in a million


def test_one_path_is_followed_to_several_tolerances_on_a_tree() -> None:
    tree = BrownianTree(1.0, (8, 1), seed=5, dtype=torch.float64)
    ends = [sdeint(peak(), ONES, (0.0, 1.0), atol=atol, brownian=tree).theta[-1] for atol in (3e-2, 1e-2, 1e-3)]
    assert distance(ends[1], ends[2]).max() < 0.7 * distance(ends[0], ends[2]).max()


def test_a_pilot_takes_some_of_many_samples_and_leaves_them_alone() -> None:
    many = torch.linspace(-3.0, 3.0, 5000)[:, None]
    kept = many.clone()
    few = adapted_grid(peak(), many[::4], (0.0, 1.0), atol=1e-2)
    assert len(adapted_grid(peak(), many, (0.0, 1.0), atol=1e-2)) == pytest.approx(len(few), rel=0.05)
    assert torch.equal(many, kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"atol": 0.0}, "atol must be positive and finite, got 0.0"),
        ({"atol": math.nan}, "atol must be positive and finite, got nan"),
        ({"n_steps": 4}, "exactly one of n_steps, dt, grid and atol"),
        ({"method": "leimkuhler_matthews"}, "leimkuhler_matthews does not follow the path"),
        ({"method": "adams_bashforth2"}, "adams_bashforth2 remembers earlier steps"),
        ({"brownian": Brownian((0.0, 0.5, 1.0), (8, 1), 0, torch.float64)}, "draw it on a grid that holds every step"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sdeint(peak(), ONES, (0.0, 1.0), **{"atol": 1e-2} | change)  # type: ignore[arg-type]


def test_a_tolerance_that_no_grid_reaches_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circsde.solvers.mesh._MOST", 1000)  # what it would have to try takes a while
    rattling = SDE(lambda t, theta: 1e4 * (1e2 * theta.sin()).sign(), lambda t: 1.0, horizon=1.0)
    with pytest.raises(ValueError, match="no grid of at most 1000 steps of heun has local errors below atol = 1e-06"):
        adapted_grid(rattling, ONES, (0.0, 1.0), atol=1e-6)

"""Weak order 3: its conditions, term by term, and what transfer operators and exact covariances say of the law."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import expm, solve_continuous_lyapunov
from torch import Tensor

from circsde.sde import SDE
from circsde.solvers import Method, Noise
from circsde.solvers.methods import HEUN, METHODS
from circsde.solvers.third_order import KUTTA3, ROOT3, WEIGHTS, kutta3_step
from circsde.studies.exact import law_convergence, stationary_convergence


def one_sided(sde: SDE, t: float, h: float, theta: Tensor, noise: Noise) -> Tensor:
    """Kutta's method with the path at its middle as it is, so that the area below the path has too large a variance."""
    assert noise.dZ is not None
    g = (sde.variance(t, t + h) / h) ** 0.5
    middle = 0.5 * noise.dW + ROOT3 / h * (noise.dZ - 0.5 * h * noise.dW)
    f1 = sde.drift(t, theta)
    f2 = sde.drift(t + 0.5 * h, theta + 0.5 * h * f1 + g * middle)
    f3 = sde.drift(t + h, theta + h * (2.0 * f2 - f1) + g * noise.dW)
    moved: Tensor = theta + h / 6.0 * (f1 + 4.0 * f2 + f3) + g * noise.dW
    return moved


ONE_SIDED = Method("one-sided", one_sided, None, 2.0, 2.0, nfe=3, levy_area=True)


def stages() -> tuple[NDArray[np.float64], ...]:
    """The coefficients a, b, u, v, read off the step: every slope is a direction of its own."""
    asked: list[Tensor] = []

    def drift(t: object, theta: Tensor) -> Tensor:  # noqa: ARG001
        asked.append(theta.clone())
        return 1e3 * torch.eye(6, dtype=torch.float64)[2 + len(asked) - 1].expand(1, 6)

    unit = torch.eye(6, dtype=torch.float64)[:2]
    eta = 12.0**-0.5 * unit[1:]  # dZ = h/2 dW + sqrt(h^3/12) eta, with h = 1
    end = kutta3_step(SDE(drift, 1.0), 0.0, 1.0, torch.zeros(1, 6).double(), Noise(unit[:1], 0.5 * unit[:1] + eta))
    rows, last = torch.cat(asked).numpy(), end[0].numpy()
    assert np.allclose(last[:2], [1.0, 0.0])
    return rows[:, 2:] / 1e3, last[2:] / 1e3, rows[:, 0], rows[:, 1]


def test_all_conditions_of_weak_order_3_hold_for_additive_noise() -> None:
    """One for each way to join up to three drifts and pairs of noises by derivatives and expectations."""
    a, b, u, v = stages()
    c, k = a.sum(1), np.outer(u, u) + np.outer(v, v)
    d = np.diagonal(k)
    assert np.allclose(b, WEIGHTS)
    order_1_and_2 = {1: b.sum(), 1 / 2: b @ c}
    assert np.allclose(list(order_1_and_2), list(order_1_and_2.values()))
    assert np.allclose([b @ d, b @ u], 1 / 2)
    assert np.allclose([b @ c**2, b @ (c * d), b @ (c * u), b @ d**2, b @ (d * u), b @ u**2, b @ k @ b], 1 / 3)
    assert np.allclose([b @ a @ c, b @ a @ d, b @ a @ u, b @ (a * k).sum(1)], 1 / 6)
    assert b @ v == pytest.approx(12**-0.5)  # and its area is that of the path: strong order 1.5


@pytest.mark.parametrize(("name", "steps"), [("von_mises_well", (10, 20)), ("drifting", (20, 40))])
def test_its_weak_order_is_3(name: str, steps: tuple[int, int]) -> None:
    table = law_convergence(name, [KUTTA3, ONE_SIDED], steps)
    assert table.order[0, 1].item() == pytest.approx(3.0, abs=0.25)
    assert table.order[1, 1].item() < 2.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["published_doubled", "noise_dominated"])
def test_its_weak_order_is_3_where_noise_changes_in_time(name: str) -> None:
    assert law_convergence(name, [KUTTA3], (20, 40)).order[0, 1].item() == pytest.approx(3.0, abs=0.25)


def test_its_stationary_law_is_of_order_3() -> None:
    table = stationary_convergence("von_mises_well", [KUTTA3], (5, 10))
    assert table.order[0, 1].item() == pytest.approx(3.0, abs=0.25)


def covariance(method: Method, matrix: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """The covariance of ``dx = A x dt + dW`` at time 1 from rest: the step is linear, so unit impulses give its law."""
    weights, n, h = torch.from_numpy(matrix), len(matrix), 1.0 / steps
    sde = SDE(lambda t, theta: theta @ weights.T, 1.0)
    unit, none = torch.eye(n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
    moves, along, across = (
        method.step(sde, 0.0, h, theta, Noise(dW, dZ)).numpy().T
        for theta, dW, dZ in (
            (unit, none, none),
            (none, h**0.5 * unit, 0.5 * h**1.5 * unit),
            (none, none, (h**3 / 12.0) ** 0.5 * unit),
        )
    )
    added, total = along @ along.T + across @ across.T, np.zeros((n, n))
    for _ in range(steps):
        total = moves @ total @ moves.T + added
    return np.asarray(total)


def test_with_several_coupled_angles_the_order_is_3_too() -> None:
    """Against the Lyapunov equation, for a drift that rotates, attracts and shears."""
    matrix = np.array([[-1.0, 2.0, 0.3], [-1.5, -0.5, 0.0], [0.7, 0.0, -2.0]])
    at_rest = solve_continuous_lyapunov(matrix, -np.eye(3))
    exact = at_rest - expm(matrix) @ at_rest @ expm(matrix).T
    for method, order in ((KUTTA3, 3.0), (ONE_SIDED, 2.0), (HEUN, 2.0)):
        errors = [np.abs(covariance(method, matrix, n) - exact).max() for n in (40, 80)]
        assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_without_noise_it_is_the_third_order_method_of_kutta() -> None:
    sde, theta = SDE(lambda t, theta: -theta.sin() * (1.0 + t), 0.0), torch.tensor([[2.0]], dtype=torch.float64)
    still, h = Noise(torch.zeros(1, 1).double(), torch.zeros(1, 1).double()), 0.25
    f1 = sde.drift(0.0, theta)
    f2 = sde.drift(0.5 * h, theta + 0.5 * h * f1)
    f3 = sde.drift(h, theta + h * (2.0 * f2 - f1))
    assert torch.allclose(kutta3_step(sde, 0.0, h, theta, still), theta + h / 6.0 * (f1 + 4.0 * f2 + f3), atol=1e-15)


def test_at_equal_evaluations_its_error_is_a_seventh_of_that_of_sra1() -> None:
    ours, sra1 = (law_convergence("von_mises_well", [m], [n]) for m, n in ((KUTTA3, 20), (METHODS["sra1"], 40)))
    assert ours.drift_evaluations.item() == sra1.drift_evaluations.item()
    assert ours.moment_error.item() < sra1.moment_error.item() / 7

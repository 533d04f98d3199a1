"""Regions of stability, and the longest stable step, against characteristic polynomials and simulated paths."""

import math
import warnings

import numpy as np
import pytest
import torch
from test_adams import remembering
from torch import Tensor

from circsde.coupling import GlobalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.models.analytic import VonMisesScore
from circsde.schedule import Schedule
from circsde.sde import SDE, reverse
from circsde.solvers import Method, Noise, sdeint
from circsde.solvers.registry import find_method
from circsde.solvers.stability import amplification, longest_steps, real_limit
from circsde.studies import stability
from circsde.studies.plots import stability_regions
from circsde.studies.stable_steps import eigenvalues

Z = np.random.default_rng(0).uniform(-3, 3, (50, 2)) @ np.array([1.0, 1.0j])


def runge_kutta(sde: SDE, t: float, h: float, theta: Tensor, noise: Noise) -> Tensor:
    """The classical method of order 4, with the noise at the end."""
    a = sde.drift(t, theta)
    b = sde.drift(t + h / 2, theta + h / 2 * a)
    c = sde.drift(t + h / 2, theta + h / 2 * b)
    d = sde.drift(t + h, theta + h * c)
    return theta + h / 6 * (a + 2 * b + 2 * c + d) + noise.dW


RUNGE_KUTTA = Method("runge_kutta", runge_kutta, 1.0, 1.0, 1.0, nfe=4)

STEPPED = {"euler_maruyama": 1, "leimkuhler_matthews": 1, "heun": 2, "sra1": 2, "mobius_strang": 2, "kutta3": 3}


@pytest.mark.parametrize(("name", "order"), STEPPED.items())
def test_a_step_multiplies_by_the_taylor_polynomial_of_its_order(name: str, order: int) -> None:
    expected = sum(Z**k / math.factorial(k) for k in range(order + 1))
    np.testing.assert_allclose(amplification(find_method(name), Z), np.abs(expected), rtol=1e-12)


@pytest.mark.parametrize(
    ("method", "weights"),
    [("adams_bashforth2", (1.5, -0.5)), (remembering(2), (1.5, -0.5)), (remembering(3), (23 / 12, -16 / 12, 5 / 12))],
)
def test_steps_that_are_remembered_multiply_by_the_roots_of_the_characteristic_polynomial(
    method: str | Method, weights: tuple[float, ...]
) -> None:
    """``r^k = r^(k-1) + z (w_1 r^(k-1) + w_2 r^(k-2) + ...)``."""
    k = len(weights)
    polynomials = [np.r_[1.0, [-(j == 0) - z * w for j, w in enumerate(weights)]] for z in Z]
    assert all(len(p) == k + 1 for p in polynomials)
    expected = [np.abs(np.roots(p)).max() for p in polynomials]
    np.testing.assert_allclose(amplification(find_method(method), Z), expected, rtol=1e-7)


@pytest.mark.parametrize(
    ("method", "limit"),
    [
        ("euler_maruyama", 2.0),
        ("heun", 2.0),
        ("adams_bashforth2", 1.0),
        (remembering(3), 6.0 / 11.0),
        ("kutta3", 2.5127453266183286),
        (RUNGE_KUTTA, 2.785293563405282),
        ("mobius_strang", math.inf),
        ("noise_flow_noise", math.inf),
    ],
)
def test_the_limits_on_the_real_axis_are_those_of_textbooks(method: str | Method, limit: float) -> None:
    """Hairer & Wanner 1996, sections IV.2 and V.1."""
    assert real_limit(find_method(method)) == pytest.approx(limit, rel=1e-7)


@pytest.mark.parametrize("name", ["euler_maruyama", "heun", "adams_bashforth2"])
def test_noisy_paths_stay_about_a_spiral_up_to_that_step_and_leave_it_beyond(name: str) -> None:
    """Two angles that wind into rest, ``-1 +- 3i``: with 10 % shorter steps they stay, with 10 % longer they do not."""

    def drift(t: float | Tensor, theta: Tensor) -> Tensor:  # noqa: ARG001
        x, y = theta.sin().unbind(1)
        return torch.stack((-x - 3.0 * y, 3.0 * x - y), 1)

    rest = torch.zeros(50, 2, dtype=torch.float64)
    sde = SDE(drift, 1e-4, 1000.0, event_shape=(2,))
    h = stability(name, sde, rest).longest.item()
    assert h == pytest.approx(longest_steps(find_method(name), np.array([-1.0 + 3.0j])).item(), rel=1e-6)
    ends = []
    for part in (0.9, 1.1):
        solved = sdeint(sde, rest, (0.0, 400 * part * h), n_steps=400, method=name, generator=0, on_failure="return")
        ends.append(float(solved.lifted[-1].abs().median()))
    assert ends[0] < 5e-3 < 5e-2 < ends[1]


def test_the_rates_of_synchronised_oscillators_are_those_of_the_jacobian() -> None:
    """At rest ``-(K + K_ref)`` and, for all together, ``-K_ref``; turned by half, with the sign of K_ref reversed."""
    sde = KuramotoSDE((6,), GlobalCoupling(), Schedule.constant(5.0, 2.0, 0.1))
    for phase, reference in ((0.0, 2.0), (math.pi, -2.0)):
        found = np.sort(eigenvalues(sde.drift, 0.0, torch.full((1, 6), phase, dtype=torch.float64)).real)
        np.testing.assert_allclose(found, [*[-5.0 - reference] * 5, -reference], atol=1e-7)
    assert stability("heun", sde).longest.item() == pytest.approx(2.0 / 7.0, rel=1e-6)


def test_of_many_angles_the_largest_rates_are_found() -> None:
    rates = torch.linspace(0.5, 40.0, 100, dtype=torch.float64)
    field = lambda t, theta: -rates * theta.sin()  # noqa: E731, ARG005
    found = eigenvalues(field, 0.0, torch.zeros(1, 100, dtype=torch.float64))
    np.testing.assert_allclose(found.real.min(), -40.0, rtol=1e-3)


def test_rates_follow_time_and_what_parts_bounds_no_step() -> None:
    sde = KuramotoSDE((1,), NoCoupling(), Schedule.linear((0.0, 1.0, 0.1), (0.0, 9.0, 0.1)))
    found = stability("euler_maruyama", sde)
    np.testing.assert_allclose(found.step, 2.0 / (1.0 + 8.0 * found.time), rtol=1e-6)
    upside_down = torch.full((1, 1), math.pi, dtype=torch.float64)
    parting = SDE(lambda t, theta: -9.0 * theta.sin(), 0.1, event_shape=(1,))  # noqa: ARG005
    assert stability("heun", parting, upside_down).longest.item() == math.inf


def test_a_score_bounds_the_steps_of_mobius_methods_and_a_solution_says_where_to_look() -> None:
    """The score of a von Mises law of concentration 5 pulls by ``g^2 5 cos theta``, l = 1."""
    forward = KuramotoSDE((2,), NoCoupling(), Schedule.constant(1.0, 1.0, 2.0))
    sde = reverse(forward, VonMisesScore(concentration=5.0))
    solution = sdeint(sde, torch.zeros(3, 2, dtype=torch.float64), (0.0, 0.5), n_steps=50, generator=0)
    found = stability("mobius_strang", sde, solution)
    steepest = 2.0 * 2.0 * 5.0 * solution.theta.cos().flatten(1).amax(1).numpy()
    np.testing.assert_allclose(found.step, 2.0 / steepest, rtol=1e-5)
    assert found.time.values.tolist() == [0.0, 0.5]


def test_steps_that_one_method_bears_are_warned_of_for_another() -> None:
    """Rate times step is 1.5."""
    sde = KuramotoSDE((2,), NoCoupling(), Schedule.constant(reference=30.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sdeint(sde, torch.zeros(1, 2), (0.0, 1.0), n_steps=20, method="heun")
    with pytest.warns(RuntimeWarning, match="rate times step exceeds 1, and here it reaches 1.5: take about 60 steps"):
        sdeint(sde, torch.zeros(1, 2), (0.0, 1.0), n_steps=20, method="adams_bashforth2")


def test_methods_of_reversed_equations_and_drifts_that_are_not_finite_are_refused() -> None:
    sde = SDE(lambda t, theta: theta.sin() / t, 0.1, event_shape=(1,))  # noqa: ARG005
    with pytest.raises(ValueError, match="the drift is not finite at t = 0: give states at times where it is"):
        stability("heun", sde)
    with pytest.raises(TypeError, match="multistep needs the score of a reversed equation"):
        stability("multistep", KuramotoSDE((1,)))


def test_the_picture_has_a_line_for_each_region() -> None:
    figure = stability_regions(["euler_maruyama", "heun", "sra1", "adams_bashforth2"])
    assert [line.get_text() for line in figure.legends[0].get_texts()] == [
        "euler_maruyama",
        "heun\nsra1",
        "adams_bashforth2",
    ]

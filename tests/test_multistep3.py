"""Corrected multistep steps: the third order along the flow on any grid, and with noise the second, more accurately."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from test_ancestral import HORIZON_VARIANCE, SDE_, gaussian_score, variance
from torch import Tensor

from circsde.coupling import NoCoupling
from circsde.data_prediction import CorrectedStep
from circsde.exact.problems import Observable, Problem
from circsde.kuramoto import KuramotoSDE
from circsde.laws.mixture import WrappedNormalMixture
from circsde.schedule import Schedule
from circsde.sde import reverse
from circsde.solvers import Noise, sdeint
from circsde.solvers.methods import Method, Step
from circsde.solvers.multistep import MULTISTEP, MULTISTEP3, multistep, multistep3
from circsde.studies import exact_convergence
from circsde.studies.experiment import Wave
from circsde.torus import TWO_PI
from circsde.typing import Amplitude, Angles, Tangent, Time


def variance_error(step: Step, data: float, stochasticity: float, grid: Sequence[float]) -> float:
    """The relative error of the variance of normal data, ``data`` times that of the noise at the horizon, exactly.

    The state is affine in the start and in each noise, so that paths with one noise each tell of all.
    """
    sde = reverse(SDE_, gaussian_score(data * HORIZON_VARIANCE), stochasticity)
    theta = torch.ones(1 + len(grid), 1, dtype=torch.float64)
    theta[1] = 2.0
    for i, (t, end) in enumerate(zip(grid, grid[1:], strict=False)):
        dW = torch.zeros_like(theta)
        dW[2 + i] = math.sqrt(end - t)
        theta = step(sde, t, end - t, theta, Noise(dW))
    gain, kicks = theta[1] - theta[0], theta[2:] - theta[0]
    found = gain**2 * (data + 1.0) * HORIZON_VARIANCE + kicks.square().sum()
    return abs(float(found) / (data * HORIZON_VARIANCE + variance(1.0 - grid[-1])) - 1.0)


def equal(n: int) -> list[float]:
    return [i / n for i in range(n + 1)]


def shrinking(n: int) -> list[float]:
    """Finer and finer steps towards the data."""
    return [1.0 - (1.0 - i / n) ** 2 for i in range(n + 1)]


def two_to_one(n: int) -> list[float]:
    return [t for i in range(n // 2) for t in (2 * i / n, (2 * i + 4 / 3) / n)] + [1.0]


def orders(errors: Sequence[float]) -> list[float]:
    return [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]


class Uncorrected(CorrectedStep):
    """Its prediction alone, with less and less known towards the start."""

    def __call__(self, theta: Angles, ahead: Tangent, sigma: Amplitude, end: Amplitude, xi: Tensor) -> Angles:
        self._taken = None
        return super().__call__(theta, ahead, sigma, end, xi)


class EvenWeights(CorrectedStep):
    """It takes all steps for as long as the one ahead, as Adams methods of constant coefficients do."""

    def __call__(self, theta: Angles, ahead: Tangent, sigma: Amplitude, end: Amplitude, xi: Tensor) -> Angles:
        gap = sigma**2 - end**2
        self._known = [(sigma**2 + (j + 1) * gap, away) for j, (_, away) in enumerate(self._known)]
        return super().__call__(theta, ahead, sigma, end, xi)


@pytest.mark.parametrize("grid", [equal, shrinking, two_to_one])
def test_along_the_flow_the_order_is_three_down_to_the_data(grid: Callable[[int], list[float]]) -> None:
    found = orders([variance_error(multistep3(), 3.0, 0.0, grid(n)) for n in (96, 192, 384)])
    assert all(abs(order - 3.0) < 0.15 for order in found)


@pytest.mark.parametrize(("make", "grid"), [(Uncorrected, equal), (Uncorrected, shrinking), (EvenWeights, two_to_one)])
def test_without_the_corrector_or_the_lengths_of_steps_it_is_not(
    make: type[CorrectedStep], grid: Callable[[int], list[float]]
) -> None:
    found = orders([variance_error(multistep(make), 3.0, 0.0, grid(n)) for n in (96, 192, 384)])
    assert all(order < 2.2 for order in found)


DATA = WrappedNormalMixture((0.6, 0.4), (-0.5, 1.5), (1.0, 0.8))


def circle() -> Problem:
    """The probability flow of a mixture on the circle, with the exact score of its diffusion."""
    forward = KuramotoSDE((1,), NoCoupling(), Schedule.linear((0, 0, 0.2), (0, 0, 0.3)))

    def law(t: float) -> WrappedNormalMixture:
        return replace(DATA, sds=tuple((sd**2 + float(forward.variance(0.0, t))) ** 0.5 for sd in (1.0, 0.8)))

    def mean(wave: str, m: int) -> float:
        part = math.cos if wave == "cos" else math.sin
        laws = zip(DATA.weights, DATA.means, DATA.sds, strict=True)
        return sum(weight * math.exp(-0.5 * (m * float(sd)) ** 2) * part(m * at) for weight, at, sd in laws)

    sde = reverse(forward, lambda t, theta: law(float(t)).score(theta), 0.0)
    observables = tuple(
        Observable(f"{wave} {m}", Wave(wave, m), mean(wave, m)) for m in (1, 2) for wave in ("cos", "sin")
    )
    return Problem("a mixture", "", "", sde, law(1.0), observables, target=DATA)


def order_between(method: Method, steps: tuple[int, int]) -> tuple[float, float]:
    """The least and the largest weak order that the errors leave, each with its interval."""
    table = exact_convergence(circle(), methods=[method], steps=steps).isel(solver=0)
    lower, upper = table["lower"].values, table["upper"].values
    return math.log2(lower[0] / upper[1]), math.log2(upper[0] / lower[1])


def test_the_weak_order_on_the_circle_is_three_along_the_flow_and_that_of_multistep_is_less() -> None:
    least, largest = order_between(MULTISTEP3, (12, 24))
    assert 2.55 < least < largest < 3.2
    assert order_between(MULTISTEP, (12, 24))[1] < 1.2  # its last step is of first order


@pytest.mark.parametrize("data", [0.01, 0.3, 3.0])
@pytest.mark.parametrize("grid", [equal, shrinking])
def test_with_noise_it_is_of_second_order_before_the_data_and_nearer_than_multistep(
    data: float, grid: Callable[[int], list[float]]
) -> None:
    halves = {n: [0.5 * t for t in grid(n)] for n in (24, 96, 192)}
    found = {n: variance_error(multistep3(), data, 1.0, halves[n]) for n in halves}
    assert orders([found[96], found[192]])[0] > 1.5
    assert all(4.0 * found[n] < variance_error(multistep(), data, 1.0, halves[n]) for n in halves)


@pytest.mark.parametrize("n_steps", [2, 7])
@pytest.mark.parametrize("stochasticity", [0.0, 0.5, 1.0])
def test_given_the_data_the_law_is_that_of_the_forward_process_at_any_number_of_steps(
    n_steps: int, stochasticity: float
) -> None:
    grid = equal(n_steps)
    for until in range(2, n_steps + 1):
        assert variance_error(multistep3(), 0.0, stochasticity, grid[:until]) < 1e-9


def test_a_last_step_with_noise_ends_at_the_prediction() -> None:
    towards, still = CorrectedStep(1.0), torch.zeros(1, dtype=torch.float64)
    theta = towards(still, still + 1.0, 1.0, 0.5, still)
    corrected = 1.3 - towards(theta, 1.3 - theta, 0.5, 0.0, still)
    assert corrected.abs().item() < 1e-15


def test_a_long_step_after_short_ones_follows_none_of_their_slopes() -> None:
    """The prediction is 1, and after a hundredth of the way 1.1: a slope would lead ten away."""
    for stochasticity in (0.0, 1.0):
        towards, theta = CorrectedStep(stochasticity), torch.zeros(1, dtype=torch.float64)
        still = torch.zeros_like(theta)
        for sigma, end in ((1.0, 0.99**0.5), (0.99**0.5, 0.98**0.5), (0.98**0.5, 1e-6)):
            theta = towards(theta, (1.1 if sigma < 1.0 else 1.0) - theta, sigma, end, still)
        assert theta.item() == pytest.approx(1.1, abs=1e-2)


def test_each_angle_has_a_noise_of_its_own() -> None:
    """Two angles whose noises differ are stepped as one of each."""

    def ends(*scales: float) -> Tensor:
        g = torch.tensor(scales, dtype=torch.float64)
        towards, theta = CorrectedStep(0.0), torch.ones(len(scales), dtype=torch.float64)
        for v, w in ((1.0, 0.8), (0.8, 0.5), (0.5, 0.2), (0.2, 0.0)):
            theta = towards(theta, -0.3 * v * theta.sin(), v * g, w * g, torch.zeros_like(theta))
        return theta

    assert torch.allclose(ends(1.0, 2.0), torch.cat((ends(1.0), ends(2.0))), atol=1e-15)


def test_whole_turns_between_steps_change_nothing() -> None:
    def score(t: Time, theta: Angles) -> Tangent:
        return -torch.sin(theta - 1.0) / (0.1 + variance(float(t)))

    noise, ends = Noise(torch.full((1, 1), 0.3, dtype=torch.float64)), []
    for turns in (0.0, 5.0):
        step, theta = multistep3(), torch.full((1, 1), 1.4, dtype=torch.float64)
        for i in range(5):
            theta = step(reverse(SDE_, score), 0.2 * i, 0.2, theta + TWO_PI * turns, noise)
        ends.append(theta)
    assert float((ends[1] - ends[0] - 5 * 5 * TWO_PI).abs().max()) < 1e-12


def test_each_solution_begins_anew() -> None:
    sde = reverse(SDE_, lambda t, theta: -torch.sin(theta - 1.0) / (0.1 + variance(float(t))))
    first, again = (
        sdeint(sde, torch.ones(2, 1).double(), (0.0, 1.0), n_steps=6, method="multistep3", generator=0).theta
        for _ in range(2)
    )
    assert torch.equal(first, again)

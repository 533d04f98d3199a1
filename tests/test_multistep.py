"""Multistep steps: exact given the data however long they are, and of second order along the flow."""

import math

import pytest
import torch
from test_ancestral import HORIZON_VARIANCE, SDE_, gaussian_score, variance
from torch import Tensor

from circsde.coupling import NoCoupling
from circsde.data_prediction import ExponentialStep
from circsde.exact.fokker_planck import CircleLaw
from circsde.kuramoto import KuramotoSDE
from circsde.laws.mixture import WrappedNormalMixture
from circsde.models.analytic import FokkerPlanckScore
from circsde.schedule import Schedule
from circsde.sde import SDE, ReverseSDE, reverse
from circsde.solvers import Noise, sdeint
from circsde.solvers.ancestral import ancestral_step
from circsde.solvers.correctors import clamped, langevin
from circsde.solvers.interop import torchsde_solver
from circsde.solvers.methods import Step
from circsde.solvers.multistep import DPMPP_2M, MULTISTEP, dpmpp_2m, multistep
from circsde.solvers.registry import find_method
from circsde.torus import TWO_PI
from circsde.typing import Angles, Tangent, Time


def moments(
    data_variance: float,
    n_steps: int,
    stochasticity: float,
    until: int | None = None,
    *,
    end: float = 1.0,
    step: Step | None = None,
) -> Tensor:
    """Mean and variance after ``until`` of ``n_steps`` steps to the time ``end`` of the reversed equation, exactly.

    They are affine in the start and in each noise: the first two paths, without noise, tell of the start; each other
    one has the noise of one step alone.
    """
    sde, step = reverse(SDE_, gaussian_score(data_variance), stochasticity), step or multistep()
    h, until = end / n_steps, n_steps if until is None else until
    theta = torch.ones(2 + until, 1, dtype=torch.float64)
    theta[1] = 2.0
    for i in range(until):
        dW = torch.zeros_like(theta)
        dW[2 + i] = math.sqrt(h)
        theta = step(sde, i * h, h, theta, Noise(dW))
    at_one, gain, kicks = theta[0], theta[1] - theta[0], theta[2:] - theta[0]
    return torch.stack((at_one[0], gain[0] ** 2 * (data_variance + HORIZON_VARIANCE) + kicks.square().sum()))


@pytest.mark.parametrize("n_steps", [2, 7])
@pytest.mark.parametrize("stochasticity", [0.0, 0.5, 1.0])
def test_given_the_data_every_state_has_the_law_of_the_forward_process_at_any_number_of_steps(
    n_steps: int, stochasticity: float
) -> None:
    for until in range(1, n_steps + 1):
        exact = torch.tensor([1.0, variance(1.0 - until / n_steps)], dtype=torch.float64)
        torch.testing.assert_close(moments(0.0, n_steps, stochasticity, until), exact, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("stochasticity", [0.0, 0.5, 1.0])
def test_the_law_of_normal_data_is_approached_with_the_second_order(stochasticity: float) -> None:
    """At half of the horizon: at its end a step of lambda is infinite. Without noise and with it."""
    data_variance = 0.3 * HORIZON_VARIANCE
    exact = data_variance + variance(0.5)
    errors = [abs(float(moments(data_variance, n, stochasticity, n // 2)[1]) - exact) for n in (160, 320, 640)]
    orders = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert all(1.9 < found < 2.1 for found in orders)


SHORT = 0.999
"""Just before the data, where the steps before the last one are long against the time that is left."""


def error(n_steps: int, data: float, stochasticity: float, end: float, step: Step | None = None) -> float:
    """The relative error of the variance of normal data, of ``data`` times the variance of the noise at the horizon."""
    exact = data * HORIZON_VARIANCE + variance(1.0 - end)
    found = moments(data * HORIZON_VARIANCE, n_steps, stochasticity, end=end, step=step)
    return abs(float(found[1]) / exact - 1.0)


@pytest.mark.parametrize("stochasticity", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("data", [0.01, 0.3, 3.0])
def test_stopped_just_before_the_data_it_is_nearer_than_ancestral_steps(data: float, stochasticity: float) -> None:
    """At any number of steps; the same slope followed in the logarithm of the noise, which has no end, is not."""
    for n in (3, 5, 10, 20, 40):
        ancestral = error(n, data, stochasticity, SHORT, ancestral_step)
        assert error(n, data, stochasticity, SHORT) < ancestral
    assert error(5, 0.3, stochasticity, SHORT, dpmpp_2m()) > 3.0 * error(5, 0.3, stochasticity, SHORT, ancestral_step)


@pytest.mark.parametrize("stochasticity", [0.0, 0.5, 1.0])
def test_in_the_logarithm_of_the_noise_the_steps_are_those_of_dpm_solver(stochasticity: float) -> None:
    """Up to the last step, which has no slope here; all moments of all states on the way."""
    for until in range(1, 7):
        found, expected = (moments(0.3, 7, stochasticity, until, step=step) for step in (dpmpp_2m(), in_log_noise()))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)


def settled_error(step: Step, n_steps: int) -> float:
    """The relative error of the standard deviation of normal data that attraction has contracted to ``e^-5``.

    The rates are those of ``Schedule.settling(0.0, 7.0)``, without their start at 0.05; steps are even in time.
    """
    data, concentration = 0.1, 7.0

    def spread(t: Time) -> Tensor:
        left = torch.exp(-10.0 * torch.as_tensor(t, dtype=torch.float64) ** 2)
        return data * left + (1.0 - left) / concentration

    forward = SDE(
        lambda t, theta: -10.0 * t * theta,
        lambda t: (20.0 * t / concentration) ** 0.5,
        horizon=1.0,
        variance=lambda t0, t1: 10.0 * (t1**2 - t0**2) / concentration,
    )
    sde, h = reverse(forward, lambda t, theta: -theta / spread(t), 1.0), 1.0 / n_steps
    theta = torch.zeros(1 + n_steps, 1, dtype=torch.float64)
    theta[0] = float(spread(1.0)) ** 0.5
    for i in range(n_steps):
        dW = torch.zeros_like(theta)
        dW[1 + i] = math.sqrt(h)
        theta = step(sde, i * h, h, theta, Noise(dW))
    return float((theta.square().sum() / data).sqrt()) - 1.0


def test_back_from_settled_phases_the_logarithm_gives_more_spread_which_few_steps_need_and_many_do_not() -> None:
    """At 10 steps images have too little contrast without it, at 25 too much with it; with many steps both are right.

    Times here end at zero to rounding only, which a slope in the logarithm must not follow.
    """
    found = {n: (settled_error(multistep(), n), settled_error(dpmpp_2m(), n)) for n in (10, 25, 400)}
    assert found[10][0] < -0.14 < 0.0 < found[10][1] < 0.07
    assert -0.03 < found[25][0] < 0.0 < 0.1 < found[25][1] < 0.11
    assert max(map(abs, found[400])) < 0.002


def in_log_noise() -> Step:
    """DPM-Solver++ 2M as it is published: the prediction is linear in ``lambda = -log sigma``."""
    before: tuple[float, Tensor] | None = None

    def step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
        nonlocal before
        assert isinstance(sde, ReverseSDE)
        p, now = 1.0 + sde.stochasticity**2, 1.0 - t
        sigma, end = math.sqrt(variance(now)), math.sqrt(variance(now - h))
        H, x = math.log(sigma / end), theta + sigma**2 * sde.score(now, theta)
        slope = torch.zeros_like(x) if before is None else (x - before[1]) / math.log(before[0] / sigma)
        before = sigma, x
        kept, left = math.exp(-p * H), math.sqrt(math.exp(-2.0 * H) - math.exp(-2.0 * p * H))
        moved: Tensor = theta + (1.0 - kept) * (x - theta) + (H - (1.0 - kept) / p) * slope
        return moved + sigma * left / math.sqrt(h) * noise.dW

    return step


@pytest.mark.parametrize("data", [0.3, 3.0])
def test_the_flow_stopped_just_before_the_data_is_of_second_order(data: float) -> None:
    errors = [error(n, data, 0.0, SHORT) for n in (20, 40, 80, 160)]
    assert all(1.9 < math.log2(a / b) < 2.2 for a, b in zip(errors, errors[1:], strict=False))


@pytest.mark.parametrize("stochasticity", [0.0, 1.0])
def test_at_the_data_the_weak_order_is_the_one_that_is_claimed(stochasticity: float) -> None:
    """It falls towards 1 as the last step, which alone is of first order, comes to rule."""
    errors = [error(n, 0.3, stochasticity, 1.0) for n in (80, 160, 320)]
    orders = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert MULTISTEP.weak_order == 1.0
    assert 0.95 < orders[1] < orders[0] < 1.3


@pytest.mark.parametrize("stochasticity", [0.0, 1.0])
def test_the_claim_holds_in_the_logarithm_of_the_noise_too(stochasticity: float) -> None:
    """Along the flow the order rises to 1 from below, with noise it falls to 1 slowly: at 1280 steps it is 1.5."""
    errors = [error(n, 0.3, stochasticity, 1.0, dpmpp_2m()) for n in (1280, 2560)]
    assert DPMPP_2M.weak_order == 1.0
    assert math.log2(errors[0] / errors[1]) > 0.95


def test_a_long_step_after_a_short_one_goes_no_further_than_the_prediction_went_before() -> None:
    """ExponentialStep predictions that moved by 0.1 while the noise variance fell by a hundredth of itself."""
    for stochasticity in (0.0, 1.0):
        towards, still = ExponentialStep(stochasticity), torch.zeros(1, dtype=torch.float64)
        theta = towards(still, still + 1.0, 1.0, 0.99**0.5, still)
        theta = towards(theta, 1.1 - theta, 0.99**0.5, 1e-6, still)
        assert theta.item() == pytest.approx(1.2, abs=1e-5)


@pytest.mark.parametrize("n_steps", [5, 10, 20])
def test_two_modes_on_the_circle_come_back_from_the_published_schedule(n_steps: int) -> None:
    """From the exact score, stopped at 0.001: 4 standard errors above what ancestral steps are off by, 0.04.

    E e^{i theta} of 4000 paths is known to 0.016 a part. In the logarithm of the noise it was off by 0.42, 0.30, 0.20.
    """
    sde = KuramotoSDE((1,), NoCoupling(), Schedule.published(100))
    score = FokkerPlanckScore(sde, WrappedNormalMixture((0.6, 0.4), (-1.5, 1.2), (0.3, 0.5)))
    law = score.law
    assert isinstance(law, CircleLaw)
    start = law.sample(1.0, (4000, 1), torch.Generator().manual_seed(0))
    times = (0.0, 1.0 - 0.001)
    end = sdeint(reverse(sde, score), start, times, n_steps=n_steps, method="multistep", generator=1).theta[-1]
    assert abs(complex(torch.exp(1j * end).mean()) - law.moment(0.001, 1)) < 0.04 + 4 * 0.016


def test_the_weak_order_is_two_where_the_drift_bends() -> None:
    """In a von Mises well, at half of the horizon, with noise of three points that has the moments of the normal one.

    All 3^n paths are followed. The error of ``E cos theta`` is against the moment equations of the Fokker-Planck law.
    """
    K, D, start, n_modes = 1.0, 0.5, 1.5, 40
    well = KuramotoSDE((1,), NoCoupling(), Schedule.constant(reference=K, diffusion=D))
    back = reverse(well, lambda t, theta: -K / D * theta.sin())  # settled: the reversed equation is the forward one
    k = torch.arange(-n_modes, n_modes + 1, dtype=torch.float64)
    rise = torch.diag_embed(0.5 * K * k[1:], -1) - torch.diag_embed(0.5 * K * k[:-1], 1)
    moments_later = torch.linalg.matrix_exp(0.5 * (rise - torch.diag(D * k**2))) @ torch.exp(1j * k * start).real
    exact = float(moments_later[n_modes + 1])

    def missed(n: int, remembers: bool) -> float:
        h = 0.5 / n
        kicks = torch.cartesian_prod(*[torch.tensor([-(3.0**0.5), 0.0, 3.0**0.5], dtype=torch.float64)] * n)
        weights = (1.0 / 6.0 + 0.5 * (kicks == 0.0).double()).prod(1)  # 2/3 in the middle
        step, theta = multistep(), torch.full((len(kicks), 1), start, dtype=torch.float64)
        for i in range(n):
            step = step if remembers else multistep()
            theta = step(back, i * h, h, theta, Noise(h**0.5 * kicks[:, i : i + 1]))
        return float(weights @ theta.cos()[:, 0]) - exact

    orders = {remembers: math.log2(abs(missed(6, remembers) / missed(12, remembers))) for remembers in (True, False)}
    assert abs(orders[True] - 2.0) < 0.3
    assert abs(orders[False] - 1.0) < 0.3


def test_the_flow_is_nearer_to_the_data_than_without_the_step_before() -> None:
    data_variance = 0.3 * HORIZON_VARIANCE
    sde, theta = reverse(SDE_, gaussian_score(data_variance), 0.0), torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    for i in range(20):
        theta = multistep()(sde, i / 20, 1 / 20, theta, Noise(torch.zeros_like(theta)))  # forgets
    without = float((theta[1] - theta[0]) ** 2) * (data_variance + HORIZON_VARIANCE)
    found = float(moments(data_variance, 20, 0.0)[1])
    assert abs(found - data_variance) < 0.5 * abs(without - data_variance)  # what is left is the last step, taken alike


def test_whole_turns_between_steps_change_nothing() -> None:
    sde = reverse(SDE_, lambda t, theta: -torch.sin(theta - 1.0) / (0.1 + variance(float(t))), 1.0)
    noise = Noise(torch.full((1, 1), 0.3, dtype=torch.float64))
    ends = []
    for turns in (0.0, 5.0):
        step, theta = multistep(), torch.full((1, 1), 1.4, dtype=torch.float64)
        for i in range(4):
            theta = step(sde, 0.2 * i, 0.2, theta + TWO_PI * turns, noise)
        ends.append(theta)
    assert float((ends[1] - ends[0] - 4 * 5 * TWO_PI).abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("method", "n_steps", "stochasticity"), [("ancestral", 4, 1.0), ("multistep", 200, 0.0), ("multistep", 200, 1.0)]
)
def test_the_drift_is_taken_back(method: str, n_steps: int, stochasticity: float) -> None:
    """A drift of 0.3 for one unit of time, which x sees as even in sigma^2 where the noise is constant."""
    drifting = SDE(lambda t, theta: 0.0 * theta + 0.3, lambda t: 1e-4, 1.0)
    end = sdeint(
        reverse(drifting, lambda t, theta: 0.0 * theta, stochasticity),
        torch.ones(4, 2, dtype=torch.float64),
        (0.0, 1.0),
        n_steps=n_steps,
        method=method,
        generator=0,
    ).theta[-1]
    assert float((end - 0.7).abs().max()) < 2e-3


def test_one_evaluation_of_the_score_per_step_and_each_solution_begins_anew() -> None:
    calls: list[float] = []

    class Score:
        periodic = True  # so that no check calls it

        def __call__(self, t: Time, theta: Angles) -> Tangent:
            calls.append(float(t))
            answer: Tensor = gaussian_score(0.1)(t, theta)
            return answer

    score = Score()

    def ends() -> Tensor:
        theta0 = torch.ones(2, 1, dtype=torch.float64)
        return sdeint(reverse(SDE_, score), theta0, (0.0, 1.0), n_steps=6, method="multistep", generator=0).theta

    first = ends()
    assert len(calls) == 6
    assert torch.equal(first, ends())


def test_what_needs_no_memory_is_refused() -> None:
    with pytest.raises(TypeError, match="reversed equation, got KuramotoSDE"):
        sdeint(SDE_, torch.zeros(1, 1), (0.0, 1.0), n_steps=2, method="multistep")
    with pytest.raises(ValueError, match="multistep remembers earlier steps; take heun"):
        langevin("multistep", 0.1)
    with pytest.raises(ValueError, match="multistep remembers earlier steps, which torchsde"):
        torchsde_solver("multistep")


def test_known_angles_can_be_held() -> None:
    known = torch.tensor([True, False])
    method = clamped("multistep", known, lambda t: torch.full((2, 2), 0.25, dtype=torch.float64))
    pair = SDE(lambda t, theta: 0.0 * theta, lambda t: 0.1, 1.0)
    sde = reverse(pair, lambda t, theta: -torch.sin(theta - 1.0) / (0.1 + 0.01 * float(t)))
    free, held = (
        sdeint(sde, torch.ones(2, 2, dtype=torch.float64), (0.0, 1.0), n_steps=5, method=each, generator=0).theta[-1]
        for each in (find_method("multistep"), method)
    )
    assert torch.equal(held[:, 0], torch.full((2,), 0.25, dtype=torch.float64))
    assert torch.equal(held[:, 1], free[:, 1])

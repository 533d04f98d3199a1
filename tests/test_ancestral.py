"""Ancestral steps have the law of the forward process however long they are, where Euler-Maruyama's have not."""

import math

import pytest
import torch
from torch import Tensor

from circsde.coupling import NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import WrappedNormal
from circsde.schedule import Linear, Schedule
from circsde.sde import SDE, ReverseSDE, reverse
from circsde.solvers import Noise, sdeint
from circsde.solvers.ancestral import ancestral_step
from circsde.solvers.correctors import denoised, langevin
from circsde.solvers.methods import Method, Step, euler_maruyama_step
from circsde.typing import Angles, Tangent, Time

DIFFUSION = Linear(0.1, 2.0)
HORIZON_VARIANCE = 0.01  # so small against the circle that nothing wraps: linear laws are exact to exp(-pi^2 / 0.02)
SCALE = HORIZON_VARIANCE / (2.0 * float(DIFFUSION.integral(0.0, 1.0)))
SDE_ = KuramotoSDE(
    (1,), NoCoupling(), Schedule.linear((0.0, 0.0, SCALE * DIFFUSION.start), (0.0, 0.0, SCALE * DIFFUSION.end))
)


def variance(t: float) -> float:
    return float(SDE_.variance(0.0, t))


def gaussian_score(data_variance: float):  # type: ignore[no-untyped-def]
    """The score of data ``N(1, data_variance)`` after pure diffusion, exact on the line."""

    def score(t: Time, theta: Angles) -> Tangent:
        return -(theta - 1.0) / (data_variance + variance(float(t)))

    return score


def moments(
    step: Step, data_variance: float, n_steps: int, stochasticity: float = 1.0, until: int | None = None
) -> Tensor:
    """Mean and variance after ``until`` of ``n_steps`` steps, exactly: the steps are affine in state and noise."""
    sde = reverse(SDE_, gaussian_score(data_variance), stochasticity)
    h = 1.0 / n_steps
    mean, spread = 1.0, data_variance + HORIZON_VARIANCE
    probe, none = torch.tensor([[1.0], [2.0], [1.0]], dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)
    for i in range(n_steps if until is None else until):
        dW = none.clone()
        dW[2] = math.sqrt(h)
        at_one, at_two, kicked = step(sde, i * h, h, probe, Noise(dW)).flatten().tolist()
        gain, kick = at_two - at_one, kicked - at_one
        mean, spread = at_one + gain * (mean - 1.0), gain**2 * spread + kick**2
    return torch.tensor([mean, spread], dtype=torch.float64)


@pytest.mark.parametrize("n_steps", [2, 7])
@pytest.mark.parametrize("stochasticity", [0.0, 0.5, 1.0])
def test_given_the_data_every_state_has_the_law_of_the_forward_process_at_any_number_of_steps(
    n_steps: int, stochasticity: float
) -> None:
    for until in range(1, n_steps + 1):
        exact = torch.tensor([1.0, variance(1.0 - until / n_steps)], dtype=torch.float64)
        found = moments(ancestral_step, 0.0, n_steps, stochasticity, until)
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("ancestral", "has grown by -"),
        ("multistep", "has grown by -"),
        (langevin("heun", 0.1), "at t = 1 it has grown"),
    ],
    ids=("ancestral", "multistep", "langevin"),
)
def test_a_noise_variance_that_falls_is_refused_and_not_its_root_made_complex(
    method: str | Method, message: str
) -> None:
    """A variance as a rough quadrature gives it: it falls between 0.4 and 1, where it is negative."""
    forward = SDE(lambda t, theta: 0.0 * theta, lambda t: 1.0, 1.0, variance=lambda a, b: b - a - 1.2 * (b**2 - a**2))
    back = reverse(forward, lambda t, theta: -theta.sin())
    with pytest.raises(ValueError, match=message):
        sdeint(back, torch.ones(1, 1), (0.0, 1.0), n_steps=5, method=method, generator=0)
    with pytest.raises(ValueError, match="must grow with time"):
        denoised(forward, lambda t, theta: -theta.sin(), 0.9, torch.ones(1, 1))


def test_euler_maruyama_leaves_more_noise_than_there_should_be() -> None:
    assert moments(euler_maruyama_step, 0.0, 7, until=6)[1] > 2.0 * variance(1.0 / 7.0)


def test_the_law_of_the_data_is_approached_with_the_first_order() -> None:
    data_variance = 0.3 * HORIZON_VARIANCE
    errors = [abs(float(moments(ancestral_step, data_variance, n)[1]) - data_variance) for n in (400, 800, 1600)]
    orders = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert all(0.9 < order < 1.1 for order in orders)


def test_on_the_circle_a_point_is_recovered_from_far_out_in_one_step_per_halving_of_the_noise() -> None:
    sde = KuramotoSDE((1,), NoCoupling(), Schedule.constant(diffusion=2.0))

    def score(t: Time, theta: Angles) -> Tangent:
        return WrappedNormal(1.0, float(sde.variance(0.0, float(t))) ** 0.5).score(theta)

    start = torch.linspace(-3.0, 3.0, 64, dtype=torch.float64)[:, None]
    grid = [1.0 - 0.5**i for i in range(20)] + [1.0]
    end = sdeint(reverse(sde, score), start, (0.0, 1.0), grid=grid, method="ancestral", generator=0).theta[-1]
    assert float((end - 1.0).abs().max()) < 1e-6


def test_an_equation_that_runs_forwards_is_refused() -> None:
    with pytest.raises(TypeError, match="reversed equation, got KuramotoSDE"):
        sdeint(SDE_, torch.zeros(1, 1), (0.0, 1.0), n_steps=2, method="ancestral")


@pytest.mark.parametrize("method", ["ancestral", "multistep", "dpmpp_2m", "multistep3"])
def test_a_reversed_equation_with_a_drift_of_its_own_is_refused(method: str) -> None:
    """These steps are made of the score and the forward drift, and would leave out what such a drift adds."""

    class Pushed(ReverseSDE):
        def drift(self, t: Time, theta: Angles) -> Tangent:
            return super().drift(t, theta) + 1.0

    with pytest.raises(TypeError, match="reversed equation, got Pushed"):
        sdeint(Pushed(SDE_, lambda t, theta: 0.0 * theta, 1.0), torch.zeros(1, 1), (0.0, 1.0), n_steps=2, method=method)

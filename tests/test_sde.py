"""Reversal and probability flow against identities and exact laws, one step against its law, torchsde's view."""

import math
from collections.abc import Callable

import pytest
import scipy.integrate
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises, WrappedNormal
from circsde.matching.chain import Chain
from circsde.one_step import transition
from circsde.schedule import Schedule
from circsde.sde import SDE, reverse
from circsde.solvers import sdeint
from circsde.typing import Time
from circsde.velocity import probability_flow
from strategies import COUPLINGS, assert_agree, couplings, kuramoto, random_angles, seeds

times = st.floats(0.0, 1.0)
degrees = st.floats(0.0, 2.0)


def some_score(t: Time, theta: Tensor) -> Tensor:
    """A field that depends on time and angle, and is no gradient."""
    return (1.0 + t) * (theta + 0.3).sin() - theta.roll(1, -1).cos()


def flat_amplitude(value: float) -> Callable[[Time], float]:
    return lambda t: value


@given(couplings, seeds, times, degrees)
def test_reversal_has_the_drift_and_the_noise_of_the_mirrored_time(
    name: str, seed: int, s: float, degree: float
) -> None:
    sde, theta = kuramoto(name, seed), random_angles(2, *COUPLINGS[name][1], seed=seed + 2)
    backward, t = reverse(sde, some_score, degree), 1.0 - s
    D = sde.schedule.diffusion(t)
    expected = (1 + degree**2) * D * some_score(t, theta) - sde.drift(t, theta)
    assert_agree(backward.drift(s, theta), expected, 1e-12)
    assert float(backward.diffusion(s)) == pytest.approx(degree * math.sqrt(2 * D), rel=1e-12)
    assert float(backward.variance(0.0, s)) == pytest.approx(degree**2 * float(sde.variance(t, 1.0)), rel=1e-12)
    assert (backward.horizon, backward.event_shape) == (sde.horizon, sde.event_shape)


@given(couplings, seeds, times)
def test_reversing_twice_gives_the_equation_back(name: str, seed: int, t: float) -> None:
    sde, theta = kuramoto(name, seed), random_angles(2, *COUPLINGS[name][1], seed=seed + 2)
    again = reverse(reverse(sde, some_score), lambda s, x: some_score(sde.horizon - s, x))
    assert_agree(again.drift(t, theta), sde.drift(t, theta), 1e-12)
    assert float(again.diffusion(t)) == pytest.approx(float(sde.diffusion(t)), rel=1e-12)


@given(couplings, seeds, times)
def test_reversal_without_noise_is_the_probability_flow_backwards(name: str, seed: int, s: float) -> None:
    sde, theta = kuramoto(name, seed), random_angles(2, *COUPLINGS[name][1], seed=seed + 2)
    backward = reverse(sde, some_score, stochasticity=0.0)
    assert_agree(backward.drift(s, theta), -probability_flow(sde, some_score)(1.0 - s, theta), 1e-12)
    assert float(backward.diffusion(s)) == 0.0
    assert float(backward.variance(0.0, 1.0)) == 0.0


def test_the_sinusoidal_part_and_the_remainder_make_up_the_reversed_drift() -> None:
    sde = reverse(kuramoto("global"), some_score, 0.7)
    theta, h = random_angles(2, 5), 1e-6
    H_cos, H_sin, w = (part / h for part in sde.impulse(0.4, 0.4 + h, theta))
    sinusoidal = w + H_sin * theta.cos() - H_cos * theta.sin()
    torch.testing.assert_close(sinusoidal + sde.remainder(0.4, theta), sde.drift(0.4, theta), rtol=0, atol=10 * h)


def test_the_probability_flow_stands_still_at_the_stationary_law() -> None:
    psi = random_angles(6)
    sde = KuramotoSDE((6,), schedule=Schedule.constant(0.0, 2.0, 0.7), reference_phase=psi)
    law, theta = VonMises(psi, 2.0 / 0.7), random_angles(3, 6, seed=1)
    velocity = probability_flow(sde, lambda t, x: law.score(x))(0.3, theta)
    assert velocity.abs().max() < 1e-14
    colder = VonMises(psi, 2.0 / 0.6)
    assert probability_flow(sde, lambda t, x: colder.score(x))(0.3, theta).abs().max() > 0.1


@pytest.mark.parametrize("stochasticity", [0.0, 0.5, 1.0, 1.5])
def test_reversal_with_the_exact_score_returns_to_the_start_whatever_the_stochasticity(stochasticity: float) -> None:
    """Diffusion at 2 D = 1 + 3 t from WN(1, 0.5); Kolmogorov-Smirnov on 4000 angles, false alarm rate 1e-4 each."""

    def score(t: Time, theta: Tensor) -> Tensor:
        return WrappedNormal(1.0, (0.25 + t + 1.5 * t**2) ** 0.5).score(theta)

    sde = SDE(lambda t, theta: torch.zeros_like(theta), lambda t: (1.0 + 3.0 * t) ** 0.5, horizon=1.0)
    end = WrappedNormal(1.0, 2.75**0.5).sample((4000, 1), generator=torch.Generator().manual_seed(3))
    start = sdeint(reverse(sde, score, stochasticity), end, (0.0, 1.0), n_steps=60, generator=4).theta[-1]
    offset = torch.remainder(start - 1.0 + math.pi, 2 * math.pi) - math.pi
    assert stats.kstest(offset.flatten().numpy(), stats.norm(scale=0.5).cdf).pvalue > 1e-4


def test_reversal_with_half_the_score_does_not_return() -> None:
    sde = SDE(lambda t, theta: torch.zeros_like(theta), flat_amplitude(1.5), horizon=1.0)
    end = WrappedNormal(1.0, 1.58).sample((4000, 1), generator=torch.Generator().manual_seed(3))
    half = reverse(sde, lambda t, theta: 0.5 * WrappedNormal(1.0, (0.25 + 2.25 * t) ** 0.5).score(theta))
    start = sdeint(half, end, (0.0, 1.0), n_steps=60, generator=4).theta[-1]
    offset = torch.remainder(start - 1.0 + math.pi, 2 * math.pi) - math.pi
    assert stats.kstest(offset.flatten().numpy(), stats.norm(scale=0.5).cdf).pvalue < 1e-8


def test_one_step_of_euler_maruyama_follows_the_transition_law() -> None:
    """Kolmogorov-Smirnov on 1e4 steps from each of three states, false alarm rate 1e-4 each."""
    sde, theta = kuramoto("global"), random_angles(1, 5).expand(10_000, 5)
    law = transition(sde, 0.3, 0.1, theta[:1])
    scale = float(sde.diffusion(0.3)) * math.sqrt(0.1)
    assert_agree(law.scale.expand(1, 5), torch.full((1, 5), scale, dtype=torch.float64))
    after = sdeint(sde, theta, (0.3, 0.4), n_steps=1, method="euler_maruyama", generator=5).lifted[-1]
    for i in range(3):
        expected = stats.norm(law.loc[0, i].item(), scale)
        assert stats.kstest(after[:, i].numpy(), expected.cdf).pvalue > 1e-4


def test_transitions_take_one_time_per_sample() -> None:
    sde, theta, t = kuramoto("none"), random_angles(3, 4), torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64)
    law = transition(sde, t, 0.1 * (1 + t), theta)
    for i in range(3):
        alone = transition(sde, float(t[i]), float(0.1 * (1 + t[i])), theta[i : i + 1])
        assert_agree(law.loc[i : i + 1], alone.loc)
        assert_agree(law.scale.expand(3, 4)[i : i + 1], alone.scale.expand(1, 4))


@pytest.mark.parametrize("power", [0, 1, 2, 3])
def test_the_default_variance_is_exact_for_a_cubic_squared_amplitude(power: int) -> None:
    sde = SDE(lambda t, theta: theta, lambda t: (0.5 + t**power) ** 0.5, horizon=2.0)
    quad = scipy.integrate.quad(lambda t: 0.5 + t**power, 0.2, 1.9)[0]
    assert sde.variance(0.2, 1.9) == pytest.approx(quad, rel=1e-13)


def test_a_given_variance_is_used() -> None:
    sde = SDE(lambda t, theta: theta, lambda t: 2.0**t, 2.0, variance=lambda a, b: (4.0**b - 4.0**a) / math.log(4))
    quad = scipy.integrate.quad(lambda t: 4.0**t, 0.2, 1.9)[0]
    assert sde.variance(0.2, 1.9) == pytest.approx(quad, rel=1e-13)
    assert reverse(sde, some_score).variance(0.1, 1.8) == pytest.approx(quad, rel=1e-13)


def test_each_oscillator_may_have_its_own_noise() -> None:
    amplitude = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    sde = SDE(lambda t, theta: torch.zeros_like(theta), lambda t: amplitude, horizon=1.0, event_shape=(3,))
    theta = torch.zeros(4000, 3, dtype=torch.float64)
    for method in ("euler_maruyama", "heun", "sra1", "leimkuhler_matthews"):
        spread = sdeint(sde, theta, (0.0, 1.0), n_steps=3, method=method, generator=1).lifted[-1].std(0)
        torch.testing.assert_close(spread, amplitude, rtol=0.06, atol=0)  # 5.4 sigma of 4000 samples: 1e-7
    assert sde.g(0.0, theta[:2]).tolist() == [amplitude.tolist()] * 2
    assert sdeint(sde, theta[:2].float(), (0.0, 1.0), n_steps=3).theta.dtype == torch.float32


@given(couplings, seeds, times)
def test_torchsde_sees_the_same_equation_flattened(name: str, seed: int, t: float) -> None:
    sde, theta = kuramoto(name, seed), random_angles(2, *COUPLINGS[name][1], seed=seed + 2)
    for equation in (sde, reverse(sde, some_score, 0.5)):
        assert_agree(equation.f(t, theta.flatten(1)), equation.drift(t, theta).flatten(1))
        g = equation.g(t, theta.flatten(1))
        assert_agree(g, torch.full_like(g, float(equation.diffusion(t))))
        assert (equation.noise_type, equation.sde_type) == ("diagonal", "ito")


def test_a_network_inside_a_reversed_equation_is_found_and_moves_with_it() -> None:
    class Score(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, t: Time, theta: Tensor) -> Tensor:  # noqa: ARG002
            out: Tensor = self.layer(theta.sin())
            return out

    backward = reverse(kuramoto("none"), Score())
    assert {name for name, _ in backward.named_parameters()} == {"score.layer.weight", "score.layer.bias"}
    assert backward.double().drift(0.5, random_angles(2, 4)).requires_grad


@pytest.mark.parametrize("horizon", [0.0, -1.0, math.nan])
def test_a_horizon_that_is_not_positive_is_refused(horizon: float) -> None:
    with pytest.raises(ValueError, match="horizon must be positive, got"):
        SDE(lambda t, theta: theta, flat_amplitude(1.0), horizon)


@pytest.mark.parametrize("stochasticity", [-0.1, math.nan])
def test_a_negative_stochasticity_is_refused(stochasticity: float) -> None:
    with pytest.raises(ValueError, match="stochasticity must be non-negative, got"):
        reverse(kuramoto("none"), some_score, stochasticity)


@pytest.mark.parametrize("value", [2, 2.0, torch.tensor(2.0), torch.tensor([2.0, 1.0])])
def test_a_number_is_a_constant_diffusion(value: float | Tensor) -> None:
    sde = SDE(lambda t, theta: 0.0 * theta, value, horizon=1)
    assert torch.allclose(
        torch.as_tensor(sde.variance(0.25, 0.75)).float(),
        0.5 * torch.as_tensor(value).float() ** 2,
    )
    for dtype in (torch.float32, torch.float64):
        for method in ("euler_maruyama", "heun", "sra1", "leimkuhler_matthews"):
            start = torch.zeros(3, 2, dtype=dtype)
            assert sdeint(sde, start, (0.0, 1.0), n_steps=2, method=method, generator=0).theta.dtype == dtype


def test_a_parameter_may_be_the_diffusion() -> None:
    amplitude = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    sde = SDE(lambda t, theta: 0.0 * theta, amplitude, horizon=1.0)
    assert [id(p) for p in sde.parameters()] == [id(amplitude)]
    end = sdeint(sde, torch.zeros(3, 2, dtype=torch.float64), (0.0, 1.0), n_steps=2, generator=0).lifted[-1]
    (slope,) = torch.autograd.grad(end.sum(), amplitude)
    assert slope.item() == pytest.approx(end.sum().item() / 2.0)


@pytest.mark.parametrize(
    ("drift", "diffusion", "message"),
    [
        (lambda t, x: x, lambda t, x: x, r"diffusion must be a function of the time alone, g\(t\)"),
        (lambda x: x, lambda t: 1.0, r"drift must be a function of the time and the angles, f\(t, theta\)"),
        (None, lambda t: 1.0, "drift must be a function of the time and the angles.*, got None"),
        (lambda t, x: x, "loud", "diffusion must be a function of the time alone.*, got 'loud'"),
    ],
)
def test_functions_of_other_arguments_are_refused(
    drift: object, diffusion: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # without the tests' check of types
    with pytest.raises(TypeError, match=message):
        SDE(drift, diffusion, 1.0)  # type: ignore[arg-type]


def test_the_default_variance_of_noise_that_explodes_is_exact_and_so_are_steps_that_read_it() -> None:
    """The variance-exploding schedule from 0.01 to 3: what ancestral steps rely on."""
    ratio = 300.0
    sde = SDE(lambda t, x: 0.0 * x, lambda t: 0.01 * ratio**t * math.sqrt(2 * math.log(ratio)), horizon=1.0)
    assert sde.variance(0.0, 1.0) == pytest.approx(1e-4 * (ratio**2 - 1.0), rel=1e-12)
    times = Chain.geometric(SDE(sde.drift, lambda t: 1.0 + 0.9 * math.sin(40.0 * t), horizon=1.0), 10, 0.1).times
    assert all(a < b for a, b in zip(times, times[1:], strict=False))


def test_variances_of_times_per_sample_are_those_of_each_time() -> None:
    for sde in (SDE(lambda t, x: 0.0 * x, lambda t: 1.0 + t, 1.0), kuramoto("none")):
        times = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
        found = torch.as_tensor(sde.variance(torch.zeros_like(times), times))
        assert found.tolist() == pytest.approx([float(sde.variance(0.0, t)) for t in times.tolist()], rel=1e-12)

"""The spectral law of one phase against closed forms, invariants, and independent discretisations."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from scipy.linalg import expm
from scipy.special import ive
from torch import Tensor

from circsde.exact.fokker_planck import CircleLaw, KuramotoLaw, fokker_planck, moments
from circsde.schedule import Custom, Linear, Schedule
from strategies import pulse

DOUBLED = Schedule.linear((0.0, 0.0045, 0.005), (0.0, 6.0, 5.0))
COUPLED = Schedule.linear((0.5, 0.1, 0.2), (6.0, 1.0, 0.8))


def wrapped_normal(mean: float, sd: float, modes: int = 80) -> np.ndarray:
    k = np.arange(modes + 1)
    return np.asarray(np.exp(1j * k * mean - 0.5 * (k * sd) ** 2))


def von_mises(mean: float, kappa: float, modes: int = 60) -> np.ndarray:
    k = np.arange(modes + 1)
    return np.asarray(ive(k, kappa) / ive(0, kappa) * np.exp(1j * k * mean))


def angles(points: int = 200) -> Tensor:
    return torch.linspace(-math.pi, math.pi, points, dtype=torch.float64)


def point(x: float) -> Tensor:
    return torch.tensor([x], dtype=torch.float64)


def distance(law: CircleLaw, t: float, expected: np.ndarray) -> float:
    return max(abs(law.moment(t, k) - complex(value)) for k, value in enumerate(expected))


def wrapped_normal_density(theta: Tensor, mean: float, sd: float) -> Tensor:
    turns = 2 * math.pi * torch.arange(-6.0, 7.0, dtype=torch.float64)
    kernel = torch.exp(-0.5 * ((theta[:, None] - mean + turns) / sd) ** 2)
    return kernel.sum(1) / (sd * math.sqrt(2 * math.pi))


def equation_residual(law: KuramotoLaw, t: float, frequency: float, diffusion: float) -> float:
    """The largest ``p_t + (f p)_theta - D p_theta_theta``: fourth-order differences in t, autograd in theta."""
    theta = angles(40).requires_grad_()
    h = 1e-3
    near, far = (law.density(t + i * h, theta) - law.density(t - i * h, theta) for i in (1, 2))
    p_t = (8 * near - far).detach() / (12 * h)
    p = law.density(t, theta)
    (slope,) = torch.autograd.grad(p.sum(), theta, create_graph=True)
    z = law.moment(t, 1) if law.mean_field else 0.0
    rates = law.schedule.at(t)
    pull = rates.coupling * (np.imag(z) * theta.cos() - np.real(z) * theta.sin())
    drift = frequency + pull + rates.reference * (law.reference_phase - theta).sin()
    (divergence,) = torch.autograd.grad((drift * p - diffusion * slope).sum(), theta)
    return float((p_t + divergence).abs().max())


@pytest.mark.parametrize("sd", [0.01, 0.4, 3.0])
def test_pure_diffusion_is_a_wrapped_normal(sd: float) -> None:
    schedule = Schedule.linear((0.0, 0.0, 0.1), (0.0, 0.0, 5.0))
    law = fokker_planck(schedule, wrapped_normal(2.0, sd, math.ceil(9 / sd)), modes=1000, mean_field=False)
    for t in (0.0, 0.003, 0.41, 1.0):
        spread = math.sqrt(sd**2 + 2 * schedule.diffusion.integral(0.0, t))
        assert distance(law, t, wrapped_normal(2.0, spread)) < 1e-13
        error = law.density(t, angles()) - wrapped_normal_density(angles(), 2.0, spread)
        assert error.abs().max() < 1e-12


@pytest.mark.parametrize("width", [1e-2, 1e-4])
def test_a_pulse_of_noise_is_seen_however_short_it_is(width: float) -> None:
    """Diffusion alone multiplies the first moment by ``exp(-integral of D)``."""
    still, noise = Linear(0.0, 0.0), pulse(width, 2.0, 0.37)
    law = fokker_planck(Schedule(still, still, noise), wrapped_normal(0.0, 0.5), mean_field=False)
    for t in (0.3, 0.37, 0.372, 1.0):
        assert abs(law.moment(t, 1)) == pytest.approx(math.exp(-0.125 - noise.integral(0.0, t)), abs=1e-12)


def test_a_pulse_of_attraction_and_a_jump_are_seen() -> None:
    """Without noise a wrapped Cauchy law stays one, and its moment moves by the Mobius map of the attraction."""
    still, z0 = Linear(0.0, 0.0), 0.3 * np.exp(1.0j)
    jump = Custom(lambda t: 0.2 if t < 0.37 else 1.2, lambda t: 0.2 * t + max(t - 0.37, 0.0))
    for rate in (pulse(1e-3, 1.0, 0.37), jump):
        schedule = Schedule(still, rate, still)
        law = fokker_planck(schedule, z0 ** np.arange(80), mean_field=False)
        half = math.tanh(0.5 * rate.integral(0.0, 1.0))  # r of the Mobius map z -> (z + r) / (1 + r z)
        assert law.moment(1.0, 1) == pytest.approx((z0 + half) / (1.0 + half * z0), abs=1e-11)


def test_low_densities_lose_relative_accuracy_as_documented() -> None:
    """The start has density 4e-14 opposite its mean; log-density and score are good to 1e-13 / p everywhere."""
    law = fokker_planck(DOUBLED, wrapped_normal(2.0, 0.4))
    theta = angles(500)
    exact = wrapped_normal_density(theta, 2.0, 0.4)
    assert ((law.density(0.0, theta) - exact).abs()).max() < 1e-14
    resolved = exact > 1e-12
    error = (law.log_prob(0.0, theta) - exact.log()).abs()
    assert (error * exact)[resolved].max() < 1e-13
    theta.requires_grad_()
    (score,) = torch.autograd.grad(wrapped_normal_density(theta, 2.0, 0.4).log().sum(), theta)
    assert ((law.score(0.0, theta) - score).abs() * exact)[resolved].max() < 1e-12


@pytest.mark.parametrize("kappa", [0.5, 3.0, 30.0])
def test_von_mises_stays_put_under_constant_rates(kappa: float) -> None:
    schedule = Schedule.constant(reference=1.5, diffusion=1.5 / kappa)
    law = fokker_planck(schedule, von_mises(0.7, kappa), reference_phase=0.7)
    assert distance(law, 1.0, von_mises(0.7, kappa)) < 1e-12
    off = fokker_planck(schedule, von_mises(0.7, 1.1 * kappa), reference_phase=0.7)
    assert distance(off, 1.0, von_mises(0.7, kappa)) > 1e-4


def test_self_consistent_von_mises_stays_put_in_the_mean_field_limit() -> None:
    kappa, K, D = 2.0, 3.0, 1.2
    r = float(ive(1, kappa) / ive(0, kappa))
    schedule = Schedule.constant(K, kappa * D - K * r, D, horizon=2.0)
    start = von_mises(-1.0, kappa)
    assert distance(fokker_planck(schedule, start, reference_phase=-1.0), 2.0, start) < 1e-12
    alone = fokker_planck(schedule, start, reference_phase=-1.0, mean_field=False)
    assert distance(alone, 2.0, start) > 0.1


def test_every_start_relaxes_to_the_von_mises_law() -> None:
    law = fokker_planck(Schedule.constant(reference=2.0, diffusion=1.0, horizon=18.0), wrapped_normal(2.9, 0.3))
    assert distance(law, 18.0, von_mises(0.0, 2.0)) < 1e-12


def test_rates_in_proportion_only_change_the_clock() -> None:
    """With K, K_ref and D all proportional to c(t), the law is that of constant rates at the time int c."""
    ramp = Schedule.linear((0.4, 0.2, 0.1), (8.0, 4.0, 2.0))
    constant = Schedule.constant(4.0, 2.0, 1.0, horizon=2.0)
    start = wrapped_normal(2.0, 0.5)
    fast, slow = fokker_planck(ramp, start), fokker_planck(constant, start)
    for t in (0.2, 0.63, 1.0):
        clock = Linear(0.1, 2.0).integral(0.0, t)
        assert max(abs(fast.moment(t, k) - slow.moment(clock, k)) for k in range(20)) < 1e-12


@pytest.mark.parametrize("frequency", [0.0, 4.0])
def test_moments_agree_with_a_matrix_exponential_on_a_grid(frequency: float) -> None:
    """Collocation on 65 points with the cotangent differentiation matrix (Trefethen 2000), stepped by ``expm``."""
    n, R, D, psi = 65, 3.0, 0.4, 0.5
    theta = 2 * math.pi * np.arange(n) / n
    gap = np.arange(n)[:, None] - np.arange(n)
    off = gap != 0
    d = np.zeros((n, n))
    d[off] = 0.5 * (-1.0) ** gap[off] / np.sin(math.pi * gap[off] / n)
    generator = -d @ np.diag(frequency + R * np.sin(psi - theta)) + D * d @ d
    k = np.arange(1, 40)
    start = (1 + 2 * (np.exp(1j * np.outer(theta, k)) @ wrapped_normal(2.0, 0.4)[k].conj()).real) / (2 * math.pi)
    p = expm(0.8 * generator) @ start
    schedule = Schedule.constant(reference=R, diffusion=D)
    law = fokker_planck(schedule, wrapped_normal(2.0, 0.4), reference_phase=psi, natural_frequency=frequency)
    assert max(abs(law.moment(0.8, m) - (p * np.exp(1j * m * theta)).sum() * 2 * math.pi / n) for m in range(8)) < 1e-11


@pytest.mark.parametrize("mean_field", [True, False])
@pytest.mark.parametrize("frequency", [0.0, -3.0])
def test_density_satisfies_the_fokker_planck_equation(mean_field: bool, frequency: float) -> None:
    law = fokker_planck(
        COUPLED, wrapped_normal(2.0, 0.5), reference_phase=0.3, natural_frequency=frequency, mean_field=mean_field
    )
    for t in (0.1, 0.57, 0.9):
        diffusion = COUPLED.at(t).diffusion
        assert equation_residual(law, t, frequency, diffusion) < 1e-8
        assert equation_residual(law, t, frequency, 1.01 * diffusion) > 1e-4
        assert equation_residual(law, t, frequency + 0.01, diffusion) > 1e-4


def test_natural_frequency_is_a_rotating_frame() -> None:
    schedule = Schedule.linear((1.0, 0.0, 0.1), (5.0, 0.0, 1.0))
    still, turning = (fokker_planck(schedule, wrapped_normal(2.0, 0.5), natural_frequency=w) for w in (0.0, 5.0))
    assert max(abs(turning.moment(0.7, k) - still.moment(0.7, k) * np.exp(3.5j * k)) for k in range(15)) < 1e-12


def test_rotating_the_start_and_the_reference_rotates_the_law() -> None:
    here, there = (
        fokker_planck(COUPLED, wrapped_normal(2.0 + turn, 0.5), reference_phase=0.3 + turn) for turn in (0.0, 1.1)
    )
    assert max(abs(there.moment(1.0, k) - here.moment(1.0, k) * np.exp(1.1j * k)) for k in range(15)) < 1e-12
    theta = angles()
    assert torch.allclose(there.score(0.6, theta + 1.1), here.score(0.6, theta), rtol=0, atol=1e-9)


def test_relative_entropy_to_equilibrium_falls() -> None:
    schedule = Schedule.constant(reference=2.0, diffusion=1.0)
    law = fokker_planck(schedule, wrapped_normal(2.0, 0.5))
    normaliser = math.log(2 * math.pi * ive(0, 2.0)) + 2.0

    def divergence(t: float) -> float:
        return -law.entropy(t) - 2.0 * law.moment(t, 1).real + normaliser

    values = [divergence(t) for t in np.linspace(0.0, 1.0, 21)]
    assert all(b < a for a, b in zip(values, values[1:], strict=False))
    assert 0 < values[-1] < 0.3 * values[0]


def test_free_energy_of_the_mean_field_falls() -> None:
    schedule = Schedule.constant(4.0, 0.5, 1.0)
    law = fokker_planck(schedule, wrapped_normal(2.0, 1.5))

    def free_energy(t: float) -> float:
        z = law.moment(t, 1)
        return -0.5 * 4.0 * abs(z) ** 2 - 0.5 * z.real - law.entropy(t)

    values = [free_energy(t) for t in np.linspace(0.0, 1.0, 21)]
    assert all(b < a for a, b in zip(values, values[1:], strict=False))


def test_entropy_of_known_laws() -> None:
    law = fokker_planck(Schedule.constant(diffusion=2.0, horizon=20.0), wrapped_normal(1.0, 0.1))
    assert law.entropy(0.0) == pytest.approx(0.5 * math.log(2 * math.pi * math.e * 0.01), abs=1e-11)
    assert law.entropy(20.0) == pytest.approx(math.log(2 * math.pi), abs=1e-12)
    kappa = 2.0
    still = fokker_planck(Schedule.constant(reference=2.0, diffusion=1.0), von_mises(0.0, kappa))
    assert still.entropy(0.5) == pytest.approx(float(stats.vonmises(kappa).entropy()), abs=1e-11)


def test_probability_is_conserved_and_positive() -> None:
    law = fokker_planck(DOUBLED, wrapped_normal(2.0, 0.4))
    for t in (0.0, 0.33, 1.0):
        assert law.moment(t, 0) == pytest.approx(1.0, abs=1e-15)
        total = quad(lambda x, t=t: law.density(t, point(x)).item(), -3, 2 * math.pi - 3)[0]
        assert total == pytest.approx(1.0, abs=1e-10)
    assert (law.density(0.5, angles()) > 0).all()


def test_score_is_the_gradient_of_the_log_density_and_is_differentiable() -> None:
    law = fokker_planck(DOUBLED, wrapped_normal(2.0, 0.4))
    theta = angles(50).requires_grad_()
    (gradient,) = torch.autograd.grad(law.log_prob(0.7, theta).sum(), theta)
    score = law.score(0.7, theta)
    assert torch.allclose(score, gradient, rtol=1e-9, atol=1e-9)
    (slope,) = torch.autograd.grad(score.sum(), theta)
    h = 1e-4
    difference = (law.score(0.7, theta + h) - law.score(0.7, theta - h)) / (2 * h)
    assert torch.allclose(slope, difference, rtol=1e-5, atol=1e-6)
    mapped = torch.func.vmap(torch.func.grad(lambda x: law.score(0.7, x[None])[0]))(theta.detach())
    assert torch.allclose(mapped, slope, rtol=1e-12)


def test_fields_follow_shape_and_dtype() -> None:
    law = fokker_planck(COUPLED, wrapped_normal(2.0, 0.5))
    theta = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0))
    for field in (law.score, law.drift, law.log_prob, law.density):
        value = field(torch.tensor(0.4, dtype=torch.float64), theta)
        assert value.shape == theta.shape
        assert value.dtype == torch.float32
        assert torch.allclose(value.double(), field(0.4, theta.double()), rtol=1e-6, atol=1e-6)
        assert torch.allclose(value, field(0.4, theta + 2 * math.pi), rtol=1e-3, atol=1e-4)


def test_drift_is_what_one_oscillator_feels() -> None:
    law = fokker_planck(COUPLED, wrapped_normal(2.0, 0.5), reference_phase=0.3, natural_frequency=0.2)
    theta, t = angles(30), 0.6
    K, K_ref, _ = COUPLED.at(t)
    p = [law.density(t, point(x)).item() for x in np.linspace(-math.pi, math.pi, 128, endpoint=False)]
    other = np.linspace(-math.pi, math.pi, 128, endpoint=False)
    mean = np.array([(np.array(p) * np.sin(other - x)).sum() * 2 * math.pi / 128 for x in theta.numpy()])
    expected = 0.2 + K * torch.from_numpy(mean) + K_ref * (0.3 - theta).sin()
    assert torch.allclose(law.drift(t, theta), expected, rtol=0, atol=1e-12)


def test_distribution_function_is_the_integral_of_the_density() -> None:
    law = fokker_planck(DOUBLED, wrapped_normal(2.0, 0.4))
    for x in (-math.pi, -1.0, 2.2, math.pi):
        expected = quad(lambda y: law.density(0.4, point(y)).item(), -math.pi, x, epsabs=1e-12)[0]
        assert law.cdf(0.4, point(x)).item() == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_samples_follow_the_law(t: float) -> None:
    """Kolmogorov-Smirnov at a false-alarm rate of 1e-3, seeded; the test must notice the law at another time."""
    law = fokker_planck(DOUBLED, wrapped_normal(2.0, 0.4))
    theta = law.sample(t, (4000,), torch.Generator().manual_seed(3))
    assert theta.min() >= -math.pi
    assert theta.max() < math.pi
    ordered = theta.sort().values
    assert stats.ks_1samp(law.cdf(t, ordered).numpy(), stats.uniform.cdf).pvalue > 1e-3
    assert stats.ks_1samp(law.cdf(0.5, ordered).numpy(), stats.uniform.cdf).pvalue < 1e-6


@dataclass(frozen=True)
class ScipyVonMises:
    loc: float
    kappa: float

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.from_numpy(stats.vonmises(self.kappa, loc=self.loc).logpdf(value.numpy()))


@pytest.mark.parametrize("kappa", [0.3, 4.0, 400.0])
def test_moments_of_a_density_are_exact(kappa: float) -> None:
    law = ScipyVonMises(1.2, kappa)
    values = moments(law)
    k = np.arange(len(values))
    assert np.abs(values - ive(k, kappa) / ive(0, kappa) * np.exp(1.2j * k)).max() < 1e-13
    start = fokker_planck(DOUBLED, law)
    assert torch.allclose(start.density(0.0, angles()), law.log_prob(angles()).exp(), rtol=0, atol=1e-12)


def test_solution_does_not_depend_on_how_many_modes_there_may_be() -> None:
    few, many = (fokker_planck(DOUBLED, wrapped_normal(2.0, 0.4), modes=modes) for modes in (26, 400))
    assert max(abs(few.moment(1.0, k) - many.moment(1.0, k)) for k in range(10)) < 1e-12


def test_unresolved_laws_are_refused() -> None:
    with pytest.raises(ValueError, match=r"8 modes do not resolve the law at t = 0: .* 6.0e-03"):
        fokker_planck(DOUBLED, wrapped_normal(2.0, 0.4), modes=8)
    narrowing = Schedule.constant(reference=50.0, diffusion=0.1)
    with pytest.raises(ValueError, match="give more modes"):
        fokker_planck(narrowing, wrapped_normal(0.0, 1.0), modes=40)


def test_start_must_be_normalised() -> None:
    with pytest.raises(ValueError, match=r"expected moments m_0 = 1, .* got m_0 = 2"):
        fokker_planck(DOUBLED, np.array([2.0, 0.5]))


def test_times_outside_the_horizon_are_refused() -> None:
    law = fokker_planck(COUPLED, wrapped_normal(2.0, 0.5))
    with pytest.raises(ValueError, match=r"known on \[0, 1\], got t = 1.2"):
        law.score(1.2, angles())
    assert law.moment(1.0 + 1e-12, 1) == law.moment(1.0, 1)


def test_a_horizon_that_float32_rounds_up_is_within_the_horizon() -> None:
    law = fokker_planck(Schedule.constant(reference=1.0, horizon=0.1), wrapped_normal(0.0, 0.5), mean_field=False)
    assert law.moment(torch.tensor(0.1), 1) == law.moment(0.1, 1)

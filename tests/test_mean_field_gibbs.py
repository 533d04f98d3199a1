"""The exact equilibrium of n coupled oscillators, against quadrature, identities of its dynamics, and its own draws."""

import math
from itertools import pairwise

import mpmath
import pytest
import torch
from scipy import stats

from circsde.laws.distributions import VonMises, self_consistent_concentration
from circsde.laws.gibbs import MeanFieldGibbs
from circsde.laws.special import bessel_ratio
from circsde.torus import order_parameter, wrap

RATES = [(0.0, 0.0, 1.0), (0.0, 2.0, 1.0), (1e-6, 1.0, 1.0), (2.0, 0.0, 1.0), (3.0, 7.0, 0.5), (20.0, 0.1, 1.0)]
PHASE = 0.7


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def torus_grid(n: int, points: int) -> tuple[torch.Tensor, float]:
    """All points of a periodic grid on the n-torus, shape ``(points^n, n)``, and the volume of a cell."""
    axis = -math.pi + 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
    return torch.cartesian_prod(*[axis] * n).reshape(-1, n), (2 * math.pi / points) ** n


def potential(theta: torch.Tensor, coupling: float, reference: float, phase: float = PHASE) -> torch.Tensor:
    """U of eq. (3), by its double sum."""
    pairs = (theta.unsqueeze(-1) - theta.unsqueeze(-2)).cos().sum((-1, -2))
    return -coupling / (2 * theta.shape[-1]) * pairs - reference * (theta - phase).cos().sum(-1)


def drift(theta: torch.Tensor, coupling: float, reference: float, phase: float = PHASE) -> torch.Tensor:
    """The drift of eq. (1), by its double sum."""
    return coupling * (theta.unsqueeze(-2) - theta.unsqueeze(-1)).sin().mean(-1) + reference * (phase - theta).sin()


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize(("n", "points"), [(1, 200), (2, 200), (3, 60)])
def test_density_and_moments_agree_with_quadrature_on_the_torus(n: int, points: int, rates: tuple[float, ...]) -> None:
    coupling, reference, diffusion = rates
    law = MeanFieldGibbs(n, coupling, reference, diffusion, PHASE)
    theta, cell = torus_grid(n, points)  # the trapezoid rule is spectrally accurate
    boltzmann = -potential(theta, coupling, reference) / diffusion
    log_partition = boltzmann.logsumexp(0) + math.log(cell)
    assert law.log_partition.item() == pytest.approx(log_partition.item(), rel=1e-12, abs=1e-12)
    torch.testing.assert_close(law.log_prob(theta), boltzmann - log_partition, rtol=1e-12, atol=1e-12)

    p, tolerance = (boltzmann - log_partition).exp() * cell, pytest.approx
    R, _ = order_parameter(theta, -1)
    assert law.mean_resultant_length.item() == tolerance((p * (theta[:, 0] - PHASE).cos()).sum().item(), abs=1e-12)
    assert law.mean_square_order_parameter.item() == tolerance((p * R.square()).sum().item(), abs=1e-12)
    assert law.entropy().item() == tolerance(-(p * (boltzmann - log_partition)).sum().item(), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "a", "b"), [(50, 2.0, 0.0), (1000, 5.0, 0.3), (1000, 1.5, 1e-3), (100_000, 2.2, 0.0), (100_000, 200.0, 3.0)]
)
def test_the_partition_function_is_accurate_for_many_oscillators(n: int, a: float, b: float) -> None:
    with mpmath.workdps(30):
        kappa = max(self_consistent_concentration(a, b, 1.0), 1e-3)
        width = 12 * (math.sqrt(a / n) if kappa > 0.1 else (64 / n) ** 0.25 + math.sqrt(a / n))

        def exponent(v: mpmath.mpf) -> mpmath.mpf:
            bessel = n * mpmath.log(2 * mpmath.pi * mpmath.besseli(0, v)) + mpmath.log(mpmath.besseli(0, n * b * v / a))
            return mpmath.log(v) - n * (v**2 + mpmath.mpf(b) ** 2) / (2 * mpmath.mpf(a)) + bessel

        peak, low = exponent(mpmath.mpf(kappa)), max(kappa - 3 * width, 0.0)
        nodes = mpmath.linspace(low, kappa + 3 * width, 13)
        integral = mpmath.quad(lambda v: mpmath.exp(exponent(v) - peak) if v > 0 else mpmath.mpf(0), nodes, maxdegree=5)
        expected = mpmath.log(n / mpmath.mpf(a)) + peak + mpmath.log(integral)
        assert abs(MeanFieldGibbs(n, a, b, 1.0).log_partition.item() / expected - 1) < 1e-13


def test_without_coupling_the_oscillators_are_independent_von_mises() -> None:
    law, one = MeanFieldGibbs(7, 0.0, 3.0, 1.5, PHASE), VonMises(PHASE, 2.0)
    theta = one.sample((100, 7), generator=generator())
    torch.testing.assert_close(law.log_prob(theta), one.log_prob(theta).sum(-1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(law.score(theta), one.score(theta), rtol=1e-12, atol=1e-12)
    assert law.mean_resultant_length.item() == pytest.approx(one.mean_resultant_length.item(), rel=1e-12)
    draws = law.sample((20_000,), generator=generator())
    assert stats.kstest(wrap(draws - PHASE).flatten(), stats.vonmises(2.0).cdf).pvalue > 1e-4  # false alarm rate 1e-4
    products = ((draws[:, 0] - PHASE).sin() * (draws[:, 1] - PHASE).sin()).numpy()
    assert stats.ttest_1samp(products, 0.0).pvalue > 1e-4  # false alarm rate 1e-4


def test_without_a_reference_the_law_is_invariant_under_rotations() -> None:
    law = MeanFieldGibbs(5, 6.0, 0.0, 1.0, PHASE)
    theta = law.sample((4000,), generator=generator())
    torch.testing.assert_close(law.log_prob(theta + 1.234), law.log_prob(theta), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(law.score(theta).sum(-1), torch.zeros(4000, dtype=torch.float64), rtol=0.0, atol=1e-12)
    assert law.mean_resultant_length.item() == 0.0
    _, psi = order_parameter(theta, -1)
    assert stats.kstest(psi, stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-4  # false alarm rate 1e-4


def test_the_score_is_the_gradient_of_the_log_density_and_the_drift_over_the_diffusion() -> None:
    law = MeanFieldGibbs(9, 4.0, 1.0, 0.8, PHASE)
    theta = law.sample((20,), generator=generator()).requires_grad_()
    (gradient,) = torch.autograd.grad(law.log_prob(theta).sum(), theta)
    torch.testing.assert_close(law.score(theta), gradient, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(law.score(theta).detach(), drift(theta.detach(), 4.0, 1.0) / 0.8, rtol=1e-12, atol=1e-12)


def dirichlet_mismatch(law: MeanFieldGibbs, coupling: float, reference: float, diffusion: float) -> float:
    """``E[u L v] + D E[grad u . grad v]`` on the 2-torus, L the generator of eq. (1): zero for its reversible law."""
    grid, cell = torus_grid(2, 120)
    x, y = grid.unbind(-1)
    u, grad_u = x.sin() + (x - y).cos(), torch.stack([x.cos() - (x - y).sin(), (x - y).sin()], -1)
    v, grad_v = (x - 2 * y).cos(), torch.stack([-(x - 2 * y).sin(), 2 * (x - 2 * y).sin()], -1)
    generator_v = (drift(grid, coupling, reference) * grad_v).sum(-1) - 5 * diffusion * v
    p = law.log_prob(grid).exp() * cell
    return (p * (u * generator_v + diffusion * (grad_u * grad_v).sum(-1))).sum().item()


def test_the_law_is_reversible_for_the_dynamics_and_no_other_temperature_is() -> None:
    rates = (3.0, 1.0, 0.9)
    assert abs(dirichlet_mismatch(MeanFieldGibbs(2, *rates, PHASE), *rates)) < 1e-12
    assert abs(dirichlet_mismatch(MeanFieldGibbs(2, 3.0, 1.0, 1.0, PHASE), *rates)) > 1e-3


def test_derivatives_of_log_z_are_the_moments() -> None:
    coupling, reference = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (3.0, 0.2))
    law = MeanFieldGibbs(40, coupling, reference, 1.0)
    by_coupling, by_reference = torch.autograd.grad(law.log_partition, (coupling, reference))
    assert by_coupling.item() == pytest.approx(0.5 * 40 * law.mean_square_order_parameter.item(), rel=1e-11)
    assert by_reference.item() == pytest.approx(40 * law.mean_resultant_length.item(), rel=1e-11)


@pytest.mark.parametrize("coupling", [0.0, 2.0, 60.0])
def test_draws_of_two_oscillators_follow_the_density_cell_by_cell(coupling: float) -> None:
    law = MeanFieldGibbs(2, coupling, 0.3, 1.0, PHASE)  # from independence to a narrow ridge
    fine, cell = torus_grid(2, 240)
    expected = (law.log_prob(fine).exp() * cell).reshape(240, 240)
    draws = law.sample((50_000,), generator=generator())
    index = ((draws + math.pi) / (2 * math.pi) * 240 + 0.5).long() % 240  # fine grid points are centres of cells
    observed = torch.zeros(240, 240, dtype=torch.float64).index_put_(
        (index[:, 0], index[:, 1]), torch.ones(50_000, dtype=torch.float64), accumulate=True
    )
    coarse = [x.reshape(24, 10, 24, 10).sum((1, 3)).flatten() for x in (expected * 50_000, observed)]
    common = coarse[0] > 8
    e, o = (torch.cat([x[common], x[~common].sum().unsqueeze(0)]) for x in coarse)
    e, o = e[e > 8], o[e > 8]
    assert stats.chisquare(o, e * o.sum() / e.sum()).pvalue > 1e-4  # false alarm rate 1e-4


@pytest.mark.parametrize(
    ("n", "coupling", "reference"), [(50, 2.0, 0.0), (50, 2.2, 0.02), (20, 100.0, 0.0), (300, 3.0, 0.1)]
)
def test_moments_of_draws_are_the_exact_ones(n: int, coupling: float, reference: float) -> None:
    law = MeanFieldGibbs(n, coupling, reference, 1.0, PHASE)
    draws = law.sample((4000,), generator=generator(1))
    R, psi = order_parameter(draws, -1)
    cosine = R * (psi - PHASE).cos()
    # three t-tests, each with a false alarm rate of 1e-4
    assert stats.ttest_1samp(R.square(), law.mean_square_order_parameter.item()).pvalue > 1e-4
    assert stats.ttest_1samp(cosine, law.mean_resultant_length.item()).pvalue > 1e-4
    assert stats.ttest_1samp(-law.log_prob(draws), law.entropy().item()).pvalue > 1e-4


def test_draws_average_the_generator_of_any_observable_to_zero() -> None:
    coupling, reference, diffusion, n = 3.0, 0.5, 1.0, 30
    theta = MeanFieldGibbs(n, coupling, reference, diffusion, PHASE).sample((20_000,), generator=generator(2))
    f = coupling * order_drift(theta) + reference * (PHASE - theta).sin()
    for k in (1, 2):  # u = mean_i cos(k theta_i), and L u = f . grad u + D laplacian u
        generator_u = (-k * (k * theta).sin() * f - diffusion * k**2 * (k * theta).cos()).mean(-1)
        assert stats.ttest_1samp(generator_u, 0.0).pvalue > 1e-4  # false alarm rate 1e-4
        hotter = (-k * (k * theta).sin() * f - 1.05 * diffusion * k**2 * (k * theta).cos()).mean(-1)
        assert stats.ttest_1samp(hotter, 0.0).pvalue < 1e-4


def order_drift(theta: torch.Tensor) -> torch.Tensor:
    R, psi = order_parameter(theta, -1)
    return R.unsqueeze(-1) * (psi.unsqueeze(-1) - theta).sin()


def test_the_law_of_many_oscillators_approaches_the_self_consistent_one_like_one_over_n() -> None:
    kappa = torch.tensor(self_consistent_concentration(3.0, 0.5, 1.0), dtype=torch.float64)
    gaps = [
        bessel_ratio(kappa).item() - MeanFieldGibbs(n, 3.0, 0.5, 1.0).mean_resultant_length.item()
        for n in (100, 1000, 10_000, 100_000)
    ]
    for larger, smaller in pairwise(gaps):
        assert larger / smaller == pytest.approx(10.0, rel=0.05)


def test_batches_of_rates_shapes_and_dtypes() -> None:
    coupling, reference = torch.tensor([[0.0], [3.0]]), torch.tensor([0.0, 0.5, 2.0])
    law = MeanFieldGibbs(4, coupling, reference, 1.0, PHASE)
    assert (law.batch_shape, law.event_shape) == ((2, 3), (4,))
    draws = law.sample((10,), generator=generator())
    assert (draws.shape, draws.dtype) == ((10, 2, 3, 4), torch.float32)
    assert bool(((draws >= -math.pi) & (draws < torch.tensor(math.pi))).all())
    assert torch.equal(draws, law.sample((10,), generator=generator()))
    assert law.log_prob(draws).shape == (10, 2, 3)
    assert law.score(draws).shape == draws.shape
    assert law.entropy().shape == law.mean_resultant_length.shape == (2, 3)
    one = MeanFieldGibbs(4, 3.0, 2.0, 1.0, PHASE)
    torch.testing.assert_close(law.log_prob(draws)[:, 1, 2], one.log_prob(draws[:, 1, 2]), rtol=1e-6, atol=1e-6)
    assert one.sample(generator=generator()).shape == (4,)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((0, 1.0, 1.0, 1.0), "number of oscillators must be at least 1, got 0"),
        ((3, -1.0, 1.0, 1.0), "Expected parameter coupling"),
        ((3, 1.0, -1.0, 1.0), "Expected parameter reference"),
        ((3, math.inf, 1.0, 1.0), "Expected parameter coupling"),
        ((3, 1.0, math.inf, 1.0), "Expected parameter reference"),
        ((3, 1.0, 1.0, 0.0), "Expected parameter diffusion"),
        ((3, 1.0, 1.0, 1.0, math.nan), "Expected parameter phase"),
    ],
)
def test_rates_out_of_range_are_refused_by_name(rates: tuple[int, float, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MeanFieldGibbs(*rates)


def test_states_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="right-most size"):
        MeanFieldGibbs(3, 1.0, 1.0, 1.0).log_prob(torch.zeros(4))

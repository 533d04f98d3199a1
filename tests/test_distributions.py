"""The wrapped normal and the von Mises law against mpmath in high precision, and their draws against scipy."""

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from circsde.laws.distributions import VonMises, WrappedNormal
from circsde.laws.gibbs import MeanFieldGibbs
from circsde.laws.special import concentration_from_length

SCALES = [1e-4, 1e-2, 0.1, 0.3, 0.353, 0.354, 1.0, 2.0, 2.5066, 2.5067, 3.0, 5.0, 10.0, 50.0]  # sqrt(2 pi) = 2.50663
OFFSETS = [0.0, 1e-25, 1e-17, 1e-12, 1e-8, 1e-5, 1e-4, 1e-3, 0.1, 0.7, math.pi / 2, 2.5, 3.0, 3.1, 3.1415, 3.14159265]
CONCENTRATIONS = [0.0, 1e-300, 1e-8, 1e-3, 0.5, 2.0, 10.0, 29.999, 30.0, 31.0, 100.0, 1e3, 1e6]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def wrapped_normal(theta: float, scale: float) -> tuple[mpmath.mpf, mpmath.mpf]:
    """(log p, d log p / d theta) of the wrapped normal about 0: the defining sum, or its Fourier series if wide."""
    with mpmath.workdps(50):
        x, s = mpmath.mpf(theta), mpmath.mpf(scale) ** 2
        if scale < 3:
            points = [x + 2 * mpmath.pi * k for k in range(-8, 9)]
            weights = [mpmath.exp(-(y**2) / (2 * s)) for y in points]
            density = mpmath.fsum(weights) / mpmath.sqrt(2 * mpmath.pi * s)
            score = -mpmath.fsum(y * w for y, w in zip(points, weights, strict=True)) / s / mpmath.fsum(weights)
        else:
            modes = [(k, mpmath.exp(-s * k**2 / 2)) for k in range(1, 9)]
            series = 1 + 2 * mpmath.fsum(q * mpmath.cos(k * x) for k, q in modes)
            density = series / (2 * mpmath.pi)
            score = -2 * mpmath.fsum(k * q * mpmath.sin(k * x) for k, q in modes) / series
        return +mpmath.log(density), +score


def log_i0(kappa: float) -> mpmath.mpf:
    return mpmath.log(mpmath.besseli(0, mpmath.mpf(kappa)))


def ratio(kappa: float) -> mpmath.mpf:
    return mpmath.besseli(1, mpmath.mpf(kappa)) / mpmath.besseli(0, mpmath.mpf(kappa))


def close(actual: float, expected: mpmath.mpf, relative: float = 1e-10, absolute: float = 0.0) -> bool:
    return bool(abs(mpmath.mpf(actual) - expected) <= relative * abs(expected) + absolute)


# The wrapped normal


@pytest.mark.parametrize("scale", SCALES)
def test_the_wrapped_normal_is_accurate_to_1e_10_in_float64(scale: float) -> None:
    theta = double(*OFFSETS, *(-x for x in OFFSETS))
    law = WrappedNormal(0.0, scale)
    for x, log_prob, score in zip(theta.tolist(), law.log_prob(theta).tolist(), law.score(theta).tolist(), strict=True):
        expected_log_prob, expected_score = wrapped_normal(x, scale)
        assert close(log_prob, expected_log_prob, absolute=1e-14)  # it crosses zero
        one_rounding_of_the_angle = abs(wrapped_normal(math.nextafter(x, 4.0), scale)[1] - expected_score)
        assert close(score, expected_score, absolute=float(2 * one_rounding_of_the_angle) + 1e-200), x


@pytest.mark.parametrize("scale", SCALES)
def test_the_wrapped_normal_is_accurate_to_1e_4_in_float32(scale: float) -> None:
    theta = torch.cat([torch.linspace(-math.pi, math.pi, 23), torch.tensor([1e-6, 3.14159, -3.1415])])
    narrow = torch.tensor(scale)
    log_probs, scores = WrappedNormal(0.0, narrow).log_prob(theta), WrappedNormal(0.0, narrow).score(theta)
    assert log_probs.dtype == scores.dtype == torch.float32
    for x, log_prob, score in zip(theta.tolist(), log_probs.tolist(), scores.tolist(), strict=True):
        expected_log_prob, expected_score = wrapped_normal(x, narrow.item())
        assert close(log_prob, expected_log_prob, relative=1e-4)
        assert close(score, expected_score, relative=1e-4, absolute=1e-37), x


def test_the_two_series_of_the_oracle_agree() -> None:
    for x in (0.3, 3.0):
        direct, fourier = wrapped_normal(x, 2.9999999), wrapped_normal(x, 3.0000001)
        assert all(abs(a - b) < 1e-6 for a, b in zip(direct, fourier, strict=True))


def test_any_representative_of_an_angle_will_do() -> None:
    theta, turns = double(-3.0, -0.5, 0.2, 3.1), 2 * math.pi * double(-3, 1, 7, 40)
    for law in (WrappedNormal(1.0, 0.4), WrappedNormal(1.0, 4.0), VonMises(1.0, 3.0)):
        torch.testing.assert_close(law.log_prob(theta + turns), law.log_prob(theta), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(law.score(theta + turns), law.score(theta), rtol=1e-11, atol=1e-11)


def test_densities_integrate_to_one() -> None:
    grid = torch.arange(4096, dtype=torch.float64) * (2 * math.pi / 4096) - math.pi
    for law in (*(WrappedNormal(0.3, s) for s in (0.02, 1.0, 2.51, 9.0)), *(VonMises(0.3, k) for k in (0.0, 5.0, 2e3))):
        assert law.log_prob(grid).exp().mean().item() * 2 * math.pi == pytest.approx(1.0, abs=1e-13)


@pytest.mark.parametrize("scale", SCALES)
def test_the_entropy_and_resultant_length_of_the_wrapped_normal_are_accurate(scale: float) -> None:
    law = WrappedNormal(0.0, double(scale))
    assert close(law.mean_resultant_length.item(), mpmath.exp(-(mpmath.mpf(scale) ** 2) / 2), absolute=1e-320)
    width, points = min(math.pi, 12 * scale), 400 if scale < 1 else 128  # the trapezoid rule is spectrally accurate
    grid = [-width + 2 * width * i / points for i in range(points)]
    log_density = [wrapped_normal(x, scale)[0] for x in grid]
    entropy = -2 * width / points * mpmath.fsum(mpmath.exp(value) * value for value in log_density)
    assert close(law.entropy().item(), entropy, absolute=1e-13)


def test_the_laws_are_differentiable_to_second_order_across_every_switch() -> None:
    theta = double(-3.1, -1.0, 0.0, 0.4, 3.0).unsqueeze(-1).requires_grad_()
    loc = double(0.0).requires_grad_()
    scale = double(0.2, 1.0, 2.5, 2.6, 4.0).requires_grad_()
    kappa = double(0.01, 1.0, 29.0, 31.0, 200.0).requires_grad_()
    laws: tuple[tuple[Callable[[Tensor, Tensor], WrappedNormal | VonMises], Tensor], ...]
    laws = (WrappedNormal, scale), (VonMises, kappa)
    for law, width in laws:
        for method in ("log_prob", "score"):

            def value(x: Tensor, m: Tensor, w: Tensor, law: Any = law, method: str = method) -> Tensor:
                at: Tensor = getattr(law(m, w), method)(x)
                return at

            assert torch.autograd.gradcheck(value, (theta, loc, width))
            assert torch.autograd.gradgradcheck(value, (theta, loc, width))
        assert torch.autograd.gradcheck(lambda w: law(torch.zeros(()).double(), w).entropy(), width)  # noqa: B023
    assert torch.autograd.gradcheck(lambda k: kl_divergence(VonMises(0.0, k), VonMises(1.0, k.flip(0))), kappa)
    assert torch.autograd.gradcheck(concentration_from_length, double(0.01, 0.4, 0.6, 0.99).requires_grad_())


def test_the_score_is_the_derivative_of_the_log_density() -> None:
    theta = torch.linspace(-3.1, 3.1, 40, dtype=torch.float64).unsqueeze(-1).requires_grad_()
    for law in (WrappedNormal(0.5, double(0.1, 1.0, 2.5, 2.6, 5.0)), VonMises(0.5, double(0.0, 1.0, 40.0, 1e6))):
        (gradient,) = torch.autograd.grad(law.log_prob(theta.expand(-1, *law.batch_shape)).sum(), theta)
        torch.testing.assert_close(law.score(theta).sum(-1, keepdim=True), gradient, rtol=1e-11, atol=1e-11)


def test_no_gradient_is_nan_at_any_scale() -> None:
    scale = torch.logspace(-6, 3, 40).requires_grad_()
    theta = torch.linspace(-math.pi, math.pi, 31).unsqueeze(-1).requires_grad_()
    for method in ("log_prob", "score"):
        value = getattr(WrappedNormal(0.0, scale), method)(theta)
        assert value.isfinite().all()
        assert all(g.isfinite().all() for g in torch.autograd.grad(value.double().mul(1e-12).sum(), (theta, scale)))
    kappa = torch.tensor([0.0, 1e-30, 1e-8, 1.0, 1e6, 1e30], requires_grad=True)
    value = VonMises(0.0, kappa).log_prob(theta)
    assert value.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(value.mul(1e-30).sum(), (theta, kappa)))


# The von Mises law


@pytest.mark.parametrize("kappa", CONCENTRATIONS)
def test_the_von_mises_law_is_accurate_to_1e_10_in_float64(kappa: float) -> None:
    law = VonMises(0.0, double(kappa))
    with mpmath.workdps(40):
        A = ratio(kappa)
        assert close(law.mean_resultant_length.item(), A, absolute=1e-320)
        assert close(law.entropy().item(), mpmath.log(2 * mpmath.pi) + log_i0(kappa) - kappa * A)
        for x in (*OFFSETS, -2.0):
            k, log_prob, score = mpmath.mpf(kappa), law.log_prob(double(x)).item(), law.score(double(x)).item()
            expected = k * mpmath.cos(mpmath.mpf(x)) - log_i0(kappa) - mpmath.log(2 * mpmath.pi)
            assert close(log_prob, expected, absolute=1e-14)
            assert close(score, -k * mpmath.sin(mpmath.mpf(x)), absolute=1e-320)


@pytest.mark.parametrize("kappa", CONCENTRATIONS)
def test_the_von_mises_law_is_accurate_to_1e_4_in_float32(kappa: float) -> None:
    single = torch.tensor(kappa)
    law, k = VonMises(torch.tensor(0.5), single), mpmath.mpf(single.item())
    theta = torch.linspace(-math.pi, math.pi, 23)
    assert law.entropy().dtype == law.log_prob(theta).dtype == torch.float32
    with mpmath.workdps(40):
        for x, log_prob, score in zip(
            theta.tolist(), law.log_prob(theta).tolist(), law.score(theta).tolist(), strict=True
        ):
            assert close(log_prob, k * mpmath.cos(mpmath.mpf(x) - 0.5) - log_i0(k) - mpmath.log(2 * mpmath.pi), 1e-4)
            assert close(score, -k * mpmath.sin(mpmath.mpf(x) - 0.5), 1e-4)
        assert close(law.entropy().item(), mpmath.log(2 * mpmath.pi) + log_i0(k) - k * ratio(k), 1e-4)


@pytest.mark.parametrize("q", [*CONCENTRATIONS, 1.0000001, 1e6 + 1e-3])
@pytest.mark.parametrize("p", [0.0, 1e-8, 1.0, 50.0, 1e6])
def test_the_kullback_leibler_divergence_is_relatively_accurate_however_close_the_laws(p: float, q: float) -> None:
    with mpmath.workdps(60):
        for shift in (0.0, 1e-6, 2.0):
            kl = kl_divergence(VonMises(0.0, p), VonMises(shift, q)).item()
            P, Q = mpmath.mpf(p), mpmath.mpf(q)
            expected = log_i0(q) - log_i0(p) + ratio(p) * (P - Q * mpmath.cos(mpmath.mpf(shift)))
            assert kl >= 0
            assert close(kl, expected, absolute=1e-300)


def test_fitting_recovers_the_law_that_was_drawn_from() -> None:
    law = VonMises.fit(VonMises(2.0, 4.0).sample((40_000,), generator=generator()))
    assert law.loc.item() == pytest.approx(
        2.0, abs=4 / math.sqrt(40_000 * 4.0 * 0.86)
    )  # 4 standard errors: 1 in 16,000
    assert law.concentration.item() == pytest.approx(
        4.0, abs=4 / math.sqrt(40_000 * 0.0396)
    )  # Fisher information A'(4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("spread", [1e-5, 1e-4, 1e-3, 0.3])
def test_a_fit_is_accurate_however_close_together_the_angles(spread: float, dtype: torch.dtype) -> None:
    """``1 - R`` of the angles as they are stored, in 50 digits, and four terms of ``1 - A`` where kappa is large."""
    theta = (0.3 + spread * torch.randn(200, generator=generator(), dtype=torch.float64)).to(dtype)
    law = VonMises.fit(theta)
    with mpmath.workdps(50):
        points = [mpmath.expjpi(mpmath.mpf(x) / mpmath.pi) for x in theta.tolist()]
        variance = 1 - abs(mpmath.fsum(points)) / len(points)

        def complement(k: mpmath.mpf) -> mpmath.mpf:
            series = 1 / (2 * k) + 1 / (8 * k**2) + 1 / (8 * k**3) + 25 / (128 * k**4)
            return series if spread < 0.01 else 1 - ratio(k)

        kappa = mpmath.findroot(lambda k: complement(k) / variance - 1, 1 / (2 * variance))
    assert close(law.concentration.item(), kappa, relative=1e-12 + torch.finfo(dtype).eps)
    assert law.loc.item() == pytest.approx(float(mpmath.arg(mpmath.fsum(points))), abs=torch.finfo(dtype).eps)


def test_a_fit_to_one_point_or_to_what_is_no_number_is_refused() -> None:
    for point in (torch.full((7,), 0.3), torch.full((7,), 1e4 + 0.1, dtype=torch.float64)):
        with pytest.raises(ValueError, match="a variance of 0 is a point mass"):
            VonMises.fit(point)
    with pytest.raises(ValueError, match="fitted to must be finite, but 1 of 2"):
        VonMises.fit(torch.tensor([0.0, math.nan]))


def test_a_fit_of_half_precision_holds_any_concentration() -> None:
    law = VonMises.fit(torch.tensor([0.001, -0.001], dtype=torch.float16))
    assert law.concentration.dtype == torch.float32
    assert law.concentration.item() == pytest.approx(1e6, rel=1e-3)  # 0.001 rounded to float16


# Draws: every seed is fixed; the stated rate is that of failing with a fresh one


@pytest.mark.parametrize("kappa", [0.0, 1e-300, 1e-8, 1.0, 30.0, 1e3, 1e6])
def test_von_mises_draws_follow_the_law(kappa: float) -> None:
    theta = VonMises(0.0, kappa).sample((400_000,), generator=generator()).numpy()
    cdf = stats.vonmises(kappa).cdf if kappa > 1e-6 else stats.uniform(-math.pi, 2 * math.pi).cdf
    assert stats.kstest(theta, cdf).pvalue > 1e-4  # false alarm rate 1e-4


@pytest.mark.parametrize("scale", [1e-4, 0.5, 2.0, 10.0])
def test_wrapped_normal_draws_follow_the_law(scale: float) -> None:
    theta = WrappedNormal(2.5, scale).sample((50_000,), generator=generator()).numpy()
    turns = 2 * math.pi * np.arange(-30, 31)[:, None]

    normal = stats.norm(2.5, scale)
    probability = (normal.cdf(theta + turns) - normal.cdf(-math.pi + turns)).sum(0)
    assert stats.kstest(probability, "uniform").pvalue > 1e-4  # false alarm rate 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [WrappedNormal, VonMises])
def test_draws_lie_on_the_half_open_circle_and_obey_their_generator(kind: type[VonMises], dtype: torch.dtype) -> None:
    law = kind(torch.tensor([3.1, -math.pi, 1e4], dtype=dtype), torch.tensor([[0.01], [50.0]], dtype=dtype))
    draws = law.sample((500,), generator=generator(3))
    assert draws.shape == (500, 2, 3)
    assert draws.dtype == dtype
    assert bool(((draws >= -torch.tensor(math.pi, dtype=dtype)) & (draws < torch.tensor(math.pi, dtype=dtype))).all())
    assert torch.equal(draws, law.sample((500,), generator=generator(3)))
    assert not torch.equal(draws, law.sample((500,), generator=generator(4)))


def test_a_nan_concentration_ends_the_rejection_loop() -> None:
    law = VonMises(torch.tensor([0.0, 0.0]), torch.tensor([math.nan, 1.0]), validate_args=False)
    assert law.sample(generator=generator()).isnan().tolist() == [True, False]


def test_wrapped_normal_draws_are_differentiable() -> None:
    loc, scale = double(3.0).requires_grad_(), double(0.5).requires_grad_()
    draws = WrappedNormal(loc, scale).rsample((1000,), generator=generator())
    noise = torch.randn(1000, 1, generator=generator(), dtype=torch.float64)
    gradient = torch.autograd.grad(draws.sum(), (loc, scale))
    torch.testing.assert_close(gradient, (double(1000.0), noise.sum(0)))


# The torch.distributions protocol


def test_parameters_broadcast_and_dtypes_follow_the_inputs() -> None:
    law = WrappedNormal(torch.zeros(4, 1, 3), torch.ones(5, 1))
    assert (law.batch_shape, law.event_shape) == ((4, 5, 3), ())
    assert law.log_prob(torch.zeros(2, 4, 5, 3)).shape == law.score(torch.zeros(2, 4, 5, 3)).shape == (2, 4, 5, 3)
    assert law.entropy().shape == law.mean_resultant_length.shape == law.sample().shape == (4, 5, 3)
    assert VonMises(torch.zeros(3), 2.0).sample().dtype == torch.float32
    assert VonMises(torch.zeros(3), torch.tensor(2.0, dtype=torch.float64)).score(torch.ones(3)).dtype == torch.float32
    assert VonMises(0.0, 0.1).log_prob(torch.ones(3)).dtype == torch.float32
    assert VonMises(0.0, 0.1).concentration.item() == 0.1
    joint = Independent(VonMises(torch.zeros(7, 3), 1.0), 1)
    assert (joint.batch_shape, joint.event_shape) == ((7,), (3,))


def test_integer_parameters_are_exact_numbers() -> None:
    loc, two = torch.tensor(0), torch.tensor(2)
    with mpmath.workdps(30):
        entropy = mpmath.log(2 * mpmath.pi) + log_i0(2.0) - 2 * ratio(2.0)
    assert close(VonMises(loc, two).entropy().item(), entropy)
    assert close(VonMises(loc, two).mean_resultant_length.item(), ratio(2.0))
    rows = VonMises(torch.tensor([0, 0]), torch.tensor([2, 3]))
    assert close(rows.mean_resultant_length[0].item(), ratio(2.0))
    assert rows.sample(generator=generator()).dtype == torch.float64
    assert VonMises(torch.zeros(3), torch.tensor([1, 2, 3])).entropy().dtype == torch.float32
    assert WrappedNormal(loc, two).mean_resultant_length.item() == pytest.approx(math.exp(-2.0))
    assert WrappedNormal(loc, two).sample((4,), generator=generator()).frac().abs().min() > 0
    assert torch.equal(VonMises(0, 2).log_prob(torch.tensor([0, 1])), VonMises(0.0, 2.0).log_prob(double(0.0, 1.0)))
    counts = MeanFieldGibbs(5, torch.tensor(4), torch.tensor(1), torch.tensor(1))
    numbers = MeanFieldGibbs(5, 4.0, 1.0, 1.0)
    assert counts.mean_resultant_length.item() == numbers.mean_resultant_length.item() > 0.5
    assert counts.entropy().item() == numbers.entropy().item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", [VonMises, WrappedNormal])
def test_half_precision_rounds_the_result_only(kind: type[VonMises] | type[WrappedNormal], dtype: torch.dtype) -> None:
    loc, spread, theta = (x.to(dtype) for x in (double(0.5, -3.0), double(0.3, 2.0), double(1.1, 3.0)))
    law, wide = kind(loc, spread), kind(loc.double(), spread.double())
    pairs = [
        (law.log_prob(theta), wide.log_prob(theta.double())),
        (law.score(theta), wide.score(theta.double())),
        (law.entropy(), wide.entropy()),
        (law.mean_resultant_length, wide.mean_resultant_length),
    ]
    for found, exact in pairs:
        assert found.dtype == dtype
        assert torch.equal(found, exact.to(dtype))
    drawn = kind(torch.zeros(1, dtype=dtype), torch.full((1,), 0.25, dtype=dtype)).sample(
        (10_000,), generator=generator()
    )
    assert drawn.dtype == dtype
    assert len(set(drawn.flatten().tolist())) > 500  # normals of bfloat16 itself have a few hundred values there


@pytest.mark.parametrize(
    ("kind", "loc", "spread", "name"),
    [
        (WrappedNormal, 0.0, 0.0, "scale"),
        (WrappedNormal, 0.0, -1.0, "scale"),
        (WrappedNormal, math.nan, 1.0, "loc"),
        (WrappedNormal, math.inf, 1.0, "loc"),
        (VonMises, -math.inf, 1.0, "loc"),
        (VonMises, 0.0, -1e-9, "concentration"),
        (VonMises, 0.0, math.inf, "concentration"),
        (VonMises, 0.0, math.nan, "concentration"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(
    kind: type[VonMises], loc: float, spread: float, name: str
) -> None:
    with pytest.raises(ValueError, match=f"Expected parameter {name} .* to satisfy the constraint"):
        kind(loc, spread)


def test_angles_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="concentration"):
        VonMises(torch.zeros(1), torch.tensor([math.inf]))  # in float32, too
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="Expected value argument"):
            VonMises(0.0, 1.0).log_prob(double(bad))


def test_arguments_are_checked_whatever_the_global_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Distribution, "_validate_args", False)  # as torch.compile leaves it
    with pytest.raises(ValueError, match="Expected parameter scale"):
        WrappedNormal(0.0, -1.0)
    assert VonMises(0.0, -1.0, validate_args=False).concentration.item() == -1.0

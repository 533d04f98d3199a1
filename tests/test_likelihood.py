"""Likelihoods against exact Fokker-Planck laws: value, normalisation, error estimates, probes, and failures."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import pytest
import torch
from scipy.stats import binom, kstwobign
from torch import Tensor
from torch.distributions import Uniform

from circsde.coupling import LocalCoupling
from circsde.distributions import VonMises, WrappedNormal
from circsde.encoding import PhaseEncoding
from circsde.fokker_planck import CircleLaw, fokker_planck, grid
from circsde.fokker_planck_torus import TorusLaw, fokker_planck_torus
from circsde.gibbs import MeanFieldGibbs
from circsde.kuramoto import KuramotoSDE
from circsde.mixture import WrappedNormalMixture
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.solvers.dequantisation import bits_per_dim
from circsde.solvers.likelihood import LogProb, log_density, log_prob, normalisation
from circsde.studies.mismatch import energy_test, fit_prior, kuiper, kuiper_p_value, mismatch
from circsde.torus import TWO_PI
from circsde.typing import Angles, Field, Tangent, Time
from strategies import assert_agree, random, random_angles

START = WrappedNormalMixture((0.4, 0.6), (-2.0, 1.0), (0.4, 0.6))
SCHEDULES = {
    "published": Schedule.published(100),
    "wrapped diffusion": Schedule.linear((0.0, 0.0, 0.005), (0.0, 0.0, 5.0)),
    "strongly nonlinear": Schedule.linear((0.0, 8.0, 0.05), (0.0, 0.5, 2.0)),
    "late attraction": Schedule.cosine((0.0, 0.0, 0.2), (0.0, 20.0, 3.0)),
}
COUPLED = Schedule.linear((4.0, 1.0, 0.3), (1.0, 2.0, 1.0))


@dataclass(frozen=True)
class At:
    """An exact law at one time, as a prior."""

    law: CircleLaw | TorusLaw
    time: float = 1.0

    def log_prob(self, theta: Tensor) -> Tensor:
        return self.law.log_prob(self.time, theta)


@cache
def circle(name: str) -> tuple[KuramotoSDE, CircleLaw]:
    schedule = SCHEDULES[name]
    return KuramotoSDE((1,), schedule=schedule), fokker_planck(schedule, START, mean_field=False)


@cache
def torus() -> tuple[KuramotoSDE, TorusLaw]:
    law = fokker_planck_torus(COUPLED, (WrappedNormal(-1.0, 0.6), WrappedNormal(1.5, 0.7)))
    return KuramotoSDE((2,), schedule=COUPLED), law


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_likelihood_on_the_circle_is_exact(name: str) -> None:
    (sde, law), theta = circle(name), grid(24)[:, None]
    result = log_prob(sde, law.score, theta, prior=At(law), atol=1e-8)
    true = (result.value - law.log_prob(0.0, theta)[:, 0]).abs()
    assert result.status == ("success",) * 24
    assert true.max() < 1e-8
    assert bool((true < result.error + 1e-10).all())
    assert result.error.max() < 2e-7


def test_two_coupled_oscillators_have_their_exact_likelihood() -> None:
    (sde, law), theta = torus(), random_angles(40, 2)
    exact = law.log_prob(0.0, theta)
    theta, exact = theta[exact > -14.0], exact[exact > -14.0]  # the reference itself is good to 1e-13 in density
    result = log_prob(sde, law.score, theta, prior=At(law), atol=1e-8)
    assert len(theta) > 20
    assert (result.value - exact).abs().max() < 1e-6


def test_without_the_divergence_or_with_another_prior_the_likelihood_is_wrong() -> None:
    (sde, law), theta = circle("published"), grid(16)[:, None]
    exact = law.log_prob(0.0, theta)[:, 0]
    assert (log_prob(sde, law.score, theta).value - exact).abs().max() > 1e-3  # the law of an infinite horizon
    still = log_prob(sde, lambda t, x: 0.0 * x, theta, prior=At(law)).value
    assert (still - exact).abs().max() > 0.1


@pytest.mark.parametrize("name", ["published", "strongly nonlinear"])
def test_the_density_on_the_circle_is_normalised(name: str) -> None:
    sde, law = circle(name)
    assert abs(normalisation(partial(log_prob, sde, law.score, prior=At(law)), 1, 128) - 1.0) < 1e-6
    late = normalisation(partial(log_prob, sde, lambda t, x: 1.1 * law.score(t, x), prior=At(law), atol=1e-7), 1, 200)
    assert abs(late - 1.0) < 1e-6  # a wrong score still makes a density
    assert abs(normalisation(lambda x: 1.1 * law.log_prob(0.0, x)[:, 0], 1) - 1.0) > 1e-3  # which this is not


def test_the_density_of_two_coupled_oscillators_is_normalised() -> None:
    sde, law = torus()
    assert abs(normalisation(partial(log_prob, sde, law.score, prior=At(law)), 2, 32) - 1.0) < 1e-6


def test_normalisation_beyond_two_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="dim 1 or 2, got 3"):
        normalisation(lambda theta: theta.sum(1), 3)


def test_whole_turns_of_the_data_change_nothing() -> None:
    (sde, law), theta = circle("published"), random_angles(50, 1)
    plain = log_prob(sde, law.score, theta, prior=At(law)).value
    for turns in (1, -3, 1000):
        shifted = log_prob(sde, law.score, theta + turns * TWO_PI, prior=At(law)).value
        assert (shifted - plain).abs().max() < 1e-10


def test_a_sample_has_the_same_likelihood_alone_as_among_a_thousand() -> None:
    atol = 1e-6
    (sde, law), theta = circle("strongly nonlinear"), random_angles(1000, 1)
    together = log_prob(sde, law.score, theta, prior=At(law), atol=atol).value
    alone = torch.cat([log_prob(sde, law.score, theta[i : i + 1], prior=At(law), atol=atol).value for i in range(4)])
    assert (together[:4] - alone).abs().max() < 10 * atol


def ripple(score: Field) -> Field:
    """A score that is badly wrong, as a learnt one may be, and no gradient."""
    return lambda t, x: score(t, x) * (1.0 + 0.3 * torch.sin(x.flip(1) + 3.0 * torch.as_tensor(t).to(x)))


@pytest.mark.parametrize("atol", [1e-5, 1e-6])
def test_the_tolerance_and_the_error_estimate_hold_for_a_wrong_score_too(atol: float) -> None:
    (sde, law), theta = torus(), 0.7 * random(20, 2) + torch.tensor([-1.0, 1.5])
    exact = log_prob(sde, ripple(law.score), theta, prior=At(law), atol=1e-9).value
    result = log_prob(sde, ripple(law.score), theta, prior=At(law), atol=atol)
    true = (result.value - exact).abs()
    assert true.max() < 10 * atol
    assert bool((true < 5 * result.error + 0.1 * atol).all())
    assert result.error.median() < 10 * atol


def test_a_fixed_step_method_estimates_its_error() -> None:
    (sde, law), theta = circle("published"), grid(32)[:, None]
    exact = law.log_prob(0.0, theta)[:, 0]
    errors = []
    for n in (20, 40):
        result = log_prob(sde, law.score, theta, prior=At(law), method="rk4", n_steps=n)
        true = (result.value - exact).abs()
        assert result.nfe.tolist() == [4 * n + 4 * n + 1] * 32
        assert bool((true < result.error).all())
        errors.append(true.max())
    assert errors[0] / errors[1] > 2**4


def test_float32_angles_lose_no_more_than_their_resolution() -> None:
    (sde, law), theta = circle("published"), grid(32)[:, None]
    result = log_prob(sde, law.score, theta.float(), prior=At(law))
    slope = law.score(0.0, theta).abs().max()
    assert result.value.dtype == torch.float64
    assert (result.value - law.log_prob(0.0, theta)[:, 0]).abs().max() < 1e-5 * slope


def test_the_error_at_a_kink_in_time_is_reported() -> None:
    (sde, law), theta = circle("published"), grid(12)[:, None]

    def kinked(t: Time, x: Angles) -> Tangent:
        return law.score(t, x) * (1.0 + (torch.as_tensor(t) - 0.4).abs())

    exact = log_prob(sde, kinked, theta, prior=At(law), atol=1e-9).value
    result = log_prob(sde, kinked, theta, prior=At(law), atol=1e-6)
    true = (result.value - exact).abs()
    assert true.max() < 5e-5
    assert bool((true < 5 * result.error).all())


# Probes

D = 8


def tangled(t: Time, theta: Angles) -> Tangent:
    """A score in D dimensions with a full Jacobian."""
    weight = random(D, D, seed=3).to(theta) / math.sqrt(D)
    return (theta.sin() @ weight).sin() * (1.0 + torch.as_tensor(t).to(theta)) - theta.sin()


SDE_D = KuramotoSDE((D,), schedule=Schedule.linear((2.0, 1.0, 0.3), (4.0, 2.0, 1.0)))


@cache
def exact_values(repetitions: int) -> tuple[Tensor, Tensor]:
    theta = random_angles(1, D)
    return theta.expand(repetitions, D), log_prob(SDE_D, tangled, theta, atol=1e-7).value


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("law", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased_and_its_standard_error_calibrated(law: str, fresh: bool) -> None:
    theta, exact = exact_values(200)  # one point, 200 sets of probes
    result = log_prob(
        SDE_D, tangled, theta, divergence="hutchinson", probes=32, probe_law=law, fresh_probes=fresh, generator=1
    )
    z = (result.value - exact) / result.stderr
    assert bool((result.probes == 32).all())
    assert abs(z.mean()) < 3.9 * 1.04 / math.sqrt(200)  # Student's t_31; false alarm 1e-4, seeded
    covered = int((z.abs() < 2.0395).sum())  # the 95 % interval of t_31
    assert binom.ppf(5e-5, 200, 0.95) <= covered <= binom.ppf(1 - 5e-5, 200, 0.95)  # false alarm 1e-4


def test_fresh_probes_at_every_node_have_a_far_smaller_standard_error() -> None:
    theta, _ = exact_values(50)
    frozen, fresh = (
        log_prob(SDE_D, tangled, theta, divergence="hutchinson", probes=8, fresh_probes=fresh, generator=1).stderr
        for fresh in (False, True)
    )
    assert fresh.mean() < 0.4 * frozen.mean()


def test_the_closed_form_of_the_drift_lowers_the_standard_error() -> None:
    theta, _ = exact_values(50)
    plain = SDE(SDE_D.drift, SDE_D.diffusion, 1.0)
    known, unknown = (
        log_prob(sde, tangled, theta, prior=SDE_D.terminal_law(), divergence="hutchinson", probes=8, generator=1).stderr
        for sde in (SDE_D, plain)
    )
    assert known.mean() < unknown.mean()


def test_the_closed_form_of_the_drift_saves_bits() -> None:
    """All of them where the score's Jacobian is diagonal: Rademacher probes are exact on that."""
    sde, theta = KuramotoSDE((1, 8, 8), LocalCoupling(1), Schedule.published(100, 1.0)), random_angles(4, 1, 8, 8)
    known, unknown = (
        log_prob(
            equation,
            lambda t, x: -2.0 * x.sin(),
            theta,
            prior=VonMises(0.0, 2.0),
            divergence="hutchinson",
            probes=8,
            atol=1e-3,
            generator=1,
        ).stderr.mean()
        for equation in (sde, SDE(sde.drift, sde.diffusion, 1.0))
    )
    assert known < 1e-9
    assert 3.0 < math.sqrt(8.0) * unknown / math.log(2.0) < 8.0  # of one probe, in bits


def test_probes_are_added_until_the_standard_error_is_small_enough() -> None:
    theta = random_angles(6, D)
    exact = log_prob(SDE_D, tangled, theta).value
    result = log_prob(SDE_D, tangled, theta, divergence="hutchinson", stderr_target=0.2, max_probes=512, generator=2)
    reached = torch.tensor([status == "success" for status in result.status])
    assert bool((result.stderr[reached] <= 0.2).all())
    assert int(reached.sum()) >= 4
    assert len(set(result.probes.tolist())) > 1
    assert ((result.value - exact) / result.stderr).abs().max() < 4.5
    missed = log_prob(SDE_D, tangled, theta, divergence="hutchinson", stderr_target=1e-6, max_probes=16, generator=2)
    assert set(missed.status) == {"max_probes"}
    assert set(missed.probes.tolist()) == {16}


def test_one_probe_has_no_standard_error_and_the_exact_divergence_has_none_to_give() -> None:
    theta = random_angles(3, D)
    assert bool(log_prob(SDE_D, tangled, theta, divergence="hutchinson", generator=0).stderr.isnan().all())
    exact = log_prob(SDE_D, tangled, theta)
    assert exact.stderr.tolist() == [0.0] * 3
    assert exact.probes.tolist() == [0] * 3


def test_a_batch_worked_on_in_parts_is_the_same() -> None:
    theta = random_angles(21, D)
    given = partial(log_prob, SDE_D, tangled, divergence="hutchinson", probes=3, generator=5)
    whole, parts, later = given(theta), given(theta, batch_size=8), given(theta[7:], first_sample=7)
    for name in ("value", "stderr"):
        assert (getattr(whole, name) - getattr(parts, name)).abs().max() < 1e-5
        assert (getattr(whole, name)[7:] - getattr(later, name)).abs().max() < 1e-5


# Priors and data


def test_every_kind_of_prior_is_read_as_it_means() -> None:
    theta = random_angles(4, 3)
    assert_agree(log_density(VonMises(0.3, 2.0), theta), VonMises(0.3, 2.0).log_prob(theta).sum(1))
    loc = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    assert_agree(log_density(VonMises(loc, 2.0), theta), VonMises(loc, 2.0).log_prob(theta).sum(1))
    gibbs = MeanFieldGibbs(3, 2.0, 1.0, 1.0)
    assert_agree(log_density(gibbs, theta), gibbs.log_prob(theta))
    uniform = Uniform(*torch.tensor([-math.pi, math.pi], dtype=torch.float64))
    assert_agree(log_density(uniform, theta), torch.full((4,), -3 * math.log(TWO_PI), dtype=torch.float64))


def test_the_default_prior_is_uniform_without_attraction() -> None:
    sde, theta = KuramotoSDE((3,), schedule=Schedule.constant(diffusion=4.0)), random_angles(5, 3)
    value = log_prob(sde, lambda t, x: 0.0 * x, theta).value
    assert_agree(value, torch.full((5,), -3 * math.log(TWO_PI), dtype=torch.float64))


def test_bits_per_dimension_of_dequantised_levels_are_those_of_the_exact_masses() -> None:
    law, encoding, count = VonMises(0.5, 1.5), PhaseEncoding(scale=math.pi, low=0, high=64), 64
    levels = torch.arange(count)[:, None].expand(count, 6)
    inside = (torch.arange(32 * count, dtype=torch.float64) + 0.5) * (TWO_PI / (32 * count)) - math.pi
    mass = law.log_prob(inside).exp().reshape(count, 32).mean(1) * TWO_PI / count

    def joint(theta: Angles) -> LogProb:
        value, none = law.log_prob(theta.double()).sum(1), torch.zeros(len(theta), dtype=torch.float64)
        return LogProb(value, none, none, none.long(), none.long(), ("success",) * len(theta))

    result = bits_per_dim(joint, levels, encoding, draws=100, generator=torch.Generator().manual_seed(0))
    excess = result.value + mass.log2()  # Jensen: an upper bound, close where the law is smooth on a level
    assert bool((excess > -4.5 * result.stderr - 1e-6).all())
    assert bool((excess < 4.5 * result.stderr + 0.002).all())
    once = bits_per_dim(joint, levels, encoding, generator=torch.Generator().manual_seed(0))
    assert bool(once.stderr.isnan().all())
    with pytest.raises(ValueError, match="integers from 0 to 63"):
        bits_per_dim(joint, levels + 1, encoding)


def test_bits_per_dimension_of_a_uniform_law_are_the_bits_of_a_level() -> None:
    sde = KuramotoSDE((1, 4, 4), schedule=Schedule.constant(diffusion=2.0))
    encoding, images = (
        PhaseEncoding(scale=math.pi, low=0, high=256),
        torch.arange(32, dtype=torch.uint8).reshape(2, 1, 4, 4),
    )
    result = bits_per_dim(partial(log_prob, sde, lambda t, x: 0.0 * x), images, encoding)
    assert result.value.tolist() == pytest.approx([8.0, 8.0], abs=1e-5)


def test_a_fitted_prior_matches_the_law_it_was_fitted_to_and_a_shifted_one_does_not() -> None:
    generator = torch.Generator().manual_seed(0)
    law = VonMises(torch.tensor([0.0, 2.0]), torch.tensor([2.0, 0.5]))
    terminal = law.sample((600,), generator=generator)
    good = mismatch(terminal, fit_prior(terminal), permutations=199, generator=generator)
    assert good.kuiper_p.min() > 0.01
    assert good.energy_p > 0.01
    bad = mismatch(terminal, VonMises(0.5, 1.0), permutations=199, generator=generator)
    assert bad.kuiper_p.max() < 1e-3
    assert bad.energy_p <= 0.005
    wrapped = fit_prior(WrappedNormal(1.0, 0.5).sample((4000, 1), generator=generator), "wrapped_normal")
    assert isinstance(wrapped, WrappedNormal)
    assert abs(wrapped.scale.item() - 0.5) < 0.03
    with pytest.raises(ValueError, match="wrapped_normal"):
        fit_prior(terminal, "cardioid")


def test_kuipers_test_has_its_level_whatever_the_cut_of_the_circle() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (VonMises(1.0, 2.0).sample((300, 150), generator=generator) for _ in range(2))
    p = torch.tensor([kuiper_p_value(kuiper(x, y).item(), 150, 150) for x, y in zip(a, b, strict=True)])
    edges = torch.arange(1, 301) / 300
    distance = (p.sort().values - edges).abs().max().item() * math.sqrt(300)
    assert kstwobign.sf(distance) > 1e-4
    x, y = a[0].double(), b[0].double()
    assert kuiper(x, y).item() == pytest.approx(kuiper(x + 2.0, y + 2.0).item(), abs=1e-12)


def test_the_energy_test_sees_dependence_that_no_marginal_shows() -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = (VonMises(0.0, 0.0).sample((400, 1), generator=generator) for _ in range(2))
    locked, free = torch.cat((u, u), 1), torch.cat((u, v), 1)
    assert energy_test(locked, free, permutations=199, generator=generator)[1] <= 0.01
    other = VonMises(0.0, 0.0).sample((400, 2), generator=generator)
    assert energy_test(free, other, permutations=199, generator=generator)[1] > 0.01
    assert mismatch(locked, free, permutations=19, generator=generator).kuiper_p.min() > 0.01


# Failures


def test_a_sample_whose_score_breaks_leaves_the_others_untouched() -> None:
    (sde, law), theta = circle("published"), grid(16)[:, None]
    good = log_prob(sde, law.score, theta, prior=At(law)).value

    def breaks(t: Time, x: Angles) -> Tangent:
        return torch.where((x > 2.0) & (x < 2.3) & (torch.as_tensor(t) > 0.2), math.nan, law.score(t, x))

    result = log_prob(sde, breaks, theta, prior=At(law))
    failed = torch.tensor([status == "non_finite" for status in result.status])
    assert 0 < int(failed.sum()) < 8
    assert torch.equal(failed, result.value.isnan())
    assert (result.value - good)[~failed].abs().max() < 1e-5
    assert any(f"sample {i}: the field is not finite" in result.message for i in failed.nonzero().flatten().tolist())


def test_a_score_that_is_never_finite_is_reported() -> None:
    (sde, law), theta = circle("published"), grid(4)[:, None]
    result = log_prob(sde, lambda t, x: x * math.nan, theta, prior=At(law))
    assert result.status == ("non_finite",) * 4
    assert bool(result.value.isnan().all())
    assert log_prob(sde, law.score, theta, prior=At(law), max_steps=3).status == ("max_steps",) * 4
    assert log_prob(sde, law.score, theta, prior=Uniform(5.0, 6.0, validate_args=False)).status == ("non_finite",) * 4


ONE = torch.zeros(2, 1)
PLAIN = SDE(lambda t, x: -x.sin(), lambda t: 1.0, 1.0)
BAD: dict[str, tuple[Callable[[], object], str]] = {
    "prior": (lambda: log_prob(PLAIN, lambda t, x: -x, ONE), "give prior="),
    "shape": (lambda: log_prob(SDE_D, tangled, torch.zeros(2, 3)), r"shape \(batch, \*\(8,\)\), got \(2, 3\)"),
    "divergence": (lambda: log_prob(SDE_D, tangled, torch.zeros(2, D), divergence="trace"), '"exact" or "hutchinson"'),
    "target": (lambda: log_prob(SDE_D, tangled, torch.zeros(2, D), stderr_target=0.1), "drop stderr_target"),
    "probes": (lambda: log_prob(SDE_D, tangled, torch.zeros(2, D), probes=0), "probes must be at least 1"),
    "one step": (lambda: log_prob(SDE_D, tangled, torch.zeros(2, D), method="rk4", n_steps=1), "at least 2 steps"),
    "tolerance": (lambda: log_prob(SDE_D, tangled, torch.zeros(2, D), atol=1e-9), "raise atol or pass angles"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_advice(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()

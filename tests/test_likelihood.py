"""Likelihoods against exact Fokker-Planck laws: value, normalisation, error estimates, probes, and failures."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstwobign
from torch import Tensor
from torch.distributions import Uniform

from circsde.coupling import LocalCoupling, NoCoupling
from circsde.encoding import PhaseEncoding
from circsde.exact.fokker_planck import CircleLaw, fokker_planck, grid
from circsde.exact.fokker_planck_torus import TorusLaw, fokker_planck_torus
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises, WrappedNormal
from circsde.laws.gibbs import MeanFieldGibbs
from circsde.laws.mixture import WrappedNormalMixture
from circsde.sampling.mismatch import energy_test, fit_prior, kuiper, kuiper_p_value, mismatch, p_value
from circsde.schedule import Linear, Schedule
from circsde.sde import SDE
from circsde.solvers.dequantisation import bits_per_dim
from circsde.solvers.divergence import FlowField
from circsde.solvers.hutchinson import standard_error
from circsde.solvers.likelihood import LogProb, log_density, log_prob
from circsde.solvers.normalisation import normalisation
from circsde.torus import TWO_PI
from circsde.typing import Angles, Field, Tangent, Time
from strategies import assert_agree, pulse, random, random_angles

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


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "late attraction" else n for n in SCHEDULES]
)
def test_the_likelihood_on_the_circle_is_exact(name: str) -> None:
    (sde, law), theta = circle(name), grid(24)[:, None]
    result = log_prob(sde, law.score, theta, prior=At(law), atol=1e-8)
    true = (result.value - law.log_prob(0.0, theta)[:, 0]).abs()
    assert result.status == ("success",) * 24
    assert true.max() < 1e-8
    assert bool((true < result.error + 1e-10).all())
    assert result.error.max() < 5e-6  # an upper estimate


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


@pytest.mark.parametrize("name", ["published", pytest.param("strongly nonlinear", marks=pytest.mark.slow)])
def test_the_density_on_the_circle_is_normalised(name: str) -> None:
    sde, law = circle(name)
    assert abs(normalisation(partial(log_prob, sde, law.score, prior=At(law)), 1, 128) - 1.0) < 1e-6
    late = normalisation(partial(log_prob, sde, lambda t, x: 1.1 * law.score(t, x), prior=At(law), atol=1e-7), 1, 200)
    assert abs(late - 1.0) < 1e-6  # a wrong score still makes a density
    assert abs(normalisation(lambda x: 1.1 * law.log_prob(0.0, x)[:, 0], 1) - 1.0) > 1e-3  # which this is not


@pytest.mark.slow
def test_the_density_of_two_coupled_oscillators_is_normalised() -> None:
    sde, law = torus()
    assert abs(normalisation(partial(log_prob, sde, law.score, prior=At(law)), 2, 32) - 1.0) < 1e-6


NARROW: list[tuple[float, int]] = [(0.05, 1), (0.05, 2), (0.02, 2), (0.005, 1), (0.001, 1)]


@pytest.mark.parametrize(("scale", "dim"), NARROW)
def test_a_narrow_density_is_integrated_on_as_fine_a_grid_as_it_takes(scale: float, dim: int) -> None:
    law = WrappedNormal(1.234, scale)
    assert normalisation(lambda x: law.log_prob(x).sum(1), dim) == pytest.approx(1.0, abs=1e-6)


def test_a_wide_density_costs_one_grid_and_a_narrow_one_keeps_its_points() -> None:
    seen: list[int] = []

    def density(x: Angles, scale: float) -> Tensor:
        seen.append(len(x))
        return WrappedNormal(0.0, scale).log_prob(x).sum(1)

    for dim, count in ((1, 256), (2, 4096)):
        normalisation(partial(density, scale=0.3), dim)
        assert seen == [count]
        seen.clear()
    normalisation(partial(density, scale=0.02), 1, first=64)
    assert seen == [64, 64, 128, 256]


UNRESOLVED: dict[str, tuple[Callable[[], float], str]] = {
    "given points": (
        lambda: normalisation(lambda x: WrappedNormal(1.0, 0.02).log_prob(x).sum(1), 2, 64),
        "at least 128",
    ),
    "needle": (lambda: normalisation(lambda x: WrappedNormal(1.0, 1e-6).log_prob(x).sum(1), 1), "do not resolve"),
    "odd": (lambda: normalisation(lambda x: x.sum(1), 1, 33), "even number"),
    "not a number": (lambda: normalisation(lambda x: x.sum(1).log(), 1), "not finite at 128 of 256 points"),
}


@pytest.mark.parametrize("case", UNRESOLVED)
def test_a_density_that_no_grid_resolves_has_no_integral(case: str) -> None:
    call, message = UNRESOLVED[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_density_of_many_angles_is_integrated_near_its_samples() -> None:
    law, generator = VonMises(torch.zeros(5), 4.0), torch.Generator().manual_seed(0)
    samples = law.sample((500,), generator=generator)
    for factor in (1.0, 1.3):

        def density(x: Angles, factor: float = factor) -> Tensor:
            return law.log_prob(x).sum(1) + math.log(factor)

        found = normalisation(density, 5, samples=samples, generator=generator)
        assert abs(found / factor - 1.0) < 0.05  # the width beyond which it is refused
    with pytest.raises(ValueError, match=r"give samples \(n, 5\) and a generator"):
        normalisation(lambda x: law.log_prob(x).sum(1), 5)
    with pytest.raises(ValueError, match="is not known to 5%"):
        normalisation(lambda x: law.log_prob(x).sum(1), 5, points=30, samples=samples, generator=generator)


@pytest.mark.slow
def test_whole_turns_of_the_data_change_nothing() -> None:
    (sde, law), theta = circle("published"), random_angles(50, 1)
    plain = log_prob(sde, law.score, theta, prior=At(law)).value
    for turns in (1, -3, 1000):
        shifted = log_prob(sde, law.score, theta + turns * TWO_PI, prior=At(law)).value
        assert (shifted - plain).abs().max() < 1e-10


@pytest.mark.slow
def test_a_sample_has_the_same_likelihood_alone_as_among_a_thousand() -> None:
    atol = 1e-6
    (sde, law), theta = circle("strongly nonlinear"), random_angles(1000, 1)
    together = log_prob(sde, law.score, theta, prior=At(law), atol=atol).value
    alone = torch.cat([log_prob(sde, law.score, theta[i : i + 1], prior=At(law), atol=atol).value for i in range(4)])
    assert (together[:4] - alone).abs().max() < 10 * atol


def ripple(score: Field) -> Field:
    """A score that is badly wrong, as a learnt one may be, and no gradient."""
    return lambda t, x: score(t, x) * (1.0 + 0.3 * torch.sin(x.flip(1) + 3.0 * torch.as_tensor(t).to(x)))


@pytest.mark.slow
@pytest.mark.parametrize("atol", [1e-5, 1e-6])
def test_the_tolerance_and_the_error_estimate_hold_for_a_wrong_score_too(atol: float) -> None:
    (sde, law), theta = torus(), 0.7 * random(20, 2) + torch.tensor([-1.0, 1.5])
    exact = log_prob(sde, ripple(law.score), theta, prior=At(law), atol=1e-9).value
    result = log_prob(sde, ripple(law.score), theta, prior=At(law), atol=atol)
    true = (result.value - exact).abs()
    assert true.max() < 10 * atol
    assert bool((true < 5 * result.error + 0.1 * atol).all())
    assert result.error.median() < 10 * atol


def test_a_pulse_of_noise_is_seen_by_the_likelihood() -> None:
    still = Linear(0.0, 0.0)
    schedule = Schedule(still, Linear(1.0, 1.0), pulse(1e-3, 0.5, 0.37))
    law, theta = fokker_planck(schedule, START, mean_field=False), grid(12)[:, None]
    result = log_prob(KuramotoSDE((1,), schedule=schedule), law.score, theta, prior=At(law), atol=1e-7)
    assert (result.value - law.log_prob(0.0, theta)[:, 0]).abs().max() < 1e-5


STATIONARY = VonMises(0.0, 2.0)
SETTLED = KuramotoSDE((2,), NoCoupling(), Schedule.constant(reference=2.0))
CUT: dict[str, Field] = {
    "no_grad": torch.no_grad()(lambda t, x: STATIONARY.score(x)),
    "inference_mode": torch.inference_mode()(lambda t, x: STATIONARY.score(x)),
    "detach": lambda t, x: STATIONARY.score(x.detach()),
    "in part": lambda t, x: -2.0 * x.sin() + 0.5 * (x.detach().sin() - x.sin()),
    "numpy": lambda t, x: torch.as_tensor(-2.0 * np.sin(x.detach().numpy())),
}


@pytest.mark.parametrize("probes", [None, 1])
@pytest.mark.parametrize("cut", CUT)
def test_a_score_without_its_derivative_is_refused(cut: str, probes: int | None) -> None:
    more: dict[str, Any] = {} if probes is None else {"divergence": "hutchinson", "probes": probes, "generator": 0}
    with pytest.raises(ValueError, match=r"score.*without torch.no_grad"):
        log_prob(SETTLED, CUT[cut], torch.zeros(1, 2), **more)


def test_a_drift_without_its_derivative_is_refused_where_its_divergence_is_not_known() -> None:
    drift: Field = torch.no_grad()(lambda t, x: -2.0 * x.sin())
    sde = SDE(drift, lambda t: 2.0**0.5, 1.0)
    with pytest.raises(ValueError, match="derivative of the drift is 0 by torch.func"):
        log_prob(sde, lambda t, x: STATIONARY.score(x), torch.zeros(1, 2), prior=STATIONARY)


def test_scores_that_are_what_they_seem_are_not_refused() -> None:
    theta = torch.zeros(1, 2)
    constant = log_prob(SETTLED, lambda t, x: torch.ones_like(x), theta)
    assert constant.status == ("success",)
    with torch.inference_mode():
        inside = log_prob(SETTLED, lambda t, x: STATIONARY.score(x), theta).value
    assert_agree(inside, STATIONARY.log_prob(theta).sum(1).double(), 1e-6)
    torch.manual_seed(0)
    for dtype, activation in itertools.product((torch.float32, torch.float64), (torch.nn.ReLU(), torch.nn.SiLU())):
        layers = torch.nn.Linear(4, 64), activation, torch.nn.Linear(64, 64), activation, torch.nn.Linear(64, 2)
        network = torch.nn.Sequential(*layers).to(dtype)

        def score(t: Time, x: Angles, network: torch.nn.Module = network) -> Tangent:  # noqa: ARG001
            value: Tensor = network(torch.cat((x.cos(), x.sin()), 1))
            return value

        for point in random_angles(20, 1, 2).to(dtype):
            FlowField(SETTLED, score).check(0.5, point)


def test_a_network_with_dropout_or_of_another_dtype_is_refused_with_advice() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.Dropout(), torch.nn.Linear(64, 2))
    with pytest.raises(ValueError, match=r"score answers differently.*\.eval\(\)"):
        log_prob(SETTLED, lambda t, x: network(x.cos()), torch.zeros(1, 2))
    with pytest.raises(TypeError, match=r"score cannot take angles of torch.float64.*network.double\(\)"):
        log_prob(SETTLED, lambda t, x: network(x.cos()), torch.zeros(1, 2).double())


def test_a_fixed_step_method_estimates_its_error() -> None:
    (sde, law), theta = circle("published"), grid(32)[:, None]
    exact = law.log_prob(0.0, theta)[:, 0]
    errors = []
    for n in (20, 40):
        result = log_prob(sde, law.score, theta, prior=At(law), method="rk4", n_steps=n)
        true = (result.value - exact).abs()
        assert result.nfe.tolist() == [4 * n + 4 * n + 1 + n] * 32
        assert bool((true < result.error).all())
        errors.append(true.max())
    assert errors[0] / errors[1] > 2**4


def test_float32_angles_lose_no_more_than_their_resolution() -> None:
    (sde, law), theta = circle("published"), grid(32)[:, None]
    result = log_prob(sde, law.score, theta.float(), prior=At(law))
    slope = law.score(0.0, theta).abs().max()
    assert result.value.dtype == torch.float64
    assert (result.value - law.log_prob(0.0, theta)[:, 0]).abs().max() < 1e-5 * slope


@pytest.mark.slow
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
    """A score with a full Jacobian."""
    n = theta.shape[1]
    weight = random(n, n, seed=3).to(theta) / math.sqrt(n)
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
        SDE_D, tangled, theta, divergence="hutchinson", probes=6, probe_law=law, fresh_probes=fresh, generator=1
    )
    z = (result.value - exact) / result.stderr
    assert bool((result.probes == 6).all())
    assert abs(z.mean()) < 3.9 / math.sqrt(
        200
    )  # Student's t_5, narrowed to a variance of 0.97; false alarm 1e-4, seeded
    covered = int((z.abs() < 1.96).sum())  # the 95 % interval of t_5, as the standard error is widened
    assert binom.ppf(5e-5, 200, 0.95) <= covered <= binom.ppf(1 - 5e-5, 200, 0.95)  # false alarm 1e-4


def test_fresh_probes_at_every_node_have_a_far_smaller_standard_error() -> None:
    theta, _ = exact_values(50)
    frozen, fresh = (
        log_prob(SDE_D, tangled, theta, divergence="hutchinson", probes=6, fresh_probes=fresh, generator=1).stderr
        for fresh in (False, True)
    )
    assert fresh.mean() < 0.4 * frozen.mean()


def test_the_closed_form_of_the_drift_lowers_the_standard_error() -> None:
    theta, _ = exact_values(50)
    plain = SDE(SDE_D.drift, SDE_D.diffusion, 1.0)
    known, unknown = (
        log_prob(sde, tangled, theta, prior=SDE_D.terminal_law(), divergence="hutchinson", probes=6, generator=1).stderr
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
            probes=32,
            atol=1e-3,
            generator=1,
        ).stderr.mean()
        for equation in (sde, SDE(sde.drift, sde.diffusion, 1.0))
    )
    assert known < 1e-9
    assert 3.0 < math.sqrt(32.0) * unknown / math.log(2.0) < 8.0  # of one probe, in bits


def test_probes_are_added_until_the_standard_error_is_small_enough_or_the_trace_exact() -> None:
    sde, theta = KuramotoSDE((40,), schedule=SDE_D.schedule), random_angles(5, 40)
    ask = partial(log_prob, sde, tangled, theta, divergence="hutchinson", atol=1e-4, generator=2)
    exact = log_prob(sde, tangled, theta, atol=1e-4).value
    spread = ask(probes=32).stderr.sort().values
    result = ask(stderr_target=float(spread[1:3].mean()))
    assert result.status == ("success",) * 5
    assert set(result.probes.tolist()) <= {0, 32, 64}  # 64 more would cost more than the exact trace of 40 angles
    assert 2 <= int((result.probes == 32).sum()) <= 3
    z = (result.value - exact) / result.stderr.clamp(min=1e-8)
    assert z.abs().max() < 4.5
    assert set(ask(stderr_target=1e-9).probes.tolist()) == {0}
    missed = ask(stderr_target=1e-9, max_probes=36)
    assert set(missed.status) == {"max_probes"}
    assert set(missed.probes.tolist()) == {36}


def pair(t: Time, x: Angles) -> Tangent:
    """A score whose Jacobian has its trace in the first two angles, where signs see nothing or all of it."""
    q = 0.8 * torch.exp(-torch.as_tensor(t)) * torch.sin(x[:, :1] - x[:, 1:2])
    return torch.cat((-q, q, torch.zeros_like(x[:, 2:])), 1)


def free(n: int) -> KuramotoSDE:
    return KuramotoSDE((n,), NoCoupling(), Schedule.constant(diffusion=1.0))


def test_as_many_probes_as_angles_are_the_exact_trace() -> None:
    x = torch.linspace(-3.0, 3.0, 400).double()[:, None] * torch.tensor([1.0, -0.3]).double()
    ask = partial(log_prob, free(2), pair, x, prior=VonMises(0.0, 0.0))
    exact = ask().value
    for choice in ({"probes": 2}, {"stderr_target": 0.05}):
        result = ask(divergence="hutchinson", generator=1, **choice)
        assert_agree(result.value, exact)
        assert result.stderr.tolist() == [0.0] * 400


@pytest.mark.parametrize("probes", [2, 4])
def test_signs_that_agree_have_no_standard_error(probes: int) -> None:
    """In one pair of angles two signs are alike or not, so that four probes agree once in eight times."""
    x = torch.linspace(-3.0, 3.0, 400).double()[:, None] * torch.tensor([1.0, -0.3, 0.0, 0.0, 0.0, 0.0]).double()
    ask = partial(log_prob, free(6), pair, x, prior=VonMises(0.0, 0.0), atol=1e-4)
    error = (ask(divergence="hutchinson", probes=probes, generator=1).value - ask().value).abs()
    stderr = ask(divergence="hutchinson", probes=probes, generator=1).stderr
    assert not bool(((stderr < 1e-9) & (error > 0.05)).any())
    alike = stderr.isnan()
    assert binom.ppf(1e-4, 400, 0.5 ** (probes - 1)) <= int(alike.sum()) <= 400
    assert error[alike].max() > 0.1  # a standard error of zero would have been wrong
    gaussian = ask(divergence="hutchinson", probes=probes, probe_law="gaussian", generator=1).stderr
    assert bool((gaussian > 0).all())


def test_equal_signs_are_certain_once_there_are_enough() -> None:
    """A mean of 32 equal draws may be certain; Student's quantile widens a few draws that differ."""
    assert standard_error(torch.ones(32, 1).double(), "rademacher", 1e-16).tolist() == [0.0]
    assert standard_error(torch.ones(31, 1).double(), "rademacher", 1e-16).isnan().tolist() == [True]
    assert standard_error(torch.ones(2, 1).double(), "gaussian", 1e-16).tolist() == [0.0]
    draws = random(4, 20_000)  # normal: the interval holds its share, where 1.96 plain standard errors hold 0.855
    z = draws.mean(0) / standard_error(draws, "gaussian", 1e-16)
    held = int((z.abs() < 1.959964).sum())
    assert binom.ppf(5e-5, 20_000, 0.95) <= held <= binom.ppf(1 - 5e-5, 20_000, 0.95)


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


def test_a_prior_fitted_to_angles_close_together_is_accurate() -> None:
    """At sd 1e-5 a resultant length in float64 knows 5e-11 to 2e-6 of itself, in float32 nothing of it."""
    theta = 0.5 + 1e-5 * torch.randn(2000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    narrow = fit_prior(theta, "wrapped_normal")
    assert isinstance(narrow, WrappedNormal)
    assert narrow.scale.item() == pytest.approx(theta.std(correction=0).item(), rel=1e-9)
    assert narrow.loc.item() == pytest.approx(theta.mean().item(), abs=1e-12)


def test_samples_that_are_not_finite_have_no_statistics() -> None:
    """NaN is as large as nothing, and read as the least p-value."""
    generator = torch.Generator().manual_seed(0)
    good = VonMises(torch.zeros(2), 1.0).sample((20,), generator=generator)
    bad = good.clone()
    bad[3, 1] = math.nan
    statistics: list[Callable[[], object]] = [
        lambda: kuiper(good[:, 1], bad[:, 1]),
        lambda: kuiper(bad[:, 1], good[:, 1]),
        lambda: energy_test(bad, good, permutations=9, generator=generator),
        lambda: energy_test(good, bad, permutations=9, generator=generator),
        lambda: mismatch(bad, VonMises(0.0, 1.0), permutations=9, generator=generator),
        lambda: fit_prior(bad),
        lambda: fit_prior(bad, "wrapped_normal"),
        lambda: p_value(torch.tensor([math.nan, 1.0, 2.0])),
    ]
    for statistic in statistics:
        with pytest.raises(ValueError, match="must be finite, but 1 of"):
            statistic()


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
    "divergence": (lambda: log_prob(SDE_D, tangled, torch.zeros(2, D), divergence="trace"), '"exact", "hutchinson" or'),
    "law": (lambda: log_prob(SDE_D, tangled, torch.zeros(2, D), probe_law="uniform"), '"rademacher" or "gaussian"'),
    "target": (lambda: log_prob(SDE_D, tangled, torch.zeros(2, D), stderr_target=0.1), "drop stderr_target"),
    "probes": (lambda: log_prob(SDE_D, tangled, torch.zeros(2, D), probes=0), "probes must be at least 1"),
    "most": (
        lambda: log_prob(SDE_D, tangled, torch.zeros(2, D), divergence="hutchinson", stderr_target=0.1, max_probes=1),
        "at least 2 probes, got max_probes=1",
    ),
    "one step": (lambda: log_prob(SDE_D, tangled, torch.zeros(2, D), method="rk4", n_steps=1), "at least 2 steps"),
    "tolerance": (lambda: log_prob(SDE_D, tangled, torch.zeros(2, D), atol=1e-9), "raise atol or pass angles"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_advice(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()

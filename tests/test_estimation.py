"""Estimates from observed phases: coverage of their intervals, closed forms, and what is not identified."""

import math
from collections.abc import Callable

import pytest
import scipy.stats
import torch
from torch import Tensor

from circsde.coupling import GlobalCoupling, NoCoupling
from circsde.estimation import Parameters, fit
from circsde.exact.fokker_planck import fokker_planck
from circsde.exact.fokker_planck_torus import fokker_planck_torus
from circsde.exact.transition import spectral_transition
from circsde.graph import DenseCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import WrappedNormal
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.solvers.integrate import sdeint
from strategies import random, random_angles

N = 3
TRUE = {"lag": 0.4, "K": 1.5, "D": 0.2}
W = torch.tensor([-0.8, 0.1, 0.9], dtype=torch.float64)


def sakaguchi(p: Parameters) -> SDE:
    """A few oscillators with frequencies, a coupling, a lag and noise."""
    rates = Schedule.constant(p["K"], 0.0, p["D"], horizon=100.0)
    return KuramotoSDE(N, GlobalCoupling(p["lag"]), rates, natural_frequency=p["w"])


def observed(seed: int, h: float = 0.02, steps: int = 500, samples: int = 4) -> tuple[Tensor, Tensor]:
    """Phases at equal times, by steps of a fifth of that distance."""
    truth = sakaguchi({name: torch.tensor(value).double() for name, value in TRUE.items()} | {"w": W})
    ts = h * torch.arange(steps + 1, dtype=torch.float64)
    theta0 = random_angles(samples, N, seed=seed)
    solution = sdeint(truth, theta0, ts, n_steps=5 * steps, generator=seed)
    return solution.theta, ts


def test_a_search_from_afar_ends_where_one_from_the_truth_does() -> None:
    theta, ts = observed(0, steps=200, samples=2)
    near: dict[str, float | Tensor] = {**TRUE, "w": W}
    afar: dict[str, float | Tensor] = {"lag": 0.0, "K": 1.0, "D": 1.0, "w": torch.zeros(N)}
    found = [fit(theta, ts, sakaguchi, start, positive=("K", "D")) for start in (near, afar)]
    for name in near:
        assert (found[0].estimates[name] - found[1].estimates[name]).abs().max() < 1e-5


def inside(theta: Tensor, ts: Tensor, level: float) -> list[bool]:
    """Whether each parameter lies in its interval; the search begins at the truth, to save time."""
    truth: dict[str, Tensor] = {**{name: torch.tensor(value) for name, value in TRUE.items()}, "w": W}
    found = fit(theta, ts, sakaguchi, truth, positive=("K", "D"))
    ends = {name: found.interval(name, level) for name in truth}
    return [bool(x) for name, v in truth.items() for x in ((v >= ends[name][0]) & (v <= ends[name][1])).flatten()]


@pytest.mark.slow
def test_intervals_cover_what_is_true_as_often_as_they_say() -> None:
    """200 repetitions: each of six parameters within the 99.9 % range of a binomial of 0.9 and 200."""
    theta, ts = observed(0, samples=4 * 200)  # at once, as a solve of few samples costs as much
    covered = torch.tensor([inside(part, ts, 0.9) for part in torch.split(theta, 4, 1)]).sum(0)
    low, high = (float(scipy.stats.binom.ppf(tail, 200, 0.9)) for tail in (0.0005, 0.9995))
    assert covered.min() >= low, covered
    assert covered.max() <= high, covered


def test_a_free_phase_has_the_estimates_and_errors_that_are_known() -> None:
    """Drift ``mean of increments / h``, error ``g / sqrt(T)``; amplitude its deviation, error ``g / sqrt(2 n)``."""
    ts = 0.01 * torch.arange(401, dtype=torch.float64)
    steps = 0.02 + 0.05 * random(400, 5, 1)
    theta = torch.cat((torch.zeros(1, 5, 1).double(), steps.cumsum(0)))

    def model(p: Parameters) -> SDE:
        return SDE(lambda t, theta: p["w"] + 0.0 * theta, p["g"])  # noqa: ARG005

    found = fit(theta, ts, model, {"w": 0.0, "g": 1.0}, positive=("g",))
    g = (steps - steps.mean()).square().mean().sqrt() / 0.1
    assert found.estimates["w"].item() == pytest.approx(steps.mean().item() / 0.01, abs=1e-6)
    assert found.estimates["g"].item() == pytest.approx(g.item(), rel=1e-6)
    assert found.stderr["w"].item() == pytest.approx(g.item() / math.sqrt(20.0), rel=1e-4)
    assert found.stderr["g"].item() == pytest.approx(g.item() / math.sqrt(4000.0), rel=1e-4)
    low, high = found.interval("g", 0.68)
    assert low * high == pytest.approx(g.item() ** 2)


def test_wide_steps_are_read_around_the_circle() -> None:
    """Noise of 2 rad a step: the wrapped likelihood finds it, where squares of shortest differences say 1.6."""
    ts, steps = torch.arange(2001, dtype=torch.float64), 2.0 * random(2000, 10, 1)
    theta = torch.cat((torch.zeros(1, 10, 1).double(), steps.cumsum(0))) % (2 * math.pi)
    model = lambda p: SDE(lambda t, theta: 0.0 * theta, p["g"])  # noqa: E731, ARG005
    found = fit(theta, ts, model, {"g": 1.0}, positive=("g",))
    assert abs(found.estimates["g"].item() - 2.0) < 4.0 * found.stderr["g"].item() < 0.1
    naive = torch.remainder(theta.diff(dim=0) + math.pi, 2 * math.pi) - math.pi
    assert naive.square().mean().sqrt() < 1.7


@pytest.mark.slow
def test_the_weights_of_a_network_are_found_with_honest_errors() -> None:
    """Twelve directed, signed weights of four oscillators: the sum of squared standard scores is chi-squared."""
    n, off = 4, ~torch.eye(4, dtype=torch.bool)
    weights = random(n, n)[off]

    def model(p: Parameters) -> SDE:
        matrix = torch.zeros(n, n, dtype=torch.float64).masked_scatter(off, p["weights"])
        return KuramotoSDE(n, DenseCoupling(matrix), Schedule.constant(1.0, 0.0, 0.5, horizon=100.0))

    ts = 0.02 * torch.arange(1001, dtype=torch.float64)
    theta = sdeint(model({"weights": weights}), random_angles(3, n), ts, n_steps=4000, generator=0).theta
    found = fit(theta, ts, model, {"weights": torch.zeros(12)})
    scores = (found.estimates["weights"] - weights) / found.stderr["weights"]
    assert scores.square().sum() < scipy.stats.chi2.ppf(0.9999, 12)
    assert found.stderr["weights"].max() < 0.5
    assert found.covariance.shape == (12, 12)


def blind(p: Parameters) -> SDE:
    """A weight of an oscillator in its own sum, which does nothing."""
    matrix = torch.zeros(2, 2, dtype=torch.float64).masked_scatter(torch.tensor([[True, True], [True, False]]), p["w"])
    return KuramotoSDE(2, DenseCoupling(matrix), Schedule.constant(1.0, 0.0, 0.5))


def twofold(p: Parameters) -> SDE:
    """Two frequencies of which only the sum does something."""
    return KuramotoSDE(2, NoCoupling(), Schedule.constant(0.0, 0.0, 0.5), natural_frequency=p["one"] + p["other"])


@pytest.mark.parametrize(
    ("model", "start", "message"),
    [
        (blind, {"w": torch.ones(3)}, r"the data say nothing about w\[0\]: leave these parameters out"),
        (twofold, {"one": 0.0, "other": 0.0}, r"do not tell the parameters apart: along [+-]0\.71 \w+ [+-]0\.71 \w+"),
    ],
)
def test_what_the_data_do_not_identify_is_refused_with_advice(
    model: Callable[[Parameters], SDE], start: dict[str, float | Tensor], message: str
) -> None:
    ts = 0.02 * torch.arange(101, dtype=torch.float64)
    theta = random_angles(1, 2, 2) + 0.1 * random(101, 2, 2).cumsum(0)
    with pytest.raises(ValueError, match=message):
        fit(theta, ts, model, start)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ts": torch.zeros(101).double()}, "increasing times"),
        ({"theta": torch.full((101, 2, 2), math.nan)}, "observed angles"),
        ({"positive": ("one",)}, "one must start above 0"),
        ({"positive": ("K",)}, r"positive names \['K'\], which are no parameters"),
        ({"start": {"one": torch.zeros(500), "other": 0.0}}, "400 steps of angles are fewer than 501 parameters"),
    ],
)
def test_data_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    given = {"theta": random_angles(101, 2, 2), "ts": torch.arange(101).double(), "start": {"one": 0.0, "other": 0.0}}
    with pytest.raises(ValueError, match=message):
        fit(**(given | {"model": twofold} | change))  # type: ignore[arg-type]


def attracted(p: Parameters) -> SDE:
    """One phase that turns and is attracted."""
    return SDE(lambda t, theta: p["w"] - p["K"] * theta.sin(), p["g"], 10.0, event_shape=(1,))


def test_steps_of_any_length_have_the_law_that_fokker_planck_gives() -> None:
    """The law after 0.5 from a wide start, one angle and two, to the tolerance of the spectral solution."""
    one = KuramotoSDE(1, NoCoupling(), Schedule.constant(0.0, 2.0, 0.5, horizon=0.5), natural_frequency=0.5)
    points = torch.arange(64, dtype=torch.float64) * (2 * math.pi / 64)
    h, start = (
        torch.full((64 * 64,), 0.5).double(),
        WrappedNormal(torch.tensor(1.0).double(), torch.tensor(0.5).double()),
    )
    after = spectral_transition(24)(one, 0.0 * h, h, points.repeat_interleave(64)[:, None])
    density = after.log_prob(points.repeat(64)[:, None]).exp().reshape(64, 64)
    found = start.log_prob(points).exp() @ density * (2 * math.pi / 64)
    assert (found - fokker_planck(one, start).at(0.5).log_prob(points).exp()).abs().max() < 1e-10
    two = KuramotoSDE(2, GlobalCoupling(), Schedule.constant(1.0, 0.0, 2.0, horizon=0.5))
    pairs = torch.cartesian_prod(points[::2], points[::2])
    wide = fokker_planck_torus(two, (start, start), modes=32)
    weights = wide.at(0.0).log_prob(pairs).exp() * (2 * math.pi / 32) ** 2
    target = torch.tensor([[0.3, 1.0]], dtype=torch.float64)
    after = spectral_transition(7)(two, 0.0 * h[: len(pairs)], h[: len(pairs)], pairs)
    found = (after.log_prob(target.expand(len(pairs), 2)).exp() * weights).sum()
    assert found.item() == pytest.approx(wide.at(0.5).log_prob(target).exp().item(), abs=1e-5)


def test_coarse_observations_are_read_by_exact_steps() -> None:
    """Half a time apart a wrapped normal misses by ten standard errors, exact steps by at most 3.3."""
    truth = {"w": torch.tensor(0.5).double(), "K": torch.tensor(2.0).double(), "g": torch.tensor(1.0).double()}
    ts = torch.linspace(0.0, 10.0, 21, dtype=torch.float64)
    theta = sdeint(attracted(truth), random_angles(100, 1), ts, n_steps=1000, generator=0).theta
    begin = {"w": 0.0, "K": 1.0, "g": 1.5}
    exact = fit(theta, ts, attracted, begin, positive=("g",), transition=spectral_transition(20))
    coarse = fit(theta, ts, attracted, begin, positive=("g",))
    for name, value in truth.items():
        assert abs(exact.estimates[name] - value) < 3.3 * exact.stderr[name], name
    assert truth["K"] - coarse.estimates["K"] > 10 * coarse.stderr["K"]
    assert exact.log_likelihood > coarse.log_likelihood


@pytest.mark.parametrize(
    ("sde", "angles", "message"),
    [
        (SDE(lambda t, theta: -theta.sin(), 1.0, event_shape=(3,)), 3, "one or two angles"),
        (SDE(lambda t, theta: -theta.sin(), 0.01, event_shape=(1,)), 1, "too narrow for 32 waves"),
        (SDE(lambda t, theta: -float(t) * theta.sin(), 1.0, event_shape=(1,)), 1, "do not change in time"),
        (
            SDE(lambda t, theta: 0.0 * theta, lambda t, theta: theta.sin(), event_shape=(1,), noise="diagonal"),
            1,
            "additive noise",
        ),
    ],
)
def test_exact_steps_are_refused_where_they_are_none(sde: SDE, angles: int, message: str) -> None:
    t, theta = torch.tensor([0.0, 0.5]).double(), torch.zeros(2, angles).double()
    with pytest.raises(ValueError, match=message):
        spectral_transition()(sde, t, torch.full((2,), 0.5).double(), theta)

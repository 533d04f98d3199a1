"""The named problems: what they expect against Monte Carlo, quadrature, conservation of mass; names and pickling."""

import math
import pickle
import subprocess
import sys
from dataclasses import replace
from functools import cache

import pytest
import torch
from scipy import stats

from circsde.exact import problems
from circsde.exact.finite_size import finite_size
from circsde.exact.fokker_planck import Snapshot, fokker_planck, grid
from circsde.exact.problems import Problem
from circsde.kuramoto import KuramotoSDE
from circsde.laws.gibbs import MeanFieldGibbs
from circsde.sde import ReverseSDE
from circsde.solvers import sdeint
from circsde.torus import TWO_PI

COUPLED = "two_coupled", "two_coupled_well", "mean_field_10", "mean_field_100", "mean_field_1000", "common_noise"
CIRCLE = [name for name in problems.names() if name not in COUPLED]  # not asked of the problems: that would solve them
STATIONARY = ["von_mises_well", "stiff_well", "two_coupled_well", "theta_neuron", "phase_response"]


def gap(problem: Problem, batch: int, steps: int) -> float:
    """The largest miss of an expected value, in standard errors."""
    theta = problem.sample(batch, torch.Generator().manual_seed(11))
    ends = sdeint(problem.sde, theta, (0.0, problem.sde.horizon), n_steps=steps, generator=12).theta[-1]
    misses = []
    for observable in problem.observables:
        values = observable.function(ends)
        error = values.std().item() / math.sqrt(batch)
        misses.append(abs(values.mean().item() - observable.expected) / (error + problem.uncertainty))
    return max(misses)


@pytest.mark.parametrize("name", [name for name in problems.names() if not name.startswith("mean_field")])
def test_expected_values_agree_with_fine_simulations(name: str) -> None:
    """Every mean within 4.5 standard errors: a false-alarm rate below 1e-4 per problem (seeded)."""
    assert gap(problems.get(name), batch=4000, steps=200) < 4.5


def test_a_hundred_oscillators_agree_with_fine_simulations() -> None:
    """As above, within the uncertainty; the limit without its 1/N correction is noticed."""
    problem = problems.get("mean_field_100")
    assert gap(problem, batch=4000, steps=40) < 4.5
    assert isinstance(problem.sde, KuramotoSDE)
    assert not isinstance(problem.start, tuple)
    limit = fokker_planck(problem.sde.schedule, problem.start).moment(1.0, 1)
    assert abs(limit.imag - problem.observables[1].expected) > 8 * problem.uncertainty


def test_ten_oscillators_agree_with_fine_simulations() -> None:
    """As above; the mean-field limit with its correction of order 1/N is off by more than 0.05 there."""
    problem = problems.get("mean_field_10")
    assert problem.uncertainty <= 1e-3
    assert gap(problem, batch=8000, steps=40) < 4.5
    assert not isinstance(problem.start, tuple)
    assert isinstance(problem.sde, KuramotoSDE)
    law = finite_size(problem.sde.schedule, problem.start)
    assert abs(law.moment(1.0, 3, 10).imag - problem.observables[5].expected) > 0.05


def test_a_changed_problem_travels_as_what_it_holds() -> None:
    """It used to arrive as the one whose name it has; its observables are functions that cannot be pickled."""
    changed = replace(problems.get("drifting"), uncertainty=0.1, observables=())
    assert pickle.loads(pickle.dumps(changed)).uncertainty == 0.1
    assert pickle.loads(pickle.dumps(problems.get("drifting"))) is problems.get("drifting")


def test_the_list_of_problems_is_that_of_what_can_be_built() -> None:
    for name in problems.names():
        assert problems.get(name).name == name
    script = "import sys, circsde.commands.tables as t; t.problem_table(); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"  # a second is saved


def test_a_law_on_the_circle_is_known_unless_angles_are_coupled() -> None:
    assert [name for name in problems.names() if isinstance(problems.get(name).target, Snapshot)] == CIRCLE


@pytest.mark.parametrize("name", CIRCLE)
def test_target_has_the_expected_moments(name: str) -> None:
    problem, theta = problems.get(name), grid(512)
    assert problem.target is not None
    p = problem.target.log_prob(theta).exp()
    for observable in problem.observables:
        mean = (p * observable.function(theta[:, None])).mean().item() * TWO_PI
        assert mean == pytest.approx(observable.expected, abs=1e-10)


@pytest.mark.parametrize("name", CIRCLE)
def test_samples_follow_the_start(name: str) -> None:
    """Kolmogorov-Smirnov at a false-alarm rate of 1e-4 per problem (seeded)."""
    problem = problems.get(name)
    theta = problem.sample(3000, torch.Generator().manual_seed(2))
    assert theta.shape == (3000, 1)
    assert not isinstance(problem.start, tuple)
    points = grid(4096)
    cdf = torch.cumsum(problem.start.log_prob(points).exp(), 0) * TWO_PI / 4096
    place = torch.searchsorted(points, theta.flatten().sort().values).clamp(max=4095)
    assert stats.ks_1samp(cdf[place].numpy(), stats.uniform.cdf).pvalue > 1e-4


@pytest.mark.parametrize("name", [name for name in STATIONARY if name in CIRCLE])
def test_stationary_law_stays_put(name: str) -> None:
    problem = problems.get(name)
    assert problem.stationary is not None
    law = fokker_planck(problem.sde, problem.stationary)
    assert max(abs(law.moment(1.0, k) - law.moment(0.0, k)) for k in range(10)) < 1e-10


def test_gibbs_law_of_two_stays_put() -> None:
    """From 40,000 exact draws no mean changes in unit time by 4.5 standard errors (false alarms below 1e-4; seeded)."""
    problem = problems.get("two_coupled_well")
    assert isinstance(problem.stationary, MeanFieldGibbs)
    theta = problem.stationary.sample((40_000,), generator=torch.Generator().manual_seed(1)).double()
    later = sdeint(problem.sde, theta, (0.0, 1.0), n_steps=50, generator=2).theta[-1]
    for observable in problem.observables:
        change = observable.function(later) - observable.function(theta)
        assert abs(change.mean().item()) < 4.5 * change.std().item() / 200


def test_stationary_laws_are_known_at_constant_rates() -> None:
    known = [name for name in problems.names() if problems.get(name).stationary is not None]
    assert known == STATIONARY


def test_probability_flow_carries_mass_along() -> None:
    """Between two trajectories the mass is conserved: F_T(x) - F_T(y) becomes F_0(x') - F_0(y')."""
    problem = problems.get("probability_flow")
    assert isinstance(problem.sde, ReverseSDE)
    theta = torch.linspace(-3.0, 3.0, 40, dtype=torch.float64)[:, None]
    ends = sdeint(problem.sde, theta, (0.0, 1.0), n_steps=800, generator=0).lifted[-1, :, 0]
    assert isinstance(problem.target, Snapshot)
    law = problem.target.law
    turns = torch.floor((ends + math.pi) / TWO_PI)
    before = law.cdf(1.0, theta[:, 0])
    after = law.cdf(0.0, ends - TWO_PI * turns) + turns
    assert ((after - after[0]) - (before - before[0])).abs().max() < 1e-4


def test_problems_travel_by_name() -> None:
    kept = [problems.get(name) for name in problems.names()]
    texts = [pickle.dumps(problem) for problem in kept]
    assert max(len(text) for text in texts) < 100
    assert all(pickle.loads(text) is problem for problem, text in zip(kept, texts, strict=True))


def test_where_a_problem_arrives_it_is_solved_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [problems.get("von_mises_well"), problems.get("reverse")]
    texts = [pickle.dumps(problem) for problem in kept]
    monkeypatch.setattr(problems, "get", cache(problems.get.__wrapped__))  # another process remembers none
    for problem, text in zip(kept, texts, strict=True):
        again = pickle.loads(text)
        assert again is not problem
        assert again.name == problem.name
        assert [o.expected for o in again.observables] == [o.expected for o in problem.observables]


def test_every_problem_says_what_it_is_without_being_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "get", cache(problems.get.__wrapped__))
    monkeypatch.setattr(problems, "_BUILDERS", {name: pytest.fail for name in problems.names()})
    lines = [problems.describe(name) for name in problems.names()]
    assert all(20 < len(line) < 130 for line in lines)
    assert len(set(problems.names())) == len(lines) >= 6


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no problem 'well'; there are wrapped_brownian_motion, von_mises_well"):
        problems.get("well")

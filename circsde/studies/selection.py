"""Which method, how many steps, and where: the cheapest that is certain to meet a tolerance."""

import math
from collections.abc import Sequence
from dataclasses import replace

import xarray as xr

from circsde.sde import SDE, ReverseSDE
from circsde.solvers.methods import Method
from circsde.solvers.trajectory import ADAPTIVE
from circsde.studies.accuracy import exact_convergence, has_law
from circsde.studies.candidates import check_methods, default_methods
from circsde.studies.choice import Choice
from circsde.studies.clock import clocks
from circsde.studies.convergence import check_steps, plan
from circsde.studies.equal_errors import equal_errors
from circsde.studies.experiment import Experiment, Variation, experiment
from circsde.studies.flows import is_flow, plan_flow
from circsde.studies.grids import EQUAL_ERRORS
from circsde.studies.judgement import judged
from circsde.studies.looks import Looks, Plans
from circsde.studies.offers import Offer
from circsde.studies.result import METRICS, STATIONARY, WEAK
from circsde.studies.runner import Runner
from circsde.studies.search import climb, search_by_law, search_by_paths

COSTS = ("nfe", "seconds")

_RESOLUTION = 0.01
"""The resolution of a law, relative to the tolerance."""


def select(
    subject: Experiment | SDE | str,
    tolerance: float,
    *,
    metric: str = WEAK,
    methods: Sequence[str | Method] | None = None,
    steps: Sequence[int] | None = None,
    atol: Sequence[float] | None = None,
    stochasticity: Sequence[float] | None = None,
    power: Sequence[float] | None = None,
    cost: str = "nfe",
    monte_carlo: bool = False,
    budget: float = 1e9,
    refinement: int = 8,
    seed: int = 0,
    confidence: float = 0.95,
    runner: Runner | None = None,
) -> Choice:
    r"""Find the cheapest method and setting whose error has an upper confidence bound within ``tolerance``.

    The cost is counted in drift evaluations per path, or in seconds. Weak errors of one or two angles that start from a
    known law are decided by transfer operators, without sampling noise, where the drift is smooth. All others are
    sampled, with four times as many fresh paths at each look, until every cheaper candidate is ruled out, or known to a
    tenth of the tolerance, or the budget is spent. Look ``i`` spends ``6 / (pi i)^2`` of the error probability, so that
    the intervals cover at all looks together. Of candidates that cost the same, the more accurate is chosen.

    Where no steps are named they are searched for, from one to 1024: doubled until the tolerance is met, and then
    between the last two, so that the cost is within a tenth of the cheapest. That takes errors to fall with the steps.

    What is sampled rests on a reference, SRA1 with many steps, which a method of another kind must approach: the
    splitting method where it applies, else Heun's. Otherwise the verdict is "not resolved".

    Args:
        subject: A problem or its name, an SDE, or a :class:`~circsde.studies.experiment.Simulation`.
        tolerance: The largest error that is accepted; in radians for the strong metric.
        metric: ``"weak"``: the largest error of an observable's mean; ``"strong"``: the root-mean-square distance;
            ``"stationary"``: as :func:`~circsde.studies.accuracy.exact_convergence` says.
        methods: Candidates; by default ours to which the metric applies and that apply to the equation, on a
            probability flow torchdiffeq's adaptive ones.
        steps: Numbers of steps on offer; by default they are searched for.
        atol: On a probability flow: absolute tolerances on offer, rad; by default those of
            :func:`~circsde.studies.flows.flow_convergence`.
        stochasticity: On a reversed SDE: values of ``l`` on offer; by default only the equation's own.
        power: Grids on offer, by the exponent p of their times ``T - T (1 - i/n)^p``: 1 for equal steps, 2 for steps
            that shrink towards the horizon; on a reversed SDE also 0, which stands for steps of equal local errors, see
            :func:`~circsde.studies.equal_errors.equal_errors`. By default equal steps, and on a reversed SDE, where
            steps are searched for, also 2, without noise also 0.
        cost: ``"nfe"``: evaluations of the drift; ``"seconds"``: the time of a solve, measured here, see
            :func:`~circsde.studies.clock.clocks`.
        monte_carlo: Sample, even where the law is known.
        budget: The most evaluations of the drift of one angle to spend on sampling, all solves counted.
        refinement: The reference takes at least this many times the largest number of steps.
        seed: The seed of starts and paths.
        confidence: The probability with which the error of the choice is below its upper bound.
        runner: The runner that computes cells and keeps them.

    Returns:
        The choice: ``method``, ``n_steps`` or ``atol``, ``stochasticity``, ``power``, ``nfe``, ``verdict``, ``advice``,
        ``settings`` for :func:`~circsde.sdeint`, and the evidence as ``dataset``. On a flow ``nfe`` is that of a batch
        of starts (the attribute ``batch`` of the dataset).

    Raises:
        ValueError: For a tolerance that is not positive, an unknown metric, method, cost or problem, nothing on offer,
            a power that is not positive, or a budget below that of the first look.

    >>> select("drifting", 0.01, methods=["euler_maruyama", "heun"])
    Choice(method='heun', n_steps=14, verdict='resolved')
    """
    subject = experiment(subject)
    if not 0.0 < tolerance < math.inf:
        raise ValueError(f"the tolerance must be positive and finite, got {tolerance}")
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose one of {', '.join(METRICS)}")
    if cost not in COSTS:
        raise ValueError(f"unknown cost {cost!r}; choose one of {', '.join(COSTS)}")
    looks = Looks(tolerance, confidence, budget, runner)
    names = list(ADAPTIVE) if methods is None else list(methods)
    if is_flow(subject) and stochasticity is None and names and all(name in ADAPTIVE for name in names):
        if cost != "nfe":
            raise ValueError("adaptive methods on a flow are compared by evaluations: leave out cost, or name ours")
        flow = plan_flow(subject, metric, [str(name) for name in names], atol, seed)
        offers = [Offer(subject, flow.methods)]
        table = looks.at([(offers[0], flow)], None)
        assert table is not None
        return Choice(judged(table, offers, looks, strict=True))
    chosen = default_methods(subject, metric) if methods is None else list(methods)
    check_methods(chosen, subject.sde)
    ladder = None if steps is None else check_steps(steps)
    offers = _offers(subject, metric, chosen, stochasticity, power, searched=ladder is None)
    about: dict[str, object] = {}
    if cost == "seconds":
        times, about = clocks(offers, seed)
        offers = [replace(offer, clocks=times) for offer in offers]
    by_law, by_paths = _ways(offers, metric, monte_carlo)

    def law(offer: Offer, labels: Sequence[str], counts: Sequence[int]) -> xr.Dataset:
        some = [offer.solvers[label] for label in labels]
        if metric == STATIONARY:
            return offer.row(exact_convergence(offer.subject, metric, some, counts, runner=runner))
        fine, times = _RESOLUTION * tolerance, offer.grading
        found = exact_convergence(offer.subject, metric, some, counts, power=times, resolution=fine, runner=runner)
        return offer.row(found)

    def plans(offer: Offer, labels: Sequence[str], counts: Sequence[int]) -> Plans:
        some = [offer.solvers[label] for label in labels]
        return [(offer, plan(offer.subject, metric, some, counts, refinement, seed, offer.grading))]

    if ladder is None:
        table = search_by_law(by_law, tolerance, law)
        table = search_by_paths(by_paths, looks, plans, table)
    else:
        table = climb(by_law, ladder, tolerance, law)
        if by_paths:
            table = looks.at([one for offer in by_paths for one in plans(offer, [*offer.solvers], ladder)], table)
    assert table is not None
    return Choice(judged(table.assign_attrs(about), offers, looks, strict=ladder is not None))


def _offers(
    subject: Experiment,
    metric: str,
    methods: Sequence[str | Method],
    stochasticity: Sequence[float] | None,
    power: Sequence[float] | None,
    *,
    searched: bool,
) -> list[Offer]:
    """Everything on offer: methods on every equation and every kind of grid."""
    if power is None:
        power = (1.0,)
        if searched and metric != STATIONARY and isinstance(subject.sde, ReverseSDE):
            power = (1.0, 2.0) if subject.sde.stochasticity else (1.0, 2.0, EQUAL_ERRORS)
    if not power or not all(0.0 <= p < math.inf for p in power):
        raise ValueError(
            f"powers of grids must be positive, or {EQUAL_ERRORS:g} for equal errors, got {list(power)}; 1 is for equal"
            " steps"
        )
    if metric == STATIONARY and tuple(power) != (1.0,):
        raise ValueError("a stationary law is that of equal steps: leave out power")
    subjects = [subject] if stochasticity is None else [Variation(subject, level) for level in stochasticity]
    times = equal_errors(subject) if EQUAL_ERRORS in power else ()
    return [Offer(one, tuple(methods), float(p), times if p == EQUAL_ERRORS else ()) for one in subjects for p in power]


def _ways(offers: Sequence[Offer], metric: str, monte_carlo: bool) -> tuple[list[Offer], list[Offer]]:
    """The offers that transfer operators decide, and those that have to be sampled."""
    if metric == STATIONARY:
        return list(offers), []
    by_law, by_paths = list[Offer](), list[Offer]()
    for offer in offers:
        exact = [m for m in offer.methods if metric == WEAK and not monte_carlo and has_law(offer.subject, [m])]
        rest = [m for m in offer.methods if m not in exact]
        by_law += [replace(offer, methods=tuple(exact))] if exact else []
        by_paths += [replace(offer, methods=tuple(rest))] if rest else []
    return by_law, by_paths

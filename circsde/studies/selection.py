"""Which method, and how many steps: the cheapest that is certain to meet a tolerance."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import xarray as xr

from circsde.exact.problems import Problem
from circsde.sde import SDE
from circsde.solvers.methods import Method
from circsde.solvers.registry import find_method
from circsde.solvers.trajectory import ADAPTIVE
from circsde.studies.accuracy import exact_convergence, has_law
from circsde.studies.advice import NEAR, advice, best, worse_when_finer
from circsde.studies.candidates import check_methods, default_methods
from circsde.studies.choice import Choice
from circsde.studies.convergence import STEPS, check_steps, plan
from circsde.studies.experiment import Experiment, Variation, experiment
from circsde.studies.flows import is_flow, plan_flow
from circsde.studies.monte_carlo import Block, block_size, simulate
from circsde.studies.result import METRICS, STATIONARY, STRONG, WEAK
from circsde.studies.runner import Runner

LEAST = {WEAK: 64, STRONG: 512}
"""Paths at the first look; the mean of a squared distance is often carried by few of them."""

GROWTH = 4  # of the number of paths from look to look

_EVIDENCE = ("error", "lower", "upper", "standard_error", "floor", "nfe", "claimed_order")


def select(
    subject: Experiment | SDE | str,
    tolerance: float,
    *,
    metric: str = WEAK,
    methods: Sequence[str | Method] | None = None,
    steps: Sequence[int] | None = None,
    atol: Sequence[float] | None = None,
    stochasticity: Sequence[float] | None = None,
    monte_carlo: bool = False,
    budget: float = 1e9,
    refinement: int = 8,
    seed: int = 0,
    confidence: float = 0.95,
    runner: Runner | None = None,
) -> Choice:
    r"""The cheapest method and setting whose error has its upper confidence bound within ``tolerance``.

    The cost is counted in drift evaluations per path. Weak errors of one or two angles that start from a known law are
    decided by transfer operators, without sampling noise, where the drift is smooth. All others are sampled, with four
    times as many fresh paths at each look, until every cheaper candidate is ruled out, or known to a tenth of the
    tolerance, or the budget is spent. Look ``i`` spends ``6 / (pi i)^2`` of the error probability, so that the
    intervals cover at all looks together. Of candidates that cost the same, the more accurate is chosen.

    Args:
        subject: A problem or its name, an SDE, or a :class:`~circsde.studies.experiment.Simulation`.
        tolerance: The largest error that is accepted; in radians for the strong metric.
        metric: ``"weak"``: the largest error of an observable's mean; ``"strong"``: the root-mean-square distance;
            ``"stationary"``: as :func:`~circsde.studies.accuracy.exact_convergence` says.
        methods: Candidates; by default ours to which the metric applies and that apply to the equation, on a
            probability flow torchdiffeq's adaptive ones.
        steps: Numbers of steps on offer; by default the problem's own.
        atol: On a probability flow: absolute tolerances on offer, rad; by default those of
            :func:`~circsde.studies.flows.flow_convergence`.
        stochasticity: On a reversed SDE: values of ``l`` on offer; by default only the equation's own.
        monte_carlo: Sample, even where the law is known.
        budget: The most evaluations of the drift of one angle to spend on sampling, all solves counted.
        refinement: The reference takes at least this many times the largest number of steps.
        seed: Of starts and paths.
        confidence: That the chosen candidate's error is below its upper bound.
        runner: Where cells are computed and kept.

    Returns:
        The choice: ``method``, ``n_steps`` or ``atol``, ``stochasticity``, ``nfe``, ``verdict``, ``advice``,
        ``settings`` for :func:`~circsde.sdeint`, and the evidence as ``dataset``. On a flow ``nfe`` is that of a batch
        of starts (the attribute ``batch`` of the dataset).

    Raises:
        ValueError: For a tolerance that is not positive, an unknown metric, method or problem, nothing on offer, or a
            budget below that of the first look.

    >>> select("drifting", 0.01, methods=["euler_maruyama", "heun"])
    Choice(method='heun', n_steps=20, verdict='resolved')
    """
    subject = experiment(subject)
    if not 0.0 < tolerance < math.inf:
        raise ValueError(f"the tolerance must be positive and finite, got {tolerance}")
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose one of {', '.join(METRICS)}")
    subjects = [subject] if stochasticity is None else [Variation(subject, level) for level in stochasticity]
    names = list(ADAPTIVE) if methods is None else list(methods)
    if is_flow(subject) and stochasticity is None and names and all(name in ADAPTIVE for name in names):
        flow = plan_flow(subject, metric, [str(name) for name in names], atol, seed)
        return Choice(_choose(_sample([flow], tolerance, budget, confidence, runner), tolerance, confidence, budget))
    default = subject.steps if isinstance(subject, Problem) else STEPS
    ladder = check_steps(default if steps is None else steps)
    chosen = default_methods(subject, metric) if methods is None else list(methods)
    check_methods(chosen)
    if metric == STATIONARY or (metric == WEAK and not monte_carlo and all(has_law(one, chosen) for one in subjects)):
        table = _climb(subjects, metric, chosen, ladder, tolerance, runner)
    else:
        blocks = [plan(one, metric, chosen, ladder, refinement, seed) for one in subjects]
        table = _sample(blocks, tolerance, budget, confidence, runner)
    return Choice(_choose(table, tolerance, confidence, budget))


def _climb(
    subjects: Sequence[Experiment],
    metric: str,
    methods: Sequence[str | Method],
    ladder: Sequence[int],
    tolerance: float,
    runner: Runner | None,
) -> xr.Dataset:
    """Errors by transfer operators, for more and more steps until nothing cheaper is left."""
    rungs: list[xr.Dataset] = []
    cheapest = min(find_method(method).evaluations(one.sde) for method in methods for one in subjects)
    for n in ladder:
        rows = [_row(exact_convergence(one, metric, methods, [n], runner=runner), one) for one in subjects]
        rungs.append(xr.concat(rows, "solver", join="exact", combine_attrs="override"))
        table = xr.concat(rungs, "steps", data_vars="minimal", join="exact", combine_attrs="override")
        accepted = table["nfe"].where(table["upper"] <= tolerance)
        following = [cheapest * m for m in ladder if m > n]
        if following and float(accepted.min()) <= following[0]:
            break
    return table


def _sample(
    blocks: Sequence[Block], tolerance: float, budget: float, confidence: float, runner: Runner | None
) -> xr.Dataset:
    """Errors by Monte Carlo: looks at more and more fresh paths, and at what is still open only.

    As the candidates that are left become fewer and coarser, so does the reference that they need.

    Raises:
        ValueError: If the first look would spend more than the budget.
    """
    least, cost = LEAST[blocks[0].metric], sum(block.cost() for block in blocks)
    if least * cost > budget:
        raise ValueError(
            f"a first look at {least} paths takes about {least * cost:.2g} evaluations of the drift of one angle, more"
            f" than the budget of {budget:.2g}: allow more, or offer fewer methods, fewer steps or a smaller refinement"
        )
    paths = int(min(max(least, block_size(blocks[0].subject) // 8), budget // cost))
    first, work = 0, 0.0
    table: xr.Dataset | None = None
    for look in count(1):
        level = 1.0 - (1.0 - confidence) * 6.0 / (math.pi * look) ** 2
        samples = [simulate(replace(block, first=first), paths, runner) for block in blocks]
        rows = [
            _row(block.tabulate(sample, level), block.subject) for block, sample in zip(blocks, samples, strict=True)
        ]
        seen = xr.concat(rows, "solver", join="outer", combine_attrs="override")
        table = seen if table is None else seen.reindex_like(table).fillna(table)
        spent = sum(sample.work for sample in samples)
        work += spent
        left = _open(table, tolerance)
        if not left.any() or work + GROWTH * spent > budget:
            break
        first, paths = first + paths, GROWTH * paths
        blocks = [narrowed for block in blocks if (narrowed := _narrow(block, left)) is not None]
    assert table is not None
    return table.assign_attrs(work=work)


def _narrow(block: Block, left: xr.DataArray) -> Block | None:
    """What is still open of a block, if anything."""
    labels = [_label(name, block.subject) for name in block.solvers]
    mine = left.sel({"solver": labels, left.dims[1]: list(block.settings)}).to_numpy()
    rows, columns = ([any(line) for line in lines.tolist()] for lines in (mine, mine.T))
    return block.narrow(rows, columns) if any(rows) else None


def _row(table: xr.Dataset, subject: Experiment) -> xr.Dataset:
    """The evidence, its solvers named by method and, where that is to be chosen, stochasticity."""
    methods = table["solver"].values.tolist()
    level = subject.stochasticity if isinstance(subject, Variation) else math.nan
    paths = xr.full_like(table["error"], table.attrs.get("paths", 0)).assign_attrs(long_name="paths", units="1")
    labels = [_label(name, subject) for name in methods]
    evidence = table[[name for name in _EVIDENCE if name in table]]
    row = evidence.assign(paths=paths, method=("solver", methods)).assign_coords(solver=labels)
    row["stochasticity"] = ("solver", [level] * len(methods))
    return row.assign_attrs(problem=subject.base.name if isinstance(subject, Variation) else subject.name)


def _label(method: str, subject: Experiment) -> str:
    return f"{method}, l = {subject.stochasticity:g}" if isinstance(subject, Variation) else method


def _open(table: xr.Dataset, tolerance: float) -> xr.DataArray:
    """Candidates that more paths could still make the choice."""
    price = table["nfe"].where(table["upper"] <= tolerance).min()
    undecided = (table["upper"] > tolerance) & (table["lower"] <= tolerance)
    vague = 4.0 * table["standard_error"] > NEAR * tolerance
    return undecided & vague & ~(table["nfe"] >= price)


def _choose(table: xr.Dataset, tolerance: float, confidence: float, budget: float) -> xr.Dataset:
    """The evidence, with the choice, how certain it is, and what would make it certain as attributes."""
    setting = str(table["error"].dims[1])
    accepted, rejected = table["upper"] <= tolerance, table["lower"] > tolerance
    strange = worse_when_finer(accepted, rejected)
    said: dict[str, Any] = {}
    if accepted.any():
        chosen = best(table, accepted)
        said = {name: chosen[name].item() for name in ("method", setting, "stochasticity", "nfe")}
        said = {f"selected_{name}": value for name, value in said.items() if value == value}  # without NaN
    cheaper = table["nfe"] < said.get("selected_nfe", math.inf)
    doubtful = ~accepted & ~rejected & table["error"].notnull() & cheaper
    said |= {
        "verdict": "resolved" if accepted.any() and not doubtful.any() and not strange.any() else "not resolved",
        "advice": advice(table, tolerance, accepted, doubtful, strange),
        "tolerance": tolerance,
        "metric": table.attrs["metric"],
        "confidence": confidence,
        "budget": budget,
    }
    dims = table["error"].dims
    chosen = table.assign(
        accepted=(dims, accepted.to_numpy(), {"long_name": "upper bound within the tolerance"}),
        rejected=(dims, rejected.to_numpy(), {"long_name": "lower bound above the tolerance"}),
    )
    about = {name: value for name, value in table.attrs.items() if name not in ("paths", "reference")}
    chosen.attrs = about | said
    return chosen

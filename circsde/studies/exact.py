"""Convergence studies free of sampling noise: each method's own law against the exact one, at several step sizes."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from circsde.contracts import Law
from circsde.exact import problems
from circsde.exact.problems import Problem
from circsde.record import provenance
from circsde.sde import SDE
from circsde.solvers.methods import METHODS, Method
from circsde.solvers.registry import find_method, forms
from circsde.studies.transfer import NumericalLaw, numerical_law, stationary_law

DISTANCES = {
    "moment_error": ("1", "largest error of a low trigonometric moment"),
    "total_variation": ("1", "total variation distance to the exact law"),
    "divergence": ("nat", "Kullback-Leibler divergence of the numerical from the exact law"),
}


def law_convergence(
    problem: str | Problem,
    methods: Sequence[str | Method] | None = None,
    steps: Sequence[int] | None = None,
    *,
    tolerance: float | None = None,
) -> xr.Dataset:
    """Weak errors of methods at the horizon of a problem with one or two phases, without Monte Carlo (eq. 9).

    Args:
        problem: A problem with a ``target``, or its name.
        methods: Methods, or their names; by default all of ours for the kind of noise.
        steps: Step counts, by default the problem's.
        tolerance: See :func:`circsde.studies.transfer.numerical_law`.

    Returns:
        A Dataset over ``solver`` and ``steps``: ``moment_error``, the largest error over ``E e^{im theta}``, m = 1..5
        (T^2: up to 2 in each phase); ``total_variation``; ``divergence``; ``bias`` of every observable, also over
        ``observable``; ``resolution`` and ``spectral_tail``, see :class:`NumericalLaw`; ``order``, the slope of
        ``moment_error`` from the step count before; ``drift_evaluations``. ``claimed_order`` over ``solver``.

    Raises:
        ValueError: If the problem's target is not known, or a method is not.
    """
    problem = problems.get(problem) if isinstance(problem, str) else problem
    if problem.target is None:
        raise ValueError(f"the law of {problem.name!r} is not known; use the Monte-Carlo studies")
    chosen, counts = _chosen(problem.sde, methods), problem.steps if steps is None else tuple(steps)

    def solve(method: Method, n: int) -> NumericalLaw:
        return numerical_law(method, problem.sde, problem.start, n, tolerance)

    data, laws = _table(problem, problem.target, chosen, counts, solve)
    names = [observable.name for observable in problem.observables]
    exact = np.array([observable.expected for observable in problem.observables])
    bias = np.array([[[law.mean(o.function) for o in problem.observables] for law in row] for row in laws]) - exact
    data["bias"] = (("solver", "steps", "observable"), bias, {"units": "1", "long_name": "numerical minus exact mean"})
    data = data.assign_coords(observable=names)
    data["claimed_order"] = ("solver", [method.weak_order for method in chosen], {"units": "1"})
    return data


def stationary_convergence(
    problem: str | Problem,
    methods: Sequence[str | Method] | None = None,
    steps: Sequence[int] | None = None,
    *,
    tolerance: float | None = None,
) -> xr.Dataset:
    """The bias of each method's stationary law, at the step sizes ``horizon / steps``, without Monte Carlo (eq. 9).

    Args:
        problem: A problem with a ``stationary`` law, or its name.
        methods: Methods, or their names; by default all of ours for the kind of noise.
        steps: Steps per horizon, by default the problem's.
        tolerance: See :func:`circsde.studies.transfer.stationary_law`.

    Returns:
        A Dataset as from :func:`law_convergence`, without ``bias``.

    Raises:
        ValueError: If the problem has no stationary law, or a method is not known.
    """
    problem = problems.get(problem) if isinstance(problem, str) else problem
    if problem.stationary is None:
        raise ValueError(f"{problem.name!r} has no known stationary law: its rates change, or it never settles")
    chosen, counts = _chosen(problem.sde, methods), problem.steps if steps is None else tuple(steps)

    def solve(method: Method, n: int) -> NumericalLaw:
        return stationary_law(method, problem.sde, problem.sde.horizon / n, tolerance)

    data, _ = _table(problem, problem.stationary, chosen, counts, solve)
    data["claimed_order"] = ("solver", [method.invariant_order for method in chosen], {"units": "1"})
    return data


def _chosen(sde: SDE, methods: Sequence[str | Method] | None) -> list[Method]:
    """Methods in their forms for an equation; by default all of ours for its kind of noise."""
    if methods is None:
        return list(METHODS.values()) if sde.noise == "additive" else forms(sde)
    return [find_method(method, sde) for method in methods]


def _table(
    problem: Problem,
    exact: Law,
    chosen: Sequence[Method],
    counts: Sequence[int],
    solve: Callable[[Method, int], NumericalLaw],
) -> tuple[xr.Dataset, list[list[NumericalLaw]]]:
    """The distances of every law from the exact one, and the laws."""
    laws = [[solve(method, n) for n in counts] for method in chosen]
    distances = np.array([[law.against(exact) for law in row] for row in laws])
    grid = ("solver", "steps")
    variables = {
        name: (grid, distances[..., i], {"units": units, "long_name": long_name})
        for i, (name, (units, long_name)) in enumerate(DISTANCES.items())
    }
    errors = distances[..., 0]
    order = np.full(errors.shape, np.nan)
    order[:, 1:] = np.log(errors[:, :-1] / errors[:, 1:]) / np.log(np.divide(counts[1:], counts[:-1]))
    evaluations = [[method.work(problem.sde, n) for n in counts] for method in chosen]
    return xr.Dataset(
        variables
        | {
            "resolution": (grid, [[law.resolution for law in row] for row in laws], {"units": "1"}),
            "spectral_tail": (grid, [[law.tail for law in row] for row in laws], {"units": "1"}),
            "order": (grid, order, {"units": "1"}),
            "drift_evaluations": (grid, evaluations, {"units": "1"}),
        },
        coords={
            "solver": [method.name for method in chosen],
            "steps": ("steps", list(counts), {"units": "1"}),
            "h": ("steps", problem.sde.horizon / np.array(counts), {"long_name": "step size"}),
        },
        attrs={"problem": problem.name, **provenance(problem=problem.name, steps=list(counts))},
    ), laws

"""One call for every metric of accuracy study: without sampling noise where the law is known, else by Monte Carlo."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from circsde.contracts import takes_old_name
from circsde.exact.problems import Problem
from circsde.sde import SDE
from circsde.solvers.methods import Method
from circsde.solvers.registry import find_method
from circsde.studies.candidates import check_methods, default_methods
from circsde.studies.content import digest
from circsde.studies.convergence import STEPS, check_steps, strong_convergence, weak_convergence
from circsde.studies.equal_errors import grading
from circsde.studies.exact import stationary_convergence
from circsde.studies.experiment import Experiment, as_problem, experiment
from circsde.studies.grids import Grading
from circsde.studies.markov import dimensions
from circsde.studies.paths import method_name
from circsde.studies.propagation import has_operator
from circsde.studies.result import METRICS, STATIONARY, STRONG, WEAK, ByObservable, Errors, assemble
from circsde.studies.runner import Runner
from circsde.studies.transfer import numerical_law


@takes_old_name("kind", "metric")
def study(
    subject: Experiment | SDE | str,
    metric: str = WEAK,
    methods: Sequence[str | Method] | None = None,
    steps: Sequence[int] | None = None,
    *,
    monte_carlo: bool = False,
    paths: int | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    runner: Runner | None = None,
) -> xr.Dataset:
    """Measure errors and orders of methods on a problem.

    Weak errors of one or two angles that start from a known law, and stationary errors, come from transfer operators,
    free of sampling noise. All others, also where methods remember more than the last state, come from
    :func:`strong_convergence` and :func:`weak_convergence`.

    Args:
        subject: A problem or its name, an SDE, or a :class:`~circsde.studies.experiment.Simulation`.
        metric: ``"strong"``, ``"weak"`` or ``"stationary"``.
        methods: The methods; by default all of circsde's to which the metric applies and that apply to the equation.
        steps: The numbers of steps; by default those of the problem.
        monte_carlo: Sample, even where the law is known.
        paths: See :func:`strong_convergence` and :func:`weak_convergence`.
        seed: The same.
        confidence: The same.
        runner: The runner that computes cells and keeps them.

    Returns:
        As :func:`strong_convergence`, in one form for all metrics.

    Raises:
        ValueError: For an unknown metric, method or problem, or where there is no stationary law to compare with.

    >>> table = study("von_mises_well", "stationary", ["euler_maruyama", "leimkuhler_matthews"], [40, 80, 160])
    >>> table["order"].values.round(1).tolist()
    [1.0, 2.0]
    """
    subject = experiment(subject)
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose one of {', '.join(METRICS)}")
    if methods is not None:
        check_methods(methods, subject.sde)
    steps = tuple(steps) if steps is not None else subject.steps if isinstance(subject, Problem) else STEPS
    if metric == STATIONARY or (metric == WEAK and has_law(subject, methods) and not monte_carlo):
        return exact_convergence(subject, metric, methods, steps, runner=runner)
    converge = strong_convergence if metric == STRONG else weak_convergence
    return converge(subject, methods, steps, paths=paths, seed=seed, confidence=confidence, runner=runner)


def has_law(subject: Experiment, methods: Sequence[str | Method] | None = None) -> bool:
    """Whether the laws that methods make of this problem are quickly computed, and compared with the exact one."""
    if not all(has_operator(find_method(method, subject.sde), subject.sde) for method in methods or ()):
        return False
    problem = as_problem(subject)
    return problem is not None and problem.target is not None


@takes_old_name("kind", "metric")
def exact_convergence(
    subject: Experiment | str,
    metric: str = WEAK,
    methods: Sequence[str | Method] | None = None,
    steps: Sequence[int] = STEPS,
    *,
    power: Grading = 1.0,
    resolution: float | None = None,
    runner: Runner | None = None,
) -> xr.Dataset:
    """Compute weak or stationary errors from transfer operators (eq. 9), in the form of :func:`weak_convergence`.

    The interval is what is left of the grid's refinement, and the uncertainty of the expected values.

    Args:
        subject: A problem with a known law, or its name.
        metric: ``"weak"``: the largest error of an observable's mean at the horizon; or ``"stationary"``: the largest
            error of a trigonometric moment under the stationary law.
        methods: Names or methods; by default all of ours that apply.
        steps: Numbers of steps over the horizon.
        power: Weak errors: of the grids of times, ``t_i = T - T (1 - i/n)^p``; 1 for equal steps. 0 stands for the grid
            of equal local errors of a reversed equation, or give the times that it was made of.
        resolution: Weak errors: refine until no low moment changes by more; by default 1e-9, on two angles 1e-4.
        runner: The runner that computes cells and keeps them.

    Raises:
        ValueError: If the law is not known, or a method is not, or remembers earlier steps.

    >>> table = exact_convergence("von_mises_well", methods=["heun"], steps=[20, 40, 80])
    >>> round(table["order"].item(), 1), table.attrs["evidence"]
    (2.0, 'transfer operators')
    """
    subject = experiment(subject)
    problem = as_problem(subject)
    if problem is None or (problem.target if metric == WEAK else problem.stationary) is None:
        raise ValueError(
            f"the {metric} law of {subject.name or 'this SDE'} is not known: use a Monte-Carlo study, or one or two"
            " angles that start from a law" + (" at constant rates" if metric == STATIONARY else "")
        )
    methods = default_methods(subject, metric) if methods is None else methods
    chosen, ladder = check_methods(methods, subject.sde), check_steps(steps)
    times = power if isinstance(power, tuple) else grading(subject, power)
    cells = [ExactCell(subject, metric, method, n, times, resolution) for method in methods for n in ladder]
    results = (runner or Runner()).map(cells)
    shape = len(chosen), len(ladder)
    signed = np.stack([result["bias"].to_numpy() for result in results]).reshape(*shape, -1)
    uncertainty = np.array([float(result["resolution"]) for result in results]).reshape(shape)
    uncertainty = uncertainty + problem.uncertainty
    reach = uncertainty[..., None]
    names = [o.name for o in subject.observables] if metric == WEAK else ["largest moment"]
    error = np.abs(signed).max(-1)
    errors = Errors(
        error=error,
        lower=np.maximum(0.0, error - uncertainty),
        upper=error + uncertainty,
        standard_error=np.zeros(shape),
        floor=uncertainty,
        paths_needed=np.zeros(shape),
        covariance=np.zeros((*shape, shape[1])),
    )
    details = ByObservable(names, signed, signed - reach, signed + reach)
    nfe = np.array([[method.work(subject.sde, n) for n in ladder] for method in chosen], dtype=np.float64)
    return assemble(metric, subject, chosen, ladder, nfe, errors, details, evidence="transfer operators")


@dataclass(frozen=True)
class ExactCell:
    """The law that one method makes with one number of steps, against the exact one."""

    subject: Experiment
    metric: str
    method: str | Method
    steps: int
    grading: Grading = 1.0
    resolution: float | None = None

    def key(self) -> str:
        """What determines the result, as text: in words, and the digest of its content."""
        words = json.dumps([self.subject.name, self.metric, method_name(self.method), self.steps, self.grading])
        return f"exact {words} {digest((self, find_method(self.method, self.subject.sde)))}"

    def compute(self) -> xr.Dataset:
        """``bias`` over observable, and ``resolution``."""
        problem, method = as_problem(self.subject), find_method(self.method, self.subject.sde)
        assert problem is not None
        if self.metric == STATIONARY:
            result = stationary_convergence(problem, [method], [self.steps]).isel(solver=0, steps=0)
            return xr.Dataset(
                {
                    "bias": result["moment_error"].expand_dims("observable"),
                    "resolution": ((), float(result["resolution"])),
                }
            )
        tolerance = self.resolution
        if tolerance is None and dimensions(problem.sde) == 2:
            tolerance = 1e-4  # a finer grid takes three times as long
        law = numerical_law(method, problem.sde, problem.start, self.steps, tolerance, self.grading)
        bias = [law.mean(observable.function) - observable.expected for observable in problem.observables]
        return xr.Dataset({"bias": ("observable", bias), "resolution": ((), law.resolution)})

"""Probability flows: errors of torchdiffeq's adaptive methods over their tolerance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress

import xarray as xr

from circsde.contracts import takes_old_name
from circsde.sde import SDE, ReverseSDE
from circsde.solvers.flow import odeint
from circsde.solvers.trajectory import ADAPTIVE, least_tolerance
from circsde.studies.candidates import check_start
from circsde.studies.estimates import estimate
from circsde.studies.experiment import Experiment, experiment
from circsde.studies.monte_carlo import Block, End, Sample, Solved, block_size, simulate
from circsde.studies.result import STRONG, error_dataset
from circsde.studies.runner import Runner

REFERENCE = "dopri8"

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


def is_flow(subject: Experiment) -> bool:
    """Whether the equation is a reversed SDE without noise: a probability flow."""
    return isinstance(subject.sde, ReverseSDE) and subject.sde.stochasticity == 0.0


@takes_old_name("kind", "metric")
def flow_convergence(
    subject: Experiment | SDE | str,
    methods: Sequence[str] = ADAPTIVE,
    tolerances: Sequence[float] | None = None,
    *,
    metric: str = STRONG,
    paths: int = 1024,
    seed: int = 0,
    confidence: float = 0.95,
    runner: Runner | None = None,
) -> xr.Dataset:
    """Measure errors of adaptive methods on a probability flow, at the horizon, by absolute tolerance.

    Args:
        subject: A reversed SDE with stochasticity 0, or a problem with one, or its name.
        methods: Names of torchdiffeq's adaptive methods.
        tolerances: The absolute tolerances ``atol``, rad; by default those of :data:`TOLERANCES` that angles of the
            starts' dtype resolve well.
        metric: ``"strong"``: the root-mean-square distance from where a much smaller tolerance leads; or ``"weak"``:
            the largest error of an expectation, as for :func:`~circsde.studies.convergence.weak_convergence`.
        paths: Independent starts.
        seed: The seed of the starts.
        confidence: The confidence level of the intervals.
        runner: The runner that computes cells and keeps them.

    Returns:
        ``error`` with its interval, ``resolved`` and ``nfe`` over (solver, atol). An adaptive method takes the steps
        that the worst of a batch needs, so that ``nfe`` is that of a batch, whose size the attribute ``batch`` tells.

    Raises:
        ValueError: If the equation is no probability flow, or a method is not adaptive.

    >>> from circsde.kuramoto import KuramotoSDE
    >>> from circsde.sde import reverse
    >>> flow = reverse(KuramotoSDE((1,)), lambda t, theta: -theta.sin(), stochasticity=0.0)
    >>> table = flow_convergence(flow, ["dopri5"], tolerances=[1e-2, 1e-4], paths=16)
    >>> (table["error"] < table["atol"]).values.tolist()
    [[True], [True]]
    """
    block = plan_flow(subject, metric, methods, tolerances, seed)
    return block.tabulate(simulate(block, paths, runner), confidence)


def plan_flow(
    subject: Experiment | SDE | str, metric: str, methods: Sequence[str], tolerances: Sequence[float] | None, seed: int
) -> "FlowBlock":
    """Plan what to solve from the given first path on.

    Raises:
        ValueError: If the equation is no probability flow, or a method is not adaptive.
    """
    subject = experiment(subject)
    if not is_flow(subject):
        raise ValueError("a probability flow is needed: reverse(sde, score, stochasticity=0)")
    if unknown := [name for name in methods if name not in ADAPTIVE]:
        raise ValueError(f"unknown adaptive method {unknown[0]!r}; choose among {', '.join(ADAPTIVE)}")
    if not methods or (tolerances is not None and not tolerances):
        raise ValueError(f"a study needs methods and tolerances, got {list(methods)} and {tolerances}")
    resolved = least_tolerance(check_start(subject).dtype)
    if tolerances is None:
        tolerances = [atol for atol in TOLERANCES if atol >= 100.0 * resolved]
    ladder = tuple(sorted(set(tolerances), reverse=True))
    return FlowBlock(subject, metric, seed, 0, 0, tuple(methods), ladder, max(1e-13, resolved))


@dataclass(frozen=True)
class FlowBlock(Block):
    """Adaptive methods over absolute tolerances from the same starts."""

    methods: tuple[str, ...]
    tolerances: tuple[float, ...]
    resolved: float = 1e-13

    @property
    def reference(self) -> float:
        """The tolerance of the reference, a thousandth of the smallest or what the angles' dtype resolves."""
        return max(self.resolved, 1e-3 * self.tolerances[-1])

    @property
    def solvers(self) -> list[str]:
        """The names of the methods."""
        return list(self.methods)

    @property
    def settings(self) -> tuple[float, ...]:
        """The tolerances."""
        return self.tolerances

    def describe(self) -> str:
        """The methods and tolerances, as text."""
        return f"{self.solvers} {self.tolerances}"

    def narrow(self, solvers: Sequence[bool], settings: Sequence[bool]) -> "FlowBlock":
        """Only some of the methods and tolerances."""
        methods, tolerances = compress(self.methods, solvers), compress(self.tolerances, settings)
        return replace(self, methods=tuple(methods), tolerances=tuple(tolerances))

    def tabulate(self, sample: Sample, confidence: float, target: float | None = None) -> xr.Dataset:
        """The errors and costs."""
        errors, details = estimate(self.metric, sample.moments, self.subject, confidence, target)
        return error_dataset(
            self.metric,
            self.subject,
            self.methods,
            "atol",
            sample.nfe,
            errors,
            details,
            evidence="Monte Carlo",
            paths=sample.moments.count,
            seed=self.seed,
            confidence=confidence,
            reference=f"{REFERENCE}, atol {self.reference:g}",
            batch=block_size(self.subject),
        ).assign_coords(atol=("atol", list(self.tolerances), {"long_name": "absolute tolerance", "units": "rad"}))

    def cost(self) -> float:
        """About how many evaluations of the field of one angle a path takes: as two of them do."""
        return replace(self, first=0, count=2).solve().work / 2

    def solve(self) -> Solved:
        """Every method and tolerance, and the reference, from the same starts."""
        theta, sde = self.starts(), self.subject.sde

        def end(method: str, atol: float) -> End:
            solution = odeint(
                sde.drift,
                theta,
                (0.0, sde.horizon),
                method=method,
                atol=atol,
                breakpoints=sde.breakpoints,
                on_failure="return",
            )
            return End.of(solution)

        ends = [[end(method, atol) for atol in self.tolerances] for method in self.methods]
        return Solved(ends, end(REFERENCE, self.reference), end(REFERENCE, 50 * self.reference))

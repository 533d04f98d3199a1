r"""Strong and weak errors by Monte Carlo, with intervals, a floor, and orders fitted only where they are resolved.

Every method and step count is solved on the same Brownian paths as a reference with many more steps. The reference's
own error is bounded by its distance from itself with half the steps: if halving the step at least halves its error,
which holds from order one on, the triangle inequality makes that distance the larger of the two. That is so only where
its steps are stable, which :func:`plan` sees to.
"""

import math
from collections.abc import Sequence

import xarray as xr

from circsde.sde import SDE
from circsde.solvers.methods import Method
from circsde.studies.candidates import check_methods, check_start, default_methods, steepness
from circsde.studies.experiment import Experiment, experiment
from circsde.studies.grids import Grading, longest
from circsde.studies.monte_carlo import Block, angles_per_path, simulate
from circsde.studies.paths import PathBlock
from circsde.studies.result import STRONG, WEAK
from circsde.studies.runner import Runner

STEPS = (5, 10, 20, 40, 80)

MOST_STEPS = 1_000_000
"""The most steps of a reference."""


def strong_convergence(
    subject: Experiment | SDE | str,
    methods: Sequence[str | Method] | None = None,
    steps: Sequence[int] = STEPS,
    *,
    paths: int | None = None,
    refinement: int = 8,
    seed: int = 0,
    confidence: float = 0.95,
    target: float | None = None,
    runner: Runner | None = None,
) -> xr.Dataset:
    r"""Measure the root-mean-square distance ``sqrt(E d(theta_n, theta)^2)`` at the horizon, on one Brownian path.

    ``d^2`` is the squared distance averaged over the angles of a path: geodesic on the torus, and for comparison on the
    lift. Its mean has a Student t interval; that of the root follows on the logarithm by the delta method. The upper
    end leaves room for rare paths that carry much of the error (:func:`~circsde.studies.statistics.rare`). Both ends
    are moved out by the bound on the reference's error, which is also the floor. So intervals cover more often than
    ``confidence`` says.

    Args:
        subject: A problem or its name, an SDE, or a :class:`~circsde.studies.experiment.Simulation`.
        methods: Names, torchsde's as ``"torchsde:srk"``, or methods; by default ours that follow the path and apply to
            the equation.
        steps: Numbers of steps over the horizon.
        paths: Independent paths; by default 8192 angles' worth, at least 256. With the same seed, more paths begin
            with the same ones.
        refinement: The reference takes at least this many times the largest number of steps.
        seed: The seed of starts and paths.
        confidence: The confidence level of the intervals.
        target: ``paths_needed`` brings the half-width down to this, rad; by default to a quarter of each error.
        runner: The runner that computes cells and keeps them.

    Returns:
        ``error``, ``lower``, ``upper`` (rad), ``standard_error``, ``floor``, ``resolved``, ``paths_needed``, ``nfe``
        over (solver, steps); ``order``, ``order_standard_error`` over solver; ``observable_error`` and its interval
        also over observable, which is geodesic or lifted.

    Raises:
        ValueError: For an unknown method or problem, or numbers that make no study.

    >>> table = strong_convergence("noise_dominated", ["heun"], steps=[5, 10, 20], paths=256, refinement=4)
    >>> round(table["order"].item()), table["verdict"].item()
    (1, 'resolved')
    """
    block = plan(subject, STRONG, methods, steps, refinement, seed)
    return block.tabulate(simulate(block, enough(block, 8192) if paths is None else paths, runner), confidence, target)


def weak_convergence(
    subject: Experiment | SDE | str,
    methods: Sequence[str | Method] | None = None,
    steps: Sequence[int] = STEPS,
    *,
    paths: int | None = None,
    refinement: int = 4,
    seed: int = 0,
    confidence: float = 0.95,
    target: float | None = None,
    runner: Runner | None = None,
) -> xr.Dataset:
    r"""Measure the largest error of an expectation at the horizon, ``max_k |E phi_k(theta_n) - E phi_k(theta)|``.

    Each error is the mean over coupled paths of ``phi(theta_n) - phi(reference)``, whose variance is that of the strong
    error; where the exact expectation is known, the reference's own deviation from it is a control variate. Every
    observable has a Student t interval; those of the largest error cover together (Bonferroni). Intervals include the
    bound on the reference's own bias. So they cover more often than ``confidence`` says: 0.97 to 1 of 0.95, measured.

    Args:
        subject: A problem or its name, an SDE, or a :class:`~circsde.studies.experiment.Simulation`.
        methods: Names, torchsde's as ``"torchsde:srk"``, or methods; by default all of ours that apply.
        steps: Numbers of steps over the horizon.
        paths: Independent paths; by default 65536 angles' worth, at least 256. With the same seed, more paths begin
            with the same ones.
        refinement: The reference takes at least this many times the largest number of steps.
        seed: The seed of starts and paths.
        confidence: The confidence level of the intervals.
        target: ``paths_needed`` brings the half-width down to this; by default to a quarter of each error.
        runner: The runner that computes cells and keeps them.

    Returns:
        As for :func:`strong_convergence`; ``observable_error`` is signed.

    Raises:
        ValueError: For an unknown method or problem, or numbers that make no study.

    >>> table = weak_convergence("drifting", ["euler_maruyama"], steps=[5, 10, 20], paths=4096)
    >>> round(table["order"].item()), table["verdict"].item()
    (1, 'resolved')
    """
    block = plan(subject, WEAK, methods, steps, refinement, seed)
    return block.tabulate(simulate(block, enough(block, 65536) if paths is None else paths, runner), confidence, target)


def enough(block: Block, angles: int) -> int:
    """The number of paths that have so many angles together; at least 256, as an interval rests on paths."""
    return max(256, angles // angles_per_path(block.subject))


def plan(
    subject: Experiment | SDE | str,
    metric: str,
    methods: Sequence[str | Method] | None,
    steps: Sequence[int],
    refinement: int,
    seed: int,
    grading: Grading = 1.0,
) -> PathBlock:
    """Plan what to simulate from the given first path on; by default with all methods of circsde that apply.

    The reference is an explicit method too, so that even its coarser solution takes a step of no more than one over the
    rate at which paths approach one another or part (:func:`~circsde.studies.candidates.steepness`): two unstable
    solutions may agree.

    Raises:
        ValueError: For an unknown method or problem, numbers that make no study, starts whose dtype does not fit the
            equation, or one so stiff that the reference would take more than a million steps.
    """
    subject = experiment(subject)
    ladder = check_steps(steps)
    if refinement < 2:
        raise ValueError(f"a study needs a refinement of at least 2, got {refinement}")
    check_start(subject)
    methods = default_methods(subject, metric) if methods is None else methods
    check_methods(methods, subject.sde)
    rate = steepness(subject)
    least = math.ceil(2.0 * longest(subject.sde.horizon, grading) * rate * subject.sde.horizon)
    if max(least, refinement * ladder[-1]) > MOST_STEPS:
        raise ValueError(
            f"the reference would take {max(least, refinement * ladder[-1]):,} steps, more than {MOST_STEPS:,}: paths"
            f" approach or part at a rate of {rate:.3g} over a horizon of {subject.sde.horizon:g}, and the largest"
            f" number of steps is {ladder[-1]:,}; study a shorter horizon or fewer steps"
        )
    return PathBlock(subject, metric, seed, 0, 0, tuple(methods), ladder, refinement, least, grading)


def check_steps(steps: Sequence[int]) -> tuple[int, ...]:
    """Sort different numbers of steps, and check them.

    Raises:
        ValueError: If there are none, or one is not positive.
    """
    ladder = tuple(sorted(set(steps)))
    if not ladder or ladder[0] < 1:
        raise ValueError(f"a study needs at least one number of steps, all positive, got {list(steps)}")
    return ladder

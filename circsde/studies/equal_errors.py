"""A grid found by equalising the local error of a reversed equation: from its score, without data."""

import numpy as np

from circsde.sde import ReverseSDE, reverse
from circsde.solvers.mesh import local_errors, shared_out
from circsde.solvers.methods import HEUN
from circsde.streams import torch_stream
from circsde.studies.experiment import Experiment
from circsde.studies.grids import EQUAL_ERRORS, Grading
from circsde.studies.monte_carlo import angles_per_path

_ANGLES = 256  # the least number of angles on the paths that are tried
_SAMPLES = 4  # the least number of such paths
_PARTS = 48
_PASSES = 4
_LEAST = 1e-3  # relative to the highest density of steps, so that no time is skipped where the error vanishes


def grading(subject: Experiment, power: float) -> Grading:
    """The power itself, or in place of :data:`EQUAL_ERRORS` the times that :func:`equal_errors` finds."""
    return equal_errors(subject) if power == EQUAL_ERRORS else power


def equal_errors(subject: Experiment) -> tuple[float, ...]:
    r"""Times between which a step of Heun's method along the probability flow has the same local error.

    That error is of third order: where its cube root is twice as large, steps become half as long. It is the root mean
    square over at least 256 angles from the start, and four passes over 48 steps take some thousand evaluations of the
    score. With noise the laws on the way are the same, and so is the grid: a path with noise would tell of the noise.

    Raises:
        ValueError: If the equation is not a reversed one.
    """
    sde = subject.sde
    if not isinstance(sde, ReverseSDE):
        raise ValueError(
            f"power {EQUAL_ERRORS:g}, the grid of equal local errors, is for reversed equations, and"
            f" {subject.name or type(sde).__name__} is none: offer positive powers"
        )
    flow, ends = reverse(sde.forward_sde, sde.score, 0.0), [0.0, sde.horizon]
    count = max(_SAMPLES, _ANGLES // angles_per_path(subject))
    theta = subject.sample(count, torch_stream(0, "checks"))
    times = np.linspace(0.0, sde.horizon, _PARTS + 1).tolist()
    for _ in range(_PASSES):
        parts = np.cbrt(local_errors(flow, theta, times, HEUN))
        parts = np.fmax(parts, max(_LEAST * parts.max(), np.finfo(float).tiny))
        times = shared_out(ends, times, parts * (_PARTS - 1e-6) / parts.sum())
    return tuple(times)

r"""``E f`` of the law at the horizon to a tolerance: multilevel Monte Carlo with Romberg weights.

With ``n_l = n_0 2^l`` steps a method of weak order p gives ``E f(theta_l) = E f + c_p h_l^p + c_(p+1) h_l^(p+1) + ...``
where f and the equation are smooth. Weights ``w_l`` with ``sum w_l = 1`` and ``sum w_l h_l^k = 0`` for the first of
these powers leave the others; and

``sum_l w_l E f(theta_l) = sum_l W_l E [f(theta_l) - f(theta_(l-1))]``, ``W_l = w_l + w_(l+1) + ...``,

where both of a difference follow one Brownian path, so that it varies little and takes few paths: most are followed
with ``n_0`` steps only. The paths of different levels are independent.

Sources: Giles 2008, doi:10.1287/opre.1070.0496; Lemaire and Pages 2017, doi:10.3150/16-BEJ822.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from circsde.contracts import SampledLaw
from circsde.noise import wiener_shape
from circsde.sde import SDE
from circsde.solvers.brownian import Brownian
from circsde.solvers.grid import step_grid
from circsde.solvers.integrate import sdeint
from circsde.solvers.methods import Method
from circsde.solvers.precision import field_dtype
from circsde.solvers.registry import find_method
from circsde.streams import key, torch_stream
from circsde.studies.candidates import steepness
from circsde.studies.experiment import Simulation
from circsde.studies.monte_carlo import angles_per_path
from circsde.studies.statistics import Array, quantile
from circsde.typing import Angles, PerSample

_PILOT = 500  # paths that a level begins with
_ANGLES = 1 << 20  # angles that are followed at a time
_LEVELS = 12


@dataclass(frozen=True)
class Level:
    """Statistics of ``f(theta_l) - f(theta_{l-1})``, or of ``f(theta_0)``, over the paths of a level.

    Attributes:
        steps: ``n_l``.
        nfe: Evaluations of the drift that a path takes, with both numbers of steps.
        paths: How many paths.
        mean: The mean of the difference.
        variance: The variance of the difference.
    """

    steps: int
    nfe: int
    paths: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def __add__(self, values: Array) -> "Level":
        """Add the differences on further paths (Chan, Golub and LeVeque 1983, doi:10.1080/00031305.1983.10483115)."""
        n, m = self.paths, len(values)
        shift = float(values.mean()) - self.mean
        scatter = max(n - 1, 0) * self.variance + float(values.var()) * m + shift**2 * n * m / (n + m)
        return Level(self.steps, self.nfe, n + m, self.mean + shift * m / (n + m), scatter / (n + m - 1))


@dataclass(frozen=True)
class Expectation:
    """An expectation with an interval that covers sampling and discretisation.

    Attributes:
        value: The estimate of ``E f``.
        half_width: Half the width of the interval, which covers sampling and ``bias``.
        standard_error: The standard error of the value, by sampling.
        bias: What the discretisation may have left, by the change that the last level made.
        change: That change.
        change_noise: The half-width of its interval.
        confidence: The confidence level of the interval.
        method: The method.
        levels: What was sampled.
    """

    value: float
    half_width: float
    standard_error: float
    bias: float
    change: float
    change_noise: float
    confidence: float
    method: str
    levels: tuple[Level, ...]

    @property
    def interval(self) -> tuple[float, float]:
        """``value`` less and plus ``half_width``."""
        return self.value - self.half_width, self.value + self.half_width

    @property
    def nfe(self) -> int:
        """Evaluations of the drift of one sample, in all."""
        return sum(level.paths * level.nfe for level in self.levels)


def romberg_weights(steps: Sequence[int], order: float) -> Array:
    """Weights ``w`` with ``sum w = 1`` and ``sum w_l steps_l^-k = 0`` for ``k = order, order + 1, ...``.

    >>> romberg_weights([10, 20], 2.0)
    array([-0.33333333,  1.33333333])
    """
    h = steps[0] / np.asarray(steps, dtype=np.float64)
    powers = [0.0, *(order + k for k in range(len(steps) - 1))]
    return np.asarray(np.linalg.solve(np.stack([h**p for p in powers]), np.eye(len(steps))[0]))


@torch.no_grad()
def expectation(
    sde: SDE,
    f: Callable[[Angles], PerSample],
    start: Callable[[int, torch.Generator], Angles] | SampledLaw | tuple[SampledLaw, ...],
    tolerance: float,
    *,
    method: str | Method = "sra1",
    steps: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    budget: float = 1e9,
) -> Expectation:
    r"""Compute ``E f(theta)`` at the horizon to a tolerance, by multilevel Monte Carlo with Romberg weights.

    The half-width is that of sampling, and what the discretisation may have left: ``1/(2^p - 1)``, p the weak order, of
    the change that the finest level made to the mean, with its sampling error. It covers where the levels are
    asymptotic: where the error of the weighted mean falls by ``2^p`` or more when a level is added.

    Args:
        sde: The equation.
        f: ``(batch, *event) -> (batch,)``, of angles at the horizon, radians. Its variance is estimated from samples.
        start: A law, one per angle, or ``(batch, generator) -> angles``, as in :class:`Simulation`.
        tolerance: The largest half-width of the interval, in the unit of ``f``.
        method: Its strong order decides how many paths the levels take; ``sra1`` has 1.5.
        steps: The steps of the coarsest level; by default as few as the rates of the drift allow.
        confidence: The confidence level of the interval.
        seed: The seed of starts and paths.
        budget: The most evaluations of the drift of one sample that may be made.

    Raises:
        ValueError: For a tolerance that is not positive, a method that follows no path, values of ``f`` of another
            shape or that are not finite, or where the tolerance needs more evaluations than the budget, or more levels
            than 12: then nothing is returned.
        SolveError: If an angle is lost.

    >>> import math
    >>> from circsde import KuramotoSDE, VonMises
    >>> spin = KuramotoSDE((1,), natural_frequency=1.0)
    >>> found = expectation(spin, lambda theta: theta[:, 0].cos(), VonMises(0.0, 2.0), 0.02)
    >>> found.half_width <= 0.02
    True
    """
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise ValueError(f"tolerance must be positive and finite, got {tolerance}")
    method, subject = find_method(method, sde), Simulation(sde, start)
    if method.strong_order is None:
        raise ValueError(f"{method.name} does not follow the path that two levels share: take sra1, heun or kutta3")
    coarsest = steps or max(2, math.ceil(0.5 * steepness(subject) * sde.horizon))
    paths = _Paths(subject, f, method, coarsest, seed)
    levels, goal = [paths.more(paths.level(i), i, _PILOT) for i in range(3)], 0.75 * tolerance
    while True:
        found = _estimate(levels, method, confidence)
        if found.half_width <= tolerance:
            return found
        counts = _allocate(levels, method, goal / quantile(confidence, _PILOT))
        if any(count > level.paths for count, level in zip(counts, levels, strict=True)):
            wanted = sum(max(count, level.paths) * level.nfe for count, level in zip(counts, levels, strict=True))
            if wanted > budget:
                raise ValueError(
                    f"the tolerance {tolerance:g} takes {wanted:.1e} evaluations of the drift, more than the budget of"
                    f" {budget:.1e}: give a larger budget, or a larger tolerance"
                )
            levels = [paths.more(level, i, counts[i] - level.paths) for i, level in enumerate(levels)]
        elif found.change > found.change_noise:  # the levels are too coarse, and not only the paths too few
            if len(levels) == _LEVELS:
                raise ValueError(
                    f"with {levels[-1].steps} steps the mean still changes by {found.change:.1e}: give more steps"
                )
            levels.append(paths.more(paths.level(len(levels)), len(levels), _PILOT))
        else:
            goal *= 0.8


@dataclass(frozen=True)
class _Paths:
    """The source of differences: starts and Brownian paths, numbered from 0 on each level."""

    subject: Simulation
    f: Callable[[Angles], PerSample]
    method: Method
    coarsest: int
    seed: int

    def level(self, i: int) -> Level:
        """A level without paths."""
        n, sde = self.coarsest * 2**i, self.subject.sde
        coarse = self.method.work(sde, n // 2) if i else 0
        return Level(n, self.method.work(sde, n) + coarse)

    def more(self, level: Level, i: int, count: int) -> Level:
        """The level with ``count`` further paths."""
        most = max(1, _ANGLES // angles_per_path(self.subject))
        while count > 0:
            part = min(count, most)
            level, count = level + self._differences(level, i, part), count - part
        return level

    def _differences(self, level: Level, i: int, count: int) -> Array:
        """``f`` at the ends of the next paths, less that with half as many steps on the same Brownian paths."""
        sde, first = self.subject.sde, level.paths
        theta = self.subject.sample(count, torch_stream(self.seed, "expectation", i, first))
        points, _ = step_grid((0.0, sde.horizon), n_steps=level.steps)
        seed, dtype = key(self.seed, "expectation", i), field_dtype(sde, theta.dtype)
        path = Brownian(tuple(points), wiener_shape(sde, theta), seed, dtype, theta.device, first)

        def at_end(grid: Sequence[float]) -> Array:
            end = sdeint(sde, theta, (0.0, sde.horizon), grid=grid, method=self.method, brownian=path).theta[-1]
            values = self.f(end)
            if values.shape != (count,) or not values.isfinite().all():
                raise ValueError(
                    f"f must give a finite number for each of {count} samples, got shape {tuple(values.shape)},"
                    f" of which {int(values.isfinite().sum())} are finite"
                )
            return np.asarray(values.double().cpu().numpy())

        fine = at_end(points)
        return fine - at_end(points[::2]) if i else fine


def _weights(levels: Sequence[Level], method: Method) -> tuple[Array, Array]:
    """The weights of the differences in the mean, and in its change by the last level."""
    steps = [level.steps for level in levels]
    mean, before = (np.cumsum(romberg_weights(s, method.weak_order)[::-1])[::-1] for s in (steps, steps[:-1]))
    return mean, mean - np.append(before, 0.0)


def _estimate(levels: Sequence[Level], method: Method, confidence: float) -> Expectation:
    """The expectation that the levels give so far."""
    z = quantile(confidence, min(level.paths for level in levels))
    means = np.array([level.mean for level in levels])
    squares = np.array([level.variance / level.paths for level in levels])
    weights, last = _weights(levels, method)
    standard_error, noise = (math.sqrt(w**2 @ squares) for w in (weights, last))
    change, falls = abs(float(last @ means)), 2.0**method.weak_order - 1.0
    bias = (change + z * noise) / falls
    half_width = z * standard_error + bias
    return Expectation(
        float(weights @ means),
        half_width,
        standard_error,
        bias,
        change,
        z * noise,
        confidence,
        method.name,
        tuple(levels),
    )


def _allocate(levels: Sequence[Level], method: Method, standard_error: float) -> list[int]:
    """Paths of each level that bring the mean to this standard error at the least cost."""
    weights, last = _weights(levels, method)
    spread = (np.abs(weights) + np.abs(last) / (2.0**method.weak_order - 1.0)) ** 2
    parts = spread * np.array([level.variance for level in levels])
    costs = np.array([level.nfe for level in levels], dtype=np.float64)
    total = float(np.sqrt(parts * costs).sum()) / standard_error**2
    return [math.ceil(n) for n in total * np.sqrt(parts / costs)]

r"""Statistics of a sample: moments that merge, intervals, the paths that a target takes, and log-log slopes.

Paths are independent, so a mean over ``n`` of them has the standard error ``s / sqrt(n)``; everything that is computed
from means gets its standard error from theirs by the delta method, with the covariances between what was computed
on the same paths.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

RESOLUTION = 0.25
"""An error is resolved where its interval reaches at most this far from it, relative to the error."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of independent vectors; the moments of two samples merge into those of both.

    Attributes:
        count: How many vectors.
        mean: Shape ``(..., d)``.
        scatter: The sum of the outer products of the deviations from the mean, shape ``(..., d, d)``.
        peak: The largest absolute value, shape ``(..., d)``.
    """

    count: int
    mean: Array
    scatter: Array
    peak: Array

    @classmethod
    def of(cls, x: Array) -> "Moments":
        """The moments of ``x``, shape ``(count, ..., d)``.

        >>> Moments.of(np.array([[0.0], [2.0]])).standard_error()
        array([1.])
        """
        mean = x.mean(0)
        deviation = np.moveaxis(x - mean, 0, -2)
        return cls(len(x), mean, np.swapaxes(deviation, -1, -2) @ deviation, np.abs(x).max(0))

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both samples together (Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115)."""
        count = self.count + other.count
        shift = other.mean - self.mean
        between = shift[..., :, None] * shift[..., None, :] * (self.count * other.count / count)
        mean = self.mean + shift * (other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between, np.maximum(self.peak, other.peak))

    def covariance(self) -> Array:
        """The covariance of the mean, shape ``(..., d, d)``; NaN for fewer than two vectors."""
        return self.scatter / (self.count * (self.count - 1)) if self.count > 1 else np.full_like(self.scatter, np.nan)

    def standard_error(self) -> Array:
        """The standard error of the mean, shape ``(..., d)``."""
        return np.sqrt(np.diagonal(self.covariance(), axis1=-2, axis2=-1))


def quantile(confidence: float, count: int, comparisons: int = 1) -> float:
    """Half the width of a two-sided interval in standard errors, by Student's t with ``count - 1`` degrees of freedom.

    Args:
        confidence: The probability that the interval covers, for instance 0.95.
        count: Independent samples.
        comparisons: How many intervals are to cover together; each is widened (Bonferroni).

    >>> round(quantile(0.95, 10**6), 3), round(quantile(0.95, 10**6, comparisons=10), 3)
    (1.96, 2.807)
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}; for 95 % give 0.95")
    return float(stats.t.ppf(0.5 + 0.5 * (1.0 - (1.0 - confidence) / comparisons), max(1, count - 1)))


def rare(moments: Moments, confidence: float, finer: NDArray[np.bool_]) -> Array:
    """Bound what rare events that a sample missed may add to a mean of non-negative numbers, shape ``(..., d)``.

    An event that none of ``n`` samples shows has a probability below ``log(1 / alpha) / n`` with confidence
    ``1 - alpha`` (the rule of three). Its size is taken to be the largest that was seen; and where tails are heavy, so
    that the largest of ``n`` exceeds the mean by a factor of more than ``3 log n`` (it is about ``log n`` for an
    exponential law, ``2 log n`` for chi-square), the largest at the next coarser setting, where such events are more
    frequent.

    Args:
        moments: The moments of the numbers; the last axis runs from coarse settings to fine ones.
        confidence: Two-sided, as for :func:`quantile`.
        finer: Which settings have a coarser one before them, shape ``(d,)``.
    """
    heavy = moments.peak > 3.0 * math.log(moments.count) * moments.mean
    before = np.roll(np.where(heavy, moments.peak, 0.0), 1, -1)
    size = np.where(finer, np.maximum(moments.peak, before), moments.peak)
    return size * (math.log(2.0 / (1.0 - confidence)) / moments.count)


def paths_needed(paths: int, half_width: Array, target: Array) -> Array:
    """How many paths bring an interval of this half-width down to ``target``; infinite where none do."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(target > 0, np.ceil(paths * (half_width / target) ** 2), np.inf)


@dataclass(frozen=True)
class Order:
    """The slope of a log-log line.

    Attributes:
        value: The order ``p`` in ``error = C steps^-p``; NaN with fewer than three points.
        standard_error: Its standard error.
        used: Which points the line is fitted to.
        straight: Whether chi-square accepts the line, at 1 %.
        last: The slope between the two finest of these points.
        last_standard_error: Its standard error.
    """

    value: float
    standard_error: float
    used: NDArray[np.bool_]
    straight: bool = True
    last: float = math.nan
    last_standard_error: float = math.nan


def fit_order(steps: Array, error: Array, covariance: Array, resolved: NDArray[np.bool_]) -> Order:
    r"""Fit ``log error = a - p log steps`` by weighted least squares, on resolved points only.

    The weights are the points' own variances, and the standard error of ``p`` follows from their whole covariance.
    Where chi-square rejects the line at 1 %, the coarsest point is not yet asymptotic and is dropped; a misfit that
    remains at three points widens the standard error (Birge's ratio), and the slope of the last two points is given
    as well, which shows where the errors are heading. Two points are never enough: nothing would show whether they are
    asymptotic. The standard error is that of the line; it says nothing about finer steps.

    Args:
        steps: Increasing numbers of steps, shape ``(n,)``.
        error: Positive errors, shape ``(n,)``.
        covariance: The covariance of the errors, shape ``(n, n)``; zero where they are exact.
        resolved: Which points count.

    >>> n = np.array([10.0, 20.0, 40.0])
    >>> order = fit_order(n, 3.0 / n**2, np.diag((0.1 / n**2) ** 2), n > 0)
    >>> round(order.value, 12), round(order.standard_error, 3)
    (2.0, 0.034)
    """
    used = np.flatnonzero(resolved)
    while True:
        if len(used) < 3:
            return Order(math.nan, math.nan, np.zeros(len(steps), dtype=bool))
        slope, standard_error, misfit, freedom = _line(steps[used], error[used], covariance[np.ix_(used, used)])
        straight = bool(stats.chi2.sf(misfit, freedom) > 0.01)
        if len(used) == 3 or straight:
            break
        used = used[1:]
    standard_error *= math.sqrt(max(1.0, misfit / freedom))
    two = used[-2:]
    last, last_error, *_ = _line(steps[two], error[two], covariance[np.ix_(two, two)])
    return Order(slope, standard_error, np.isin(np.arange(len(steps)), used), straight, last, last_error)


def _line(steps: Array, error: Array, covariance: Array) -> tuple[float, float, float, int]:
    """Slope, its standard error, chi-square of the residuals and its degrees of freedom."""
    x, y = -np.log(steps), np.log(error)
    relative = covariance / np.outer(error, error) + np.diag(np.full(len(x), 1e-12))
    weights = 1.0 / np.diagonal(relative)
    design = np.stack((np.ones_like(x), x), 1)
    solve = np.linalg.solve(design.T @ (weights[:, None] * design), design.T * weights)
    intercept, slope = solve @ y
    residual = y - intercept - slope * x
    project = np.eye(len(x)) - design @ solve
    spread = project @ relative @ project.T
    misfit = float(residual @ np.linalg.pinv(spread, rcond=1e-9, hermitian=True) @ residual)
    return float(slope), math.sqrt(float(solve[1] @ relative @ solve[1])), misfit, len(x) - 2

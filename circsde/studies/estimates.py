"""Errors with intervals, and what they leave open, from the moments of a sample of paths."""

import math
from collections.abc import Sequence

import numpy as np

from circsde.exact.problems import Observable
from circsde.studies.experiment import Experiment
from circsde.studies.result import STRONG, ByObservable, Errors
from circsde.studies.statistics import RESOLUTION, Array, Moments, paths_needed, quantile, rare

_TINY = np.finfo(np.float64).tiny


def estimate(
    metric: str,
    moments: Moments,
    subject: Experiment,
    confidence: float,
    target: float | None = None,
) -> tuple[Errors, ByObservable]:
    """Strong or weak errors with intervals, from the moments of :meth:`~circsde.studies.monte_carlo.Block.features`."""
    if metric == STRONG:
        return strong_errors(moments, confidence, target)
    return weak_errors(moments, subject.observables, confidence, target, subject.uncertainty)


def strong_errors(moments: Moments, confidence: float, target: float | None) -> tuple[Errors, ByObservable]:
    """Root-mean-square distances from mean squared ones; see :meth:`~circsde.studies.monte_carlo.Block.features`.

    The interval is that of the logarithm; its upper end leaves room for :func:`rare` paths with much of the error.
    """
    n = moments.mean.shape[-1] // 2  # settings, the last the coarse reference
    mean = moments.mean.reshape(-1, 2, n)
    error = np.sqrt(mean)
    slope = 0.5 / np.maximum(error, _TINY)  # derivative of the square root
    whole = moments.covariance()
    covariance = np.stack([whole[:, :n, :n], whole[:, n:, n:]], 1) * slope[..., :, None] * slope[..., None, :]
    standard_error = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    wide = quantile(confidence, moments.count)
    ratio = np.exp(wide * standard_error / np.maximum(error, _TINY))
    finer = np.tile((np.arange(n) > 0) & (np.arange(n) < n - 1), 2)
    missed = rare(moments, confidence, finer).reshape(-1, 2, n)
    most = np.maximum(error * ratio, np.sqrt(mean + wide * moments.standard_error().reshape(-1, 2, n) + missed))
    bound = most[..., -1:]
    lower, upper = np.maximum(0.0, error / ratio - bound)[..., :-1], (most + bound)[..., :-1]
    geodesic = error[:, 0, :-1]
    errors = Errors(
        error=geodesic,
        lower=lower[:, 0],
        upper=upper[:, 0],
        standard_error=standard_error[:, 0, :-1],
        floor=np.broadcast_to(bound[:, 0], geodesic.shape),
        paths_needed=_needed(moments.count, geodesic, upper[:, 0] - geodesic, bound[:, 0], target),
        covariance=covariance[:, 0, :-1, :-1],
    )
    details = (np.moveaxis(x, 1, -1) for x in (error[..., :-1], lower, upper))
    return errors, ByObservable(("geodesic distance", "lifted distance"), *details)


def weak_errors(
    moments: Moments,
    observables: Sequence[Observable],
    confidence: float,
    target: float | None,
    uncertainty: float = 0.0,
) -> tuple[Errors, ByObservable]:
    """Errors of expectations from coupled differences; see :meth:`~circsde.studies.monte_carlo.Block.features`.

    With ``D = phi(theta_n) - phi(Y)`` and ``C = phi(Y) - E phi`` for the reference Y, the estimate is the mean of
    ``D + (1 - b) C`` with the ``b`` of least variance; it is off by ``b`` times the reference's bias and ``1 - b``
    times the uncertainty of ``E phi``. Where ``E phi`` is not known, or not well enough to help, ``b`` is 1.
    """
    count, K = moments.count, len(observables)
    levels = moments.mean.shape[-1] // K - 2  # settings; then come the coarse reference and the control
    known = np.array([not math.isnan(observable.expected) for observable in observables])
    whole = moments.covariance()
    variance = np.diagonal(whole, axis1=-2, axis2=-1)
    halved, control = slice(levels * K, (levels + 1) * K), np.arange((levels + 1) * K, (levels + 2) * K)
    places = np.arange(levels * K).reshape(levels, K)

    single, joint = quantile(confidence, count), quantile(confidence, count, K)
    distance, spread = np.abs(moments.mean[:, None, halved]), joint * np.sqrt(variance[:, None, halved])

    def combined(share: Array) -> tuple[Array, Array, Array, Array]:
        """Estimates with their covariance, standard errors and systematic errors, given ``1 - b``."""
        weights = np.zeros((len(whole), levels * K, whole.shape[-1]))
        weights[:, places, places] = 1.0
        weights[:, places, control] = share
        error = (weights @ moments.mean[..., None])[..., 0].reshape(share.shape)
        covariance = weights @ whole @ np.swapaxes(weights, -1, -2)
        standard_error = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1)).reshape(share.shape)
        return error, covariance, standard_error, off(share, distance + spread)

    def off(share: Array, reference: Array) -> Array:
        return np.abs(1.0 - share) * reference + np.abs(share) * uncertainty

    with np.errstate(divide="ignore", invalid="ignore"):
        share = -whole[:, places, control] / variance[:, None, control]
    share = np.where(known & np.isfinite(share), share, 0.0)
    (*_, se_with, bias_with), (*_, se_without, bias_without) = combined(share), combined(np.zeros_like(share))
    helps = joint * se_with + bias_with < joint * se_without + bias_without
    share = np.where(helps, share, 0.0)
    error, covariance, standard_error, bias = combined(share)
    reach = single * standard_error + bias
    details = ByObservable([o.name for o in observables], error, error - reach, error + reach)

    width, lasting = joint * standard_error, off(share, np.maximum(0.0, distance - spread))
    worst = np.where(np.isnan(error), np.inf, np.abs(error)).argmax(-1)[..., None]

    def at_worst(x: Array) -> Array:
        return np.take_along_axis(x, worst, -1)[..., 0]

    largest = at_worst(np.abs(error))
    sign = np.sign(at_worst(error))
    pick = np.arange(levels) * K + worst[..., 0]
    chosen = np.stack([rows[np.ix_(i, i)] for rows, i in zip(covariance, pick, strict=True)])
    errors = Errors(
        error=largest,
        lower=np.maximum(0.0, np.abs(error) - width - bias).max(-1),
        upper=(np.abs(error) + width + bias).max(-1),
        standard_error=at_worst(standard_error),
        floor=(width + bias).max(-1),
        paths_needed=_needed(count, largest[..., None], width + bias, lasting, target).max(-1),
        covariance=chosen * sign[..., :, None] * sign[..., None, :],
    )
    return errors, details


def _needed(paths: int, error: Array, reach: Array, lasting: Array, target: float | None) -> Array:
    """Paths needed for a half-width of ``target``, or of a quarter of the error; more paths leave ``lasting``."""
    wanted = RESOLUTION * error if target is None else target
    return paths_needed(paths, reach - lasting, wanted - lasting)

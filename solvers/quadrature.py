r"""Integrals along a numerical trajectory: nodes inside each step, the path there, and weights with an error estimate.

Between accepted points the path is a Hermite polynomial through the nearest four of them and their velocities, of
degree 7. An integrand is sampled at the ends of each step and at three Lobatto nodes inside, and integrated over each
step through the nine samples of the step and the neighbour most like it; the Lobatto rule of order 8 gives the error.
Where both neighbours are far longer or shorter, nine samples are nearly fewer, and their weights cannot be found: there
the step is alone, with the Lobatto rule, and Simpson's rule gives an error that is too large rather than too small.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import KroghInterpolator

Vector = NDArray[np.float64]

_STRIDE = 4  # nodes to a step, an end counted once
_INSIDE = 0.5 + 0.5 * np.sqrt(3.0 / 7.0) * np.array([-1.0, 0.0, 1.0])
_LOBATTO = np.array([9.0, 49.0, 64.0, 49.0, 9.0]) / 180.0
_SIMPSON = np.array([1.0, 0.0, 4.0, 0.0, 1.0]) / 6.0
_UNLIKE = 30.0  # the ratio of two lengths beyond which steps are not integrated together


@dataclass(frozen=True)
class Stencil:
    """The path at a time as a combination of accepted points and velocities ``first``, ``first + 1``, ...

    Attributes:
        first: The index of the first accepted point.
        position: Weights of (points, velocities) for the angle, shape ``(2, m)``.
        velocity: Weights of the same for its time derivative.
    """

    first: int
    position: Vector
    velocity: Vector


def hermite(mesh: Vector, t: float) -> Stencil:
    """The Hermite interpolant at ``t`` through the four points of ``mesh`` around it.

    >>> mesh = np.array([0.0, 1.0, 3.0])
    >>> at = hermite(mesh, 2.0)
    >>> [round(float((w * (mesh**5, 5 * mesh**4)).sum()), 9) for w in (at.position, at.velocity)]
    [32.0, 80.0]
    """
    first = min(max(int(np.searchsorted(mesh, t)) - 2, 0), max(len(mesh) - 4, 0))
    near = mesh[first : first + 4]
    scale = near[-1] - near[0]
    knots = np.repeat((near - near[0]) / scale, 2)
    polynomial = KroghInterpolator(knots, np.eye(len(knots)))
    value, slope = polynomial.derivatives((t - near[0]) / scale, 2)
    units = np.array([[1.0], [scale]])
    return Stencil(first, value.reshape(-1, 2).T * units, slope.reshape(-1, 2).T * units / scale)


def nodes(mesh: Vector) -> Vector:
    """The ends of every step and the Lobatto nodes inside it, in order: ``4 steps + 1`` times.

    >>> nodes(np.array([0.0, 1.0, 3.0]))[[0, 2, 4, 6, 8]].tolist()
    [0.0, 0.5, 1.0, 2.0, 3.0]
    """
    inside = mesh[:-1, None] + np.diff(mesh)[:, None] * _INSIDE
    return np.append(np.column_stack((mesh[:-1], inside)).ravel(), mesh[-1])


def middle(mesh: Vector) -> Vector:
    """The node in the middle of every step: halved there, a step keeps the sample."""
    return nodes(mesh)[2::_STRIDE]


@dataclass(frozen=True)
class Rule:
    """The weights of a quadrature over each step.

    Attributes:
        samples: Indices of the samples that a step uses, of all in order of time, shape ``(steps, 9)``.
        weights: Their weights: exact for polynomials of degree 8 over two steps, or of degree 7 where a step is alone.
        embedded: Weights of the Lobatto rule from the step's own samples, exact to degree 7, zero elsewhere; where a
            step is alone, of Simpson's rule.
    """

    samples: NDArray[np.int64]
    weights: Vector
    embedded: Vector


def rule(mesh: Vector) -> Rule:
    """The quadrature over the steps between at least three increasing times.

    >>> mesh = np.array([0.0, 0.5, 2.0])
    >>> used = rule(mesh)
    >>> float((used.weights * nodes(mesh)[used.samples] ** 8).sum()) - 2.0**9 / 9 < 1e-9
    True
    """
    steps, lengths = len(mesh) - 1, np.diff(mesh)
    left, alone = _joins(lengths)
    first = _STRIDE * (np.arange(steps) - left)
    samples = first[:, None] + np.arange(2 * _STRIDE + 1)
    weights, embedded = np.zeros(samples.shape), np.zeros(samples.shape)
    k = np.arange(1, 2 * _STRIDE + 2)
    for i, near in enumerate(nodes(mesh)[samples]):
        own = slice(_STRIDE * i - first[i], _STRIDE * i - first[i] + _STRIDE + 1)
        if alone[i]:
            weights[i, own], embedded[i, own] = lengths[i] * _LOBATTO, lengths[i] * _SIMPSON
            continue
        start, length = near[0], near[-1] - near[0]
        ends = (mesh[i : i + 2] - start) / length
        moments = np.diff(ends[:, None] ** k, axis=0)[0] / k
        powers = np.vander((near - start) / length, increasing=True)
        weights[i] = length * np.linalg.solve(powers.T, moments)
        embedded[i, own] = lengths[i] * _LOBATTO
    return Rule(samples, weights, embedded)


def _joins(lengths: Vector) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """One where a step's left neighbour is nearer to it in length than its right one, zero elsewhere; who is alone."""
    contrast = np.abs(np.diff(np.log(lengths)))
    left, right = np.append(np.inf, contrast), np.append(contrast, np.inf)
    return (left < right).astype(np.int64), np.minimum(left, right) > np.log(_UNLIKE)

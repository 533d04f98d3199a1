r"""Integrals along a numerical trajectory: nodes inside each step, the path there, and weights with an error estimate.

Between accepted points the path is a Hermite polynomial through the nearest four of them and their velocities, of
degree 7. An integrand is sampled at the ends of each step and at two Lobatto nodes inside, and integrated over each
step through the seven samples of the step and its neighbour; the Lobatto rule of order 6 gives the error.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import KroghInterpolator

Vector = NDArray[np.float64]

_INSIDE = 0.5 + 0.5 * np.array([-1.0, 1.0]) / np.sqrt(5.0)
_LOBATTO = np.array([1.0, 5.0, 5.0, 1.0]) / 12.0


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


def hermite(mesh: Vector, step: int, t: float) -> Stencil:
    """The Hermite interpolant at ``t``, in the given step, through the four points of ``mesh`` around it.

    >>> mesh = np.array([0.0, 1.0, 3.0])
    >>> at = hermite(mesh, 1, 2.0)
    >>> [round(float((w * (mesh**5, 5 * mesh**4)).sum()), 9) for w in (at.position, at.velocity)]
    [32.0, 80.0]
    """
    first = min(max(step - 1, 0), max(len(mesh) - 4, 0))
    near = mesh[first : first + 4]
    scale = near[-1] - near[0]
    knots = np.repeat((near - near[0]) / scale, 2)
    polynomial = KroghInterpolator(knots, np.eye(len(knots)))
    value, slope = polynomial.derivatives((t - near[0]) / scale, 2)
    units = np.array([[1.0], [scale]])
    return Stencil(first, value.reshape(-1, 2).T * units, slope.reshape(-1, 2).T * units / scale)


def inner_nodes(mesh: Vector) -> Vector:
    """The two Lobatto nodes inside each step, shape ``(steps, 2)``."""
    return np.asarray(mesh[:-1, None] + np.diff(mesh)[:, None] * _INSIDE)


def weights(mesh: Vector) -> tuple[Vector, Vector]:
    """Weights of an integral over the mesh and, for each step, of its error.

    Args:
        mesh: At least three times, monotone.

    Returns:
        Weights of shape ``(3 steps + 1,)`` of the samples in order of time, and those of the error of the Lobatto rule
        in each step, shape ``(steps, 3 steps + 1)``.

    >>> mesh = np.array([0.0, 0.5, 2.0])
    >>> nodes = np.append(np.column_stack((mesh[:-1], inner_nodes(mesh))).ravel(), mesh[-1])
    >>> weight, error = weights(mesh)
    >>> round(float(weight @ nodes**6), 9) == round(2**7 / 7, 9), abs(float(error[1] @ nodes**5)) < 1e-12
    (True, True)
    """
    steps = len(mesh) - 1
    nodes = np.append(np.column_stack((mesh[:-1], inner_nodes(mesh))).ravel(), mesh[-1])
    total, error = np.zeros(len(nodes)), np.zeros((steps, len(nodes)))
    for i in range(steps):
        a, b, first = mesh[i], mesh[i + 1], 3 * min(i, steps - 2)
        near = nodes[first : first + 7]
        scale = near[-1] - near[0]
        x, ends = (near - near[0]) / scale, (np.array([a, b]) - near[0]) / scale
        k = np.arange(1, 8)
        exact = np.diff(ends[:, None] ** k, axis=0)[0] / k
        interpolatory = scale * np.linalg.solve(np.vander(x, increasing=True).T, exact)
        total[first : first + 7] += interpolatory
        error[i, first : first + 7] += interpolatory
        error[i, 3 * i : 3 * i + 4] -= (b - a) * _LOBATTO
    return total, error

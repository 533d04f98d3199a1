r"""The law of a numerical scheme without Monte Carlo: weak errors and stationary biases to rounding (eq. 9).

For one or two phases the Markov operator of a step is a matrix (:mod:`circsde.studies.markov`), so the law that a
method makes is computed, not sampled. Every number comes with the change that the last refinement of the grid
(and with it of the quadrature) made to it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr

from circsde.contracts import Law
from circsde.exact.spectral import Complex
from circsde.record import provenance
from circsde.sde import SDE
from circsde.solvers.methods import Method
from circsde.solvers.registry import find_method
from circsde.studies.grids import Grading, graded_grid
from circsde.studies.markov import Array, Grid, dimensions, needs_two_noises, operator
from circsde.studies.propagation import has_operator, noiseless, observe, propagate, refine
from circsde.typing import Angles, PerSample

POINTS = {1: (49, 73, 109, 163, 245), 2: (15, 19, 25, 31)}
"""Points per phase of the grids that are tried in turn, by the number of phases."""

TOLERANCE = {1: 1e-9, 2: 1e-6}

TAIL = {1: 1e-8, 2: 1e-5}
"""A finer grid is tried where modes above this are left out, as long as that helps."""

WAVES = {1: 5, 2: 2}
"""The moments ``E e^{ik . theta}`` that are compared have ``0 < |k_i| <= WAVES``."""


@dataclass(frozen=True)
class NumericalLaw:
    """The law that a method makes.

    Attributes:
        density: Its values on the grid, 1/rad^dimensions.
        grid: The grid.
        resolution: The largest change in any low moment when the grid was last refined.
        tail: The largest amplitude among the outermost modes: what the density cannot show.
    """

    density: Array
    grid: Grid
    resolution: float
    tail: float

    def low_moments(self) -> Complex:
        """``E e^{ik . theta}`` for the small k that are compared."""
        return _low(self.grid.moments(self.density))

    def mean(self, function: Callable[[Angles], PerSample]) -> float:
        """The expectation of ``(batch, dimensions) -> (batch,)``."""
        return float(self.density @ function(self.grid.theta).numpy()) * self.grid.cell

    def against(self, exact: Law) -> tuple[float, float, float]:
        """The largest moment error, the total variation, and the divergence KL(exact | numerical) in nats."""
        d = self.grid.dimensions
        fine = Grid({1: 4095, 2: 255}[d], d)
        p, q = refine(self.density, self.grid, fine.points), density_on(exact, fine)
        gaps = np.abs(_low(fine.moments(p) - fine.moments(q)))
        divergence = np.where(q > 0, q * np.log(np.maximum(q, 1e-300) / np.maximum(p, 1e-16)), 0.0)
        return float(gaps.max()), float(np.abs(p - q).sum() * fine.cell / 2), float(divergence.sum() * fine.cell)


def numerical_law(
    method: Method,
    sde: SDE,
    start: Law | Sequence[Law],
    steps: int,
    tolerance: float | None = None,
    grading: Grading = 1.0,
) -> NumericalLaw:
    """The law of a method's output at the horizon.

    Args:
        method: The method.
        sde: An equation for one or two phases.
        start: The law at time 0, or one per phase.
        steps: The number of steps.
        tolerance: Refine the grid until no low moment changes by more, and its tail is negligible or no longer falls.
        grading: The grading of the grid of times, see :func:`~circsde.studies.grids.graded_grid`; 1 for equal steps.

    Raises:
        ValueError: For more than two phases, or a method that remembers earlier steps, unless on one phase the last
            two states decide the next one.
    """
    if not has_operator(method, sde):
        _check_memory(method)
    times = graded_grid(sde.horizon, steps, grading)

    def attempt(grid: Grid) -> Array:
        laws = [start] * grid.dimensions if isinstance(start, Law) else start
        logs = [law.log_prob(x) for law, x in zip(laws, grid.theta.unbind(-1), strict=True)]
        return propagate(method, sde, torch.stack(logs).sum(0).exp().numpy(), grid, times)

    d = dimensions(sde)
    ladder = POINTS[d][3:] if noiseless(sde) and d == 1 else _ladder(method, sde)
    return _refined(attempt, d, ladder, tolerance)


def stationary_law(method: Method, sde: SDE, h: float, tolerance: float | None = None) -> NumericalLaw:
    """The law that steps of length ``h`` with the rates at time 0 leave unchanged: a left eigenvector of the operator.

    Raises:
        ValueError: For more than two phases, or a method that remembers earlier steps.
    """
    _check_memory(method)

    def attempt(grid: Grid) -> Array:
        matrix = operator(method, sde, 0.0, h, grid)
        return observe(method, sde, invariant_density(matrix, grid), h, grid)

    d = dimensions(sde)
    return _refined(attempt, d, _ladder(method, sde), tolerance)


def transfer_operator(
    method: str | Method, sde: SDE, h: float, *, t: float = 0.0, points: int | None = None
) -> xr.Dataset:
    """Compute the Markov operator of one step as a matrix on a grid of angles (eq. 9).

    ``operator @ u`` is ``E u(theta')`` given theta for a function u on the grid; ``operator.T @ p`` moves a density.
    How well the grid and the quadrature resolve it is measured on the waves ``e^{imt}``, ``0 < m <= 5`` (T^2: 2).

    Args:
        method: A name in ``circsde.solvers.METHODS``, or a method.
        sde: An equation for one or two phases, forward or reverse.
        h: The step, in units of time.
        t: The time at which the step starts.
        points: Grid points per phase, an odd number; by default as many as resolve the waves.

    Returns:
        A Dataset over ``theta`` (and ``theta_2``) and their images: ``operator``; ``stationary``, the density that it
        leaves unchanged, 1/rad; ``fourier_tail``, the largest amplitude in the outer fifth of the spectrum of the
        moved waves; ``quadrature_error``, their largest change with 1.5 times as many nodes.

    Raises:
        ValueError: For more than two phases, an unknown method, one that remembers earlier steps, or an even
            number of points.

    >>> from circsde.kuramoto import KuramotoSDE
    >>> operator = transfer_operator("heun", KuramotoSDE((1,)), h=0.1).operator
    >>> bool(abs(operator.sum("theta_next") - 1).max() < 1e-12)
    True
    """
    method, d = find_method(method, sde), dimensions(sde)
    _check_memory(method)
    if points is not None and points % 2 == 0:
        raise ValueError(f"the number of points must be odd, so that every wave has its partner; got {points}")
    for count in POINTS[d] if points is None else (points,):
        grid = Grid(count, d)
        matrix = operator(method, sde, t, h, grid)
        low = [w for w in np.ndindex(*(WAVES[d] + 1,) * d) if any(w)]
        waves = np.exp(1j * grid.theta.numpy() @ np.array(low).T)
        moved = matrix @ waves
        spectrum = np.fft.fftn(moved.reshape((count,) * d + (-1,)), axes=tuple(range(d))) / len(matrix)
        k = np.abs(np.fft.fftfreq(count, 1.0 / count))
        outer = np.max(np.stack(np.meshgrid(*[k] * d, indexing="ij")), 0) > 0.8 * (count // 2)
        tail = float(np.abs(spectrum[outer]).max())
        if tail < TOLERANCE[d]:
            break
    again = operator(method, sde, t, h, grid, nodes=1.5)
    axes, images = ("theta", "theta_2")[:d], ("theta_next", "theta_2_next")[:d]
    shape, density = (count,) * d, invariant_density(matrix, grid)
    return xr.Dataset(
        {
            "operator": ((*axes, *images), matrix.reshape(shape + shape), {"units": "1"}),
            "stationary": (axes, density.reshape(shape), {"units": ("1/rad", "1/rad^2")[d - 1]}),
            "fourier_tail": ((), tail, {"units": "1"}),
            "quadrature_error": ((), float(np.abs((again - matrix) @ waves).max()), {"units": "1"}),
        },
        coords={name: (name, grid.axis, {"units": "rad"}) for name in (*axes, *images)},
        attrs=provenance(method=method.name, h=h, t=t, points=count, sde=type(sde).__name__),
    )


def _check_memory(method: Method) -> None:
    """Refuse a method whose step depends on earlier ones: it has no operator on functions of the angle alone."""
    if method.begin is not None:
        raise ValueError(
            f"{method.name} remembers earlier steps, so that no transfer operator tells its law: sample it, with"
            " weak_convergence or study(..., monte_carlo=True)"
        )


def _low(moments: Complex) -> Complex:
    """The moments with ``|k_i| <= WAVES``."""
    d = moments.ndim
    return np.asarray(moments[np.ix_(*(np.r_[-WAVES[d] : WAVES[d] + 1],) * d)])


def density_on(law: Law, grid: Grid) -> Array:
    """The density of a law of one or two phases at the points of a grid."""
    theta = grid.theta
    return np.asarray(law.log_prob(theta[:, 0] if grid.dimensions == 1 else theta).exp().numpy())


def invariant_density(matrix: Array, grid: Grid) -> Array:
    """The density p with ``P^T p = p``: a left eigenvector of the operator, for the eigenvalue one."""
    system = matrix.T - np.eye(len(matrix))
    system[0] = grid.cell  # any one equation follows from the others; the total takes its place
    target = np.zeros(len(matrix))
    target[0] = 1.0
    return np.asarray(np.linalg.solve(system, target))


def _ladder(method: Method, sde: SDE) -> tuple[int, ...]:
    """The grids to try: the finest would take minutes where a step needs nodes along two noises per phase."""
    points = POINTS[dimensions(sde)]
    return points[: {1: -1, 2: 2}[dimensions(sde)]] if needs_two_noises(method, sde) else points


def _refined(attempt: Callable[[Grid], Array], d: int, ladder: Sequence[int], tolerance: float | None) -> NumericalLaw:
    """The density on the first grid that agrees with the one before, and has no more to gain, or on the last."""
    limit = TOLERANCE[d] if tolerance is None else tolerance
    negligible = max(TAIL[d], limit)
    laws = list[NumericalLaw]()
    for points in ladder:
        grid = Grid(points, d)
        density = attempt(grid)
        k = np.abs(np.indices((points,) * d) - points // 2).max(0)
        tail = np.abs(np.fft.fftshift(grid.moments(density)))[k > 0.8 * (points // 2)].max()
        law = NumericalLaw(density, grid, np.inf, float(tail))
        if laws:
            gap = float(np.abs(law.low_moments() - laws[-1].low_moments()).max())
            law = replace(law, resolution=gap)
            if gap <= limit and (tail <= negligible or tail > 0.1 * laws[-1].tail):
                return law
        laws.append(law)
    return laws[-1]

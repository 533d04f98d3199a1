"""How a density moves through the steps of a method: by operators, or by maps where there is no noise."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from circsde.sde import SDE
from circsde.solvers.methods import Method
from circsde.studies.markov import Array, Grid, from_waves, image_of, markov_matrix, operator, processes, wave_means
from circsde.studies.memory import propagate_pairs, remembers_one_state
from circsde.torus import TWO_PI

_ALIKE = 1e-13  # rad, the distance of the images of two steps that differ only by the rounding of times


def noiseless(sde: SDE) -> bool:
    """Whether the equation is an ODE."""
    return sde.noise == "additive" and not np.any(np.asarray(sde.variance(0.0, sde.horizon)))


def has_operator(method: Method, sde: SDE) -> bool:
    """Whether operators give the law of a method on this equation: it may remember one state at most."""
    return method.begin is None or noiseless(sde) or remembers_one_state(method, sde)


def propagate(method: Method, sde: SDE, density: Array, grid: Grid, times: Sequence[float]) -> Array:
    """The density of the method's output after steps through ``times``, the first 0 and the last the horizon.

    A matrix is made once where all steps are alike. Without noise the steps are maps, whose composition is exact.
    """
    if noiseless(sde):
        return _compose(method, sde, density, grid, times)
    if method.begin is not None:
        return propagate_pairs(method, sde, density, grid, times)
    probe = torch.tensor([[[0.0]], [[1.3]]], dtype=torch.float64).expand(2, 1 + method.levy_area, processes(sde))
    matrix, seen = np.empty(0), torch.empty(0)
    for t, end in pairwise(times):
        image = image_of(method.step, sde, t, end - t, method.levy_area, grid.theta, probe)
        if len(seen) == 0 or (image - seen).abs().max() > _ALIKE:
            matrix, seen = operator(method, sde, t, end - t, grid), image
        density = matrix.T @ density
    return observe(method, sde, density, times[-1] - times[-2], grid)


def observe(method: Method, sde: SDE, density: Array, h: float, grid: Grid) -> Array:
    """The density of the output, given that of the state that the chain carries after a last step of length ``h``."""
    if method.observe is None:
        return density
    return markov_matrix(method.observe, sde, sde.horizon - h, h, grid, levy_area=True).T @ density


def refine(density: Array, grid: Grid, points: int) -> Array:
    """The same band-limited density on more points, an odd number."""
    axes = tuple(range(grid.dimensions))
    spectrum = np.fft.fftshift(np.fft.fftn(density.reshape((grid.points,) * grid.dimensions)), axes)
    spectrum = np.fft.ifftshift(np.pad(spectrum, (points - grid.points) // 2), axes)
    return np.asarray(np.fft.ifftn(spectrum).real.ravel() * (points / grid.points) ** grid.dimensions)


def _compose(method: Method, sde: SDE, density: Array, grid: Grid, times: Sequence[float]) -> Array:
    """The law of points that all the steps move, as maps, in the modes of ``grid``."""
    still = torch.zeros(1, 1 + method.levy_area, grid.dimensions, dtype=torch.float64)

    def flow(theta: Tensor) -> Tensor:
        step = method.first_step()
        for t, end in pairwise(times):
            theta = image_of(step, sde, t, end - t, method.levy_area, theta, still)[:, 0]
        return theta

    if grid.dimensions == 1:
        theta, measure = _adapted(flow)
        k = np.fft.fftfreq(grid.points, 1.0 / grid.points)
        waves = np.exp(1j * theta[:, :1].numpy() * k) @ np.fft.fft(density) / grid.points
        weight = measure * torch.from_numpy(waves.real)
    else:
        fine = Grid(5 * grid.points, 2)
        theta, weight = fine.theta, torch.from_numpy(refine(density, grid, fine.points) * fine.cell)
    means = wave_means(flow(theta)[None], weight, grid.points // 2).numpy()
    return np.asarray(from_waves(means, grid)[0] / grid.cell)


def _adapted(flow: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Points and weights on the circle: Gauss-Legendre on intervals that the flow stretches to about 0.1 rad."""
    edges = torch.linspace(0.0, TWO_PI, 129, dtype=torch.float64)
    for _ in range(12):
        parts = (flow(edges[:, None])[:, 0].diff().abs() / 0.1).ceil().clamp(1, 32).long()
        if parts.max() == 1:
            break
        start, width = edges[:-1].repeat_interleave(parts), (edges.diff() / parts).repeat_interleave(parts)
        first = (parts.cumsum(0) - parts).repeat_interleave(parts)
        edges = torch.cat((start + width * (torch.arange(len(start)) - first), edges[-1:]))
    x, w = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(12))
    half = 0.5 * edges.diff()[:, None]
    return (edges[:-1, None] + half * (1.0 + x)).reshape(-1, 1), (half * w).flatten()

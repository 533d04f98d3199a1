r"""The Markov operator of one step of a method, as a matrix on a grid (eq. 9).

A step is ``theta' = Phi(theta, xi)`` with Gaussian xi. On functions u that are band-limited on an odd number of
equally spaced points, ``(P u)(theta_j) = E u(Phi(theta_j, xi))`` is the matrix

    ``P_jl = (1/points) sum_k E e^{ik Phi(theta_j, xi)} e^{-ik theta_l}``,

and a density p on the same grid moves by ``p <- P^T p``. The expectation is a quadrature over xi: Gauss-Hermite where
the step depends weakly on xi, else the trapezoid rule on the line. The latter converges for waves ``e^{ikx}`` of any
length at ``(k + 8) 16 / 2 pi`` nodes, where Gauss-Hermite would need ``k^2 / 2``. A noise that Phi only adds, with
the same slope everywhere, needs no nodes: it multiplies the waves by a Gaussian.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np
import torch
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray
from torch import Tensor

from circsde.noise import wiener_shape
from circsde.sde import SDE
from circsde.solvers.brownian import Noise
from circsde.solvers.methods import Method, Step
from circsde.torus import TWO_PI

Array = NDArray[np.float64]
Waves = NDArray[np.complex128]
Image = Callable[[Tensor, Tensor], Tensor]

_ACCURACY = {1: 1e-13, 2: 1e-7}  # accuracy of the quadrature, by the number of phases
_ELSEWHERE = torch.tensor([[0.7, -1.1], [-0.4, 1.9]], dtype=torch.float64)  # where slopes are looked at besides 0
_CHUNK = 1 << 17  # complex numbers at a time, to stay in the cache


@dataclass(frozen=True)
class Grid:
    """Equally spaced points on the circle or the torus T^2.

    Attributes:
        points: Their odd number per dimension.
        dimensions: 1 or 2.
    """

    points: int
    dimensions: int = 1

    @property
    def axis(self) -> Array:
        """The coordinates along one dimension, in ``[0, 2 pi)``."""
        return np.arange(self.points, dtype=np.float64) * (TWO_PI / self.points)

    @property
    def theta(self) -> Tensor:
        """All points, shape ``(points^dimensions, dimensions)``, float64."""
        axes = [torch.from_numpy(self.axis)] * self.dimensions
        return torch.cartesian_prod(*axes).reshape(-1, self.dimensions)

    @property
    def cell(self) -> float:
        """The measure of a point, rad^dimensions."""
        return (TWO_PI / self.points) ** self.dimensions

    def moments(self, density: Array) -> Waves:
        """``E e^{ik . theta}``, for k in the order of ``numpy.fft``, shape ``(points,) * dimensions``."""
        shape = (self.points,) * self.dimensions
        return np.fft.ifftn(density.reshape(shape)) * self.cell * density.size


def dimensions(sde: SDE) -> int:
    """How many phases a sample of the equation has; operators exist for one and two.

    Raises:
        ValueError: For more than two.
    """
    count = 1 if sde.event_shape is None else torch.Size(sde.event_shape).numel()
    if count not in (1, 2):
        raise ValueError(
            f"transfer operators are matrices on a grid and exist for one or two phases, got event shape"
            f" {tuple(sde.event_shape or ())}; use Monte-Carlo studies"
        )
    return count


def processes(sde: SDE) -> int:
    """How many Wiener processes drive a sample: one per phase, one, or those of general noise.

    Raises:
        ValueError: For more than two.
    """
    event = (1,) if sde.event_shape is None else tuple(sde.event_shape)
    count = torch.Size(wiener_shape(sde, torch.zeros(1, *event, dtype=torch.float64))[1:]).numel()
    if count > 2:
        raise ValueError(
            f"transfer operators exist for one or two Wiener processes, got {count}; use Monte-Carlo studies"
        )
    return count


def markov_matrix(
    step: Step, sde: SDE, t: float, h: float, grid: Grid, *, levy_area: bool, nodes: float = 1.0
) -> Array:
    """The operator of ``step``, shape ``(n, n)`` with n the number of grid points.

    Args:
        step: ``Method.step``, or ``Method.observe``, which may use only that part of the noise that is independent
            of ``dW``.
        sde: An equation for one or two phases.
        t: The time at which the step starts.
        h: Its length.
        grid: The grid.
        levy_area: Whether ``step`` reads ``noise.dZ``.
        nodes: Multiplies the number of quadrature nodes, to check it.
    """
    highest = grid.points // 2
    image, noises = _noises(step, sde, t, h, grid, levy_area)
    rules = [_normal_rule(highest * steepest, _ACCURACY[grid.dimensions], nodes) for steepest, _ in noises]
    count = processes(sde)
    axes = [torch.from_numpy(x) for x, _ in rules for _ in range(count)]
    xi = torch.cartesian_prod(*axes).reshape(-1, len(rules), count)
    weights = torch.cartesian_prod(*[torch.from_numpy(w) for _, w in rules for _ in range(count)])
    weight = weights.reshape(len(xi), -1).prod(1)
    rows = max(1, _CHUNK // (len(xi) * (grid.points if grid.dimensions == 2 else 1)))
    blocks = [wave_means(image(block, xi), weight, highest) for block in torch.split(grid.theta, rows)]
    means = torch.cat(blocks).numpy()
    for _, added in noises:
        means = means * _damping(added, highest)
    return from_waves(means, grid)


def operator(method: Method, sde: SDE, t: float, h: float, grid: Grid, *, nodes: float = 1.0) -> Array:
    """The operator of one step of a method: of its parts in turn, where it has them, each with a noise of its own.

    The arguments are those of :func:`markov_matrix`.
    """
    if not method.parts:
        return markov_matrix(method.step, sde, t, h, grid, levy_area=method.levy_area, nodes=nodes)
    matrices = [markov_matrix(part, sde, t, h, grid, levy_area=False, nodes=nodes) for part in method.parts]
    return reduce(np.matmul, matrices)


@torch.no_grad()
def image_of(
    step: Step, sde: SDE, t: float, h: float, levy_area: bool, theta: Tensor, xi: Tensor, turn: float = 0.0
) -> Tensor:
    """``Phi``, shape ``(n, q, d)``, of angles ``(n, d)`` and standard normals ``(q, 1 or 2, m)``.

    One normal per Wiener process makes dW, and the second, where there is levy_area, what dZ has besides; both turned
    by an angle, rad.
    """
    event, (n, d), q = (1,) if sde.event_shape is None else tuple(sde.event_shape), theta.shape, len(xi)

    def spread(normals: Tensor) -> Tensor:
        return (math.sqrt(h) * normals).repeat(n, 1).reshape(wiener_shape(sde, start))

    start = theta.repeat_interleave(q, 0).reshape(-1, *event)
    noise = Noise(spread(xi[:, 0]))
    if levy_area:
        first, second = spread(xi[:, 0]), spread(xi[:, 1])
        dW, rest = math.cos(turn) * first - math.sin(turn) * second, math.sin(turn) * first + math.cos(turn) * second
        noise = Noise(dW, h * (0.5 * dW + rest / 12.0**0.5))
    return step(sde, t, h, start, noise).reshape(n, q, d)


def _noises(
    step: Step, sde: SDE, t: float, h: float, grid: Grid, levy_area: bool
) -> tuple[Image, list[tuple[float, Array]]]:
    """Phi by normals that suit it, and its slopes along each kind.

    Some methods only add what dZ has beside dW, or do not read it; others only add what dW has beside dZ. The latter
    two are turned against each other by ``pi / 6``.
    """
    for turn in (math.pi / 6, 0.0)[0 if levy_area else 1 :]:
        image = partial(image_of, step, sde, t, h, levy_area, turn=turn)
        noises = [_slopes(image, grid, processes(sde), kind, 1 + levy_area) for kind in range(1 + levy_area)]
        if noises[-1][0] == 0.0:
            break
    return image, noises


def needs_two_noises(method: Method, sde: SDE) -> bool:
    """Whether the operator of a step takes nodes along two normals per phase, which is slow."""
    if not method.levy_area or method.parts:
        return False
    _, noises = _noises(method.step, sde, 0.0, sde.horizon / 50, Grid(15, dimensions(sde)), True)
    return all(steepest > 0.0 for steepest, _ in noises)


def _slopes(image: Image, grid: Grid, count: int, kind: int, kinds: int) -> tuple[float, Array]:
    """How steep Phi is along a kind of noise, between -6 and 6 standard deviations.

    Where the slopes ``d Phi_i / d xi_j`` are the same everywhere, the answer is 0 and those slopes; else it is the
    steepest, and slopes of 0.
    """
    ladder, found = torch.arange(-6.0, 7.0, dtype=torch.float64), []
    elsewhere = _ELSEWHERE[:kinds, :count]
    for process in range(count):
        xi = torch.stack((torch.zeros_like(elsewhere), elsewhere)).repeat_interleave(len(ladder), 0)
        xi[:, kind, process] = ladder.repeat(2)
        found.append(image(grid.theta, xi).reshape(-1, 2, len(ladder), grid.dimensions).diff(dim=2))
    slopes = torch.stack(found, -1)
    constant = slopes[0, 0, 0]
    if (slopes - constant).abs().max() < 1e-12 * (1.0 + constant.abs().max()):
        return 0.0, constant.numpy()
    return slopes[:, 0].abs().max().item(), np.zeros_like(constant)


def _damping(slopes: Array, highest: int) -> Array:
    """``E e^{ik . A xi}`` of a noise that is only added with these slopes A, in the shape of :func:`wave_means`."""
    k = np.arange(highest + 1)
    if len(slopes) == 1:
        return np.asarray(np.exp(-0.5 * (slopes[0] ** 2).sum() * k**2))
    a = np.fft.fftfreq(2 * highest + 1, 1.0 / (2 * highest + 1))
    along = np.multiply.outer(a, slopes[0])[:, None] + np.multiply.outer(k, slopes[1])
    return np.asarray(np.exp(-0.5 * (along**2).sum(-1)))


def _normal_rule(reach: float, accuracy: float, nodes: float) -> tuple[Array, Array]:
    """Nodes and weights for ``E u(x)``, x standard normal, for waves ``e^{iax}``, ``|a| <= reach``."""
    if reach < 1e-12:
        return np.zeros(1), np.ones(1)
    gauss = 2
    while 2 * gauss * math.log(reach) + math.lgamma(gauss + 1) - math.lgamma(2 * gauss + 1) > math.log(accuracy):
        gauss += 1
    width = math.sqrt(-2.0 * math.log(accuracy))
    trapezoid = math.ceil((reach + width) * 2.0 * width / TWO_PI) + 1
    count = math.ceil(nodes * min(gauss, trapezoid))
    if gauss <= trapezoid:
        x, w = hermegauss(count)
    else:
        x = np.linspace(-width, width, count)
        w = np.exp(-0.5 * x**2)
    return x, w / w.sum()


def wave_means(phi: Tensor, weight: Tensor, highest: int) -> Tensor:
    """``E e^{ik . Phi}``: shape ``(n, highest + 1)`` for k >= 0, or ``(n, 2 highest + 1, highest + 1)`` on T^2."""
    if phi.shape[2] == 1:
        wave = torch.polar(torch.ones_like(phi[..., 0]), phi[..., 0])
        power, means = weight.to(wave.dtype).expand(wave.shape).clone(), []
        for _ in range(highest + 1):
            means.append(power.sum(1))
            power *= wave
        return torch.stack(means, 1)
    first = weight[:, None] * _powers(phi[..., 0], highest)
    second = _powers(phi[..., 1], highest)
    up, down = (first.transpose(1, 2) @ wave for wave in (second, second.conj()))
    return torch.cat((up, down[:, 1:].conj().flip(1)), 1)


def _powers(phi: Tensor, highest: int) -> Tensor:
    """``e^{ik phi}`` for k from 0 to ``highest`` along a new last dimension, the number known doubled in turns."""
    wave = torch.polar(torch.ones_like(phi), phi)[..., None]
    powers, known = torch.ones(*phi.shape, highest + 1, dtype=wave.dtype), 1
    while known <= highest:
        more = min(known, highest + 1 - known)
        torch.mul(powers[..., :more], wave, out=powers[..., known : known + more])
        known, wave = known + more, wave * wave
    return powers


def from_waves(means: Waves, grid: Grid) -> Array:
    """The matrix from the rows ``E e^{ik Phi(theta_j)}``: their band-limited transform to the grid."""
    shape = (grid.points,) * grid.dimensions
    axes = tuple(range(1, 1 + grid.dimensions))
    return np.asarray(np.fft.irfftn(means.conj(), s=shape, axes=axes).reshape(len(means), -1))

r"""How long each wave of an image outlasts the noise, to first order: signal, noise and information (eq. 23).

Near the reference phase the Kuramoto equation without lag or natural frequencies is linear. Let C be an orthogonal
matrix whose rows are eigenvectors of the coupling's mean, with eigenvalues g, and ``x = C (theta - psi)``. Then

    x_k(t) = e^{-a_k(t)} x_k(0) + n_k(t)^{1/2} xi_k,    a_k(t) = (1 - g_k) int_0^t K + int_0^t K_ref,
    n_k(t) = 2 int_0^t D(s) e^{-2 (a_k(t) - a_k(s))} ds.

Local coupling is a diffusion of the phases over the image: short waves have ``g = 0`` and die first.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import xarray as xr
from scipy.optimize import brentq
from torch import Tensor

from circsde.coupling import LocalCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.models.linear_residual import cosines
from circsde.schedule import number
from circsde.streams import torch_stream
from circsde.torus import difference
from circsde.typing import Angles

CELLS = 256
"""Parts of the horizon in each of which the noise is integrated by a Gauss rule of four points."""

_NODES, _WEIGHTS = (0.5 * x for x in np.polynomial.legendre.leggauss(4))
_AXES = {1: ("wave",), 2: ("row_wave", "column_wave"), 3: ("channel_wave", "row_wave", "column_wave")}


def waves(sde: KuramotoSDE, theta: Angles, times: Sequence[float]) -> xr.Dataset:
    """Signal and noise of each wave of images at some times, and the information that is left.

    Waves are those of the cosine transform; with periodic windows they are those of the Hartley transform, of which the
    mean over such a window is a multiple as well.

    Args:
        sde: The forward equation, without lag and natural frequencies.
        theta: Data, ``(n, *event_shape)``, n > 1, radians; not far from the reference phase, if this is to be accurate.
        times: Increasing times in ``(0, horizon]``.

    Returns:
        Over ``time`` and the waves: ``decay`` a; ``noise`` n, rad^2; ``signal``, the variance of the wave in the data
        times ``e^{-2a}``, rad^2. Over ``time``: ``information = 1/2 sum log(1 + signal / noise)``, nats, what the state
        tells about the data if they are normal with independent waves. Over the waves ``frequency``, cycles per pixel.

    Raises:
        ValueError: If the equation has a lag, natural frequencies or a reference phase that changes in time, if the
            coupling's mean of a wave is no multiple of it, or data or times do not fit.

    >>> from circsde.schedule import Schedule
    >>> sde = KuramotoSDE((8,), LocalCoupling(1), Schedule.constant(coupling=3.0, reference=1.0, diffusion=0.1))
    >>> found = waves(sde, 0.1 * torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), [1.0])
    >>> found["decay"].sel(time=1.0, wave=[0, 4]).values.round(3)  # 1, and 1 + 3 (1 + 1/3)
    array([1., 5.])
    """
    _check(sde, theta, times)
    shape = tuple(sde.event_shape or ())
    variance = transform(sde, difference(theta.double(), sde.reference_phase.to(theta).double())).var(0).cpu()
    damping = 1.0 - _eigenvalues(sde)
    decay, noise = _linear(sde, damping, times)
    signal = variance * (-2.0 * decay).exp()
    left = 0.5 * torch.log1p(signal / noise).flatten(1).sum(1)
    axes = _AXES[len(shape)]
    values = {"decay": decay, "noise": noise, "signal": signal}
    along = {name: (name, np.arange(side)) for name, side in zip(axes, shape, strict=True)}
    found = xr.Dataset({name: (("time", *axes), each.numpy()) for name, each in values.items()})
    found["information"] = ("time", left.numpy())
    return found.assign_coords({"time": list(times), "frequency": (axes, _frequencies(sde).numpy()), **along})


def equal_information(sde: KuramotoSDE, theta: Angles, n_steps: int, smallest: float = 0.02) -> tuple[float, ...]:
    """Times of a chain whose steps lose equal amounts of information about the data, as :func:`waves` counts it.

    Args:
        sde: The forward equation.
        theta: Data, as for :func:`waves`.
        n_steps: Steps, at least 2.
        smallest: The standard deviation of the noise after the first step, rad: finer detail is not resolved.

    Returns:
        ``n_steps + 1`` times from 0 to the horizon, for :class:`circsde.matching.chain.Chain`.

    Raises:
        ValueError: As :func:`waves`, or if there are fewer than 2 steps, or all the noise is smaller.
    """
    horizon, total = sde.horizon, number(sde.variance(0.0, sde.horizon)) ** 0.5
    if n_steps < 2 or not 0.0 < smallest < total:
        raise ValueError(
            f"expected at least 2 steps and a smallest noise between 0 and {total:g} rad, got {n_steps} steps and"
            f" {smallest:g} rad"
        )
    first = brentq(lambda t: number(sde.variance(0.0, t)) - smallest**2, 0.0, horizon, xtol=1e-14)
    fine = np.geomspace(first, horizon, CELLS)
    fine[0], fine[-1] = first, horizon
    left = waves(sde, theta, fine.tolist())["information"].to_numpy()
    even = np.linspace(left[0], left[-1], n_steps)
    inner = np.exp(np.interp(even[1:-1], left[::-1], np.log(fine[::-1])))
    return (0.0, first, *inner.tolist(), horizon)


def transform(sde: KuramotoSDE, x: Tensor, *, inverse: bool = False) -> Tensor:
    """The amplitudes of the waves of images, ``(n, *event_shape)`` in float64; or images from amplitudes."""
    x = x.double()
    for axis in range(1, x.ndim):
        basis = _basis(sde, axis - 1).to(x)
        x = torch.movedim(torch.movedim(x, axis, -1) @ (basis if inverse else basis.mT), -1, axis)
    return x


def _check(sde: KuramotoSDE, theta: Angles, times: Sequence[float]) -> None:
    shape = tuple(sde.event_shape or ())
    lag = torch.as_tensor(sde.coupling.lag)
    if sde.forcing is not None or sde.rotates or bool(lag.any()):
        raise ValueError("waves are those of an equation without lag, natural frequencies or a forcing")
    if len(shape) not in _AXES or theta.ndim != len(shape) + 1 or theta.shape[1:] != shape or len(theta) < 2:
        raise ValueError(
            f"data must be of shape (n, {', '.join(map(str, shape))}) with n > 1 and at most three axes more, got"
            f" {tuple(theta.shape)}"
        )
    if not len(times) or times[0] <= 0.0 or times[-1] > sde.horizon or any(b <= a for a, b in pairwise(times)):
        raise ValueError(f"times must increase within (0, {sde.horizon:g}], got {list(times)}")


def _basis(sde: KuramotoSDE, axis: int) -> Tensor:
    """The waves along an axis of a sample, one a row."""
    shape = tuple(sde.event_shape or ())
    side = shape[axis]
    if not _hartley(sde) or axis < len(shape) - 2:
        return cosines(side)
    angle = 2.0 * math.pi / side * torch.outer(torch.arange(side), torch.arange(side)).double()
    return (angle.cos() + angle.sin()) / math.sqrt(side)


def _hartley(sde: KuramotoSDE) -> bool:
    return isinstance(sde.coupling, LocalCoupling) and sde.coupling.boundary == "periodic"


def _frequencies(sde: KuramotoSDE) -> Tensor:
    """Cycles per pixel of each wave; channels have none."""
    shape = tuple(sde.event_shape or ())
    found = torch.zeros(shape, dtype=torch.float64)
    for axis in range(max(0, len(shape) - 2), len(shape)):
        k = torch.arange(shape[axis], dtype=torch.float64)
        cycles = torch.minimum(k, shape[axis] - k) / shape[axis] if _hartley(sde) else k / (2 * shape[axis])
        found += cycles.reshape(-1, *(1 for _ in shape[axis + 1 :])).square()
    return found.sqrt()


def _eigenvalues(sde: KuramotoSDE) -> Tensor:
    """What the coupling's mean multiplies each wave by; 1 where nothing is coupled, as no phase feels another then."""
    shape = tuple(sde.event_shape or ())
    if not sde.coupled:
        return torch.ones(shape, dtype=torch.float64)

    def mean(x: Tensor) -> Tensor:
        return transform(sde, sde.coupling.mean(x).expand_as(x))

    corner = torch.zeros(1, *shape, dtype=torch.float64)
    corner.view(-1)[0] = 1.0  # every wave has an amplitude there
    values = (mean(corner) / transform(sde, corner))[0]
    probe = torch.randn(1, *shape, dtype=torch.float64, generator=torch_stream(0, "checks"))
    wrong = mean(probe) - values * transform(sde, probe)
    if float(wrong.abs().max()) > 1e-9:
        raise ValueError(
            f"the mean of {type(sde.coupling).__name__} of a wave is no multiple of it: waves are known for global"
            " coupling, for windows, and without coupling"
        )
    return values


def _linear(sde: KuramotoSDE, damping: Tensor, times: Sequence[float]) -> tuple[Tensor, Tensor]:
    """``a`` and ``n`` of each wave at each time."""
    rates = sde.schedule
    ends = sorted({*np.linspace(0.0, sde.horizon, CELLS + 1)[1:].tolist(), *times})

    def a(t0: float, t1: float) -> Tensor:
        return damping * number(rates.coupling.integral(t0, t1)) + number(rates.reference.integral(t0, t1))

    noise, before, found = torch.zeros_like(damping), 0.0, {}
    for end in ends[: ends.index(times[-1]) + 1]:
        h = end - before
        noise = noise * (-2.0 * a(before, end)).exp()
        for x, w in zip(_NODES, _WEIGHTS, strict=True):
            s = before + (0.5 + x) * h
            noise = noise + 2.0 * h * w * number(rates.diffusion(s)) * (-2.0 * a(s, end)).exp()
        found[end], before = noise, end
    return torch.stack([a(0.0, t) for t in times]), torch.stack([found[t] for t in times])

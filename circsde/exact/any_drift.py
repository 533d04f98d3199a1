r"""The Fokker-Planck equation of any smooth periodic drift of one or two angles, in Fourier modes.

For ``d theta_i = f_i(t, theta) dt + g_i(t) dW_i`` the moments ``m_k = E e^{ik . theta}`` obey

    ``m_k' = i sum_i k_i E[f_i e^{ik . theta}] - (1/2) sum_i g_i^2 k_i^2 m_k``.

The expectations are taken on a grid, by the trapezoid rule: it is exact as soon as the grid has more points per angle
than the modes of the density, of the drift and of ``e^{ik . theta}`` together (a pseudo-spectral method without
aliasing). How many modes the drift has, and whether it changes in time, is seen at seventeen times: between those it
may not have a pulse.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import ifftn, irfftn, next_fast_len, rfftn

from circsde.exact.spectral import Complex, Derivative, Pace, Spectrum, march
from circsde.sde import SDE
from circsde.torus import TWO_PI

Array = NDArray[np.float64]
Modes = NDArray[np.int64]

_PROBE = {1: 1024, 2: 96}  # points per angle, by the number of angles, on which the modes of a drift are counted
_TIMES = 17


def spectrum(sde: SDE, modes: Modes, initial: Complex, tolerance: float) -> Spectrum:
    """The moments in time.

    Args:
        sde: An equation for one or two angles.
        modes: The wave numbers k of the moments by increasing length, shape ``(n, angles)``; of k and -k the one whose
            first number that is not zero is positive.
        initial: The moments at time 0, in that order.
        tolerance: See :func:`circsde.exact.spectral.march`.

    Raises:
        ValueError: If the drift is not smooth, or the modes do not resolve the law.
    """
    angles = modes.shape[1]
    probe = _Grid(sde, angles, _PROBE[angles])
    seen = [probe.drift(float(t)) for t in np.linspace(0.0, sde.horizon, _TIMES)]
    band = max(_band(drift, 0.1 * tolerance) for drift in seen)
    steady = all(np.array_equal(drift, seen[0]) for drift in seen)

    def derivative(size: int) -> Derivative:
        kept = modes[:size]
        points = next_fast_len(2 * int(np.abs(kept).max()) + band + 1)
        grid, shape, axes = _Grid(sde, angles, points), (points,) * angles, tuple(range(angles))[::-1]
        still = grid.drift(0.0)
        drift = (lambda t: still) if steady else grid.drift  # noqa: ARG005
        half = (points // 2 + 1, *shape[1:])  # of the waves along the first angle: a density is real
        here, edge = np.ravel_multi_index(tuple(kept.T % points), half), kept[:, 0] == 0
        opposite = np.ravel_multi_index(tuple(-kept[edge].T % points), half)

        def change(t: float, m: Complex) -> Complex:
            waves = np.zeros(half, dtype=np.complex128)
            waves.flat[opposite], waves.flat[here] = m[edge], m.conj()
            density = irfftn(waves, shape, axes, norm="forward")
            flux = [rfftn(f * density, axes=axes, norm="forward").flat[here].conj() for f in drift(t)]
            return np.asarray(1j * (kept.T * flux).sum(0) - (kept**2 @ _diffusion(sde, t, angles)) * m)

        return change

    pace = Pace(
        sde.horizon,
        sde.breakpoints or (0.0, sde.horizon),
        speed=lambda t: float(np.hypot.reduce(probe.drift(t), 0).max()),
        diffusion=lambda t: float(_diffusion(sde, t, angles).max()),
        reach=angles**0.5 * max(1, band),
    )
    return march(derivative, np.linalg.norm(modes, axis=1), initial, pace, tolerance)


class _Grid:
    """Equally spaced angles, on which a drift is evaluated."""

    def __init__(self, sde: SDE, angles: int, points: int) -> None:
        axis = torch.arange(points, dtype=torch.float64) * (TWO_PI / points)
        event = (angles,) if sde.event_shape is None else tuple(sde.event_shape)
        self.sde, self.shape = sde, (angles, *(points,) * angles)
        self.theta = torch.cartesian_prod(*[axis] * angles).reshape(-1, *event)

    @torch.no_grad()
    def drift(self, t: float) -> Array:
        """The drift, rad/time, shape ``(angles, points, ...)``."""
        values = self.sde.drift(t, self.theta).reshape(-1, self.shape[0])
        return np.asarray(values.double().numpy().T.reshape(self.shape))


def _band(drift: Array, negligible: float) -> int:
    """The largest wave number in a drift whose mode is not negligible against the largest mode.

    Raises:
        ValueError: If its modes do not end on this grid.
    """
    points, angles = drift.shape[-1], len(drift)
    sizes = np.abs(ifftn(drift, axes=tuple(range(1, 1 + angles)))).max(0)
    k = np.abs(np.indices(sizes.shape) - points // 2).max(0)
    found = k[np.fft.fftshift(sizes) > negligible * max(sizes.max(), np.finfo(np.float64).tiny)]
    band = int(found.max(initial=0))
    if band > points // 3:
        raise ValueError(
            "the drift is not a smooth periodic function of the angles: its Fourier modes fall below"
            f" {negligible:.0e} of the largest after number {band}, and at most {points // 3} are carried; sample the"
            " law instead"
        )
    return band


def _diffusion(sde: SDE, t: float, angles: int) -> Array:
    """``g^2 / 2`` of each angle."""
    g = sde.diffusion(t)
    values = g.detach().double().numpy().reshape(-1) if isinstance(g, torch.Tensor) else np.array([float(g)])
    return np.broadcast_to(0.5 * values**2, (angles,))

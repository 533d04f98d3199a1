r"""The Fokker-Planck equation of any smooth periodic drift and noise of one or two angles, in Fourier modes.

For ``d theta_i = f_i(t, theta) dt + g_i(t) dW_i`` the moments ``m_k = E e^{ik . theta}`` obey

    ``m_k' = i sum_i k_i E[f_i e^{ik . theta}] - (1/2) sum_i g_i^2 k_i^2 m_k``;

noise that depends on the angles has the last term ``-(1/2) sum_ij k_i k_j E[(g g^T)_ij e^{ik . theta}]`` instead, and
``f`` is then Ito's drift. The expectations are taken on a grid, by the trapezoid rule: it is exact as soon as the grid
has more points per angle than the modes of the density, of the drift (or of ``g g^T``) and of ``e^{ik . theta}``
together (a pseudo-spectral method without aliasing). How many modes the drift has, and whether it changes in time, is
seen at seventeen times: between those it may not have a pulse.
"""

from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import ifftn, irfftn, next_fast_len, rfftn

from circsde.exact.spectral import Complex, Derivative, Pace, Spectrum, march
from circsde.noise import amplitude, flat, ito_drift
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
    seen = [probe.fields(float(t)) for t in np.linspace(0.0, sde.horizon, _TIMES)]
    parts = [part for fields in seen for part in (fields[:angles], fields[angles:]) if len(part)]
    band = max(_band(part, 0.1 * tolerance) for part in parts)
    steady = all(np.array_equal(fields, seen[0]) for fields in seen)
    lasting = steady and sde.noise != "additive"  # additive noise may change where the drift does not

    def derivative(size: int) -> Derivative:
        kept = modes[:size]
        points = next_fast_len(2 * int(np.abs(kept).max()) + band + 1)
        grid, shape, axes = _Grid(sde, angles, points), (points,) * angles, tuple(range(angles))[::-1]
        still = grid.fields(0.0)
        fields = (lambda t: still) if steady else grid.fields  # noqa: ARG005
        half = (points // 2 + 1, *shape[1:])  # the waves along the first angle; the others follow, as a density is real
        here, edge = np.ravel_multi_index(tuple(kept.T % points), half), kept[:, 0] == 0
        opposite = np.ravel_multi_index(tuple(-kept[edge].T % points), half)
        second = [-kept[:, i] * kept[:, j] for i, j in product(range(angles), repeat=2)]
        weights = np.concatenate((1j * kept.T, second))[: len(still)]

        def change(t: float, m: Complex) -> Complex:
            waves = np.zeros(half, dtype=np.complex128)
            waves.flat[opposite], waves.flat[here] = m[edge], m.conj()
            density = irfftn(waves, shape, axes, norm="forward")
            flux = [rfftn(f * density, axes=axes, norm="forward").flat[here].conj() for f in fields(t)]
            return np.asarray((weights * flux).sum(0) - (kept**2 @ _diffusion(sde, t, angles)) * m)

        return _matrix(change, size) if lasting and angles == 1 else change

    pace = Pace(
        sde.horizon,
        sde.breakpoints or (0.0, sde.horizon),
        speed=lambda t: float(np.hypot.reduce(probe.fields(t)[:angles], 0).max()),
        diffusion=lambda t: float(max(_diffusion(sde, t, angles).max(), probe.trace(t).max())),
        reach=angles**0.5 * max(1, band),
    )
    return march(derivative, np.linalg.norm(modes, axis=1), initial, pace, tolerance)


def _matrix(change: Derivative, size: int) -> Derivative:
    """The derivative as a product with matrices, as it is linear in the real and the imaginary part of the modes."""
    units = np.eye(size, dtype=np.complex128)
    real, imaginary = (np.stack([change(0.0, unit) for unit in part * units], 1) for part in (1.0, 1j))
    return lambda t, m: np.asarray(real @ m.real + imaginary @ m.imag)  # noqa: ARG005


class _Grid:
    """Equally spaced angles, on which a drift is evaluated."""

    def __init__(self, sde: SDE, angles: int, points: int) -> None:
        axis = torch.arange(points, dtype=torch.float64) * (TWO_PI / points)
        event = (angles,) if sde.event_shape is None else tuple(sde.event_shape)
        self.sde, self.shape = sde, (angles, *(points,) * angles)
        self.theta = torch.cartesian_prod(*[axis] * angles).reshape(-1, *event)

    @torch.no_grad()
    def fields(self, t: float) -> Array:
        """Ito's drift, rad/time, and ``(g g^T)_ij / 2`` unless noise is additive; shape ``(fields, points, ...)``."""
        angles, count = self.shape[0], len(self.theta)
        values = [ito_drift(self.sde, t, self.theta).reshape(count, angles)]
        if self.sde.noise != "additive":
            g = flat(self.sde.noise, amplitude(self.sde, t, self.theta))
            matrix = g.diag_embed() if self.sde.noise == "diagonal" else g
            values.append(0.5 * (matrix @ matrix.mT).reshape(count, -1))
        together = torch.cat(values, 1).double().numpy()
        return np.asarray(together.T.reshape(-1, *self.shape[1:]))

    def trace(self, t: float) -> Array:
        """The trace of ``g g^T / 2``, rad^2/time, which bounds its eigenvalues; 0 where the noise is additive."""
        angles = self.shape[0]
        return np.asarray(self.fields(t)[angles :: angles + 1].sum(0))


def _band(drift: Array, negligible: float) -> int:
    """The largest wave number in a drift, or in ``g g^T``, whose mode is not negligible against the largest mode.

    Raises:
        ValueError: If its modes do not end on this grid.
    """
    points, angles = drift.shape[-1], drift.ndim - 1
    sizes = np.abs(ifftn(drift, axes=tuple(range(1, 1 + angles)))).max(0)
    k = np.abs(np.indices(sizes.shape) - points // 2).max(0)
    found = k[np.fft.fftshift(sizes) > negligible * max(sizes.max(), np.finfo(np.float64).tiny)]
    band = int(found.max(initial=0))
    if band > points // 3:
        raise ValueError(
            "the drift or the noise is not a smooth periodic function of the angles: its Fourier modes fall below"
            f" {negligible:.0e} of the largest after number {band}, and at most {points // 3} are carried; sample the"
            " law instead"
        )
    return band


def _diffusion(sde: SDE, t: float, angles: int) -> Array:
    """``g^2 / 2`` of each angle, of additive noise; else 0."""
    g = 0.0 if sde.noise != "additive" else sde.diffusion(t)
    values = g.detach().double().numpy().reshape(-1) if isinstance(g, torch.Tensor) else np.array([float(g)])
    return np.broadcast_to(0.5 * values**2, (angles,))

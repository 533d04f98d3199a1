r"""Noiseless identical oscillators: exact solutions with three real numbers, however many oscillators there are.

Where every oscillator feels the same field, ``theta_j' = w + Im(h e^{-i theta_j})``, the points ``e^{i theta_j}``
move by one Mobius map of the disc (Watanabe & Strogatz 1994, doi:10.1016/0167-2789(94)90196-1; Marvel, Mirollo &
Strogatz 2009, doi:10.1063/1.3247089),

    ``e^{i theta_j(t)} = M(e^{i theta_j(0)}),   M(x) = (a + u x) / (1 + conj(a) u x),   u = e^{i beta},``
    ``a' = i w a + (h - conj(h) a^2) / 2,   beta' = w + Im(h conj(a)),   a(0) = beta(0) = 0,``

with ``h = K z + K_ref e^{i psi}`` and z the mean of the points. For infinitely many oscillators whose phases start
with a wrapped Cauchy law, z obeys the equation of ``a`` itself (Ott & Antonsen 2008, doi:10.1063/1.2930766).
"""

import cmath
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from circsde.breakpoints import between, breakpoints
from circsde.exact.fokker_planck import attraction
from circsde.exact.spectral import Complex
from circsde.schedule import Schedule
from circsde.torus import wrap


def watanabe_strogatz(
    schedule: Schedule,
    theta: Tensor,
    ts: Sequence[float],
    *,
    reference_phase: float = 0.0,
    natural_frequency: float = 0.0,
) -> Tensor:
    """The phases of N identical, globally coupled, noiseless oscillators at the times ``ts``, to about 1e-12.

    Args:
        schedule: The rates K(t) and K_ref(t); the diffusion must be zero.
        theta: The phases at time 0, shape ``(N,)``, radians.
        ts: Increasing times in ``[0, horizon]``.
        reference_phase: psi, rad.
        natural_frequency: w, the same for all, rad/time.

    Returns:
        Wrapped phases, shape ``(len(ts), N)``, float64.

    Raises:
        ValueError: If the schedule has noise, or the times do not increase within ``[0, horizon]``.
    """
    points = np.exp(1j * theta.double().numpy())

    def moved(a: complex, u: complex) -> Complex:
        return np.asarray((a + u * points) / (1.0 + a.conjugate() * u * points))

    def derivative(t: float, state: Complex) -> Complex:
        a, beta = complex(state[0]), state[1].real
        h = attraction(schedule, t, complex(moved(a, cmath.rect(1.0, beta)).mean()), reference_phase)
        return np.array([_riccati(a, h, natural_frequency), natural_frequency + (h * a.conjugate()).imag])

    states = _solve(schedule, derivative, [0j, 0j], ts)
    phases = np.stack([np.angle(moved(complex(a), cmath.rect(1.0, beta.real))) for a, beta in states])
    return wrap(torch.from_numpy(phases))


def ott_antonsen(
    schedule: Schedule,
    z: complex | float,
    ts: Sequence[float],
    *,
    reference_phase: float = 0.0,
    natural_frequency: float = 0.0,
) -> Complex:
    """The order parameter ``E e^{i theta}`` of infinitely many noiseless oscillators at the times ``ts``.

    Args:
        schedule: The rates K(t) and K_ref(t); the diffusion must be zero.
        z: The order parameter at time 0, of a wrapped Cauchy law: its moments are ``E e^{ik theta} = z^k``.
        ts: Increasing times in ``[0, horizon]``.
        reference_phase: psi, rad.
        natural_frequency: w, the same for all, rad/time.

    Raises:
        ValueError: If the schedule has noise, or the times do not increase within ``[0, horizon]``.

    >>> z = ott_antonsen(Schedule.constant(coupling=2.0, diffusion=0.0), 0.5, [1.0])  # r' = (K / 2) r (1 - r^2)
    >>> round(float(z[0].real), 10) == round((1.0 + 3.0 * float(np.exp(-2.0))) ** -0.5, 10)
    True
    """

    def derivative(t: float, state: Complex) -> Complex:
        h = attraction(schedule, t, complex(state[0]), reference_phase)
        return np.array([_riccati(complex(state[0]), h, natural_frequency)])

    return _solve(schedule, derivative, [z], ts)[:, 0]


def _riccati(a: complex, h: complex, natural_frequency: float) -> complex:
    return 1j * natural_frequency * a + 0.5 * (h - h.conjugate() * a**2)


def _solve(
    schedule: Schedule, derivative: Callable[[float, Complex], Complex], start: Sequence[complex], ts: Sequence[float]
) -> Complex:
    """The states at ``ts``, shape ``(len(ts), len(start))``, integrated from breakpoint to breakpoint of the rates."""
    noise = float(schedule.diffusion.integral(0.0, schedule.horizon))
    if noise > 0:
        raise ValueError(f"these solutions hold without noise, got a diffusion of {noise:g} rad^2; use fokker_planck")
    times = [float(t) for t in ts]
    if not times or times[0] < 0 or times[-1] > schedule.horizon or any(b <= a for a, b in pairwise(times)):
        raise ValueError(f"ts must increase within [0, {schedule.horizon:g}], the horizon, got {times}")
    state = np.array(start, dtype=np.complex128)
    states = {0.0: state}
    for begin, end in pairwise(between(breakpoints(schedule), 0.0, times[-1]) if times[-1] else ()):
        solution = solve_ivp(
            derivative,
            (begin, end),
            state,
            method="DOP853",
            t_eval=[*(t for t in times if begin < t < end), end],
            rtol=1e-13,
            atol=1e-14,
            max_step=times[-1] / 8,
        )
        if not solution.success:
            raise RuntimeError(f"the oscillators could not be followed over [{begin:g}, {end:g}]: {solution.message}")
        states |= dict(zip(solution.t.tolist(), solution.y.T, strict=True))
        state = solution.y[:, -1]
    return np.stack([states[t] for t in times])

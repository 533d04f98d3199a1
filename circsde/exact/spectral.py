r"""Stiff Fourier systems in time: a Fokker-Planck equation on the torus as an ODE for its moments.

The state is a vector of moments ``m_k = E exp(i k . theta)`` ordered by ``|k|``, so that fewer modes are a prefix
and more are padding with zeros. Diffusion makes the system as stiff as ``D |k|^2``; the number of modes that are
carried therefore follows the width of the law. In time the solution is a Chebyshev series on each of a few slabs,
every one cut to the length that resolves it, and none across a breakpoint of the rates, so that no pulse is missed.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.integrate import solve_ivp

from circsde.breakpoints import breakpoints
from circsde.schedule import Schedule
from circsde.typing import Time

Complex = NDArray[np.complex128]
Derivative = Callable[[float, Complex], Complex]

NEGLIGIBLE = 1e-15
"""Moments below this are not evaluated, as the rounding of a moment of order one is 1e-16."""

STABLE = 5.0  # rate times step, inside the stability region of the eighth-order Runge-Kutta method

DEGREE = 32  # the degree of the Chebyshev series on a slab


class Slab(NamedTuple):
    """The solution on ``[start, end]``: one Chebyshev series per moment, shape ``(DEGREE + 1, modes)``."""

    start: float
    end: float
    series: Complex


@dataclass(frozen=True)
class Pace:
    """How fast an equation moves its modes, and how far.

    Attributes:
        horizon: The last time.
        breakpoints: Increasing times from 0 to the horizon, between which the rates are smooth.
        speed: About the largest drift at a time, rad/time.
        diffusion: The largest diffusion ``g^2 / 2`` at a time, rad^2/time.
        reach: By how much ``|k|`` the modes that the drift couples to one another differ at most.
    """

    horizon: float
    breakpoints: tuple[float, ...]
    speed: Callable[[float], float]
    diffusion: Callable[[float], float]
    reach: float = 1.0


def pace(schedule: Schedule) -> Pace:
    """The pace of oscillators with the rates of a schedule."""

    def speed(t: float) -> float:
        rates = schedule.at(t)
        return rates.coupling + rates.reference

    return Pace(schedule.horizon, breakpoints(schedule), speed, lambda t: schedule.at(t).diffusion)


@dataclass(frozen=True)
class Spectrum:
    """The moments as a function of time in ``[0, horizon]``."""

    slabs: tuple[Slab, ...]

    def __call__(self, t: Time) -> Complex:
        """The moments at one time; their number varies with the width of the law.

        Raises:
            ValueError: If ``t`` lies outside ``[0, horizon]`` by more than rounding.
        """
        time, horizon = float(t), self.slabs[-1].end
        slack = horizon * np.finfo(np.float32).eps  # times may have come from float32
        if not -slack <= time <= horizon + slack:
            raise ValueError(f"the law is known on [0, {horizon:g}], got t = {time:g}")
        time = min(max(time, 0.0), horizon)
        start, end, series = self.slabs[bisect_left(self.slabs, time, key=lambda slab: slab.end)]
        angle = np.arccos(np.clip(2 * (time - start) / (end - start) - 1, -1, 1))
        moments: Complex = np.cos(angle * np.arange(len(series))) @ series
        return moments


def march(
    derivative: Callable[[int], Derivative],
    norms: NDArray[np.float64],
    initial: Complex,
    pace: Pace,
    tolerance: float,
) -> Spectrum:
    """Integrate the moments from ``initial`` over the horizon.

    Args:
        derivative: The right-hand side ``dm/dt`` on the first n moments, those beyond taken as zero, given n.
        norms: ``|k|`` of every mode that may be carried, in increasing order.
        initial: The moments at time 0, in that order.
        pace: How fast the modes move.
        tolerance: The largest error that a truncation may cause: of the modes, and of the Chebyshev series.

    Raises:
        ValueError: If the modes do not resolve the law.
        RuntimeError: If the time integrator gives up.
    """
    cap, horizon, edges, reach = float(norms[-1]), pace.horizon, pace.breakpoints, pace.reach
    speed, diffusion = _fastest(pace, [horizon * i / 16 for i in range(17)])
    width = 1.0 / (0.1 * diffusion * _bandwidth(initial, norms, tolerance) ** 2 + speed + 1.0 / horizon)
    time, state, slabs = 0.0, initial, list[Slab]()
    _check_resolved(initial[np.searchsorted(norms, cap - reach, side="right") :], tolerance, cap, time)
    radius = 0.0
    while time < horizon:
        radius = max(radius, 1.2 * _bandwidth(state, norms, tolerance) + 3 + reach)
        size = int(np.searchsorted(norms, min(radius, cap), side="right"))
        edge = edges[bisect_right(edges, time)]
        end = time + width if time + 1.01 * width < edge else edge
        speed, diffusion = _fastest(pace, [time, 0.5 * (time + end), end])
        fastest = diffusion * norms[size - 1] ** 2 + speed * norms[size - 1] + 1.0 / horizon
        series, last = _integrate(derivative(size), _resize(state, size), time, end, STABLE / fastest)
        rim = last[np.searchsorted(norms, norms[size - 1] - reach, side="right") :]
        if np.abs(rim).max() > tolerance and size < len(norms):
            radius *= 1.5
            continue
        _check_resolved(rim, tolerance, cap, end)
        if np.abs(series[-3:]).max() > tolerance and width > 1e-10 * horizon:
            width = 0.5 * (end - time)
            continue
        slabs.append(Slab(time, end, series))
        if np.abs(series[DEGREE // 2 :]).max() < tolerance:
            width = max(width, 2.0 * (end - time))
        time, state, radius = end, last, 0.0
    return Spectrum(tuple(slabs))


def significant(moments: Complex, level: float = NEGLIGIBLE) -> int:
    """How many moments there are up to the last above ``level``."""
    return int(np.nonzero(np.abs(moments) > level)[0][-1]) + 1


def _fastest(pace: Pace, times: Sequence[float]) -> tuple[float, float]:
    """The largest speed and diffusion at these times."""
    return max(pace.speed(t) for t in times), max(pace.diffusion(t) for t in times)


def _bandwidth(moments: Complex, norms: NDArray[np.float64], tolerance: float) -> float:
    """``|k|`` of the last moment that matters: above a hundredth of the tolerance."""
    return float(norms[min(significant(moments, 0.01 * tolerance), len(norms)) - 1])


def _resize(moments: Complex, size: int) -> Complex:
    return np.pad(moments[:size], (0, max(0, size - len(moments))))


def _check_resolved(rim: Complex, tolerance: float, cap: float, t: float) -> None:
    amplitude = np.abs(rim).max(initial=0.0)
    if amplitude > tolerance:
        raise ValueError(
            f"{cap:g} modes do not resolve the law at t = {t:g}: the last are of size {amplitude:.1e}, above the"
            f" tolerance {tolerance:g}; give more modes, or start from a wider law"
        )


def _integrate(
    derivative: Derivative, start: Complex, t0: float, t1: float, max_step: float
) -> tuple[Complex, Complex]:
    """The Chebyshev series over one slab, and the last state."""
    nodes = 0.5 * (t0 + t1) - 0.5 * (t1 - t0) * np.cos(np.pi * np.arange(DEGREE + 1) / DEGREE)
    nodes[0], nodes[-1] = t0, t1
    solution = solve_ivp(
        derivative, (t0, t1), start, method="DOP853", t_eval=nodes, rtol=1e-13, atol=1e-16, max_step=max_step
    )
    if not solution.success:
        raise RuntimeError(f"the moments could not be integrated over [{t0:g}, {t1:g}]: {solution.message}")
    series: Complex = dct(solution.y[:, ::-1].T, type=1, axis=0) / DEGREE
    series[[0, -1]] *= 0.5
    return series, solution.y[:, -1]

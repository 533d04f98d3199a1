r"""How long a step may be: linear stability, found from the step functions themselves.

About a state of rest the drift is linear, and every eigenvalue ``lambda`` of its Jacobian moves a direction of its own,
``dx = lambda x dt``, which falls where ``Re lambda < 0``. A method with step ``h`` multiplies ``x`` by numbers that
depend on ``z = lambda h`` alone: one, or several where it remembers earlier steps. It is stable where none exceeds one
in size. Noise that does not depend on the state leaves that as it is: the variance stays bounded on the same steps.

Sources: Dahlquist 1963, doi:10.1007/BF01963532; for additive noise Hernandez & Spigler 1992, doi:10.1007/BF01990526.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circsde.sde import SDE
from circsde.solvers.brownian import Noise
from circsde.solvers.methods import Method
from circsde.typing import Angles, Tangent, Time

Numbers = NDArray[np.complex128]
Sizes = NDArray[np.float64]

LONGEST = 1e3
"""Rates times steps that are tried; a method that is stable up to here is taken to be stable at any."""

_SHORTEST, _FINENESS = 1e-4, 240  # rates times steps that are tried first, in even ratios up to the longest
_HALVINGS = 40
_REMEMBERED = 3  # steps that a method may remember
_ROUNDING = 1e-9  # a stable number may exceed one by this


class _Test(SDE):
    """``dx = z x dt`` in the complex plane over a time of 1, for many ``z`` at once, without noise."""

    coupled = False

    def __init__(self, z: Numbers) -> None:
        super().__init__(diffusion=0.0, variance=lambda *_: 0.0)
        self.re, self.im = torch.from_numpy(z.real.copy()), torch.from_numpy(z.imag.copy())

    def drift(self, t: Time, theta: Angles) -> Tangent:  # noqa: ARG002
        x, y = theta.unbind(1)
        return torch.stack((self.re * x - self.im * y, self.im * x + self.re * y), 1)

    def remainder(self, t: Time, theta: Angles) -> Tangent:
        """The whole drift, as none of it is sinusoidal."""
        return self.drift(t, theta)

    def impulse(self, t0: float, t1: float, theta: Angles) -> tuple[Tensor, Tensor, float]:  # noqa: ARG002
        """Zero, as the drift has no sinusoidal part."""
        return torch.zeros_like(theta), torch.zeros_like(theta), 0.0


@torch.no_grad()
def amplification(method: Method, z: Numbers) -> Sizes:
    """The largest size of the numbers by which a step multiplies, at ``z = lambda h``; stable where it is at most 1.

    Where a method remembers steps, the numbers are found from its states, which are sums of powers of the numbers
    (Prony's method). For the Moebius methods they belong to the part of the drift that is not sinusoidal, such as a
    score.

    Raises:
        TypeError: If the method cannot take a step of this equation, such as methods of reversed equations.

    >>> from circsde.solvers.methods import HEUN
    >>> amplification(HEUN, np.array([-1.0 + 0j, -3.0 + 0j])).tolist()  # 1 + z + z^2 / 2
    [0.5, 2.5]
    """
    sde, shape = _Test(z.ravel()), z.shape
    theta = torch.from_numpy(np.tile((1.0, 0.0), (z.size, 1)))
    step, states = method.first_step(), []
    count = 1 if method.begin is None else 2 * _REMEMBERED + 1
    for i in range(count):
        zero = torch.zeros_like(theta)
        theta = step(sde, float(i), 1.0, theta, Noise(zero, zero))
        states.append(torch.view_as_complex(theta.contiguous()).numpy())
    if method.begin is None:
        alone: Sizes = np.abs(states[0]).reshape(shape)
        return alone
    series = np.stack(states[1:], -1)  # the first step may be another method's
    windows = np.lib.stride_tricks.sliding_window_view(series, _REMEMBERED, -1)
    before, after = windows[:, :_REMEMBERED], windows[:, 1 : _REMEMBERED + 1]
    powers = np.linalg.eigvals(np.linalg.pinv(before, rcond=1e-10) @ after)
    largest: Sizes = np.abs(powers).max(-1).reshape(shape)
    return largest


def longest_steps(method: Method, rates: Numbers) -> Sizes:
    """The longest stable step for each rate ``lambda``, in its units of time; infinite where any is stable.

    It is the first step at which the method leaves its region of stability on the way from zero. A rate that does not
    fall, ``Re lambda >= 0``, bounds no step.

    >>> from circsde.solvers.methods import HEUN
    >>> longest_steps(HEUN, np.array([-4.0 + 0j, 4.0 + 0j])).round(6).tolist()
    [0.5, inf]
    """
    size = np.maximum(np.abs(rates), np.finfo(np.float64).tiny)
    falls = rates.real < -_ROUNDING * size
    directions = np.where(falls, rates / size, -1.0).astype(np.complex128).round(12)
    ways, which = np.unique(directions, return_inverse=True)  # most are real
    tried = np.geomspace(_SHORTEST, LONGEST, _FINENESS)
    unstable = amplification(method, ways[:, None] * tried) > 1.0 + _ROUNDING
    first = unstable.argmax(1)
    high, low = tried[first], np.where(first > 0, tried[np.maximum(first - 1, 0)], 0.0)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        beyond = amplification(method, ways * middle) > 1.0 + _ROUNDING
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    limit = np.where(unstable.any(1), high, math.inf)[which.reshape(rates.shape)]
    return np.where(falls, limit / size, math.inf)


@lru_cache(maxsize=256)
def real_limit(method: Method) -> float:
    """The largest rate times step at which the method is stable where angles are attracted; infinite where any is.

    It is infinite, too, where the method asks more of an equation than its drift, such as a score, and cannot be tried.

    >>> from circsde.solvers.registry import find_method
    >>> [round(real_limit(find_method(name)), 6) for name in ("euler_maruyama", "heun", "adams_bashforth2")]
    [2.0, 2.0, 1.0]
    """
    try:
        return float(longest_steps(method, np.array([-1.0 + 0j]))[0]) if method.explicit else math.inf
    except (TypeError, ValueError, AttributeError, NotImplementedError):
        return math.inf

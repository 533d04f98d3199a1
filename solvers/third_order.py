r"""Weak order 3 for additive noise: Kutta's third-order method, its midpoint taken on both sides of the path.

Stage i lies off the angles by ``sqrt(h) (u_i xi + v_i eta)``, of two standard normals, the end by ``sqrt(h) xi``.
Where weights are positive, weak order 3 asks for ``u_i = c_i`` and ``v_i^2 = c_i (1 - c_i)``, a Brownian bridge at the
time ``c_i``; for the conditions of order 3 of the deterministic method; and for
``sum_ij b_i b_j (u_i u_j + v_i v_j) = 1/3``, the variance of the area below the path. Three stages of positive weight
cannot meet the last. Simpson's rule with two midpoints, of opposite ``v``, can:
``b = (1, 2 + sqrt 3, 2 - sqrt 3, 1)/6``.
"""

import torch

from circsde.sde import SDE
from circsde.solvers.brownian import Noise
from circsde.solvers.methods import Method, axpy, moved, root_mean_square_diffusion
from circsde.typing import Amplitude, Angles

ROOT3 = 3.0**0.5
WEIGHTS = (1 / 6, (2 + ROOT3) / 6, (2 - ROOT3) / 6, 1 / 6)


def kutta3_step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    r"""``theta + h/6 [f1 + (2 + sqrt 3) f2 + (2 - sqrt 3) f3 + f4] + N``, with the noise ``N`` of the step.

    ``f1 = f(t, theta)``, ``f2, f3 = f(t + h/2, theta + h/2 f1 + r N +- B)``, and
    ``f4 = f(t + h, theta + h (2 f2 - f1) + N)``. Given ``N``, the path at the middle has the mean ``r N`` and the
    variance ``V r (1 - r)`` of ``B``. ``V`` is the variance that the step adds, ``r`` the part of it that its first
    half adds; both are exact, whatever ``g``. Which combination of ``dW`` and ``dZ`` is ``N`` follows from the slope
    of ``g``; only the strong order depends on it.
    """
    assert noise.dZ is not None
    g, middle = root_mean_square_diffusion(sde, t, h), t + 0.5 * h
    bridge = 12.0**0.5 / h * axpy(noise.dZ, -0.5 * h, noise.dW)  # independent of dW, of variance h too
    sine = _part(sde.diffusion(t) - sde.diffusion(t + h), 12.0**0.5 * g).clamp(-1.0, 1.0)
    cosine, r = (1.0 - sine**2) ** 0.5, _part(sde.variance(t, middle), sde.variance(t, t + h))
    step, aside = g * cosine, (r * (1.0 - r)) ** 0.5 * g
    whole = moved(torch.zeros_like(theta), step, noise.dW, g * sine, bridge)
    across = moved(torch.zeros_like(theta), aside * cosine, bridge, -aside * sine, noise.dW)
    f1 = sde.drift(t, theta)
    half = moved(theta, 0.5 * h, f1, r, whole)
    f2, f3 = sde.drift(middle, half + across), sde.drift(middle, half - across)
    f4 = sde.drift(t + h, moved(theta, 2.0 * h, f2, -h, f1) + whole)
    b1, b2, b3, b4 = (h * b for b in WEIGHTS)
    return moved(moved(theta, b1, f1, b2, f2), b3, f3, b4, f4) + whole


def _part(part: Amplitude, whole: Amplitude) -> torch.Tensor:
    """``part / whole``, float64; 0 where both are, as without noise."""
    whole = torch.as_tensor(whole, dtype=torch.float64)
    return torch.as_tensor(part, dtype=torch.float64) / whole.clamp(min=torch.finfo(torch.float64).tiny)


KUTTA3 = Method(
    "kutta3",
    kutta3_step,
    strong_order=1.5,
    weak_order=3.0,
    invariant_order=3.0,
    nfe=4,
    levy_area=True,
    note="any smooth drift; weak order 3, for small errors",
    source="conditions: Debrabant 2010, doi:10.1007/s10543-010-0276-2; Kutta 1901",
)

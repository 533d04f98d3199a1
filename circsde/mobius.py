r"""The exact flow of a sinusoidal drift in a frozen field (eq. 11)."""

import torch
from torch import Tensor

from circsde.typing import Angles


def mobius_flow(
    theta: Angles, field_cos: float | Tensor, field_sin: float | Tensor, turned: float | Tensor = 0.0
) -> Angles:
    r"""The exact flow of ``theta' = w + Im(H e^{-i theta})`` over a time in which ``H`` and ``w`` stay frozen.

    On the circle this is a Mobius map of ``e^{i theta}``. On the lift (eq. 11), with ``H`` and ``w`` standing for
    their integrals over that time and ``lambda^2 = (|H|^2 - w^2) / 4``::

        theta -> theta + 2 arg q,   q = cosh(lambda) + sinh(lambda) / (2 lambda) (H e^{-i theta} + i w).

    Where ``|w| > |H|`` the oscillator drifts, ``lambda`` is imaginary and ``arg q`` grows by whole half-turns, which
    are counted apart so that the winding is right for any duration. Without ``w`` the real part of ``q`` is positive.

    Args:
        theta: Lifted angles, radians.
        field_cos: Real part of the integrated field, radians.
        field_sin: Imaginary part of the integrated field, radians.
        turned: The integrated frequency, radians.
    """
    angle = theta.to(field_cos.dtype) if isinstance(field_cos, Tensor) else theta  # what costs time, in its dtype
    cos, sin = angle.cos(), angle.sin()
    along = 0.5 * (field_cos * cos + field_sin * sin)
    across = 0.5 * (field_sin * cos - field_cos * sin + turned)
    square = angle.new_ones(()) * (field_cos**2 + field_sin**2 - turned**2) / 4
    tiny = torch.finfo(angle.dtype).tiny
    length = square.abs().clamp(min=tiny).sqrt()
    tangent = length.tanh() / length
    if isinstance(turned, float) and turned == 0.0:
        return theta + 2.0 * torch.atan(tangent * across / (1.0 + tangent * along + tiny))
    half_turns = torch.where(square < 0, (length / torch.pi).round(), 0.0)
    tangent = torch.where(square < 0, (length - torch.pi * half_turns).tan() / length, tangent)
    real, imaginary = 1.0 + tangent * along, tangent * across
    half_turns = half_turns * torch.as_tensor(turned).sign() + torch.copysign((real < 0).to(angle.dtype), imaginary)
    return theta + 2.0 * (torch.atan(imaginary / (real + tiny)) + torch.pi * half_turns)

"""Lifted angles as a number near zero and whole turns, so that nothing degrades after many of them."""

import torch
from torch import Tensor

from circsde.torus import TWO_PI, wrap

FAR = 8.0
"""Angles beyond this are unwound, rad; below it, float32 resolves them to 5e-7."""

TURN_HEAD = 6.28125
"""The first eight bits of two pi, whose multiples are exact."""

TURN_TAIL = TWO_PI - TURN_HEAD
"""The rest of two pi."""


def unwind(theta: Tensor, winding: Tensor, beyond: float = 0.0) -> tuple[Tensor, Tensor]:
    """The same lifted angles; the first part of those ``beyond`` is within a rounding of ``[-pi, pi]``.

    Turns are counted exactly, for each angle by itself, so that its rounding does not depend on the batch around it.

    Two pi is subtracted in two parts, the first so short that its multiples are exact (Cody and Waite).
    """
    turns = (theta.detach() * (1.0 / TWO_PI)).round_().mul_(theta.detach().abs() > beyond)
    return theta.sub(turns, alpha=TURN_HEAD).sub(turns, alpha=TURN_TAIL), winding + turns.long()


def reduce(theta: Tensor, winding: Tensor | int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The same lifted angle with its first part in ``[-pi, pi)`` exactly, in ``dtype``, and its turns added."""
    wrapped = wrap(wrap(theta).to(dtype))
    return wrapped, winding + ((theta.detach() - wrapped.detach()) / TWO_PI).round().long()

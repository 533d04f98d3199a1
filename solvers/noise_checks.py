"""Checks of an amplitude of noise that depends on the angles."""

import math

import torch
from torch import Tensor

from circsde.noise import along, amplitude, at
from circsde.sde import SDE
from circsde.torus import TWO_PI
from circsde.typing import Angles

_MOVE = 1.0  # rad, by which other angles are moved, to see whether an amplitude depends on them
_UNEQUAL = 0.61803


def turned(theta: Angles) -> Angles:
    """The same angles with one or two whole turns added, whose number differs within a sample."""
    event = theta.shape[1:]
    turns = 1 + (torch.arange(event.numel(), device=theta.device) * _UNEQUAL % 1.0 > 0.5).reshape(event)
    return theta + TWO_PI * turns.to(theta.dtype)


@torch.no_grad()
def check_diffusion(sde: SDE, t: float, theta: Angles) -> None:
    """Refuse an amplitude that does not suit its kind of noise, or is not a 2 pi-periodic function of the angles.

    Raises:
        ValueError: Saying what was found, and what to do.
    """
    g = sde.diffusion(t, theta)
    expected = f"{tuple(theta.shape)}" if sde.noise != "general" else f"({', '.join(map(str, theta.shape))}, m)"
    shape = g.shape if isinstance(g, Tensor) else torch.Size()
    if shape[: theta.ndim] != theta.shape or len(shape) != theta.ndim + (sde.noise == "general"):
        got = tuple(shape) if isinstance(g, Tensor) else type(g).__name__
        raise ValueError(f"the amplitude g(t, theta) of {sde.noise} noise must have shape {expected}, got {got}")
    assert isinstance(g, Tensor)
    slack = torch.finfo(theta.dtype).eps ** 0.5 * max(1.0, g.abs().amax().item())
    gap = (amplitude(sde, t, turned(theta)) - g).abs().amax().item()
    if gap > slack and math.isfinite(gap):
        raise ValueError(
            f"the amplitude g(t, theta) must be 2 pi-periodic in every angle, but changes by {gap:.2g} when whole turns"
            f" are added at t = {t:g}; write it with sines and cosines of the angles"
        )
    if sde.noise == "diagonal" and (gap := _leans(sde, t, theta)) > slack:
        raise ValueError(
            'of noise="diagonal" entry i of g(t, theta) may depend on angle i alone, and here it changes by'
            f' {gap:.2g} when others move: give noise="general" and a matrix (torch.diag_embed makes one)'
        )


def _leans(sde: SDE, t: float, theta: Angles) -> float:
    """The change of an entry of the amplitude when other angles move.

    Two angles differ in a digit of their binary numbers: for each digit, those angles move that have it.
    """
    event, number = theta.shape[1:], torch.arange(theta[0].numel(), device=theta.device)
    apart, together = amplitude(sde, t, theta), amplitude(sde, t, theta + _MOVE)
    gaps = [0.0]
    for digit in range((len(number) - 1).bit_length()):
        moves = (number >> digit & 1).bool().reshape(event)
        g = amplitude(sde, t, theta + _MOVE * moves.to(theta.dtype))
        gaps.append((g - torch.where(moves, together, apart)).abs().amax().item())
    return max(gaps)


@torch.no_grad()
def check_commutes(sde: SDE, t: float, theta: Angles, name: str) -> None:
    """Refuse general noise whose vector fields do not commute, ``(g_j . grad) g_k != (g_k . grad) g_j``.

    Raises:
        ValueError: Naming the method that needs them to.
    """
    if sde.noise != "general":
        return
    derivatives = along(at(sde, t), theta)
    gap = (derivatives - derivatives.mT).abs().amax().item()
    if gap > torch.finfo(theta.dtype).eps ** 0.5 * max(1.0, derivatives.abs().amax().item()):
        other = "euler_maruyama" if sde.sde_type == "ito" else "heun"
        raise ValueError(
            f"{name} needs noise whose vector fields commute, and here they differ by {gap:.2g} rad/time at t = {t:g}:"
            f" take {other}, of strong order 1/2"
        )

"""Sums in float64, fields in the dtype of the angles.

The increment of a step can be smaller than the distance of neighbouring float32 numbers, let alone bfloat16 ones, near
the angle that it is added to, and would be lost or rounded the same way step after step. So the time loop carries
angles in float64, and only what costs time, the drift, is evaluated in the dtype that the angles were given in.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch

from circsde.sde import SDE, ReverseSDE


def field_dtype(sde: SDE, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which the fields of an equation are evaluated for angles of ``dtype``.

    It is that of the angles; but float32 for half-precision ones, unless the equation has half-precision parameters.
    """
    if dtype not in (torch.float16, torch.bfloat16) or any(p.dtype == dtype for p in sde.parameters()):
        return dtype
    return torch.float32


def reading(sde: SDE, dtype: torch.dtype) -> SDE:
    """The same equation, whose fields are given their angles in ``dtype``; a shallow copy.

    >>> sde = SDE(lambda t, theta: theta.cos(), lambda t: 0.5, horizon=1.0)
    >>> reading(sde, torch.float32).drift(0.0, torch.zeros(1, 2, dtype=torch.float64)).dtype
    torch.float32
    """
    if dtype == torch.float64:
        return sde

    def narrow(field: Callable[..., Any]) -> Callable[..., Any]:
        def narrowed(*given: Any) -> Any:
            *times, theta = given
            return field(*times, theta.to(dtype))

        return narrowed

    view = copy.copy(sde)
    view._modules = sde._modules.copy()
    amplitude = () if sde.noise == "additive" else ("diffusion",)
    for name in ("drift", "impulse", "remainder", *amplitude):
        object.__setattr__(view, name, narrow(getattr(sde, name)))
    if isinstance(sde, ReverseSDE):
        view._modules.pop("score", None)
        object.__setattr__(view, "score", narrow(sde.score))
        view._modules["forward_sde"] = reading(sde.forward_sde, dtype)
    return view

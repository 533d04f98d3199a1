"""What a study finds out about an equation before it starts: the methods that apply, and how fast its paths part."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from circsde.sde import SDE
from circsde.solvers.brownian import Noise
from circsde.solvers.methods import METHODS, Method
from circsde.solvers.registry import find_method, forms
from circsde.solvers.trajectory import ADAPTIVE, FIXED
from circsde.streams import torch_stream
from circsde.studies.experiment import Experiment
from circsde.studies.result import STRONG
from circsde.typing import Angles

_ANGLES = 1 << 12  # angles at which the steepness of a drift is measured, unless one sample has more
_TIMES = 9
_TURNS = 3  # rounds of the power iteration


@torch.no_grad()
def default_methods(subject: Experiment, metric: str) -> list[str]:
    """The methods of circsde that can take a step of this equation; for strong errors those that follow the path.

    Raises:
        TypeError: If none can, with what the last one says.
    """
    if subject.sde.noise != "additive":
        return [form.name for form in forms(subject.sde) if not (form.commutative and subject.sde.noise == "general")]
    theta = subject.sample(1, torch_stream(0, "checks"))
    found, reason = list[str](), TypeError("no method applies")
    for name, method in METHODS.items():
        if metric == STRONG and method.strong_order is None:
            continue
        try:
            method.step(
                subject.sde, 0.0, 1e-3 * subject.sde.horizon, theta, Noise(torch.zeros_like(theta), 0.0 * theta)
            )
        except TypeError as error:  # the equation lacks the structure that the method needs
            reason = error
        else:
            found.append(name)
    if not found:
        raise reason
    return found


def check_methods(methods: Sequence[str | Method], sde: SDE) -> list[Method]:
    """Find the methods of these names, in their forms for an equation.

    Raises:
        ValueError: If there are none, one is not known, is not for the equation, or is one of torchdiffeq's.
    """
    if not methods:
        raise ValueError("a study needs at least one method, got none; leave methods out for all that apply")
    for method in methods:
        if method in FIXED and method not in METHODS or method in ADAPTIVE:
            raise ValueError(
                f"{method} is a method of torchdiffeq; on a probability flow give only adaptive ones"
                f" ({', '.join(ADAPTIVE)}), which are studied over their tolerance, or only ours"
                f" ({', '.join(METHODS)}), which are studied over their steps"
            )
    return [find_method(method, sde) for method in methods]


@torch.no_grad()
def check_start(subject: Experiment) -> Angles:
    """Draw one start, and check that the drift can be evaluated there.

    Raises:
        ValueError: If its dtype is not that of a network in the equation.
    """
    theta = subject.sample(1, torch_stream(0, "checks"))
    try:
        subject.sde.drift(0.0, theta)
    except RuntimeError as error:
        own = {parameter.dtype for parameter in subject.sde.parameters()}
        if not own or theta.dtype in own:
            raise
        names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in own))
        raise ValueError(
            f"the starts are {str(theta.dtype).removeprefix('torch.')} and the parameters of the equation are {names}:"
            " let the start return angles of that dtype, or convert the network with .to()"
        ) from error
    return theta


@torch.no_grad()
def steepness(subject: Experiment) -> float:
    """The largest rate at which neighbouring paths approach one another or part, 1/time, as far as it is seen.

    It is the largest eigenvalue of the drift's Jacobian, by power iteration with finite differences, at nine times,
    from starts, uniform angles and aligned ones; and what the equation itself says.
    """
    sde, generator = subject.sde, torch_stream(0, "checks")
    one = subject.sample(1, generator)
    count = max(1, min(64, _ANGLES // one.numel()))
    starts = subject.sample(count, generator)
    noise = torch.rand(3, *starts.shape, generator=generator).to(starts)
    uniform = 2.0 * math.pi * noise[0]
    aligned = uniform.flatten(1)[:, :1].reshape(-1, *(1,) * (starts.ndim - 1)).expand_as(starts)
    theta = torch.cat((starts, uniform, aligned + 0.3 * (noise[1] - 0.5)))
    small = torch.finfo(theta.dtype).eps ** 0.4
    largest = 0.0
    for i in range(_TIMES):
        t = sde.horizon * i / (_TIMES - 1)
        at, direction = sde.drift(t, theta), torch.cat((noise[2],) * 3) - 0.5
        for _ in range(_TURNS):
            direction = small * direction / _norm(direction).clamp(min=torch.finfo(theta.dtype).tiny)
            direction = (sde.drift(t, theta + direction) - at) / small
        rates = _norm(direction)
        seen = rates[rates.isfinite()]
        largest = max(largest, float(seen.max()) if seen.numel() else 0.0, sde.attraction(t))
    return largest


def _norm(x: Tensor) -> Tensor:
    """The length of each sample, to divide it by."""
    length: Tensor = x.flatten(1).norm(dim=1)
    return length.reshape(-1, *(1,) * (x.ndim - 1))

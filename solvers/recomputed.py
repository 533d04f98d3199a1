r"""Gradients of a path and of what is integrated along it, whose memory does not grow with the network.

Every step, and every node of the quadrature, is a function of the angles there; in the backward pass it is computed
once more, and left behind. What is kept are the angles at steps and nodes. The steps themselves are not differentiated:
gradients are those of the computed value on the steps that were taken, to rounding.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torchdiffeq
from torch import Tensor

from circsde.solvers.derivatives import check_derivative
from circsde.solvers.divergence import FlowField
from circsde.solvers.quadrature import Vector
from circsde.solvers.trajectory import ADAPTIVE, FIXED
from circsde.torus import wrap
from circsde.typing import Angles, Tangent, Time

_NEAR = 0.01  # rad, the distance of the points at which the gradient of a prior is checked
_LOOK = 0.37  # the time at which the score is checked, as a part of the horizon

Function = Callable[[Tensor], tuple[Tensor, ...]]


class RecomputedFlow(FlowField):
    """A flow whose values can be differentiated in the angles and in parameters, and are computed again for that.

    Args:
        flow: The flow.
        parameters: Tensors that it depends on and that gradients are wanted of.
        method: By which it is solved, step by step.
    """

    def __init__(self, flow: FlowField, parameters: Sequence[Tensor], method: str) -> None:
        super().__init__(flow.sde, flow.score)
        self.parameters, self.method = tuple(parameters), method

    def linearise(self, t: Time, theta: Angles, probes: Tensor | None) -> tuple[Tangent, Tangent, Tensor]:
        """Velocity, score, and divergence, as :class:`FlowField` has them."""
        plain = super().linearise
        velocity, score, divergence = self._apply(lambda x: plain(t, x, probes), theta, ())
        return velocity, score, divergence

    def path(self, mesh: Vector, states: Tensor, theta: Angles) -> Tensor:
        """The angles ``states`` at the times of ``mesh`` as a function of ``theta`` and the parameters."""
        found = [states[0] + (theta - theta.detach()).double()]
        for (start, end), known in zip(pairwise(mesh.tolist()), states[1:], strict=True):
            step = partial(self._step, start, end, theta.dtype)
            found += self._apply(step, found[-1], (known,))
        return torch.stack(found)

    def _step(self, start: float, end: float, dtype: torch.dtype, y: Tensor) -> tuple[Tensor, ...]:
        """One step of the method, whatever its error."""
        ends = torch.tensor([start, end], dtype=torch.float64, device=y.device)
        options = (
            {"first_step": 2.0 * (end - start), "step_t": ends[1:]}
            if self.method in ADAPTIVE
            else {"grid_constructor": lambda *_: ends}
        )
        field = lambda t, y: self(t, wrap(y).to(dtype)).double()  # noqa: E731
        return (torchdiffeq.odeint(field, y, ends, rtol=0.0, atol=torch.inf, method=self.method, options=options)[-1],)

    def _apply(self, function: Function, x: Tensor, known: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = _Recomputed.apply(function, known, x, *self.parameters)  # type: ignore[no-untyped-call]
        return found


class _Recomputed(torch.autograd.Function):
    """``function(x)``, or its known value, computed again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, function: Function, known: tuple[Tensor, ...], x: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.function, ctx.parameters = function, parameters
        ctx.save_for_backward(x)
        return tuple(one.clone() for one in known) or function(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            outputs = ctx.function(x)
        pairs = [(out, grad) for out, grad in zip(outputs, given, strict=True) if out.requires_grad]
        if not pairs:  # constants
            return (None,) * (3 + len(ctx.parameters))
        gradients = torch.autograd.grad(
            [out for out, _ in pairs],
            (x, *ctx.parameters),
            [grad for _, grad in pairs],
            retain_graph=True,
            allow_unused=True,
        )
        return None, None, *gradients


def check_gradients(
    flow: FlowField, log_density: Callable[[Angles], Tensor], theta: Angles, wrt: Sequence[Tensor], method: str
) -> None:
    """Refuse solves that would have no gradient, or a wrong one.

    Raises:
        ValueError: For a tensor that requires no gradient, a method of several steps, a prior that torch cannot
            differentiate, or a score whose second derivative by ``torch.func`` is not that of its first.
    """
    for place, one in enumerate(wrt):
        if not one.requires_grad:
            raise ValueError(f"wrt[{place}], of shape {tuple(one.shape)}, requires no gradient: call requires_grad_()")
    if FIXED.get(method) == 0:
        raise ValueError(f"gradients need a method of one step, got {method!r}: choose dopri5 or rk4")
    with torch.enable_grad():
        x = theta.detach().clone().requires_grad_()
        here = log_density(x)
    if not here.requires_grad and not torch.equal(here, log_density(theta + _NEAR)):
        raise ValueError("torch cannot differentiate log_prob of the prior: compute it by torch operations")

    def slope(t: Time, x: Angles) -> Tangent:
        value, pull = torch.func.vjp(lambda y: flow.score(t, y), x)  # type: ignore[misc]
        found: Tensor = pull(torch.ones_like(value))[0]
        return found

    check_derivative(slope, torch.tensor(_LOOK * flow.sde.horizon, dtype=torch.float64), theta, "slope of the score")

r"""The gradient of the flow's own log-density along a path, beside which a score shows how wrong it is.

With ``p_t`` the law that the flow itself has at time t, ``a(t) = grad log p_t(x(t))`` satisfies

    ``a' = -(dv/dx)^T a - grad div v``,   ``a(T) = grad log prior``,

so that a path with residual ``x' - v`` gives a likelihood whose error is, to first order, the integral of
``(a - score) . (x' - v)``: dual weights (Becker and Rannacher 2001, doi:10.1017/S0962492901000010).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from circsde.contracts import Law
from circsde.solvers.divergence import FlowField, Probes
from circsde.solvers.quadrature import Vector
from circsde.torus import wrap
from circsde.typing import Angles, Tangent, Time

Pull = Callable[[Tensor], Tensor]

_NODE = -1  # the place of its probes, beside the nodes of a quadrature


def mismatch(
    flow: FlowField, prior: Law, law: Probes, mesh: Vector, states: Tensor, theta: Angles, kept: list[int]
) -> Tensor:
    """How far the score is from ``a`` in the middle of every step, ``|a - score|``, shape ``(steps, batch)``, 1/rad.

    The adjoint equation is solved backwards by the midpoint rule, on straight lines between the points of the path,
    with an inner value that the slope of the step before foretells: one evaluation for each step, with its second
    derivative along one probe. That is accurate enough for a weight.

    Args:
        flow: The velocity v.
        prior: The law at the end. Where torch cannot differentiate it, the score there is taken for its gradient.
        law: The law of the probe.
        mesh: The times that the solver accepted.
        states: The angles there, float64, ``(steps + 1, batch, *event)``.
        theta: The samples, for their dtype and their probes.
        kept: The numbers of those in ``states``.

    Returns:
        The distances; NaN where the score has no second derivative by ``torch.func``.
    """
    probe = law.draw(theta, 0, 1, _NODE)[:, kept]
    found = torch.full((len(mesh) - 1, states.shape[1]), torch.nan, dtype=torch.float64, device=states.device)
    try:
        a, slope = _prior_gradient(prior, states[-1]), None
        for n in reversed(range(len(mesh) - 1)):
            step, t = float(mesh[n + 1] - mesh[n]), torch.tensor(0.5 * (mesh[n] + mesh[n + 1]), dtype=torch.float64)
            score, pull = _pullback(flow, t, wrap(0.5 * (states[n] + states[n + 1])).to(theta.dtype), probe)
            a = score if a is None else a
            inner = a + 0.5 * step * (pull(a) if slope is None else slope)
            slope = pull(inner)
            a = a + step * slope
            found[n] = (inner - score).flatten(1).norm(dim=1)
    except RuntimeError:  # no second derivative, as of what torch.compile makes
        found.fill_(torch.nan)
    return found


def _pullback(flow: FlowField, t: Time, theta: Tensor, probe: Tensor) -> tuple[Tangent, Pull]:
    """The score, and ``a -> (dv/dx)^T a + grad div v``."""

    def outputs(x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        velocity, score, divergence = flow.linearise(t, x, probe)
        return (velocity, divergence), score

    (velocity, divergence), pull, score = torch.func.vjp(outputs, theta, has_aux=True)  # type: ignore[misc]
    ones = torch.ones_like(divergence)
    return score.double(), lambda a: pull((a.to(velocity), ones))[0].double()


def _prior_gradient(prior: Law, theta: Tensor) -> Tensor | None:
    try:
        found: Tensor = torch.func.grad(lambda x: prior.log_prob(x).sum())(wrap(theta))
    except RuntimeError:
        return None
    return found

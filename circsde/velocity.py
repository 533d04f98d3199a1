"""The velocity of the probability flow, for solvers of ordinary differential equations (eq. 4)."""

from dataclasses import dataclass

from circsde.noise import ito_drift, spreading
from circsde.sde import SDE
from circsde.typing import Angles, Field, Tangent, Time


@dataclass(frozen=True)
class ProbabilityFlow:
    """The velocity ``f - g^2 score / 2``; made by :func:`probability_flow`."""

    sde: SDE
    score: Field

    def __call__(self, t: Time, theta: Angles) -> Tangent:
        """The velocity, rad/time."""
        return ito_drift(self.sde, t, theta) - spreading(self.sde, t, theta, self.score(t, theta), 0.5)

    @property
    def breakpoints(self) -> tuple[float, ...] | None:
        """Times between which the equation is smooth in time; None where nothing is known about that."""
        return self.sde.breakpoints


def probability_flow(sde: SDE, score: Field) -> ProbabilityFlow:
    """The velocity ``v = f - g^2 score / 2`` whose flow carries the laws of ``sde`` forward in time (eq. 4).

    Of noise that depends on the angles, ``g^2 score`` is ``div(g g^T) + g g^T score``, and ``f`` is Ito's drift.

    Returns:
        A field ``(t, theta) -> rad/time`` in forward time, for an ODE solver.

    Source: Song et al. 2021, arXiv 2011.13456.

    >>> import torch
    >>> sde = SDE(lambda t, theta: -theta.sin(), lambda t: 2**0.5, horizon=1.0)
    >>> flow = probability_flow(sde, lambda t, theta: -theta.sin())  # in equilibrium nothing flows
    >>> bool(flow(0.3, torch.tensor([[0.5, 2.0]])).abs().max() < 1e-6)
    True
    """
    return ProbabilityFlow(sde, score)

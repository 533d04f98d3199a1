"""Stochastic and ordinary differential equations on the torus.

Equations (:class:`SDE`, :class:`KuramotoSDE`, :func:`reverse`, :func:`probability_flow`), how to integrate them
(:func:`sdeint`, :func:`odeint`), likelihoods (:func:`log_prob`), and the laws of angles (:class:`WrappedNormal`,
:class:`VonMises`, :class:`MeanFieldGibbs`).
"""

from circsde.coupling import GlobalCoupling, GraphCoupling, LocalCoupling, NoCoupling
from circsde.distributions import VonMises, WrappedNormal
from circsde.encoding import PhaseEncoding
from circsde.gibbs import MeanFieldGibbs
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.sde import SDE, probability_flow, reverse, transition
from circsde.solvers import LogProb, Solution, log_prob, normalisation, odeint, sdeint
from circsde.torus import (
    difference,
    distance,
    mean_direction,
    mean_resultant_length,
    order_parameter,
    wrap,
)

__version__ = "0.1.0"

__all__ = [
    "SDE",
    "GlobalCoupling",
    "GraphCoupling",
    "KuramotoSDE",
    "LocalCoupling",
    "LogProb",
    "MeanFieldGibbs",
    "NoCoupling",
    "PhaseEncoding",
    "Schedule",
    "Solution",
    "VonMises",
    "WrappedNormal",
    "difference",
    "distance",
    "log_prob",
    "mean_direction",
    "mean_resultant_length",
    "normalisation",
    "odeint",
    "order_parameter",
    "probability_flow",
    "reverse",
    "sdeint",
    "transition",
    "wrap",
]

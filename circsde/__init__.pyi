from . import models as models
from . import solvers as solvers
from . import studies as studies
from .calculus import as_ito, as_stratonovich
from .coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from .delay import DelayedSDE
from .encoding import PhaseEncoding
from .estimation import fit
from .graph import DenseCoupling, GraphCoupling
from .harmonics import DaidoSDE, FieldSDE, SimplicialCoupling
from .inertia import InertialSDE
from .kuramoto import KuramotoSDE
from .laws.distributions import VonMises, WrappedNormal
from .laws.gibbs import MeanFieldGibbs
from .one_step import transition
from .schedule import Schedule
from .sde import SDE, reverse
from .solvers import (
    LogProb,
    Solution,
    SolveError,
    log_prob,
    normalisation,
    odeint,
    sdeint,
    solve_delayed,
    solve_inertial,
)
from .studies import expectation
from .studies.citation import cite
from .torus import (
    difference,
    distance,
    mean_direction,
    mean_resultant_length,
    order_parameter,
    wrap,
)
from .velocity import probability_flow

__version__: str

__all__ = [
    "SDE",
    "Coupling",
    "DaidoSDE",
    "DelayedSDE",
    "DenseCoupling",
    "FieldSDE",
    "GlobalCoupling",
    "GraphCoupling",
    "InertialSDE",
    "KuramotoSDE",
    "LocalCoupling",
    "LogProb",
    "MeanFieldGibbs",
    "NoCoupling",
    "PhaseEncoding",
    "Schedule",
    "SimplicialCoupling",
    "Solution",
    "SolveError",
    "VonMises",
    "WrappedNormal",
    "as_ito",
    "as_stratonovich",
    "cite",
    "difference",
    "distance",
    "expectation",
    "fit",
    "log_prob",
    "mean_direction",
    "mean_resultant_length",
    "models",
    "normalisation",
    "odeint",
    "order_parameter",
    "probability_flow",
    "reverse",
    "sdeint",
    "solve_delayed",
    "solve_inertial",
    "solvers",
    "studies",
    "transition",
    "wrap",
]

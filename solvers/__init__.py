"""How to integrate: Brownian paths, one-step methods, the time loop, flows and the likelihoods that they give."""

if __name__ != "circsde.solvers":
    raise ImportError("import circsde.solvers, not solvers")

from circsde.solvers.brownian import Brownian, BrownianPath, Noise, join
from circsde.solvers.delay import solve_delayed
from circsde.solvers.flow import odeint
from circsde.solvers.grid import step_grid
from circsde.solvers.inertia import InertialSolution, solve_inertial
from circsde.solvers.integrate import sdeint
from circsde.solvers.latent_space import from_latent, latent
from circsde.solvers.likelihood import LogProb, log_prob
from circsde.solvers.mesh import adapted_grid
from circsde.solvers.methods import METHODS, Method
from circsde.solvers.normalisation import normalisation
from circsde.solvers.solution import Solution, SolveError, Stats
from circsde.solvers.tree import BrownianTree

__all__ = [
    "METHODS",
    "Brownian",
    "BrownianPath",
    "BrownianTree",
    "InertialSolution",
    "LogProb",
    "Method",
    "Noise",
    "Solution",
    "SolveError",
    "Stats",
    "adapted_grid",
    "from_latent",
    "join",
    "latent",
    "log_prob",
    "normalisation",
    "odeint",
    "sdeint",
    "solve_delayed",
    "solve_inertial",
    "step_grid",
]

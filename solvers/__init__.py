"""How to integrate: Brownian paths, one-step methods, the time loop."""

if __name__ != "circsde.solvers":
    raise ImportError("import circsde.solvers, not solvers")

from circsde.solvers.brownian import Brownian, BrownianPath, Noise, join
from circsde.solvers.grid import step_grid
from circsde.solvers.integrate import Solution, Stats, sdeint
from circsde.solvers.methods import METHODS, Method

__all__ = [
    "METHODS",
    "Brownian",
    "BrownianPath",
    "Method",
    "Noise",
    "Solution",
    "Stats",
    "join",
    "sdeint",
    "step_grid",
]

"""Accuracy studies as xarray Datasets: errors with intervals, orders, cost, and the choice of a method."""

from circsde.exact.fokker_planck import fokker_planck
from circsde.studies.accuracy import exact_convergence, study
from circsde.studies.choice import Choice
from circsde.studies.convergence import strong_convergence, weak_convergence
from circsde.studies.cost import work_precision
from circsde.studies.ergodic import ErgodicAverage, ergodic_average
from circsde.studies.experiment import Simulation
from circsde.studies.flows import flow_convergence
from circsde.studies.multilevel import Expectation, expectation
from circsde.studies.runner import Runner
from circsde.studies.selection import select
from circsde.studies.stable_steps import stability
from circsde.studies.transfer import transfer_operator

__all__ = [
    "Choice",
    "ErgodicAverage",
    "Expectation",
    "Runner",
    "Simulation",
    "ergodic_average",
    "exact_convergence",
    "expectation",
    "flow_convergence",
    "fokker_planck",
    "select",
    "stability",
    "strong_convergence",
    "study",
    "transfer_operator",
    "weak_convergence",
    "work_precision",
]

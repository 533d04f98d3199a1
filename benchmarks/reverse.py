"""What does reverse time cost? Steps that shrink towards the data, stochasticity, and the probability flow.

    python benchmarks/reverse.py --quick                     # a few step counts
    python benchmarks/reverse.py --out benchmarks/results/reverse.json

The largest error of ``E cos m theta`` and ``E sin m theta``, m = 1..5, where the reversed equation of the problem
``reverse`` ends (exact score, rates that fall to almost zero at t = 0), from transfer operators, free of sampling
noise. The grid of power p has the times ``t_i = T (1 - i/n)^p``: 1 is uniform, larger powers take finer steps towards
t = 0.
"""

import argparse
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

import circsde
from circsde import problems, reverse
from circsde.sde import ReverseSDE
from circsde.solvers.methods import METHODS
from circsde.studies import flow_convergence
from circsde.studies.markov import Grid, markov_matrix
from circsde.studies.transfer import density_on

PROBLEM = problems.get("reverse")
POINTS = 245
METHOD = ("euler_maruyama", "heun", "mobius_strang")


def error(method: str, stochasticity: float, steps: int, power: float) -> float:
    """The largest weak error of a method on one grid."""
    assert isinstance(PROBLEM.sde, ReverseSDE)
    sde = reverse(PROBLEM.sde.forward_sde, PROBLEM.sde.score, stochasticity)
    grid, T = Grid(POINTS), sde.horizon
    times = [T - T * (1.0 - i / steps) ** power for i in range(steps + 1)]
    density = density_on(PROBLEM.start, grid)  # type: ignore[arg-type]
    for t, end in zip(times[:-1], times[1:], strict=True):
        matrix = markov_matrix(METHODS[method].step, sde, t, end - t, grid, levy_area=False)
        density = matrix.T @ density
    means = [float(density @ o.function(grid.theta).numpy()) * grid.cell for o in PROBLEM.observables]
    return float(np.abs(np.array(means) - [o.expected for o in PROBLEM.observables]).max())


def main() -> None:
    """Run, print, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 steps only")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, ladder = [], (10,) if arguments.quick else (10, 20, 40)
    for method in METHOD:
        for stochasticity in (1.0, 0.5):
            for power in (1.0, 1.5, 2.0):
                errors = {n: error(method, stochasticity, n, power) for n in ladder}
                rows.append({"method": method, "stochasticity": stochasticity, "power": power, "errors": errors})
                shown = "   ".join(f"{n} steps {value:.1e}" for n, value in errors.items())
                print(f"{method:15s} l = {stochasticity:g}   power {power:g}   {shown}", flush=True)
    tolerances = (1e-2, 1e-3, 1e-4)
    flow = flow_convergence("probability_flow", ["dopri5", "bosh3"], tolerances, kind="weak", paths=512)
    flows = []
    for name in flow["solver"].values.tolist():
        for atol in tolerances:
            one = flow.sel(solver=name, atol=atol)
            flows.append({"method": name, "atol": atol, "nfe": float(one["nfe"]), "upper": float(one["upper"])})
            print(
                f"{name:15s} flow      atol {atol:g}   nfe {flows[-1]['nfe']:g}   error below {flows[-1]['upper']:.1e}"
            )
    if arguments.out is not None:
        record = {
            "command": "python benchmarks/reverse.py " + " ".join(sys.argv[1:]),
            "machine": platform.machine(),
            "versions": {"circsde": circsde.__version__, "torch": version("torch")},
            "results": rows,
            "flow": flows,
        }
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What does reverse time cost? Steps that shrink towards the data, stochasticity, and the probability flow.

    python benchmarks/reverse.py --quick                     # 5 steps, two grids, few paths
    python benchmarks/reverse.py --out benchmarks/results/reverse.json

The largest error of ``E cos m theta`` and ``E sin m theta``, m = 1..5, where the reversed equation of the problem
``reverse`` ends (exact score, rates that fall to almost zero at t = 0), from transfer operators, free of sampling
noise. The grid of power p has the times ``t_i = T (1 - i/n)^p``: 1 is uniform, larger powers take finer steps towards
t = 0.
"""

import numpy as np
import torch
from report import Record, Row, keep, options

from circsde import reverse
from circsde.exact import problems
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


def summary(record: Record) -> list[Row]:
    """Errors of Euler-Maruyama over those of others, at the most steps, on uniform grids and on finer last steps."""
    errors = {
        (row["method"], row["stochasticity"], row["power"]): list(row["errors"].items())[-1]
        for row in record["results"]
    }
    steps, largest = errors["euler_maruyama", 1.0, 1.0]
    found = []
    for method, stochasticity, power in (("heun", 1.0, 1.0), ("heun", 1.0, 2.0), ("euler_maruyama", 0.5, 1.0)):
        ratio = largest / errors[method, stochasticity, power][1]
        question = f"error, {steps} steps back: {method}, l = {stochasticity:g}, power {power:g}"
        found.append(Row(question, "euler_maruyama, l = 1, power 1", ratio, ratio, ratio))
    return found


def main() -> None:
    """Run, print, and keep the results."""
    arguments = options(__doc__, "5 steps, two grids, few paths of the flow").parse_args()
    torch.set_num_threads(1)
    rows = []
    ladder: tuple[int, ...] = (5,) if arguments.quick else (10, 20, 40)
    powers, paths = ((1.0, 2.0), 32) if arguments.quick else ((1.0, 1.5, 2.0), 512)
    for method in METHOD:
        for stochasticity in (1.0, 0.5):
            for power in powers:
                errors = {n: error(method, stochasticity, n, power) for n in ladder}
                rows.append({"method": method, "stochasticity": stochasticity, "power": power, "errors": errors})
                shown = "   ".join(f"{n} steps {value:.1e}" for n, value in errors.items())
                print(f"{method:15s} l = {stochasticity:g}   power {power:g}   {shown}", flush=True)
    tolerances = (1e-2, 1e-3, 1e-4)
    flow = flow_convergence("probability_flow", ["dopri5", "bosh3"], tolerances, metric="weak", paths=paths)
    flows = []
    for name in flow["solver"].values.tolist():
        for atol in tolerances:
            one = flow.sel(solver=name, atol=atol)
            flows.append({"method": name, "atol": atol, "nfe": float(one["nfe"]), "upper": float(one["upper"])})
            print(
                f"{name:15s} flow      atol {atol:g}   nfe {flows[-1]['nfe']:g}   error below {flows[-1]['upper']:.1e}"
            )
    keep(arguments.out, results=rows, flow=flows)


if __name__ == "__main__":
    main()

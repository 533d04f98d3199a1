"""What does an expectation cost? Multilevel Monte Carlo with Romberg weights against plain Monte Carlo with Heun steps.

    python benchmarks/expectation.py --quick
    python benchmarks/expectation.py --out benchmarks/results/expectation.json

First without sampling, by transfer operators: the error that Romberg weights leave of the moments of
``published_doubled``, and the fewest evaluations with which one number of steps leaves at most 1e-4. Then on the twelve
coupled oscillators of the tutorial: the order parameter from uniform phases, and the mean cosine from phases near one
another. Plain Monte Carlo takes the number of steps and of paths that together cost least, as if it knew the bias.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from report import Record, Row, keep, options
from torch import Tensor

from circsde import KuramotoSDE, Schedule, WrappedNormal, expectation, order_parameter, sdeint
from circsde.solvers import METHODS, Brownian
from circsde.studies.exact import law_convergence
from circsde.studies.experiment import Simulation
from circsde.studies.known import UNIFORM
from circsde.studies.multilevel import romberg_weights
from circsde.studies.statistics import quantile

LADDER = tuple(round(10 * 2 ** (i / 2)) for i in range(12))
COUPLED = KuramotoSDE(
    (12,),
    schedule=Schedule.constant(coupling=6.0, diffusion=0.5),
    natural_frequency=torch.linspace(-1, 1, 12, dtype=torch.float64),
)


def coherence(theta: Tensor) -> Tensor:
    """The order parameter of each sample."""
    return order_parameter(theta, dim=1)[0]


def mean_cosine(theta: Tensor) -> Tensor:
    """The mean cosine of each sample."""
    return theta.cos().mean(1)


QUESTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Any]] = {
    "order parameter, uniform start": (coherence, UNIFORM),
    "mean cosine, start near 1": (mean_cosine, WrappedNormal(torch.tensor(1.0).double(), torch.tensor(0.5).double())),
}


def discretisation(problem: str, ladder: tuple[int, ...]) -> list[dict[str, Any]]:
    """The largest error over the moments, by Romberg weights of 10, 20 and 40 steps and by single numbers of steps."""
    rows = []
    for name in ("heun", "mobius_strang", "noise_flow_noise"):
        steps, nfe = (10, 20, 40), METHODS[name].nfe
        bias = law_convergence(problem, [name], steps).bias[0].values
        error = float(np.abs(romberg_weights(steps, 2.0) @ bias).max())
        single = [float(abs(law_convergence(problem, [name], [n]).bias).max()) for n in ladder]
        needed = next((n * nfe for n, e in zip(ladder, single, strict=True) if e <= 1e-4), None)
        row = {"problem": problem, "method": name, "steps": steps, "evaluations": sum(steps) * nfe, "error": error}
        rows.append(row | {"single_to_1e-4": needed})
        print(
            f"{name}: Romberg {error:.1e} with {sum(steps) * nfe} evaluations; one number of steps: {needed}",
            flush=True,
        )
    return rows


def plain(question: str, steps: tuple[int, ...], paths: int) -> dict[int, tuple[float, float, float]]:
    """Bias, its standard error, and variance of f, by the number of Heun steps, on the paths of a much finer solve."""
    f, start = QUESTIONS[question]
    theta = Simulation(COUPLED, start).sample(paths, torch.Generator().manual_seed(1))
    finest = 2 * math.lcm(*steps)
    path = Brownian(tuple(i / finest for i in range(finest + 1)), tuple(theta.shape), 1, torch.float64)

    def values(method: str, n: int) -> Tensor:
        return f(sdeint(COUPLED, theta, (0.0, 1.0), n_steps=n, method=method, brownian=path).theta[-1])

    exact, found = values("sra1", finest), {}
    for n in steps:
        gap = values("heun", n) - exact
        found[n] = (gap.mean().item(), gap.std().item() / math.sqrt(paths), exact.var().item())
    return found


def compare(question: str, tolerance: float, biases: dict[int, tuple[float, float, float]]) -> dict[str, object]:
    """Compare the evaluations and seconds of both methods."""
    f, start = QUESTIONS[question]
    z, best = quantile(0.95, 10**6), (math.inf, 0, 0)
    for n, (bias, _, variance) in biases.items():
        left = tolerance - abs(bias)
        if left > 0:
            count = math.ceil(variance * (z / left) ** 2)
            best = min(best, (2.0 * n * count, n, count))
    evaluations, n, count = best
    begin = time.perf_counter()
    first = Simulation(COUPLED, start).sample(min(count, 20_000), torch.Generator().manual_seed(2))
    sdeint(COUPLED, first, (0.0, 1.0), n_steps=n, method="heun", generator=3)
    seconds = (time.perf_counter() - begin) * count / len(first)
    begin = time.perf_counter()
    found = expectation(COUPLED, f, start, tolerance)
    row = {
        "question": question,
        "tolerance": tolerance,
        "value": found.value,
        "half_width": found.half_width,
        "evaluations": found.nfe,
        "seconds": time.perf_counter() - begin,
        "levels": [(level.steps, level.paths) for level in found.levels],
        "plain": {"steps": n, "paths": count, "evaluations": evaluations, "seconds": seconds, "bias": biases[n][:2]},
    }
    print(
        f"{question}, {tolerance:g}: {found.nfe:.2e} evaluations, plain {evaluations:.2e} with {n} steps: "
        f"{evaluations / found.nfe:.2f} x; seconds {row['seconds']:.1f}, plain {seconds:.1f}",
        flush=True,
    )
    return row


def summary(record: Record) -> list[Row]:
    """Evaluations of plain Monte Carlo over those of multilevel Monte Carlo."""
    found = []
    for row in record["cost"]:
        ratio = row["plain"]["evaluations"] / row["evaluations"]
        found.append(Row(f"{row['question']}, to {row['tolerance']:g}", "plain Monte Carlo, Heun", ratio, ratio, ratio))
    return found


def main() -> None:
    """Run, print, and keep the results."""
    arguments = options(__doc__, "few steps, loose tolerances").parse_args()
    torch.set_num_threads(1)
    quick = arguments.quick
    without = [] if quick else discretisation("published_doubled", LADDER)
    cost = []
    for question in QUESTIONS:
        biases = plain(question, (8, 16) if quick else (8, 12, 16, 24, 32, 48, 96), 2_000 if quick else 20_000)
        cost += [compare(question, t, biases) for t in ((2e-2,) if quick else (1e-2, 3e-3, 1e-3))]
    keep(arguments.out, discretisation=without, cost=cost)


if __name__ == "__main__":
    main()

r"""Steps that adapt to the equation against steps that adapt to the path: the bias of each, and its path error.

    python benchmarks/adaptive.py --quick                    # a minute: two tolerances, few paths
    python benchmarks/adaptive.py --out benchmarks/results/adaptive.json

The equation is ``d theta = -R(t) sin theta dt + 0.8 dW`` with a rate that peaks at 41 halfway; its law is known by a
spectral solution. Every step is Heun's. Four ways to place steps are compared:

- *equal*: equal steps;
- *pilot*: ``sdeint(atol=)``, a grid chosen on other noise, whose bias transfer operators give exactly;
- *own noise*: an interval is halved until the step and its two halves agree on the path's own noise, and no noise
  is thrown away: this is the usual controller, on a dyadic tree;
- *other noise*: the control, in which the same rule chooses the intervals on another path.

Biases of the last two are means over paths of the difference from 2,048 equal steps on the same path, whose own bias is
known; intervals have confidence 95 %.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from report import Record, Row, keep, options

from circsde import SDE
from circsde.exact.fokker_planck import fokker_planck
from circsde.exact.problems import normal
from circsde.solvers import METHODS
from circsde.solvers.brownian import Brownian
from circsde.solvers.integrate import sdeint
from circsde.solvers.mesh import adapted_grid
from circsde.streams import numpy_stream, torch_stream
from circsde.studies.markov import Grid, operator
from circsde.torus import distance

NOISE, PEAK, WIDTH, START = 0.8, 40.0, 0.05, normal(1.0, 0.5)
COARSEST, FINEST = 3, 11  # halvings of [0, 1]: the widest interval that is tried, and the reference
POINTS = 163  # points of the grid of the transfer operators


def rate(t: float) -> float:
    """The attraction at a time."""
    return float(1.0 + PEAK * np.exp(-(((t - 0.5) / WIDTH) ** 2)))


def exact_bias(sde: SDE, grid: Sequence[float], exact: float) -> float:
    """The bias of E cos theta on any grid of steps, by the product of their transfer operators."""
    angles = Grid(POINTS, 1)
    law = START.log_prob(angles.theta[:, 0]).exp().numpy()
    for t, end in pairwise(grid):
        law = operator(METHODS["heun"], sde, t, end - t, angles).T @ law
    return float(law @ np.cos(angles.axis)) * angles.cell - exact


def path_error(sde: SDE, grid: Sequence[float], start: torch.Tensor) -> float:
    """Root mean square distance from sixteen times as many steps on the same path."""
    fine = [t + (end - t) * k / 16 for t, end in pairwise(grid) for k in range(16)] + [grid[-1]]
    path = Brownian(tuple(fine), tuple(start.shape), 1, torch.float64)
    ends = [sdeint(sde, start, (0.0, 1.0), grid=steps, brownian=path).theta[-1] for steps in (grid, fine)]
    return float(distance(*ends).square().mean().sqrt())


@numba.njit(error_model="numpy")
def heun(x: float, w: float, rates: NDArray[np.float64], first: int, last: int) -> float:
    """One step of Heun's from one point of the reference's grid to another, along the increment ``w``."""
    h = (last - first) / (len(rates) - 1)
    slope = -rates[first] * np.sin(x)
    return float(x + 0.5 * h * (slope - rates[last] * np.sin(x + h * slope + w)) + w)


@numba.njit(error_model="numpy", nogil=True)
def walk(
    start: NDArray[np.float64], rates: NDArray[np.float64], atol: float, own: bool, stream: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Solve along one path from each start; returns the adaptive ends, the reference's ends and the number of steps.

    Two paths are halved together: one is solved, and decides which intervals are accepted if ``own``; else the other
    decides. Intervals wait on a stack, the earliest on top, so that halves are met in order of time. An accepted
    interval takes its two halves; below them only the reference takes further steps.
    """
    cells = len(rates) - 1
    ends, reference, steps = np.empty_like(start), np.empty_like(start), 0
    begins, widths = np.empty(64, np.int64), np.empty(64, np.int64)
    increments, taken = np.empty((64, 2)), np.empty(64, np.bool_)
    for sample in range(len(start)):
        x, decides, fine, top = start[sample], start[sample], start[sample], 0
        for k in range(1 << COARSEST):  # the last interval first, as the stack is emptied from its top
            widths[top], taken[top] = cells >> COARSEST, False
            begins[top] = cells - (k + 1) * widths[top]
            for path in range(2):
                increments[top, path] = NOISE * np.sqrt(widths[top] / cells) * stream.standard_normal()
            top += 1
        while top:
            top -= 1
            first, width, done = begins[top], widths[top], taken[top]
            w, v = increments[top]
            last, middle = first + width, first + width // 2
            if width == 1:
                fine = heun(fine, w, rates, first, last)
                if not done:  # nothing is narrower
                    x, decides, steps = heun(x, w, rates, first, last), heun(decides, v, rates, first, last), steps + 1
                continue
            spread = NOISE * 0.5 * np.sqrt(width / cells)
            w0, v0 = 0.5 * w + spread * stream.standard_normal(), 0.5 * v + spread * stream.standard_normal()
            if not done:
                y, a, b = (x, w, w0) if own else (decides, v, v0)
                whole = heun(y, a, rates, first, last)
                halves = heun(heun(y, b, rates, first, middle), a - b, rates, middle, last)
                if abs(whole - halves) <= atol:
                    x = heun(heun(x, w0, rates, first, middle), w - w0, rates, middle, last)
                    decides = heun(heun(decides, v0, rates, first, middle), v - v0, rates, middle, last)
                    steps, done = steps + 2, True
            for begin, one, other in ((middle, w - w0, v - v0), (first, w0, v0)):
                begins[top], widths[top], taken[top] = begin, width // 2, done
                increments[top] = one, other
                top += 1
        ends[sample], reference[sample] = x, fine
    return ends, reference, steps


def per_path(start: NDArray[np.float64], atol: float, own: bool, bias: float) -> dict[str, Any]:
    """Measure a controller that looks at the path: for comparison only, as it is biased (see docs/choosing.md).

    ``bias`` is the bias of the reference.
    """
    rates = np.array([rate(t) for t in np.linspace(0.0, 1.0, 2**FINEST + 1)])
    ends, reference, steps = walk(start, rates, atol, own, numpy_stream(0, "tree", own))
    gap = np.cos(ends) - np.cos(reference)
    half = 1.96 * gap.std() / len(gap) ** 0.5
    return {
        "steps": steps / len(start),
        "bias": [bias + gap.mean() + sign * half for sign in (0, -1, 1)],
        "path_error": float(np.sqrt(np.mean((ends - reference) ** 2))),
    }


def fitted(rows: list[dict[str, Any]]) -> float:
    """Fit the order of the bias in the number of steps to all rows of one way to place steps."""
    return -float(np.polyfit(*_logarithms(rows), 1)[0])


def _logarithms(rows: list[dict[str, Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The logarithms of the numbers of steps, and of the sizes of biases."""
    return np.log([row["steps"] for row in rows]), np.log([abs(row["bias"][0]) for row in rows])


def summary(record: Record) -> list[Row]:
    """The bias of own noise over that of the pilot's grid at about the same number of steps."""
    ways = record["results"]
    row = ways["own noise"][-1]
    steps, bias = _logarithms(ways["pilot"])
    peer = np.exp(np.polyval(np.polyfit(steps, bias, 1), np.log(row["steps"])))
    middle, *ends = (x * np.sign(row["bias"][0]) / peer for x in row["bias"])
    return [Row(f"bias of E cos at {row['steps']:.0f} steps", "steps chosen by own noise", middle, *sorted(ends))]


def main() -> None:
    """Run, print, and keep the results."""
    arguments = options(__doc__, "two tolerances, few paths: shows that it runs").parse_args()
    paths, tolerances = (2_000, (3e-2, 1e-2)) if arguments.quick else (250_000, (1e-2, 3e-3, 1e-3))
    sde = SDE(lambda t, theta: -rate(float(t)) * theta.sin(), NOISE, horizon=1.0)
    exact = fokker_planck(sde, START).moment(1.0, 1).real
    start = START.sample((paths,), generator=torch_stream(0, "starts")).double()
    some = start[:4096, None]
    results: dict[str, list[dict[str, Any]]] = {way: [] for way in ("equal", "pilot", "own noise", "other noise")}
    reference = exact_bias(sde, np.linspace(0.0, 1.0, 2**10 + 1).tolist(), exact) / 4  # by order 2 that of 2,048 steps
    for atol in tolerances:
        grid = adapted_grid(sde, some, (0.0, 1.0), atol=atol)
        even = np.linspace(0.0, 1.0, len(grid)).tolist()
        for way, steps in (("equal", even), ("pilot", grid)):
            bias = exact_bias(sde, steps, exact)
            error = path_error(sde, steps, some)
            results[way].append({"atol": atol, "steps": len(steps) - 1, "bias": [bias] * 3, "path_error": error})
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda own: per_path(start.numpy(), atol, own, reference), (True, False))  # noqa: B023
            for way, row in zip(("own noise", "other noise"), found, strict=True):
                results[way].append({"atol": atol, **row})
        for way, rows in results.items():
            row = rows[-1]
            bias, low, high = row["bias"]
            print(
                f"atol {atol:g}   {way:12} {row['steps']:7.1f} steps   bias of E cos {bias:+.2e}"
                f" ({low:+.2e} to {high:+.2e})   path error {row['path_error']:.2e}",
                flush=True,
            )
    orders = {way: fitted(rows) for way, rows in results.items()}
    print("orders of the bias: " + ", ".join(f"{way} {order:.2f}" for way, order in orders.items()))
    keep(arguments.out, "numba", paths=paths, exact=exact, results=results, orders=orders)


if __name__ == "__main__":
    main()

"""What does a choice cost, beside the cheapest that brute force finds, on equations that are not named problems?

    python benchmarks/regret.py --quick                      # three equations
    python benchmarks/regret.py --out benchmarks/results/regret.json

Every equation is one that ``select`` has not been developed on: many wells, strong rotation, steep attraction, hardly
any noise, noise that changes, two angles without a potential, reversed equations with an exact and with a learned
score, and coupled rings. The regret is the number of drift evaluations of the choice over that of the cheapest
candidate, of the same methods and grids, that meets the tolerance.

Where the law is known, brute force takes transfer operators, finer than those of the selection, at every number of
steps up to ten and then at a ladder of ratio 1.1, for every method and grid that is cheaper than the choice. What had
to be sampled is sampled again with other paths, at every such number of steps, for twice the work. A choice whose
verdict is "not resolved" claims nothing, so that nothing is held against it. With ``--out`` finished equations are
kept, and the same command goes on with the others.
"""

# ruff: noqa: ARG005 (a drift is a function of time, too)

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from report import Record, Row, keep, options
from torch import Tensor

from circsde import SDE, KuramotoSDE, Schedule, reverse
from circsde.coupling import LocalCoupling, NoCoupling
from circsde.exact.fokker_planck import fokker_planck
from circsde.exact.problems import normal
from circsde.laws.distributions import VonMises
from circsde.models.mlp import ScoreMLP
from circsde.studies import Choice, Simulation, exact_convergence, select
from circsde.studies.steps import between

START = normal(2.0, 0.5)
BUDGET, POWERS = 1e8, (1.0, 2.0)


@dataclass(frozen=True)
class Case:
    """An equation of the benchmark.

    Attributes:
        kind: The kind of equation that it stands for.
        subject: The equation and its start.
    """

    kind: str
    subject: Simulation


def own(name: str, kind: str, drift: Callable[..., Tensor], g: Any, start: Any = START) -> Case:
    """One angle, or two where the start is a pair, with a drift of its own."""
    angles = len(start) if isinstance(start, tuple) else 1
    return Case(kind, Simulation(SDE(drift, g, 1.0, event_shape=(angles,)), start, name=name))


def phase(name: str, kind: str, schedule: Schedule, frequency: float = 0.0) -> Case:
    """One phase with sinusoidal drift."""
    sde = KuramotoSDE((1,), NoCoupling(), schedule, natural_frequency=frequency)
    return Case(kind, Simulation(sde, START, name=name))


def pair(a: Callable[..., Tensor], b: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The drift of two angles from those of each."""
    return lambda t, theta: torch.stack((a(t, *theta.unbind(-1)), b(t, *theta.unbind(-1))), -1)


def learned(forward: KuramotoSDE, exact: Callable[..., Tensor]) -> ScoreMLP:
    """A small network fitted to an exact score by 400 updates: as inexact as learned scores are."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ScoreMLP((1,), forward.schedule.diffusion, width=32, depth=1, smallest_noise=0.3).double()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(400):
        t = float(torch.rand(1, generator=generator))
        theta = 2.0 * math.pi * torch.rand(256, 1, generator=generator, dtype=torch.float64)
        loss = (network(t, theta) - exact(t, theta)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


def cases() -> list[Case]:
    """The equations of the benchmark."""
    forward = KuramotoSDE((1,), NoCoupling(), Schedule.linear((0.0, 0.1, 0.05), (0.0, 2.0, 2.0)))
    score = fokker_planck(forward.schedule, normal(1.0, 0.4), mean_field=False).score
    rings = [
        (6, 4.0, 1.0, 0.4, 0.0, "a ring of 6"),
        (10, 6.0, 0.5, 0.2, 3.0, "a ring of 10 that rotates"),
    ]
    start = normal(1.0, 0.7), normal(-1.0, 0.5)
    return [
        own("double well", "many wells", lambda t, x: -2.0 * (2 * x).sin(), 0.8),
        own("triple well", "many wells", lambda t, x: -2.5 * (3 * x).sin() + 0.3, 0.7),
        own("uneven wells", "many wells", lambda t, x: -x.sin() - 3.0 * (2 * x + 1).sin(), 0.6),
        own("pendulum", "many wells", lambda t, x: 2 * x.sin() + 1.5 * (3 * x).sin() + 0.5, 0.9),
        own("a map", "not sinusoidal", lambda t, x: 1.0 + 0.8 * (2 * x).sin() - x.cos().exp(), 0.7),
        phase("rotation 20", "strong rotation", Schedule.constant(reference=3.0, diffusion=0.5), 20.0),
        own("uneven rotation", "strong rotation", lambda t, x: 8.0 + 3.0 * x.sin() + (2 * x).cos(), 0.5),
        phase("steep", "stiff", Schedule.constant(reference=60.0, diffusion=2.0)),
        phase("steeper and steeper", "stiff", Schedule.linear((0.0, 0.0, 0.5), (0.0, 40.0, 1.0))),
        own("steep double well", "stiff", lambda t, x: -12.0 * (2 * x).sin(), 1.2),
        phase("a quiet well", "hardly any noise", Schedule.constant(reference=2.0, diffusion=0.005)),
        own("a quiet rotation", "hardly any noise", lambda t, x: 2.0 + x.sin(), 0.05),
        phase("a loud well", "much noise", Schedule.constant(reference=2.0, diffusion=3.0)),
        own("pulsed drift", "noise and drift in time", lambda t, x: 3.0 * math.sin(6.0 * float(t)) * x.cos(), 0.6),
        own(
            "pulsed noise",
            "noise and drift in time",
            lambda t, x: -2.0 * x.sin(),
            lambda t: 1.0 + 0.8 * math.cos(6.0 * float(t)),
        ),
        phase("fading noise", "noise and drift in time", Schedule.linear((0.0, 2.0, 2.0), (0.0, 2.0, 0.05))),
        own(
            "torsions",
            "two angles",
            pair(
                lambda t, x, y: -2 * x.sin() - 1.5 * (x - y).sin(),
                lambda t, x, y: -2 * (2 * y).sin() + 1.5 * (x - y).sin(),
            ),
            1.0,
            start,
        ),
        own(
            "no potential",
            "two angles",
            pair(lambda t, x, y: 1.0 + y.sin(), lambda t, x, y: 0.5 * (x - y).cos() - 2.0 * x.sin()),
            0.7,
            start,
        ),
        own(
            "two frequencies",
            "two angles",
            pair(lambda t, x, y: 6.0 + 2 * (y - x).sin(), lambda t, x, y: -3.0 + 2 * (x - y).sin()),
            0.8,
            start,
        ),
        Case("reversed, exact score", Simulation(reverse(forward, score), VonMises(0.0, 1.0), name="reversed")),
        Case(
            "reversed, exact score",
            Simulation(reverse(forward, score, 0.5), VonMises(0.0, 1.0), name="reversed, l = 0.5"),
        ),
        Case(
            "reversed, learned score",
            Simulation(reverse(forward, learned(forward, score)), VonMises(0.0, 1.0), name="reversed, learned"),
        ),
        *(
            Case(
                "a coupled ring",
                Simulation(
                    KuramotoSDE(
                        (n,),
                        LocalCoupling(1),
                        Schedule.constant(coupling=K, reference=ref, diffusion=D),
                        natural_frequency=w,
                    ),
                    normal(1.0, 0.8),
                    name=name,
                ),
            )
            for n, K, ref, D, w, name in rings
        ),
    ]


def cheapest(case: Case, choice: Choice, tolerance: float) -> tuple[float, float]:
    """The evaluations of the cheapest candidate that meets the tolerance, and the error of the choice."""
    evidence = choice.dataset
    assert choice.method
    assert choice.n_steps
    assert choice.nfe
    if evidence.attrs["evidence"] == "Monte Carlo":
        return sampled_cheapest(case, choice, tolerance)
    error = exact_convergence(
        case.subject,
        "weak",
        [choice.method],
        [choice.n_steps],
        power=1.0 if choice.power is None else choice.power,
        resolution=1e-3 * tolerance,
    )["error"].item()
    least = choice.nfe if error <= tolerance else math.inf
    for one in (evidence.isel(solver=i) for i in range(evidence.sizes["solver"])):
        each = float((one["nfe"] / one["steps"]).max())
        most = math.ceil(min(least, choice.nfe) / each) - 1
        for n in sorted(between(1, most)):
            table = exact_convergence(
                case.subject,
                "weak",
                [one["method"].item()],
                [n],
                power=float(one["power"]),
                resolution=1e-3 * tolerance,
            )
            if table["upper"].item() <= tolerance:
                least = min(least, n * each)
                break
    return least, error


def sampled_cheapest(case: Case, choice: Choice, tolerance: float) -> tuple[float, float]:
    """The same as :func:`cheapest`, from other paths."""
    counts, powers = [*between(1, choice.n_steps or 1)], sorted({*POWERS, *choice.dataset["power"].values.tolist()})
    again = select(case.subject, tolerance, steps=counts, power=powers, budget=2 * BUDGET, seed=77).dataset
    least = float(again["nfe"].where(again["upper"] <= tolerance).min())
    i = [*zip(again["method"].values, again["power"].values, strict=True)].index((choice.method, choice.power))
    return least, again["error"].isel(solver=i).sel(steps=choice.n_steps).item()


def measure(case: Case, tolerance: float) -> dict[str, object]:
    """One selection, with its processor time on one thread, and what brute force says of it."""
    begin = time.process_time()
    choice = select(case.subject, tolerance, budget=BUDGET)
    seconds = time.process_time() - begin
    row: dict[str, object] = {
        "equation": case.subject.name,
        "kind": case.kind,
        "tolerance": tolerance,
        "evidence": choice.dataset.attrs["evidence"],
        "verdict": choice.verdict,
        "advice": choice.advice,
        "seconds": round(seconds, 2),
    }
    row |= {"choice": choice.method, "steps": choice.n_steps, "power": choice.power, "evaluations": choice.nfe}
    if choice.verdict != "resolved" or not choice.nfe:
        return row
    least, error = cheapest(case, choice, tolerance)
    return row | {"error": error, "cheapest": least, "regret": round(choice.nfe / least, 3)}


def summary(record: Record) -> list[Row]:
    """The median and the 95 % quantile of the regret over all resolved choices; 1 is the best there is."""
    regrets = [row["regret"] for row in record["results"] if "regret" in row]
    low, middle, high = np.quantile(regrets, (0.05, 0.5, 0.95))
    return [Row("evaluations of a choice, 5 to 95 % of equations", "the cheapest by brute force", middle, low, high)]


def measure_one(i: int, tolerance: float) -> dict[str, object]:
    """Measure the equation at a place in the list, on one thread."""
    torch.set_num_threads(1)
    return measure(cases()[i], tolerance)


def main() -> None:
    """Run, print, and keep the results."""
    parser = options(__doc__, "three equations")
    parser.add_argument("--tolerance", type=float, default=1e-2)
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    arguments = parser.parse_args()
    results: list[Any] = []
    if arguments.out is not None and arguments.out.exists():
        kept = json.loads(arguments.out.read_text())["results"]
        results = [row for row in kept if row["tolerance"] == arguments.tolerance]
    known = {row["equation"] for row in results}
    names = [case.subject.name for case in cases()][: 3 if arguments.quick else None]
    chosen = [i for i, name in enumerate(names) if name not in known]
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
        for row in pool.map(measure_one, chosen, repeat(arguments.tolerance)):
            results.append(row)
            print(row, flush=True)
            keep(arguments.out, results=results)


if __name__ == "__main__":
    main()

"""How many evaluations of an exact score does a weak error cost back in time, by method and by grid?

    python benchmarks/backwards.py --quick
    python benchmarks/backwards.py --out benchmarks/results/backwards.json

Weak errors come from the laws that methods make, free of sampling noise. The data have two modes on the circle, and are
reached along the probability flow with a drift and without one, and with noise. Numbers of steps climb a ladder of
ratio sqrt(2); the first rung counts that meets a tolerance together with the next. Grids have a power, 1 for equal
steps, or equal local errors, which are found from the score.
"""

import math
from dataclasses import replace

import torch
from report import Record, Row, keep, options

from circsde import KuramotoSDE, NoCoupling, Schedule, reverse
from circsde.exact import problems
from circsde.exact.fokker_planck import fokker_planck
from circsde.exact.problems import TWO_MODES, Problem
from circsde.studies import exact_convergence
from circsde.studies.equal_errors import grading
from circsde.studies.grids import EQUAL_ERRORS

TOLERANCES = (1e-2, 1e-3)
STEPS = tuple(round(4 * 2 ** (i / 2)) for i in range(11))
GRIDS = {"power 1": 1.0, "power 2": 2.0, "equal errors": EQUAL_ERRORS}
FLOW = ("heun", "multistep", "multistep3")


def without_drift() -> Problem:
    """The problem of the probability flow of the two modes where the phases only diffuse."""
    schedule = Schedule.linear((0, 0, 0.005), (0, 0, 5))
    law = fokker_planck(schedule, TWO_MODES, mean_field=False)
    flow = reverse(KuramotoSDE((1,), NoCoupling(), schedule), law.score, 0.0)
    name = "probability_flow without drift"
    return replace(problems.get("probability_flow"), name=name, sde=flow, start=law.at(1.0), target=law.at(0.0))


def costs(subject: Problem, method: str, power: float, ladder: tuple[int, ...]) -> dict[str, float | None]:
    """Evaluations at every tolerance; None where the most steps do not meet it."""
    times, errors, evaluations = grading(subject, power), list[float](), list[float]()
    for n in ladder:
        table = exact_convergence(subject, methods=[method], steps=[n], power=times, resolution=1e-5)
        errors.append(table["upper"].item())
        evaluations.append(table["nfe"].item())
        if max(errors[-2:]) <= min(TOLERANCES) and n > ladder[0]:
            break
    needed: dict[str, float | None] = {}
    for tolerance in TOLERANCES:
        met = [a <= tolerance and b <= tolerance for a, b in zip(errors, [*errors[1:], errors[-1]], strict=True)]
        needed[f"{tolerance:g}"] = evaluations[met.index(True)] if True in met else None
    return needed


def summary(record: Record) -> list[Row]:
    """Evaluations along the flow to 1e-2 and 1e-3: the best of the older candidates over the best of the newer."""
    found = []
    for problem in dict.fromkeys(row["problem"] for row in record["results"]):
        rows = [row for row in record["results"] if row["problem"] == problem]
        for tolerance in rows[0]["evaluations"]:
            best = {True: math.inf, False: math.inf}
            for row in rows:
                new = row["method"] == "multistep3" or row["grid"] == "equal errors"
                best[new] = min(best[new], row["evaluations"][tolerance] or math.inf)
            ratio = best[False] / best[True]
            question = f"evaluations to {tolerance}, {problem}: multistep3 and equal errors"
            found.append(Row(question, "heun, multistep; powers 1, 2", ratio, ratio, ratio))
    return found


def main() -> None:
    """Run, print, and keep the results."""
    arguments = options(__doc__, "one flow, few steps").parse_args()
    torch.set_num_threads(1)
    cases = [(problems.get("probability_flow"), method) for method in FLOW]
    if not arguments.quick:
        cases += [(problems.get("reverse"), "heun"), *((without_drift(), method) for method in FLOW)]
    rows = []
    for subject, method in cases:
        for grid, power in GRIDS.items():
            needed = costs(subject, method, power, STEPS[:3] if arguments.quick else STEPS)
            rows.append({"problem": subject.name, "method": method, "grid": grid, "evaluations": needed})
            shown = "   ".join(f"{key}: {'-' if n is None else f'{n:g}'}" for key, n in needed.items())
            print(f"{subject.name:32s} {method:12s} {grid:14s} {shown}", flush=True)
            keep(arguments.out, results=rows)  # after each, as they take minutes


if __name__ == "__main__":
    main()

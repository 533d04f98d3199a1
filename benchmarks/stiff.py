"""How many drift evaluations does a weak tolerance cost? Mobius-Strang against Heun, SRA1 and torchsde's srk.

    python benchmarks/stiff.py --quick                   # the stiff well, few steps
    python benchmarks/stiff.py --out benchmarks/results/stiff.json

Weak errors come from transfer operators, free of sampling noise. Each method takes the fewest steps on a ladder of
ratio sqrt(2) that meet the tolerance; the table gives its drift evaluations per path.
"""

import numpy as np
from report import Record, Row, keep, options

from circsde.studies import study

METHODS = ("mobius_strang", "heun", "sra1", "leimkuhler_matthews", "euler_maruyama", "torchsde:srk")
PROBLEMS = ("stiff_well", "drifting", "von_mises_well", "published_doubled")
TOLERANCES = (1e-1, 3e-2, 1e-2, 3e-3)
STEPS = tuple(round(5 * 2 ** (i / 2)) for i in range(15))


def costs(problem: str, steps: tuple[int, ...], tolerances: tuple[float, ...]) -> list[dict[str, object]]:
    """Drift evaluations of every method at every tolerance; None where the most steps do not meet it."""
    result = study(problem, "weak", methods=METHODS, steps=steps)
    table = []
    for tolerance in tolerances:
        needed: dict[str, float | None] = {}
        for method in METHODS:
            row = result.sel(solver=method)
            within = np.flatnonzero(row.upper.values <= tolerance)
            needed[method] = float(row.nfe.values[within[0]]) if len(within) else None
        table.append({"problem": problem, "tolerance": tolerance, "drift_evaluations": needed})
        shown = "   ".join(f"{method} {'-' if cost is None else f'{cost:g}'}" for method, cost in needed.items())
        print(f"{problem:18s} {tolerance:7g}   {shown}", flush=True)
    return table


def summary(record: Record) -> list[Row]:
    """Drift evaluations of torchsde's srk over those of each method, at a weak error of 1e-2."""
    found = []
    for row in record["results"]:
        cost = row["drift_evaluations"]
        if row["tolerance"] == 1e-2 and cost["torchsde:srk"] is not None:
            for method in ("heun", "sra1", "mobius_strang"):
                if cost[method] is not None:
                    ratio = cost["torchsde:srk"] / cost[method]
                    question = f"evaluations to 1e-2, {row['problem']}"
                    found.append(Row(f"{question}: {method}", "torchsde srk", ratio, ratio, ratio))
    return found


def main() -> None:
    """Run, print, and keep the results."""
    arguments = options(__doc__, "the stiff well only, and few steps").parse_args()
    if arguments.quick:
        table = costs(PROBLEMS[0], STEPS[:5], TOLERANCES[:2])
    else:
        table = [row for problem in PROBLEMS for row in costs(problem, STEPS, TOLERANCES)]
    keep(arguments.out, "torchsde", results=table)


if __name__ == "__main__":
    main()

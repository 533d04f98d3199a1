"""How many drift evaluations does a weak tolerance cost? Mobius-Strang against Heun, SRA1 and torchsde's srk.

    python benchmarks/stiff.py --quick                   # the stiff well only
    python benchmarks/stiff.py --out benchmarks/results/stiff.json

Weak errors come from transfer operators, free of sampling noise. Each method takes the fewest steps on a ladder of
ratio sqrt(2) that meet the tolerance; the table gives its drift evaluations per path.
"""

import argparse
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

import circsde
from circsde.studies import study

METHODS = ("mobius_strang", "heun", "sra1", "leimkuhler_matthews", "euler_maruyama", "torchsde:srk")
PROBLEMS = ("stiff_well", "drifting", "von_mises_well", "published_doubled")
TOLERANCES = (1e-1, 3e-2, 1e-2, 3e-3)
STEPS = tuple(round(5 * 2 ** (i / 2)) for i in range(15))


def costs(problem: str) -> list[dict[str, object]]:
    """Drift evaluations of every method at every tolerance; None where 640 steps do not meet it."""
    result = study(problem, "weak", methods=METHODS, steps=STEPS)
    table = []
    for tolerance in TOLERANCES:
        needed: dict[str, float | None] = {}
        for method in METHODS:
            row = result.sel(solver=method)
            within = np.flatnonzero(row.upper.values <= tolerance)
            needed[method] = float(row.nfe.values[within[0]]) if len(within) else None
        table.append({"problem": problem, "tolerance": tolerance, "drift_evaluations": needed})
        shown = "   ".join(f"{method} {'-' if cost is None else f'{cost:g}'}" for method, cost in needed.items())
        print(f"{problem:18s} {tolerance:7g}   {shown}", flush=True)
    return table


def main() -> None:
    """Run, print, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the stiff well only")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    table = [row for problem in (PROBLEMS[:1] if arguments.quick else PROBLEMS) for row in costs(problem)]
    if arguments.out is not None:
        record = {
            "command": "python benchmarks/stiff.py " + " ".join(sys.argv[1:]),
            "machine": platform.machine(),
            "versions": {"circsde": circsde.__version__, "torch": version("torch"), "torchsde": version("torchsde")},
            "results": table,
        }
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

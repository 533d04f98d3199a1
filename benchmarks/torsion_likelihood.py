"""Which density model gives held-out torsion angles the highest likelihood, at the same training time?

    python benchmarks/torsion_likelihood.py --quick                         # seconds, on a generated table
    python benchmarks/torsion_likelihood.py --data FOLDER --device cuda --jobs 10 --seconds 60 --out FILE
    python benchmarks/torsion_likelihood.py --data FOLDER --sets rna,rna-entry --seeds 0,1,2,3,4 --out FILE
    python benchmarks/torsion_likelihood.py --table benchmarks/results/torsion_likelihood.json

Tables of proteins, their splits and units are those of ``circsde.data.torsion``. FOLDER holds ``cys.csv``, ...; without
it they are fetched. ``rna.tsv`` there is the RNA column of the public table, split by five seeds (``torsion/rna.py``);
those of seed 0 are integrated, too (``circsde.solvers.importance``).

Every model gets the same time, CPU time of one thread or wall-clock time of a graphics card that ``--jobs`` models
share, and chooses what it keeps on the validation rows. Compared are negative log-likelihoods of the test rows in nats,
mean and standard error: by the exact divergence along a probability flow for the diffusions and for flow matching, in
closed form for the others. Differences from the best variant of this package, the one with the least mean validation
NLL over all sets of proteins, are taken row by row, so their standard errors are far smaller. A cell (set, model, seed)
that ``--out`` holds already is not repeated.

* Of this package: wrapped diffusion; attraction to the mean directions ("reference"), and global coupling too, each by
  pathwise and by one-step matching.
* ``ncsf``: neural circular spline flow (zuko), autoregressive. ``mixture``: products of von Mises laws by expectation
  maximisation, the number of components chosen on validation. ``flow-matching``: geodesics from uniform noise to data,
  by the network of the diffusions.
"""

import json
import math
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import Record, Row, keep, machine, options
from torsion import rna
from torsion.fitting import Answer, Design, Task
from torsion.ours import diffusion
from torsion.peers import flow_matching, mixture, ncsf

from circsde.data.torsion import TABLES, torsion
from circsde.models.processes import Process
from circsde.models.transitions import Objective
from circsde.solvers.importance import LogDensity, integral, values_at
from circsde.solvers.likelihood import LogProb
from circsde.torus import TWO_PI, difference, mean_direction, wrap

SETS = ("cys", "his", "lys", "trp", "cispro")

DESIGNS = {
    "cpu": Design(width=128, depth=3, smallest_noise=0.1, batch=256, atol=1e-5),
    "cuda": Design(width=256, depth=3, smallest_noise=0.1, batch=4096, atol=1e-5),
}
RNA = {
    "cpu": Design(width=256, depth=4, smallest_noise=0.03, batch=256, atol=2e-6),
    "cuda": Design(width=512, depth=4, smallest_noise=0.03, batch=1024, atol=2e-6),
}
"""Designs chosen on the validation rows of seed 0; larger on a graphics card, where that costs no time."""

POINTS = 400
"""The points at which a density of RNA torsions is integrated, and the confidence of the interval."""
CONFIDENCE = 0.95

OURS: dict[str, Callable[[Task], Answer]] = {
    "diffusion": lambda task: diffusion(task, Process.DIFFUSION, Objective.DENOISING),
    "reference, pathwise": lambda task: diffusion(task, Process.REFERENCE, Objective.PATHWISE),
    "reference, one-step": lambda task: diffusion(task, Process.REFERENCE, Objective.ONE_STEP),
    "global, pathwise": lambda task: diffusion(task, Process.GLOBAL, Objective.PATHWISE),
    "global, one-step": lambda task: diffusion(task, Process.GLOBAL, Objective.ONE_STEP),
}
MODELS = {**OURS, "ncsf": ncsf, "mixture": mixture, "flow-matching": flow_matching}


@dataclass(frozen=True)
class Cell:
    """The settings of one entry of the table."""

    name: str
    model: str
    seed: int
    seconds: float
    device: str
    folder: Path | None = None
    rows: int | None = None

    @property
    def key(self) -> str:
        """The key of the cell in the results."""
        return f"{self.name}/{self.model}/{self.seed}/{self.seconds:g}s"

    def task(self) -> Task:
        """The three parts of the table, on the device."""
        if self.name == "generated":
            generator = torch.Generator().manual_seed(0)
            centres = TWO_PI * torch.rand(4, 3, generator=generator) - math.pi
            noise = 0.2 * torch.randn(1500, 3, generator=generator)
            drawn = centres[torch.randint(4, (1500,), generator=generator)] + noise
            parts = list(torch.split(wrap(drawn), [1000, 250, 250]))
        elif self.name in rna.SETS:
            parts = rna.parts(self.name, self.seed, (self.folder or Path()) / "rna.tsv")
        else:
            path = None if self.folder is None else self.folder / f"{self.name}.csv"
            parts = [torsion(self.name, part, path).theta for part in ("train", "validation", "test")]
        centre = mean_direction(parts[0].double(), 0).float()
        training, validation, test = (difference(part, centre).to(self.device) for part in parts)
        design = (RNA if self.name in rna.SETS else DESIGNS)[self.device]
        return Task(training, validation[: self.rows], test[: self.rows], self.seconds, self.seed, design)


def fill(cell: Cell) -> tuple[dict[str, float], np.ndarray[Any, np.dtype[np.float64]]]:
    """Train, then score the validation and test rows; the NLL of every test row too."""
    torch.set_num_threads(1)
    task = cell.task()
    log_density, notes = MODELS[cell.model](task)
    begin, found = task.clock(), log_density(task.test)
    values = -(found.value if isinstance(found, LogProb) else found).double()
    lost = int((~values.isfinite()).sum())
    if lost:
        raise ValueError(f"{cell.key}: {lost} test rows have no likelihood")
    scores = {"nll": float(values.mean()), "stderr": float(values.std() / len(values) ** 0.5), "rows": len(values)}
    scores["largest_error"] = float(found.error.max()) if isinstance(found, LogProb) else 0.0
    if cell.name not in rna.SETS:
        scores["validation_nll"] = -float(values_at(log_density, task.validation).mean())
    elif cell.seed == 0:
        scores |= integrated(log_density, task)
    return scores | {**notes, "seconds_to_score": task.clock() - begin}, values.cpu().numpy()


def integrated(log_density: LogDensity, task: Task) -> dict[str, float]:
    """The logarithm of the integral of a density with its interval, from points near the training rows."""
    total = integral(
        lambda theta: values_at(log_density, theta.to(task.training)).cpu(),
        task.training.double().cpu(),
        points=POINTS,
        confidence=CONFIDENCE,
        generator=torch.Generator().manual_seed(task.seed),
    )
    return {"log_integral": total.log_value, "log_integral_low": total.low, "log_integral_high": total.high}


def main() -> None:
    """Fill the table, cell by cell."""
    parser = options(__doc__, "one small table, a fifth of a second a cell, few rows: shows that it runs")
    parser.add_argument("--table", type=Path, help="print the finished table in this file, and do nothing else")
    parser.add_argument("--data", type=Path, help="the folder of the tables")
    parser.add_argument("--sets", default=",".join(SETS), help=f"of {', '.join((*TABLES, *rna.SETS))}")
    parser.add_argument("--models", default=";".join(MODELS), help=f"separated by semicolons: {'; '.join(MODELS)}")
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--seconds", type=float, default=240.0, help="of training")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument("--values", type=Path, help="keep the NLL of every test row in this folder, for differences")
    arguments = parser.parse_args()
    if arguments.table is not None:
        print(table(json.loads(arguments.table.read_text())))
        return
    seconds, rows = (0.2, 10) if arguments.quick else (arguments.seconds, None)
    sets = arguments.sets.split(",") if not arguments.quick else ["cispro" if arguments.data else "generated"]
    models, seeds = arguments.models.split(";"), [int(seed) for seed in arguments.seeds.split(",")]
    peers = ["zuko"] if "ncsf" in models else []
    if peers and find_spec("zuko") is None:
        print("ncsf is left out: zuko is not installed")
        models, peers = [model for model in models if model != "ncsf"], []
    cells = [
        Cell(name, model, seed, seconds, arguments.device, arguments.data, rows)
        for seed in seeds
        for name in sets
        for model in models
    ]
    out, device = arguments.out, torch.cuda.get_device_name() if arguments.device == "cuda" else machine()
    old = json.loads(out.read_text()) if out is not None and out.exists() else {}
    done, gaps = dict(old.get("cells", {})), dict(old.get("differences", {}))
    print(f"{device}, {arguments.jobs} at a time, {seconds:g} seconds of training; test NLL in nats +- standard error")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.values or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for cell, (scores, values) in filled([cell for cell in cells if cell.key not in done], arguments.jobs):
            done[cell.key] = scores
            np.save(folder / f"{cell.key.replace('/', '_')}.npy", values.astype(np.float32))
            gaps |= differences(done, folder)
            keep(out, *peers, device=device, jobs=arguments.jobs, cells=done, differences=gaps)
            print(f"{cell.key:36}" + "".join(f"  {name} {x:.4g}" for name, x in scores.items()), flush=True)
    print(table({"cells": done, "differences": gaps}))


def summary(record: Record) -> list[Row]:
    """How much likelier a test row is under the best variant of this package, in geometric mean."""
    found = []
    for key, (gap, stderr) in record["differences"].items():
        name, peer = key.split("/")
        if peer not in OURS:
            ratios = (math.exp(gap + side * stderr) for side in (0, -1, 1))
            found.append(Row(f"likelihood of a test row of {name}", peer, *ratios))
    return found


def filled(cells: list[Cell], jobs: int) -> Iterator[tuple[Cell, Any]]:
    """Yield the cells as they are finished; ``jobs`` of them are computed at a time."""
    if jobs == 1:
        yield from ((cell, fill(cell)) for cell in cells)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = {pool.submit(fill, cell): cell for cell in cells}
        for future in as_completed(futures):
            error = future.exception()
            if error is None:
                yield futures[future], future.result()
            else:
                print(f"{futures[future].key:36}  failed: {error!r}", flush=True)


def best_of_ours(cells: Mapping[str, Mapping[str, float]]) -> str:
    """The variant of this package with the least validation NLL, averaged over seeds and then over all sets."""
    scores: dict[str, dict[str, list[float]]] = {}
    for key, cell in cells.items():
        name, model, *_ = key.split("/")
        if model in OURS and name not in rna.SETS:
            scores.setdefault(model, {}).setdefault(name, []).append(cell["validation_nll"])
    most = max(map(len, scores.values()), default=0)
    means = {model: np.mean([np.mean(x) for x in sets.values()]) for model, sets in scores.items() if len(sets) == most}
    return min(means, key=lambda model: float(means[model]), default="")


def differences(cells: Mapping[str, Any], folder: Path) -> dict[str, tuple[float, float]]:
    """NLL less that of the best variant of this package, row by row and averaged over seeds: mean, standard error."""
    rows: dict[tuple[str, str], list[Any]] = {}
    for key in cells:
        name, model, *_ = key.split("/")
        if name in rna.SETS:  # every seed has rows of its own
            continue
        path = folder / f"{key.replace('/', '_')}.npy"
        if path.exists():
            rows.setdefault((name, model), []).append(np.load(path).astype(np.float64))
    result, best = {}, best_of_ours(cells)
    for (name, model), values in rows.items():
        if (name, best) in rows:
            gap = np.mean(values, 0) - np.mean(rows[name, best], 0)
            result[f"{name}/{model}"] = float(gap.mean()), float(gap.std(ddof=1) / len(gap) ** 0.5)
    return result


def table(results: Mapping[str, Any]) -> str:
    """Models by sets: NLL and its standard error over rows, averaged over seeds, and the difference from the best.

    Of RNA torsions, mean and standard deviation over the splits, and how many there are.
    """
    cells, gaps = results["cells"], results.get("differences", {})
    names = [n for n in (*SETS, "generated", *rna.SETS) if any(key.startswith(f"{n}/") for key in cells)]
    best = best_of_ours(cells)
    lines = ["| | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for model in MODELS:
        entries = []
        for name in names:
            found = [cell for key, cell in cells.items() if key.split("/")[:2] == [name, model]]
            if found and name in rna.SETS:
                nll = [cell["nll"] for cell in found]
                spread = f" ± {np.std(nll, ddof=1):.2f}" if len(nll) > 1 else ""
                entries.append(f"{np.mean(nll):.2f}{spread} ({len(nll)})")
            elif found:
                mean, stderr = (float(np.mean([cell[what] for cell in found])) for what in ("nll", "stderr"))
                gap = None if model == best else gaps.get(f"{name}/{model}")
                apart = "" if gap is None else f"; {gap[0]:+.3f} ± {gap[1]:.3f}"
                entries.append(f"{mean:.3f} ± {stderr:.3f}{apart}")
            else:
                entries.append("")
        if any(entries):
            lines.append(f"| {model} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

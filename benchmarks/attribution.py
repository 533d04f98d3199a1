r"""Which part of a model makes its images better: coupling, attraction, linear part, circle or line, sampler?

    python benchmarks/attribution.py --quick                                    # seconds, on generated fingerprints
    python benchmarks/attribution.py --data FOLDER --runs FOLDER --out benchmarks/results/attribution.json
    python benchmarks/attribution.py --data FOLDER --runs FOLDER --picture docs/figures/samples.png

FOLDER of the data holds ``socofing/`` and ``brodatz/``; that of the runs holds trainings of ``benchmarks/images.py``
and the pictures drawn from them, for instance those of

    python benchmarks/images.py --data FOLDER --batch 128 --updates 2000 --runs FOLDER --sampler dpmpp_2m \
        --cell "socofing/local, Wiener" --cell "socofing/attraction, Wiener" --cell "socofing/vp, Wiener" ...

Each switch compares two models that differ in one thing: the difference of their Gabor-Frechet distances to the same
windows of held-out images, ``--windows`` of them, as a few hundred alone move the distance by more than one. Its
interval is the bootstrap's, over the windows and the pictures of both; with several seeds of a cell it is that of the
mean over seeds, and the difference of each seed is listed besides. Negative is better with the switch on.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from images import SOURCES, kept_pictures, read, run_folder
from report import Record, Row, keep, options
from torch import Tensor

from circsde.data.sheet import sheet
from circsde.metrics.comparison import Interval, bootstrap, positive
from circsde.metrics.gabor import gabor_features, scaled_frechet_distance
from circsde.record import replacing
from circsde.streams import torch_stream

EVALUATIONS = (10, 25, 50, 100, 300)


@dataclass(frozen=True)
class Switch:
    """A model and a sampler with and without one thing."""

    on: tuple[str, str]
    off: tuple[str, str]


SAMPLER = "dpmpp_2m"
SWITCHES = {
    "local coupling": Switch(("local, Wiener", SAMPLER), ("attraction, Wiener", SAMPLER)),
    "global coupling": Switch(("global, Wiener", SAMPLER), ("attraction, Wiener", SAMPLER)),
    "phases attracted to a point, instead of values": Switch(("attraction, Wiener", SAMPLER), ("vp, Wiener", SAMPLER)),
    "the linear part, of values": Switch(("vp, Wiener", SAMPLER), ("vp", SAMPLER)),
    "EDM, instead of the plain model of values": Switch(("edm", SAMPLER), ("vp", SAMPLER)),
    "phases attracted to a point, instead of EDM": Switch(("attraction, Wiener", SAMPLER), ("edm", SAMPLER)),
    "slopes in log-noise, of phases": Switch(("attraction, Wiener", SAMPLER), ("attraction, Wiener", "multistep")),
    "slopes in log-noise, of values": Switch(("vp", SAMPLER), ("vp", "multistep")),
    "slopes in log-noise, of EDM": Switch(("edm", SAMPLER), ("edm", "multistep")),
    "DPM-Solver++ 2M, instead of ancestral steps": Switch(("vp", SAMPLER), ("vp", "ancestral")),
}
PICTURED = ("local, Wiener", "attraction, Wiener", "vp, Wiener", "edm")


@dataclass(frozen=True)
class Pictures:
    """The pictures that are kept with the trainings of a data set."""

    runs: Path
    name: str

    def features(self, cell: tuple[str, str], evaluations: int) -> dict[int, Tensor]:
        """Gabor features of the pictures of a model and sampler, by seed."""
        model, sampler = cell
        folders = {seed: run_folder(self.runs, self.name, model, seed) for seed in range(10)}
        files = {seed: sorted(folder.glob(f"{sampler}-{evaluations}-*.npz")) for seed, folder in folders.items()}
        return {seed: described(found[-1]) for seed, found in files.items() if found}


@cache
def described(path: Path) -> Tensor:
    """The Gabor features of the pictures of a file."""
    return gabor_features(kept_pictures(path))


def mean_distance(windows: Tensor, *pictures: Tensor) -> float:
    """The mean over seeds of the distance of pictures to windows, of the features of both."""
    return float(np.mean([scaled_frechet_distance(windows, each) for each in pictures]))


def difference(real: Tensor, on: dict[int, Tensor], off: dict[int, Tensor], resamples: int) -> dict[str, Any]:
    """The mean difference over the seeds that both have, with its interval, and that of each."""
    seeds = sorted(on.keys() & off.keys())

    def gap(windows: Tensor, *pictures: Tensor) -> float:
        count = len(pictures) // 2
        return mean_distance(windows, *pictures[:count]) - mean_distance(windows, *pictures[count:])

    sets = [of[seed] for of in (on, off) for seed in seeds]
    found = bootstrap(gap, real, *sets, resamples=resamples, generator=torch_stream(0, "resampling"))
    return {"difference": list(found), "seeds": {str(seed): gap(real, on[seed], off[seed]) for seed in seeds}}


def distance(real: Tensor, pictures: dict[int, Tensor], resamples: int) -> Interval:
    """The mean distance over seeds, with its interval."""
    generator = torch_stream(0, "resampling")
    return positive(bootstrap(mean_distance, real, *pictures.values(), resamples=resamples, generator=generator))


def measured(name: str, real: Tensor, runs: Path, resamples: int) -> dict[str, Any]:
    """The distances of all cells that are there, and the differences of all switches, by number of evaluations."""
    pictures = Pictures(runs, name)
    cells: dict[str, Any] = {}
    switches: dict[str, Any] = {}
    for n in EVALUATIONS:
        for cell in dict.fromkeys(cell for switch in SWITCHES.values() for cell in (switch.on, switch.off)):
            if found := pictures.features(cell, n):
                cells.setdefault(", ".join(cell), {})[str(n)] = list(distance(real, found, resamples))
        for key, switch in SWITCHES.items():
            on, off = (pictures.features(cell, n) for cell in (switch.on, switch.off))
            if on.keys() & off.keys():
                switches.setdefault(key, {})[str(n)] = difference(real, on, off, resamples)
    return {"cells": cells, "switches": switches}


def table(record: Record) -> list[str]:
    """Rows of differences by switch and data, then of distances by model and sampler."""

    def shown(found: list[float], form: str) -> str:
        value, low, high = found
        return f"{value:{form}} ({low:{form}} to {high:{form}})"

    rows = []
    for name, found in record["sets"].items():
        for key, by_number in found["switches"].items():
            cells = [shown(by_number[str(n)]["difference"], "+.2f") if str(n) in by_number else "" for n in EVALUATIONS]
            rows.append(f"| {name} | {key} | {' | '.join(cells)} |")
    for name, found in record["sets"].items():
        for key, by_number in found["cells"].items():
            cells = [shown(by_number[str(n)], ".2f") if str(n) in by_number else "" for n in EVALUATIONS]
            rows.append(f"| {name} | {key} | {' | '.join(cells)} |")
    return rows


def summary(record: Record) -> Iterator[Row]:
    """The distance without the switch over that with it."""
    for name, found in record["sets"].items():
        for key, by_number in found["switches"].items():
            on, off = (found["cells"][", ".join(cell)] for cell in (SWITCHES[key].on, SWITCHES[key].off))
            for n in by_number:
                (a, a_low, a_high), (b, b_low, b_high) = on[n], off[n]
                question = f"{name}, Gabor-Frechet, {n} evaluations"
                yield Row(question, f"without {key}", b / a, b_low / a_high, b_high / max(a_low, 1e-9))


def picture(name: str, data: Path, runs: Path, path: Path, columns: int = 16) -> None:
    """Held-out windows in the first row, then the first samples of each of ``PICTURED`` with 10 evaluations."""
    rows = [read(SOURCES[name].format(data), "test").windows(columns, seed=1)]
    for model in PICTURED:
        file = sorted(run_folder(runs, name, model, 0).glob(f"{SAMPLER}-10-*.npz"))[-1]
        rows.append(kept_pictures(file)[:columns])
    with replacing(path, force=True) as temporary:
        sheet(torch.cat(rows), columns, gap=4, zoom=2).save(temporary, format="png")


def generated(folder: Path) -> None:
    """Pictures for the quick form: those with coupling are prints, the others are noise."""
    for model in ("local, Wiener", "attraction, Wiener"):
        run = run_folder(folder, "generated", model, 0)
        run.mkdir()
        prints = read(SOURCES["generated"], "train").windows(24, seed=3)
        noise = 2.0 * torch.rand(prints.shape, generator=torch_stream(0, "samples")) - 1.0
        pixels = ((prints if model.startswith("local") else noise) + 1.0) * 127.5
        np.savez(run / f"{SAMPLER}-10-24.npz", pictures=pixels.round().to(torch.uint8).numpy())


def main() -> None:
    """Compare all that is kept."""
    parser = options(__doc__, "generated fingerprints, and noise in place of samples")
    parser.add_argument("--data", type=Path, help="the folder of the data sets")
    parser.add_argument("--runs", type=Path, help="the folder of trainings and pictures of benchmarks/images.py")
    parser.add_argument("--picture", type=Path, help="draw samples of the models with 10 evaluations, measure nothing")
    parser.add_argument("--windows", type=int, default=4000, help="of held-out images")
    parser.add_argument("--resamples", type=int, default=200)
    given = parser.parse_args()
    if not given.quick and (given.data is None or given.runs is None):
        parser.error("give --data and --runs, or --quick")
    torch.set_num_threads(1)
    if given.picture is not None:
        picture("socofing", given.data, given.runs, given.picture)
        return
    with tempfile.TemporaryDirectory() as scratch:
        runs, windows, resamples = given.runs, given.windows, given.resamples
        names: tuple[str, ...] = ("socofing", "brodatz")
        if given.quick:
            runs, names, windows, resamples = Path(scratch), ("generated",), 24, 4
            generated(runs)
        sets = {}
        for name in names:
            if any(runs.glob(f"{name}-*")):
                real = gabor_features(read(SOURCES[name].format(given.data), "test").windows(windows, seed=1))
                sets[name] = measured(name, real, runs, resamples)
    record = {"windows": windows, "sets": sets}
    keep(given.out, **record)
    print("\n".join(table(record)))


if __name__ == "__main__":
    main()

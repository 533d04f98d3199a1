"""How many bits does a held-out window of an image cost, by which model, and how well do probes know it?

    python benchmarks/image_likelihood.py --quick                       # a minute, on bricks, with untrained models
    python benchmarks/image_likelihood.py --data FOLDER --runs FOLDER --out benchmarks/results/image_likelihood.json
    python benchmarks/image_likelihood.py --table benchmarks/results/image_likelihood.json

FOLDER holds ``brodatz/``, ``socofing/``, ``cifar10_lossless/``. Models are trained and asked by the commands that a
person runs, ``circsde train`` and ``circsde loglik``: local coupling, wrapped diffusion, and the standard diffusion of
values, each the network "tiny" with as many updates on as many windows of 16 x 16 grey pixels. Rows of a texture
(Brodatz), persons (SOCOFing) or images (CIFAR-10) are in one part only.

Bits per pixel of the same held-out windows for all, with one draw of uniform noise between grey levels and probes of
its own for each window (Theis et al. 2016, arXiv:1511.01844): an upper bound on the code length. Beside them what needs
no network: independent pixels with the histogram of the training windows; one normal law of all pixels with the mean
and the covariance of those windows, dequantised alike, a bound, too; and all held-out windows below one another as one
PNG and one lossless WebP file, which are not trained. Intervals are 95 % ones over windows.

Then the trace of the Jacobian of scores of the first source at noised held-out windows, from 16 and from 64 backward
passes: by independent signs (Hutchinson 1990) and by signs of 8 and of 32 colours in two sets (Stathopoulos, Laeuchli
and Orginos 2013, arXiv:1302.4018). The standard deviation of a network is the root mean square over windows and times;
intervals of ratios are those of the bootstrap over repetitions. A cell that ``--out`` holds is not computed again.
"""

import io
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from PIL import Image
from report import Record, Row, keep, machine, options
from scipy.stats import multivariate_normal
from scipy.stats import t as student
from torch import Tensor

from circsde.cli import app
from circsde.commands.train_images import Windows
from circsde.data import ImageSet
from circsde.encoding import PhaseEncoding
from circsde.models.training import Trained, trained
from circsde.models.variance_preserving import ARC, VariancePreserving
from circsde.sampling.likelihoods import flow_of, levels
from circsde.solvers.divergence import Probes, jacobian_trace
from circsde.solvers.hutchinson import in_sets
from circsde.solvers.integrate import sdeint
from circsde.typing import Angles, Field

SOURCES = {"brodatz": "brodatz:{}/brodatz", "socofing": "socofing:{}/socofing", "cifar": "{}/cifar10_lossless"}
PROCESSES = {"local": "local coupling", "diffusion": "wrapped diffusion", "standard": "standard diffusion"}
CONTROLS = {"histogram": "independent pixels", "normal": "normal law", "png": "PNG", "webp": "WebP, lossless"}
PASSES, PARTS, RESAMPLES = {16: 8, 64: 32}, (0.02, 0.1, 0.3), 400
"""The numbers of backward passes with their colours; times as parts of the horizon; resamples of the bootstrap."""


@dataclass(frozen=True)
class Task:
    """The settings that all cells share.

    Attributes:
        data: The folder of the data; None for bricks.
        runs: Where trainings and likelihoods are kept.
        training: Options of ``circsde train``.
        steps: The number of steps of the chains of phases.
        asking: Options of ``circsde loglik``.
        windows: Held-out windows.
        learnt_from: Training windows that the controls are fitted to.
        probes: Signs for each window and time whose standard deviation is taken.
    """

    data: Path | None
    runs: Path
    training: str
    steps: int
    asking: str
    windows: int
    learnt_from: int
    probes: int

    def source(self, name: str) -> str:
        """The name of a source as commands read it."""
        return SOURCES[name].format(self.data) if self.data else "texture:brick"

    def fit(self, name: str, process: str, size: int = 16) -> Path:
        """Train unless it is done already, and return the folder of the run."""
        run = self.runs / f"{name}{size}-{process}"
        steps = "" if process == "standard" else f"--steps {self.steps}"
        how = f"--process {process} --crop {size} {steps} {self.training}"
        command(["train", self.source(name)], how, run)
        return run


def command(words: list[str], settings: str, out: Path) -> None:
    """Run a command of ``circsde``, and end with it where it fails."""
    status = app([*words, *settings.split(), "--out", str(out), "--quiet"], standalone_mode=False)
    if status:
        raise SystemExit(f"circsde {' '.join(words)} {settings} ended with {status}")


def bits(task: Task, name: str, process: str) -> list[float]:
    """Bits per pixel of every held-out window under a model, which is trained first if need be."""
    run = task.fit(name, process)
    out = run / f"loglik-{task.windows}"
    if not out.with_suffix(".nc").exists():
        command(["loglik", str(run), task.source(name)], f"-n {task.windows} {task.asking}", out)
    with xr.open_dataset(out.with_suffix(".nc")) as found:
        return [float(value) for value in found["bits_per_dim"]]


def cut(model: Trained, part: Literal["train", "test"], count: int, seed: int) -> Tensor:
    """Windows of the images of a model, values in [-1, 1]."""
    images = Windows(**model.about["windows"], cache=None).part(part)
    assert isinstance(images, ImageSet)
    return images.windows(count, seed)


def controls(task: Task, name: str) -> dict[str, list[float]]:
    """Bits per pixel of the same windows without any network; files give only the mean over all windows."""
    model = trained(task.fit(name, "standard"))
    known, asked = levels(cut(model, "train", task.learnt_from, 1)), levels(cut(model, "test", task.windows, 0))
    counts = torch.bincount(known.flatten(), minlength=256).double() + 0.5  # Krichevsky and Trofimov 1981
    histogram = -(counts / counts.sum()).log2()[asked].flatten(1).mean(1)
    x, y = (part.flatten(1).double() + 0.5 for part in (known, asked))
    covariance = x.T.cov() + torch.eye(x.shape[1], dtype=torch.float64) / 12.0  # variance of noise between levels
    nats = -multivariate_normal(x.mean(0).numpy(), covariance.numpy()).logpdf(y.numpy())
    nats += float(torch.linalg.inv(covariance).trace()) / 24.0
    sheet = Image.fromarray(asked.flatten(0, 1).numpy().astype(np.uint8))
    sheet.save(png := io.BytesIO(), "PNG", optimize=True)
    sheet.save(webp := io.BytesIO(), "WEBP", lossless=True, quality=100)
    return {
        "histogram": histogram.tolist(),
        "normal": (nats / (x.shape[1] * math.log(2.0))).tolist(),
        **{kind: [8.0 * len(file.getvalue()) / asked.numel()] for kind, file in (("png", png), ("webp", webp))},
    }


def noised(model: Trained, windows: int, part: float) -> tuple[float, Angles]:
    """A time, and held-out windows as phases that are noised to it."""
    pictures, (sde, _, scale) = cut(model, "test", windows, 0), flow_of(model)
    t = part * sde.horizon
    if isinstance(model.process, VariancePreserving):
        times = torch.full((windows,), t, dtype=torch.float64)
        return t, ARC * model.process.pairs(pictures, times, torch.Generator().manual_seed(0)).theta
    return t, sdeint(sde, PhaseEncoding(scale).encode(pictures), (0.0, t), n_steps=50, generator=0).theta[-1]


def traces(score: Field, t: float, theta: Angles, colours: int, count: int) -> Tensor:
    """Independent estimates of the trace from so many signs each, ``(count / colours, batch)``."""
    probes = Probes("lattice" if colours > 1 else "rademacher", 1, colours=colours).draw(theta, 0, count)
    return in_sets(jacobian_trace(lambda x: (score(t, x), x), theta, probes)[1], colours)


def deviation(parts: list[Tensor], generator: torch.Generator | None = None) -> float:
    """The root mean square over windows and times of standard deviations over repetitions, or over resampled ones."""
    n = len(parts[0])
    rows = torch.arange(n) if generator is None else torch.randint(n, (n,), generator=generator)
    return float(torch.stack([part[rows].var(0).mean() for part in parts]).mean().sqrt())


def spread(task: Task, name: str, process: str, size: int) -> dict[str, object]:
    """Standard deviations of the trace by both kinds of signs, and by how much colours are better."""
    model = trained(task.fit(name, process, size))
    score = flow_of(model)[1]
    states = [noised(model, 2, part) for part in PARTS]
    plain = [traces(score, t, theta, 1, task.probes) for t, theta in states]
    found: dict[str, object] = {}
    for passes, colours in PASSES.items():
        by_colours = [traces(score, t, theta, colours, task.probes) for t, theta in states]
        generator = torch.Generator().manual_seed(2)
        better = [deviation(plain, generator) / deviation(by_colours, generator) for _ in range(RESAMPLES)]
        low, high = (float(x) * colours**-0.5 for x in np.quantile(better, (0.025, 0.975)))
        signs, coloured = deviation(plain) * passes**-0.5, deviation(by_colours) * (passes / colours) ** -0.5
        one = {"signs": signs, "colours": coloured, "ratio": signs / coloured, "low": low, "high": high}
        found[str(passes)] = one
    return found


def interval(values: list[float]) -> tuple[float, float]:
    """The mean, and half of its 95 % interval; NaN of one value."""
    n = len(values)
    half = float(student.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / n**0.5 if n > 1 else math.nan
    return float(np.mean(values)), half


def shown(values: list[float], form: str = ".2f") -> str:
    """The mean and its interval, as far as there is one."""
    mean, half = interval(values)
    return f"{mean:{form}} ± {half:.2f}" if math.isfinite(half) else f"{mean:{form}}"


def gap(values: list[float], others: list[float]) -> list[float]:
    """Differences, window by window, of values of the same windows."""
    return [a - b for a, b in zip(values, others, strict=True)]


def table(record: Mapping[str, Any]) -> list[str]:
    """Bits per pixel by model and source with the difference from the standard model, and the spread of traces."""
    cells = record["bits"]
    names = list(dict.fromkeys(key.split("/")[0] for key in cells))
    lines = ["| | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for kind, title in (PROCESSES | CONTROLS).items():
        row = []
        for name in names:
            values, standard = cells.get(f"{name}/{kind}", []), cells.get(f"{name}/standard", [])
            entry = shown(values) if values else ""
            if kind != "standard" and len(values) == len(standard) > 1:
                entry += f"; {shown(gap(values, standard), '+.2f')}"
            row.append(entry)
        lines.append(f"| {title} | {' | '.join(row)} |")
    lines += ["", "| | 16 passes | 64 passes |", "| --- | --- | --- |"]
    for title, found in record["traces"].items():
        ratios = (f"{one['ratio']:.1f} ({one['low']:.1f} to {one['high']:.1f})" for one in found.values())
        lines.append(f"| {title} | {' | '.join(ratios)} |")
    return lines


def summary(record: Record) -> list[Row]:
    """Bits of the standard model over those of local coupling, and spreads of traces by signs over those by colours."""
    rows = []
    for name in dict.fromkeys(key.split("/")[0] for key in record["bits"]):
        ours, standard = (record["bits"].get(f"{name}/{kind}") for kind in ("local", "standard"))
        if ours and standard:
            (mean, _), (more, half) = interval(ours), interval(gap(standard, ours))
            ratios = (1.0 + (more + side * half) / mean for side in (0, -1, 1))
            rows.append(Row(f"bits per pixel of {name}, local coupling", "standard diffusion", *ratios))
    return rows + [
        Row(f"trace of the score, {passes} passes, {title}", "independent signs", one["ratio"], one["low"], one["high"])
        for title, found in record["traces"].items()
        for passes, one in found.items()
    ]


def main() -> None:
    """Fill the tables, cell by cell."""
    parser = options(__doc__, "bricks, two updates, two windows: shows that every part runs")
    parser.add_argument("--table", type=Path, help="print the finished tables in this file, and do nothing else")
    parser.add_argument("--data", type=Path, help="the folder of the data sets; without it, bricks")
    parser.add_argument("--runs", type=Path, default=Path("out/image_likelihood"), help="where trainings are kept")
    parser.add_argument("--sets", default=",".join(SOURCES), help="separated by commas")
    parser.add_argument("--windows", type=int, default=16, help="held-out windows")
    given = parser.parse_args()
    if given.table is not None:
        print("\n".join(table(json.loads(given.table.read_text()))))
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if given.quick:
            training, asking = "--epochs 1 --updates 2 --batch 4 --device cpu", "--probes 2 --draws 1 --atol 1"
            task = Task(None, Path(scratch), training, 10, asking, 2, 512, 256)
        else:
            training, asking = "--epochs 2 --updates 150 --batch 32 --device cpu", "--probes 4 --draws 1 --atol 0.01"
            task = Task(given.data, given.runs, training, 100, asking, given.windows, 8192, 256)
        fill(task, given.sets.split(",") if task.data else ["brick"], given.out)


def fill(task: Task, names: list[str], out: Path | None) -> None:
    """Compute the cells that ``out`` lacks."""
    old = json.loads(out.read_text()) if out is not None and out.exists() else {}
    found, spreads = dict(old.get("bits", {})), dict(old.get("traces", {}))

    def kept(title: str, values: object) -> None:
        keep(out, training=task.training, asking=task.asking, probes=task.probes, bits=found, traces=spreads)
        print(f"{title:36}{values}", flush=True)

    print(f"{machine()}; {task.windows} windows, {task.training}\n")
    for name in names:
        if f"{name}/histogram" not in found:
            for kind, values in controls(task, name).items():
                found[f"{name}/{kind}"] = values
                kept(f"{name}/{kind}", shown(values))
        for process in PROCESSES:
            if f"{name}/{process}" not in found:
                found[f"{name}/{process}"] = bits(task, name, process)
                kept(f"{name}/{process}", shown(found[f"{name}/{process}"]))
    nets = [*((process, 16) for process in PROCESSES), *([("diffusion", 32)] if task.data else [])]
    for process, size in nets:
        title = f"{PROCESSES[process]}, {size} × {size}"
        if title not in spreads:
            spreads[title] = spread(task, names[0], process, size)
            kept(title, {passes: round(one["ratio"], 2) for passes, one in spreads[title].items()})
    print("\n" + "\n".join(table({"bits": found, "traces": spreads})))


if __name__ == "__main__":
    main()

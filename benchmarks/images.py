"""Does synchronising phases beat the standard score-based model on oriented images, at equal training?

    python benchmarks/images.py --quick                                      # seconds, on generated fingerprints
    python benchmarks/images.py --data FOLDER --out benchmarks/results/images [--device cuda] [--cell NAME]
    python benchmarks/images.py --table benchmarks/results/images            # the table of finished cells

FOLDER holds ``socofing/``, ``brodatz/``, ``ambientcg_ground/`` as ``circsde.data.image_set`` reads them; windows are
32 x 32 grey pixels at the resolution of the files, and persons (SOCOFing), rows of a texture (Brodatz) or images are in
one part only. All models are one U-Net (preset "tiny", zero padding) with as many updates on as many windows, but for
what it reads and answers:

* ``vp``: variance-preserving diffusion of grey values, epsilon prediction; ``vp, Wiener``: with the linear part of the
  score measured before training; ``edm``: with the preconditioning, the weights and the noise levels of EDM. Sampled by
  ancestral steps, by DDIM and, with and without noise, by multistep ones and by DPM-Solver++ 2M, the estimate of the
  image clipped in each step: compare with the best of them.
* ``global`` and ``local`` (radius 5) coupling with the published rates, by one-step matching along the published chain
  or by pathwise matching; ``diffusion``: the same noise without any drift, by denoising. Black and white are at
  -/+ 0.5 pi; at 0.25 pi where the name says so. ``settling``: rates in fixed proportions that leave e^-5 of the image,
  and so little noise that it hardly wraps, black and white at -/+ 0.25 pi. ``Wiener``: less noise still, at 0.15 pi,
  and the linear part of the score measured before training (``LinearResidual``); ``attraction, Wiener``: the same
  without coupling, which shows what coupling adds. Sampled by the published Euler-Maruyama, by SRA1, by multistep steps
  and by DPM-Solver++ 2M, from the simplest start law that passes tests against simulated states.

Samplers are compared at equal numbers of evaluations of the network, of which SRA1 needs two a step. Distances to
held-out windows, with bootstrap intervals and, as a floor, the distance between held-out and training windows at the
same number. A cell that ``--out`` holds is not computed again; a training that was stopped goes on.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import euclidean
import numpy as np
import torch
import xarray as xr
from report import Record, Row
from rich.console import Console
from rich.table import Table
from torch import Tensor

from circsde.contracts import Sampled
from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.data import ImageSet, RandomWindows, image_set
from circsde.data.sheet import sheet
from circsde.encoding import PhaseEncoding
from circsde.kuramoto import KuramotoSDE
from circsde.matching.chain import Chain
from circsde.metrics.images import compare
from circsde.models.linear_residual import LinearResidual
from circsde.models.loop import BEST, LAST, METRICS
from circsde.models.settings import Settings
from circsde.models.training import Trained, train
from circsde.models.training import trained as load
from circsde.models.transitions import Objective
from circsde.models.unet import PRESETS, ScoreUNet
from circsde.models.values import sample as sample_vp
from circsde.models.variance_preserving import VariancePreserving
from circsde.record import provenance, replacing
from circsde.sampling.choose_start import FILE, choose, load_law, save_law
from circsde.sampling.generate import generate
from circsde.sampling.reverse import Recipe
from circsde.schedule import Schedule
from circsde.streams import torch_stream

SIZE, EPOCHS, WINDOWS = 32, 10, 2048
EVALUATIONS = (25, 100, 10, 50, 300)
SOURCES = {
    "socofing": "socofing:{}/socofing",
    "brodatz": "brodatz:{}/brodatz",
    "ambientcg": "{}/ambientcg_ground",
    "generated": "fingerprint",
}
SHEET = 48
SAMPLERS = ("published", "ancestral", "sra1", "ddim", "multistep", "multistep flow", "dpmpp_2m", "dpmpp_2m flow")
Samplers = dict[str, Callable[[int, int, int], Tensor]]
"""Samplers by name, each ``(evaluations, count, seed) -> pictures`` in [-1, 1]."""


@dataclass(frozen=True)
class Phases:
    """A model of phases; ``reference_weight`` is ``K_ref / K``."""

    coupling: Coupling
    objective: Objective
    reference_weight: float
    scale: float = 0.5  # in units of pi
    concentration: float | None = None  # of the law that settling rates lead to; None for published rates
    wiener: bool = False

    def equation(self, shape: tuple[int, int]) -> KuramotoSDE:
        """The forward equation of the phases."""
        weight = self.reference_weight
        if self.concentration is None:
            schedule = Schedule.published(100, reference_weight=weight)
        else:
            schedule = Schedule.settling(1.0 / weight, self.concentration)
        return KuramotoSDE(shape, self.coupling, schedule)


MODELS: dict[str, Phases | euclidean.Kind] = {
    "vp": "plain",
    "vp, Wiener": "linear",
    "edm": "edm",
    "global, one-step": Phases(GlobalCoupling(), Objective.ONE_STEP, 1.5),
    "global, pathwise": Phases(GlobalCoupling(), Objective.PATHWISE, 1.5),
    "local, one-step": Phases(LocalCoupling(5), Objective.ONE_STEP, 1.0),
    "local, pathwise": Phases(LocalCoupling(5), Objective.PATHWISE, 1.0),
    "local, settling": Phases(LocalCoupling(5), Objective.PATHWISE, 4.0, 0.25, concentration=2.5),
    "local, Wiener": Phases(LocalCoupling(5), Objective.PATHWISE, 4.0, 0.15, concentration=7.0, wiener=True),
    "attraction, Wiener": Phases(NoCoupling(), Objective.PATHWISE, 4.0, 0.15, concentration=7.0, wiener=True),
    "global, Wiener": Phases(GlobalCoupling(), Objective.PATHWISE, 4.0, 0.15, concentration=7.0, wiener=True),
    "global, pathwise, 0.25": Phases(GlobalCoupling(), Objective.PATHWISE, 1.5, 0.25),
    "local, pathwise, 0.25": Phases(LocalCoupling(5), Objective.PATHWISE, 1.0, 0.25),
    "diffusion": Phases(NoCoupling(), Objective.DENOISING, 0.0),
    "diffusion, 0.25": Phases(NoCoupling(), Objective.DENOISING, 0.0, 0.25),
}
CELLS = [f"{name}/{model}" for name in ("socofing", "brodatz") for model in MODELS]


@dataclass(frozen=True)
class Task:
    """The settings that all cells of a run share."""

    data: Path | None
    device: str
    batch: int
    updates: int
    samples: int
    evaluations: tuple[int, ...]
    resamples: int
    runs: Path
    finish: bool = True
    only: tuple[str, ...] = SAMPLERS
    simulated: int = 1000  # states that the law of the start is fitted to; a quarter as many are compared with it

    def pictures(self, run: Path, sampler: str, evaluations: int) -> Path:
        """The file in which pictures of a run are kept."""
        return run / f"{sampler}-{evaluations}-{self.samples}.npz".replace(" ", "-")

    def run(self, name: str, model: str, seed: int) -> Path:
        """The folder in which a cell is trained and its pictures are kept."""
        return run_folder(self.runs, name, model, seed)

    def images(self, name: str, part: str) -> ImageSet:
        """A part of a data set."""
        if self.data is None and name != "generated":
            raise ValueError(f"{name} needs --data, the folder of {name}/")
        return read(SOURCES[name].format(self.data), part)


def run_folder(runs: Path, name: str, model: str, seed: int) -> Path:
    """The folder in ``runs`` in which a cell is trained and its pictures are kept."""
    return runs / f"{name}-{model}-{seed}".replace(", ", "-")


def kept_pictures(path: Path) -> Tensor:
    """The pictures that a file holds as 8 bits, in [-1, 1]."""
    return torch.from_numpy(np.load(path)["pictures"]).float() / 127.5 - 1.0


@cache
def read(source: str, part: str, size: int = SIZE) -> ImageSet:
    """A part of a data set, for windows of ``size`` pixels a side, held in memory."""
    return image_set(source, crop=size, part=part, prints=10)  # type: ignore[arg-type]


def fit(task: Task, name: str, model: str, seed: int) -> Trained:
    """Train a cell, or resume its training."""
    training, validation = task.images(name, "train"), task.images(name, "test")
    torch.manual_seed(seed)
    kind, shape, architecture = MODELS[model], (SIZE, SIZE), {"padding": "zeros", **PRESETS["tiny"]}
    encoding = PhaseEncoding(kind.scale * math.pi) if isinstance(kind, Phases) else None
    process: Chain | VariancePreserving
    network: torch.nn.Module
    if not isinstance(kind, Phases):
        windows = RandomWindows(training)(WINDOWS, torch_stream(seed, "linear part"))
        process, network = euclidean.model(kind, windows, **architecture)
        objective = Objective.DENOISING
    else:
        sde, objective = kind.equation(shape), kind.objective
        steps = 100 if kind.concentration is None else 50
        process = Chain.uniform(sde, steps, published=objective is Objective.ONE_STEP)
        answer = ScoreUNet(shape, sde.schedule.diffusion, head="scalar", **architecture)
        network = LinearResidual(answer, sde, steps) if kind.wiener else answer
    settings = Settings(
        EPOCHS,
        task.updates // EPOCHS,
        task.batch,
        learning_rate=1e-3,
        warmup=100,
        averaging=0.998,
        pool=32,
        stride=10,
        states=4 if objective is Objective.ONE_STEP else 1,
        seed=seed,
        recorded=task.device == "cuda",
    )
    run = task.run(name, model, seed)
    if (run / BEST).exists() and not (run / LAST).exists():  # weights alone, from another machine
        return load(run, known=(euclidean.EDM, euclidean.EDMUNet, euclidean.LinearUNet))
    return train(
        network,
        process,
        objective,
        RandomWindows(training, encoding),
        RandomWindows(validation, encoding),
        run,
        settings,
        accelerator="gpu" if task.device == "cuda" else "cpu",
    )


def start_law(run: Path, chain: Chain, data: RandomWindows, simulated: int) -> Sampled:
    """The law that phases start from, chosen by so many simulated states and kept in the folder of the run."""
    path = run / FILE
    if not path.exists():
        save_law(*choose(chain, data, fitted=simulated, compared=simulated // 4), path)
    return load_law(path)[0]


def samplers(task: Task, name: str, model: str, trained: Trained, run: Path) -> Samplers:
    """The samplers of a trained cell; the law that phases start from is kept in the folder of the run."""
    kind = MODELS[model]
    if not isinstance(kind, Phases):
        assert isinstance(trained.process, VariancePreserving)
        process, score = trained.process, trained.network

        def values(method: str, **how: float) -> Callable[[int, int, int], Tensor]:
            def draw(evaluations: int, count: int, seed: int) -> Tensor:
                options = {"method": method, "clip": "always", "device": task.device, "seed": seed, **how}
                return sample_vp(process, score, count, n_steps=evaluations, **options).cpu()  # type: ignore[arg-type]

            return draw

        return {
            "ancestral": values("ancestral"),
            "ddim": values("ddim"),
            "multistep": values("multistep", stochasticity=1.0),
            "multistep flow": values("multistep", stochasticity=0.0),
            "dpmpp_2m": values("dpmpp_2m", stochasticity=1.0),
            "dpmpp_2m flow": values("dpmpp_2m", stochasticity=0.0),
        }
    encoding = PhaseEncoding(kind.scale * math.pi)
    law = start_law(run, trained.chain, RandomWindows(task.images(name, "train"), encoding), task.simulated)

    def phases(method: str, cost: int = 1, stochasticity: float = 1.0) -> Callable[[int, int, int], Tensor]:
        def draw(evaluations: int, count: int, seed: int) -> Tensor:
            # two evaluations a step, and one for the last, which has no noise
            steps = (evaluations + cost - 1) // cost
            recipe = Recipe(method, steps, stochasticity=stochasticity, denoise=cost > 1)
            options = {"seed": seed, "batch_size": 500, "device": task.device}
            drawn = generate(trained.chain, trained.network, law, count, recipe, **options)  # type: ignore[arg-type]
            return encoding.decode(torch.from_numpy(drawn["theta"].to_numpy()))

        return draw

    return {
        "published": phases("euler_maruyama"),
        "sra1": phases("sra1", 2),
        "multistep": phases("multistep"),
        "multistep flow": phases("multistep", stochasticity=0.0),
        "dpmpp_2m": phases("dpmpp_2m"),
        "dpmpp_2m flow": phases("dpmpp_2m", stochasticity=0.0),
    }


def drawn(task: Task, name: str, model: str, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Train, then draw pictures by every sampler and number of evaluations; what is there already is read."""
    run = task.run(name, model, seed)
    if task.finish:
        trained = fit(task, name, model, seed)
        trained.network.to(task.device)
        draws = samplers(task, name, model, trained, run)
        for sampler, n in ((sampler, n) for sampler in draws if sampler in task.only for n in task.evaluations):
            path = task.pictures(run, sampler, n)
            if not path.exists() and (n <= 100 or sampler in ("multistep", "dpmpp_2m")):
                pictures = ((draws[sampler](n, task.samples, seed) + 1.0) * 127.5).round().to(torch.uint8)
                with replacing(path) as temporary:
                    np.savez_compressed(temporary, pictures=pictures.numpy())
    for sampler, n in ((sampler, n) for sampler in SAMPLERS for n in sorted(EVALUATIONS)):
        if (path := task.pictures(run, sampler, n)).exists():
            yield f"{sampler}/{n}", kept_pictures(path)


def cell(task: Task, name: str, model: str, seed: int, picture: Path) -> dict[str, object]:
    """Train, draw, measure; also a sheet of pictures."""
    real = task.images(name, "test").windows(task.samples, seed=1)
    familiar = task.images(name, "train").windows(2 * task.samples, seed=2)
    measured: dict[str, dict[str, object]] = {}
    for key, pictures in drawn(task, name, model, seed):
        generator = torch.Generator().manual_seed(0)
        measured[key] = _plain(compare(real, pictures, train=familiar, resamples=task.resamples, generator=generator))
        if key == "multistep/25":
            with replacing(picture, force=True) as temporary:
                sheet(pictures[:SHEET], columns=12).save(temporary)
    run = task.run(name, model, seed)
    *_, last = (run / METRICS).read_text().split()
    updates, seconds = last.split(",")[:2]
    law = load_law(run / FILE)[1].attrs["chosen"] if (run / FILE).exists() else "normal"
    about = {"training_seconds": float(seconds), "updates": int(updates), "start_law": law}
    return {**about, "measures": measured}


def _plain(found: xr.Dataset) -> dict[str, object]:
    """The distances, and the coherence of the samples beside that of real windows."""
    mean = found["mean_coherence"]
    return {**distances(found), "mean_coherence": {str(one): float(mean.sel(set=one)) for one in mean["set"].values}}


def distances(found: xr.Dataset) -> dict[str, list[float]]:
    """The distances by measure, each ``[value, low, high, floor]``."""
    columns = found[["value", "low", "high", "floor"]].to_array().transpose("measure", "variable")
    return dict(zip(map(str, found["measure"].values), columns.values.tolist(), strict=True))


def by_cell(results: Iterable[Record]) -> dict[str, list[Record]]:
    """Group the results by cell, one for each seed."""
    cells: dict[str, list[Record]] = {}
    for result in results:
        cells.setdefault(result["cell"], []).append(result)
    return cells


def summary(record: Record) -> Iterator[Row]:
    """Distances of the standard model by its best sampler, and by DDIM, over those of local coupling.

    Intervals reach from the ends that favour the standard model to those that favour local coupling.
    """
    cells = by_cell(record.values())
    for name in ("socofing", "brodatz"):
        standard, local = (cells.get(f"{name}/{model}", []) for model in ("vp", "local, Wiener"))
        for n in (10, 25, 100) if standard and local else ():
            peers = {sampler: across_seeds(standard, f"{sampler}/{n}", "gabor_frechet") for sampler in SAMPLERS}
            best = min((sampler for sampler in peers if peers[sampler]), key=lambda sampler: peers[sampler][0])
            value, low, high, _ = across_seeds(local, f"dpmpp_2m/{n}", "gabor_frechet")
            for sampler in dict.fromkeys((best, "ddim")):
                peer = peers[sampler]
                question = f"Gabor-Frechet distance, {n} evaluations, {name}"
                yield Row(question, f"standard, {sampler}", peer[0] / value, peer[1] / high, peer[2] / low)


def across_seeds(results: list[Record], key: str, measure: str) -> list[float]:
    """The mean over seeds of a sampler's distances, the outer ends of their intervals, and the highest floor."""
    found = [one["measures"][key][measure] for one in results if key in one["measures"]]
    if not found:
        return []
    value, low, high, floor = zip(*found, strict=True)
    return [sum(value) / len(value), min(low), max(high), max(floor)]


def show(folder: Path, measure: str) -> None:
    """A row per model and sampler: a distance with its interval at every number of evaluations."""
    cells = by_cell(json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
    for name in sorted({key.split("/")[0] for key in cells}):
        table = Table(title=f"{name}: {measure}, mean over seeds and what their 95 % intervals cover")
        for column in ("model", "seeds", "sampler", *(f"{n} evaluations" for n in sorted(EVALUATIONS)), "floor"):
            table.add_column(column, no_wrap=True)
        for key, results in cells.items():
            if not key.startswith(name + "/"):
                continue
            for sampler in SAMPLERS:
                found = [across_seeds(results, f"{sampler}/{n}", measure) for n in sorted(EVALUATIONS)]
                if any(found):
                    texts = [f"{v[0]:.3g} ({v[1]:.3g} to {v[2]:.3g})" if v else "" for v in found]
                    floor = max(v[3] for v in found if v)
                    table.add_row(key.split("/", 1)[1], str(len(results)), sampler, *texts, f"{floor:.3g}")
        Console(width=190).print(table)


def main() -> None:
    """Fill the table, cell by cell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two models of generated fingerprints, ten updates")
    parser.add_argument("--data", type=Path, help="the folder of the data sets")
    parser.add_argument("--cell", action="append", help=f"one of {'; '.join(CELLS)}; may be given again")
    parser.add_argument("--sampler", action="append", choices=SAMPLERS, help="to draw by; by default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=2500, help="of --batch windows each")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=100, help="of the bootstrap")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=Path, default=Path("out/images"), help="where trainings are kept")
    parser.add_argument("--out", type=Path, help="where results are kept")
    parser.add_argument("--draw-only", action="store_true", help="measure nothing yet: where time on a card is short")
    parser.add_argument(
        "--trained-on", default="this machine", help="where, if weights were brought: kept with results"
    )
    parser.add_argument("--unfinished", action="store_true", help="measure what is drawn: train and draw nothing")
    parser.add_argument("--table", type=Path, help="show the results of this folder")
    parser.add_argument("--measure", default="gabor_frechet", help="to show")
    given = parser.parse_args()
    if given.table is not None:
        show(given.table, given.measure)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if given.quick:
            task = Task(None, given.device, 4, EPOCHS, 8, (5,), 4, Path(scratch), simulated=64)
            cells, out = ["generated/edm", "generated/local, pathwise"], Path(scratch)
        else:
            work = given.updates, given.samples, EVALUATIONS, given.resamples, given.runs, not given.unfinished
            task = Task(given.data, given.device, given.batch, *work, tuple(given.sampler or SAMPLERS))
            cells, out = given.cell or CELLS, given.out or given.runs
        out.mkdir(parents=True, exist_ok=True)
        for key in cells:
            name, model = key.split("/")
            path = out / f"{name}-{model}-{given.seed}.json".replace(", ", "-")
            if given.draw_only:
                print(f"{key}: drew {', '.join(one for one, _ in drawn(task, name, model, given.seed))}", flush=True)
                continue
            if not path.exists():
                result = cell(task, name, model, given.seed, path.with_suffix(".png"))
                made = provenance(cell=key, seed=given.seed, samples=task.samples, trained_on=given.trained_on)
                with replacing(path) as temporary:
                    temporary.write_text(json.dumps({"cell": key, **made, **result}, indent=1) + "\n")
            print(f"{key}: {json.loads(path.read_text())['training_seconds']:.0f} s of training", flush=True)
        if given.draw_only:
            return
        if given.quick:
            print("distances after ten updates mean nothing: this only shows that every part runs")
        else:
            show(out, given.measure)


if __name__ == "__main__":
    main()

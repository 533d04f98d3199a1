"""Are phases the right model of orientations, and does attraction or coupling help them, at any number of steps?

    python benchmarks/orientation_fields.py --quick                                   # seconds, generated fingerprints
    python benchmarks/orientation_fields.py --data FOLDER --out benchmarks/results/orientation_fields
    python benchmarks/orientation_fields.py --table benchmarks/results/orientation_fields
    python benchmarks/orientation_fields.py --data FOLDER --picture docs/figures/ridges.png  # of samples in --runs

FOLDER holds ``socofing/``, ``brodatz/`` and ``ambientcg_oriented/``, of which ``--set`` takes one. Data are the doubled
orientations of ridges (``OrientationEncoding``) in windows of ``--size`` pixels a side, persons (rows of a texture,
images) being in one part only. All models are one U-Net (preset "tiny", zero padding, no linear part) with as many
updates on as many windows, but for what it reads and answers:

* ``wrapped diffusion``: noise alone, by denoising.
* ``attraction``: the same noise, and attraction to phase 0, but no coupling; ``local`` (radius 5) and ``global``
  coupling besides. By pathwise matching, with the published rates of noise; ``attraction`` has those of ``local``.
* ``standard``: variance-preserving diffusion of cosine and sine as two channels, epsilon prediction; the estimate of
  the data is clipped in each step, and the angle of the pair is the phase. ``edm``: the same with the preconditioning,
  the weights and the noise levels of EDM.

Multistep steps and those of DPM-Solver++ 2M take one evaluation of the network each, from the simplest start law that
passes tests against simulated states; the models of pairs are sampled by ancestral steps, too. Measured are the
distances of ``circsde.metrics.phase_fields`` to windows of held-out persons, with bootstrap intervals over windows and
samples and, as a floor, the distance of as many training windows. What ``--out`` holds is not measured again, samples
that ``--runs`` holds are not drawn again, and a training that was stopped is resumed.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import euclidean
import numpy as np
import torch
from images import SIZE, WINDOWS, across_seeds, by_cell, distances, read, start_law
from report import Record, Row
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import interpolate

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.data import RandomWindows
from circsde.data.orientation import OrientationEncoding
from circsde.data.sheet import sheet
from circsde.kuramoto import KuramotoSDE
from circsde.matching.chain import Chain
from circsde.metrics.phase_fields import MEASURES, compare
from circsde.models.processes import RADIUS
from circsde.models.settings import Settings
from circsde.models.training import Trained, train
from circsde.models.transitions import Objective
from circsde.models.unet import PRESETS, ScoreUNet
from circsde.models.values import sample as sample_values
from circsde.models.variance_preserving import VariancePreserving
from circsde.record import provenance, replacing
from circsde.sampling.generate import generate
from circsde.sampling.reverse import Recipe
from circsde.schedule import Schedule
from circsde.streams import seed_torch, torch_stream
from circsde.typing import Angles

EPOCHS, STEPS, EVALUATIONS = 10, 100, (10, 25, 100)
SOURCES = {
    "socofing": "socofing:{}/socofing",
    "brodatz": "brodatz:{}/brodatz",
    "ambientcg": "{}/ambientcg_oriented",
    "generated": "fingerprint",
}


@dataclass(frozen=True)
class Contender:
    """A model of phases: what couples them, the weight of the attraction, and what the score regresses on."""

    coupling: Coupling
    weight: float
    objective: Objective = Objective.PATHWISE

    def equation(self, shape: tuple[int, int]) -> KuramotoSDE:
        """The forward equation of the phases."""
        return KuramotoSDE(shape, self.coupling, Schedule.published(STEPS, reference_weight=self.weight))


CONTENDERS: dict[str, Contender | euclidean.Kind] = {
    "wrapped diffusion": Contender(NoCoupling(), 0.0, Objective.DENOISING),
    "standard": "plain",
    "edm": "edm",
    "attraction": Contender(NoCoupling(), 1.0),
    "local": Contender(LocalCoupling(RADIUS), 1.0),
    "global": Contender(GlobalCoupling(), 1.5),
}
SAMPLERS = ("multistep", "dpmpp_2m", "ancestral")


@dataclass(frozen=True)
class Components:
    """Cosines and sines of phases as two channels, for a model of values."""

    phases: RandomWindows

    def __call__(self, count: int, generator: torch.Generator) -> Tensor:
        """``(count, 2, rows, columns)`` in ``[-1, 1]``."""
        theta = self.phases(count, generator)
        return torch.stack((theta.cos(), theta.sin()), 1)

    @cached_property
    def digest(self) -> str:
        """The digest of the phases, as a process of values has another description anyway."""
        return self.phases.digest


@dataclass(frozen=True)
class Task:
    """The settings that all cells of a run share."""

    name: str
    source: str
    size: int
    runs: Path
    seed: int
    updates: int
    batch: int
    samples: int
    evaluations: tuple[int, ...]
    device: str = "cpu"
    resamples: int = 200
    samplers: tuple[str, ...] = SAMPLERS
    simulated: int = 1000  # states that the law of the start is fitted to; a quarter as many are compared with it

    @property
    def together(self) -> int:
        """Samples at a time: few have room in the cache of a processor."""
        return 32 if self.device == "cpu" else 512

    def chosen(self, name: str) -> tuple[str, ...]:
        """The samplers of a contender: phases are not sampled by ancestral steps."""
        return tuple(one for one in self.samplers if one != "ancestral" or isinstance(CONTENDERS[name], str))

    def windows(self, part: str) -> RandomWindows:
        """Doubled orientations of the images to learn from, ``train``, or of those held out, ``test``."""
        return RandomWindows(read(self.source, part, self.size), OrientationEncoding())

    def run(self, name: str) -> Path:
        """The folder in which a contender is trained and its samples are kept."""
        return self.runs / f"{name}-{self.seed}".replace(" ", "-")


def fit(task: Task, name: str) -> Trained:
    """Train a contender, or resume its training."""
    training, validation = task.windows("train"), task.windows("test")
    settings = Settings(
        EPOCHS,
        task.updates // EPOCHS,
        task.batch,
        learning_rate=2e-3,
        warmup=100,
        averaging=0.99,
        pool=32,
        stride=10,
        seed=task.seed,
        recorded=task.device == "cuda",
    )
    seed_torch(task.seed, "weights")
    architecture = {"padding": "zeros", **PRESETS["tiny"]}
    contender, where = CONTENDERS[name], "gpu" if task.device == "cuda" else "cpu"
    if not isinstance(contender, Contender):
        pairs = Components(training), Components(validation)
        windows = pairs[0](WINDOWS, torch_stream(task.seed, "linear part"))
        values, network = euclidean.model(contender, windows, **architecture)
        return train(network, values, Objective.DENOISING, *pairs, task.run(name), settings, accelerator=where)
    shape = task.size, task.size
    sde = contender.equation(shape)
    score = ScoreUNet(shape, sde.schedule.diffusion, head="scalar", **architecture)
    chain, data = Chain.uniform(sde, STEPS), (training, validation)
    return train(score, chain, contender.objective, *data, task.run(name), settings, accelerator=where)


def samplers(task: Task, name: str, trained: Trained) -> dict[str, Callable[[int], Angles]]:
    """The samplers of phases by number of evaluations; the law that phases start from is kept with the run."""
    process, score = trained.process, trained.network.to(task.device)
    if isinstance(process, VariancePreserving):

        def values(method: str) -> Callable[[int], Angles]:
            def draw(n: int) -> Angles:
                options = {"method": method, "clip": "always", "seed": task.seed, "device": task.device}
                parts = []
                for first in range(0, task.samples, task.together):
                    count = min(task.together, task.samples - first)
                    x = sample_values(
                        process,
                        score,
                        count,
                        n_steps=n,
                        first_sample=first,
                        **options,  # type: ignore[arg-type]
                    )
                    parts.append(torch.atan2(x[:, 1], x[:, 0]).cpu())
                return torch.cat(parts)

            return draw

        return {method: values(method) for method in task.chosen(name)}
    law = start_law(task.run(name), process, task.windows("train"), task.simulated)

    def phases(method: str) -> Callable[[int], Angles]:
        def draw(n: int) -> Angles:
            recipe = Recipe(method, n, denoise=False)
            options = {"seed": task.seed, "batch_size": task.together, "device": task.device}
            drawn = generate(process, score, law, task.samples, recipe, **options)  # type: ignore[arg-type]
            return torch.from_numpy(drawn["theta"].to_numpy())

        return draw

    return {method: phases(method) for method in task.chosen(name)}


def drawn(task: Task, name: str) -> Iterator[tuple[str, Angles]]:
    """Train, then draw by every sampler and number of evaluations; what is there already is read."""
    trained = fit(task, name)
    for sampler, draw in samplers(task, name, trained).items():
        for n in task.evaluations:
            path = task.run(name) / f"{sampler}-{n}-{task.samples}.npy"
            if not path.exists():
                theta = draw(n).numpy()
                with replacing(path) as temporary, temporary.open("wb") as file:
                    np.save(file, theta)
            yield f"{sampler}/{n}", torch.from_numpy(np.load(path))


def fill(task: Task, name: str, path: Path, real: Angles, train: Angles) -> None:
    """Add to the results of a contender what they lack, one sampler and number of evaluations after another.

    Raises:
        ValueError: If the results belong to another training, or to other numbers of samples.
    """
    about = {
        "set": task.name,
        "size": task.size,
        "updates": task.updates,
        "batch": task.batch,
        "samples": task.samples,
        "real": len(real),
    }
    fresh = {"cell": name, "seed": task.seed, **about, "means": {}, "measures": {}}
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else fresh
    if any(kept[key] != value for key, value in about.items()):
        raise ValueError(f"{path} has results of other settings than {about}: give another --out")
    wanted = {f"{sampler}/{n}" for sampler in task.chosen(name) for n in task.evaluations}
    if wanted <= set(kept["measures"]):
        return
    for key, theta in drawn(task, name):
        if key in kept["measures"]:
            continue
        found = compare(real, theta, train=train, resamples=task.resamples, generator=torch_stream(0, "resampling"))
        kept["measures"][key] = distances(found)
        for which, of in (("real", "real"), ("train", "train"), (key, "samples")):
            kept["means"][which] = dict(zip(MEASURES, found["mean"].sel(set=of).values.tolist(), strict=True))
        with replacing(path, force=True) as temporary:
            temporary.write_text(json.dumps(kept | provenance(), indent=1) + "\n")


def summary(record: Record) -> Iterator[Row]:
    """Distances of the standard model over those of wrapped diffusion, and of attraction alone over local coupling.

    Intervals reach from the ends that favour the first to those that favour the second.
    """
    cells = by_cell(record.values())
    for measure, said in (("positive", "cores"), ("correlation", "correlation at 16 pixels")):
        for peer, ours in (("standard", "wrapped diffusion"), ("attraction", "local")):
            for n in EVALUATIONS:
                both = [across_seeds(cells.get(name, []), f"multistep/{n}", measure) for name in (peer, ours)]
                if all(both):
                    (a, a_low, a_high, _), (b, b_low, b_high, _) = both
                    question = f"orientations, {said}, {n} evaluations: {ours}"
                    yield Row(question, peer, a / b, a_low / b_high, a_high / max(b_low, 1e-9))


def show(folder: Path) -> None:
    """For each measure a row per contender and sampler: the mean over seeds, and the range of their intervals."""
    cells = by_cell(json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
    for measure in MEASURES:
        table = Table(title=f"{measure}: distance, mean over seeds and what their 95 % intervals cover")
        for column in ("contender", "seeds", "sampler", *(f"{n} evaluations" for n in EVALUATIONS), "floor"):
            table.add_column(column, no_wrap=True)
        for name, sampler in ((name, sampler) for name in CONTENDERS for sampler in SAMPLERS):
            results = cells.get(name, [])
            found = [across_seeds(results, f"{sampler}/{n}", measure) for n in EVALUATIONS]
            if any(found):
                texts = [f"{v[0]:.3f} ({v[1]:.3f} to {v[2]:.3f})" if v else "" for v in found]
                table.add_row(name, str(len(results)), sampler, *texts, f"{max(v[3] for v in found if v):.3f}")
        Console(width=150).print(table)


def picture(task: Task, names: Iterable[str], path: Path, columns: int = 8, larger: int = 3) -> None:
    """Ridges along the first samples of each contender by multistep steps, a row each."""
    encoding, rows = OrientationEncoding(period=9.0), []
    for name in names:
        theta = torch.from_numpy(np.load(task.run(name) / f"multistep-{max(EVALUATIONS)}-{task.samples}.npy"))[:columns]
        parts = interpolate(torch.stack((theta.cos(), theta.sin()), 1), scale_factor=larger, mode="bicubic")
        rows.append(encoding.decode(torch.atan2(parts[:, 1], parts[:, 0])))
    with replacing(path, force=True) as temporary:
        sheet(torch.cat(rows), columns, gap=6).save(temporary, format="png")


def main() -> None:
    """Fill the table, contender by contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two contenders, ten updates, generated fingerprints")
    parser.add_argument("--data", type=Path, help="the folder of the data sets")
    parser.add_argument("--set", default="socofing", choices=[name for name in SOURCES if name != "generated"])
    parser.add_argument("--size", type=int, default=SIZE, help="of windows, pixels")
    parser.add_argument("--contender", action="append", choices=CONTENDERS, help="may be given again; by default all")
    parser.add_argument("--sampler", action="append", choices=SAMPLERS, help="to draw by; by default all")
    parser.add_argument("--evaluations", type=int, nargs="+", default=EVALUATIONS, choices=EVALUATIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=1500, help="of --batch windows each")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--runs", type=Path, default=Path("out/orientation_fields"), help="where trainings are kept")
    parser.add_argument("--out", type=Path, help="where results are kept")
    parser.add_argument("--table", type=Path, help="show the results of this folder")
    parser.add_argument("--picture", type=Path, help="draw ridges along samples that --runs holds, and measure nothing")
    given = parser.parse_args()
    if given.table is not None:
        show(given.table)
        return
    if not given.quick and given.data is None:
        parser.error("give --data, the folder of the data sets, or --quick")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if given.quick:
            data = "generated", SOURCES["generated"], SIZE
            task, n_real = Task(*data, Path(scratch), 0, EPOCHS, 4, 8, (5,), resamples=4, simulated=64), 16
            names, out = ["edm", "local"], Path(scratch)
        else:
            task = Task(
                given.set,
                SOURCES[given.set].format(given.data),
                given.size,
                given.runs,
                given.seed,
                given.updates,
                given.batch,
                given.samples,
                tuple(given.evaluations),
                device=given.device,
                samplers=tuple(given.sampler or SAMPLERS),
            )
            n_real = 1500
            names, out = given.contender or list(CONTENDERS), given.out or given.runs
        if given.picture is not None:
            picture(task, given.contender or ("attraction", "local", "wrapped diffusion", "standard"), given.picture)
            return
        out.mkdir(parents=True, exist_ok=True)
        real, train = (
            read(task.source, part, task.size).phases(count, OrientationEncoding(), seed)
            for part, count, seed in (("test", n_real, 1), ("train", task.samples, 2))
        )
        for name in names:
            fill(task, name, out / f"{name}-{task.seed}.json".replace(" ", "-"), real, train)
            print(f"{name}: measured", flush=True)
        if given.quick:
            print("distances after ten updates mean nothing: this only shows that every part runs")
        else:
            show(out)


if __name__ == "__main__":
    main()

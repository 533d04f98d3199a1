"""Can one say before training which forward process will give better images, from the noise of each wave alone?

    python benchmarks/schedules.py --quick                                           # a minute, on generated prints
    python benchmarks/schedules.py --data FOLDER --runs FOLDER --out benchmarks/results/schedules.json
    python benchmarks/schedules.py --table benchmarks/results/schedules.json

FOLDER holds ``socofing/``; windows are 16 x 16 pixels, at -/+ 0.15 pi. Forward processes differ in coupling, noise and
the steps that their score is learned at. Before anything is trained, two numbers are known of each
(``circsde.studies.waves``):

* ``spectral``: normal phases with the spectrum of the data are sampled with their exact score, by as many multistep
  steps and from the same kind of start as the trained model later; the error is the distance of the spectrum of the
  samples from that of the data, ``sum_k (sd_k - sd'_k)^2 / sum_k sd_k^2`` over waves k (Wasserstein, squared).
* ``uneven``: the sum over steps of the squared share of the information that the step loses, times the number of
  steps: 1 where all lose the same.

Then a score is trained for each, one U-Net with the linear part measured, as many updates on as many windows, and the
Gabor-Frechet distance of its samples to windows of held-out persons is measured. Spearman's rank correlation with what
was predicted says whether the prediction is worth something; its p value is that of all permutations, one-sided. What
``--out`` holds is not measured again.
"""

import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from images import distances, read, start_law
from numpy.typing import NDArray
from report import Record, Row, keep, options
from rich.console import Console
from rich.table import Table
from scipy.stats import permutation_test, rankdata
from torch import Tensor

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.data import ImageSet, RandomWindows
from circsde.encoding import PhaseEncoding
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import WrappedNormal
from circsde.matching.chain import Chain
from circsde.metrics.images import compare
from circsde.models.linear_residual import LinearResidual
from circsde.models.settings import Settings
from circsde.models.training import train
from circsde.models.transitions import Objective
from circsde.models.unet import PRESETS, ScoreUNet
from circsde.sampling.generate import generate
from circsde.sampling.reverse import Recipe
from circsde.schedule import Schedule
from circsde.streams import seed_torch, torch_stream
from circsde.studies.waves import equal_information, transform, waves
from circsde.torus import difference
from circsde.typing import Angles, Tangent, Time

SIZE, STEPS, WINDOWS = 16, 50, 2048
ENCODING = PhaseEncoding(0.15 * math.pi)
EVALUATIONS = (10, 25)
PREDICTIONS = ("spectral", "uneven")


@dataclass(frozen=True)
class Forward:
    """A forward process: the coupling, ``K / K_ref``, ``K_ref / D``, and whether steps lose equal information."""

    coupling: Coupling
    weight: float = 0.0
    concentration: float = 7.0
    equal: bool = False

    def chain(self, theta: Angles) -> Chain:
        """The chain that its score is trained along."""
        sde = KuramotoSDE((SIZE, SIZE), self.coupling, Schedule.settling(self.weight, self.concentration))
        return Chain(sde, equal_information(sde, theta, STEPS)) if self.equal else Chain.uniform(sde, STEPS)


FORWARD = {
    "attraction": Forward(NoCoupling()),
    "attraction, equal information": Forward(NoCoupling(), equal=True),
    "attraction, more noise": Forward(NoCoupling(), concentration=2.5),
    "attraction, less noise": Forward(NoCoupling(), concentration=20.0),
    "local 1/4": Forward(LocalCoupling(2), 0.25),
    "local 1/4, equal information": Forward(LocalCoupling(2), 0.25, equal=True),
    "local 1": Forward(LocalCoupling(2), 1.0),
    "local 4": Forward(LocalCoupling(2), 4.0),
    "local 4, equal information": Forward(LocalCoupling(2), 4.0, equal=True),
    "global 1": Forward(GlobalCoupling(), 1.0),
}


@dataclass(frozen=True)
class Task:
    """What all cells have in common."""

    source: str
    runs: Path
    updates: int
    samples: int
    seeds: tuple[int, ...]

    def images(self, part: str) -> ImageSet:
        """The images to learn from, ``train``, or those held out, ``test``."""
        return read(self.source, part, SIZE)

    def phases(self, part: str) -> RandomWindows:
        """Their windows as phases."""
        return RandomWindows(self.images(part), ENCODING)


class NormalScore:
    """The exact score of normal phases whose waves are independent, with the mean and the variance of data."""

    def __init__(self, sde: KuramotoSDE, theta: Angles) -> None:
        self.sde, self.theta, self.mean = sde, theta, amplitudes(sde, theta).mean(0)

    def __call__(self, t: Time, theta: Angles) -> Tangent:
        """At one time."""
        found = waves(self.sde, self.theta, [float(t)]).isel(time=0)
        decay, variance = (torch.from_numpy(found[name].to_numpy()) for name in ("decay", "signal"))
        spread = variance + torch.from_numpy(found["noise"].to_numpy())
        x = amplitudes(self.sde, theta) - (-decay).exp() * self.mean
        return transform(self.sde, -x / spread, inverse=True).to(theta.dtype)


def amplitudes(sde: KuramotoSDE, theta: Angles) -> Tensor:
    """The waves of images about the reference phase."""
    return transform(sde, difference(theta.double(), sde.reference_phase.double()))


def predicted(forward: Forward, theta: Angles, samples: int) -> dict[str, float]:
    """What is known before training, by name and number of evaluations."""
    chain, found = forward.chain(theta), {}
    assert isinstance(chain.sde, KuramotoSDE)
    score, real = NormalScore(chain.sde, theta), amplitudes(chain.sde, theta).std(0)
    last = waves(chain.sde, theta, [chain.sde.horizon])["noise"].isel(time=0)
    start = WrappedNormal(torch.zeros(SIZE, SIZE), math.sqrt(float(last.mean())))
    for n in EVALUATIONS:
        recipe = Recipe("multistep", n, denoise=False)
        drawn = generate(chain, score, start, samples, recipe, seed=0, batch_size=samples)
        made = amplitudes(chain.sde, torch.from_numpy(drawn["theta"].to_numpy())).std(0)
        found[f"spectral/{n}"] = float((made - real).square().sum() / real.square().sum())
        times = np.interp(np.linspace(1.0, STEPS, n), np.arange(STEPS + 1), chain.times)
        left = waves(chain.sde, theta, times.tolist())["information"].to_numpy()
        share = np.diff(left) / (left[-1] - left[0])
        found[f"uneven/{n}"] = float((share**2).sum() * len(share))
    return found


def measured(task: Task, name: str, theta: Angles, seed: int) -> dict[str, list[float]]:
    """Train and sample: the Gabor-Frechet distance with its interval and floor, by number of evaluations."""
    chain = FORWARD[name].chain(theta)
    assert isinstance(chain.sde, KuramotoSDE)
    seed_torch(seed, "weights")
    answer = ScoreUNet((SIZE, SIZE), chain.sde.schedule.diffusion, head="scalar", padding="zeros", **PRESETS["tiny"])
    network = LinearResidual(answer, chain.sde, STEPS)
    settings = Settings(
        5, task.updates // 5, 64, learning_rate=2e-3, warmup=50, averaging=0.99, pool=32, stride=10, seed=seed
    )
    run = task.runs / f"{name}-{seed}".replace(", ", "-").replace(" ", "-").replace("/", "-")
    data = task.phases("train"), task.phases("test")
    trained = train(network, chain, Objective.PATHWISE, *data, run, settings, accelerator="cpu")
    law = start_law(run, trained.chain, data[0], simulated=1000)
    real = task.images("test").windows(2 * task.samples, seed=1)
    familiar = task.images("train").windows(2 * task.samples, seed=2)
    found = {}
    for n in EVALUATIONS:
        recipe = Recipe("multistep", n, denoise=False)
        drawn = generate(trained.chain, trained.network, law, task.samples, recipe, seed=seed, batch_size=64)
        pictures = ENCODING.decode(torch.from_numpy(drawn["theta"].to_numpy()))
        judged = compare(real, pictures, train=familiar, resamples=100, generator=torch_stream(0, "resampling"))
        found[str(n)] = distances(judged)["gabor_frechet"]
    return found


def correlation(record: Record, prediction: str, n: int) -> tuple[float, float, int]:
    """Spearman's correlation of a prediction with the distance, mean over seeds; its p value; how many processes."""
    names = [name for name in record["predicted"] if name in record["measured"]]
    before = [record["predicted"][name][f"{prediction}/{n}"] for name in names]
    after = [float(np.mean([found[str(n)][0] for found in record["measured"][name].values()])) for name in names]
    if len(names) < 3:
        return math.nan, math.nan, len(names)
    first, second = rankdata(before), rankdata(after)

    def rho(x: NDArray[np.float64]) -> float:
        return float(np.corrcoef(x, second)[0, 1])

    tested = permutation_test(
        (first,),
        rho,
        permutation_type="pairings",
        vectorized=False,
        alternative="greater",
        n_resamples=9999,
        rng=np.random.default_rng(0),
    )
    return rho(first), float(tested.pvalue), len(names)


def summary(record: Record) -> Iterator[Row]:
    """Rank correlations of the predictions with what was measured."""
    for prediction in PREDICTIONS:
        for n in EVALUATIONS:
            rho, p, count = correlation(record, prediction, n)
            question = f"{count} forward processes, {n} evaluations: rank correlation"
            yield Row(question, f"predicted: {prediction}, p = {p:.3f}", rho, rho, rho)


def show(record: Record) -> None:
    """A row per forward process: what was predicted, and the distance over seeds."""
    table = Table(title="Gabor-Frechet distance, mean over seeds (smallest to largest)")
    columns = [f"{prediction}, {n}" for n in EVALUATIONS for prediction in (*PREDICTIONS, "measured")]
    for column in ("forward process", *columns):
        table.add_column(column, no_wrap=True)
    for name, before in record["predicted"].items():
        cells = []
        for n in EVALUATIONS:
            cells += [f"{before[f'{prediction}/{n}']:.4f}" for prediction in PREDICTIONS]
            after = [found[str(n)][0] for found in record["measured"].get(name, {}).values()]
            cells.append(f"{np.mean(after):.2f} ({min(after):.2f} to {max(after):.2f})" if after else "")
        table.add_row(name, *cells)
    Console(width=150).print(table)
    for prediction in PREDICTIONS:
        for n in EVALUATIONS:
            rho, p, count = correlation(record, prediction, n)
            print(f"{prediction}, {n} evaluations: rank correlation {rho:.2f}, p = {p:.3f}, {count} forward processes")


def main() -> None:
    """Predict all, then measure one after another."""
    parser = options(__doc__, "two forward processes, ten updates, generated fingerprints")
    parser.add_argument("--data", type=Path, help="the folder of socofing/")
    parser.add_argument("--runs", type=Path, default=Path("out/schedules"), help="where trainings are kept")
    parser.add_argument("--updates", type=int, default=1000, help="of 64 windows each")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--forward", nargs="+", choices=FORWARD, default=list(FORWARD), help="by default all")
    parser.add_argument("--table", type=Path, help="show the results of this file")
    given = parser.parse_args()
    if given.table is not None:
        show(json.loads(given.table.read_text()))
        return
    if not given.quick and given.data is None:
        parser.error("give --data, the folder of socofing/, or --quick")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if given.quick:
            task, names = Task("fingerprint", Path(scratch), 10, 16, (0,)), ["attraction", "local 4"]
        else:
            source = f"socofing:{given.data}/socofing"
            task, names = Task(source, given.runs, given.updates, given.samples, tuple(given.seeds)), given.forward
        kept: dict[str, Any] = {"updates": task.updates, "samples": task.samples, "predicted": {}, "measured": {}}
        if given.out is not None and given.out.exists():
            kept |= {key: value for key, value in json.loads(given.out.read_text()).items() if key in kept}
        theta = task.phases("train")(WINDOWS, torch_stream(0, "linear part"))
        for name in names:
            if name not in kept["predicted"]:
                kept["predicted"][name] = predicted(FORWARD[name], theta, 2 * task.samples)
        keep(given.out, **kept)
        for seed, name in ((seed, name) for seed in task.seeds for name in names):
            cell = kept["measured"].setdefault(name, {})
            if str(seed) not in cell:
                cell[str(seed)] = measured(task, name, theta, seed)
                keep(given.out, **kept)
            print(f"{name}, seed {seed}: {cell[str(seed)][str(EVALUATIONS[0])][0]:.2f}", flush=True)
        show(kept)


if __name__ == "__main__":
    main()

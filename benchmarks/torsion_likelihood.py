"""Which density model gives held-out protein torsion angles the highest likelihood, at the same training time?

    python benchmarks/torsion_likelihood.py --quick                         # seconds; a generated table if need be
    python benchmarks/torsion_likelihood.py --data FOLDER --seconds 240 --out benchmarks/results/torsion_likelihood.json

Tables, splits and units are those of ``circsde.data.torsion``. FOLDER holds ``cys.csv``, ...; without it they are
fetched. Every model gets the same CPU seconds on one thread, and chooses what it keeps on the validation rows. Compared
are negative log-likelihoods of the test rows in nats, mean and standard error: by the exact divergence along a
probability flow for the diffusions and for flow matching, in closed form for the others. A cell (set, model, seed) that
``--out`` holds already is not repeated, so a run that was stopped goes on.

* Of this package: wrapped diffusion; attraction to the mean directions ("reference"), and global coupling too, each by
  pathwise and by one-step matching. One network and one chain for all.
* ``ncsf``: neural circular spline flow (zuko), autoregressive. ``mixture``: products of von Mises laws by expectation
  maximisation, the number of components chosen on validation. ``flow-matching``: geodesics from uniform noise to data,
  by the network of the diffusions.
"""

import argparse
import json
import math
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
import zuko
from torch import Tensor, nn

from circsde.coupling import NoCoupling
from circsde.data.torsion import TABLES, torsion
from circsde.distributions import VonMises
from circsde.kuramoto import KuramotoSDE
from circsde.matching import Chain
from circsde.models.mlp import ScoreMLP
from circsde.models.presets import Process, forward_process, objective, settled
from circsde.models.relative import Relative
from circsde.models.training import Settings, train
from circsde.models.transitions import Objective
from circsde.record import replacing
from circsde.schedule import Linear, Schedule
from circsde.solvers.likelihood import log_prob
from circsde.special import concentration_from_length
from circsde.torus import TWO_PI, difference, mean_direction, wrap

SETS = ("cys", "his", "lys", "trp", "cispro")
SMALLEST_NOISE, STEPS = 0.1, 100
COMPONENTS = (10, 20, 40, 80, 160, 320, 640)


@dataclass(frozen=True)
class Task:
    """Rows of one table, relative to their mean directions, and what a model may use."""

    training: Tensor
    validation: Tensor
    test: Tensor
    seconds: float
    seed: int

    @property
    def angles(self) -> int:
        """Per row."""
        return self.training.shape[1]

    def batches(self, size: int = 256) -> Iterator[tuple[Tensor, float]]:
        """Random rows and the part of the time that is used, until it is."""
        generator, begin = torch.Generator().manual_seed(self.seed), time.process_time()
        while (used := (time.process_time() - begin) / self.seconds) < 1.0:
            yield self.training[torch.randint(len(self.training), (size,), generator=generator)], used


Answer = tuple[Callable[[Tensor], Tensor], dict[str, float]]
"""The log-density, and notes."""


def network(task: Task, diffusion: Linear, smallest_noise: float) -> ScoreMLP:
    """The one network of all models that have one of ours."""
    torch.manual_seed(task.seed)
    return ScoreMLP((task.angles,), diffusion, width=192, depth=3, smallest_noise=smallest_noise)


def diffusion(task: Task, process: Process, aim: Objective) -> Answer:
    """This package, with as many updates as the time allows, by a trial of a few."""
    sde = forward_process(process, (task.angles,))
    rate = sde.schedule.diffusion
    assert isinstance(rate, Linear)
    chain = Chain.geometric(sde, STEPS, SMALLEST_NOISE, linear_from=2.0)

    def run(epochs: int, updates: int) -> tuple[nn.Module, float]:
        plain = network(task, rate, SMALLEST_NOISE)
        score = plain if process is Process.DIFFUSION else Relative(plain, sde)
        decay = 1.0 - 1.0 / max(20.0, 0.05 * epochs * updates)
        options = Settings(epochs, updates, 256, warmup=min(300, updates), averaging=decay, seed=task.seed)
        begin = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            model = train(score, chain, aim, task.training, task.validation, Path(folder), options, accelerator="cpu")
        return model.network, time.process_time() - begin

    trial, epochs = max(10, round(0.5 * task.seconds)), 20
    once, twice, again = run(1, trial)[1], run(1, 2 * trial)[1], run(2, trial)[1]
    update, ending = max(1e-4, (twice - once) / trial), max(0.0, again - twice)  # what each costs, and each epoch more
    begin = max(0.0, once - trial * update - ending)
    updates = max(1, round(((task.seconds - begin) / epochs - ending) / update))
    model, seconds = run(epochs, updates)

    def log_density(theta: Tensor) -> Tensor:
        return log_prob(sde, model, theta, prior=settled(sde), atol=1e-5, batch_size=4096).value

    return log_density, {"seconds": seconds, "updates": epochs * updates}


def fit(module: nn.Module, task: Task, loss: Callable[[Tensor], Tensor], rate: float) -> dict[str, float]:
    """Adam with a cosine over the time; keeps the average of the weights that validates best, of 20."""
    optimiser = torch.optim.Adam(module.parameters(), rate)
    average = torch.optim.swa_utils.AveragedModel(
        module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    best, kept, updates, checks = math.inf, module.state_dict(), 0, 0
    begin = time.process_time()
    for rows, used in task.batches():
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (updates + 1) / 100) * 0.5 * (1 + math.cos(math.pi * used))
        value = loss(rows)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        average.update_parameters(module)
        updates += 1
        if used * 20 >= checks + 1:
            checks += 1
            current = {name: tensor.clone() for name, tensor in module.state_dict().items()}
            module.load_state_dict(average.module.state_dict())
            with torch.no_grad(), torch.random.fork_rng():
                torch.manual_seed(0)
                held_out = float(loss(task.validation))
            if held_out < best:
                best, kept = held_out, {name: tensor.clone() for name, tensor in module.state_dict().items()}
            module.load_state_dict(current)
    module.load_state_dict(kept)
    return {"seconds": time.process_time() - begin, "updates": updates}


def ncsf(task: Task) -> Answer:
    """Rezende et al. 2020, arXiv 2002.02428."""
    torch.manual_seed(task.seed)
    flow = zuko.flows.NCSF(task.angles, transforms=3, bins=16, hidden_features=(128, 128), randperm=True)
    notes = fit(flow, task, lambda rows: -flow().log_prob(rows).mean(), 2e-3)
    return torch.no_grad()(lambda theta: flow().log_prob(theta)), notes


def flow_matching(task: Task) -> Answer:
    """Chen & Lipman 2024, arXiv 2302.03660, whose premetric on the flat torus is the geodesic distance."""
    clock = Linear(10.0, 10.0)  # only tells the network the time
    field = network(task, clock, 1.0)

    def loss(rows: Tensor) -> Tensor:
        noise, t = TWO_PI * torch.rand_like(rows) - math.pi, torch.rand(len(rows))
        path = difference(rows, noise)
        velocity = field(t.double(), wrap(noise + t[:, None] * path))
        return (velocity - path).square().mean()

    notes = fit(field, task, loss, 1e-3)
    still = KuramotoSDE((task.angles,), NoCoupling(), Schedule.constant(diffusion=1.0))  # the flow is minus the score

    def log_density(theta: Tensor) -> Tensor:
        uniform = VonMises(0.0, 0.0)
        return log_prob(still, lambda t, x: field(1.0 - t, x), theta, prior=uniform, atol=1e-5, batch_size=4096).value

    return log_density, notes


def mixture(task: Task) -> Answer:
    """Expectation maximisation for each number of components, until validation or the time says stop."""
    best: tuple[float, tuple[Tensor, Tensor, Tensor], int] | None = None
    begin = time.process_time()
    generator = torch.Generator().manual_seed(task.seed)
    rows = task.training.double()
    waves = torch.cat((rows.cos(), rows.sin()), 1)
    for count in COMPONENTS:
        means = rows[torch.randperm(len(rows), generator=generator)[:count]]
        parameters = torch.full((len(means),), -math.log(len(means))).double(), means, torch.full_like(means, 5.0)
        last = math.inf
        while time.process_time() - begin < task.seconds:
            for _ in range(10):
                shares = _components(parameters, rows).softmax(1)
                mass = shares.sum(0) + 1e-9
                cos, sin = ((shares.T @ waves) / mass[:, None]).chunk(2, 1)
                length = torch.hypot(cos, sin) * (mass / (mass + 1.0))[:, None]  # one row at random, against collapse
                kappa = concentration_from_length(length.clamp(max=1 - 1e-6))
                parameters = (mass / mass.sum()).log(), torch.atan2(sin, cos), kappa
            held_out = -float(_components(parameters, task.validation.double()).logsumexp(1).mean())
            if best is None or held_out < best[0]:
                best = held_out, parameters, count
            if held_out > last - 1e-4:
                break
            last = held_out
    assert best is not None
    _, chosen, count = best
    notes = {"seconds": time.process_time() - begin, "components": float(count)}
    return lambda theta: _components(chosen, theta.double()).logsumexp(1), notes


def _components(parameters: tuple[Tensor, Tensor, Tensor], theta: Tensor) -> Tensor:
    """Log-weight plus log-density of each component, ``(rows, components)``."""
    weight, mean, kappa = parameters
    along = torch.cat((kappa * mean.cos(), kappa * mean.sin()), 1)
    log_norm = (torch.special.i0e(kappa).log() + kappa + math.log(TWO_PI)).sum(1)
    return torch.cat((theta.cos(), theta.sin()), 1) @ along.T - log_norm + weight


MODELS: dict[str, Callable[[Task], Answer]] = {
    "diffusion": lambda task: diffusion(task, Process.DIFFUSION, objective(Process.DIFFUSION)),
    "reference, pathwise": lambda task: diffusion(task, Process.REFERENCE, Objective.PATHWISE),
    "reference, one-step": lambda task: diffusion(task, Process.REFERENCE, Objective.ONE_STEP),
    "global, pathwise": lambda task: diffusion(task, Process.GLOBAL, Objective.PATHWISE),
    "global, one-step": lambda task: diffusion(task, Process.GLOBAL, Objective.ONE_STEP),
    "ncsf": ncsf,
    "mixture": mixture,
    "flow-matching": flow_matching,
}


def task_of(name: str, folder: Path | None, seconds: float, seed: int, rows: int | None) -> Task:
    """The three parts of a table."""
    if name == "generated":
        generator = torch.Generator().manual_seed(0)
        centres = TWO_PI * torch.rand(4, 3, generator=generator) - math.pi
        drawn = centres[torch.randint(4, (1500,), generator=generator)] + 0.2 * torch.randn(
            1500, 3, generator=generator
        )
        parts = list(wrap(drawn).split([1000, 250, 250]))
    else:
        path = None if folder is None else folder / f"{name}.csv"
        parts = [torsion(name, part, path).theta for part in ("train", "validation", "test")]
    centre = mean_direction(parts[0].double(), 0).float()
    training, validation, test = (difference(part, centre) for part in parts)
    return Task(training, validation, test[:rows], seconds, seed)


def main() -> None:
    """Fill the table, cell by cell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small table, two seconds a cell, few test rows")
    parser.add_argument("--data", type=Path, help="the folder of the tables")
    parser.add_argument("--sets", default=",".join(SETS), help=f"of {', '.join(TABLES)}")
    parser.add_argument("--models", default=";".join(MODELS), help=f"separated by semicolons: {'; '.join(MODELS)}")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ...")
    parser.add_argument("--seconds", type=float, default=240.0, help="CPU seconds of training")
    parser.add_argument("--out", type=Path, help="keep and reuse finished cells in this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seconds, rows = (2.0, 100) if arguments.quick else (arguments.seconds, None)
    sets = arguments.sets.split(",") if not arguments.quick else ["cispro" if arguments.data else "generated"]
    table: dict[str, dict[str, float]] = {}
    if arguments.out is not None and arguments.out.exists():
        table = json.loads(arguments.out.read_text())["cells"]
    print(f"{platform.platform()}, one thread, {seconds:g} CPU seconds of training; test NLL in nats +- standard error")
    for name in sets:
        for seed in range(arguments.seeds):
            for model in arguments.models.split(";"):
                key = f"{name}/{model}/{seed}/{seconds:g}s"
                if key not in table:
                    table[key] = cell(task_of(name, arguments.data, seconds, seed, rows), MODELS[model])
                    if arguments.out is not None:
                        _keep(arguments.out, table)
                print(f"{key:44}" + "".join(f"  {what} {value:.4g}" for what, value in table[key].items()), flush=True)


def cell(task: Task, model: Callable[[Task], Answer]) -> dict[str, float]:
    """Train, then score the test rows."""
    log_density, notes = model(task)
    begin = time.process_time()
    values = -log_density(task.test)
    assert bool(values.isfinite().all()), f"{int((~values.isfinite()).sum())} test rows have no likelihood"
    scores = {"nll": float(values.mean()), "stderr": float(values.std() / len(values) ** 0.5), "rows": len(values)}
    return {**scores, **notes, "seconds_to_score": time.process_time() - begin}


def _keep(path: Path, table: dict[str, dict[str, float]]) -> None:
    versions = {name: version(name) for name in ("circsde", "torch", "zuko", "lightning")}
    result = {"machine": platform.platform(), "versions": versions, "cells": table}
    with replacing(path, force=True) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

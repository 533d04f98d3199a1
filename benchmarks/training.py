"""What do training pairs cost, beside an update of the network and against the published loop?

    python benchmarks/training.py --quick                                   # seconds: few rounds, pools and draws
    python benchmarks/training.py --out benchmarks/results/training.json

Images of 32 x 32 phases, batches of 64, the published schedule, one thread, CPU time; medians and quartiles of rounds
in which all contenders take turns.

* Cost: the time to draw a batch (simulation and target), as a part of a whole update (draw, loss, gradient, AdamW) of
  the network ``tiny``. Global coupling and a window of radius 5; one-step and pathwise matching; a path advances 1, 5
  or 10 steps between its uses; the published chain and the one of second order.
* Published loop: for every batch, all images are simulated from t = 0 to a step drawn from all T, and 5 next states of
  each give an update. Updates per second of its transcription, with our network, loss and optimiser, against those of
  a pool with as many pairs per update (64 x 5), for T = 100 and 1000.
* Correlation: pairs of a pool are not independent, as a path is used 100 / stride times. The variance of means of the
  loss and of the regression of the target over 512 draws of 16 pairs, against that of pairs whose paths are all drawn
  anew; pathwise matching. A ratio of 2 means that half as many independent pairs would be as good. With n pools, a
  variance is known to a part of sqrt(2 / n).
"""

import json
import statistics
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from report import Record, Row, options
from torch import Tensor, nn

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.matching.chain import (
    Chain,
    Pairs,
    Paths,
    loss,
    one_step,
    pathwise,
    start,
    step_forward,
    step_with_adjoint,
    unlabelled,
)
from circsde.models.transitions import Objective, TensorSampler, Transitions
from circsde.models.unet import PRESETS, ScoreUNet
from circsde.models.variance_preserving import EpsilonUNet, NoisedData, VariancePreserving
from circsde.record import provenance, replacing
from circsde.schedule import Schedule
from circsde.torus import wrap

SHAPE, BATCH, STATES, STEPS = (1, 32, 32), 64, 5, 100
COUPLINGS: dict[str, Coupling] = {"global": GlobalCoupling(), "local": LocalCoupling(5)}
OBJECTIVES = (Objective.ONE_STEP, Objective.PATHWISE)
NETWORK: dict[str, Any] = {"head": "scalar", "padding": "zeros", **PRESETS["tiny"]}
Table = dict[str, dict[str, list[float]]]


def waves(count: int, seed: int, side: int = 32) -> Tensor:
    """Images of ridges in random directions, black and white opposite."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.arange(side, dtype=torch.float32)
    angle, offset, pitch = torch.rand(3, count, 1, 1, generator=generator)
    along = place[:, None] * (6.3 * angle).cos() + place * (6.3 * angle).sin()
    return 1.5 * torch.tanh(3.0 * (along * 6.3 / (5.0 + 6.0 * pitch) + 6.3 * offset).sin())[:, None]


def equation(coupling: Coupling, steps: int, shape: tuple[int, ...] = SHAPE) -> KuramotoSDE:
    """The published one, whose reference is half as strong again as global coupling, as strong as local coupling."""
    weight = 1.5 if isinstance(coupling, GlobalCoupling) else 1.0
    return KuramotoSDE(shape, coupling, Schedule.published(steps, weight))


def chain_of(sde: KuramotoSDE, steps: int, *, published: bool, shape: tuple[int, ...] = SHAPE) -> Chain:
    """A chain of the equation, its discounts calibrated on few images."""
    generator = torch.Generator().manual_seed(0)
    return Chain.uniform(sde, steps, published=published).calibrated(waves(16, 1, shape[-1]), generator)


def updater(network: nn.Module, draw: Callable[[], Pairs]) -> Callable[[], tuple[float, float]]:
    """One update, which answers how long it took to draw the pairs, and in all; CPU seconds."""
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4)

    def update() -> tuple[float, float]:
        begin = time.process_time()
        pairs = draw()
        drawn = time.process_time()
        optimiser.zero_grad()
        torch.autograd.backward(loss(network, pairs).mean())
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        end = time.process_time()
        return drawn - begin, end - begin

    return update


def published_loop(coupling: Coupling, steps: int, data: Tensor, batch: int) -> Callable[[], Pairs]:
    """The published loop, written out: from t = 0 to a random step for every batch, then 5 next states of each."""
    weight = 1.5 if isinstance(coupling, GlobalCoupling) else 1.0
    K: list[float] = torch.linspace(3e-5, 0.03, steps).tolist()
    sigma: list[float] = torch.linspace(1e-4, 0.1, steps).sqrt().tolist()
    generator, golden = torch.Generator().manual_seed(0), count(0.5, 0.618034)

    def drift(theta: Tensor, n: int) -> Tensor:
        cos, sin = theta.cos(), theta.sin()
        return K[n] * (coupling.mean(sin) * cos - coupling.mean(cos) * sin) - weight * K[n] * sin

    def draw() -> Pairs:
        theta = data[torch.randint(len(data), (batch,), generator=generator)]
        n = int(steps * (next(golden) % 1.0))  # evenly over all steps, in place of at random: few rounds suffice
        for i in range(n):
            noise = torch.randn(theta.shape, generator=generator)
            theta = wrap(theta + drift(theta, i) + sigma[i] * noise)
        noise = torch.randn(STATES, *theta.shape, generator=generator)
        after = wrap(theta + drift(theta, n) + sigma[n] * noise).flatten(0, 1)
        t, variance = (torch.full((batch * STATES,), x, dtype=torch.float64) for x in ((n + 1) / steps, sigma[n] ** 2))
        return Pairs(t, after, (-noise / sigma[n]).flatten(0, 1), variance, unlabelled(after))

    return draw


def cost(rounds: int, data: Tensor, batch: int, strides: tuple[int, ...]) -> Table:
    """Quartiles of the part of an update that draws its pairs, and of the seconds of an update."""
    contenders = {}
    for name, coupling in COUPLINGS.items():
        for published in (True, False):
            sde = equation(coupling, STEPS)
            chain = chain_of(sde, STEPS, published=published)
            network = ScoreUNet(SHAPE, sde.schedule.diffusion, **NETWORK)
            for objective in OBJECTIVES:
                for stride in strides:
                    generator = torch.Generator().manual_seed(0)
                    source = Transitions(chain, objective, TensorSampler(data), batch, generator, pool=1, stride=stride)
                    kind = "published chain" if published else "second order"
                    contenders[f"{name}, {objective}, {kind}, stride {stride}"] = updater(network, source.draw)
    process = VariancePreserving(SHAPE)
    noised = NoisedData(process, TensorSampler(data), batch, torch.Generator().manual_seed(0))
    contenders["variance preserving"] = updater(EpsilonUNet(process, padding="zeros", **PRESETS["tiny"]), noised.draw)
    return turns(contenders, rounds)


def against_the_published_loop(rounds: int, data: Tensor, batch: int, lengths: tuple[int, ...]) -> Table:
    """Compare the published loop with pools; each update has 5 pairs of every path of a batch."""
    contenders = {}
    for name, coupling in COUPLINGS.items():
        for steps in lengths:
            sde = equation(coupling, steps)
            chain = Chain.uniform(sde, steps, published=True)
            network = ScoreUNet(SHAPE, sde.schedule.diffusion, **NETWORK)
            generator, count = torch.Generator().manual_seed(0), batch * STATES
            source = Transitions(
                chain, Objective.ONE_STEP, TensorSampler(data), count, generator, pool=1, states=STATES
            )
            contenders[f"{name}, T = {steps}, pool"] = updater(network, source.draw)
            contenders[f"{name}, T = {steps}, published loop"] = updater(
                network, published_loop(coupling, steps, data, batch)
            )
    return turns(contenders, rounds)


def summary(record: Record) -> list[Row]:
    """Updates per second over those of the published loop, in the mean, with what the quartiles of both allow."""
    loop, found = record["published loop"], []
    for name, ratio in record["ratio"].items():
        ours, theirs = (loop[f"{name}, {kind}"]["seconds"] for kind in ("pool", "published loop"))
        low, high = sorted((theirs[0] / ours[2], theirs[2] / ours[0]))
        found.append(Row(f"updates per second, {name}", "published loop", ratio, low, high))
    return found


def turns(contenders: dict[str, Callable[[], tuple[float, float]]], rounds: int) -> Table:
    """All contenders once per round; the first round, which warms up, is not counted."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for counted in range(rounds + 1):
        for name, update in contenders.items():
            times = update()
            if counted:
                taken[name].append(times)
    result = {}
    for name, measured in taken.items():
        parts, seconds = [draw / whole for draw, whole in measured], [whole for _, whole in measured]
        result[name] = {"part": quartiles(parts), "seconds": quartiles(seconds), "mean": [statistics.fmean(seconds)]}
        print(
            f"{name:52} update {1e3 * result[name]['seconds'][1]:7.1f} ms, pairs {100 * result[name]['part'][1]:5.1f} %"
        )
    return result


def correlation(pools: int, draws: int, uses: tuple[tuple[int, int], ...], side: int = 12) -> dict[str, float]:
    """How many times the variance of independent pairs a pool has, in means over many draws; on smaller images."""
    result = {}
    data = TensorSampler(waves(4096, 2, side))
    for name, coupling in (("global", GlobalCoupling()), ("local", LocalCoupling(5))):
        shape = (1, side, side)
        chain = chain_of(equation(coupling, STEPS, shape), STEPS, published=True, shape=shape)
        objective = Objective.PATHWISE
        alone = torch.stack([moments(independent(chain, objective, data, 16 * STEPS, seed)) for seed in range(pools)])
        expected = alone.var(0) * (16 * STEPS) / (draws * 16)
        for pool, stride in uses:
            means = []
            for seed in range(pools):
                generator = torch.Generator().manual_seed(seed)
                source = Transitions(chain, objective, data, 16, generator, pool=pool, stride=stride)
                means.append(torch.stack([moments(source.draw()) for _ in range(draws)]).mean(0))
            key = f"{name}, {objective}, pool {pool}, stride {stride}"
            result[key] = (torch.stack(means).var(0) / expected).mean().item()
            print(f"{key}: variance {result[key]:.2f} x that of independent pairs", flush=True)
    return result


def independent(chain: Chain, objective: Objective, data: TensorSampler, count: int, seed: int) -> Pairs:
    """Pairs with paths of their own, evenly over the steps."""
    generator, steps = torch.Generator().manual_seed(seed), len(chain)
    paths = start(data(count, generator))
    step, first = (step_forward, 0) if objective is Objective.ONE_STEP else (step_with_adjoint, 1)
    wanted = torch.arange(count) * steps // count + first
    for n in range(int(wanted.max())):
        rows = (wanted > n).nonzero()[:, 0]
        moved = step(chain, Paths(*(x[rows] for x in paths)), generator)
        paths = Paths(*(old.index_copy(0, rows, new) for old, new in zip(paths, moved, strict=True)))
    return one_step(chain, paths, 1, generator) if first == 0 else pathwise(chain, paths)


def moments(pairs: Pairs) -> Tensor:
    """The loss of a zero score, and the regression of the target on the phase and on its neighbour."""
    theta, target, weight = pairs.theta, pairs.target, pairs.variance.float()
    neighbour = (theta.roll(1, -1) - theta).sin()
    terms = [target.square(), -theta.sin() * target, neighbour * target]
    return torch.stack([(weight * term.flatten(1).mean(1)).mean() for term in terms])


def quartiles(values: list[float]) -> list[float]:
    """The lower one, the median, the upper one."""
    return statistics.quantiles(values, n=4) if len(values) > 1 else values * 3


def main() -> None:
    """Measure, print, and keep what is measured so far."""
    parser = options(__doc__, "one round, few pools and draws, T = 100 only: shows that it runs")
    parser.add_argument("--rounds", type=int, default=7, help="timed updates of each contender")
    parser.add_argument("--pools", type=int, default=80, help="pools whose means are compared")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = waves(1000, 0)
    rounds, pools, batch, draws = arguments.rounds, arguments.pools, BATCH, 512
    lengths: tuple[int, ...] = (100, 1000)
    strides: tuple[int, ...] = (1, 5, 10)
    uses: tuple[tuple[int, int], ...] = ((8, 1), (32, 1), (32, 5), (32, 10))
    if arguments.quick:
        rounds, pools, batch, draws = 1, 2, 4, 4
        lengths, strides, uses = lengths[:1], strides[2:], uses[:1]
    result: dict[str, object] = dict(provenance(rounds=rounds, pools=pools, batch=batch, threads=1))

    def keep(name: str, value: object) -> None:
        result[name] = value
        if arguments.out is not None:
            with replacing(arguments.out, force=True) as temporary:
                temporary.write_text(json.dumps(result, indent=1) + "\n")

    keep("cost", cost(rounds, data, batch, strides))
    loop = against_the_published_loop(rounds, data, batch, lengths)
    keep("published loop", loop)
    ratios = {}
    for name in loop:
        if name.endswith(", pool"):
            mean = {kind: loop[name.replace("pool", kind)]["mean"][0] for kind in ("pool", "published loop")}
            ratios[name.removesuffix(", pool")] = mean["published loop"] / mean["pool"]
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f} times as many updates per second as the published loop", flush=True)
    keep("ratio", ratios)
    keep("correlation", correlation(pools, draws, uses))


if __name__ == "__main__":
    main()

"""How fast is an exact log-likelihood, against a direct torchdiffeq loop with a per-dimension autograd divergence?

    python benchmarks/likelihood_speed.py --quick                      # seconds: few rows of generated clusters
    python benchmarks/likelihood_speed.py --data lys.csv --out FILE    # the torsion table of lysine

A ScoreMLP is trained briefly by denoising on six angles under wrapped diffusion, on rows of the table or on generated
clusters; then all compute log p of test rows, float64, one thread. The direct loop is torchdiffeq's dopri5 on the pair
(angles, log p), ``rtol = atol``, one backward pass per angle in every evaluation:

* ``direct, published``: as FFJORD publishes its ``divergence_bf`` and others copy it, with ``create_graph=True``
  (Grathwohl et al. 2019, arXiv 1810.01367).
* ``direct, lean``: the same without that graph, which only training needs.

The one error norm of the loop for the whole batch lets the worst rows be wrong by far more than the tolerance. So two
ratios are given: at the same nominal tolerance, and at the same accuracy, each at its cheapest tolerance of a ladder
with which no row is off by more than a bound. Errors are against ``log_prob`` at a tolerance of 1e-8, which the loop
confirms. Contenders alternate, round after round; a ratio of CPU times is the median over rounds, with its range.
"""

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchdiffeq
from report import Record, Row, keep, machine, options
from torch import Tensor

from circsde.data.torsion import torsion
from circsde.matching.chain import denoising, loss
from circsde.models.mlp import ScoreMLP
from circsde.models.processes import Process, angle_process
from circsde.solvers.likelihood import log_prob
from circsde.torus import difference, mean_direction, wrap

D, SEED = 6, 0
SDE = angle_process(Process.DIFFUSION, (D,))
OURS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-6)
THEIRS = (1e-5, 3e-6, 1e-6, 3e-7, 1e-7)
BOUNDS = (1e-2, 1e-3)

Answer = tuple[Tensor, int]
"""Log-densities, and evaluations of the score."""


def rows(table: Path | None) -> tuple[Tensor, Tensor]:
    """Rows to train on and to test: of the table of lysine relative to its mean directions, or of six clusters."""
    if table is not None:
        training, test = (torsion("lys", part, table).theta for part in ("train", "test"))
        centre = mean_direction(training.double(), 0).float()
        return difference(training, centre), difference(test, centre)
    generator = torch.Generator().manual_seed(7)
    centres = 2 * math.pi * torch.rand(6, D, generator=generator)
    which = torch.randint(6, (6000,), generator=generator)
    drawn = wrap(centres[which] + 0.2 * torch.randn(6000, D, generator=generator))
    return drawn[:5000], drawn[5000:]


def train(data: Tensor, updates: int) -> ScoreMLP:
    """Fit a network by denoising, with noise levels that are even in their logarithm."""
    torch.manual_seed(SEED)
    model = ScoreMLP((D,), SDE.schedule.diffusion, width=128, depth=3, smallest_noise=0.1)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(updates):
        t = 10.0 ** (3.0 * torch.rand(256, dtype=torch.float64, generator=generator) - 3.0)
        start = data[torch.randint(len(data), (256,), generator=generator)]
        optimiser.zero_grad()
        torch.autograd.backward(loss(model, denoising(SDE, start, t, generator)).mean())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.double().eval().requires_grad_(False)


def direct(model: ScoreMLP, theta: Tensor, tolerance: float, create_graph: bool) -> Answer:
    """The log-likelihood as one writes it with torchdiffeq."""
    nfe = 0

    def velocity(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal nfe
        nfe += 1
        with torch.enable_grad():
            x = state[0].detach().requires_grad_()
            v = -SDE.schedule.diffusion(t) * model(t, x)
            divergence = torch.zeros(len(x), dtype=x.dtype)
            for i in range(D):
                (row,) = torch.autograd.grad(v[:, i].sum(), x, retain_graph=True, create_graph=create_graph)
                divergence = divergence + row[:, i]
        return v.detach(), divergence.detach()

    start, ends = (theta, theta.new_zeros(len(theta))), theta.new_tensor([0.0, 1.0])
    x, gained = torchdiffeq.odeint(velocity, start, ends, rtol=tolerance, atol=tolerance, method="dopri5")
    return SDE.settled_law().log_prob(x[-1]).sum(1) + gained[-1], nfe


def ours(model: ScoreMLP, theta: Tensor, tolerance: float) -> Answer:
    """The log-likelihood by circsde."""
    result = log_prob(SDE, model, theta, atol=tolerance)
    return result.value, int(result.nfe[0])


def summary(record: Record) -> list[Row]:
    """CPU time of the direct loop over that of circsde."""
    found = []
    for what, values in record["ratios"].items():
        peer, _, condition = what.partition(" (")[0].rpartition(", ")
        if "both" in condition or condition.endswith("0.001"):
            found.append(Row(f"exact likelihood, {condition}", f"torchdiffeq, {peer}", *values))
    return found


def main() -> None:
    """Train, time, print."""
    parser = options(__doc__, "few rows, updates and tolerances: shows that it runs")
    parser.add_argument("--data", type=Path, help="the CSV of the torsion table lys; by default clusters are generated")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    training, test = rows(arguments.data)
    points, rounds, updates = (4, 1, 20) if arguments.quick else (100, 3, 2000)
    mine, theirs = ((1e-3, 1e-6), (1e-5, 1e-6)) if arguments.quick else (OURS, THEIRS)
    model, theta = train(training, updates), test[:points].double()
    contenders: dict[str, tuple[Callable[[float], Answer], tuple[float, ...]]] = {
        "circsde": (lambda tolerance: ours(model, theta, tolerance), mine),
        "direct, lean": (lambda tolerance: direct(model, theta, tolerance, False), theirs),
        "direct, published": (lambda tolerance: direct(model, theta, tolerance, True), theirs),
    }
    reference = ours(model, theta, 1e-8)[0]
    confirmed = (direct(model, theta, 1e-8, False)[0] - reference).abs().max().item()
    print(
        f"{machine()}, float64, {points} rows, mean log p = {reference.mean():.3f}; direct at 1e-8: {confirmed:.1e}\n"
    )

    times: dict[tuple[str, float], list[float]] = {}
    found: dict[tuple[str, float], tuple[int, float, float]] = {}
    for _ in range(rounds):
        for name, (work, ladder) in contenders.items():
            for tolerance in ladder:
                begin = time.process_time()
                value, nfe = work(tolerance)
                times.setdefault((name, tolerance), []).append((time.process_time() - begin) * 1000 / points)
                error = (value - reference).abs()
                found[name, tolerance] = nfe, error.max().item(), error.square().mean().sqrt().item()
    print(f"{'':20}{'tolerance':>10}{'evaluations':>12}{'largest error':>15}{'rms error':>12}{'CPU s / 1000':>14}")
    for (name, at), (nfe, largest, rms) in found.items():
        seconds = statistics.median(times[name, at])
        print(f"{name:20}{at:10.0e}{nfe:12}{largest:15.1e}{rms:12.1e}{seconds:14.3f}")

    def ratio(name: str, their: float, my: float) -> tuple[float, float, float]:
        values = [a / b for a, b in zip(times[name, their], times["circsde", my], strict=True)]
        return statistics.median(values), min(values), max(values)

    def cheapest(name: str, bound: float) -> float | None:
        enough = [at for (who, at), (_, largest, _) in found.items() if who == name and largest <= bound]
        return min(enough, key=lambda tolerance: statistics.median(times[name, tolerance])) if enough else None

    ratios = {}
    for name in list(contenders)[1:]:
        for same in sorted(set(mine) & set(theirs)):
            ratios[f"{name}, both at tolerance 1e{round(math.log10(same))}"] = ratio(name, same, same)
        for bound in BOUNDS:
            my, their = cheapest("circsde", bound), cheapest(name, bound)
            if my is not None and their is not None:
                ratios[f"{name}, no error above {bound:g} ({their:g} against {my:g})"] = ratio(name, their, my)
    print()
    for what, (middle, low, high) in ratios.items():
        print(f"CPU time over that of circsde: {middle:.2f} ({low:.2f} to {high:.2f}): {what}")
    keep(
        arguments.out,
        "torchdiffeq",
        data="clusters" if arguments.data is None else "torsion:lys",
        points=points,
        rows=[[*key, *row] for key, row in found.items()],
        cpu_seconds={f"{name} {at:g}": seconds for (name, at), seconds in times.items()},
        ratios=ratios,
    )


if __name__ == "__main__":
    main()

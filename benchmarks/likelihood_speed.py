"""How fast is an exact log-likelihood, against a direct torchdiffeq loop with a per-dimension autograd divergence?

    python benchmarks/likelihood_speed.py --quick            # a minute or two
    python benchmarks/likelihood_speed.py --out benchmarks/results/likelihood_speed.json

A score network (three hidden layers of 128) is trained briefly on clusters of six angles under wrapped diffusion; then
both compute log p of fresh points from the same clusters, float64, one thread. The direct loop is what one writes with
torchdiffeq: dopri5 on the pair (angles, log p), ``rtol = atol``, one backward pass per angle in every evaluation. It
is timed lean (no graph beyond the one it needs) and as commonly copied, with ``create_graph=True``.

Its one error norm for the whole batch lets the worst points be wrong by far more than the tolerance. So two ratios are
given: at the same nominal tolerance, and at the same accuracy, each at its cheapest tolerance of the ladder with which
no point is off by more than a bound. Errors are against ``log_prob`` at a tolerance of 1e-10, which the direct loop at
1e-9 confirms. Contenders alternate, round after round; a ratio of CPU times is the median over rounds, with its range.
"""

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import torch
import torchdiffeq
from report import Record, Row
from torch import Tensor, nn

from circsde.distributions import VonMises, WrappedNormal
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.solvers.likelihood import log_prob
from circsde.torus import wrap

D, SEED = 6, 0
SCHEDULE = Schedule.linear((0.0, 0.0, 0.005), (0.0, 0.0, 5.0))
PRIOR = VonMises(0.0, 0.0)
LADDER = (1e-2, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7, 1e-7)
BOUNDS = (1e-2, 1e-3, 1e-4, 1e-5)


class Score(nn.Module):
    """Harmonics of the angles and waves of the logarithm of the noise level in, a tangent out."""

    frequencies: Tensor

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        sizes = (4 * D + 8, width, width, width)
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.SiLU()]
        self.net = nn.Sequential(*layers, nn.Linear(width, 2 * D))
        self.register_buffer("frequencies", torch.tensor([0.25, 0.5, 1.0, 2.0]))

    def forward(self, t: float | Tensor, theta: Tensor) -> Tensor:
        """The score, 1/rad."""
        t = torch.as_tensor(t, dtype=theta.dtype).reshape(-1, 1)
        noise = (0.1**2 + 2.0 * SCHEDULE.diffusion.integral(torch.zeros_like(t), t)).sqrt()
        phase = noise.log() * self.frequencies
        clock = torch.cat((phase.cos(), phase.sin()), 1).expand(len(theta), -1)
        harmonics = [f(m * theta) for m in (1, 2) for f in (torch.cos, torch.sin)]
        a, b = self.net(torch.cat((*harmonics, clock), 1)).chunk(2, 1)
        score: Tensor = (b * theta.cos() - a * theta.sin()) * (1.0 + 1.0 / noise.square()).sqrt()
        return score


def clusters(n: int, generator: torch.Generator) -> Tensor:
    """Draws from six clusters on the torus."""
    centres = torch.rand(6, D, generator=torch.Generator().manual_seed(7)) * 2 * math.pi
    which = torch.randint(6, (n,), generator=generator)
    return wrap(centres[which] + 0.2 * torch.randn(n, D, generator=generator))


def train(steps: int) -> Score:
    """A network fitted by denoising score matching with the exact kernel."""
    torch.manual_seed(SEED)
    model, generator = Score(), torch.Generator().manual_seed(SEED)
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        t = torch.rand(256, 1, generator=generator) ** 2
        law = WrappedNormal(
            clusters(256, generator), (2.0 * SCHEDULE.diffusion.integral(torch.zeros_like(t), t)).sqrt()
        )
        theta = law.sample(generator=generator)
        loss = (law.scale.square() * (model(t[:, 0], theta) - law.score(theta)).square()).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.double().requires_grad_(False)


def direct(model: Score, theta: Tensor, tolerance: float, create_graph: bool) -> tuple[Tensor, int]:
    """The log-likelihood as one writes it with torchdiffeq, and its evaluations."""
    nfe = 0

    def velocity(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal nfe
        nfe += 1
        with torch.enable_grad():
            x = state[0].detach().requires_grad_()
            v = -SCHEDULE.diffusion(t) * model(t, x)
            divergence = torch.zeros(len(x), dtype=x.dtype)
            for i in range(D):
                (row,) = torch.autograd.grad(v[:, i].sum(), x, retain_graph=True, create_graph=create_graph)
                divergence = divergence + row[:, i]
        return v.detach(), divergence.detach()

    start, ends = (theta, theta.new_zeros(len(theta))), theta.new_tensor([0.0, 1.0])
    x, gained = torchdiffeq.odeint(velocity, start, ends, rtol=tolerance, atol=tolerance, method="dopri5")
    return PRIOR.log_prob(x[-1]).sum(1) + gained[-1], nfe


def ours(model: Score, theta: Tensor, tolerance: float) -> tuple[Tensor, int]:
    """The same by circsde."""
    result = log_prob(KuramotoSDE((D,), schedule=SCHEDULE), model, theta, prior=PRIOR, atol=tolerance)
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer points, rounds and training steps")
    parser.add_argument("--out", type=Path, help="keep the numbers as JSON")
    arguments = parser.parse_args()
    points, rounds, steps = (250, 3, 600) if arguments.quick else (1000, 3, 3000)
    torch.set_num_threads(1)
    model = train(steps)
    theta = clusters(points, torch.Generator().manual_seed(1)).double()

    contenders: dict[str, Callable[[float], tuple[Tensor, int]]] = {
        "circsde": lambda tolerance: ours(model, theta, tolerance),
        "direct, lean": lambda tolerance: direct(model, theta, tolerance, False),
        "direct, create_graph": lambda tolerance: direct(model, theta, tolerance, True),
    }
    reference = ours(model, theta, 1e-10)[0]
    confirmed = (direct(model, theta, 1e-9, False)[0] - reference).abs().max().item()
    print(f"{platform.machine()}, {platform.processor() or platform.system()}, one thread, float64, seed {SEED}")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "torchdiffeq", "circsde")))
    print(f"{points} points, d = {D}, mean log p = {reference.mean():.3f}; against direct at 1e-9: {confirmed:.1e}\n")

    times: dict[tuple[str, float], list[float]] = {}
    rows: list[tuple[str, float, int, float, float]] = []
    print(
        f"{'':22}{'tolerance':>10}{'score evaluations':>19}{'largest error':>15}{'rms error':>12}{'CPU s / 1000':>14}"
    )
    for tolerance in LADDER:
        for _ in range(rounds):
            for name, work in contenders.items():
                begin = time.process_time()
                value, nfe = work(tolerance)
                times.setdefault((name, tolerance), []).append((time.process_time() - begin) * 1000 / points)
                error = (value - reference).abs()
                row = (name, tolerance, nfe, error.max().item(), error.square().mean().sqrt().item())
                rows = [r for r in rows if r[:2] != row[:2]] + [row]
        for name, at, nfe, largest, rms in rows[-3:]:
            seconds = statistics.median(times[name, at])
            print(f"{name:22}{at:10.0e}{nfe:19}{largest:15.1e}{rms:12.1e}{seconds:14.3f}")

    def ratio(name: str, theirs: float, mine: float) -> tuple[float, float, float]:
        values = [a / b for a, b in zip(times[name, theirs], times["circsde", mine], strict=True)]
        return statistics.median(values), min(values), max(values)

    def cheapest(name: str, bound: float) -> float | None:
        enough = [row[1] for row in rows if row[0] == name and row[3] <= bound]
        return min(enough, key=lambda tolerance: statistics.median(times[name, tolerance])) if enough else None

    ratios = {}
    print()
    for name in list(contenders)[1:]:
        ratios[f"{name}, both at tolerance 1e-6"] = ratio(name, 1e-6, 1e-6)
        for bound in BOUNDS:
            mine, theirs = cheapest("circsde", bound), cheapest(name, bound)
            if mine is not None and theirs is not None:
                ratios[f"{name}, no error above {bound:g} ({theirs:g} against {mine:g})"] = ratio(name, theirs, mine)
    for what, (middle, low, high) in ratios.items():
        print(f"CPU time over that of circsde: {middle:.2f} ({low:.2f} to {high:.2f}): {what}")
    if arguments.out:
        numbers = {"rows": rows, "cpu_seconds": {f"{n} {t:g}": s for (n, t), s in times.items()}, "ratios": ratios}
        machine = {
            "machine": f"{platform.machine()}, one thread, {torch.backends.cpu.get_cpu_capability()}",
            "torch": torch.__version__,
            "torchdiffeq": version("torchdiffeq"),
        }
        arguments.out.write_text(json.dumps({**machine, "points": points, "seed": SEED, **numbers}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Other densities of angles: spline flows, mixtures, flow matching."""

import math

import torch
from torch import Tensor, nn

from circsde.coupling import NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises
from circsde.laws.special import concentration_from_length
from circsde.models.transitions import TensorSampler
from circsde.schedule import Linear, Schedule
from circsde.solvers.likelihood import LogProb, log_prob
from circsde.torus import TWO_PI, difference, wrap
from torsion.fitting import Answer, Task, accurate, fit
from torsion.ours import HELD_OUT, RATE, network

COMPONENTS = (10, 20, 40, 80, 160, 320, 640)


def ncsf(
    task: Task, batch: int = 256, width: int = 128, transforms: int = 3, bins: int = 16, decay: float = 0.01
) -> Answer:
    """Fit a neural circular spline flow (Rezende et al. 2020, arXiv 2002.02428)."""
    import zuko

    begin = task.clock()
    torch.manual_seed(task.seed)
    flow = zuko.flows.NCSF(
        task.angles, transforms=transforms, bins=bins, hidden_features=(width, width), randperm=True
    ).to(task.device)
    rows, generator = TensorSampler(task.training), task.generator()

    def loss(theta: Tensor) -> Tensor:
        mean: Tensor = -flow().log_prob(theta).mean()
        return mean

    notes = fit(
        flow,
        task,
        lambda count: (rows(count, generator),),
        loss,
        lambda: loss(task.validation),
        begin=begin,
        rate=2e-3,
        batch=batch,
        decay=decay,
    )
    return torch.no_grad()(lambda theta: flow().log_prob(theta)), notes


def flow_matching(task: Task) -> Answer:
    """Flow matching (Chen & Lipman 2024, arXiv 2302.03660), whose premetric on the torus is the geodesic distance."""
    begin = task.clock()
    clock = Linear(10.0, 10.0)  # only tells the network the time
    field = network(task, clock, 1.0)
    generator, fixed = task.generator(), torch.Generator(task.device).manual_seed(1)

    def triples(data: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        end = TensorSampler(data)(count, generator)
        noise = TWO_PI * torch.rand(end.shape, device=task.device, generator=generator) - math.pi
        t = torch.rand(count, dtype=torch.float64, device=task.device, generator=generator)
        return t, noise, difference(end, noise)

    def loss(t: Tensor, noise: Tensor, path: Tensor) -> Tensor:
        miss: Tensor = field(t, wrap(noise + t[:, None].to(path) * path)) - path
        return miss.square().mean()

    checked = triples(task.validation, HELD_OUT[task.device.type], fixed)
    notes = fit(
        field,
        task,
        lambda count: triples(task.training, count, generator),
        loss,
        lambda: loss(*checked),
        begin=begin,
        rate=RATE,
        batch=task.design.batch,
    )
    still = KuramotoSDE((task.angles,), NoCoupling(), Schedule.constant(diffusion=1.0))  # the flow is minus the score

    def solve(field: nn.Module, rows: Tensor, atol: float) -> LogProb:
        uniform = VonMises(0.0, 0.0)
        return log_prob(still, lambda t, x: field(1.0 - t, x), rows, prior=uniform, atol=atol, batch_size=4096)

    return accurate(solve, field, task.design.atol), notes


def mixture(task: Task) -> Answer:
    """Expectation maximisation for each number of components, until validation or the time says stop."""
    best: tuple[float, tuple[Tensor, Tensor, Tensor], int] | None = None
    begin, generator = task.clock(), torch.Generator().manual_seed(task.seed)
    rows = task.training.double()
    waves = torch.cat((rows.cos(), rows.sin()), 1)
    for count in COMPONENTS:
        means = rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]
        weight = torch.full((len(means),), -math.log(len(means)), dtype=rows.dtype, device=rows.device)
        parameters, last = (weight, means, torch.full_like(means, 5.0)), math.inf
        while task.clock() - begin < task.seconds:
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
    notes = {"seconds": task.clock() - begin, "components": float(count)}
    return lambda theta: _components(chosen, theta.double()).logsumexp(1), notes


def _components(parameters: tuple[Tensor, Tensor, Tensor], theta: Tensor) -> Tensor:
    """Log-weight plus log-density of each component, ``(rows, components)``."""
    weight, mean, kappa = parameters
    along = torch.cat((kappa * mean.cos(), kappa * mean.sin()), 1)
    log_norm: Tensor = (torch.special.i0e(kappa).log() + kappa + math.log(TWO_PI)).sum(1)
    return torch.cat((theta.cos(), theta.sin()), 1) @ along.T - log_norm + weight

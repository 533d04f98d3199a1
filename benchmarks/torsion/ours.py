"""The diffusions of this package: one network and one chain for all."""

import torch
from torch import Tensor, nn

from circsde.matching.chain import Chain, Pairs, loss
from circsde.models.mlp import ScoreMLP
from circsde.models.processes import Process, angle_process
from circsde.models.settled_residual import SettledResidual
from circsde.models.transitions import Objective, TensorSampler, Transitions
from circsde.schedule import Linear
from circsde.solvers.likelihood import log_prob
from torsion.fitting import Answer, Task, fit

SMALLEST_NOISE, STEPS = 0.1, 100
WIDTH, BATCH, RATE = {"cpu": 128, "cuda": 256}, {"cpu": 256, "cuda": 4096}, 2e-3
"""Of the network of ours, wherever it is used; larger where they cost no time."""

HELD_OUT = {"cpu": 2**12, "cuda": 2**15}
"""Pairs of validation rows."""


def network(task: Task, diffusion: Linear, smallest_noise: float) -> ScoreMLP:
    """The one network of all models that have one of ours."""
    torch.manual_seed(task.seed)
    return ScoreMLP(
        (task.angles,), diffusion, width=WIDTH[task.device.type], depth=3, smallest_noise=smallest_noise
    ).to(task.device)


def diffusion(task: Task, process: Process, aim: Objective) -> Answer:
    """Wrapped diffusion, attraction to the mean directions, or global coupling too; in each case by one objective."""
    begin = task.clock()
    sde = angle_process(process, (task.angles,))
    rate = sde.schedule.diffusion
    assert isinstance(rate, Linear)
    sde = sde.to(task.device)
    plain = network(task, rate, SMALLEST_NOISE)
    score: nn.Module = plain if process is Process.DIFFUSION else SettledResidual(plain, sde)
    chain = Chain.geometric(sde, STEPS, SMALLEST_NOISE, linear_from=2.0)
    if aim is Objective.PATHWISE:
        chain = chain.calibrated(TensorSampler(task.training)(4096, task.generator()), task.generator())
    batch, block = BATCH[task.device.type], task.block
    source = Transitions(chain, aim, TensorSampler(task.training), batch * block, task.generator(), pool=1, stride=10)
    held_out = Transitions(
        chain,
        aim,
        TensorSampler(task.validation),
        HELD_OUT[task.device.type],
        torch.Generator(task.device).manual_seed(1),
    )
    checked = held_out.draw()

    def draw(count: int) -> tuple[Tensor, ...]:
        """Pairs whose times are spread evenly in every batch."""
        pairs = source.draw()
        noise = torch.rand(count, device=task.device, generator=source.generator)
        order = (pairs.t + 1e-9 * noise).argsort().reshape(batch, block).T.flatten()
        return tuple(part[order] for part in pairs)

    notes = fit(
        score,
        task,
        draw,
        lambda *part: loss(score, Pairs(*part)).mean(),
        lambda: loss(score, checked).mean(),
        begin=begin,
        rate=RATE,
        batch=batch,
    )

    def log_density(theta: Tensor) -> Tensor:
        return log_prob(sde, score, theta, atol=1e-5, batch_size=4096).value

    return log_density, notes

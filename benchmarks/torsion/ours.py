"""The diffusions of this package: one network and one chain for all."""

import torch
from torch import Tensor, nn

from circsde.matching.chain import Chain, Pairs, loss
from circsde.models.mlp import ScoreMLP
from circsde.models.processes import Process, angle_process
from circsde.models.settled_residual import SettledResidual
from circsde.models.transitions import Objective, TensorSampler, Transitions
from circsde.schedule import Linear
from circsde.solvers.likelihood import LogProb, log_prob
from torsion.fitting import Answer, Task, accurate, fit

STEPS, RATE = 100, 2e-3
"""The steps of the chain, and the learning rate of this package's network, wherever it is used."""

HELD_OUT = {"cpu": 2**12, "cuda": 2**15}
"""The number of pairs for validation."""


def network(task: Task, diffusion: Linear, smallest_noise: float) -> ScoreMLP:
    """This package's network, which all models that use one share."""
    torch.manual_seed(task.seed)
    size = task.design
    score = ScoreMLP((task.angles,), diffusion, width=size.width, depth=size.depth, smallest_noise=smallest_noise)
    return score.to(task.device)


def diffusion(task: Task, process: Process, aim: Objective) -> Answer:
    """Wrapped diffusion, attraction to the mean directions, or global coupling too; in each case by one objective."""
    begin = task.clock()
    sde = angle_process(process, (task.angles,))
    rate = sde.schedule.diffusion
    assert isinstance(rate, Linear)
    sde = sde.to(task.device)
    plain = network(task, rate, task.design.smallest_noise)
    score: nn.Module = plain if process is Process.DIFFUSION else SettledResidual(plain, sde)
    chain = Chain.geometric(sde, STEPS, task.design.smallest_noise, linear_from=2.0)
    if aim is Objective.PATHWISE:
        chain = chain.calibrated(TensorSampler(task.training)(4096, task.generator()), task.generator())
    batch, block = task.design.batch, task.block
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

    def solve(score: nn.Module, rows: Tensor, atol: float) -> LogProb:
        return log_prob(sde, score, rows, atol=atol, batch_size=4096)

    return accurate(solve, score, task.design.atol), notes

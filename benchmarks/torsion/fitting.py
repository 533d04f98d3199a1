"""Shared by all models of the torsion benchmark: the rows, a time, and one training loop."""

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from circsde.solvers.likelihood import LogProb

Batches = Callable[[int], tuple[Tensor, ...]]
"""Draws tensors of so many rows; what each tensor holds depends on the model."""

Density = Callable[[Tensor], Tensor | LogProb]
"""A log-density of rows."""

Answer = tuple[Density, dict[str, float]]
"""A log-density, and notes."""

BLOCK = {"cpu": 8, "cuda": 128}
"""Batches that are drawn at once: launching kernels costs more than running them."""

CHECKS = 20
"""How often a model looks at its validation rows."""

LARGEST_ERROR = 1e-3
"""The bound on the discretisation error of every row, nats."""


@dataclass(frozen=True)
class Design:
    """The network of a set of data, and how it is trained and evaluated: the same for all models that have one of ours.

    Attributes:
        width: Units per layer.
        depth: Residual blocks.
        smallest_noise: The smallest noise of diffusions, rad.
        batch: Pairs per update.
        atol: The tolerance of the flow.
    """

    width: int
    depth: int
    smallest_noise: float
    batch: int
    atol: float


@dataclass(frozen=True)
class Task:
    """Rows of one table, relative to their mean directions, and what a model may use.

    The time is CPU time on a CPU, and on an accelerator wall-clock time.
    """

    training: Tensor
    validation: Tensor
    test: Tensor
    seconds: float
    seed: int
    design: Design

    @property
    def angles(self) -> int:
        """The number of angles per row."""
        return self.training.shape[1]

    @property
    def device(self) -> torch.device:
        """The device of the rows."""
        return self.training.device

    def clock(self) -> float:
        """The time, s."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    @property
    def block(self) -> int:
        """Batches that are drawn at once."""
        return BLOCK[self.device.type]

    def generator(self) -> torch.Generator:
        """A generator with this task's seed."""
        return torch.Generator(self.device).manual_seed(self.seed)


def accurate(log_prob: Callable[[nn.Module, Tensor, float], LogProb], score: nn.Module, atol: float) -> Density:
    """Log-densities at a tolerance, and of rows whose error may be too large in float64 at a quarter of it, then less.

    Args:
        log_prob: Takes the score, rows and a tolerance.
        score: The score, in float32.
        atol: The tolerance.
    """
    double = deepcopy(score).double()

    def evaluate(theta: Tensor) -> LogProb:
        found = log_prob(score, theta, atol)
        for times in (1, 2, 3):
            rows = (found.error > LARGEST_ERROR).nonzero()[:, 0]
            if len(rows) == 0:
                break
            again = log_prob(double, theta[rows].double(), atol / 4**times)
            pairs = (found.value, again.value), (found.error, again.error)
            value, error = (old.index_copy(0, rows, new) for old, new in pairs)
            found = replace(found, value=value, error=error)
        return found

    return evaluate


def fit(
    module: nn.Module,
    task: Task,
    draw: Batches,
    loss: Callable[..., Tensor],
    held_out: Callable[[], Tensor],
    *,
    begin: float,
    rate: float,
    batch: int = 256,
    decay: float = 0.01,
) -> dict[str, float]:
    """Fit by AdamW, whose rate is half a cosine over the time, and keep the average of weights that validates best.

    On an accelerator one update is recorded as a graph and replayed, which saves most of its launch costs.

    Args:
        module: What is fitted.
        task: Its rows and time.
        draw: Makes batches for ``loss``.
        loss: The mean loss of a batch.
        held_out: The loss of the validation rows.
        begin: When the model's time began.
        rate: The largest learning rate, reached after 200 updates.
        batch: Rows per update.
        decay: The weight decay.
    """
    weights: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
    learning = torch.tensor(rate, device=task.device)
    graphed = task.device.type == "cuda"
    optimiser = torch.optim.AdamW(
        weights, learning, betas=(0.9, 0.99), weight_decay=decay, fused=True, capturable=graphed
    )

    def update(*rows: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss(*rows))
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()

    step = _recorded(update, weights, draw(batch * task.block), batch) if graphed else update
    average = [p.detach().clone() for p in weights]
    best, kept, updates, checks, used = math.inf, average, 0, 0, 0.0
    while used < 1.0:
        for rows in zip(*(torch.split(part, batch) for part in draw(batch * task.block)), strict=True):
            if updates % 10 == 0:
                learning.fill_(rate * min(1.0, (updates + 1) / 200) * 0.5 * (1 + math.cos(math.pi * used)))
                torch._foreach_lerp_(average, [p.detach() for p in weights], min(1.0, 10 / (1 + 0.05 * updates)))
            step(*rows)
            updates += 1
            if not graphed and (used := (task.clock() - begin) / task.seconds) >= 1.0:
                break
        used = min(1.0, (task.clock() - begin) / task.seconds)
        if used * CHECKS >= checks + 1:
            checks = int(used * CHECKS)
            value = _with(module, weights, average, held_out)
            if value < best:
                best, kept = value, [p.clone() for p in average]
    with torch.no_grad():
        torch._foreach_copy_(weights, kept)
    module.eval().requires_grad_(False)
    return {"seconds": task.clock() - begin, "updates": updates}


def _with(module: nn.Module, weights: list[Tensor], other: list[Tensor], ask: Callable[[], Tensor]) -> float:
    """The answer of the module with other weights."""
    current = [p.detach().clone() for p in weights]
    module.eval()
    with torch.no_grad():
        torch._foreach_copy_(weights, other)
        value = float(ask())
        torch._foreach_copy_(weights, current)
    module.train()
    return value


def _recorded(
    update: Callable[..., None], weights: list[Tensor], example: tuple[Tensor, ...], batch: int
) -> Callable[..., None]:
    """The update as a CUDA graph; the first three, which warm up, are undone."""
    before = [p.detach().clone() for p in weights]
    rows = [part[:batch].clone() for part in example]
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            update(*rows)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        update(*rows)
    with torch.no_grad():
        torch._foreach_copy_(weights, before)

    def replay(*new: Tensor) -> None:
        for mine, theirs in zip(rows, new, strict=True):
            mine.copy_(theirs)
        graph.replay()

    return replay

"""New samples by the reverse equation, for angles of any event shape.

A sample depends on the seed and its index only, not on the batch that it is drawn in (but for the rounding of the
network, and for a flow with adaptive steps, whose largest error in the batch rules). Memory is bounded by a batch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from circsde.contracts import Sampled
from circsde.matching.chain import Chain
from circsde.models.guidance import Conditioned
from circsde.sampling.reverse import Recipe, run_reverse
from circsde.solvers.solution import OnFailure, Solution, SolveError, Status, event_axes
from circsde.streams import key, torch_stream
from circsde.typing import Field, Labels

_BLOCK = 1 << 14  # angles that a block of starts draws: part of what a seed means


def generate(
    chain: Chain,
    score: Field,
    start: Sampled,
    count: int,
    recipe: Recipe | None = None,
    *,
    labels: Labels | None = None,
    guidance: float = 1.0,
    seed: int = 0,
    first_sample: int = 0,
    batch_size: int = 64,
    frames: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    on_failure: OnFailure = "raise",
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Draw samples: start from the law ``start``, then solve the reverse equation (eq. 4).

    Args:
        chain: What the score was trained along.
        score: The score.
        start: The law to start from.
        count: How many samples.
        recipe: How; by default 100 steps of Heun's method.
        labels: The class of each sample, for a network that was trained with classes.
        guidance: How far to lead samples to their classes; see :class:`circsde.models.guidance.Conditioned`.
        seed: The seed of everything that is random.
        first_sample: The index of the first sample, so that more can be drawn later or elsewhere.
        batch_size: Samples at a time.
        frames: States on the way to keep as well.
        dtype: The dtype of the angles.
        device: The device of the angles, and of the network.
        on_failure: Whether a batch that fails raises, or ends the result: look at its attribute ``status`` then.
        progress: Called with the number of finished steps, of ``count / batch_size`` (rounded up) times ``n_steps``.

    Returns:
        ``theta`` over ``(sample, *event)``, rad, and with ``frames`` also ``path`` over ``(sample, time, *event)``;
        after a failure that is returned, of the batches before it, with ``status`` and ``message`` in the attributes.

    Raises:
        SolveError: If the score or an angle is not finite; its ``solution`` is that of the batch.
        ValueError: If there are not as many labels as samples, or labels or guidance that the network does not take.
    """
    if labels is not None and len(labels) != count:
        raise ValueError(f"expected a label for each of {count} samples, got {len(labels)}")
    recipe = Recipe() if recipe is None else recipe
    shape = tuple(chain.sde.event_shape or ())
    seeds = streams(seed)

    def batch(first: int, size: int, told: Callable[[int], object]) -> Solution:
        theta = draw(start, shape, seeds[0], first, size).to(device, dtype)
        of = score
        if labels is not None or guidance != 1.0:
            part = None if labels is None else labels[first - first_sample :][:size].to(device)
            of = Conditioned(score, part, guidance=guidance)
        return run_reverse(chain, of, theta, recipe, seed=seeds[1], first_sample=first, frames=frames, progress=told)

    return in_batches(batch, shape, count, recipe, first_sample, batch_size, frames, on_failure, progress)


def streams(seed: int) -> tuple[int, int, int]:
    """Seeds for starts, for noise back in time and for noise forward, all different."""
    return key(seed, "starts"), key(seed, "backward"), key(seed, "forward")


def draw(law: Sampled, event_shape: Sequence[int], seed: int, first: int, count: int) -> Tensor:
    """Samples ``first`` to ``first + count`` of ``law``, drawn in blocks so that each depends on its index only."""
    size = max(1, _BLOCK // math.prod(event_shape))
    blocks = range(first // size, -(-(first + count) // size))
    drawn = [law.sample((size,), generator=torch_stream(seed, "starts", block)) for block in blocks]
    skip = first - blocks.start * size
    return torch.cat(drawn)[skip : skip + count].reshape(count, *event_shape)


def in_batches(
    batch: Callable[[int, int, Callable[[int], object]], Solution],
    shape: tuple[int, ...],
    count: int,
    recipe: Recipe,
    first_sample: int,
    batch_size: int,
    frames: int,
    on_failure: OnFailure,
    progress: Callable[[int], object] | None,
) -> xr.Dataset:
    """Samples ``first_sample`` to ``first_sample + count``, some at a time, as :func:`generate` returns them."""
    if min(count, batch_size) < 1 or first_sample < 0:
        raise ValueError(
            "count and batch_size must be positive and first_sample not negative, got"
            f" {count}, {batch_size} and {first_sample}"
        )
    told = progress or (lambda _: None)
    solutions: list[Solution] = []
    message, status, nfe = "", Status.SUCCESS, 0
    for k, first in enumerate(range(first_sample, first_sample + count, batch_size)):
        size = min(batch_size, first_sample + count - first)
        try:
            solution = batch(first, size, partial(shifted, told, k * recipe.n_steps))
        except SolveError as error:
            stats = error.solution.stats
            status, message = stats.status, f"samples {first} to {first + size - 1}: {stats.message}"
            replace(error.solution, stats=replace(stats, message=message)).or_raise(on_failure)
            nfe += stats.nfe
            break
        nfe += solution.stats.nfe
        solutions.append(solution)
        told((k + 1) * recipe.n_steps)
    event = event_axes(len(shape))
    states = [x.theta.cpu().numpy() for x in solutions]
    last = np.concatenate([x[-1] for x in states]) if states else np.zeros((0, *shape), np.float32)
    units = {"units": "rad", "long_name": "phase"}
    result = xr.Dataset(
        {"theta": (("sample", *event), last, units)},
        coords={"sample": np.arange(first_sample, first_sample + len(last))},
        attrs={"nfe": nfe, "status": status, "message": message},
    )
    if frames and states:
        path = np.concatenate([np.moveaxis(x, 0, 1) for x in states])
        result["path"] = (("sample", "time", *event), path, units)
        result = result.assign_coords(time=("time", solutions[0].ts.numpy(), {"long_name": "horizon - t"}))
    return result


def shifted(told: Callable[[int], object], by: int, done: int) -> None:
    """Report the progress of a part that began when ``by`` steps were done."""
    told(by + done)

"""Editing by the reverse equation: reconstruct data, fill in a part of them, interpolate between samples.

As with new samples, a sample depends on the seed and its index only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool
from torch import Tensor

from circsde.contracts import Sampled
from circsde.matching.chain import Chain
from circsde.sampling.generate import draw, in_batches, streams
from circsde.sampling.reverse import Known, Recipe, evaluating, on_chain, run_reverse, walked_times
from circsde.solvers.flow import odeint
from circsde.solvers.integrate import sdeint
from circsde.solvers.latent_space import geodesic
from circsde.solvers.solution import OnFailure, Solution
from circsde.solvers.trajectory import ADAPTIVE
from circsde.typing import Angles, Field
from circsde.velocity import probability_flow


def reconstruct(
    chain: Chain,
    score: Field,
    theta: Angles,
    recipe: Recipe | None = None,
    *,
    time: float | None = None,
    seed: int = 0,
    first_sample: int = 0,
    batch_size: int = 64,
    on_failure: OnFailure = "raise",
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Carry data forward to ``time``, by default the horizon, and back, which shows what a state at that time retains.

    With ``recipe.flow`` both ways follow the probability flow, which loses nothing but its errors; otherwise both are
    random. Arguments, result and errors are those of :func:`circsde.sampling.generate.generate`; ``theta`` is data,
    radians. A ``time`` that is one of the chain's to rounding is that one.
    """
    recipe = Recipe() if recipe is None else recipe
    time = None if time is None else on_chain(chain, time)
    walked_times(chain, recipe, time)  # refuses a time that it cannot begin at
    seeds = streams(seed)

    def batch(first: int, size: int, told: Callable[[int], object]) -> Solution:
        rows = theta[first - first_sample : first - first_sample + size]
        if recipe.flow is None:
            forward = _forward(chain, rows, [t for t in chain.times if time is None or t < time], time, seeds[2], first)
        else:
            forward = to_latent(chain, score, rows, recipe, time)
        return run_reverse(
            chain, score, forward.theta[-1], recipe, seed=seeds[1], from_time=time, first_sample=first, progress=told
        )

    shape = tuple(theta.shape[1:])
    return in_batches(batch, shape, len(theta), recipe, first_sample, batch_size, 0, on_failure, progress)


def inpaint(
    chain: Chain,
    score: Field,
    theta: Angles,
    known: Bool[Tensor, "*event"],
    start: Sampled,
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    first_sample: int = 0,
    batch_size: int = 64,
    on_failure: OnFailure = "raise",
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Draw the unknown angles of each sample given the known ones; see :func:`circsde.solvers.correctors.clamped`.

    The forward path of the known angles is simulated once, on the grid of the reverse equation. In it the unknown ones,
    which matter to a coupling, begin at values of known ones of the same sample.

    Args:
        chain: What the score was trained along.
        score: The score.
        theta: Angles; the unknown ones are not read.
        known: True for the angles of a sample that are known.
        start: The law to start from.
        recipe: How; Langevin steps help.
        seed: The seed of everything that is random.
        first_sample: The index of the first sample.
        batch_size: Samples at a time.
        on_failure: The same as for :func:`circsde.sampling.generate.generate`.
        progress: Called with the number of finished steps.
    """
    recipe = Recipe() if recipe is None else recipe
    shape, seeds, places = tuple(theta.shape[1:]), streams(seed), known.flatten().nonzero().flatten()
    if not len(places):
        raise ValueError("no angle is known: use generate")

    def batch(first: int, size: int, told: Callable[[int], object]) -> Solution:
        rows = theta[first - first_sample : first - first_sample + size]
        chosen = draw(_Places(places, shape), shape, seeds[0], first, size).to(rows.device)
        filled = torch.where(known, rows, rows.flatten(1).gather(1, chosen.flatten(1)).reshape(rows.shape))
        grid = walked_times(chain, recipe)[::-1]
        forward = _forward(chain, filled, grid if grid[0] == 0 else [0.0, *grid], None, seeds[2], first, every=True)
        begin = draw(start, shape, seeds[0], first, size).to(rows)
        begin = torch.where(known, forward.theta[-1], begin)
        held = Known(known, forward)
        return run_reverse(chain, score, begin, recipe, seed=seeds[1], first_sample=first, known=held, progress=told)

    return in_batches(batch, shape, len(theta), recipe, first_sample, batch_size, 0, on_failure, progress)


def interpolate(
    chain: Chain, score: Field, first: Angles, second: Angles, weights: Tensor, recipe: Recipe | None = None
) -> xr.Dataset:
    """Interpolate between pairs of samples: along geodesics between their latents, with the probability flow both ways.

    Args:
        chain: What the score was trained along.
        score: The score.
        first: Angles, radians.
        second: Angles of the same shape.
        weights: How far to go from the first to the second, shape ``(m,)``.
        recipe: How; by default the flow by ``dopri5``.

    Returns:
        ``theta`` over ``(sample, *event)``, with ``weight`` and ``pair`` of each sample as coordinates.

    Raises:
        SolveError: If the flow cannot go on.
        ValueError: If the recipe follows no flow.
    """
    recipe = Recipe(flow="dopri5") if recipe is None else recipe
    if recipe.flow is None:
        raise ValueError("interpolation follows the probability flow: give the recipe a flow, such as dopri5")
    ends = [to_latent(chain, score, theta, recipe) for theta in (first, second)]
    between = geodesic(ends[0].theta[-1], ends[1].theta[-1], weights)
    many = len(first)

    def batch(begin: int, size: int, told: Callable[[int], object]) -> Solution:
        return run_reverse(chain, score, between[begin // size], recipe, seed=0, progress=told)

    result = in_batches(batch, tuple(first.shape[1:]), len(weights) * many, recipe, 0, many, 0, "raise", None)
    order = np.arange(result.sizes["sample"])
    return result.assign_coords(weight=("sample", weights.numpy()[order // many]), pair=("sample", order % many))


def to_latent(chain: Chain, score: Field, theta: Angles, recipe: Recipe, time: float | None = None) -> Solution:
    """Carry data along the probability flow to ``time``, by default the horizon; this inverts :func:`run_reverse`.

    A recipe with ``denoise`` takes data to be at the time of its last step.

    Raises:
        SolveError: If the flow cannot go on.
    """
    assert recipe.flow is not None
    grid = walked_times(chain, recipe, time)[::-1]
    steps: dict[str, Any] = {"atol": recipe.tolerance} if recipe.flow in ADAPTIVE else {"grid": grid}
    field, ends = probability_flow(chain.sde, score), (grid[0], grid[-1])
    with evaluating(score):
        return odeint(field, theta, ends, method=recipe.flow, **steps)


@dataclass(frozen=True)
class _Places:
    """Known angles drawn evenly, one for each angle of a sample."""

    places: Tensor
    event_shape: tuple[int, ...]

    def sample(self, sample_shape: tuple[int, ...], /, *, generator: torch.Generator) -> Tensor:
        """Indices into the flattened sample."""
        chosen = torch.randint(len(self.places), (*sample_shape, *self.event_shape), generator=generator)
        return self.places.cpu()[chosen]


def _forward(
    chain: Chain, theta: Angles, grid: list[float], end: float | None, seed: int, first: int, *, every: bool = False
) -> Solution:
    """The forward equation through ``grid`` and ``end``, all of it or its two ends."""
    points = [*grid, *([] if end is None else [end])]
    return sdeint(
        chain.sde,
        theta,
        points if every else (points[0], points[-1]),
        grid=points,
        method="euler_maruyama" if chain.published else "heun",
        generator=seed,
        first_sample=first,
    )

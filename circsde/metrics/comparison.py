"""Shared by distances between two sets: the measures, their bootstrap intervals, and a table of both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from scipy.stats import wasserstein_distance
from torch import Tensor

Interval: TypeAlias = tuple[float, float, float]
"""A value, and the lower and the upper end of its interval."""


@dataclass(frozen=True)
class Measure:
    """One comparison of two sets, of images or of fields of phases.

    Attributes:
        describe: A row per member of a set.
        distance: The distance of two sets of rows, the real one first.
        units: The units of the distance.
    """

    describe: Callable[[Tensor], Tensor]
    distance: Callable[[Tensor, Tensor], float]
    units: str


def wasserstein(x: Float[Tensor, " n"], y: Float[Tensor, " m"]) -> float:
    """The Wasserstein-1 distance of two samples of numbers, in their unit."""
    return float(wasserstein_distance(x.cpu().numpy(), y.cpu().numpy()))


def bootstrap(
    statistic: Callable[..., float],
    *sets: Float[Tensor, "_ ..."],
    resamples: int = 200,
    confidence: float = 0.95,
    generator: torch.Generator,
) -> Interval:
    r"""A statistic of sets and its bootstrap interval, resampling the rows of each set.

    Resampling raises a distance once more by the bias that it has at this size. The percentiles are therefore moved
    by the estimate less the mean of the resamples: the interval is of the expected distance at this size, its
    bias included, and the floor's is on the same footing.

    Args:
        statistic: A function of as many tensors as there are sets.
        *sets: A row per independent member.
        resamples: The number of resamples.
        confidence: The confidence level of the interval, for instance 0.95.
        generator: Draws the resamples.

    Returns:
        The statistic, and the lower and the upper end of the interval.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, sections 10.2 and 13.3.
    """
    value = statistic(*sets)
    again = []
    for _ in range(resamples):
        rows = [torch.randint(len(rows), (len(rows),), generator=generator).to(rows.device) for rows in sets]
        again.append(statistic(*(one[row] for one, row in zip(sets, rows, strict=True))))
    tails = (1.0 - confidence) / 2.0
    low, high = np.quantile(again, [tails, 1.0 - tails]) + value - np.mean(again)
    return value, float(low), float(high)


def distances(
    measures: Mapping[str, Measure],
    real: Mapping[str, Tensor],
    others: Mapping[str, Tensor],
    interval: Callable[..., Interval],
) -> dict[str, Interval]:
    """Every measure between two sets that are described already.

    Args:
        measures: By name.
        real: What each measure describes the real set by.
        others: The other set, likewise.
        interval: As :func:`bootstrap`, with its resamples and its generator.
    """
    return {key: positive(interval(one.distance, real[key], others[key])) for key, one in measures.items()}


def positive(interval: Interval) -> Interval:
    """Cut an interval at zero, for a quantity that cannot be negative."""
    value, low, high = interval
    return value, max(0.0, low), max(0.0, high)


def columns(intervals: Mapping[str, Interval], names: tuple[str, str, str], units: Sequence[str]) -> xr.Dataset:
    """Values and the ends of their intervals by these names, along ``measure``, which has a coordinate ``units``."""
    found = zip(names, zip(*intervals.values(), strict=True), strict=True)
    return xr.Dataset(
        {name: ("measure", list(column)) for name, column in found},
        coords={"measure": list(intervals), "units": ("measure", list(units))},
    )


def tabulated(
    measures: Mapping[str, Measure],
    real: Tensor,
    samples: Tensor,
    train: Tensor | None,
    *,
    resamples: int,
    confidence: float,
    generator: torch.Generator,
    describe: Callable[[Tensor], Tensor] = lambda members: members,
    interval: Callable[..., Interval] = bootstrap,
) -> xr.Dataset:
    """Every measure between the set ``real`` and ``samples``, and for the floor between ``real`` and ``train``.

    Args:
        measures: By name.
        real: The members held out from training.
        samples: The members to judge.
        train: The members trained on, if there is to be a floor; they are cut to as many as there are samples.
        resamples: The number of resamples of the bootstrap.
        confidence: The confidence level of the intervals.
        generator: Draws which of ``train`` are kept, and the resamples.
        describe: What the measures describe is made of the members, once for all of them.
        interval: A function of the arguments of :func:`bootstrap`.

    Returns:
        ``value``, ``low``, ``high``, ``floor``, ``floor_low``, ``floor_high`` along ``measure``; the ``mean`` of what
        each describes, without NaN, along ``set`` and ``measure``. Attributes ``n``, ``n_real``, ``resamples`` and
        ``confidence``.

    Raises:
        ValueError: If the sizes of members differ, there are fewer than 2 of a kind, or fewer to train than samples.
    """
    kept = {"real": real, "samples": samples} | ({} if train is None else {"train": train})
    if len({members.shape[1:] for members in kept.values()}) > 1 or min(map(len, kept.values())) < 2:
        shapes = ", ".join(f"{name} {tuple(members.shape)}" for name, members in kept.items())
        raise ValueError(f"at least 2 of each kind, all of one size, are needed, got {shapes}")
    count = len(samples)
    if train is not None:
        if len(train) < count:
            raise ValueError(
                f"the floor is the distance of as many members of the training data as there are samples, {count}, got"
                f" {len(train)}: give more, or fewer samples"
            )
        kept["train"] = train[torch.randperm(len(train), generator=generator)[:count].to(train.device)]
    made = {name: describe(members) for name, members in kept.items()}
    described = {name: {key: one.describe(x) for key, one in measures.items()} for name, x in made.items()}
    units = [measure.units for measure in measures.values()]
    between = partial(interval, resamples=resamples, confidence=confidence, generator=generator)
    against = partial(distances, measures, described["real"], interval=between)
    result = columns(against(described["samples"]), ("value", "low", "high"), units)
    if train is not None:
        floors = against(described["train"])
        result = result.assign(columns(floors, ("floor", "floor_low", "floor_high"), units).data_vars)
    means = [[float(rows.double().nanmean()) for rows in kind.values()] for kind in described.values()]
    result = result.assign_coords(set=list(described)).assign(mean=(("set", "measure"), means))
    return result.assign_attrs(n=count, n_real=len(real), resamples=resamples, confidence=confidence)

"""Which pairs a process makes from data, for training and for validation."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from circsde.matching import Chain, Pairs
from circsde.models.settings import Settings
from circsde.models.transitions import Objective, PairStream, Starts, Transitions
from circsde.models.variance_preserving import NoisedData, VariancePreserving

VALIDATION = 4
"""Batches of validation pairs."""

CALIBRATION = 2**17
"""Angles, about as many as are followed to find the discounts of a chain."""


def pair_stream(
    process: Chain | VariancePreserving,
    objective: Objective,
    data: Starts,
    settings: Settings,
    device: torch.device,
    rank: int = 0,
) -> PairStream:
    """Training pairs for the process of a rank, made on ``device``.

    Raises:
        ValueError: If the objective is not for this process.
    """
    generator = torch.Generator(device).manual_seed(settings.seed + rank)
    if isinstance(process, Chain):
        return Transitions(
            process, objective, data, settings.batch, generator, settings.pool, settings.stride, settings.states
        )
    if objective is not Objective.DENOISING:
        raise ValueError(f"the standard diffusion is trained by {Objective.DENOISING}, got {objective}")
    return NoisedData(process, data, settings.batch, generator)


def held_out_pairs(
    process: Chain | VariancePreserving, objective: Objective, data: Starts, settings: Settings, device: torch.device
) -> list[Pairs]:
    """The same few batches every time, from random numbers of their own."""
    settings = replace(settings, pool=min(settings.pool, VALIDATION))
    stream = pair_stream(process, objective, data, settings, device, rank=2**32)
    return [stream.draw() for _ in range(VALIDATION)]


def calibrated(chain: Chain, data: Starts, seed: int, saved: Mapping[str, Any] | None) -> Chain:
    """The chain with its best discounts; those of the state to go on from, where there is one."""
    steps = None if saved is None else saved["description"]["chain"]
    if steps is not None and steps["discounts"] is not None:
        return replace(chain, discounts=tuple(steps["discounts"]))
    generator = torch.Generator().manual_seed(seed)
    angles = data(1, torch.Generator()).numel()
    return chain.calibrated(data(max(64, min(4096, CALIBRATION // angles)), generator), generator)


def digest(data: Starts) -> str:
    """What tells data from others.

    Raises:
        ValueError: If they do not say.
    """
    digest = getattr(data, "digest", None)
    if not isinstance(digest, str):
        raise ValueError(
            f"data that are drawn must say what they are, so that training can go on with the same: give {data!r}"
            f" a text attribute `digest`, got {digest!r}"
        )
    return digest

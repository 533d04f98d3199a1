"""The pairs that a process makes from data, for training and for validation."""

from dataclasses import replace

import torch

from circsde.matching.chain import Chain, Pairs
from circsde.models.settings import Settings
from circsde.models.transitions import DataSampler, Objective, PairStream, Transitions
from circsde.models.variance_preserving import NoisedData, VariancePreserving
from circsde.streams import torch_stream

VALIDATION = 4
"""Batches of validation pairs."""


def pair_stream(
    process: Chain | VariancePreserving,
    objective: Objective,
    data: DataSampler,
    settings: Settings,
    generator: torch.Generator,
) -> PairStream:
    """Training pairs for the process, drawn by ``generator`` and made on its device.

    Raises:
        ValueError: If the objective is not for this process.
    """
    if isinstance(process, Chain):
        return Transitions(
            process, objective, data, settings.batch, generator, settings.pool, settings.stride, settings.states
        )
    if objective is not Objective.DENOISING:
        raise ValueError(f"the standard diffusion is trained by {Objective.DENOISING}, got {objective}")
    return NoisedData(process, data, settings.batch, generator)


def held_out_pairs(
    process: Chain | VariancePreserving,
    objective: Objective,
    data: DataSampler,
    settings: Settings,
    device: torch.device,
) -> list[Pairs]:
    """Make the same few batches of validation pairs every time, from their own stream."""
    settings = replace(settings, pool=min(settings.pool, VALIDATION))
    generator = torch_stream(settings.seed, "held-out pairs", device=device)
    stream = pair_stream(process, objective, data, settings, generator)
    return [stream.draw() for _ in range(VALIDATION)]

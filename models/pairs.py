"""Which pairs a process makes from data, for training and for validation."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from time import process_time
from typing import Any

import torch

from circsde.matching.chain import Chain, Pairs, start, step_forward, step_with_adjoint
from circsde.models import wiener
from circsde.models.settings import Settings
from circsde.models.transitions import DataSampler, Objective, PairStream, Transitions, begin
from circsde.models.variance_preserving import NoisedData, VariancePreserving
from circsde.streams import torch_stream

VALIDATION = 4
"""Batches of validation pairs."""

CALIBRATION = 2**17
"""Angles, about as many as are followed to find the discounts of a chain."""


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
    """The same few batches every time, from a stream of their own."""
    settings = replace(settings, pool=min(settings.pool, VALIDATION))
    generator = torch_stream(settings.seed, "held-out pairs", device=device)
    stream = pair_stream(process, objective, data, settings, generator)
    return [stream.draw() for _ in range(VALIDATION)]


def calibrated(chain: Chain, data: DataSampler, seed: int, saved: Mapping[str, Any] | None) -> Chain:
    """The chain with its best discounts; those of the state to go on from, where there is one."""
    steps = None if saved is None else saved["description"]["chain"]
    if steps is not None and steps["discounts"] is not None:
        return replace(chain, discounts=tuple(steps["discounts"]))
    generator = torch_stream(seed, "calibration")
    angles = data(1, torch.Generator()).numel()
    return chain.calibrated(data(_calibrating(angles), generator), generator)


def _calibrating(angles: int) -> int:
    """The paths that calibration follows."""
    return max(64, min(4096, CALIBRATION // angles))


def check_device(settings: Settings) -> None:
    """Refuse a device for paths that is not there.

    Raises:
        ValueError: If there is no graphics card, and paths are to be simulated on one.
    """
    if (settings.paths_on or "cpu").startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"there is no graphics card for paths_on={settings.paths_on!r}: leave it out, or give 'cpu'")


def check_time(
    process: Chain | VariancePreserving,
    objective: Objective,
    data: DataSampler,
    settings: Settings,
    linear: bool,
    clock: Callable[[], float],
    since: float,
    others: int = 0,
) -> None:
    """Refuse now a time to train for that preparation would use up.

    A step of few and of many paths is timed, and the steps of all paths counted that are followed on the processor:
    less than the time that preparation takes, as what else is done is not counted.

    Args:
        process: What is trained along.
        objective: On what.
        data: Where paths begin.
        settings: How; there is a time.
        linear: Whether the linear part of a score is measured.
        clock: What the time is read from.
        since: What it said when the work began.
        others: Paths that are followed beside those of training.

    Raises:
        ValueError: If it is too short; it says what is needed.
    """
    if not isinstance(process, Chain) or settings.budget is None:
        return
    here = settings.paths_on == "cpu" or not torch.cuda.is_available()
    angles, steps, paths = data(1, torch.Generator()).numel(), len(process), float(others)
    if objective is Objective.PATHWISE and process.discounts is None:
        paths += _calibrating(angles)
    if linear:
        paths += wiener.paths(angles)
    if objective is not Objective.DENOISING and here:  # paths that are spread over the chain are half as long
        paths += 0.5 * settings.batch // settings.states * (settings.pool + min(settings.pool, VALIDATION))
    chain = replace(process, discounts=process.discounts or (0.5,) * steps)
    step, generator = step_forward if objective is Objective.ONE_STEP else step_with_adjoint, torch.Generator()

    def timed(count: int) -> float:
        """The least processor time of three steps, as the first takes longer, and others may use the machine, too.

        On one thread: several spin while they wait for one another where others use the machine.
        """
        followed, taken, threads = start(*begin(data, count, generator)), [], torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for _ in range(3):
                at = process_time()
                followed = step(chain, followed, generator)
                taken.append(process_time() - at)
        finally:
            torch.set_num_threads(threads)
        return min(taken) / threads

    few, many = 16, max(64, min(4096, 2**16 // angles))
    each = max(0.0, timed(many) - timed(few)) / (many - few)
    needed = clock() - since + steps * paths * each
    if needed > settings.budget:
        raise ValueError(
            f"the time to train for is {settings.budget:g} s in all, and on this machine preparation alone, of which"
            f" {paths:.0f} paths of {steps} steps are a part, takes at least {needed:.0f} s: give at least"
            f" {2.0 * needed:.0f} s, or take smaller data or a smaller batch"
        )


def digest(data: DataSampler) -> str:
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

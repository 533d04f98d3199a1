"""Preparation before the first update of a training, and the check that a folder holds the same training."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from time import process_time
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from circsde.contracts import first_few
from circsde.matching.chain import Chain, start, step_forward, step_with_adjoint
from circsde.models import checkpoint
from circsde.models.pairs import VALIDATION
from circsde.models.settings import Settings
from circsde.models.transitions import DataSampler, Objective, begin
from circsde.models.variance_preserving import VariancePreserving
from circsde.streams import torch_stream
from circsde.threads import one_thread

CALIBRATION = 2**17
"""Angles, about as many as are followed to find the discounts of a chain."""


@runtime_checkable
class Measured(Protocol):
    """A network a part of which is measured before training, such as a linear part of the score."""

    @property
    def paths(self) -> int:
        """The number of paths that the measurement takes."""

    def fit(self, chain: Chain, starts: DataSampler, generator: torch.Generator) -> None:
        """Measure it along a chain."""


def prepare(
    network: nn.Module,
    process: Chain | VariancePreserving,
    objective: Objective,
    data: DataSampler,
    seed: int,
    saved: Mapping[str, Any] | None,
    told: Callable[[str], object],
) -> Chain | VariancePreserving:
    """The process, calibrated for pathwise matching; what of the network is measured is measured.

    Args:
        network: The network.
        process: What to train along.
        objective: The objective of its training.
        data: Draws data.
        seed: Seed of what is drawn.
        saved: The state to go on from, in which all of this is done already.
        told: Called with what is made next.

    Raises:
        ValueError: If a part of the network is to be measured along a chain, and there is none.
    """
    if objective is Objective.PATHWISE and isinstance(process, Chain) and process.discounts is None:
        told("the discounts of the chain")
        process = calibrated(process, data, seed, saved)
    if isinstance(network, Measured) and saved is None:
        if not isinstance(process, Chain):
            raise ValueError(f"a part of {type(network).__name__} is measured along a chain, got {process}")
        told("the linear part of the score")
        network.fit(process, data, torch_stream(seed, "linear part"))
    return process


def describe(
    network: nn.Module,
    process: Chain | VariancePreserving,
    objective: Objective,
    settings: Settings,
    data: Mapping[str, DataSampler],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that determines the result of a training, as JSON."""
    return {
        "network": checkpoint.describe(network),
        **_described(process),
        "objective": str(objective),
        "settings": asdict(settings),
        "data": {part: digest(each) for part, each in data.items()},
        "about": dict(about),
    }


def _described(process: Chain | VariancePreserving) -> dict[str, Any]:
    if not isinstance(process, Chain):
        return {"sde": checkpoint.describe(process), "chain": None}
    steps = {"times": list(process.times), "discounts": process.discounts, "published": process.published}
    return {"sde": checkpoint.describe(process.sde), "chain": steps}


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
    network: nn.Module,
    clock: Callable[[], float],
    since: float,
    others: int = 0,
) -> None:
    """Refuse now a time to train for that preparation would use up.

    A step of few and of many paths is timed, and the steps of all paths counted that are followed on the processor:
    less than the time that preparation takes, as what else is done is not counted.

    Args:
        process: What is trained along.
        objective: The objective of its training.
        data: The angles at which paths begin.
        settings: How; there is a time.
        network: What is trained; a part of it may be measured.
        clock: What the time is read from.
        since: What it said when the work began.
        others: Paths that are followed beside those of training.

    Raises:
        ValueError: If it is too short; it says what is needed.
    """
    if not isinstance(process, Chain) or settings.seconds is None:
        return
    here = settings.paths_on == "cpu" or not torch.cuda.is_available()
    angles, steps, paths = data(1, torch.Generator()).numel(), len(process), float(others)
    if objective is Objective.PATHWISE and process.discounts is None:
        paths += _calibrating(angles)
    if isinstance(network, Measured):
        paths += network.paths
    if objective is not Objective.DENOISING and here:  # paths that are spread over the chain are half as long
        paths += 0.5 * settings.batch // settings.states * (settings.pool + min(settings.pool, VALIDATION))
    chain = replace(process, discounts=process.discounts or (0.5,) * steps)
    step, generator = step_forward if objective is Objective.ONE_STEP else step_with_adjoint, torch.Generator()

    def timed(count: int) -> float:
        """The least processor time of three steps, as the first takes longer, and others may use the machine, too.

        On one thread: several spin while they wait for one another where others use the machine.
        """
        followed, taken, threads = start(*begin(data, count, generator)), [], torch.get_num_threads()
        with one_thread():
            for _ in range(3):
                at = process_time()
                followed = step(chain, followed, generator)
                taken.append(process_time() - at)
        return min(taken) / threads

    few, many = 16, max(64, min(4096, 2**16 // angles))
    each = max(0.0, timed(many) - timed(few)) / (many - few)
    needed = clock() - since + steps * paths * each
    if needed > settings.seconds:
        raise ValueError(
            f"the time to train for is {settings.seconds:g} s in all, and on this machine preparation alone, of which"
            f" {paths:.0f} paths of {steps} steps are a part, takes at least {needed:.0f} s: give at least"
            f" {2.0 * needed:.0f} s, or take smaller data or a smaller batch"
        )


def digest(data: DataSampler) -> str:
    """The text by which data identify themselves.

    Raises:
        ValueError: If they have no such text.
    """
    digest = getattr(data, "digest", None)
    if not isinstance(digest, str):
        raise ValueError(
            f"data that are drawn must say what they are, so that training can go on with the same: give {data!r}"
            f" a text attribute `digest`, got {digest!r}"
        )
    return digest


def check_classes(network: nn.Module, known: tuple[str, ...]) -> None:
    """Refuse data whose classes the network does not take, and data without the classes that it needs."""
    if (classes := getattr(network, "classes", None)) != (len(known) or None):
        raise ValueError(
            f"the network was made with classes={classes} and the data have {len(known)} classes"
            f" ({first_few(known)}): make it with classes={len(known) or None}"
        )


def check_same(run: Path, description: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Refuse to resume a training that differs from this one."""
    here, there = (_flat(tree) for tree in (description, saved))
    different = [name for name in {*here, *there} if here.get(name) != there.get(name)]
    if different:
        name = min(different, key=lambda name: (name == "chain.discounts", name))
        raise ValueError(
            f"{run} holds another training: {name} was {there.get(name)} and is now {here.get(name)}; use the"
            " same settings to resume it, or choose another folder"
        )


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping):
        return {key: value for part, child in tree.items() for key, value in _flat(child, f"{name}.{part}").items()}
    if isinstance(tree, str):
        tree = checkpoint.RENAMED.get(tree, tree)
    return {name.lstrip("."): list(tree) if isinstance(tree, tuple) else tree}

"""The time that steps take, measured side by side: the price of a choice in seconds."""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from circsde.solvers.registry import find_method
from circsde.streams import key, torch_stream
from circsde.studies.grids import graded_grid
from circsde.studies.monte_carlo import angles_per_path
from circsde.studies.offers import Offer
from circsde.studies.paths import solve_on

_ANGLES = 1 << 15  # that a timed solve moves
_STEPS = (8, 40)
_TURNS = 7


@dataclass(frozen=True)
class Clock:
    """The seconds of a solve: a part for the solve, and one for each step.

    Attributes:
        solve: The time of a solve without steps.
        step: The time of each step.
    """

    solve: float
    step: float

    def __call__(self, steps: float) -> float:
        """The seconds of so many steps."""
        return self.solve + self.step * steps


@torch.no_grad()
def clocks(offers: Sequence[Offer], seed: int) -> tuple[dict[str, Callable[[float], float]], dict[str, object]]:
    """The clock of every candidate, by its name, and where and how they were measured.

    Medians of seven solves of 8 and of 40 steps, after one that warms up, the noise that they draw included, in this
    process and on as many threads as torch has. Candidates take turns, so that a slow minute falls on all of them.
    """
    candidates = [(label, offer, method) for offer in offers for label, method in offer.solvers.items()]
    paths = max(1, _ANGLES // angles_per_path(offers[0].subject))
    theta = offers[0].subject.sample(paths, torch_stream(seed, "starts"))
    seconds = np.empty((1 + _TURNS, len(candidates), len(_STEPS)))
    for turn, i, j in np.ndindex(*seconds.shape):
        _, offer, method = candidates[i]
        sde = offer.subject.sde
        grid = graded_grid(sde.horizon, _STEPS[j], offer.grading)
        begin = time.perf_counter()
        solution = solve_on(sde, theta, find_method(method, sde), grid, generator=key(seed, "timed", turn))
        solution.theta[-1].sum().item()  # waits for a device
        seconds[turn, i, j] = time.perf_counter() - begin
    few, many = np.median(seconds[1:], axis=0).T
    step = np.maximum(many - few, 1e-9) / (_STEPS[1] - _STEPS[0])
    start = np.maximum(few - _STEPS[0] * step, 0.0)
    found: dict[str, Callable[[float], float]] = {
        label: Clock(float(a), float(b)) for (label, *_), a, b in zip(candidates, start, step, strict=True)
    }
    return found, {
        "timed_paths": paths,
        "threads": torch.get_num_threads(),
        "device": platform.machine() if theta.device.type == "cpu" else str(theta.device),
        "dtype": str(theta.dtype),
    }

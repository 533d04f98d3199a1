"""Training pairs without end: a pool of paths, each at its own time, that are advanced as they are used."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from circsde.kuramoto import KuramotoSDE
from circsde.matching.chain import (
    Chain,
    Pairs,
    Paths,
    denoising,
    one_step,
    pathwise,
    start,
    step_forward,
    step_with_adjoint,
    unlabelled,
)
from circsde.torus import require_finite
from circsde.typing import Angles, Labels

DataSampler = Callable[[int, torch.Generator], Angles]
"""A function ``(count, generator) -> theta0`` that draws data."""


@runtime_checkable
class LabelledStarts(Protocol):
    """Draws data with their classes, or without."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of their labels."""

    def __call__(self, count: int, generator: torch.Generator, /) -> Angles:
        """``theta0``."""

    def labelled(self, count: int, generator: torch.Generator) -> tuple[Angles, Labels]:
        """``theta0`` and the class of each."""


def begin(starts: DataSampler, count: int, generator: torch.Generator) -> tuple[Angles, Labels]:
    """Data and their classes, -1 if they have none, on the device of the generator."""
    if isinstance(starts, LabelledStarts):
        theta0, labels = starts.labelled(count, generator)
    else:
        theta0 = starts(count, generator)
        labels = unlabelled(theta0)
    return theta0.to(generator.device), labels.to(generator.device)


class Objective(StrEnum):
    """The objective: what the network regresses on; see :mod:`circsde.matching.chain`."""

    DENOISING = "denoising"
    ONE_STEP = "one-step"
    PATHWISE = "pathwise"


@runtime_checkable
class PairStream(Protocol):
    """Training pairs without end, from a state that can be saved."""

    def draw(self) -> Pairs:
        """The next batch."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides about the pairs to come."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""


@dataclass(frozen=True)
class TensorSampler:
    """Draws rows of ``theta``, with replacement.

    Attributes:
        theta: The data, ``(rows, *event)``.
        labels: The class of each row, from 0, where there are classes.
        classes: Their names.

    Raises:
        ValueError: If a row is not finite, naming it; one such row would spoil every network that is trained on it. If
            there is not a label of a class for each row.
    """

    theta: Angles
    labels: Int[Tensor, "..."] | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse rows that are not finite, and labels that do not fit."""
        require_finite(self.theta, "the rows of data")
        if (self.labels is None) == bool(self.classes):
            raise ValueError(f"labels need the names of their classes, and classes labels: got classes={self.classes}")
        if self.labels is not None:
            known = (self.labels >= 0) & (self.labels < len(self.classes))
            if len(self.labels) != len(self.theta) or not bool(known.all()):
                raise ValueError(
                    f"expected a label from 0 to {len(self.classes) - 1} for each of {len(self.theta)} rows, got"
                    f" {len(self.labels)}, {int((~known).sum())} of them of no class"
                )

    def __call__(self, count: int, generator: torch.Generator) -> Angles:
        """``count`` rows, on the device of the generator."""
        return self.labelled(count, generator)[0]

    def labelled(self, count: int, generator: torch.Generator) -> tuple[Angles, Labels]:
        """``count`` rows and the class of each, -1 where there are none."""
        rows = torch.randint(len(self.theta), (count,), generator=generator, device=generator.device)
        theta = self.theta[rows.to(self.theta.device)].to(generator.device)
        if self.labels is None:
            return theta, unlabelled(theta)
        return theta, self.labels[rows.to(self.labels.device)].to(generator.device)

    @property
    def digest(self) -> str:
        """A text that identifies these data."""
        data = [self.theta] if self.labels is None else [self.theta, self.labels]
        return hashlib.sha256(b"".join(x.detach().cpu().contiguous().numpy().tobytes() for x in data)).hexdigest()


@dataclass
class Transitions:
    """Pairs for one objective, their times even over the steps of the chain.

    A pool of paths is at steps spread evenly. Draws use it part by part, then all of it advances by ``stride`` steps;
    paths that have arrived start anew from data. So a pair costs ``stride`` steps of simulation instead of half a path.
    Pairs of one path are correlated; a larger pool uses them further apart. Denoising needs no paths: its times are
    even within each step of the chain.

    Attributes:
        chain: The chain.
        objective: What to regress on.
        starts: The angles at which paths begin.
        batch: Pairs per draw.
        generator: Source of all randomness; everything lives on its device.
        pool: How many draws until a path is used again.
        stride: Steps between two uses of a path.
        states: One-step: next states per path and use, dividing ``batch``. Published: 5.
    """

    chain: Chain
    objective: Objective
    starts: DataSampler
    batch: int
    generator: torch.Generator
    pool: int = 8
    stride: int = 1
    states: int = 1

    def __post_init__(self) -> None:
        """Refuse impossible batches."""
        if min(self.batch, self.pool, self.stride, self.states) < 1 or self.batch % self.states:
            raise ValueError(
                "batch, pool, stride and states must be positive and states divide batch, got"
                f" batch={self.batch}, pool={self.pool}, stride={self.stride}, states={self.states}"
            )
        if self.objective is not Objective.ONE_STEP and self.states != 1:
            raise ValueError(
                f"several next states are for one-step score matching, got {self.objective} with {self.states}"
            )
        self._next = 0
        self._pool: Paths | None = None

    def draw(self) -> Pairs:
        """The next ``batch`` pairs."""
        if self.objective is Objective.DENOISING:
            return self._denoising()
        if self._next == 0:
            self._pool = self._advanced(self._paths())
        count = self.batch // self.states
        rows = slice(self._next * count, (self._next + 1) * count)
        self._next = (self._next + 1) % self.pool
        paths = Paths(*(x[rows] for x in self._paths()))
        if self.objective is Objective.ONE_STEP:
            return one_step(self.chain, paths, self.states, self.generator)
        return pathwise(self.chain, paths)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides about the pairs to come."""
        pool = {} if self.objective is Objective.DENOISING else self._paths()._asdict()
        paths = {name: x.clone() for name, x in pool.items()}
        return {"generator": self.generator.get_state(), "next": self._next, "paths": paths}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.generator.set_state(state["generator"].cpu())
        self._next = state["next"]
        if state["paths"]:
            device = self.generator.device
            self._pool = Paths(**{name: x.to(device, copy=True) for name, x in state["paths"].items()})

    def _paths(self) -> Paths:
        """The pool, begun when it is first needed."""
        if self._pool is None:
            self._pool = self._staggered()
        return self._pool

    def _denoising(self) -> Pairs:
        assert isinstance(self.chain.sde, KuramotoSDE)
        theta0, labels = begin(self.starts, self.batch, self.generator)
        times = torch.tensor(self.chain.times, dtype=torch.float64)
        at = torch.rand(self.batch, dtype=torch.float64, generator=self.generator, device=self.generator.device)
        times, at = times.to(at.device), (1.0 - at) * len(self.chain)  # in (0, n]
        n = (at.ceil().long() - 1).clamp(0, len(self.chain) - 1)
        pairs = denoising(self.chain.sde, theta0, torch.lerp(times[n], times[n + 1], at - n), self.generator)
        return pairs._replace(labels=labels)

    def _staggered(self) -> Paths:
        """All paths, those of each draw spread evenly over the chain."""
        count, steps = self.batch // self.states, len(self.chain)
        paths = self._begun(count * self.pool)
        wanted = (torch.arange(count, device=paths.n.device) * steps // count).repeat(self.pool)
        for step in range(int(wanted.max())):
            rows = (wanted > step).nonzero()[:, 0]
            paths = _replaced(paths, rows, self._step(Paths(*(x[rows] for x in paths))))
        return Paths(*(x.clone() for x in paths))

    def _advanced(self, pool: Paths) -> Paths:
        """The whole pool, ``stride`` steps on: on a CPU in parts that its caches hold, else at once."""
        size = self.batch // self.states if self.generator.device.type == "cpu" else len(pool.n)
        parts = []
        for rows in range(0, len(pool.n), size):
            paths = Paths(*(x[rows : rows + size] for x in pool))
            for _ in range(self.stride):
                paths = self._step(paths)
            parts.append(self._restarted(paths) if self.objective is Objective.ONE_STEP else paths)
        return Paths(*(torch.cat(x) for x in zip(*parts, strict=True)))

    def _step(self, paths: Paths) -> Paths:
        paths = self._restarted(paths)
        step = step_with_adjoint if self.objective is Objective.PATHWISE else step_forward
        return step(self.chain, paths, self.generator)

    def _restarted(self, paths: Paths) -> Paths:
        """Paths with those that have arrived begun anew."""
        arrived = paths.n == len(self.chain)
        rows = arrived.nonzero()[:, 0]
        if not len(rows):
            return paths
        return _replaced(paths, rows, self._begun(len(rows)))

    def _begun(self, count: int) -> Paths:
        return start(*begin(self.starts, count, self.generator))


def _replaced(paths: Paths, rows: Tensor, new: Paths) -> Paths:
    """``paths`` with those of ``rows`` replaced by ``new``."""
    return Paths(*(old.index_copy(0, rows, row) for old, row in zip(paths, new, strict=True)))

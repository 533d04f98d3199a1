"""Blocks of paths, and the errors that are estimated from them.

Paths are numbered. Each block of them has seeds of its own, made from the study's seed and the number of its first
path, so that results depend neither on who computes a block, nor on how many blocks there are.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
import xarray as xr
from torch import Tensor

from circsde.solvers.solution import Solution
from circsde.streams import torch_stream
from circsde.studies.content import digest
from circsde.studies.experiment import Experiment
from circsde.studies.result import STRONG
from circsde.studies.runner import Runner
from circsde.studies.statistics import Array, Moments
from circsde.torus import difference
from circsde.typing import Angles

_NORMALS = 1 << 13  # angles of a block: part of what a seed means


@dataclass(frozen=True)
class Block(ABC):
    """Some paths, solved with several solvers at several settings each, and with a reference.

    Attributes:
        subject: The equation, the start and the observables.
        metric: ``"strong"`` or ``"weak"``.
        seed: The study's seed.
        first: The number of the first path.
        count: How many paths.
    """

    subject: Experiment
    metric: str
    seed: int
    first: int
    count: int

    @abstractmethod
    def solve(self) -> "Solved":
        """Every solver and setting, and the reference, from the same starts."""

    @property
    @abstractmethod
    def solvers(self) -> list[str]:
        """Their names."""

    @property
    @abstractmethod
    def settings(self) -> tuple[float, ...]:
        """Their settings, from coarse to fine."""

    @abstractmethod
    def narrow(self, solvers: Sequence[bool], settings: Sequence[bool]) -> "Block":
        """Only some of the solvers and settings."""

    @abstractmethod
    def tabulate(self, sample: "Sample", confidence: float, target: float | None = None) -> xr.Dataset:
        """The errors and costs."""

    @abstractmethod
    def cost(self) -> float:
        """About how many evaluations of the drift of one angle a path takes, in all solves."""

    @abstractmethod
    def describe(self) -> str:
        """The solvers and settings, as text."""

    def key(self) -> str:
        """What determines the result, as text: in words, and the digest of its content."""
        words = f"{self.subject.name} {self.metric} {self.describe()} {self.seed} {self.first} {self.count}"
        return f"{words} {digest((self, self.content()))}"

    def content(self) -> object:
        """The content that also determines the result, where the fields of the block give only names."""
        return None

    @torch.no_grad()
    def compute(self) -> xr.Dataset:
        """The moments of :meth:`features` over the paths, and the drift evaluations of every solve."""
        solved = self.solve()
        moments = Moments.of(self.features(solved).cpu().numpy())
        return xr.Dataset(
            {
                "count": moments.count,
                "mean": (("method", "feature"), moments.mean),
                "scatter": (("method", "feature", "feature_"), moments.scatter),
                "peak": (("method", "feature"), moments.peak),
                "nfe": (("method", "setting"), [[float(end.nfe) for end in row] for row in solved.ends]),
                "work": solved.work,
            }
        )

    def features(self, solved: "Solved") -> Tensor:
        """The quantities that are averaged over paths, shape ``(paths, methods, features)``, float64.

        Strong: the mean squared distance to the reference, over the angles of a path, of every setting and then of the
        coarse reference; first on the torus, then on the lift. Weak: the observables less the reference's, of
        every setting and then of the coarse reference; and the observables of the reference less their expected
        values, where they are known.
        """
        ends = [[end.theta for end in row] for row in solved.ends]
        coarse, exact = solved.coarse.theta, solved.reference.theta
        if self.metric == STRONG:
            rows = [
                [squared_distance(end, exact, lifted) for lifted in (False, True) for end in (*row, coarse)]
                for row in ends
            ]
            return torch.stack([torch.stack(row, 1) for row in rows], 1)
        rough, reference = self.observe(coarse), self.observe(exact)
        expected = torch.tensor([o.expected for o in self.subject.observables], dtype=torch.float64)
        common = [rough - reference, reference - expected.nan_to_num(0.0).to(exact.device)]
        return torch.stack([torch.cat([*(self.observe(x) - reference for x in row), *common], 1) for row in ends], 1)

    def observe(self, theta: Angles) -> Tensor:
        """The observables of each path, shape ``(paths, observables)``."""
        return torch.stack([observable.function(theta) for observable in self.subject.observables], 1).double()

    def starts(self) -> Angles:
        """The starts of these paths, which are the first ones of a whole block."""
        stream = torch_stream(self.seed, "starts", self.first)
        return self.subject.sample(block_size(self.subject), stream)[: self.count]


@dataclass(frozen=True)
class End:
    """The end of a solve.

    Attributes:
        theta: Lifted angles at the horizon, shape ``(batch, *event)``, float64; NaN where the solve diverged.
        nfe: Drift evaluations.
    """

    theta: Angles
    nfe: int

    @classmethod
    def of(cls, solution: Solution) -> "End":
        """The end of a solution."""
        theta = solution.lifted[-1]
        return cls(theta if solution.succeeded else torch.full_like(theta, math.nan), solution.stats.nfe)


@dataclass(frozen=True)
class Solved:
    """The ends of solves from the same starts.

    Attributes:
        ends: The ends of all solves, by solver and setting.
        reference: The end of the reference, which stands in for the exact solution.
        coarse: The end of the reference with at least twice its error.
    """

    ends: list[list[End]]
    reference: End
    coarse: End

    @property
    def work(self) -> float:
        """Evaluations of the drift of one angle, in all solves."""
        solves = [self.reference, self.coarse, *(end for row in self.ends for end in row)]
        return float(sum(end.nfe * end.theta.numel() for end in solves))


@dataclass(frozen=True)
class Sample:
    """The statistics of a sample of paths.

    Attributes:
        moments: The moments of :meth:`Block.features`.
        nfe: Drift evaluations, by method and setting.
        work: Evaluations of the drift of one angle, in all.
    """

    moments: Moments
    nfe: Array
    work: float

    @classmethod
    def of(cls, block: xr.Dataset) -> "Sample":
        """The statistics of one block, from :meth:`Block.compute`."""
        arrays = (block[name].to_numpy() for name in ("mean", "scatter", "peak"))
        return cls(Moments(int(block["count"]), *arrays), block["nfe"].to_numpy(), float(block["work"]))

    def __add__(self, other: "Sample") -> "Sample":
        """Both samples together."""
        n, m = self.moments.count, other.moments.count
        return Sample(self.moments + other.moments, (n * self.nfe + m * other.nfe) / (n + m), self.work + other.work)


def simulate(block: Block, paths: int, runner: Runner | None = None) -> Sample:
    """The statistics of ``paths`` paths from the number ``block.first`` on, added in their order.

    Raises:
        ValueError: For fewer than two paths.
    """
    if paths < 2:
        raise ValueError(f"an interval needs at least 2 paths, got {paths}")
    size, last = block_size(block.subject), block.first + paths
    cells = [replace(block, first=n, count=min(size, last - n)) for n in range(block.first, last, size)]
    results = (runner or Runner()).map(cells)
    return reduce(lambda a, b: a + b, map(Sample.of, results))


def block_size(subject: Experiment) -> int:
    """How many paths a whole block has."""
    return max(1, _NORMALS // angles_per_path(subject))


def angles_per_path(subject: Experiment) -> int:
    """The number of angles per path."""
    return subject.sample(1, torch_stream(0, "checks")).numel()


def squared_distance(a: Angles, b: Angles, lifted: bool) -> Tensor:
    """The mean over the angles of a path of the squared distance, on the torus or on the lift, rad^2."""
    gap = a - b if lifted else difference(a, b)
    return gap.flatten(1).square().mean(1)

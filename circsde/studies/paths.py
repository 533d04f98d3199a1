"""Many methods and step counts on the same Brownian paths."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress, pairwise
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from circsde.noise import wiener_shape
from circsde.sde import SDE
from circsde.solvers.brownian import Brownian, BrownianPath, Noise
from circsde.solvers.grid import places
from circsde.solvers.integrate import sdeint
from circsde.solvers.methods import Method
from circsde.solvers.registry import find_method
from circsde.solvers.solution import Solution
from circsde.studies.estimates import estimate
from circsde.studies.grids import Grading, common_grid, graded_grid
from circsde.studies.monte_carlo import Block, End, Sample, Solved, angles_per_path
from circsde.studies.result import assemble
from circsde.typing import Angles

REFERENCE = {"additive": "sra1", "diagonal": "sri1w1", "scalar": "sri1w1", "general": "milstein"}
"""The method that stands in for the exact solution, by the kind of noise. Of those here that follow the path at order
one or more the closest. Of general noise whose vector fields do not commute there is none."""

_REMEMBERED = 1 << 22  # angles times steps of a path that is drawn once and remembered; longer ones are drawn anew


@dataclass(frozen=True)
class KnownPath:
    """A Brownian path that is remembered, by ``W(t)`` and its integral, to be followed many times.

    Attributes:
        grid: Increasing times.
        W: The path at those times, shape ``(times, batch, *event)``.
        area: The integral of ``W`` from the first time, same shape.
    """

    grid: tuple[float, ...]
    W: Tensor
    area: Tensor

    @classmethod
    def of(cls, path: Brownian, grid: Sequence[float]) -> "KnownPath":
        """``path`` on a ``grid`` that is coarser than its own or equal."""
        W = torch.zeros(len(grid), *path.shape, dtype=path.dtype, device=path.device)
        area = torch.zeros_like(W)
        for i, noise in enumerate(path.increments(grid, levy_area=True)):
            assert noise.dZ is not None
            area[i + 1] = area[i] + (grid[i + 1] - grid[i]) * W[i] + noise.dZ
            W[i + 1] = W[i] + noise.dW
        return cls(tuple(grid), W, area)

    def increments(self, grid: Sequence[float], *, levy_area: bool) -> Iterator[Noise]:
        """The noise over each interval of ``grid``, every point of which must be a point of the path's own grid."""
        where = "this Brownian path, which is remembered"
        for i, j in pairwise(places(grid, self.grid, where, "remember it on a grid that holds every step")):
            h = self.grid[j] - self.grid[i]
            dZ = self.area[j] - self.area[i] - h * self.W[i] if levy_area else None
            yield Noise(self.W[j] - self.W[i], dZ)


@dataclass(frozen=True)
class PathBlock(Block):
    """Methods over numbers of steps on the same Brownian paths.

    Attributes:
        methods: Names, as :func:`find_method` takes them, or methods.
        steps: Increasing numbers of steps.
        refinement: The reference takes at least this many times the largest of them.
        least: And at least as many as this.
        grading: The grading of the grids on which all of them step, see :func:`~circsde.studies.grids.graded_grid`.
    """

    methods: tuple[str | Method, ...]
    steps: tuple[int, ...]
    refinement: int
    least: int = 0
    grading: Grading = 1.0

    @property
    def reference(self) -> int:
        """Steps of the reference solution, an even number and a multiple of all ``steps`` where one is near."""
        wanted = max(self.refinement * self.steps[-1], self.least)
        even = 2 * math.lcm(*self.steps)
        multiple = even * math.ceil(wanted / even)
        return multiple if multiple <= 2 * wanted else 2 * math.ceil(wanted / 2)

    @property
    def standard(self) -> str:
        """The method of the reference."""
        return REFERENCE[self.subject.sde.noise]

    def method(self, method: str | Method) -> Method:
        """The form of a method for the equation."""
        return find_method(method, self.subject.sde)

    @property
    def solvers(self) -> list[str]:
        """The names of the methods."""
        return [method_name(method) for method in self.methods]

    @property
    def settings(self) -> tuple[int, ...]:
        """The numbers of steps."""
        return self.steps

    def describe(self) -> str:
        """The methods and steps, as text."""
        return f"{self.solvers} {self.steps} {self.reference} {self.grading}"

    def content(self) -> object:
        """The methods themselves, and the method of the reference."""
        return [self.method(method) for method in (*self.methods, self.standard)]

    def cost(self) -> float:
        """Evaluations of the drift of one angle that a path takes, in all solves."""
        sde, reference = self.subject.sde, self.method(self.standard)
        solves = sum(self.method(method).evaluations(sde) for method in self.methods) * sum(self.steps)
        again = reference.evaluations(sde) * (self.reference + self.reference // 2)
        return float(angles_per_path(self.subject) * (solves + again))

    def narrow(self, solvers: Sequence[bool], settings: Sequence[bool]) -> "PathBlock":
        """Only some of the methods and steps."""
        return replace(
            self, methods=tuple(compress(self.methods, solvers)), steps=tuple(compress(self.steps, settings))
        )

    def tabulate(self, sample: Sample, confidence: float, target: float | None = None) -> xr.Dataset:
        """The errors, costs and orders."""
        errors, details = estimate(self.metric, sample.moments, self.subject, confidence, target)
        return assemble(
            self.metric,
            self.subject,
            [self.method(method) for method in self.methods],
            self.steps,
            sample.nfe,
            errors,
            details,
            evidence="Monte Carlo",
            paths=sample.moments.count,
            seed=self.seed,
            confidence=confidence,
            reference=f"{self.standard}, {self.reference} steps",
        )

    def solve(self) -> Solved:
        """Every method and step count, and the reference, on the same starts and Brownian paths."""
        sde = self.subject.sde
        theta = self.starts()
        common = common_grid(sde.horizon, self.steps, self.grading)
        fine = common_grid(sde.horizon, (*self.steps, self.reference), self.grading)
        path = Brownian(fine, wiener_shape(sde, theta), self.seed, theta.dtype, theta.device, self.first)
        fits = theta.numel() * len(fine) <= _REMEMBERED
        known = KnownPath.of(path, fine if fits else common)
        followed = known if fits else path

        def solve(method: str | Method, n: int, path: BrownianPath) -> End:
            return end(sde, theta, method, graded_grid(sde.horizon, n, self.grading), path)

        exact, coarse = (solve(self.standard, n, followed) for n in (self.reference, self.reference // 2))
        methods = [self.method(method) for method in self.methods]
        return Solved([[solve(method, n, known) for n in self.steps] for method in methods], exact, coarse)


def end(sde: SDE, theta: Angles, method: str | Method, grid: Sequence[float], path: BrownianPath) -> End:
    """The end of a solve over the horizon on one path."""
    return End.of(solve_on(sde, theta, method, grid, brownian=path))


def solve_on(sde: SDE, theta: Angles, method: str | Method, grid: Sequence[float], **noise: Any) -> Solution:
    """Solve over the horizon without warnings of unstable steps, whose error the study measures."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".* is unstable where rate times step", RuntimeWarning)
        return sdeint(sde, theta, (0.0, sde.horizon), method=method, grid=grid, on_failure="return", **noise)


def method_name(method: str | Method) -> str:
    """The name of a method in tables."""
    return method.name if isinstance(method, Method) else method

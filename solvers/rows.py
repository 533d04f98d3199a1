"""The samples of a solve by compiled loops, shared among threads."""

import math
import sys
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circsde.coupling import GlobalCoupling, LocalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.solvers import kernels, stages
from circsde.solvers.brownian import Brownian
from circsde.solvers.philox import RUN
from circsde.solvers.schemes import Scheme
from circsde.streams import key
from circsde.threads import share
from circsde.torus import half_open_bounds

_LONG = 1 << 16  # oscillators from which on samples go step by step, so that threads can share one
_BESIDE_TORCH = 32  # times as many as usual, where torch's threads wait on their cores for milliseconds in between


@cache
def announce_compilation() -> None:
    """Print once, on a terminal, that the first solve of an installation waits for the compiler."""
    compiled = getattr(stages.walk, "stats", None)
    if compiled is None or not sys.stderr.isatty():
        return
    if not any(Path(compiled.cache_path).glob("stages.walk-*.nbi")):  # the index of what numba has kept
        sys.stderr.write("circsde compiles its loops for this machine, which takes about 20 seconds, once\n")


class Rows:
    """The samples of a solve, as the loops take them."""

    def __init__(
        self,
        sde: KuramotoSDE,
        scheme: Scheme,
        numbers: tuple[Tensor, Tensor, Tensor],
        path: Brownian,
        theta: Tensor,
        winding: Tensor,
    ) -> None:
        announce_compilation()
        self.sde, self.path, self.shape, self.n = sde, path, theta.shape, theta[0].numel()
        self.theta, self.turns = theta.view(-1).numpy(), winding.view(-1).numpy()
        self.real = np.dtype(np.float32 if path.dtype == torch.float32 else np.float64)
        self.equation, self.rows = self._equation(scheme), kernels.rows_in_tile(self.n)
        self.block = RUN if self.n >= RUN else self.rows * self.n  # oscillators that are worked on at a time
        self.numbers = [table.numpy() for table in numbers]

    def steps(self, a: int, b: int, begins: int) -> Any:
        """Take the steps ``a`` to ``b`` with all samples; of each, in which step after ``a`` it was lost, or -1.

        The first of all steps is step ``begins`` of the path.
        """
        lost = np.full(self.shape[0], -1)
        numbers, sample = (
            stages.Steps(*(x[a:b].astype(self.real) for x in self.numbers)),
            np.uint64(self.path.first_sample),
        )

        def walk(first: int, last: int) -> None:
            at = first, last, sample, np.uint64(begins + a)
            room = self._room(self.rows)
            stages.walk(self.theta, self.turns, lost, room, self.equation, numbers, self.rows, *at)

        def one_by_one(first: int, last: int) -> None:
            for row in range(first, last):
                self._step_by_step(row, row + 1, numbers, begins + a, lost, 1 if together else math.inf)

        samples, cost, together = self.shape[0], self.n * (b - a), self.shape[0] < torch.get_num_threads()
        if self.equation.listens == stages.GIVEN:
            self._step_by_step(0, samples, numbers, begins + a, lost, _BESIDE_TORCH)
        elif self.n < _LONG:
            share(walk, samples, self.rows, cost)
        elif together:
            one_by_one(0, samples)
        else:
            share(one_by_one, samples, 1, cost)
        return lost

    def _step_by_step(self, first: int, last: int, numbers: Any, step: int, lost: Any, least: float) -> None:
        """Take them with some samples, stage by stage; threads share each as :func:`~circsde.threads.share` does."""
        eq, room, theta = self.equation, self._room(last - first), self.theta[first * self.n : last * self.n]
        sample = np.uint64(self.path.first_sample + first)
        for i in range(len(numbers.rates)):
            far = 0
            for number in (0, 1, 2) if eq.two else (0, 2):
                far += self._sweep(theta, room, number, numbers, i, sample, np.uint64(step + i), least)
                if eq.listens != stages.GIVEN:
                    stages.fields(len(theta), room, eq, number, numbers, i)
                elif number < 2:
                    self._listen(room, number, numbers.rates[i, number])
            if far and not stages.unwind(self.theta, self.turns, lost, self.n, first, last, i, eq.limit):
                return

    def _sweep(
        self, theta: Any, room: Any, number: int, numbers: Any, i: int, sample: Any, step: Any, least: float
    ) -> int:
        """A stage, or the end of a step, by all threads: several samples, or parts of one."""
        far = list[int]()

        samples = len(theta) // self.n

        def part(a: int, b: int) -> None:
            own = room._replace(block=np.empty(4 * self.block, self.real), work=kernels.scratch(self.real))
            rows = (self.rows, a, b, 0, self.n) if samples > 1 else (1, 0, 1, a, b)
            far.append(stages.sweep_rows(theta, own, self.equation, number, numbers, i, *rows, sample, step))

        count, grain = (samples, self.rows) if samples > 1 else (self.n, RUN)
        share(part, count, grain, len(theta) // count, least=least)
        return sum(far)

    def _listen(self, room: Any, number: int, rates: Any) -> None:
        """Fill in the field at a stage by the coupling's own method ``field``."""
        kept = torch.from_numpy(room.kept)
        both = [kept[own + number * room.size :][: room.size].view(self.shape) for own in (room.cos, room.sin)]
        for part, (mean, direction) in enumerate(zip(self.sde.coupling.field(*both), self.equation.psi, strict=True)):
            lean = torch.from_numpy(rates[1] * direction).view(self.shape[1:])
            field = kept[room.field + (2 * number + part) * room.size :][: room.size]
            field.view(self.shape).copy_(mean).mul_(float(rates[0])).add_(lean)

    def _equation(self, scheme: Scheme) -> Any:
        """The numbers that do not change from step to step."""
        sde, coupling, path = self.sde, self.sde.coupling, self.path
        kinds = {NoCoupling: stages.FREE, GlobalCoupling: stages.MEAN, LocalCoupling: stages.WINDOW}
        listens = stages.GIVEN if coupling.lagged else kinds.get(type(coupling), stages.GIVEN)
        psi = sde.reference_phase.detach().double().numpy()
        each = listens in (stages.WINDOW, stages.GIVEN) or bool(psi.ndim) or sde.rotates
        if each:
            psi = np.broadcast_to(psi, self.shape[1:])
        return stages.Equation(
            n=self.n,
            listens=listens,
            each=each,
            window=self._window(),
            psi=tuple(f(psi).reshape(-1).astype(self.real) for f in (np.cos, np.sin)),
            two=len(scheme.stages) == 2,
            early=scheme.early,
            area=scheme.area,
            keys=np.array([kernels.halves(key(path.seed, path.purpose, kind)) for kind in range(2)]),
            limit=1.0 / torch.finfo(path.dtype).eps,
        )

    def _window(self) -> tuple[Any, ...]:
        """Images in a sample, their rows and columns, the radius, whether edges reflect, and one over the width."""
        coupling = self.sde.coupling
        if not isinstance(coupling, LocalCoupling):
            return 1, 1, 1, 0, False, self.real.type(1.0)
        rows, columns = (1, *self.shape[1:])[-2:]
        weight = self.real.type(1.0 / (2 * coupling.radius + 1))
        return self.n // (rows * columns), rows, columns, coupling.radius, coupling.boundary == "reflecting", weight

    def _room(self, rows: int) -> Any:
        """Memory in which some samples are worked on."""
        eq, size = self.equation, rows * self.n
        stage_count, apart = 2 if eq.two else 1, size if eq.each else rows
        lengths = {
            "cos": stage_count * size,
            "sin": stage_count * size,
            "field": 4 * apart,
            "frequency": size if eq.each else 0,
            "normals": (1 + eq.area) * size if eq.two else 0,
        }
        begins = [0, *accumulate(lengths.values())]
        room = stages.Room(
            kept=np.empty(begins[-1], self.real),
            size=size,
            **dict(zip(lengths, begins, strict=False)),
            apart=apart,
            block=np.empty(4 * self.block, self.real),
            sums=np.empty(2 * max(rows, -(-self.n // RUN))),
            images=np.empty(3 * self._surrounded(), self.real),
            work=kernels.scratch(self.real),
            k=kernels.constants(self.real),
        )
        if eq.each:
            frequency = self.sde.natural_frequency.detach().double().expand(self.shape[1:]).reshape(-1)
            room.kept[room.frequency :][:size] = np.tile(frequency.numpy(), rows)
        return room

    def _surrounded(self) -> int:
        """The most oscillators of an image together with the surroundings that a window sees."""
        _, rows, columns, radius, *_ = self.equation.window
        return max(rows * (columns + 2 * radius), (rows + 2 * radius) * columns) if radius else 0


def write_reduced(theta: Tensor, winding: Tensor | None, angles: Tensor, turns: Tensor) -> None:
    """Write the result of :func:`circsde.solvers.lift.reduce` in float32 or float64; angles alone into float64."""
    low, high = half_open_bounds(angles.dtype)
    x, z, w = (x.detach().contiguous().view(-1).numpy() for x in (theta, angles, turns))
    before, taken = (z, w) if winding is None else (x, winding.view(-1).numpy())

    def part(a: int, b: int) -> None:
        if winding is None:  # reduced in place, as long as it is in the cache
            np.copyto(z[a:b], x[a:b])
            w[a:b] = 0
        stages.reduce(before[a:b], taken[a:b], z[a:b], w[a:b], low, high)

    share(part, theta.numel(), RUN, 1)

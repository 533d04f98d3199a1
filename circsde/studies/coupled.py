"""Recipes for a trained model, measured on the same paths, with the starts, noise and score of its sampling."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from circsde.contracts import Sampled
from circsde.matching.chain import Chain
from circsde.models.guidance import Conditioned
from circsde.models.training import Trained
from circsde.sampling.generate import draw
from circsde.sampling.reverse import Recipe, run_reverse
from circsde.sampling.trained import class_labels, event_shape, samples_at_once
from circsde.solvers.brownian import Noise
from circsde.solvers.solution import SolveError
from circsde.streams import key, torch_stream
from circsde.studies.statistics import Array, quantile
from circsde.studies.trained_observables import Observables, observables
from circsde.typing import Angles, Field

REFINEMENT = 2
"""Ratio of the steps of the reference to those of the coarser one that bounds its error."""


class NoiseClock:
    r"""The noise of a reversed equation by a clock that runs with the variance of that noise, from 0 to 1.

    A Brownian path of this clock is remembered where it was asked for, and drawn elsewhere given its neighbours, as a
    Brownian bridge. Over a step of length ``h`` and of width ``w`` by the clock, with the path's increment ``dB``, the
    noise is ``dW = (h / w)^(1/2) dB``: of variance ``h``, as a method expects, but so that ``(variance / h)^(1/2) dW``
    is the same noise on every grid. With a path in time, a long step over which the noise grows would follow another
    noise than short ones. ``dZ`` given ``dW`` is drawn afresh each time.

    Args:
        clock: The share of the variance that is added up to a time of the reversed equation.
        shape: ``(batch, *event)``.
        generator: The generator of the path.
        like: A tensor of the dtype and on the device of the noise.
    """

    def __init__(
        self, clock: Callable[[float], float], shape: Sequence[int], generator: torch.Generator, like: Tensor
    ) -> None:
        self.clock, self.shape, self.generator, self.like = clock, tuple(shape), generator, like
        self.marks, self.values = [0.0, 1.0], [torch.zeros(self.shape).to(like), self._normals()]

    def increments(self, grid: Sequence[float], *, levy_area: bool) -> Iterator[Noise]:
        """The noise over each interval of ``grid``."""
        for t0, t1 in pairwise(grid):
            v0, v1, h = self.clock(t0), self.clock(t1), t1 - t0
            dW = (self._at(v1) - self._at(v0)) * (h / (v1 - v0)) ** 0.5
            yield Noise(dW, 0.5 * h * dW + (h**3 / 12.0) ** 0.5 * self._normals() if levy_area else None)

    def _at(self, v: float) -> Tensor:
        i = bisect_left(self.marks, v)
        if self.marks[i] != v:
            (a, b), (left, right) = self.marks[i - 1 : i + 1], self.values[i - 1 : i + 1]
            part = (v - a) / (b - a)
            between = torch.lerp(left, right, part) + ((v - a) * (1.0 - part)) ** 0.5 * self._normals()
            self.marks.insert(i, v)
            self.values.insert(i, between)
        return self.values[i]

    def _normals(self) -> Tensor:
        return torch.randn(self.shape, generator=self.generator, dtype=self.like.dtype).to(self.like.device)


@dataclass(frozen=True)
class Error:
    """How far the means of observables lie from those of a reference.

    Attributes:
        value: The largest distance.
        lower: The lower end of its interval.
        upper: The upper end of its interval.
        standard_error: The standard error of the observable that is farthest off.
        observable: The name of that observable.
        nfe: Evaluations of the score per sample.
        paths: How many were compared.
    """

    value: float
    lower: float
    upper: float
    standard_error: float
    observable: str
    nfe: float
    paths: int


@dataclass
class Paths:
    """Samples ``first`` to ``first + count`` of a trained model, drawn by any recipe along the same paths.

    References are made once for each stochasticity: Heun's method with ``steps`` steps, and with half of them, whose
    distance bounds the error of the finer one where halving the step at least halves it.

    Attributes:
        model: The model.
        start: The law that samples start from.
        first: The index of the first sample.
        count: How many.
        seed: The seed of starts and paths.
        steps: The steps of references.
        device: The device on which the network runs.
        denoise: Whether the last step is without noise.
        spent: Evaluations of the score per sample so far.
        progress: Called with them at each step of a solve; what it raises ends the measurement.
    """

    model: Trained
    start: Sampled
    first: int
    count: int
    seed: int
    steps: int
    device: str | torch.device = "cpu"
    denoise: bool = True
    progress: Callable[[float], object] | None = None
    spent: float = 0.0
    _references: dict[float, tuple[Array, Array]] = field(default_factory=dict)
    _noises: dict[int, NoiseClock] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Draw the starts."""
        self.observed: Observables = observables(self.model)
        self.model.sde.to(self.device)
        self.network = self.model.network.to(self.device)
        self.labels = class_labels(self.model.about.get("classes") or {}, self.count, first_sample=self.first)

    def measure(self, recipe: Recipe, level: float, comparisons: int = 1) -> Error:
        """The distance of a recipe from the reference of its own stochasticity.

        Args:
            recipe: The recipe.
            level: The level of the interval, for all observables together.
            comparisons: How many such intervals are to cover together.
        """
        exact, bound = self.reference(0.0 if recipe.flow is not None else recipe.stochasticity)
        values, nfe = self.observe(recipe)
        return self._error(values - exact, bound, level, comparisons, nfe)

    def apart(self, stochasticity: float, other: float, level: float) -> Error:
        """The distance between the limits of two stochasticities, which are apart only for a learnt score."""
        (a, bound_a), (b, bound_b) = self.reference(stochasticity), self.reference(other)
        return self._error(a - b, bound_a + bound_b, level, 1, 0.0)

    def reference(self, stochasticity: float) -> tuple[Array, Array]:
        """Observables of each sample in the limit of small steps, and a bound on the error of their means."""
        if stochasticity not in self._references:
            fine = Recipe("heun", self.steps, stochasticity=stochasticity, denoise=self.denoise)
            coarse = replace(fine, n_steps=max(2, self.steps // REFINEMENT))
            exact, rough = self.observe(fine)[0], self.observe(coarse)[0]
            self._references[stochasticity] = exact, np.abs((exact - rough).mean(0))
        return self._references[stochasticity]

    @torch.no_grad()
    def observe(self, recipe: Recipe) -> tuple[Array, float]:
        """Observables of each sample, NaN where the solve failed, and evaluations of the score."""
        chain, size = self.model.chain, samples_at_once(self.model)
        parts, nfe = [], 0.0
        for first in range(0, self.count, size):
            count = min(size, self.count - first)
            theta, evaluations = self._ends(chain, recipe, first, count)
            parts.append(theta)
            nfe += evaluations * count / self.count
            self.spent += evaluations * count / self.count
            self._tell()
        return np.concatenate(parts), nfe

    def _tell(self, _steps: int = 0) -> None:
        if self.progress is not None:
            self.progress(self.spent)

    def _ends(self, chain: Chain, recipe: Recipe, first: int, count: int) -> tuple[Array, float]:
        shape = event_shape(self.model)
        theta: Angles = draw(self.start, shape, key(self.seed, "starts"), self.first + first, count).to(
            self.device, torch.float32
        )
        score: Field = self.network
        if self.labels is not None:
            score = Conditioned(self.network, self.labels[first : first + count].to(self.device))
        if first not in self._noises:
            stream = torch_stream(self.seed, "backward", self.first + first)
            self._noises[first] = NoiseClock(self._clock, theta.shape, stream, theta)
        try:
            path = self._noises[first]
            solution = run_reverse(chain, score, theta, recipe, seed=0, brownian=path, progress=self._tell)
        except SolveError as error:
            return np.full((count, len(self.observed.names)), math.nan), error.solution.stats.nfe
        seen: Tensor = self.observed.values(solution.theta[-1])
        return seen.cpu().numpy(), solution.stats.nfe

    def _clock(self, s: float) -> float:
        """The share of the noise variance that the reversed equation has added by its time ``s``."""
        sde = self.model.sde
        left, whole = (float(torch.as_tensor(sde.variance(0.0, t)).mean()) for t in (sde.horizon - s, sde.horizon))
        return 1.0 - left / whole

    def _error(self, apart: Array, bound: Array, level: float, comparisons: int, nfe: float) -> Error:
        n, k = apart.shape
        mean = np.abs(apart.mean(0))
        if not np.isfinite(mean).all():
            return Error(math.inf, math.inf, math.inf, math.nan, "not finite", nfe, n)
        spread = apart.std(0, ddof=1) / math.sqrt(n)
        reach = quantile(level, n, k * comparisons) * spread + bound
        worst = int(mean.argmax())
        lower, upper = max(0.0, float((mean - reach).max())), float((mean + reach).max())
        return Error(float(mean[worst]), lower, upper, float(spread[worst]), self.observed.names[worst], nfe, n)

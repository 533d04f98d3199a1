"""How to sample a trained model: the fewest evaluations of its score that meet a tolerance, or the best of a number."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import xarray as xr

from circsde.contracts import Sampled
from circsde.matching.chain import Chain
from circsde.models.training import Trained
from circsde.record import provenance
from circsde.sampling.reverse import Recipe
from circsde.sampling.trained import event_shape, samples_at_once
from circsde.studies.coupled import Error, Paths
from circsde.studies.recipe_choice import RecipeChoice, tabulated
from circsde.studies.samplers import is_adaptive, label, samplers, with_evaluations

RUNGS = tuple(sorted({*(6 * 2**k for k in range(7)), *(8 * 2**k for k in range(7))}))
"""Evaluations at which candidates are compared, 6, 8, 12, 16, ..., 512."""

PILOT = 256
"""Samples on which candidates are compared first; fewer of images."""

MOST = 32
"""So many times the pilot's samples are spent at most on one look at a candidate."""

_SCREEN = 12  # evaluations at which the spacing of each method is chosen
_REFERENCE = 48  # steps of references at first
_FINEST = 1024
_TRIED = 2  # candidates that are looked at again at each rung
_KEPT = 4  # candidates that are looked at again where a number of evaluations is given
_WORSE = 4.0  # candidates with this many times the error of the best are dropped
_NEAR = 0.1  # the relative accuracy to which the fewest evaluations are searched for


class _Stopped(Exception):
    """Raised to end the search with what is certain so far."""


@dataclass
class _Search:
    """The state of a search: what was seen, which samples are fresh, and the last recipe that holds on such."""

    model: Trained
    start: Sampled
    seed: int
    confidence: float
    device: str | torch.device
    pilot: int
    told: Callable[..., object]
    stop: Callable[[], bool] = lambda: False
    steps: int = _REFERENCE
    spent: float = 0.0
    looks: int = 0
    used: int = 0
    rows: list[tuple[Recipe, Error, bool]] = field(default_factory=list)
    certain: tuple[Recipe, Error] | None = None

    def paths(self, count: int) -> Paths:
        """Samples that have not been used for any comparison yet."""
        before, first = self.spent, self.used
        self.used += count

        def progress(done: float) -> None:
            self.spent = before + done
            self.told(round(self.spent))
            if self.stop():
                raise _Stopped

        denoise = len(event_shape(self.model)) > 1
        return Paths(self.model, self.start, first, count, self.seed, self.steps, self.device, denoise, progress)

    def seen(self, paths: Paths, recipe: Recipe, level: float, comparisons: int = 1, *, fresh: bool = False) -> Error:
        """Measure the error of a recipe, and note it."""
        error = paths.measure(recipe, level, comparisons)
        self.rows.append((recipe, error, fresh))
        return error

    def certify(self, recipe: Recipe, tolerance: float) -> Error | None:
        """The error on fresh samples, four times as many at each look, if it is within the tolerance.

        Look ``i`` of all looks spends ``6 / (pi i)^2`` of the error probability, so that all of them hold together.
        """
        count = 2 * self.pilot
        while count <= MOST * self.pilot:
            self.looks += 1
            level = 1.0 - (1.0 - self.confidence) * 6.0 / (math.pi * self.looks) ** 2
            paths = self.paths(count)
            error = self.seen(paths, recipe, level, fresh=True)
            if error.upper <= tolerance:
                self.certain = recipe, error
                return error
            if error.lower > tolerance:
                return None
            bound = float(paths.reference(0.0 if recipe.flow is not None else recipe.stochasticity)[1].max())
            if bound > 0.25 * tolerance and self.steps < _FINEST:
                self.steps *= 2
            else:
                count *= 4
        return None


def select_recipe(
    model: Trained,
    start: Sampled,
    tolerance: float | None = None,
    *,
    nfe: int | None = None,
    candidates: Sequence[Recipe] | None = None,
    pilot: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[..., object] | None = None,
    stop: Callable[[], bool] | None = None,
) -> RecipeChoice:
    """The cheapest recipe whose means of observables are within a tolerance, or the best of ``nfe`` evaluations.

    The error of a recipe is the largest distance between the means of the observables
    (:mod:`circsde.studies.trained_observables`) of its samples and of those in the limit of small steps, with the same
    score, stochasticity, starts and noise. It says nothing of the score itself. Where the limits of two stochasticities
    are apart, which only a learnt score leaves, that distance, as far as it is certain, is added to the error of those
    below the largest.

    Candidates are compared on pilot samples, the spacings of each method on a quarter of them at 12 evaluations, then
    all at 6, 8, 12, 16, ... evaluations. The first that seem to meet the tolerance are looked at again on fresh
    samples, which decide; then fewer evaluations are tried, to a tenth.

    Args:
        model: A model of phases.
        start: The law that it starts sampling from.
        tolerance: The largest error that is accepted.
        nfe: Evaluations of the score that may be spent on a sample, instead of a tolerance.
        candidates: By default those of :func:`circsde.studies.samplers.samplers`.
        pilot: Samples to compare candidates on; by default 256, fewer of images.
        confidence: The probability with which the error of the choice is below its upper bound.
        seed: The seed of starts and noise.
        device: The device on which the network runs.
        progress: Called with the evaluations so far, and with what is done next as ``now``.
        stop: Asked at each step of a solve; once it is true, the search ends with what is certain so far.

    Raises:
        ValueError: If there is neither a tolerance nor a number of evaluations, or both; for a model of values along
            the standard diffusion; if no candidate can do with ``nfe`` evaluations.
    """
    if (tolerance is None) == (nfe is None):
        raise ValueError(f"give a tolerance or a number of evaluations nfe, got {tolerance} and {nfe}")
    if tolerance is not None and not 0.0 < tolerance < math.inf:
        raise ValueError(f"the tolerance must be positive and finite, got {tolerance}")
    if not isinstance(model.process, Chain):
        raise ValueError("samplers are chosen for models of phases, and this is one of the standard diffusion")
    offered = samplers(model) if candidates is None else list(candidates)
    pilot = min(PILOT, samples_at_once(model)) if pilot is None else pilot
    search = _Search(model, start, seed, confidence, device, pilot, progress or (lambda *_, **__: None))
    search.stop, stopped = stop or search.stop, False
    try:
        if nfe is not None:
            recipe, error = _best_of(search, offered, nfe)
        else:
            assert tolerance is not None
            recipe, error = _cheapest(search, offered, tolerance)
    except _Stopped:
        (recipe, error), stopped = search.certain or (None, None), True
    verdict = "not resolved" if recipe is None else "resolved"
    attrs = provenance(tolerance=tolerance, nfe=nfe, confidence=confidence, seed=seed, pilot=pilot, device=str(device))
    return RecipeChoice(recipe, error, verdict, tabulated(search.rows, verdict=verdict, **attrs), stopped)


def _best_of(search: _Search, offered: Sequence[Recipe], nfe: int) -> tuple[Recipe | None, Error | None]:
    """The candidate that has the least upper bound on fresh samples at that number of evaluations."""
    search.told(0, now=f"compare samplers of {nfe} evaluations")
    pilot = search.paths(search.pilot)
    sized = [one if is_adaptive(one) else with_evaluations(one, search.model, nfe) for one in offered]
    found = [(one, search.seen(pilot, one, search.confidence)) for one in sized if one is not None]
    found = [(one, error) for one, error in found if error.nfe <= nfe and error.value < math.inf]
    if not found:
        raise ValueError(f"no sampler on offer does with {nfe} evaluations: allow more")
    apart = _apart(pilot, [one for one, _ in found], search.confidence)
    found.sort(key=lambda pair: pair[1].value + apart[_level(pair[0])])
    best = [one for one, _ in found[:_KEPT]]
    search.told(round(search.spent), now=f"compare {len(best)} of them on more samples")
    fresh = search.paths(MOST // 4 * search.pilot)
    again = [(one, search.seen(fresh, one, search.confidence, len(best), fresh=True)) for one in best]
    return min(again, key=lambda pair: pair[1].upper + apart[_level(pair[0])])


def _cheapest(search: _Search, offered: Sequence[Recipe], tolerance: float) -> tuple[Recipe | None, Error | None]:
    """The first candidate that holds on fresh samples, and then fewer evaluations of it."""
    search.told(0, now=f"compare {len(offered)} samplers of {_SCREEN} evaluations")
    few = search.paths(max(2, search.pilot // 4))
    fixed = _best_spacings(search, few, [one for one in offered if not is_adaptive(one)])
    adaptive = [one for one in offered if is_adaptive(one)]
    search.told(round(search.spent), now="small steps, for reference")
    pilot = search.paths(search.pilot)
    apart = _apart(pilot, offered, search.confidence)
    waiting, before = list[tuple[Recipe, Error]](), 0
    for rung in RUNGS:
        search.told(round(search.spent), now=f"{rung} evaluations")
        if rung > 2 * _SCREEN and adaptive:
            waiting += [(one, search.seen(pilot, one, search.confidence)) for one in adaptive]
            adaptive = []
        sized = [(one, with_evaluations(one, search.model, rung)) for one in fixed]
        found = [(one, search.seen(pilot, one, search.confidence)) for _, one in sized if one is not None]
        if found:
            least = min(error.upper for _, error in found)
            bad = {label(one) for one, error in found if error.lower > _WORSE * least}
            fixed = [one for one in fixed if label(one) not in bad]
        due = [pair for pair in waiting if pair[1].nfe <= rung]
        waiting = [pair for pair in waiting if pair[1].nfe > rung]
        seeming = [
            (one, error)
            for one, error in found + due
            if error.value - error.standard_error + apart[_level(one)] <= tolerance
        ]
        for one, _ in sorted(seeming, key=lambda pair: pair[1].value)[:_TRIED]:
            search.told(round(search.spent), now=f"{rung} evaluations of {label(one)}")
            error = search.certify(one, tolerance - apart[_level(one)])
            if error is not None:
                return _fewer(search, one, error, before, tolerance - apart[_level(one)])
        before = rung
    return None, None


def _best_spacings(search: _Search, pilot: Paths, offered: Sequence[Recipe]) -> list[Recipe]:
    """Keep the candidate of least error among those that differ only in their spacing."""
    best = dict[tuple[object, ...], tuple[float, Recipe]]()
    for one in offered:
        sized = with_evaluations(one, search.model, _SCREEN)
        error = math.inf if sized is None else search.seen(pilot, sized, search.confidence).value
        same = (one.method, one.flow, one.stochasticity)
        if same not in best or error < best[same][0]:
            best[same] = error, one
    return [one for _, one in best.values()]


def _fewer(search: _Search, recipe: Recipe, error: Error, low: float, tolerance: float) -> tuple[Recipe, Error]:
    """The fewest evaluations of a sampler that hold, above ``low``, by bisection."""
    while not is_adaptive(recipe) and (high := round(error.nfe)) - low > max(1.0, _NEAR * high):
        middle = int(0.5 * (low + high))
        tried = with_evaluations(recipe, search.model, middle)
        if tried is None or tried.n_steps == recipe.n_steps:
            break
        search.told(round(search.spent), now=f"{middle} evaluations of {label(tried)}")
        found = search.certify(tried, tolerance)
        if found is None:
            low = middle
        else:
            recipe, error = tried, found
    return recipe, error


def _level(recipe: Recipe) -> float:
    """The stochasticity: zero along the flow."""
    return 0.0 if recipe.flow is not None else recipe.stochasticity


def _apart(pilot: Paths, offered: Sequence[Recipe], level: float) -> dict[float, float]:
    """For each stochasticity, how far its limit certainly is from that of the largest one."""
    levels = sorted({_level(one) for one in offered})
    return {one: pilot.apart(one, levels[-1], level).lower if one < levels[-1] else 0.0 for one in levels}


def study_recipes(
    model: Trained,
    start: Sampled,
    evaluations: Sequence[int] = (8, 16, 32, 64),
    *,
    candidates: Sequence[Recipe] | None = None,
    paths: int = PILOT,
    confidence: float = 0.95,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[..., object] | None = None,
) -> xr.Dataset:
    """The errors of samplers of a trained model at several numbers of evaluations, on the same paths.

    Arguments and errors are those of :func:`select_recipe`; the reference takes four times the largest number.

    Returns:
        As ``dataset`` of :class:`RecipeChoice`.
    """
    if not isinstance(model.process, Chain):
        raise ValueError("samplers are studied for models of phases, and this is one of the standard diffusion")
    offered = samplers(model) if candidates is None else list(candidates)
    search = _Search(model, start, seed, confidence, device, paths, progress or (lambda *_, **__: None))
    search.steps = max(_REFERENCE, 2 * max(evaluations))
    drawn = search.paths(paths)
    for number in evaluations:
        for one in offered:
            sized = with_evaluations(one, model, number) if not is_adaptive(one) else None
            if sized is not None:
                search.seen(drawn, sized, confidence)
    for one in offered:
        if is_adaptive(one):
            search.seen(drawn, one, confidence)
    return tabulated(search.rows, **provenance(evaluations=list(evaluations), paths=paths, seed=seed))

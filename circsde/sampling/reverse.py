"""From the horizon back to data, one batch of angles of any event shape: by the reverse equation or along its flow."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from circsde.matching.chain import Chain
from circsde.sde import reverse
from circsde.solvers.brownian import BrownianPath
from circsde.solvers.correctors import clamped, denoised, langevin
from circsde.solvers.flow import odeint
from circsde.solvers.grid import resolution
from circsde.solvers.integrate import sdeint
from circsde.solvers.methods import Method
from circsde.solvers.registry import find_method
from circsde.solvers.solution import Solution, SolveError, Status
from circsde.solvers.trajectory import ADAPTIVE
from circsde.torus import TWO_PI, wrap
from circsde.typing import Angles, Field
from circsde.velocity import probability_flow


class Spacing(StrEnum):
    """The variable in which the steps of the reverse equation are even."""

    INDEX = "index"
    TIME = "time"
    LOG_NOISE = "log-noise"


@dataclass(frozen=True)
class Recipe:
    """How to sample a model: the method, the steps and their spacing, and the noise.

    Attributes:
        method: The method of the reverse SDE, a name in ``circsde.solvers.METHODS`` or a method; by default heun.
        n_steps: Steps from the horizon to time 0.
        spacing: In what they are even: the index of the chain that the score was trained along, time, or the logarithm
            of the noise variance down to that of the chain's first step.
        stochasticity: ``l`` of eq. (4).
        signal_to_noise: The signal-to-noise ratio of a Langevin step before each step; 0 for none. See
            :func:`circsde.solvers.correctors.langevin`.
        denoise: Make the last step, to time 0, without noise: the mean of the data given the state before.
        flow: Follow the probability flow instead, by this method of :func:`circsde.odeint`; an adaptive one chooses
            its own steps.
        atol: The tolerance of an adaptive flow, rad; by default 1e-4.

    Raises:
        ValueError: If there are too few steps, or a setting has no effect beside the others: a method, noise or
            Langevin steps along a flow, or a tolerance where no step is chosen by it.
    """

    method: str | Method | None = None
    n_steps: int = 100
    spacing: Spacing = Spacing.INDEX
    stochasticity: float = 1.0
    signal_to_noise: float = 0.0
    denoise: bool = True
    flow: str | None = None
    atol: float | None = None

    def __post_init__(self) -> None:
        """Refuse too few steps, and what cannot be combined or would have no effect."""
        if self.n_steps < 1 + self.denoise:
            raise ValueError(f"n_steps must be at least {1 + self.denoise}, got {self.n_steps}")
        if self.flow is not None and self.signal_to_noise:
            raise ValueError("a probability flow takes no Langevin steps: leave out flow or signal_to_noise")
        if self.flow is not None and self.method is not None:
            method = self.method if isinstance(self.method, str) else self.method.name
            raise ValueError(f"{method} steps the reverse SDE and {self.flow} follows its flow: leave out one of them")
        if self.flow is not None and self.stochasticity not in (0.0, 1.0):
            raise ValueError(f"a probability flow has no noise, got stochasticity={self.stochasticity:g}: leave it out")
        if self.atol is not None and self.flow not in ADAPTIVE:
            raise ValueError(
                f"atol is the tolerance of an adaptive flow, one of {', '.join(ADAPTIVE)}, got flow={self.flow!r}:"
                " leave it out, or choose such a flow"
            )

    @property
    def tolerance(self) -> float:
        """The tolerance of an adaptive flow, rad."""
        return 1e-4 if self.atol is None else self.atol


class Known(NamedTuple):
    """The angles of a batch that are given.

    Attributes:
        mask: Which angles of a sample, shape ``event``.
        path: Their forward path.
    """

    mask: Tensor
    path: Solution


def reverse_times(chain: Chain, n_steps: int, spacing: Spacing = Spacing.INDEX) -> list[float]:
    """``n_steps + 1`` forward times from the horizon down to 0.

    None lies between 0 and the end of the chain's first step, where a score that was trained along it has seen nothing.

    >>> from circsde.kuramoto import KuramotoSDE
    >>> chain = Chain.geometric(KuramotoSDE((1,)), 8, 0.1)
    >>> [round(t, 2) for t in reverse_times(chain, 4)], reverse_times(chain, 4, Spacing.TIME)
    ([1.0, 0.41, 0.17, 0.07, 0.0], [1.0, 0.75, 0.5, 0.25, 0.0])
    """
    ends, horizon, last = np.array(chain.times), chain.times[-1], len(chain)
    if spacing is Spacing.TIME:
        return [*np.linspace(horizon, max(ends[1], horizon / n_steps), n_steps).tolist(), 0.0]
    if spacing is Spacing.INDEX:
        index = np.linspace(last, max(1.0, last / n_steps), n_steps)
        return [*np.interp(index, np.arange(last + 1), ends).tolist(), 0.0]
    fine = np.geomspace(ends[1], horizon, 4097)
    log_noise = np.log([float(torch.as_tensor(chain.sde.variance(0.0, t)).mean()) for t in fine.tolist()])
    even = np.linspace(log_noise[-1], log_noise[0], n_steps)
    return [float(t) for t in np.exp(np.interp(even, log_noise, np.log(fine)))] + [0.0]


def walked_times(chain: Chain, recipe: Recipe, from_time: float | None = None) -> list[float]:
    """The forward times that a solver walks through, from ``from_time`` down: without time 0 if ``denoise``.

    Raises:
        ValueError: If no step of the grid lies before.
    """
    begin = chain.sde.horizon if from_time is None else on_chain(chain, from_time)
    slack = resolution((0.0, chain.sde.horizon))
    times = [begin, *(t for t in reverse_times(chain, recipe.n_steps, recipe.spacing) if t < begin - slack)]
    walked = times[:-1] if recipe.denoise else times
    if not 0 < begin <= chain.sde.horizon or len(walked) < 2:
        raise ValueError(
            f"t = {begin:g} must lie in (0, {chain.sde.horizon:g}], with a step of the grid before: begin later, or"
            " take more steps"
        )
    return walked


def on_chain(chain: Chain, time: float) -> float:
    """The time of the chain that equals ``time`` to rounding, or else ``time`` itself.

    >>> from circsde.kuramoto import KuramotoSDE
    >>> on_chain(Chain.uniform(KuramotoSDE((1,)), 10), 0.1 * 3), 0.1 * 3
    (0.3, 0.30000000000000004)
    """
    nearest = min(chain.times, key=lambda t: abs(t - time))
    return nearest if abs(nearest - time) <= resolution(chain.times) else time


def run_reverse(
    chain: Chain,
    score: Field,
    theta: Angles,
    recipe: Recipe,
    *,
    seed: int,
    from_time: float | None = None,
    first_sample: int = 0,
    known: Known | None = None,
    frames: int = 2,
    brownian: BrownianPath | None = None,
    progress: Callable[[int], object] | None = None,
) -> Solution:
    """One batch from ``from_time`` (the horizon) back to time 0.

    Args:
        chain: What the score was trained along; ``chain.sde`` is the forward equation.
        score: ``(t, theta) -> grad log p_t(theta)``, 1/rad; a module is run in evaluation mode, without gradients.
        theta: Angles at ``from_time``, radians.
        recipe: How.
        seed: The seed of the noise.
        from_time: The time to begin at; from there on the grid is the grid of ``recipe``.
        first_sample: The index of the first sample.
        known: Angles to hold on their forward path.
        frames: How many states to keep, spread evenly over the steps, first and last included.
        brownian: The path to follow instead of a new one, so that recipes can be compared on one.
        progress: Called with the number of finished steps.

    Returns:
        The solution; its ``ts`` are ``horizon - t``, from where it began to the horizon.

    Raises:
        SolveError: If the score or an angle is not finite; its ``solution`` holds what was computed.
    """
    sde = chain.sde
    walked = walked_times(chain, recipe, from_time)
    kept = sorted({round(i) for i in np.linspace(0, len(walked) - 1, max(2, frames))})
    with evaluating(score):
        if recipe.flow is not None:
            solution = _flow(chain, score, theta, recipe, [walked[i] for i in kept], walked, known)
        else:
            grid = [sde.horizon - t for t in walked]
            method = find_method("heun" if recipe.method is None else recipe.method)
            if recipe.signal_to_noise:
                method = langevin(method, recipe.signal_to_noise)
            if known is not None:
                method = clamped(method, known.mask, _mirrored(known.path, sde.horizon))
            solution = sdeint(
                reverse(sde, score, recipe.stochasticity),
                theta,
                [grid[i] for i in kept],
                grid=grid,
                method=method,
                brownian=brownian,
                generator=seed if brownian is None else None,
                first_sample=first_sample if brownian is None else 0,
                progress=progress,
            )
        return _denoised(chain, score, solution, walked[-1], known) if recipe.denoise else solution


@contextmanager
def evaluating(score: Field) -> Iterator[None]:
    """Without gradients, and with a network in evaluation mode."""
    network = score if isinstance(score, nn.Module) else nn.Identity()
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)


def _flow(
    chain: Chain,
    score: Field,
    theta: Angles,
    recipe: Recipe,
    outputs: list[float],
    grid: list[float],
    known: Known | None,
) -> Solution:
    """Follow the probability flow; times are mirrored, so that they increase as in the reverse equation."""
    if known is not None:
        raise ValueError("a probability flow does not fill in: leave out flow")
    assert recipe.flow is not None
    steps: dict[str, Any] = {"atol": recipe.tolerance} if recipe.flow in ADAPTIVE else {"grid": grid}
    solution = odeint(probability_flow(chain.sde, score), theta, outputs, method=recipe.flow, **steps)
    return Solution(chain.sde.horizon - solution.ts, solution.theta, solution.winding, solution.stats)


def _denoised(chain: Chain, score: Field, solution: Solution, t: float, known: Known | None) -> Solution:
    """``solution`` with its last state, at time ``t``, replaced by its mean at time 0, and that evaluation counted."""
    last = denoised(chain.sde, score, t, solution.theta[-1])
    if known is not None:
        last = torch.where(known.mask, known.path.theta[0], last)
    stats = solution.stats
    bad = ~last.isfinite().flatten(1).all(1)
    if bool(bad.any()):
        samples = tuple(bad.nonzero().flatten().tolist())
        message = f"the last step, from t = {t:g}: the score of sample {samples[0]} is not finite; check it there"
        raise SolveError(
            replace(solution, stats=replace(stats, status=Status.NON_FINITE, message=message, samples=samples))
        )
    wrapped = wrap(last)
    turns = ((last.double() - wrapped.double()) / TWO_PI).round().long()
    return Solution(
        torch.cat((solution.ts[:-1], torch.tensor([chain.sde.horizon], dtype=solution.ts.dtype))),
        torch.cat((solution.theta[:-1], wrapped[None])),
        torch.cat((solution.winding[:-1], (solution.winding[-1] + turns)[None])),
        replace(stats, nfe=stats.nfe + 1, steps=stats.steps + 1),
    )


def _mirrored(path: Solution, horizon: float) -> Callable[[float], Angles]:
    """The path at the time nearest to ``horizon - s``."""
    ts: list[float] = path.ts.tolist()

    def at(s: float) -> Angles:
        t = horizon - s
        i = bisect_left(ts, t)
        i -= i > 0 and (i == len(ts) or t - ts[i - 1] < ts[i] - t)
        return path.theta[i]

    return at

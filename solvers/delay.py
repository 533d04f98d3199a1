r"""Delayed oscillators in time: steps on an exact grid, on which every delay is a whole number of steps.

So nothing is interpolated. Between two points of a path lies noise, and an angle read between them as if it were on a
straight line has too small a variance, by the order of a step, so that the weak order would be one. And where the
history meets the solution, and a delay later again and again, derivatives jump: those times are points of the grid.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, Protocol, SupportsIndex

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from circsde.coupling import Coupling
from circsde.delay import DelayedSDE
from circsde.solvers.brownian import BrownianPath, followed
from circsde.solvers.checks import check_angles, check_equation
from circsde.solvers.grid import Times, step_grid, until
from circsde.solvers.integrate import noises
from circsde.solvers.methods import moved, root_mean_square_diffusion
from circsde.solvers.precision import field_dtype
from circsde.solvers.solution import OnFailure, Solution
from circsde.solvers.walk import State, walk
from circsde.typing import Angles

History = Tensor | Callable[[float], Angles]
"""Angles until the first time, at rest ``(batch, *event)``, at steps ``(steps, batch, *event)``, or a function."""

_ADVISED = 20  # a number of steps that fits the delays is sought up to this multiple of the number asked for


def solve_delayed(
    equation: DelayedSDE,
    history: History,
    ts: Times,
    *,
    method: Literal["heun", "euler_maruyama"] = "heun",
    n_steps: int | None = None,
    dt: float | None = None,
    brownian: BrownianPath | None = None,
    generator: torch.Generator | SupportsIndex | None = None,
    first_sample: int = 0,
    progress: Callable[[int], object] | None = None,
    on_failure: OnFailure = "raise",
) -> Solution:
    r"""Integrate oscillators with delays through the times ``ts``, by equal steps of which every delay is a multiple.

    Heun's method is of weak order 2, and of order 2 without noise; Euler-Maruyama's of order 1. The field of a step is
    that of angles which were kept: with one delay a step takes one evaluation of the coupling by either method.

    Args:
        equation: The equation.
        history: The angles until the first time ``t0``, radians, which fix dtype and device: ``(batch, *event)`` for
            oscillators that rested there; ``(steps, batch, *event)`` for angles at ``t0`` (the last) and at the steps
            before, at least as many as the longest delay holds, for instance those of a solution to go on from; or a
            function of time.
        ts: Increasing output times in ``[0, horizon]``, the first of which is ``t0``.
        method: ``"heun"`` or ``"euler_maruyama"``.
        n_steps: The number of steps in all; give exactly one of ``n_steps`` and ``dt``.
        dt: A largest step.
        brownian: The Brownian path to follow, as in :func:`circsde.sdeint`.
        generator: A ``torch.Generator`` or a seed for a new path; by default torch's global generator.
        first_sample: The index of the first sample: a sample's path depends on the seed and its index only.
        progress: Called with the number of finished steps.
        on_failure: ``"raise"``, or ``"return"`` for a solution whose ``stats.status`` says what happened.

    Returns:
        The solution at ``ts``.

    Raises:
        SolveError: If an angle is not finite or leaves the numbers.
        ValueError: As :func:`circsde.sdeint`; if steps are not equal or a delay is no multiple of them; for a history
            that is too short; if each pair has a delay and what oscillators hear is not a weighted sum.
        TypeError: If the angles are not floating-point.

    Sources: Buckwar and Shardlow, 2005, doi:10.1093/imanum/drh012; for weak orders by duality, Clement, Kohatsu-Higa
    and Lamberton, 2006, doi:10.1214/105051606000000060.

    >>> from circsde.kuramoto import KuramotoSDE
    >>> late = DelayedSDE(KuramotoSDE(4), delay=0.25)
    >>> solution = solve_delayed(late, torch.zeros(2, 4), (0.0, 1.0), n_steps=20, generator=0)
    >>> solution.theta.shape, solution.stats.nfe
    (torch.Size([2, 2, 4]), 40)
    """
    if method not in _EVALUATIONS:
        raise ValueError(f"method must be one of {', '.join(_EVALUATIONS)}, got {method!r}")
    sde = equation.sde
    points, marks = step_grid(until(ts, sde.horizon), n_steps=n_steps, dt=dt)
    h = _step(points)
    lags = _lags(equation, h, len(points) - 1)
    past_angles = _angles(history, [points[0] - k * h for k in range(int(lags.max()), -1, -1)], sde.event_shape)
    theta0 = past_angles[-1]
    dtype = field_dtype(sde, theta0.dtype)
    path = followed(brownian, generator, first_sample, points, theta0, dtype)
    check_equation(sde, theta0.detach().to(dtype), points)
    noise = noises(path, points, theta0, dtype)
    past = _PastOfPairs(sde.coupling, lags, theta0, dtype) if equation.by_pairs else _Past(sde.coupling, int(lags))
    for i, angles in enumerate(past_angles, 1 - len(past_angles)):
        past.keep(i, angles.to(dtype))

    def slope(i: int, theta: Tensor) -> Tensor:
        return equation.drift(points[i], theta.to(dtype), past.heard(i))

    def euler_maruyama(i: int, theta: Tensor) -> Tensor:
        return moved(theta, h, slope(i, theta), sde.diffusion(points[i]), next(noise).dW)

    def heun(i: int, theta: Tensor) -> Tensor:
        g, first, dW = root_mean_square_diffusion(sde, points[i], h), slope(i, theta), next(noise).dW
        predicted = moved(theta, h, first, g, dW)
        if past.instant:
            past.keep(i + 1, predicted.to(dtype))
        return moved(theta, 0.5 * h, first + slope(i + 1, predicted), g, dW)

    advance = heun if method == "heun" else euler_maruyama

    def step(i: int, state: State) -> State:
        theta = advance(i, state[0])
        past.keep(i + 1, theta.to(dtype))
        return (theta,)

    walked = walk(
        step,
        (theta0.double(),),
        points,
        marks,
        dtype=theta0.dtype,
        field_dtype=dtype,
        evaluations=lambda steps: _EVALUATIONS[method] * steps,
        progress=progress,
    )
    return Solution(walked.ts, walked.theta, walked.winding, walked.stats).or_raise(on_failure)


_EVALUATIONS = {"heun": 2, "euler_maruyama": 1}
"""The methods, with the evaluations of the drift in a step."""


class _Heard(Protocol):
    """The field that oscillators hear at a step, from what was kept at earlier steps."""

    instant: bool
    """Whether part of the field comes from the same step, because a delay is zero."""

    def keep(self, i: int, theta: Angles) -> None:
        """Keep the angles at step ``i``, replacing any that were kept there before."""

    def heard(self, i: int) -> tuple[Tensor, Tensor]:
        """The field at step ``i`` as (Re, Im)."""


class _Past(_Heard):
    """One delay for all: a ring of fields, each of which was computed when its angles were kept."""

    def __init__(self, coupling: Coupling, lag: int) -> None:
        self.coupling, self.lag, self.instant = coupling, lag, lag == 0
        self.fields: list[tuple[Tensor, Tensor]] = [(torch.empty(0), torch.empty(0))] * (lag + 1)

    def keep(self, i: int, theta: Angles) -> None:
        self.fields[i % len(self.fields)] = self.coupling.field(theta.cos(), theta.sin())

    def heard(self, i: int) -> tuple[Tensor, Tensor]:
        return self.fields[(i - self.lag) % len(self.fields)]


class _PastOfPairs(_Heard):
    """A delay for each pair: a ring of cosines and sines, of which each edge reads one row, summed over its bag."""

    def __init__(self, coupling: Coupling, lags: Tensor, theta0: Angles, dtype: torch.dtype) -> None:
        weights, self.shape = _weights(coupling, theta0[0]).to(theta0.device), theta0.shape
        edges = torch.ones_like(weights, dtype=torch.bool) if weights.requires_grad else weights != 0
        rows, self.columns = edges.nonzero(as_tuple=True)
        self.bags = torch.searchsorted(rows, torch.arange(len(weights), device=rows.device))
        self.lags = lags.to(theta0.device)[edges]
        self.instant = bool((self.lags == 0).any())
        self.parts = [part[edges].to(dtype) for part in (weights.real, weights.imag)]
        self.slots = int(lags.max()) + 1
        self.ring = torch.zeros(self.slots, len(weights), 2 * len(theta0), dtype=dtype, device=theta0.device)
        self.last: tuple[int, tuple[Tensor, Tensor]] | None = None

    def keep(self, i: int, theta: Angles) -> None:
        self.ring[i % self.slots] = torch.cat((theta.cos(), theta.sin())).flatten(1).mT
        if self.instant:
            self.last = None

    def heard(self, i: int) -> tuple[Tensor, Tensor]:
        if self.last is None or self.last[0] != i:
            rows = (i - self.lags) % self.slots * self.ring.shape[1] + self.columns
            ring = self.ring.clone() if self.parts[0].requires_grad else self.ring  # kept for the backward pass
            (a, b), (c, d) = (
                embedding_bag(rows, ring.flatten(0, 1), self.bags, mode="sum", per_sample_weights=part).mT.chunk(2)
                for part in self.parts
            )
            self.last = i, ((a - d).reshape(self.shape), (b + c).reshape(self.shape))
        return self.last[1]


def _weights(coupling: Coupling, like: Tensor) -> Tensor:
    """``W_ij e^{-i alpha_ij}``, how much oscillator ``i`` hears of ``j``, complex, ``(n, n)``.

    Raises:
        ValueError: If what is heard is not linear in ``e^{i theta}``.
    """
    n = like.numel()
    units = torch.eye(n, dtype=torch.float64).reshape(n, *like.shape)
    one, two = (
        torch.complex(*(x.expand(units.shape).reshape(n, n).mT for x in coupling.field(k * units, 0.0 * units)))
        for k in (1.0, 2.0)
    )
    if not torch.allclose(two, 2.0 * one, rtol=1e-9, atol=0.0):
        raise ValueError(
            f"a delay for each pair needs a coupling that is a weighted sum over oscillators, got {coupling}; give one"
            " delay for all, or leave out triads and tetrads"
        )
    return one


def _step(points: Sequence[float]) -> float:
    """The step of a grid.

    Raises:
        ValueError: If its steps are not equal.
    """
    h = (points[-1] - points[0]) / (len(points) - 1)
    if any(abs(b - a - h) > 1e-9 * h for a, b in pairwise(points)):
        raise ValueError(f"delays need equal steps: choose output times that are multiples of one, here {h:g}")
    return h


def _lags(equation: DelayedSDE, h: float, n_steps: int) -> Tensor:
    """The delays as numbers of steps.

    Raises:
        ValueError: If one is no whole number of them; the message says how many steps would fit, if not too many do.
    """
    delay = torch.as_tensor(equation.delay, device="cpu")
    slack = (
        8.0 * torch.finfo(delay.dtype).eps if delay.dtype in (torch.float16, torch.bfloat16, torch.float32) else 1e-9
    )
    delay = delay.double()

    def missed(step: float) -> Tensor:
        return (delay / step - (delay / step).round()).abs() > 1e-9 + slack * delay / step

    if bool((wrong := missed(h)).any()):
        longer = range(n_steps + 1, _ADVISED * n_steps + 1)
        fits = next((n for n in longer if not bool(missed(h * n_steps / n).any())), None)
        found = delay[wrong].flatten()[0].item()
        raise ValueError(
            f"a delay of {found:g} is {found / h:g} steps of {h:g}, and has to be a whole number of them: "
            + (f"take n_steps={fits}" if fits else f"round delays to steps, (delay / {h:g}).round() * {h:g}")
        )
    return (delay / h).round().long()


def _angles(history: History, times: Sequence[float], event_shape: torch.Size) -> Tensor:
    """The angles at steps up to the first time of a solve, ``(steps, batch, *event)``."""
    if not isinstance(history, Tensor):
        angles = torch.stack([history(t) for t in times])
    elif history.ndim == len(event_shape) + 2:
        angles = history[-len(times) :]
        if len(angles) < len(times):
            raise ValueError(
                f"the history must hold {len(times)} steps, from {times[0]:g} to {times[-1]:g}, got {len(history)};"
                " give the angles at each step, or a function of time"
            )
    else:
        angles = history.expand(len(times), *history.shape)
    check_angles(angles[-1], event_shape, "history")
    if not bool(angles.isfinite().all()):
        raise ValueError("history must be finite, and is not at an earlier time than its last")
    return angles

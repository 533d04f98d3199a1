r"""Score matching: pairs to regress on, so that a network becomes the score (eq. 6, eq. 10).

Each objective makes pairs with ``E[target | theta] = grad log p_t(theta)``: the score minimises the mean squared error.
They differ in how much the target varies around that mean.

* :func:`denoising` uses the law of ``theta_t`` given ``theta_0``, which is known for pure diffusion only.
* :func:`one_step` uses the law of a step of a chain, for any drift: its target varies like one over the step's noise.
* :func:`pathwise` uses all the noise of a path, for any smooth drift, at the cost of a Jacobian per step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from scipy.optimize import brentq
from torch import Tensor

from circsde.kuramoto import has_closed_form
from circsde.laws.distributions import WrappedNormal
from circsde.matching.jacobian import spread
from circsde.matching.steps import euler, kick, normal, transport, wrapped
from circsde.one_step import transition
from circsde.sde import SDE
from circsde.typing import Amplitude, Angles, Field, Labels, PerSample, Tangent, Time

NARROW = 0.15
"""A variance in rad^2 whose noise reaches 2.4 rad, 6 standard deviations, where other turns weigh e^-30."""


class Pairs(NamedTuple):
    """Times and angles, and a random target whose conditional mean there is the score.

    Attributes:
        t: One time per sample.
        theta: Angles in ``[-pi, pi)``.
        target: Its mean given ``theta`` is ``grad log p_t(theta)``, 1/rad.
        variance: The variance S of the noise that the target is made of, rad^2: ``E target^2`` is about ``1 / S``.
        labels: The class of each sample; given it as well, the mean is the score of that class.
    """

    t: PerSample
    theta: Angles
    target: Tangent
    variance: PerSample
    labels: Labels


def loss(score: Field, pairs: Pairs) -> PerSample:
    """``S |score - target|^2``, the mean over the angles of each sample: near 1 for a score of zero, at every time.

    Any positive weight in time has the same minimiser. For one step, S is the published weight ``2 D`` times the step.
    """
    error = score(pairs.t, pairs.theta) - pairs.target
    return pairs.variance.to(error.dtype) * error.square().flatten(1).mean(1)


def denoising(sde: SDE, theta0: Angles, t: PerSample, generator: torch.Generator | None = None) -> Pairs:
    """Pairs at times ``t > 0`` of pure diffusion: ``theta_t`` given ``theta_0`` is ``WN(theta_0, int_0^t g^2)``.

    Raises:
        ValueError: If the equation has a drift, or an angle is not finite.
    """
    if bool(sde.drift(t, theta0).abs().gt(0.0).any()):
        raise ValueError("denoising score matching is for pure diffusion and this equation drifts: use pathwise pairs")
    variance = torch.as_tensor(sde.variance(torch.zeros_like(t), t))
    law = WrappedNormal(theta0, spread(variance.sqrt(), theta0))
    theta = law.sample(generator=generator)
    return Pairs(t, theta, law.score(theta), variance, unlabelled(theta0))


class Paths(NamedTuple):
    """A batch of paths of a chain, each at a step of its own.

    Attributes:
        n: How many steps each has made.
        theta: The angle of each, in ``[-pi, pi)``.
        carried: ``V + B`` of eq. (10), the sum of its noises as they act on ``theta_n``; rad.
        labels: The class of what it began at.
    """

    n: Int[Tensor, " batch"]
    theta: Angles
    carried: Tangent
    labels: Labels


def start(theta0: Angles, labels: Labels | None = None) -> Paths:
    """Paths that begin at ``theta0``."""
    n = torch.zeros(len(theta0), dtype=torch.int64, device=theta0.device)
    return Paths(n, theta0, torch.zeros_like(theta0), unlabelled(theta0) if labels is None else labels)


def unlabelled(theta0: Angles) -> Labels:
    """No class for each of ``theta0``."""
    return torch.full((len(theta0),), -1, device=theta0.device)


@dataclass(frozen=True)
class Chain:
    r"""A discretisation of an SDE: steps of an invertible map F of the angles and of noise ``sigma_n xi``.

    By default half of the noise comes before and half after ``F``, which is the trapezoidal rule with rates read in the
    middle of the step: it has the law and the score of the SDE to second order; pathwise pairs teach that score.
    The published chain is Euler-Maruyama with rates read at the left end; one-step pairs always come from
    Euler-Maruyama.

    Attributes:
        sde: The equation.
        times: ``t_0 < t_1 < ...``; data is at ``t_0``.
        discounts: ``d_n`` of eq. (10), positive, one per step. All are unbiased; :meth:`calibrated` finds the best.
        published: Whether it is the published chain.
    """

    sde: SDE
    times: tuple[float, ...]
    discounts: tuple[float, ...] | None = None
    published: bool = False

    @classmethod
    def uniform(cls, sde: SDE, n_steps: int, *, published: bool = False) -> "Chain":
        """``n_steps`` equal steps from 0 to the horizon."""
        return cls(sde, tuple(sde.horizon * i / n_steps for i in range(n_steps + 1)), published=published)

    @classmethod
    def geometric(cls, sde: SDE, n_steps: int, smallest: float, linear_from: float = math.inf) -> "Chain":
        """Steps at whose ends the noise variance is ``smallest^2`` (rad^2), then grows by one factor to the horizon.

        Above ``linear_from`` (rad^2) it grows by one amount. Times drawn evenly from the steps are even in the log of
        the noise, as data with sharp peaks wants.

        Raises:
            ValueError: If there are fewer than 2 steps, or all the noise is smaller.
        """
        total = _mean(sde.variance(0.0, sde.horizon))
        if n_steps < 2 or not 0 < smallest**2 < total:
            raise ValueError(
                f"expected at least 2 steps and a smallest noise between 0 and {total**0.5:g} rad, got {n_steps} steps"
                f" and {smallest:g} rad"
            )
        bend = max(smallest**2, min(linear_from, total))
        growth, rest = math.log(bend / smallest**2), total / bend - 1.0
        times = [0.0]
        for i in range(n_steps - 1):
            u = (growth + rest) * i / (n_steps - 1)
            v = smallest**2 * math.exp(u) if u < growth else bend * (1.0 + u - growth)
            times.append(brentq(lambda t, v=v: _mean(sde.variance(0.0, t)) - v, 0.0, sde.horizon, xtol=1e-14))
        return cls(sde, (*times, sde.horizon))

    def __len__(self) -> int:
        """The number of steps."""
        return len(self.times) - 1

    def step(self, n: int) -> tuple[float, float, float]:
        """When the rates of step ``n`` are read, how long it is, and the noise variance that it adds."""
        h = self.times[n + 1] - self.times[n]
        t = self.times[n] if self.published else self.times[n] + 0.5 * h
        return t, h, h * _mean(self.sde.diffusion(t) ** 2)

    @property
    def first(self) -> float:
        """The part of the noise of a step that comes before F."""
        return 0.0 if self.published else 0.5

    @cached_property
    def variances(self) -> tuple[float, ...]:
        """``S_n`` of eq. (10), the discounted sum of the noise variances of the first ``n`` steps, rad^2."""
        S = [0.0]
        for n in range(len(self)):
            S.append(self._grown(S[n], self.step(n)[2], 1.0 if self.discounts is None else self.discounts[n]))
        return tuple(S)

    def calibrated(self, theta0: Angles, generator: torch.Generator | None = None) -> "Chain":
        r"""The same chain with the discounts that make the target vary least, measured on paths from ``theta0``.

        With ``u = M^{-T} (carried + S grad log|det M|)`` the target after F and the next noise ``sigma xi`` mixes
        ``-u / S`` and ``-xi / sigma``, which are uncorrelated. Their best mixture has ``d = S / E u^2``, and then
        ``E target^2 = 1 / S_{n+1}`` per angle. Where the drift is linear that is ``M^2``, and the target becomes the
        score of ``theta_n`` given ``theta_0``.
        """
        discounts: list[float] = []

        def best(u: Tangent, S: float) -> float:
            discounts.append(S / float(u.double().square().mean()) if S else 1.0)
            return discounts[-1]

        S, (_, theta, carried, _) = 0.0, start(theta0)
        for n in range(len(self)):
            t, h, added = self.step(n)
            theta, carried = _step(self, t, h, added, S, best, theta, carried, generator)
            S = self._grown(S, added, discounts[n])
        return replace(self, discounts=tuple(discounts))

    def _grown(self, S: float, added: float, d: float) -> float:
        return d * (S + self.first * added) + (1.0 - self.first) * added

    def _at(self, n: Int[Tensor, " batch"]) -> tuple[Tensor, ...]:
        """``t, h, added, S, d`` of each path's next step."""
        return self._steps.to(n.device)[:, n].unbind()

    def _reached(self, n: Int[Tensor, " batch"]) -> tuple[Tensor, ...]:
        """``t_n, S_n`` of each path."""
        return self._states.to(n.device)[:, n].unbind()

    @cached_property
    def _narrow(self) -> bool:
        """Whether no step adds noise that reaches around the circle: wrapping then changes no score, to rounding."""
        return all(self._widest(n) <= NARROW for n in range(len(self)))

    @cached_property
    def _sweeps(self) -> int | None:
        """How often the implicit half of a step is iterated: what is left, ``(h/2 (K + K_ref))^(2 + i)``, is 1e-4."""
        if self.published:
            return None
        if not has_closed_form(self.sde):
            return 2
        K, K_ref = self.sde.schedule.coupling, self.sde.schedule.reference
        left = max(0.5 * h * (K(t) + K_ref(t)) for t, h, _ in map(self.step, range(len(self))))
        return 1 if left < 1e-2 else max(1, math.ceil(math.log(1e-4) / math.log(min(0.5, left)) - 2.0))

    def _widest(self, n: int) -> float:
        t, h, _ = self.step(n)
        return h * float(torch.as_tensor(self.sde.diffusion(t)).max()) ** 2

    @cached_property
    def _steps(self) -> Tensor:
        discounts = self.discounts or (1.0,) * len(self)
        rows = [(*self.step(n), self.variances[n], discounts[n]) for n in range(len(self))]
        return torch.tensor(rows, dtype=torch.float64).T

    @cached_property
    def _states(self) -> Tensor:
        return torch.tensor([self.times, self.variances], dtype=torch.float64)


def step_with_adjoint(chain: Chain, paths: Paths, generator: torch.Generator | None = None) -> Paths:
    r"""One step of each path, with what it carries."""
    t, h, added, S, d = chain._at(paths.n)
    theta, carried = _step(chain, t, h, added, S, lambda u, _: spread(d, u), paths.theta, paths.carried, generator)
    return Paths(paths.n + 1, theta, carried, paths.labels)


def pathwise(chain: Chain, paths: Paths) -> Pairs:
    """The pairs ``-(V + B) / S`` of paths that have made at least one step (eq. 10)."""
    t, S = chain._reached(paths.n)
    return Pairs(t, paths.theta, -paths.carried / spread(S, paths.theta), S, paths.labels)


def one_step(chain: Chain, paths: Paths, draws: int = 1, generator: torch.Generator | None = None) -> Pairs:
    """Pairs one step on: ``draws`` states from the law of the next step of each path, and their scores (eq. 6).

    The published loss draws 5. Pairs of one path are ``len(paths.n)`` apart.
    """
    t, h, added, _, _ = chain._at(paths.n)
    after, _ = chain._reached(paths.n + 1)
    if chain._narrow:
        loc, sigma = euler(chain.sde, t, h, paths.theta)
        noise = normal((draws, *loc.shape), loc, generator)
        theta, target = wrapped(torch.addcmul(loc, noise, torch.as_tensor(sigma))), noise.div_(-sigma)
    else:
        law = transition(chain.sde, t, h, paths.theta)
        theta = law.sample((draws,), generator=generator)
        target = law.score(theta)
    reached, variance, labels = (x.repeat(draws) for x in (after, added, paths.labels))
    return Pairs(reached, theta.flatten(0, 1), target.flatten(0, 1), variance, labels)


def step_forward(chain: Chain, paths: Paths, generator: torch.Generator | None = None) -> Paths:
    """One step of each path, nothing carried: what :func:`one_step` needs."""
    t, h, *_ = chain._at(paths.n)
    loc, sigma = euler(chain.sde, t, h, paths.theta)
    return paths._replace(n=paths.n + 1, theta=wrapped(normal(loc.shape, loc, generator).mul_(sigma).add_(loc)))


def _mean(x: Amplitude) -> float:
    """The mean over oscillators."""
    return float(torch.as_tensor(x, dtype=torch.float64).mean())


def _step(
    chain: Chain,
    t: Time,
    h: Time,
    added: Time,
    S: Time,
    discount: Callable[[Tangent, Any], float | Tensor],
    theta: Angles,
    carried: Tangent,
    generator: torch.Generator | None,
) -> tuple[Angles, Tangent]:
    r"""Noise, ``carried <- d M^{-T} (carried + S grad log|det M|)``, noise (eq. 10)."""
    first, last = chain.first, 1.0 - chain.first
    if first:
        theta, carried = kick(chain.sde, t, first * h, first * added, theta, carried, generator)
    S = S + first * added
    theta, u = transport(chain.sde, t, h, S, theta, carried, chain._sweeps)
    return kick(chain.sde, t, last * h, last * added, theta, discount(u, S) * u, generator)

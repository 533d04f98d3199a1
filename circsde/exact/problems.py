"""Test problems with exact answers, by name: each knows its equation, its start, and what must come out at the horizon.

``problems.get(name)`` solves for the exact law (0.1 to 1 s) and remembers it. A problem is pickled as its name, so that
another process builds it for itself; a copy with other parts is pickled as what it holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache

import torch
from torch import Tensor

from circsde.contracts import Law, SampledLaw
from circsde.coupling import GlobalCoupling, NoCoupling
from circsde.exact.catalogue import PROBLEMS
from circsde.exact.finite_size import finite_size
from circsde.exact.fokker_planck import CircleLaw, fokker_planck
from circsde.exact.fokker_planck_torus import TorusLaw, fokker_planck_torus
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises
from circsde.laws.gibbs import MeanFieldGibbs
from circsde.laws.mixture import WrappedNormalMixture
from circsde.schedule import Schedule
from circsde.sde import SDE, reverse
from circsde.typing import Angles, PerSample

ORDERS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Observable:
    """A real function of the phases whose mean at the horizon is known.

    Attributes:
        name: A name, for instance ``"E cos 2 theta"``.
        function: ``(batch, *event) -> (batch,)``.
        expected: Its exact mean.
    """

    name: str
    function: Callable[[Angles], PerSample]
    expected: float


@dataclass(frozen=True, eq=False)
class Problem:
    """An initial-value problem whose answer is known.

    Attributes:
        name: Its name in :func:`get`.
        description: One line.
        regime: What decides which method pays.
        sde: The equation.
        start: The law of every phase at time 0, or one per oscillator; phases start independent.
        observables: What to compare at the horizon.
        uncertainty: How well the expected values are known, to within a factor of order one.
        target: The exact law at the horizon, for one or two phases.
        stationary: The law that stays put, for one or two phases at constant rates.
        steps: Step counts that run from too few to more than enough.
    """

    name: str
    description: str
    regime: str
    sde: SDE
    start: SampledLaw | tuple[SampledLaw, ...]
    observables: tuple[Observable, ...]
    uncertainty: float = 1e-10
    target: Law | None = None
    stationary: Law | None = None
    steps: tuple[int, ...] = (5, 10, 20, 40, 80, 160)

    def sample(self, batch: int, generator: torch.Generator) -> Angles:
        """Independent starts, shape ``(batch, *event_shape)``, float64."""
        event = tuple(self.sde.event_shape or ())
        if isinstance(self.start, tuple):
            return torch.stack([law.sample((batch,), generator=generator) for law in self.start], -1)
        return self.start.sample((batch, *event), generator=generator)

    def __reduce__(self) -> tuple[Callable[..., "Problem"], tuple[object, ...]]:
        """Pickle a problem of :func:`get` as its name, and one that was changed, or is another's, as what it holds."""
        if self.name in _BUILDERS and get(self.name) is self:
            return get, (self.name,)
        return Problem, tuple(getattr(self, field.name) for field in fields(self))


def names() -> list[str]:
    """The problems there are."""
    return list(PROBLEMS)


def describe(name: str) -> str:
    """What the problem is, in one line, without solving it."""
    _builder(name)
    return PROBLEMS[name]


@cache
def get(name: str) -> Problem:
    """The problem of that name.

    Raises:
        ValueError: If there is none.

    >>> get("wrapped_brownian_motion").observables[0].name
    'E cos 1 theta'
    """
    return _builder(name)(name)


def _builder(name: str) -> Callable[[str], Problem]:
    if name not in _BUILDERS:
        raise ValueError(f"there is no problem {name!r}; there are {', '.join(_BUILDERS)}")
    return _BUILDERS[name]


def normal(mean: float, sd: float) -> WrappedNormalMixture:
    """A wrapped normal start."""
    return WrappedNormalMixture((1.0,), (mean,), (sd,))


TWO_MODES = WrappedNormalMixture((0.6, 0.4), (-0.5, 2.5), (0.3, 0.4))


def _wrapped_brownian_motion(name: str) -> Problem:
    return _circle(name, Schedule.linear((0, 0, 0.1), (0, 0, 2)), normal(2.0, 0.4), "no drift", steps=(1, 2, 4, 8, 16))


def _von_mises_well(name: str) -> Problem:
    return _circle(name, Schedule.constant(reference=2.0, diffusion=1.0), normal(2.0, 0.5), "mild: K_ref T = 2")


def _published(name: str) -> Problem:
    return _circle(name, Schedule.published(100), normal(2.0, 0.4), "rates that start near zero")


def _published_doubled(name: str) -> Problem:
    return _circle(name, Schedule.linear((0, 0.0045, 0.005), (0, 6, 5)), normal(2.0, 0.4), "rates that start near zero")


def _stiff_well(name: str) -> Problem:
    schedule = Schedule.constant(reference=30.0, diffusion=1.0)
    return _circle(name, schedule, normal(2.0, 0.4), "stiff: K_ref T = 30", steps=(10, 20, 40, 80, 160, 320))


def _noise_dominated(name: str) -> Problem:
    return _circle(name, Schedule.linear((0, 1, 0.2), (0, 1, 3)), normal(1.0, 0.5), "noise-dominated, D(t) steep")


def _drifting(name: str) -> Problem:
    schedule = Schedule.constant(reference=3.0, diffusion=0.5)
    return _circle(name, schedule, normal(2.0, 0.4), "rotating: w T = 5", natural_frequency=5.0)


def _two_coupled(name: str) -> Problem:
    return _pair(name, Schedule.linear((0.5, 0.1, 0.2), (6.0, 1.0, 0.8)), (1.0, -1.0))


def _two_coupled_well(name: str) -> Problem:
    return _pair(name, Schedule.constant(3.0, 1.0, 1.0), (0.0, 0.0), MeanFieldGibbs(2, 3.0, 1.0, 1.0))


_TEN = (
    *(-0.01002, 0.67267, -0.26184, 0.02472, -0.02231, -0.06380, 0.00943, -0.00825, 0.00171, 0.00066),
    0.61854,
)
"""Means of ten oscillators, ``E cos theta``, ``E sin theta``, ... ``E |z|^2``: from 3e6 paths of SRA1 with 48 steps,
with standard errors of at most 2.1e-4. The expansion in 1/N is off by up to 0.054 there."""


def _mean_field(name: str) -> Problem:
    """The limit with its correction; for ten oscillators, where that is too rough, what was sampled."""
    n, schedule, start = int(name.split("_")[-1]), Schedule.linear((1.0, 0.5, 0.5), (4.0, 0.5, 1.0)), normal(2.0, 0.8)
    law = finite_size(schedule, start)
    means = [
        Observable(f"E {wave} {m} theta", _wave(wave, torch.tensor(m)), part)
        for m in ORDERS
        for wave, part in _parts(law.moment(1.0, m, n))
    ]
    observables = (*means, Observable("E |z|^2", _squared_order_parameter, law.pair(1.0, 1, -1, n).real))
    uncertainty = 6.0 / n**2
    if n == 10:
        observables = tuple(replace(o, expected=mean) for o, mean in zip(observables, _TEN, strict=True))
        uncertainty = 5e-4
    sde = KuramotoSDE((n,), GlobalCoupling(), schedule)
    return Problem(name, describe(name), "many coupled", sde, start, observables, uncertainty=uncertainty)


def _phase_model(name: str) -> Problem:
    from circsde.exact.phase_problems import build  # only here, as it makes problems

    return build(name)


_BUILDERS: dict[str, Callable[[str], Problem]] = {
    "wrapped_brownian_motion": _wrapped_brownian_motion,
    "von_mises_well": _von_mises_well,
    "published": _published,
    "published_doubled": _published_doubled,
    "stiff_well": _stiff_well,
    "noise_dominated": _noise_dominated,
    "drifting": _drifting,
    "two_coupled": _two_coupled,
    "two_coupled_well": _two_coupled_well,
    "mean_field_10": _mean_field,
    "mean_field_100": _mean_field,
    "mean_field_1000": _mean_field,
    "theta_neuron": _phase_model,
    "phase_response": _phase_model,
    "common_noise": _phase_model,
    "reverse": lambda name: _reversed(name, 1.0),
    "probability_flow": lambda name: _reversed(name, 0.0),
}


def _circle(
    name: str,
    schedule: Schedule,
    start: WrappedNormalMixture,
    regime: str,
    *,
    natural_frequency: float = 0.0,
    steps: tuple[int, ...] = (5, 10, 20, 40, 80, 160),
) -> Problem:
    """One phase: the spectral law gives everything."""
    law = fokker_planck(schedule, start, natural_frequency=natural_frequency, mean_field=False)
    first, last = schedule.at(0.0), schedule.at(schedule.horizon)
    still = first == last and first.diffusion > 0 and natural_frequency == 0.0
    return Problem(
        name,
        describe(name),
        regime,
        KuramotoSDE((1,), NoCoupling(), schedule, natural_frequency=natural_frequency),
        start,
        circle_moments(law, schedule.horizon),
        target=law.at(schedule.horizon),
        stationary=VonMises(0.0, first.reference / first.diffusion) if still else None,
        steps=steps,
    )


def _pair(name: str, schedule: Schedule, frequency: tuple[float, float], gibbs: Law | None = None) -> Problem:
    """Two globally coupled phases: the spectral law on the torus."""
    start = normal(2.0, 0.5), normal(-1.0, 0.6)
    law = fokker_planck_torus(schedule, start, natural_frequency=frequency)
    sde = KuramotoSDE((2,), schedule=schedule, natural_frequency=torch.tensor(frequency, dtype=torch.float64))
    observables, target = torus_moments(law, schedule.horizon), law.at(schedule.horizon)
    return Problem(name, describe(name), "coupled", sde, start, observables, target=target, stationary=gibbs)


def _reversed(name: str, stochasticity: float) -> Problem:
    schedule = Schedule.linear((0, 0.0045, 0.005), (0, 6, 5))
    law = fokker_planck(schedule, TWO_MODES, mean_field=False)
    sde = reverse(KuramotoSDE((1,), NoCoupling(), schedule), law.score, stochasticity)
    regime = "reverse time: the score grows as t falls to 0"
    observables = circle_moments(law, 0.0)
    return Problem(name, describe(name), regime, sde, law.at(schedule.horizon), observables, target=law.at(0.0))


def circle_moments(law: CircleLaw, t: float) -> tuple[Observable, ...]:
    """The first five moments of one phase at a time."""
    return tuple(
        Observable(f"E {wave} {m} theta", _wave(wave, torch.tensor(m)), part)
        for m in ORDERS
        for wave, part in _parts(law.moment(t, m))
    )


def torus_moments(law: TorusLaw, t: float) -> tuple[Observable, ...]:
    """Low moments of two phases at a time."""
    return tuple(
        Observable(f"E {wave} ({a} theta_1 + {b} theta_2)", _wave(wave, torch.tensor((a, b))), part)
        for a, b in ((1, 0), (0, 1), (1, -1), (1, 1), (2, 0), (2, -1), (2, -2))
        for wave, part in _parts(law.moment(t, a, b))
    )


def _parts(moment: complex) -> Sequence[tuple[str, float]]:
    return ("cos", moment.real), ("sin", moment.imag)


def _wave(wave: str, k: Tensor) -> Callable[[Angles], PerSample]:
    """``cos`` or ``sin`` of ``k . theta`` where ``k`` is a vector, averaged over oscillators where it is a number."""

    def value(theta: Angles) -> PerSample:
        angle = (theta * k).sum(-1) if k.ndim else (theta * k).flatten(1)
        values = angle.cos() if wave == "cos" else angle.sin()
        return values if k.ndim else values.mean(1)

    return value


def _squared_order_parameter(theta: Angles) -> PerSample:
    return theta.cos().flatten(1).mean(1) ** 2 + theta.sin().flatten(1).mean(1) ** 2

"""The subject of a study: a named problem with exact answers, or any SDE with a start and observables."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch

from circsde.contracts import SampledLaw
from circsde.exact import problems
from circsde.exact.problems import ORDERS, Observable, Problem
from circsde.sde import SDE, ReverseSDE, reverse
from circsde.studies.known import UNIFORM, Start, solved
from circsde.torus import TWO_PI
from circsde.typing import Angles, PerSample


@runtime_checkable
class Experiment(Protocol):
    """An equation, where its paths start and what is compared at the horizon; a :class:`Problem` is one."""

    @property
    def name(self) -> str:
        """The name of the experiment in tables."""

    @property
    def sde(self) -> SDE:
        """The equation."""

    @property
    def observables(self) -> tuple[Observable, ...]:
        """The observables that are compared at the horizon; the expected value is NaN where it is not known."""

    @property
    def uncertainty(self) -> float:
        """The uncertainty of the expected values."""

    def sample(self, batch: int, generator: torch.Generator) -> Angles:
        """Independent starts, shape ``(batch, *event)``."""


@dataclass(frozen=True)
class Wave:
    """``cos(m theta)`` or ``sin(m theta)``, averaged over the oscillators of a sample."""

    wave: str
    m: int

    def __call__(self, theta: Angles) -> PerSample:
        """Shape ``(batch,)``."""
        angle = self.m * theta.flatten(1)
        return (angle.cos() if self.wave == "cos" else angle.sin()).mean(1)


WAVES = tuple(Observable(f"E {wave} {m} theta", Wave(wave, m), math.nan) for m in ORDERS for wave in ("cos", "sin"))
"""The first five trigonometric moments, expected values unknown."""


@dataclass(frozen=True)
class Simulation:
    """Any SDE as an :class:`Experiment`.

    To compute its cells in other processes, all parts must be importable there: no lambdas.

    Attributes:
        sde: The equation; without a ``start`` of its own it must know its ``event_shape``.
        start: The law of every angle, or a tuple of one per angle: then weak errors of one or two angles need no
            sampling. Or ``(batch, generator) -> angles``, shape ``(batch, *event)``; they fix dtype and device. By
            default uniform on the torus. Angles from a law have the dtype of the parameters of the equation, or float64
            where it has none.
        observables: What is compared at the horizon; by default the first five trigonometric moments.
        name: What tables call it.
        uncertainty: How well the expected values are known, where they are.

    >>> from circsde.kuramoto import KuramotoSDE
    >>> three = Simulation(KuramotoSDE((3,)), lambda batch, generator: torch.zeros(batch, 3), name="three from rest")
    >>> three.sample(2, torch.Generator()).shape, three.observables[0].name
    (torch.Size([2, 3]), 'E cos 1 theta')
    """

    sde: SDE
    start: Callable[[int, torch.Generator], Angles] | SampledLaw | tuple[SampledLaw, ...] = UNIFORM
    observables: tuple[Observable, ...] = WAVES
    name: str = ""
    uncertainty: float = 0.0

    def sample(self, batch: int, generator: torch.Generator) -> Angles:
        """Independent starts, shape ``(batch, *event)``.

        Raises:
            ValueError: If angles are to be drawn from a law and the equation does not know its event shape.
        """
        law = self.law
        if law is None:
            assert callable(self.start)
            return self.start(batch, generator)
        if self.sde.event_shape is None:
            raise ValueError(
                "the SDE does not know its event_shape: give it one, or give the simulation a start that draws angles"
            )
        if isinstance(law, tuple):
            theta = torch.stack([each.sample((batch,), generator=generator) for each in law], -1)
        elif law is UNIFORM:
            uniform = torch.rand((batch, *self.sde.event_shape), dtype=torch.float64, generator=generator)
            theta = TWO_PI * uniform - math.pi
        else:
            theta = law.sample((batch, *self.sde.event_shape), generator=generator)
        return theta.to(next((p for p in self.sde.parameters() if p.is_floating_point()), theta.double()))

    @property
    def law(self) -> Start | None:
        """The law of every angle at the start, or one per angle; None where the start draws angles."""
        return self.start if isinstance(self.start, tuple | SampledLaw) else None

    @cached_property
    def problem(self) -> Problem | None:
        """The simulation with its exact answers, where they are known; see :func:`circsde.studies.known.solved`."""
        return solved(self.sde, self.law, self.observables, self.name)


@dataclass(frozen=True)
class Variation:
    """An experiment on a reversed SDE, with another stochasticity; the laws to compare with stay the same.

    Attributes:
        base: The experiment; its equation is a :func:`~circsde.sde.reverse` of another.
        stochasticity: ``l`` of eq. (4).

    Raises:
        ValueError: If the equation is not a reversed one.
    """

    base: Experiment
    stochasticity: float

    def __post_init__(self) -> None:
        """Refuse an equation whose stochasticity cannot be chosen."""
        if not isinstance(self.base.sde, ReverseSDE):
            raise ValueError(
                f"only a reversed SDE has a stochasticity to choose, got {type(self.base.sde).__name__};"
                " make it with reverse(sde, score)"
            )

    @property
    def name(self) -> str:
        """The name of the base and the stochasticity; empty where the base has none."""
        return self.base.name and f"{self.base.name}, l = {self.stochasticity:g}"

    @cached_property
    def sde(self) -> SDE:
        """The equation with this stochasticity."""
        assert isinstance(self.base.sde, ReverseSDE)
        return reverse(self.base.sde.forward_sde, self.base.sde.score, self.stochasticity)

    @property
    def observables(self) -> tuple[Observable, ...]:
        """The observables of the base."""
        return self.base.observables

    @property
    def uncertainty(self) -> float:
        """The uncertainty of the expected values of the base."""
        return self.base.uncertainty

    def sample(self, batch: int, generator: torch.Generator) -> Angles:
        """Starts of the base."""
        return self.base.sample(batch, generator)

    @cached_property
    def problem(self) -> Problem | None:
        """The variation with its exact answers, from a named problem or where they are known for this stochasticity."""
        if isinstance(self.base, Simulation):
            return replace(self.base, sde=self.sde).problem
        base = as_problem(self.base)
        return None if base is None else replace(base, sde=self.sde)


def as_problem(subject: Experiment) -> Problem | None:
    """An experiment with its exact answers; None where they are not known."""
    if isinstance(subject, Simulation | Variation):
        return subject.problem
    return subject if isinstance(subject, Problem) else None


def experiment(subject: Experiment | SDE | str) -> Experiment:
    """A problem by its name, an SDE with the defaults of :class:`Simulation`, or an experiment as it is."""
    if isinstance(subject, str):
        return problems.get(subject)
    return Simulation(subject) if isinstance(subject, SDE) else subject

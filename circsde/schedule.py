r"""Rates in time: coupling K(t), reference attraction K_ref(t) and diffusion D(t), each with its exact integral.

A schedule is a property of the differential equation, never of a step count: K and K_ref are in 1/time, D in
rad^2/time, and a method that takes n steps reads the rates (or their integrals over a step) where it needs them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from circsde.integral import find_disagreement

T = TypeVar("T", float, Tensor, float | Tensor)
Levels = tuple[float | Tensor, float | Tensor, float | Tensor]


@runtime_checkable
class Rate(Protocol):
    """A non-negative function of time in ``[0, horizon]`` with a known integral; takes floats or tensors."""

    def __call__(self, t: T) -> T:
        """The value at time ``t``."""

    def integral(self, t0: T, t1: T) -> T:
        """The integral from ``t0`` to ``t1``."""


@dataclass(frozen=True)
class Linear:
    """``start + (end - start) t / horizon``; constant when ``start == end``.

    The two rates may be tensors without axes that require gradients, which then flow through whatever reads the rate.

    Raises:
        ValueError: If a rate is negative or not finite, or the horizon not positive.
        TypeError: If a rate is a ``Parameter``, which a module that holds the equation would not find here.
    """

    start: float | Tensor
    end: float | Tensor
    horizon: float = 1.0

    def __post_init__(self) -> None:
        """Refuse negative rates and an empty horizon."""
        _check_rate(self.start, self.end, self.horizon)

    def __call__(self, t: T) -> T:
        """The value at time ``t``."""
        return self.start + (self.end - self.start) / self.horizon * t  # type: ignore[return-value]

    def integral(self, t0: T, t1: T) -> T:
        """The integral from ``t0`` to ``t1``: the width times the value at the midpoint."""
        return (t1 - t0) * self(0.5 * (t0 + t1))


@dataclass(frozen=True)
class Cosine(Linear):
    """``start + (end - start) (1 - cos(pi t / horizon)) / 2``: flat at both ends; otherwise as :class:`Linear`."""

    def __call__(self, t: T) -> T:
        """The value at time ``t``."""
        half_turn = math.pi / self.horizon
        return self.start + (self.end - self.start) * 0.5 * (1.0 - _cos(half_turn * t))  # type: ignore[return-value]

    def integral(self, t0: T, t1: T) -> T:
        """The integral from ``t0`` to ``t1``."""
        half_turn, rise = math.pi / self.horizon, 0.5 * (self.end - self.start)
        wave = (_sin(half_turn * t1) - _sin(half_turn * t0)) / half_turn
        return (self.start + rise) * (t1 - t0) - rise * wave  # type: ignore[return-value]


@dataclass(frozen=True)
class Custom:
    """Any rate, given as its value ``K(t)`` and its antiderivative ``t -> integral of K from 0 to t``.

    A :class:`Schedule` compares the two with each other over its horizon. The antiderivative knows of pulses that lie
    between all points where the value is read.
    """

    value: Callable[[float | Tensor], float | Tensor]
    antiderivative: Callable[[float | Tensor], float | Tensor]

    def __call__(self, t: T) -> T:
        """The value at time ``t``."""
        return self.value(t)  # type: ignore[return-value]  # a float for a float, a tensor for a tensor

    def integral(self, t0: T, t1: T) -> T:
        """The integral from ``t0`` to ``t1``."""
        return self.antiderivative(t1) - self.antiderivative(t0)  # type: ignore[return-value]


class Rates(NamedTuple):
    """The three numbers at one time: coupling K and reference K_ref in 1/time, diffusion D in rad^2/time."""

    coupling: float
    reference: float
    diffusion: float


@dataclass(frozen=True)
class Schedule:
    """The rates of a stochastic Kuramoto process on ``[0, horizon]`` (eq. 1).

    Attributes:
        coupling: K(t), 1/time.
        reference: K_ref(t), the attraction to the reference phase, 1/time.
        diffusion: D(t), rad^2/time; the noise amplitude is ``sqrt(2 D)``.
        horizon: The last time T.

    Raises:
        ValueError: If the horizon is not positive, a rate is negative or not finite, ends before the horizon does, or
            has an integral that does not agree with its values.
        TypeError: If a rate has no values or no integral.

    >>> Schedule.linear((0.0, 0.25, 0.5), (4.0, 0.75, 1.5)).at(0.5)
    Rates(coupling=2.0, reference=0.5, diffusion=1.0)
    """

    coupling: Rate
    reference: Rate
    diffusion: Rate
    horizon: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a horizon or rates that do not fit."""
        if not (math.isfinite(self.horizon) and self.horizon > 0):
            raise ValueError(f"horizon must be positive and finite, got {self.horizon}")
        for name in ("coupling", "reference", "diffusion"):
            rate = getattr(self, name)
            if not (isinstance(rate, Rate) and callable(rate)):
                raise TypeError(
                    f"the {name} rate must have values and an integral, got {rate!r}: take Linear(start, end, horizon),"
                    " Cosine, Custom(value, antiderivative), or Schedule.constant for three numbers"
                )
            self._check(name, rate)

    def _check(self, name: str, rate: Rate) -> None:
        """Raise ValueError where a rate is negative, shorter than the schedule, or integrated wrongly."""
        values = [number(rate(self.horizon * i / 16)) for i in range(17)]
        if not all(math.isfinite(value) and value >= 0 for value in values):
            raise ValueError(
                f"the {name} rate must be finite and non-negative on [0, {self.horizon:g}], got {min(values):g};"
                " to repel rather than attract, shift the reference phase by pi"
            )
        if isinstance(rate, Linear):
            if rate.horizon < self.horizon * (1.0 - 1e-12) and number(rate.start) != number(rate.end):
                raise ValueError(
                    f"the {name} rate reaches its end at t = {rate.horizon:g}, before the horizon {self.horizon:g} of"
                    f" the schedule: give it the same, {type(rate).__name__}(start, end, {self.horizon:g})"
                )
            return
        wrong = find_disagreement(
            lambda t: number(rate(t)),
            lambda t0, t1: number(rate.integral(t0, t1)),
            self.horizon,
            rounding=torch.finfo(value.dtype).eps if isinstance(value := rate(0.0), Tensor) else 0.0,
        )
        if wrong is not None:
            raise ValueError(
                f"the integral of the {name} rate is not that of its values from t = {wrong[0]:.6g} to {wrong[1]:.6g},"
                f" where it is {number(rate.integral(*wrong)):g}; an antiderivative has the rate as its slope"
            )

    def at(self, t: float) -> Rates:
        """The three rates at time ``t``, as numbers: without gradients."""
        return Rates(number(self.coupling(t)), number(self.reference(t)), number(self.diffusion(t)))

    @classmethod
    def constant(
        cls,
        coupling: float | Tensor = 0.0,
        reference: float | Tensor = 0.0,
        diffusion: float | Tensor = 1.0,
        horizon: float = 1.0,
    ) -> "Schedule":
        """Rates that do not change.

        >>> Schedule.constant(coupling=2.0, diffusion=0.5).at(0.3)
        Rates(coupling=2.0, reference=0.0, diffusion=0.5)
        """
        rates = coupling, reference, diffusion
        return cls.linear(rates, rates, horizon)

    @classmethod
    def linear(cls, start: Levels, end: Levels, horizon: float = 1.0) -> "Schedule":
        """Rates ``(K, K_ref, D)`` that run linearly from ``start`` at time 0 to ``end`` at ``horizon``.

        >>> Schedule.linear((0.0, 0.0, 1.0), (4.0, 2.0, 3.0), horizon=2.0).at(1.0)
        Rates(coupling=2.0, reference=1.0, diffusion=2.0)
        """
        coupling, reference, diffusion = (Linear(a, b, horizon) for a, b in zip(start, end, strict=True))
        return cls(coupling, reference, diffusion, horizon)

    @classmethod
    def cosine(cls, start: Levels, end: Levels, horizon: float = 1.0) -> "Schedule":
        """Rates ``(K, K_ref, D)`` that rise from ``start`` to ``end`` along half a cosine wave."""
        coupling, reference, diffusion = (Cosine(a, b, horizon) for a, b in zip(start, end, strict=True))
        return cls(coupling, reference, diffusion, horizon)

    @classmethod
    def published(cls, n_steps: int, reference_weight: float = 1.5) -> "Schedule":
        r"""The published schedule of ``n_steps`` increments as rates on ``[0, 1]`` (eq. 2).

        The published chain adds coupling ``K_i`` from 3e-5 to 0.03 and noise variance ``sigma_i^2`` from 1e-4 to 0.1
        per step, both linear in ``i``. As rates, ``K(i/n) = n K_i`` and ``2 D(i/n) = n sigma_i^2``, so that
        Euler-Maruyama with ``n`` steps is that chain and any other method or step count solves the same equation.

        Args:
            n_steps: The number n of steps of the chain, at least 2 (published: 100, 300 and 1000).
            reference_weight: ``K_ref / K``; published: 1.5 with global, 1.0 with local coupling.

        Source: Song et al., Kuramoto Orientation Diffusion Models, 2025, arXiv 2509.15328.
        """
        if n_steps < 2:
            raise ValueError(f"the published schedule needs at least 2 steps, got {n_steps}")

        def rate(first: float, last: float, scale: float) -> Linear:
            slope = (last - first) * n_steps / (n_steps - 1)  # increments are first at t = 0 and last at t = 1 - 1/n
            return Linear(scale * n_steps * first, scale * n_steps * (first + slope))

        return cls(
            coupling=rate(3e-5, 0.03, 1.0),
            reference=rate(3e-5, 0.03, reference_weight),
            diffusion=rate(1e-4, 0.1, 0.5),
        )

    @classmethod
    def settling(cls, coupling: float = 0.25, concentration: float = 7.0) -> "Schedule":
        r"""Rates on ``[0, 1]`` that keep their proportions, so that phases settle to one law, whatever they were.

        ``K_ref`` rises linearly from 0.05 to 10, half the rate of the standard variance-preserving diffusion, and
        ``D = K_ref / concentration``, ``K = coupling K_ref``. Of small phases ``e^-5`` is left at time 1. Without
        coupling the law there is von Mises of this concentration, by default of circular standard deviation 0.39 rad:
        with data within 0.15 pi of the reference phase, as wide, hardly any noise reaches around the circle, which
        would erase more than on a line, and the drift is nearly linear, so that pathwise targets vary little.

        Args:
            coupling: ``K / K_ref``.
            concentration: ``K_ref / D``.

        Source: for the rate, Song et al. 2021, arXiv 2011.13456, appendix C.

        >>> Schedule.settling(concentration=2.5).at(1.0)
        Rates(coupling=2.5, reference=10.0, diffusion=4.0)
        """
        start, end = ((coupling * c, c, c / concentration) for c in (0.05, 10.0))
        return cls.linear(start, end)


def _check_rate(start: float | Tensor, end: float | Tensor, horizon: float) -> None:
    for rate in (start, end):
        if isinstance(rate, nn.Parameter):
            raise TypeError(
                "a rate cannot be a Parameter, as no module would find it here; give a tensor that requires a gradient"
                " and hand it to the optimiser yourself"
            )
        if isinstance(rate, Tensor) and rate.ndim:
            raise ValueError(f"a rate must be one number for all oscillators, got shape {tuple(rate.shape)}")
    first, last = number(start), number(end)
    if not (math.isfinite(first) and math.isfinite(last) and first >= 0 and last >= 0):
        raise ValueError(f"a rate must be finite and non-negative, got start={first:g} and end={last:g}")
    if not (math.isfinite(horizon) and horizon > 0):
        raise ValueError(f"horizon must be positive and finite, got {horizon:g}")


def number(x: float | Tensor) -> float:
    """A rate as a plain number, without gradients."""
    return float(x.detach()) if isinstance(x, Tensor) else float(x)


def _cos(x: T) -> T:
    return x.cos() if isinstance(x, Tensor) else math.cos(x)


def _sin(x: T) -> T:
    return x.sin() if isinstance(x, Tensor) else math.sin(x)

r"""Data as phases: grey levels and colours on an arc of the circle, angles in any unit as radians.

An image enters the torus by an affine map of its value range onto the arc ``[-scale, scale]``: what is stored stays
ordered, and a gap of ``2 (pi - scale)`` keeps black apart from white. Angles are circular already; they only
change their unit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from circsde.torus import TWO_PI, half_open_bounds, to_circle, wrap

PERIODS = {
    "rad": TWO_PI,
    "radian": TWO_PI,
    "radians": TWO_PI,
    "deg": 360.0,
    "degree": 360.0,
    "degrees": 360.0,
    "hour": 24.0,
    "hours": 24.0,
    "arcmin": 21_600.0,
    "arcsec": 1_296_000.0,
    "gon": 400.0,
    "turn": 1.0,
}
"""The length of one turn in each named unit."""


@runtime_checkable
class Encoding(Protocol):
    """Turns pictures into phases and back."""

    @property
    def reach(self) -> int:
        """How many pixels on each side of a pixel its phase depends on."""
        ...

    def encode(self, x: Tensor) -> Tensor:
        """Phases of pictures in ``[-1, 1]``, ``(batch, rows, columns)`` or ``(batch, 3, rows, columns)``."""
        ...

    def decode(self, theta: Tensor) -> Tensor:
        """Pictures in ``[-1, 1]`` of phases."""
        ...


@dataclass(frozen=True)
class PhaseEncoding:
    r"""The affine map ``theta = scale (2 (x - low) / (high - low) - 1)`` of images onto an arc of the circle.

    Source: Song et al., Kuramoto Orientation Diffusion Models, 2025, arXiv 2509.15328 (scale 0.9 pi).

    Attributes:
        scale: Half the length of the arc in rad, in ``(0, pi]``. At 0.5 pi black and white are opposite; at pi they
            are the same phase.
        low: The value of black: -1 by default; 0 for data in ``[0, 1]`` and for uint8.
        high: The value of white: 1 by default; 255 for uint8, 256 for uint8 with uniform noise in ``[0, 1)`` added.

    Raises:
        ValueError: If ``scale`` is outside ``(0, pi]`` or ``low >= high``.

    >>> encoding = PhaseEncoding(scale=math.pi / 2, low=0, high=255)
    >>> encoding.encode(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist()
    [-1.5707963705062866, -0.942477822303772, 1.5707963705062866]
    >>> encoding.decode(torch.tensor([0.0, 2.0, -2.0 + 4 * math.pi])).tolist()
    [127.5, 255.0, 0.0]
    """

    scale: float = 0.9 * math.pi
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an arc longer than the circle and an empty value range."""
        if not 0.0 < self.scale <= math.pi:
            raise ValueError(f"the encoding scale must be in (0, pi] rad, got {self.scale:g}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"the value range must have low < high, both finite, got [{self.low:g}, {self.high:g}]")

    @property
    def reach(self) -> int:
        """Zero, since the phase of a pixel depends on that pixel alone."""
        return 0

    def encode(self, x: Tensor) -> Tensor:
        """Phases in ``[-scale, scale]`` of the values ``x`` in ``[low, high]``.

        Args:
            x: Values of any shape. Integers are taken in float64, half precision in float32.

        Returns:
            Phases in the dtype of ``x``, or in the default one for integers.

        Raises:
            ValueError: If a value lies outside ``[low, high]`` or is not a number.
        """
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        x = x.to(torch.promote_types(dtype, torch.float32) if x.is_floating_point() else torch.float64)
        if x.numel() and not bool(((x >= self.low) & (x <= self.high)).all()):
            raise ValueError(
                f"values must lie in [{self.low:g}, {self.high:g}], got a minimum of {x.min().item():g} and a maximum"
                f" of {x.max().item():g}; state the range of the data, for example PhaseEncoding(low=0, high=255)"
            )
        return (self.scale * self._unit(x)).to(dtype)

    def decode(self, theta: Tensor) -> Tensor:
        """Values in ``[low, high]`` of the phases ``theta``, on any lift; the inverse of :meth:`encode`.

        A phase in the gap between white and black becomes the nearer of the two.
        """
        wide = wrap(theta).to(torch.promote_types(theta.dtype, torch.float32))
        unit = (wide / self.scale).clamp(-1.0, 1.0)
        return (self.low + (self.high - self.low) * 0.5 * (unit + 1.0)).to(theta.dtype)

    def log_abs_det_jacobian(self, event_shape: Sequence[int]) -> float:
        """``log |d theta / d x|`` of one event in nats: ``log p(x) = log p(theta) + log_abs_det_jacobian``.

        >>> round(PhaseEncoding(scale=math.pi, low=0, high=1).log_abs_det_jacobian((2, 3)), 6)
        11.027262
        """
        return math.prod(event_shape) * math.log(2.0 * self.scale / (self.high - self.low))

    def _unit(self, x: Tensor) -> Tensor:
        """Map ``x`` to ``[-1, 1]``, with the ends exact."""
        return ((x - self.low) - (self.high - x)) / (self.high - self.low)


def period(unit: str | float) -> float:
    """The length of one turn in ``unit``: a name in :data:`PERIODS`, or the period itself as a number or its text.

    >>> period("deg"), period(7.0), period("365.25")
    (360.0, 7.0, 365.25)

    Raises:
        ValueError: If the unit is unknown or the period is not positive.
    """
    if isinstance(unit, str) and unit.lower() in PERIODS:
        return PERIODS[unit.lower()]
    try:
        value = float(unit)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(
            f"unknown unit {unit!r}: give rad, deg, hours, or the length of one turn as a positive number, such as 7"
            " for days of the week"
        )
    return value


def to_radians(values: Tensor, unit: str | float) -> Tensor:
    """Angles in ``unit`` as radians in ``[-pi, pi)``.

    Args:
        values: Angles of any shape. Whole turns are taken off exactly, in the integers or in float64.
        unit: "rad", "deg", "hours", or the length of one turn.

    Returns:
        Radians in the dtype of ``values``, or in the default one for integers.

    Raises:
        ValueError: If the unit is unknown, a value is not finite, or a value under a *named* unit exceeds one turn
            (degrees declared as radians); give the period as a number where angles really run over many turns. Also
            for integers beyond ``2^53`` with a period that is not whole, which float64 does not hold.

    >>> to_radians(torch.tensor([90.0, 270.0]), "deg").tolist()
    [1.5707963705062866, -1.5707963705062866]
    >>> to_radians(torch.tensor([6]), "hours").item()
    1.5707963705062866
    >>> to_radians(torch.tensor([1700000025]), 60.0).item()  # seconds of a minute: 45
    -1.5707963705062866
    """
    turn = period(unit)
    dtype = values.dtype if values.is_floating_point() else torch.get_default_dtype()
    if not bool(values.isfinite().all()):
        index = tuple(int(i) for i in (~values.isfinite()).nonzero()[0])
        raise ValueError(f"angles must be finite, got {values[index].item()} at index {index}")
    if isinstance(unit, str) and unit.lower() in PERIODS and values.numel():
        _check_one_turn(values.double().abs().max().item(), unit, turn)
    return to_circle(_within_one_turn(values, turn) * (TWO_PI / turn), dtype)


def _within_one_turn(values: Tensor, turn: float) -> Tensor:
    """``values`` less whole turns towards zero, float64; the remainder is exact."""
    if values.is_floating_point():
        return values.double().fmod(turn)
    if values.dtype != torch.uint64 and turn.is_integer() and turn < 2.0**63:
        return values.long().fmod(int(turn)).double()
    wide = values.double()
    if values.numel() and wide.abs().max().item() > 2.0**53:
        raise ValueError(
            f"integers up to {wide.abs().max().item():g} are beyond 2^53, which float64 does not hold, and the period"
            f" {turn!r} is not whole: count in a unit in which it is, or subtract an origin first"
        )
    return wide.fmod(turn)


def from_radians(theta: Tensor, unit: str | float) -> Tensor:
    """Angles ``theta`` in radians as ``unit``; inverts :func:`to_radians` up to turns.

    Results are in ``[-period/2, period/2)``, half-open exactly in the dtype of ``theta``.

    >>> from_radians(torch.tensor([math.pi / 2, 1.5 * math.pi]), "deg").tolist()
    [90.0, -90.0]
    """
    turn = period(unit)
    low, high = half_open_bounds(theta.dtype, 0.5 * turn)
    return (wrap(theta).double() * (turn / TWO_PI)).to(theta.dtype).clamp(low, high)


def _check_one_turn(largest: float, unit: str, turn: float) -> None:
    """Refuse angles beyond one turn either way, with a guess at the unit that was meant."""
    if largest > turn * (1.0 + 1e-6):
        guess = " (are they degrees?)" if turn < 360.0 >= largest else ""
        raise ValueError(
            f"angles declared {unit!r} reach {largest:g}, beyond one turn of {turn:g}{guess}; if they do run over many"
            f" turns, give the period as a number: {turn!r}"
        )

"""Who listens to whom: each coupling is a local mean, a linear operator on real fields over the oscillators.

The Kuramoto drift needs only the means of ``cos theta`` and ``sin theta`` (the local mean field ``z_i``), so a
coupling costs two applications of :meth:`Coupling.mean` and never an array of pairs.

All that the package wants to know of a coupling it asks the coupling; nothing outside this module lists them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

Boundary = Literal["periodic", "reflecting"]


LOOKED_AT = 512
"""The most oscillators whose weights are looked at pair by pair where a coupling does not say what they are."""

_MATRIX = 48  # the longest side of an image for which a product with a matrix is faster than sums over a window


class Structure(Enum):
    """What the Jacobian of a drift step is made of, from which :mod:`circsde.matching.jacobian` takes its formulas."""

    DIAGONAL = "diagonal, and a symmetric rest with small entries"
    RANK_TWO = "diagonal plus rank two"
    DENSE = "any matrix"


class Coupling:
    """A local mean over the oscillators of each sample; one of your own overrides :meth:`mean`, and is complete.

    The other methods have defaults that follow from the mean, some at the cost of one mean per oscillator. Override
    them where there is a formula. What a checkpoint keeps are the :attr:`arguments`.

    >>> class Neighbours(Coupling):
    ...     def mean(self, x):
    ...         return 0.5 * (x.roll(1, -1) + x.roll(-1, -1))
    >>> Neighbours().self_weight((3,)).tolist(), Neighbours().pair_weight((3,)), Neighbours().pair_weight((4,))
    ([0.0, 0.0, 0.0], 0.5, None)
    """

    couples: bool = True
    """Whether oscillators can hear one another at all."""

    structure: Structure = Structure.DENSE
    """That of the Jacobian."""

    def mean(self, x: Tensor) -> Tensor:
        """The mean of ``x``, shape ``(batch, *event)``, around each oscillator; linear, and broadcastable to ``x``."""
        raise NotImplementedError(f"{type(self).__name__} must define mean(x), the mean of x around each oscillator")

    def fast_mean(self, like: Tensor) -> Callable[[Tensor], Tensor]:  # noqa: ARG002
        """:meth:`mean` for many tensors like the one given, where there is something to prepare."""
        return self.mean

    def check(self, event_shape: Sequence[int]) -> None:
        """Raise ValueError where this coupling does not fit oscillators of ``event_shape``; by default all fit."""

    def self_weight(self, event_shape: Sequence[int]) -> float | Tensor:
        """The weight ``c_ii`` of an oscillator in its own mean, one number or shape ``event_shape`` (eq. 5)."""
        shape = torch.Size(event_shape)
        units = torch.eye(shape.numel(), dtype=torch.float64)
        own = [self.mean(unit.reshape(1, *shape)).expand(1, *shape).flatten()[i] for i, unit in enumerate(units)]
        return torch.stack(own).reshape(shape)

    def pair_weight(self, event_shape: Sequence[int]) -> float | None:
        """The weight with which each oscillator hears each other one where all are alike; None where they differ.

        None also where there are more than :data:`LOOKED_AT` oscillators and nobody knows.
        """
        shape = torch.Size(event_shape)
        n = shape.numel()
        with torch.no_grad():
            if not bool(self.mean(torch.ones(1, *shape)).any()):
                return 0.0
            if n > LOOKED_AT:
                return None
            heard = self.mean(torch.eye(n, dtype=torch.float64).reshape(n, *shape)).expand(n, *shape).reshape(n, n)
            others = heard[~torch.eye(n, dtype=torch.bool)]
        if not len(others):
            return 0.0
        low, high = others.min().item(), others.max().item()
        return high if high - low <= 1e-12 * high else None

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What makes this coupling again, kept by checkpoints (numbers, texts, tensors and lists of them)."""
        return {field.name: getattr(self, field.name) for field in fields(self)} if is_dataclass(self) else {}


@dataclass(frozen=True)
class NoCoupling(Coupling):
    """Independent oscillators: the mean field of eq. (1) is zero.

    >>> NoCoupling().mean(torch.ones(1, 3))
    tensor([[0.]])
    """

    couples = False
    structure = Structure.DIAGONAL

    def mean(self, x: Tensor) -> Tensor:
        """Zero."""
        return x.new_zeros((1,) * x.ndim)

    def self_weight(self, event_shape: Sequence[int]) -> float:  # noqa: ARG002
        """Zero."""
        return 0.0

    def pair_weight(self, event_shape: Sequence[int]) -> float:  # noqa: ARG002
        """Zero."""
        return 0.0


@dataclass(frozen=True)
class GlobalCoupling(Coupling):
    """Every oscillator of a sample listens to the mean over all of them, itself included: ``c_ij = 1/N`` in eq. (1).

    Source: Kuramoto, 1984, doi:10.1007/978-3-642-69689-3.

    >>> GlobalCoupling().mean(torch.tensor([[0.0, 1.0, 2.0]]))
    tensor([[1.]])
    """

    structure = Structure.RANK_TWO

    def mean(self, x: Tensor) -> Tensor:
        """The mean over all event axes, kept as axes of length 1."""
        return x.mean(tuple(range(1, x.ndim)), keepdim=True)

    def self_weight(self, event_shape: Sequence[int]) -> float:
        """One over the number of oscillators."""
        return 1.0 / torch.Size(event_shape).numel()

    def pair_weight(self, event_shape: Sequence[int]) -> float:
        """One over the number of oscillators; zero for a single one."""
        n = torch.Size(event_shape).numel()
        return 1.0 / n if n > 1 else 0.0


@dataclass(frozen=True)
class LocalCoupling(Coupling):
    """The mean over a window of side ``2 radius + 1`` in the last two event axes (or the only one), per channel.

    Attributes:
        radius: Neighbours on each side; at least 1, and the window must fit into the image.
        boundary: ``"periodic"``, or ``"reflecting"``: the image is mirrored at its edge, the edge pixel repeated.
            Either way the operator is symmetric, so that the equilibrium is a Gibbs law (eq. 3).

    Raises:
        ValueError: If ``radius`` is below 1 or the boundary unknown; where it meets oscillators, if it does not fit.

    Source: the windows of Song et al., 2025, arXiv 2509.15328, but averaging ``e^{i theta}``.

    >>> LocalCoupling(radius=1).mean(torch.tensor([[0.0, 0.0, 3.0, 0.0, 0.0]])).round()
    tensor([[0., 1., 1., 1., 0.]])
    """

    radius: int
    boundary: Boundary = "periodic"

    structure = Structure.DIAGONAL

    def __post_init__(self) -> None:
        """Refuse a radius below 1 and an unknown boundary."""
        if self.radius < 1:
            raise ValueError(f"radius must be at least 1, got {self.radius}; for no coupling use NoCoupling()")
        if self.boundary not in ("periodic", "reflecting"):
            raise ValueError(f'boundary must be "periodic" or "reflecting", got {self.boundary!r}')

    def check(self, event_shape: Sequence[int]) -> None:
        """Raise ValueError where the window is wider than the image."""
        if not event_shape or 2 * self.radius + 1 > min(event_shape[-2:]):
            raise ValueError(
                f"a window of radius {self.radius} is {2 * self.radius + 1} wide and does not fit oscillators of shape "
                f"{tuple(event_shape)}; use a smaller radius, or GlobalCoupling()"
            )

    def mean(self, x: Tensor) -> Tensor:
        """The box filter, separable: along rows, then along columns."""
        for axis in range(max(1, x.ndim - 2), x.ndim):
            x = _window_sum(self._pad(x, axis), 2 * self.radius + 1, axis) * (1.0 / (2 * self.radius + 1))
        return x

    def fast_mean(self, like: Tensor) -> Callable[[Tensor], Tensor]:
        """As products with a matrix for each side, on small images on a CPU."""
        sides = like.shape[1:][-2:]
        if like.device.type != "cpu" or max(sides) > _MATRIX:
            return self.mean
        matrices = [_window(self, side, like.dtype) for side in sides]
        if len(matrices) == 1:
            return lambda x: x @ matrices[0]
        return lambda x: matrices[0] @ x @ matrices[1]

    def self_weight(self, event_shape: Sequence[int]) -> float | Tensor:
        """One over the window's size, times how often a mirrored edge shows the oscillator to itself."""
        sides = tuple(event_shape[-2:])
        weight = torch.ones((), dtype=torch.float64)
        for side in sides:
            i = torch.arange(side)
            images = 1 + (2 * i + 1 <= self.radius).long() + (2 * (side - 1 - i) + 1 <= self.radius).long()
            counts = images if self.boundary == "reflecting" else torch.ones_like(i)
            weight = weight[..., None] * counts / (2 * self.radius + 1)
        return weight.expand(tuple(event_shape))

    def _pad(self, x: Tensor, axis: int) -> Tensor:
        first, last = x.narrow(axis, 0, self.radius), x.narrow(axis, x.shape[axis] - self.radius, self.radius)
        if self.boundary == "periodic":
            return torch.cat((last, x, first), axis)
        return torch.cat((first.flip(axis), x, last.flip(axis)), axis)


@lru_cache(maxsize=32)
def _window(coupling: LocalCoupling, side: int, dtype: torch.dtype) -> Tensor:
    """The symmetric matrix of the mean along one axis."""
    return coupling.mean(torch.eye(side, dtype=dtype))


def _window_sum(x: Tensor, width: int, axis: int) -> Tensor:
    """Sums of ``width`` neighbours along ``axis``, by doubling: O(log width) additions and no cancellation."""
    length = x.shape[axis] - width + 1
    sums, span, offset = x, 1, 0  # sums[i] = x[i] + ... + x[i + span - 1]
    total: Tensor | None = None
    while True:
        if width & span:
            part = sums.narrow(axis, offset, length)
            total = part if total is None else total + part
            offset += span
        if 2 * span > width:
            assert total is not None
            return total
        shorter = sums.shape[axis] - span
        sums = sums.narrow(axis, 0, shorter) + sums.narrow(axis, span, shorter)
        span *= 2


COUPLINGS: dict[str, type[Coupling]] = {"none": NoCoupling, "global": GlobalCoupling, "local": LocalCoupling}
"""The couplings by their names on the command line."""

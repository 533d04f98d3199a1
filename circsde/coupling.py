"""Who listens to whom: each coupling is a local mean, a linear operator on real fields over the oscillators.

The Kuramoto drift needs only the means of ``cos theta`` and ``sin theta`` (the local mean field ``z_i``), so a
coupling costs two applications of :meth:`Coupling.mean` and never an array of pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

Boundary = Literal["periodic", "reflecting"]


@runtime_checkable
class Coupling(Protocol):
    """A local mean over the oscillators of each sample."""

    def check(self, event_shape: Sequence[int]) -> None:
        """Raise ValueError where this coupling does not fit oscillators of ``event_shape``."""

    def mean(self, x: Tensor) -> Tensor:
        """The mean of ``x``, shape ``(batch, *event)``, around each oscillator; broadcastable to ``x``."""

    def self_weight(self, event_shape: Sequence[int]) -> float | Tensor:
        """The weight ``c_ii`` of an oscillator in its own mean, one number or shape ``event_shape`` (eq. 5)."""


@dataclass(frozen=True)
class NoCoupling:
    """Independent oscillators: the mean field of eq. (1) is zero.

    >>> NoCoupling().mean(torch.ones(1, 3))
    tensor([[0.]])
    """

    def check(self, event_shape: Sequence[int]) -> None:
        """Every shape fits."""

    def mean(self, x: Tensor) -> Tensor:
        """Zero."""
        return x.new_zeros((1,) * x.ndim)

    def self_weight(self, event_shape: Sequence[int]) -> float:  # noqa: ARG002
        """Zero."""
        return 0.0


@dataclass(frozen=True)
class GlobalCoupling:
    """Every oscillator of a sample listens to the mean over all of them, itself included: ``c_ij = 1/N`` in eq. (1).

    Source: Kuramoto, 1984, doi:10.1007/978-3-642-69689-3.

    >>> GlobalCoupling().mean(torch.tensor([[0.0, 1.0, 2.0]]))
    tensor([[1.]])
    """

    def check(self, event_shape: Sequence[int]) -> None:
        """Every shape fits."""

    def mean(self, x: Tensor) -> Tensor:
        """The mean over all event axes, kept as axes of length 1."""
        return x.mean(tuple(range(1, x.ndim)), keepdim=True)

    def self_weight(self, event_shape: Sequence[int]) -> float:
        """One over the number of oscillators."""
        return 1.0 / torch.Size(event_shape).numel()


@dataclass(frozen=True)
class LocalCoupling:
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


class GraphCoupling:
    """The weighted mean over the neighbours in a graph: ``z_i = sum_j A_ij e^{i theta_j} / sum_j A_ij``.

    Args:
        adjacency: Non-negative weights ``A``, square, dense or sparse, over the oscillators in flattened order; row
            ``i`` lists whom oscillator ``i`` listens to. An oscillator without neighbours is free.
        normalise: Divide by the row sums (the default). Without it the row sums stay, and a symmetric ``A`` gives
            a Gibbs equilibrium whatever the degrees.

    Raises:
        ValueError: If ``A`` is not square, or holds negative or non-finite weights.

    >>> path = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    >>> GraphCoupling(path).mean(torch.tensor([[3.0, 5.0, 1.0]]))
    tensor([[5., 2., 5.]])
    """

    def __init__(self, adjacency: Tensor, *, normalise: bool = True) -> None:
        if adjacency.ndim != 2 or adjacency.shape[0] != adjacency.shape[1]:
            raise ValueError(f"adjacency must be a square matrix, got shape {tuple(adjacency.shape)}")
        matrix = adjacency.detach().double().to_sparse().coalesce()
        rows, weights = matrix.indices()[0], matrix.values()
        if not bool(((weights >= 0) & weights.isfinite()).all()):
            raise ValueError(f"adjacency must be finite and non-negative, got a minimum of {weights.min().item():g}")
        if normalise:
            degree = weights.new_zeros(matrix.shape[0]).index_add(0, rows, weights)
            weights = weights / degree[rows].clamp(min=torch.finfo(weights.dtype).tiny)
        self._matrix = torch.sparse_coo_tensor(
            matrix.indices(), weights, matrix.shape, is_coalesced=True, check_invariants=True
        )
        self._casts: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def check(self, event_shape: Sequence[int]) -> None:
        """Raise ValueError where the graph has another number of vertices than there are oscillators."""
        vertices, oscillators = self._matrix.shape[0], torch.Size(event_shape).numel()
        if vertices != oscillators:
            raise ValueError(
                f"the graph has {vertices} vertices, oscillators of shape {tuple(event_shape)} need {oscillators}"
            )

    def mean(self, x: Tensor) -> Tensor:
        """One sparse matrix product."""
        mixed: Tensor = torch.sparse.mm(self._as(x), x.flatten(1).T)
        return mixed.T.reshape(x.shape)

    def self_weight(self, event_shape: Sequence[int]) -> Tensor:
        """The diagonal of the weights."""
        rows, columns = self._matrix.indices()
        loops = rows == columns
        weight = self._matrix.values().new_zeros(self._matrix.shape[0])
        return weight.index_add(0, rows[loops], self._matrix.values()[loops]).reshape(tuple(event_shape))

    def _as(self, x: Tensor) -> Tensor:
        key = (x.dtype, x.device)
        if key not in self._casts:
            self._casts[key] = self._matrix.to(device=x.device, dtype=x.dtype)
        return self._casts[key]

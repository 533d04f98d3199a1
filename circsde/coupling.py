"""Who listens to whom: each coupling is a local mean, a linear operator on real fields over the oscillators.

The Kuramoto drift needs only the means of ``cos theta`` and ``sin theta`` (the local mean field ``z_i``), so a
coupling costs two applications of :meth:`Coupling.mean` and never an array of pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Boundary = Literal["periodic", "reflecting"]

_ENTRIES = 2**22
"""How many numbers a sum over edges keeps at once."""


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


class GraphCoupling(nn.Module):
    """The weighted mean over the neighbours in a graph: ``z_i = sum_j A_ij e^{i theta_j} / sum_j A_ij``.

    Args:
        adjacency: Non-negative weights ``A``, square, dense or sparse, over the oscillators in flattened order; row
            ``i`` lists whom oscillator ``i`` listens to. An oscillator without neighbours is free. Of weights that
            require a gradient nothing is copied: gradients reach them, all ``n^2`` of a dense matrix, zeros included,
            or the given ones of a sparse matrix; and a ``Parameter`` is one of the equation.
        normalise: Divide by the row sums (the default). Without it the row sums stay, and a symmetric ``A`` gives
            a Gibbs equilibrium whatever the degrees.

    Raises:
        TypeError: If ``A`` is no tensor and no array.
        ValueError: If ``A`` is not square, or holds negative or non-finite weights.

    >>> path = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    >>> GraphCoupling(path).mean(torch.tensor([[3.0, 5.0, 1.0]]))
    tensor([[5., 2., 5.]])
    """

    def __init__(self, adjacency: Tensor | NDArray[Any], *, normalise: bool = True) -> None:
        super().__init__()
        self.adjacency: Tensor | None
        if isinstance(adjacency, np.ndarray):
            adjacency = torch.from_numpy(adjacency)
        if not isinstance(adjacency, Tensor):
            raise TypeError(f"adjacency must be a tensor or a numpy array, got {type(adjacency).__name__}")
        if adjacency.ndim != 2 or adjacency.shape[0] != adjacency.shape[1]:
            raise ValueError(f"adjacency must be a square matrix, got shape {tuple(adjacency.shape)}")
        self.normalise, self.vertices = normalise, adjacency.shape[0]
        fixed = adjacency.detach().double()
        every_pair = adjacency.requires_grad and not adjacency.is_sparse
        matrix = (torch.ones_like(fixed) if every_pair else fixed).to_sparse().coalesce()
        self._rows, self._columns = matrix.indices()
        weights = _values(fixed, self._rows, self._columns)
        if not bool(((weights >= 0) & weights.isfinite()).all()):
            raise ValueError(f"adjacency must be finite and non-negative, got a minimum of {weights.min().item():g}")
        if isinstance(adjacency, nn.Parameter) or not adjacency.requires_grad:
            self.register_parameter("adjacency", adjacency if isinstance(adjacency, nn.Parameter) else None)
        else:
            self.register_buffer("adjacency", adjacency)
        self._fixed = None if self.adjacency is not None else self._normalised(weights)
        self._casts: dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def check(self, event_shape: Sequence[int]) -> None:
        """Raise ValueError where the graph has another number of vertices than there are oscillators."""
        oscillators = torch.Size(event_shape).numel()
        if self.vertices != oscillators:
            raise ValueError(
                f"the graph has {self.vertices} vertices, oscillators of shape {tuple(event_shape)} need {oscillators}"
            )

    def mean(self, x: Tensor) -> Tensor:
        """A sum over the edges, in the same order for every sample, so that a batch changes nothing."""
        rows, columns, weights = self._as(x)
        flat = x.flatten(1)
        mixed, size = torch.zeros_like(flat), max(1, _ENTRIES // len(flat))
        for first in range(0, len(rows), size):
            edges = slice(first, first + size)
            mixed = mixed.index_add(1, rows[edges], flat[:, columns[edges]] * weights[edges])
        return mixed.reshape(x.shape)

    def self_weight(self, event_shape: Sequence[int]) -> Tensor:
        """The diagonal of the weights."""
        loops = self._rows == self._columns
        weights = self._weights()
        own = weights.new_zeros(self.vertices).index_add(0, self._rows[loops], weights[loops])
        return own.reshape(tuple(event_shape))

    def _weights(self) -> Tensor:
        """The weight of every edge, float64."""
        if self._fixed is not None:
            return self._fixed
        assert self.adjacency is not None
        return self._normalised(_values(self.adjacency.double().cpu(), self._rows, self._columns))

    def _normalised(self, weights: Tensor) -> Tensor:
        if not self.normalise:
            return weights
        degree = weights.new_zeros(self.vertices).index_add(0, self._rows, weights)
        return weights / degree[self._rows].clamp(min=torch.finfo(weights.dtype).tiny)

    def _as(self, x: Tensor) -> tuple[Tensor, ...]:
        """Rows, columns and weights of the edges, like ``x``."""
        key = (x.dtype, x.device)
        if key in self._casts:
            return self._casts[key]
        parts = self._rows.to(x.device), self._columns.to(x.device), self._weights().to(x)
        if self._fixed is not None and not torch.is_inference_mode_enabled():
            self._casts[key] = parts
        return parts


def _values(matrix: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The entries of a dense or sparse matrix at all those places, of which a sparse one has no others."""
    return matrix.coalesce().values() if matrix.is_sparse else matrix[rows, columns]

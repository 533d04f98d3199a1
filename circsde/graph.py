"""Oscillators on a graph: each listens to its neighbours, with weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from circsde.coupling import Coupling

_ENTRIES = 2**22  # how many numbers a sum over edges keeps at once
_DENSE = 1 / 16  # the share of all pairs from which on a product with the whole matrix is faster
_SMALL = 64  # vertices up to which it does not matter


class GraphCoupling(Coupling, nn.Module):
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
        nn.Module.__init__(self)
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
        self._dense = self.vertices > _SMALL and len(weights) >= _DENSE * self.vertices**2
        self._given = weights
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
        """A sum over the edges, in the same order for every sample, so that a batch changes nothing.

        Where a large graph has a sixteenth of all edges or more, it is a product with the matrix, which rounds
        differently in another batch.
        """
        flat = x.flatten(1)
        if self._dense:
            (matrix,) = self._as(x)
            return (flat @ matrix).reshape(x.shape)
        rows, columns, weights = self._as(x)
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

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The adjacency matrix, sparse and detached, and whether its rows are divided by their sums."""
        weights = self._given
        if self.adjacency is not None:
            weights = _values(self.adjacency.detach().double().cpu(), self._rows, self._columns)
        edges, size = torch.stack((self._rows, self._columns)), (self.vertices, self.vertices)
        return {
            "adjacency": torch.sparse_coo_tensor(edges, weights, size, check_invariants=True),
            "normalise": self.normalise,
        }

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
        """Rows, columns and weights of the edges, like ``x``; or one matrix of who is heard by whom."""
        key = (x.dtype, x.device)
        if key in self._casts:
            return self._casts[key]
        rows, columns, weights = self._rows.to(x.device), self._columns.to(x.device), self._weights().to(x)
        parts: tuple[Tensor, ...] = rows, columns, weights
        if self._dense:
            parts = (weights.new_zeros(self.vertices, self.vertices).index_put((columns, rows), weights),)
        if self._fixed is not None and not torch.is_inference_mode_enabled():
            self._casts[key] = parts
        return parts


def _values(matrix: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The entries of a dense or sparse matrix at all those places, of which a sparse one has no others."""
    return matrix.coalesce().values() if matrix.is_sparse else matrix[rows, columns]

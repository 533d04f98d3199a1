"""Oscillators on a graph, or with a matrix of weights: each listens to others, with a weight for each pair."""

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from circsde.adjacency import Adjacency, Turn, WeightedCoupling, as_matrix

_ENTRIES = 2**22  # how many numbers a sum over edges keeps at once
_DENSE = 1 / 16  # the share of all pairs from which on a product with the whole matrix is faster
_SMALL = 64  # vertices up to which it does not matter


class GraphCoupling(WeightedCoupling):
    """The weighted mean over the neighbours in a graph: ``z_i = sum_j A_ij e^{i (theta_j - alpha_ij)} / sum_j A_ij``.

    Args:
        adjacency: Weights ``A`` over the oscillators in flattened order, a square tensor or array, dense or sparse, a
            matrix of scipy.sparse, or a networkx graph; row ``i`` lists whom oscillator ``i`` listens to, so that a
            matrix that is not symmetric is a directed graph. An oscillator without neighbours is free. Of weights that
            require a gradient nothing is copied: gradients reach them, all ``n^2`` of a dense matrix, zeros included,
            or the given ones of a sparse matrix; and a ``Parameter`` is one of the equation.
        lag: The phase lag alpha, radians: a number, one for each oscillator, or a matrix like ``A`` with one for
            each edge. A ``Parameter`` is one of the equation.
        normalise: Divide by the row sums (the default). Without it the row sums stay, a symmetric ``A`` gives a Gibbs
            equilibrium whatever the degrees, and weights may be negative.

    Raises:
        TypeError: If ``A`` is none of these.
        ValueError: If ``A`` is not square, holds non-finite weights, or negative ones that should be normalised.

    >>> path = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    >>> GraphCoupling(path).mean(torch.tensor([[3.0, 5.0, 1.0]]))
    tensor([[5., 2., 5.]])
    """

    def __init__(
        self, adjacency: Adjacency, *, lag: float | Tensor | NDArray[Any] = 0.0, normalise: bool = True
    ) -> None:
        nn.Module.__init__(self)
        self.adjacency: Tensor | None
        adjacency = as_matrix(adjacency)
        self.normalise, self.vertices = normalise, adjacency.shape[0]
        self.set_lag(lag)
        fixed = adjacency.detach().double()
        every_pair = adjacency.requires_grad and not adjacency.is_sparse
        matrix = (torch.ones_like(fixed) if every_pair else fixed).to_sparse().coalesce()
        self._rows, self._columns = matrix.indices()
        weights = _values(fixed, self._rows, self._columns)
        if not bool((((weights >= 0) | (not normalise)) & weights.isfinite()).all()):
            raise ValueError(
                f"adjacency must be finite and non-negative, got a minimum of {weights.min().item():g}; for signed"
                " weights take normalise=False"
            )
        if isinstance(adjacency, nn.Parameter) or not adjacency.requires_grad:
            self.register_parameter("adjacency", adjacency if isinstance(adjacency, nn.Parameter) else None)
        else:
            self.register_buffer("adjacency", adjacency)
        self._dense = self.vertices > _SMALL and len(weights) >= _DENSE * self.vertices**2
        self._given = weights
        self._fixed = None if self.adjacency is not None else self._normalised(weights)
        self._casts: dict[tuple[Turn, torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def product(self, x: Tensor, turn: Turn = None) -> Tensor:
        """A sum over the edges, in the same order for every sample, so that a batch changes nothing.

        Where a large graph has a sixteenth of all edges or more, it is a product with the matrix, which rounds
        differently in another batch.
        """
        flat = x.flatten(1)
        if self._dense:
            (matrix,) = self._as(x, turn)
            return (flat @ matrix).reshape(x.shape)
        rows, columns, weights = self._as(x, turn)
        mixed, size = torch.zeros_like(flat), max(1, _ENTRIES // len(flat))
        for first in range(0, len(rows), size):
            edges = slice(first, first + size)
            mixed = mixed.index_add(1, rows[edges], flat[:, columns[edges]] * weights[edges])
        return mixed.reshape(x.shape)

    def own(self, turn: Turn = None) -> Tensor:
        """The diagonal of the weights, turned."""
        loops = self._rows == self._columns
        weights = self._turned_weights(turn)
        return weights.new_zeros(self.vertices).index_add(0, self._rows[loops], weights[loops])

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The adjacency matrix, sparse and detached, the lag, and whether rows are divided by their sums."""
        weights = self._given
        if self.adjacency is not None:
            weights = _values(self.adjacency.detach().double().cpu(), self._rows, self._columns)
        edges, size = torch.stack((self._rows, self._columns)), (self.vertices, self.vertices)
        return {
            "adjacency": torch.sparse_coo_tensor(edges, weights, size, check_invariants=True),
            "lag": self.lag,
            "normalise": self.normalise,
        }

    def _weights(self) -> Tensor:
        """The weight of every edge, float64."""
        if self._fixed is not None:
            return self._fixed
        assert self.adjacency is not None
        return self._normalised(_values(self.adjacency.double().cpu(), self._rows, self._columns))

    def _turned_weights(self, turn: Turn) -> Tensor:
        """The weight of every edge, times the turn of its lag, float64."""
        if turn is None or not isinstance(self.lag, Tensor):
            return self._weights()
        return self._weights() * turn(self.lag.double().cpu()[self._rows, self._columns])

    def _normalised(self, weights: Tensor) -> Tensor:
        if not self.normalise:
            return weights
        degree = weights.new_zeros(self.vertices).index_add(0, self._rows, weights)
        return weights / degree[self._rows].clamp(min=torch.finfo(weights.dtype).tiny)

    def _as(self, x: Tensor, turn: Turn) -> tuple[Tensor, ...]:
        """Rows, columns and weights of the edges, like ``x``; or one matrix of who is heard by whom."""
        key = (turn, x.dtype, x.device)
        if key in self._casts:
            return self._casts[key]
        rows, columns, weights = self._rows.to(x.device), self._columns.to(x.device), self._turned_weights(turn).to(x)
        parts: tuple[Tensor, ...] = rows, columns, weights
        if self._dense:
            parts = (weights.new_zeros(self.vertices, self.vertices).index_put((columns, rows), weights),)
        learnt = turn is not None and isinstance(self.lag, Tensor) and self.lag.requires_grad
        if self._fixed is not None and not learnt and not torch.is_inference_mode_enabled():
            self._casts[key] = parts
        return parts


class DenseCoupling(WeightedCoupling):
    """Any matrix of weights, signed or directed: ``z_i = sum_j W_ij e^{i (theta_j - alpha_ij)}``, without normalising.

    A field costs one product of the cosines and sines of all samples with the matrix, and two where edges have lags.
    With ``W_ij = K_ij / n`` it is the coupling of a network of oscillators that is learnt,
    ``sum_j W_ij sin(theta_j - theta_i)``.

    Args:
        weights: ``W`` over the oscillators in flattened order, of whatever sign, a square tensor, array, matrix of
            scipy.sparse or networkx graph; ``W_ij`` is how much oscillator ``i`` listens to ``j``. What requires a
            gradient is used as it is at every call, and a ``Parameter`` is one of the equation.
        lag: The phase lag alpha, radians: a number, one for each oscillator, or a matrix with one for each edge.

    Raises:
        TypeError: If ``W`` is none of these.
        ValueError: If ``W`` is not square, or a weight or a lag is not finite.

    >>> DenseCoupling(torch.tensor([[0.0, 1.0], [-2.0, 0.0]])).mean(torch.tensor([[3.0, 5.0]]))
    tensor([[ 5., -6.]])
    """

    weights: Tensor

    def __init__(self, weights: Adjacency, *, lag: float | Tensor | NDArray[Any] = 0.0) -> None:
        nn.Module.__init__(self)
        matrix = as_matrix(weights, "weights")
        matrix = matrix.to_dense() if matrix.is_sparse else matrix
        if not bool(matrix.isfinite().all()):
            raise ValueError("weights must be finite, got one that is not")
        self.vertices = matrix.shape[0]
        self.set_lag(lag)
        if isinstance(matrix, nn.Parameter):
            self.register_parameter("weights", matrix)
        else:
            self.register_buffer("weights", matrix if matrix.requires_grad else matrix.detach().double().clone())
        self._casts: dict[tuple[Turn, torch.dtype, torch.device], tuple[tuple[int, ...], Tensor]] = {}

    def product(self, x: Tensor, turn: Turn = None) -> Tensor:
        """The product with the matrix."""
        return (x.flatten(1) @ self._as(x, turn)).reshape(x.shape)

    def own(self, turn: Turn = None) -> Tensor:
        """The diagonal of the weights, turned."""
        return self._turned_weights(turn).diagonal()

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The weights, detached, and the lag."""
        return {"weights": self.weights.detach(), "lag": self.lag}

    def _turned_weights(self, turn: Turn) -> Tensor:
        if turn is None or not isinstance(self.lag, Tensor):
            return self.weights
        return self.weights * turn(self.lag.to(self.weights.device))

    def _as(self, x: Tensor, turn: Turn) -> Tensor:
        """The matrix of who is heard by whom, like ``x``; kept as long as the weights and lags are what they were."""
        weights, lag = self.weights, self.lag if isinstance(self.lag, Tensor) and turn is not None else self.weights
        if weights.requires_grad or lag.requires_grad or weights.is_inference() or lag.is_inference():
            return self._turned_weights(turn).to(x).mT
        key, made_of = (turn, x.dtype, x.device), (id(weights), weights._version, id(lag), lag._version)
        known, matrix = self._casts.get(key, (None, weights))
        if known != made_of:
            matrix = self._turned_weights(turn).to(x).mT.contiguous()
            self._casts[key] = made_of, matrix
        return matrix


def _values(matrix: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The entries of a dense or sparse matrix at all those places, of which a sparse one has no others."""
    return matrix.coalesce().values() if matrix.is_sparse else matrix[rows, columns]

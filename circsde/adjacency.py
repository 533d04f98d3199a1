"""Matrices of who listens to whom, as the libraries of matrices and graphs keep them, and their phase lags."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from circsde.coupling import Coupling, as_lag

Adjacency: TypeAlias = Any
"""A torch tensor, dense or sparse, a numpy array, a matrix or array of scipy.sparse, or a networkx graph."""

Turn = Callable[[Tensor], Tensor] | None
"""Factors of the weights of the edges, the cosine or the sine of their lags."""


def as_matrix(adjacency: Adjacency, name: str = "adjacency") -> Tensor:
    """A square matrix as a tensor, dense or sparse; a tensor is itself, with its gradients.

    A networkx graph gives the attribute ``weight`` of its edges, 1 where there is none, in the order of its nodes. In a
    directed one an edge from u to v says that u listens to v.

    Raises:
        TypeError: If it is none of :data:`Adjacency`.
        ValueError: If it is not square.

    >>> as_matrix(np.eye(2)).dtype
    torch.float64
    """
    if hasattr(adjacency, "nodes") and hasattr(adjacency, "adjacency"):
        import networkx

        adjacency = networkx.to_scipy_sparse_array(adjacency)
    if hasattr(adjacency, "tocoo"):
        edges = adjacency.tocoo()
        places = torch.from_numpy(np.stack((edges.row, edges.col)).astype(np.int64))
        values = torch.from_numpy(edges.data.astype(np.float64))
        adjacency = torch.sparse_coo_tensor(places, values, edges.shape, check_invariants=True)
    if isinstance(adjacency, np.ndarray):
        adjacency = torch.from_numpy(adjacency)
    if not isinstance(adjacency, Tensor):
        raise TypeError(
            f"{name} must be a tensor or a numpy array, got {type(adjacency).__name__}; it may also be a matrix of"
            " scipy.sparse or a networkx graph"
        )
    if adjacency.ndim != 2 or adjacency.shape[0] != adjacency.shape[1]:
        raise ValueError(f"{name} must be a square matrix, got shape {tuple(adjacency.shape)}")
    return adjacency


class WeightedCoupling(Coupling, nn.Module):
    """Shared by couplings with a matrix: the number of vertices, and lags, which may differ from edge to edge.

    Attributes:
        vertices: How many there are.
        phase_lag: The lag, radians: a number, one for each oscillator, or a matrix with one for each edge.
    """

    vertices: int
    phase_lag: float | Tensor

    def set_lag(self, lag: float | Tensor | NDArray[Any]) -> None:
        """Keep a lag: as a parameter where it is one, as a buffer where it requires a gradient."""
        lag = as_lag(torch.from_numpy(lag) if isinstance(lag, np.ndarray) else lag)
        if isinstance(lag, Tensor) and lag.requires_grad and not isinstance(lag, nn.Parameter):
            self.register_buffer("phase_lag", lag)
        else:
            self.phase_lag = lag

    @property
    def lag(self) -> float | Tensor:  # type: ignore[override]
        """The phase lag alpha, radians, one number, one for each oscillator, or one for each edge."""
        return self.phase_lag

    @property
    def of_edges(self) -> bool:
        """Whether each edge has its own lag."""
        square = (self.vertices, self.vertices)
        return isinstance(self.lag, Tensor) and self.vertices > 1 and tuple(self.lag.shape) == square

    @property
    def is_mean(self) -> bool:
        """Whether the field is the mean itself, without a lag."""
        return not self.lagged

    def check(self, event_shape: Sequence[int]) -> None:
        """Raise ValueError where there are not as many vertices as oscillators, or the lag does not fit."""
        oscillators = torch.Size(event_shape).numel()
        if self.vertices != oscillators:
            raise ValueError(
                f"the graph has {self.vertices} vertices, oscillators of shape {tuple(event_shape)} need {oscillators}"
            )
        if not self.of_edges:
            super().check(event_shape)

    def product(self, x: Tensor, turn: Turn = None) -> Tensor:
        """The sum over whom each oscillator listens to, times the turn of the edges' lags, like ``x``."""
        raise NotImplementedError

    def own(self, turn: Turn = None) -> Tensor:
        """The weight of each vertex in its own sum, times the turn of its lag, float64."""
        raise NotImplementedError

    def mean(self, x: Tensor) -> Tensor:
        """The weighted sum over whom each oscillator listens to."""
        return self.product(x)

    def field(self, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """``sum_j A_ij e^{i (theta_j - alpha_ij)}`` as ``(Re, Im)``, by one product, or two for lags of edges."""
        both = torch.cat((cos, sin))
        if not self.of_edges:
            real, imaginary = self.product(both).chunk(2)
            return self.turned(real, imaginary)
        (cc, cs), (sc, ss) = (self.product(both, turn).chunk(2) for turn in (torch.cos, torch.sin))
        return cc + ss, cs - sc

    def self_weight(self, event_shape: Sequence[int]) -> Tensor:
        """The diagonal of the weights."""
        return self.own().reshape(tuple(event_shape))

    def self_response(self, cos: Tensor, sin: Tensor) -> Tensor:  # noqa: ARG002
        """The diagonal of the weights, times the cosines of their lags."""
        if self.of_edges:
            return self.own(torch.cos).reshape(cos.shape[1:]).to(cos)
        own = self.own().reshape(cos.shape[1:]).to(cos)
        return own * self._direction(cos.dtype, cos.device)[0] if self.lagged else own

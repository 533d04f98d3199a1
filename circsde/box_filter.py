"""Means over windows along an axis."""

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

Boundary = Literal["periodic", "reflecting"]


def box_filter(x: Tensor, axis: int, radius: int, boundary: Boundary) -> Tensor:
    """The mean over ``2 radius + 1`` neighbours along an axis that goes on periodically, or is mirrored at its ends.

    >>> box_filter(torch.tensor([0.0, 0.0, 3.0, 0.0, 0.0]), 0, 1, "periodic").round()
    tensor([0., 1., 1., 1., 0.])
    """
    width = 2 * radius + 1
    return _window_sum(_pad(x, axis, radius, boundary), width, axis) * (1.0 / width)


@lru_cache(maxsize=32)
def window_matrix(radius: int, boundary: Boundary, side: int, dtype: torch.dtype) -> Tensor:
    """The symmetric matrix of that mean along an axis of length ``side``."""
    return box_filter(torch.eye(side, dtype=dtype), 1, radius, boundary)


def own_weights(radius: int, boundary: Boundary, side: int) -> Tensor:
    """The diagonal of :func:`window_matrix`: one over the width, times how often a point occurs in its window."""
    i = torch.arange(side)
    images = 1 + (2 * i + 1 <= radius).long() + (2 * (side - 1 - i) + 1 <= radius).long()
    counts = images if boundary == "reflecting" else torch.ones_like(i)
    return counts.double() / (2 * radius + 1)


def _pad(x: Tensor, axis: int, radius: int, boundary: Boundary) -> Tensor:
    first, last = x.narrow(axis, 0, radius), x.narrow(axis, x.shape[axis] - radius, radius)
    if boundary == "periodic":
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

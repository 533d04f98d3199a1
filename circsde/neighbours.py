"""Nearest neighbours on the torus."""

import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from circsde.torus import TWO_PI, wrap
from circsde.typing import Angles


def nearest(theta: Angles, k: int, *, power: float = 2.0) -> tuple[Tensor, Tensor]:
    """Distances to the k nearest other samples, ascending, and the indices of these, each ``(n, k)``.

    Args:
        theta: Samples ``(n, d)`` of more than k rows, radians; whole turns do not change the result.
        k: How many neighbours.
        power: The power of Minkowski's distance of the angles' differences: 2, or infinity for the largest of them.

    Raises:
        ValueError: If there are not more than k samples.

    >>> nearest(torch.tensor([[3.1], [-3.1], [0.0]]), 1)[0].T.round(decimals=3).tolist()
    [[0.083, 0.083, 3.1]]
    """
    if len(theta) <= k:
        raise ValueError(f"{k} nearest neighbours need more than {k} samples, got {len(theta)}")
    box = wrap(theta.double()).add(math.pi).clamp(0.0, math.nextafter(TWO_PI, 0.0)).numpy()
    found = cKDTree(box, boxsize=np.full(box.shape[1], TWO_PI)).query(box, k + 1, p=power)
    distance, index = (torch.from_numpy(part) for part in found)
    itself_first = (index != torch.arange(len(theta))[:, None]).int().argsort(dim=1, stable=True)  # not so among equals
    return distance.gather(1, itself_first)[:, 1:], index.gather(1, itself_first)[:, 1:]

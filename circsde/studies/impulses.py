"""The law of a sampler whose steps are affine in its start and its noise, from single impulses: no sampling noise.

On normal laws the exact score is affine, and with it every step of a sampler, whatever it remembers. The end is then a
sum of what the start and each normal that was drawn have made of it, so that one path for each gives mean and variance
to rounding.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from circsde.sde import SDE
from circsde.solvers.brownian import Noise
from circsde.solvers.methods import Method
from circsde.solvers.registry import find_method

_CURVED = 1e-3  # relative to the size of the end; the single precision of other packages counts as rounding


def affine_law(
    run: Callable[[Tensor, Tensor], Tensor], noises: int, mean: float, variance: float
) -> tuple[float, float]:
    """Mean and variance at the end of a sampler.

    Args:
        run: ``(start, normals) -> end``, of shapes ``(paths, 1)``, ``(noises, paths, 1)`` and ``(paths, 1)``.
        noises: How many normals a path draws.
        mean: The mean of the start.
        variance: The same.

    Raises:
        ValueError: If the end is not affine in start and normals.

    >>> affine_law(lambda x, xi: 0.5 * x + 2.0 * xi.sum(0), 3, mean=1.0, variance=4.0)
    (0.5, 13.0)
    """
    start = torch.full((3 + noises, 1), mean, dtype=torch.float64)
    normals = torch.zeros(noises, 3 + noises, 1, dtype=torch.float64)
    start[:2] += 1.0
    normals[:, 0] = 1.0
    normals[range(noises), range(3, 3 + noises)] = 1.0
    together, moved, still, *kicked = run(start, normals)[:, 0].tolist()
    gains = [end - still for end in (moved, *kicked)]
    if abs(together - still - math.fsum(gains)) > _CURVED * max(abs(end) for end in (together, moved, still)):
        raise ValueError("the end is not affine in start and noise, as it is for normal laws only: sample it")
    return still, gains[0] ** 2 * variance + math.fsum(gain**2 for gain in gains[1:])


@torch.no_grad()
def normal_law(
    method: str | Method, sde: SDE, times: Sequence[float], mean: float, variance: float
) -> tuple[float, float]:
    """Mean and variance that a method makes of a normal start, on the lift, by steps through increasing times.

    Args:
        method: A method that draws one normal a step.
        sde: An equation for one angle whose drift is affine in it, as a reversed one of normal data.
        times: Increasing times, the first of which is that of the start.
        mean: The mean of the start.
        variance: The same.

    Raises:
        ValueError: If the drift is not affine.

    >>> from circsde import SDE
    >>> decay = SDE(lambda t, theta: -theta, 1.0)
    >>> normal_law("euler_maruyama", decay, (0.0, 0.5), mean=1.0, variance=4.0)  # 1/2, 4/4 + 1/2
    (0.5, 1.5)
    """
    step = find_method(method).first_step()

    def run(theta: Tensor, normals: Tensor) -> Tensor:
        for (t, end), xi in zip(pairwise(times), normals, strict=True):
            theta = step(sde, t, end - t, theta, Noise((end - t) ** 0.5 * xi))
        return theta

    return affine_law(run, len(times) - 1, mean, variance)

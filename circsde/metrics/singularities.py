r"""Where fields of phases wind: points around which the phase makes whole turns, and of which sign.

The phase of a field of doubled orientations makes a whole turn where the orientation makes half of one: charge +1 of
the phase is the core of a loop, charge -1 a delta, where ridges from three directions meet. A whorl has two cores.
"""

from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circsde.torus import TWO_PI, difference, require_finite

Fields: TypeAlias = Float[Tensor, "n rows columns"]
"""Fields of phases, radians, at least 2 x 2; rows run downwards."""


def charges(theta: Fields, *, periodic: bool = False) -> Int[Tensor, "n r c"]:
    r"""The winding number of the phase around each plaquette, a square of four neighbouring pixels: -1, 0 or 1.

    ``1 / (2 pi)`` times the sum of the four differences on the way around it, each in ``[-pi, pi)``, counter-clockwise
    as the field is seen. A difference has opposite signs in the two plaquettes that it parts, so that their sum is the
    winding number along the border, and zero on a periodic grid. Of phases that are independent and uniform a third of
    all plaquettes is charged.

    Args:
        theta: Fields.
        periodic: Whether the last row and column are followed by the first, for a plaquette at every pixel.

    Returns:
        ``[i, j]`` belongs to the pixels ``i, i + 1`` and ``j, j + 1``; ``(n, rows - 1, columns - 1)`` if not periodic.

    Raises:
        ValueError: If a field has one row or column, or a phase is not finite.

    Source: Kawagoe and Tojo, Fingerprint pattern classification, Pattern Recognition 17(3), 1984,
    doi:10.1016/0031-3203(84)90079-7 (Poincare index); Berezinskii 1971, Kosterlitz and Thouless 1973,
    doi:10.1088/0022-3719/6/7/010 (vortices on a lattice).

    >>> quarter = torch.pi / 2 * torch.tensor([[[1.0, 0.0], [2.0, 3.0]]])  # a quarter turn a step, counter-clockwise
    >>> charges(quarter).tolist(), charges(-quarter).tolist()
    ([[[1]]], [[[-1]]])
    """
    check_fields(theta)
    if periodic:
        theta = torch.cat((theta, theta[:, :1]), 1)
        theta = torch.cat((theta, theta[:, :, :1]), 2)
    right, down = steps(theta)
    around = down[:, :, :-1] + right[:, 1:] - down[:, :, 1:] - right[:, :-1]
    return (around / TWO_PI).round().long()


def singularities(theta: Fields) -> Float[Tensor, "n 2"]:
    """How many plaquettes of each field have charge +1, and how many -1: cores and deltas of doubled orientations.

    Over ``(rows - 1) (columns - 1)`` they are densities per pixel.

    >>> singularities(torch.pi / 2 * torch.tensor([[[1.0, 0.0], [2.0, 3.0]]])).tolist()
    [[1.0, 0.0]]
    """
    found = charges(theta)
    return torch.stack([(found == sign).sum((1, 2)) for sign in (1, -1)], 1).to(theta.dtype)


def steps(theta: Fields) -> tuple[Float[Tensor, "n rows c"], Float[Tensor, "n r columns"]]:
    """Differences to the right and downward neighbour of each pixel that has one, in ``[-pi, pi)``."""
    return difference(theta[:, :, 1:], theta[:, :, :-1]), difference(theta[:, 1:], theta[:, :-1])


def check_fields(theta: Fields) -> None:
    """Refuse fields without a plaquette.

    Raises:
        ValueError: If a field has one row or column, or a phase is not finite.
    """
    if min(theta.shape[1:]) < 2:
        raise ValueError(f"fields need at least 2 rows and 2 columns, got {tuple(theta.shape[1:])}")
    require_finite(theta, "the fields of phases")

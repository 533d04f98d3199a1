r"""Orientation as phase: twice the angle of the ridges at a pixel, from the structure tensor.

The structure tensor is ``J = G_sigma * (grad f)(grad f)^T``, with derivatives of Gaussians as gradients. Its larger
eigenvector points across the ridges, at the angle ``1/2 arg(J_xx - J_yy + 2 i J_xy)``. An orientation is an angle
modulo ``pi``, so twice an orientation is a phase: the same after a half turn, opposite after a quarter turn.

Source: Bigun and Granlund, Optimal orientation detection of linear symmetry, ICCV 1987; Kass and Witkin, Analyzing
oriented patterns, Computer Vision, Graphics, and Image Processing 37(3), 1987, doi:10.1016/0734-189X(87)90043-0.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from circsde.data.fingerprint import grow_ridges
from circsde.streams import torch_stream
from circsde.torus import wrap
from circsde.typing import Angles


@dataclass(frozen=True)
class OrientationEncoding:
    """Pictures as the doubled orientations of their ridges; an encoding that forgets all else.

    Attributes:
        sigma: How far orientations are averaged, in pixels.
        scale: The width of the Gaussian whose derivatives are the gradients, in pixels.
        period: From ridge to ridge in the pictures that :meth:`decode` draws, in pixels.

    Raises:
        ValueError: If a length is not positive, or the period is less than 3.
    """

    sigma: float = 2.0
    scale: float = 1.0
    period: float = 5.0

    def __post_init__(self) -> None:
        """Refuse lengths without sense."""
        if not (self.sigma > 0 and self.scale > 0 and self.period >= 3):
            raise ValueError(f"orientations need sigma > 0, scale > 0 and period >= 3 pixels, got {self}")

    @property
    def reach(self) -> int:
        """How many pixels on each side of a pixel its phase depends on."""
        return _radius(self.sigma) + _radius(self.scale)

    def encode(self, x: Tensor) -> Angles:
        """Phases ``(batch, rows, columns)`` of pictures; see :func:`doubled_orientation`."""
        return doubled_orientation(x, self.sigma, self.scale)

    def decode(self, theta: Angles) -> Tensor:
        """Pictures of ridges that run along the orientations, ``(batch, rows, columns)`` in ``[-1, 1]``.

        Where ridges begin and end is drawn with the same seed for every picture.
        """
        half = wrap(theta).float() / 2
        pictures = [grow_ridges(angle, self.period, torch_stream(0, "data")) for angle in half.cpu()]
        return torch.stack(pictures).to(theta)


def doubled_orientation(x: Tensor, sigma: float = 2.0, scale: float = 1.0) -> Angles:
    r"""Twice the angle of the ridges at each pixel, ``(batch, rows, columns)`` in ``[-pi, pi]``.

    Angles are counter-clockwise from the horizontal as the picture is seen: ridges along rows have phase 0, along
    columns ``pi``. Where all is flat the phase is 0. Beyond its border a picture goes on with the pixels of its border,
    which bends orientations near it; cut off ``reach`` pixels where that matters.

    Args:
        x: Grey ``(batch, rows, columns)`` or colour ``(batch, 3, rows, columns)``, whose channels' tensors add up.
        sigma: Width of the averaging Gaussian in pixels.
        scale: Width of the differentiated Gaussian in pixels.

    >>> stripes = torch.cos(torch.arange(16.0)).expand(1, 16, 16)  # along columns: an angle of pi / 2
    >>> bool(doubled_orientation(stripes).abs().sub(math.pi).abs().max() < 1e-5)
    True
    """
    channels, (rows, columns) = x[:, None] if x.ndim == 3 else x, x.shape[-2:]
    down = _filter(rows, scale, x, slope=True) @ channels @ _filter(columns, scale, x).T
    right = _filter(rows, scale, x) @ channels @ _filter(columns, scale, x, slope=True).T
    tensor = torch.stack([(down * right).sum(1), (down.square() - right.square()).sum(1)])
    mixed, difference = _filter(rows, sigma, x) @ tensor @ _filter(columns, sigma, x).T
    rounding = 64.0 * torch.finfo(x.dtype).eps * x.flatten(1).abs().amax(1)[:, None, None]
    return torch.atan2(2.0 * mixed + 0.0, difference + rounding.square())  # slopes of rounding errors count as none


def _radius(sigma: float) -> int:
    return math.ceil(4.0 * sigma)


def _filter(n: int, sigma: float, like: Tensor, *, slope: bool = False) -> Tensor:
    """The matrix ``(n, n)`` that smooths ``n`` pixels by a Gaussian, or finds their slope by its derivative.

    It keeps constants, and finds slope 1 in the inner part of a ramp.
    """
    at = torch.arange(-_radius(sigma), _radius(sigma) + 1)
    weights = torch.exp(-0.5 * (at.double() / sigma) ** 2)
    weights = at * weights / (at.square() * weights).sum() if slope else weights / weights.sum()
    i = torch.arange(n)[:, None]
    matrix = torch.zeros(n, n, dtype=torch.float64)
    matrix.scatter_add_(1, (i + at).clamp(0, n - 1), weights.expand(n, -1))
    return matrix.to(like)

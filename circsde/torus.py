"""The circle and the torus: wrapping, differences, circular averages.

Angles are radians. The circle is represented by ``[-pi, pi)``; the torus is flat, so its exponential map is
addition and its logarithm is :func:`difference`.
"""

import math

import torch
from torch import Tensor

TWO_PI = 2.0 * math.pi

Axes = int | tuple[int, ...] | None


def wrap(theta: Tensor) -> Tensor:
    r"""The representative of ``theta`` in ``[-pi, pi)``.

    Half-open exactly: for every floating dtype the result ``w`` satisfies ``-pi <= w < pi`` both as real numbers
    and against pi rounded to that dtype; angles already there come back unchanged. Computed in float64: beside
    rounding to the dtype of ``theta`` the error is at most ``2^-52 (|theta| + 4)``, so that a float32 angle of many
    turns loses nothing. The derivative is 1, at the seam too.

    Args:
        theta: Angles in radians, any shape, any floating dtype. NaN and infinities give NaN.

    Returns:
        Angles of the same shape, dtype and device.

    Raises:
        TypeError: If ``theta`` is not a floating-point tensor.

    >>> wrap(torch.tensor([math.pi, 3 * math.pi / 2, -math.pi], dtype=torch.float64)).tolist()
    [-3.141592653589793, -1.5707963267948966, -3.141592653589793]
    """
    _require_floating(theta)
    low, high = _half_open_bounds(theta.dtype)
    wide = theta.detach().double()
    wrapped = (wide / TWO_PI).round_().mul_(-TWO_PI).add_(wide).to(theta.dtype)
    return torch.where(wrapped > high, low, wrapped.clamp(min=low)) + (theta - theta.detach())


def _half_open_bounds(dtype: torch.dtype) -> tuple[float, float]:
    """The least and the greatest value of ``dtype`` inside ``[-pi, pi)``, whichever way pi is rounded."""
    pi = torch.tensor(math.pi, dtype=dtype)
    below = torch.nextafter(pi, torch.zeros_like(pi)).item()
    return (-pi.item() if pi.item() <= math.pi else -below), below


def _require_floating(theta: Tensor) -> None:
    if not theta.is_floating_point():
        raise TypeError(f"angles must be a floating-point tensor in radians, got dtype {theta.dtype}")


def difference(a: Tensor, b: Tensor) -> Tensor:
    """The geodesic from ``b`` to ``a``: ``wrap(a - b)``, in ``[-pi, pi)``, radians.

    >>> round(difference(torch.tensor(-3.0), torch.tensor(3.0)).item(), 4)
    0.2832
    """
    return wrap(a - b)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """The geodesic distance ``|wrap(a - b)|``, in ``[0, pi]``, radians.

    Raises:
        TypeError: If the angles are not floating-point.

    >>> round(distance(torch.tensor(3.0), torch.tensor(-3.0)).item(), 4)
    0.2832
    """
    return difference(a, b).abs()


def circular_moment(theta: Tensor, dim: Axes = None, *, order: int = 1, weights: Tensor | None = None) -> Tensor:
    r"""The trigonometric moment ``sum_j w_j e^{i m theta_j} / sum_j w_j`` along ``dim``, complex.

    Args:
        theta: Angles in radians.
        dim: The axis or axes to average over; all of them by default.
        order: The integer ``m``.
        weights: Non-negative weights or a boolean mask, broadcastable to ``theta``. Angles of weight zero may be
            NaN. Where the weights sum to zero there is nothing to average and the moment is NaN.

    Returns:
        A complex tensor without the axes ``dim``: complex128 for float64, else complex64.

    Raises:
        TypeError: If ``theta`` is not a floating-point tensor.
        ValueError: If a weight is negative or not finite.
    """
    _require_floating(theta)
    axes = tuple(range(theta.ndim)) if dim is None else dim
    theta = theta.to(torch.promote_types(theta.dtype, torch.float32))
    angle = order * theta
    if weights is None:
        return torch.complex(angle.cos().mean(axes), angle.sin().mean(axes))
    weights = weights.to(theta.dtype)
    if not bool(((weights >= 0) & weights.isfinite()).all()):
        raise ValueError(
            f"weights must be finite and non-negative, got {weights.min().item():g} to {weights.max().item():g}"
        )
    weights = weights.expand_as(theta)
    angle = angle.where(weights > 0, 0.0)
    total = weights.sum(axes)
    return torch.complex((weights * angle.cos()).sum(axes) / total, (weights * angle.sin()).sum(axes) / total)


def order_parameter(theta: Tensor, dim: Axes = None, *, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""The Kuramoto order parameter ``R e^{i psi} = mean_j e^{i theta_j}`` as ``(R, psi)``.

    Args:
        theta: Angles in radians, any shape.
        dim: The axis or axes to average over; all of them by default.
        weights: Weights or a boolean mask, as in :func:`circular_moment`.

    Returns:
        ``R`` in ``[0, 1]`` (1 is full synchrony) and ``psi`` in ``[-pi, pi)``.

    Raises:
        TypeError: If ``theta`` is not a floating-point tensor.
        ValueError: If a weight is negative or not finite.

    Source: Kuramoto, 1984, doi:10.1007/978-3-642-69689-3.

    >>> R, psi = order_parameter(torch.tensor([3.0, -3.0]))
    >>> round(R.item(), 4), round(abs(psi.item()), 4)
    (0.99, 3.1416)
    """
    moment = circular_moment(theta, dim, weights=weights)
    return moment.abs().clamp(max=1.0).to(theta.dtype), wrap(moment.angle().to(theta.dtype))


def mean_direction(theta: Tensor, dim: Axes = None, *, weights: Tensor | None = None) -> Tensor:
    """The circular mean, the argument ``psi`` of :func:`order_parameter`, radians in ``[-pi, pi)``.

    >>> round(mean_direction(torch.tensor([3.0, -2.0])).item(), 4)  # across the seam, where the plain mean is 0.5
    -2.6416
    """
    return order_parameter(theta, dim, weights=weights)[1]


def mean_resultant_length(theta: Tensor, dim: Axes = None, *, weights: Tensor | None = None) -> Tensor:
    """The modulus ``R`` of :func:`order_parameter`: 1 minus the circular variance, in ``[0, 1]``.

    >>> round(mean_resultant_length(torch.tensor([0.0, math.pi / 2])).item(), 4)
    0.7071
    """
    return order_parameter(theta, dim, weights=weights)[0]

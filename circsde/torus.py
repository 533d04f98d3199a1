"""The circle and the torus: wrapping, differences, circular averages.

Angles are radians. The circle is represented by ``[-pi, pi)``; the torus is flat, so its exponential map is
addition and its logarithm is :func:`difference`.

Angles are floating-point tensors; integers are refused, as radians are hardly ever whole. Results have the dtype of the
angles, and are computed in float64 (:func:`wrap`, :func:`difference`, :func:`circular_variance`) or in float32 at least
(moments), so that half precision rounds the result only.
"""

import math

import torch
from torch import Tensor
from torch.distributions import constraints

TWO_PI = 2.0 * math.pi

Axes = int | tuple[int, ...] | None


def wrap(theta: Tensor) -> Tensor:
    r"""Wrap angles to their representatives in ``[-pi, pi)``, radians.

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
    return to_circle(theta, theta.dtype)


def to_circle(theta: Tensor, dtype: torch.dtype) -> Tensor:
    """:func:`wrap`, rounded to ``dtype`` and half-open in it."""
    require_angles(theta)
    low, high = half_open_bounds(dtype)
    wide = theta.detach().double()
    wrapped = (wide / TWO_PI).round_().mul_(-TWO_PI).add_(wide).to(dtype)
    return torch.where(wrapped > high, low, wrapped.clamp(min=low)) + (theta - theta.detach()).to(dtype)


def half_open_bounds(dtype: torch.dtype, half: float = math.pi) -> tuple[float, float]:
    """The least and the greatest value of ``dtype`` inside ``[-half, half)``, whichever way ``half`` is rounded."""
    end = torch.tensor(half, dtype=dtype)
    below = torch.nextafter(end, torch.zeros_like(end)).item()
    return (-end.item() if end.item() <= half else -below), below


def require_angles(theta: object, name: str = "angles") -> None:
    """Refuse what is not a floating-point tensor.

    Raises:
        TypeError: Saying what was got, and what to do.

    >>> require_angles([0.0, 3.0], "theta0")
    Traceback (most recent call last):
    ...
    TypeError: theta0 must be a torch tensor of radians, got list: convert it by torch.as_tensor
    """
    if not isinstance(theta, Tensor):
        raise TypeError(
            f"{name} must be a torch tensor of radians, got {type(theta).__name__}: convert it by torch.as_tensor"
        )
    if not theta.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor in radians, got dtype {theta.dtype}")


class Finite(constraints.Constraint):
    """Finite numbers not below ``least``, in every dtype: torch's own constraints let infinities pass."""

    def __init__(self, least: float = -math.inf) -> None:
        self.least = least
        super().__init__()

    def __repr__(self) -> str:
        """The constraint as error messages show it."""
        return "Finite()" if self.least == -math.inf else f"Finite(least={self.least:g})"

    def check(self, value: Tensor) -> Tensor:
        """Whether each of the values is such a number."""
        return value.isfinite() & (value >= self.least)


def require_finite(x: Tensor, what: str) -> None:
    """Refuse samples along the first axis of which one is not finite: a statistic of them would look like a result.

    Raises:
        ValueError: Naming how many there are, and the first.

    >>> require_finite(torch.tensor([[0.0, 1.0], [math.nan, 1.0]]), "the samples")
    Traceback (most recent call last):
    ...
    ValueError: the samples must be finite, but 1 of 2 are not, the first of them row 1: check what made them
    """
    bad = (~x.isfinite()).reshape(len(x), -1).any(1) if x.ndim else ~x.isfinite().reshape(1)
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise ValueError(
            f"{what} must be finite, but {int(bad.sum())} of {len(bad)} are not, the first of them row {first}: check"
            " what made them"
        )


def difference(a: Tensor, b: Tensor) -> Tensor:
    """Compute the signed difference ``wrap(a - b)``, the geodesic from ``b`` to ``a``, in ``[-pi, pi)``, radians.

    The difference is taken in float64, so that it is as exact as the angles are, also across the seam.

    Raises:
        TypeError: If the angles are not floating-point.

    >>> round(difference(torch.tensor(-3.0), torch.tensor(3.0)).item(), 4)
    0.2832
    """
    dtype = torch.result_type(a, b)
    if not dtype.is_floating_point:
        raise TypeError(f"angles must be floating-point tensors in radians, got dtypes {a.dtype} and {b.dtype}")
    return to_circle(a.double() - b, dtype)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Compute the geodesic distance ``|wrap(a - b)|``, in ``[0, pi]``, radians.

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
            NaN. Where the weights sum to zero there is nothing to average and the moment is NaN. Only their ratios
            count, so they may be as small or as large as their dtype holds.

    Returns:
        A complex tensor without the axes ``dim``: complex128 for float64, else complex64.

    Raises:
        TypeError: If ``theta`` is not a floating-point tensor.
        ValueError: If a weight is negative or not finite.
    """
    require_angles(theta)
    axes = tuple(range(theta.ndim)) if dim is None else dim
    theta = theta.to(torch.promote_types(theta.dtype, torch.float32))
    angle = order * theta
    if weights is None:
        return torch.complex(angle.cos().mean(axes), angle.sin().mean(axes))
    weights = _checked_weights(weights).expand_as(theta)
    angle = angle.where(weights > 0, 0.0)
    largest = weights.amax(axes, keepdim=True) if weights.numel() else 1.0
    weights = (weights / largest).to(theta.dtype)  # NaN where all are zero
    total = weights.sum(axes)
    return torch.complex((weights * angle.cos()).sum(axes) / total, (weights * angle.sin()).sum(axes) / total)


def _checked_weights(weights: Tensor) -> Tensor:
    """The weights in float64. Inside ``torch.func.vmap``, which cannot raise for a value, bad ones become NaN."""
    weights = weights.double()
    valid = (weights >= 0) & weights.isfinite()
    try:
        refused = not bool(valid.all())
    except RuntimeError:
        return weights.where(valid, math.nan)
    if refused:
        raise ValueError(
            f"weights must be finite and non-negative, got {weights.min().item():g} to {weights.max().item():g}"
        )
    return weights


def order_parameter(theta: Tensor, dim: Axes = None, *, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Compute the Kuramoto order parameter ``R e^{i psi} = mean_j e^{i theta_j}`` as ``(R, psi)``.

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


def circular_variance(theta: Tensor, dim: Axes = None) -> Tensor:
    r"""``1 - R``, in ``[0, 1]`` and in float64, accurate relative to itself also where the angles are close together.

    It is the mean of ``1 - cos(theta_j - psi) = 2 sin^2((theta_j - psi) / 2)`` about the mean direction psi, so that
    nothing cancels: 1 minus a resultant length has an error of ``2^-53``, which is all of it for a spread of 1e-8 rad.
    It is 0 exactly where all angles are equal.

    Args:
        theta: Angles in radians.
        dim: The axis or axes to average over; all of them by default.

    Raises:
        TypeError: If ``theta`` is not a floating-point tensor.

    >>> round(circular_variance(torch.tensor([1.0, 1.0 + 2e-9], dtype=torch.float64)).item() / 5e-19, 6)
    1.0
    """
    axes = tuple(range(theta.ndim)) if dim is None else dim
    first = theta.double()
    for axis in (axes,) if isinstance(axes, int) else axes:
        first = first.narrow(axis, 0, min(1, theta.shape[axis]))
    offset = difference(theta.double(), first)  # exact where angles are close together, and 0 where they are equal
    psi = torch.atan2(offset.sin().mean(axes, keepdim=True), offset.cos().mean(axes, keepdim=True))
    return (2.0 * (0.5 * (offset - psi)).sin().square()).mean(axes).clamp(max=1.0)


def mean_direction(theta: Tensor, dim: Axes = None, *, weights: Tensor | None = None) -> Tensor:
    """Compute the circular mean, the argument ``psi`` of :func:`order_parameter`, radians in ``[-pi, pi)``.

    >>> round(mean_direction(torch.tensor([3.0, -2.0])).item(), 4)  # across the seam, where the plain mean is 0.5
    -2.6416
    """
    return order_parameter(theta, dim, weights=weights)[1]


def mean_resultant_length(theta: Tensor, dim: Axes = None, *, weights: Tensor | None = None) -> Tensor:
    """Compute the modulus ``R`` of :func:`order_parameter`, which is 1 minus the circular variance, in ``[0, 1]``.

    >>> round(mean_resultant_length(torch.tensor([0.0, math.pi / 2])).item(), 4)
    0.7071
    """
    return order_parameter(theta, dim, weights=weights)[0]

r"""Whether a field is a differentiable function of the angles, before its derivative is trusted.

A field that is computed under ``torch.no_grad``, on detached angles or in numpy has, for ``torch.func``, no derivative,
or a wrong one: the divergence of the flow would be silently zero.
"""

import re
from collections.abc import Callable

import torch
from torch import Tensor

from circsde.typing import Angles, Field, Time

_POINTS = 4  # the number of points at which the derivative of a field is checked
_NEAR = 0.01  # rad, their distance from the angles given, which may be special points
_CONSISTENT = 0.1  # relative difference of two difference quotients that can be trusted
_WRONG = 0.2  # relative difference of a derivative from them that cannot
_DIRECTIONS = 8  # the number of angles by which a known diagonal is checked
_DIFFERS = 1e-3  # relative difference of a known diagonal, or 1 / rad^2, that rounding does not explain


def ask(field: Field, t: Time, theta: Angles, name: str = "field") -> Tensor:
    """Evaluate the field, with advice where it does not take the dtype of the angles.

    Raises:
        TypeError: In that case.
    """
    try:
        return field(t, theta)
    except RuntimeError as error:
        if re.search(r"dtype|scalar type|[Ii]nput type", str(error)):
            raise TypeError(
                f"the {name} cannot take angles of {theta.dtype} ({error}): pass angles of the dtype of its network, or"
                " convert the network, as by network.double()"
            ) from error
        raise


def check_repeats(field: Field, t: Time, theta: Angles, name: str) -> None:
    """Refuse a field that answers differently when it is asked twice at one point.

    Raises:
        ValueError: In that case.
    """
    first, second = (ask(field, t, theta, name) for _ in range(2))
    gap, size = (first - second).abs().amax().item(), first.abs().amax().item()
    if gap > torch.finfo(theta.dtype).eps ** 0.5 * size:
        raise ValueError(
            f"the {name} answers differently when it is asked twice at the same angles, by {gap:.2g} at t ="
            f" {float(t):g}: put its network into evaluation mode by .eval() (dropout, batch normalisation), or fix"
            " what it draws"
        )


def check_derivative(field: Field, t: Time, theta: Angles, name: str) -> None:
    """Refuse a field whose derivative by ``torch.func`` is not that of its values.

    At a few points near those given, ``u . J w`` by a vector-Jacobian product is compared with central differences of
    two widths. Points at which these disagree, as at a kink, say nothing, and neither does a constant field.

    Raises:
        ValueError: If the derivative cannot be computed, or is wrong at every point that says something.
        TypeError: If the field does not take the dtype of the angles.
    """
    x = theta[torch.arange(_POINTS, device=theta.device) % len(theta)]
    number = torch.arange(1, x.numel() + 1, dtype=torch.float64, device=theta.device).reshape(x.shape)
    u, w = number.sin().to(x), (1.7 * number).cos().to(x)  # in no special direction
    x = x + _NEAR * u
    check_repeats(field, t, x, name)
    eps = torch.finfo(x.dtype).eps
    step = eps ** (1 / 3)

    def quotient(h: float) -> Tensor:
        change = ask(field, t, x + h * w, name) - ask(field, t, x - h * w, name)
        return (u * change).flatten(1).sum(1) / (2.0 * h)

    near, far = quotient(step), quotient(2.0 * step)
    try:
        value, pull = torch.func.vjp(lambda y: field(t, y), x)  # type: ignore[misc]
        derivative = (pull(u)[0] * w).flatten(1).sum(1)
    except RuntimeError as error:
        raise ValueError(
            f"torch.func cannot differentiate the {name}, and a likelihood needs its divergence: {error}; {_ADVICE}"
        ) from error
    rounding = 100.0 * eps / step * (u * value).abs().flatten(1).sum(1)
    speaks = ((near - far).abs() <= _CONSISTENT * near.abs()) & (near.abs() > rounding)
    wrong = speaks & ((derivative - near).abs() > _WRONG * near.abs() + rounding)
    if int(wrong.sum()) > 1 and torch.equal(wrong, speaks):
        i = int(wrong.nonzero()[0])
        raise ValueError(
            f"the derivative of the {name} is {derivative[i].item():.3g} by torch.func and {near[i].item():.3g} by"
            f" finite differences at t = {float(t):g}, so the divergence would be wrong: {_ADVICE}"
        )


def check_diagonal(field: Field, with_diagonal: Callable[..., tuple[Tensor, Tensor]], t: Time, theta: Angles) -> None:
    """Refuse a ``with_diagonal`` whose values, or whose derivatives by a few of the angles, are not those of the field.

    Raises:
        ValueError: In that case.
    """
    x, d = theta[:1], theta[0].numel()
    value, slopes = with_diagonal(t, x)
    some = torch.linspace(0, d - 1, min(d, _DIRECTIONS), device=theta.device).long()
    directions = torch.nn.functional.one_hot(some, d).to(theta).reshape(-1, *theta.shape[1:])
    _, pull = torch.func.vjp(lambda y: field(t, y), x.expand_as(directions))  # type: ignore[misc]
    expected = (pull(directions)[0] * directions).flatten(1).sum(1)
    known = field(t, x)
    for what, found, right in (("score", value, known), ("diagonal", slopes.flatten()[some], expected)):
        gap, size = (found - right).abs().max().item(), right.abs().max().item()
        if not gap <= _DIFFERS * max(size, 1.0):
            raise ValueError(
                f"the {what} by with_diagonal is {gap:.2g} away from that of the score itself, of size {size:.2g}, at t"
                f" = {float(t):g}: a class that overrides forward must override with_diagonal, too, or set it to None"
            )


_ADVICE = (
    "compute it by torch operations on the angles given, without torch.no_grad, torch.inference_mode, detach, item or"
    " numpy (gradients of parameters are not recorded in any case)"
)

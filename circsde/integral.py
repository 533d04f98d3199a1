r"""Integrals over time of what is known only by its values, refined until two rules agree.

The rules are those of Gauss-Legendre with two points, and of Kronrod's extension of it: five points, exact up to
degree 7, positive weights. Where the two differ by a relative ``d``, the error of the better one is of the order of
``d^2``, as its order is twice as high.

Source: Kronrod, Nodes and Weights of Quadrature Formulas, 1965.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from circsde.typing import Amplitude, Time

PIECES = 32
"""The pieces of a horizon that are looked at on their own, however smooth the function seems."""

_OUTER, _INNER = (6.0 / 7.0) ** 0.5, (1.0 / 3.0) ** 0.5
_CENTRAL_WEIGHT, _INNER_WEIGHT, _OUTER_WEIGHT = 28.0 / 45.0, 27.0 / 55.0, 98.0 / 495.0
_AGREE = 1e-6  # relative difference of the two rules; the error is then about 1e-13
_NEGLIGIBLE = 1e-14  # relative to the whole integral
_MOST = 4096  # pieces

_Piece = tuple[float, float, Amplitude, Amplitude]  # from, to, and the integral by both rules


def integral_of_square(g: Callable[[float], Amplitude], t0: Time, t1: Time, horizon: float) -> Amplitude:
    """The integral of ``g^2`` from ``t0`` to ``t1``, to a relative error of about 1e-13 where ``g`` is smooth.

    Every piece of at most ``horizon / 32`` is halved until the rules of two and of five points agree on it, so that
    jumps and kinks are found. What is narrower than about ``horizon / 200`` may lie between all points. A piece on
    which the midpoint and two points agree already, as over a short step, is settled by three values of ``g``.

    Args:
        g: A function of time: numbers, or tensors of one shape.
        t0: The beginning, one time or one per sample.
        t1: The end, likewise; before ``t0`` it gives minus the integral from ``t1`` to ``t0``.
        horizon: The time over which ``g`` is defined, the unit of what counts as short.

    Raises:
        ValueError: If the rules do not come to agree, or ``g`` is not finite.

    >>> round(integral_of_square(lambda t: 300.0**t, 0.0, 1.0, 1.0), 6)  # (300^2 - 1) / (2 log 300)
    7889.413771
    """
    if isinstance(t1, Tensor) and t1.ndim:
        starts = torch.as_tensor(t0, dtype=t1.dtype).expand(t1.shape).tolist()
        each = [integral_of_square(g, a, b, horizon) for a, b in zip(starts, t1.tolist(), strict=True)]
        return torch.stack([torch.as_tensor(one, dtype=torch.float64) for one in each]).to(t1)

    def square(t: float) -> Amplitude:
        value = g(t)
        return value * value

    begin, end = float(t0), float(t1)
    count = max(1, math.ceil(abs(end - begin) / horizon * PIECES - 1e-9))
    if count == 1:
        middle, half = 0.5 * (begin + end), 0.5 * (end - begin)
        left, centre, right = g(middle - _INNER * half), g(middle), g(middle + _INNER * half)
        if left is centre is right and isinstance(left, Tensor):
            return left * left * (end - begin)
        near: Amplitude = left * left + right * right
        if _agree(near, 2.0 * centre * centre, 0.0):
            return half * near
    edges: list[float] = [begin + (end - begin) * i / count for i in range(count)] + [end]
    parts: list[_Piece] = [(a, b, *rules(square, a, b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    whole: Amplitude = 0.0
    for _, _, fine, _ in parts:
        whole = whole + _size(fine)
    total: Amplitude = 0.0
    looked_at = 0
    while parts:
        a, b, fine, coarse = parts.pop()
        looked_at += 1
        if _agree(_size(fine), _size(coarse), _NEGLIGIBLE * whole):
            total = total + fine
            continue
        middle = 0.5 * (a + b)
        if looked_at > _MOST or middle in (a, b):
            raise ValueError(
                f"the integral of g^2 from t = {begin:g} to {end:g} did not converge near t ="
                f" {middle:g}: g is not finite there, or too rough; give the integral, variance= of an SDE"
            )
        parts += [(a, middle, *rules(square, a, middle)), (middle, b, *rules(square, middle, b))]
    return total


def rules(f: Callable[[float], Amplitude], a: float, b: float) -> tuple[Amplitude, Amplitude]:
    """The integral of ``f`` from ``a`` to ``b`` by the rules of five and of two points."""
    middle, half = 0.5 * (a + b), 0.5 * (b - a)
    near = f(middle - _INNER * half) + f(middle + _INNER * half)
    far = f(middle - _OUTER * half) + f(middle + _OUTER * half)
    return half * (_CENTRAL_WEIGHT * f(middle) + _INNER_WEIGHT * near + _OUTER_WEIGHT * far), half * near


def _size(x: Amplitude) -> Amplitude:
    return x.abs() if isinstance(x, Tensor) else abs(x)


def _agree(fine: Amplitude, coarse: Amplitude, negligible: Amplitude) -> bool:
    """Whether two rules agree, on all oscillators, about what is not negative; what is no number never does."""
    if not isinstance(fine, Tensor):
        return abs(float(fine) - float(coarse)) <= max(_AGREE * fine, float(negligible))
    relative = max(_AGREE, 16.0 * torch.finfo(fine.dtype).eps) if fine.is_floating_point() else _AGREE
    fine, coarse = fine.detach(), torch.as_tensor(coarse).detach()
    excess = torch.sub(fine, coarse).abs_().sub_(fine, alpha=relative)
    return float((excess - negligible.detach()).max() if isinstance(negligible, Tensor) else excess.max()) <= 0.0


def find_disagreement(
    f: Callable[[float], float], integral_of_f: Callable[[float, float], float], horizon: float, rounding: float = 0.0
) -> tuple[float, float] | None:
    """An interval of ``[0, horizon]`` over which a given integral is not that of ``f``; None where they agree.

    Intervals are halved where they disagree, so that narrow pulses and jumps, which the given integral knows of, are
    found rather than taken for errors. ``rounding`` is that of values and integrals, relative.
    """
    edges = [horizon * i / PIECES for i in range(PIECES + 1)]
    pending = list(zip(edges[:-1], edges[1:], strict=True))
    negligible = max(1e-9, 16.0 * rounding) * abs(integral_of_f(0.0, horizon))
    for _ in range(_MOST):
        if not pending:
            return None
        a, b = pending.pop()
        given, found = integral_of_f(a, b), float(rules(f, a, b)[0])
        if abs(given - found) <= max(1e-6 * max(abs(given), abs(found)), negligible):
            continue
        middle = 0.5 * (a + b)
        if middle in (a, b):
            return a, b
        pending += [(a, middle), (middle, b)]
    return a, b

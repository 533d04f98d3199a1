r"""One step of eq. (1) for a few samples, compiled: two stages in the field of all oscillators, in the first cache.

A step of a method with one or two evaluations of the drift, for additive noise, is

``theta_1 = theta + u_1 xi + v_1 eta``, ``theta_2 = theta + a f_1 + u_2 xi + v_2 eta``,
``theta <- theta + b_1 f_1 + b_2 f_2 + u xi + v eta``

with ``f_i`` the drift at stage ``i`` and standard normals ``xi, eta``. Angles are float64; the rest has the dtype of
the fields. :func:`sweep` works on some oscillators of a tile of samples, block by block, so that parts of one long
sample can be given to several threads between the stages, at which all oscillators must have arrived.
"""

from typing import Any, NamedTuple

import numpy as np

from circsde.solvers.kernels import compiled, copy, cos_sin, noise
from circsde.solvers.lift import TURN_HEAD, TURN_TAIL
from circsde.solvers.loops import (
    PER_TURN,
    add,
    combine,
    count_far,
    move,
    pull_all,
    pull_each,
    scale,
    shifted,
    spread,
    total,
    unwind_some,
)
from circsde.solvers.philox import RUN
from circsde.solvers.windows import window_means

FREE, MEAN, WINDOW, GIVEN = range(4)
"""The input of an oscillator, which is nothing, all of its sample, a window, or a field that the caller filled in."""

_ONES = np.float64(1.5 * 2.0**52)  # where numbers of float64 are one apart, so that their bits count
_ONES_BITS = _ONES.view(np.int64)

_LOOK = 64  # angles that are searched together for one that is far


class Steps(NamedTuple):
    """The numbers of every step, in the dtype of the fields. The first axis counts steps.

    Attributes:
        rates: ``(K, K_ref)`` at each of the two stages.
        weights: Weights of ``(f_1, f_2)`` at the two stages and the end: nothing, ``(a, 0)``, ``(b_1, b_2)``.
        kicks: Weights of ``(xi, eta)``, likewise.
    """

    rates: Any
    weights: Any
    kicks: Any


class Equation(NamedTuple):
    """The numbers that do not change from step to step.

    Attributes:
        n: Oscillators in a sample.
        listens: One of :data:`FREE`, :data:`MEAN`, :data:`WINDOW`, :data:`GIVEN`.
        each: Whether the field differs from oscillator to oscillator of a sample.
        window: Images in a sample, their rows and columns, the radius, whether edges reflect, and one over the width.
        psi: Cosines and sines of the reference phases, ``n``, or one where ``each`` is false.
        two: Whether there is a second stage.
        early: Whether the first stage lies off the angles.
        area: Whether there is a second normal.
        keys: The keys of the two normals.
        limit: The size from which on an angle is lost, rad.
    """

    n: Any
    listens: Any
    each: Any
    window: Any
    psi: Any
    two: Any
    early: Any
    area: Any
    keys: Any
    limit: Any


class Room(NamedTuple):
    """Memory for samples: one array with what is kept for every oscillator, another with what a block needs.

    Attributes:
        kept: Numbers of all oscillators of these samples, at the places below.
        size: Oscillators in the room; what there is for two stages lies that far apart.
        cos: Where the cosines begin.
        sin: Sines.
        field: ``Re H``, then ``Im H``, ``apart`` further on; for the second stage twice as far.
        apart: The oscillators or, where it is the same for all of a sample, the samples.
        frequency: Natural frequencies, rad/time, where the field differs from oscillator to oscillator.
        normals: The two normals, where there are two stages.
        block: Numbers of a block: angles, increments and two normals, a quarter of it each.
        sums: The sums of cosines, and of sines, by sample or by run of a long one.
        images: An image and its surroundings, three times.
        work: For the normals of a run.
        k: Constants.
    """

    kept: Any
    size: Any
    cos: Any
    sin: Any
    field: Any
    apart: Any
    frequency: Any
    normals: Any
    block: Any
    sums: Any
    images: Any
    work: Any
    k: Any


@compiled(called=True)
def walk(
    theta: Any, turns: Any, lost: Any, room: Any, eq: Any, steps: Any, rows: int, first: int, last: int,
    sample: Any, step: Any,
) -> None:  # fmt: skip
    """Take all steps with the samples ``first`` to ``last``, ``rows`` at a time; ``lost`` tells when one was lost."""
    for row in range(first, last, rows):
        after = min(row + rows, last)
        tile, far = theta[row * eq.n : after * eq.n], 0
        own = sample + np.uint64(row)
        for i in range(len(steps.rates)):
            for number in range(3):
                if number != 1 or eq.two:
                    far = sweep(tile, 0, room, eq, number, steps, i, 0, len(tile), own, step + np.uint64(i))
                    fields(len(tile), room, eq, number, steps, i)
            if far and not unwind(theta, turns, lost, eq.n, row, after, i, eq.limit):
                break


@compiled(called=True)
def sweep_rows(
    theta: Any, room: Any, eq: Any, number: int, steps: Any, i: int, rows: int, first: int, last: int,
    a: int, b: int, sample: Any, step: Any,
) -> int:  # fmt: skip
    """:func:`sweep` for the samples ``first`` to ``last``, ``rows`` at a time, in a room for all of them.

    Of a single sample only the oscillators ``a`` to ``b``.
    """
    moved = 0
    for row in range(first, last, rows):
        place, after = row * eq.n, min(row + rows, last) * eq.n
        lo, hi = (a, b) if last - first == 1 else (0, after - place)
        own = sample + np.uint64(row)
        moved += sweep(theta[place:after], place, room, eq, number, steps, i, lo, hi, own, step)
    return moved


@compiled()
def sweep(
    theta: Any, place: int, room: Any, eq: Any, number: int, steps: Any, i: int, a: int, b: int, sample: Any, step: Any
) -> int:
    """A stage (0, 1) or the end (2) of step ``i`` for the oscillators ``a`` to ``b`` of a tile at a place in the room.

    A stage leaves cosines and sines, and their sums; the end moves the angles, and tells how many are now far from
    zero, or lost.
    """
    size, far = len(room.block) // 4, 0
    fresh = number == (0 if eq.early else 1) or (number == 2 and not eq.two)
    for lo in range(a, b, size):
        count, at = min(size, b - lo), place + lo
        x, d = room.block[:count], room.block[size:][:count]
        if number == 0 and not eq.early:
            copy(theta[lo : lo + count], x)
        else:
            _kick(d, room, eq, steps.kicks, i, number, lo, at, fresh, sample, step)
            _pull(d, room, eq, steps.weights, i, number, lo, at)
            if number == 2:
                far += move(theta[lo : lo + count], d)
                continue
            shifted(theta[lo : lo + count], d, x)
        begin = number * room.size + at
        cos, sin = room.kept[room.cos + begin :][:count], room.kept[room.sin + begin :][:count]
        cos_sin(x, cos, sin, room.k)
        if eq.listens == MEAN:
            piece, half = min(eq.n, RUN), len(room.sums) // 2
            for j in range(0, count, piece):
                room.sums[(lo + j) // piece] = total(cos[j : j + piece])
                room.sums[half + (lo + j) // piece] = total(sin[j : j + piece])
    return far


@compiled(called=True)
def fields(size: int, room: Any, eq: Any, number: int, steps: Any, i: int) -> None:
    """The field ``H = K z + K_ref e^(i psi)`` at a stage of step ``i``, from its cosines and sines; none at the end."""
    if number == 2:
        return
    n, K, K_ref, half = eq.n, steps.rates[i, number, 0], steps.rates[i, number, 1], len(room.sums) // 2
    for part in range(2):
        field, psi = room.kept[room.field + (2 * number + part) * room.apart :], eq.psi[part]
        if eq.listens == FREE and not eq.each:
            field[0] = K_ref * psi[0]
        elif eq.listens == WINDOW:
            own = room.kept[(room.cos if part == 0 else room.sin) + number * room.size :]
            for row in range(0, size, n):
                window_means(own[row : row + n], field[row : row + n], room.images, eq.window)
                combine(field[row : row + n], K, K_ref, psi)
        else:
            for row in range(size // n):
                mean = K * _mean(room.sums[part * half :], n, row) if eq.listens == MEAN else 0.0
                if eq.each:
                    spread(field[row * n : (row + 1) * n], mean, K_ref, psi)
                else:
                    field[row] = mean + K_ref * psi[0]


@compiled(called=True)
def unwind(theta: Any, turns: Any, lost: Any, n: int, first: int, last: int, i: int, limit: float) -> bool:
    """Take whole turns off the angles that are far from zero, and count them; whether none is lost, at step ``i``."""
    well = True
    for row in range(first, last):
        for a in range(row * n, (row + 1) * n, _LOOK):
            b = min(a + _LOOK, (row + 1) * n)
            if count_far(theta[a:b]) and not unwind_some(theta[a:b], turns[a:b], limit):
                lost[row], well = i, False
    return well


@compiled(called=True)
def reduce(theta: Any, turns: Any, out: Any, winding: Any, low: float, high: float) -> None:
    """Angles from ``low`` to ``high``, the least and the greatest that their dtype has, and the turns taken off."""
    for i in range(len(theta)):
        whole = np.rint(theta[i] * PER_TURN)
        out[i] = (theta[i] - whole * TURN_HEAD) - whole * TURN_TAIL
        over = out[i] > high
        out[i] = low if over or out[i] < low else out[i]
        whole += 1.0 if over else 0.0
        winding[i] = turns[i] + (np.float64(whole + _ONES).view(np.int64) - _ONES_BITS)  # as vectors do not convert


@compiled()
def _kick(
    d: Any, room: Any, eq: Any, kicks: Any, i: int, number: int, a: int, at: int, fresh: bool, sample: Any, step: Any
) -> None:
    """``u xi + v eta`` for the block of oscillators from ``a`` on, its normals drawn or remembered."""
    for kind in range(2 if eq.area else 1):
        if eq.two:
            normal = room.kept[room.normals + kind * room.size + at :][: len(d)]
        else:
            normal = room.block[(2 + kind) * (len(room.block) // 4) :][: len(d)]
        if fresh:
            noise(normal, eq.n, a, sample, step, eq.keys[kind, 0], eq.keys[kind, 1], room.work, room.k)
        if kind == 0:
            scale(normal, d, kicks[i, number, kind])
        else:
            add(d, normal, kicks[i, number, kind])


@compiled()
def _pull(d: Any, room: Any, eq: Any, weights: Any, i: int, number: int, a: int, at: int) -> None:
    """Add multiples of the drift at earlier stages, ``w + Im(H e^(-i theta))``, to the increments of a block."""
    for earlier in range(min(number, 2 if eq.two else 1)):
        weight, begin = weights[i, number, earlier], earlier * room.size + at
        cos, sin = room.kept[room.cos + begin :][: len(d)], room.kept[room.sin + begin :][: len(d)]
        field_cos = room.kept[room.field + 2 * earlier * room.apart :]
        field_sin = room.kept[room.field + (2 * earlier + 1) * room.apart :]
        if eq.each:
            pull_each(d, cos, sin, field_cos[at:], field_sin[at:], room.kept[room.frequency + at :], weight)
            continue
        length = len(d) if eq.listens == FREE else min(eq.n, len(d))
        for j in range(0, len(d), length):
            row = 0 if eq.listens == FREE else (a + j) // eq.n
            part = d[j : j + length]
            pull_all(part, cos[j : j + length], sin[j : j + length], field_cos[row], field_sin[row], weight)


@compiled()
def _mean(sums: Any, n: int, row: int) -> Any:
    """The mean over a sample, from its sum or from those of its runs."""
    if n < RUN:
        return sums[row] / n
    total = 0.0
    for i in range(-(-n // RUN)):
        total += sums[i]
    return total / n

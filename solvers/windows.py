"""Means over a window around each oscillator, compiled."""

from typing import Any

from circsde.solvers.kernels import Reals, apart, compiled, copy, put
from circsde.solvers.loops import accumulate, add_up, weigh


@compiled()
def window_means(x: Reals, mean: Reals, padded: Reals, window: Any) -> None:
    """The box filter over the images of a sample, along rows and then along columns."""
    apart()
    images, rows, columns, radius, reflecting, weight = window
    wide, area, third = columns + 2 * radius, rows * columns, len(padded) // 3
    lines, spare, sums = padded[:third], padded[third : 2 * third], padded[2 * third :]
    for image in range(images):
        own, out = x[image * area : (image + 1) * area], mean[image * area : (image + 1) * area]
        for row in range(rows):
            line = own[row * columns : (row + 1) * columns]
            _surround(line, lines[row * wide : (row + 1) * wide], 1, radius, reflecting)
        _window_sums(lines[: rows * wide], spare, sums, 2 * radius + 1, 1)
        for row in range(rows):
            weigh(sums[row * wide : (row + 1) * wide], out[row * columns : (row + 1) * columns], weight)
        if rows > 1:
            size = (rows + 2 * radius) * columns
            _surround(out, lines[:size], columns, radius, reflecting)
            _window_sums(lines[:size], spare, sums, 2 * radius + 1, columns)
            weigh(sums, out, weight)


@compiled()
def _surround(x: Reals, padded: Reals, width: int, radius: int, reflecting: bool) -> None:
    """Lines of ``width`` numbers with ``radius`` more at each end: those of the other end, or mirrored."""
    edge, size = radius * width, len(x)
    put(x, padded[edge : edge + size])
    if not reflecting:
        put(x[size - edge :], padded[:edge])
        put(x, padded[edge + size :])
        return
    for i in range(radius):
        put(x[i * width :], padded[edge - (i + 1) * width : edge - i * width])
        put(x[size - (i + 1) * width :], padded[edge + size + i * width : edge + size + (i + 1) * width])


@compiled()
def _window_sums(x: Reals, spare: Reals, sums: Reals, width: int, stride: int) -> None:
    """``sums_i = x_i + x_(i + stride) + ...``, ``width`` of them, an odd number, by doubling; ``x`` is used up."""
    apart()
    length, span, offset, size = len(x) - (width - 1) * stride, 1, 1, len(x)
    copy(x, sums[:length])
    while 2 * span <= width:
        size -= span * stride
        add_up(x, x[span * stride :], spare[:size])
        x, spare, span = spare, x, 2 * span
        if width & span:
            accumulate(sums[:length], x[offset * stride :])
            offset += span

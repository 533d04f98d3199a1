r"""Generated fingerprints: a field of ridge orientations with loops and deltas, and ridges grown along it from noise.

The orientation is that of the zero-pole model: half the argument of a rational function whose zeros are the loops'
cores and whose poles are the deltas, so that it turns by half a turn around each. Ridges grow by filtering noise
again and again with an oriented band-pass filter, which also makes the minutiae. Seeded, with no data and no
licence: real enough in what matters here, orientation that winds around singular points.

Source: Sherlock and Monro, Pattern Recognition 26(7), 1993, doi:10.1016/0031-3203(93)90006-I (orientations), bent
around a loop's core as by Vizcaya and Gerhardt, Pattern Recognition 29(7), 1996; ridges by iterated filtering after
Cappelli, Erol, Maio and Maltoni, Synthetic fingerprint-image generation, ICPR 2000.
"""

import math

import torch
from torch import Tensor

PATTERNS = ("loop", "whorl", "arch")
"""Left and right loops, whorls and arches, drawn with the frequencies of fingers (0.65, 0.30 and 0.05)."""

_FREQUENCIES = (0.65, 0.30, 0.05)
_N_ORIENTATIONS = 24
_N_SWEEPS = 12


def fingerprints(
    count: int,
    size: tuple[int, int] = (96, 96),
    *,
    pattern: str | None = None,
    ridge_period: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw grey images of ``count`` fingerprints, with dark ridges on white.

    Args:
        count: How many.
        size: Rows and columns, each at least 16.
        pattern: One of :data:`PATTERNS`; drawn at random by default.
        ridge_period: The distance of ridges in pixels, at least 3; by default 1/18 of the smaller side, at least 5.
        generator: Source of all randomness.

    Returns:
        Shape ``(count, rows, columns)``, float32 in ``[-1, 1]``.

    Raises:
        ValueError: If the size, the pattern or the ridge period is not as stated.

    >>> fingerprints(2, (32, 32), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([2, 32, 32])
    """
    if count < 1 or min(size) < 16:
        raise ValueError(f"fingerprints need a positive count and at least 16x16 pixels, got {count} of {size}")
    if pattern is not None and pattern not in PATTERNS:
        raise ValueError(f"unknown fingerprint pattern {pattern!r}: give one of {', '.join(PATTERNS)}")
    period = max(5.0, min(size) / 18) if ridge_period is None else ridge_period
    if not period >= 3.0:
        raise ValueError(f"the ridge period must be at least 3 pixels, got {period:g}")
    return torch.stack([_fingerprint(size, pattern, period, generator) for _ in range(count)])


def _fingerprint(
    size: tuple[int, int], pattern: str | None, period: float, generator: torch.Generator | None
) -> Tensor:
    if pattern is None:
        pattern = PATTERNS[int(torch.multinomial(torch.tensor(_FREQUENCIES), 1, generator=generator))]
    rows, columns = size
    half = min(size) / 2
    y, x = torch.meshgrid(
        torch.arange(rows // 2, rows // 2 - rows, -1) / half,
        torch.arange(columns) / half - columns / (2 * half),
        indexing="ij",
    )
    ridges = grow_ridges(orientation(x, y, pattern, generator), period, generator)
    shade = 0.25 * _smooth_noise(size, half / 3, generator)  # uneven pressure
    ink = torch.tanh(2.5 * (ridges + shade - 0.1))
    tilt = 0.15 * torch.randn((), generator=generator)
    radius = ((x - tilt * y) / 0.88).abs() ** 2.5 + ((y + 0.1) / (1.05 * rows / (2 * half))).abs() ** 2.5
    edge = torch.sigmoid((1.0 - radius + 0.12 * _smooth_noise(size, period, generator)) * half / period)
    return 1.0 - (1.0 - ink) * edge


def orientation(x: Tensor, y: Tensor, pattern: str, generator: torch.Generator | None = None) -> Tensor:
    r"""Ridge orientations in rad, modulo pi: ``1/2 (sum arg(z - core) - sum arg(z - delta))``, ``z = x + i y``.

    Args:
        x: Abscissae in half-widths of the finger, rightwards.
        y: Ordinates, upwards.
        pattern: One of :data:`PATTERNS`; an arch has no singular point, only a hump.
        generator: Draws the positions of the singular points.
    """
    u = 2.0 * torch.rand(8, generator=generator) - 1.0  # uniform on [-1, 1]
    if pattern == "arch":
        hump = (0.9 + 0.3 * u[0]) * torch.sigmoid(3.0 * (y + 0.9 + 0.2 * u[1]))
        return torch.atan(-hump * torch.sin(2.2 * (x - 0.2 * u[2])))
    cores = [torch.complex(0.15 * u[0], 0.05 + 0.15 * u[1])]
    if pattern == "whorl":
        cores.append(cores[0] - torch.complex(0.08 * u[2], 0.25 + 0.15 * u[3]))
        deltas = [
            torch.complex(side * (0.85 + 0.1 * u[4 + i]), -0.9 + 0.15 * u[6 + i]) for i, side in enumerate((-1, 1))
        ]
    else:
        side = torch.where(u[2] < 0, -1.0, 1.0)
        deltas = [torch.complex(side * (0.75 + 0.15 * u[4]), -0.85 + 0.2 * u[5])]
    z = torch.complex(x, y)
    cores_turn = torch.stack([(z - core).angle() for core in cores]).sum(0)
    deltas_turn = torch.stack([(z - delta).angle() for delta in deltas]).sum(0)
    if pattern == "loop":
        opening = -0.5 * math.pi - 0.4 * side
        cores_turn = cores_turn - 0.6 * torch.sin(cores_turn - opening)  # the loop's legs run nearly parallel
    return 0.5 * (cores_turn - deltas_turn)


def grow_ridges(angle: Tensor, period: float, generator: torch.Generator | None = None) -> Tensor:
    """Ridges along the orientations ``angle`` (rad, modulo pi): noise, filtered along them until it is all ridges.

    Returns:
        The shape of ``angle``, in ``(-1, 1)``; -1 on a ridge's crest.
    """
    rows, columns = angle.shape
    pad = min(int(2 * period), rows - 1, columns - 1)
    fy = torch.fft.fftfreq(rows + 2 * pad)[:, None]
    fx = torch.fft.rfftfreq(columns + 2 * pad)
    # the transfer function of a Gabor filter: two Gaussian blobs at +-1/period across the ridge, narrow along it
    turns = torch.arange(_N_ORIENTATIONS) * (math.pi / _N_ORIENTATIONS)
    across = turns[:, None, None] + math.pi / 2
    f_across, f_along = fx * across.cos() - fy * across.sin(), fx * across.sin() + fy * across.cos()
    width_across, width_along = 0.35 / period, 0.22 / period
    transfer = torch.exp(-0.5 * (((f_across.abs() - 1 / period) / width_across) ** 2 + (f_along / width_along) ** 2))

    place = torch.remainder(angle, math.pi) * (_N_ORIENTATIONS / math.pi)
    low, weight = place.floor().long() % _N_ORIENTATIONS, place - place.floor()
    high = (low + 1) % _N_ORIENTATIONS
    ridges = torch.randn(angle.shape, generator=generator)
    for _ in range(_N_SWEEPS):
        padded = torch.nn.functional.pad(ridges[None, None], (pad,) * 4, mode="reflect")[0, 0]
        answers = torch.fft.irfft2(torch.fft.rfft2(padded) * transfer, s=padded.shape)[:, pad:-pad, pad:-pad]
        ridges = (1 - weight) * answers.gather(0, low[None])[0] + weight * answers.gather(0, high[None])[0]
        ridges = torch.tanh(1.5 * ridges / ridges.square().mean().sqrt())
    return ridges


def _smooth_noise(size: tuple[int, int], length: float, generator: torch.Generator | None) -> Tensor:
    """Gaussian noise of unit variance that varies over ``length`` pixels."""
    fy, fx = torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])
    spectrum = torch.fft.rfft2(torch.randn(size, generator=generator))
    smooth: Tensor = torch.fft.irfft2(
        spectrum * torch.exp(-0.5 * (2 * math.pi * length) ** 2 * (fx**2 + fy**2)), s=size
    )
    return (smooth - smooth.mean()) / smooth.std()

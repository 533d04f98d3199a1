r"""Normal numbers as a pure function of a key and of where they belong: Philox 4x32-10 and Box-Muller.

A counter-based generator has no state. The four 32-bit words ``(w0, w1, w2, w3)`` of one block are a bijection, keyed
by 64 bits, of the counter ``(quad, step, sample mod 2^32, sample div 2^32)``, and give four normals::

    z0 = r cos(phi),  z1 = r sin(phi),  r = sqrt(-2 log((w0 + 1) / 2^32)),  phi = 2 pi w1 / 2^32

and likewise ``z2, z3`` from ``w2, w3``. So any number is computed alone, in any order, by any thread, and a GPU finds
the ones that a CPU does, to rounding; they lie within 6.67 standard deviations, beyond which a normal falls once in
4e10 draws.

**Which oscillator has which.** The oscillators of a sample, in flattened order, are cut into runs of :data:`RUN`,
each with quads of its own. A run of ``length`` (the last may be shorter) has ``m = ceil(length / 4)``, and oscillator
``j`` takes normal ``j div m`` of quad ``j mod m``, so that the four quarters of a run are filled side by side. Samples
of fewer than :data:`SHORT` oscillators would waste most of that: oscillator ``j`` of sample ``s`` is then number
``s n + j`` on one line of all samples, and the runs of that line stand for the samples above.

Here it is written for torch, on any device. :mod:`circsde.solvers.kernels` has the same compiled for a CPU.

Source: Salmon et al. 2011, doi:10.1145/2063384.2063405; Box and Muller 1958, doi:10.1214/aoms/1177706645.
"""

import math

import torch
from torch import Tensor

RUN = 1024
"""Normals in a whole run."""

QUADS = RUN // 4
"""Quads in a whole run."""

SHORT = 64
"""The least number of oscillators with which a sample has its own runs."""

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
"""The factors of the first and the third word in each round."""

WEYL = (0x9E3779B9, 0xBB67AE85)
"""The increments of the two halves of the key from round to round."""

ROUNDS = 10
"""Rounds; seven pass the tests of BigCrush."""

MASK = 0xFFFFFFFF
"""The low 32 bits of a number."""


def round_keys(key: int) -> list[tuple[int, int]]:
    """The two 32-bit keys of every round, from the low 64 bits of a key."""
    low, high = key & MASK, key >> 32 & MASK
    return [((low + i * WEYL[0]) & MASK, (high + i * WEYL[1]) & MASK) for i in range(ROUNDS)]


def words(key: int, quad: Tensor, step: Tensor | int, sample: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four 32-bit words at a counter, as int64 tensors of the shape to which quads and samples broadcast.

    >>> first = torch.zeros((), dtype=torch.int64)
    >>> [f"{word.item():08x}" for word in words(0, first, 0, first)]  # a known answer of Random123
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    a, b = quad + torch.zeros_like(sample), torch.as_tensor(step, device=quad.device)
    c, d = (sample & MASK) + torch.zeros_like(quad), sample >> 32 & MASK
    for low, high in round_keys(key):
        (p_high, p_low), (q_high, q_low) = _product(MULTIPLIERS[0], a), _product(MULTIPLIERS[1], c)
        a, b, c, d = q_high ^ b ^ low, q_low, p_high ^ d ^ high, p_low
    return a, b, c, d


def normals(
    key: int, samples: Tensor, step: int, n: int, dtype: torch.dtype = torch.float64, places: Tensor | None = None
) -> Tensor:
    """Standard normals of some samples at one step, shape ``(samples, n)``, computed in float64.

    Args:
        key: The stream, see :func:`circsde.streams.key`.
        samples: Indices, int64, from 0 to 2^63; they give the device.
        step: From 0 to 2^32.
        n: Oscillators in a sample.
        dtype: To which they are rounded.
        places: Which oscillators, indices below ``n``; by default all.

    >>> normals(0, torch.arange(2), step=0, n=3).shape
    torch.Size([2, 3])
    """
    places = torch.arange(n, device=samples.device) if places is None else places
    if n < SHORT:
        number = samples[:, None] * n + places
        rows, places, n = number // RUN, number % RUN, RUN
    else:
        rows, places = samples[:, None], places[None]
    run, j = places // RUN, places % RUN
    m = (torch.clamp(n - run * RUN, max=RUN) + 3) // 4
    found = words(key, run * QUADS + j % m, step, rows)
    slot = j // m
    length = torch.where(slot >= 2, found[2], found[0]).double()
    angle = torch.where(slot >= 2, found[3], found[1]).double() * (2.0 * math.pi / 2**32)
    radius = torch.log1p((length - (2**32 - 1)) / 2**32).mul(-2.0).sqrt()
    return (radius * torch.where(slot % 2 == 0, angle.cos(), angle.sin())).to(dtype)


def _product(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """The high and the low 32 bits of the product of two 32-bit numbers, by halves, as int64 has 63 bits."""
    low = b * (a & 0xFFFF)
    high = b * (a >> 16) + (low >> 16)
    return high >> 16, (high & 0xFFFF) << 16 | low & 0xFFFF

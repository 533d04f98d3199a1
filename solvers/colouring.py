r"""Colours of the points of a lattice, so that points of one colour are far apart, and signs that tell colours apart.

A trace ``tr J`` whose entries fall off with distance is estimated by signs that are random but for the colours: of m
probes ``z_h = s_h * e``, with ``e`` random signs and ``s_h`` the rows of a Hadamard matrix looked up by colour,

    ``(1/m) sum_h z_h . J z_h = tr J + sum of e_i e_j J_ij over pairs of one colour``,

so that all pairs of nearby points drop out (Stathopoulos, Laeuchli and Orginos 2013, arXiv:1302.4018, called there
hierarchical probing). Where entries do not fall off, m such probes are about as good as m independent ones.
"""

import torch
from torch import Tensor


def colour_bits(event_shape: tuple[int, ...]) -> Tensor:
    """The colour of every point as bits, coarse to fine, ``(bits, *event)``, int64.

    Leading axes, such as channels, come first. Each further bit splits the points of a colour in two sets, on the
    plane by turns into the black and white squares of a board and by rows, so that the least distance within a colour
    grows by ``sqrt 2``; in one dimension it doubles.

    >>> colour_bits((4,)).tolist()
    [[0, 1, 0, 1], [0, 0, 1, 1]]
    >>> colour_bits((2, 2)).tolist()
    [[[0, 1], [1, 0]], [[0, 0], [1, 1]]]
    """
    *leading, last = event_shape
    across = torch.arange(last).expand(event_shape)
    bits = list[Tensor]()
    if not leading:
        return torch.stack([(across >> q) & 1 for q in range(max(1, (last - 1).bit_length()))])
    *leading, rows = leading
    channels = torch.Size(leading).numel()
    down = torch.arange(rows)[:, None].expand(event_shape)
    channel = torch.arange(channels).reshape(*leading, 1, 1).expand(event_shape)
    bits += [(channel >> q) & 1 for q in range((channels - 1).bit_length())]
    for q in range(max(1, (max(rows, last) - 1).bit_length())):
        bits += [((down >> q) + (across >> q)) & 1, (down >> q) & 1]
    return torch.stack(bits)


def colour_signs(event_shape: tuple[int, ...], count: int) -> Tensor:
    """The ``count`` sign patterns that average to zero over any two points of different colours, int64.

    Args:
        event_shape: The axes of a sample; the last two are rows and columns.
        count: A power of two: as many colours. More than there are points repeat.

    Returns:
        Signs of shape ``(count, *event)``: ``(-1)^(h . colour)``, rows of a Hadamard matrix.

    Raises:
        ValueError: If the count is no power of two.

    >>> colour_signs((4,), 2).tolist()
    [[1, 1, 1, 1], [1, -1, 1, -1]]
    """
    levels = count.bit_length() - 1
    if count < 1 or count != 1 << levels:
        raise ValueError(f"colours come in powers of two, got {count}")
    bits = colour_bits(event_shape)[:levels]
    numbers = torch.arange(count).reshape(-1, *[1] * len(event_shape))
    odd = torch.zeros(count, *event_shape, dtype=torch.int64)
    for q, bit in enumerate(bits):
        odd ^= ((numbers >> q) & 1) & bit
    return 1 - 2 * odd


def colours_of(probes: int) -> int:
    """So many colours for that many probes: the largest power of two of which there are two sets or more.

    >>> [colours_of(probes) for probes in (1, 2, 6, 16, 64)]
    [1, 1, 2, 8, 32]
    """
    return max(1, (probes & -probes) if probes & (probes - 1) else probes // 2)

r"""Describe each image of a set: the coherence of its orientations, its ridge frequency, spectrum and grey levels.

Sets compare by the distributions of these over the images; every function takes what
:func:`circsde.metrics.gabor.grey` takes.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from circsde.metrics.gabor import GREY_LEVEL, Images, grey

LEVELS = 256

ROUNDING = GREY_LEVEL**2 / 12.0
"""The mean variance of rounding to 256 levels."""

_FLAT = GREY_LEVEL**2 / 4.0  # the largest variance that rounding can leave
_NEIGHBOURS = 50


def coherence(images: Images) -> Float[Tensor, " n"]:
    r"""How far gradients in a neighbourhood share one orientation, per image, from 0 to 1.

    ``sum_w |<(g_x + i g_y)^2>_w| / sum_w <g_x^2 + g_y^2>_w`` over windows w, which weights them by their energy. The
    gradient is that of a Gaussian of 1 pixel, the windows are Gaussians of 2.5 pixels, both cut off at two standard
    deviations and kept inside the image. 1 for stripes, 0 for an image that is flat to within rounding to 8 bits.

    Source: Bigun and Granlund 1987; Kass and Witkin 1987, doi:10.1016/0734-189X(87)90043-0.

    >>> stripes = torch.sin(torch.arange(32.0)).expand(1, 32, 32)
    >>> round(coherence(stripes).item(), 6)
    1.0
    """
    values = grey(images).double()
    smooth, derivative = gaussian_kernels(1.0, 2, values.device)
    gx, gy = separable(values, smooth, derivative), separable(values, derivative, smooth)
    window, _ = gaussian_kernels(2.5, 5, values.device)
    real, imaginary, energy = (
        separable(part, window, window) for part in (gx * gx - gy * gy, 2 * gx * gy, gx**2 + gy**2)
    )
    total = energy.sum((-2, -1))
    shared = torch.hypot(real, imaginary).sum((-2, -1))
    flat = values.var((-2, -1)) <= _FLAT
    return torch.where(flat, 0.0, shared / total.clamp(min=torch.finfo(total.dtype).tiny))


def gaussian_kernels(width: float, radius: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """A Gaussian on ``-radius .. radius`` with sum 1, and its derivative with unit answer to a unit slope; float64."""
    at = torch.arange(-radius, radius + 1, dtype=torch.float64, device=device)
    smooth = torch.exp(-0.5 * (at / width) ** 2)
    slope = at * smooth
    return smooth / smooth.sum(), slope / (slope * at).sum()


def separable(values: Float[Tensor, "n rows columns"], down: Tensor, across: Tensor) -> Float[Tensor, "n r c"]:
    """Correlate columns with ``down`` and rows with ``across``, only where they lie inside the image."""
    answer = torch.nn.functional.conv2d(values[:, None], down[None, None, :, None])
    return torch.nn.functional.conv2d(answer, across[None, None, None, :])[:, 0]


def radial_power(images: Images, padding: int = 1) -> tuple[Float[Tensor, " bins"], Float[Tensor, "n bins"]]:
    r"""The power spectrum of each image, averaged over directions.

    ``|DFT(w (x - mean))|^2 / sum w^2`` with Hann's window w, averaged over the annuli of width ``1 / side`` around
    ``k / side`` cycles/pixel, ``k = 1 .. side / 2``: ``side`` is the smaller side, times ``padding``. White noise of
    variance 1 has power 1 (less what goes with the mean).

    Returns:
        Frequencies in cycles/pixel and powers, float64.
    """
    values = grey(images)
    values = (values - values.mean((-2, -1), keepdim=True)).float()
    rows, columns = values.shape[-2:]
    window = torch.outer(*(torch.hann_window(n + 1, device=values.device)[1:] for n in (rows, columns)))
    shape = rows * padding, columns * padding
    power = torch.fft.rfft2(values * window, s=shape).abs().square().double() / window.square().sum()
    fy, fx = torch.fft.fftfreq(shape[0]).abs()[:, None], torch.fft.rfftfreq(shape[1])
    side = min(shape)
    annulus = (torch.hypot(fy, fx) * side).round().long().to(values.device)
    twice = torch.where((fx == 0) | (fx == 0.5), 1.0, 2.0).expand(annulus.shape).double().to(values.device)
    members = torch.nn.functional.one_hot(annulus.flatten()).double() * twice.flatten()[:, None]
    members = members[:, 1 : side // 2 + 1]
    return torch.arange(1, side // 2 + 1).double() / side, power.flatten(1) @ (members / members.sum(0))


def ridge_frequency(images: Images) -> Float[Tensor, " n"]:
    r"""The dominant radial frequency of each image in cycles/pixel.

    Where the energy per unit of radial frequency, ``f`` times :func:`radial_power` on twice as many frequencies, is
    largest, at the top of the parabola through three values of its logarithm. From two periods across the image to
    1/2; 0 for an image that is flat to within rounding to 8 bits.

    >>> stripes = torch.sin(2 * torch.pi * 0.2 * torch.arange(32.0)).expand(1, 32, 32)
    >>> abs(ridge_frequency(stripes).item() - 0.2) < 0.01
    True
    """
    frequency, power = radial_power(images, padding=2)
    step = frequency[0].item()
    energy = (frequency.to(power) * power).clamp(min=torch.finfo(power.dtype).tiny).log()
    top = energy[:, 3:-1].argmax(1, keepdim=True) + 3
    before, at, after = (energy.gather(1, top + shift).squeeze(1) for shift in (-1, 0, 1))
    bend = (2.0 * at - before - after).clamp(min=torch.finfo(power.dtype).tiny)
    shift = (0.5 * (after - before) / bend).clamp(-0.5, 0.5)
    flat = grey(images).double().var((-2, -1)) <= _FLAT
    return torch.where(flat, 0.0, (top.squeeze(1) + 1 + shift) * step)


def grey_levels(images: Images) -> Float[Tensor, "n level"]:
    """The share of each image's pixels at each of 256 levels, from -1 to 1, float64."""
    level = ((grey(images) + 1.0) / GREY_LEVEL).round().long().clamp(0, LEVELS - 1).flatten(1)
    counts = torch.zeros(len(level), LEVELS, dtype=torch.float64, device=level.device)
    return counts.scatter_add_(1, level, torch.ones_like(level, dtype=torch.float64)) / level.shape[1]


def nearness(images: Images, train: Images) -> Float[Tensor, " n"]:
    r"""How near each image is to the nearest training image, relative to the 50 nearest: 0 for a copy, up to 1.

    The ratio of the distance to the nearest to the mean distance to the 50 nearest (fewer if there are fewer), in
    pixels' root mean square plus rounding to 8 bits, so that flat images, which are near to many, do not pass for
    copies. A copy moved by some pixels is not seen.

    Source: Carlini et al. 2023, arXiv:2301.13188, section 5.2.

    >>> train = torch.rand(100, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> bool(nearness(train[:2], train).max() < 0.01)
    True
    """
    a, b = grey(images).flatten(1).float(), grey(train).flatten(1).float()
    if len(b) < 2:
        raise ValueError(f"nearness needs at least 2 training images, got {len(b)}")
    squares = torch.cdist(a, b).double().square() / a.shape[1]
    nearest = (squares.topk(min(_NEIGHBOURS, len(b)), largest=False).values + ROUNDING).sqrt()
    return nearest[:, 0] / nearest.mean(1)

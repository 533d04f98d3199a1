r"""How the texture of images differs: energies after a fixed bank of Gabor filters, and their Frechet distance.

The bank and the pooling never change, so that distances stay comparable between versions.
"""

import math
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Images: TypeAlias = Float[Tensor, "..."]
"""Grey images ``(n, rows, columns)`` or colour ``(n, 3, rows, columns)``, floats in [-1, 1]; :func:`grey` checks."""

WAVELENGTHS = (2.5, 4.0, 6.4, 10.24)
"""The wavelengths of the filters, in pixels."""

N_ORIENTATIONS = 6

GREY_LEVEL = 2.0 / 255.0
"""One of 256 levels on [-1, 1]. What differs by less than it is taken as equal, as an 8-bit image would show it."""

_REACH = 12  # pixels reflected at the border: 2 standard deviations of the widest envelope
_CHUNK = 2**15  # pixels in a block of images, so that its answers to one scale fit a cache


def grey(images: Images) -> Float[Tensor, "n rows columns"]:
    """Grey images, colour averaged over its three channels.

    Raises:
        ValueError: If the shape is neither ``(n, rows, columns)`` nor ``(n, 3, rows, columns)``, an image has fewer
            than 16 rows or columns, or a value is not finite or beyond [-1, 1].
    """
    if images.dim() not in (3, 4) or (images.dim() == 4 and images.shape[1] not in (1, 3)):
        raise ValueError(
            f"images must have the shape (n, rows, columns) or (n, 3, rows, columns), got {tuple(images.shape)}"
        )
    if min(images.shape[-2:]) < 16:
        raise ValueError(f"images must have at least 16x16 pixels, got {images.shape[-2]}x{images.shape[-1]}")
    largest = images.abs().max().item() if images.numel() else math.nan
    if not largest <= 1.0 + 1e-5:
        raise ValueError(
            f"images must hold values in [-1, 1], got {largest:g} as the largest magnitude of {len(images)} images:"
            " clamp samples that overshoot; look for the cause of values that are not finite"
        )
    return images.mean(1) if images.dim() == 4 else images


def gabor_bank(
    rows: int, columns: int, *, device: torch.device | None = None
) -> Float[Tensor, "scale orientation rows columns"]:
    r"""Transfer functions of the filters on the discrete Fourier frequencies of ``rows x columns`` pixels.

    One Gaussian blob each at ``1 / wavelength`` in its direction, so that the answer to a real image is complex and its
    squared modulus the local energy: one octave wide along the direction, as wide across it as meets the next
    direction at half the height, zero at zero frequency. Unit gain for white noise: the mean energy of noise of
    variance 1 is 1.

    Source: Daugman 1985, doi:10.1364/JOSAA.2.001160 (the filters); Manjunath and Ma 1996, doi:10.1109/34.531803 (a
    bank of them as texture features).
    """
    fy = torch.fft.fftfreq(rows, dtype=torch.float64, device=device)[:, None]
    fx = torch.fft.fftfreq(columns, dtype=torch.float64, device=device)
    turns = torch.arange(N_ORIENTATIONS, dtype=torch.float64, device=device)[:, None, None] * (math.pi / N_ORIENTATIONS)
    along, across = fx * turns.cos() + fy * turns.sin(), fy * turns.cos() - fx * turns.sin()
    half = math.sqrt(2.0 * math.log(2.0))  # standard deviations to half the height
    scales = []
    for wavelength in WAVELENGTHS:
        f = 1.0 / wavelength
        width_along, width_across = f / (3.0 * half), f * math.tan(math.pi / (2 * N_ORIENTATIONS)) / half
        transfer = torch.exp(-0.5 * (((along - f) / width_along) ** 2 + (across / width_across) ** 2))
        transfer[:, 0, 0] = 0.0
        scales.append(transfer / transfer.square().mean((-2, -1), keepdim=True).sqrt())
    return torch.stack(scales)


def gabor_features(images: Images) -> Float[Tensor, "n features"]:
    r"""Texture features of each image: mean and standard deviation over its pixels of ``log(energy + level^2)``.

    The energy is the squared modulus of the answer of each filter of :func:`gabor_bank`, on the image reflected at its
    border; ``level`` is :data:`GREY_LEVEL`. The mean and the standard deviation of the grey values come last.

    Args:
        images: Grey or colour, values in [-1, 1], at least 16x16 pixels.

    Returns:
        Shape ``(n, 2 * 24 + 2)``, float64: means by scale and orientation, standard deviations likewise, then grey.

    >>> gabor_features(torch.zeros(3, 32, 32)).shape
    torch.Size([3, 50])
    """
    values = grey(images).float()
    rows, columns = values.shape[-2:]
    pad = min(_REACH, rows - 1, columns - 1)
    bank = gabor_bank(rows + 2 * pad, columns + 2 * pad, device=values.device).float()
    chunks = []
    for chunk in torch.split(values, max(1, _CHUNK // (bank.shape[-1] * bank.shape[-2]))):
        chunks.append(torch.cat([_log_energies(chunk, pad, scale) for scale in bank], 1).double())
    pooled = torch.cat(chunks)
    log_mean, log_std = pooled[..., 0], pooled[..., 1]
    flat = values.flatten(1).double()
    return torch.cat((log_mean, log_std, flat.mean(1, keepdim=True), flat.std(1, keepdim=True)), 1)


def _log_energies(values: Tensor, pad: int, transfer: Tensor) -> Tensor:
    """Mean and standard deviation of the log energies, ``(n, orientation, 2)``."""
    centred = values - values.mean((-2, -1), keepdim=True)
    padded = torch.nn.functional.pad(centred[:, None], (pad,) * 4, mode="reflect")
    answers = torch.fft.ifft2(torch.fft.fft2(padded) * transfer)[..., pad:-pad, pad:-pad]
    energies = (torch.view_as_real(answers).square().sum(-1) + GREY_LEVEL**2).log_().flatten(2)
    return torch.stack((energies.mean(-1), energies.std(-1)), -1)


def frechet_distance(x: Float[Tensor, "n features"], y: Float[Tensor, "m features"]) -> float:
    r"""The squared Wasserstein-2 distance of Gaussians with the sets' means and covariances, in float64.

    ``|mean_x - mean_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2))``. The trace of the last root is the sum of the singular
    values of ``S_x^(1/2) S_y^(1/2)``, with no root of a matrix that is not symmetric.

    Estimated from samples it is too large, by a term in proportion to ``1 / n`` that grows with the number of features:
    compare only distances of sets of equal sizes.

    Raises:
        ValueError: If a set has fewer than 2 members.

    Source: Dowson and Landau 1982, doi:10.1016/0047-259X(82)90077-X.

    >>> frechet_distance(torch.tensor([[-1.0], [1.0]]), torch.tensor([[2.0], [4.0]]))
    9.0
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a covariance needs at least 2 members in each set, got {len(x)} and {len(y)}")
    x, y = x.double(), y.double()
    root_x, root_y = _root_covariance(x), _root_covariance(y)
    traces = root_x.square().sum() + root_y.square().sum()
    cross = torch.linalg.svdvals(root_x @ root_y).sum()
    return float(((x.mean(0) - y.mean(0)).square().sum() + traces - 2.0 * cross).clamp(min=0.0))


def scaled_frechet_distance(real: Float[Tensor, "n features"], other: Float[Tensor, "m features"]) -> float:
    """The Frechet distance of features in units of their standard deviations over ``real``."""
    scale = real.std(0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return frechet_distance(real / scale, other / scale)


def _root_covariance(x: Tensor) -> Tensor:
    """The symmetric root of the covariance matrix."""
    values, vectors = torch.linalg.eigh(torch.cov(x.T).reshape(x.shape[1], x.shape[1]))
    root: Tensor = (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
    return root

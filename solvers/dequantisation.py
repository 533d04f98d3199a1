r"""Likelihoods of images in bits per dimension, through uniform dequantisation and the encoding of levels as phases."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from circsde.encoding import PhaseEncoding
from circsde.solvers.likelihood import LogProb
from circsde.typing import Angles, PerSample


@dataclass(frozen=True)
class BitsPerDim:
    """The negative log-likelihood of images, in bits per pixel and channel, one per image.

    Attributes:
        value: Mean over draws of the dequantising noise, an upper bound in expectation.
        stderr: Its standard error over draws; NaN for a single one.
        draws: The number of draws.
    """

    value: PerSample
    stderr: PerSample
    draws: int


def bits_per_dim(
    log_prob: Callable[[Angles], LogProb],
    images: Tensor,
    encoding: PhaseEncoding,
    *,
    draws: int = 1,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> BitsPerDim:
    r"""Compute the likelihood of images of whole grey levels, by uniform dequantisation and a change to phases.

    ``-log2 P(image) <= E[-log2 p(theta(image + u)) - log2 |d theta / d x|]`` with u uniform on ``[0, 1)`` per pixel.

    Args:
        log_prob: The log-density of angles, such as ``lambda theta: circsde.log_prob(sde, score, theta)``. Fresh probes
            in each draw make ``stderr`` cover them too.
        images: Integers ``(batch, *event)`` from ``encoding.low`` to ``encoding.high - 1``.
        encoding: For grey levels of 8 bits, ``PhaseEncoding(scale, low=0, high=256)``.
        draws: The number of draws of the noise.
        generator: The generator of the noise.
        dtype: The dtype of the angles.

    Raises:
        ValueError: If images are not integers in the range of the encoding.

    Source: Theis et al. 2016, arXiv 1511.01844.
    """
    if images.is_floating_point() or not bool(((images >= encoding.low) & (images <= encoding.high - 1)).all()):
        raise ValueError(
            f"images must hold integers from {encoding.low:g} to {encoding.high - 1:g}, got {images.dtype} from"
            f" {images.min().item():g} to {images.max().item():g}; set low and high of the encoding: high is one past"
            " the largest level"
        )
    event = images.shape[1:]
    unit = event.numel() * math.log(2.0)
    volume = encoding.log_abs_det_jacobian(event)
    values = []
    for _ in range(draws):
        noise = torch.rand(images.shape, generator=generator, dtype=dtype, device=images.device)
        theta = encoding.encode((images + noise).clamp(max=encoding.high))
        values.append(-(log_prob(theta).value + volume) / unit)
    bits = torch.stack(values)
    stderr = bits.std(0) / math.sqrt(draws) if draws > 1 else torch.full_like(bits[0], math.nan)
    return BitsPerDim(bits.mean(0), stderr, draws)

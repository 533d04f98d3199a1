"""Observables of the data that a trained model makes, by which its samplers are compared."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from circsde.metrics.gabor import gabor_features
from circsde.metrics.texture import radial_power
from circsde.models.training import Trained
from circsde.sampling.trained import centre, encoding_of, event_shape
from circsde.typing import Angles

ORDERS = (1, 2, 3)
"""The orders of the trigonometric moments of each angle."""

MOST_PAIRED = 12
"""Angles up to which moments of differences and sums of two are observables as well."""

_SMALLEST = 16  # pixels across, the least that the Gabor filters take
_LEAST_POWER = 1e-6  # power of an annulus, where white noise has 1; smaller powers count as zero


@dataclass(frozen=True)
class Observables:
    """Functions of a sample, whose means are compared.

    Attributes:
        names: One of each.
        values: ``angles -> (batch, len(names))``, float64.
    """

    names: tuple[str, ...]
    values: Callable[[Angles], Tensor]


def observables(model: Trained) -> Observables:
    """The observables of the data of a model.

    Of angles, in the directions of the data: ``E cos m theta`` and ``E sin m theta``, m = 1, 2, 3, and of up to 12
    angles ``cos`` and ``sin`` of the difference and the sum of every two. Of images: mean and standard deviation of the
    grey values, logarithms of the power in octaves of frequency, and means and standard deviations of the logarithms of
    Gabor energies; an error of 0.05 in a logarithm is 5 %. Of images below 16 x 16, moments of their phases.
    """
    shape = event_shape(model)
    if len(shape) == 1:
        return of_angles(shape[0], centre(model))
    if min(shape[-2:]) < _SMALLEST:
        return of_phases()
    return of_images(encoding_of(model.about).decode)


def of_angles(dim: int, away: Tensor) -> Observables:
    """Trigonometric moments of ``dim`` angles, counted from the directions ``away``."""
    names = [f"{m} theta_{i + 1}" for m in ORDERS for i in range(dim)]
    first, second = torch.triu_indices(dim, dim, 1) if dim <= MOST_PAIRED else torch.zeros(2, 0, dtype=torch.long)
    names += [f"(theta_{i + 1} {sign} theta_{j + 1})" for sign in "-+" for i, j in zip(first, second, strict=True)]

    def values(theta: Angles) -> Tensor:
        theta = theta.double() + away.to(theta.device)
        phase = torch.cat([m * theta for m in ORDERS], 1)
        phase = torch.cat((phase, theta[:, first] - theta[:, second], theta[:, first] + theta[:, second]), 1)
        return torch.cat((phase.cos(), phase.sin()), 1)

    return Observables(tuple(f"E {wave} {name}" for wave in ("cos", "sin") for name in names), values)


def of_images(decode: Callable[[Tensor], Tensor]) -> Observables:
    """Grey values, octaves of the spectrum and Gabor energies of pictures."""
    texture = [
        f"{which} of log energy {scale + 1}.{turn + 1}"
        for which in ("mean", "deviation")
        for scale in range(4)
        for turn in range(6)
    ]
    octaves = [f"log power up to 1/{2**k} cycles/pixel" for k in range(1, 5)]

    def values(theta: Angles) -> Tensor:
        pictures = decode(theta).clamp(-1.0, 1.0)
        pictures = pictures.squeeze(1) if pictures.ndim == 4 and pictures.shape[1] == 1 else pictures
        frequency, power = radial_power(pictures)
        octave = frequency.log2().ceil().long().neg().clamp(1, len(octaves)).to(power.device)
        pooled = torch.stack(
            [power[:, octave == k].mean(1) if bool((octave == k).any()) else power[:, 0] for k in range(1, 5)], 1
        )
        return torch.cat((gabor_features(pictures), (pooled + _LEAST_POWER).log()), 1)

    return Observables((*texture, "mean grey", "deviation of grey", *octaves), values)


def of_phases() -> Observables:
    """Moments of the phases of small images, and of the differences between neighbours."""
    names = tuple(f"E {wave} {m} {what}" for what in ("theta", "neighbours") for m in ORDERS for wave in ("cos", "sin"))

    def values(theta: Angles) -> Tensor:
        flat, apart = theta.double().flatten(1), (theta[..., 1:] - theta[..., :-1]).double().flatten(1)
        parts = [wave(m * x).mean(1) for x in (flat, apart) for m in ORDERS for wave in (torch.cos, torch.sin)]
        return torch.stack(parts, 1)

    return Observables(names, values)

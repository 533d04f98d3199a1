r"""How far fingerprints are from real ones to networks that were trained on fingerprints: features, and ridge periods.

The networks are those of the package pyfing, which holds their weights: nothing is downloaded. pyfing, Keras and OpenCV
are the extra ``minutiae``. Distances take any other functions of pictures, too.
"""

from collections.abc import Callable
from importlib import import_module

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, pad

from circsde.metrics.comparison import Measure, tabulated, wasserstein
from circsde.metrics.gabor import Images, scaled_frechet_distance
from circsde.metrics.minutiae import DPI, eight_bits, fingerprint_networks

ENCODED = "enc0_3_activation"
"""The last layer of LEADER's first encoder, of 128 channels and a sixteenth of the picture's size."""

BATCH = 64


def leader_features(dpi: float = DPI) -> Callable[[Images], Float[Tensor, "n features"]]:
    """The means over a picture of the 128 channels that LEADER, a network that finds minutiae, encodes it by.

    Pictures are enlarged to 500 dpi, as LEADER does it but for the border, which repeats the outermost pixels.

    Args:
        dpi: The resolution of the pictures.

    Raises:
        ImportError: If pyfing is missing.

    Source: pyfing 0.7.3, https://pypi.org/project/pyfing.
    """
    model = fingerprint_networks().Leader().model
    encoder = import_module("keras").Model(model.input, model.get_layer(ENCODED).output)

    def describe(pictures: Images) -> Float[Tensor, "n features"]:
        found = []
        for some in torch.split(eight_bits(pictures), BATCH):
            larger = interpolate(some[:, None].float(), scale_factor=500.0 / dpi, mode="bicubic")
            missing = [-side % 32 for side in (larger.shape[-1], larger.shape[-2])]
            border = [part for side in missing for part in (side // 2, side - side // 2)]
            pixels = pad(larger, border, mode="replicate").clamp(0.0, 255.0).permute(0, 2, 3, 1)
            with torch.no_grad():
                found.append(encoder(pixels, training=False).cpu().double().mean((1, 2)))
        return torch.cat(found)

    return describe


def ridge_periods(dpi: float = DPI) -> Callable[[Images], Float[Tensor, " n"]]:
    """The mean distance of ridges in a picture, pixels, by SNFOE for their orientation and SNFFE for their frequency.

    It is within 6 % of the period of plane waves of 3 to 6 pixels at the default resolution.

    Args:
        dpi: The resolution of the pictures.

    Raises:
        ImportError: If pyfing is missing.

    Source: pyfing 0.7.3, https://pypi.org/project/pyfing.
    """
    pyfing = fingerprint_networks()
    orientation, frequency = pyfing.Snfoe(), pyfing.Snffe()

    def period(picture: Tensor) -> float:
        pixels = np.ascontiguousarray(picture.numpy())
        with torch.no_grad():
            angles, _ = orientation.run(pixels, dpi=dpi)
            return float(frequency.run(pixels, np.full_like(pixels, 255), angles, dpi=dpi).mean())

    def describe(pictures: Images) -> Float[Tensor, " n"]:
        return torch.tensor([period(picture) for picture in eight_bits(pictures)], dtype=torch.float64)

    return describe


def compare(
    real: Images,
    samples: Images,
    *,
    train: Images | None = None,
    features: Callable[[Images], Tensor] | None = None,
    periods: Callable[[Images], Tensor] | None = None,
    resamples: int = 200,
    confidence: float = 0.95,
    generator: torch.Generator,
) -> xr.Dataset:
    """Distances of the features and ridge periods of real pictures and of samples, with intervals and floors.

    ``features`` is the Frechet distance of features in units of their standard deviations over real pictures, as some
    channels are a hundred times larger than others; ``period`` the Wasserstein distance of ridge periods, pixels.

    Args:
        real: Grey pictures held out from training, ``(n, rows, columns)`` in [-1, 1].
        samples: Pictures to judge, of the same size.
        train: The training pictures, for the floor, at least as many as samples.
        features: What describes pictures by rows of numbers; by default :func:`leader_features`.
        periods: What finds their ridge periods; by default :func:`ridge_periods`.
        resamples: The number of resamples of the bootstrap, over pictures.
        confidence: The confidence of the intervals, each for itself.
        generator: Draws the resamples, and which training pictures are kept.

    Returns:
        As :func:`circsde.metrics.phase_fields.compare`, along the measures above.

    Raises:
        ValueError: If the sizes differ, or pictures are too few or not grey.
        ImportError: If a default is wanted and pyfing is missing.
    """
    measures = {
        "features": Measure(leader_features() if features is None else features, scaled_frechet_distance, "1"),
        "period": Measure(ridge_periods() if periods is None else periods, wasserstein, "pixels"),
    }
    return tabulated(measures, real, samples, train, resamples=resamples, confidence=confidence, generator=generator)

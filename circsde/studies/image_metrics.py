r"""How far a set of images is from real ones, by measures that need no trained network, with intervals and floors.

Distances estimated from samples are never zero, and the fewer images, the larger they are, above all the Frechet
distance. So all sets are cut to one size ``n``, each measure comes with its floor, the same measure between real images
and training images at the same ``n``, and numbers compare only at the same ``n``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from scipy.stats import wasserstein_distance
from torch import Tensor

from circsde.studies.gabor import GREY_LEVEL, gabor_features, gabor_frechet
from circsde.studies.texture import coherence, grey_levels, nearness, radial_power, ridge_frequency

COPY_QUANTILE = 0.05
"""Of held-out images, this share is called nearer to the training images than fresh ones are."""


def wasserstein(x: Float[Tensor, " n"], y: Float[Tensor, " m"]) -> float:
    """The Wasserstein-1 distance of two samples of numbers, in their unit."""
    return float(wasserstein_distance(x.cpu().numpy(), y.cpu().numpy()))


def spectrum_distance(x: Float[Tensor, "n bins"], y: Float[Tensor, "m bins"]) -> float:
    """The mean over radial frequencies of ``|log mean power_x - log mean power_y|``, in nats.

    The power of rounding to 8 bits is added to both. Powers are those of
    :func:`circsde.studies.texture.radial_power`.
    """
    log_x, log_y = ((powers.mean(0) + GREY_LEVEL**2 / 12.0).log() for powers in (x, y))
    return float((log_x - log_y).abs().mean())


def grey_distance(x: Float[Tensor, "n level"], y: Float[Tensor, "m level"]) -> float:
    """The Wasserstein-1 distance of the grey values of all pixels, in units of [-1, 1].

    Takes shares as of :func:`circsde.studies.texture.grey_levels`.
    """
    below_x, below_y = (shares.mean(0).cumsum(0) for shares in (x, y))
    return float((below_x - below_y).abs().sum() * GREY_LEVEL)


def copy_share(held_out: Float[Tensor, " n"], samples: Float[Tensor, " m"]) -> float:
    """The share of samples nearer to the training images than the 5 % quantile of held-out images; 0.05 if fresh.

    Takes what :func:`circsde.studies.texture.nearness` returns.
    """
    return float((samples < held_out.quantile(COPY_QUANTILE)).double().mean())


@dataclass(frozen=True)
class Measure:
    """One comparison of two sets of images.

    Attributes:
        describe: A row per image.
        distance: Of two sets of rows, the real one first.
        units: Of the distance.
    """

    describe: Callable[[Tensor], Tensor]
    distance: Callable[[Tensor, Tensor], float]
    units: str


MEASURES: dict[str, Measure] = {
    "gabor_frechet": Measure(gabor_features, gabor_frechet, "1"),
    "coherence": Measure(coherence, wasserstein, "1"),
    "ridge_frequency": Measure(ridge_frequency, wasserstein, "cycles/pixel"),
    "spectrum": Measure(lambda images: radial_power(images)[1], spectrum_distance, "nats"),
    "grey": Measure(grey_levels, grey_distance, "1"),
}
"""By name."""


def bootstrap(
    distance: Callable[[Tensor, Tensor], float],
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "m ..."],
    *,
    resamples: int = 200,
    confidence: float = 0.95,
    generator: torch.Generator,
) -> tuple[float, float, float]:
    r"""A distance of two sets and its bootstrap interval, resampling the rows of both.

    Resampling raises a distance once more by the bias that it has at this size. The percentiles are therefore moved
    by the estimate less the mean of the resamples: the interval is of the expected distance at this size, its
    bias included, and the floor's is on the same footing.

    Returns:
        The distance, and the ends of the interval, at least 0.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, sections 10.2 and 13.3.
    """
    value = distance(x, y)
    again = []
    for _ in range(resamples):
        rows = [torch.randint(len(z), (len(z),), generator=generator).to(z.device) for z in (x, y)]
        again.append(distance(x[rows[0]], y[rows[1]]))
    tails = (1.0 - confidence) / 2.0
    low, high = np.quantile(again, [tails, 1.0 - tails]) + value - np.mean(again)
    return value, max(0.0, float(low)), max(0.0, float(high))


def compare(
    real: Float[Tensor, "n *channels rows columns"],
    samples: Float[Tensor, "m *channels rows columns"],
    *,
    train: Float[Tensor, "k *channels rows columns"] | None = None,
    resamples: int = 200,
    confidence: float = 0.95,
    generator: torch.Generator,
) -> xr.Dataset:
    """Every measure between real images and samples, with intervals and floors.

    Args:
        real: Images held out from training, grey ``(n, rows, columns)`` or colour ``(n, 3, rows, columns)``, values in
            [-1, 1].
        samples: Images to judge, of the same size.
        train: The training images, for the floors and the copy check. Nearest ones are sought among all of them.
        resamples: Of the bootstrap.
        confidence: Of the intervals, each for itself.
        generator: Draws which images are kept where a set is larger than another, and the resamples.

    Returns:
        ``value``, ``low``, ``high`` and, with ``train``, ``floor``, ``floor_low``, ``floor_high`` along ``measure``:
        those of :data:`MEASURES`, and ``copies``, see :func:`copy_share`, whose floor is 0.05 by definition.
        Attribute ``n``: images of each set. ``mean_coherence`` and ``mean_ridge_frequency`` along ``set``,
        ``log_power`` along ``set`` and ``frequency``.

    Raises:
        ValueError: If the sizes differ, or an image is not as stated.
    """
    sets = {"real": real, "samples": samples} | ({} if train is None else {"train": train})
    if len({images.shape[-2:] for images in sets.values()}) > 1:
        sizes = ", ".join(f"{name} {images.shape[-2]}x{images.shape[-1]}" for name, images in sets.items())
        raise ValueError(f"images of one size are needed, got {sizes}: crop or resize them alike")
    n = min(len(images) for images in sets.values())
    if n < 2:
        raise ValueError(f"at least 2 images of each set are needed, got {n}")
    kept = {name: images[torch.randperm(len(images), generator=generator)[:n]] for name, images in sets.items()}

    def judged(distance: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor) -> tuple[float, float, float]:
        return bootstrap(distance, x, y, resamples=resamples, confidence=confidence, generator=generator)

    described = {
        name: {key: measure.describe(images) for key, measure in MEASURES.items()} for name, images in kept.items()
    }
    found = {
        key: judged(measure.distance, described["real"][key], described["samples"][key])
        for key, measure in MEASURES.items()
    }
    units = [measure.units for measure in MEASURES.values()]
    floors = {}
    if train is not None:
        floors = {
            key: judged(measure.distance, described["real"][key], described["train"][key])
            for key, measure in MEASURES.items()
        }
        near = {name: nearness(kept[name], train) for name in ("real", "samples")}
        found["copies"] = judged(copy_share, near["real"], near["samples"])
        floors["copies"] = (COPY_QUANTILE,) * 3
        units.append("1")
    return _dataset(found, floors, units, described, radial_power(real[:1])[0]).assign_attrs(
        n=n, resamples=resamples, confidence=confidence
    )


def _dataset(
    found: dict[str, tuple[float, float, float]],
    floors: dict[str, tuple[float, float, float]],
    units: list[str],
    described: dict[str, dict[str, Tensor]],
    frequency: Tensor,
) -> xr.Dataset:
    columns = dict(zip(("value", "low", "high"), zip(*found.values(), strict=True), strict=True))
    if floors:
        columns |= dict(zip(("floor", "floor_low", "floor_high"), zip(*floors.values(), strict=True), strict=True))
    result = xr.Dataset(
        {name: ("measure", list(column)) for name, column in columns.items()},
        coords={
            "measure": list(found),
            "units": ("measure", units),
            "set": list(described),
            "frequency": ("frequency", frequency.numpy(), {"units": "cycles/pixel"}),
        },
    )
    for name in ("coherence", "ridge_frequency"):
        result[f"mean_{name}"] = ("set", [float(rows[name].mean()) for rows in described.values()])
    powers = torch.stack([rows["spectrum"].mean(0).log() for rows in described.values()])
    result["log_power"] = (("set", "frequency"), powers.cpu().numpy(), {"units": "nats"})
    return result

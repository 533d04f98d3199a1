r"""How far a set of images is from real ones, by measures that need no trained network, with intervals and floors.

Distances estimated from samples are never zero, and the fewer images, the larger they are, above all the Frechet
distance. So all sets are cut to one size ``n``, each measure comes with its floor, the same measure between real images
and training images at the same ``n``, and numbers compare only at the same ``n``.
"""

from functools import partial

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from circsde.metrics.comparison import Interval, Measure, bootstrap, columns, distances, positive, wasserstein
from circsde.metrics.gabor import GREY_LEVEL, Images, gabor_features, grey, scaled_frechet_distance
from circsde.metrics.texture import ROUNDING, coherence, grey_levels, nearness, radial_power, ridge_frequency

NEAR_QUANTILE = 0.05
"""This share of held-out images is called near to the training images."""

COPY = 0.5
"""An image is called a copy where the nearest training image is this much nearer than the 50 nearest on average."""


def log_power(powers: Float[Tensor, "n bins"]) -> Float[Tensor, " bins"]:
    """The logarithm of the mean power of images, plus that of rounding to 8 bits."""
    return (powers.mean(0) + ROUNDING).log()


def spectrum_distance(x: Float[Tensor, "n bins"], y: Float[Tensor, "m bins"]) -> float:
    """The mean over radial frequencies of ``|log mean power_x - log mean power_y|``, in nats.

    The logarithms are those of :func:`log_power`, of powers by :func:`circsde.metrics.texture.radial_power`.
    """
    log_x, log_y = (log_power(powers) for powers in (x, y))
    return float((log_x - log_y).abs().mean())


def grey_distance(x: Float[Tensor, "n level"], y: Float[Tensor, "m level"]) -> float:
    """The Wasserstein-1 distance of the grey values of all pixels, in units of [-1, 1].

    The arguments are shares by :func:`circsde.metrics.texture.grey_levels`.
    """
    below_x, below_y = (shares.mean(0).cumsum(0) for shares in (x, y))
    return float((below_x - below_y).abs().sum() * GREY_LEVEL)


def near_share(held_out: Float[Tensor, " n"], samples: Float[Tensor, " m"]) -> float:
    """The share of samples nearer to the training images than the 5 % quantile of held-out images; 0.05 if fresh.

    Takes what :func:`circsde.metrics.texture.nearness` returns. Samples with less contrast or detail than real images
    are nearer, too, without being copies.
    """
    return float((samples < held_out.quantile(NEAR_QUANTILE)).double().mean())


def copy_share(samples: Float[Tensor, " n"]) -> float:
    """The share of samples whose :func:`circsde.metrics.texture.nearness` to the training images is below 1/2."""
    return float((samples < COPY).double().mean())


MEASURES: dict[str, Measure] = {
    "gabor_frechet": Measure(gabor_features, scaled_frechet_distance, "1"),
    "coherence": Measure(coherence, wasserstein, "1"),
    "ridge_frequency": Measure(ridge_frequency, wasserstein, "cycles/pixel"),
    "spectrum": Measure(lambda images: radial_power(images)[1], spectrum_distance, "nats"),
    "grey": Measure(grey_levels, grey_distance, "1"),
}
"""The measures by their names."""


def compare(
    real: Images,
    samples: Images,
    *,
    train: Images | None = None,
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
        resamples: The number of resamples of the bootstrap.
        confidence: The confidence of the intervals, each for itself.
        generator: Draws which images are kept where a set is larger than another, and the resamples.

    Returns:
        ``value``, ``low``, ``high`` and, with ``train``, ``floor``, ``floor_low``, ``floor_high`` along ``measure``:
        those of :data:`MEASURES`, ``near``, see :func:`near_share`, whose floor is 0.05 by definition, and ``copies``,
        see :func:`copy_share`, whose floor is the share among ``real``.
        Attribute ``n``: images of each set. ``mean_coherence`` and ``mean_ridge_frequency`` along ``set``,
        ``log_power`` along ``set`` and ``frequency``.

    Raises:
        ValueError: If the sizes differ, or an image is not as stated.
    """
    kept = _alike({"real": real, "samples": samples} | ({} if train is None else {"train": train}), generator)
    described = {
        name: {key: measure.describe(images) for key, measure in MEASURES.items()} for name, images in kept.items()
    }

    interval = partial(bootstrap, resamples=resamples, confidence=confidence, generator=generator)

    def judged(name: str) -> dict[str, Interval]:
        return distances(MEASURES, described["real"], described[name], interval)

    found, floors = judged("samples"), {}
    units = [measure.units for measure in MEASURES.values()]
    if train is not None:
        floors = judged("train") | {"near": (NEAR_QUANTILE,) * 3}
        held_out, near = (nearness(kept[name], train) for name in ("real", "samples"))
        found["near"] = positive(interval(near_share, held_out, near))
        found["copies"], floors["copies"] = (positive(interval(copy_share, x)) for x in (near, held_out))
        units += ["1", "1"]
    return _dataset(found, floors, units, described, radial_power(kept["real"][:1])[0]).assign_attrs(
        n=len(kept["real"]), resamples=resamples, confidence=confidence
    )


def margin(
    real: Images,
    first: Images,
    second: Images,
    *,
    resamples: int = 200,
    confidence: float = 0.95,
    generator: torch.Generator,
) -> xr.Dataset:
    """How much nearer to real images the first set of samples is than the second, by every measure of a distance.

    Both are compared with the same real images, in every resample too, so that what these happen to be cancels:
    the intervals are narrower than those of two calls of :func:`compare` suggest.

    Returns:
        ``value``, ``low`` and ``high`` along ``measure``: the second set's distance less the first's. The first is
        nearer beyond the interval where ``low`` is positive.

    Raises:
        ValueError: If the sizes differ, or an image is not as stated.
    """
    kept = _alike({"real": real, "first": first, "second": second}, generator)
    found = {}
    for key, measure in MEASURES.items():

        def nearer(real: Tensor, first: Tensor, second: Tensor, measure: Measure = measure) -> float:
            return measure.distance(real, second) - measure.distance(real, first)

        rows = [measure.describe(images) for images in kept.values()]
        found[key] = bootstrap(nearer, *rows, resamples=resamples, confidence=confidence, generator=generator)
    return columns(found, ("value", "low", "high"), [measure.units for measure in MEASURES.values()]).assign_attrs(
        n=len(kept["real"]), resamples=resamples, confidence=confidence
    )


def _alike(sets: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Draw equally many grey images from each set."""
    sets = {name: grey(images) for name, images in sets.items()}
    if len({images.shape[-2:] for images in sets.values()}) > 1:
        sizes = ", ".join(f"{name} {images.shape[-2]}x{images.shape[-1]}" for name, images in sets.items())
        raise ValueError(f"images of one size are needed, got {sizes}: crop or resize them alike")
    n = min(len(images) for images in sets.values())
    if n < 2:
        raise ValueError(f"at least 2 images of each set are needed, got {n}")
    kept = {}
    for name, images in sets.items():
        rows = torch.randperm(len(images), generator=generator)[:n]
        kept[name] = images[rows.to(images.device)]
    return kept


def _dataset(
    found: dict[str, Interval],
    floors: dict[str, Interval],
    units: list[str],
    described: dict[str, dict[str, Tensor]],
    frequency: Tensor,
) -> xr.Dataset:
    result = columns(found, ("value", "low", "high"), units)
    if floors:
        result = result.assign(columns(floors, ("floor", "floor_low", "floor_high"), units).data_vars)
    result = result.assign_coords(
        set=list(described), frequency=("frequency", frequency.numpy(), {"units": "cycles/pixel"})
    )
    for name in ("coherence", "ridge_frequency"):
        result[f"mean_{name}"] = ("set", [float(rows[name].mean()) for rows in described.values()])
    powers = torch.stack([log_power(rows["spectrum"]) for rows in described.values()])
    result["log_power"] = (("set", "frequency"), powers.cpu().numpy(), {"units": "nats"})
    return result

r"""How far fingerprints are from real ones in what an expert looks at: minutiae, where ridges end or divide.

Minutiae are found by LEADER, a trained network of the package pyfing, which holds its weights: nothing is downloaded.
pyfing, Keras and OpenCV are the extra ``minutiae``. Distances take any other detector, too.
"""

import math
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from circsde.metrics.comparison import Interval, Measure, bootstrap, tabulated, wasserstein
from circsde.metrics.gabor import Images

DPI = 185.0
"""The resolution at which ridges of SOCOFing have the distance that they have in other scans at 500 dpi."""


@runtime_checkable
class Detector(Protocol):
    """What finds minutiae in a grey picture of 8 bits."""

    def __call__(self, picture: NDArray[np.uint8], /) -> Sequence[tuple[float, float, bool, float]]:
        """Column and row of each in pixels, whether the ridge divides there, and the quality, 0 to 1."""


def fingerprint_networks() -> ModuleType:
    """The package pyfing, whose networks run on PyTorch.

    Raises:
        ImportError: If it is missing.
    """
    if find_spec("pyfing") is None:
        raise ImportError(
            "minutiae and ridges are found by networks of pyfing: pip install 'circsde[minutiae]', or give other"
            " functions that find them"
        )
    os.environ.setdefault("KERAS_BACKEND", "torch")  # which Keras reads when it is first imported
    return import_module("pyfing")


def eight_bits(images: Images) -> UInt8[Tensor, "n rows columns"]:
    """Grey pictures in [-1, 1] as 8 bits.

    Raises:
        ValueError: If pictures are not grey, or not finite.
    """
    if images.ndim != 3 or not bool(images.isfinite().all()):
        raise ValueError(f"ridges are those of finite grey pictures (n, rows, columns), got {tuple(images.shape)}")
    return ((images.detach().cpu().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


def leader(dpi: float = DPI) -> Detector:
    """LEADER, a network that finds minutiae.

    Args:
        dpi: The resolution of the pictures; the network sees them enlarged to 500 dpi.

    Raises:
        ImportError: If pyfing is missing.

    Source: pyfing 0.7.3, https://pypi.org/project/pyfing.
    """
    network = fingerprint_networks().Leader()

    def detect(picture: NDArray[np.uint8]) -> list[tuple[float, float, bool, float]]:
        with torch.no_grad():  # without, its call of numpy() is refused
            found = network.run(np.ascontiguousarray(picture), dpi=dpi)
        return [(float(one.x), float(one.y), one.type == "B", float(one.quality)) for one in found]

    return detect


def minutiae(images: Images, detector: Detector) -> Float[Tensor, "n most 4"]:
    """Column, row, whether the ridge divides (1 or 0) and quality of all minutiae, filled up with NaN.

    Args:
        images: Grey pictures ``(n, rows, columns)`` in [-1, 1].
        detector: What finds them.

    Raises:
        ValueError: If pictures are not grey, or not finite.
    """
    found = [detector(picture.numpy()) for picture in eight_bits(images)]
    rows = torch.full((len(images), max(1, *map(len, found)), 4), torch.nan, dtype=torch.float64)
    for row, each in zip(rows, found, strict=True):
        row[: len(each)] = torch.tensor(each, dtype=torch.float64).reshape(-1, 4)
    return rows


def compare(
    real: Images,
    samples: Images,
    *,
    train: Images | None = None,
    detector: Detector | None = None,
    resamples: int = 200,
    confidence: float = 0.95,
    generator: torch.Generator,
) -> xr.Dataset:
    """Distances of the minutiae of real pictures and of samples, with intervals and floors.

    ``number`` is the Wasserstein distance of the numbers of minutiae in a picture; ``divisions`` the difference of the
    shares of minutiae at which a ridge divides; ``quality`` and ``spacing`` are the Wasserstein distances of their
    qualities and of the distances to the nearest other in the picture, pixels. Intervals of these three are over the
    pictures that have any minutiae. A set without one is at an infinite distance; two such sets are at none.

    Args:
        real: Grey pictures held out from training, ``(n, rows, columns)`` in [-1, 1].
        samples: Pictures to judge, of the same size.
        train: The training pictures, for the floor, at least as many as samples.
        detector: By default :func:`leader`.
        resamples: The number of resamples of the bootstrap, over pictures.
        confidence: The confidence of the intervals, each for itself.
        generator: Draws the resamples, and which training pictures are kept.

    Returns:
        As :func:`circsde.metrics.phase_fields.compare`, along the measures above.

    Raises:
        ValueError: If the sizes differ, or pictures are too few or not grey.
        ImportError: If no detector is given and pyfing is missing.
    """
    find = leader() if detector is None else detector
    return tabulated(
        MEASURES,
        real,
        samples,
        train,
        resamples=resamples,
        confidence=confidence,
        generator=generator,
        describe=lambda images: minutiae(images, find),
        interval=_interval,
    )


def _interval(distance: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor, **how: Any) -> Interval:
    """That of the bootstrap; a set without any row is infinitely far from one with some."""
    if not len(x) or not len(y):
        return (0.0 if len(x) == len(y) else math.inf,) * 3
    return bootstrap(distance, x, y, **how)


def _number(found: Tensor) -> Tensor:
    return found[..., 0].isfinite().double().sum(1)


def _divisions(found: Tensor) -> Tensor:
    return _present(found[..., 2])


def _quality(found: Tensor) -> Tensor:
    return _present(found[..., 3])


def _spacing(found: Tensor) -> Tensor:
    """The distance of each minutia to the nearest other one of its picture."""
    apart = torch.linalg.vector_norm(found[:, :, None, :2] - found[:, None, :, :2], dim=-1)
    apart = apart.nan_to_num(torch.inf) + torch.diag(torch.full(apart.shape[1:2], torch.inf, dtype=apart.dtype))
    nearest = apart.amin(2)
    return _present(torch.where(nearest.isfinite(), nearest, torch.nan))


def _present(rows: Tensor) -> Tensor:
    """The pictures that have any number."""
    return rows[rows.isfinite().any(1)]


def _pooled(distance: Callable[[Tensor, Tensor], float]) -> Callable[[Tensor, Tensor], float]:
    """A distance of the numbers of all pictures together."""
    return lambda x, y: distance(*(rows[rows.isfinite()] for rows in (x, y)))


def _difference(x: Tensor, y: Tensor) -> float:
    return float((x.mean() - y.mean()).abs())


MEASURES = {
    "number": Measure(_number, wasserstein, "1"),
    "divisions": Measure(_divisions, _pooled(_difference), "1"),
    "quality": Measure(_quality, _pooled(wasserstein), "1"),
    "spacing": Measure(_spacing, _pooled(wasserstein), "pixels"),
}
"""What :func:`compare` measures."""

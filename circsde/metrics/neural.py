r"""FID, KID and LPIPS by torchmetrics, whose networks' weights are downloaded on first use.

They need the extra ``metrics``. The measures of :mod:`circsde.metrics.images` need neither network nor download.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
import xarray as xr
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from circsde.metrics.gabor import GREY_LEVEL, Images, grey

SUBSETS = 100
"""The number of subsets of the images over which the kernel distance is averaged."""


@runtime_checkable
class Extractor(Protocol):
    """A network that sees images as Inception does."""

    def __call__(self, images: UInt8[Tensor, "n 3 rows columns"], /) -> Float[Tensor, "n features"]:
        """Features of 8-bit colour images."""


def inception_distances(
    real: Images,
    samples: Images,
    *,
    train: Images | None = None,
    extractor: Extractor | None = None,
    subset_size: int | None = None,
    batch_size: int = 64,
    generator: torch.Generator,
) -> xr.Dataset:
    """The Frechet and the kernel Inception distance of real images and samples.

    Both see images rounded to 8 bits, grey ones three times. FID is too large by what grows as images get fewer: it
    compares only at the same ``n``, and with published ones only at theirs, 50,000 mostly. KID has no such bias.

    Args:
        real: Images held out from training, grey or colour, values in [-1, 1].
        samples: Images to judge.
        train: The training images, for the floor at the same ``n``.
        extractor: A network in place of Inception v3 with the weights of the original FID, whose last 2048 averages are
            the features.
        subset_size: Images in each of the :data:`SUBSETS` subsets of the kernel distance; half of ``n`` by default, at
            most 1000.
        batch_size: Images that go through the network at once.
        generator: Draws which images are kept where a set is larger than another, and the subsets.

    Returns:
        ``value`` along ``measure``, ``fid`` and ``kid``, with ``spread``, the standard deviation of ``kid`` over the
        subsets, and with ``train`` also ``floor`` and ``floor_spread``. Attributes ``n`` and ``subset_size``.

    Raises:
        ImportError: If the packages of the extra ``metrics`` are missing or do not fit the installed torch.
        RuntimeError: If the weights cannot be downloaded; with what to do.
        ValueError: If the images are not as stated, or are fewer than a subset.

    Source: Heusel et al. 2017, arXiv:1706.08500; Binkowski et al. 2018, arXiv:1801.01401.
    """
    sets = {"real": real, "samples": samples} | ({} if train is None else {"train": train})
    n = min(len(images) for images in sets.values())
    size = min(1000, n // 2) if subset_size is None else subset_size
    if not 2 <= size <= n:
        raise ValueError(f"the kernel distance needs subsets of 2 to {n} images, as many as each set has, got {size}")
    network = _inception() if extractor is None else extractor
    features = {}
    for name, images in sets.items():
        rows = torch.randperm(len(images), generator=generator)[:n].to(images.device)
        batches = _eight_bits(images[rows]).split(batch_size)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            features[name] = torch.cat([network(batch) for batch in batches]).double()
    columns: dict[str, tuple[str, list[float]]] = {}
    for name, (value, spread) in {"samples": ("value", "spread"), "train": ("floor", "floor_spread")}.items():
        if name in features:
            fid, kid, kid_spread = _distances(features["real"], features[name], size, generator)
            columns |= {value: ("measure", [fid, kid]), spread: ("measure", [float("nan"), kid_spread])}
    return xr.Dataset(columns, coords={"measure": ["fid", "kid"]}, attrs={"n": n, "subset_size": size})


def lpips(first: Images, second: Images, *, batch_size: int = 64) -> Float[Tensor, " n"]:
    """The learned perceptual distance of each image of the first set from its partner in the second, by AlexNet.

    Small between an image and its reconstruction; between independent samples, a measure of how they vary.

    Args:
        first: Images, grey or colour, values in [-1, 1], at least 31x31 pixels.
        second: As many of the same size.
        batch_size: Pairs that go through the network at once.

    Raises:
        ImportError: If the packages of the extra ``metrics`` are missing or do not fit the installed torch.
        RuntimeError: If the weights cannot be downloaded; with what to do.
        ValueError: If the images are not as stated.

    Source: Zhang et al. 2018, arXiv:1801.03924.
    """
    if first.shape != second.shape or min(first.shape[-2:]) < 31:
        raise ValueError(
            "LPIPS compares pairs of images of one shape and at least 31x31 pixels,"
            f" got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    first, second = _colour(first).float(), _colour(second).float()
    with explained("LPIPS"):
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        metric = LearnedPerceptualImagePatchSimilarity("alex", reduction="none").to(first.device)
    with torch.no_grad():
        for start in range(0, len(first), batch_size):
            metric.update(first[start : start + batch_size], second[start : start + batch_size])
        distances: Tensor = metric.compute()
    return distances.reshape(len(first))


@contextmanager
def explained(measure: str) -> Iterator[None]:
    """Say what to do where torchmetrics lacks a package or cannot download weights.

    Raises:
        ImportError: In place of an import that failed.
        RuntimeError: In place of a download that failed.
    """
    instead = "the measures of circsde.metrics.images need neither"
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{measure} needs torch-fidelity and torchvision ({error}): pip install 'circsde[metrics]', with"
            f" torchvision from the index that torch came from; {instead}"
        ) from error
    except OSError as error:
        raise RuntimeError(
            f"the weights for {measure} could not be downloaded ({error}): run it once on a machine with network and"
            f" copy the files of {torch.hub.get_dir()}/checkpoints to the same place here; {instead}"
        ) from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        raise ImportError(
            f"{measure} needs a torchvision that was built for the installed torch {torch.__version__} ({error}):"
            " install both from the same index; for CPUs, --index-url https://download.pytorch.org/whl/cpu"
        ) from error


class _Features(nn.Module):
    """Features in place of images, for torchmetrics."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _distances(real: Tensor, other: Tensor, size: int, generator: torch.Generator) -> tuple[float, float, float]:
    """FID, KID and its standard deviation over subsets."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    given = _Features(real.shape[1])
    fid = FrechetInceptionDistance(given).to(real.device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all", UserWarning)
        kid = KernelInceptionDistance(given, subsets=SUBSETS, subset_size=size).to(real.device)
    for metric in (fid, kid):
        metric.update(real, real=True)
        metric.update(other, real=False)
    with torch.random.fork_rng(devices=[]):  # torchmetrics draws subsets from the global generator of the CPU
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        mean, spread = kid.compute()
    return float(fid.compute()), float(mean), float(spread)


def _inception() -> Extractor:
    with explained("FID and KID"):
        from torchmetrics.image.fid import FrechetInceptionDistance

        network: Extractor = FrechetInceptionDistance(2048).inception
    return network


def _colour(images: Tensor) -> Tensor:
    """Three channels; refuses what :func:`grey` refuses."""
    shades = grey(images)
    return images if images.dim() == 4 and images.shape[1] == 3 else shades[:, None].expand(-1, 3, -1, -1)


def _eight_bits(images: Tensor) -> Tensor:
    return ((_colour(images) + 1.0) / GREY_LEVEL).round().clamp(0, 255).to(torch.uint8)

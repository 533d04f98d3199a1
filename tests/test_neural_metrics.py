"""FID, KID and LPIPS: the mathematics on a small network, and the messages where packages or weights are missing."""

from urllib.error import URLError

import numpy as np
import pytest
import scipy.linalg
import torch
import torchmetrics.image.fid
import torchmetrics.image.lpip
from torch import Tensor, nn

from circsde.metrics.neural import explained, inception_distances, lpips
from strategies import random


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, seed: int, scale: float = 0.3) -> Tensor:
    return random(count, 3, 32, 32, seed=seed, scale=scale).clamp(-1, 1).float()


def corners(pictures: Tensor) -> Tensor:
    """Eight pixels, in units of their range."""
    assert pictures.dtype == torch.uint8
    assert pictures.shape[1:] == (3, 32, 32)
    return pictures[:, 0, :2, :4].flatten(1).float() / 255


def levels(pictures: Tensor) -> np.ndarray:
    """The same features from images in [-1, 1], rounded to 8 bits."""
    return np.round((pictures[:, 0, :2, :4].flatten(1).double().numpy() + 1) * 127.5) / 255


def test_the_frechet_inception_distance_is_that_of_the_moments_of_the_features() -> None:
    real, samples = images(60, 0), images(50, 1, scale=0.2)
    result = inception_distances(real[:50], samples, extractor=corners, generator=seeded())
    x, y = levels(real[:50]), levels(samples)
    a, b = np.cov(x.T), np.cov(y.T)
    shift = np.sum((x.mean(0) - y.mean(0)) ** 2)
    expected = shift + np.trace(a + b - 2 * np.real(scipy.linalg.sqrtm(a @ b)))
    assert result.value.sel(measure="fid").item() == pytest.approx(expected, rel=1e-5)
    assert inception_distances(real, samples, extractor=corners, generator=seeded()).n == 50


def test_the_kernel_inception_distance_is_the_unbiased_discrepancy_of_the_cubic_kernel() -> None:
    real, samples = images(40, 2), (images(40, 3, scale=0.2) + 0.3).clamp(-1, 1)
    result = inception_distances(real, samples, extractor=corners, subset_size=40, generator=seeded())
    x, y = levels(real), levels(samples)

    def kernel(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.asarray((u @ v.T / 8 + 1) ** 3)

    def between(u: np.ndarray) -> float:
        return float((kernel(u, u).sum() - np.trace(kernel(u, u))) / (40 * 39))

    expected = between(x) + between(y) - 2 * float(kernel(x, y).mean())
    assert result.value.sel(measure="kid").item() == pytest.approx(expected, rel=1e-4)  # features are float32
    assert result.spread.sel(measure="kid").item() < 1e-7


def test_the_subsets_follow_their_generator_and_leave_the_global_one_alone() -> None:
    real, samples, train = images(30, 4), images(30, 5), images(30, 6)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (
        inception_distances(real, samples, train=train, extractor=corners, generator=seeded(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert first.identical(again)
    assert not first.identical(other)
    assert first.floor.sel(measure="kid") != first.value.sel(measure="kid")


def test_grey_images_pass_three_times() -> None:
    grey, colour = images(20, 7)[:, 0], images(20, 7)[:, :1].expand(-1, 3, -1, -1)
    a, b = (inception_distances(x, x.flip(0) * 0.5, extractor=corners, generator=seeded()) for x in (grey, colour))
    assert a.identical(b)


def test_subsets_larger_than_the_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="subsets of 2 to 10 images"):
        inception_distances(images(10, 8), images(12, 9), subset_size=11, extractor=corners, generator=seeded())


class Offline(nn.Module):
    """A metric whose weights lie beyond the network."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()
        raise URLError("Name or service not known")


def test_offline_the_message_says_where_weights_go_and_what_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchmetrics.image.fid, "FrechetInceptionDistance", Offline)
    monkeypatch.setattr(torchmetrics.image.lpip, "LearnedPerceptualImagePatchSimilarity", Offline)
    asks = "not be downloaded .*Name or service not known.*checkpoints.*metrics.images"
    with pytest.raises(RuntimeError, match="weights for FID and KID could " + asks):
        inception_distances(images(4, 10), images(4, 11), generator=seeded())
    with pytest.raises(RuntimeError, match="weights for LPIPS could " + asks):
        lpips(images(4, 10), images(4, 11))


def test_without_the_packages_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchmetrics.image.fid, "_TORCH_FIDELITY_AVAILABLE", False)
    monkeypatch.setattr(torchmetrics.image.lpip, "_TORCHVISION_AVAILABLE", False)
    with pytest.raises(ImportError, match=r"circsde\[metrics\]"):
        inception_distances(images(4, 10), images(4, 11), generator=seeded())
    with pytest.raises(ImportError, match=r"circsde\[metrics\]"):
        lpips(images(4, 10), images(4, 11))


def test_a_torchvision_for_another_torch_is_named_and_other_errors_pass_unchanged() -> None:
    with pytest.raises(ImportError, match="built for the installed torch"), explained("LPIPS"):
        raise RuntimeError("operator torchvision::nms does not exist")
    with pytest.raises(RuntimeError, match="^out of memory$"), explained("LPIPS"):
        raise RuntimeError("out of memory")


class MeanGap(nn.Module):
    """A stand-in for LPIPS: the mean absolute difference of each pair."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def update(self, first: Tensor, second: Tensor) -> None:
        assert first.shape[1] == 3
        self.seen.append((first - second).abs().mean((1, 2, 3)))

    def compute(self) -> Tensor:
        return torch.cat(self.seen)


def test_lpips_gives_one_distance_per_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchmetrics.image.lpip, "LearnedPerceptualImagePatchSimilarity", MeanGap)
    first, second = images(5, 12)[:, 0], images(5, 13)[:, 0]
    found = lpips(first, second, batch_size=2)
    torch.testing.assert_close(found, (first - second).abs().mean((1, 2)))
    with pytest.raises(ValueError, match="pairs"):
        lpips(first, second[:4])
    with pytest.raises(ValueError, match="31x31"):
        lpips(first[..., :20], second[..., :20])

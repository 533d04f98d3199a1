"""Orientations as phases: exact on plane waves, the same after a half turn, and drawn again as ridges."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage.feature import structure_tensor
from torch import Tensor

from circsde.data.image_reading import image_set
from circsde.data.orientation import OrientationEncoding, doubled_orientation
from circsde.data.windows import RandomWindows
from circsde.encoding import Encoding
from circsde.torus import wrap


def wave(angle: float, period: float, size: int = 64, phase: float = 0.7) -> Tensor:
    """Ridges at ``angle`` counter-clockwise from the horizontal as seen, ``(1, size, size)``, float64."""
    row, column = torch.meshgrid(*[torch.arange(size, dtype=torch.float64)] * 2, indexing="ij")
    across = -math.sin(angle) * column - math.cos(angle) * row  # the ordinate is minus the row
    return torch.cos(2 * math.pi / period * across + phase)[None]


def smooth_noise(width: float, size: int = 64, count: int = 1) -> Tensor:
    noise = np.random.default_rng(0).standard_normal((count, size, size))
    return torch.from_numpy(np.stack([ndimage.gaussian_filter(x, width) for x in noise]))


def inside(theta: Tensor, margin: int) -> Tensor:
    return theta[..., margin:-margin, margin:-margin]


@pytest.mark.parametrize("period", [4.0, 6.5, 12.0])
def test_the_orientation_of_a_plane_wave_is_exact(period: float) -> None:
    encoding = OrientationEncoding()
    for angle in torch.linspace(-math.pi, math.pi, 14).tolist():
        theta = inside(encoding.encode(wave(angle, period)), encoding.reach)
        # a Gaussian's samples alias to exp(-((2 pi - k)^2 - k^2) / 2) (2 pi - k) / k of it, and it is cut at 4 sigma
        k = 2 * math.pi / period
        alias = math.exp(-0.5 * ((2 * math.pi - k) ** 2 - k**2)) * (2 * math.pi - k) / k
        cut = math.exp(-8) * math.exp(0.5 * k**2)
        assert wrap(theta - 2 * angle).abs().max() < 4 * (alias + cut)


def test_a_plane_wave_of_another_orientation_is_told_apart() -> None:
    theta = inside(doubled_orientation(wave(0.3, 6.0)), 12)
    assert wrap(theta - 2 * 0.31).abs().min() > 0.015


def test_a_half_turn_changes_nothing_and_a_quarter_turn_all_by_pi() -> None:
    x = smooth_noise(2.0)
    theta = doubled_orientation(x)
    for quarters, expected in ((2, 0.0), (1, math.pi), (3, math.pi)):
        turned = doubled_orientation(x.rot90(quarters, (1, 2))).rot90(-quarters, (1, 2))
        assert wrap(turned - theta - expected).abs().max() < 1e-6
    mirrored = doubled_orientation(x.flip(2)).flip(2)
    assert wrap(mirrored + theta).abs().max() < 1e-6


def test_orientations_ignore_contrast_brightness_and_sign() -> None:
    x = smooth_noise(2.0)
    for y in (0.1 * x, x + 3.0, -x):
        assert wrap(doubled_orientation(y) - doubled_orientation(x)).abs().max() < 1e-6


def test_gradients_and_averages_are_those_of_scipy() -> None:
    x = smooth_noise(1.5)
    options: dict[str, Any] = {"mode": "nearest", "truncate": 4.0}
    down, right = (ndimage.gaussian_filter(x[0], 1.0, order=order, **options) for order in ((1, 0), (0, 1)))
    mixed, rows, columns = (
        ndimage.gaussian_filter(y, 2.0, **options) for y in (down * right, down * down, right * right)
    )
    # scipy normalises the derivative's samples otherwise: a common factor, which cancels
    expected = np.arctan2(2 * mixed, rows - columns)
    assert wrap(doubled_orientation(x)[0] - torch.from_numpy(expected)).abs().max() < 1e-6


def test_on_a_smooth_picture_orientations_agree_with_scikit_image() -> None:
    x = smooth_noise(5.0, 128)
    rows, mixed, columns = structure_tensor(  # type: ignore[no-untyped-call]
        x[0].numpy(), sigma=2.0, order="rc", mode="nearest"
    )
    expected = torch.from_numpy(np.arctan2(2 * mixed, rows - columns))
    difference = inside(wrap(doubled_orientation(x)[0] - expected), 12).abs()
    # Sobel's weights and ours differ by a smoothing over about one pixel, and the picture varies over 5
    assert difference.median() < 0.03
    assert inside(wrap(expected + math.pi / 2), 12).abs().median() > 0.5


def test_colours_add_up() -> None:
    x = smooth_noise(2.0)
    grey = doubled_orientation(x)
    assert wrap(doubled_orientation(x[:, None].expand(1, 3, 64, 64)) - grey).abs().max() < 1e-6
    one = torch.stack([x, torch.zeros_like(x), torch.zeros_like(x)], dim=1)
    assert wrap(doubled_orientation(one) - grey).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_a_picture_is_flat_its_phase_is_zero_and_rounding_does_not_matter(dtype: torch.dtype) -> None:
    for value in (0.3, -1.0, 0.0):
        assert doubled_orientation(torch.full((2, 50, 9), value, dtype=dtype)).abs().max() < 1e-3
    half = torch.cat([wave(0.7, 6.0).to(dtype), torch.ones(1, 64, 64, dtype=dtype)], dim=2)
    theta = inside(doubled_orientation(half), 12)
    assert theta[..., 64:].abs().max() < 1e-3
    assert wrap(theta[..., :40] - 1.4).abs().max() < 1e-3
    faint = (half + 1) / 255  # two of 256 grey levels
    assert wrap(inside(doubled_orientation(faint), 12)[..., :40] - 1.4).abs().max() < 1e-3


def test_pictures_of_a_batch_do_not_touch_each_other() -> None:
    x = smooth_noise(2.0, 32, count=3)
    for i in range(3):
        assert wrap(doubled_orientation(x)[i] - doubled_orientation(x[i : i + 1])[0]).abs().max() < 1e-9


def test_ridges_drawn_along_phases_have_them() -> None:
    encoding = OrientationEncoding()
    row, column = torch.meshgrid(*[torch.linspace(-1.5, 1.5, 64)] * 2, indexing="ij")
    theta = wrap(torch.stack([1.0 + row - column, 2.0 * torch.atan2(-row, column)]))  # the second winds twice
    drawn = encoding.decode(theta)
    assert drawn.shape == theta.shape
    assert drawn.abs().max() <= 1.0
    assert (drawn - encoding.decode(theta + 2 * math.pi)).abs().max() < 1e-2  # 1e-6 in phase, amplified by the growth
    again = inside(encoding.encode(drawn), encoding.reach)
    # 24 filters span pi in orientation, so 2 pi / 24 = 0.26 in phase
    assert wrap(again - inside(theta, encoding.reach)).abs().median() < 0.13


def test_windows_are_encoded_with_the_pixels_around_them(tmp_path: Path) -> None:
    x = wave(0.4, 6.0, 80)
    grey = ((x[0] + 1) * 127.5).round().to(torch.uint8).numpy()
    Image.fromarray(grey).save(tmp_path / "a.png")
    data, encoding = image_set(tmp_path, crop=32), OrientationEncoding()
    assert isinstance(encoding, Encoding)
    for theta in (RandomWindows(data, encoding)(8, torch.Generator().manual_seed(0)), data.phases(8, encoding)):
        assert theta.shape == (8, 32, 32)
        assert wrap(theta - 0.8).abs().max() < 0.03  # rounding to 8 bits; without the margin the border is far off
    without = encoding.encode(data.windows(8))
    assert wrap(without - 0.8).abs().max() > 0.3
    whole = RandomWindows(image_set(tmp_path), encoding)(2, torch.Generator().manual_seed(0))
    assert whole.shape == (2, 80, 80)


def test_lengths_without_sense_are_refused() -> None:
    for lengths in ((0.0, 1.0, 5.0), (1.0, -1.0, 5.0), (1.0, 1.0, 2.0)):
        with pytest.raises(ValueError, match="orientations need sigma > 0"):
            OrientationEncoding(*lengths)

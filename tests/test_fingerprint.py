"""Generated fingerprints: orientations wind around cores and deltas, ridges follow them, seeds decide everything."""

import math

import pytest
import torch
from torch import Tensor

from circsde.data.fingerprint import PATTERNS, fingerprints, grow_ridges, orientation
from circsde.torus import difference


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def winding(angle: Tensor) -> Tensor:
    """Half-turns of the orientation around each grid cell, counter-clockwise on a grid whose rows run downwards."""
    corners = [angle[1:, :-1], angle[1:, 1:], angle[:-1, 1:], angle[:-1, :-1]]
    turns = [difference(2 * b, 2 * a) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)]
    return (sum(turns, torch.zeros_like(turns[0])) / (2 * math.pi)).round()


@pytest.mark.parametrize(("pattern", "pairs"), [("arch", 0), ("loop", 1), ("whorl", 2)])
def test_orientations_wind_around_one_core_and_delta_in_a_loop_two_in_a_whorl_none_in_an_arch(
    pattern: str, pairs: int
) -> None:
    y, x = torch.meshgrid(torch.linspace(2, -2, 401) + 1e-3, torch.linspace(-2, 2, 401) + 1e-3, indexing="ij")
    for seed in range(5):
        index = winding(orientation(x, y, pattern, seeded(seed)))
        assert [int((index == sign).sum()) for sign in (1, -1)] == [pairs, pairs]


def test_ridges_run_along_their_orientation_at_their_period() -> None:
    angle = torch.full((64, 64), math.radians(30.0))
    ridges = grow_ridges(angle, 6.0, seeded())[8:-8, 8:-8]
    power = torch.fft.fft2(ridges - ridges.mean()).abs().square()
    fy, fx = torch.meshgrid(torch.fft.fftfreq(48), torch.fft.fftfreq(48), indexing="ij")
    assert (power * torch.hypot(fx, fy)).sum() / power.sum() == pytest.approx(1 / 6, rel=0.1)
    # ridges rise to the right at 30 degrees, rows run down, so the wave vector points along (sin 30, cos 30)
    across = (fx * 0.5 + fy * math.cos(math.radians(30.0))).square() / (fx**2 + fy**2).clamp(min=1e-9)
    assert (power * across).sum() / power.sum() > 0.95


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("size", [(32, 32), (40, 28)])
def test_a_fingerprint_has_dark_ridges_inside_and_white_around(pattern: str, size: tuple[int, int]) -> None:
    images = fingerprints(3, size, pattern=pattern, generator=seeded())
    assert images.shape == (3, *size)
    assert images.abs().max() <= 1.0
    centre = images[:, size[0] // 4 : -size[0] // 4, size[1] // 4 : -size[1] // 4]
    assert (centre.flatten(1).std(1) > 0.4).all()
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.mean() > centre.mean() + 0.5


def test_fingerprints_follow_their_generator() -> None:
    a, b, c = (fingerprints(2, (32, 32), generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert not torch.equal(a[0], a[1])
    assert torch.equal(fingerprints(1, (32, 32), generator=seeded(1))[0], a[0])


def test_a_ridge_period_below_the_pixel_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 pixels"):
        fingerprints(1, (32, 32), ridge_period=2.0)

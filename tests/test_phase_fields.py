"""Measures of fields of phases: brute force, circles and rays, invariances, samples of the law and of others."""

import math

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circsde.metrics.phase_fields import MEASURES, circular_correlation, compare, splay_and_bend
from circsde.metrics.singularities import singularities
from strategies import assert_agree, random, random_angles, random_waves


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(count: int, size: int = 16, seed: int = 0) -> Tensor:
    """Fields of waves of at most 2 periods across."""
    return random_waves(count, size, 2.0, seed)


def test_the_circular_correlation_is_the_mean_cosine_of_all_pairs_at_a_distance() -> None:
    theta = random_angles(2, 6, 7)
    pixels = [(i, j) for i in range(6) for j in range(7)]
    found: dict[int, list[Tensor]] = {}
    for i, j in pixels:
        for k, m in pixels:
            found.setdefault(round(math.hypot(i - k, j - m)), []).append((theta[:, i, j] - theta[:, k, m]).cos())
    expected = torch.stack([torch.stack(found[distance]).mean(0) for distance in range(4)], 1)
    assert_agree(circular_correlation(theta), expected)


@given(shift=st.floats(-10.0, 10.0), seed=st.integers(0, 2**32))
def test_measures_do_not_depend_on_a_turn_of_the_picture_nor_all_but_two_on_a_common_shift(
    shift: float, seed: int
) -> None:
    """A turned picture of ridges has turned phases, too: pi is added."""
    theta = random_angles(2, 6, 6, seed=seed)
    turned = theta.rot90(1, (1, 2)) + math.pi
    for name, measure in MEASURES.items():
        assert_agree(measure.describe(turned), measure.describe(theta), 1e-12)
        if name not in ("splay", "bend"):
            assert_agree(measure.describe(theta + shift), measure.describe(theta), 1e-12)
    splay, bend = splay_and_bend(theta)
    assert_agree(splay_and_bend(turned)[1], bend.rot90(1, (1, 2)), 1e-12)
    other_splay, other_bend = splay_and_bend(theta + math.pi)
    assert_agree(other_splay, bend, 1e-12)
    assert_agree(other_bend, splay, 1e-12)


def about_the_origin() -> tuple[Tensor, Tensor]:
    """Distances of the centres of plaquettes from it, 20 to 40 pixels, and the azimuths of the pixels."""
    y, x = torch.meshgrid(25.0 - torch.arange(10).double(), 20.0 + torch.arange(12).double(), indexing="ij")
    middle = torch.hypot(y[:-1, :-1] - 0.5, x[:-1, :-1] + 0.5)[None]
    return middle, torch.atan2(y, x)[None]


def test_circles_bend_by_their_curvature_and_rays_splay_by_it() -> None:
    """To the truncation of differences over a pixel, below (1 / r)^3 / 4."""
    r, azimuth = about_the_origin()
    bound = 0.25 / r.min().item() ** 3
    splay, bend = splay_and_bend(2.0 * azimuth + math.pi)  # lines along circles
    assert (bend - 1.0 / r).abs().max() < bound
    assert splay.max() < bound
    splay, bend = splay_and_bend(2.0 * azimuth)
    assert (splay - 1.0 / r).abs().max() < bound
    assert bend.max() < bound


def test_the_angle_of_rays_that_is_not_doubled_is_told_from_them() -> None:
    r, azimuth = about_the_origin()
    splay, _ = splay_and_bend(azimuth)
    assert (splay - 1.0 / r).abs().min() > 0.1 / r.max()


def test_straight_lines_neither_splay_nor_bend_across_the_seam() -> None:
    theta = torch.full((1, 5, 5), math.pi) - 1e-9 * random(1, 5, 5).sign()  # on both sides of the seam
    assert max(part.max().item() for part in splay_and_bend(theta)) < 1e-8


def test_each_distance_is_the_wasserstein_distance_of_one_number_a_field() -> None:
    real, samples = random_angles(40, 6, 6), smooth(30, 6)
    found = compare(real, samples, resamples=2, generator=seeded())
    expected = scipy.stats.wasserstein_distance(singularities(real)[:, 0], singularities(samples)[:, 0])
    assert found["value"].sel(measure="positive").item() == pytest.approx(expected)
    assert found["mean"].sel(measure="positive", set="real").item() == singularities(real)[:, 0].mean()
    assert (found.attrs["n"], found.attrs["n_real"]) == (30, 40)


def test_samples_of_the_law_are_at_the_floor_and_rougher_ones_beyond_it() -> None:
    """No measure of the law's own samples has an interval above that of the floor; all of rougher ones have."""
    real, train = smooth(300), smooth(200, seed=10)
    same = compare(real, smooth(200, seed=20), train=train, generator=seeded())
    assert bool((same["low"] <= same["floor_high"]).all())
    rough = compare(real, random_waves(200, 16, 3.0, seed=20), train=train, generator=seeded())
    assert bool((rough["low"] > rough["floor_high"]).all())


def test_the_floor_is_of_as_many_training_fields_as_there_are_samples() -> None:
    real, train = smooth(100), smooth(50, seed=10)
    found = compare(real, train, train=train, resamples=2, generator=seeded())
    assert found["floor"].values == pytest.approx(found["value"].values)
    with pytest.raises(ValueError, match="as many members of the training data as there are samples, 50, got 20"):
        compare(real, train, train=train[:20], generator=seeded())


def test_fields_of_two_sizes_and_single_fields_are_refused() -> None:
    with pytest.raises(ValueError, match=r"real \(5, 16, 16\), samples \(5, 8, 8\)"):
        compare(smooth(5), smooth(5, 8), generator=seeded())
    with pytest.raises(ValueError, match="at least 2 of each kind"):
        compare(smooth(5), smooth(1), generator=seeded())

"""Measures between sets of images: known Gaussians, waves, noise and copies; bootstrap intervals cover as stated."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d
from torch import Tensor

from circsde.metrics.comparison import bootstrap
from circsde.metrics.gabor import (
    GREY_LEVEL,
    N_ORIENTATIONS,
    WAVELENGTHS,
    frechet_distance,
    gabor_bank,
    gabor_features,
    grey,
    scaled_frechet_distance,
)
from circsde.metrics.images import (
    MEASURES,
    compare,
    copy_share,
    grey_distance,
    margin,
    near_share,
    spectrum_distance,
)
from circsde.metrics.texture import coherence, gaussian_kernels, grey_levels, nearness, radial_power, ridge_frequency
from strategies import random

N_FILTERS = len(WAVELENGTHS) * N_ORIENTATIONS


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, size: int = 32, seed: int = 0, scale: float = 0.25) -> Tensor:
    """White Gaussian noise; at the default scale, 1 pixel in 16,000 is clipped."""
    return random(count, size, size, seed=seed, scale=scale).clamp(-1, 1)


def wave(frequency: float, angle: float, size: int = 32, phase: float = 0.3) -> Tensor:
    """One plane wave, cycles/pixel and rad."""
    y, x = torch.meshgrid(torch.arange(size).double(), torch.arange(size).double(), indexing="ij")
    return torch.sin(2 * math.pi * frequency * (x * math.cos(angle) + y * math.sin(angle)) + phase)[None]


def with_moments(mean: Tensor, covariance: Tensor, count: int, seed: int) -> Tensor:
    """Vectors with exactly this sample mean and sample covariance."""
    x = random(count, len(mean), seed=seed)
    x = x - x.mean(0)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), x.T, upper=False)
    shaped: Tensor = (torch.linalg.cholesky(covariance) @ whitened).T
    return shaped + mean


def covariance(size: int, seed: int) -> Tensor:
    root = random(size, size, seed=seed)
    return root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)


def test_the_frechet_distance_of_gaussians_with_axes_in_common_sums_the_differences_of_standard_deviations() -> None:
    a, b = torch.tensor([4.0, 1.0, 0.25]).double(), torch.tensor([1.0, 9.0, 0.25]).double()
    mean = torch.tensor([1.0, -2.0, 0.5]).double()
    x, y = with_moments(mean, a.diag(), 50, seed=0), with_moments(0 * mean, b.diag(), 70, seed=1)
    expected = 5.25 + (2 - 1) ** 2 + (1 - 3) ** 2
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)
    turn = torch.linalg.qr(random(3, 3, seed=2)).Q
    assert frechet_distance(x @ turn + 7.0, y @ turn + 7.0) == pytest.approx(expected, rel=1e-12)


def test_the_frechet_distance_agrees_with_the_matrix_root_of_scipy() -> None:
    a, b, zero = covariance(6, seed=3), covariance(6, seed=4), torch.zeros(6, dtype=torch.float64)
    x, y = with_moments(zero, a, 40, seed=5), with_moments(zero, b, 40, seed=6)
    cross = scipy.linalg.sqrtm((a @ b).numpy())
    expected = float(a.trace() + b.trace() - 2.0 * np.trace(cross).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-8)


def test_the_frechet_distance_of_a_set_from_itself_is_zero_even_where_features_are_redundant() -> None:
    x = random(20, 3, seed=7) @ random(3, 30, seed=8)  # rank 3
    assert frechet_distance(x, x) < 1e-12 * x.var(0).sum()


def test_the_frechet_distance_of_equal_laws_is_too_large_by_what_their_size_leaves() -> None:
    """To first order in 1/n: 2 d / n of the means and d (d + 1) / (2 n) of the covariances."""
    size, count, repeats = 4, 200, 200
    found = np.array(
        [frechet_distance(*random(2, count, size, seed=seed).unbind()) for seed in range(repeats)], dtype=float
    )
    expected = size * (size + 5) / (2 * count)
    error = 3.3 * found.std() / math.sqrt(repeats)  # false alarms 1 in 1000; the next order is 1 / n of it
    assert abs(found.mean() - expected) < error + 2 * expected * size / count


def test_the_scaled_frechet_distance_does_not_depend_on_the_units_of_the_features() -> None:
    x, y = random(50, 5, seed=9), random(50, 5, seed=10) + 0.3
    units = torch.tensor([1e-3, 1.0, 20.0, 5.0, 1e4], dtype=torch.float64)
    assert scaled_frechet_distance(x * units, y * units) == pytest.approx(scaled_frechet_distance(x, y), rel=1e-9)


def test_each_filter_passes_white_noise_with_unit_energy_and_nothing_of_a_constant() -> None:
    bank = gabor_bank(48, 40)
    torch.testing.assert_close(bank.square().mean((-2, -1)), torch.ones(bank.shape[:2], dtype=torch.float64))
    assert (bank[..., 0, 0] == 0.0).all()


def test_a_plane_wave_answers_most_where_the_filter_has_its_wavelength_and_direction() -> None:
    for i, wavelength in enumerate(WAVELENGTHS):
        for j in range(N_ORIENTATIONS):
            features = gabor_features(0.5 * wave(1 / wavelength, j * math.pi / N_ORIENTATIONS))
            assert features[0, :N_FILTERS].argmax() == i * N_ORIENTATIONS + j


def test_turning_an_image_by_a_right_angle_only_exchanges_the_orientations() -> None:
    images = noise(3, size=33)  # an odd size: no frequency of 1/2, which the discrete transform has with one sign only
    pooled, turned = (
        gabor_features(x)[:, : 2 * N_FILTERS].reshape(3, 2, len(WAVELENGTHS), N_ORIENTATIONS)
        for x in (images, images.rot90(1, (1, 2)))
    )
    torch.testing.assert_close(turned, pooled.roll(N_ORIENTATIONS // 2, -1), rtol=1e-3, atol=1e-3)  # float32
    assert (turned - pooled).abs().max() > 0.1


def test_a_flat_image_has_the_energies_of_one_grey_level_and_noise_below_it_is_hardly_seen() -> None:
    flat = gabor_features(torch.full((1, 32, 32), 0.7))
    torch.testing.assert_close(flat[0, :N_FILTERS], torch.full((N_FILTERS,), 2 * math.log(GREY_LEVEL)).double())
    assert flat[0, N_FILTERS:-2].abs().max() < 1e-6
    torch.testing.assert_close(flat[0, -2:], torch.tensor([0.7, 0.0]).double(), atol=1e-6, rtol=0)
    faint = gabor_features(noise(20, scale=GREY_LEVEL / 10)).mean(0) - flat[0]
    assert faint[:N_FILTERS].max() < 2 * 0.01  # log(1 + 0.01 |z|^2), |z|^2 of mean 1, and 2 where the border mirrors


@given(st.floats(0.03, 0.4), st.floats(0.0, math.pi))
@settings(max_examples=20)
def test_a_plane_wave_has_coherence_1(frequency: float, angle: float) -> None:
    assert coherence(wave(frequency, angle)).item() == pytest.approx(1.0, abs=1e-9)


def test_the_coherence_of_white_noise_is_that_of_a_complex_gaussian_sum() -> None:
    r"""Isserlis: ``<c^2(a) c^2(b)*> = 2 k(a - b)^2`` for the gradient ``c = g_x + i g_y`` with autocovariance k.

    A sum over many windows' pixels is nearly complex Gaussian, so its modulus has mean ``sqrt(pi / 4 * variance)``.
    """
    smooth, slope = (kernel.numpy() for kernel in gaussian_kernels(1.0, 2))
    gradient = np.outer(smooth, slope) + 1j * np.outer(slope, smooth)
    autocovariance = correlate2d(gradient, gradient)  # correlate2d conjugates the second
    window = np.outer(*2 * [gaussian_kernels(2.5, 5)[0].numpy()])
    overlap = correlate2d(window, window)
    at = slice(10 - 4, 10 + 5)  # lags of -4 .. 4, beyond which gradients are independent
    variance = 2.0 * float((overlap[at, at] * np.abs(autocovariance) ** 2).sum())
    expected = math.sqrt(math.pi / 4 * variance) / float(np.sum(np.abs(gradient) ** 2))
    found = coherence(noise(300, size=64))
    # chi-square fluctuations of the energy and the sum's excess kurtosis: some per cent at about 20 independent pixels
    assert found.mean() == pytest.approx(expected, rel=0.05)
    assert 0.1 < expected < 0.35


@given(st.floats(0.08, 0.45), st.floats(0.0, math.pi))
@settings(max_examples=20)
def test_the_ridge_frequency_of_a_plane_wave_is_its_frequency(frequency: float, angle: float) -> None:
    found = ridge_frequency(wave(frequency, angle)).item()
    assert found == pytest.approx(frequency, abs=0.5 / 32)  # half the resolution of 32 pixels


def test_an_image_that_is_flat_to_within_rounding_has_neither_coherence_nor_a_ridge_frequency() -> None:
    shade = torch.full((1, 32, 32), 0.9)
    rounding = GREY_LEVEL * (torch.rand(1, 32, 32, generator=seeded()) - 0.5) * 0.99
    for images in (shade, shade + rounding):
        assert coherence(images).item() == ridge_frequency(images).item() == 0.0


def test_the_radial_power_of_white_noise_is_its_variance_at_all_frequencies() -> None:
    frequency, power = radial_power(noise(2000, scale=0.25))
    torch.testing.assert_close(frequency, torch.arange(1, 17).double() / 32)
    # at least 4 independent values per annulus and image: 1 % standard error; the mean takes from the lowest
    assert (power.mean(0)[1:] / 0.25**2 - 1.0).abs().max() < 0.04


def test_the_spectrum_distance_of_scaled_images_is_the_logarithm_of_the_scale_squared() -> None:
    _, power = radial_power(noise(10))
    _, halved = radial_power(0.5 * noise(10))
    assert spectrum_distance(power, halved) == pytest.approx(math.log(4.0), rel=1e-3)  # rounding's power is 1e-4


def test_the_grey_distance_is_the_wasserstein_distance_of_all_pixels_to_within_rounding() -> None:
    x, y = noise(5, seed=11), (0.6 * noise(4, seed=12) + 0.2).clamp(-1, 1)
    expected = scipy.stats.wasserstein_distance(x.flatten(), y.flatten())
    assert grey_distance(grey_levels(x), grey_levels(y)) == pytest.approx(expected, abs=GREY_LEVEL / 2)


def test_copies_are_told_from_fresh_samples() -> None:
    train = noise(300, seed=13)
    held_out, fresh = nearness(noise(200, seed=14), train), nearness(noise(200, seed=16), train)
    copied = nearness((train[:200] + 0.02 * noise(200, seed=15)).clamp(-1, 1), train)
    assert copy_share(copied) == near_share(held_out, copied) == 1.0
    assert copy_share(fresh) == 0.0
    # the share below an estimated 5 % quantile: standard deviation sqrt(2 * 0.05 * 0.95 / 200), at 3.3 of them
    assert near_share(held_out, fresh) < 0.05 + 3.3 * math.sqrt(2 * 0.05 * 0.95 / 200)


def test_flat_images_that_are_near_to_many_do_not_pass_for_copies() -> None:
    train = torch.cat((noise(100), torch.ones(100, 32, 32)))
    assert nearness(torch.ones(1, 32, 32), train).item() == pytest.approx(1.0)
    assert nearness(noise(1), train).item() < 0.02


def test_bootstrap_intervals_cover_the_expected_distance_at_their_size_as_often_as_stated() -> None:
    """90 % intervals for the squared distance of two means in d = 20, at n = 60: 1 plus the bias 2 d / n.

    Plain percentiles would lie too high by another 2 d / n and cover rarely. Of 100 intervals, from 80 to 97 cover with
    probability 0.997 if 90 % do.
    """
    size, count = 20, 60

    def distance(x: Tensor, y: Tensor) -> float:
        return float((x.mean(0) - y.mean(0)).square().sum())

    shift = torch.eye(size, dtype=torch.float64)[0]
    covered = 0
    for seed in range(100):
        x, y = random(2, count, size, seed=seed).unbind()
        _, low, high = bootstrap(distance, x, y + shift, resamples=100, confidence=0.9, generator=seeded(seed))
        covered += low <= 1.0 + 2 * size / count <= high
    assert 80 <= covered <= 97


def test_white_noise_differs_from_white_noise_by_as_much_as_the_floor_and_from_blurred_noise_by_more() -> None:
    """Two 95 % intervals of one distance are apart in 0.6 % of cases, so any of five in at most 3 %."""
    real, samples, train = noise(100, seed=17), noise(100, seed=18), noise(120, seed=19)
    near = compare(real, samples, train=train, resamples=40, generator=seeded())
    assert ((near.low <= near.floor_high) & (near.floor_low <= near.high)).all()
    blurred = torch.nn.functional.avg_pool2d(samples[:, None], 3, 1, 1)[:, 0]
    far = compare(real, blurred, train=train, resamples=40, generator=seeded()).drop_sel(measure=["near", "copies"])
    assert (far.low > far.floor_high).all()
    assert near.n == 100
    assert list(near.measure.values) == [*MEASURES, "near", "copies"]


def test_the_larger_sets_are_cut_to_the_size_of_the_smallest_and_a_seed_decides_everything() -> None:
    real, samples = noise(40, seed=20), noise(30, seed=21)
    first, again = (compare(real, samples, resamples=10, generator=seeded()) for _ in range(2))
    assert first.identical(again)
    assert first.n == 30
    assert "floor" not in first
    assert not first.identical(compare(real, samples, resamples=10, generator=seeded(1)))


def test_the_margin_is_the_difference_of_the_distances_positive_where_the_first_set_is_nearer() -> None:
    real, first, second = noise(40, seed=22), noise(40, seed=23), (1.2 * noise(40, seed=24)).clamp(-1, 1)
    found = margin(real, first, second, resamples=20, generator=seeded())
    for key, measure in MEASURES.items():
        near, far = (measure.distance(measure.describe(real), measure.describe(x)) for x in (first, second))
        assert found.value.sel(measure=key).item() == pytest.approx(far - near, abs=1e-6)  # float32 features
    assert found.low.sel(measure="spectrum") > 0.0
    assert margin(real, second, first, resamples=20, generator=seeded()).high.sel(measure="spectrum") < 0.0


def test_colour_counts_as_the_average_of_its_channels() -> None:
    colour = (0.3 * random(4, 3, 32, 32, seed=25)).clamp(-1, 1)
    torch.testing.assert_close(gabor_features(colour), gabor_features(colour.mean(1)))
    torch.testing.assert_close(coherence(colour), coherence(colour.mean(1)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 2, 32, 32), r"shape \(n, rows, columns\)"),
        (torch.zeros(2, 15, 32), "at least 16x16"),
        (torch.full((2, 32, 32), 1.5), "clamp"),
        (torch.full((2, 32, 32), math.nan), "not finite"),
        (torch.zeros(0, 32, 32), "0 images"),
    ],
)
def test_images_of_a_wrong_shape_or_range_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grey(images)


def test_sets_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="real 32x32, samples 24x24"):
        compare(noise(4), noise(4, size=24), generator=seeded())
    with pytest.raises(ValueError, match="at least 2 images"):
        compare(noise(4), noise(1), generator=seeded())
    with pytest.raises(ValueError, match="at least 2 training images"):
        nearness(noise(4), noise(1))
    with pytest.raises(ValueError, match="at least 2 members"):
        frechet_distance(random(1, 3), random(5, 3))

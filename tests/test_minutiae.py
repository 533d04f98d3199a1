"""Distances of minutiae on pictures whose minutiae are planted, and LEADER where pyfing is installed."""

import math
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from circsde.data import fingerprints
from circsde.metrics import ridges
from circsde.metrics.minutiae import compare, leader, minutiae
from circsde.metrics.ridges import leader_features, ridge_periods


def spots(picture: NDArray[np.uint8]) -> list[tuple[float, float, bool, float]]:
    """A detector for the tests: white pixels are divisions, light grey ones are ends; grey says the quality."""
    return [
        (float(x), float(y), bool(picture[y, x] == 255), float(picture[y, x]) / 255)
        for y, x in np.argwhere(picture > 150)
    ]


def planted(count: int, at: list[tuple[int, int, float]]) -> Tensor:
    """Black pictures with the same spots: row, column, brightness in [-1, 1]."""
    pictures = torch.full((count, 16, 16), -1.0)
    for row, column, value in at:
        pictures[:, row, column] = value
    return pictures


def measured(real: Tensor, samples: Tensor) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    found = compare(real, samples, detector=spots, resamples=5, generator=generator)
    return {str(name): float(found["value"].sel(measure=name)) for name in found["measure"].values}


# not importorskip: importing Keras fails where no backend is named, which leader() does
needs_pyfing = pytest.mark.skipif(find_spec("pyfing") is None, reason="needs pyfing, of the extra minutiae")

TWO = [(3, 4, 1.0), (3, 9, 0.5)]


def test_the_same_minutiae_are_at_no_distance_and_others_at_the_distance_by_hand() -> None:
    real = planted(6, TWO)
    assert set(measured(real, real).values()) == {0.0}
    other = measured(real, planted(6, [(3, 4, 1.0), (3, 12, 1.0), (11, 4, 1.0)]))
    assert other["number"] == 1.0
    assert other["divisions"] == 0.5
    assert other["quality"] == pytest.approx(0.5 * (255 - 191) / 255)
    assert other["spacing"] == pytest.approx(3.0)  # 8 in place of 5, from each


def test_floor_and_means() -> None:
    real, train = planted(8, TWO), planted(9, TWO)
    generator = torch.Generator().manual_seed(0)
    found = compare(real, planted(4, TWO[:1]), train=train, detector=spots, resamples=5, generator=generator)
    assert found.attrs["n"] == 4
    assert set(found["floor"].values) == {0.0}
    assert found["mean"].sel(measure="number").values.tolist() == [2.0, 1.0, 2.0]
    assert found["mean"].sel(measure="spacing", set="real") == 5.0
    assert math.isnan(found["mean"].sel(measure="spacing", set="samples"))  # a minutia alone has no neighbour


def test_no_minutiae_at_all_do_not_pass_for_good_ones() -> None:
    nothing = measured(planted(6, TWO), planted(6, []))
    assert nothing["number"] == 2.0
    assert {nothing[name] for name in ("divisions", "quality", "spacing")} == {math.inf}
    assert set(measured(planted(6, []), planted(6, [])).values()) == {0.0}


def test_colour_and_infinite_pictures_are_refused() -> None:
    for pictures in (torch.zeros(2, 3, 8, 8), torch.full((2, 8, 8), math.nan)):
        with pytest.raises(ValueError, match="finite grey pictures"):
            minutiae(pictures, spots)


def test_without_pyfing_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circsde.metrics.minutiae.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'circsde\[minutiae\]'"):
        leader()


@pytest.mark.parametrize("describe", [leader_features, ridge_periods])
def test_ridges_without_pyfing_say_so_as_well(monkeypatch: pytest.MonkeyPatch, describe: Callable[[], object]) -> None:
    monkeypatch.setattr("circsde.metrics.minutiae.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'circsde\[minutiae\]'"):
        describe()


def test_distances_of_features_and_periods_are_those_of_their_laws() -> None:
    """One feature whose means are 1 apart and whose standard deviations are 1 in the unit of the real ones."""
    grey = torch.tensor([-0.5, 0.0, 0.5, 1.0])
    real, samples = grey[:2, None, None].expand(2, 4, 4), grey[2:, None, None].expand(2, 4, 4)
    found = ridges.compare(
        real,
        samples,
        train=real,
        features=lambda pictures: pictures.mean((1, 2))[:, None],
        periods=lambda pictures: 3.0 + pictures.mean((1, 2)),
        resamples=5,
        generator=torch.Generator().manual_seed(0),
    )
    assert found["value"].sel(measure="features").item() == pytest.approx(1.0 / 0.125)  # in units of the variance
    assert found["value"].sel(measure="period").item() == pytest.approx(1.0)
    assert found["floor"].values.tolist() == [0.0, 0.0]
    assert found["units"].values.tolist() == ["1", "pixels"]


@needs_pyfing
def test_ridges_of_waves_have_their_period_and_features_tell_prints_from_blurred_ones() -> None:
    row, column = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    waves = torch.stack([0.8 * torch.sin(math.tau * (0.8 * column + 0.6 * row) / T) for T in (3.0, 4.0, 5.0, 6.0)])
    expected = torch.tensor([3.0, 4.0, 5.0, 6.0], dtype=torch.float64)
    torch.testing.assert_close(ridge_periods()(waves), expected, rtol=0.06, atol=0.0)
    features = leader_features()
    prints = fingerprints(96, (32, 32), ridge_period=3.5, generator=torch.Generator().manual_seed(0))
    real, alike, blurred = prints[:48], prints[48:], torch.nn.functional.avg_pool2d(prints[48:], 3, 1, 1)
    assert features(real).shape == (48, 128)
    generator = torch.Generator().manual_seed(0)
    found = ridges.compare(real, blurred, train=alike, features=features, resamples=5, generator=generator)
    value, floor = (float(found[name].sel(measure="features")) for name in ("value", "floor"))
    assert value > 5.0 * floor > 0.0


@needs_pyfing
def test_leader_finds_minutiae_in_prints_and_none_in_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    prints = fingerprints(3, (96, 96), ridge_period=9.0, generator=generator)
    found = minutiae(prints, leader(dpi=500.0))
    assert bool(found.isfinite().any())
    noise = 2.0 * torch.rand(3, 96, 96, generator=generator) - 1.0
    assert not bool(minutiae(noise, leader(dpi=500.0)).isfinite().any())

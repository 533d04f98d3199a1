"""Distances of minutiae on pictures whose minutiae are planted, and LEADER where pyfing is installed."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from circsde.data import fingerprints
from circsde.metrics.minutiae import compare, leader, minutiae


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


def test_leader_finds_minutiae_in_prints_and_none_in_noise() -> None:
    pytest.importorskip("pyfing", reason="pyfing finds minutiae; it is in the extra minutiae")
    generator = torch.Generator().manual_seed(0)
    prints = fingerprints(3, (96, 96), ridge_period=9.0, generator=generator)
    found = minutiae(prints, leader(dpi=500.0))
    assert bool(found.isfinite().any())
    noise = 2.0 * torch.rand(3, 96, 96, generator=generator) - 1.0
    assert not bool(minutiae(noise, leader(dpi=500.0)).isfinite().any())

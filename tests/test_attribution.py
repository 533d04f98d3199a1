"""The comparison of models that differ in one thing, on features whose Frechet distances are known."""

from pathlib import Path

import attribution
import numpy as np
import pytest
import torch
from attribution import Pictures, difference
from torch import Tensor


def normal(count: int, mean: float, seed: int) -> Tensor:
    return mean + torch.randn(count, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_difference_of_two_models_is_that_of_their_distances() -> None:
    """Means 1 and 2 away: 1 less 4, in units of the variance of the windows."""
    on, off = ({seed: normal(4000, mean, 10 * seed + int(mean)) for seed in (0, 1)} for mean in (1.0, 2.0))
    found = difference(normal(4000, 0.0, 9), on, off, resamples=50)
    value, low, high = found["difference"]
    assert value == pytest.approx(-3.0, abs=0.3)  # 3.3 standard deviations, mostly of the windows' mean: 0.06 and less
    assert low < -3.0 < high
    assert value == pytest.approx(np.mean(list(found["seeds"].values())))
    assert list(found["seeds"]) == ["0", "1"]


def test_only_seeds_that_both_have_are_compared_and_equal_pictures_do_not_differ() -> None:
    pictures = {0: normal(50, 1.0, 0), 1: normal(50, 1.0, 1)}
    found = difference(normal(50, 0.0, 2), pictures, {1: pictures[1]}, resamples=5)
    assert found["seeds"] == {"1": 0.0}
    assert found["difference"][0] == 0.0


def test_pictures_are_those_of_the_model_the_sampler_and_the_number_of_evaluations(tmp_path: Path) -> None:
    for model, grey in (("local-Wiener-0", 0), ("vp-0", 127), ("vp-Wiener-0", 255)):
        run = tmp_path / f"socofing-{model}"
        run.mkdir()
        np.savez(run / "multistep-10-3.npz", pictures=np.full((3, 32, 32), grey, np.uint8))
        np.savez(run / "multistep-100-3.npz", pictures=np.full((3, 32, 32), 50, np.uint8))
    kept = Pictures(tmp_path, "socofing")
    found = [kept.features((model, "multistep"), 10)[0] for model in ("local, Wiener", "vp", "vp, Wiener")]
    brightness = [float(features[:, -2].mean()) for features in found]
    assert brightness == sorted(brightness)
    assert brightness[0] < brightness[1] < brightness[2]
    assert kept.features(("edm", "multistep"), 10) == {}
    assert kept.features(("vp", "ancestral"), 10) == {}


def test_every_switch_compares_models_and_samplers_that_the_images_benchmark_has() -> None:
    from images import MODELS, SAMPLERS

    for switch in attribution.SWITCHES.values():
        for model, sampler in (switch.on, switch.off):
            assert model in MODELS
            assert sampler in SAMPLERS

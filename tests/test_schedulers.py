"""Schedulers of diffusers and samplers of k-diffusion among ours: their steps on our noise levels, and their orders."""

import math

import pytest
import torch
from test_ancestral import HORIZON_VARIANCE, SDE_, gaussian_score, variance

from circsde.sde import reverse
from circsde.solvers import Noise
from circsde.solvers.registry import find_method
from circsde.solvers.schedulers import DIFFUSERS, K_DIFFUSION
from circsde.studies import study
from circsde.studies.impulses import normal_law
from circsde.torus import TWO_PI

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of what they import

NAMES = [*(f"diffusers:{name}" for name in DIFFUSERS), *(f"k-diffusion:{name}" for name in K_DIFFUSION)]
FLOAT32 = 2e-5  # relative error of a variance, after some steps in single precision


def found_variance(name: str, n: int, stochasticity: float, end: float = 1.0) -> float:
    """The variance found for normal data of a third of the noise, after ``n`` equal steps to ``end``."""
    if ":" in name:
        pytest.importorskip(name.partition(":")[0].replace("-", "_"))
    data = 0.3 * HORIZON_VARIANCE
    sde = reverse(SDE_, gaussian_score(data), stochasticity)
    return normal_law(name, sde, [end * i / n for i in range(n + 1)], 1.0, data + HORIZON_VARIANCE)[1]


def order(name: str, stochasticity: float) -> float:
    """The order before the data, where the last step is like the others."""
    exact = 0.3 * HORIZON_VARIANCE + variance(0.3)
    few, many = (abs(found_variance(name, n, stochasticity, 0.7) - exact) for n in (8, 16))
    return math.log2(few / many)


@pytest.mark.parametrize(
    ("name", "other", "stochasticity"),
    [
        ("diffusers:dpmsolver++1", "ancestral", 0.0),  # both are DDIM
        ("k-diffusion:euler", "ancestral", 0.0),
        ("diffusers:sde-dpmsolver++1", "ancestral", 1.0),
        ("k-diffusion:euler_ancestral", "ancestral", 1.0),
        ("diffusers:dpmsolver++2", "k-diffusion:dpmpp_2m", 0.0),
        ("diffusers:sde-dpmsolver++2", "k-diffusion:dpmpp_2m_sde", 1.0),
    ],
)
def test_what_is_the_same_by_its_paper_is_the_same_here(name: str, other: str, stochasticity: float) -> None:
    for n in (4, 20):
        theirs, ours = found_variance(name, n, stochasticity), found_variance(other, n, stochasticity)
        assert theirs == pytest.approx(ours, rel=FLOAT32)


@pytest.mark.parametrize("name", ["diffusers:unipc2", "k-diffusion:heun", "k-diffusion:dpm_2"])
def test_before_the_data_methods_of_second_order_have_it(name: str) -> None:
    assert order(name, 0.0) > 1.5


def test_of_two_third_orders_with_noise_one_converges() -> None:
    """That of diffusers 0.42 is not even of first order, with one sign of a coefficient other than in k-diffusion."""
    assert order("k-diffusion:dpmpp_3m_sde", 1.0) > 2.0
    assert order("diffusers:sde-dpmsolver++3", 1.0) < 1.0


@pytest.mark.parametrize("name", NAMES)
def test_whole_turns_between_steps_change_nothing(name: str) -> None:
    pytest.importorskip(name.partition(":")[0].replace("-", "_"))
    sde = reverse(SDE_, lambda t, x: -torch.sin(x - 1.0) / (0.1 + variance(float(t))), float(_noisy(name)))
    noise, ends = Noise(torch.full((1, 1), 0.3, dtype=torch.float64)), []
    for turns in (0.0, 5.0):
        step, theta = find_method(name).first_step(), torch.full((1, 1), 1.4, dtype=torch.float64)
        for i in range(4):
            theta = step(sde, 0.2 * i, 0.2, theta + TWO_PI * turns, noise)
        ends.append(theta)
    assert float((ends[1] - ends[0] - 4 * 5 * TWO_PI).abs().max()) < 1e-4


def test_a_study_takes_them_as_candidates() -> None:
    """On the circle, with a drift, along the flow: without sampling."""
    pytest.importorskip("diffusers")
    table = study("probability_flow", methods=["diffusers:dpmsolver++1", "ancestral"], steps=[8])
    assert table.attrs["evidence"] == "transfer operators"
    theirs, ours = table["error"].values[:, 0].tolist()
    assert 0.0 < theirs < 1.0
    assert 0.0 < ours < 1.0


def test_what_does_not_apply_is_refused() -> None:
    with pytest.raises(ValueError, match="diffusers has no scheduler 'ddpm' for any levels; choose one of dpmsolver"):
        find_method("diffusers:ddpm")
    with pytest.raises(ValueError, match="k-diffusion has no sampler 'dpm_fast' that is known here"):
        find_method("k-diffusion:dpm_fast")
    pytest.importorskip("diffusers")
    noisy = reverse(SDE_, gaussian_score(0.1), 1.0)
    with pytest.raises(ValueError, match="has stochasticity 0, got 1: choose that, or multistep"):
        find_method("diffusers:unipc2").step(noisy, 0.0, 0.1, torch.ones(1, 1), Noise(torch.ones(1, 1)))


def _noisy(name: str) -> bool:
    package, _, sampler = name.partition(":")
    return (DIFFUSERS if package == "diffusers" else K_DIFFUSION)[sampler][-1]

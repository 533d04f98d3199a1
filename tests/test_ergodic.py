"""Averages over time: exact stationary means, the bias of the step, and paths that are too short."""

import numpy as np
import pytest
import torch
from scipy.special import ive
from torch import Tensor

from circsde.coupling import GlobalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises
from circsde.laws.gibbs import MeanFieldGibbs
from circsde.schedule import Schedule
from circsde.studies import ergodic_average
from circsde.studies.ergodic import _check


def cosine(theta: Tensor) -> Tensor:
    """The mean cosine of each sample."""
    return theta.cos().flatten(1).mean(1)


def well(horizon: float, reference: float = 2.0) -> KuramotoSDE:
    return KuramotoSDE((1,), NoCoupling(), Schedule.constant(reference=reference, diffusion=1.0, horizon=horizon))


def test_a_von_mises_mean_lies_in_its_interval_whatever_the_order_of_the_method() -> None:
    """At confidence 1 - 1e-6. What halving Euler-Maruyama's step changes is more than three times as much."""
    exact = float(ive(1, 2.0) / ive(0, 2.0))
    found = ergodic_average(well(200.0), cosine, VonMises(0.0, 2.0), n_steps=500, paths=64, confidence=1 - 1e-6)
    assert abs(found.value - exact) < found.half_width < 0.08
    assert 0.2 < found.autocorrelation_time < 1.2  # about 1/(rate of relaxation), which lies between D and K_ref
    first = ergodic_average(
        well(200.0), cosine, VonMises(0.0, 2.0), n_steps=500, paths=64, confidence=1 - 1e-6, method="euler_maruyama"
    )
    assert abs(first.value - exact) < first.half_width
    assert first.bias > 3 * found.bias


@pytest.mark.slow
def test_coupled_oscillators_have_the_mean_of_their_gibbs_law() -> None:
    schedule = Schedule.constant(coupling=1.0, reference=0.5, diffusion=0.5, horizon=300.0)
    sde, law = (
        KuramotoSDE((20,), GlobalCoupling(), schedule),
        MeanFieldGibbs(20, coupling=1.0, reference=0.5, diffusion=0.5),
    )
    found = ergodic_average(sde, cosine, VonMises(0.0, 2.0), n_steps=1500, paths=32, confidence=1 - 1e-6)
    draws = cosine(law.sample((200_000,), generator=torch.Generator().manual_seed(0)))
    error = 5 * draws.std().item() / 200_000**0.5
    assert abs(found.value - draws.mean().item()) < found.half_width + error < 0.03


def test_paths_that_have_not_settled_are_refused() -> None:
    with pytest.raises(ValueError, match="the paths are too short"):
        ergodic_average(well(2.0, 0.5), cosine, VonMises(3.0, 50.0), n_steps=400, paths=64, settling=0.0)


def test_the_check_takes_independent_batches_and_refuses_correlated_ones() -> None:
    draws = np.random.default_rng(0).normal(size=(8, 16))
    _check(draws)
    with pytest.raises(ValueError, match="a correlation of 0"):
        _check(np.cumsum(draws, 1))


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match="settling must lie in"):
        ergodic_average(well(2.0), cosine, VonMises(0.0, 1.0), n_steps=400, settling=1.0)
    with pytest.raises(ValueError, match="too few for 16 batches"):
        ergodic_average(well(2.0), cosine, VonMises(0.0, 1.0), n_steps=100)

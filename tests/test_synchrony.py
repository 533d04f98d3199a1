"""Measures of synchrony against loops, theorems about Brownian phases, and what their names promise."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circsde import plots
from circsde.coupling import GlobalCoupling, LocalCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.solvers.integrate import sdeint
from circsde.synchrony import (
    autocorrelation_time,
    chimera_index,
    local_order,
    measured,
    metastability,
    module_order_parameter,
    phase_locking_value,
    phase_slips,
)
from circsde.torus import order_parameter
from strategies import assert_agree, random_angles, seeds

MODULES = torch.tensor([0, 0, 1, 2, 1, 2, 2])


@given(seeds, st.floats(-7.0, 7.0))
def test_the_order_of_a_module_is_that_of_its_oscillators_and_does_not_turn(seed: int, angle: float) -> None:
    theta = random_angles(4, 3, 7, seed=seed)
    order = module_order_parameter(theta + angle, MODULES)
    for m in range(3):
        assert_agree(order[..., m], order_parameter(theta[..., m == MODULES], dim=2)[0], 1e-12)


def test_local_order_is_the_order_of_each_window() -> None:
    theta = random_angles(2, 3, 9)
    local = local_order(theta, LocalCoupling(1))
    for i in range(9):
        window = theta[..., [(i - 1) % 9, i, (i + 1) % 9]]
        assert_agree(local[..., i], order_parameter(window, dim=2)[0], 1e-12)
    assert_agree(local_order(theta, GlobalCoupling())[..., 0], order_parameter(theta, dim=2)[0], 1e-12)


def test_a_chimera_is_unlike_in_space_and_a_metastable_state_in_time() -> None:
    still = torch.tensor([1.0, 0.2, 0.2, 1.0]).double().expand(5, 1, 4)
    breathing = torch.linspace(0.0, 1.0, 5).double()[:, None, None].expand(5, 1, 4)
    assert metastability(still).item() == 0.0
    assert chimera_index(breathing).item() == 0.0
    assert chimera_index(still).item() == pytest.approx(0.64 / 3)  # variance of 1, 0.2, 0.2, 1
    assert metastability(breathing).item() == pytest.approx(0.15625)  # of 0, 1/4, ..., 1


def test_locking_values_are_means_over_time_pair_by_pair() -> None:
    theta = random_angles(11, 2, 4)
    values = phase_locking_value(theta)
    for i in range(4):
        for j in range(4):
            assert_agree(values[:, i, j], torch.exp(1j * (theta[..., i] - theta[..., j])).mean(0).abs(), 1e-12)


def test_unrelated_phases_have_locking_values_of_the_size_that_is_stated() -> None:
    """The modulus of a mean of n unit vectors is Rayleigh: 190 pairs of 400 samples are within 1 % (6 sigma)."""
    values = phase_locking_value(random_angles(400, 400, 20))
    pairs = values[:, torch.triu(torch.ones(20, 20), 1).bool()]
    assert pairs.mean().item() == pytest.approx(math.sqrt(math.pi / 1600), rel=0.01)


def slips(lifted: Tensor) -> int:
    """The slips of one difference, counted step by step."""
    level, count = lifted[0].item(), 0
    for now in lifted.tolist():
        while now - level >= 2 * math.pi:
            level, count = level + 2 * math.pi, count + 1
        while level - now >= 2 * math.pi:
            level, count = level - 2 * math.pi, count + 1
    return count


@given(seeds)
def test_slips_are_turns_of_differences_with_hysteresis(seed: int) -> None:
    lifted = 3.0 * torch.randn(30, 2, 3, generator=torch.Generator().manual_seed(seed % 2**31)).double().cumsum(0)
    counted = phase_slips(lifted)
    for b in range(2):
        for i, j in ((0, 1), (1, 2), (2, 0)):
            assert counted[b, i, j] == slips(lifted[:, b, i] - lifted[:, b, j])
    assert torch.equal(counted, counted.mT)


def test_a_difference_that_trembles_about_a_threshold_slips_once() -> None:
    trembling = torch.tensor([0.0, 6.2, 6.3, 6.2, 6.3, 6.2, 6.3]).double()
    assert phase_slips(torch.stack((trembling, torch.zeros(7).double()), -1)[:, None])[0, 0, 1] == 1


def test_a_wrapped_brownian_motion_forgets_in_one_over_its_diffusion() -> None:
    """1000 times of memory in each of 64 samples: within 3 % (the error of Sokal's estimate is about 1 %)."""
    sde = KuramotoSDE(1, None, Schedule.constant(0.0, 0.0, 2.0, horizon=500.0))
    ts = torch.linspace(0.0, 500.0, 5001, dtype=torch.float64)
    solution = sdeint(sde, random_angles(64, 1), ts, method="euler_maruyama", n_steps=5000, generator=0)
    assert autocorrelation_time(solution.theta, 0.1).item() == pytest.approx(0.5, rel=0.03)


def test_a_dataset_has_every_measure_with_its_unit_and_is_drawn() -> None:
    rates = Schedule.constant(1.0, 0.0, 0.1, horizon=20.0)
    sde = KuramotoSDE(7, None, rates, natural_frequency=torch.linspace(-2, 2, 7))
    solution = sdeint(sde, random_angles(2, 7), torch.linspace(0, 20, 41).double(), n_steps=400, generator=0)
    dataset = measured(solution.to_xarray(), modules=MODULES, coupling=GlobalCoupling())
    order = torch.from_numpy(dataset["order_parameter"].to_numpy())
    assert_agree(order, module_order_parameter(solution.theta, MODULES))
    assert_agree(torch.from_numpy(dataset["phase_slips"].to_numpy()), phase_slips(solution.lifted))
    assert {variable.attrs["units"] for name, variable in dataset.data_vars.items() if name != "theta"} == {"1"}
    assert dataset["phase_slips"].max() >= 3
    drawn = plots.synchronisation(dataset)
    assert [axis.get_ylabel() for axis in drawn.axes[:2]] == ["oscillator", "order parameter R"]
    with pytest.raises(ValueError, match=r"expected what circsde\.synchrony\.measured makes, got no order_parameter"):
        plots.synchronisation(solution.to_xarray())
    with pytest.raises(ValueError, match="got none of \\['winding'\\]"):
        measured(solution.to_xarray().drop_vars("winding"))


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (torch.tensor([0, 1]), r"of shape \(7,\), got shape \(2,\)"),
        (MODULES - 1, "minimum of -1"),
        (2 * MODULES, r"\[1, 3\] are empty"),
    ],
)
def test_modules_that_do_not_fit_are_refused(modules: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module_order_parameter(random_angles(1, 1, 7), modules)


@pytest.mark.parametrize(("times", "dt"), [(1, 0.1), (5, 0.0)])
def test_a_memory_of_no_times_is_refused(times: int, dt: float) -> None:
    with pytest.raises(ValueError, match="expected a positive distance in time and two times"):
        autocorrelation_time(random_angles(times, 1, 1), dt)

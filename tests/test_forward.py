"""The forward process on data agrees with its mean-field limit and with the law that it settles to."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.data import load
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.studies.forward import forward
from circsde.typing import Angles

# R of N independent oscillators scatters by at most 1 / sqrt(2 N) along its direction; attraction makes that less.
# A bound of 5 / sqrt(N) is 7 standard deviations: a false alarm once in 1e11 values.
BOUND = 5.0


def phases(count: int = 1, size: int = 64) -> Angles:
    return load("texture:brick", crop=256, size=size, count=count, generator=torch.Generator().manual_seed(0)).theta


def run(
    theta: Angles, coupling: Coupling, schedule: Schedule, n_steps: int = 40, frames: int = 8, method: str = "heun"
) -> xr.Dataset:
    sde = KuramotoSDE(theta.shape[1:], coupling, schedule)
    generator = torch.Generator().manual_seed(1)
    return forward(sde, theta, method=method, n_steps=n_steps, frames=frames, generator=generator)


@pytest.mark.parametrize("coupling", [NoCoupling(), GlobalCoupling()])
def test_the_order_parameter_follows_its_mean_field_limit(coupling: Coupling) -> None:
    theta = phases()
    dataset = run(theta, coupling, Schedule.published(100))
    error = np.abs(dataset["order_parameter"] - dataset["mean_field_order_parameter"]).max().item()
    assert 1e-6 < error < BOUND / math.sqrt(theta.numel())


def test_the_mean_field_limit_starts_as_the_sample_does() -> None:
    start = run(phases(size=16), GlobalCoupling(), Schedule.published(100)).isel(time=0)
    blurred = start["order_parameter"].item() * math.exp(-0.5 * 0.03**2)
    # phases move to the middles of 2^14 bins, by at most 2e-4 rad
    assert start["mean_field_order_parameter"].item() == pytest.approx(blurred, abs=2e-4)


def test_the_mean_field_limit_of_another_coupling_is_far_away() -> None:
    schedule = Schedule.constant(coupling=4.0, diffusion=1.0)
    coupled, free = (run(phases(), coupling, schedule) for coupling in (GlobalCoupling(), NoCoupling()))
    distance = np.abs(coupled["mean_field_order_parameter"] - free["order_parameter"])[-1].item()
    assert distance > BOUND / 64


@pytest.mark.parametrize("reference", [0.0, 3.0])
def test_the_settled_law_sits_at_the_reference_or_else_around_each_sample_s_direction(reference: float) -> None:
    theta = phases(count=2, size=48)
    dataset = run(theta, GlobalCoupling(), Schedule.constant(12.0, reference, diffusion=1.0), n_steps=80)
    last = dataset["theta"].isel(time=-1).to_numpy().astype(float)
    for law in ("terminal_density", "mean_field_density"):
        mass = dataset[law].mean().item() * 2 * math.pi
        moment = (dataset[law] * np.exp(1j * dataset["angle"])).mean().item() * 2 * math.pi
        assert mass == pytest.approx(1.0, abs=1e-9)
        assert abs(np.exp(1j * last).mean() - moment) < BOUND / math.sqrt(last.size)


@pytest.mark.parametrize(
    ("coupling", "schedule", "size"),
    [
        (LocalCoupling(2), Schedule.published(100), 8),  # not a mean field
        (GlobalCoupling(), Schedule.published(100), 5),  # 25 oscillators are few
        (GlobalCoupling(), Schedule.constant(1.0, diffusion=0.0), 8),  # no noise to smooth the law
        (GlobalCoupling(), Schedule.constant(1000.0, diffusion=1.0), 8),  # too stiff to be quick
    ],
)
def test_no_limit_is_claimed_where_it_means_nothing(coupling: Coupling, schedule: Schedule, size: int) -> None:
    dataset = run(phases(size=size), coupling, schedule, method="mobius_strang")
    assert "mean_field_order_parameter" not in dataset
    assert ("terminal_density" in dataset) == (schedule.at(1.0).diffusion > 0)


@pytest.mark.parametrize(("n_steps", "frames", "times"), [(10, 5, 6), (10, 3, 4), (3, 20, 4), (1, 1, 2)])
def test_frames_are_steps_from_the_first_to_the_last(n_steps: int, frames: int, times: int) -> None:
    time = run(phases(size=4), GlobalCoupling(), Schedule.published(100), n_steps, frames)["time"].to_numpy()
    assert len(time) == times
    assert (time[0], time[-1]) == (0.0, 1.0)
    np.testing.assert_allclose(time * n_steps, np.round(time * n_steps), atol=1e-12)

"""Each process drives data to the law that it is said to settle to, and nearly reaches it."""

import pytest
import torch

from circsde.commands.training import ProcessName, RatesName
from circsde.coupling import GlobalCoupling, LocalCoupling, NoCoupling
from circsde.exact.fokker_planck import fokker_planck, moments
from circsde.exact.fokker_planck_torus import fokker_planck_torus
from circsde.laws.distributions import WrappedNormal
from circsde.models.processes import FASTEST, SLOWEST, Family, Process, angle_process, best_objective, image_process
from circsde.models.transitions import Objective
from circsde.torus import TWO_PI


@pytest.mark.parametrize("attraction", [0.5, 2.0])
@pytest.mark.parametrize("process", [Process.DIFFUSION, Process.REFERENCE, Process.GLOBAL])
def test_the_settled_law_is_stationary_at_every_time(process: Process, attraction: float) -> None:
    """Its current ``f p - D grad p`` vanishes."""
    sde = angle_process(process, (3,), attraction)
    theta = (
        TWO_PI * torch.rand(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ).requires_grad_()
    law = sde.settled_law()
    log_density = law.log_prob(theta)
    (score,) = torch.autograd.grad(log_density.sum(), theta)
    for t in (0.0, 0.3, 1.0):
        D = sde.schedule.at(t).diffusion
        torch.testing.assert_close(sde.drift(t, theta.detach()), D * score, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("process", [Process.DIFFUSION, Process.REFERENCE])
def test_what_is_left_of_the_start_is_the_exponential_of_the_diffusion(process: Process) -> None:
    """The first moment of a sharp peak far from the reference is within e^-6 of that of the settled law."""
    sde = angle_process(process, (1,))
    law = fokker_planck(sde.schedule, WrappedNormal(3.0, 0.1), mean_field=False)
    left = abs(law.moment(1.0, 1) - moments(sde.settled_law())[1])
    assert left < 2 * torch.tensor(-0.5 * (SLOWEST + FASTEST)).exp()


@pytest.mark.slow
def test_two_coupled_oscillators_settle() -> None:
    sde = angle_process(Process.GLOBAL, (2,))
    law = fokker_planck_torus(sde.schedule, (WrappedNormal(3.0, 0.1), WrappedNormal(1.0, 0.1)))
    axis = TWO_PI * torch.arange(32, dtype=torch.float64) / 32
    theta = torch.cartesian_prod(axis, axis)
    density = sde.settled_law().log_prob(theta).exp()
    assert (law.density(1.0, theta) / density - 1).abs().max() < 0.02


def test_pure_diffusion_needs_no_path() -> None:
    assert {process for process in Process if best_objective(process) is Objective.DENOISING} == {Process.DIFFUSION}


def test_the_command_line_offers_the_processes_and_rates_there_are() -> None:
    assert [*Process, "standard"] == list(ProcessName)
    assert [*Family] == [str(name) for name in RatesName]


@pytest.mark.parametrize("process", list(Process))
@pytest.mark.parametrize("family", list(Family))
def test_images_have_the_rates_that_their_process_has(process: Process, family: Family) -> None:
    """Attraction to the reference is what settles: pure diffusion has no such rates. Local coupling has a window."""
    if process is Process.DIFFUSION and family is Family.SETTLING:
        with pytest.raises(ValueError, match="diffusion has no settling rates"):
            image_process(process, (16, 16), family, 10)
        return
    sde = image_process(process, (16, 16), family, 10, radius=3)
    last = sde.schedule.at(sde.horizon)
    assert sde.coupling == {Process.GLOBAL: GlobalCoupling(), Process.LOCAL: LocalCoupling(3)}.get(
        process, NoCoupling()
    )
    assert (last.reference > 0) == (process is not Process.DIFFUSION)


def test_the_angles_of_a_sample_have_no_neighbours() -> None:
    with pytest.raises(ValueError, match="no neighbours to listen to"):
        angle_process(Process.LOCAL, (3,))

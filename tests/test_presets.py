"""Each process drives data to the law that it is said to settle to, and nearly reaches it."""

import pytest
import torch

from circsde.exact.fokker_planck import fokker_planck, moments
from circsde.exact.fokker_planck_torus import fokker_planck_torus
from circsde.laws.distributions import WrappedNormal
from circsde.models.presets import FASTEST, SLOWEST, Process, forward_process, objective, settled
from circsde.models.transitions import Objective
from circsde.torus import TWO_PI


@pytest.mark.parametrize("attraction", [0.5, 2.0])
@pytest.mark.parametrize("process", list(Process))
def test_the_settled_law_is_stationary_at_every_time(process: Process, attraction: float) -> None:
    """Its current ``f p - D grad p`` vanishes."""
    sde = forward_process(process, (3,), attraction)
    theta = (
        TWO_PI * torch.rand(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ).requires_grad_()
    law = settled(sde)
    log_density = law.log_prob(theta)
    (score,) = torch.autograd.grad(log_density.sum(), theta)
    for t in (0.0, 0.3, 1.0):
        D = sde.schedule.at(t).diffusion
        torch.testing.assert_close(sde.drift(t, theta.detach()), D * score, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("process", [Process.DIFFUSION, Process.REFERENCE])
def test_what_is_left_of_the_start_is_the_exponential_of_the_diffusion(process: Process) -> None:
    """The first moment of a sharp peak far from the reference is within e^-6 of that of the settled law."""
    sde = forward_process(process, (1,))
    law = fokker_planck(sde.schedule, WrappedNormal(3.0, 0.1), mean_field=False)
    left = abs(law.moment(1.0, 1) - moments(settled(sde))[1])
    assert left < 2 * torch.tensor(-0.5 * (SLOWEST + FASTEST)).exp()


@pytest.mark.slow
def test_two_coupled_oscillators_settle() -> None:
    sde = forward_process(Process.GLOBAL, (2,))
    law = fokker_planck_torus(sde.schedule, (WrappedNormal(3.0, 0.1), WrappedNormal(1.0, 0.1)))
    axis = TWO_PI * torch.arange(32, dtype=torch.float64) / 32
    theta = torch.cartesian_prod(axis, axis)
    density = settled(sde).log_prob(theta).exp()
    assert (law.density(1.0, theta) / density - 1).abs().max() < 0.02


def test_pure_diffusion_needs_no_path() -> None:
    assert [objective(process) for process in Process] == [Objective.DENOISING, Objective.PATHWISE, Objective.PATHWISE]

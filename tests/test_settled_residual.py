"""A relative score begins as that of the equilibrium law, and then learns the difference."""

import math

import pytest
import torch

from circsde.coupling import GlobalCoupling, LocalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.gibbs import MeanFieldGibbs
from circsde.models.mlp import ScoreMLP
from circsde.models.settled_residual import SettledResidual
from circsde.schedule import Schedule
from circsde.velocity import probability_flow

RATES = Schedule.linear((0.2, 0.1, 0.1), (6.0, 3.0, 1.0))
THETA = 2 * math.pi * torch.rand(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def relative(sde: KuramotoSDE) -> SettledResidual:
    return SettledResidual(ScoreMLP((5,), sde.schedule.diffusion, width=8, depth=1), sde).double()


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_before_training_it_is_the_score_of_the_gibbs_law_of_the_rates_at_that_time(t: float) -> None:
    sde = KuramotoSDE((5,), GlobalCoupling(), RATES, reference_phase=0.3)
    K, K_ref, D = RATES.at(t)
    theta = THETA.clone().requires_grad_()
    (gibbs,) = torch.autograd.grad(MeanFieldGibbs(5, K, K_ref, D, 0.3).log_prob(theta).sum(), theta)
    torch.testing.assert_close(relative(sde)(t, THETA), gibbs)


@pytest.mark.parametrize("coupling", [NoCoupling(), GlobalCoupling(), LocalCoupling(1)])
def test_before_training_the_probability_flow_stands_still(
    coupling: NoCoupling | GlobalCoupling | LocalCoupling,
) -> None:
    sde = KuramotoSDE((5,), coupling, RATES)
    assert probability_flow(sde, relative(sde))(0.5, THETA).abs().max() < 1e-13
    assert probability_flow(sde, relative(sde).network)(0.5, THETA).abs().max() > 0.1


def test_what_the_network_answers_is_added() -> None:
    sde = KuramotoSDE((5,), NoCoupling(), RATES)
    score, t = relative(sde), torch.linspace(0.1, 1.0, 6, dtype=torch.float64)
    before = score(t, THETA)
    for parameter in score.parameters():
        torch.nn.init.normal_(parameter)
    torch.testing.assert_close(score(t, THETA) - before, score.network(t, THETA))
    assert (score(t, THETA) - before).abs().max() > 0.1


def test_without_drift_it_is_the_score_itself() -> None:
    sde = KuramotoSDE((5,), NoCoupling(), Schedule.constant(diffusion=1.0))
    score = relative(sde)
    torch.nn.init.normal_(score.network.get_parameter("leave.2.weight"))
    assert torch.equal(score(0.3, THETA), score.network(0.3, THETA))

"""The hollow network: who knows what, the diagonal of its Jacobian, and likelihoods by it."""

import math

import pytest
import torch
from torch import Tensor

from circsde.coupling import GlobalCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.models import checkpoint
from circsde.models.hollow import HollowMLP
from circsde.schedule import Linear, Schedule
from circsde.solvers.divergence import FlowField
from circsde.solvers.likelihood import log_prob
from circsde.typing import Time

DIFFUSION = Linear(0.1, 2.0)


def network(shape: tuple[int, ...] = (5,), trained: bool = True) -> HollowMLP:
    """A network with random weights everywhere, unless it is to be as before training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = HollowMLP(shape, DIFFUSION, width=24, depth=2, harmonics=3, smallest_noise=0.3).double().eval()
        if trained:
            for parameter in net.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
        return net.requires_grad_(False)


def angles(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 2 * math.pi * torch.rand(shape, generator=generator, dtype=torch.float64) - math.pi


def jacobian(net: HollowMLP, theta: Tensor) -> Tensor:
    """``(batch, d, d)``, by one pass back per component."""
    derivative: Tensor = torch.func.vmap(torch.func.jacrev(lambda x: net(0.3, x[None])[0]))(theta)
    return derivative.reshape(len(theta), theta[0].numel(), -1)


def test_an_angle_is_told_of_all_the_others_and_not_of_itself() -> None:
    net, theta = network(), angles(1, 5)
    clock = net.clock(net.noise(0.3).reshape(1, 1).log())
    told = torch.func.jacrev(lambda x: net._others(x, clock)[0])(theta)[:, :, 0].abs().amax(1)
    assert bool((told.diagonal() == 0.0).all())
    assert bool((told + torch.eye(5) > 0.0).all())


@pytest.mark.parametrize("shape", [(2,), (5,), (2, 3), (20,)])
def test_the_diagonal_is_that_of_the_jacobian(shape: tuple[int, ...]) -> None:
    net, theta = network(shape), angles(3, *shape)
    score, diagonal = net.with_diagonal(0.3, theta)
    full = jacobian(net, theta)
    torch.testing.assert_close(score, net(0.3, theta))
    torch.testing.assert_close(diagonal.flatten(1), full.diagonal(dim1=1, dim2=2), atol=1e-12, rtol=1e-10)
    assert full.abs().amin() > 0.0  # every component depends on every angle


def test_the_diagonal_of_a_network_with_classes_is_that_without_a_class() -> None:
    net = HollowMLP((3,), DIFFUSION, width=24, depth=1, classes=2).double().requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    theta = angles(3, 3)
    score, diagonal = net.with_diagonal(0.3, theta)
    torch.testing.assert_close(score, net(0.3, theta))
    torch.testing.assert_close(diagonal, jacobian(net, theta).diagonal(dim1=1, dim2=2), atol=1e-12, rtol=1e-10)
    assert float((score - net(0.3, theta, torch.tensor([0, 1, 0]))).abs().max()) > 1e-2


class Shifted(HollowMLP):
    """A class whose diagonal is not that of its score."""

    def with_diagonal(self, t: Time, theta: Tensor) -> tuple[Tensor, Tensor]:
        """A diagonal that is too large."""
        score, diagonal = super().with_diagonal(t, theta)
        return score, diagonal + 0.1


class Other(HollowMLP):
    """A class that gives another score beside the diagonal."""

    def with_diagonal(self, t: Time, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Half of the score."""
        score, diagonal = super().with_diagonal(t, theta)
        return 0.5 * score, diagonal


@pytest.mark.parametrize(("kind", "what"), [(Other, "score"), (Shifted, "diagonal")])
def test_a_diagonal_that_is_not_that_of_the_score_is_refused(kind: type[HollowMLP], what: str) -> None:
    sde, theta = KuramotoSDE((3,), schedule=Schedule.constant(reference=1.0, diffusion=1.0)), angles(2, 3)
    net = kind((3,), DIFFUSION, width=24, depth=1).double().requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    with pytest.raises(ValueError, match=f"the {what} by with_diagonal is .* override with_diagonal"):
        log_prob(sde, net, theta, prior=sde.terminal_law(), n_steps=4, method="rk4")


def test_one_time_for_all_is_that_time_for_each_and_whole_turns_change_nothing() -> None:
    net, theta = network(), angles(4, 5)
    each, turned = torch.full((4,), 0.3, dtype=torch.float64), theta + 2 * math.pi
    for one, other in zip(net.with_diagonal(0.3, theta), net.with_diagonal(each, turned), strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_before_training_the_score_is_zero_everywhere() -> None:
    assert network(trained=False)(0.3, angles(4, 5)).abs().max() == 0.0


@pytest.mark.parametrize("coupled", [False, True])
def test_its_likelihood_is_that_by_the_trace_of_the_whole_jacobian(coupled: bool) -> None:
    """On the same steps, so that few of them are enough."""
    rates = (1.0, 1.0, 1.0) if coupled else (0.0, 0.0, 1.0)
    sde = KuramotoSDE((5,), GlobalCoupling(), Schedule.constant(*rates))
    net, theta = network(), angles(3, 5)
    fast = log_prob(sde, net, theta, method="rk4", n_steps=4)
    plain = log_prob(sde, lambda t, x: net(t, x), theta, method="rk4", n_steps=4)
    torch.testing.assert_close(fast.value, plain.value, atol=1e-9, rtol=1e-12)
    near = log_prob(sde, Scaled(net), theta, method="rk4", n_steps=4)
    assert (near.value - plain.value).abs().max() > 1e-6  # the diagonal is what it is read from


class Scaled:
    """A network whose diagonal is wrong by less than is noticed."""

    def __init__(self, net: HollowMLP) -> None:
        self.net = net

    def __call__(self, t: Time, theta: Tensor) -> Tensor:
        score: Tensor = self.net(t, theta)
        return score

    def with_diagonal(self, t: Time, theta: Tensor) -> tuple[Tensor, Tensor]:
        score, diagonal = self.net.with_diagonal(t, theta)
        return score, 1.0001 * diagonal


def test_an_exact_divergence_evaluates_the_network_of_the_others_once() -> None:
    net, theta, calls = network((20,)), angles(4, 20), []
    net.sides[0].register_forward_hook(lambda *_: calls.append(1))
    FlowField(KuramotoSDE((20,)), net).linearise(torch.tensor(0.3, dtype=torch.float64), theta, None)
    assert len(calls) == 1


def test_a_checkpoint_makes_it_again() -> None:
    net = network()
    again = checkpoint.rebuild(checkpoint.describe(net)).double().eval()
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again(0.3, angles(4, 5)), net(0.3, angles(4, 5)))


@pytest.mark.parametrize("shape", [(1,), (25,)])
def test_a_single_angle_and_more_angles_than_units_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="2 angles or more, up to its width=24"):
        HollowMLP(shape, DIFFUSION, width=24)

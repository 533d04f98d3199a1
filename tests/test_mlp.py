"""The network for a few angles: periodic, of any shape, at one time or many, and of the right size before training."""

import math

import pytest
import torch
from torch import Tensor

from circsde.coupling import NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.matching.chain import denoising, loss
from circsde.models.mlp import ScoreMLP
from circsde.schedule import Linear, Schedule

DIFFUSION = Linear(0.1, 2.0)


def network(shape: tuple[int, ...] = (3,), trained: bool = True, dtype: torch.dtype = torch.float64) -> ScoreMLP:
    """A network with random weights in its last layer, unless it is to be as before training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ScoreMLP(shape, DIFFUSION, width=24, depth=2, harmonics=3).to(dtype)
        if trained:
            for parameter in net.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
        return net


def angles(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 2 * math.pi * torch.rand(shape, generator=generator, dtype=torch.float64) - math.pi


@pytest.mark.parametrize("turns", [1, -3, 1000])
def test_whole_turns_of_any_angle_change_nothing_but_rounding(turns: int) -> None:
    theta, net = angles(5, 3), network()
    score = net(0.5, theta)
    for i in range(3):
        turned = theta.clone()
        turned[:, i] += 2 * math.pi * turns
        assert (net(0.5, turned) - score).abs().max() < 1e-12 * abs(turns)
        turned[:, i] += 1e-3
        assert (net(0.5, turned) - score).abs().max() > 1e-5


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 2), (2, 1, 3)])
def test_the_score_has_the_shape_and_dtype_of_the_angles(shape: tuple[int, ...]) -> None:
    for dtype in (torch.float32, torch.float64):
        theta = angles(4, *shape).to(dtype)
        score = network(shape, dtype=dtype)(0.3, theta)
        assert score.shape == theta.shape
        assert score.dtype == dtype


def test_one_time_for_all_is_that_time_for_each() -> None:
    theta, net = angles(5, 3), network()
    each = net(torch.full((5,), 0.3, dtype=torch.float64), theta)
    torch.testing.assert_close(net(0.3, theta), each)
    torch.testing.assert_close(net(torch.tensor(0.3, dtype=torch.float64), theta), each)


def test_each_sample_sees_its_own_time_and_no_other_sample() -> None:
    theta, net, t = angles(5, 3), network(), torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    together = net(t, theta)
    for i in range(5):
        torch.testing.assert_close(net(t[i : i + 1], theta[i : i + 1])[0], together[i])
    assert (together - net(0.0, theta)).abs()[1:].amin() > 1e-4


@pytest.mark.parametrize("t", [0.0, 0.5])
def test_the_score_is_tangent(t: float) -> None:
    """What the network answers, (a, b), enters by its component along (-sin theta, cos theta) only."""
    theta, net = angles(4, 3), network()
    with torch.no_grad():
        before = net(t, theta)
        net.leave.get_parameter("2.weight").zero_()
        a, b = net.leave.get_parameter("2.bias").chunk(2)
        sigma = math.sqrt(0.02**2 + 2 * DIFFUSION.integral(0.0, t))
        torch.testing.assert_close(net(t, theta), math.sqrt(1 + 1 / sigma**2) * (b * theta.cos() - a * theta.sin()))
    assert before.abs().max() > 0


def test_the_score_is_smooth_in_time() -> None:
    """Second differences of its factor fall as the square of the step, also where the noise level is 1."""
    net, theta = network(), angles(1, 3)
    with torch.no_grad():
        net.clock.get_parameter("3.weight").zero_()  # leaves the factor alone to depend on time

    def curvature(steps: int) -> float:
        t = torch.linspace(0.5, 0.9, steps + 1, dtype=torch.float64)  # the noise level is 1 at 0.675
        score: Tensor = net(t, theta.expand(steps + 1, 3))
        return score.diff(n=2, dim=0).abs().max().item()

    assert 3.8 < curvature(100) / curvature(200) < 4.2


def test_before_training_the_loss_is_that_of_no_score_at_every_noise() -> None:
    sde = KuramotoSDE((3,), NoCoupling(), Schedule.linear((0.0, 0.0, 0.1), (0.0, 0.0, 2.0)))
    theta0, net = angles(4000, 3), network(trained=False)
    for t in (0.001, 0.1):
        pairs = denoising(sde, theta0, torch.full((4000,), t).double(), torch.Generator().manual_seed(0))
        assert loss(net, pairs).mean().item() == pytest.approx(1.0, abs=0.05)  # 4 standard errors, sqrt(2 / 12000) each


def test_the_noise_level_is_that_of_the_equation_above_a_floor() -> None:
    net = network()
    assert net.noise(0.0).item() == pytest.approx(0.02)
    assert net.noise(1.0).item() == pytest.approx(math.sqrt(0.0004 + 2 * DIFFUSION.integral(0.0, 1.0)))


def test_the_divergence_is_that_of_finite_differences() -> None:
    theta, net, h = angles(1, 3), network(), 1e-5

    def score(x: Tensor) -> Tensor:
        value: Tensor = net(0.3, x[None])[0]
        return value

    jacobian = torch.func.jacrev(score)(theta[0])
    for i in range(3):
        bump = h * torch.eye(3, dtype=torch.float64)[i]
        slope = (score(theta[0] + bump) - score(theta[0] - bump)) / (2 * h)
        torch.testing.assert_close(jacobian[:, i], slope, atol=1e-7, rtol=1e-6)

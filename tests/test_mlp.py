"""The network for a few angles: periodic, of any shape, at one time or many, and of the right size before training."""

import math

import pytest
import torch
from torch import Tensor

from circsde.coupling import NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.matching.chain import denoising, loss
from circsde.models import mlp
from circsde.models.forward import push
from circsde.models.mlp import ScoreMLP
from circsde.schedule import Linear, Schedule
from circsde.solvers.likelihood import log_prob
from circsde.typing import Time

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


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 2), (12,)])
def test_the_diagonal_is_that_of_the_jacobian(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "_ROWS", 24)  # two samples of twelve angles at a time
    net, theta, each = network(shape).requires_grad_(False), angles(5, *shape), torch.linspace(0.1, 0.9, 5).double()
    net.get_parameter("leave.0.bias").add_(0.5)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda t, x: net(t[None], x[None])[0], argnums=1))(each, theta)
    expected = jacobians.reshape(5, theta[0].numel(), -1).diagonal(dim1=1, dim2=2).reshape(theta.shape)
    score, diagonal = net.with_diagonal(each, theta)
    torch.testing.assert_close(score, net(each, theta), atol=1e-13, rtol=1e-13)
    torch.testing.assert_close(diagonal, expected, atol=1e-13, rtol=1e-11)
    for part, same in zip(net.with_diagonal(0.3, theta), net.with_diagonal(0.3 + 0.0 * each, theta), strict=True):
        torch.testing.assert_close(part, same, atol=1e-13, rtol=1e-13)


def test_the_diagonal_of_a_network_with_classes_is_that_without_a_class() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ScoreMLP((3,), DIFFUSION, width=16, depth=1, classes=2).double().requires_grad_(False)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    theta = angles(4, 3)
    torch.testing.assert_close(net.with_diagonal(0.3, theta)[0], net(0.3, theta), atol=1e-13, rtol=1e-13)
    assert (net(0.3, theta, torch.tensor([0, 1, 0, 1])) - net(0.3, theta)).abs().max() > 1e-2


class Half(ScoreMLP):
    """A network of a user's own, whose diagonal is not known."""

    def forward(self, t: Time, theta: Tensor, labels: Tensor | None = None) -> Tensor:
        """Half of the score."""
        return 0.5 * super().forward(t, theta, labels)


def test_a_class_with_another_score_does_not_keep_the_diagonal() -> None:
    sde, theta = KuramotoSDE((3,), NoCoupling(), Schedule.constant(diffusion=0.5)), angles(2, 3)
    net = network().requires_grad_(False)
    half = Half(**net.arguments).double().requires_grad_(False)
    half.load_state_dict(net.state_dict())
    plain = log_prob(sde, lambda t, x: 0.5 * net(t, x), theta, method="rk4", n_steps=4)
    found = log_prob(sde, half, theta, method="rk4", n_steps=4)
    torch.testing.assert_close(found.value, plain.value)


def test_a_rough_diagonal_has_the_precision_of_float32_beside_the_same_score() -> None:
    net, theta = network((6,)).requires_grad_(False), angles(100, 6)
    score, diagonal = net.with_diagonal(0.3, theta)
    same, rough = net.with_rough_diagonal(0.3, theta)
    assert torch.equal(score, same)
    assert same.dtype == rough.dtype == torch.float64
    assert 1e-9 < (rough - diagonal).abs().max() / diagonal.abs().max() < 3e-6  # 23 bits, over some ten layers


def test_the_diagonal_has_gradients_in_the_parameters() -> None:
    net, theta = network((2,)), angles(3, 2)
    parameters = tuple(net.blocks[0].parameters())
    by_hand = torch.autograd.grad(net.with_diagonal(0.3, theta)[1].sum(), parameters)
    x = theta.requires_grad_()
    ones = torch.ones(3, dtype=torch.float64)
    rows = [torch.autograd.grad(net(0.3, x)[:, i], x, ones, create_graph=True)[0][:, i].sum() for i in range(2)]
    for one, other in zip(by_hand, torch.autograd.grad(sum(rows, torch.zeros(())), parameters), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(("atol", "least", "most"), [(1e-3, 1e-9, 1e-5), (5e-5, 0.0, 1e-10)])
def test_its_likelihood_is_that_by_the_trace_of_the_whole_jacobian(atol: float, least: float, most: float) -> None:
    """To the precision of float32 from a tolerance of 1e-4 on, and to rounding below."""
    sde, net, theta = KuramotoSDE((3,), NoCoupling(), Schedule.constant(diffusion=0.02)), network(), angles(2, 3)
    net.requires_grad_(False)
    fast = log_prob(sde, net, theta, atol=atol)
    plain = log_prob(sde, lambda t, x: net(t, x), theta, atol=atol)
    assert least <= (fast.value - plain.value).abs().max() < most
    assert (plain.value - sde.settled_law().log_prob(theta).sum(1)).abs().min() > 0.01  # there is a divergence


def test_a_layer_whose_derivative_is_not_known_is_refused() -> None:
    with pytest.raises(TypeError, match="no derivative is known of the layer Tanh"):
        push(torch.nn.Tanh(), torch.zeros(1, 2), torch.zeros(1, 2, 2))

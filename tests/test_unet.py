"""The network for images of phases: periodic in each, of any size that its strides divide, differentiable both ways."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from circsde.models.checkpoint import describe, rebuild
from circsde.models.guidance import Conditioned
from circsde.models.padding import wrapped
from circsde.models.unet import PRESETS, ScoreUNet, UNet
from circsde.schedule import Linear

DIFFUSION = Linear(0.1, 2.0)
SMALL: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "attention": (4,), "heads": 2}
HEADS = pytest.mark.parametrize("head", ["tangent", "scalar", "both"])


def network(shape: tuple[int, ...] = (8, 8), dtype: torch.dtype = torch.float64, **arguments: Any) -> ScoreUNet:
    """A network with random weights everywhere, also where they are zero before training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ScoreUNet(shape, DIFFUSION, **{**SMALL, **arguments}).to(dtype)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        return net.eval()


def angles(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 2 * math.pi * torch.rand(shape, generator=generator, dtype=torch.float64) - math.pi


@HEADS
@pytest.mark.parametrize("turns", [1, -3, 1000])
def test_whole_turns_of_any_phase_change_nothing_but_rounding(head: str, turns: int) -> None:
    theta, net = angles(2, 8, 8), network(head=head)
    score, turned = net(0.5, theta), theta.clone()
    turned[:, 2:5, 3] += 2 * math.pi * turns
    assert (net(0.5, turned) - score).abs().max() < 1e-11 * abs(turns) * score.abs().max()
    turned[:, 2:5, 3] += 1e-3
    assert (net(0.5, turned) - score).abs().max() > 1e-6 * score.abs().max()


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 4), (3, 8, 12)])
def test_the_score_has_the_shape_and_dtype_of_the_phases(shape: tuple[int, ...]) -> None:
    for dtype in (torch.float32, torch.float64):
        theta = angles(2, *shape).to(dtype)
        for head in ("tangent", "scalar", "both"):
            score = network(shape, dtype, head=head)(0.3, theta)
            assert score.shape == theta.shape
            assert score.dtype == dtype


def test_the_score_is_the_orthogonal_projection_of_what_the_network_answers_onto_the_tangent_over_the_noise() -> None:
    theta, net, t = angles(2, 3, 8, 8), network((3, 8, 8)), 0.04
    position = torch.stack((theta.cos(), theta.sin()))
    sigma = math.sqrt(0.02**2 + 2 * DIFFUSION.integral(0.0, t))
    vector = net.network(position.transpose(0, 1).flatten(1, 2), torch.full((1, 1), math.log(sigma), dtype=theta.dtype))
    vector = vector.unflatten(1, (2, 3)).transpose(0, 1)
    projected = vector - (vector * position).sum(0) * position
    tangent = torch.stack((-theta.sin(), theta.cos()))
    torch.testing.assert_close(net(t, theta) * tangent, projected / sigma)


@HEADS
def test_the_score_before_training_is_zero(head: str) -> None:
    net = ScoreUNet((8, 8), DIFFUSION, head=head, **SMALL)
    assert (net(0.5, angles(2, 8, 8).float()) == 0).all()


@pytest.mark.parametrize("by", [(2, 0), (0, 4), (6, 2)])
def test_a_translation_of_a_closed_image_by_the_stride_translates_the_score(by: tuple[int, int]) -> None:
    """Cyclic convolutions, normalisation over all pixels and attention without positions commute with it."""
    theta = angles(2, 8, 8)

    def error(**arguments: Any) -> float:
        net = network(**arguments)
        before, after = net(0.3, theta), net(0.3, theta.roll(by, (1, 2)))
        return float(((after - before.roll(by, (1, 2))).abs().max() / before.abs().max()).detach())

    assert error() < 1e-11
    assert error(padding="zeros") > 1e-2


def test_one_time_for_all_is_that_time_for_each() -> None:
    theta, net = angles(3, 8, 8), network()
    each = net(torch.full((3,), 0.3, dtype=torch.float64), theta)
    torch.testing.assert_close(net(0.3, theta), each)
    torch.testing.assert_close(net(torch.tensor(0.3, dtype=torch.float64), theta), each)


def test_each_sample_sees_its_own_time_label_and_condition_and_no_other_sample() -> None:
    theta, t = angles(3, 8, 8), torch.linspace(0.1, 1.0, 3, dtype=torch.float64)
    net = network(classes=4, condition_channels=2)
    labels, condition = torch.tensor([0, 3, 1]), angles(3, 2, 8, 8)
    together = Conditioned(net, labels, condition)(t, theta)
    for i in range(3):
        j = slice(i, i + 1)
        torch.testing.assert_close(Conditioned(net, labels[j], condition[j])(t[j], theta[j])[0], together[i])
    scale = together.abs().max()
    for other in (
        net(t.flip(0), theta, labels, condition)[[0, 2]] - together[[0, 2]],
        net(t, theta, labels.flip(0), condition)[[0, 2]] - together[[0, 2]],
        net(t, theta, None, condition) - together,
        net(t, theta, labels, condition.flip(0))[[0, 2]] - together[[0, 2]],
    ):
        assert other.abs().amax((1, 2)).min() > 1e-3 * scale


def test_a_label_below_zero_is_no_label_and_one_too_large_is_refused() -> None:
    theta, net = angles(2, 8, 8), network(classes=4)
    torch.testing.assert_close(net(0.3, theta), net(0.3, theta, torch.tensor([-1, -1])))
    assert (net(0.3, theta) - net(0.3, theta, torch.tensor([3, -1])))[0].abs().max() > 1e-3
    with pytest.raises(IndexError):
        net(0.3, theta, torch.tensor([0, 5]))


def test_four_steps_of_training_reach_every_parameter() -> None:
    """One wakes the last layer, one the last layer of each block, one what these read."""
    torch.manual_seed(0)
    net = ScoreUNet((8, 8), DIFFUSION, head="both", classes=2, condition_channels=1, **SMALL)
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2)
    theta, t = angles(8, 8, 8).float(), torch.linspace(0, 1, 8)
    labels, condition = torch.arange(8) % 3 - 1, angles(8, 1, 8, 8).float()
    target = theta.roll(1, 1).sin()
    for _ in range(4):
        optimiser.zero_grad()
        (net(t, theta, labels, condition) - target).square().mean().backward()
        optimiser.step()
    dead = [
        name
        for name, parameter in net.named_parameters()
        if parameter.grad is None or (parameter.grad.reshape(len(parameter), -1) == 0).all(1).any()
    ]
    assert dead == []


@pytest.mark.parametrize("harmonics", [1, 3])
def test_so_many_harmonics_are_read(harmonics: int) -> None:
    """As powers of ``e^{i theta}``; the score is periodic whatever their number."""
    theta, net = angles(2, 8, 8), network(harmonics=harmonics)
    torch.testing.assert_close(net(0.3, theta + 2.0 * math.pi), net(0.3, theta))
    seen: list[Tensor] = []
    net.network.enter.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    net(0.3, theta)
    channels = seen[0].reshape(2, harmonics, 2, 1, 8, 8)
    for k in range(1, harmonics + 1):
        turned = torch.polar(torch.ones_like(theta), theta) ** k
        torch.testing.assert_close(channels[:, k - 1, 0, 0], turned.real)
        torch.testing.assert_close(channels[:, k - 1, 1, 0], turned.imag)


@HEADS
def test_forward_and_reverse_derivatives_are_adjoint_and_agree_with_differences(head: str) -> None:
    theta, net = angles(2, 8, 8), network(head=head)
    u, v = angles(2, 8, 8).flip(0), angles(2, 8, 8).flip(1)

    def along(direction: Tensor) -> Tensor:
        derivative: Tensor = torch.func.jvp(lambda x: net(0.3, x), (theta,), (direction,))[1]
        return derivative

    transpose = torch.func.vjp(lambda x: net(0.3, x), theta)[1]
    torch.testing.assert_close((along(u) * v).sum(), (u * transpose(v)[0]).sum())
    h = 1e-5
    difference = (net(0.3, theta + h * u) - net(0.3, theta - h * u)) / (2 * h)
    size = float(difference.detach().abs().max())
    torch.testing.assert_close(along(u), difference, rtol=1e-5, atol=1e-6 * size)
    torch.testing.assert_close(torch.func.vmap(along)(torch.stack((u, v)))[0], along(u))


@pytest.mark.parametrize("margin", [1, 2])
def test_periodic_padding_is_that_of_pytorch_with_its_derivatives(margin: int) -> None:
    x = angles(1, 1, 3, 2).requires_grad_()
    assert torch.equal(wrapped(x, margin), torch.nn.functional.pad(x, (margin,) * 4, mode="circular"))
    assert torch.autograd.gradcheck(lambda x: wrapped(x, margin), x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: wrapped(x, margin), x)


@pytest.mark.parametrize("padding", ["circular", "zeros"])
def test_channels_last_gives_the_same_score_and_gradients(padding: str) -> None:
    theta, net, t = angles(2, 3, 8, 8), network((3, 8, 8), padding=padding), torch.tensor([0.1, 0.9]).double()
    other = network((3, 8, 8), padding=padding).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    score, same = net(t, theta), other(t, theta.to(memory_format=torch.channels_last))
    torch.testing.assert_close(same, score)
    weights = [*net.parameters()]
    gradients = torch.autograd.grad(score.square().sum(), weights)
    for first, second in zip(gradients, torch.autograd.grad(same.square().sum(), [*other.parameters()]), strict=True):
        torch.testing.assert_close(second, first, rtol=1e-6, atol=1e-9 * float(first.abs().max()))


def check_bfloat16(device: str) -> None:
    """The score in bf16 autocast is that in float32 within 20 roundings of 2^-9 of its size, and not exactly."""
    theta = angles(4, 3, 16, 16).float().to(device)
    net = network((3, 16, 16), torch.float32, attention=(8,)).to(device)
    with torch.no_grad():
        score = net(0.3, theta)
        with torch.autocast(device, torch.bfloat16):
            rounded = net(0.3, theta)
    assert rounded.dtype == torch.float32
    error = float((rounded - score).square().mean().sqrt() / score.square().mean().sqrt())
    assert 2**-16 < error < 20 * 2**-9


def test_bfloat16_autocast_agrees_with_float32_within_its_rounding() -> None:
    check_bfloat16("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_bfloat16_and_channels_last_on_a_gpu_agree_with_the_cpu() -> None:
    check_bfloat16("cuda")
    theta, net = angles(2, 3, 8, 8), network((3, 8, 8))
    score = net(0.3, theta)
    on_gpu = net.to("cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(on_gpu(0.3, theta.cuda()).cpu(), score)


def test_a_network_is_rebuilt_from_its_description_and_its_weights() -> None:
    net = network((2, 8, 8), torch.float32, head="both", smallest_noise=0.05, padding="zeros", classes=3)
    again = rebuild(describe(net))
    again.load_state_dict(net.state_dict())
    theta = angles(2, 2, 8, 8).float()
    assert torch.equal(again.eval()(0.2, theta), net(0.2, theta))


@pytest.mark.parametrize(("preset", "channels", "millions"), [("tiny", 1, 0.60), ("small", 3, 4.2), ("base", 3, 35.7)])
def test_the_presets_have_the_sizes_that_are_stated(preset: str, channels: int, millions: float) -> None:
    with torch.device("meta"):
        net = ScoreUNet((channels, 32, 32), DIFFUSION, **PRESETS[preset])
    assert abs(sum(parameter.numel() for parameter in net.parameters()) / 1e6 / millions - 1) < 0.02


def test_dropout_acts_in_training_only() -> None:
    theta, net = angles(2, 8, 8), network(dropout=0.5)
    assert torch.equal(net(0.3, theta), net(0.3, theta))
    net.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(net(0.3, theta), net(0.3, theta))


def test_a_size_that_the_strides_do_not_divide_is_refused_with_one_that_fits() -> None:
    with pytest.raises(ValueError, match=r"multiples of 4, .* got 30 x 21; crop or resize to 32 x 20"):
        ScoreUNet((30, 21), DIFFUSION, width=8)
    with pytest.raises(ValueError, match=r"multiples of 2, .* got 7 x 8"):
        network()(0.5, angles(2, 7, 8))


def test_arguments_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"padding must be one of circular, zeros, got 'reflect'"):
        UNet(1, 1, padding="reflect")
    with pytest.raises(ValueError, match=r"head must be one of scalar, tangent, both, got 'cartesian'"):
        ScoreUNet((8, 8), DIFFUSION, head="cartesian")
    with pytest.raises(ValueError, match=r"event_shape must be .* got \(8,\)"):
        ScoreUNet((8,), DIFFUSION)
    with pytest.raises(ValueError, match=r"heads must divide the 16 channels"):
        network(heads=3)
    with pytest.raises(ValueError, match=r"without classes"):
        network()(0.5, angles(2, 8, 8), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"condition_channels=0, got an image of 1"):
        network()(0.5, angles(2, 8, 8), None, angles(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"condition_channels=2, got no image"):
        network(condition_channels=2)(0.5, angles(2, 8, 8))


def test_solvers_need_not_try_whether_a_network_is_periodic_unless_it_is_in_training() -> None:
    """That its answers are periodic is tested above; in training mode dropout may draw."""
    assert network().periodic
    assert Conditioned(network()).periodic
    assert not network().train().periodic

"""Checks of an equation before a solve begins: its shapes, its periodicity, the same answer when asked again."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from circsde.coupling import GlobalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.sde import SDE, reverse
from circsde.solvers import METHODS, sdeint
from circsde.typing import Time
from strategies import SINUSOIDAL, random_angles

Drift = Callable[[Time, Tensor], Tensor]


def solve(drift: Drift, amplitude: float | Tensor = 0.1, shape: tuple[int, ...] = (3, 3), **given: object) -> Tensor:
    sde = SDE(drift, lambda t: amplitude, 1.0)
    return sdeint(sde, random_angles(*shape), (0.0, 1.0), n_steps=4, generator=0, **given).theta  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "drift",
    [
        lambda t, theta: -theta,
        lambda t, theta: -t * theta,  # periodic at time 0
        lambda t, theta: theta - theta.roll(1, 1),  # periodic where all angles turn alike
        lambda t, theta: (0.5 * (theta - theta.flip(1))).sin(),  # 4 pi-periodic
        lambda t, theta: theta.sin() + 1e-3 * theta,
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_drift_that_is_not_periodic_is_refused(drift: Drift, dtype: torch.dtype) -> None:
    sde = SDE(drift, lambda t: 0.1, 1.0)
    with pytest.raises(ValueError, match="2 pi-periodic in every angle, but changes by"):
        sdeint(sde, random_angles(3, 4).to(dtype), (0.0, 1.0), n_steps=4)


@pytest.mark.parametrize(
    "drift",
    [
        lambda t, theta: torch.zeros_like(theta),
        lambda t, theta: 100.0 * (20.0 * theta).sin(),
        lambda t, theta: theta.cos().cumsum(1),
        lambda t, theta: 1e-6 * (theta - theta.roll(1, 1)).sin(),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_periodic_drifts_of_any_size_pass(drift: Drift, dtype: torch.dtype) -> None:
    sde = SDE(drift, lambda t: 0.1, 1.0)
    assert sdeint(sde, random_angles(3, 4).to(dtype), (0.0, 1.0), n_steps=4).succeeded


def test_second_order_dynamics_are_refused_as_velocities_are_no_angles() -> None:
    def pendulum(t: Time, y: Tensor) -> Tensor:  # noqa: ARG001
        return torch.stack((y[:, 1], -y[:, 0].sin()), 1)

    with pytest.raises(ValueError, match="a velocity or another real number is not an angle"):
        solve(pendulum, shape=(3, 2))


@pytest.mark.parametrize(
    ("drift", "got"),
    [
        (lambda t, theta: theta.sin().sum(), r"got \(\)"),
        (lambda t, theta: theta.sin().sum(1), r"got \(3,\)"),  # as many samples as angles: it would broadcast
        (lambda t, theta: theta.sin()[:, :1], r"got \(3, 1\)"),
        (lambda t, theta: 0.0, "got float"),
    ],
)
def test_a_drift_of_another_shape_is_refused(drift: Drift, got: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # without the tests' own check of types
    with pytest.raises(ValueError, match=r"the drift must have the shape of theta, \(3, 3\), " + got):
        solve(drift)


@pytest.mark.parametrize("amplitude", [torch.eye(3), torch.ones(3, 1), torch.ones(2)])
def test_a_diffusion_that_does_not_fit_one_sample_is_refused(amplitude: Tensor) -> None:
    with pytest.raises(ValueError, match="the diffusion must be a number or have the shape of one sample"):
        solve(lambda t, theta: -theta.sin(), amplitude)


@pytest.mark.parametrize("amplitude", [0.1, torch.tensor(0.1), torch.tensor([0.1]), torch.ones(3)])
def test_a_diffusion_for_all_angles_or_each_of_them_passes(amplitude: float | Tensor) -> None:
    assert solve(lambda t, theta: -theta.sin(), amplitude).isfinite().all()


def test_a_network_with_dropout_left_on_is_refused_and_passes_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5), nn.Linear(16, 3)).double()

    def drift(t: Time, theta: Tensor) -> Tensor:  # noqa: ARG001
        return torch.as_tensor(network(theta.sin()))

    with pytest.raises(ValueError, match="put its network into evaluation mode"):
        solve(drift)
    network.eval()
    assert solve(drift).isfinite().all()


def test_angles_that_are_no_tensor_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # without the tests' own check of types
    with pytest.raises(TypeError, match="theta0 must be a torch tensor of radians, got ndarray: convert it by"):
        sdeint(KuramotoSDE((3,)), torch.zeros(2, 3).numpy(), (0.0, 1.0), n_steps=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_steps_beyond_stability_are_warned_of_and_the_advice_is_stable(method: str) -> None:
    """Attraction 60 + 20 in steps of 1/20: explicit methods leave the state of rest that the exact solution reaches."""
    sde = KuramotoSDE((50,), GlobalCoupling(), Schedule.constant(60.0, 20.0, 0.0))
    theta0 = random_angles(1, 50)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sdeint(sde, theta0, (0.0, 1.0), n_steps=20, method=method)
    assert len(caught) == (method not in SINUSOIDAL)
    if caught:
        assert "rate times step exceeds 2, and here it reaches 4: take about 80 steps" in str(caught[0].message)
    rested = sdeint(sde, theta0, (0.0, 1.0), n_steps=80, method=method).theta[-1]
    assert rested.abs().max() < 1e-3


def test_reversed_equations_and_mild_steps_are_not_warned_of() -> None:
    """Reversed, an attraction repels: no explicit step is unstable."""
    sde = KuramotoSDE((2,), NoCoupling(), Schedule.constant(reference=30.0))
    sdeint(reverse(sde, lambda t, theta: -30.0 * theta.sin()), torch.zeros(1, 2), (0.0, 1.0), n_steps=10)
    sdeint(sde, torch.zeros(1, 2), (0.0, 1.0), n_steps=16)

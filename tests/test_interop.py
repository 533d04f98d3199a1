"""torchsde in both directions, on one and the same of its Brownian paths, and its traps stepped around."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchsde
from torch import Tensor, nn
from torchsde import BrownianInterval

from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.sde import SDE, reverse
from circsde.solvers import METHODS, sdeint
from circsde.solvers.interop import (
    DiagonalSDE,
    TorchsdePath,
    from_torchsde,
    integrate_torchsde,
    torchsde_method,
    torchsde_solver,
)
from circsde.typing import Time
from strategies import COUPLINGS, SINUSOIDAL, TORCHSDE_NAMES, assert_agree, kuramoto, random_angles

ITO = ("euler", "milstein", "srk")
EVENT = COUPLINGS["global image"][1]
SIZE = (3, math.prod(EVENT))
ENDS = torch.tensor([0.0, 1.0], dtype=torch.float64)
STEPS = 16  # a power of two, so that torchsde's times t + dt are exact


def equation(sde_type: str = "ito") -> KuramotoSDE:
    sde = kuramoto("global image")
    frozen = sde.reference_phase, sde.natural_frequency
    return KuramotoSDE(EVENT, sde.coupling, sde.schedule, *frozen, sde_type=sde_type)


def start() -> Tensor:
    return random_angles(3, *EVENT)


def motion(areas: str = "foster", dtype: torch.dtype = torch.float64) -> BrownianInterval:
    return BrownianInterval(0.0, 1.0, SIZE, dtype, entropy=1, dt=1 / STEPS, levy_area_approximation=areas)


def theirs(sde: Any, bm: BrownianInterval, method: str, steps: int = STEPS) -> Tensor:
    end: Tensor = torchsde.sdeint(sde, start().flatten(1), ENDS, bm=bm, method=method, dt=1 / steps)[-1]
    return end


def ours(bm: BrownianInterval, method: Any, steps: int = STEPS) -> Tensor:
    """The end of our loop on torchsde's path, flattened."""
    path = TorchsdePath(bm, EVENT)
    return sdeint(equation(), start(), (0.0, 1.0), n_steps=steps, method=method, brownian=path).lifted[-1].flatten(1)


class Additive:
    """The same equation as torchsde wants additive noise: its ``srk`` is then SRA1, with diagonal noise SRID2."""

    noise_type, sde_type = "additive", "ito"

    def __init__(self, sde: SDE) -> None:
        self.sde = sde

    def f(self, t: Any, y: Tensor) -> Tensor:
        return self.sde.f(t, y)

    def g_prod(self, t: Any, y: Tensor, v: Tensor) -> Tensor:
        return self.sde.g(t, y) * v


def test_our_euler_maruyama_is_torchsdes_euler_on_the_same_path() -> None:
    bm = motion()
    assert_agree(ours(bm, "euler_maruyama"), theirs(equation(), bm, "euler"))


def test_our_sra1_is_torchsdes_srk_on_the_same_path() -> None:
    bm = motion("space-time")
    assert_agree(ours(bm, "sra1"), theirs(Additive(equation()), bm, "srk"))


def test_another_path_of_the_same_law_ends_elsewhere() -> None:
    bm, other = motion(), BrownianInterval(0.0, 1.0, SIZE, torch.float64, entropy=2)
    assert (ours(bm, "euler_maruyama") - theirs(equation(), other, "euler")).abs().max() > 0.1


def test_our_sra1_and_torchsdes_other_srk_approach_each_other_on_one_path() -> None:
    """SRID2 for diagonal noise is another method: both have strong order 1.5, so that their gap falls by 2.8."""
    bm = motion("space-time")
    finest = ours(bm, "sra1", 64)
    gaps = [(theirs(equation(), bm, "srk", n) - finest).square().mean().sqrt().item() for n in (8, 16)]
    assert gaps[1] < gaps[0] / 2
    assert gaps[1] < 0.02


@pytest.mark.filterwarnings("ignore:.*is unstable where rate times step")  # one step of reversible_heun over all time
@pytest.mark.parametrize("name", TORCHSDE_NAMES)
def test_a_torchsde_method_in_our_loop_does_what_it_does_in_torchsdes(name: str) -> None:
    """Where ``reversible_heun`` carries a second state, over one step."""
    bm, sde = motion(), equation("ito" if name in ITO else "stratonovich")
    steps = 1 if name == "reversible_heun" else STEPS
    expected = theirs(Additive(sde) if name == "srk" else sde, bm, name, steps)
    assert_agree(ours(bm, torchsde_method(name), steps), expected)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.observe is None])
def test_our_method_in_torchsdes_loop_does_what_it_does_in_ours(name: str) -> None:
    """To 1e-12 in the times of the steps, over which a path moves by 1e-6."""
    bm = motion()
    inside = integrate_torchsde(equation(), start().flatten(1), ENDS, method=name, dt=1 / STEPS, bm=bm)[-1]
    torch.testing.assert_close(inside, ours(bm, name), rtol=0, atol=1e-5)
    other = motion()
    assert (
        integrate_torchsde(equation(), start().flatten(1), ENDS, method=name, dt=0.125, bm=other)[-1] - inside
    ).abs().max() > 1e-3


@pytest.mark.parametrize("n", [1, 3, 7, 49, 99, 100, 101, 333])
def test_torchsdes_loop_takes_the_asked_number_of_our_steps(n: int) -> None:
    """In one pass of 100 steps too, whatever the dtype of the state and of the times."""
    sde = Counting()
    integrate_torchsde(sde, torch.zeros(1, 2), torch.tensor([0.0, 1.0]), method="euler_maruyama", dt=1 / n)
    assert sde.calls == n


@pytest.mark.slow
def test_torchsde_itself_miscounts_its_steps() -> None:
    """What the step above avoids."""
    wrong = 0
    for n in range(97, 105):
        sde = Counting()
        torchsde.sdeint(sde, torch.zeros(1, 2), [0.0, 1.0], method="euler", dt=1 / n)
        wrong += sde.calls - 1 != n  # one call checks shapes
    assert wrong >= 2


class Counting(KuramotoSDE):
    def __init__(self) -> None:
        super().__init__((2,))
        self.calls = 0

    def drift(self, t: Time, theta: Tensor) -> Tensor:
        self.calls += 1
        return super().drift(t, theta)


def test_torchsdes_loop_makes_a_path_from_numpys_seed_if_it_gets_none() -> None:
    state = np.random.get_state()  # noqa: NPY002  # the global state is torchsde's
    try:
        ends = []
        for seed in (1, 1, 2):
            np.random.seed(seed)  # noqa: NPY002
            ends.append(integrate_torchsde(equation(), start().flatten(1), ENDS, method="sra1", dt=0.25))
    finally:
        np.random.set_state(state)  # noqa: NPY002
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


class Score(nn.Module):
    """A small periodic network."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(8, 4, dtype=torch.float64)

    def forward(self, t: Time, theta: Tensor) -> Tensor:  # noqa: ARG002
        out: Tensor = self.layer(torch.cat((theta.cos(), theta.sin()), -1))
        return out


@pytest.mark.parametrize(("sde_type", "method"), [("ito", "euler"), ("stratonovich", "midpoint")])
def test_the_adjoint_reaches_the_parameters_of_a_network_inside_a_reversed_equation(sde_type: str, method: str) -> None:
    """The gradient of backpropagation through the same 128 steps, within the adjoint's own discretisation."""
    forward = KuramotoSDE((4,), schedule=Schedule.constant(1.0, 0.5, 0.3), sde_type=sde_type)
    sde, y0 = reverse(forward, Score()), random_angles(5, 4)
    gradients = []
    for integrate in (torchsde.sdeint, torchsde.sdeint_adjoint):
        bm = BrownianInterval(0.0, 1.0, (5, 4), torch.float64, entropy=3, dt=1 / 128)
        end = integrate(sde, y0, ENDS, bm=bm, method=method, dt=1 / 128)[-1]
        sde.zero_grad()
        end.sin().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in sde.parameters() if p.grad is not None]))
    assert gradients[0].numel() == 36
    assert (gradients[0] - gradients[1]).norm() < 0.03 * gradients[0].norm()
    assert gradients[0].norm() > 0.1


class Rotor(nn.Module):
    """A torchsde SDE, additive noise of its own size for each angle, and a drift that wants the time as a tensor."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.sigma = nn.Parameter(torch.tensor([0.5, 0.0, 1.0], dtype=dtype), requires_grad=False)

    def f(self, t: Any, y: Tensor) -> Tensor:
        drift: Tensor = torch.cat((t.expand(len(y), 1), y), 1)[:, :1].cos() - y.sin()
        return drift

    def g(self, t: Any, y: Tensor) -> Tensor:
        amplitude: Tensor = torch.ones_like(y) * self.sigma * (1.0 + t)
        return amplitude


def test_a_torchsde_equation_becomes_one_of_ours() -> None:
    bm = BrownianInterval(0.0, 1.0, (2, 3), torch.float64, entropy=1, dt=1 / STEPS)
    theta0, rotor = random_angles(2, 3), Rotor()
    sde = from_torchsde(rotor, dim=3, horizon=1.0)
    path = TorchsdePath(bm, (3,))
    end = sdeint(sde, theta0, (0.0, 1.0), n_steps=STEPS, method="euler_maruyama", brownian=path).lifted[-1]
    assert_agree(end, torchsde.sdeint(rotor, theta0, ENDS, bm=bm, method="euler", dt=1 / STEPS)[-1])
    variance = torch.tensor([0.25, 0.0, 1.0], dtype=torch.float64) * 7 / 3
    assert_agree(torch.as_tensor(sde.variance(0.0, 1.0)), variance)


def test_the_parameters_of_a_torchsde_equation_are_those_of_ours() -> None:
    rotor = Rotor()
    assert [id(p) for p in from_torchsde(rotor, 3, 1.0).parameters()] == [id(rotor.sigma)]


@pytest.mark.parametrize("method", [name for name in METHODS if name not in SINUSOIDAL])
def test_a_torchsde_equation_keeps_the_dtype_of_the_angles(method: str) -> None:
    sde = from_torchsde(Rotor(torch.float32), dim=3, horizon=1.0)
    for dtype in (torch.float32, torch.float64):
        assert sdeint(sde, torch.zeros(2, 3, dtype=dtype), (0, 1), n_steps=3, method=method).theta.dtype == dtype


def test_a_torchsde_equation_whose_noise_is_not_additive_and_diagonal_is_refused() -> None:
    class Multiplicative(Rotor):
        def g(self, t: Any, y: Tensor) -> Tensor:  # noqa: ARG002
            return y.cos()

    class General(Rotor):
        noise_type = "general"

    with pytest.raises(ValueError, match=r"must not depend on the state \(additive noise\), but g\(0.*, y\) changes"):
        from_torchsde(Multiplicative(), 3, 1.0)
    with pytest.raises(ValueError, match="must have noise_type \"diagonal\", got 'general'"):
        from_torchsde(General(), 3, 1.0)
    assert isinstance(Rotor(), DiagonalSDE)


def test_an_unknown_torchsde_method_is_refused() -> None:
    with pytest.raises(ValueError, match="torchsde has no method 'rk4'; choose one of euler, milstein, srk"):
        torchsde_method("rk4")


def test_a_method_whose_output_is_not_its_state_is_refused_in_torchsdes_loop() -> None:
    with pytest.raises(ValueError, match="state of leimkuhler_matthews, which is not its output; use sdeint"):
        torchsde_solver("leimkuhler_matthews")


def test_a_path_without_space_time_areas_is_refused_by_methods_that_read_them() -> None:
    with pytest.raises(ValueError, match="sra1 reads dZ, which this Brownian path does not have"):
        ours(motion("none"), "sra1")
    with pytest.raises(ValueError, match="levy_area_approximation"):
        integrate_torchsde(equation(), start().flatten(1), ENDS, method="sra1", dt=0.25, bm=motion("none"))


def test_torchsdes_areas_are_the_integrals_that_our_methods_read() -> None:
    """DZ over the unit interval is the sum of its parts, each seen from where the path stands."""
    bm = motion("space-time")
    fine = list(TorchsdePath(bm, EVENT).increments([i / 8 for i in range(9)], levy_area=True))
    (whole,) = TorchsdePath(bm, EVENT).increments((0.0, 1.0), levy_area=True)
    W, Z = torch.zeros_like(whole.dW), torch.zeros_like(whole.dW)
    for noise in fine:
        assert noise.dZ is not None
        W, Z = W + noise.dW, Z + W / 8 + noise.dZ
    assert whole.dZ is not None
    assert_agree(W, whole.dW)
    assert_agree(Z, whole.dZ)


class Made:
    """A torchsde SDE of two given functions."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(
        self, g: Callable[[Tensor, Tensor], Tensor], f: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> None:
        self.g = g
        self.f = f or (lambda t, y: 0.0 * y)


@pytest.mark.parametrize(
    "g",
    [
        lambda t, y: (
            (0.5 * (y - y.flip(-1))).sin().abs() + 0.01
        ),  # a function of differences of phases, which no common shift changes
        lambda t, y: t * (1.0 + 0.9 * y.cos()),  # none at time 0
        lambda t, y: (t - 1.0) * y.sin(),
    ],
)
def test_noise_that_depends_on_the_state_is_found_at_random_states_and_times(
    g: Callable[[Tensor, Tensor], Tensor],
) -> None:
    with pytest.raises(ValueError, match="must not depend on the state"):
        from_torchsde(Made(g), 2, 1.0)


def test_noise_that_is_the_same_in_every_state_to_rounding_is_accepted() -> None:
    sde = from_torchsde(Made(lambda t, y: (y.sin() ** 2 + y.cos() ** 2) * (1.0 + t)), 2, 1.0)
    assert_agree(torch.as_tensor(sde.variance(0.0, 1.0)), torch.full((2,), 7.0 / 3.0, dtype=torch.float64), 1e-12)


@pytest.mark.parametrize("wrong", [lambda t, y: y[:, :1], lambda t, y: y[0], lambda t, y: y[..., None]])
def test_a_drift_or_noise_of_another_shape_is_refused(wrong: Callable[[Tensor, Tensor], Tensor]) -> None:
    for name, sde in (("f", Made(lambda t, y: torch.ones_like(y), wrong)), ("g", Made(wrong))):
        with pytest.raises(ValueError, match=rf"{name}\(t, y\) must have the shape of y"):
            from_torchsde(sde, 2, 1.0)
    late = Made(lambda t, y: torch.ones_like(y), lambda t, y: y if len(y) == 16 else wrong(t, y))
    with pytest.raises(ValueError, match=r"f\(t, y\) must have the shape of y"):
        from_torchsde(late, 2, 1.0).drift(0.0, torch.zeros(3, 2))


def test_a_path_that_ends_before_the_solution_does_is_refused() -> None:
    short = TorchsdePath(BrownianInterval(0.0, 0.5, SIZE, torch.float64, entropy=1), EVENT)
    with pytest.raises(ValueError, match="the Brownian path runs from 0 to 0.5 and was asked for 0 to 1"):
        sdeint(equation(), start(), (0.0, 1.0), n_steps=4, brownian=short)
    assert sdeint(equation(), start(), (0.0, 0.5), n_steps=4, brownian=short).theta.shape[0] == 2

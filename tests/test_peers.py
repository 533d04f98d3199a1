"""Methods of torchdiffeq and diffrax among ours: their steps on our paths, what they claim, and what is refused."""

import math

import pytest
import torch
import torchdiffeq

from circsde.coupling import NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.solvers import METHODS, sdeint
from circsde.solvers.brownian import Noise
from circsde.solvers.peers import DIFFRAX
from circsde.solvers.registry import find_method
from strategies import random, random_angles

STILL = KuramotoSDE((1,), NoCoupling(), Schedule.constant(reference=2.0, diffusion=0.0))


@pytest.mark.parametrize("name", ["euler", "midpoint", "heun2", "heun3", "rk4"])
def test_methods_of_torchdiffeq_have_their_order_in_our_loop(name: str) -> None:
    """Against the exact curve of an attracted phase, and against torchdiffeq's own loop, to rounding."""
    theta0 = torch.tensor([[2.0]], dtype=torch.float64)
    exact = 2 * (torch.tan(theta0 / 2) * math.exp(-2.0)).atan()
    method = find_method(f"torchdiffeq:{name}")
    ends = [sdeint(STILL, theta0, (0.0, 1.0), n_steps=n, method=method).lifted[-1] for n in (40, 80)]
    errors = [abs((end - exact).item()) for end in ends]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(method.weak_order, abs=0.15)
    times = torch.linspace(0.0, 1.0, 41, dtype=torch.float64)
    theirs = torchdiffeq.odeint(STILL.drift, theta0, times, method=name)[-1]
    assert torch.allclose(ends[0], theirs, atol=1e-13)


def test_what_does_not_apply_is_refused() -> None:
    noisy = SDE(lambda t, theta: -theta.sin(), 1.0)
    with pytest.raises(TypeError, match="for equations without noise"):
        sdeint(noisy, torch.zeros(1, 1), (0.0, 1.0), n_steps=2, method="torchdiffeq:rk4")
    with pytest.raises(ValueError, match="torchdiffeq has no one-step method 'implicit_adams'; choose one of euler"):
        find_method("torchdiffeq:implicit_adams")
    with pytest.raises(ValueError, match="diffrax has no method 'Tsit5' for additive noise; choose one of Euler"):
        find_method("diffrax:Tsit5")
    with pytest.raises(ValueError, match="unknown method 'elsewhere:heun'"):
        find_method("elsewhere:heun")


def test_sra1_of_diffrax_is_ours() -> None:
    """Also where the noise changes in time."""
    pytest.importorskip("diffrax")
    sde = KuramotoSDE((3,), NoCoupling(), Schedule.linear((0.0, 1.0, 0.2), (0.0, 2.0, 3.0)))
    theta, h = random_angles(4, 3), 0.125
    dW = random(4, 3, seed=1, scale=h**0.5)
    noise = Noise(dW, 0.5 * h * dW + random(4, 3, seed=2, scale=(h**3 / 12) ** 0.5))
    theirs = find_method("diffrax:SRA1").step(sde, 0.25, h, theta, noise)
    assert torch.allclose(theirs, METHODS["sra1"].step(sde, 0.25, h, theta, noise), atol=1e-13)
    assert set(DIFFRAX) > {"SRA1", "SPaRK"}

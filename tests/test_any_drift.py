"""The spectral law of any smooth drift on one and two angles: Gibbs laws, closed forms, the equation itself."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from circsde.coupling import GlobalCoupling, NoCoupling
from circsde.exact.fokker_planck import fokker_planck
from circsde.exact.fokker_planck_torus import fokker_planck_torus
from circsde.kuramoto import KuramotoSDE
from circsde.laws.mixture import WrappedNormalMixture
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.typing import Angles, Tangent, Time

RATES = Schedule.linear((0.5, 0.1, 0.2), (6.0, 1.0, 0.8))
START, OTHER = WrappedNormalMixture((1.0,), (2.0,), (0.5,)), WrappedNormalMixture((1.0,), (-1.0,), (0.6,))


def map_drift(t: Time, theta: Angles) -> Tangent:
    """No Kuramoto drift: five harmonics and more, and a part that turns in time."""
    return 1.0 + 0.8 * (2 * theta).sin() + 0.3 * (5 * theta - t).cos() - theta.cos().exp()


def pair_drift(t: Time, theta: Angles) -> Tangent:
    """No gradient: the first angle follows the second, which ignores it, and both see the time."""
    first, second = theta.unbind(-1)
    return torch.stack((2.0 * (2 * second - first).sin() + t, (second + t).sin().exp()), -1)


def growing(t: Time) -> float:
    return 0.8 + 0.3 * float(t)


def residual(
    density: Callable[[float, Tensor], Tensor], sde: SDE, amplitude: Callable[[float], Tensor], t: float
) -> float:
    """The largest ``p_t + div(f p) - sum_i g_i^2 p_ii / 2``: fourth-order differences in t, autograd in the angles."""
    angles = len(amplitude(t))
    generator, h = torch.Generator().manual_seed(0), 1e-3
    theta = (2 * math.pi * torch.rand(30, angles, dtype=torch.float64, generator=generator)).requires_grad_()
    near, far = (density(t + i * h, theta) - density(t - i * h, theta) for i in (1, 2))
    p = density(t, theta)
    (slope,) = torch.autograd.grad(p.sum(), theta, create_graph=True)
    flux = sde.drift(t, theta) * p[:, None] - 0.5 * amplitude(t) ** 2 * slope
    parts = [torch.autograd.grad(flux[:, i].sum(), theta, retain_graph=True)[0][:, i] for i in range(angles)]
    return float(((8 * near - far) / (12 * h) + sum(parts)).abs().max().item())


def test_rates_and_their_equation_have_the_same_law() -> None:
    """Two discretisations: three terms of eq. (8), and products on a grid."""
    known = fokker_planck(RATES, START, reference_phase=0.4, natural_frequency=1.5, mean_field=False)
    sde = KuramotoSDE((1,), NoCoupling(), RATES, *torch.tensor([0.4, 1.5], dtype=torch.float64))
    law = fokker_planck(sde, START)
    assert max(abs(law.moment(t, k) - known.moment(t, k)) for t in (0.0, 0.3, 1.0) for k in range(-9, 30)) < 1e-12
    assert abs(law.moment(1.0, 1) - fokker_planck(RATES, START, mean_field=False).moment(1.0, 1)) > 0.1


def test_two_coupled_oscillators_have_the_same_law_by_their_rates_and_by_their_equation() -> None:
    schedule = Schedule.linear((3.0, 0.1, 1.0), (6.0, 1.0, 0.8), horizon=0.3)
    known = fokker_planck_torus(schedule, (START, OTHER), natural_frequency=(1.0, -1.0))
    sde = KuramotoSDE((2,), GlobalCoupling(), schedule, natural_frequency=torch.tensor([1.0, -1.0]).double())
    law = fokker_planck_torus(sde, (START, OTHER))
    for a, b in ((1, 0), (0, 1), (1, -1), (2, 1), (-3, 2)):
        assert abs(law.moment(0.3, a, b) - known.moment(0.3, a, b)) < 1e-12


@pytest.mark.parametrize("harmonic", [1, 3, 20])
def test_a_gradient_drift_draws_the_law_to_its_gibbs_law(harmonic: int) -> None:
    """From the uniform law to ``exp(-2 V / g^2)``, ``V = -cos(k theta) / k``, at a rate of about ``k^2 / 2``.

    Only modes k apart are coupled: the last carried ones are zero while others are missing.
    """
    horizon = 30.0 / harmonic**2
    law = fokker_planck(SDE(lambda t, theta: -(harmonic * theta).sin(), 1.0, horizon), np.array([1.0, 0.0]))  # noqa: ARG005
    axis = 2 * math.pi * np.arange(4096) / 4096
    weight = np.exp(2.0 / harmonic * np.cos(harmonic * axis))
    expected = (weight * np.exp(1j * harmonic * axis)).sum() / weight.sum()
    assert abs(law.moment(horizon, harmonic) - expected) < 1e-5
    assert abs(law.moment(0.02 * horizon, harmonic) - expected) > 1e-2


def test_the_gibbs_law_of_a_gradient_drift_stays() -> None:
    """From ``exp(-2 V / g^2)``, V with three harmonics, nothing moves; with another noise it does."""
    k, depths, g = np.arange(1, 4), np.array([1.0, -0.7, 0.4]), 0.9
    axis = 2 * math.pi * np.arange(512) / 512
    weight = np.exp(2.0 / g**2 * (depths * np.cos(np.outer(axis, k))).sum(1))
    start = np.fft.ifft(weight)[:129] / np.fft.ifft(weight)[0]

    def drift(t: Time, theta: Angles) -> Tangent:  # noqa: ARG001
        return sum((-float(j * d) * (int(j) * theta).sin() for j, d in zip(k, depths, strict=True)), 0.0 * theta)

    still, moved = (fokker_planck(SDE(drift, amplitude, 1.0), start) for amplitude in (g, 1.1 * g))
    assert max(abs(still.moment(1.0, m) - start[m]) for m in range(30)) < 1e-12
    assert max(abs(moved.moment(1.0, m) - start[m]) for m in range(30)) > 1e-2


def test_turning_and_spreading_is_known_in_closed_form() -> None:
    """``m_k(1) = m_k(0) exp(i k int w - k^2 int g^2 / 2)`` for a drift that depends on the time only."""
    law = fokker_planck(SDE(lambda t, theta: 3.0 * t + 0.0 * theta, growing, 1.0), START)
    k = np.arange(12)
    expected = np.exp(1j * k * (2.0 + 1.5) - 0.5 * k**2 * (0.25 + (1.1**3 - 0.8**3) / 0.9))
    assert max(abs(law.moment(1.0, m) - value) for m, value in enumerate(expected)) < 1e-12


def test_the_density_of_a_circle_map_satisfies_its_equation() -> None:
    law = fokker_planck(SDE(map_drift, growing, 1.0), START)

    def density(t: float, theta: Tensor) -> Tensor:
        return law.density(t, theta[:, 0])

    other = SDE(lambda t, theta: map_drift(t, theta) + 0.01, growing, 1.0)

    def amplitude(t: float, factor: float = 1.0) -> Tensor:
        return torch.tensor([factor * growing(t)], dtype=torch.float64)

    for t in (0.1, 0.6, 0.9):
        assert residual(density, SDE(map_drift, growing, 1.0), amplitude, t) < 1e-8
        assert residual(density, other, amplitude, t) > 1e-4
        assert residual(density, SDE(map_drift, growing, 1.0), lambda t: amplitude(t, 1.01), t) > 1e-4


def amplitudes(t: Time) -> Tensor:
    return torch.tensor([0.9, 0.7 + 0.5 * float(t)], dtype=torch.float64)


def test_the_density_of_two_angles_satisfies_its_equation() -> None:
    sde = SDE(pair_drift, amplitudes, 0.25, event_shape=(2,))
    law = fokker_planck_torus(sde, (START, OTHER))
    for t in (0.1, 0.2):
        assert residual(law.density, sde, amplitudes, t) < 1e-8
        assert residual(law.density, SDE(lambda t, x: pair_drift(t, x) + 0.01, 1.0), amplitudes, t) > 1e-5
        assert residual(law.density, sde, lambda t: amplitudes(t).flip(0), t) > 1e-3


def test_angles_that_ignore_each_other_stay_independent() -> None:
    def both(t: Time, theta: Angles) -> Tangent:
        first, second = theta.unbind(-1)
        return torch.stack((map_drift(t, first), 2.0 * second.sin()), -1)

    joint = fokker_planck_torus(SDE(both, 1.0, 0.05, event_shape=(2,)), (START, OTHER))
    first = fokker_planck(SDE(map_drift, 1.0, 0.05), START)
    second = fokker_planck(SDE(lambda t, theta: 2.0 * theta.sin(), 1.0, 0.05), OTHER)  # noqa: ARG005
    for a, b in ((1, 0), (0, 1), (2, -3), (-1, 1)):
        assert abs(joint.moment(0.05, a, b) - first.moment(0.05, a) * second.moment(0.05, b)) < 1e-12


def test_what_cannot_be_solved_is_refused() -> None:
    rough = SDE(lambda t, theta: theta.sin().abs(), 1.0, 1.0)  # noqa: ARG005
    with pytest.raises(ValueError, match=r"noise is not a smooth periodic function .* after number \d+, and at most"):
        fokker_planck(rough, START)
    with pytest.raises(ValueError, match=r"solved for one angle, .* event shape \(2,\)"):
        fokker_planck(KuramotoSDE((2,)), START)
    with pytest.raises(ValueError, match=r"solved for two angles, .* event shape \(1,\)"):
        fokker_planck_torus(KuramotoSDE((1,)), (START, START))
    with pytest.raises(ValueError, match="has its own phases and frequencies; got reference_phase 1"):
        fokker_planck(KuramotoSDE((1,)), START, reference_phase=1.0)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="modes do not resolve the law"):
        fokker_planck(SDE(map_drift, 0.01, 1.0), START, modes=64)

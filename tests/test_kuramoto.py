"""The Kuramoto drift against its pair sum, its divergence against autograd, the exact flow against an integrator."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from circsde.coupling import GlobalCoupling, LocalCoupling, NoCoupling
from circsde.graph import GraphCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.mobius import mobius_flow
from circsde.schedule import Schedule
from circsde.solvers.integrate import sdeint
from strategies import (
    COUPLINGS,
    SCHEDULE,
    adjacency,
    assert_agree,
    couplings,
    dense_weights,
    kuramoto,
    random_angles,
    seeds,
)

times = st.floats(0.0, 1.0)
field_size = st.floats(0.0, 1e6) | st.floats(0.0, 10.0)
angles = st.floats(-10.0, 10.0)


def pair_sum(name: str, sde: KuramotoSDE, t: float, theta: Tensor) -> Tensor:
    """The right-hand side of eq. (1) as a double sum over oscillators."""
    K, K_ref, _ = sde.schedule.at(t)
    flat, psi, w = theta.flatten(1), sde.reference_phase.flatten(), sde.natural_frequency.flatten()
    pairs = (flat[:, None, :] - flat[:, :, None]).sin()  # sin(theta_j - theta_i) at [i, j]
    drift = w + K * (dense_weights(name) * pairs).sum(2) + K_ref * (psi - flat).sin()
    return drift.reshape(theta.shape)


@given(couplings, seeds, times)
def test_the_drift_is_the_sum_over_pairs(name: str, seed: int, t: float) -> None:
    sde, theta = kuramoto(name, seed), random_angles(3, *COUPLINGS[name][1], seed=seed + 2)
    assert_agree(sde.drift(t, theta), pair_sum(name, sde, t, theta))


@given(couplings, seeds, times)
def test_the_drift_is_the_frequency_plus_the_field_seen_from_each_angle(name: str, seed: int, t: float) -> None:
    sde, theta = kuramoto(name, seed), random_angles(3, *COUPLINGS[name][1], seed=seed + 2)
    field_cos, field_sin = sde.field(t, theta)
    seen = ((field_cos + 1j * field_sin) * torch.exp(-1j * theta)).imag
    assert_agree(sde.drift(t, theta), sde.natural_frequency + seen)


@given(couplings, seeds, times)
def test_the_divergence_is_the_trace_of_the_jacobian(name: str, seed: int, t: float) -> None:
    sde, theta = kuramoto(name, seed), random_angles(2, *COUPLINGS[name][1], seed=seed + 2)
    n = theta[0].numel()
    jacobian = torch.autograd.functional.jacobian(lambda x: sde.drift(t, x), theta)  # type: ignore[no-untyped-call]
    trace = torch.einsum("bibi->b", jacobian.reshape(2, n, 2, n))
    assert_agree(sde.divergence(t, theta), trace, 1e-12)


def test_a_divergence_that_forgets_the_self_weight_is_off() -> None:
    name = "reflecting image"
    sde, theta = kuramoto(name), random_angles(2, 5, 8)
    without = -(dense_weights(name) * (theta.flatten(1)[:, None] - theta.flatten(1)[:, :, None]).cos()).sum((1, 2))
    reference = (sde.reference_phase - theta).cos().flatten(1).sum(1)
    K, K_ref, _ = sde.schedule.at(0.5)
    assert (K * without - K_ref * reference - sde.divergence(0.5, theta)).abs().min() > 1.0


@pytest.mark.parametrize("name", COUPLINGS)
def test_one_time_per_sample_is_the_same_as_one_call_per_sample(name: str) -> None:
    sde, theta = kuramoto(name), random_angles(3, *COUPLINGS[name][1])
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    for function in (sde.drift, sde.divergence):
        one_by_one = torch.cat([function(float(s), theta[i : i + 1]) for i, s in enumerate(t)])
        assert_agree(function(t, theta), one_by_one)


@pytest.mark.parametrize("name", COUPLINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_drift_keeps_the_dtype_and_its_argument(name: str, dtype: torch.dtype) -> None:
    sde, theta = kuramoto(name), random_angles(2, *COUPLINGS[name][1]).to(dtype)
    before = theta.clone()
    drift, divergence = sde.drift(0.5, theta), sde.divergence(torch.tensor([0.2, 0.3], dtype=torch.float64), theta)
    assert (drift.dtype, divergence.dtype) == (dtype, dtype)
    assert torch.equal(theta, before)
    torch.testing.assert_close(drift.double(), sde.drift(0.5, theta.double()), rtol=0, atol=30 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", COUPLINGS)
def test_the_impulse_is_the_field_integrated_over_time(name: str) -> None:
    sde, theta = kuramoto(name), random_angles(2, *COUPLINGS[name][1])
    field_cos, field_sin, turned = sde.impulse(0.2, 0.6, theta)
    middle = sde.field(0.4, theta)  # rates linear in time: the midpoint is exact
    assert_agree(field_cos, 0.4 * middle[0])
    assert_agree(field_sin, 0.4 * middle[1])
    assert_agree(torch.as_tensor(turned), 0.4 * sde.natural_frequency)


def test_the_noise_variance_is_the_integral_of_the_squared_amplitude() -> None:
    sde = KuramotoSDE((1,), schedule=Schedule.cosine((0.0, 0.0, 0.5), (0.0, 0.0, 4.0), horizon=2.0))
    quad = scipy.integrate.quad(lambda t: float(sde.diffusion(t)) ** 2, 0.3, 1.7)[0]
    assert sde.variance(0.3, 1.7) == pytest.approx(quad, rel=1e-12)


@pytest.mark.parametrize("name", ["none", "global"])
def test_the_terminal_law_is_von_mises_with_the_self_consistent_concentration(name: str) -> None:
    """Coupled phases have one reference phase: with several there is no one mean field."""
    coupling, event = COUPLINGS[name]
    psi = random_angles(*event) if name == "none" else random_angles(1)[0]
    law = KuramotoSDE(event, coupling, Schedule.constant(3.0, 0.5, 0.8), psi).terminal_law()
    kappa = law.concentration
    K = 3.0 if name == "global" else 0.0
    bessel_ratio = torch.special.i1e(kappa) / torch.special.i0e(kappa)
    assert_agree(kappa, (K * bessel_ratio + 0.5) / 0.8, 1e-12)
    assert torch.equal(law.loc, psi)


def test_without_noise_there_is_no_terminal_law() -> None:
    with pytest.raises(ValueError, match="positive diffusion rate, got D = 0"):
        KuramotoSDE((2,), schedule=Schedule.constant(1.0, 1.0, 0.0)).terminal_law()


def solved(theta: float, H: complex, w: float) -> float:
    """The frozen flow over unit time by an adaptive integrator of order 8, on the lift."""
    solution = scipy.integrate.solve_ivp(
        lambda t, y: w + np.imag(H * np.exp(-1j * y)), (0.0, 1.0), [theta], method="DOP853", rtol=1e-12, atol=1e-12
    )
    return float(solution.y[0, -1])


def flow(theta: float, H: complex, w: float) -> float:
    moved = mobius_flow(torch.tensor([[theta]], dtype=torch.float64), H.real, H.imag, w)
    return float(moved)


FIELDS = [0.0, 1e-9, 0.3, 1.0 + 2.0j, -4.0j, 30.0]
TURNS = [0.0, 1e-9, 0.5, -3.0, math.pi, 2 * math.pi, -20.0, 200.0]


@pytest.mark.parametrize("H", FIELDS)
@pytest.mark.parametrize("w", TURNS)
def test_the_exact_flow_is_what_an_integrator_finds(H: complex, w: float) -> None:
    """Locked (|w| < |H|) and drifting for many turns (|w| > |H|), with and without a field."""
    for theta in (-3.0, 0.0, 1.0, 8.0):
        assert flow(theta, complex(H), w) == pytest.approx(solved(theta, H, w), abs=1e-9)


@pytest.mark.parametrize("w", [0.7, -5.0, 40.0])
@pytest.mark.parametrize("off", [0.0, 1e-12, -1e-12, 1e-6, -1e-6])
def test_the_exact_flow_holds_where_an_oscillator_just_locks(w: float, off: float) -> None:
    H = abs(w) * (1 + off) * np.exp(0.4j)
    for theta in (-2.0, 0.1, 1.9):
        assert flow(theta, complex(H), w) == pytest.approx(solved(theta, complex(H), w), abs=1e-8)


@given(angles, field_size, angles, st.floats(-1e3, 1e3), st.floats(0.0, 1.0))
@example(1.0, 0.0, 0.0, 0.0, 0.5)
def test_flows_of_one_field_compose(theta: float, size: float, direction: float, w: float, part: float) -> None:
    """To rounding, times the rate at which neighbours separate, which is measured."""
    H = size * complex(math.cos(direction), math.sin(direction))
    whole, first = flow(theta, H, w), flow(theta, part * H, part * w)
    second = flow(first, (1 - part) * H, (1 - part) * w)
    slope = abs(flow(theta + 1e-6, H, w) - flow(theta - 1e-6, H, w)) / 2e-6
    scale = 1 + abs(theta) + abs(w)
    growth = max(1.0, slope, abs(flow(first + 1e-6, (1 - part) * H, (1 - part) * w) - second) / 1e-6)
    assert second == pytest.approx(whole, abs=1e-10 * scale * growth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e2, 1e6, 1e12])
def test_a_strong_field_brings_every_angle_to_its_direction(size: float, dtype: torch.dtype) -> None:
    direction = 0.7
    theta = torch.linspace(-2.4, 3.7, 50, dtype=torch.float64).to(dtype)[None]  # all but the unstable point 0.7 - pi
    moved = mobius_flow(theta, size * math.cos(direction), size * math.sin(direction))
    assert (moved - direction).abs().max() < 20 * torch.finfo(dtype).eps


def test_an_angle_opposite_to_the_field_stays_there() -> None:
    theta = torch.full((1, 1), math.pi, dtype=torch.float64)
    assert mobius_flow(theta, 5.0, 0.0).item() == pytest.approx(math.pi, abs=1e-13)


def test_without_a_field_the_flow_is_a_rotation() -> None:
    theta, w = random_angles(2, 5), torch.linspace(-700.0, 700.0, 5, dtype=torch.float64)
    assert torch.equal(mobius_flow(theta, 0.0, 0.0), theta)
    assert_agree(mobius_flow(theta, 0.0, 0.0, w), theta + w)


def test_the_flow_is_differentiable_where_it_is_locked_drifting_free_and_still() -> None:
    theta = torch.tensor([[0.3, -1.0, 2.0, 0.5]], dtype=torch.float64, requires_grad=True)
    H_cos = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([0.5, 7.0, 3.0, 0.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, h: mobius_flow(x, h, 0.5 * h, w), (theta, H_cos))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("reference_phase", torch.zeros(4), r"must be a number or have the event shape \(3,\), got \(4,\)"),
        ("natural_frequency", torch.zeros(1, 3), r"event shape \(3,\), got \(1, 3\)"),
        ("reference_phase", math.nan, "reference_phase must be finite"),
        ("natural_frequency", torch.tensor([0.0, math.inf, 0.0]), "natural_frequency must be finite"),
    ],
)
def test_phases_and_frequencies_that_do_not_fit_are_refused(name: str, value: float | Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KuramotoSDE((3,), **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("coupling", [LocalCoupling(2), GraphCoupling(adjacency())])
def test_a_coupling_that_does_not_fit_the_oscillators_is_refused(coupling: LocalCoupling | GraphCoupling) -> None:
    with pytest.raises(ValueError, match=r"oscillators of shape \(4,\)"):
        KuramotoSDE((4,), coupling)


def test_defaults_are_global_coupling_on_the_published_schedule() -> None:
    sde = KuramotoSDE((3,))
    assert (sde.coupling, sde.schedule) == (GlobalCoupling(), Schedule.published(100))
    assert (sde.coupled, KuramotoSDE((3,), NoCoupling()).coupled) == (True, False)


def test_parameters_are_copied_and_move_with_the_module() -> None:
    psi = random_angles(3)
    sde = KuramotoSDE((3,), reference_phase=psi)
    psi.zero_()
    assert sde.reference_phase.abs().min() > 0
    assert set(sde.state_dict()) == {"reference_phase", "natural_frequency"}
    assert sde.float().reference_phase.dtype == torch.float32


def test_gradients_reach_phases_frequencies_and_weights() -> None:
    psi, w = random_angles(4).requires_grad_(), torch.randn(4, dtype=torch.float64).requires_grad_()
    adjacency, theta = torch.rand(4, 4, dtype=torch.float64).requires_grad_(), random_angles(2, 4)

    def sde(psi: Tensor, w: Tensor, adjacency: Tensor) -> KuramotoSDE:
        return KuramotoSDE((4,), GraphCoupling(adjacency), SCHEDULE, psi, w)

    parts: list[Callable[[KuramotoSDE], Tensor]] = [
        lambda sde: sde.drift(0.4, theta),
        lambda sde: sde.divergence(0.4, theta),
        lambda sde: sdeint(sde, theta, (0.0, 0.5), n_steps=3, generator=0).lifted[-1],
        lambda sde: sdeint(sde, theta, (0.0, 0.5), n_steps=2, method="mobius_strang", generator=0).lifted[-1],
    ]
    for part in parts:
        assert torch.autograd.gradcheck(lambda *given, part=part: part(sde(*given)), (psi, w, adjacency))


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_phase_and_a_frequency_that_all_share_have_gradients_too(value: float) -> None:
    psi, w = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for _ in range(2))
    theta = random_angles(2, 3)
    assert torch.autograd.gradcheck(lambda p, q: KuramotoSDE((3,), None, SCHEDULE, p, q).drift(0.4, theta), (psi, w))


def test_gradients_reach_the_rates() -> None:
    rates = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (1.0, 0.7, 0.4)]
    theta = random_angles(2, 3)

    def end(K: Tensor, K_ref: Tensor, D: Tensor, method: str) -> Tensor:
        sde = KuramotoSDE((3,), schedule=Schedule.constant(K, K_ref, D))
        return sdeint(sde, theta, (0.0, 0.5), n_steps=2, method=method, generator=0).lifted[-1]

    for method in ("heun", "mobius_strang", "euler_maruyama"):
        assert torch.autograd.gradcheck(lambda a, b, c, method=method: end(a, b, c, method), rates)


def test_parameters_are_those_of_the_equation_and_what_an_optimiser_does_to_them_is_seen() -> None:
    psi, w = torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(3))
    weights = torch.nn.Parameter(torch.ones(3, 3))
    sde = KuramotoSDE((3,), GraphCoupling(weights), SCHEDULE, psi, w)
    assert {id(p) for p in sde.parameters()} == {id(psi), id(w), id(weights)}
    theta, optimiser = random_angles(5, 3), torch.optim.SGD(sde.parameters(), lr=0.1)
    before = sde.drift(0.4, theta)
    before.square().sum().backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    fixed = KuramotoSDE((3,), GraphCoupling(weights.detach()), SCHEDULE, psi.detach(), w.detach())
    assert_agree(sde.drift(0.4, theta), fixed.drift(0.4, theta), 1e-6)
    assert (sde.drift(0.4, theta) - before).abs().max() > 1e-3


@pytest.mark.parametrize("learnt", [False, True])
def test_a_state_goes_from_one_equation_to_another(learnt: bool) -> None:
    def equation(seed: int) -> KuramotoSDE:
        values = [random_angles(3, seed=seed + i) for i in range(2)]
        if learnt:
            values = [torch.nn.Parameter(value) for value in values]
        return KuramotoSDE((3,), schedule=SCHEDULE, reference_phase=values[0], natural_frequency=values[1])

    first, second, theta = equation(1), equation(5), random_angles(2, 3)
    assert (first.drift(0.4, theta) - second.drift(0.4, theta)).abs().max() > 0.1
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.drift(0.4, theta), second.drift(0.4, theta))
    still = KuramotoSDE((3,), schedule=SCHEDULE)
    still.load_state_dict({name: torch.tensor(0.5) for name in ("reference_phase", "natural_frequency")})
    assert_agree(still.drift(0.4, theta), KuramotoSDE((3,), None, SCHEDULE, 0.5, 0.5).drift(0.4, theta))


def test_phases_and_frequencies_that_are_changed_later_are_seen() -> None:
    theta, expected = random_angles(2, 3), KuramotoSDE((3,), None, SCHEDULE, 0.7, 1.5).drift(0.4, random_angles(2, 3))
    filled, assigned, called = (KuramotoSDE((3,), schedule=SCHEDULE) for _ in range(3))
    filled.reference_phase.fill_(0.7)
    filled.natural_frequency.fill_(1.5)
    assigned.reference_phase, assigned.natural_frequency = (torch.tensor(x).double() for x in (0.7, 1.5))
    given = {"reference_phase": torch.tensor(0.7).double(), "natural_frequency": torch.tensor(1.5).double()}

    class Call(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sde = called

        def forward(self, theta: Tensor) -> Tensor:
            return self.sde.drift(0.4, theta)

    swapped = torch.func.functional_call(Call(), {f"sde.{name}": value for name, value in given.items()}, (theta,))
    for found in (filled.drift(0.4, theta), assigned.drift(0.4, theta), swapped):
        assert_agree(found, expected, 1e-7)
    for twin in (copy.deepcopy(filled), pickle.loads(pickle.dumps(filled))):
        assert torch.equal(twin.drift(0.4, theta), filled.drift(0.4, theta))


@pytest.mark.parametrize("name", COUPLINGS)
def test_the_drift_goes_through_every_transform_of_torch(name: str) -> None:
    sde, event = kuramoto(name), COUPLINGS[name][1]
    theta, tangent = random_angles(2, *event), random_angles(2, *event, seed=9)
    times, n = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), torch.Size(event).numel()
    at_times = torch.func.vmap(lambda t: sde.drift(t, theta))(times)
    assert_agree(at_times, torch.stack([sde.drift(float(t), theta) for t in times]))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: sde.drift(0.5, x[None])[0]))(theta).reshape(2, n, n)
    assert_agree(sde.divergence(0.5, theta), jacobian.diagonal(dim1=1, dim2=2).sum(1), 1e-12)
    forward = torch.func.vmap(torch.func.jacfwd(lambda x: sde.drift(0.5, x[None])[0]))(theta).reshape(2, n, n)
    assert_agree(forward, jacobian, 1e-12)
    moved = torch.func.jvp(lambda x: sde.drift(0.5, x), (theta,), (tangent,))[1].flatten(1)
    assert_agree(moved, (jacobian @ tangent.flatten(1)[..., None])[..., 0], 1e-12)


def test_a_number_of_oscillators_is_a_shape() -> None:
    assert KuramotoSDE(3).event_shape == (3,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coupling": Schedule.constant()}, "coupling must be NoCoupling.*rates are given as schedule="),
        ({"coupling": lambda x: x}, "coupling must be NoCoupling.*a class of your own"),
        ({"schedule": (1.0, 1.0, 1.0)}, "schedule must be a Schedule of three rates, got .*Schedule.constant"),
    ],
)
def test_what_is_no_coupling_or_no_schedule_is_refused(
    given: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # without the tests' check of types
    with pytest.raises(TypeError, match=message):
        KuramotoSDE((3,), **given)

"""Divergences: exact traces, unbiased probes, and their integral along a numerical path."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Tensor

from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.solvers.divergence import FlowField, Probes, integrate_divergence, jacobian_trace
from circsde.solvers.quadrature import Vector, hermite, nodes, rule
from circsde.typing import Angles, Tangent, Time
from circsde.velocity import probability_flow
from strategies import COUPLINGS, assert_agree, random, random_angles

SCHEDULE = Schedule.linear((3.0, 0.5, 0.2), (1.0, 2.0, 1.0))


def twisted(t: Time, theta: Angles) -> Tangent:
    """A score with a full Jacobian that is no gradient."""
    flat = theta.flatten(1)
    mixed = random(flat.shape[1], flat.shape[1], seed=3).to(flat) / flat.shape[1]
    return ((flat.sin() @ mixed + torch.as_tensor(t).to(flat)) * flat.cos()).reshape(theta.shape)


def by_differences(field: FlowField, t: float, theta: Tensor, step: float = 1e-5) -> Tensor:
    """The divergence by central differences, good to about 1e-9."""
    velocity = probability_flow(field.sde, field.score)
    total = torch.zeros(len(theta), dtype=torch.float64)
    for i in range(theta[0].numel()):
        shift = torch.zeros_like(theta).flatten(1)
        shift[:, i] = step
        shift = shift.reshape(theta.shape)
        total += ((velocity(t, theta + shift) - velocity(t, theta - shift)) / (2 * step)).flatten(1)[:, i]
    return total


@pytest.mark.parametrize("name", COUPLINGS)
def test_the_exact_divergence_is_that_of_finite_differences(name: str) -> None:
    coupling, event = COUPLINGS[name]
    sde, theta = KuramotoSDE(event, coupling, SCHEDULE), random_angles(3, *event)
    by_autograd = [] if "graph" in name else [SDE(sde.drift, sde.diffusion, 1.0)]  # torch.func knows no sparse sums
    for equation in (sde, *by_autograd):
        flow = FlowField(equation, twisted)
        velocity, score, divergence = flow.linearise(0.4, theta, None)
        assert_agree(divergence[0], by_differences(flow, 0.4, theta), 1e-7)
        assert_agree(velocity, probability_flow(equation, twisted)(0.4, theta))
        assert_agree(score, twisted(0.4, theta))


def test_an_amplitude_per_oscillator_is_weighed_in() -> None:
    amplitude = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    flow, theta = FlowField(SDE(lambda t, x: x.sin(), lambda t: amplitude, 1.0), twisted), random_angles(4, 3)
    assert_agree(flow.linearise(0.4, theta, None)[2][0], by_differences(flow, 0.4, theta), 1e-7)


@pytest.mark.parametrize("batch", [1, 3, 2000])
def test_the_trace_is_the_same_however_many_directions_go_at_once(batch: int) -> None:
    theta = random_angles(batch, 5)
    _, trace, _ = jacobian_trace(lambda x: (twisted(0.3, x), x), theta, None)
    jacobian = torch.func.jacrev(lambda x: twisted(0.3, x[None])[0])
    assert_agree(trace[0, :3], torch.stack([jacobian(x).trace() for x in theta[:3]]))


@pytest.mark.parametrize("law", ["rademacher", "gaussian"])
def test_a_probe_is_unbiased_with_the_known_variance(law: str) -> None:
    theta, k = random_angles(1, 5), 4000
    jacobian = torch.func.jacrev(lambda x: twisted(0.3, x[None])[0])(theta[0])
    symmetric = 0.5 * (jacobian + jacobian.T)
    off = symmetric - (symmetric.diag().diag() if law == "rademacher" else 0.0)
    variance = 2.0 * off.square().sum()
    _, trace, _ = jacobian_trace(lambda x: (twisted(0.3, x), x), theta, Probes(law, 0).draw(theta, 0, k))
    assert (trace.mean() - jacobian.trace()).abs() < 3.9 * (variance / k).sqrt()  # false alarm 1e-4, seeded
    kurtosis = ((trace - trace.mean()) ** 4).mean() / trace.var() ** 2
    assert (trace.var() / variance - 1.0).abs() < 3.9 * ((kurtosis - 1.0) / k).sqrt()


def test_rademacher_probes_are_exact_on_a_diagonal_jacobian() -> None:
    theta = random_angles(4, 6)
    _, trace, _ = jacobian_trace(lambda x: (x.sin(), x), theta, Probes("rademacher", 0).draw(theta, 0, 3))
    assert_agree(trace, theta.cos().sum(1).expand(3, -1))


def test_a_samples_probes_depend_on_the_seed_and_its_index_only() -> None:
    law, theta = Probes("gaussian", seed=7), torch.zeros(300, 70)
    whole = law.draw(theta, 0, 6)
    assert torch.equal(Probes("gaussian", 7, first_sample=211).draw(theta[:20], 0, 6), whole[:, 211:231])
    assert torch.equal(law.draw(theta[:5], 2, 4), whole[2:4, :5])
    assert not torch.equal(law.draw(theta, 0, 1), law.draw(theta, 0, 1, node=1))
    assert not torch.equal(law.draw(theta, 0, 1), Probes("gaussian", 8).draw(theta, 0, 1))


def test_the_law_of_the_probes_must_be_known() -> None:
    with pytest.raises(ValueError, match='"rademacher", "lattice" or "gaussian", got \'uniform\''):
        Probes("uniform", 0)


meshes = st.lists(st.floats(0.05, 1.0), min_size=3, max_size=8).map(lambda gaps: np.cumsum([0.0, *gaps]))


@given(meshes, st.integers(0, 7), st.floats(0.0, 1.0), st.data())
def test_the_path_between_steps_is_exact_for_polynomials_of_degree_seven(
    mesh: Vector, degree: int, where: float, data: st.DataObject
) -> None:
    step = data.draw(st.integers(0, len(mesh) - 2))
    t = float(mesh[step] + where * (mesh[step + 1] - mesh[step]))
    stencil = hermite(mesh, t)
    near = mesh[stencil.first : stencil.first + 4]
    centre, scale = near[0], near[-1] - near[0]
    x, at = (near - centre) / scale, (t - centre) / scale
    known = np.stack((x**degree, degree * x ** max(degree - 1, 0) / scale))
    assert (stencil.position * known).sum() == pytest.approx(at**degree, abs=1e-8)
    assert (stencil.velocity * known).sum() * scale == pytest.approx(degree * at ** max(degree - 1, 0), abs=1e-7)


@given(meshes, st.integers(0, 8))
def test_the_quadrature_is_exact_for_polynomials_of_degree_eight(mesh: Vector, degree: int) -> None:
    used, x = rule(mesh), nodes(mesh) / mesh[-1]
    values = x[used.samples] ** degree
    exact = np.diff((mesh / mesh[-1]) ** (degree + 1)) / (degree + 1) * mesh[-1]
    assert (used.weights * values).sum(1) == pytest.approx(exact, abs=1e-8)
    if degree < 8:
        assert (used.embedded * values).sum(1) == pytest.approx(exact, abs=1e-12)


def test_the_quadrature_estimates_the_error_of_its_embedded_rule() -> None:
    exact, _ = quad(lambda x: math.exp(math.sin(4.0 * x)), 0.0, 3.0, epsabs=1e-14, limit=200)
    for steps in (20, 30):
        mesh = 3.0 * np.linspace(0.0, 1.0, steps + 1) ** 1.2
        used = rule(mesh)
        values = np.exp(np.sin(4.0 * nodes(mesh)))[used.samples]
        better, embedded = float((used.weights * values).sum()), float((used.embedded * values).sum())
        estimate = better - embedded
        assert abs((exact - embedded) / estimate - 1.0) < 0.5
        assert abs(better - exact) < 0.5 * abs(estimate)


@pytest.mark.parametrize("short", [1e-2, 1e-3, 1e-6, 1e-9, 1e-13])
@pytest.mark.parametrize("where", [0, 7, 14])
def test_a_step_far_shorter_than_both_neighbours_does_no_harm(short: float, where: int) -> None:
    """As where a pulse begins. Its nine samples with a neighbour are five to rounding: weights would be singular."""
    even = np.linspace(0.0, 1.0, 15)
    mesh = np.sort(np.append(even, even[where] + short / 14.0 * (1.0 if where < 14 else -1.0)))
    used = rule(mesh)
    values = np.exp(np.sin(4.0 * nodes(mesh)))[used.samples]
    exact, _ = quad(lambda x: math.exp(math.sin(4.0 * x)), 0.0, 1.0, epsabs=1e-15)
    better, embedded = ((weights * values).sum(1) for weights in (used.weights, used.embedded))
    assert float(better.sum()) == pytest.approx(exact, abs=1e-9)
    assert abs(float(better.sum()) - exact) < float(np.abs(better - embedded).sum()) + 1e-14
    assert np.abs(used.weights).sum() < 2.0


def test_a_very_short_last_step_does_no_harm() -> None:
    mesh = np.append(np.linspace(0.0, 0.9999, 30), 1.0)
    used = rule(mesh)
    values = np.exp(np.sin(4.0 * nodes(mesh)))[used.samples]
    exact, _ = quad(lambda x: math.exp(math.sin(4.0 * x)), 0.0, 1.0, epsabs=1e-15)
    assert float((used.weights * values).sum()) == pytest.approx(exact, abs=1e-13)
    assert np.abs(used.weights).sum() < 2.0


@pytest.mark.parametrize("last", [1e-3, 1e-5, 1e-9, 1e-14])
def test_what_a_solver_had_left_for_the_last_step_does_no_harm(last: float) -> None:
    """Down the slope ``theta' = -2 sin theta`` the divergence integrates to ``log (sin theta_1 / sin theta_0)``."""
    flow = FlowField(
        KuramotoSDE((1,), schedule=Schedule.constant(reference=2.0)), lambda _, theta: torch.zeros_like(theta)
    )
    mesh = np.append(np.linspace(0.0, 1.0 - last, 30), 1.0)
    path = 2.0 * torch.from_numpy(0.7 * np.exp(-2.0 * mesh)).atan()[:, None, None]
    found = integrate_divergence(flow, mesh, path, torch.float64, lambda _: None, 1e-9, torch.zeros(len(mesh) - 1, 1))
    assert found.values.item() == pytest.approx(math.log(path[-1].sin() / path[0].sin()), abs=1e-11)
    assert found.error.item() < 1e-9

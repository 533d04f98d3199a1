"""Oscillators with inertia: against scipy, the law at rest, exact operators of a step, the limit without inertia."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from circsde.coupling import GlobalCoupling, NoCoupling
from circsde.graph import GraphCoupling
from circsde.inertia import InertialSDE
from circsde.kuramoto import KuramotoSDE
from circsde.laws.gibbs import MeanFieldGibbs
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.solvers import Brownian, Noise, SolveError, sdeint
from circsde.solvers.inertia import solve_inertial
from circsde.torus import order_parameter
from circsde.typing import Time
from strategies import COUPLINGS, Replay, assert_agree, couplings, kuramoto, random, random_angles, seeds

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
OneStep = Callable[[Array, Array, Array, float], tuple[Array, Array]]
"""``(theta, v, xi, h) ->`` angles and velocities after a step with the normals xi."""

K, T, M = 1.5, 0.7, 1.3  # attraction, temperature and inertia of the pendulum that is looked at without sampling noise
A, B = 7, 17  # waves of the angle on either side, and polynomials of the velocity


def pendulum(gamma: float) -> InertialSDE:
    """``M theta'' + gamma theta' = -K sin(theta) + noise`` at temperature T."""
    sde = KuramotoSDE(1, NoCoupling(), Schedule.constant(0.0, K, gamma * T, horizon=10.0))
    return InertialSDE(sde, M, gamma)


def of_the_package(gamma: float) -> OneStep:
    """A step of :func:`solve_inertial`."""

    def step(theta: Array, v: Array, xi: Array, h: float) -> tuple[Array, Array]:
        a, b, dW = (torch.from_numpy(x)[:, None] for x in (theta, v, math.sqrt(h) * xi))
        solution = solve_inertial(pendulum(gamma), a, b, (0.0, h), n_steps=1, brownian=Replay((Noise(dW),)))
        return solution.lifted[-1, :, 0].numpy(), solution.velocity[-1, :, 0].numpy()

    return step


def split(order: str, gamma: float) -> OneStep:
    """A splitting written out: kicks B, drifts A and exact friction with noise O, in that order."""

    def step(theta: Array, v: Array, xi: Array, h: float) -> tuple[Array, Array]:
        for letter in order:
            c = h / order.count(letter)
            if letter == "A":
                theta = theta + c * v
            elif letter == "B":
                v = v - c * K * np.sin(theta) / M
            else:
                decay = math.exp(-gamma * c / M)
                v = decay * v + math.sqrt(T / M * (1.0 - decay**2)) * xi
        return theta, v

    return step


def functions(theta: Array, v: Array) -> Complex:
    """``e^{i a theta} He_b(v / s)``, orthonormal under a uniform angle and the Maxwell law, ``(points, basis)``."""
    x = v / math.sqrt(T / M)
    he: list[Array] = [np.ones_like(x), x]
    for b in range(1, B - 1):
        he.append((x * he[b] - math.sqrt(b) * he[b - 1]) / math.sqrt(b + 1))
    waves = np.exp(1j * theta[:, None] * np.arange(-A, A + 1))
    product: Complex = (waves[:, :, None] * np.stack(he, -1)[:, None, :]).reshape(len(x), -1)
    return product


def operator(step: OneStep, h: float) -> Complex:
    """``u -> E u(step)`` as a matrix over :func:`functions`, by quadrature over the state and the noise."""
    angles = np.arange(32) * 2.0 * math.pi / 32
    (x, w), (z, p) = (np.polynomial.hermite_e.hermegauss(n) for n in (24, 14))
    w, p = w / w.sum(), p / p.sum()
    theta, v, xi = (g.ravel() for g in np.meshgrid(angles, math.sqrt(T / M) * x, z, indexing="ij"))
    after = functions(*step(theta, v, xi, h)).reshape(-1, len(z), (2 * A + 1) * B)
    before = functions(theta[:: len(z)], v[:: len(z)])
    matrix: Complex = (before.conj() * np.tile(w, 32)[:, None] / 32).T @ np.einsum("nzk,z->nk", after, p)
    return matrix


def index(a: int, b: int) -> int:
    return (a + A) * B + b


def biases(step: OneStep, h: float) -> tuple[float, float]:
    """The biases of ``E cos theta`` and of the kinetic temperature ``E M v^2 / T`` at rest."""
    equations = (operator(step, h) - np.eye((2 * A + 1) * B)).T
    one = index(0, 0)
    equations[one], right = 0.0, np.zeros(len(equations), complex)
    equations[one, one] = right[one] = 1.0
    means = np.linalg.solve(equations, right)
    exact = scipy.special.ive(1, K / T) / scipy.special.ive(0, K / T)
    return means[index(1, 0)].real - exact, math.sqrt(2.0) * means[index(0, 2)].real


def generator(gamma: float) -> Complex:
    """``v d/dtheta + (-K sin(theta) - gamma v) / M d/dv + gamma T / M^2 d^2/dv^2`` over the same functions."""
    s, lower = math.sqrt(T / M), np.diag(np.sqrt(np.arange(1.0, B)), 1)
    up = np.diag(np.ones(2 * A), -1)
    waves, sine = np.diag(1j * np.arange(-A, A + 1)), (up - up.T) / 2j
    speed = s * (lower + lower.T)
    matrix = np.zeros(((2 * A + 1) * B,) * 2, np.complex128)
    matrix += np.kron(waves, speed)
    matrix -= K / (M * s) * np.kron(sine, lower)
    matrix -= gamma / M * np.kron(np.eye(2 * A + 1), np.diag(np.arange(B)))
    return matrix


def weak_error(gamma: float, n_steps: int) -> float:
    """The weak error of ``E cos theta`` at time 2 from ``theta = 1, v = 0.5``."""
    matrix, wave = operator(of_the_package(gamma), 2.0 / n_steps), index(1, 0)
    start = functions(np.array([1.0]), np.array([0.5]))[0]
    u = np.linalg.matrix_power(matrix, n_steps)[:, wave]
    exact = scipy.linalg.expm(2.0 * generator(gamma))[:, wave]
    return float((start @ (u - exact)).real)


def order(coarse: float, fine: float) -> float:
    return math.log2(abs(coarse / fine))


def test_a_step_is_baoab() -> None:
    theta, v, xi = (random(50, seed=k).numpy() for k in range(3))
    steps = (step(theta, v, xi, 0.3) for step in (of_the_package(0.8), split("BAOAB", 0.8)))
    for ours, written in zip(*steps, strict=True):
        np.testing.assert_allclose(ours, written, rtol=1e-13, atol=1e-13)


def test_the_weak_order_is_two() -> None:
    coarse, fine = weak_error(3.0, 8), weak_error(3.0, 16)
    assert order(coarse, fine) == pytest.approx(2.0, abs=0.05)
    assert abs(fine) < 1e-3


def test_the_law_of_velocities_at_rest_is_of_order_two() -> None:
    (_, coarse), (_, fine) = (biases(of_the_package(1.0), h) for h in (0.4, 0.2))
    assert order(coarse, fine) == pytest.approx(2.0, abs=0.05)


def test_the_law_of_angles_at_rest_is_of_order_four_where_friction_is_strong() -> None:
    """With the drift outside and the kick inside the same friction leaves order two."""
    (coarse, _), (fine, _) = (biases(of_the_package(1000.0), h) for h in (0.4, 0.2))
    assert order(coarse, fine) == pytest.approx(4.0, abs=0.15)
    (coarse, _), (other, _) = (biases(split("ABOBA", 1000.0), h) for h in (0.4, 0.2))
    assert order(coarse, other) == pytest.approx(2.0, abs=0.1)
    assert abs(other) > 300 * abs(fine)


def test_the_law_of_angles_at_rest_is_nearly_exact_where_friction_is_moderate() -> None:
    angle, _ = biases(of_the_package(1.0), 0.4)
    other, _ = biases(split("ABOBA", 1.0), 0.4)
    assert abs(other) > 100 * abs(angle)


def test_without_noise_the_swing_equation_is_that_of_scipy() -> None:
    """Rates that change in time, a graph with a lag, an inertia and a damping for each: the error falls by four."""
    n, weights = 5, random(5, 5, seed=1).abs()
    w, psi, theta0, v0 = random(5, seed=2), random_angles(5, seed=3), random_angles(1, 5, seed=4), random(1, 5, seed=5)
    m, gamma = torch.linspace(0.5, 2.0, n).double(), torch.linspace(0.0, 0.6, n).double()
    schedule = Schedule.linear((3.0, 0.5, 0.0), (1.0, 2.0, 0.0), horizon=3.0)
    sde = KuramotoSDE(n, GraphCoupling(weights, lag=0.4, normalise=False), schedule, psi, w)
    equation = InertialSDE(sde, m, gamma)

    def swing(t: float, y: Array) -> Array:
        theta, v = np.split(y, 2)
        coupling, reference = 3.0 - 2.0 * t / 3.0, 0.5 + 0.5 * t
        heard = (weights.numpy() * np.sin(theta[None] - theta[:, None] - 0.4)).sum(1)
        force = w.numpy() + coupling * heard + reference * np.sin(psi.numpy() - theta)
        return np.concatenate((v, (force - gamma.numpy() * v) / m.numpy()))

    start = np.concatenate((theta0[0].numpy(), v0[0].numpy()))
    exact = solve_ivp(swing, (0.0, 3.0), start, method="DOP853", rtol=1e-10, atol=1e-10).y[:, -1]
    errors = []
    for n_steps in (60, 120):
        solution = solve_inertial(equation, theta0, v0, (0.0, 3.0), n_steps=n_steps)
        errors.append(np.abs(torch.cat((solution.lifted[-1, 0], solution.velocity[-1, 0])).numpy() - exact).max())
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.05)
    assert errors[1] < 1e-2


def test_velocities_without_a_force_are_exact_whatever_the_step() -> None:
    """``Var v = T/m (1 - e^{-2 gamma t / m})``, summed over steps of one path from the exact weight of each normal."""
    sde, gamma = SDE(lambda t, theta: torch.zeros_like(theta), 0.8, horizon=2.0), 0.7
    equation, still = InertialSDE(sde, M, gamma), torch.zeros(1, 1, dtype=torch.float64)
    exact = 0.8**2 / (2.0 * gamma * M) * -math.expm1(-2.0 * gamma * 2.0 / M)
    for n in (1, 3, 10):
        normals = math.sqrt(2.0 / n) * torch.eye(n, dtype=torch.float64)[:, :, None, None]
        paths = [Replay(tuple(Noise(dW) for dW in path)) for path in normals]
        ends = [solve_inertial(equation, still, 0.0, (0.0, 2.0), n_steps=n, brownian=path) for path in paths]
        assert sum(end.velocity[-1].item() ** 2 for end in ends) == pytest.approx(exact, rel=1e-12)


def test_on_one_path_the_order_is_one() -> None:
    sde = KuramotoSDE(3, GlobalCoupling(), Schedule.linear((3.0, 1.0, 0.2), (1.0, 2.0, 1.0)), natural_frequency=1.0)
    equation, theta0 = InertialSDE(sde, 0.5, 0.6), random_angles(400, 3)
    path = Brownian(tuple(i / 512 for i in range(513)), (400, 3), 0, torch.float64)
    ends = {n: solve_inertial(equation, theta0, 0.0, (0.0, 1.0), n_steps=n, brownian=path) for n in (16, 32, 64, 512)}
    errors = [(ends[n].velocity[-1] - ends[512].velocity[-1]).square().mean().sqrt().item() for n in (16, 32, 64)]
    assert math.log2(errors[0] / errors[2]) / 2 == pytest.approx(1.0, abs=0.15)


def test_samples_of_the_law_at_rest_remain_samples_of_it() -> None:
    """Ten coupled oscillators, 4,000 samples: means within 4.5 standard errors, one false alarm in 10^5."""
    sde = KuramotoSDE(10, GlobalCoupling(), Schedule.constant(2.0, 0.3, 0.4, horizon=3.0))
    equation = InertialSDE(sde, torch.linspace(0.5, 1.5, 10).double(), 0.5)
    law = equation.settled_law()
    assert isinstance(law.angles, MeanFieldGibbs)
    assert law.angles.diffusion.item() == pytest.approx(0.8)
    draws = torch.Generator().manual_seed(0)
    theta0 = law.angles.sample((4000,), generator=draws)
    velocity0 = law.velocities.scale * torch.randn(4000, 10, generator=draws, dtype=torch.float64)
    solution = solve_inertial(equation, theta0, velocity0, (0.0, 3.0), n_steps=20, generator=1)
    order, _ = order_parameter(solution.theta[-1], dim=1)
    assert_mean(order.square(), law.angles.mean_square_order_parameter.item())
    heat = (solution.velocity[-1] / law.velocities.scale).square().mean(1)
    assert_mean(heat, 1.0, beside=0.015)  # at a step of 0.15 velocities are colder by about h^2 K / 4 m
    moved = (solution.lifted[-1] - solution.lifted[0]).abs().mean()
    assert moved > 0.5


def assert_mean(x: Tensor, expected: float, beside: float = 0.0) -> None:
    assert abs(x.mean().item() - expected) < beside + 4.5 * x.std().item() / math.sqrt(len(x))


def test_without_inertia_the_path_is_that_of_the_first_order_equation() -> None:
    """The distance on one Brownian path falls like the root of the inertia (Smoluchowski and Kramers)."""
    sde, theta0 = kuramoto("global"), random_angles(100, 5)
    path = Brownian(tuple(i / 1024 for i in range(1025)), (100, 5), 3, torch.float64)
    limit = sdeint(sde, theta0, (0.0, 1.0), n_steps=1024, brownian=path).lifted[-1]
    gaps = []
    for m in (1.6e-2, 4e-3):
        solution = solve_inertial(InertialSDE(sde, m), theta0, 0.0, (0.0, 1.0), n_steps=1024, brownian=path)
        gaps.append((solution.lifted[-1] - limit).square().mean().sqrt().item())
    assert gaps[0] / gaps[1] == pytest.approx(2.0, rel=0.15)
    assert gaps[1] < 0.1


@given(couplings, seeds)
def test_whole_turns_and_the_batch_change_nothing(name: str, seed: int) -> None:
    sde, event = kuramoto(name), COUPLINGS[name][1]
    equation, theta0, v0 = InertialSDE(sde, 0.7, 0.4), random_angles(3, *event, seed=seed), random(3, *event, seed=seed)
    turns = (3.0 * random(3, *event, seed=seed + 1)).round()
    whole = solve_inertial(equation, theta0, v0, (0.0, 0.5, 1.0), n_steps=4, generator=seed)
    turned = solve_inertial(equation, theta0 + 2 * math.pi * turns, v0, (0.0, 0.5, 1.0), n_steps=4, generator=seed)
    assert_agree(turned.lifted - 2 * math.pi * turns, whole.lifted, 1e-11)
    assert_agree(turned.velocity, whole.velocity, 1e-11)
    part = solve_inertial(equation, theta0[1:], v0[1:], (0.0, 0.5, 1.0), n_steps=4, generator=seed, first_sample=1)
    assert torch.equal(part.theta, whole.theta[:, 1:])
    assert torch.equal(part.velocity, whole.velocity[:, 1:])


@given(seeds, st.integers(1, 5))
def test_a_solve_goes_on_from_its_own_end(seed: int, k: int) -> None:
    """The same path cut in two."""
    grid = tuple(i / 6 for i in range(7))
    equation, theta0 = InertialSDE(kuramoto("graph"), 0.7, 0.4), random_angles(2, 6, seed=seed)
    path = Brownian(grid, (2, 6), seed, torch.float64)
    whole = solve_inertial(equation, theta0, 0.0, grid, grid=grid, brownian=path)
    first = solve_inertial(equation, theta0, 0.0, grid[: k + 1], grid=grid[: k + 1], brownian=path)
    rest = solve_inertial(equation, first.lifted[-1], first.velocity[-1], grid[k:], grid=grid[k:], brownian=path)
    assert_agree(rest.lifted[-1], whole.lifted[-1], 1e-12)
    assert_agree(rest.velocity[-1], whole.velocity[-1], 1e-12)


def test_ten_thousand_turns_lose_nothing() -> None:
    """A free rotor at velocity 2 pi 1000, in float32."""
    sde = SDE(lambda t, theta: torch.zeros_like(theta), 0.0, horizon=10.0)
    equation = InertialSDE(sde, 1.0, 0.0)
    solution = solve_inertial(equation, torch.full((1, 1), 0.5), 2000 * math.pi, (0.0, 10.0), n_steps=500)
    assert solution.theta.dtype == solution.velocity.dtype == torch.float32
    assert solution.lifted[-1].item() == pytest.approx(20_000 * math.pi + 0.5, abs=1e-6)


def test_single_precision_differs_by_its_rounding() -> None:
    equation, theta0 = InertialSDE(kuramoto("global"), 0.5, 0.5), random_angles(20, 5)
    wide, narrow = (
        solve_inertial(equation, theta0.to(dtype), 0.3, (0.0, 1.0), n_steps=50, generator=0)
        for dtype in (torch.float64, torch.float32)
    )
    assert (wide.velocity - narrow.velocity).abs().max() < 1e-5


def test_the_force_is_evaluated_once_a_step_and_once_more() -> None:
    calls = 0

    class Counting(KuramotoSDE):
        periodic = True

        def drift(self, t: Time, theta: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return super().drift(t, theta)

    solution = solve_inertial(InertialSDE(Counting(4)), random_angles(2, 4), 0.0, (0.0, 1.0), n_steps=7)
    assert solution.stats.nfe == calls == 8


def test_gradients_reach_the_start_the_inertia_and_the_damping() -> None:
    sde, theta0 = kuramoto("global"), random_angles(1, 5)

    def end(theta: Tensor, v: Tensor, m: Tensor, gamma: Tensor) -> Tensor:
        return solve_inertial(InertialSDE(sde, m, gamma), theta, v, (0.0, 1.0), n_steps=2, generator=0).velocity[-1]

    m, gamma = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.7, 0.4))
    start = theta0.clone().requires_grad_(), random(1, 5).requires_grad_()
    assert torch.autograd.gradcheck(end, (*start, m, gamma))


@pytest.mark.parametrize(("value", "status"), [(math.nan, "non_finite"), (math.inf, "non_finite"), (1e30, "overflow")])
@pytest.mark.parametrize("sick_from", [0, 5, 8, 29])
def test_a_failure_keeps_what_was_computed(value: float, status: str, sick_from: int) -> None:
    def force(t: Time, theta: Tensor) -> Tensor:
        sick = torch.zeros_like(theta)
        if t > (sick_from - 0.5) / 30:
            sick[1] = value
        return sick

    equation, ts = InertialSDE(SDE(force, 0.1)), [i / 6 for i in range(7)]
    solution = solve_inertial(equation, torch.zeros(3, 2), 0.0, ts, n_steps=30, generator=0, on_failure="return")
    assert (solution.stats.status, solution.stats.samples) == (status, (1,))
    last = sick_from - 1 if status == "non_finite" else sick_from  # a great force moves angles in the step after it
    assert len(solution.ts) == len(solution.velocity) == max(0, last) // 5 + 1
    with pytest.raises(SolveError, match="of sample 1"):
        solution.or_raise("raise")


def test_a_dataset_holds_velocities_beside_angles() -> None:
    solution = solve_inertial(InertialSDE(kuramoto("global")), random_angles(2, 5), 0.0, (0.0, 1.0), n_steps=3)
    dataset = solution.to_xarray(seed=0)
    assert dataset.velocity.dims == dataset.theta.dims == ("time", "sample", "oscillator")
    np.testing.assert_array_equal(dataset.velocity, solution.velocity)
    assert dataset.attrs["seed"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inertia": 0.0}, "inertia must be positive"),
        ({"inertia": torch.ones(4)}, r"shape \(5,\), got \(4,\)"),
        ({"damping": -0.1}, "damping must be not negative"),
        ({"damping": math.nan}, "damping must be not negative"),
    ],
)
def test_what_is_no_inertia_is_refused(change: dict[str, float | Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InertialSDE(kuramoto("global"), **change)


@pytest.mark.parametrize("velocity", [torch.zeros(2, 4), math.nan])
def test_velocities_that_do_not_fit_are_refused(velocity: float | Tensor) -> None:
    with pytest.raises(ValueError, match=r"velocity0 must be a number or have the shape \(2, 5\)"):
        solve_inertial(InertialSDE(kuramoto("global")), random_angles(2, 5), velocity, (0.0, 1.0), n_steps=3)


def test_a_law_at_rest_that_is_not_known_is_refused() -> None:
    rates = Schedule.constant(1.0, 0.0, 0.5)
    damping = torch.tensor([1.0, 2.0])
    for equation, message in (
        (InertialSDE(KuramotoSDE(2, schedule=rates, natural_frequency=1.0)), "natural frequencies"),
        (InertialSDE(KuramotoSDE(2, schedule=rates), damping=damping), "one positive damping"),
        (InertialSDE(KuramotoSDE(2, schedule=rates), damping=0.0), "one positive damping"),
        (InertialSDE(KuramotoSDE(2, GlobalCoupling(lag=0.5), rates)), "phase lag"),
    ):
        with pytest.raises(ValueError, match=message):
            equation.settled_law()
    with pytest.raises(TypeError, match="force of a KuramotoSDE"):
        InertialSDE(SDE(lambda t, theta: -theta.sin(), 0.5)).settled_law()

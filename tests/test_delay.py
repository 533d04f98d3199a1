"""Delays: against scipy by the method of steps, linear theory, an exact law, and equations without delay."""

import math
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from torch import Tensor

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.delay import DelayedSDE
from circsde.exact.fokker_planck import fokker_planck
from circsde.graph import DenseCoupling, GraphCoupling
from circsde.harmonics import DaidoSDE, SimplicialCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import WrappedNormal
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.solvers import Brownian, SolveError, sdeint
from circsde.solvers.delay import solve_delayed
from strategies import COUPLINGS, adjacency, assert_agree, couplings, kuramoto, random, random_angles, seeds

Array = NDArray[np.float64]
Name = Literal["heun", "euler_maruyama"]

NOISELESS = Schedule.constant(1.5, 0.4, 0.0, horizon=3.0)
W = torch.tensor([0.5, -0.3, 1.1], dtype=torch.float64)
DELAYS = torch.tensor([[0.0, 0.3, 0.9], [0.6, 0.3, 0.0], [0.9, 0.6, 0.6]], dtype=torch.float64)


def history(t: float) -> Tensor:
    """Angles that moved before time 0."""
    return torch.tensor([[math.sin(2.0 * t), 1.0 + 0.5 * t, -2.0 + math.cos(t)]], dtype=torch.float64)


@cache
def by_steps(delays: tuple[tuple[float, ...], ...], lag: float) -> Array:
    """The angles at time 1.8 without noise, by scipy between the times that sums of delays reach (method of steps)."""
    pieces: list[tuple[float, float, Any]] = []
    tau, frequency = np.array(delays), W.numpy()

    def past(t: float, now: float, theta: Array) -> Array:
        if t >= now:
            return theta
        if t <= 0.0:
            return np.array(history(t)[0].tolist())
        angles: Array = next(solution(t) for a, b, solution in pieces if a <= t <= b + 1e-12)
        return angles

    def drift(t: float, theta: Array) -> Array:
        late = {d: past(t - d, t, theta) for d in set(tau.flatten())}
        heard = np.array([[late[tau[i, j]][j] for j in range(3)] for i in range(3)])
        speed: Array = frequency + 1.5 * np.sin(heard - theta[:, None] - lag).mean(1) + 0.4 * np.sin(-theta)
        return speed

    theta = history(0.0)[0].numpy()
    for k in range(6):
        a, b = 0.3 * k, 0.3 * (k + 1)
        solved = solve_ivp(drift, (a, b), theta, method="DOP853", rtol=1e-8, atol=1e-8, dense_output=True)
        pieces.append((a, b, solved.sol))
        theta = solved.y[:, -1]
    return theta


@pytest.mark.parametrize(("method", "order"), [("heun", 2), ("euler_maruyama", 1)])
@pytest.mark.parametrize("pairs", [False, True])
def test_without_noise_the_method_of_steps_by_scipy_is_approached_at_the_order(
    method: Name, order: int, pairs: bool
) -> None:
    delay = DELAYS if pairs else torch.full((3, 3), 0.3, dtype=torch.float64)
    exact = by_steps(tuple(map(tuple, delay.tolist())), 0.4)
    sde = KuramotoSDE(3, GlobalCoupling(lag=0.4), NOISELESS, natural_frequency=W)
    equation = DelayedSDE(sde, delay if pairs else 0.3)
    errors = [
        np.abs(
            solve_delayed(equation, history, (0.0, 1.8), method=method, n_steps=n).lifted[-1, 0].numpy() - exact
        ).max()
        for n in (30, 60)
    ]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)
    assert errors[1] < (2e-3 if order == 2 else 5e-2)


@pytest.mark.parametrize("near", [0.0, 3.5])
def test_a_synchronised_state_turns_as_linear_theory_says_and_is_stable_where_that_says_so(near: float) -> None:
    """``Omega = w - K sin(Omega tau)``, and perturbations without a mean decay at ``K cos(Omega tau)``, or grow.

    Yeung and Strogatz, 1999, doi:10.1103/PhysRevLett.82.648; Earl and Strogatz, 2003, doi:10.1103/PhysRevE.67.036204.
    """
    w, coupling, tau, n = 1.6, 1.2, 2.0, 6
    roots = [
        brentq(lambda x: x - w + coupling * math.sin(x * tau), a, a + 0.02)
        for a in np.arange(w - coupling - 0.01, w + coupling + 0.02, 0.02)
        if (a - w + coupling * math.sin(a * tau)) * (a + 0.02 - w + coupling * math.sin((a + 0.02) * tau)) < 0
    ]
    assert len(roots) == 3
    stable = [root for root in roots if math.cos(root * tau) > 0]
    unstable = [root for root in roots if math.cos(root * tau) < 0]
    omega = stable[0] if near == 0.0 else unstable[0]
    rate = coupling * math.cos(omega * tau)
    shape = random(1, n, seed=1)
    shape = 1e-7 * (shape - shape.mean())
    sde = KuramotoSDE(n, GlobalCoupling(), Schedule.constant(coupling, 0.0, 0.0, horizon=4.0), natural_frequency=w)
    solution = solve_delayed(
        DelayedSDE(sde, tau), lambda t: omega * t + shape * math.exp(-rate * t), (0.0, 2.0, 4.0), n_steps=800
    )
    mean = solution.lifted.mean(-1)[:, 0]
    assert ((mean[2] - mean[1]) / 2.0).item() == pytest.approx(omega, abs=1e-4)
    spread = (solution.lifted - solution.lifted.mean(-1, keepdim=True))[:, 0].norm(dim=1)
    assert (-(spread[2] / spread[0]).log() / 4.0).item() == pytest.approx(rate, rel=1e-3)
    assert (spread[2] < spread[0]) == (near == 0.0)


def one_hears_another(n_steps: int, method: Name, paths: int = 80_000) -> tuple[complex, float]:
    """``E e^{i (theta_1(t - tau) - theta_2(t))}`` at time 1 where only 2 hears 1, and its standard error."""
    weights = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    sde = KuramotoSDE(
        2, DenseCoupling(weights), Schedule.constant(2.0, 0.0, 0.3), natural_frequency=torch.tensor([0.7, 0.0])
    )
    h, late, draws = 1.0 / n_steps, n_steps // 2, torch.Generator().manual_seed(5)
    steps = torch.randn(late + 1, paths, generator=draws, dtype=torch.float64)
    steps *= torch.tensor([0.2, *[math.sqrt(0.6 * h)] * late], dtype=torch.float64)[:, None]
    first = 1.0 + steps.cumsum(0) + 0.7 * h * torch.arange(late + 1)[:, None]
    before = torch.stack((first, torch.zeros_like(first)), -1)
    solution = solve_delayed(DelayedSDE(sde, 0.5), before, (0.0, 0.5, 1.0), method=method, n_steps=n_steps, generator=1)
    gap = solution.lifted[1, :, 0] - solution.lifted[2, :, 1]
    wave = torch.complex(gap.cos(), gap.sin())
    return complex(wave.mean().item()), wave.std().item() / math.sqrt(paths)


def test_the_law_of_what_one_oscillator_hears_of_another_is_exact_to_the_order() -> None:
    """The gap ``theta_1(t - tau) - theta_2(t)`` is a diffusion on the circle: ``w - K sin(gap)``, with twice the noise.

    Heun at 32 steps within 4.5 standard errors; Euler-Maruyama at 8 is noticed.
    """
    gap = SDE(lambda t, x: 0.7 - 2.0 * x.sin(), math.sqrt(1.2), horizon=1.0)
    law = fokker_planck(gap, WrappedNormal(torch.tensor(1.0).double(), torch.tensor(0.2).double()))
    exact = law.moment(1.0, 1)
    mean, error = one_hears_another(32, "heun")
    assert abs(mean - exact) < 4.5 * error
    mean, error = one_hears_another(8, "euler_maruyama")
    assert abs(mean - exact) > 6.0 * error


@pytest.mark.parametrize(("method", "order"), [("heun", 2), ("euler_maruyama", 1)])
def test_the_weak_order_of_oscillators_that_hear_each_other(method: Name, order: int) -> None:
    """Means over the same 100,000 Brownian paths at 12, 24 and 48 steps of two oscillators with a delay of 1/4."""
    sde = KuramotoSDE(2, GlobalCoupling(), Schedule.constant(4.0, 1.5, 0.4), natural_frequency=torch.tensor([1.0, 0.2]))
    path = Brownian(tuple(i / 48 for i in range(49)), (100_000, 2), 0)
    start, waves = torch.tensor([1.5, -0.5]).expand(100_000, 2), []
    for n in (12, 24, 48):
        solution = solve_delayed(DelayedSDE(sde, 0.25), start, (0.0, 1.0), method=method, n_steps=n, brownian=path)
        waves.append(torch.cat((solution.theta[-1].cos(), solution.theta[-1].sin()), 1).double())
    coarse, fine = waves[0] - waves[1], waves[1] - waves[2]
    noise = fine.std(0).norm().item() / math.sqrt(100_000)
    assert fine.mean(0).norm().item() > 8 * noise
    measured = math.log2(coarse.mean(0).norm().item() / fine.mean(0).norm().item())
    assert measured == pytest.approx(order, abs=0.35)


@given(couplings, seeds, st.booleans())
def test_without_a_delay_the_solution_is_that_of_sdeint(name: str, seed: int, pairs: bool) -> None:
    sde, event = kuramoto(name), COUPLINGS[name][1]
    theta0, n = random_angles(2, *event, seed=seed), torch.Size(event).numel()
    late = DelayedSDE(sde, torch.zeros(n, n) if pairs else 0.0)
    for method in ("heun", "euler_maruyama"):
        ours = solve_delayed(late, theta0, (0.0, 1.0), method=method, n_steps=4, generator=seed)
        other = sdeint(sde, theta0, (0.0, 1.0), method=method, n_steps=4, generator=seed)
        assert_agree(ours.lifted, other.lifted, 1e-11)


@given(couplings, seeds)
def test_equal_delays_of_pairs_are_one_delay(name: str, seed: int) -> None:
    sde, event = kuramoto(name), COUPLINGS[name][1]
    theta0, n = random_angles(2, *event, seed=seed), torch.Size(event).numel()
    one, each = (
        solve_delayed(DelayedSDE(sde, delay), theta0, (0.0, 1.0), n_steps=4, generator=seed)
        for delay in (0.5, torch.full((n, n), 0.5))
    )
    assert_agree(one.lifted, each.lifted, 1e-11)


@pytest.mark.parametrize("coupling", [GraphCoupling(adjacency(), lag=random(6, 6)), LocalCoupling(1, lag=random(6))])
def test_lags_of_edges_and_delays_of_edges_belong_together(coupling: Coupling) -> None:
    sde, theta0 = KuramotoSDE(6, coupling, NOISELESS), random_angles(2, 6)
    one, each = (
        solve_delayed(DelayedSDE(sde, delay), theta0, (0.0, 1.0), n_steps=4) for delay in (0.5, torch.full((6, 6), 0.5))
    )
    assert_agree(one.lifted, each.lifted, 1e-11)


@given(seeds, st.booleans())
def test_whole_turns_and_the_batch_change_nothing(seed: int, pairs: bool) -> None:
    sde, theta0 = kuramoto("global"), random_angles(3, 5, seed=seed)
    delay = (random(5, 5, seed=seed).abs() * 4).round() / 8 if pairs else 0.25
    turns = (3.0 * random(3, 5, seed=seed + 1)).round()

    def solved(angles: Tensor, first: int = 0) -> Tensor:
        return solve_delayed(
            DelayedSDE(sde, delay), angles, (0.0, 0.5, 1.0), n_steps=8, generator=seed, first_sample=first
        ).lifted

    whole = solved(theta0)
    assert_agree(solved(theta0 + 2 * math.pi * turns) - 2 * math.pi * turns, whole, 1e-10)
    assert torch.equal(solved(theta0[1:], 1), whole[:, 1:])


@given(seeds, st.integers(1, 7), st.booleans())
def test_a_solve_goes_on_from_its_own_end(seed: int, k: int, pairs: bool) -> None:
    """The same path cut in two; the angles until then are the history."""
    grid = tuple(i / 8 for i in range(9))
    delay = (random(6, 6, seed=seed).abs() * 4).round() / 8 if pairs else 0.25
    equation, theta0 = DelayedSDE(kuramoto("graph"), delay), random_angles(2, 6, seed=seed)
    path = Brownian(grid, (2, 6), seed, torch.float64)
    whole = solve_delayed(equation, theta0, grid, n_steps=8, brownian=path)
    first = solve_delayed(equation, theta0, grid[: k + 1], n_steps=k, brownian=path)
    past = torch.cat((theta0.expand(40, 2, 6), first.lifted))
    rest = solve_delayed(equation, past, grid[k:], n_steps=8 - k, brownian=path)
    assert_agree(rest.lifted[-1], whole.lifted[-1], 1e-11)


def test_single_precision_differs_by_its_rounding() -> None:
    equation, theta0 = DelayedSDE(kuramoto("global"), torch.full((5, 5), 0.1)), random_angles(20, 5)
    wide, narrow = (
        solve_delayed(equation, theta0.to(dtype), (0.0, 1.0), n_steps=50, generator=0)
        for dtype in (torch.float64, torch.float32)
    )
    assert narrow.theta.dtype == torch.float32
    assert (wide.lifted - narrow.lifted).abs().max() < 1e-5


@pytest.mark.parametrize("pairs", [False, True])
def test_gradients_reach_the_history_and_the_weights(pairs: bool) -> None:
    delay = torch.tensor([[0.0, 0.5, 0.25], [0.25, 0.0, 0.5], [0.5, 0.5, 0.25]]) if pairs else 0.25

    def end(before: Tensor, weights: Tensor) -> Tensor:
        sde = KuramotoSDE(3, DenseCoupling(weights), NOISELESS)
        return solve_delayed(DelayedSDE(sde, delay), before, (0.0, 1.0), n_steps=4).lifted[-1]

    weights = random(3, 3, seed=1)
    weights[0, 1] = 0.0
    assert torch.autograd.gradcheck(end, (random(3, 1, 3).requires_grad_(), weights.requires_grad_()))


@pytest.mark.parametrize("sick_from", [1, 4, 8])
def test_a_failure_keeps_what_was_computed(sick_from: int) -> None:
    """A forcing that is no number from a step on."""
    sde = KuramotoSDE(
        2, GlobalCoupling(), Schedule.constant(1.0, 1.0, 0.1),
        lambda t: math.nan if float(t) > (sick_from - 0.5) / 8 else 0.0,
    )  # fmt: skip
    solution = solve_delayed(
        DelayedSDE(sde, 0.25), torch.zeros(3, 2), [i / 8 for i in range(9)], n_steps=8, generator=0, on_failure="return"
    )
    assert (solution.stats.status, solution.stats.samples) == ("non_finite", (0, 1, 2))
    assert len(solution.ts) == sick_from
    with pytest.raises(SolveError, match="not finite"):
        solution.or_raise("raise")


def test_a_delay_that_is_no_multiple_of_the_step_is_refused_with_what_fits() -> None:
    sde, still = kuramoto("global"), torch.zeros(1, 5)
    with pytest.raises(ValueError, match=r"delay of 0.3 is 2.1 steps .* take n_steps=10$"):
        solve_delayed(DelayedSDE(sde, 0.3), still, (0.0, 1.0), n_steps=7)
    with pytest.raises(ValueError, match=r"round delays to steps"):
        solve_delayed(DelayedSDE(sde, random(5, 5).abs()), still, (0.0, 1.0), n_steps=7)
    assert solve_delayed(DelayedSDE(sde, torch.tensor(0.3)), still, (0.0, 1.0), n_steps=10).succeeded


@pytest.mark.parametrize(
    ("delay", "ts", "past", "message"),
    [
        (0.5, (0.0, 0.3, 1.0), torch.zeros(1, 5), "equal steps"),
        (0.5, (0.0, 1.0), torch.zeros(2, 1, 5), "must hold 3 steps, from -0.5 to 0, got 2"),
        (0.5, (0.0, 1.0), torch.full((3, 1, 5), math.nan), "history must be finite"),
        (0.5, (0.0, 1.0), torch.zeros(1, 4), r"history must have shape \(batch, 5\)"),
    ],
)
def test_what_cannot_be_solved_is_refused(delay: float, ts: tuple[float, ...], past: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve_delayed(DelayedSDE(kuramoto("global"), delay), past, ts, n_steps=4)


def test_what_has_no_delay_is_refused() -> None:
    with pytest.raises(TypeError, match="eq. \\(1\\), got a DaidoSDE"):
        DelayedSDE(DaidoSDE(3, harmonics={2: 1.0}), 0.1)
    with pytest.raises(ValueError, match="must not be negative"):
        DelayedSDE(kuramoto("global"), -0.1)
    with pytest.raises(ValueError, match=r"shape \(5, 5\), got \(4, 4\)"):
        DelayedSDE(kuramoto("global"), torch.zeros(4, 4))
    triads = KuramotoSDE(3, SimplicialCoupling(triangles=0.5))
    with pytest.raises(ValueError, match="weighted sum"):
        solve_delayed(DelayedSDE(triads, torch.full((3, 3), 0.5)), torch.zeros(1, 3), (0.0, 1.0), n_steps=4)
    assert solve_delayed(DelayedSDE(triads, 0.5), torch.zeros(1, 3), (0.0, 1.0), n_steps=4).succeeded
    alone = KuramotoSDE(3, NoCoupling())
    assert solve_delayed(DelayedSDE(alone, torch.ones(3, 3)), torch.zeros(1, 3), (0.0, 1.0), n_steps=4).succeeded

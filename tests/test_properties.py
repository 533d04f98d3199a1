"""Properties of every method on every coupling: symmetries, independence of batch and threads, dtypes, winding."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circsde.coupling import GlobalCoupling, LocalCoupling, NoCoupling
from circsde.graph import GraphCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.solvers import METHODS, BrownianPath, Solution, sdeint
from circsde.torus import TWO_PI, distance, wrap
from strategies import (
    ALL_METHODS,
    COUPLINGS,
    Replay,
    adjacency,
    assert_agree,
    couplings,
    kuramoto,
    methods,
    random_angles,
    rebuilt,
    recorded,
    seeds,
    tilts,
)

pytestmark = pytest.mark.filterwarnings("ignore:.* is unstable where rate times step:RuntimeWarning")  # three steps

STEPS = 3
ROUNDING = 1e-11  # rad: some hundred ulps of angles of a few turns, little amplified over three steps


def solve(sde: SDE, theta0: Tensor, method: str, path: BrownianPath) -> Solution:
    return sdeint(sde, theta0, (0.0, 1.0), n_steps=STEPS, method=ALL_METHODS[method], brownian=path)


def setting(name: str, seed: int, batch: int = 2) -> tuple[KuramotoSDE, Tensor, Replay]:
    """An equation with that coupling, a state and a path."""
    event = COUPLINGS[name][1]
    return kuramoto(name, seed), random_angles(batch, *event, seed=seed + 2), recorded((batch, *event), STEPS, seed)


def assert_moves(before: Solution, after: Solution, expected: Tensor) -> None:
    """The lifted result has moved by ``expected``."""
    assert_agree(after.lifted[-1], before.lifted[-1] + expected, ROUNDING)


@given(couplings, methods, seeds, st.integers(-100, 100))
def test_turning_oscillators_by_whole_turns_changes_nothing_but_their_winding(
    name: str, method: str, seed: int, most: int
) -> None:
    sde, theta0, path = setting(name, seed)
    turns = torch.randint(-abs(most), abs(most) + 1, theta0.shape, generator=torch.Generator().manual_seed(seed))
    before = solve(sde, theta0, method, path)
    after = solve(sde, theta0 + TWO_PI * turns.double(), method, path)
    assert distance(after.theta, before.theta).max() < 100 * ROUNDING
    assert torch.equal(((after.lifted - before.lifted) / TWO_PI).round().long()[-1], turns)
    inside = (before.theta.abs() < 3.14).all(0)  # within a rounding of the seam an angle may lie on either side
    assert torch.equal((after.winding - before.winding)[-1][inside], turns[inside])


@given(couplings, methods, seeds, tilts)
def test_rotating_all_phases_and_the_reference_rotates_the_result(
    name: str, method: str, seed: int, tilt: float
) -> None:
    sde, theta0, path = setting(name, seed)
    rotated = rebuilt(sde, phase=lambda psi: psi + tilt)
    before, after = solve(sde, theta0, method, path), solve(rotated, theta0 + tilt, method, path)
    assert_moves(before, after, torch.full_like(theta0, tilt))


@pytest.mark.parametrize("method", ALL_METHODS)
def test_rotating_the_phases_alone_changes_the_motion(method: str) -> None:
    sde, theta0, path = setting("global", 0)
    before, after = solve(sde, theta0, method, path), solve(sde, theta0 + 1.0, method, path)
    assert (after.lifted - before.lifted - 1.0).abs().max() > 0.01


@given(couplings, methods, seeds)
def test_mirroring_phases_reference_frequency_and_noise_mirrors_the_result(name: str, method: str, seed: int) -> None:
    sde, theta0, path = setting(name, seed)
    before = solve(sde, theta0, method, path)
    after = solve(rebuilt(sde, torch.neg, torch.neg), -theta0, method, path.map(torch.neg))
    assert_agree(after.lifted, -before.lifted, ROUNDING)


def relabelled(name: str, change: Callable[[Tensor], Tensor], method: str, seed: int, matrix: Tensor) -> None:
    """Solving what has been relabelled by ``change`` (over event axes) is relabelling what has been solved."""
    sde, theta0, path = setting(name, seed)
    coupling = GraphCoupling(matrix) if name == "graph" else sde.coupling
    per_event: Callable[[Tensor], Tensor] = lambda x: change(x[None])[0]  # noqa: E731
    before = solve(sde, theta0, method, path)
    after = solve(rebuilt(sde, per_event, per_event, coupling), change(theta0), method, path.map(change))
    assert_agree(after.lifted[-1], change(before.lifted[-1]), ROUNDING)


@given(st.sampled_from(["none", "global", "global image"]), methods, seeds)
def test_exchangeable_oscillators_may_be_permuted(name: str, method: str, seed: int) -> None:
    event = COUPLINGS[name][1]
    order = torch.randperm(torch.Size(event).numel(), generator=torch.Generator().manual_seed(seed))
    relabelled(name, lambda x: x.flatten(1)[:, order].reshape(x.shape), method, seed, adjacency())


@given(methods, seeds)
def test_the_vertices_of_a_graph_may_be_relabelled(method: str, seed: int) -> None:
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    relabelled("graph", lambda x: x[:, order], method, seed, adjacency()[order][:, order])


def test_a_graph_that_keeps_its_labels_gives_another_result() -> None:
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    with pytest.raises(AssertionError, match="not close"):
        relabelled("graph", lambda x: x[:, order], "heun", 0, adjacency())


@given(st.sampled_from(["periodic ring", "periodic image"]), methods, seeds, st.integers(-9, 9), st.integers(-9, 9))
def test_a_periodic_window_may_be_shifted(name: str, method: str, seed: int, down: int, right: int) -> None:
    axes = {"periodic ring": (1,), "periodic image": (2, 3)}[name]
    relabelled(name, lambda x: x.roll((down, right)[: len(axes)], axes), method, seed, adjacency())


@given(methods, seeds)
def test_a_reflecting_window_may_be_mirrored(method: str, seed: int) -> None:
    relabelled("reflecting image", lambda x: x.flip(1, 2), method, seed, adjacency())


def test_a_reflecting_window_may_not_be_shifted() -> None:
    with pytest.raises(AssertionError, match="not close"):
        relabelled("reflecting image", lambda x: x.roll(1, 1), "heun", 0, adjacency())


@given(couplings, methods, seeds)
def test_no_argument_is_mutated(name: str, method: str, seed: int) -> None:
    sde, theta0, path = setting(name, seed)
    held = copy.deepcopy((theta0, path, dict(sde.state_dict())))
    solve(sde, theta0, method, path)
    assert torch.equal(theta0, held[0])
    for noise, kept in zip(path.noises, held[1].noises, strict=True):
        assert torch.equal(noise.dW, kept.dW)
        assert noise.dZ is not None
        assert kept.dZ is not None
        assert torch.equal(noise.dZ, kept.dZ)
    assert all(torch.equal(value, held[2][key]) for key, value in sde.state_dict().items())


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("name", COUPLINGS)
def test_a_sample_takes_the_same_path_alone_and_in_any_batch(name: str, method: str) -> None:
    """Bitwise: the same numbers are rounded alike wherever they lie in memory."""
    sde, theta0, _ = setting(name, 3, batch=5)

    def lifted(first: int, last: int) -> Tensor:
        start, chosen = theta0[first:last], ALL_METHODS[method]
        return sdeint(sde, start, (0.0, 1.0), n_steps=STEPS, method=chosen, generator=7, first_sample=first).lifted

    whole = lifted(0, 5)
    for first, last in ((0, 1), (3, 4), (1, 5)):
        assert torch.equal(lifted(first, last), whole[:, first:last])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", COUPLINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_state_keeps_its_dtype(name: str, method: str, dtype: torch.dtype) -> None:
    """And comes out where float64 does, within what its steps round, amplified by at most e^3."""
    sde, theta0, path = setting(name, 4)
    theta0, path = theta0.to(dtype), path.map(lambda x: x.to(dtype))
    solution = solve(sde, theta0, method, path)
    exact = solve(sde, theta0.double(), method, path.map(Tensor.double))
    assert (solution.theta.dtype, solution.winding.dtype) == (dtype, torch.int64)
    assert (solution.lifted - exact.lifted).abs().max() < 600 * torch.finfo(dtype).eps
    pi = torch.tensor(math.pi, dtype=dtype)
    assert bool(((solution.theta >= -pi) & (solution.theta < pi)).all())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_the_state_keeps_its_device() -> None:
    """And comes out where the CPU has it on the same path; a path drawn there stays there."""
    for name in COUPLINGS:
        for method in METHODS:
            sde, theta0, path = setting(name, 4)
            expected = solve(sde, theta0, method, path)
            there = sde.to("cuda"), theta0.to("cuda")
            solution = solve(*there, method, path.map(lambda x: x.to("cuda")))
            assert solution.theta.device.type == solution.winding.device.type == "cuda"
            assert_agree(solution.lifted.cpu(), expected.lifted, ROUNDING)
            assert sdeint(*there, (0.0, 1.0), n_steps=STEPS, method=method, generator=1).theta.device.type == "cuda"


@given(couplings, methods, seeds)
def test_the_same_seed_gives_the_same_result(name: str, method: str, seed: int) -> None:
    sde, theta0, _ = setting(name, seed)
    first, again, other = (
        sdeint(sde, theta0, (0.0, 1.0), n_steps=STEPS, method=ALL_METHODS[method], generator=s)
        for s in (seed, seed, seed + 1)
    )
    assert torch.equal(first.lifted, again.lifted)
    assert not torch.equal(first.lifted, other.lifted)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("coupling", "event"), [(NoCoupling(), (999,)), (GlobalCoupling(), (9999,)), (LocalCoupling(3), (3, 50, 50))]
)
def test_the_number_of_threads_changes_no_bit(coupling: GlobalCoupling, event: tuple[int, ...], method: str) -> None:
    """Samples of 33,000 numbers in all, which torch shares among threads."""
    batch = -(-33_000 // math.prod(event))
    sde, theta0 = KuramotoSDE(event, coupling), random_angles(batch, *event).float()
    threads, ends = torch.get_num_threads(), []
    try:
        for available in (1, 2):
            torch.set_num_threads(available)
            ends.append(sdeint(sde, theta0, (0.0, 1.0), n_steps=2, method=method, generator=0).lifted)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*ends)


TURN = 315.7  # rad per step
MANY = 2000


@pytest.mark.parametrize("method", METHODS)
def test_the_winding_is_exact_over_a_hundred_thousand_turns_in_float32(method: str) -> None:
    """No noise and no coupling: the lifted angle is known. Eight steps of 320 rad round by at most 2^-13 each."""
    w = TURN * MANY * torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    sde = KuramotoSDE((3,), NoCoupling(), Schedule.constant(diffusion=0.0), natural_frequency=w)
    theta0 = torch.tensor([[-2.0, 0.3, 1.1]])
    solution = sdeint(sde, theta0, torch.linspace(0, 1, 21, dtype=torch.float64), n_steps=MANY, method=method)
    exact = theta0.double() + w * solution.ts[:, None, None]
    assert (exact / TWO_PI).abs().amax() > 1e5
    error = (solution.lifted - exact).abs().amax((1, 2))
    steps = torch.arange(21) * MANY / 20
    assert bool((error <= 2.0**-12 * steps + 1e-6).all())
    clear = wrap(exact).abs() < 3.0  # away from the seam, where that rounding decides
    assert torch.equal(solution.winding[clear], ((exact + math.pi) / TWO_PI).floor().long()[clear])


def test_adding_up_in_float32_loses_count_long_before() -> None:
    theta, exact = torch.tensor([0.3]), 0.3
    for _ in range(MANY):
        theta, exact = theta + TURN, exact + TURN
    assert abs(theta.item() - exact) > math.pi

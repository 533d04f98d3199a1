"""The time loop: what a solution holds, exact answers without noise, reports of failures, what is refused."""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from inspect import unwrap
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from circsde.coupling import GlobalCoupling, NoCoupling
from circsde.delay import DelayedSDE
from circsde.inertia import InertialSDE
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.sde import SDE, reverse
from circsde.solvers import METHODS, Brownian, Noise, SolveError, sdeint
from circsde.torus import order_parameter
from circsde.typing import Time
from strategies import ALL_METHODS, COUPLINGS, SINUSOIDAL, assert_agree, kuramoto, random_angles, recorded


def equation(drift: Callable[[Time, Tensor], Tensor], amplitude: float = 0.1, horizon: float = 1.0) -> SDE:
    return SDE(drift, lambda t: amplitude, horizon)


def still(t: Time, theta: Tensor) -> Tensor:  # noqa: ARG001
    return torch.zeros_like(theta)


def test_a_solution_holds_the_output_times_wrapped_angles_and_turns() -> None:
    sde, theta0 = kuramoto("global"), 10 * random_angles(3, 5)
    ts = [0.0, 0.25, 1 / 3, 1.0]
    solution = sdeint(sde, theta0, ts, n_steps=24, generator=0)
    assert solution.ts.tolist() == ts
    assert solution.ts.dtype == torch.float64
    assert solution.theta.shape == solution.winding.shape == (4, 3, 5)
    assert bool(((solution.theta >= -math.pi) & (solution.theta < math.pi)).all())
    assert_agree(solution.lifted[0], theta0)
    assert solution.succeeded
    assert (solution.stats.steps, solution.stats.nfe, solution.stats.message) == (24, 48, "")


@pytest.mark.parametrize("method", METHODS)
def test_more_output_times_do_not_change_the_path(method: str) -> None:
    """Output times are steps, and saving one changes nothing beyond rounding."""
    sde, theta0 = kuramoto("global"), random_angles(3, 5)
    few = sdeint(sde, theta0, (0.0, 0.5, 1.0), n_steps=20, method=method, generator=0)
    many = sdeint(sde, theta0, [i / 20 for i in range(21)], n_steps=20, method=method, generator=0)
    assert_agree(many.lifted[[0, 10, 20]], few.lifted)


@pytest.mark.parametrize("name", ALL_METHODS)
def test_the_drift_is_evaluated_as_often_as_claimed(name: str) -> None:
    calls = 0

    class Counting(KuramotoSDE):
        def drift(self, t: Time, theta: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return super().drift(t, theta)

        def impulse(self, t0: float, t1: float, theta: Tensor) -> tuple[Tensor, Tensor, float | Tensor]:
            nonlocal calls
            calls += 1
            return super().impulse(t0, t1, theta)

        periodic = True  # so that no check evaluates it

    for coupling in (GlobalCoupling(), NoCoupling()):
        calls = 0
        solution = sdeint(Counting((4,), coupling), random_angles(2, 4), (0, 1), n_steps=7, method=ALL_METHODS[name])
        assert solution.stats.nfe == calls


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 7, 99, 100, 101, 333])
def test_the_number_of_steps_is_exact(method: str, n: int) -> None:
    """Around 100 steps too, where torchsde becomes a hundred times slower in float32."""
    steps: list[int] = []
    sde, theta0 = KuramotoSDE((2,), NoCoupling()), torch.zeros(1, 2)
    by_count = sdeint(sde, theta0, (0.0, 1.0), n_steps=n, method=method, progress=steps.append)
    by_width = sdeint(sde, theta0, (0.0, 1.0), dt=1 / n, method=method)
    assert steps == list(range(1, n + 1))
    assert (by_count.stats.steps, by_width.stats.steps) == (n, n)


def test_tiny_steps_at_large_times_end_with_float32_states() -> None:
    sde = equation(lambda t, theta: torch.ones_like(theta), 0.0, horizon=2000.0)
    solution = sdeint(sde, torch.zeros(1, 1), (1000.0, 1000.001), dt=1e-5)
    assert solution.stats.steps == 100
    assert solution.lifted[-1].item() == pytest.approx(1e-3, rel=1e-6)


NOISELESS = Schedule.linear((0.0, 3.0, 0.0), (0.0, 1.0, 0.0))


@pytest.mark.parametrize("method", [name for name in METHODS if name != "leimkuhler_matthews"])
def test_without_noise_an_attracted_phase_follows_the_exact_curve(method: str) -> None:
    """``tan(theta/2)`` decays like ``exp(-integral of K_ref)``; 10 to 40 steps, the error falls at the weak order."""
    theta0 = torch.tensor([[2.8, -1.0]], dtype=torch.float64)
    exact = 2 * (torch.tan(theta0 / 2) * math.exp(-2.0)).atan()
    sde = KuramotoSDE((2,), NoCoupling(), NOISELESS)
    errors = [
        (sdeint(sde, theta0, (0, 1), n_steps=n, method=method).lifted[-1] - exact).abs().max().item() for n in (20, 80)
    ]
    if method in SINUSOIDAL:
        assert max(errors) < 1e-14
    else:
        assert errors[0] / errors[1] == pytest.approx(4 ** METHODS[method].weak_order, rel=0.2)


@pytest.mark.parametrize("method", sorted(SINUSOIDAL))
def test_mobius_flows_are_exact_for_drifting_oscillators_too_and_count_their_turns(method: str) -> None:
    """Period ``2 pi / sqrt(w^2 - K_ref^2)`` of ``theta' = w - K_ref sin(theta)``."""
    w, K_ref = 50.0, 30.0
    sde = KuramotoSDE((1,), NoCoupling(), Schedule.constant(0.0, K_ref, 0.0, horizon=10.0), natural_frequency=w)
    period = 2 * math.pi / math.sqrt(w**2 - K_ref**2)
    solution = sdeint(sde, torch.zeros(1, 1).double(), (0.0, 40 * period), n_steps=13, method=method)
    assert solution.lifted[-1].item() == pytest.approx(40 * 2 * math.pi, abs=1e-11)
    assert solution.winding[-1].item() == 40


@pytest.mark.parametrize("method", METHODS)
def test_strong_attraction_beyond_the_step_is_stable_only_for_mobius_flows(method: str) -> None:
    """``K_ref h = 20``, without noise: the exact end is the reference phase."""
    sde = KuramotoSDE((3,), NoCoupling(), Schedule.constant(0.0, 200.0, 0.0), reference_phase=0.7)
    theta0 = torch.tensor([[-2.0, 0.5, 3.0]], dtype=torch.float64)
    with nullcontext() if method in SINUSOIDAL else pytest.warns(RuntimeWarning, match="about 200 steps"):
        gap = (sdeint(sde, theta0, (0, 1), n_steps=10, method=method).theta[-1] - 0.7).abs().max()
    assert gap < 1e-12 if method in SINUSOIDAL else gap > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_gradients_flow_through_two_steps(method: str) -> None:
    """Against finite differences in float64: with respect to the start, and to a parameter of the score."""
    sde, theta0 = kuramoto("global"), random_angles(1, 5)
    path = recorded((1, 5), 2)

    def forward(start: Tensor) -> Tensor:
        return sdeint(sde, start, (0.0, 1.0), n_steps=2, method=method, brownian=path).theta[-1]

    def backward(weight: Tensor) -> Tensor:
        backwards = reverse(sde, lambda t, theta: -weight * theta.sin())
        return sdeint(backwards, theta0, (0.0, 1.0), n_steps=2, method=method, brownian=path).theta[-1]

    assert torch.autograd.gradcheck(forward, (theta0.clone().requires_grad_(),))
    assert torch.autograd.gradcheck(backward, (torch.tensor([0.8], dtype=torch.float64, requires_grad=True),))


@pytest.mark.parametrize("method", [name for name in METHODS if name not in SINUSOIDAL])
@pytest.mark.parametrize("sick_from", [0, 5, 7, 8, 30])
@pytest.mark.parametrize(("value", "status"), [(math.nan, "non_finite"), (math.inf, "non_finite"), (1e20, "overflow")])
def test_a_failure_names_step_time_and_samples_and_keeps_what_was_computed(
    value: float, status: str, sick_from: int, method: str
) -> None:
    """Methods that look at the end of a step fail one step before the others; outputs are at every fifth step."""
    ts, path, theta0 = torch.linspace(0, 1, 9, dtype=torch.float64), recorded((4, 3), 40), torch.zeros(4, 3).double()

    def drift(t: Time, theta: Tensor) -> Tensor:
        sick = torch.zeros_like(theta)
        sick[[1, 3], 2] = value if float(t) > (sick_from - 0.5) / 40 else 0.0
        return sick

    with pytest.raises(SolveError, match=status) as raised:
        sdeint(equation(drift), theta0, ts, n_steps=40, method=method, brownian=path)
    solution = raised.value.solution
    returned = sdeint(equation(drift), theta0, ts, n_steps=40, method=method, brownian=path, on_failure="return")
    assert (solution.stats, solution.ts.tolist()) == (returned.stats, returned.ts.tolist())
    stats, failed = solution.stats, max(0, sick_from - (METHODS[method].nfe == 2))
    assert not solution.succeeded
    assert (stats.status, stats.samples, stats.steps) == (status, (1, 3), failed)
    assert stats.nfe == (failed + 1) * METHODS[method].nfe
    assert stats.message.startswith(f"step {failed} to t = {(failed + 1) / 40:g}: an angle of samples 1, 3 ")
    assert stats.message.endswith("; take smaller steps, or check the drift there")

    kept = failed // 5 + 1
    assert solution.ts.tolist() == ts.tolist()[:kept]
    well = sdeint(equation(still), theta0, ts, n_steps=40, method=method, brownian=path)
    assert torch.equal(solution.theta, well.theta[:kept])


@pytest.mark.parametrize("method", sorted(SINUSOIDAL))
def test_a_failing_score_stops_mobius_flows_too(method: str) -> None:
    sde = reverse(kuramoto("none"), lambda t, theta: torch.full_like(theta, math.nan))
    stats = sdeint(sde, random_angles(2, 4), (0, 1), n_steps=10, method=method, on_failure="return").stats
    assert (stats.status, stats.steps, stats.samples) == ("non_finite", 0, (0, 1))


def test_many_failing_samples_are_counted_but_not_all_named() -> None:
    sde = equation(lambda t, theta: theta / 0.0)
    stats = sdeint(sde, torch.ones(9, 1), (0, 1), n_steps=2, on_failure="return").stats
    assert stats.samples == tuple(range(9))
    assert "an angle of samples 0, 1, 2, 3, 4, and 4 more is not finite" in stats.message


def test_progress_is_told_after_every_step() -> None:
    told: list[int] = []
    sdeint(kuramoto("none"), random_angles(2, 4), (0, 0.5, 1), n_steps=12, progress=told.append)
    assert told == list(range(1, 13))


def test_a_custom_method_may_be_passed() -> None:
    halves = replace(METHODS["heun"], name="two half steps", step=half_steps, nfe=4)
    sde, theta0 = kuramoto("none", schedule=Schedule.constant(0.0, 1.0, 0.0)), random_angles(2, 4)
    ours = sdeint(sde, theta0, (0, 1), n_steps=5, method=halves)
    assert_agree(ours.lifted, sdeint(sde, theta0, (0, 1), n_steps=10).lifted)
    assert ours.stats.nfe == 20


def half_steps(sde: SDE, t: float, h: float, theta: Tensor, noise: Noise) -> Tensor:
    step = METHODS["heun"].step
    half = Noise(0.5 * noise.dW)
    return step(sde, t + h / 2, h / 2, step(sde, t, h / 2, theta, half), half)


def test_the_seed_is_taken_from_torch_where_none_is_given() -> None:
    sde, theta0 = kuramoto("none"), random_angles(2, 4)
    ends = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        ends.append(sdeint(sde, theta0, (0, 1), n_steps=3).lifted)
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_one_path_is_followed_at_several_step_sizes() -> None:
    """Euler-Maruyama on the same path at n and 2 n steps differs by O(1/n); on another path by O(1)."""
    sde, theta0 = kuramoto("global"), random_angles(50, 5)
    path = Brownian(tuple(i / 64 for i in range(65)), (50, 5), 3, torch.float64)
    coarse, fine, finest = (sdeint(sde, theta0, (0, 1), n_steps=n, brownian=path).lifted[-1] for n in (16, 32, 64))
    gaps = [(a - b).square().mean().sqrt().item() for a, b in ((coarse, fine), (fine, finest))]
    assert gaps[0] < 0.05
    assert gaps[0] / gaps[1] == pytest.approx(2.0, rel=0.3)
    other = sdeint(sde, theta0, (0, 1), n_steps=64, generator=4).lifted[-1]
    assert (other - finest).square().mean().sqrt() > 0.5


@pytest.mark.parametrize("name", COUPLINGS)
def test_a_solution_becomes_a_dataset_with_named_axes(name: str) -> None:
    event = COUPLINGS[name][1]
    solution = sdeint(kuramoto(name), random_angles(2, *event), (0, 0.5, 1), n_steps=2, generator=0)
    data = solution.to_xarray(seed=7)
    axes = {1: ("oscillator",), 2: ("row", "column"), 3: ("channel", "row", "column")}[len(event)]
    assert data["theta"].dims == ("time", "sample", *axes)
    assert (data["theta"].values == solution.theta.numpy()).all()
    assert (data["winding"].values == solution.winding.numpy()).all()
    assert data["time"].values.tolist() == [0.0, 0.5, 1.0]
    assert data["theta"].attrs["units"] == "rad"
    assert (data.attrs["seed"], data.attrs["status"], data.attrs["steps"]) == (7, "success", 2)


def test_half_precision_and_gradients_are_no_obstacle_to_a_dataset() -> None:
    theta0 = torch.zeros(1, 2, dtype=torch.bfloat16, requires_grad=True)
    data = sdeint(KuramotoSDE((2,)), theta0, (0, 1), n_steps=1).to_xarray()
    assert data["theta"].dtype == "float32"


def test_order_grows_under_coupling_and_decays_without() -> None:
    """While R is small, ``R' = (K/2 - D) R``: from 0.05 by a factor e^1 and e^-0.5 in half a unit of time."""
    n = 400_000
    theta0 = torch.linspace(-math.pi, math.pi, n + 1)[None, 1:]
    theta0 = theta0 - 0.1 * theta0.sin()  # R = J_1(0.1) = 0.05
    for K, growth in ((6.0, math.e), (0.0, math.exp(-0.5))):
        sde = KuramotoSDE((n,), schedule=Schedule.constant(K, 0.0, 1.0))
        R, _ = order_parameter(sdeint(sde, theta0, (0, 0.5), n_steps=20, generator=0).theta[-1])
        assert R.item() == pytest.approx(0.05 * growth, abs=0.012)  # noise of e n^(-1/2) / 2: more than 5 sigma


class OneLess:
    """A path that runs out."""

    def increments(self, grid: Sequence[float], *, levy_area: bool) -> Iterator[Noise]:  # noqa: ARG002
        return iter([Noise(torch.zeros(2, 3))] * (len(grid) - 2))


GOOD: dict[str, Any] = {"theta0": torch.zeros(2, 3), "ts": (0.0, 1.0), "n_steps": 4}


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (
            {"theta0": torch.tensor([[0.0, math.nan, 0.0]])},
            ValueError,
            "theta0 must be finite, got nan at index (0, 1)",
        ),
        ({"theta0": torch.tensor([[0.0, 0.0, -math.inf]])}, ValueError, "theta0 must be finite, got -inf at index"),
        ({"theta0": torch.zeros(2, 4)}, ValueError, "theta0 must have shape (batch, 3), got (2, 4)"),
        ({"theta0": torch.zeros(2, 3, 1)}, ValueError, "theta0 must have shape (batch, 3), got (2, 3, 1)"),
        ({"theta0": torch.zeros(3)}, ValueError, "theta0 must have shape (batch, 3), got (3,)"),
        ({"theta0": torch.zeros(0, 3)}, ValueError, "theta0 must hold at least one angle, got shape (0, 3)"),
        (
            {"theta0": torch.zeros(2, 3, dtype=torch.int64)},
            TypeError,
            "theta0 must be a floating-point tensor",
        ),
        ({"ts": (0.0, 1.5)}, ValueError, "ts must lie in [0, 1], the horizon, got [0, 1.5]"),
        ({"ts": (-0.5, 1.0)}, ValueError, "ts must lie in [0, 1], the horizon, got [-0.5, 1]"),
        ({"ts": (1.0, 0.0)}, ValueError, "ts must increase, got [1.0, 0.0]; to go back in time"),
        ({"n_steps": 0}, ValueError, "n_steps must be at least 1"),
        ({"n_steps": -1}, ValueError, "n_steps must be at least 1"),
        ({"dt": 0.1}, ValueError, "give exactly one of n_steps, dt and grid, got n_steps=4, dt=0.1"),
        ({"n_steps": None, "dt": -0.1}, ValueError, "dt must be positive and finite, got -0.1"),
        ({"n_steps": None}, ValueError, "give exactly one of n_steps, dt and grid, got none of them"),
        ({"method": "rk4"}, ValueError, "unknown method 'rk4'; choose one of euler_maruyama, heun, sra1"),
        ({"brownian": Brownian((0.0, 0.3, 1.0), (2, 3), 0)}, ValueError, "is not on this Brownian path"),
        ({"brownian": Brownian((0.0, 1.0), (5, 3), 0), "n_steps": 1}, ValueError, "(5, 3)"),
        ({"brownian": Brownian((0.0, 1.0), (2, 3), 0, torch.float64), "n_steps": 1}, ValueError, "torch.float64"),
        ({"brownian": OneLess()}, ValueError, "ended after 3 of 4 steps"),
    ],
)
def test_bad_input_is_refused(bad: dict[str, Any], error: type[Exception], message: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # without the tests' own check of types
    with pytest.raises(error, match=re.escape(message)):
        sdeint(KuramotoSDE((3,)), **(GOOD | bad))


def test_a_path_without_areas_is_refused_by_methods_that_read_them() -> None:
    path = recorded((2, 3), 4).without_areas()
    for method in METHODS.values():
        if method.levy_area:
            with pytest.raises(ValueError, match=f"{method.name} reads dZ, which this Brownian path does not have"):
                sdeint(KuramotoSDE((3,)), torch.zeros(2, 3).double(), (0, 1), n_steps=4, method=method, brownian=path)


@pytest.mark.parametrize("method", sorted(SINUSOIDAL))
def test_mobius_flows_are_refused_for_a_drift_that_is_not_sinusoidal(method: str) -> None:
    with pytest.raises(TypeError, match=rf"{method}.* needs a drift w \+ Im\(H e\^\(-i theta\)\).*got SDE; use"):
        sdeint(equation(still), torch.zeros(1, 1), (0, 1), n_steps=1, method=method)


def test_a_given_path_and_a_generator_for_a_new_one_are_refused_together() -> None:
    path = Brownian((0.0, 1.0), (1, 2), 0)
    with pytest.raises(ValueError, match="leave out generator"):
        sdeint(KuramotoSDE((2,)), torch.zeros(1, 2), (0.0, 1.0), n_steps=1, brownian=path, generator=1)


def test_an_integer_of_any_kind_is_a_seed() -> None:
    ends = [
        sdeint(KuramotoSDE((2,)), torch.zeros(1, 2), (0.0, 1.0), n_steps=2, generator=seed).theta
        for seed in (3, np.int64(3), torch.tensor(3))
    ]
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_the_drift_can_be_mapped_over_a_new_axis() -> None:
    theta = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sde = KuramotoSDE((5,))
    mapped = torch.vmap(lambda x: sde.drift(0.5, x))(theta)
    torch.testing.assert_close(mapped, torch.stack([sde.drift(0.5, x) for x in theta]), rtol=0, atol=1e-14)


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["euler_maruyama", "sra1"])
def test_many_small_steps_add_up_in_every_dtype(method: str, dtype: torch.dtype) -> None:
    """A drift of 1 for a unit of time in 2,000 steps: bfloat16 and float16 have increments below their resolution."""
    sde = equation(lambda t, theta: torch.ones_like(theta), 0.0)
    solution = sdeint(sde, torch.zeros(1, 1, dtype=dtype), (0.0, 1.0), n_steps=2_000, method=method)
    assert solution.lifted[-1].item() == pytest.approx(1.0, abs=torch.finfo(dtype).eps)


def test_adding_them_up_in_the_dtype_of_the_angles_would_be_noticed() -> None:
    for dtype in DTYPES[1:]:
        theta = torch.zeros((), dtype=dtype)
        for _ in range(2_000):
            theta = theta + torch.tensor(5e-4, dtype=dtype)
        assert abs(theta.item() - 1.0) > 3 * torch.finfo(dtype).eps


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_angles_follow_the_path_of_wide_ones_to_their_rounding(method: str) -> None:
    sde, theta0 = kuramoto("global"), random_angles(3, 5).bfloat16()
    wide, half = (
        sdeint(sde, start, (0.0, 1.0), n_steps=200, method=method, generator=0).lifted[-1]
        for start in (theta0.double(), theta0)
    )
    assert (wide - half).abs().max() < 0.5 * torch.finfo(torch.bfloat16).eps * 4.0  # angles below 4 rad
    assert half.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_one_seed_gives_float32_and_float64_angles_one_path(method: str) -> None:
    """To the rounding of float32 fields: 20 steps, each off by some 1e-7 rad."""
    sde, theta0 = kuramoto("global"), random_angles(3, 5).float()
    wide, narrow = (
        sdeint(sde, start, (0.0, 1.0), n_steps=20, method=method, generator=3).lifted
        for start in (theta0.double(), theta0)
    )
    assert (wide - narrow).abs().max() < 5e-6
    other = sdeint(sde, theta0, (0.0, 1.0), n_steps=20, method=method, generator=4).lifted
    assert (wide - other).abs().max() > 0.1


class Halved(torch.nn.Linear):
    """A network with half-precision weights, which takes nothing else."""

    def drift(self, t: Time, theta: Tensor) -> Tensor:  # noqa: ARG002
        return torch.as_tensor(self(theta.sin()))


def test_a_network_in_half_precision_is_given_half_precision_angles() -> None:
    network = Halved(3, 3).bfloat16()
    sde = equation(network.drift)
    sde.add_module("network", network)
    solution = sdeint(sde, torch.zeros(2, 3, dtype=torch.bfloat16), (0.0, 1.0), n_steps=2)
    assert solution.theta.dtype == torch.bfloat16


class Sine(torch.nn.Module):
    """A score that is a module."""

    def forward(self, t: Time, theta: Tensor) -> Tensor:  # noqa: ARG002
        return -theta.sin()


def test_solving_does_not_change_the_equation() -> None:
    """Fields in another dtype are read through a copy."""
    sde = reverse(kuramoto("global"), Sine())
    before = dict(sde.named_modules()), dict(vars(sde)), dict(sde._modules)
    sdeint(sde, torch.zeros(2, 5), (0.0, 1.0), n_steps=2, method="multistep")
    assert (dict(sde.named_modules()), dict(vars(sde)), dict(sde._modules)) == before


def test_a_failure_that_does_not_repeat_is_reported_from_the_angles_at_hand() -> None:
    """The drift answers NaN once, at its fifth evaluation in the loop; walking again would not find it."""
    calls = iter(range(10**6))

    class Once(KuramotoSDE):
        periodic = True

        def drift(self, t: Time, theta: Tensor) -> Tensor:  # noqa: ARG002
            sick = torch.zeros_like(theta)
            sick[1] = math.nan if next(calls) == 4 else 0.0
            return sick

    stats = sdeint(
        Once((2,), NoCoupling()), torch.zeros(3, 2), (0, 1), n_steps=20, method="euler_maruyama", on_failure="return"
    ).stats
    assert (stats.status, stats.steps, stats.samples) == ("non_finite", 4, (1,))


def test_another_choice_on_failure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # without the tests' own check of types
    with pytest.raises(ValueError, match='on_failure must be "raise" or "return"'):
        sdeint(KuramotoSDE((2,)), torch.zeros(1, 2), (0.0, 1.0), n_steps=1, on_failure="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("T", [0.1, 0.3, 0.7, 2.3, 10.1, 2 * math.pi])
def test_float32_times_up_to_the_horizon_are_taken(T: float) -> None:
    sde = equation(still, horizon=T)
    solution = sdeint(sde, torch.zeros(1, 1), torch.linspace(0, T, 4), n_steps=6)
    assert len(solution.ts) == 4
    assert solution.ts[-1].item() <= T


def test_a_dataset_says_how_it_was_made() -> None:
    data = sdeint(KuramotoSDE((2,)), torch.zeros(1, 2), (0, 1), n_steps=1).to_xarray(seed=3)
    assert data["time"].attrs["units"] == "1"
    assert json.loads(data.attrs["versions"])["torch"] == torch.__version__
    assert json.loads(data.attrs["options"]) == {"seed": 3}


@pytest.mark.parametrize(
    ("equation", "by"),
    [(InertialSDE(KuramotoSDE(3)), "solve_inertial"), (DelayedSDE(KuramotoSDE(3), delay=0.5), "solve_delayed")],
)
def test_equations_that_others_solve_are_sent_to_them(equation: Any, by: str) -> None:
    with pytest.raises(TypeError, match=f"^sdeint takes an SDE, got a .*, which circsde.{by} solves$"):
        unwrap(sdeint)(equation, torch.zeros(2, 3), (0.0, 1.0), n_steps=4)


def test_what_is_no_equation_is_refused() -> None:
    with pytest.raises(TypeError, match="^sdeint takes an SDE, got a function$"):
        unwrap(sdeint)(still, torch.zeros(2, 3), (0.0, 1.0), n_steps=4)

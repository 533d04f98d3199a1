"""Probability-flow ODEs on the torus: accuracy, error control by sample, exact grids, and honest failures."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch import Tensor

from circsde.coupling import NoCoupling
from circsde.exact.fokker_planck import fokker_planck
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises, WrappedNormal
from circsde.schedule import Linear, Schedule
from circsde.sde import SDE, reverse
from circsde.solvers.flow import odeint, richardson
from circsde.solvers.latent_space import from_latent, geodesic, latent
from circsde.solvers.solution import SolveError
from circsde.solvers.trajectory import ADAPTIVE, FIXED
from circsde.torus import TWO_PI, difference, distance, wrap
from circsde.typing import Angles, Field, Tangent, Time
from circsde.velocity import probability_flow
from strategies import assert_agree, pulse, random_angles

TIMES = (0.0, 0.3, 1.0)


def swing(t: Time, theta: Angles) -> Tangent:
    """A pendulum without inertia, pushed in time; contracting here, expanding there."""
    return 2.0 * torch.cos(torch.as_tensor(3.0 * t)) - 3.0 * theta.sin()


def reference(theta: Tensor, ts: tuple[float, ...]) -> Tensor:
    """The solution by scipy, to 1e-12, shape ``(m, *theta.shape)``."""
    solution = solve_ivp(
        lambda t, y: 2.0 * math.cos(3.0 * t) - 3.0 * torch.as_tensor(y).sin().numpy(),
        (ts[0], ts[-1]),
        theta.flatten().numpy(),
        t_eval=ts,
        method="DOP853",
        rtol=1e-13,
        atol=1e-13,
    )
    return torch.as_tensor(solution.y.T).reshape(-1, *theta.shape)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_an_adaptive_method_is_accurate_at_every_output(method: str) -> None:
    theta = random_angles(6, 2)
    solution = odeint(swing, theta, TIMES, method=method, atol=1e-6)
    assert solution.succeeded
    tolerance = 2e-4 if method == "fehlberg2" else 2e-5  # whose error estimate is the least reliable
    assert (solution.lifted - reference(theta, TIMES)).abs().max() < tolerance


@pytest.mark.parametrize(("method", "order"), [(name, order) for name, order in FIXED.items() if order])
def test_a_fixed_step_method_has_its_order(method: str, order: int) -> None:
    theta = random_angles(6, 2)
    exact = reference(theta, TIMES)[-1]
    coarse, fine = (
        (odeint(swing, theta, (0.0, 1.0), method=method, n_steps=n).lifted[-1] - exact).abs().mean() for n in (40, 80)
    )
    assert abs(math.log2(coarse / fine) - order) < 0.25


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "rk4"])
def test_time_runs_backward_too(method: str) -> None:
    theta, n_steps = random_angles(5, 2), 200 if method == "rk4" else None
    forward = odeint(swing, theta, TIMES, method=method, atol=1e-9, n_steps=n_steps)
    backward = odeint(swing, forward.theta[-1], TIMES[::-1], method=method, atol=1e-9, n_steps=n_steps)
    assert backward.ts.tolist() == list(TIMES[::-1])
    assert distance(backward.theta, forward.theta.flip(0)).max() < 1e-7


@given(st.integers(1, 150), st.sampled_from([1.0, TWO_PI, 0.1]))
def test_a_fixed_grid_has_exactly_its_steps(n: int, end: float) -> None:
    seen: list[float] = []

    def clock(t: Time, theta: Angles) -> Tangent:
        seen.append(float(t))
        return torch.ones_like(theta)

    solution = odeint(clock, torch.zeros(1, 1), (0.0, end), method="euler", n_steps=n)
    assert solution.stats.steps == solution.stats.nfe == len(seen) == n
    assert seen == pytest.approx([i * end / n for i in range(n)], rel=1e-15)


def test_the_statistics_count_every_evaluation_and_attempt() -> None:
    calls = 0

    def jump(t: Time, theta: Angles) -> Tangent:
        nonlocal calls
        calls += 1
        return torch.where(torch.as_tensor(t) > 0.5, 1.0, -1.0) * theta.cos()

    stats = odeint(jump, torch.zeros(2, 2), (0.0, 1.0), atol=1e-6).stats
    assert stats.nfe == calls == 1 + 6 * (stats.steps + stats.rejected)
    assert stats.rejected > 3
    assert odeint(swing, torch.zeros(2, 2), (0.0, 1.0), method="rk4", n_steps=7).stats.nfe == 28


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_time_is_float64_and_angles_keep_their_dtype(dtype: torch.dtype) -> None:
    def check(t: Time, theta: Angles) -> Tangent:
        assert isinstance(t, Tensor)
        assert t.dtype == torch.float64
        assert theta.dtype == dtype
        assert bool(((theta >= -math.pi) & (theta < math.pi)).all())
        return theta.cos()

    for method, n_steps in (("dopri5", None), ("rk4", 3)):
        assert (
            odeint(check, random_angles(3, 2).to(dtype), (0.0, 1.0), method=method, n_steps=n_steps).theta.dtype
            == dtype
        )


def test_float32_angles_resolve_what_their_dtype_can() -> None:
    theta = random_angles(20, 2)
    solution = odeint(swing, theta.float(), TIMES, atol=1e-6)
    assert distance(solution.theta.double(), reference(theta, TIMES)).max() < 2e-5


@pytest.mark.parametrize("turns", [1, -7, 100_000])
def test_whole_turns_change_nothing_bitwise(turns: int) -> None:
    theta = (random_angles(50, 2) * 2.0**40).round() / 2.0**40  # so that adding TWO_PI * turns is undone by wrap
    shifted = theta + turns * TWO_PI
    moved = wrap(shifted)
    plain, lifted = odeint(swing, moved, TIMES), odeint(swing, shifted, TIMES)
    assert torch.equal(plain.theta, lifted.theta)
    assert torch.equal(plain.winding + (plain.winding[:1] * 0 + turns), lifted.winding)
    assert (moved - theta).abs().max() < 1e-9


def test_a_fast_rotation_keeps_its_turns_and_its_accuracy() -> None:
    solution = odeint(lambda t, theta: 1000.0 + theta.sin(), random_angles(3, 1), (0.0, 1.0), atol=1e-6)
    frequency = math.sqrt(1000.0**2 - 1.0)  # tan(theta/2) moves on a circle at this rate
    assert (solution.lifted[-1] - solution.lifted[0]).sub(frequency).abs().max() < 1e-3
    assert solution.winding[-1].min() > 150


def hard_and_easy(batch: int) -> tuple[Callable[[Time, Angles], Tangent], Tensor]:
    """The first sample turns 15 times as fast as the others."""
    rate = torch.ones(batch, 1, dtype=torch.float64)
    rate[0] = 15.0
    return lambda t, theta: rate[: len(theta)] * (1.5 + theta.cos()), torch.zeros(batch, 1, dtype=torch.float64)


def test_a_hard_sample_is_as_accurate_among_a_thousand_as_alone() -> None:
    (field, theta), atol = hard_and_easy(1000), 1e-6
    exact = odeint(field, theta[:1], (0.0, 1.0), atol=1e-11).lifted[-1]
    together = odeint(field, theta, (0.0, 1.0), atol=atol).lifted[-1]
    alone = odeint(field, theta[:1], (0.0, 1.0), atol=atol).lifted[-1]
    assert (together[0] - alone[0]).abs() < 10 * atol
    diluted = odeint(lambda t, x: field(t, x[0, :, None])[:, 0][None], theta.T, (0.0, 1.0), atol=atol)
    assert (diluted.lifted[-1, 0, 0] - exact[0, 0]).abs() > 10 * (together[0] - exact[0]).abs()  # one norm for all


def test_the_flow_carries_the_law_of_the_sde() -> None:
    schedule = Schedule.linear((0.0, 0.5, 0.1), (0.0, 3.0, 1.5))
    law = fokker_planck(schedule, WrappedNormal(2.0, 0.5), mean_field=False)
    theta = law.sample(0.0, (200, 1), torch.Generator().manual_seed(0)).sort(0).values
    moved = odeint(probability_flow(KuramotoSDE((1,), schedule=schedule), law.score), theta, (0.0, 1.0), atol=1e-9)
    start, end = (law.cdf(t, wrap(x[:, 0])) for t, x in ((0.0, theta), (1.0, moved.lifted[-1])))
    shift = (end - start).sub((end - start)[:1])  # the flow is monotone, so the distribution function moves along
    assert wrap(TWO_PI * shift).abs().max() < 1e-7


def test_richardson_estimates_the_error_of_rk4() -> None:
    theta = random_angles(20, 2)
    solution, error = richardson(swing, theta, TIMES, n_steps=40)
    true = (solution.lifted - reference(theta, TIMES)).abs()
    assert error.shape == solution.theta.shape
    assert (error[1:] / true[1:]).log().abs().median() < math.log(1.3)


def test_richardson_takes_its_steps_in_each_interval_however_long_they_are() -> None:
    def wave(t: Time, y: Angles) -> Tangent:
        return 20.0 * torch.cos(20.0 * torch.as_tensor(t)) * torch.ones_like(y)  # the solution is sin(20 t)

    solution, error = richardson(wave, torch.zeros(1, 1).double(), (0.0, 0.05, 1.0), n_steps=10)
    assert solution.stats.steps == 20
    for t, theta, estimate in zip((0.05, 1.0), solution.lifted[1:, 0, 0], error[1:, 0, 0], strict=True):
        true = abs(float(theta) - math.sin(20.0 * t))
        assert true > 1e-8
        assert 0.5 < true / float(estimate) < 2.0


@pytest.mark.parametrize(("method", "order"), [(name, order) for name, order in FIXED.items() if order])
def test_a_one_step_method_has_its_order_on_uneven_steps_too(method: str, order: int) -> None:
    theta = random_angles(6, 2)
    exact = reference(theta, (0.0, 1.0))[-1]

    def error(n: int) -> Tensor:
        grid = [(i - i % 2 + (i % 2) * 4 / 3) / n for i in range(n + 1)]  # steps that alternate, 2 : 1
        return (odeint(swing, theta, (0.0, 1.0), method=method, grid=grid).lifted[-1] - exact).abs().mean()

    assert abs(math.log2(error(60) / error(120)) - order) < 0.25


def test_implicit_adams_takes_equal_steps_only() -> None:
    theta = random_angles(3, 2)
    even = [i / 40 for i in range(41)]
    exact = reference(theta, (0.0, 1.0))[-1]
    solution = odeint(swing, theta, (0.0, 1.0), method="implicit_adams", grid=even)
    assert (solution.lifted[-1] - exact).abs().max() < 1e-4
    lengths = [0.3 * i / 12 for i in range(13)] + [0.3 + 0.7 * i / 14 for i in range(1, 15)]
    odeint(swing, theta, TIMES, method="implicit_adams", grid=lengths)  # which begins anew at every output
    with pytest.raises(ValueError, match="implicit_adams assumes equal steps"):
        odeint(swing, theta, (0.0, 1.0), method="implicit_adams", grid=lengths)


TURNED = 2.0 * math.atan(math.tan(0.75) * math.exp(-2.0))  # tan(theta / 2) falls by exp(-integral)


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "bosh3"])
@pytest.mark.parametrize("at", [0.05, 0.37, 0.6, 0.95])
def test_a_pulse_a_tenth_as_long_as_the_solve_is_seen(method: str, at: float) -> None:
    """Six standard deviations are 0.06 of the time; without a bound on the steps nothing of the pulse is seen."""
    rate = pulse(0.01, 2.0, at)
    solution = odeint(
        lambda t, x: -rate(float(t)) * x.sin(), torch.full((1, 1), 1.5).double(), (0.0, 1.0), method=method
    )
    assert solution.theta[-1].item() == pytest.approx(TURNED, abs=2e-5)


def test_without_a_bound_on_the_steps_or_breakpoints_a_pulse_is_missed() -> None:
    rate, start = pulse(1e-3, 2.0, 0.37), torch.full((1, 1), 1.5).double()
    field: Field = lambda t, x: -rate(float(t)) * x.sin()  # noqa: E731
    assert odeint(field, start, (0.0, 1.0), max_step=math.inf).theta[-1].item() == pytest.approx(1.5, abs=1e-6)
    bounded = odeint(field, start, (0.0, 1.0), max_step=0.01).theta[-1].item()
    broken = odeint(field, start, (1.0, 0.0), breakpoints=(0.366, 0.37, 0.374)).theta[-1].item()
    assert bounded == pytest.approx(TURNED, abs=1e-5)
    assert broken == pytest.approx(2.0 * math.atan(math.tan(0.75) * math.exp(2.0)), abs=1e-5)  # backward


def test_a_flow_whose_schedule_is_known_sees_every_pulse() -> None:
    """The law of free diffusion is known: a wrapped normal whose variance grows by twice the integral of D."""
    still = Linear(0.0, 0.0)
    sde = KuramotoSDE((1,), NoCoupling(), Schedule(still, still, pulse(1e-4, 0.3, 0.37)))

    def score(t: Time, theta: Angles) -> Tangent:
        return WrappedNormal(0.0, math.sqrt(0.04 + 2.0 * sde.schedule.diffusion.integral(0.0, float(t)))).score(theta)

    flow, theta = probability_flow(sde, score), torch.tensor([[0.1], [-0.3]]).double()
    grown = math.sqrt(1.0 + 0.6 / 0.04)  # narrow: hardly wrapped, so that the flow is a linear map
    assert (odeint(flow, theta, (0.0, 1.0), atol=1e-9).theta[-1] / theta).sub(grown).abs().max() < 1e-6
    there = odeint(reverse(sde, score, 0.0).drift, theta, (0.0, 1.0), max_step=math.inf).theta[-1]
    assert torch.equal(there, theta)  # a bare drift knows no schedule
    assert probability_flow(SDE(sde.drift, sde.diffusion, 1.0), score).breakpoints is None


def test_a_short_solve_at_a_late_time_is_right() -> None:
    start = 1.7e9  # seconds: float64 resolves 2.4e-7
    solution = odeint(lambda t, y: y.cos(), torch.zeros(1, 1).double(), (start, start + 0.1))
    elapsed = (start + 0.1) - start
    assert solution.theta[-1].item() == pytest.approx(2.0 * math.atan(math.tanh(0.5 * elapsed)), abs=2e-6)


def test_a_random_field_is_refused() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.Dropout(), torch.nn.Linear(64, 2)).double()
    theta = random_angles(4, 2)
    field: Field = lambda t, x: network(x.cos())  # noqa: E731
    with pytest.raises(ValueError, match=r"asked twice.*\.eval\(\)"):
        odeint(field, theta, (0.0, 1.0))
    network.eval()
    assert odeint(field, theta, (0.0, 1.0)).succeeded


def test_a_network_of_another_dtype_is_refused_with_advice() -> None:
    network = torch.nn.Linear(2, 2)
    for method, n_steps in (("dopri5", None), ("rk4", 5)):
        with pytest.raises(TypeError, match=r"cannot take angles of torch.float64.*network.double\(\)"):
            odeint(lambda t, x: network(x.cos()), random_angles(4, 2), (0.0, 1.0), method=method, n_steps=n_steps)


@pytest.mark.slow
def test_a_fixed_grid_may_have_any_number_of_steps() -> None:
    solution = odeint(lambda t, x: torch.ones_like(x), torch.zeros(1, 1), (0.0, 1.0), method="euler", n_steps=10_500)
    assert solution.stats.steps == 10_500


def test_what_was_computed_before_a_failure_is_kept() -> None:
    theta = random_angles(5, 2)

    def breaks(t: Time, x: Angles) -> Tangent:
        velocity = swing(t, x).clone()
        if float(t) > 0.5:
            velocity[3] = math.nan
        return velocity

    for method, n_steps, last in (("dopri5", None, 0.5), ("rk4", 10, 0.5)):
        with pytest.raises(SolveError, match=r"non_finite: .*sample 3") as failure:
            odeint(breaks, theta, TIMES, method=method, n_steps=n_steps)
        solution = odeint(breaks, theta, TIMES, method=method, n_steps=n_steps, on_failure="return")
        assert torch.equal(failure.value.solution.theta, solution.theta)
        assert solution.stats.status == "non_finite"
        assert solution.stats.samples == (3,)
        assert "sample 3" in solution.stats.message
        assert "t = 0.5" in solution.stats.message
        assert solution.ts.tolist() == pytest.approx([0.0, 0.3, last])
        until = (0.0, 0.3, float(solution.ts[-1]))
        assert (solution.lifted - reference(theta, until)).abs().max() < 1e-3


def test_a_limit_of_steps_and_a_pole_stop_with_a_status() -> None:
    few = odeint(swing, random_angles(5, 2), (0.0, 1.0), max_steps=3, on_failure="return")
    assert few.stats.status == "max_steps"
    assert len(few.ts) == 2
    assert 0 < few.ts[-1] < 1

    def pole(t: Time, theta: Angles) -> Tangent:
        return torch.ones_like(theta) / (1.0 - torch.as_tensor(t))

    blown = odeint(pole, torch.zeros(1, 1).double(), (0.0, 2.0), on_failure="return")
    assert blown.stats.status == "underflow"
    assert "t = 1" in blown.stats.message
    assert abs(float(blown.ts[-1]) - 1.0) < 1e-12


def test_a_trial_step_into_nonsense_is_taken_again_shorter() -> None:
    def fragile(t: Time, theta: Angles) -> Tangent:
        push = 40.0 * torch.exp(torch.as_tensor(-100.0 * t))
        return push + torch.where(theta > 0.5, math.nan, -theta)  # reached only by a stage of too long a step

    solution = odeint(fragile, torch.zeros(1, 1), (0.0, 1.0), atol=1e-2)
    assert solution.succeeded
    assert solution.stats.rejected > 0


BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "tolerance": (lambda: odeint(swing, torch.zeros(1, 1), (0, 1), atol=1e-8), ValueError, "raise atol or pass angles"),
    "nan tolerance": (
        lambda: odeint(swing, torch.zeros(1, 1), (0, 1), atol=math.nan),
        ValueError,
        "atol must be finite",
    ),
    "method": (lambda: odeint(swing, torch.zeros(1, 1), (0, 1), method="rk45"), ValueError, "choose one of dopri5"),
    "steps": (lambda: odeint(swing, torch.zeros(1, 1), (0, 1), n_steps=5), ValueError, "chooses its own steps"),
    "no steps": (lambda: odeint(swing, torch.zeros(1, 1), (0, 1), method="rk4"), ValueError, "exactly one of n_steps"),
    "longest": (lambda: odeint(swing, torch.zeros(1, 1), (0, 1), max_step=0.0), ValueError, "must be positive"),
    "fixed": (
        lambda: odeint(swing, torch.zeros(1, 1), (0, 1), method="rk4", n_steps=4, max_step=0.1),
        ValueError,
        "adaptive",
    ),
    "zigzag": (lambda: odeint(swing, torch.zeros(1, 1), (0, 2, 1)), ValueError, "must increase"),
    "one time": (lambda: odeint(swing, torch.zeros(1, 1), (0,)), ValueError, "at least two"),
    "integers": (lambda: odeint(swing, torch.zeros(1, 1, dtype=torch.int64), (0, 1)), TypeError, "[Ff]loat"),
    "not finite": (lambda: odeint(swing, torch.full((2, 1), math.inf), (0, 1)), ValueError, "index \\(0, 0\\)"),
    "no event": (lambda: odeint(swing, torch.zeros(3), (0, 1)), ValueError, "shape \\(batch, \\*event\\)"),
    "odd": (lambda: richardson(swing, torch.zeros(1, 1), (0, 1), n_steps=5), ValueError, "even"),
    "no order": (
        lambda: richardson(swing, torch.zeros(1, 1), (0, 1), method="dopri5", n_steps=4),
        ValueError,
        "one-step method of known order",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_advice(case: str) -> None:
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()


def test_a_field_of_another_shape_is_refused() -> None:
    with pytest.raises(Exception, match=r"return|shape"):
        odeint(lambda t, theta: theta[:, :1], torch.zeros(2, 3), (0.0, 1.0))


def test_latents_have_the_law_at_the_horizon_and_decode_to_the_data() -> None:
    schedule = Schedule.constant(reference=1.0, diffusion=0.7)
    law = fokker_planck(schedule, WrappedNormal(2.0, 0.5), mean_field=False)
    sde, theta = KuramotoSDE((1,), schedule=schedule), law.sample(0.0, (200, 1), torch.Generator().manual_seed(1))
    result = latent(sde, law.score, theta, atol=1e-8)
    assert result.round_trip.shape == (200,)
    assert result.round_trip.max() < 1e-6
    assert_agree(
        distance(from_latent(sde, law.score, result.theta, atol=1e-8).theta[-1], theta).amax(1), result.round_trip
    )
    deviation = (law.cdf(1.0, result.theta[:, 0]).sort().values - (torch.arange(200) + 0.5) / 200).abs().max()
    assert deviation < 1.95 / math.sqrt(200)  # Kolmogorov: false alarm 1e-3, seeded


def test_a_failed_encoding_is_no_latent() -> None:
    sde = KuramotoSDE((1,), schedule=Schedule.constant())
    with pytest.raises(SolveError, match="non_finite"):
        latent(sde, lambda t, theta: torch.where(torch.as_tensor(t) > 0.5, math.nan, theta), torch.ones(2, 1))


def test_the_path_between_latents_is_the_short_one() -> None:
    a, b = random_angles(4, 3), random_angles(4, 3, seed=1)
    path = geodesic(a, b, torch.linspace(0, 1, 5))
    assert distance(path[0], a).max() < 1e-14
    assert distance(path[-1], b).max() < 1e-14
    steps = difference(path[1:], path[:-1])
    assert_agree(steps, (difference(b, a) / 4).expand_as(steps))
    assert steps.abs().max() <= math.pi / 4


def test_a_stationary_law_stands_still() -> None:
    law = VonMises(0.0, 2.0)
    sde = KuramotoSDE((3,), schedule=Schedule.constant(reference=2.0))
    theta = random_angles(5, 3)
    solution = odeint(probability_flow(sde, lambda t, x: law.score(x)), theta, (0.0, 1.0))
    assert distance(solution.theta[-1], theta).max() < 1e-13

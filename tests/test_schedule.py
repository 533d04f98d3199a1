"""Rates and their integrals, against quadrature, and the published schedule against its published increments."""

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circsde.kuramoto import KuramotoSDE
from circsde.models.variance_preserving import VariancePreserving
from circsde.schedule import Cosine, Custom, Linear, Rate, Rates, Schedule
from circsde.solvers.integrate import sdeint

TINY = 1e-320  # to which the smallest numbers are rounded
SHAPES: list[type[Linear] | type[Cosine]] = [Linear, Cosine]
level = st.floats(0.0, 1e3)
horizons = st.floats(1e-3, 1e3)
fraction = st.floats(0.0, 1.0)


def decay(t: float | Tensor) -> float | Tensor:
    return 2.0 ** (-t)


def decay_from_zero(t: float | Tensor) -> float | Tensor:
    return (1.0 - 2.0 ** (-t)) / math.log(2.0)


@given(st.sampled_from(SHAPES), level, level, horizons)
def test_a_rate_runs_from_its_start_to_its_end(
    shape: type[Linear] | type[Cosine], start: float, end: float, horizon: float
) -> None:
    rate = shape(start, end, horizon)
    assert rate(0.0) == start
    assert rate(horizon) == pytest.approx(end, rel=1e-15, abs=1e-15 * start + TINY)
    assert rate(horizon / 2) == pytest.approx((start + end) / 2, rel=1e-15, abs=TINY)


def test_cosine_is_flat_at_both_ends_and_linear_is_not() -> None:
    def slope(rate: Rate, t: float) -> float:
        return (rate(t + 1e-5) - rate(t - 1e-5)) / 2e-5

    cosine, linear = Cosine(1.0, 3.0, horizon=2.0), Linear(1.0, 3.0, horizon=2.0)
    assert [slope(cosine, t) for t in (0.0, 2.0)] == pytest.approx([0.0, 0.0], abs=1e-9)
    assert slope(cosine, 1.0) == pytest.approx(math.pi / 2, rel=1e-9)
    assert slope(linear, 0.0) == pytest.approx(1.0, rel=1e-9)


@given(st.sampled_from(SHAPES), level, level, horizons, fraction, fraction)
def test_the_integral_is_that_of_the_value(
    shape: type[Linear] | type[Cosine], start: float, end: float, horizon: float, a: float, b: float
) -> None:
    rate, t0, t1 = shape(start, end, horizon), a * horizon, b * horizon
    nodes, weights = np.polynomial.legendre.leggauss(20)  # exact to rounding for half a cosine wave
    expected = (
        (t1 - t0) / 2 * sum(w * rate((t0 + t1) / 2 + (t1 - t0) / 2 * x) for x, w in zip(nodes, weights, strict=True))
    )
    assert rate.integral(t0, t1) == pytest.approx(expected, rel=1e-12, abs=1e-14 * max(start, end) * horizon + TINY)


@pytest.mark.parametrize(
    "rate", [Linear(1.0, 3.0), Cosine(0.5, 0.0), Custom(decay, decay_from_zero)], ids=lambda rate: type(rate).__name__
)
class TestEveryRate:
    def test_integrals_add_up(self, rate: Rate) -> None:
        parts = [rate.integral(t0, t1) for t0, t1 in [(0.0, 0.2), (0.2, 0.7), (0.7, 1.0)]]
        assert math.fsum(parts) == pytest.approx(rate.integral(0.0, 1.0), rel=1e-15)
        assert rate.integral(1.0, 0.0) == -rate.integral(0.0, 1.0)
        assert scipy.integrate.quad(rate, 0.0, 1.0)[0] == pytest.approx(rate.integral(0.0, 1.0), rel=1e-13)

    def test_tensors_give_what_floats_give(self, rate: Rate) -> None:
        times = torch.linspace(0.0, 1.0, 7, dtype=torch.float64)
        values, integrals = rate(times), rate.integral(0.3 * torch.ones_like(times), times)
        assert values.tolist() == pytest.approx([rate(t) for t in times.tolist()], rel=1e-15)
        assert integrals.tolist() == pytest.approx(
            [rate.integral(0.3, t) for t in times.tolist()], rel=1e-14, abs=1e-16
        )
        assert rate(times[3]).dtype == torch.float64
        assert rate(times.float()).dtype == torch.float32

    def test_it_pickles(self, rate: Rate) -> None:
        assert pickle.loads(pickle.dumps(rate)) == rate


@pytest.mark.parametrize("n", [2, 100, 300, 1000])
def test_the_published_rates_are_the_published_increments_per_step(n: int) -> None:
    schedule = Schedule.published(n, reference_weight=1.5)
    times = torch.arange(n, dtype=torch.float64) / n
    coupling, variance = np.linspace(3e-5, 0.03, n), np.linspace(1e-4, 0.1, n)
    np.testing.assert_allclose(schedule.coupling(times).numpy(), n * coupling, rtol=1e-12)
    np.testing.assert_allclose(schedule.reference(times).numpy(), n * 1.5 * coupling, rtol=1e-12)
    np.testing.assert_allclose(2 * schedule.diffusion(times).numpy(), n * variance, rtol=1e-12)
    assert schedule.horizon == 1.0


def test_the_published_rates_are_those_of_the_published_code(shared_data: Callable[..., Path]) -> None:
    code = np.load(shared_data("oracles", "published_code_chain.npz"))
    n = len(code["coupling_increment"])
    schedule = Schedule.published(n, reference_weight=float(code["reference_weight"]))
    times = torch.arange(n, dtype=torch.float64) / n
    single = float(4 * np.finfo(np.float32).eps)  # the code computes in float32, whose linspace ends within a few ulp
    np.testing.assert_allclose(schedule.coupling(times).numpy() / n, code["coupling_increment"], rtol=single)
    np.testing.assert_allclose((2 * schedule.diffusion(times).numpy() / n) ** 0.5, code["noise_std"], rtol=single)


def test_the_published_schedule_is_one_equation_whatever_the_step_count() -> None:
    added = [2 * Schedule.published(n).diffusion.integral(0.0, 1.0) for n in (100, 1000)]
    assert added[0] == pytest.approx(np.linspace(1e-4, 0.1, 100).sum(), rel=0.02)  # the left sum, O(1/n) below
    assert added[1] == pytest.approx(np.linspace(1e-4, 0.1, 1000).sum(), rel=0.002)


@given(fraction)
def test_settling_rates_keep_their_proportions_and_contract_like_the_standard_diffusion(t: float) -> None:
    schedule, standard = Schedule.settling(0.5, concentration=4.0), VariancePreserving((1,))
    K, K_ref, D = schedule.at(t)
    assert pytest.approx(0.5 * K_ref) == K
    assert pytest.approx(0.25 * K_ref) == D
    left = math.exp(-schedule.reference.integral(0.0, t))
    assert left == pytest.approx(float(standard.scales(torch.tensor(t, dtype=torch.float64))[0]), rel=1e-12)


def test_phases_settle_whatever_they_were() -> None:
    """Moments of the von Mises law, from both ends of the arc, to 4 standard errors: false alarms 1 in 4000."""
    sde, count = KuramotoSDE((1,), schedule=Schedule.settling(0.0, concentration=2.5)), 4000
    _, K_ref, D = sde.schedule.at(1.0)
    mean_cosine = float(scipy.special.iv(1, K_ref / D) / scipy.special.iv(0, K_ref / D))
    mean_square_sine = mean_cosine * D / K_ref
    for end in (-math.pi / 4, math.pi / 4):
        phases = sdeint(sde, torch.full((count, 1), end).double(), (0.0, 1.0), n_steps=200, generator=1).theta[-1]
        error = math.sqrt((1.0 - mean_square_sine - mean_cosine**2) / count)
        assert abs(phases.cos().mean() - mean_cosine) < 4 * error
        assert abs(phases.sin().mean()) < 4 * math.sqrt(mean_square_sine / count) + math.exp(-5.0) * math.pi / 4


def test_constant_linear_and_cosine_schedules_have_the_asked_rates() -> None:
    start, end = (1.0, 2.0, 0.5), (3.0, 0.0, 1.5)
    assert Schedule.constant(1.0, 2.0, 0.5, horizon=3.0).at(1.7) == Rates(1.0, 2.0, 0.5)
    for schedule in (Schedule.linear(start, end, horizon=3.0), Schedule.cosine(start, end, horizon=3.0)):
        assert schedule.at(0.0) == start
        assert schedule.at(1.5) == pytest.approx((2.0, 1.0, 1.0), rel=1e-15)
        assert schedule.at(3.0) == pytest.approx(end, rel=1e-15, abs=1e-15)
        assert schedule.horizon == 3.0


def test_a_schedule_pickles_and_compares_by_value() -> None:
    schedule = Schedule.published(100)
    assert pickle.loads(pickle.dumps(schedule)) == schedule == Schedule.published(100)
    assert schedule != Schedule.published(101)
    assert hash(schedule) == hash(Schedule.published(100))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("start", "end"), [(-1.0, 1.0), (1.0, -1.0), (math.nan, 1.0), (1.0, math.inf)])
def test_a_rate_that_is_negative_or_not_finite_is_refused(
    shape: type[Linear] | type[Cosine], start: float, end: float
) -> None:
    with pytest.raises(
        ValueError, match=f"a rate must be finite and non-negative, got start={start:g} and end={end:g}"
    ):
        shape(start, end)


@pytest.mark.parametrize("horizon", [0.0, -1.0, math.nan, math.inf])
def test_a_horizon_that_is_not_positive_and_finite_is_refused(horizon: float) -> None:
    message = f"horizon must be positive and finite, got {horizon:g}"
    with pytest.raises(ValueError, match=message):
        Linear(0.0, 1.0, horizon)
    with pytest.raises(ValueError, match=message):
        Schedule(Linear(0.0, 1.0), Linear(0.0, 1.0), Linear(0.0, 1.0), horizon)


@pytest.mark.parametrize("name", ["coupling", "reference", "diffusion"])
@pytest.mark.parametrize("value", [lambda t: 0.25 - t, lambda t: t * math.nan], ids=["negative", "nan"])
def test_a_custom_rate_that_turns_negative_or_nan_is_refused(
    name: str, value: Callable[[float | Tensor], float | Tensor]
) -> None:
    rates: dict[str, Rate] = dict.fromkeys(("coupling", "reference", "diffusion"), Linear(1.0, 1.0))
    rates[name] = Custom(value, lambda t: t)
    with pytest.raises(ValueError, match=f"the {name} rate must be finite and non-negative"):
        Schedule(**rates)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [1, 0, -3])
def test_a_published_schedule_of_fewer_than_two_steps_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"needs at least 2 steps, got {n}"):
        Schedule.published(n)


@pytest.mark.parametrize("part", [Cosine(0.0, 4.0), Linear(0.0, 4.0)])
def test_a_rate_that_ends_before_the_horizon_is_refused(part: Rate) -> None:
    with pytest.raises(ValueError, match=r"reference rate reaches its end at t = 1, before the horizon 2 .*4\.0|start"):
        Schedule(Linear(0.0, 4.0, 2.0), part, Linear(1.0, 1.0), horizon=2.0)
    assert Schedule(Linear(0.0, 4.0, 2.0), Linear(3.0, 3.0), Linear(1.0, 1.0), horizon=2.0).at(2.0) == (4.0, 3.0, 1.0)
    assert Schedule(part, Linear(0.0, 0.0), Linear(1.0, 1.0), horizon=0.5).at(0.5).coupling == pytest.approx(2.0)


@pytest.mark.parametrize(
    "antiderivative",
    [lambda t: t, lambda t: 1.001 * decay_from_zero(t), lambda t: decay_from_zero(t) + (t > 0.3)],
    ids=["another", "scaled", "jumping"],
)
def test_an_antiderivative_of_another_rate_is_refused(
    antiderivative: Callable[[float | Tensor], float | Tensor],
) -> None:
    with pytest.raises(ValueError, match="the integral of the diffusion rate is not that of its values from t = "):
        Schedule(Linear(0.0, 0.0), Linear(0.0, 0.0), Custom(decay, antiderivative))


def test_a_narrow_pulse_and_its_antiderivative_are_accepted() -> None:
    width = 1e-3

    def pulse(t: float | Tensor) -> float | Tensor:
        return math.exp(-0.5 * ((float(t) - 0.37) / width) ** 2) / (width * math.sqrt(2 * math.pi))

    def whole(t: float | Tensor) -> float | Tensor:
        return 0.5 * math.erf((float(t) - 0.37) / (width * math.sqrt(2)))

    schedule = Schedule(Linear(0.0, 0.0), Linear(0.0, 0.0), Custom(pulse, whole))
    assert KuramotoSDE((1,), schedule=schedule).variance(0.0, 1.0) == pytest.approx(2.0)


@pytest.mark.parametrize("rate", [lambda t: 1.0, 0.5, None])
def test_what_has_no_integral_is_no_rate(rate: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # without the tests' check of types
    with pytest.raises(TypeError, match=r"the coupling rate must have values and an integral.*Schedule\.constant"):
        Schedule(rate, Linear(0.0, 0.0), Linear(1.0, 1.0))  # type: ignore[arg-type]


def test_a_parameter_as_a_rate_is_refused_as_no_module_would_find_it() -> None:
    with pytest.raises(TypeError, match="a rate cannot be a Parameter"):
        Linear(torch.nn.Parameter(torch.tensor(1.0)), 2.0)
    with pytest.raises(ValueError, match=r"one number for all oscillators, got shape \(3,\)"):
        Cosine(torch.ones(3), 2.0)

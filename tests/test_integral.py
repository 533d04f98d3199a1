"""Integrals of a squared amplitude against closed forms, and given integrals against the values they belong to."""

import math
from collections.abc import Callable

import pytest
import torch

from circsde.integral import find_disagreement, integral_of_square

ROOT3 = 3.0**-0.5


def exploding(t: float) -> float:
    return float(0.01 * 300.0**t * math.sqrt(2.0 * math.log(300.0)))


def wave(t: float) -> float:
    return 1.0 + 0.9 * math.sin(40.0 * t)


def of_wave(t: float) -> float:
    return t + 1.8 * (1.0 - math.cos(40.0 * t)) / 40.0 + 0.81 * (t / 2.0 - math.sin(80.0 * t) / 160.0)


def two_points(g: Callable[[float], float], t0: float, t1: float) -> float:
    middle, half = 0.5 * (t0 + t1), 0.5 * (t1 - t0)
    return half * (g(middle - ROOT3 * half) ** 2 + g(middle + ROOT3 * half) ** 2)


def test_noise_that_explodes_over_the_horizon_is_integrated_to_rounding() -> None:
    exact = 1e-4 * (300.0**2 - 1.0)
    assert integral_of_square(exploding, 0.0, 1.0, 1.0) == pytest.approx(exact, rel=1e-12)
    assert abs(two_points(exploding, 0.0, 1.0) - exact) > 4.0


@pytest.mark.parametrize("t", [0.003, 0.2, 0.3, 0.5, 1.0])
def test_noise_that_oscillates_is_integrated_to_rounding(t: float) -> None:
    assert integral_of_square(wave, 0.0, t, 1.0) == pytest.approx(of_wave(t), rel=1e-12)
    assert integral_of_square(wave, t, 0.0, 1.0) == pytest.approx(-of_wave(t), rel=1e-12)


def test_integrals_add_up_and_grow() -> None:
    edges = [i / 97 for i in range(98)]
    parts = [integral_of_square(wave, a, b, 1.0) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    assert min(parts) > 0.0
    assert math.fsum(parts) == pytest.approx(of_wave(1.0), rel=1e-12)


@pytest.mark.parametrize(
    ("g", "exact"),
    [
        (lambda t: 1.0 if t < 0.3 else 2.0, 0.3 + 2.8),
        (lambda t: abs(t - 0.37) ** 0.5, (0.37**2 + 0.63**2) / 2),
        (lambda t: math.exp(-0.25 * ((t - 0.37) / 0.02) ** 2), 0.02 * math.sqrt(2.0 * math.pi)),
        (lambda t: 0.0, 0.0),
        (lambda t: 3, 9.0),
    ],
    ids=["jump", "kink", "pulse", "none", "integer"],
)
def test_jumps_kinks_and_pulses_are_resolved(g: Callable[[float], float], exact: float) -> None:
    assert integral_of_square(g, 0.0, 1.0, 1.0) == pytest.approx(exact, rel=1e-10)


def test_a_short_step_takes_three_values() -> None:
    calls = []
    integral_of_square(lambda t: calls.append(t) or 1.0 + 0.1 * t, 0.3, 0.31, 1.0)  # type: ignore[func-returns-value]
    assert len(calls) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_amplitudes_of_every_oscillator_keep_their_dtype(dtype: torch.dtype) -> None:
    size = torch.tensor([0.0, 1.0, 2.0], dtype=dtype)
    for t0, t1 in ((0.0, 1.0), (0.4, 0.42)):
        found = integral_of_square(lambda t: size * (1.0 + t), t0, t1, 1.0)
        assert isinstance(found, torch.Tensor)
        assert found.dtype == dtype
        exact = size.double() ** 2 * ((1.0 + t1) ** 3 - (1.0 + t0) ** 3) / 3.0
        torch.testing.assert_close(found.double(), exact, rtol=20 * torch.finfo(dtype).eps, atol=0.0)


def test_gradients_reach_what_the_amplitude_is_made_of() -> None:
    rate = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a: torch.as_tensor(integral_of_square(lambda t: (a * t).exp(), 0.0, 1.0, 1.0)), (rate,)
    )


@pytest.mark.parametrize("g", [lambda t: math.nan, lambda t: 1.0 / (t + 1e-300), lambda t: math.inf])
def test_what_does_not_converge_is_refused(g: Callable[[float], float]) -> None:
    with pytest.raises(ValueError, match="did not converge near t = .*variance="):
        integral_of_square(g, 0.0, 1.0, 1.0)


def test_an_integral_of_other_values_is_found_and_the_right_one_is_not() -> None:
    width = 1e-4

    def pulse(t: float) -> float:
        return math.exp(-0.5 * ((t - 0.37) / width) ** 2) / (width * math.sqrt(2.0 * math.pi))

    def given(t0: float, t1: float) -> float:
        return 0.5 * (math.erf((t1 - 0.37) / width / 2**0.5) - math.erf((t0 - 0.37) / width / 2**0.5))

    assert find_disagreement(pulse, given, 1.0) is None
    wrong = find_disagreement(pulse, lambda a, b: 1.001 * given(a, b), 1.0)
    assert wrong is not None
    assert abs(0.5 * sum(wrong) - 0.37) < 10 * width

"""Rates between their breakpoints: seen where they pulse or jump, and refused where they contradict their integral."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from circsde.breakpoints import between, breakpoints
from circsde.schedule import Custom, Linear, Rate, Schedule
from strategies import pulse

STILL = Linear(0.0, 0.0)
JUMP = Custom(lambda t: 1.0 if t < 0.37 else 3.0, lambda t: t + 2.0 * max(t - 0.37, 0.0))
WAVE = Custom(lambda t: 1.0 + 0.9 * math.sin(400.0 * t), lambda t: t - 0.9 / 400.0 * math.cos(400.0 * t))
ROOT = Custom(lambda t: t**0.5, lambda t: t**1.5 / 1.5)
RATES = {"wide": pulse(0.1, 2.0, 0.37), "short": pulse(1e-3, 2.0, 0.37), "needle": pulse(1e-6, 2.0, 0.37)}
RATES |= {"jump": JUMP, "wave": WAVE, "root": ROOT}


def schedule(rate: Rate) -> Schedule:
    return Schedule(STILL, rate, STILL)


def gauss(rate: Rate, a: float, b: float) -> float:
    """The integral by 15 points."""
    points = zip(*np.polynomial.legendre.leggauss(15), strict=True)
    return 0.5 * (b - a) * sum(w * rate(0.5 * (a + b) + 0.5 * (b - a) * float(x)) for x, w in points)


@pytest.mark.parametrize("rate", RATES)
def test_between_breakpoints_few_points_see_all_of_a_rate(rate: str) -> None:
    """A Gauss rule of 15 points, not those it was cut by, integrates each interval; on the whole horizon it fails."""
    times = breakpoints(schedule(RATES[rate]))
    assert (times[0], times[-1]) == (0.0, 1.0)
    exact = RATES[rate].integral(0.0, 1.0)
    assert sum(gauss(RATES[rate], a, b) for a, b in pairwise(times)) == pytest.approx(exact, rel=1e-9)
    assert gauss(RATES[rate], 0.0, 1.0) != pytest.approx(exact, rel=1e-8)


def test_smooth_rates_need_a_single_interval() -> None:
    for smooth in (Schedule.published(100), Schedule.settling(), Schedule.cosine((0.0, 1.0, 0.1), (2.0, 0.0, 3.0))):
        assert breakpoints(smooth) == (0.0, 1.0)
    single = Custom(lambda t: 1.0 + torch.as_tensor(t).sin(), lambda t: torch.as_tensor(t) - torch.as_tensor(t).cos())
    assert breakpoints(schedule(single)) == (0.0, 1.0)  # whose values are rounded to float32


def test_values_that_contradict_their_integral_are_refused() -> None:
    with pytest.raises(ValueError, match="the integral of the reference rate is not that of its values"):
        schedule(Custom(lambda t: 1.0 + t, lambda t: 1.001 * (t + 0.5 * t * t)))


def test_times_between_two_others_are_kept() -> None:
    assert between((0.0, 0.25, 0.5, 1.0), 0.0, 0.5) == (0.0, 0.25, 0.5)
    assert between((0.0, 1.0), 0.3, 0.4) == (0.3, 0.4)

"""Time grids: exact step counts and ends, output times on steps, shares by largest remainder, clear refusals."""

import math
import re
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circsde.sde import SDE
from circsde.solvers.grid import places, step_grid
from circsde.solvers.integrate import sdeint

HORIZONS = [1.0, 2 * math.pi, 1 / 3]

gaps = st.lists(st.floats(1e-3, 10.0), min_size=1, max_size=8)


def times_of(start: float, gaps: list[float]) -> list[float]:
    times = [start]
    for gap in gaps:
        times.append(times[-1] + gap)
    return times


@pytest.mark.parametrize("T", HORIZONS)
def test_step_counts_are_exact_for_every_n_up_to_1000(T: float) -> None:
    """Whether the count or the width T/n is given, and whatever T; every point within an ulp or two of i T/n."""
    for n in range(1, 1001):
        for points, marks in (step_grid((0.0, T), n_steps=n), step_grid((0.0, T), dt=T / n)):
            assert (len(points) - 1, marks, points[0], points[-1]) == (n, [0, n], 0.0, T)
        assert points[n // 3] == pytest.approx(n // 3 * T / n, rel=4e-16, abs=0)


@pytest.mark.parametrize("T", HORIZONS)
def test_adding_up_the_width_takes_a_wrong_number_of_steps(T: float) -> None:
    """What the grid avoids: half of all n take one step too many or too few."""

    def accumulated(n: int) -> int:
        t, count = 0.0, 0
        while t < T:
            t, count = min(t + T / n, T), count + 1
        return count

    assert sum(accumulated(n) != n for n in range(1, 201)) > 50


@given(st.floats(-5.0, 5.0), gaps, st.integers(0, 200))
def test_a_grid_increases_holds_every_output_time_and_has_the_asked_count(
    start: float, gaps: list[float], extra: int
) -> None:
    times = times_of(start, gaps)
    points, marks = step_grid(times, n_steps=len(gaps) + extra)
    assert len(points) == len(gaps) + extra + 1
    assert all(a < b for a, b in pairwise(points))
    assert [points[mark] for mark in marks] == times


@given(gaps, st.integers(0, 200))
def test_steps_are_shared_in_proportion_to_length(gaps: list[float], extra: int) -> None:
    """Each interval gets its proportional share rounded up or down, and at least one step."""
    n = len(gaps) + extra
    _, marks = step_grid(times_of(0.0, gaps), n_steps=n)
    counts = [b - a for a, b in pairwise(marks)]
    shares = [n * gap / math.fsum(gaps) for gap in gaps]
    assert min(counts) >= 1
    if min(shares) >= 1:
        assert all(
            math.floor(share - 1e-6) <= count <= math.ceil(share + 1e-6)
            for count, share in zip(counts, shares, strict=True)
        )
    for count, share in zip(counts, shares, strict=True):
        assert count <= math.ceil(share + 1e-6)


def test_what_is_left_over_goes_to_the_largest_remainders() -> None:
    _, marks = step_grid([0.0, 1.6, 3.0, 5.0], n_steps=5)  # shares 1.6, 1.4, 2.0
    assert marks == [0, 2, 3, 5]


def test_every_interval_gets_a_step_even_if_its_share_is_less() -> None:
    points, marks = step_grid([0.0, 1e-6, 1.0], n_steps=3)
    assert (points, marks) == ([0.0, 1e-6, 0.5000005, 1.0], [0, 1, 3])
    assert step_grid([0.0, 1e-6, 2e-6, 1.0], n_steps=3)[1] == [0, 1, 2, 3]


def test_output_times_on_a_uniform_grid_leave_it_uniform() -> None:
    points, marks = step_grid([i * 0.1 for i in range(11)], n_steps=100)
    assert points == pytest.approx([i / 100 for i in range(101)], rel=4e-16, abs=0)
    assert marks == list(range(0, 101, 10))


@given(gaps, st.floats(1e-2, 20.0))
def test_no_step_is_longer_than_dt_and_none_is_wasted(gaps: list[float], dt: float) -> None:
    times = times_of(0.0, gaps)
    points, marks = step_grid(times, dt=dt)
    assert max(b - a for a, b in pairwise(points)) <= dt * (1 + 1e-9)
    for (a, b), (first, last) in zip(pairwise(times), pairwise(marks), strict=True):
        assert last - first == pytest.approx(math.ceil((b - a) / dt - 1e-9), abs=0)


@given(st.floats(1e-3, 1e3), st.integers(1, 2000))
def test_a_width_that_divides_the_interval_gives_that_many_steps(T: float, n: int) -> None:
    assert len(step_grid((0.0, T), dt=T / n)[0]) == n + 1


@given(gaps, st.data())
def test_a_given_grid_is_walked_as_it_is(gaps: list[float], data: st.DataObject) -> None:
    grid = times_of(0.0, gaps)
    inner = data.draw(st.lists(st.sampled_from(grid[1:-1]), unique=True)) if len(grid) > 2 else []
    times = [grid[0], *sorted(inner), grid[-1]]
    points, marks = step_grid(times, grid=grid)
    assert points == grid
    assert [points[mark] for mark in marks] == times


def test_times_come_as_lists_tuples_and_tensors_of_any_dtype() -> None:
    expected = step_grid([0.0, 1.0], n_steps=4)
    for ts in ((0, 1), torch.tensor([0.0, 1.0]), torch.tensor([0, 1]), torch.tensor([0.0, 1.0], dtype=torch.float64)):
        assert step_grid(ts, n_steps=4) == expected
    assert step_grid([0.0, 1.0], grid=torch.linspace(0, 1, 5, dtype=torch.float64)) == expected


def test_small_steps_at_large_times_keep_their_width() -> None:
    points, _ = step_grid((1000.0, 1000.001), dt=1e-5)  # half an ulp of float32 at 1000 is 3e-5
    assert len(points) == 101
    assert max(abs(b - a - 1e-5) for a, b in pairwise(points)) < 1e-12


@pytest.mark.parametrize(
    ("ts", "options", "message"),
    [
        ([0.0, 1.0], {}, "give exactly one of n_steps, dt and grid, got none of them"),
        ([0.0, 1.0], {"n_steps": 4, "dt": 0.1}, "exactly one of n_steps, dt and grid, got n_steps=4, dt=0.1"),
        ([0.0, 1.0], {"n_steps": 4, "grid": [0.0, 1.0]}, "got n_steps=4, grid"),
        ([0.0, 1.0], {"n_steps": 0}, "n_steps must be at least 1, one per interval of ts, got 0"),
        ([0.0, 1.0], {"n_steps": -3}, "n_steps must be at least 1, one per interval of ts, got -3"),
        ([0.0, 0.5, 1.0], {"n_steps": 1}, "n_steps must be at least 2, one per interval of ts, got 1"),
        ([0.0, 1.0], {"dt": 0.0}, "dt must be positive and finite, got 0.0"),
        ([0.0, 1.0], {"dt": -0.1}, "dt must be positive and finite, got -0.1"),
        ([0.0, 1.0], {"dt": math.nan}, "dt must be positive and finite, got nan"),
        ([0.0, 1.0], {"dt": math.inf}, "dt must be positive and finite, got inf"),
        ([1.0, 0.0], {"n_steps": 4}, "ts must increase, got [1.0, 0.0]; to go back in time, integrate reverse("),
        ([0.0, 0.5, 0.5], {"n_steps": 4}, "ts must increase, got [0.0, 0.5, 0.5]"),
        ([0.0], {"n_steps": 4}, "ts must hold at least two finite times, got [0.0]"),
        ([0.0, math.nan], {"n_steps": 4}, "ts must hold at least two finite times, got [0.0, nan]"),
        ([0.0, math.inf], {"dt": 0.1}, "ts must hold at least two finite times, got [0.0, inf]"),
        ([0.0, 1.0], {"grid": [0.0]}, "grid must hold at least two finite times"),
        ([0.0, 1.0], {"grid": [0.0, 0.7, 0.3, 1.0]}, "grid must increase"),
        (
            [0.0, 0.3, 1.0],
            {"grid": [0.0, 0.5, 1.0]},
            "time 0.3 is not on the grid, which is given at 3 times from 0 to 1; add it",
        ),
        ([0.5, 1.0], {"grid": [0.0, 0.5, 1.0]}, "the grid must begin and end with ts, got [0, 1] for [0.5, 1]"),
        ([0.0, 0.5], {"grid": [0.0, 0.5, 1.0]}, "the grid must begin and end with ts, got [0, 1] for [0, 0.5]"),
        (
            [1.0, 1.0 + 1e-14],
            {"n_steps": 100},
            "100 steps from 1.0 to 1.00000000000001 are too small for float64 times",
        ),
    ],
)
def test_impossible_steps_are_refused(ts: list[float], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        step_grid(ts, **options)


def test_times_that_differ_by_rounding_are_one_time_and_the_output_is_the_time_asked_for() -> None:
    ts, grid = [0.1 * i for i in range(11)], [i / 10 for i in range(11)]
    points, marks = step_grid(ts, grid=grid)
    assert ts != grid
    assert [points[mark] for mark in marks] == ts


@pytest.mark.parametrize(
    ("ts", "steps"),
    [
        ([0.0, 0.5, 0.5 + 4e-13, 0.75, 1.0], {"grid": [0.0, 0.25, 0.5, 0.75, 1.0]}),
        ([0.0, 0.5, 0.5 + 4e-13, 1.0], {"n_steps": 8}),
        ([0.0, 0.5, 0.5 + 4e-13, 1.0], {"dt": 0.1}),
        ([1e9, 1e9 + 1e-7], {"n_steps": 1}),
    ],
)
def test_two_outputs_at_the_same_time_are_refused(ts: list[float], steps: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="are the same time, to rounding; leave one out"):
        step_grid(ts, **steps)


def test_two_outputs_at_one_point_of_a_grid_are_refused() -> None:
    """Both are within rounding of it, from either side."""
    with pytest.raises(ValueError, match="two of the times"):
        step_grid([0.0, 0.5 - 8e-13, 0.5 + 8e-13, 1.0], grid=[0.0, 0.5, 1.0])


@pytest.mark.parametrize("gap", [2e-12, 1e-10, 1e-6])
def test_outputs_that_are_closer_than_any_step_but_not_the_same_all_come_back(gap: float) -> None:
    ts = [0.0, 0.5, 0.5 + gap, 1.0]
    sde = SDE(lambda t, theta: torch.ones_like(theta), lambda t: 0.0, horizon=1.0)
    solution = sdeint(sde, torch.zeros(1, 1).double(), ts, n_steps=8)
    assert solution.ts.tolist() == ts
    assert solution.lifted.flatten().tolist() == pytest.approx(ts, abs=1e-15)


@pytest.mark.parametrize("n_steps", [0.3 / 0.1, 10.0, "10", math.inf, math.nan])
def test_a_number_of_steps_that_is_not_whole_is_refused(n_steps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # without the tests' own check of types
    with pytest.raises(ValueError, match=re.escape(f"n_steps must be a whole number, got {n_steps!r}")):
        step_grid((0.0, 1.0), n_steps=n_steps)


def test_the_work_of_finding_outputs_grows_with_their_number_not_with_its_square() -> None:
    """Counted in comparisons of times: each output is found by bisection."""
    looks = 0

    class Counted(float):
        def __lt__(self, other: float) -> bool:
            nonlocal looks
            looks += 1
            return float(self) < other

    for n in (100, 1000):
        looks, points = 0, [Counted(i / n) for i in range(n + 1)]
        places([i / n for i in range(n + 1)], points, "the grid", "add it")
        assert looks <= (n + 1) * (math.log2(n) + 2)

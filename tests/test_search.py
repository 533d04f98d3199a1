"""Which numbers of steps a selection tries: none that is more than a tenth cheaper is left out, where errors fall."""

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circsde.studies import select
from circsde.studies.steps import MOST, SLACK, Seen, between, following, most_within, too_few


def price(evaluations: float, n: int) -> float:
    return evaluations * n


@given(
    scale=st.floats(1e-3, 10.0),
    order=st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    bend=st.floats(-0.5, 3.0),
    tolerance=st.floats(1e-4, 0.5),
)
def test_one_candidate_is_found_to_a_tenth(scale: float, order: float, bend: float, tolerance: float) -> None:
    """Errors ``c n^-p / (1 + b / n)`` that fall: the number found is at most 1.1 times the least one, in few tries."""

    def error(n: int) -> float:
        return scale * n**-order * math.exp(-bend / n)

    least = next((n for n in range(1, MOST + 1) if error(n) <= tolerance), None)
    seen, limit = dict[int, Seen](), math.inf
    for _ in range(40):
        n = following(seen, most_within(partial(price, 2.0), limit), tolerance, order)
        if n is None:
            break
        assert n not in seen
        seen[n] = Seen(error(n), error(n) <= tolerance)
        limit = 2.0 * min((m for m, one in seen.items() if one.accepted), default=math.inf) / SLACK
    found = min((m for m, one in seen.items() if one.accepted), default=None)
    assert n is None
    if least is None:
        assert found is None
    else:
        assert found is not None
        assert found <= SLACK * least
        assert len(seen) <= 24


@given(first=st.integers(1, 300), more=st.integers(0, 700))
def test_steps_between_leave_no_gap_of_more_than_a_tenth(first: int, more: int) -> None:
    counts = [*between(first, first + more)]
    assert counts[0] == first + more
    assert counts[-1] >= first
    assert counts[-1] <= SLACK * first + 1
    assert all(b < a <= max(b + 1, SLACK * b) for a, b in zip(counts, counts[1:], strict=False))


def test_what_was_tried_is_told_apart_from_what_is_left() -> None:
    assert too_few({4: Seen(0.3, False), 8: Seen(0.05, True), 16: Seen(0.2, False)}) == 4
    assert following({4: Seen(math.nan, False)}, MOST, 0.1, 2.0) == 8
    assert following({4: Seen(1.0, False)}, MOST, 1e-9, 1.0) is None  # 4e9 steps, by its order
    assert following({4: Seen(1.0, False)}, 4, 0.1, 1.0) is None


@pytest.mark.parametrize(("name", "tolerance"), [("von_mises_well", 3e-3), ("drifting", 2e-3)])
def test_steps_are_searched_for(name: str, tolerance: float) -> None:
    """By brute force over every number of steps: nothing that meets the tolerance is more than a tenth cheaper."""
    methods = ["euler_maruyama", "heun", "sra1"]
    choice = select(name, tolerance, methods=methods)
    assert choice.verdict == "resolved"
    assert choice.nfe is not None
    for method, evaluations in zip(methods, (1, 2, 2), strict=True):
        most = math.ceil(choice.nfe / SLACK / evaluations) - 1
        everything = select(name, tolerance, methods=[method], steps=range(max(1, most // 2), most + 1))
        assert everything.method is None

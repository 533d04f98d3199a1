"""The numbers of steps that a selection tries: where errors fall, it finds the cheapest to a tenth."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circsde.exact import problems
from circsde.exact.problems import normal
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.solvers import sdeint
from circsde.studies import Simulation, exact_convergence, select, weak_convergence
from circsde.studies.grids import graded_grid
from circsde.studies.steps import MOST, SLACK, Seen, between, following, most_within, too_few


def price(evaluations: float, n: int) -> float:
    return evaluations * n


@given(
    scale=st.floats(1e-3, 10.0),
    order=st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    bend=st.floats(-1.0, 1.0),
    tolerance=st.floats(1e-4, 0.5),
)
def test_one_candidate_is_found_to_a_tenth(scale: float, order: float, bend: float, tolerance: float) -> None:
    """Errors ``c n^-p exp(-b p / n)``, which fall: the number found is at most 1.1 times the least, in few tries."""

    def error(n: int) -> float:
        return scale * math.exp(-order * (bend / n + math.log(n)))

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


@pytest.mark.parametrize(
    ("name", "tolerance"), [("von_mises_well", 1e-2), pytest.param("drifting", 2e-3, marks=pytest.mark.slow)]
)
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


def test_grids_are_candidates_of_reversed_equations() -> None:
    """With exact score steps that shrink towards the data are the cheaper ones, and the choice makes their grid."""
    choice = select("reverse", 6e-2, methods=["heun"])
    assert choice.dataset["solver"].values.tolist() == ["heun", "heun, power 2"]
    assert (choice.power, choice.verdict) == (2.0, "resolved")
    assert choice.n_steps is not None
    grid = choice.settings["grid"]
    assert grid == graded_grid(1.0, choice.n_steps, 2.0)
    problem = problems.get("reverse")
    ends = sdeint(
        problem.sde,
        problem.sample(20_000, torch.Generator().manual_seed(1)),
        (0.0, 1.0),
        **choice.settings,
        generator=2,
    ).theta[-1]
    for observable in problem.observables[:4]:
        values = observable.function(ends)
        assert abs(values.mean().item() - observable.expected) < 6e-2 + 4.5 * values.std().item() / 20_000**0.5
    even = select("reverse", 6e-2, methods=["heun"], power=[1.0])
    assert even.nfe is not None
    assert choice.nfe is not None
    assert even.nfe > choice.nfe
    assert "power=2.0" in repr(choice)


def test_a_graded_law_is_that_of_its_steps() -> None:
    """On two steps of unequal length, by transfer operators and by 60,000 paths, to 4.5 standard errors (seeded)."""
    problem = problems.get("published_doubled")
    table = exact_convergence(problem, "weak", ["heun"], [2], power=2.0)
    ends = sdeint(
        problem.sde,
        problem.sample(60_000, torch.Generator().manual_seed(3)),
        (0.0, 1.0),
        grid=graded_grid(1.0, 2, 2.0),
        generator=4,
    ).theta[-1]
    for i, observable in enumerate(problem.observables[:4]):
        values = observable.function(ends)
        gap = values.mean().item() - observable.expected - table["observable_error"][0, 0, i].item()
        assert abs(gap) < 4.5 * values.std().item() / 60_000**0.5
    even = exact_convergence(problem, "weak", ["heun"], [2])
    assert abs(even["error"].item() - table["error"].item()) > 0.01


def test_sampled_steps_on_a_grid_are_those_of_the_law() -> None:
    """The same number by coupled paths as by transfer operators, within its interval."""
    exact = exact_convergence("von_mises_well", "weak", ["heun"], [4], power=2.0)["error"].item()
    choice = select(
        "von_mises_well", 0.9 * exact, methods=["heun"], steps=[4], power=[2.0], monte_carlo=True, budget=3e6
    )
    one = choice.dataset.sel(solver="heun, power 2", steps=4)
    assert one["lower"].item() <= exact <= one["upper"].item()
    assert one["paths"].item() > 0


def test_the_clock_can_be_the_cost() -> None:
    """The same candidates at other prices; what was measured, and where, is with the choice."""
    choice = select("von_mises_well", 3e-2, methods=["euler_maruyama", "heun"], cost="seconds")
    assert choice.dataset.attrs["cost"] == "seconds"
    assert choice.dataset.attrs["timed_paths"] == 1 << 15
    assert choice.dataset.attrs["device"]
    seconds = choice.dataset["seconds"].where(choice.dataset["accepted"])
    assert choice.seconds == seconds.min().item() > 0.0
    assert choice.verdict == "resolved"
    with pytest.raises(ValueError, match="unknown cost 'time'; choose one of nfe, seconds"):
        select("von_mises_well", 3e-2, cost="time")


def test_only_what_has_no_operator_is_sampled() -> None:
    """A method that remembers more than its last state, beside one whose law is known: two kinds of evidence."""
    choice = select("reverse", 5e-2, methods=["heun", "multistep"], steps=[8], budget=1e7)
    paths = choice.dataset["paths"].sel(steps=8)
    assert paths.sel(solver="heun").item() == 0
    assert paths.sel(solver="multistep").item() > 0
    assert choice.dataset.attrs["evidence"] == "transfer operators and Monte Carlo"


@pytest.mark.slow
def test_steps_of_sampled_candidates_are_searched_for() -> None:
    """Three oscillators, whose law is not known: within a tenth of the cheapest, by other paths."""
    three = Simulation(KuramotoSDE((3,), schedule=Schedule.constant(coupling=4.0, diffusion=0.5)), normal(2.0, 0.8))
    choice = select(three, 0.05, methods=["euler_maruyama", "heun"], budget=3e7)
    assert choice.method is not None
    assert choice.n_steps is not None
    assert choice.dataset["nfe"].notnull().sum() > 8
    again = weak_convergence(three, [choice.method], [choice.n_steps], paths=20_000, seed=9)
    assert again["lower"].item() <= 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"power": [-1.0]}, r"powers of grids must be positive, or 0 for equal errors, got \[-1.0\]"),
        ({"power": []}, "powers of grids must be positive"),
        ({"power": [2.0], "metric": "stationary"}, "a stationary law is that of equal steps: leave out power"),
    ],
)
def test_impossible_grids_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select(**({"subject": "von_mises_well", "tolerance": 0.1} | change))  # type: ignore[arg-type]

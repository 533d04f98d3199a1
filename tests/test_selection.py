"""The choice of a method and its steps: right against the exact errors of every candidate, and honest about doubt."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.special import ive

from circsde.coupling import NoCoupling
from circsde.exact import problems
from circsde.exact.fokker_planck import fokker_planck
from circsde.exact.problems import Observable
from circsde.kuramoto import KuramotoSDE
from circsde.models.mlp import ScoreMLP
from circsde.record import save_netcdf
from circsde.schedule import Schedule
from circsde.sde import SDE, reverse
from circsde.solvers import odeint, sdeint
from circsde.studies import (
    Choice,
    Runner,
    Simulation,
    exact_convergence,
    flow_convergence,
    select,
    study,
    work_precision,
)
from circsde.studies.advice import best, worse_when_finer
from circsde.studies.convergence import plan
from circsde.studies.experiment import Wave
from circsde.studies.flows import plan_flow
from circsde.studies.monte_carlo import simulate
from circsde.torus import distance
from circsde.typing import Angles

OURS = ("euler_maruyama", "heun", "sra1", "mobius_strang")
CIRCLE = ("wrapped_brownian_motion", "von_mises_well", "published", "published_doubled", "noise_dominated", "drifting")


def truth(name: str, methods: Sequence[str], steps: Sequence[int], runner: Runner | None = None) -> xr.DataArray:
    """The exact weak error of every candidate, over (solver, steps)."""
    study = exact_convergence(name, "weak", methods, steps, runner=runner)
    return study["error"].assign_coords(nfe=study["nfe"])


def is_right(choice: Choice, errors: xr.DataArray, tolerance: float) -> bool:
    """Within the tolerance, while two notches down (a quarter of the steps), where that is offered, is not."""
    method, n = choice.method, choice.n_steps
    assert n is not None
    cheaper = errors.sel(solver=method).sel(steps=errors["steps"] <= n // 4)
    return bool(errors.sel(solver=method, steps=n) <= tolerance and (cheaper > tolerance).all())


LONGER = ("published", "published_doubled", "noise_dominated", "wrapped_brownian_motion", "drifting", "stiff_well")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONGER else ()) for name in (*CIRCLE, "stiff_well")]
)
def test_the_choice_is_the_cheapest_that_is_good_enough(name: str, tmp_path: Path) -> None:
    """By transfer operators, against every candidate there is: 4 tolerances on each of 7 problems."""
    steps, runner = [n for n in problems.get(name).steps if n <= 80], Runner(tmp_path)
    errors = truth(name, OURS, steps, runner)
    for tolerance in (1e-1, 2e-2, 5e-3, 1e-3):
        choice = select(name, tolerance, methods=OURS, steps=steps, runner=runner)
        good = errors["nfe"].where(errors <= tolerance)
        if good.isnull().all():
            assert choice.method is None
            continue
        assert is_right(choice, errors, tolerance)
        assert choice.nfe == good.min()
        assert choice.verdict == "resolved"


def sampled_choice(name: str, tolerance: float) -> tuple[Choice, xr.DataArray]:
    """A choice by Monte Carlo, and the truth."""
    steps = [n for n in problems.get(name).steps if n <= 40]
    methods = OURS[:3]
    choice = select(name, tolerance, methods=methods, steps=steps, monte_carlo=True, budget=2e8, seed=5)
    return choice, truth(name, methods, steps)


@pytest.mark.parametrize(
    ("name", "tolerance"), [("von_mises_well", 3e-2), pytest.param("noise_dominated", 1e-2, marks=pytest.mark.slow)]
)
def test_a_sampled_choice_is_right(name: str, tolerance: float) -> None:
    choice, errors = sampled_choice(name, tolerance)
    assert choice.verdict == "resolved"
    assert is_right(choice, errors, tolerance)
    assert not (choice.dataset["accepted"] & (errors > tolerance)).any()
    assert not (choice.dataset["rejected"] & (errors <= tolerance)).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", CIRCLE)
@pytest.mark.parametrize("tolerance", [1e-1, 5e-2, 3e-2, 1e-2])
def test_a_sampled_choice_is_right_everywhere(name: str, tolerance: float) -> None:
    """By Monte Carlo, 24 pairs of a problem and a tolerance; each may fail in 5 % of seeds at most (seeded)."""
    choice, errors = sampled_choice(name, tolerance)
    if not choice.method:
        assert choice.advice
        assert not (errors <= 0.8 * tolerance).any()
        return
    assert is_right(choice, errors, tolerance)


@pytest.mark.slow
def test_a_candidate_beyond_the_tolerance_is_hardly_ever_chosen() -> None:
    """An error 3 % above the tolerance, two looks: 5 % of seeds may choose it, and then 5 of 25 in 0.7 % of cases."""
    name, methods = "wrapped_brownian_motion", ["euler_maruyama"]
    tolerance = truth(name, methods, [2]).item() / 1.03
    chosen = [
        select(name, tolerance, methods=methods, steps=[2], monte_carlo=True, budget=5e5, seed=seed, confidence=0.95)
        for seed in range(25)
    ]
    assert sum(choice.method is not None for choice in chosen) <= 4
    assert {int(choice.dataset["paths"].max()) for choice in chosen} == {4096}


def test_strong_errors_can_be_asked_for() -> None:
    """Euler-Maruyama on pure noise, whose strong error is known by Ito's isometry: 0.516 at 2 steps, halved with h."""
    choice = select(
        "wrapped_brownian_motion", 0.15, metric="strong", methods=["euler_maruyama"], steps=[2, 4, 8, 16, 32]
    )
    assert choice.n_steps == 8
    assert choice.dataset["error"].attrs["units"] == "rad"


def test_stationary_errors_can_be_asked_for() -> None:
    choice = select("von_mises_well", 1e-3, metric="stationary")
    assert choice.method == "leimkuhler_matthews"


def test_a_method_of_torchsde_can_be_chosen() -> None:
    choice = select("published", 2e-2, methods=["heun", "torchsde:srk"])
    assert (choice.method, choice.n_steps) == ("torchsde:srk", 4)


@pytest.mark.slow
def test_a_flow_gets_a_method_and_a_tolerance() -> None:
    """The chosen pair is as accurate as promised against Runge-Kutta with 500 steps, on fresh starts."""
    problem = problems.get("probability_flow")
    choice = select(problem, 1e-3, metric="strong", methods=["dopri5"], atol=(1e-2, 1e-3, 1e-4))
    assert choice.settings == {"method": "dopri5", "atol": choice.atol}
    atol = choice.settings["atol"]
    theta = problem.sample(200, torch.Generator().manual_seed(77))
    chosen = odeint(problem.sde.drift, theta, (0.0, 1.0), **choice.settings).theta[-1]
    exact = odeint(problem.sde.drift, theta, (0.0, 1.0), method="rk4", n_steps=500).theta[-1]
    assert distance(chosen, exact).square().mean().sqrt() < 1e-3
    assert choice.verdict == "resolved"
    study = flow_convergence(problem, ["dopri5"], (atol, 100 * atol), paths=100)
    assert study["error"].sel(atol=100 * atol).item() > 1e-3


@pytest.mark.slow
def test_a_sampler_gets_steps_and_stochasticity() -> None:
    choice = select("reverse", 5e-2, methods=["euler_maruyama", "heun"], steps=[5, 10, 20], stochasticity=(0.0, 1.0))
    assert choice.dataset["solver"].values.tolist() == [
        f"{method}, l = {level}" for level in (0, 1) for method in ("euler_maruyama", "heun")
    ]
    price = choice.dataset["nfe"].where(choice.dataset["upper"] <= 5e-2).min().item()
    assert choice.nfe == price
    assert choice.stochasticity in (0.0, 1.0)
    assert f"l = {choice.stochasticity:g}" in str(choice)


@pytest.mark.slow
def test_a_learned_sampler_can_be_chosen_for() -> None:
    forward = KuramotoSDE((4,))
    network = ScoreMLP((4,), forward.schedule.diffusion).eval()
    sampler = Simulation(reverse(forward, network), lambda n, gen: 6 * torch.rand(n, 4, generator=gen) - 3)
    choice = select(sampler, 0.1, methods=["heun"], steps=[4, 8], stochasticity=(0.0, 1.0), budget=1e7)
    assert choice.method == "heun"


def test_where_nothing_qualifies_it_says_how_many_steps_would() -> None:
    choice = select("published", 1e-3, methods=["heun"], steps=[5, 10, 20])
    assert choice.method is None
    assert "nothing on offer qualifies: the least error is 0.0045, with heun, 20 steps; at order 2 about 43 do" in (
        str(choice)
    )
    assert select("published", 1e-3, methods=["heun"], steps=[43]).n_steps == 43


def test_where_errors_do_not_fall_at_their_order_yet_no_number_of_steps_is_promised() -> None:
    choice = select("stiff_well", 1e-3, methods=["heun"], steps=[10, 20])
    assert "not yet at the 2 of the method, so that no number of steps can be told: offer more" in choice.advice


@pytest.mark.slow
def test_where_the_budget_is_too_small_it_says_how_many_paths_would_do() -> None:
    poor = select("published", 1e-2, methods=["heun"], steps=[10, 20], monte_carlo=True, budget=1e5)
    assert poor.verdict == "not resolved"
    assert "paths would tell, within a larger budget" in poor.advice
    rich = select("published", 1e-2, methods=["heun"], steps=[10, 20], monte_carlo=True)
    assert (rich.verdict, rich.n_steps) == ("resolved", 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": []}, "at least one number of steps"),
        ({"methods": []}, "at least one method"),
        ({"methods": ["rk4"]}, "rk4 is a method of torchdiffeq"),
        ({"tolerance": 0.0}, "the tolerance must be positive and finite, got 0"),
        ({"tolerance": math.nan}, "the tolerance must be positive"),
        ({"metric": "speed"}, "unknown metric 'speed'; choose one of strong, weak, stationary"),
        ({"methods": ["nope"]}, "unknown method 'nope'"),
        ({"stochasticity": (1.0,)}, "only a reversed SDE has a stochasticity to choose, got KuramotoSDE"),
        ({"metric": "stationary"}, "the stationary law of published is not known"),
    ],
)
def test_impossible_choices_say_what_to_change(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select(**({"subject": "published", "tolerance": 0.1} | change))  # type: ignore[arg-type]


def test_a_reference_takes_steps_that_are_stable() -> None:
    """A well where the default steps are far beyond stability: E cos = I1(20) / I0(20) at the horizon, Euler's is 0.

    Left at eight times the largest number of steps, the reference is as uniform as Euler's solution, and accepts it.
    """
    well = KuramotoSDE((1,), NoCoupling(), Schedule.constant(reference=1.0, diffusion=0.05, horizon=300.0))
    cosine = (Observable("E cos theta", Wave("cos", 1), math.nan),)
    methods = ["euler_maruyama", "heun", "mobius_strang"]
    choice = select(Simulation(well, observables=cosine), 0.1, methods=methods, steps=[5])
    assert choice.method == "mobius_strang"
    assert choice.verdict == "resolved"
    mean = ive(1, 20.0) / ive(0, 20.0)
    euler = choice.dataset.sel(solver="euler_maruyama", steps=5)
    assert euler["lower"] - 0.05 < mean < euler["upper"] + 0.05
    block = plan(Simulation(well), "weak", methods, [5], 8, 0)
    assert block.reference >= 600  # a step of 1/2, and of 1 in the coarser solution
    blind = replace(block, least=0, count=256)
    features = blind.features(blind.solve())[:, 0, 0].mean()
    assert abs(features) < 0.2  # the twin: the same error seems small


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rates", "tolerance"),
    [((100.0, 1.0, 50.0), 0.15), ((1.0, 0.05, 2e4), 0.1)],
    ids=["strong attraction", "long horizon"],
)
def test_unstable_methods_are_rejected_by_a_stable_reference(rates: tuple[float, ...], tolerance: float) -> None:
    """Steps of 50 to 500 relaxation times: the law at the horizon is von Mises, theirs is uniform, E cos = 0."""
    reference, diffusion, horizon = rates
    sde = KuramotoSDE((1,), NoCoupling(), Schedule.constant(reference=reference, diffusion=diffusion, horizon=horizon))
    kappa = reference / diffusion
    cosine = (Observable("E cos theta", Wave("cos", 1), math.nan),)
    subject = Simulation(sde, observables=cosine)
    choice = select(subject, tolerance, methods=["euler_maruyama", "heun"], steps=[5, 10], budget=1e8)
    assert choice.verdict != "resolved"
    assert not choice.dataset["accepted"].any()
    mean = ive(1, kappa) / ive(0, kappa)
    assert (choice.dataset["lower"] < mean).all()
    assert (choice.dataset["upper"] > mean).all()


def test_more_steps_that_are_worse_are_no_resolved_choice() -> None:
    values = {"error": [0.01, 0.5], "lower": [0.0, 0.4], "upper": [0.02, 0.6], "nfe": [5.0, 10.0]}
    table = xr.Dataset(
        {name: (("solver", "steps"), [v]) for name, v in values.items()}, {"solver": ["a"], "steps": [5, 10]}
    )
    assert worse_when_finer(table["upper"] <= 0.1, table["lower"] > 0.1).values.tolist() == [[True, False]]
    assert not worse_when_finer(table["upper"] <= 1.0, table["lower"] > 1.0).any()
    finer = table.rename(steps="atol").assign_coords(atol=[1e-2, 1e-3])
    assert worse_when_finer(finer["upper"] <= 0.1, finer["lower"] > 0.1).values.tolist() == [[True, False]]


def test_every_look_spends_its_share_of_the_error_probability() -> None:
    """The second look's intervals are those of its paths at the confidence ``1 - 0.05 6 / (2 pi)^2``."""
    methods, steps = ["euler_maruyama"], [2]
    tolerance = truth("wrapped_brownian_motion", methods, steps).item() / 1.03
    choice = select(
        "wrapped_brownian_motion", tolerance, methods=methods, steps=steps, monte_carlo=True, budget=5e5, seed=3
    )
    block = replace(plan("wrapped_brownian_motion", "weak", methods, steps, 8, 3), first=1024)
    second = block.tabulate(simulate(block, 4096), 1 - 0.05 * 6 / (2 * math.pi) ** 2)
    assert choice.dataset["paths"].item() == 4096
    assert choice.dataset["upper"].item() == second["upper"].item()
    assert choice.dataset["lower"].item() == second["lower"].item()
    assert second["upper"].item() > block.tabulate(simulate(block, 4096), 0.95)["upper"].item()


def test_equally_cheap_candidates_are_told_apart_by_their_accuracy() -> None:
    values = {"error": [[3e-3, 1e-4], [2e-3, 1e-3]], "nfe": [[10.0, 20.0], [10.0, 20.0]]}
    rows = {name: (("solver", "steps"), v) for name, v in values.items()}
    table = xr.Dataset(rows, {"solver": ["heun", "sra1"], "steps": [5, 10]})
    assert best(table, table["error"] > 0)["solver"] == "sra1"
    assert best(table, table["steps"] > 5 + 0 * table["error"])["solver"] == "heun"


def own_drift(t: float | torch.Tensor, theta: Angles) -> Angles:  # noqa: ARG001
    return -torch.sin(2 * theta)


def test_an_equation_of_ones_own_gets_a_choice_by_default() -> None:
    """mobius_strang does not apply to it, nor to its reversal, and is not tried."""
    own = SDE(own_drift, lambda t: 1.0, horizon=1.0, event_shape=(3,))  # noqa: ARG005
    backward = reverse(own, own_drift)
    for sde in (own, backward):
        choice = select(sde, 0.5, steps=[2, 4])
        assert choice.method is not None
        assert "mobius_strang" not in choice.dataset["solver"]
    assert "mobius_strang" not in study(own, steps=[2], paths=8)["solver"]
    assert "mobius_strang" not in work_precision(own, steps=[2], paths=8, timed_paths=2, repeats=1)["solver"]
    assert "mobius_strang" in study(KuramotoSDE((3,)), steps=[2], paths=8)["solver"]


@pytest.mark.slow
def test_a_network_in_single_precision_gets_a_choice() -> None:
    """Of a sampler, and of a flow, whose smallest tolerances angles of float32 do not resolve."""
    forward = KuramotoSDE((2,))
    network = ScoreMLP((2,), forward.schedule.diffusion).eval()
    choice = select(reverse(forward, network), 0.5, methods=["heun"], steps=[4])
    assert choice.method == "heun"
    flow = reverse(forward, network, 0.0)
    assert plan_flow(flow, "weak", ["bosh3"], None, 0).tolerances == (1e-2, 1e-3, 1e-4)
    assert select(flow, 0.5, methods=["bosh3"], atol=[1e-2], budget=1e6).method == "bosh3"
    wide = Simulation(reverse(forward, network), lambda n, g: torch.rand(n, 2, generator=g, dtype=torch.float64))
    with pytest.raises(ValueError, match="the starts are float64 and the parameters of the equation are float32"):
        select(wide, 0.5, methods=["heun"], steps=[4])


@pytest.mark.parametrize(("name", "methods"), [("mean_field_100", None), ("probability_flow", ["bosh3"])])
def test_a_budget_is_kept_or_refused(name: str, methods: list[str] | None) -> None:
    with pytest.raises(ValueError, match=r"a first look at 512 paths takes about .* more than the budget of 1e\+04"):
        select(name, 1e-3, metric="strong", methods=methods, atol=[1e-1], budget=1e4)


def test_a_choice_knows_what_it_rests_on() -> None:
    choice = select("von_mises_well", 3e-2, methods=["heun"], steps=[5, 10], monte_carlo=True, budget=1e6)
    assert {"error", "lower", "upper", "nfe", "paths", "accepted", "rejected"} <= set(choice.dataset.data_vars)
    assert choice.dataset.attrs["work"] <= 1e6
    assert np.array_equal(choice.dataset["accepted"], choice.dataset["upper"] <= 3e-2)


def test_a_choice_is_the_same_when_read_from_its_file(tmp_path: Path) -> None:
    for tolerance, methods in ((0.05, ["heun"]), (1e-9, ["heun"])):
        choice = select("drifting", tolerance, methods=methods, steps=[5, 10, 20])
        save_netcdf(choice.dataset, tmp_path / "choice.nc", force=True)
        with xr.open_dataset(tmp_path / "choice.nc") as dataset:
            again = Choice(dataset.load())
        for name in ("method", "n_steps", "atol", "stochasticity", "nfe", "verdict", "advice"):
            assert getattr(again, name) == getattr(choice, name)
        assert str(again) == str(choice)
        assert repr(again) == repr(choice)


def test_nothing_chosen_has_no_settings() -> None:
    choice = select("drifting", 1e-9, methods=["heun"], steps=[5])
    assert (choice.method, choice.n_steps, choice.nfe) == (None, None, None)
    with pytest.raises(ValueError, match="nothing was chosen: nothing on offer qualifies: the least error is"):
        _ = choice.settings


def test_a_choice_goes_straight_into_a_solve() -> None:
    choice = select("drifting", 1e-2, methods=["euler_maruyama", "heun"])
    problem = problems.get("drifting")
    solution = sdeint(problem.sde, torch.zeros(1, 1), (0.0, problem.sde.horizon), **choice.settings, generator=0)
    assert solution.stats.nfe == choice.nfe


START = problems.normal(2.0, 0.4)


def map_drift(t: float | torch.Tensor, theta: Angles) -> Angles:  # noqa: ARG001
    return 1.0 + 0.8 * (2 * theta).sin() - theta.cos().exp()


def test_an_equation_of_ones_own_on_one_angle_is_decided_without_sampling() -> None:
    """From a law; its errors are those of 60,000 paths, to 4.5 standard errors (a false-alarm rate of 1e-5, seeded)."""
    own = Simulation(SDE(map_drift, 0.7, 1.0, event_shape=(1,)), START, name="a map")
    choice = select(own, 1e-2)
    assert (choice.method, choice.verdict) == ("sra1", "resolved")
    assert choice.dataset["paths"].max() == 0
    assert "mobius_strang" not in choice.dataset["solver"]
    table = study(own, "weak", ["heun"], [2, 4])
    assert table.attrs["evidence"] == "transfer operators"
    ends = sdeint(
        own.sde, own.sample(60_000, torch.Generator().manual_seed(1)), (0.0, 1.0), n_steps=2, method="heun", generator=2
    ).theta[-1]
    law = fokker_planck(own.sde, START)
    for m in range(1, 4):
        values = (m * ends).cos().flatten()
        bias = table["observable_error"].sel(observable=f"E cos {m} theta", steps=2).item()
        sampled = values.mean().item() - law.moment(1.0, m).real
        assert abs(sampled - bias) < 4.5 * values.std().item() / 60_000**0.5
    assert table["error"].sel(steps=2).item() > 0.02


def test_what_has_no_law_in_closed_form_is_sampled_as_before() -> None:
    """A start that draws angles, three angles, a drift with a kink, an observable that jumps."""
    smooth = SDE(map_drift, 0.7, 1.0, event_shape=(1,))
    kinked = SDE(lambda t, theta: theta.sin().abs(), 0.7, 1.0, event_shape=(1,))  # noqa: ARG005
    jump = Observable("P(theta > 0)", lambda theta: (theta[:, 0].sin() > 0).double(), math.nan)
    assert Simulation(smooth).problem is not None
    for known in (
        Simulation(smooth, lambda n, g: torch.randn(n, 1, generator=g, dtype=torch.float64)),
        Simulation(SDE(map_drift, 0.7, 1.0, event_shape=(3,))),
        Simulation(kinked),
        Simulation(smooth, observables=(jump,)),
    ):
        assert known.problem is None

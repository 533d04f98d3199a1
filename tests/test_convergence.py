"""Monte-Carlo studies: intervals against closed forms, orders against theory, and methods broken on purpose."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats as scipy_stats
from scipy.integrate import quad
from torch import Tensor

from circsde.exact import problems
from circsde.exact.problems import Observable
from circsde.kuramoto import KuramotoSDE
from circsde.models.mlp import ScoreMLP
from circsde.record import save_netcdf
from circsde.schedule import Schedule
from circsde.sde import SDE, reverse
from circsde.solvers.brownian import Brownian, Noise
from circsde.solvers.methods import HEUN, SRA1
from circsde.studies import Simulation, exact_convergence, strong_convergence, study, weak_convergence
from circsde.studies.convergence import enough, plan
from circsde.studies.estimates import strong_errors, weak_errors
from circsde.studies.experiment import Wave
from circsde.studies.grids import graded_grid
from circsde.studies.monte_carlo import simulate
from circsde.studies.paths import KnownPath
from circsde.studies.result import STRONG, WEAK, verdict
from circsde.studies.statistics import Moments, Order, fit_order, quantile
from circsde.typing import Angles

DIFFUSING = problems.get("wrapped_brownian_motion")


def g(t: float) -> float:
    """The noise amplitude of that problem: D runs from 0.1 to 2."""
    return math.sqrt(2 * (0.1 + 1.9 * t))


def euler_strong_error(steps: int) -> float:
    """Root of ``E (sum int (g(t_i) - g) dW)^2`` on the lift, by Ito's isometry."""
    left = [i / steps for i in range(steps)]
    return math.sqrt(sum(quad(lambda t, a=a: (g(t) - g(a)) ** 2, a, a + 1 / steps)[0] for a in left))


def euler_weak_errors(steps: int) -> list[float]:
    """``E cos m theta`` and ``E sin m theta`` of the start WN(2, 0.4), as the chain spreads it less the exact ones."""
    chain, exact = sum(g(i / steps) ** 2 for i in range(steps)) / steps, quad(lambda t: g(t) ** 2, 0, 1)[0]
    damp = [math.exp(-(m**2) * (0.16 + chain) / 2) - math.exp(-(m**2) * (0.16 + exact) / 2) for m in range(1, 6)]
    return [d * wave(2.0 * m) for m, d in enumerate(damp, 1) for wave in (math.cos, math.sin)]


def repetitions(kind: str, steps: int, paths: int, repeats: int) -> Iterator[Moments]:
    """The moments of independent studies, each of its own part of one large sample."""
    block = plan(DIFFUSING, kind, ["euler_maruyama"], [steps], 16, seed=1)
    solved = replace(block, count=paths * repeats).solve()
    for part in block.features(solved).numpy().reshape(repeats, paths, 1, -1):
        yield Moments.of(part)


def covers(low: float, value: float, high: float) -> bool:
    return low <= value <= high


def test_strong_intervals_cover_the_exact_error_as_often_as_they_say() -> None:
    """Out of 200 repetitions of 40 paths; the share misses 95 +- 4 % by chance in 1 % of seeds."""
    truth, hits, twice = euler_strong_error(2), 0, 0
    for moments in repetitions(STRONG, 2, 40, 200):
        lifted = [x[0, 0, 1] for x in vars(strong_errors(moments, 0.95, None)[1]).values() if isinstance(x, np.ndarray)]
        error, low, high = lifted
        hits += covers(low, truth, high)
        shrink = math.sqrt(40)  # what dividing by the root of the number of paths once too often does
        twice += covers(error - (error - low) / shrink, truth, error + (high - error) / shrink)
    assert 0.91 <= hits / 200 <= 0.99
    assert twice / 200 < 0.5


def test_weak_intervals_cover_the_exact_error_as_often_as_they_say() -> None:
    """Every observable in 200 repetitions of 40 paths; a share misses 95 +- 4 % by chance in 1 % of seeds."""
    truth = np.array(euler_weak_errors(2))
    bounds = [weak_errors(moments, DIFFUSING.observables, 0.95, None)[1] for moments in repetitions(WEAK, 2, 40, 200)]
    hits = np.mean([(b.lower[0, 0] <= truth) & (truth <= b.upper[0, 0]) for b in bounds], axis=0)
    assert 0.93 <= hits.mean() <= 0.97
    assert hits.min() >= 0.90


def test_the_interval_of_the_largest_error_covers_it() -> None:
    truth = max(map(abs, euler_weak_errors(2)))
    errors = [weak_errors(moments, DIFFUSING.observables, 0.95, None)[0] for moments in repetitions(WEAK, 2, 40, 200)]
    assert np.mean([e.lower[0, 0] <= truth <= e.upper[0, 0] for e in errors]) >= 0.93


def test_a_known_expectation_is_a_control_variate_that_narrows_intervals() -> None:
    """Where steps are coarse the reference is only a part of the answer: its own deviation tells the rest."""
    unknown = replace(DIFFUSING, observables=tuple(replace(o, expected=math.nan) for o in DIFFUSING.observables))
    with_it, without = (weak_convergence(p, ["euler_maruyama"], [2], paths=2000) for p in (DIFFUSING, unknown))
    assert (with_it["standard_error"] < 0.95 * without["standard_error"]).all()
    gap = abs(with_it["observable_error"] - without["observable_error"]).max()
    assert gap < (without["observable_upper"] - without["observable_lower"]).max()


def test_an_expectation_is_used_only_as_far_as_it_is_known() -> None:
    """Known to 1e-3 it widens the intervals; known to 1 it is no help, and is left aside."""
    unknown = replace(DIFFUSING, observables=tuple(replace(o, expected=math.nan) for o in DIFFUSING.observables))
    subjects = [*(replace(DIFFUSING, uncertainty=u) for u in (1e-10, 1e-3, 1.0)), unknown]
    sharp, fair, vague, none = (weak_convergence(p, ["euler_maruyama"], [2], paths=2000) for p in subjects)
    widths = [(study["upper"] - study["lower"]).item() for study in (sharp, fair, vague)]
    assert widths[0] < widths[1] < widths[2]
    assert (vague["upper"] == none["upper"]).all()


def test_monte_carlo_agrees_with_transfer_operators() -> None:
    """All observables of five methods at three step counts lie within simultaneous 99.99 % intervals."""
    steps, methods = (5, 10, 20), ["euler_maruyama", "heun", "sra1", "mobius_strang", "leimkuhler_matthews"]
    exact = exact_convergence("noise_dominated", WEAK, methods, steps)["observable_error"]
    level = 1 - 1e-4 / exact.size
    sampled = weak_convergence("noise_dominated", methods, steps, paths=8192, confidence=level)
    assert ((sampled["observable_lower"] <= exact) & (exact <= sampled["observable_upper"])).all()
    assert (sampled["observable_upper"] - sampled["observable_lower"]).min() < 0.02  # narrow enough to matter


@pytest.mark.slow
def test_heun_with_g_at_the_left_end_is_caught() -> None:
    """Heun's method with ``g`` frozen at the left end claims weak order 2 and has 1."""

    def left_end(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
        amplitude, slope = sde.diffusion(t), sde.drift(t, theta)
        predicted = theta + h * slope + amplitude * noise.dW
        return theta + 0.5 * h * (slope + sde.drift(t + h, predicted)) + amplitude * noise.dW

    broken = replace(HEUN, name="broken", step=left_end)
    study = exact_convergence("published_doubled", WEAK, [HEUN, broken], (40, 80, 160))
    assert study["verdict"].values.tolist() == ["resolved", "below its claim"]
    assert study["order"].values == pytest.approx([2.0, 1.0], abs=0.15)
    sampled = weak_convergence("wrapped_brownian_motion", [HEUN, broken], (4, 8, 16), paths=8192)
    assert sampled["verdict"].values.tolist() == ["not resolved", "below its claim"]  # Heun's is exact there
    assert sampled["order"].values[1] == pytest.approx(1.0, abs=0.15)


def test_a_missing_area_is_caught() -> None:
    """SRA1 without ``dZ`` claims strong order 1.5 and has 1."""

    def no_area(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
        return SRA1.step(sde, t, h, theta, Noise(noise.dW, 0.5 * h * noise.dW))

    broken = replace(SRA1, name="broken", step=no_area)
    study = strong_convergence("noise_dominated", [SRA1, broken], (10, 20, 40, 80), paths=1024)
    assert study["verdict"].values.tolist() == ["resolved", "below its claim"]
    assert study["order"].sel(solver="broken").item() == pytest.approx(1.0, abs=0.1)
    assert study["order"].sel(solver="sra1").item() > 1.4


def test_too_few_paths_are_not_resolved() -> None:
    study = weak_convergence("published_doubled", ["heun"], (20, 40, 80), paths=200)
    assert not study["resolved"].any()
    assert study["verdict"].item() == "not resolved"
    assert np.isnan(study["order"].item())
    assert (study["paths_needed"] > 200).all()


def test_the_number_of_paths_needed_is_enough() -> None:
    few = weak_convergence("von_mises_well", ["euler_maruyama"], (5, 10), paths=500, target=5e-3)
    needed = int(few["paths_needed"].max())
    assert 1000 < needed < 100_000
    many = weak_convergence("von_mises_well", ["euler_maruyama"], (5, 10), paths=needed)
    reach = (many["observable_upper"] - many["observable_lower"]) / 2
    assert reach.max() < 1.2 * 5e-3


def test_a_reference_that_is_too_coarse_shows_as_a_floor() -> None:
    """With twice the steps, the reference is hardly better than the method: nothing is resolved, whatever the paths."""
    coarse, fine = (
        strong_convergence("noise_dominated", ["sra1"], (20, 40), paths=512, refinement=refinement)
        for refinement in (2, 16)
    )
    assert not coarse["resolved"].sel(steps=40).item()
    assert fine["resolved"].all()
    assert (coarse["floor"] > 10 * fine["floor"]).all()
    assert np.isinf(coarse["paths_needed"].sel(steps=40).item())
    assert (coarse["lower"] <= fine["upper"]).all()
    assert (coarse["upper"] >= fine["lower"]).all()


def test_a_method_that_diverges_is_no_number_and_spoils_no_other() -> None:
    def explode(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:  # noqa: ARG001
        return theta / 0.0 if h > 0.15 else theta + noise.dW

    study = strong_convergence("von_mises_well", [replace(HEUN, name="bad", step=explode), "heun"], (5, 10), paths=64)
    assert np.isnan(study["error"].sel(solver="bad", steps=5).item())
    assert not study["resolved"].sel(solver="bad", steps=5).item()
    assert study["error"].sel(steps=10).notnull().all()
    assert study["error"].sel(solver="heun").notnull().all()


def test_more_paths_begin_with_the_same_ones() -> None:
    block = plan("von_mises_well", STRONG, ["heun"], (5,), 2, seed=3)
    few, many = (replace(block, count=count) for count in (50, 80))
    torch.testing.assert_close(few.features(few.solve()), many.features(many.solve())[:50], rtol=0, atol=1e-14)


def test_blocks_add_up_to_the_whole() -> None:
    block = plan(Simulation(KuramotoSDE((400,))), WEAK, ["heun"], (5,), 2, seed=3)
    whole = simulate(block, 70).moments  # 20 paths to a block
    parts = [replace(block, first=first, count=min(20, 70 - first)) for first in range(0, 70, 20)]
    rows = np.concatenate([part.features(part.solve()).numpy() for part in parts])
    assert whole.count == 70
    np.testing.assert_allclose(whole.mean, rows.mean(0), rtol=0, atol=1e-13)
    np.testing.assert_allclose(whole.covariance()[0], np.cov(rows[:, 0].T) / 70, rtol=1e-10, atol=1e-15)


def test_many_angles_need_fewer_paths() -> None:
    """The default counts angles, but never trusts an interval to fewer than 256 paths."""
    many, few = (plan(Simulation(KuramotoSDE((n,))), WEAK, ["heun"], (5,), 2, seed=0) for n in (1000, 4))
    assert (enough(many, 65536), enough(few, 65536)) == (256, 16384)


def test_a_known_path_is_the_path_it_was_made_from() -> None:
    path = Brownian(graded_grid(1.0, 48), (30, 2), seed=4, dtype=torch.float64)
    known = KnownPath.of(path, graded_grid(1.0, 24))
    for n in (2, 6, 24):
        pairs = zip(*(p.increments(graded_grid(1.0, n), levy_area=True) for p in (path, known)), strict=True)
        for a, b in pairs:
            torch.testing.assert_close(tuple(a), tuple(b), rtol=0, atol=1e-14)


def test_orders_are_fitted_with_the_standard_error_they_state() -> None:
    """The errors of 1000 synthetic studies are correlated; the slope's z-scores then have spread 1 (+- 0.1)."""
    steps, rng = np.array([5.0, 10.0, 20.0, 40.0]), np.random.default_rng(0)
    truth = 2.0 / steps**1.5
    relative = 0.05 * np.array([[1.0, 0.8, 0.6, 0.4], [0, 0.6, 0.4, 0.2], [0, 0, 0.7, 0.3], [0, 0, 0, 0.9]]).T
    covariance = np.outer(truth, truth) * (relative @ relative.T)
    scores = []
    for _ in range(1000):
        order = fit_order(steps, truth * (1 + relative @ rng.standard_normal(4)), covariance, steps > 0)
        scores.append((order.value - 1.5) / order.standard_error)
    assert np.std(scores) == pytest.approx(1.0, abs=0.1)
    assert abs(np.mean(scores)) < 0.15


def test_points_that_are_not_yet_asymptotic_are_left_out_of_the_order() -> None:
    steps = np.array([2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    error = 1 / steps**2 + 8 / steps**4
    order = fit_order(steps, error, np.diag((1e-3 * error) ** 2), steps > 0)
    assert order.used.tolist() == [False, False, False, True, True, True]
    assert order.value == pytest.approx(2.0, abs=0.05)
    everything = np.polyfit(-np.log(steps), np.log(error), 1)[0]
    assert abs(everything - 2.0) > 0.2


def three_phases(t: float | Tensor, theta: Angles) -> Angles:
    """A drift that is no Kuramoto drift: each phase feels the second harmonic of its neighbour."""
    return torch.sin(2 * (theta.roll(1, -1) - theta)) * (1.0 + t)


def test_any_equation_can_be_studied() -> None:
    """Strong orders on three phases that are coupled by another harmonic, under noise whose rate grows fifteenfold."""
    sde = SDE(three_phases, lambda t: (2 * (0.2 + 2.8 * t)) ** 0.5, horizon=1.0, event_shape=(3,))
    study = strong_convergence(sde, ["euler_maruyama", "heun", "sra1"], (16, 32, 64, 128), paths=1024, seed=1)
    assert study["order"].values == pytest.approx([1.0, 1.0, 1.5], abs=0.2)
    assert (study["verdict"] == "resolved").all()


def test_an_untrained_score_can_be_studied() -> None:
    forward = KuramotoSDE((4,))
    network = ScoreMLP((4,), forward.schedule.diffusion).eval()
    backward = Simulation(reverse(forward, network), lambda n, gen: 6 * torch.rand(n, 4, generator=gen) - 3)
    study = weak_convergence(backward, ["euler_maruyama", "heun"], (10, 20), paths=64)
    assert study["error"].notnull().all()
    assert study["nfe"].values.tolist() == [[10, 20], [20, 40]]


def test_an_observable_of_ones_own_can_be_studied() -> None:
    harmonic = Observable("E cos 7 theta", Wave("cos", 7), math.nan)
    subject = Simulation(DIFFUSING.sde, DIFFUSING.sample, (harmonic,))
    study = weak_convergence(subject, ["euler_maruyama"], (2, 4), paths=1000)
    assert study["observable"].values.tolist() == ["E cos 7 theta"]


def test_results_survive_a_round_trip_through_netcdf(tmp_path: Path) -> None:
    study = strong_convergence("von_mises_well", ["euler_maruyama", "heun"], (5, 10, 20), paths=100)
    save_netcdf(study, tmp_path / "study.nc")
    with xr.open_dataset(tmp_path / "study.nc") as again:
        xr.testing.assert_identical(study, again.load())
    assert {"command", "versions", "options", "seed", "paths", "reference"} <= set(again.attrs)
    assert study["error"].attrs["units"] == "rad"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["nope"]}, "unknown method 'nope'"),
        ({"steps": []}, "at least one number of steps, all positive, got \\[\\]"),
        ({"methods": []}, "at least one method, got none"),
        ({"methods": ["rk4"]}, "rk4 is a method of torchdiffeq"),
        ({"steps": [0, 5]}, "at least one number of steps, all positive"),
        ({"refinement": 1}, "a refinement of at least 2"),
        ({"paths": 1}, "an interval needs at least 2 paths"),
        ({"confidence": 95.0}, "for 95 % give 0.95"),
        ({"subject": "nope"}, "there is no problem 'nope'"),
        ({"subject": SDE(three_phases, lambda t: 1.0, 1.0)}, "does not know its event_shape"),
    ],
)
def test_impossible_studies_say_what_to_change(change: dict[str, object], message: str) -> None:
    wanted: dict[str, object] = {"subject": "von_mises_well", "methods": ["heun"], "steps": [5], "paths": 10} | change
    with pytest.raises(ValueError, match=message):
        strong_convergence(**wanted)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_verdict_weighs_the_standard_error_of_its_order() -> None:
    """An order known to 0.98 is no order; the stiff well's first steps are far beyond stability."""
    used = np.ones(3, dtype=bool)
    assert verdict(Order(1.24, 0.98, used), 2.0) == "not resolved"
    assert verdict(Order(1.95, 0.05, used), 2.0) == "resolved"
    study = exact_convergence("stiff_well", WEAK, ["heun"], (5, 10, 20))
    assert study["order_standard_error"].item() > 0.5
    assert study["verdict"].item() == "not resolved"


@pytest.mark.parametrize(
    ("claim", "steps", "fault", "found"),
    [
        (2.0, [10, 20, 40], 1.5e-3, "below its claim"),  # a bias that does not fall
        (1.0, [8, 16, 32, 64], 2e-2, "below its claim"),
        (2.0, [10, 20, 40], 0.0, "resolved"),
        (2.0, [10, 20, 40], -4e-4, "not resolved"),  # heading above the claim
    ],
)
def test_a_misfit_is_no_excuse(claim: float, steps: list[int], fault: float, found: str) -> None:
    """Errors of the claimed order, and a part that does not fall with them, known to half a percent."""
    n = np.array(steps, dtype=np.float64)
    error = n**-claim + fault
    order = fit_order(n, error, np.diag((5e-3 * error) ** 2), n > 0)
    assert verdict(order, claim) == found


def test_a_misfit_of_three_points_widens_the_standard_error() -> None:
    """Birge's ratio: chi-square of one degree of freedom is that of the line's residuals in standard errors."""
    n = np.array([10.0, 20.0, 40.0])
    error = np.array([1.0, 0.3, 0.05])
    relative = 0.01
    order = fit_order(n, error, np.diag((relative * error) ** 2), n > 0)
    x, y = -np.log(n), np.log(error)
    slope, intercept = np.polyfit(x, y, 1)
    chi_square = np.square((y - slope * x - intercept) / relative).sum()
    plain = relative / math.sqrt(np.square(x - x.mean()).sum())
    assert order.value == pytest.approx(slope)
    assert order.standard_error == pytest.approx(plain * math.sqrt(chi_square), rel=1e-3)
    assert order.standard_error > 5 * plain


def test_intervals_that_cover_together_share_the_error_probability() -> None:
    """Bonferroni: ten intervals at 95 % are ten single ones at 99.5 %."""
    assert quantile(0.95, 100, comparisons=10) == pytest.approx(scipy_stats.t.ppf(1 - 0.0025, 99))


def test_the_interval_of_a_strong_error_leaves_room_for_rare_paths() -> None:
    """Errors that are carried by 2 % of paths at coarse steps and by 0.1 % at fine ones: 300 samples of 512 paths.

    The true mean lies below the upper end in 97.5 %, and by chance in 280 of 300 at least; without that room in far
    fewer, as four samples in ten have no such path.
    """
    rng, truth = np.random.default_rng(0), np.sqrt([0.02 * 3 + 0.01, 0.001 * 3 + 0.001, 0.0])
    covered = narrow = 0
    for _ in range(300):
        noise = rng.chisquare(1, (512, 1)) * np.array([0.01, 0.001, 0.0])
        squared = noise + 3.0 * (rng.random((512, 1)) < np.array([0.02, 0.001, 0.0]))
        moments = Moments.of(np.concatenate((squared, squared), 1)[:, None])
        upper = strong_errors(moments, 0.95, None)[0].upper[0, 1]
        bare = strong_errors(replace(moments, peak=0.0 * moments.peak), 0.95, None)[0].upper[0, 1]
        covered, narrow = covered + (truth[1] <= upper), narrow + (truth[1] <= bare)
    assert covered >= 280
    assert narrow < 200


def test_steps_without_a_small_common_multiple_share_one_path() -> None:
    """The reference stays within twice what was asked for, and every method follows the same path."""
    steps = (97, 101, 103)
    block = plan(
        Simulation(SDE(lambda t, x: 0 * x, lambda t: 1.0, 1.0, event_shape=(1,))), STRONG, ["heun"], steps, 8, 0
    )
    assert 8 * 103 <= block.reference <= 2 * 8 * 103
    solved = replace(block, count=5).solve()
    for end in (*solved.ends[0], solved.coarse):
        torch.testing.assert_close(end.theta, solved.reference.theta, rtol=0, atol=1e-12)
    assert plan("von_mises_well", STRONG, ["heun"], (5, 10, 20, 40, 80), 8, 0).reference == 640


def test_a_reference_beyond_all_bounds_is_refused() -> None:
    sde = KuramotoSDE((1,), schedule=Schedule.constant(reference=1e4, horizon=1e4))
    with pytest.raises(ValueError, match="the reference would take 200,000,000 steps, more than 1,000,000"):
        plan(Simulation(sde), STRONG, ["heun"], (5,), 8, 0)


def test_a_method_with_a_memory_is_sampled() -> None:
    """Its first step, repeated, is another method; transfer operators know no more."""
    table = study("reverse", WEAK, ["multistep"], [5], paths=16)
    assert table.attrs["evidence"] == "Monte Carlo"
    assert study("reverse", WEAK, ["heun"], [5]).attrs["evidence"] == "transfer operators"
    with pytest.raises(ValueError, match="multistep remembers earlier steps, so that no transfer operator"):
        exact_convergence("reverse", WEAK, ["multistep"], [5])


def test_a_seed_beyond_64_bits_is_kept_with_the_result(tmp_path: Path) -> None:
    table = strong_convergence("von_mises_well", ["heun"], [5], paths=8, seed=2**64)
    save_netcdf(table, tmp_path / "study.nc")
    with xr.open_dataset(tmp_path / "study.nc") as again:
        assert int(again.attrs["seed"]) == 2**64

"""Samplers of a trained model: errors against laws that are known, recipes that hold, and files of them."""

import itertools
import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from test_generative import DATA, MEANS, angles, model
from test_learning import TINY, bad, good

from circsde.models.variance_preserving import VariancePreserving
from circsde.sampling.recipe_files import load_recipe, save_recipe
from circsde.sampling.reverse import Recipe, Spacing
from circsde.sampling.start_laws import stationary
from circsde.sampling.trained import sample
from circsde.studies.coupled import NoiseClock, Paths
from circsde.studies.samplers import is_adaptive, label, samplers, with_evaluations
from circsde.studies.trained import select_recipe, study_recipes
from circsde.studies.trained_observables import of_angles, of_images, of_phases

CENTRE = (2.0, -3.0)
EXACT = model(CENTRE)
START = stationary(EXACT.sde)
LEVEL = 1.0 - 1e-4
FEW = [
    Recipe("multistep", denoise=False),
    Recipe("ancestral", denoise=False),
    Recipe("heun", denoise=False),
    Recipe(flow="heun2", denoise=False),
]


def true_means() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """``E cos`` and ``E sin`` of each observable of two independent wrapped normals of standard deviation 0.4."""
    mean, orders = MEANS.numpy(), (1, 2, 3)
    phase = [m * mean[i] for m in orders for i in range(2)] + [mean[0] - mean[1], mean[0] + mean[1]]
    damped = np.exp(-0.08 * np.array([m * m for m in orders for _ in range(2)] + [2, 2]))
    return np.concatenate((np.cos(phase) * damped, np.sin(phase) * damped))


def error_of(recipe: Recipe, count: int) -> tuple[float, float]:
    """The largest error of an observable, by samples that have nothing to do with paths, and 4.5 standard errors."""
    drawn = angles(sample(EXACT, count, recipe, seed=5))
    values = of_angles(2, torch.zeros(2, dtype=torch.float64)).values(drawn).numpy()
    apart = np.abs(values.mean(0) - true_means())
    return float(apart.max()), 4.5 * float(values.std(0).max()) / math.sqrt(count)


@pytest.mark.parametrize("grid", [(0.0, 0.3, 0.9, 1.0), (0.0, 0.05, 0.3, 0.31, 0.9, 0.99, 1.0)])
def test_noise_by_the_clock_of_its_variance_is_the_same_on_every_grid_and_has_the_law_of_a_brownian_path(
    grid: tuple[float, ...],
) -> None:
    """Steps sum to those of other grids; covariances of (dW, dZ) within 4.5 standard errors of 20,000 paths."""

    def clock(t: float) -> float:
        return t**3

    like = torch.zeros((), dtype=torch.float64)
    path = NoiseClock(clock, (20_000, 1), torch.Generator().manual_seed(7), like)
    whole = [noise.dW for noise in path.increments((0.0, 1.0), levy_area=False)]
    noises = list(path.increments(grid, levy_area=True))
    added = torch.stack(
        [((clock(b) - clock(a)) / (b - a)) ** 0.5 * x.dW for (a, b), x in zip(pairwise(grid), noises, strict=True)]
    )
    torch.testing.assert_close(added.sum(0), whole[0])
    for (a, b), noise in zip(pairwise(grid), noises, strict=True):
        h = b - a
        assert noise.dZ is not None
        for product, expected in ((noise.dW**2, h), (noise.dW * noise.dZ, h**2 / 2), (noise.dZ**2, h**3 / 3)):
            assert abs(product.mean().item() - expected) < 4.5 * product.std().item() / 20_000**0.5
    neighbours = [(x.dW * y.dW) for x, y in pairwise(noises)]
    assert all(abs(product.mean().item()) < 4.5 * product.std().item() / 20_000**0.5 for product in neighbours)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("ancestral", 8, denoise=False),
        Recipe("heun", 6, Spacing.LOG_NOISE, denoise=False),
        Recipe("multistep", 8, denoise=True),
        Recipe(flow="euler", n_steps=5, denoise=False),
    ],
    ids=label,
)
def test_an_interval_holds_the_error_against_the_law_of_the_data(recipe: Recipe) -> None:
    """The exact score has no error of its own, so that the error of a recipe is that against the law of the data."""
    found = Paths(EXACT, START, 0, 800, 3, 32, denoise=False).measure(recipe, LEVEL)
    error, uncertain = error_of(recipe, 5_000)
    assert found.lower - uncertain <= error <= found.upper + uncertain
    assert found.nfe == pytest.approx(sample(EXACT, 1, recipe).attrs["nfe"])


def test_a_score_that_is_wrong_sets_flow_and_sde_apart_and_an_exact_one_does_not() -> None:
    for factor, differ in ((1.0, False), (0.6, True)):
        paths = Paths(model(CENTRE, factor), START, 0, 4000, 1, 32, denoise=False)
        assert (paths.apart(0.0, 1.0, LEVEL).lower > 0.0) == differ


@pytest.mark.slow
def test_the_chosen_recipe_meets_the_tolerance_on_samples_of_its_own() -> None:
    choice = select_recipe(EXACT, START, 0.05, candidates=FEW[1:], pilot=32, seed=1)
    assert choice.recipe is not None
    assert choice.error is not None
    assert choice.error.upper <= 0.05
    assert choice.verdict == "resolved"
    error, uncertain = error_of(choice.recipe, 5_000)
    assert error <= 0.05 + uncertain
    fresh = choice.dataset.where(choice.dataset.fresh, drop=True)
    assert float(fresh.nfe.min()) <= choice.error.nfe
    cheaper = choice.dataset.where((choice.dataset.nfe < 0.85 * choice.error.nfe) & choice.dataset.fresh, drop=True)
    assert not (cheaper.upper <= 0.05).any()


def test_of_a_number_of_evaluations_the_best_is_chosen() -> None:
    said = list[str]()
    choice = select_recipe(
        EXACT,
        START,
        nfe=10,
        candidates=FEW[2:],
        pilot=32,
        seed=2,
        progress=lambda _done, **now: said.extend(map(str, now.values())),
    )
    assert choice.recipe is not None
    assert choice.error is not None
    assert choice.error.nfe <= 10
    best, uncertain = error_of(choice.recipe, 2_000)
    for one in FEW[2:]:
        sized = with_evaluations(one, EXACT, 10)
        assert sized is not None
        error, also = error_of(sized, 2_000)
        assert best <= error + uncertain + also
    assert said[0] == "compare samplers of 10 evaluations"


def test_where_nothing_qualifies_nothing_is_chosen() -> None:
    only = [Recipe(flow="dopri5", atol=0.5, n_steps=100, denoise=False)]
    choice = select_recipe(EXACT, START, 1e-7, candidates=only, pilot=16)
    assert (choice.recipe, choice.verdict) == (None, "not resolved")
    assert "no sampler on offer is known to meet the tolerance" in str(choice)


@pytest.mark.parametrize(("looks", "said"), [(0, "no sampler was measured yet"), (400, "the least upper bound")])
def test_a_search_that_is_stopped_says_what_is_nearest(looks: int, said: str) -> None:
    asked = itertools.count()
    choice = select_recipe(EXACT, START, 1e-7, candidates=FEW, pilot=16, stop=lambda: next(asked) >= looks)
    assert next(asked) == looks + 1  # the search ends at the first request
    assert (choice.recipe, choice.verdict, choice.stopped) == (None, "not resolved", True)
    assert said in str(choice)


def test_a_search_that_is_stopped_while_it_saves_evaluations_answers_with_what_is_certain() -> None:
    certain = list[str]()

    def noticed(_done: int, *, now: str = "") -> None:
        if certain or " evaluations of " in now:
            certain.append(now)

    choice = select_recipe(
        EXACT, START, 0.3, candidates=FEW[3:], pilot=32, progress=noticed, stop=lambda: len(set(certain) - {""}) > 1
    )
    assert choice.recipe is not None
    assert choice.stopped
    assert "stopped before fewer evaluations were ruled out" in str(choice)


def test_candidates_hold_few_steps_many_steps_sde_and_flow() -> None:
    offered = samplers(EXACT)
    assert {one.method for one in offered} >= {
        "multistep",
        "dpmpp_2m",
        "multistep3",
        "ancestral",
        "heun",
        "sra1",
        "adams_bashforth2",
    }
    assert {one.flow for one in offered} >= {"heun2", "rk4", "dopri5"}
    assert {one.spacing for one in offered} == set(Spacing)
    for one in offered:
        for nfe in () if is_adaptive(one) or one.spacing != Spacing.INDEX else (8, 13):
            sized = with_evaluations(one, EXACT, nfe)
            assert sized is not None
            spent = sample(EXACT, 1, sized).attrs["nfe"]
            assert nfe - 4 < spent <= nfe
    with pytest.raises(ValueError, match="no sampler is left"):
        samplers(EXACT, ["dopri5"], stochasticity=[1.0])


def test_a_study_has_errors_of_every_sampler_at_every_number_of_evaluations() -> None:
    table = study_recipes(EXACT, START, (8, 16), candidates=FEW[2:], paths=32)
    assert table.sizes["candidate"] == 4
    flow = table.where(table.label == "flow: heun2, even in index", drop=True)
    assert float(flow.error[1]) < float(flow.error[0])


def test_a_model_of_values_and_unclear_wishes_are_refused() -> None:
    values = replace(EXACT, process=VariancePreserving((4,)))
    with pytest.raises(ValueError, match="this is one of the standard diffusion"):
        select_recipe(values, START, 0.1)
    with pytest.raises(ValueError, match="give a tolerance or a number of evaluations nfe, got None and None"):
        select_recipe(EXACT, START)
    with pytest.raises(ValueError, match="the tolerance must be positive and finite, got -1"):
        select_recipe(EXACT, START, -1.0)
    with pytest.raises(ValueError, match="no sampler on offer does with 2 evaluations"):
        select_recipe(EXACT, START, nfe=2, candidates=[Recipe(flow="rk4", denoise=False)], pilot=16)


def test_observables_of_images_tell_contrast_and_texture() -> None:
    x = torch.arange(32.0)
    flat = of_images(lambda theta: theta)
    fine, coarse = (0.5 * (2 * math.pi * f * x).sin().expand(1, 1, 32, 32) for f in (0.4, 0.1))
    a, b = flat.values(fine)[0], flat.values(coarse)[0]
    assert len(flat.names) == len(a)
    assert dict(zip(flat.names, a - b, strict=True))["log power up to 1/2 cycles/pixel"] > 2.0
    assert dict(zip(flat.names, a - b, strict=True))["log power up to 1/8 cycles/pixel"] < -2.0
    small = of_phases()
    assert small.values(torch.zeros(2, 1, 8, 8)).tolist() == [[1.0, 0.0] * 6] * 2


def test_a_recipe_comes_back_from_its_file_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    for recipe in (Recipe("multistep", 7, Spacing.LOG_NOISE, 0.5), Recipe(flow="dopri5", atol=1e-3, denoise=False)):
        save_recipe(recipe, path, {"nfe": 7}, force=True)
        assert load_recipe(path) == recipe
    with pytest.raises(FileExistsError):
        save_recipe(Recipe(), path)
    for text, said in (
        ("[]", "holds no recipe"),
        ('{"recipe": {"stepz": 1}}', "settings that no recipe has, stepz"),
        ('{"recipe": {"n_steps": 0}}', "n_steps must be at least 2, got 0"),
        ('{"recipe": {"spacing": "warp"}}', "warp"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            load_recipe(path)


@pytest.mark.usefixtures("undrawn")
def test_a_run_is_studied_a_recipe_chosen_and_samples_drawn_by_it(tmp_path: Path) -> None:
    theta = DATA.sample((40,), generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "a.npy", theta.numpy())
    good(f"train {tmp_path}/a.npy --unit rad --out {tmp_path}/run {TINY}")
    run = tmp_path / "run"
    good(f"select {run} --budget-nfe 9 --methods multistep,heun2 --spacing index --paths 16 --device cpu")
    chosen = json.loads((run / "recipe.json").read_text())
    assert chosen["nfe"] <= 9
    good(f"sample {run} -n 5 --recipe {run}/recipe.json --device cpu")
    said = bad(f"sample {run} -n 5 --recipe {run}/recipe.json --steps 3 --force")
    assert "--steps: how to sample is said by" in said
    good(f"study {run} --steps 4 --methods ancestral --paths 16 --device cpu")
    line = f"select {run} --tolerance 1e-9 --methods ancestral --paths 16 --device cpu --seconds 1e-3 --out {run}/late"
    assert "stopped before a sampler was chosen" in bad(line, 1)
    assert (run / "late.nc").exists()
    assert not (run / "late.json").exists()
    assert "give --tolerance" in bad(f"select {run}")
    assert "--monte-carlo: for problems, and this is a run" in bad(f"select {run} --tolerance 1 --monte-carlo")
    assert "--budget-nfe: for a trained model, and drifting is a problem" in bad("select drifting --budget-nfe 9")
    assert "give --tolerance" in bad("select drifting")

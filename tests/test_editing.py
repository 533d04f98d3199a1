"""Reconstructions, parts filled in and interpolations with exact scores."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from circsde.coupling import GlobalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.mixture import WrappedNormalMixture
from circsde.matching.chain import Chain
from circsde.models.analytic import DiffusedMixtureScore, FokkerPlanckScore
from circsde.sampling.editing import inpaint, interpolate, reconstruct
from circsde.sampling.mismatch import kuiper, kuiper_p_value
from circsde.sampling.reverse import Recipe
from circsde.sampling.start_laws import Independent
from circsde.schedule import Linear, Schedule
from circsde.solvers.solution import SolveError
from circsde.torus import difference, distance
from circsde.typing import Angles, Field, Tangent, Time

MIXTURE = WrappedNormalMixture((0.6, 0.4), (-1.5, 1.2), (0.3, 0.5))
EVENT = (6, 6)
DIFFUSION = Linear(0.02, 6.0)
SDE = KuramotoSDE(EVENT, NoCoupling(), Schedule(Linear(0.0, 0.0), Linear(0.0, 0.0), DIFFUSION))
CHAIN = Chain.geometric(SDE, 100, 0.05)
SCORE = DiffusedMixtureScore(MIXTURE, DIFFUSION)
UNIFORM = Independent(EVENT, torch.tensor(0.0, dtype=torch.float64), 0.0)
FLOW = Recipe(n_steps=30, flow="rk4", denoise=False)
LEFT = (torch.arange(6) < 3).expand(6, 6)


def data(count: int, seed: int = 0) -> Tensor:
    return MIXTURE.sample((count, *EVENT), torch.Generator().manual_seed(seed))


def angles(result: xr.Dataset) -> Tensor:
    return torch.from_numpy(result["theta"].to_numpy())


def p_value(theta: Tensor) -> float:
    """The p-value of Kuiper's statistic against the law of the data."""
    truth = MIXTURE.sample((40000,), torch.Generator().manual_seed(1))
    return kuiper_p_value(kuiper(theta.flatten(), truth).item(), theta.numel(), len(truth))


@pytest.mark.parametrize("time", [0.3, None])
def test_a_reconstruction_along_the_flow_is_the_data(time: float | None) -> None:
    theta = data(4)
    again = angles(reconstruct(CHAIN, SCORE, theta, FLOW, time=time))
    assert distance(again, theta).max() < 2e-3
    coarse = Recipe(n_steps=6, flow="euler", denoise=False)
    assert distance(angles(reconstruct(CHAIN, SCORE, theta, coarse, time=time)), theta).max() > 0.05


@pytest.mark.parametrize("recipe", [Recipe("euler_maruyama", 10), Recipe(n_steps=10, flow="rk4")], ids=str)
def test_a_time_of_the_chain_is_that_time_whichever_way_it_is_computed(recipe: Recipe) -> None:
    """0.1 * 3 is an ulp above 0.3, a time of the chain: no step of 5e-17 is made between them."""
    chain = Chain.uniform(SDE, 10)
    assert 0.1 * 3 != 0.3
    assert chain.times[3] == 0.3
    exact, computed = (reconstruct(chain, SCORE, data(3), recipe, time=time) for time in (0.3, 0.1 * 3))
    assert computed.attrs["nfe"] == exact.attrs["nfe"]
    assert torch.equal(angles(computed), angles(exact))


@pytest.mark.parametrize("recipe", [Recipe(n_steps=5), Recipe(n_steps=5, flow="rk4")], ids=str)
def test_what_cannot_be_carried_forward_or_back_raises_unless_asked_to_return(recipe: Recipe) -> None:
    def broken(t: Time, theta: Angles) -> Tangent:
        return -theta.sin() * (math.nan if float(t) < 0.2 else 1.0)

    with pytest.raises(SolveError, match="samples 0 to 2: "):
        reconstruct(CHAIN, broken, data(3), recipe)
    result = reconstruct(CHAIN, broken, data(3), recipe, on_failure="return")
    assert (result.attrs["status"], result.sizes["sample"]) == ("non_finite", 0)
    if recipe.flow is None:
        with pytest.raises(SolveError, match="non_finite"):
            inpaint(CHAIN, broken, data(3), LEFT, UNIFORM, recipe)
    else:
        with pytest.raises(SolveError, match="non_finite"):
            interpolate(CHAIN, broken, data(3), data(3, 1), torch.tensor([0.5]), recipe)


def test_a_random_reconstruction_has_the_law_of_the_data_and_forgets_it_with_time() -> None:
    """7200 angles, a false alarm of 1e-3 each; the mean cosine of what is lost falls from near 1 to that of chance."""
    theta = data(200)
    likeness = []
    for time in (0.05, 0.3, None):
        again = angles(reconstruct(CHAIN, SCORE, theta, Recipe(n_steps=40), time=time, batch_size=200))
        assert p_value(again) > 1e-3
        likeness.append(difference(again, theta).cos().mean().item())
    chance = sum(w * v * math.cos(a - b) * math.exp(-(s**2 + u**2) / 2) for w, a, s in parts() for v, b, u in parts())
    assert likeness[0] > 0.9 > likeness[1] > likeness[2]
    assert likeness[2] == pytest.approx(chance, abs=0.05)


def parts() -> list[tuple[float, float, float]]:
    return list(zip(MIXTURE.weights, MIXTURE.means, (0.3, 0.5), strict=True))


@pytest.mark.parametrize(
    "recipe", [Recipe(n_steps=40), Recipe(n_steps=40, denoise=False, signal_to_noise=0.1)], ids=str
)
def test_what_is_filled_in_beside_independent_angles_has_its_own_law(recipe: Recipe) -> None:
    """5400 unknown angles, a false alarm of 1e-3 each; the known ones are kept to rounding."""
    theta = data(300, 2)
    result = angles(inpaint(CHAIN, SCORE, theta, LEFT, UNIFORM, recipe, batch_size=300))
    assert distance(result, theta)[:, LEFT].max() < 1e-12
    assert p_value(result[:, ~LEFT]) > 1e-3
    assert p_value(result[:, ~LEFT].sin().asin()) < 1e-6  # folded: a check that can fail


@pytest.mark.parametrize("coupled", [False, True])
def test_unknown_angles_are_not_read_and_batches_do_not_matter(coupled: bool) -> None:
    sde = KuramotoSDE(EVENT, GlobalCoupling(), Schedule.published(20)) if coupled else SDE
    chain = Chain.uniform(sde, 20)
    theta = data(5)
    hidden = theta.where(LEFT, math.nan)
    recipe = Recipe(n_steps=5)
    shown = angles(inpaint(chain, SCORE, theta, LEFT, UNIFORM, recipe))
    assert torch.equal(shown, angles(inpaint(chain, SCORE, hidden, LEFT, UNIFORM, recipe, batch_size=2)))
    later = inpaint(chain, SCORE, theta[3:], LEFT, UNIFORM, recipe, first_sample=3)
    assert torch.equal(shown[3:], angles(later))
    assert not torch.equal(shown, angles(inpaint(chain, SCORE, theta, LEFT, UNIFORM, recipe, seed=1)))


def test_an_angle_filled_in_beside_a_coupled_one_keeps_its_law() -> None:
    """Two coupled oscillators that start independent: the other's data tells nothing, though their paths are coupled.

    The replacement method is not exact here; at 60 steps its error is below what 3000 angles show at 1e-3.
    """
    sde = KuramotoSDE((2,), GlobalCoupling(), Schedule.published(100))
    score = FokkerPlanckScore(sde, MIXTURE)
    theta = MIXTURE.sample((3000, 2), torch.Generator().manual_seed(3)).float()
    start = Independent((2,), torch.tensor(0.0), sde.terminal_law().concentration.item())
    known = torch.tensor([True, False])
    result = inpaint(Chain.geometric(sde, 60, 0.05), score, theta, known, start, Recipe(n_steps=60), batch_size=3000)
    assert p_value(angles(result)[:, 1].double()) > 1e-3


def test_interpolations_begin_and_end_at_the_data() -> None:
    first, second = data(2, 0), data(2, 1)
    weights = torch.tensor([0.0, 0.5, 1.0])
    result = interpolate(CHAIN, SCORE, first, second, weights, FLOW)
    theta = angles(result)
    assert theta.shape == (6, *EVENT)
    assert distance(theta[:2], first).max() < 2e-3
    assert distance(theta[4:], second).max() < 2e-3
    assert result["weight"].values.tolist() == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    assert result["pair"].values.tolist() == [0, 1, 0, 1, 0, 1]
    assert bool(np.isfinite(theta.numpy()).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: reconstruct(CHAIN, s, data(1), time=2.0), r"t = 2 must lie in \(0, 1\]"),
        (lambda s: reconstruct(CHAIN, s, data(1), time=1e-9), "begin later, or take more steps"),
        (lambda s: inpaint(CHAIN, s, data(1), LEFT & ~LEFT, UNIFORM), "no angle is known"),
        (lambda s: inpaint(CHAIN, s, data(1), LEFT, UNIFORM, FLOW), "does not fill in"),
        (lambda s: interpolate(CHAIN, s, data(1), data(1), torch.ones(1), Recipe()), "give the recipe a flow"),
    ],
)
def test_bad_input_is_answered_by_what_to_do(make: Callable[[Field], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(SCORE)

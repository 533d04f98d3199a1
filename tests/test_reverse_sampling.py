"""Samples of exact scores have the law of the data, whatever the grid, the method and the batch."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from circsde.contracts import Sampled
from circsde.coupling import NoCoupling
from circsde.exact.fokker_planck import CircleLaw
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import WrappedNormal
from circsde.laws.mixture import WrappedNormalMixture
from circsde.matching.chain import Chain
from circsde.models.analytic import DiffusedMixtureScore, FokkerPlanckScore
from circsde.sampling.generate import generate
from circsde.sampling.mismatch import kuiper, kuiper_p_value
from circsde.sampling.reverse import Recipe, Spacing, _mirrored, reverse_times
from circsde.sampling.start_laws import Independent
from circsde.schedule import Linear, Schedule
from circsde.solvers.solution import Solution, SolveError, Stats
from circsde.typing import Angles, Tangent, Time

MIXTURE = WrappedNormalMixture((0.6, 0.4), (-1.5, 1.2), (0.3, 0.5))
EVENT = (6, 6)
SDE = KuramotoSDE(EVENT, NoCoupling(), Schedule.published(100))
CHAIN = Chain.geometric(SDE, 100, 0.05)
UNIFORM = Independent(EVENT, torch.tensor(0.0, dtype=torch.float64), 0.0)


@cache
def exact() -> FokkerPlanckScore:
    return FokkerPlanckScore(SDE, MIXTURE)


class Terminal:
    """The exact law at the horizon, drawn once from each seed."""

    def sample(self, sample_shape: tuple[int, ...], /, *, generator: torch.Generator) -> Tensor:
        return terminal(sample_shape, generator.initial_seed())


@cache
def terminal(sample_shape: tuple[int, ...], seed: int) -> Tensor:
    law = exact().law
    assert isinstance(law, CircleLaw)
    return law.sample(SDE.horizon, (*sample_shape, *EVENT), torch.Generator().manual_seed(seed))


def p_of_samples(recipe: Recipe, factor: float = 1.0, start: Sampled | None = None) -> float:
    """The p-value of 300 samples of 36 angles, by Kuiper's statistic."""
    result = generate(
        CHAIN,
        lambda t, x: factor * exact()(t, x),
        start or Terminal(),
        300,
        recipe,
        batch_size=300,
        dtype=torch.float64,
    )
    assert result.attrs["status"] == "success"
    theta = torch.from_numpy(result["theta"].to_numpy()).double().flatten()
    truth = MIXTURE.sample((40000,), torch.Generator().manual_seed(1))
    return kuiper_p_value(kuiper(theta, truth).item(), len(theta), len(truth))


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(n_steps=30),
        Recipe(n_steps=30, spacing=Spacing.LOG_NOISE, denoise=False),
        Recipe(n_steps=50, spacing=Spacing.TIME, denoise=False),
        Recipe("sra1", n_steps=30, stochasticity=0.5),
        Recipe("mobius_strang", n_steps=30),
        Recipe("euler_maruyama", n_steps=80, signal_to_noise=0.15),
        Recipe(n_steps=20, flow="rk4"),
        Recipe(n_steps=40, flow="heun2", denoise=False),
        Recipe(flow="dopri5"),
    ],
    ids=str,
)
def test_samples_of_the_exact_score_have_the_law_of_the_data(recipe: Recipe) -> None:
    """10800 angles; a false alarm has a probability of 1e-3 each, seeded."""
    assert p_of_samples(recipe) > 1e-3


def test_samples_of_a_wrong_score_or_start_are_told_from_the_data() -> None:
    """A wrong start by the flow at least, which forgets nothing."""
    assert p_of_samples(Recipe(n_steps=30), factor=1.2) < 1e-6
    assert p_of_samples(Recipe(n_steps=20, flow="heun2"), start=UNIFORM) < 1e-6


@pytest.mark.parametrize(
    "recipe",
    [Recipe(n_steps=4), Recipe("euler_maruyama", n_steps=4, signal_to_noise=0.2), Recipe(n_steps=4, flow="rk4")],
    ids=str,
)
def test_a_sample_depends_on_the_seed_and_its_index_only(recipe: Recipe) -> None:
    def drawn(count: int, **options: int) -> Tensor:
        result = generate(CHAIN, exact(), UNIFORM, count, recipe, **options)  # type: ignore[arg-type]
        return torch.from_numpy(result["theta"].to_numpy())

    together = drawn(7)
    assert torch.equal(together, drawn(7, batch_size=3))
    assert torch.equal(together[4:], drawn(3, first_sample=4, batch_size=2))
    assert not torch.equal(together, drawn(7, seed=1))
    assert torch.pdist(together.flatten(1)).min() > 0


def test_starts_of_blocks_drawn_apart_are_those_drawn_together() -> None:
    """Blocks of 2^14 angles: at 6 x 6, 455 samples."""
    few = Recipe(flow="euler", n_steps=2)
    together = generate(CHAIN, exact(), UNIFORM, 470, few, batch_size=470)
    apart = generate(CHAIN, exact(), UNIFORM, 20, few, first_sample=450)
    assert np.array_equal(together["theta"][450:], apart["theta"])
    assert apart["sample"].values.tolist() == list(range(450, 470))


@pytest.mark.parametrize("spacing", list(Spacing))
def test_grids_run_from_the_horizon_to_zero_evenly_in_what_they_say(spacing: Spacing) -> None:
    times = reverse_times(CHAIN, 25, spacing)
    assert (times[0], times[-1], len(times)) == (CHAIN.times[-1], 0.0, 26)
    assert all(a > b for a, b in zip(times, times[1:], strict=False))
    if spacing is Spacing.LOG_NOISE:
        noise = [math.log(float(SDE.variance(0.0, t))) for t in times[:-1]]
        assert np.allclose(np.diff(noise), np.diff(noise).mean(), rtol=1e-4)
        assert times[-2] == pytest.approx(CHAIN.times[1], rel=1e-9)
    elif spacing is Spacing.TIME:
        assert np.allclose(np.diff(times), -1 / 25)
    else:
        assert np.allclose(times, np.array(CHAIN.times)[::-4])


@pytest.mark.parametrize("spacing", list(Spacing))
def test_no_step_begins_where_the_score_has_seen_nothing(spacing: Spacing) -> None:
    """Also where there are more steps than the chain has, or where it is finer than even steps near the data."""
    for chain in (CHAIN, Chain.geometric(CHAIN.sde, 50, 0.05)):
        times = reverse_times(chain, 3 * len(chain), spacing)
        assert len(times) == 3 * len(chain) + 1
        assert times[-2] == pytest.approx(chain.times[1], rel=1e-9)
        steps = -np.diff(times[:-1])
        assert (steps > 0.0).all()


def test_the_last_step_without_noise_removes_the_smallest_noise() -> None:
    """Data of spread s seen with noise v becomes its mean given that, of variance ``s^4 / (s^2 + v)``; 4.5 sigma."""
    law = WrappedNormalMixture((1.0,), (0.5,), (0.02,))
    score = DiffusedMixtureScore(law, SDE.schedule.diffusion)
    sde = KuramotoSDE(EVENT, NoCoupling(), Schedule(Linear(0.0, 0.0), Linear(0.0, 0.0), SDE.schedule.diffusion))
    chain = Chain.geometric(sde, 60, 0.05)
    spread = {}
    for denoise in (True, False):
        result = generate(chain, score, UNIFORM, 40, Recipe(n_steps=60, denoise=denoise))
        spread[denoise] = float((result["theta"] - 0.5).std())
    s, v = 0.02, 0.05**2
    assert spread[True] == pytest.approx(s**2 / (s**2 + v) ** 0.5, rel=0.1)
    assert spread[False] > 0.75 * s


class Network(nn.Module):
    """The score of a fixed law, that counts and looks at how it is called; not finite after so many calls."""

    periodic = True  # so that no check calls it

    def __init__(self, calls: int = 10**9) -> None:
        super().__init__()
        self.scale, self.left, self.calls = nn.Parameter(torch.tensor(1.0)), calls, 0

    def forward(self, t: Time, theta: Angles) -> Tangent:  # noqa: ARG002
        assert not self.training
        assert not torch.is_grad_enabled()
        self.calls += 1
        score: Tensor = self.scale * WrappedNormal(0.0, 1.0).score(theta.double()).to(theta.dtype)
        return score if self.calls <= self.left else score * math.nan


@pytest.mark.parametrize(
    ("recipe", "calls"),
    [
        (Recipe(n_steps=5), 9),
        (Recipe(n_steps=5, denoise=False), 10),
        (Recipe("euler_maruyama", n_steps=5, signal_to_noise=0.1), 9),
        (Recipe(n_steps=5, flow="rk4"), 17),
    ],
    ids=str,
)
def test_evaluations_of_the_network_are_counted(recipe: Recipe, calls: int) -> None:
    """It runs in evaluation mode without gradients, and is left as it was."""
    network = Network()
    told: list[int] = []
    result = generate(CHAIN, network, UNIFORM, 5, recipe, batch_size=3, progress=told.append)
    assert result.attrs["nfe"] == network.calls == 2 * calls
    assert network.training
    assert told[-1] == 10
    assert told == sorted(told)


def test_states_on_the_way_are_kept_where_asked_for() -> None:
    result = generate(CHAIN, exact(), UNIFORM, 3, Recipe(n_steps=12), frames=4, batch_size=2)
    assert result["path"].dims == ("sample", "time", "row", "column")
    assert result["path"].shape == (3, 4, 6, 6)
    assert np.array_equal(result["path"][:, -1], result["theta"])
    assert (float(result["time"][0]), float(result["time"][-1])) == (0.0, SDE.horizon)


@pytest.mark.parametrize("calls", [12, 17])
def test_a_score_that_is_not_finite_stops_with_a_status_and_keeps_the_batches_before(calls: int) -> None:
    """At a step of the second batch, and at its last one without noise; each batch makes 9 calls."""
    result = generate(CHAIN, Network(calls), UNIFORM, 6, Recipe(n_steps=5), batch_size=2, on_failure="return")
    assert result.attrs["status"] == "non_finite"
    assert result.attrs["message"].startswith("samples 2 to 3: ")
    assert result.sizes["sample"] == 2
    assert bool(np.isfinite(result["theta"]).all())
    nothing = generate(CHAIN, Network(0), UNIFORM, 6, Recipe(n_steps=5), on_failure="return")
    assert nothing["theta"].shape == (0, 6, 6)


@pytest.mark.parametrize("recipe", [Recipe(n_steps=5), Recipe(n_steps=5, flow="rk4"), Recipe(flow="dopri5")], ids=str)
def test_a_score_that_is_not_finite_raises_unless_asked_to_return(recipe: Recipe) -> None:
    with pytest.raises(SolveError, match="samples 0 to 5: ") as caught:
        generate(CHAIN, Network(4), UNIFORM, 6, recipe)
    assert not caught.value.solution.succeeded


def test_the_path_of_what_is_known_is_read_at_the_nearest_time() -> None:
    """Backwards: at ``horizon - s``, which rounding puts on either side of a time of the path."""
    ts = torch.tensor([0.0, 0.1, 0.2, 0.3, 1.0], dtype=torch.float64)
    theta = torch.arange(5.0).reshape(5, 1, 1)
    path = _mirrored(Solution(ts, theta, torch.zeros_like(theta).long(), Stats(0, 0)), 1.0)
    for s, i in ((0.0, 4), (0.7, 3), (0.8, 2), (0.9, 1), (1.0, 0), (1.0 - 0.1 * 3, 3), (0.66, 3), (0.3, 4), (0.94, 1)):
        assert path(s).item() == i
        assert path(s + 1e-15).item() == path(s - 1e-15).item() == i


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(n_steps=1), "at least 2, got 1"),
        (lambda: Recipe(n_steps=0, denoise=False), "at least 1, got 0"),
        (lambda: Recipe(flow="rk4", signal_to_noise=0.1), "takes no Langevin steps"),
        (lambda: Recipe("sra1", flow="rk4"), "sra1 steps the reverse SDE and rk4 follows its flow: leave out one"),
        (lambda: Recipe(flow="rk4", stochasticity=0.5), "has no noise, got stochasticity=0.5"),
        (lambda: Recipe("sra1", atol=1e-3), "atol is the tolerance of an adaptive flow, one of dopri5"),
        (lambda: Recipe(flow="rk4", atol=1e-3), "got flow='rk4': leave it out"),
        (lambda: generate(CHAIN, exact(), UNIFORM, 0), "must be positive"),
        (lambda: generate(CHAIN, exact(), UNIFORM, 1, Recipe("euler")), "unknown method 'euler'"),
    ],
)
def test_bad_input_is_answered_by_what_to_do(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

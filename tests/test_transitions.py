"""The pool of paths makes pairs of every step alike, unbiased, and can be stopped and resumed."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import WrappedNormal
from circsde.matching.chain import Chain, Pairs, denoising, one_step, pathwise, start, step_with_adjoint
from circsde.models.transitions import Objective, TensorSampler, Transitions
from circsde.schedule import Schedule

START = WrappedNormal(2.0, 0.4)
DATA = START.sample((20_000, 1), generator=torch.Generator().manual_seed(0)).float()
ATTRACTED = KuramotoSDE((1,), NoCoupling(), Schedule.published(100))
DIFFUSION = KuramotoSDE((1,), NoCoupling(), Schedule.linear((0.0, 0.0, 0.1), (0.0, 0.0, 2.0)))


def transitions(objective: Objective, n_steps: int = 10, seed: int = 0, **options: int) -> Transitions:
    chain = Chain.uniform(DIFFUSION if objective is Objective.DENOISING else ATTRACTED, n_steps)
    if objective is Objective.PATHWISE:
        chain = chain.calibrated(DATA[:1000], torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    return Transitions(chain, objective, TensorSampler(DATA), generator=generator, **{"batch": 40, **options})


def joined(batches: list[Pairs]) -> Pairs:
    return Pairs(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


@pytest.mark.parametrize("stride", [1, 3, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("objective", [Objective.ONE_STEP, Objective.PATHWISE])
def test_every_step_of_the_chain_gives_equally_many_pairs(objective: Objective, stride: int) -> None:
    source = transitions(objective, stride=stride)
    pairs = joined([source.draw() for _ in range(source.pool * 10)])
    counts = Counter(pairs.t.tolist())
    assert sorted(counts) == list(source.chain.times[1:])
    assert set(counts.values()) == {source.pool * 40}


@pytest.mark.parametrize("stride", [1, 3, 10])
@pytest.mark.parametrize("objective", [Objective.ONE_STEP, Objective.PATHWISE])
def test_between_two_uses_of_a_path_lie_as_many_steps_as_the_stride_says(objective: Objective, stride: int) -> None:
    """Of a chain of 10 steps; a path that has arrived starts anew."""
    source = transitions(objective, stride=stride, pool=2)
    times = torch.tensor(source.chain.times, dtype=torch.float64)
    first, _, second, _, third, _ = (torch.searchsorted(times, source.draw().t) for _ in range(6))
    assert torch.equal(second, (first + stride - 1) % 10 + 1)
    assert torch.equal(third, (second + stride - 1) % 10 + 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_is_named(bad: float) -> None:
    data = torch.zeros(10, 2)
    data[3, 1] = bad
    with pytest.raises(
        ValueError, match="the rows of data must be finite, but 1 of 10 are not, the first of them row 3"
    ):
        TensorSampler(data)
    with pytest.raises(ValueError, match="loc"):  # and not "this equation drifts"
        denoising(DIFFUSION, data[3:4, :1] + bad, torch.ones(1, dtype=torch.float64))


def test_denoising_times_are_even_within_each_step_of_the_chain() -> None:
    """Uneven steps, each with the same number of times, up to 5 standard deviations in all of 20 cells."""
    source = transitions(Objective.DENOISING, batch=40_000)
    source.chain = Chain(DIFFUSION, (0.0, 0.01, 0.1, 1.0))
    t = source.draw().t
    cells = torch.bucketize(t, torch.tensor([0.005, 0.01, 0.055, 0.1, 0.55, 1.0], dtype=torch.float64))
    counts = torch.bincount(cells, minlength=6).double()
    assert (t.min() > 0) & (t.max() <= 1.0)
    assert ((counts - 40_000 / 6).abs() < 5 * (40_000 / 6) ** 0.5).all()


def fresh(source: Transitions, seed: int) -> Pairs:
    """Pairs of every step, each from new paths."""
    generator, chain = torch.Generator().manual_seed(seed), source.chain
    paths, batches = start(source.starts(source.batch, generator)), []
    for _ in range(len(chain)):
        if source.objective is Objective.ONE_STEP:
            batches.append(one_step(chain, paths, 1, generator))
        paths = step_with_adjoint(chain, paths, generator)
        if source.objective is Objective.PATHWISE:
            batches.append(pathwise(chain, paths))
    return joined(batches)


def summary(pairs: Pairs, scale: float = 1.0) -> Tensor:
    """A summary of angles and targets: their waves, their loss, and their product."""
    theta, target = pairs.theta[:, 0].double(), scale * pairs.variance * pairs.target[:, 0]
    waves = torch.stack((theta.cos(), theta.sin()))
    return torch.cat((waves, waves * target, (target**2 / pairs.variance)[None])).mean(1)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("objective", [Objective.ONE_STEP, Objective.PATHWISE])
@pytest.mark.slow
def test_pairs_of_the_pool_are_distributed_as_those_of_new_paths(objective: Objective, stride: int) -> None:
    """Up to 5 standard errors of 16 pools over a whole cycle (false alarms: 1e-4); targets 5 % longer are noticed."""
    new, pooled, longer = [], [], []
    for seed in range(16):
        source = transitions(objective, seed=seed, batch=400, pool=1, stride=stride)
        pairs = joined([source.draw() for _ in range(10)])
        new.append(summary(fresh(source, 1000 + seed)))
        pooled.append(summary(pairs))
        longer.append(summary(pairs, scale=1.05))
    error = (torch.stack(new).var(0) / 16 + torch.stack(pooled).var(0) / 16).sqrt()
    assert ((torch.stack(new).mean(0) - torch.stack(pooled).mean(0)).abs() < 5 * error).all()
    assert ((torch.stack(new).mean(0) - torch.stack(longer).mean(0)).abs() > 5 * error).any()


IMAGES = WrappedNormal(1.0, 0.5).sample((300, 1, 6, 6), generator=torch.Generator().manual_seed(0)).float()
IMAGES[:, :, :, :3] *= -1


def image_summary(pairs: Pairs, scale: float = 1.0) -> Tensor:
    """The loss of two scores that are not zero, and the regression of the target on what they read."""
    theta, target = pairs.theta.double(), scale * pairs.target.double()
    neighbours = theta.cos().roll(1, -1) * theta.sin() - theta.sin().roll(1, -1) * theta.cos()
    scores = torch.stack((-theta.sin(), neighbours))
    products = (scores * target).flatten(2).mean(2) * pairs.variance
    losses = (scores - target).square().flatten(2).mean(2) * pairs.variance
    return torch.cat((products, losses)).mean(1)


@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(1)])
@pytest.mark.parametrize("objective", [Objective.ONE_STEP, Objective.PATHWISE])
def test_pairs_of_a_pool_of_images_have_the_loss_and_the_score_of_new_paths(
    objective: Objective, coupling: Coupling
) -> None:
    """Up to 5 standard errors of 12 pools over a cycle (false alarms: 1e-4); targets 5 % longer are noticed."""
    sde = KuramotoSDE((1, 6, 6), coupling, Schedule.published(10))
    chain = Chain.uniform(sde, 10, published=True)
    chain = chain.calibrated(IMAGES, torch.Generator().manual_seed(9)) if objective is Objective.PATHWISE else chain
    new, pooled, longer = [], [], []
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        source = Transitions(chain, objective, TensorSampler(IMAGES), 100, generator, pool=1, stride=3)
        pairs = joined([source.draw() for _ in range(10)])
        new.append(image_summary(fresh(source, 1000 + seed)))
        pooled.append(image_summary(pairs))
        longer.append(image_summary(pairs, scale=1.05))
    error = (torch.stack(new).var(0) / 12 + torch.stack(pooled).var(0) / 12).sqrt()
    assert ((torch.stack(new).mean(0) - torch.stack(pooled).mean(0)).abs() < 5 * error).all()
    assert ((torch.stack(new).mean(0) - torch.stack(longer).mean(0)).abs() > 5 * error).any()


def test_drawing_leaves_the_data_and_a_saved_state_alone() -> None:
    data = IMAGES[:1].clone()
    chain = Chain.uniform(KuramotoSDE((1, 6, 6)), 1, published=True)
    source = Transitions(
        chain, Objective.ONE_STEP, lambda count, generator: data, 1, torch.Generator().manual_seed(0), 1
    )
    state = source.state_dict()
    before = {name: x.clone() for name, x in state["paths"].items()}
    source.load_state_dict(state)
    for _ in range(3):
        source.draw()
    assert torch.equal(data, IMAGES[:1])
    assert all(torch.equal(state["paths"][name], x) for name, x in before.items())


@pytest.mark.parametrize("objective", list(Objective))
def test_a_saved_state_goes_on_to_the_same_pairs(objective: Objective) -> None:
    source, other = transitions(objective, seed=1), transitions(objective, seed=2)
    for _ in range(7):
        source.draw()
    other.load_state_dict(source.state_dict())
    expected = [source.draw() for _ in range(30)]
    for pairs in expected:
        for got, wanted in zip(other.draw(), pairs, strict=True):
            assert torch.equal(got, wanted)


def test_next_states_share_a_path_in_one_step_matching() -> None:
    source = transitions(Objective.ONE_STEP, states=5)
    pairs = source.draw()
    times = pairs.t.reshape(5, 8)
    assert torch.equal(times, times[:1].expand(5, 8))
    assert len(set(pairs.theta[:, 0].tolist())) == 40


def test_coupled_paths_start_as_whole_samples() -> None:
    data = torch.tensor([[1.0, -1.0], [2.0, -2.0]])
    starts = TensorSampler(data)(100, torch.Generator().manual_seed(0))
    assert torch.equal(starts[:, 0], -starts[:, 1])
    assert {1.0, 2.0} == set(starts[:, 0].tolist())


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        (Objective.PATHWISE, {"batch": 0}, "positive"),
        (Objective.ONE_STEP, {"states": 3}, "states divide batch"),
        (Objective.PATHWISE, {"states": 5}, "one-step"),
    ],
)
def test_impossible_batches_are_refused(objective: Objective, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transitions(objective, **options)

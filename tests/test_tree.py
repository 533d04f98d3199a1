"""The Brownian tree: its exact law, its answers in any order, what they join to, and solves that follow it."""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from circsde.solvers import METHODS, Brownian, BrownianPath, BrownianTree, Noise, join, sdeint
from circsde.solvers.tree import Interval
from circsde.torus import distance
from strategies import assert_agree, kuramoto, random_angles, seeds

FALSE_ALARM = 1e-6  # of each statistical check below; every one is seeded


def grids(depth: int) -> st.SearchStrategy[list[float]]:
    """Some points of the lattice of ``[0, 1]`` of that depth, in order."""
    points = st.lists(st.integers(0, 2**depth), min_size=2, max_size=6, unique=True)
    return points.map(lambda numbers: [number / 2**depth for number in sorted(numbers)])


def told(path: BrownianTree, *grid: float, levy_area: bool = True) -> list[Noise]:
    return list(path.increments(grid, levy_area=levy_area))


def area(noise: Noise) -> Tensor:
    assert noise.dZ is not None
    return noise.dZ


def standardised(noise: Noise, h: float) -> tuple[Tensor, Tensor]:
    """Increments scaled to independent standard normals: ``dW`` and what ``dZ`` adds to it, float64."""
    across = area(noise).double() - 0.5 * h * noise.dW.double()
    return noise.dW.double() / h**0.5, across / (h**3 / 12) ** 0.5


def assert_equal(a: Noise, b: Noise) -> None:
    assert torch.equal(a.dW, b.dW)
    assert torch.equal(area(a), area(b))


class Unit(BrownianTree):
    """A tree of depth 4 whose normals are unit vectors, so that its answers are their own coefficients."""

    def normal(self, number: int, kind: int) -> Tensor:
        out = torch.zeros(self.shape, dtype=self.dtype)
        out[2 * number + kind] = 1.0
        return out


class Wrong(Unit):
    """A twin whose areas lean the other way: right variances in each half, wrong ones across."""

    def _halves(self, whole: Interval) -> Iterator[Interval]:
        late, early = super()._halves(whole)
        Z = 0.5 * (early.W - late.W) - 1.5 * whole.H
        yield late._replace(H=late.H + Z)
        yield early._replace(H=early.H + Z)


def covariance(path: BrownianTree, grid: Sequence[float]) -> Tensor:
    """The exact covariance of all standardised ``dW`` and ``dZ`` over the intervals."""
    rows = [
        part[:, 0]
        for noise, (s, t) in zip(told(path, *grid), pairwise(grid), strict=True)
        for part in standardised(noise, t - s)
    ]
    stacked = torch.stack(rows)
    return stacked @ stacked.T


@given(st.lists(st.integers(0, 16), min_size=2, unique=True).map(sorted), st.floats(1e-3, 1e3))
def test_the_law_is_that_of_brownian_motion_exactly(points: list[int], horizon: float) -> None:
    """On every grid of a small lattice the covariance, a sum over the normals that take part, is that of theory."""
    path = Unit(horizon, (32, 1), 0, torch.float64, depth=4)
    assert_agree(covariance(path, [point / 16 * horizon for point in points]), torch.eye(2 * len(points) - 2).double())


def test_a_law_whose_areas_lean_the_other_way_would_be_noticed() -> None:
    path = Wrong(1.0, (32, 1), 0, torch.float64, depth=4)
    wrong = covariance(path, (0.0, 0.25, 0.5, 1.0)) - torch.eye(6).double()
    assert wrong.abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_increments_have_the_joint_law_of_theory(dtype: torch.dtype) -> None:
    """Var dW = h, Var dZ = h^3/3, Cov = h^2/2, independent from interval to interval: chi-square and correlations.

    Rounding times to the lattice changes the widths by 1e-9, which no test of 1e5 normals can see.
    """
    grid = (0.1, 0.107, 0.5, 1.3, 1.9)
    path = BrownianTree(2.0, (200, 500), 1, dtype)
    parts = list[Tensor]()
    for noise, (s, t) in zip(told(path, *grid), pairwise(grid), strict=True):
        parts += [part.flatten() for part in standardised(noise, t - s)]
    for x in parts:
        total, n = x.square().sum().item(), x.numel()
        assert 2 * min(stats.chi2.cdf(total, n), stats.chi2.sf(total, n)) > FALSE_ALARM
        assert stats.kstest(x.numpy(), stats.norm.cdf).pvalue > FALSE_ALARM
    for x, y in combinations(parts, 2):
        z = (x * y).sum().item() / math.sqrt(x.numel())
        assert 2 * stats.norm.sf(abs(z)) > FALSE_ALARM


@given(grids(31), seeds)
def test_intervals_join_to_those_that_hold_them(grid: list[float], seed: int) -> None:
    path = BrownianTree(1.0, (2, 3), seed, torch.float64)
    first, *rest = told(path, *grid)
    for noise, (s, t) in zip(rest, pairwise(grid[1:]), strict=True):
        first = join(first, noise, t - s)
    (whole,) = told(path, grid[0], grid[-1])
    assert_agree(first.dW, whole.dW)
    assert_agree(area(first), area(whole))


@given(grids(8), seeds, st.randoms(use_true_random=False))
def test_an_answer_does_not_depend_on_what_else_is_asked(grid: list[float], seed: int, order: object) -> None:
    path = BrownianTree(1.0, (2, 3), seed)
    together = dict(zip(pairwise(grid), told(path, *grid), strict=True))
    intervals = list(together)
    order.shuffle(intervals)  # type: ignore[attr-defined]
    for s, t in intervals:
        (alone,) = told(path, s, t)
        assert_equal(alone, together[s, t])
        (without,) = told(path, s, t, levy_area=False)
        assert torch.equal(without.dW, alone.dW)
        assert without.dZ is None


@given(seeds, st.integers(0, 30), st.integers(1, 30), st.sampled_from([(700,), (3,), (2, 50, 41)]))
def test_the_path_of_a_sample_is_the_same_in_every_batch(
    seed: int, first: int, batch: int, event: tuple[int, ...]
) -> None:
    (whole,) = told(BrownianTree(1.0, (64, *event), seed, depth=4), 0.2, 0.9)
    (part,) = told(BrownianTree(1.0, (batch, *event), seed, first_sample=first, depth=4), 0.2, 0.9)
    assert torch.equal(whole.dW[first : first + batch], part.dW)
    assert torch.equal(area(whole)[first : first + batch], area(part))


def test_a_deeper_tree_has_the_same_path_at_the_points_of_both() -> None:
    for a, b in zip(*(told(BrownianTree(3.0, (2, 3), 0, depth=d), 0.375, 1.5, 2.625) for d in (3, 31)), strict=True):
        assert_equal(a, b)


def test_a_tree_is_independent_of_other_seeds_and_of_other_paths() -> None:
    (noise,) = told(BrownianTree(1.0, (300, 300), 0, torch.float64), 0.0, 1.0)
    (other,) = told(BrownianTree(1.0, (300, 300), 1, torch.float64), 0.0, 1.0)
    (grid,) = Brownian((0.0, 1.0), (300, 300), 0, torch.float64).increments((0.0, 1.0), levy_area=True)
    for x in (other.dW, grid.dW):
        assert 2 * stats.norm.sf(abs((noise.dW * x).sum().item()) / 300) > FALSE_ALARM


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_path_is_the_same_in_every_dtype_to_rounding(dtype: torch.dtype) -> None:
    """Of 31 halvings in float32 the answer keeps 2e-6 of its size; a narrow dtype rounds it once."""
    grid = (0.1, 0.3, 0.9)
    narrow, wide = (told(BrownianTree(1.0, (20, 30), 5, each), *grid) for each in (dtype, torch.float64))
    for a, b, (s, t) in zip(narrow, wide, pairwise(grid), strict=True):
        for x, exact, size in ((a.dW, b.dW, (t - s) ** 0.5), (area(a), area(b), (t - s) ** 1.5)):
            assert x.dtype == dtype
            assert bool(((x.double() - exact).abs() <= torch.finfo(dtype).eps * exact.abs() + 2e-6 * size).all())


def test_times_are_rounded_to_the_lattice() -> None:
    """By half a cell at most; the last moment and times within rounding of the ends are on it."""
    path = BrownianTree(1.0, (2, 3), 0, depth=10)
    assert_equal(told(path, 0.1, 0.7)[0], told(path, 102 / 1024, 717 / 1024)[0])
    assert_equal(told(path, -1e-14, 1.0 + 1e-14)[0], told(path, 0.0, 1.0)[0])


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ((0.5, 2.1), "time 2.1 is not on this Brownian tree, which runs from 0 to 2; give it a longer horizon"),
        ((-0.5, 2.0), "time -0.5 is not on this Brownian tree"),
        ((0.0, math.nan), "time nan is not on this Brownian tree"),
        ((1.0, 0.5), "times must increase, got 1.0 before 0.5"),
        ((1.0, 1.01), r"one point of this Brownian tree, whose points are 0.12 apart; .* depth of more than 4"),
    ],
)
def test_times_that_it_cannot_tell_are_refused(grid: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        told(BrownianTree(2.0, (1, 1), 0, depth=4), *grid)


@pytest.mark.parametrize("horizon", [0.0, -1.0, math.inf, math.nan])
def test_a_horizon_that_is_no_length_of_time_is_refused(horizon: float) -> None:
    with pytest.raises(ValueError, match="horizon must be positive and finite, got"):
        BrownianTree(horizon, (1, 1), 0)


@pytest.mark.parametrize("depth", [0, 32])
def test_a_depth_out_of_range_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth must lie between 1 and 31, got {depth}"):
        BrownianTree(1.0, (1, 1), 0, depth=depth)


def test_normals_are_drawn_once_for_every_interval_that_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the lattice two a step, and as many intervals are kept as the tree is deep."""
    drawn = list[tuple[int, int]]()
    normal = BrownianTree.normal

    def counted(path: BrownianTree, number: int, kind: int) -> Tensor:
        drawn.append((number, kind))
        return normal(path, number, kind)

    monkeypatch.setattr(BrownianTree, "normal", counted)
    told(BrownianTree(1.0, (1, 1), 0), *(i / 64 for i in range(65)))
    assert sorted(drawn) == [(number, kind) for number in range(64) for kind in (0, 1)]


def end_of(n_steps: int, method: str, seed: int = 3) -> Tensor:
    """The last angles of a solve, whose steps have no point inside in common with those of other primes of steps."""
    path = BrownianTree(1.0, (64, 5), seed, torch.float64)
    theta0 = random_angles(64, 5)
    return sdeint(kuramoto("global"), theta0, (0.0, 1.0), n_steps=n_steps, method=method, brownian=path).theta[-1]


def test_solves_on_unrelated_grids_follow_one_path() -> None:
    """Root-mean-square errors on 11 and 47 steps against 199 fall at least at the strong order; on another path not."""
    reference = end_of(199, "sra1")
    for method in ("euler_maruyama", "sra1"):
        few, many = (distance(end_of(n, method), reference).square().mean().sqrt() for n in (11, 47))
        assert math.log(few / many) / math.log(47 / 11) > (METHODS[method].strong_order or 0.0) - 0.2
        assert many < 0.05
    assert distance(end_of(47, "sra1", seed=4), reference).square().mean().sqrt() > 0.1


def test_steps_on_a_tree_are_recomputed_for_gradients() -> None:
    start, path = random_angles(2, 5).requires_grad_(), BrownianTree(1.0, (2, 5), 0, torch.float64)
    plain, again = (
        sdeint(kuramoto("global"), start, (0.0, 0.4, 1.0), n_steps=30, brownian=path, checkpoint=checkpoint).lifted
        for checkpoint in (False, True)
    )
    found = [torch.autograd.grad(output.sin().sum(), start)[0] for output in (plain, again)]
    assert_agree(again, plain, 1e-12)
    assert_agree(found[1], found[0], 1e-12)


def test_it_is_a_path() -> None:
    assert isinstance(BrownianTree(1.0, (1, 1), 0), BrownianPath)

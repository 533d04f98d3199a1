"""Brownian increments: their joint law, independence of all that must be independent, and what a path is fixed by."""

import gc
import math
import os
from collections.abc import Sequence
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from circsde.solvers.brownian import Brownian, BrownianPath, Noise, draw_seed, join
from strategies import Replay, assert_agree, random, seeds

FALSE_ALARM = 1e-6  # of each statistical check below; every one is seeded

widths = st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=12)


def grid_of(steps: Sequence[float]) -> tuple[float, ...]:
    points = [0.0]
    for h in steps:
        points.append(points[-1] + h)
    return tuple(points)


def uniform_grid(n: int) -> tuple[float, ...]:
    return tuple(i / n for i in range(n + 1))


def drawn(path: Brownian, grid: Sequence[float] | None = None, levy_area: bool = True) -> list[Noise]:
    return list(path.increments(path.grid if grid is None else grid, levy_area=levy_area))


def area(noise: Noise) -> Tensor:
    assert noise.dZ is not None
    return noise.dZ


def standardised(noise: Noise, h: float) -> tuple[Tensor, Tensor]:
    """Increments scaled to independent standard normals: ``dW`` and what ``dZ`` adds to it, flattened, float64."""
    across = area(noise).double() - 0.5 * h * noise.dW.double()
    return noise.dW.double().flatten() / h**0.5, across.flatten() / (h**3 / 12) ** 0.5


def assert_independent(a: Tensor, b: Tensor) -> None:
    """The sample correlation of standard normals is normal with variance ``1/n``."""
    z = (a * b).sum().item() / math.sqrt(a.numel())
    assert 2 * stats.norm.sf(abs(z)) > FALSE_ALARM, f"z = {z:.1f}"


def variance_p_value(x: Tensor) -> float:
    """Two-sided, of the sum of squares of what should be standard normals."""
    total, n = x.square().sum().item(), x.numel()
    return 2 * min(stats.chi2.cdf(total, n), stats.chi2.sf(total, n))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_increments_have_the_covariance_of_theory(dtype: torch.dtype) -> None:
    """Var dW = h, Var dZ = h^3/3, Cov = h^2/2: chi-square of both standardised parts and their correlation."""
    grid = grid_of([0.01, 0.5, 2.0])
    path = Brownian(grid, (400, 500), seed=1, dtype=dtype)
    for noise, (t0, t1) in zip(drawn(path), pairwise(grid), strict=True):
        along, across = standardised(noise, t1 - t0)
        assert variance_p_value(along) > FALSE_ALARM
        assert variance_p_value(across) > FALSE_ALARM
        assert_independent(along, across)
        assert stats.kstest(along.numpy(), stats.norm.cdf).pvalue > FALSE_ALARM
        assert stats.kstest(across.numpy(), stats.norm.cdf).pvalue > FALSE_ALARM


def test_a_variance_off_by_two_percent_would_be_noticed() -> None:
    (noise,) = drawn(Brownian((0.0, 0.5), (400, 500), seed=1))
    for part in standardised(noise, 0.51):
        assert variance_p_value(part) < FALSE_ALARM


def test_coarse_increments_have_the_covariance_of_theory() -> None:
    path = Brownian(grid_of([0.1, 0.7, 0.3]), (400, 500), seed=2, dtype=torch.float64)
    (noise,) = drawn(path, (0.0, path.grid[-1]))
    along, across = standardised(noise, 1.1)
    assert variance_p_value(along) > FALSE_ALARM
    assert variance_p_value(across) > FALSE_ALARM
    assert_independent(along, across)


def test_steps_samples_quarters_kinds_and_seeds_are_independent_of_one_another() -> None:
    """Of runs of 1,024 normals each, here of one sample; of their quarters, which are made together; of neighbours."""
    n, event = 300, 1000
    first, second = drawn(Brownian((0.0, 1.0, 2.0), (n, event), seed=3, dtype=torch.float64))
    (other,) = drawn(Brownian((0.0, 1.0), (n, event), seed=4, dtype=torch.float64))
    (high,) = drawn(Brownian((0.0, 1.0), (n, event), seed=3 + 2**32, dtype=torch.float64))
    along, across = (part.reshape(n, event) for part in standardised(first, 1.0))
    assert_independent(along, second.dW)
    assert_independent(along, other.dW)
    assert_independent(along, high.dW)
    for lag in (1, 2, 100, 150):
        assert_independent(along[lag:], along[:-lag])
        assert_independent(along[lag:], across[:-lag])
        assert_independent(across[lag:], along[:-lag])
    for lag in (1, 250, 500, 750):
        assert_independent(along[:, lag:], along[:, :-lag])


@given(widths, seeds, st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
def test_a_path_is_the_same_in_every_dtype_to_rounding(steps: list[float], seed: int, dtype: torch.dtype) -> None:
    grid = grid_of(steps)
    wide, narrow = (drawn(Brownian(grid, (3, 5), seed, each)) for each in (torch.float64, dtype))
    for a, b, h in zip(wide, narrow, steps, strict=True):
        for exact, rounded, size in ((a.dW, b.dW, h**0.5), (area(a), area(b), h**1.5)):
            ulp = (
                torch.finfo(dtype).eps * (exact.abs() + torch.finfo(dtype).tiny) + 6e-7 * size
            )  # a normal of float32 is right to 4e-7
            assert bool(((exact - rounded.double()).abs() <= ulp).all())


@given(widths, seeds, st.data())
def test_coarse_increments_are_the_direct_integrals_of_the_fine_path(
    steps: list[float], seed: int, data: st.DataObject
) -> None:
    """``dW`` sums; ``dZ`` is the integral of W minus its first value, summed over the fine steps by hand."""
    grid = grid_of(steps)
    inner = data.draw(st.lists(st.sampled_from(grid[1:-1]), unique=True)) if len(grid) > 2 else []
    coarse = [0.0, *sorted(inner), grid[-1]]
    path = Brownian(grid, (2, 3), seed, torch.float64)
    fine = drawn(path)
    for noise, (t0, t1) in zip(drawn(path, coarse), pairwise(coarse), strict=True):
        W, Z = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
        for i in range(grid.index(t0), grid.index(t1)):
            Z = Z + W * (grid[i + 1] - grid[i]) + area(fine[i])
            W = W + fine[i].dW
        assert_agree(noise.dW, W)
        assert_agree(area(noise), Z)


def test_areas_that_forget_where_the_path_stands_are_wrong() -> None:
    path = Brownian(uniform_grid(4), (2, 3), 5, torch.float64)
    (whole,) = drawn(path, (0.0, 1.0))
    forgetful = sum((area(noise) for noise in drawn(path)), torch.zeros(2, 3))
    assert (area(whole) - forgetful).abs().max() > 0.1


@given(st.lists(st.floats(1e-3, 1.0), min_size=3, max_size=3), seeds)
def test_joining_is_associative(h: list[float], seed: int) -> None:
    a, b, c = (Noise(random(4, seed=seed + i), random(4, seed=seed + 3 + i)) for i in range(3))
    left, right = join(join(a, b, h[1]), c, h[2]), join(a, join(b, c, h[2]), h[1] + h[2])
    assert_agree(left.dW, right.dW)
    assert_agree(area(left), area(right))


def test_a_path_starts_where_its_first_grid_point_is_asked_for() -> None:
    path = Brownian(uniform_grid(8), (2, 3), 5, torch.float64)
    later = drawn(path, path.grid[3:])
    assert all(torch.equal(a.dW, b.dW) for a, b in zip(later, drawn(path)[3:], strict=True))


@given(seeds, st.integers(0, 30), st.integers(1, 30), st.sampled_from([(700,), (3,), (9000,), (2, 50, 41)]))
def test_the_path_of_a_sample_is_the_same_in_every_batch(
    seed: int, first: int, batch: int, event: tuple[int, ...]
) -> None:
    grid = (0.0, 0.3, 1.0)
    whole = drawn(Brownian(grid, (64, *event), seed))
    part = drawn(Brownian(grid, (batch, *event), seed, first_sample=first))
    for a, b in zip(whole, part, strict=True):
        assert torch.equal(a.dW[first : first + batch], b.dW)
        assert torch.equal(area(a)[first : first + batch], area(b))


def test_asking_for_areas_does_not_change_the_path() -> None:
    path = Brownian(uniform_grid(5), (3, 40), 8)
    with_area, without = drawn(path), drawn(path, levy_area=False)
    assert all(torch.equal(a.dW, b.dW) and b.dZ is None for a, b in zip(with_area, without, strict=True))


@pytest.mark.parametrize("shape", [(1, 5), (40, 3, 32, 32), (3, 7), (2, 20_001), (40_000, 3), (700, 100)])
def test_threads_are_of_no_consequence_for_the_path(shape: tuple[int, ...]) -> None:
    threads = torch.get_num_threads()
    paths = []
    try:
        for available in (1, 2, 3):
            torch.set_num_threads(available)
            paths.append(drawn(Brownian(uniform_grid(3), shape, 9)))
    finally:
        torch.set_num_threads(threads)
    for other in paths[1:]:
        for a, b in zip(paths[0], other, strict=True):
            assert torch.equal(a.dW, b.dW)
            assert torch.equal(area(a), area(b))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_increments_have_the_shape_and_dtype_asked_for(dtype: torch.dtype) -> None:
    for noise in drawn(Brownian((0.0, 0.5, 1.0), (3, 2, 4), 0, dtype)):
        assert (noise.dW.shape, noise.dW.dtype) == ((3, 2, 4), dtype)
        assert (area(noise).shape, area(noise).dtype) == ((3, 2, 4), dtype)
        assert bool(noise.dW.isfinite().all() & area(noise).isfinite().all())


def live_bytes() -> int:
    """The memory behind all tensors that Python knows of."""
    dense = [x for x in gc.get_objects() if type(x) is Tensor and x.layout == torch.strided]
    return sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in dense}.values())


def bytes_held(kept: list[Noise]) -> list[int]:
    """After 10, 30 and 60 of 1e5 steps of 5e4 normals each (40 GB in all), with what ``kept`` keeps."""
    path = Brownian(uniform_grid(100_000), (50, 1000), 0, torch.float64)
    before, held = live_bytes(), []
    increments = path.increments(path.grid, levy_area=False)
    for i, noise in enumerate(islice(increments, 60), 1):
        kept.append(noise)
        if i in (10, 30, 60):
            held.append(live_bytes() - before)
    increments.close()  # type: ignore[attr-defined]
    return held


class Forgetful(list[Noise]):
    def append(self, noise: Noise) -> None:  # noqa: ARG002
        pass


def test_memory_does_not_grow_with_the_number_of_steps() -> None:
    held = bytes_held(Forgetful())
    assert max(held) < 60 * 8 * 50_000
    assert held[-1] <= 1.01 * max(held[:-1])
    hoarded = bytes_held([])
    assert hoarded[-1] > 2 * hoarded[0]


@pytest.mark.parametrize("t", [0.1, 1.5, -0.25])
def test_a_time_that_is_not_on_the_path_is_refused(t: float) -> None:
    path = Brownian(uniform_grid(4), (1, 1), 0)
    with pytest.raises(ValueError, match=rf"time {t:g} is not on this Brownian path, which is known at 5 times"):
        list(path.increments(sorted((0.0, t, 1.0)), levy_area=False))


def test_times_within_rounding_are_on_the_path() -> None:
    path = Brownian(tuple(0.1 * i for i in range(11)), (1, 1), 0)
    assert len(drawn(path, [i / 10 for i in range(11)])) == 10


def test_a_seed_comes_from_a_generator_which_advances_or_is_given() -> None:
    generator = torch.Generator().manual_seed(1)
    assert draw_seed(generator) != draw_seed(generator)
    assert draw_seed(torch.Generator().manual_seed(1)) == draw_seed(torch.Generator().manual_seed(1))
    assert draw_seed(17) == 17
    torch.manual_seed(5)
    first = draw_seed(None)
    torch.manual_seed(5)
    assert draw_seed(None) == first


@pytest.mark.parametrize("path", [Brownian((0.0, 1.0), (1, 1), 0), Replay(())])
def test_a_path_is_anything_that_has_increments(path: object) -> None:
    assert isinstance(path, BrownianPath)


def test_a_path_takes_more_than_one_core_only_if_asked() -> None:
    """Without workers no thread is started."""
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("counts threads in /proc")
    before = len(os.listdir("/proc/self/task"))
    increments = Brownian(uniform_grid(10), (10, 10), 0).increments(uniform_grid(10), levy_area=False)
    next(increments)
    assert len(os.listdir("/proc/self/task")) <= before

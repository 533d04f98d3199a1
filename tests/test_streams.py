"""Streams of random numbers: no two share a key, none is torch's or numpy's own, and none correlates with another."""

import itertools
import math
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from circsde.sde import SDE
from circsde.solvers.integrate import sdeint
from circsde.streams import Purpose, key, numpy_stream, seed_torch, torch_stream

FALSE_ALARM = 1e-6  # of each check below, all pairs together; every one is seeded
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
DRAWS = 1024

names = st.tuples(st.integers(), st.sampled_from(PURPOSES), st.lists(st.integers(), max_size=3).map(tuple))


@given(names, names)
def test_different_names_have_different_keys(
    a: tuple[int, Purpose, tuple[int, ...]], b: tuple[int, Purpose, tuple[int, ...]]
) -> None:
    assert (key(a[0], a[1], *a[2]) == key(b[0], b[1], *b[2])) == (a == b)


def test_keys_differ_where_words_and_offsets_would_run_into_one_another() -> None:
    """Seeds beyond 64 bits, negative ones, and places whose digits or words could be read as those of others."""
    seeds = (0, 1, -1, 2**32, 2**62, 2**64, 1 + 2**64, 2**128)
    places = ((), (0,), (1,), (0, 0), (0, 1), (1, 0), (10,), (1, 0, 0), (2**32,), (2**64,))
    keys = {key(seed, purpose, *place) for seed in seeds for purpose in PURPOSES for place in places}
    assert len(keys) == len(seeds) * len(PURPOSES) * len(places)


def largest_correlation(rows: NDArray[np.float64]) -> float:
    """Among all pairs of rows, and among all pairs in which one is shifted by one draw."""
    rows = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
    same = np.abs(rows @ rows.T) / rows.shape[1]
    shifted = np.abs(rows[:, 1:] @ rows[:, :-1].T) / rows.shape[1]
    np.fill_diagonal(same, 0.0)
    return float(max(same.max(), shifted.max()))


def bound(streams: int) -> float:
    """Exceeded by the largest of so many correlations of independent normals with probability below FALSE_ALARM."""
    pairs = 1.5 * streams**2
    return float(stats.norm.isf(FALSE_ALARM / (2 * pairs))) / math.sqrt(DRAWS)


def test_no_two_of_64_seeds_and_all_purposes_correlate() -> None:
    every = list(itertools.product(range(64), PURPOSES))
    rows = np.stack([numpy_stream(seed, purpose).standard_normal(DRAWS) for seed, purpose in every])
    assert largest_correlation(rows) < bound(len(rows))


def test_no_two_torch_streams_of_64_seeds_and_all_purposes_correlate_nor_with_torch_or_numpy_seeded_alike() -> None:
    every = list(itertools.product(range(64), PURPOSES))
    rows = [torch.randn(DRAWS, generator=torch_stream(seed, purpose)).double().numpy() for seed, purpose in every]
    rows += [torch.randn(DRAWS, generator=torch.Generator().manual_seed(s)).double().numpy() for s in range(64)]
    rows += [np.random.default_rng(s).standard_normal(DRAWS) for s in range(64)]
    assert largest_correlation(np.stack(rows)) < bound(len(rows))


def test_seeds_combined_by_offsets_would_be_noticed() -> None:
    """The twin: a purpose that is an offset of the seed makes (0, 1) and (1, 0) one stream."""
    rows = np.stack([np.random.default_rng(s + p).standard_normal(DRAWS) for s in range(64) for p in range(3)])
    assert largest_correlation(rows) > 0.99 > bound(len(rows))


def test_seeds_combined_by_exclusive_or_would_be_noticed() -> None:
    """The twin: seeds 0 and 2 with blocks 0 and 1 mixed by XOR hold the same blocks in another order."""
    rows = np.stack([np.random.default_rng(s ^ (2 * b)).standard_normal(DRAWS) for s in (0, 2, 4) for b in range(4)])
    assert largest_correlation(rows) > 0.99 > bound(len(rows))


def test_a_torch_stream_is_the_mersenne_twister_that_numpy_has_for_the_same_state() -> None:
    """The 624 words that the state is made of, read back through numpy's implementation of MT19937."""
    words = np.random.SeedSequence(key(3, "starts", 5)).generate_state(624).astype(np.uint32)
    twister = np.random.MT19937()
    twister.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": 624}}
    drawn = torch.empty(2000, dtype=torch.int32).random_(generator=torch_stream(3, "starts", 5))
    assert (drawn.numpy() == twister.random_raw(2000) % 2**31).all()


@pytest.mark.parametrize("seed", [True, np.int64(1), torch.tensor(1)])
def test_an_integer_of_any_kind_names_the_same_stream(seed: int) -> None:
    assert key(seed, "starts") == key(1, "starts")


@pytest.mark.parametrize("seed", [1.0, "1", None])
def test_what_is_no_integer_is_no_seed(seed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # without the tests' own check of types
    with pytest.raises(TypeError):
        key(seed, "starts")


def test_torch_itself_can_be_set_to_a_stream() -> None:
    with torch.random.fork_rng(devices=[]):
        seed_torch(2, "weights")
        drawn = torch.randn(5)
    assert torch.equal(drawn, torch.randn(5, generator=torch_stream(2, "weights")))


ROOT = Path(__file__).resolve().parents[1]
SOURCES = [path for folder in ("circsde", "solvers", "models") for path in sorted((ROOT / folder).rglob("*.py"))]

OWN_SEEDS = {
    "circsde/streams.py",
    "circsde/data/torsion.py",  # the published division into rows for training and for tests
    "circsde/metrics/neural.py",  # hands a generator's draw to a library that takes none
}


def test_every_seed_of_the_package_becomes_a_stream_here() -> None:
    """Nothing else seeds a generator, outside the examples of docstrings."""
    seeding = re.compile(r"manual_seed\(|default_rng\(|SeedSequence\(|RandomState\(|random\.seed\(")
    found = set()
    for path in SOURCES:
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith((">>>", "..."))]
        if any(seeding.search(line) for line in lines):
            found.add(path.relative_to(ROOT).as_posix())
    linked = {name for name in found if not name.startswith(("circsde/solvers/", "circsde/models/"))}
    assert linked == OWN_SEEDS


def test_data_drawn_with_torchs_own_seed_are_independent_of_a_path_with_the_same_seed() -> None:
    """Both would add up: the variance of a start plus a step of noise is 2, not 4."""
    free = SDE(lambda t, theta: torch.zeros_like(theta), lambda t: 1.0, horizon=1.0)
    for seed in range(8):
        start = torch.randn(4096, 4, generator=torch.Generator().manual_seed(seed))
        end = sdeint(free, start, (0.0, 1.0), n_steps=1, generator=seed).lifted[-1]
        variance, deviation = end.var().item(), 2.0 * math.sqrt(2.0 / end.numel())
        assert abs(variance - 2.0) < stats.norm.isf(FALSE_ALARM / 16) * deviation


def test_paths_of_even_seeds_are_not_one_path_in_another_order() -> None:
    free = SDE(lambda t, theta: torch.zeros_like(theta), lambda t: 1.0, horizon=1.0)
    ends = [sdeint(free, torch.zeros(1024, 64), (0.0, 1.0), n_steps=5, generator=s).lifted[-1] for s in (0, 2, 4, 6)]
    means = {round(end.mean().item(), 7) for end in ends}
    assert len(means) == 4
    assert len({tuple(end.flatten().sort().values[:3].tolist()) for end in ends}) == 4

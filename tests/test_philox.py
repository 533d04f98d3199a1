"""Normals by key and counter: known answers, their law and its tails, and independence of whatever is near."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from circsde.solvers import kernels, philox
from circsde.solvers.normals import standard_normals
from strategies import seeds

CPU = torch.device("cpu")
FALSE_ALARM = 1e-6  # of each statistical check below; every one is seeded

KNOWN = [  # of Random123 1.14, kat_vectors, philox4x32 with 10 rounds: counter, key, words
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_words_are_the_known_answers(counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    quad, step, low, high = counter
    sample = torch.tensor(low | high << 32 if high < 2**31 else (low | high << 32) - 2**64)
    found = philox.words(key[1] << 32 | key[0], torch.tensor(quad), step, sample)
    assert tuple(word.item() for word in found) == expected


@given(
    seeds,
    st.integers(0, 2**33),
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.sampled_from([1, 2, 3, 7, 63, 64, 65, 100, 513, 1000, 1023, 1024, 1025, 1026, 2500]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_compiled_normals_are_those_of_the_definition(
    key: int, first: int, step: int, batch: int, n: int, dtype: torch.dtype
) -> None:
    """To rounding: a normal of float32 is right to 4e-7, of which 6.7 units in the last place are 4.8e-7."""
    samples = torch.arange(first, first + batch)
    exact = philox.normals(key % 2**64, samples, step, n)
    found = standard_normals(key % 2**64, first, step, (batch, n), dtype, CPU)
    assert (found.double() - exact).abs().max().item() < (6e-7 if dtype == torch.float32 else 4e-15)


@pytest.mark.parametrize("n", [1, 3, 63, 64, 1000, 1024, 3000])
def test_any_part_is_found_alone(n: int) -> None:
    whole = standard_normals(5, 0, 7, (50, n), torch.float64, CPU)
    for first, batch in ((0, 1), (3, 2), (17, 33), (49, 1)):
        part = standard_normals(5, first, 7, (batch, n), torch.float64, CPU)
        assert torch.equal(part, whole[first : first + batch])
    places = torch.tensor([0, n // 2, n - 1])
    some = philox.normals(5, torch.tensor([4, 40]), 7, n, places=places)
    torch.testing.assert_close(some, whole[[4, 40]][:, places], rtol=0, atol=4e-15)


def test_the_largest_and_the_least_word_give_finite_normals() -> None:
    """``u`` is 1 and 2^-32: radii 0 and ``sqrt(64 log 2)`` = 6.66, the largest that there is."""
    for real in (np.float32, np.float64):
        word, out = np.array([-1, 0], np.int32), np.empty(2, real)
        kernels.radii(word, out, kernels.constants(real))
        assert out.tolist() == pytest.approx([0.0, (64.0 * np.log(2.0)) ** 0.5], rel=1e-6)


def correlated(a: Tensor, b: Tensor) -> float:
    """The p-value of the sample correlation of standard normals."""
    z = (a.flatten() * b.flatten()).sum().item() / a.numel() ** 0.5
    return float(2 * stats.norm.sf(abs(z)))


def test_neighbours_of_every_kind_are_independent() -> None:
    """Steps, samples, keys, oscillators and the quarters of a run; products of squares, too."""
    base = standard_normals(3, 10, 20, (200, 2048), torch.float64, CPU)
    other = {
        "step": standard_normals(3, 10, 21, (200, 2048), torch.float64, CPU),
        "sample": standard_normals(3, 11, 20, (200, 2048), torch.float64, CPU),
        "key": standard_normals(4, 10, 20, (200, 2048), torch.float64, CPU),
        "high half of the key": standard_normals(3 + 2**32, 10, 20, (200, 2048), torch.float64, CPU),
        **{f"oscillator + {lag}": base.roll(lag, 1) for lag in (1, 256, 512, 768, 1024)},
    }
    for what, x in other.items():
        assert correlated(base, x) > FALSE_ALARM, what
        squares = (base.square() - 1) / 2**0.5, (x.square() - 1) / 2**0.5
        assert correlated(*squares) > FALSE_ALARM, f"squares, {what}"
    assert correlated(base, base + 0.01 * other["step"]) < FALSE_ALARM


def moments(draws: int) -> tuple[int, np.ndarray, np.ndarray]:
    """The number of normals, their histogram over equal probabilities, and counts beyond 3, 4, 5 and 5.5 deviations."""
    bins, edges = np.zeros(1000, np.int64), stats.norm.ppf(np.linspace(0, 1, 1001))
    beyond, done = np.zeros(4, np.int64), 0
    for step in range(draws // 4_000_000):
        z = standard_normals(11, 0, step, (4000, 1000), torch.float32, CPU).flatten().numpy()
        bins += np.histogram(z, edges)[0]
        beyond += [int((np.abs(z) > x).sum()) for x in (3.0, 4.0, 5.0, 5.5)]
        done += len(z)
    return done, bins, beyond


def check_law(draws: int) -> None:
    n, bins, beyond = moments(draws)
    assert stats.chisquare(bins).pvalue > FALSE_ALARM
    for count, x in zip(beyond, (3.0, 4.0, 5.0, 5.5), strict=True):
        expected = n * 2 * stats.norm.sf(x)
        p = 2 * min(stats.poisson.cdf(count, expected), stats.poisson.sf(count - 1, expected))
        assert p > FALSE_ALARM, (x, count, expected)


def test_normals_have_their_law_and_their_tails() -> None:
    check_law(8_000_000)


@pytest.mark.slow
def test_normals_have_their_law_and_their_tails_in_1e8_draws() -> None:
    """57 beyond five deviations, 3.8 beyond 5.5; Anderson-Darling over equal parts of the line."""
    check_law(100_000_000)
    parts = [standard_normals(12, 0, step, (1000, 1000), torch.float64, CPU).flatten().numpy() for step in range(100)]
    statistics = [stats.cramervonmises(part[:100_000], "norm").pvalue for part in parts]
    assert stats.kstest(statistics, "uniform").pvalue > FALSE_ALARM
    u = np.sort(stats.norm.cdf(np.concatenate(parts)))
    n = len(u)
    i = np.arange(1, n + 1)
    anderson = -n - float(np.mean((2 * i - 1) * (np.log(u) + np.log1p(-u[::-1]))))
    assert anderson < 8.0  # exceeded once in 1e4 samples of a normal: Marsaglia and Marsaglia 2004

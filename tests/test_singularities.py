"""Winding numbers of fields of phases: constructed cores and deltas, borders, independent phases, what leaves them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from circsde.data.fingerprint import orientation
from circsde.metrics.singularities import charges, singularities
from strategies import random_angles, random_waves

ROWS, COLUMNS = 20, 24
CORES, DELTAS = ((5.5, 7.5), (12.5, 9.5)), ((15.5, 3.5), (17.5, 20.5))
"""Rows and columns of the centres of plaquettes."""


def zero_pole(cores: tuple[tuple[float, float], ...], deltas: tuple[tuple[float, float], ...]) -> Tensor:
    """Doubled orientations of the zero-pole model on a grid, its zeros and poles where they are asked for."""
    row, column = torch.meshgrid(torch.arange(ROWS).double(), torch.arange(COLUMNS).double(), indexing="ij")

    def turns(points: tuple[tuple[float, float], ...]) -> Tensor:
        angles = [torch.atan2(at_row - row, column - at_column) for at_row, at_column in points]
        return torch.stack([*angles, torch.zeros_like(row)]).sum(0)

    return (turns(cores) - turns(deltas))[None]


def marked(*points: tuple[float, float], sign: int) -> Tensor:
    """The sign at the plaquettes of these centres."""
    expected = torch.zeros(1, ROWS - 1, COLUMNS - 1, dtype=torch.int64)
    for row, column in points:
        expected[0, int(row), int(column)] = sign
    return expected


def test_cores_and_deltas_of_the_zero_pole_model_are_found_where_they_are() -> None:
    found = charges(zero_pole(CORES, DELTAS))
    assert torch.equal(found, marked(*CORES, sign=1) + marked(*DELTAS, sign=-1))
    assert singularities(zero_pole(CORES, DELTAS[:1])).tolist() == [[2.0, 1.0]]


def test_orientations_that_are_not_doubled_hide_them() -> None:
    """The twin: half the phase jumps by half a turn along cuts, and its winding marks the ends of these at random."""
    found = charges(zero_pole(CORES, DELTAS) / 2)
    assert not torch.equal(found, marked(*CORES, sign=1) + marked(*DELTAS, sign=-1))


@pytest.mark.parametrize(("pattern", "cores", "deltas"), [("loop", 1.0, 1.0), ("whorl", 2.0, 2.0), ("arch", 0.0, 0.0)])
def test_generated_fingerprints_have_the_singularities_of_their_pattern(
    pattern: str, cores: float, deltas: float
) -> None:
    y, x = torch.meshgrid(torch.linspace(1.5, -1.5, 100), torch.linspace(-1.5, 1.5, 100), indexing="ij")
    for seed in range(5):
        ridges = orientation(x, y, pattern, torch.Generator().manual_seed(seed))
        assert singularities(2.0 * ridges[None]).tolist() == [[cores, deltas]]


SIDES = st.integers(2, 7)
SEEDS = st.integers(0, 2**32)


@given(rows=SIDES, columns=SIDES, quarters=st.booleans(), seed=SEEDS)
@example(rows=2, columns=2, quarters=True, seed=0)
def test_charges_add_up_to_zero_on_a_periodic_grid(rows: int, columns: int, quarters: bool, seed: int) -> None:
    """Also where neighbours are opposite, so that either way around is as short."""
    theta = random_angles(3, rows, columns, seed=seed)
    if quarters:
        theta = (theta / (math.pi / 2)).round() * (math.pi / 2)
    found = charges(theta, periodic=True)
    assert found.shape == (3, rows, columns)
    assert found.sum((1, 2)).tolist() == [0, 0, 0]


@given(rows=SIDES, columns=SIDES, seed=SEEDS)
def test_charges_inside_add_up_to_the_winding_along_the_border(rows: int, columns: int, seed: int) -> None:
    """By numpy's unwrapping of the phases along the border, counter-clockwise."""
    theta = random_angles(1, rows, columns, seed=seed)
    edge = theta[0].numpy()
    border = np.concatenate((edge[:-1, 0], edge[-1, :-1], edge[:0:-1, -1], edge[0, :0:-1], edge[:1, 0]))
    lifted = np.unwrap(border)
    assert charges(theta).sum().item() == round((lifted[-1] - lifted[0]) / (2 * math.pi))


@given(rows=SIDES, columns=SIDES, shift=st.floats(-10.0, 10.0), seed=SEEDS)
def test_charges_do_not_depend_on_a_common_shift_and_turn_with_the_field(
    rows: int, columns: int, shift: float, seed: int
) -> None:
    theta = random_angles(2, rows, columns, seed=seed)
    found = charges(theta)
    assert torch.equal(charges(theta + shift), found)
    assert torch.equal(charges(theta.rot90(1, (1, 2))), found.rot90(1, (1, 2)))
    assert torch.equal(charges(theta.flip(2)), -found.flip(2))
    assert torch.equal(charges(-theta.flip(2)), found.flip(2))  # a mirrored picture: its phases change sign, too


def test_a_third_of_the_plaquettes_of_independent_phases_is_charged() -> None:
    """1 - P(|u + v + w| < 1/2) = 1/3 of uniform u, v, w on [-1/2, 1/2]; 5 standard errors, a false alarm in 1e6."""
    n = 100_000
    counts = singularities(random_angles(n, 2, 2)).sum(0)
    assert counts.sub(n / 6).abs().max() < 5 * math.sqrt(n * 5 / 36)


def test_random_waves_have_as_many_singularities_as_their_theory_says() -> None:
    """<k^2> / (4 pi) zeros per area (Berry 1978, doi:10.1088/0305-4470/11/1/007), half of them of either sign.

    Of 13 waves of 0 to 2 periods across <m^2> = 28 / 13, so pi <m^2> = 6.77 a field; 5 standard errors, and 1 % for
    pairs within a pixel, which a plaquette does not see.
    """
    found = charges(random_waves(1000, 32, 2.0), periodic=True)
    counts = found.abs().sum((1, 2)).double()
    expected = math.pi * 28 / 13
    assert counts.mean().sub(expected).abs() < 5 * counts.std() / math.sqrt(1000) + 0.01 * expected
    assert counts.std() < expected  # so that a factor of 2 would be found


@pytest.mark.parametrize(
    ("theta", "message"),
    [(torch.zeros(2, 1, 5), "at least 2 rows and 2 columns"), (torch.full((2, 3, 3), torch.nan), "must be finite")],
)
def test_fields_without_a_plaquette_or_with_gaps_are_refused(theta: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        charges(theta)

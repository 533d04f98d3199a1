"""Colours of a lattice, and probes by them: exact on short-ranged Jacobians, unbiased with an error that covers."""

import math
from functools import cache, partial

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from circsde.coupling import NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.solvers.colouring import colour_bits, colour_signs, colours_of
from circsde.solvers.divergence import Probes, jacobian_trace
from circsde.solvers.likelihood import log_prob
from circsde.typing import Angles, Tangent, Time
from strategies import random, random_angles

SIDE = 16


def squared_distances(rows: int, columns: int) -> Tensor:
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()
    return torch.cdist(places, places).square()


@pytest.mark.parametrize("count", [2, 4, 8, 16, 32])
def test_points_of_one_colour_are_as_far_apart_as_so_many_colours_allow(count: int) -> None:
    """The square lattice and the one turned by 45 degrees have one point in m, at a squared distance of m."""
    signs = colour_signs((SIDE, SIDE), count).flatten(1)
    alike = (signs.T @ signs) == count
    apart = squared_distances(SIDE, SIDE)[alike & ~torch.eye(SIDE**2, dtype=torch.bool)]
    assert apart.min().round().item() == count


def test_channels_are_told_apart_before_pixels() -> None:
    signs = colour_signs((3, 4, 4), 4)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert bool((signs[:, i].flatten(1).T @ signs[:, j].flatten(1) == 0).all())
    assert colour_bits((3, 4, 4)).shape[0] == 2 + 4


@pytest.mark.parametrize("event", [(5,), (6, 9), (3, 5, 4)])
def test_signs_of_other_colours_are_orthogonal_and_all_bits_tell_all_points_apart(event: tuple[int, ...]) -> None:
    bits = colour_bits(event).flatten(1)
    assert len({tuple(column) for column in bits.T.tolist()}) == math.prod(event)
    signs = colour_signs(event, 8).flatten(1)
    product = signs.T @ signs
    same = (bits[:3, :, None] == bits[:3, None]).all(0)
    assert torch.equal(product, torch.where(same, 8, 0))


def test_colours_come_in_powers_of_two() -> None:
    for count in (0, 3, 12):
        with pytest.raises(ValueError, match=f"powers of two, got {count}"):
            colour_signs((4, 4), count)
    assert [colours_of(n) for n in (1, 2, 3, 4, 12, 32, 48)] == [1, 1, 1, 2, 4, 16, 16]


def neighbours(theta: Angles) -> Tangent:
    """A field whose Jacobian joins pixels up to one row and one column apart."""
    moved = [theta.roll((i, j), (1, 2)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return torch.stack([(0.3 + k) * (theta - x).sin() for k, x in enumerate(moved)]).sum(0) + theta.cos()


def test_probes_of_eight_colours_are_exact_where_only_near_pixels_matter() -> None:
    theta = random_angles(3, SIDE, SIDE)
    exact = jacobian_trace(lambda x: (neighbours(x), x), theta, None)[1]
    for law, colours, far in (("lattice", 8, False), ("rademacher", 1, True), ("lattice", 2, True)):
        probes = Probes(law, 0, colours=colours).draw(theta, 0, 8)
        found = jacobian_trace(lambda x: (neighbours(x), x), theta, probes)[1].mean(0)
        assert bool(((found - exact[0]).abs() > 1e-6).all()) == far


@pytest.mark.parametrize("colours", [1, 4, 8])
def test_coloured_probes_are_unbiased_with_the_known_variance(colours: int) -> None:
    """Any Jacobian: ``2 sum J_ij^2`` of the symmetric part over pairs of one colour; false alarms 1e-4, seeded."""
    J, k = random(36, 36, seed=1), 4000
    theta = torch.zeros(k, 6, 6, dtype=torch.float64)
    z = Probes("lattice", 0, colours=colours).draw(theta, 0, colours).flatten(2)
    found = ((z @ J) * z).sum(2).mean(0)
    signs = colour_signs((6, 6), colours).flatten(1)
    same = (signs.T @ signs == colours) & ~torch.eye(36, dtype=torch.bool)
    variance = 2.0 * (0.5 * (J + J.T))[same].square().sum()
    assert (found.mean() - J.trace()).abs() < 3.9 * (variance / k).sqrt()
    kurtosis = ((found - found.mean()) ** 4).mean() / found.var() ** 2
    assert (found.var() / variance - 1.0).abs() < 3.9 * ((kurtosis - 1.0) / k).sqrt()


@pytest.mark.parametrize("probes", [16, 64])
@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_the_deviation_is_at_most_half_of_that_of_independent_signs(probes: int, noise: float) -> None:
    """Of the score of a Gaussian field of correlation length 1.5, at the evaluations of two sets of colours."""
    covariance = torch.exp(-squared_distances(SIDE, SIDE) / 4.5) + noise * torch.eye(SIDE**2, dtype=torch.float64)
    J = -torch.linalg.inv(covariance)

    def deviation(law: str, colours: int) -> float:
        z = Probes(law, 0, colours=colours).draw(torch.zeros(100, SIDE, SIDE).double(), 0, probes).flatten(2)
        return float((((z @ J) * z).sum(2).mean(0) - J.trace()).square().mean().sqrt())

    assert deviation("lattice", colours_of(probes)) < 0.5 * deviation("rademacher", 1)


FIELD = KuramotoSDE((6, 6), NoCoupling(), Schedule.linear((0.0, 1.0, 0.3), (0.0, 2.0, 1.0)))


def score(t: Time, theta: Angles) -> Tangent:
    """The score of a law in which each pixel is drawn to its neighbours, more so at earlier times."""
    pull = torch.zeros_like(theta)
    for reach, weight in ((1, 1.0), (2, 0.3)):
        for axis in (1, 2):
            for way in (-reach, reach):
                pull = pull + weight * (theta.roll(way, axis) - theta).sin()
    return (1.2 - torch.as_tensor(t).to(theta)) * pull - theta.sin()


@cache
def exact_value() -> tuple[Tensor, Tensor]:
    theta = random_angles(1, 6, 6)
    return theta, log_prob(FIELD, score, theta, atol=1e-6).value


@pytest.mark.parametrize(("law", "probes"), [("probing", 4), ("probing", 16), ("hutchinson", 2)])
def test_fresh_probes_are_unbiased_with_an_error_that_covers(law: str, probes: int) -> None:
    """200 repetitions: two sets of probes are enough for a standard error, as there are many nodes."""
    theta, exact = exact_value()
    ask = partial(log_prob, FIELD, score, divergence=law, probes=probes, fresh_probes=True)
    result = ask(theta.expand(200, 6, 6), atol=1e-4, generator=3)
    z = (result.value - exact) / result.stderr
    assert abs(z.mean()) < 4.2 / math.sqrt(200)  # Student's law of 15 or more degrees of freedom; false alarm 1e-4
    covered = int((z.abs() < 1.96).sum())
    assert binom.ppf(5e-5, 200, 0.95) <= covered <= binom.ppf(1 - 5e-5, 200, 0.95)
    assert result.stderr.mean() < 1.6 * (result.value - exact).std()  # it is not wide either


def test_coloured_probes_are_fresh_and_add_up_to_a_target() -> None:
    theta, exact = exact_value()
    ask = partial(log_prob, FIELD, score, theta.expand(6, 6, 6), divergence="probing", atol=1e-4, generator=2)
    default, fresh = (ask(probes=8, fresh_probes=fresh) for fresh in (None, True))
    assert torch.equal(default.value, fresh.value)
    assert not torch.equal(default.value, ask(probes=8, fresh_probes=False).value)
    few = ask(probes=2).stderr
    result = ask(probes=2, stderr_target=float(few.min()), max_probes=35)
    assert set(result.probes.tolist()) == {32}
    assert bool((result.stderr < few.min()).all())
    assert bool(((result.value - exact).abs() < 4.5 * result.stderr).all())
    assert bool(ask(probes=1).stderr.isnan().all())

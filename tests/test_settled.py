"""The law that oscillators settle to, against sums over grids on the torus and stationarity of its own drift."""

import math

import pytest
import torch
from torch import Tensor

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.exact.fokker_planck import fokker_planck
from circsde.graph import GraphCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises, WrappedNormal
from circsde.laws.gibbs import MeanFieldGibbs
from circsde.laws.tilted import TiltedVonMises
from circsde.sampling import start_laws
from circsde.schedule import Schedule
from circsde.solvers.likelihood import log_density, log_prob
from circsde.torus import TWO_PI
from strategies import assert_agree, random_angles

ROW = torch.tensor([[0.4, -0.3]], dtype=torch.float64)
COMPLETE = 1.0 - torch.eye(3)


def pairs(points: int = 96) -> Tensor:
    axis = TWO_PI * torch.arange(points, dtype=torch.float64) / points - math.pi
    return torch.cartesian_prod(axis, axis)


def on_a_grid(potential: Tensor) -> Tensor:
    """``log p`` of two angles from ``-U / D`` on all the points of a grid: the trapezoid rule converges spectrally."""
    return potential - potential.logsumexp(0) - 2.0 * math.log(TWO_PI) + math.log(len(potential))


def energy(theta: Tensor, K: float, K_ref: float, psi: Tensor) -> Tensor:
    """``-U / D`` of eq. (3) for two oscillators, written out, with D = 1."""
    return 0.5 * K * (theta[:, 0] - theta[:, 1]).cos() + K_ref * (theta - psi).cos().sum(1)


def test_two_coupled_oscillators_without_attraction_have_a_uniform_marginal_and_the_gibbs_law() -> None:
    """From (0, 0) to (1, -2): the log-density of two oscillators at K = 4 is known in closed form, with I_0(2)."""
    sde = KuramotoSDE((2,), schedule=Schedule.constant(coupling=4.0))
    theta = torch.tensor([[1.0, -2.0], [0.3, 0.3]], dtype=torch.float64)
    exact = (
        2.0 * (theta[:, 0] - theta[:, 1]).cos()
        - 2.0 * math.log(TWO_PI)
        - torch.special.i0(torch.tensor(2.0).double()).log()
    )
    value = log_prob(sde, lambda t, x: sde.drift(t, x), theta).value
    assert_agree(value, exact, 1e-6)
    mean_field = log_density(sde.terminal_law(), theta)
    assert (mean_field - exact).abs().max() > 1.0


@pytest.mark.parametrize("psi", [0.0, 0.7])
@pytest.mark.parametrize(("K", "K_ref"), [(4.0, 1.0), (0.5, 2.0)])
def test_the_law_of_two_oscillators_is_the_gibbs_law_on_a_grid(K: float, K_ref: float, psi: float) -> None:
    law = KuramotoSDE((2,), schedule=Schedule.constant(K, K_ref), reference_phase=psi).settled_law()
    expected = on_a_grid(energy(pairs(), K, K_ref, torch.tensor(psi, dtype=torch.float64)))
    assert_agree(log_density(law, pairs()), expected, 1e-10)


@pytest.mark.parametrize(
    ("coupling", "event", "strength"),
    [
        (GraphCoupling(torch.ones(2, 2), normalise=False), (2,), 4.0),
        (GraphCoupling(COMPLETE), (3,), 3.0),
        (LocalCoupling(1), (3,), 2.0),
        (LocalCoupling(1), (3, 3), 2.0),
        (GlobalCoupling(), (2, 3), 2.0),
    ],
)
def test_couplings_that_join_all_pairs_alike_settle_as_global_coupling_does(
    coupling: Coupling, event: tuple[int, ...], strength: float
) -> None:
    sde = KuramotoSDE(event, coupling, Schedule.constant(2.0, 1.0))
    twin = KuramotoSDE(event, GlobalCoupling(), Schedule.constant(strength, 1.0))
    theta = random_angles(5, *event)
    assert_agree(sde.drift(0.0, theta), twin.drift(0.0, theta))
    law = sde.settled_law()
    assert isinstance(law, MeanFieldGibbs)
    assert_agree(law.log_prob(theta), twin.settled_law().log_prob(theta), 1e-12)
    assert_agree(law.score(theta), sde.drift(0.0, theta), 1e-12)  # D = 1: no current
    assert law.sample((4,), generator=torch.Generator().manual_seed(0)).shape == (4, *event)


@pytest.mark.parametrize(
    "sde",
    [
        KuramotoSDE((2,), NoCoupling(), Schedule.constant(coupling=4.0, reference=1.0)),
        KuramotoSDE((2,), GraphCoupling(torch.zeros(2, 2)), Schedule.constant(coupling=4.0, reference=1.0)),
        KuramotoSDE((2,), GraphCoupling(torch.eye(2)), Schedule.constant(coupling=4.0, reference=1.0)),
        KuramotoSDE((2,), GlobalCoupling(), Schedule.constant(reference=1.0)),
        KuramotoSDE((1,), GlobalCoupling(), Schedule.constant(coupling=4.0, reference=1.0)),
        KuramotoSDE((1,), GraphCoupling(torch.ones(1, 1)), Schedule.constant(coupling=4.0, reference=1.0)),
    ],
)
def test_oscillators_that_feel_no_other_are_independent_von_mises(sde: KuramotoSDE) -> None:
    law = sde.settled_law()
    assert isinstance(law, VonMises)
    assert_agree(law.concentration, torch.ones(sde.event_shape, dtype=torch.float64))
    assert law.sample((7,), generator=torch.Generator().manual_seed(0)).shape == (7, *sde.event_shape)


def test_independent_oscillators_keep_reference_phases_of_their_own() -> None:
    psi, theta = random_angles(2, 3), random_angles(4, 2, 3, seed=1)
    sde = KuramotoSDE((2, 3), NoCoupling(), Schedule.constant(reference=2.0, diffusion=0.5), psi)
    assert_agree(0.5 * sde.settled_law().score(theta), sde.drift(0.0, theta))


def test_independent_oscillators_that_rotate_have_a_tilted_law() -> None:
    """The Fokker-Planck current ``f p - D p'`` of each is constant; that of the von Mises law is not."""
    w = torch.tensor([5.0, -1.0, 0.0])
    sde = KuramotoSDE((3,), NoCoupling(), Schedule.constant(reference=2.0, horizon=4.0), 0.3, w)
    law = sde.settled_law()
    assert isinstance(law, TiltedVonMises)
    theta = torch.linspace(-3.0, 3.0, 7, dtype=torch.float64)[:, None].expand(7, 3)
    current = law.log_prob(theta).exp() * (sde.drift(0.0, theta) - law.score(theta))
    assert (current - current[0]).abs().max() < 1e-12
    assert current[0, 0] > 0.5
    with pytest.raises(ValueError, match="with a natural frequency the law is not von Mises"):
        sde.terminal_law()


@pytest.mark.slow
def test_a_rotating_oscillator_has_the_likelihood_of_its_stationary_law() -> None:
    """From a start that is far from it, too, but for what is left of that by the horizon."""
    sde = KuramotoSDE((1,), NoCoupling(), Schedule.constant(reference=2.0, horizon=4.0), natural_frequency=5.0)
    law = sde.settled_law()
    theta = torch.tensor([[-2.0], [0.0], [1.5]], dtype=torch.float64)
    value = log_prob(sde, lambda t, x: law.score(x), theta, atol=1e-4).value
    assert_agree(value, law.log_prob(theta)[:, 0], 1e-4)
    wrong = log_prob(sde, lambda t, x: law.score(x), theta, prior=VonMises(0.0, 2.0), atol=1e-4).value
    assert (wrong - value).abs().max() > 0.5
    moving = fokker_planck(sde.schedule, WrappedNormal(1.0, 0.4), natural_frequency=5.0, mean_field=False)
    value = log_prob(sde, moving.score, theta, atol=1e-3).value
    assert_agree(value, moving.log_prob(0.0, theta)[:, 0], 0.02)  # e^-4 of the first harmonic is left by the horizon


def test_a_common_rotation_without_attraction_does_not_change_the_law() -> None:
    still, turning = (
        KuramotoSDE((3,), schedule=Schedule.constant(coupling=3.0), natural_frequency=w).settled_law()
        for w in (0.0, 4.0)
    )
    theta = random_angles(4, 3)
    assert_agree(still.log_prob(theta), turning.log_prob(theta))


def test_without_drift_the_law_is_uniform() -> None:
    sde = KuramotoSDE((3,), NoCoupling(), Schedule.constant(coupling=2.0), natural_frequency=1.0)
    assert_agree(
        log_density(sde.settled_law(), random_angles(4, 3)),
        torch.full((4,), -3 * math.log(TWO_PI), dtype=torch.float64),
    )


PSI = torch.tensor([0.0, math.pi], dtype=torch.float64)
UNKNOWN = {
    "window": (KuramotoSDE((8,), LocalCoupling(1), Schedule.constant(4.0, 1.0)), "joins some pairs more than others"),
    "large window": (KuramotoSDE((40, 40), LocalCoupling(3), Schedule.constant(4.0, 1.0)), "not known for 1600"),
    "graph": (
        KuramotoSDE((3,), GraphCoupling(torch.eye(3).roll(1, 0)), Schedule.constant(4.0, 1.0)),
        "joins some pairs more than others",
    ),
    "phases": (KuramotoSDE((2,), GlobalCoupling(), Schedule.constant(4.0, 1.0), PSI), "reference phases of their own"),
    "frequencies": (
        KuramotoSDE((2,), GlobalCoupling(), Schedule.constant(4.0, 1.0), 0.0, torch.tensor([1.0, -1.0])),
        "coupled oscillators with natural frequencies",
    ),
    "frequency": (
        KuramotoSDE((2,), schedule=Schedule.constant(4.0, 1.0), natural_frequency=1.0),
        "natural frequencies",
    ),
    "no noise": (KuramotoSDE((2,), schedule=Schedule.constant(4.0, 1.0, 0.0)), "positive diffusion rate, got D = 0"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_where_the_law_is_not_known_a_prior_is_demanded_by_every_caller(name: str) -> None:
    sde, message = UNKNOWN[name]
    for ask in (
        sde.settled_law,
        lambda: log_prob(sde, sde.drift, torch.zeros(1, *sde.event_shape)),
    ):
        with pytest.raises(ValueError, match=message):
            ask()


def test_phases_of_their_own_have_the_likelihood_of_their_gibbs_law_where_it_is_given() -> None:
    """Stationary with the score ``f / D``: -3.1598 nats, by a sum over a grid; the mean-field law gave -9.5956."""
    sde, _ = UNKNOWN["phases"]
    grid = pairs(128)
    normaliser = energy(grid, 4.0, 1.0, PSI).logsumexp(0) + 2.0 * math.log(TWO_PI / 128)

    class Exact:
        def log_prob(self, value: Tensor) -> Tensor:
            return energy(value, 4.0, 1.0, PSI) - normaliser

    value = log_prob(sde, lambda t, x: sde.drift(0.0, x), ROW, prior=Exact()).value
    assert value.item() == pytest.approx(-3.1598, abs=1e-4)


@pytest.mark.parametrize(
    ("sde", "concentration"),
    [
        (KuramotoSDE((2,), GlobalCoupling(), Schedule.constant(4.0, 1.0)), 4.5241),
        (KuramotoSDE((2,), GraphCoupling(torch.ones(2, 2), normalise=False), Schedule.constant(2.0, 1.0)), 4.5241),
        (KuramotoSDE((2,), GraphCoupling(torch.zeros(2, 2)), Schedule.constant(4.0, 1.0)), 1.0),
    ],
)
def test_the_mean_field_law_counts_the_sums_of_weights(sde: KuramotoSDE, concentration: float) -> None:
    law = sde.terminal_law()
    kappa, K = law.concentration, 4.0 * (concentration > 1.0)
    ratio = torch.special.i1e(kappa) / torch.special.i0e(kappa)
    assert kappa.item() == pytest.approx(concentration, abs=1e-4)
    assert kappa.item() == pytest.approx(K * ratio.item() + 1.0, rel=1e-12)


@pytest.mark.parametrize(
    ("sde", "message"),
    [
        (KuramotoSDE((3,), GraphCoupling(torch.eye(3).roll(1, 0) * torch.tensor([[1.0], [1.0], [0.0]])),
                     Schedule.constant(4.0, 1.0)), "sums of the weights .* go from 0 to 1"),
        (UNKNOWN["phases"][0], "reference phases of their own"),
        (UNKNOWN["frequencies"][0], "natural frequencies"),
    ],
)  # fmt: skip
def test_oscillators_that_are_not_alike_have_no_mean_field_law(sde: KuramotoSDE, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sde.terminal_law()


def test_the_mean_field_law_is_off_by_one_over_n_for_global_coupling_and_by_more_in_a_small_window() -> None:
    """E cos by the Gibbs law; on a ring of 8 that hears its neighbours by the transfer matrix, 0.755 for 0.881."""
    limit = KuramotoSDE((2,), schedule=Schedule.constant(4.0, 1.0)).terminal_law().mean_resultant_length.item()
    errors = [limit - MeanFieldGibbs(n, 4.0, 1.0, 1.0).mean_resultant_length.item() for n in (10, 100, 1000)]
    assert [n * error for n, error in zip((10, 100, 1000), errors, strict=True)] == pytest.approx([0.33] * 3, rel=0.3)
    axis = TWO_PI * torch.arange(256, dtype=torch.float64) / 256
    half = (0.5 * axis.cos()).exp()  # half of the attraction on each side of a bond of strength 2 K / 3
    bond = (4.0 / 3.0 * (axis[:, None] - axis).cos()).exp() * half[:, None] * half
    ring = torch.linalg.matrix_power(bond / 256, 8)
    cosine = (ring.diagonal() * axis.cos()).sum() / ring.diagonal().sum()
    assert cosine.item() == pytest.approx(0.755, abs=5e-4)
    assert limit == pytest.approx(0.881, abs=5e-4)


def test_images_in_a_window_start_from_the_mean_field_law_by_name() -> None:
    sde, _ = UNKNOWN["large window"]
    law = start_laws.settled(sde)
    assert isinstance(law, start_laws.Independent)
    assert law.concentration == pytest.approx(sde.terminal_law().concentration.item())

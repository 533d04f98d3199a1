"""The targets of score matching against exact scores, with twins that fail where a part of the formula is missing."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import jv
from scipy.stats import chi2
from torch import Tensor

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.exact.fokker_planck import fokker_planck
from circsde.exact.fokker_planck_torus import fokker_planck_torus
from circsde.graph import GraphCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import WrappedNormal
from circsde.matching import chain as matching
from circsde.matching import steps
from circsde.matching.chain import (
    Chain,
    Pairs,
    Paths,
    denoising,
    one_step,
    pathwise,
    start,
    step_forward,
    step_with_adjoint,
)
from circsde.matching.jacobian import DriftStep, _dense, drift_step
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.typing import Angles, Time

FALSE_ALARM = 1e-6
"""The probability that a true claim about means fails here, per test, if its seed were drawn anew."""

STRONG = Schedule.published(100, reference_weight=3.0)
START = WrappedNormal(2.0, 0.4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start_from(law: WrappedNormal, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return law.sample(shape, generator=generator(seed)).float()


def errors_are_zero_on_average_everywhere(errors: Tensor, cells: Tensor) -> bool:
    """Whether ``errors`` have mean zero in every cell: a chi-squared test of the z-scores of cells with 100 or more."""
    count = torch.bincount(cells).double()
    mean = torch.bincount(cells, errors.double()) / count
    square = torch.bincount(cells, errors.double().square()) / count
    z = (mean / (square / count).sqrt())[count >= 100]
    return float(z.square().sum()) < chi2.isf(FALSE_ALARM, len(z))


def cells_of(theta: Tensor, per_axis: int) -> Tensor:
    """The cell of a regular grid that each sample of ``(batch, d)`` lies in."""
    index = ((theta + math.pi) * (per_axis / (2 * math.pi))).long().clamp(max=per_axis - 1)
    return (index * per_axis ** torch.arange(theta.shape[1])).sum(1)


def without_volume_correction(sde: SDE, t: Time, h: Time, theta: Angles) -> DriftStep:
    return drift_step(sde, t, h, theta)._replace(log_det_gradient=torch.zeros_like(theta))


def paths_at(chain: Chain, theta0: Tensor, n: int, seed: int = 1) -> Paths:
    paths, draws = start(theta0), generator(seed)
    for _ in range(n):
        paths = step_with_adjoint(chain, paths, draws)
    return paths


@dataclass(frozen=True)
class Case:
    """Pairs at the end of a chain on published rates, and the exact score there."""

    sde: KuramotoSDE
    n_steps: int
    n: int
    score: Callable[[Tensor], Tensor]
    published: bool = False

    def holds(self, paths: int, per_axis: int) -> bool:
        theta0 = start_from(START, (paths, *self.sde.event_shape))
        chain = Chain.uniform(self.sde, self.n_steps, published=self.published).calibrated(theta0[:2000], generator())
        pairs = pathwise(chain, paths_at(chain, theta0, self.n))
        error = pairs.target - self.score(pairs.theta)
        return all(errors_are_zero_on_average_everywhere(e, cells_of(pairs.theta, per_axis)) for e in error.unbind(1))


def scheme_score(chain: Chain, n: int) -> Callable[[Tensor], Tensor]:
    """The exact score of ``n`` Euler-Maruyama steps of ``-K_ref sin theta`` from ``START``, by moments.

    ``E e^{ik F(theta)} = sum_m J_m(k h K_ref) E e^{i(k - m) theta}`` (Jacobi-Anger), then noise of variance v.
    """
    k = np.arange(-96, 97)
    moments = np.exp(1j * k * START.loc.item() - 0.5 * k**2 * START.scale.item() ** 2)
    for i in range(n):
        t, h, v = chain.step(i)
        moments = np.exp(-0.5 * k**2 * v) * (jv(k[:, None] - k, k[:, None] * h * STRONG.reference(t)) @ moments)

    def score(theta: Tensor) -> Tensor:
        waves = np.exp(-1j * np.outer(nodes, k))
        values = (waves @ (-1j * k * moments)).real / (waves @ moments).real
        return torch.from_numpy(np.interp(theta.numpy(), nodes, values))

    nodes: NDArray[np.float64] = np.linspace(-np.pi, np.pi, 1025)
    return score


ALONE = KuramotoSDE((1,), NoCoupling(), STRONG)
PUBLISHED = Chain.uniform(ALONE, 100, published=True)


def scheme_case(n: int) -> Case:
    return Case(ALONE, 100, n, scheme_score(PUBLISHED, n), published=True)


@pytest.mark.parametrize("n", [10, 30, 60])
def test_the_mean_of_a_pathwise_target_is_the_score_of_the_chain_exactly(n: int) -> None:
    assert scheme_case(n).holds(paths=60_000, per_axis=40)


def fokker_planck_case(t: float, *, published: bool = False) -> Case:
    law = fokker_planck(STRONG, START, mean_field=False)
    return Case(ALONE, 60, round(60 * t), lambda theta: law.score(t, theta), published)


@pytest.mark.parametrize("t", [0.1, 0.5, 1.0])
def test_the_mean_of_a_pathwise_target_is_the_score_of_the_fokker_planck_equation(t: float) -> None:
    assert fokker_planck_case(t).holds(paths=40_000, per_axis=40)


@pytest.mark.parametrize("t", [0.5, 1.0])
def test_with_as_many_steps_the_published_chain_has_another_score_than_the_equation(t: float) -> None:
    assert not fokker_planck_case(t, published=True).holds(paths=40_000, per_axis=40)


PAIR = KuramotoSDE((2,), GlobalCoupling(), Schedule.linear((0.5, 0.1, 0.2), (6.0, 1.0, 0.8)), reference_phase=0.4)


def coupled_case() -> Case:
    law = fokker_planck_torus(PAIR.schedule, (START, START), reference_phase=0.4)
    return Case(PAIR, 40, 20, lambda theta: law.score(0.5, theta))


def test_the_mean_of_a_pathwise_target_is_the_score_of_two_coupled_oscillators() -> None:
    assert coupled_case().holds(paths=60_000, per_axis=12)


@pytest.mark.parametrize(
    "case", [partial(scheme_case, 30), partial(scheme_case, 60), partial(fokker_planck_case, 0.5), coupled_case]
)
def test_without_the_gradient_of_the_determinant_the_target_is_biased(
    case: Callable[[], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "drift_step", without_volume_correction)
    assert not case().holds(paths=20_000, per_axis=12)


@pytest.mark.parametrize("draws", [1, 5])
def test_the_mean_of_a_one_step_target_is_the_score_of_the_chain(draws: int) -> None:
    paths = start(start_from(START, (60_000 // draws, 1)))
    for _ in range(29):
        paths = step_forward(PUBLISHED, paths, generator(2 + int(paths.n[0])))
    pairs = one_step(PUBLISHED, paths, draws, generator(1))
    assert set(pairs.t.tolist()) == {PUBLISHED.times[30]}
    error = (pairs.target - scheme_score(PUBLISHED, 30)(pairs.theta[:, 0])[:, None])[:, 0]
    assert errors_are_zero_on_average_everywhere(error, cells_of(pairs.theta, 40))
    assert not errors_are_zero_on_average_everywhere(pairs.target[:, 0], cells_of(pairs.theta, 40))


DIFFUSION = KuramotoSDE((1,), NoCoupling(), Schedule.linear((0.0, 0.0, 0.1), (0.0, 0.0, 2.0)))


@pytest.mark.parametrize("t", [0.02, 0.3, 1.0])
def test_the_mean_of_a_denoising_target_is_the_score_under_pure_diffusion(t: float) -> None:
    theta0 = start_from(START, (100_000, 1)).double()
    pairs = denoising(DIFFUSION, theta0, torch.full((len(theta0),), t).double(), generator(1))
    variance = DIFFUSION.variance(0.0, t)
    assert pairs.variance.tolist() == pytest.approx([variance] * len(theta0))
    error = (pairs.target - WrappedNormal(2.0, math.sqrt(0.16 + variance)).score(pairs.theta))[:, 0]
    assert errors_are_zero_on_average_everywhere(error, cells_of(pairs.theta, 40))
    wrong = (pairs.target - WrappedNormal(2.0, math.sqrt(0.2 + variance)).score(pairs.theta))[:, 0]
    assert not errors_are_zero_on_average_everywhere(wrong, cells_of(pairs.theta, 40))


def test_denoising_a_drifting_process_is_refused() -> None:
    with pytest.raises(ValueError, match="use pathwise pairs"):
        denoising(ALONE, torch.ones(2, 1), torch.tensor([0.5, 0.5]))


def test_a_pathwise_target_varies_less_than_a_one_step_target() -> None:
    """One oscillator, the published rates, twice the attraction; 2e4 paths fix a deviation to about half a percent."""
    paths, chain, draws = start(start_from(START, (20_000, 1))), PUBLISHED, generator(1)
    chain = chain.calibrated(start_from(START, (20_000, 1), seed=3), generator(2))
    deviations = {}
    for n in range(1, 101):
        single = one_step(chain, paths, generator=draws).target.std()
        paths = step_with_adjoint(chain, paths, draws)
        deviations[n] = float(single), float(pathwise(chain, paths).target.std())
    assert [deviations[n][0] for n in (10, 30, 60, 100)] == pytest.approx([10.4, 5.83, 4.10, 3.16], rel=0.02)
    assert [deviations[n][1] for n in (10, 30, 60, 100)] == pytest.approx([4.61, 1.47, 1.11, 1.17], rel=0.02)


@pytest.mark.slow
def test_calibrated_discounts_make_the_mean_square_of_the_target_one_over_its_variance() -> None:
    paths, draws = start(start_from(START, (20_000, 2))), generator(1)
    chain = Chain.uniform(PAIR, 50).calibrated(start_from(START, (20_000, 2), seed=3), generator(2))
    for _ in range(50):
        paths = step_with_adjoint(chain, paths, draws)
        pairs = pathwise(chain, paths)
        assert float(pairs.target.square().mean() * pairs.variance[0]) == pytest.approx(1.0, abs=0.06)
    losses = matching.loss(lambda t, theta: torch.zeros_like(theta), pairs)
    assert float(losses.mean()) == pytest.approx(1.0, abs=0.06)


@pytest.mark.slow
def test_angles_with_noises_of_their_own_have_the_scores_of_their_own_laws() -> None:
    amplitude = torch.tensor([0.4, 1.0])
    sde = SDE(lambda t, theta: -3.0 * theta.sin(), lambda t: amplitude, horizon=0.5)
    theta0 = start_from(START, (40_000, 2))
    chain = Chain.uniform(sde, 100).calibrated(theta0[:2000], generator())
    pairs = pathwise(chain, paths_at(chain, theta0, 100))
    for i, g in enumerate(amplitude.tolist()):
        law = fokker_planck(Schedule.constant(0.0, 3.0, g**2 / 2, horizon=0.5), START, mean_field=False)
        error = pairs.target[:, i] - law.score(0.5, pairs.theta[:, i])
        assert errors_are_zero_on_average_everywhere(error, cells_of(pairs.theta[:, i : i + 1], 20))


def test_each_path_advances_at_its_own_step() -> None:
    chain = Chain.uniform(PAIR, 10).calibrated(torch.ones(64, 2), generator())
    paths = Paths(
        torch.arange(10),
        torch.linspace(-3, 3, 20).reshape(10, 2),
        torch.linspace(1, 2, 20).reshape(10, 2),
        torch.arange(10),
    )
    together = step_with_adjoint(chain, paths, generator(5))
    assert together.n.tolist() == list(range(1, 11))
    for n in range(10):
        alike = step_with_adjoint(chain, paths._replace(n=torch.full((10,), n)), generator(5))
        assert torch.equal(together.theta[n], alike.theta[n])
        assert torch.equal(together.carried[n], alike.carried[n])
    assert together.labels.tolist() == list(range(10))


KURAMOTO = {
    "none": (NoCoupling(), (3,)),
    "global": (GlobalCoupling(), (5,)),
    "global, one": (GlobalCoupling(), (1,)),
    "global, channels": (GlobalCoupling(), (2, 2, 3)),
    "local": (LocalCoupling(1), (4, 5)),
    "local, reflecting": (LocalCoupling(1, "reflecting"), (4, 5)),
}


@pytest.mark.parametrize(("coupling", "shape"), KURAMOTO.values(), ids=KURAMOTO)
def test_the_closed_forms_are_those_of_the_jacobian(coupling: Coupling, shape: tuple[int, ...]) -> None:
    """Exactly, but with a window: there to ``(h K)^3`` and to ``(h K)^2`` over its size."""
    sde = KuramotoSDE(shape, coupling, Schedule.constant(4.0, 2.0, 1.0), reference_phase=0.3, natural_frequency=0.7)
    theta = 6 * torch.rand(4, *shape, dtype=torch.float64, generator=generator())
    v = torch.randn(4, *shape, dtype=torch.float64, generator=generator())
    for h in (0.05, 0.0125):
        t, steps = torch.zeros(4, dtype=torch.float64), torch.linspace(h / 4, h, 4, dtype=torch.float64)
        closed, dense = drift_step(sde, t, steps, theta), _dense(sde, t, steps, theta)
        window = isinstance(coupling, LocalCoupling)
        rounding, hK = 1e-14, h * 4.0
        assert (closed.moved - dense.moved).abs().max() < rounding
        assert (closed.apply(v) - dense.apply(v)).abs().max() < rounding
        assert (closed.solve(v) - dense.solve(v)).abs().max() < (hK**3 * v.abs().max() if window else rounding)
        gap = (closed.log_det_gradient - dense.log_det_gradient).abs().max()
        assert gap < (2.0 * hK**2 / 9 if window else rounding)


def test_a_drift_without_closed_forms_has_the_jacobian_of_its_derivative() -> None:
    """``f = -sin theta - sin 2 theta``: ``M = 1 - h (cos theta + 2 cos 2 theta)`` for each angle."""
    sde = SDE(lambda t, theta: -theta.sin() - (2 * theta).sin(), lambda t: 1.0, horizon=1.0)
    theta, h = torch.linspace(-3, 3, 12, dtype=torch.float64).reshape(6, 2), 0.1
    step, slope = drift_step(sde, 0.0, h, theta), 1 - h * (theta.cos() + 2 * (2 * theta).cos())
    torch.testing.assert_close(step.solve(torch.ones_like(theta)), 1 / slope)
    torch.testing.assert_close(step.apply(torch.ones_like(theta)), slope)
    torch.testing.assert_close(step.log_det_gradient, h * (theta.sin() + 4 * (2 * theta).sin()) / slope)


def test_a_graph_with_one_way_edges_uses_its_true_jacobian() -> None:
    """Oscillator 0 listens to 1, which listens to nobody: ``M_01 = h K cos(theta_1 - theta_0)``, ``M_10 = 0``."""
    graph = GraphCoupling(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    sde = KuramotoSDE((2,), graph, Schedule.constant(2.0, 0.0, 1.0))
    theta, hK = torch.tensor([[0.3, 1.0]], dtype=torch.float64), 0.2
    slope = hK * math.cos(0.7)
    expected = torch.linalg.solve(
        torch.tensor([[1 - slope, slope], [0.0, 1.0]]).double().T, torch.tensor([1.0, 2.0]).double()
    )
    step = drift_step(sde, 0.0, 0.1, theta)
    torch.testing.assert_close(step.solve(torch.tensor([[1.0, 2.0]]).double())[0], expected)


def test_too_many_angles_without_closed_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 256 angles, got 300"):
        drift_step(SDE(lambda t, theta: theta.sin(), lambda t: 1.0, 1.0), 0.0, 0.1, torch.zeros(1, 300))


def test_geometric_steps_multiply_the_noise_variance() -> None:
    chain = Chain.geometric(DIFFUSION, 20, smallest=0.01)
    assert (len(chain), chain.times[0], chain.times[-1]) == (20, 0.0, 1.0)
    ratios = [b / a for a, b in pairwise(chain.variances[1:])]
    assert chain.variances[1] == pytest.approx(1e-4)
    assert ratios == pytest.approx([ratios[0]] * 19, rel=1e-6)
    assert chain.variances[-1] == pytest.approx(DIFFUSION.variance(0.0, 1.0))


@pytest.mark.parametrize("smallest", [0.0, 1.5])
def test_geometric_steps_need_a_noise_between_none_and_all(smallest: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1.44"):
        Chain.geometric(DIFFUSION, 20, smallest)


def test_the_loss_weighs_the_squared_error_by_the_noise_variance() -> None:
    pairs = Pairs(
        torch.zeros(2),
        torch.zeros(2, 2),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        torch.tensor([2.0, 0.5]),
        torch.tensor([-1, -1]),
    )
    losses = matching.loss(lambda t, theta: torch.ones_like(theta), pairs)
    assert losses.tolist() == [2.0 * (0 + 1) / 2, 0.5 * (4 + 9) / 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pairs_follow_the_dtype_of_the_angles_and_leave_them_alone(dtype: torch.dtype) -> None:
    theta0 = torch.ones(3, 2, dtype=dtype)
    pairs = pathwise(Chain.uniform(PAIR, 4), step_with_adjoint(Chain.uniform(PAIR, 4), start(theta0), generator()))
    assert pairs.theta.dtype == pairs.target.dtype == dtype
    assert torch.equal(theta0, torch.ones(3, 2, dtype=dtype))

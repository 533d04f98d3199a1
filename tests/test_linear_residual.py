"""A score with a measured linear part: it is the score where that is linear, and what is left does not follow it."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import scipy.fft
import scipy.special
import torch
from torch import Tensor

from circsde.coupling import GlobalCoupling, LocalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises
from circsde.matching.chain import Chain, pathwise, start, step_with_adjoint
from circsde.models.linear_residual import LinearResidual, cosines
from circsde.models.loop import BEST, LAST
from circsde.models.settings import Settings
from circsde.models.training import train, trained
from circsde.models.transitions import DataSampler, Objective
from circsde.models.unet import ScoreUNet
from circsde.models.variance_preserving import VariancePreserving
from circsde.schedule import Schedule
from circsde.streams import torch_stream
from circsde.torus import wrap
from circsde.typing import Angles, Labels

SHAPE = (8, 8)
PATHS = 4096
"""The number of paths that :meth:`LinearResidual.fit` follows at this size."""


def wiener(sde: KuramotoSDE, steps: int, shape: tuple[int, ...] = SHAPE) -> LinearResidual:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LinearResidual(
            ScoreUNet(shape, sde.schedule.diffusion, width=8, multipliers=(1, 2), attention=()), sde, steps
        )


def calibrated(sde: KuramotoSDE, starts: DataSampler, steps: int) -> Chain:
    generator = torch.Generator().manual_seed(0)
    return Chain.uniform(sde, steps).calibrated(starts(1024, generator), generator)


def fitted(sde: KuramotoSDE, starts: DataSampler, steps: int) -> tuple[LinearResidual, Chain]:
    chain, score = calibrated(sde, starts, steps), wiener(sde, steps, tuple(sde.event_shape))
    score.fit(chain, starts, torch.Generator().manual_seed(1))
    return score.double(), chain


@dataclass(frozen=True)
class Shaded:
    """Normal images about ``psi``: the first waves of each row and column are stronger, all are small."""

    psi: float = 0.0
    dtype: torch.dtype = torch.float64
    digest: str = "shades"

    @property
    def variances(self) -> Tensor:
        k = torch.arange(8.0, dtype=torch.float64)
        return 4e-4 / (1.0 + k[:, None] ** 2 + k**2)

    def __call__(self, count: int, generator: torch.Generator) -> Angles:
        waves = torch.randn(count, *SHAPE, dtype=torch.float64, generator=generator) * self.variances.sqrt()
        waves[:, 0, 0] += 0.08  # a mean brightness of 0.01
        C = cosines(8)
        return (self.psi + C.mT @ waves @ C).to(self.dtype)


@pytest.mark.parametrize("n", [1, 2, 8, 9])
def test_the_transform_is_the_cosine_transform_of_scipy(n: int) -> None:
    torch.testing.assert_close(
        cosines(n), torch.from_numpy(scipy.fft.dct(torch.eye(n).double().numpy(), axis=0, norm="ortho"))
    )
    i = torch.arange(n, dtype=torch.float64)
    waves = (math.pi / n * i[:, None] * (i + 0.5)).cos()
    torch.testing.assert_close(cosines(n), waves / waves.norm(dim=1, keepdim=True))
    torch.testing.assert_close(cosines(n) @ cosines(n).mT, torch.eye(n, dtype=torch.float64))


@pytest.mark.parametrize("psi", [0.0, 2.5])
def test_of_data_that_have_settled_it_is_the_score_of_their_law(psi: float) -> None:
    """Slopes are minus the concentration: their mean over 64 waves, to 4 standard errors at each of 8 times."""
    concentration, steps = 4.0, 8
    sde = KuramotoSDE(SHAPE, NoCoupling(), Schedule.constant(0.0, 2.0, 2.0 / concentration, 0.4), psi)
    law = VonMises(torch.full(SHAPE, psi, dtype=torch.float64), torch.full(SHAPE, concentration, dtype=torch.float64))
    score, chain = fitted(sde, lambda count, generator: law.sample((count,), generator=generator), steps)
    mean_square = float(scipy.special.ive(1, concentration) / scipy.special.ive(0, concentration)) / concentration
    for slope, S in zip(score.slope, chain.variances[1:], strict=True):
        error = math.sqrt(1.0 / S / mean_square / (PATHS * 64))  # E target^2 is about 1 / S
        assert abs(float(slope.mean()) + concentration) < 4 * error
    theta = 6.0 * torch.rand(5, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    part = 1.0 - math.exp(2.0 * float(score.log_alpha[-1]))
    assert 0.2 < part < 0.9
    assert (score(0.4, theta) / law.score(theta) / part - 1.0).median().abs() < 0.1


@pytest.mark.parametrize("psi", [0.0, -2.0])
def test_of_small_normal_images_it_is_the_score_of_their_linear_equation(psi: float) -> None:
    """Slopes are ``-1 / (alpha^2 c_k + sigma^2)``, c_k the variance of a wave: 64 z-scores at each of 3 times.

    Their rms has a 1 in 1e6 quantile of 1.5. Phases stay within 0.15 rad, where the sine is linear to 0.4 %, and steps
    of the second order are right to 0.1 %, so 0.5 % is granted on top.
    """
    steps, concentration, data = 16, 4000.0, Shaded(psi)
    sde = KuramotoSDE(SHAPE, NoCoupling(), Schedule.constant(0.0, 2.0, 2.0 / concentration, 0.5), psi)
    score, _ = fitted(sde, data, steps)
    for n in (3, 8, 15):
        left = math.exp(-4.0 * float(score.times[n]))  # alpha^2
        noise = (1.0 - left) / concentration
        total = left * data.variances + noise
        error = (left * data.variances / noise / PATHS).sqrt() + 0.005  # of a slope, relative: E target^2 is 1 / noise
        assert ((-score.slope[n] * total - 1.0) / error).square().mean().sqrt() < 1.5
        mean_error = 4.0 * (1.0 / noise / PATHS) ** 0.5 + 0.005 * 0.08 / noise
        assert abs(float(score.constant[n, 0, 1]) - 0.08 * math.sqrt(left) / float(total[0, 0])) < mean_error
    assert score.slope[3].max() / score.slope[3].min() < 0.5  # where data vary more they are pulled less


@dataclass(frozen=True)
class Two:
    """Data of two classes, bright and dark, the first three times as often: :class:`Shaded` images with a shift."""

    classes: tuple[str, ...] = ("bright", "dark")
    shifts: tuple[float, float] = (0.1, -0.3)

    def labelled(self, count: int, generator: torch.Generator) -> tuple[Angles, Labels]:
        labels = (torch.rand(count, generator=generator) < 0.25).long()
        shift = torch.tensor(self.shifts, dtype=torch.float64)[labels] / 8.0  # a constant wave of that size
        return Shaded()(count, generator) + shift[:, None, None], labels

    def __call__(self, count: int, generator: torch.Generator) -> Angles:
        return self.labelled(count, generator)[0]


@pytest.mark.slow
def test_of_classes_it_is_the_line_of_each_and_without_one_that_of_all() -> None:
    """Of the constant wave, as above; the line of all, about the mean of all, has the variance between classes, too.

    Of N paths a slope is known to ``(alpha^2 c / sigma^2 / N)^{1/2}`` of its size, where ``c`` is the variance of data
    about the line. 9 slopes and 9 offsets up to 4.9 standard errors: a false alarm in 5e4 seeds.
    """
    steps, concentration, data = 16, 4000.0, Two()
    sde = KuramotoSDE(SHAPE, NoCoupling(), Schedule.constant(0.0, 2.0, 2.0 / concentration, 0.5))
    chain = calibrated(sde, data, steps)
    network = ScoreUNet(SHAPE, sde.schedule.diffusion, width=8, multipliers=(1, 2), attention=(), classes=2)
    score = LinearResidual(network, sde, steps)
    score.fit(chain, data, torch.Generator().manual_seed(1))
    alone = float(Shaded().variances[0, 0])
    bright, dark = (0.08 + shift for shift in data.shifts)
    between = 0.75 * 0.25 * (bright - dark) ** 2
    for n in (3, 8, 15):
        left = math.exp(-4.0 * float(score.times[n]))
        noise = (1.0 - left) / concentration
        for row, mean, variance, paths in (
            (0, bright, alone, 0.75 * PATHS),
            (1, dark, alone, 0.25 * PATHS),
            (-1, 0.75 * bright + 0.25 * dark, alone + between, PATHS),
        ):
            slope, offset = score.constant[n, row].tolist()
            total = left * variance + noise
            error = 4.9 * math.sqrt(left * variance / noise / PATHS) + 0.005
            assert -slope * total == pytest.approx(1.0, abs=error)
            level = math.sqrt(left) * mean
            rest = 4.9 * math.sqrt(left * variance / noise * total / paths)
            assert offset * total == pytest.approx(level, abs=rest + error * abs(level))
        assert score.constant[n, -1, 0] / score.constant[n, 0, 0] < 0.5


def test_a_class_that_no_path_shows_has_the_line_of_all() -> None:
    data = Two(classes=("bright", "dark", "unseen"))
    sde = KuramotoSDE(SHAPE, NoCoupling(), Schedule.settling())
    network = ScoreUNet(SHAPE, sde.schedule.diffusion, width=8, multipliers=(1, 2), attention=(), classes=3)
    score = LinearResidual(network, sde, 4)
    score.fit(calibrated(sde, data, 4), data, torch.Generator().manual_seed(1))
    assert torch.equal(score.constant[:, 2], score.constant[:, -1])
    assert (score.constant[:, 0, 1] - score.constant[:, -1, 1]).abs().min() > 1e-2
    theta, t = torch.randn(3, *SHAPE), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    labels = torch.tensor([1, 2, -1])
    together = score(t, theta, labels)
    for i in range(3):
        torch.testing.assert_close(score(t[i : i + 1], theta[i : i + 1], labels[i : i + 1])[0], together[i])
    torch.testing.assert_close(score(t, theta)[1:], together[1:])  # before training the network answers nothing


@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(1)])
@pytest.mark.slow
def test_what_is_left_of_targets_follows_no_wave(coupling: GlobalCoupling | LocalCoupling) -> None:
    """By z-score of each wave, on targets that the fit never saw: their rms has a 1 in 1e6 quantile of 1.5.

    The fit has an error of its own, as large as that of these as many pairs.
    """
    sde = KuramotoSDE(SHAPE, coupling, Schedule.constant(1.0, 2.0, 0.3, 0.8))

    def data(count: int, generator: torch.Generator) -> Angles:
        return 10.0 * Shaded()(count, generator)

    score, chain = fitted(sde, data, 8)
    generator, count = torch.Generator().manual_seed(5), 4096
    paths = start(data(count, generator))
    for _ in range(4):
        paths = step_with_adjoint(chain, paths, generator)
    pairs, C = pathwise(chain, paths), cosines(8)

    def follows(answer: Angles) -> float:
        x, y = (C @ z @ C.mT for z in (pairs.theta.sin(), pairs.target - answer))
        z = (x * y).mean(0) / ((x * y).std(0) / math.sqrt(count))
        return float(z[1:, 1:].square().mean().sqrt())

    with torch.no_grad():
        linear = score(pairs.t, pairs.theta) / (1.0 - math.exp(2.0 * float(score.log_alpha[3])))
        assert follows(linear) < 1.5 * math.sqrt(2.0)
        assert follows(0.9 * linear) > 3.0


@pytest.mark.slow
def test_it_is_periodic_and_interpolates_between_times_of_the_chain() -> None:
    sde = KuramotoSDE((2, *SHAPE), LocalCoupling(1), Schedule.settling())
    score, chain = fitted(sde, lambda count, g: 0.5 * torch.randn(count, 2, *SHAPE, generator=g).double(), 4)
    theta = 4.0 * torch.randn(3, 2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    at = [score(t, theta) for t in chain.times]
    torch.testing.assert_close(score(0.3, wrap(theta + 2.0 * math.pi)), score(0.3, theta))
    each = score(torch.tensor(chain.times[1:4], dtype=torch.float64), theta)
    torch.testing.assert_close(each, torch.stack([at[i + 1][i] for i in range(3)]))
    assert torch.equal(at[0], at[1])  # nothing was learnt before the first step
    between = score(0.625, theta)
    assert max((between - at[2]).norm(), (between - at[3]).norm()) < 0.9 * (at[2] - at[3]).norm()


def test_mixed_precision_is_for_the_network_only() -> None:
    sde = KuramotoSDE(SHAPE, LocalCoupling(1), Schedule.settling())
    score, _ = fitted(sde, Shaded(), 4)
    theta = Shaded()(4, torch.Generator().manual_seed(3)).float()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = score.float()(0.5, theta)  # the network is silent yet
    assert torch.equal(mixed, score(0.5, theta))


@pytest.mark.slow
def test_the_network_answers_the_rest_in_units_of_what_is_left_of_the_data() -> None:
    sde = KuramotoSDE(SHAPE, LocalCoupling(1), Schedule.settling())
    score, chain = fitted(sde, Shaded(), 6)
    theta = Shaded()(4, torch.Generator().manual_seed(3))
    before = score(chain.times[4], theta)
    torch.nn.init.normal_(score.network.network.leave.weight)
    assert chain.discounts is not None
    sigma, alpha = math.sqrt(chain.variances[4]), math.sqrt(math.prod(chain.discounts[:4]))
    answer = score.network.answer(torch.tensor([[math.log(sigma / alpha)]], dtype=torch.float64), theta)
    torch.testing.assert_close(score(chain.times[4], theta) - before, alpha / sigma * answer)
    assert answer.abs().max() > 0.1


@pytest.mark.slow
def test_training_measures_it_keeps_it_and_goes_on(tmp_path: Path) -> None:
    sde = KuramotoSDE(SHAPE, LocalCoupling(1), Schedule.settling())
    chain, settings, data = Chain.uniform(sde, 4), Settings(2, 3, 8, warmup=2), Shaded(dtype=torch.float32)

    def run() -> None:
        network = wiener(sde, 4)
        train(network, chain, Objective.PATHWISE, data, data, tmp_path / "run", settings, accelerator="cpu")

    run()
    model = trained(tmp_path / "run")
    assert isinstance(model.network, LinearResidual)
    assert model.network.slope.max() < 0.0
    measured = wiener(sde, 4)
    measured.fit(model.chain, data, torch_stream(settings.seed, "linear part"))
    assert torch.equal(measured.slope, model.network.slope)
    before = {name: (tmp_path / "run" / name).read_bytes() for name in (LAST, BEST)}
    run()  # nothing is left to do, and nothing is measured again
    assert {name: (tmp_path / "run" / name).read_bytes() for name in (LAST, BEST)} == before


def test_a_process_without_a_chain_is_refused(tmp_path: Path) -> None:
    sde, standard = KuramotoSDE(SHAPE, NoCoupling(), Schedule.settling()), VariancePreserving(SHAPE)
    with pytest.raises(ValueError, match="is measured along a chain"):
        train(wiener(sde, 4), standard, Objective.DENOISING, Shaded(), Shaded(), tmp_path, Settings(1, 1, 4))


def test_a_chain_that_does_not_fit_is_refused() -> None:
    sde = KuramotoSDE(SHAPE, NoCoupling(), Schedule.settling())
    chain = Chain.uniform(sde, 4)
    with pytest.raises(ValueError, match="calibrated chain of 4 steps, got 4 steps and discounts=None"):
        wiener(sde, 4).fit(chain, Shaded(), torch.Generator())
    with pytest.raises(ValueError, match="of 5 steps, got 4"):
        wiener(sde, 5).fit(replace(chain, discounts=(1.0,) * 4), Shaded(), torch.Generator())

"""Methods made from methods: what Langevin steps leave as it is and what they mend, known angles, the last step."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from circsde.coupling import NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises, WrappedNormal
from circsde.laws.mixture import WrappedNormalMixture
from circsde.models.analytic import DiffusedMixtureScore, VonMisesScore, zero
from circsde.sampling.mismatch import kuiper, kuiper_p_value
from circsde.schedule import Linear, Schedule
from circsde.sde import reverse
from circsde.solvers.brownian import Noise
from circsde.solvers.correctors import clamped, denoised, langevin
from circsde.solvers.integrate import sdeint
from circsde.solvers.methods import HEUN, METHODS, Method
from circsde.torus import wrap
from circsde.typing import Angles, Field, Tangent, Time
from strategies import recorded

STILL = Method("still", lambda sde, t, h, theta, noise: theta, None, 0.0, 0.0, nfe=0)
KAPPA = 2.0
STATIONARY = KuramotoSDE((50,), NoCoupling(), Schedule.constant(reference=KAPPA, diffusion=1.0, horizon=2.0))
MIXTURE = WrappedNormalMixture((0.6, 0.4), (-1.5, 1.2), (0.3, 0.5))
DIFFUSION = Linear(0.02, 6.0)
PURE = KuramotoSDE((50,), NoCoupling(), Schedule(Linear(0.0, 0.0), Linear(0.0, 0.0), DIFFUSION))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def p_value(a: Tensor, b: Tensor) -> float:
    return kuiper_p_value(kuiper(a.flatten(), b.flatten()).item(), a.numel(), b.numel())


def corrected(start: Angles, ratio: float, score: Field, noise: float = 1.0) -> Tensor:
    """After 40 Langevin steps and nothing else, at times where the noise variance is above 1."""
    path = recorded(tuple(start.shape), 40).map(lambda x: noise * x)
    sde = reverse(STATIONARY, score)
    return sdeint(sde, start, (0.0, 1.0), n_steps=40, method=langevin(STILL, ratio), brownian=path).theta[-1]


def law(count: int, seed: int) -> Tensor:
    return VonMises(0.0, KAPPA).sample((count, 50), generator=generator(seed))


@pytest.mark.parametrize(("seed", "ratio"), [(1, 0.1), (2, 0.2)])
def test_langevin_steps_leave_the_law_of_the_score_as_it_is(seed: int, ratio: float) -> None:
    """10000 angles against as many fresh ones: a false alarm with probability 1e-3; the bias is out of sight.

    With the sign of the score wrong, or noise a quarter too large or too small, the test finds the difference.
    """
    start, fresh, score = law(200, seed), law(200, seed + 100), VonMisesScore(0.0, KAPPA)
    assert p_value(corrected(start, ratio, score), fresh) > 1e-3
    assert p_value(corrected(start, ratio, lambda t, theta: -score(t, theta)), fresh) < 1e-6
    assert p_value(corrected(start, ratio, score, noise=1.25), fresh) < 1e-6
    assert p_value(corrected(start, ratio, score, noise=0.75), fresh) < 1e-6


def test_langevin_steps_lead_to_the_law_of_the_score() -> None:
    """Kuiper's distance of 10000 angles, of which chance makes 0.02, falls from that of the uniform law."""
    uniform = 2 * torch.pi * torch.rand(200, 50, dtype=torch.float64, generator=generator()) - torch.pi
    assert kuiper(uniform.flatten(), law(200, 1).flatten()) > 0.3
    led = corrected(uniform, 0.2, VonMisesScore(0.0, KAPPA))
    assert kuiper(led.flatten(), law(200, 1).flatten()) < 0.05


def test_the_noise_of_a_langevin_step_is_new_and_of_the_stated_variance() -> None:
    """Where nothing else moves: variance ``4 r^2`` at a capped noise variance, no correlation with dW; 4.5 sigma."""
    path = recorded((400, 50), 1)
    start = torch.zeros(400, 50, dtype=torch.float64)
    method = langevin(STILL, 0.1)
    moved = sdeint(reverse(STATIONARY, zero), start, (0.0, 1.0), n_steps=1, method=method, brownian=path).theta[-1]
    dW = path.noises[0].dW
    n = moved.numel()
    assert abs(moved.var().item() / 0.04 - 1.0) < 4.5 * (2 / n) ** 0.5
    assert abs(torch.corrcoef(torch.stack((moved.flatten(), dW.flatten())))[0, 1].item()) < 4.5 / n**0.5


def reversed_samples(method: str | Method, n_steps: int) -> Tensor:
    """Data from the exact score of a mixture, from a start that is nearly uniform."""
    score = DiffusedMixtureScore(MIXTURE, DIFFUSION)
    start = MIXTURE.diffused(PURE.schedule.diffusion.integral(0.0, 2.0)).sample((400, 50), generator())
    times = [1.0 - (1.0 - i / n_steps) ** 2 for i in range(n_steps + 1)]
    return sdeint(reverse(PURE, score), start, (0.0, 1.0), grid=times, method=method, generator=1).theta[-1]


def test_langevin_steps_mend_a_coarse_predictor() -> None:
    """Kuiper's distance of 20000 angles of Euler-Maruyama in 8 steps falls by a sixth or more; chance makes 0.02."""
    data = MIXTURE.sample((400, 50), generator(9))
    methods = ("euler_maruyama", langevin("euler_maruyama", 0.4))
    plain, mended = (kuiper(reversed_samples(method, 8).flatten(), data.flatten()) for method in methods)
    assert plain > 0.05
    assert mended < plain / 1.2


class Counting:
    """A score that counts how often it is asked, and at which times."""

    periodic = True  # so that no check calls it

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, t: Time, theta: Angles) -> Tangent:
        self.times.append(float(t))
        return -theta.sin()


@pytest.mark.parametrize("name", ["euler_maruyama", "heun", "mobius_strang"])
def test_evaluations_are_counted_and_the_start_of_each_step_is_corrected(name: str) -> None:
    """Never at time 0, where a score may not exist, unless the method itself asks there."""
    score = Counting()
    sde = reverse(STATIONARY, score)
    solution = sdeint(sde, torch.zeros(2, 50), (0.0, 2.0), n_steps=5, method=langevin(name, 0.2), generator=0)
    assert solution.stats.nfe == len(score.times) == 5 * (METHODS[name].nfe + 1)
    assert max(score.times) == 2.0
    assert (min(score.times) > 0) == (name == "euler_maruyama")


def test_coupled_methods_with_langevin_steps_claim_their_coupled_evaluations_too() -> None:
    method = langevin("mobius_strang", 0.2)
    assert method.evaluations(KuramotoSDE((3,))) == METHODS["mobius_strang"].evaluations(KuramotoSDE((3,))) + 1


def test_a_sample_does_not_depend_on_its_batch() -> None:
    sde = reverse(STATIONARY, VonMisesScore(0.0, KAPPA))
    start = law(5, 0)
    options = {"n_steps": 6, "method": langevin("heun", 0.3), "generator": 3}
    together = sdeint(sde, start, (0.0, 2.0), **options).theta[-1]  # type: ignore[arg-type]
    alone = sdeint(sde, start[3:], (0.0, 2.0), first_sample=3, **options).theta[-1]  # type: ignore[arg-type]
    assert torch.equal(together[3:], alone)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: langevin("sra1", 0.2), ValueError, "sra1 reads dZ"),
        (lambda: langevin("heun", 0.0), ValueError, "must be positive, got 0.0"),
        (
            lambda: sdeint(STATIONARY, law(2, 0), (0.0, 1.0), n_steps=2, method=langevin("heun", 0.2)),
            TypeError,
            "needs the score of a reversed equation, got KuramotoSDE",
        ),
    ],
)
def test_what_a_langevin_step_lacks_is_said(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("name", ["heun", "leimkuhler_matthews"])
def test_clamped_angles_follow_their_path_and_the_others_the_method(name: str) -> None:
    """The others, where independent, as if nothing were known."""
    known = torch.arange(50) < 20
    start = law(3, 0)
    sde = reverse(STATIONARY, VonMisesScore(0.0, KAPPA))
    options = {"n_steps": 4, "generator": 0}
    times = torch.linspace(0.0, 2.0, 5)
    method = clamped(name, known, lambda s: torch.full((3, 50), s, dtype=torch.float64))
    held = sdeint(sde, start, times, method=method, **options)  # type: ignore[arg-type]
    free = sdeint(sde, start, times, method=name, **options)  # type: ignore[arg-type]
    assert torch.allclose(held.theta[1:, :, known], times[1:, None, None].double().expand(4, 3, 20), atol=1e-12)
    assert torch.equal(held.theta[:, :, ~known], free.theta[:, :, ~known])


def test_what_is_made_of_a_method_claims_no_order_but_its_evaluations() -> None:
    for made in (langevin(HEUN, 0.2), clamped(HEUN, torch.ones(50, dtype=torch.bool), lambda s: torch.zeros(1, 50))):
        assert (made.strong_order, made.weak_order, made.invariant_order) == (None, 0.0, 0.0)
    assert clamped(HEUN, torch.ones(50, dtype=torch.bool), lambda s: torch.zeros(1, 50)).nfe == HEUN.nfe


def test_the_last_step_without_noise_is_the_mean_given_the_state() -> None:
    """Normal data on a small arc, mean m, variance s^2: the mean given theta is ``m + s^2 / (s^2 + v) (theta - m)``."""
    theta = 0.3 + 0.2 * torch.randn(4, 50, dtype=torch.float64, generator=generator())
    law = WrappedNormal(0.3, (0.02 + 0.01) ** 0.5)
    small = KuramotoSDE((50,), NoCoupling(), Schedule.constant(diffusion=0.01, horizon=2.0))
    mean = denoised(small, lambda t, x: law.score(x), 0.5, theta)
    assert torch.allclose(mean, 0.3 + 2 / 3 * (theta - 0.3), atol=1e-9)


def test_the_last_step_without_noise_goes_back_along_the_drift() -> None:
    """To first order in its length: the error falls by four when it is halved."""
    data = law(4, 0)
    errors = []
    for t in (0.02, 0.01):
        quiet = KuramotoSDE((50,), NoCoupling(), Schedule.constant(reference=3.0, diffusion=0.0, horizon=2.0))
        forward = sdeint(quiet, data, (0.0, t), n_steps=50, generator=0).theta[-1]
        errors.append(wrap(denoised(quiet, zero, t, forward) - data).abs().max().item())
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)
    assert errors[0] < 0.01


def test_noise_without_areas_is_refused_by_the_loop() -> None:
    sde = reverse(STATIONARY, VonMisesScore(0.0, KAPPA))
    path = recorded((2, 50), 4).without_areas()
    with pytest.raises(ValueError, match="which this Brownian path does not have"):
        sdeint(sde, law(2, 0), (0.0, 1.0), n_steps=4, method=langevin("heun", 0.2), brownian=path)
    assert Noise(path.noises[0].dW).dZ is None

"""Signal and noise of waves: simulated paths of small phases have them, and a chain of equal information is even."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from circsde.coupling import GlobalCoupling, LocalCoupling, NoCoupling
from circsde.graph import GraphCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.solvers.integrate import sdeint
from circsde.studies.waves import equal_information, waves
from circsde.torus import TWO_PI

RATES = Schedule.linear((1.0, 0.1, 0.002), (9.0, 2.0, 0.01))
COUPLINGS = {
    "none": NoCoupling(),
    "global": GlobalCoupling(),
    "periodic": LocalCoupling(1),
    "reflecting": LocalCoupling(1, "reflecting"),
}


def shaded(count: int, shape: tuple[int, ...], scale: float = 0.02) -> torch.Tensor:
    """Small phases, stronger in the first row of pixels."""
    theta = scale * torch.randn(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    theta[:, 0] *= 3.0
    return theta


@pytest.mark.parametrize("name", COUPLINGS)
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 4)])
def test_simulated_waves_have_the_variance_of_their_signal_and_noise(name: str, shape: tuple[int, ...]) -> None:
    coupling = COUPLINGS[name]
    psi, count = 2.0, 4000
    sde = KuramotoSDE(shape, coupling, RATES, reference_phase=psi)
    theta = psi + shaded(count, shape)
    found = waves(sde, theta, [0.3, 1.0])
    path = sdeint(sde, theta, [0.0, 0.3, 1.0], method="heun", n_steps=200, generator=3)
    later = waves(sde, path.theta[2], [1.0])  # whose signal at time 1 is the variance then times e^{-2a}
    variance = later["signal"].sel(time=1.0) * np.exp(2.0 * later["decay"].sel(time=1.0))
    ratio = variance / (found["signal"] + found["noise"]).sel(time=1.0)
    # e^{-a} x(0) is the sample's own, so that only the noise and its product with the signal vary: within a chi-square
    level = 1e-3 / ratio.size
    low, high = (chi2.ppf(p, count - 1) / (count - 1) for p in (0.5 * level, 1.0 - 0.5 * level))
    assert bool(((ratio > low) & (ratio < high)).all()), ratio.values


def test_without_coupling_all_waves_are_an_ornstein_uhlenbeck_process() -> None:
    sde = KuramotoSDE((4, 4), NoCoupling(), Schedule.constant(reference=1.5, diffusion=0.2))
    found = waves(sde, shaded(20, (4, 4)), [0.25, 1.0])
    for time in (0.25, 1.0):
        here = found.sel(time=time)
        assert np.allclose(here["decay"], 1.5 * time, rtol=1e-12)
        assert np.allclose(here["noise"], 0.2 / 1.5 * -math.expm1(-3.0 * time), rtol=1e-10)


def test_local_coupling_is_a_diffusion_of_phases_for_long_waves() -> None:
    radius, side = 2, 64
    sde = KuramotoSDE((side,), LocalCoupling(radius), Schedule.constant(coupling=1.0, diffusion=0.1))
    decay = waves(sde, shaded(3, (side,)), [1.0])["decay"].sel(time=1.0, wave=1).item()
    spread = radius * (radius + 1) / 3.0  # the mean square of the offsets in a window
    k = TWO_PI / side
    assert decay == pytest.approx(0.5 * spread * k**2, rel=spread * k**2)


def test_steps_of_equal_information() -> None:
    sde, theta = KuramotoSDE((8, 8), LocalCoupling(2), Schedule.settling(0.25, 7.0)), shaded(50, (8, 8), 0.3)
    times = equal_information(sde, theta, 12, 0.02)
    assert len(times) == 13
    assert (times[0], times[-1]) == (0.0, 1.0)
    assert float(sde.variance(0.0, times[1])) ** 0.5 == pytest.approx(0.02, rel=1e-9)
    lost = -np.diff(waves(sde, theta, times[1:])["information"])
    assert np.allclose(lost, lost.mean(), rtol=0.05)
    even = -np.diff(waves(sde, theta, np.linspace(times[1], 1.0, 12).tolist())["information"])
    assert even.max() > 3.0 * lost.max()  # equal times lose most of it in their first steps


LINE = np.diag(np.ones(3), 1) + np.diag(np.ones(3), -1)


@pytest.mark.parametrize(
    ("sde", "times", "match"),
    [
        (KuramotoSDE((4,), GlobalCoupling(lag=0.1)), [1.0], "without lag"),
        (KuramotoSDE((4,), natural_frequency=1.0), [1.0], "natural frequencies"),
        (KuramotoSDE((4,), GraphCoupling(LINE)), [1.0], "GraphCoupling of a wave is no multiple"),
        (KuramotoSDE((5,)), [1.0], "data must be of shape"),
        (KuramotoSDE((4,)), [0.0, 1.0], "times must increase within"),
        (KuramotoSDE((4,)), [0.5, 0.5], "times must increase within"),
    ],
)
def test_what_has_no_waves_is_refused(sde: KuramotoSDE, times: list[float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        waves(sde, torch.zeros(3, 4), times)


def test_too_few_steps_of_equal_information_are_refused() -> None:
    sde = KuramotoSDE((4,), NoCoupling())
    with pytest.raises(ValueError, match="at least 2 steps"):
        equal_information(sde, torch.zeros(3, 4), 1)

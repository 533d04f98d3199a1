r"""Averages over time in place of expectations under the stationary law, with intervals.

An average over a long path has the variance ``2 tau Var f / T``, with the integrated autocorrelation time tau. Both
are estimated at once by the spread of means over batches of consecutive times, long against tau. With a step h another
law is stationary, off by ``c h^p``: the same Brownian path is followed with twice as many steps, and Romberg's weights
remove that.

Sources: Asmussen and Glynn 2007, doi:10.1007/978-0-387-69033-9 (batch means); Talay and Tubaro 1990,
doi:10.1080/07362999008809220 (Romberg).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from circsde.contracts import SampledLaw
from circsde.noise import wiener_shape
from circsde.sde import SDE
from circsde.solvers.brownian import Brownian
from circsde.solvers.grid import step_grid
from circsde.solvers.integrate import sdeint
from circsde.solvers.methods import Method
from circsde.solvers.precision import field_dtype
from circsde.solvers.registry import find_method
from circsde.streams import key, torch_stream
from circsde.studies.experiment import Simulation
from circsde.studies.statistics import Array, quantile
from circsde.typing import Angles, PerSample

_BATCHES = 16  # batches of each path
_LOOKS = 16  # evaluations of f in a batch
_CHANCE = 1e-4  # the probability that a check refuses paths that are long enough


@dataclass(frozen=True)
class ErgodicAverage:
    """An average under the stationary law, with an interval that covers sampling and discretisation.

    Attributes:
        value: The estimate.
        half_width: Half the width of the interval, which covers sampling and ``bias``.
        standard_error: The standard error of the value, by batch means.
        bias: What the step may have left, by the change that halving it made.
        autocorrelation_time: The integrated one of ``f``, in units of time.
        confidence: The confidence level of the interval.
        method: The method.
        nfe: Evaluations of the drift of one sample, in all.
    """

    value: float
    half_width: float
    standard_error: float
    bias: float
    autocorrelation_time: float
    confidence: float
    method: str
    nfe: int

    @property
    def interval(self) -> tuple[float, float]:
        """``value`` less and plus ``half_width``."""
        return self.value - self.half_width, self.value + self.half_width


@torch.no_grad()
def ergodic_average(
    sde: SDE,
    f: Callable[[Angles], PerSample],
    start: Callable[[int, torch.Generator], Angles] | SampledLaw | tuple[SampledLaw, ...],
    *,
    n_steps: int,
    paths: int = 8,
    settling: float = 0.2,
    method: str | Method = "leimkuhler_matthews",
    confidence: float = 0.95,
    seed: int = 0,
) -> ErgodicAverage:
    """Compute the mean of ``f`` under the stationary law, by averages over time along a few long paths.

    Args:
        sde: An equation whose rates do not change in time; its horizon is how long a path is.
        f: ``(batch, *event) -> (batch,)``, of angles, radians.
        start: The start of the paths, as for :func:`~circsde.studies.expectation`.
        n_steps: Steps of a path; the same path is followed with twice as many, too.
        paths: How many.
        settling: The part of the time that is left out, in which paths forget their starts.
        method: A method; its ``invariant_order`` is that of the stationary law.
        confidence: The confidence level of the interval.
        seed: The seed of starts and paths.

    Raises:
        ValueError: If the paths are too short: neighbouring batches are correlated, or the first half of them has
            another mean than the second. Each is a test of level 1e-4.
        SolveError: If an angle is lost.

    >>> from circsde import KuramotoSDE, NoCoupling, Schedule, VonMises
    >>> well = KuramotoSDE((1,), NoCoupling(), Schedule.constant(reference=1.0, diffusion=1.0, horizon=100.0))
    >>> found = ergodic_average(well, lambda theta: theta[:, 0].cos(), VonMises(0.0, 1.0), n_steps=320, paths=32)
    >>> abs(found.value - 0.4464) < 2 * found.half_width < 0.2  # I_1(1) / I_0(1)
    True
    """
    if not 0.0 <= settling < 1.0 or paths < 1:
        raise ValueError(f"settling must lie in [0, 1) and paths be positive, got {settling} and {paths}")
    method, subject = find_method(method, sde), Simulation(sde, start)
    order = method.invariant_order
    theta = subject.sample(paths, torch_stream(seed, "ergodic average"))
    fine, _ = step_grid((0.0, sde.horizon), n_steps=2 * n_steps)
    number, dtype = key(seed, "ergodic average"), field_dtype(sde, theta.dtype)
    path = Brownian(tuple(fine), wiener_shape(sde, theta), number, dtype, theta.device)
    apart = math.floor((1.0 - settling) * n_steps / (_BATCHES * _LOOKS))  # steps from look to look
    if apart < 1:
        raise ValueError(f"{n_steps} steps are too few for {_BATCHES} batches of {_LOOKS} looks: give more")
    looks = range(n_steps - apart * (_BATCHES * _LOOKS - 1), n_steps + 1, apart)

    def batches(every: int) -> tuple[Array, float]:
        """Means over each batch, shape ``(paths, batches)``, and the variance over all times."""
        times = [fine[0], *(fine[2 * i] for i in looks)]
        states = sdeint(sde, theta, times, grid=fine[::every], method=method, brownian=path).theta[1:]
        values = torch.stack([f(state) for state in states]).double().cpu().numpy()
        return values.reshape(_BATCHES, _LOOKS, paths).mean(1).T, float(values.var())

    (rough, _), (finer, variance) = batches(2), batches(1)
    mean = (2.0**order * finer - rough) / (2.0**order - 1.0)
    _check(mean)
    z, count = quantile(confidence, mean.size), mean.size
    standard_error = float(mean.std(ddof=1)) / math.sqrt(count)
    change = mean - rough
    noise = z * float(change.std(ddof=1)) / math.sqrt(count)
    bias = (abs(float(change.mean())) + noise) / (2.0**order - 1.0)
    length = _LOOKS * apart * sde.horizon / n_steps
    return ErgodicAverage(
        float(mean.mean()),
        z * standard_error + bias,
        standard_error,
        bias,
        0.5 * length * float(finer.var(ddof=1)) / variance if variance else 0.0,
        confidence,
        method.name,
        paths * (method.work(sde, n_steps) + method.work(sde, 2 * n_steps)),
    )


def _check(mean: Array) -> None:
    """Refuse batches that do not look like independent draws from one law."""
    deviation = mean - mean.mean()
    if not deviation.any():
        return
    neighbours = float((deviation[:, 1:] * deviation[:, :-1]).sum() / (deviation**2).sum())
    pairs = deviation[:, 1:].size
    halves = np.split(mean, 2, axis=1)
    drift = float(stats.ttest_ind(halves[0].ravel(), halves[1].ravel()).pvalue)
    if neighbours * math.sqrt(pairs) > stats.norm.isf(_CHANCE) or drift < _CHANCE:
        raise ValueError(
            f"the paths are too short: batches of times have a correlation of {neighbours:.2f} with the next, and the"
            f" two halves differ with p = {drift:.1g}; give the equation a longer horizon, or more time to settle"
        )

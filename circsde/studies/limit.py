r"""How fast N oscillators approach the mean-field limit: the moments of N oscillators against the limit's moments.

The difference ``E z_k(N) - m_k`` is of order 1/N, while ``z_k = mean_j e^{ik theta_j}`` of one realisation strays from
``m_k`` by ``1/sqrt(N)``. Beside the N oscillators, N independent copies of one oscillator in the limit's own field are
therefore driven by the same noise from the same start. Their moments at several times have known expectations, and z_k
is a linear function of their deviations up to order 1/N: they are control variates, and what is left varies by order
1/N only, so that a few hundred realisations resolve the difference for every N.
"""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from circsde.contracts import SampledLaw
from circsde.exact.fokker_planck import CircleLaw, KuramotoLaw, fokker_planck
from circsde.kuramoto import KuramotoSDE
from circsde.record import provenance
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.solvers.brownian import Brownian
from circsde.solvers.integrate import sdeint
from circsde.streams import torch_stream
from circsde.studies.grids import graded_grid
from circsde.studies.statistics import RESOLUTION, Array, fit_order, quantile

ORDERS = (1, 2, 3)
TIMES = 8  # the number of times at which the copies are compared with the limit


def limit_convergence(
    schedule: Schedule,
    start: SampledLaw,
    oscillators: Sequence[int] = (10, 100, 1000),
    *,
    paths: int = 400,
    steps: int = 160,
    seed: int = 0,
    confidence: float = 0.95,
) -> xr.Dataset:
    """The moments of N globally coupled oscillators less those of the mean-field limit, and the order in 1/N.

    Args:
        schedule: The rates.
        start: The law of every oscillator at time 0, independent of the others.
        oscillators: Numbers N of oscillators, increasing.
        paths: Independent realisations for each N.
        steps: Steps of Heun's method; their bias, which does not fall with N, must stay below the differences.
        seed: The seed of starts and paths.
        confidence: The confidence level of the intervals.

    Returns:
        ``difference`` of ``E cos k theta`` and ``E sin k theta``, k = 1, 2, 3, with ``lower`` and ``upper``, over
        (oscillators, observable); ``error``, the largest, with its ``standard_error`` over oscillators; ``order`` and
        ``order_standard_error``.

    Raises:
        ValueError: If there are not more paths than control variates.
    """
    controls = 2 * len(ORDERS) * TIMES
    if paths <= 2 * controls:
        raise ValueError(f"{controls} control variates need more than {2 * controls} paths, got {paths}")
    law = fokker_planck(schedule, start)
    values = [_differences(law, start, n, paths, steps, seed) for n in oscillators]
    difference, standard_error = (np.stack(part) for part in zip(*values, strict=True))
    reach = quantile(confidence, paths - controls) * standard_error
    worst = np.abs(difference).argmax(1)[:, None]
    error, spread = (np.take_along_axis(x, worst, 1)[:, 0] for x in (np.abs(difference), standard_error))
    resolved = np.take_along_axis(reach, worst, 1)[:, 0] <= RESOLUTION * error
    order = fit_order(np.array(oscillators, dtype=np.float64), error, np.diag(spread**2), resolved)
    grid, one = ("oscillators", "observable"), {"units": "1"}
    return xr.Dataset(
        {
            "difference": (grid, difference, one | {"long_name": "moment of N less that of the limit"}),
            "lower": (grid, difference - reach, one),
            "upper": (grid, difference + reach, one),
            "error": ("oscillators", error, one | {"long_name": "largest difference of a moment"}),
            "standard_error": ("oscillators", spread, one),
            "resolved": ("oscillators", resolved),
            "order": ((), order.value, one | {"long_name": "order in 1/N"}),
            "order_standard_error": ((), order.standard_error, one),
        },
        coords={
            "oscillators": list(oscillators),
            "observable": [f"E {wave} {k} theta" for k in ORDERS for wave in ("cos", "sin")],
        },
        attrs=provenance(paths=paths, steps=steps, seed=seed, confidence=confidence),
    )


def _differences(law: KuramotoLaw, start: SampledLaw, n: int, paths: int, steps: int, seed: int) -> tuple[Array, Array]:
    """``E z_k(n) - m_k`` at the horizon and its standard error, by regression on the control variates."""
    schedule = law.schedule
    coupled = KuramotoSDE((n,), schedule=schedule)
    free = SDE(law.drift, coupled.diffusion, schedule.horizon, variance=coupled.variance)
    theta = start.sample((paths, n), generator=torch_stream(seed, "starts"))
    path = Brownian(graded_grid(schedule.horizon, steps), (paths, n), seed, torch.float64)
    times = graded_grid(schedule.horizon, TIMES)
    together = sdeint(coupled, theta, (0.0, schedule.horizon), n_steps=steps, brownian=path).theta[-1]
    alone = sdeint(free, theta, times, grid=path.grid, brownian=path).theta[1:]
    y = _moments(together) - _exact(law, times[-1])
    X = np.concatenate([_moments(x) - _exact(law, t) for x, t in zip(alone, times[1:], strict=True)], 1)
    design = np.concatenate((np.ones((paths, 1)), X), 1)
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ solution
    variance = np.square(residual).sum(0) / (paths - rank) * np.linalg.pinv(design.T @ design)[0, 0]
    return solution[0], np.sqrt(variance)


def _moments(theta: Tensor) -> Array:
    """Means over oscillators of ``cos k theta``, ``sin k theta``, shape ``(paths, 2 len(ORDERS))``."""
    return np.stack([wave(k * theta).mean(1).numpy() for k in ORDERS for wave in (torch.cos, torch.sin)], 1)


def _exact(law: CircleLaw, t: float) -> Array:
    return np.array([part for k in ORDERS for part in (law.moment(t, k).real, law.moment(t, k).imag)])

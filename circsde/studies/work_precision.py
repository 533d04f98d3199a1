"""What accuracy costs: errors against drift evaluations and against measured time."""

import platform
import time
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from circsde.sde import SDE
from circsde.solvers.integrate import sdeint
from circsde.solvers.interop import find_method
from circsde.solvers.methods import Method
from circsde.studies.accuracy import study
from circsde.studies.experiment import Experiment, experiment
from circsde.studies.result import WEAK
from circsde.studies.runner import Runner
from circsde.typing import Angles


def work_precision(
    subject: Experiment | SDE | str,
    methods: Sequence[str | Method] | None = None,
    steps: Sequence[int] | None = None,
    *,
    kind: str = WEAK,
    monte_carlo: bool = False,
    paths: int | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    timed_paths: int = 4096,
    repeats: int = 7,
    runner: Runner | None = None,
) -> xr.Dataset:
    """Errors as :func:`~circsde.studies.accuracy.study` measures them, with the evaluations and the time they cost.

    A solve is timed after one that warms up, with the noise that it draws, in this process and on as many threads as
    torch has; methods take turns, so that a slow minute of the machine falls on all of them.

    Args:
        subject: A problem or its name, an SDE, or a :class:`~circsde.studies.experiment.Simulation`.
        methods: Names, torchsde's as ``"torchsde:srk"``, or methods.
        steps: Numbers of steps over the horizon.
        kind: ``"weak"`` or ``"strong"``.
        monte_carlo: See :func:`~circsde.studies.accuracy.study`.
        paths: The same; of the errors.
        seed: The same.
        confidence: The same.
        timed_paths: How many paths a timed solve has.
        repeats: How often each is timed.
        runner: Where the errors are computed and kept.

    Returns:
        The study of the errors, with ``seconds`` (the median), ``seconds_low`` and ``seconds_high`` (quartiles) over
        (solver, steps).
    """
    subject = experiment(subject)
    errors = study(
        subject,
        kind,
        methods,
        steps,
        monte_carlo=monte_carlo,
        paths=paths,
        seed=seed,
        confidence=confidence,
        runner=runner,
    )
    solvers = [find_method(name) for name in (errors["solver"].values.tolist() if methods is None else methods)]
    theta = subject.sample(timed_paths, torch.Generator().manual_seed(seed))
    ladder = errors["steps"].values.tolist()
    shape = len(solvers), len(ladder)
    seconds = np.empty((1 + repeats, *shape))
    for turn in range(1 + repeats):
        for i, j in np.ndindex(*shape):
            seconds[turn, i, j] = timed(subject.sde, theta, solvers[i], ladder[j], seed + turn)
    low, median, high = np.quantile(seconds[1:], (0.25, 0.5, 0.75), axis=0)
    grid, units = ("solver", "steps"), {"units": "s"}
    return errors.assign(
        seconds=(grid, median, units | {"long_name": "median time of a solve"}),
        seconds_low=(grid, low, units | {"long_name": "lower quartile of the time"}),
        seconds_high=(grid, high, units | {"long_name": "upper quartile of the time"}),
    ).assign_attrs(
        timed_paths=timed_paths,
        repeats=repeats,
        threads=torch.get_num_threads(),
        device=str(theta.device) if theta.device.type != "cpu" else platform.machine(),
        dtype=str(theta.dtype),
    )


def timed(sde: SDE, theta: Angles, method: Method, n_steps: int, seed: int) -> float:
    """Seconds that one solve over the horizon takes, its noise included."""
    start = time.perf_counter()
    solution = sdeint(sde, theta, (0.0, sde.horizon), method=method, n_steps=n_steps, generator=seed)
    solution.theta[-1].sum().item()  # waits for a device
    return time.perf_counter() - start

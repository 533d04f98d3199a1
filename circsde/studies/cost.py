"""What accuracy costs: errors against drift evaluations and against measured time."""

import platform
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr

from circsde.contracts import takes_old_name
from circsde.sde import SDE
from circsde.solvers.flow import odeint
from circsde.solvers.integrate import sdeint
from circsde.solvers.methods import Method
from circsde.solvers.registry import find_method
from circsde.solvers.solution import Solution
from circsde.solvers.trajectory import ADAPTIVE
from circsde.streams import key, torch_stream
from circsde.studies.accuracy import study
from circsde.studies.candidates import default_methods
from circsde.studies.experiment import Experiment, experiment
from circsde.studies.flows import flow_convergence, is_flow
from circsde.studies.result import WEAK
from circsde.studies.runner import Runner
from circsde.typing import Angles


@takes_old_name("kind", "metric")
def work_precision(
    subject: Experiment | SDE | str,
    methods: Sequence[str | Method] | None = None,
    steps: Sequence[int] | None = None,
    *,
    metric: str = WEAK,
    monte_carlo: bool = False,
    paths: int | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    timed_paths: int = 4096,
    repeats: int = 7,
    atol: Sequence[float] | None = None,
    runner: Runner | None = None,
) -> xr.Dataset:
    """Measure errors as :func:`~circsde.studies.accuracy.study` does, with the evaluations and the time that they cost.

    A solve is timed after one that warms up, with the noise that it draws, in this process and on as many threads as
    torch has; methods take turns, so that a slow minute of the machine falls on all of them.

    Args:
        subject: A problem or its name, an SDE, or a :class:`~circsde.studies.experiment.Simulation`.
        methods: Names, torchsde's as ``"torchsde:srk"``, or methods; by default all of ours that apply, on a
            probability flow torchdiffeq's adaptive ones.
        steps: Numbers of steps over the horizon.
        metric: ``"weak"`` or ``"strong"``.
        monte_carlo: See :func:`~circsde.studies.accuracy.study`.
        paths: The same; of the errors.
        seed: The same.
        confidence: The same.
        timed_paths: How many paths a timed solve has.
        repeats: How often each is timed.
        atol: On a probability flow, the absolute tolerances of adaptive methods, rad; by default those of
            :func:`~circsde.studies.flows.flow_convergence`.
        runner: The runner that computes the errors and keeps them.

    Returns:
        The study of the errors, with ``seconds`` (the median), ``seconds_low`` and ``seconds_high`` (quartiles) over
        (solver, steps), or (solver, atol).

    >>> table = work_precision("drifting", ["heun"], [5, 10], timed_paths=16, repeats=1)
    >>> table["nfe"].values.tolist(), table["seconds"].dims
    ([[10.0, 20.0]], ('solver', 'steps'))
    """
    subject = experiment(subject)
    sde, ts = subject.sde, (0.0, subject.sde.horizon)
    if is_flow(subject) and (methods is None or (len(methods) and all(name in ADAPTIVE for name in methods))):
        names = [str(name) for name in (ADAPTIVE if methods is None else methods)]
        more = {} if paths is None else {"paths": paths}
        errors = flow_convergence(
            subject, names, atol, metric=metric, seed=seed, confidence=confidence, runner=runner, **more
        )

        def solve(theta: Angles, solver: str, setting: float, seed: int) -> Solution:  # noqa: ARG001
            known = sde.breakpoints
            return odeint(sde.drift, theta, ts, method=solver, atol=setting, breakpoints=known, on_failure="return")

    else:
        methods = default_methods(subject, metric) if methods is None else methods
        errors = study(
            subject,
            metric,
            methods,
            steps,
            monte_carlo=monte_carlo,
            paths=paths,
            seed=seed,
            confidence=confidence,
            runner=runner,
        )
        found = {method.name: method for method in map(find_method, methods)}

        def solve(theta: Angles, solver: str, setting: float, seed: int) -> Solution:
            return sdeint(
                sde, theta, ts, method=found[solver], n_steps=int(setting), generator=seed, on_failure="return"
            )

    theta = subject.sample(timed_paths, torch_stream(seed, "starts"))
    return add_times(errors, theta, solve, repeats, seed)


Solve = Callable[[Angles, str, float, int], Solution]
"""``(theta, solver, setting, seed) -> solution``"""


@torch.no_grad()
def add_times(errors: xr.Dataset, theta: Angles, solve: Solve, repeats: int, seed: int) -> xr.Dataset:
    """``errors`` with the quartiles of the seconds that each solve from ``theta`` takes."""
    grid = errors["error"].dims
    solvers, settings = (errors[dim].values.tolist() for dim in grid)
    seconds = np.empty((1 + repeats, len(solvers), len(settings)))
    for turn, i, j in np.ndindex(*seconds.shape):
        start = time.perf_counter()
        solution = solve(theta, solvers[i], settings[j], key(seed, "timed", turn))
        solution.theta[-1].sum().item()  # waits for a device
        seconds[turn, i, j] = time.perf_counter() - start
    quartiles = np.quantile(seconds[1:], (0.25, 0.5, 0.75), axis=0)
    names = {"seconds_low": "lower quartile", "seconds": "median", "seconds_high": "upper quartile"}
    times = {
        name: (grid, value, {"units": "s", "long_name": f"{what} of the time of a solve"})
        for (name, what), value in zip(names.items(), quartiles, strict=True)
    }
    return errors.assign(times).assign_attrs(
        timed_paths=len(theta),
        repeats=repeats,
        threads=torch.get_num_threads(),
        device=platform.machine() if theta.device.type == "cpu" else str(theta.device),
        dtype=str(theta.dtype),
    )

"""Whether to believe a trained model of a few angles: its horizon, samples and density against the data."""

import math
from collections.abc import Callable

import torch
import xarray as xr
from torch import Tensor

from circsde.exact.fokker_planck import grid
from circsde.models.training import Trained
from circsde.sampling.mismatch import energy_test, mismatch
from circsde.sampling.trained import centre, sample
from circsde.solvers.brownian import draw_seed
from circsde.solvers.integrate import sdeint
from circsde.solvers.likelihood import LogProb, log_prob
from circsde.solvers.normalisation import normalisation
from circsde.torus import difference
from circsde.typing import Angles

SAMPLES = 1000
"""The most samples of each kind that :func:`diagnose` compares."""

PERMUTATIONS = 199


def log_likelihood(model: Trained, theta: Angles, *, atol: float = 1e-5, batch_size: int = 5000) -> LogProb:
    """The log-density of data under the probability flow of the model, from its settled law, exactly (eq. 5)."""
    relative = difference(theta, centre(model).to(theta))
    return log_prob(model.sde, model.network, relative, atol=atol, batch_size=batch_size)


def diagnose(
    model: Trained,
    theta: Angles,
    *,
    generator: torch.Generator,
    points: int = 96,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Examine a model of angles: its samples, its horizon and the integral of its density.

    Args:
        model: A trained model.
        theta: Data, as it was trained on or held out; up to :data:`SAMPLES` rows are used.
        generator: The generator of all random numbers.
        points: For one and two angles: nodes per angle of the grid on which the density is evaluated.
        progress: Called with the number of finished parts, of 3.

    Returns:
        ``kuiper_p`` and ``energy_p``: p-values of the terminal law of the forward equation against its settled law;
        ``samples_energy`` and ``samples_energy_p``: of samples against data, with ``samples_energy_floor``, what it is
        between halves of the data, scaled to as many; ``p_value``: of all these tests together, corrected for their
        number (Bonferroni), so that a model that is right has one below 0.05 in at most 5 % of diagnoses; ``theta`` and
        ``sampled``: what was compared, rad. For one or two angles, ``log_density`` on a grid and ``normalisation``, its
        integral, on that grid or as fine a one as it takes: 1, if likelihoods are right; NaN where none is fine enough,
        for the reason in its attribute ``comment``.

    Raises:
        SolveError: If the network answers something that is not finite.
        ValueError: If there are fewer than two rows, whose halves cannot be compared, or a row is not finite.
    """
    if len(theta) < 2:
        raise ValueError(f"a diagnosis compares halves of the data, and there is {len(theta)} row: give more")
    told = progress or (lambda _: None)
    rows = torch.randperm(len(theta), generator=generator)[:SAMPLES]
    data = theta[rows]
    forward = sdeint(
        model.sde,
        difference(data, centre(model).to(data)),
        (0.0, model.sde.horizon),
        grid=model.chain.times,
        generator=draw_seed(generator),
    )
    terminal = mismatch(forward.theta[-1], model.sde.settled_law(), permutations=PERMUTATIONS, generator=generator)
    result = terminal.rename(oscillator="angle")
    told(1)
    sampled = torch.from_numpy(sample(model, len(data), seed=draw_seed(generator))["theta"].values)
    energy, p = energy_test(data, sampled, permutations=PERMUTATIONS, generator=generator)
    half = len(data) // 2
    floor, _ = energy_test(data[:half], data[half : 2 * half], permutations=1, generator=generator)
    result["samples_energy"], result["samples_energy_p"], result["samples_energy_floor"] = energy, p, floor / 2
    angles = len(result["kuiper_p"])
    least = min(angles * float(result["kuiper_p"].min()), float(result["energy_p"]), p)
    result["p_value"] = min(1.0, 3.0 * least)
    result["theta"] = (("row", "angle"), data.numpy(), {"units": "rad"})
    result["sampled"] = (("row", "angle"), sampled.numpy(), {"units": "rad"})
    told(2)
    if theta.shape[1] <= 2:
        axis = grid(points)
        nodes = torch.cartesian_prod(*[axis] * theta.shape[1]).reshape(-1, theta.shape[1])
        values = log_likelihood(model, nodes.float()).value

        def density(x: Angles) -> Tensor:
            return values if torch.equal(x, nodes) else log_likelihood(model, x.float()).value

        names = ("first", "second")[: theta.shape[1]]
        result["log_density"] = (names, values.reshape([points] * theta.shape[1]).numpy(), {"units": "nats"})
        result = result.assign_coords({name: (name, axis.numpy(), {"units": "rad"}) for name in names})
        try:
            integral, doubt = normalisation(density, theta.shape[1], first=points), ""
        except ValueError as error:
            integral, doubt = math.nan, str(error)
        result["normalisation"] = ((), integral, {"comment": doubt} if doubt else {})
    told(3)
    return result

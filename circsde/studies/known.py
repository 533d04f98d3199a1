"""A user's equation as a problem with exact answers: the law of one or two angles is solved for."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from circsde.contracts import Law, SampledLaw
from circsde.exact.fokker_planck import fokker_planck
from circsde.exact.fokker_planck_torus import fokker_planck_torus
from circsde.exact.problems import Observable, Problem
from circsde.laws.distributions import VonMises
from circsde.sde import SDE
from circsde.studies.markov import Grid

Start = SampledLaw | tuple[SampledLaw, ...]

UNIFORM = VonMises(0.0, 0.0)

UNCERTAINTY = 1e-9
"""The uncertainty of the expected values, which is the error of the spectral solution with a large margin."""

_MODES = {1: 512, 2: 96}  # the most that are carried, by the number of angles
_TOLERANCE = {1: 1e-13, 2: 1e-10}
_BANDS = {1: 24, 2: 7}  # degrees of observables that the coarsest grid of a transfer operator integrates exactly
_FINE = {1: 4095, 2: 255}  # points per angle
_LONG = 60.0  # rad that the drift may turn an angle over the horizon: beyond, the solution takes a minute


def solved(sde: SDE, start: Start | None, observables: Sequence[Observable], name: str) -> Problem | None:
    """The problem of an equation that starts from a law: its exact law at the horizon, and the means expected there.

    Args:
        sde: The equation.
        start: The law of every angle at time 0, or one per angle; None where it is not known.
        observables: What is compared; an expected value that is NaN is found.
        name: What tables call it.

    Returns:
        None where this is not known: for more than two angles, a start without a density, a network in single
        precision, observables that are no trigonometric polynomials of low degree, and where the spectral solution of
        the Fokker-Planck equation does not converge: the drift is not smooth, or the law too narrow.
    """
    event = tuple(sde.event_shape or ())
    single = any(parameter.dtype != torch.float64 for parameter in sde.parameters())
    if start is None or event not in ((1,), (2,)) or single:
        return None
    angles = event[0]
    if not all(_low(observable, angles) for observable in observables) or _turn(sde, angles) > _LONG:
        return None
    try:
        target = _target(sde, start, angles)
    except (ValueError, RuntimeError):
        return None
    grid = Grid(_FINE[angles], angles)
    density = target.log_prob(grid.theta[:, 0] if angles == 1 else grid.theta).exp()
    found = tuple(
        replace(o, expected=float(density @ o.function(grid.theta)) * grid.cell) if math.isnan(o.expected) else o
        for o in observables
    )
    return Problem(name, "", "", sde, start, found, uncertainty=UNCERTAINTY, target=target)


def _target(sde: SDE, start: Start, angles: int) -> Law:
    """The law at the horizon."""
    if angles == 1:
        (law,) = start if isinstance(start, tuple) else (start,)
        return fokker_planck(sde, law, modes=_MODES[1], tolerance=_TOLERANCE[1]).at(sde.horizon)
    first, second = start if isinstance(start, tuple) else (start, start)
    return fokker_planck_torus(sde, (first, second), modes=_MODES[2], tolerance=_TOLERANCE[2]).at(sde.horizon)


def _turn(sde: SDE, angles: int) -> float:
    """The angle by which the drift may turn a phase over the horizon, rad, from nine times."""
    theta = Grid(48, angles).theta
    with torch.no_grad():
        fastest = max(float(sde.drift(sde.horizon * i / 8, theta).abs().max()) for i in range(9))
    return fastest * sde.horizon


def _low(observable: Observable, angles: int) -> bool:
    """Whether an observable is a trigonometric polynomial of low degree, to rounding."""
    grid = Grid({1: 255, 2: 63}[angles], angles)
    values = observable.function(grid.theta).double().numpy().reshape((grid.points,) * angles)
    sizes = np.fft.fftshift(np.abs(np.fft.fftn(values))) / values.size
    k = np.abs(np.indices(sizes.shape) - grid.points // 2).max(0)
    return bool(sizes[k > _BANDS[angles]].max() <= 1e-12 * max(1.0, sizes.max()))

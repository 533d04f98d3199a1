"""Named problems whose noise depends on the phase."""

import torch

from circsde.exact.fokker_planck import fokker_planck
from circsde.exact.fokker_planck_torus import fokker_planck_torus
from circsde.exact.one_angle import stationary
from circsde.exact.problems import Problem, circle_moments, describe, normal, torus_moments
from circsde.phase_models import phase_oscillators, theta_neuron

_UNCERTAINTY = 1e-8
"""The uncertainty of the expected values: the tolerance of the spectral solutions with a margin."""


def build(name: str) -> Problem:
    """The problem of that name; both oscillators and both readings are those of :mod:`circsde.phase_models`."""
    if name == "common_noise":
        pair = phase_oscillators(torch.sin, 2.0, 0.5, event_shape=(2,), common=True)
        starts = normal(2.0, 0.5), normal(-1.0, 0.6)
        law = fokker_planck_torus(pair, starts, modes=96, tolerance=1e-8)
        return Problem(
            *(name, describe(name), "noise that depends on the state, common", pair, starts, torus_moments(law, 1.0)),
            uncertainty=10 * _UNCERTAINTY,
            target=law.at(1.0),
        )
    neuron = name == "theta_neuron"
    sde = theta_neuron(-0.2, 0.5) if neuron else phase_oscillators(torch.sin, 3.0, 0.8)
    start = normal(0.0, 0.5) if neuron else normal(2.0, 0.4)
    one = fokker_planck(sde, start, tolerance=1e-10)
    return Problem(
        *(name, describe(name), "noise that depends on the state", sde, start, circle_moments(one, 1.0)),
        uncertainty=_UNCERTAINTY,
        target=one.at(1.0),
        stationary=stationary(sde, modes=256),
    )

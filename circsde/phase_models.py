r"""Oscillators that listen to noise through their phase: the theta neuron, and any phase-response curve.

Where a white noise drives an oscillator, its phase moves by the noise times the response at that phase,
``d theta = omega dt + sigma Z(theta) o dW``, read as Stratonovich's, the limit of noise that is not quite white. Many
oscillators have noise of their own, or listen to the same one and are synchronised by it.

Sources: Ermentrout & Kopell 1986, doi:10.1137/0146017; Teramae & Tanaka 2004, doi:10.1103/PhysRevLett.93.204103.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from circsde.sde import SDE


def theta_neuron(
    current: float, strength: float, horizon: float = 1.0, *, event_shape: Sequence[int] = (1,), common: bool = False
) -> SDE:
    r"""``d theta = [1 - cos theta + (1 + cos theta) I] dt + (1 + cos theta) sigma o dW``; it spikes when it passes pi.

    It is the quadratic integrate-and-fire neuron ``dV = (V^2 + I) dt + sigma dW`` by ``V = tan(theta / 2)``.

    Args:
        current: I; below 0 the neuron rests and only noise makes it fire.
        strength: sigma.
        horizon: The last time.
        event_shape: The event shape of one sample's neurons, which do not feel one another.
        common: Whether they all have the same noise.

    >>> neuron = theta_neuron(-0.2, 0.5)
    >>> neuron.drift(0.0, torch.zeros(1, 1)), neuron.diffusion(0.0, torch.zeros(1, 1))
    (tensor([[-0.4000]]), tensor([[1.]]))
    """

    def drift(t: object, theta: Tensor) -> Tensor:  # noqa: ARG001
        return 1.0 + current - (1.0 - current) * theta.cos()

    def diffusion(t: object, theta: Tensor) -> Tensor:  # noqa: ARG001
        return strength * (1.0 + theta.cos())

    return _driven(drift, diffusion, horizon, event_shape, common)


def phase_oscillators(
    response: Callable[[Tensor], Tensor],
    frequency: float | Tensor,
    strength: float,
    horizon: float = 1.0,
    *,
    event_shape: Sequence[int] = (1,),
    common: bool = False,
) -> SDE:
    r"""``d theta = omega dt + sigma Z(theta) o dW`` with a phase-response curve ``Z``.

    Args:
        response: ``Z``, a 2 pi-periodic function of torch operations, angle by angle: ``1 - cos`` of a neuron of the
            first type, ``-sin`` of the second.
        frequency: omega, rad/time; a tensor for one of each oscillator.
        strength: sigma.
        horizon: The last time.
        event_shape: The event shape of one sample's oscillators, which do not feel one another.
        common: Whether they all have the same noise.

    >>> pair = phase_oscillators(torch.sin, 2.0, 0.5, event_shape=(2,), common=True)
    >>> pair.noise, pair.sde_type
    ('scalar', 'stratonovich')
    """

    def drift(t: object, theta: Tensor) -> Tensor:  # noqa: ARG001
        return torch.zeros_like(theta) + (frequency.to(theta) if isinstance(frequency, Tensor) else frequency)

    def diffusion(t: object, theta: Tensor) -> Tensor:  # noqa: ARG001
        return strength * response(theta)

    return _driven(drift, diffusion, horizon, event_shape, common)


def _driven(
    drift: Callable[..., Tensor],
    diffusion: Callable[..., Tensor],
    horizon: float,
    event_shape: Sequence[int],
    common: bool,
) -> SDE:
    """An equation read as Stratonovich's, with common noise or noise for each angle."""
    noise = "scalar" if common else "diagonal"
    return SDE(drift, diffusion, horizon, event_shape=event_shape, sde_type="stratonovich", noise=noise)

r"""The latent space of a diffusion model: where its probability flow carries the data, and back."""

from dataclasses import dataclass

from torch import Tensor

from circsde.sde import SDE
from circsde.solvers.flow import odeint
from circsde.solvers.solution import Solution
from circsde.torus import difference, distance, wrap
from circsde.typing import Angles, Field, PerSample
from circsde.velocity import probability_flow


@dataclass(frozen=True)
class Latent:
    """Latent angles, and how well they decode.

    Attributes:
        theta: Wrapped angles at the horizon, shape ``(batch, *event)``.
        round_trip: The largest distance in a sample between its angles and those that its latent decodes to, rad.
        encoding: The solve forward in time.
        decoding: The solve back.
    """

    theta: Angles
    round_trip: PerSample
    encoding: Solution
    decoding: Solution


def latent(sde: SDE, score: Field, theta: Angles, *, method: str = "dopri5", atol: float = 1e-6) -> Latent:
    """Carry ``theta`` along the probability flow to the horizon (eq. 4), and back to measure the error.

    Under the model, latents have the law of its prior. The map is one to one: its inverse is :func:`from_latent`.

    Args:
        sde: The forward equation.
        score: ``(t, theta) -> grad log p_t(theta)``, 1/rad.
        theta: Angles ``(batch, *event)``, radians.
        method: An adaptive method of :func:`circsde.odeint`.
        atol: The tolerance, rad.

    Raises:
        SolveError: If one of the two solves cannot go on.

    >>> import torch
    >>> from circsde.laws.distributions import VonMises
    >>> from circsde.kuramoto import KuramotoSDE
    >>> from circsde.schedule import Schedule
    >>> sde = KuramotoSDE((1,), schedule=Schedule.constant(reference=2.0))
    >>> result = latent(sde, lambda t, theta: VonMises(0.0, 2.0).score(theta), torch.tensor([[1.0]]))
    >>> result.theta.item(), result.round_trip.item()  # stationary: the flow stands still
    (1.0, 0.0)
    """
    flow = probability_flow(sde, score)
    forward = odeint(flow, theta, (0.0, sde.horizon), method=method, atol=atol)
    start = forward.theta[-1]
    back = odeint(flow, start, (sde.horizon, 0.0), method=method, atol=atol)
    return Latent(start, distance(back.theta[-1], wrap(theta)).flatten(1).amax(1), forward, back)


def from_latent(sde: SDE, score: Field, theta: Angles, *, method: str = "dopri5", atol: float = 1e-6) -> Solution:
    """Carry latent angles back along the probability flow, from the horizon to time 0 (eq. 4).

    >>> import torch
    >>> from circsde.kuramoto import KuramotoSDE
    >>> sde, score = KuramotoSDE((1,)), lambda t, theta: -theta.sin()
    >>> there = latent(sde, score, torch.tensor([[1.0]])).theta
    >>> round(from_latent(sde, score, there).theta[-1].item(), 4)
    1.0
    """
    return odeint(probability_flow(sde, score), theta, (sde.horizon, 0.0), method=method, atol=atol)


def geodesic(start: Angles, end: Angles, weights: Tensor) -> Tensor:
    """Points on the shortest path between two batches of angles, in which every angle turns the short way.

    Args:
        start: Angles, radians.
        end: Angles of the same shape.
        weights: How far to go, from 0 (``start``) to 1 (``end``), shape ``(m,)``.

    Returns:
        Wrapped angles, shape ``(m, batch, *event)``.

    >>> import torch
    >>> geodesic(torch.tensor([[3.0]]), torch.tensor([[-3.0]]), torch.tensor([0.0, 1.0])).flatten().tolist()
    [3.0, -3.0]
    """
    weights = weights.to(start).reshape(-1, *(1,) * start.ndim)
    return wrap(start + weights * difference(end, start))

r"""The divergence of a velocity: what is known in closed form, and the trace of a Jacobian for the rest (eq. 5).

It is integrated along a path that was found before, at nodes of its own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from circsde.noise import evaluate, ito_drift, spreading
from circsde.sde import SDE
from circsde.solvers.brownian import Brownian
from circsde.solvers.colouring import colour_signs
from circsde.solvers.derivatives import check_derivative, check_diagonal
from circsde.solvers.quadrature import Vector, hermite, middle, nodes, rule
from circsde.streams import key
from circsde.torus import wrap
from circsde.typing import Angles, Field, Tangent, Time

_ROWS, _DEVICE_ROWS = 1 << 9, 1 << 16  # samples times directions that go backwards at once, on a CPU and elsewhere
_REMNANT = 0.03  # relative to the step before; a shorter last step is no neighbour to interpolate or integrate with

Function = Callable[[Tensor], tuple[Tensor, Tensor]]
Directions = Callable[[int], Tensor | None]  # directions at the node of that number; None for all unit directions


class FlowField:
    """The probability flow ``v = f - g^2 score / 2`` of an SDE, and its divergence (eqs. 4 and 5).

    Where the SDE has a ``divergence(t, theta)``, as ``KuramotoSDE`` has, it gives the divergence of the drift. That
    lowers the standard error of one probe by all of its 5 bits on 8 x 8 oscillators that listen to their neighbours,
    with a score whose Jacobian is diagonal; and by 0.3 of 4.3 bits on six globally coupled ones with a full Jacobian.
    Where the score has a ``with_diagonal(t, theta)``, as :class:`circsde.models.HollowMLP` has it, an exact divergence
    takes the diagonal of its Jacobian from there, at a cost that does not grow with the number of angles; and
    :class:`circsde.models.ScoreMLP` has it at 0.6 of the cost of backward passes.

    Args:
        sde: The forward equation.
        score: ``(t, theta) -> grad log p_t(theta)``, 1/rad.
        rough: Whether an exact divergence may err by single precision: it is then taken from
            ``with_rough_diagonal(t, theta)``, where the score has that.

    Attributes:
        latest: The score at the last evaluation.
    """

    latest: Tensor

    def __init__(self, sde: SDE, score: Field, rough: bool = False) -> None:
        self.sde, self.score = sde, score
        exact = getattr(score, "with_diagonal", None)
        self._diagonal = getattr(score, "with_rough_diagonal", exact) if rough else exact
        self._drift_divergence = getattr(sde, "divergence", None) if sde.noise == "additive" else None

    @property
    def breakpoints(self) -> tuple[float, ...] | None:
        """Times between which the equation is smooth in time; None where nothing is known about that."""
        return self.sde.breakpoints

    def check(self, t: Time, theta: Angles) -> None:
        """Refuse a score, or a drift whose divergence is not known, whose derivative is not that of its values.

        Raises:
            ValueError: In that case, or if one of them answers differently when it is asked twice.
            TypeError: If one of them does not take the dtype of the angles.
        """
        check_derivative(self.score, t, theta, "score")
        if self._diagonal is not None:
            check_diagonal(self.score, self._diagonal, t, theta)
        if self._drift_divergence is None:
            check_derivative(partial(ito_drift, self.sde), t, theta, "drift")

    def __call__(self, t: Time, theta: Angles) -> Tangent:
        """The velocity, rad/time."""
        self.latest = self.score(t, theta)
        return ito_drift(self.sde, t, theta) - spreading(self.sde, t, theta, self.latest, 0.5)

    def linearise(self, t: Time, theta: Angles, probes: Tensor | None) -> tuple[Tangent, Tangent, Tensor]:
        """Velocity, score, and divergence: one row, exact, or one per probe; shape ``(rows, batch)``, 1/time."""
        known, diagonal = self._drift_divergence, self._diagonal
        if known is not None and diagonal is not None and probes is None:
            score, slopes = diagonal(t, theta)
            half = self._half_variance(t, theta)
            trace = (half * slopes).flatten(1).sum(1, dtype=torch.float64)
            return self.sde.drift(t, theta) - half * score, score, (known(t, theta).double() - trace)[None]

        def unknown(x: Tensor) -> tuple[Tensor, Tensor]:
            score = self.score(t, x)
            against = spreading(self.sde, t, x, score, 0.5)
            return (against if known else against - ito_drift(self.sde, t, x)), score

        against, traces, score = jacobian_trace(unknown, theta, probes)
        if known is None:
            return -against, score, -traces
        return self.sde.drift(t, theta) - against, score, known(t, theta).double() - traces

    def _half_variance(self, t: Time, theta: Tensor) -> float | Tensor:
        g = evaluate(self.sde.diffusion, t, theta)
        return 0.5 * g * g


def jacobian_trace(function: Function, theta: Angles, probes: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The first output of ``function`` at ``theta``, the trace of its Jacobian in every sample, and the second output.

    The Jacobian is pulled back along the unit directions, or estimated as ``probe . J probe`` (Hutchinson); both by
    vector-Jacobian products, several at once where the batch is small.

    Args:
        function: ``theta -> (tangent, auxiliary)``; samples must not depend on one another. It must be made of torch
            operations that ``torch.func`` can differentiate.
        theta: Angles ``(batch, *event)``.
        probes: Directions ``(k, batch, *event)``, or None for the exact trace.

    Returns:
        The tangent, the traces in float64, of shape ``(k, batch)`` or ``(1, batch)``, and the auxiliary output.

    >>> rotate = lambda x: (torch.stack((2 * x[:, 0] + x[:, 1], x[:, 0] ** 2), 1), x)
    >>> jacobian_trace(rotate, torch.ones(1, 2), None)[1]
    tensor([[2.]], dtype=torch.float64)
    """
    size = max(1, (_ROWS if theta.device.type == "cpu" else _DEVICE_ROWS) // len(theta))
    traces = []
    with sdpa_kernel(SDPBackend.MATH):  # the other kinds of attention do not go backwards in several directions at once
        value, pull, auxiliary = torch.func.vjp(function, theta, has_aux=True)  # type: ignore[misc]
        for group in _unit_directions(theta, size) if probes is None else torch.split(probes, size):
            pulled = pull(group[0])[0].unsqueeze(0) if len(group) == 1 else torch.func.vmap(pull)(group)[0]
            traces.append((group * pulled).flatten(2).sum(2, dtype=torch.float64))
    trace = torch.cat(traces)
    return value, trace.sum(0, keepdim=True) if probes is None else trace, auxiliary


def _unit_directions(theta: Tensor, size: int) -> Iterator[Tensor]:
    event = theta.shape[1:]
    for first in range(0, event.numel(), size):
        rows = torch.arange(first, min(first + size, event.numel()), device=theta.device)
        units = torch.zeros(len(rows), event.numel(), dtype=theta.dtype, device=theta.device)
        units[torch.arange(len(rows)), rows] = 1.0
        yield units.reshape(-1, 1, *event).expand(-1, *theta.shape)


@dataclass(frozen=True)
class Probes:
    """Random directions with unit covariance; a sample's depend on the seed and its index only.

    Attributes:
        law: ``"rademacher"`` (signs, exact on a diagonal Jacobian), ``"lattice"`` (signs that tell ``colours`` sets of
            far points apart, see :mod:`circsde.solvers.colouring`) or ``"gaussian"``.
        seed: Any integer.
        first_sample: The index of the first sample.
        fresh: Whether each node of a quadrature has probes of its own.
        colours: Probes of signs come in sets of so many, of which only means are independent; 1 unless ``lattice``.

    Raises:
        ValueError: For another law.

    >>> Probes("rademacher", seed=0).draw(torch.zeros(3, 2), 0, 4).shape
    torch.Size([4, 3, 2])
    """

    law: str
    seed: int
    first_sample: int = 0
    fresh: bool = False
    colours: int = 1

    def __post_init__(self) -> None:
        """Refuse an unknown law."""
        if self.law not in ("rademacher", "lattice", "gaussian"):
            raise ValueError(f'the law of the probes must be "rademacher", "lattice" or "gaussian", got {self.law!r}')

    def draw(self, theta: Angles, start: int, stop: int, node: int = 0) -> Tensor:
        """Probes number ``start`` to ``stop - 1`` of a node, for every sample: ``(stop - start, *theta.shape)``.

        With colours both must be multiples of their number.
        """
        if self.colours > 1:
            first, last = start // self.colours, stop // self.colours
            signs = colour_signs(tuple(theta.shape[1:]), self.colours).to(theta)[:, None]
            return (replace(self, colours=1).draw(theta, first, last, node)[:, None] * signs).flatten(0, 1)
        clock, seed = tuple(float(i) for i in range(stop + 1)), key(self.seed, "probes", node)
        path = Brownian(clock, tuple(theta.shape), seed, theta.dtype, theta.device, self.first_sample, purpose="probes")
        normals = torch.stack([noise.dW for noise in path.increments(clock[start:], levy_area=False)])
        return normals if self.law == "gaussian" else torch.ones_like(normals).copysign(normals)

    def along(self, theta: Angles, samples: list[int], start: int, stop: int) -> Directions:
        """The probes of some samples at each node: the same at all of them, or fresh ones."""

        def draw(node: int) -> Tensor:
            return self.draw(theta, start, stop, node)[:, samples]

        once = draw(0)
        return draw if self.fresh else lambda _: once


@dataclass(frozen=True, eq=False)
class Integrated:
    """The integral of a divergence along paths, nats.

    Attributes:
        drawn: What is integrated at every node of the quadrature, by each of k probes, ``(nodes, k, batch)``.
        weights: The weights of the nodes.
        error: The errors of the quadrature plus the integrals of ``(|score| + 2 doubt) |x' - v|``, summed over
            steps, ``(batch,)``.
        nodes: Evaluations of the score.
    """

    drawn: Tensor
    weights: Tensor
    error: Tensor
    nodes: int

    @property
    def values(self) -> Tensor:
        """The integrals by each probe, ``(k, batch)``."""
        return torch.einsum("n,nkb->kb", self.weights, self.drawn)


def integrate_divergence(
    flow: FlowField,
    mesh: Vector,
    states: Tensor,
    dtype: torch.dtype,
    probes: Directions,
    tolerance: float,
    doubt: Tensor,
) -> "Integrated":
    """The integral of ``div v - score . (x' - v)`` along a numerical path, with its error.

    Steps in which the quadrature misses the tolerance are halved, for the integral only, until there are four times as
    many; the path stays what it is. A far shorter last step, which is what a solver had left, joins the one before.

    Args:
        flow: The velocity v.
        mesh: The times that the solver accepted, at least three.
        states: The angles there, float64 and continuous in time, shape ``(steps + 1, batch, *event)``.
        dtype: That of the angles which the field is given.
        probes: The directions at a node, given its number: see :func:`jacobian_trace`. The same at all nodes, they
            have ``k`` integrals of their own; drawn afresh at each, their errors average out along the path.
        tolerance: The tolerance of the quadrature in each step and sample, nats.
        doubt: How far the score may be from the gradient of the flow's own log-density, in every step and sample,
            ``(steps, batch)``: see :mod:`circsde.solvers.adjoint`. It counts twice, as it is known crudely.
    """
    steps = mesh[1:]
    if len(mesh) > 3 and (mesh[-1] - mesh[-2]) < _REMNANT * (mesh[-2] - mesh[-3]):
        mesh, states = np.delete(mesh, -2), torch.cat((states[:-2], states[-1:]))
    samples: dict[float, tuple[Tensor, Tensor]] = {}

    def sample(t: float, x: Tensor, speed: Tensor | None) -> Tensor:
        where = torch.tensor(t, dtype=torch.float64)
        velocity, score, divergence = flow.linearise(where, wrap(x).to(dtype), probes(len(samples)))
        velocity = velocity.double()
        score, residual = score.double(), (velocity if speed is None else speed).sub(velocity)
        correction = (score * residual).flatten(1).sum(1)
        weight = score.flatten(1).norm(dim=1) + 2.0 * doubt[min(int(np.searchsorted(steps, t)), len(doubt) - 1)]
        size = weight * residual.flatten(1).norm(dim=1)
        samples[t] = divergence - correction, size
        return velocity

    velocities = [sample(t, x, None) for t, x in zip(mesh.tolist(), states, strict=True)]
    known, edges = torch.stack((states, torch.stack(velocities))), mesh
    most = 4 * len(mesh)
    while True:
        times = nodes(edges).tolist()
        for t in times:
            if t not in samples:
                stencil = hermite(mesh, t)
                near = known[:, stencil.first : stencil.first + stencil.position.shape[1]]
                x, speed = (torch.tensordot(near.new_tensor(w), near, 2) for w in (stencil.position, stencil.velocity))
                sample(t, x, speed)
        quadrature = rule(edges)
        weights, embedded = states.new_tensor(quadrature.weights), states.new_tensor(quadrature.embedded)
        values, sizes = (torch.stack(x)[quadrature.samples] for x in zip(*map(samples.get, times), strict=True))
        errors = torch.einsum("sn,snkb->sb", weights - embedded, values).abs() / values.shape[2]
        rough = (errors.amax(1) > tolerance).cpu().numpy()
        if not rough.any() or len(edges) + rough.sum() > most:
            break
        edges = np.sort(np.append(edges, middle(edges)[rough]))
    corrections = torch.einsum("sn,snb->b", embedded, sizes)
    total = np.zeros(len(times))
    np.add.at(total, quadrature.samples, quadrature.weights)
    drawn = torch.stack([samples[t][0] for t in times])
    return Integrated(drawn, states.new_tensor(total), errors.sum(0) + corrections, len(samples))

r"""The likelihood of a diffusion model through its probability flow (eq. 5), with its errors.

The flow is solved for the angles alone; the divergence is then integrated along the path that was found. For any path
``x`` from ``theta_0``, not only for the flow's own,

    ``log p_0(theta_0) = log p_T(x_T) + integral of div v - score . (x' - v) dt``,

because ``d/dt log p_t(x) = -div v + score . (x' - v)``. So the residual ``x' - v`` of the numerical path, interpolation
included, is known, corrected for, and reported. The identity is exact where ``score`` is that of the flow's law; a
learnt score makes the correction approximate, but not its limit, as the residual falls with the tolerance. By how much
is known from the gradient of the flow's own log-density, which the adjoint equation gives.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from circsde.contracts import Law
from circsde.sde import SDE
from circsde.solvers.adjoint import mismatch
from circsde.solvers.brownian import draw_seed
from circsde.solvers.checks import check_angles
from circsde.solvers.colouring import colours_of
from circsde.solvers.divergence import FlowField, Probes
from circsde.solvers.hutchinson import first_probes, over_probes
from circsde.solvers.recomputed import RecomputedFlow, check_gradients
from circsde.solvers.solution import Status
from circsde.solvers.trajectory import FIXED, Trajectory, trajectory
from circsde.torus import wrap
from circsde.typing import Angles, Field, PerSample

_LOOK = 0.38  # the time at which the score is checked, as a part of the horizon
_ROUGH = 1e-4  # nats; from this tolerance on, derivatives in single precision err far less


@dataclass(frozen=True)
class LogProb:
    """Log-densities with their errors, one per sample.

    Attributes:
        value: ``log p_0(theta)`` in nats with respect to ``d theta`` on ``[-pi, pi)^d``, float64; NaN where it failed.
        stderr: Its standard error over n probes, times the 97.5 % quantile of Student's law with n - 1 degrees of
            freedom over that of the normal law, so that ``value +- 1.96 stderr`` holds with 95 % for few probes, too.
            Of probes that are drawn afresh at every node, variances at all of them are added, with more freedom.
            0 where the divergence is exact; NaN with a single probe, and where fewer than 32 signs agree to rounding:
            probes of signs may miss what they estimate, all of them alike.
        error: An estimate of the discretisation error, nats, meant to bound it: over all steps, the errors of the
            quadrature plus the integral of ``(|score| + 2 |a - score|) |x' - v|``, where ``a`` is the gradient of the
            log-density that the flow itself has (:mod:`circsde.solvers.adjoint`), so that it holds for scores which
            are not those of any law. At tolerances of 1e-3 and below it was above the true error in more than 95 % of
            samples of each of twelve inexact scores and three networks (at 1e-2 in 91 %, of a score of zero), and its
            median 3 to 300 times that; of exact scores, whose error is of second order, up to 2,000 times. It knows
            nothing of rounding. NaN where the score has no second derivative by ``torch.func``. With probes that are
            fresh at every node it counts their noise, too.
        nfe: Evaluations of the score; with its derivative at the nodes of the quadrature, ``4 steps + 1`` or more,
            and once per step for ``error``. A few at four points, where the score is checked, are not counted.
        probes: The number of probes; 0 where the divergence is exact.
        status: ``"success"``, ``"max_probes"`` (``stderr`` missed its target), or why the flow was given up.
        message: About the first sample that failed.

    >>> result = LogProb(torch.tensor([-1.5, -2.5]), *torch.zeros(4, 2), ("success",) * 2)
    >>> result.value.mean().item()  # nats
    -2.0
    """

    value: PerSample
    stderr: PerSample
    error: PerSample
    nfe: Tensor
    probes: Tensor
    status: tuple[str, ...]
    message: str = ""


def log_prob(
    sde: SDE,
    score: Field,
    theta: Angles,
    *,
    prior: Law | None = None,
    divergence: str = "exact",
    probes: int | None = None,
    probe_law: str = "rademacher",
    stderr_target: float | None = None,
    max_probes: int = 1024,
    fresh_probes: bool | None = None,
    method: str = "dopri5",
    atol: float = 1e-6,
    n_steps: int | None = None,
    max_step: float | None = None,
    max_steps: int = 10_000,
    batch_size: int | None = None,
    generator: torch.Generator | int | None = None,
    first_sample: int = 0,
    wrt: Sequence[Tensor] = (),
) -> LogProb:
    r"""Compute the log-density of ``theta`` under the probability flow of ``sde`` and ``score`` from ``prior`` (eq. 5).

    An adaptive method keeps, in each step and sample, below ``atol`` both the error of the angles (root mean square,
    rad) and the change of the log-density that it causes, ``|score . error|`` (nats).

    Args:
        sde: The forward equation.
        score: ``(t, theta) -> grad log p_t(theta)``, 1/rad; differentiable by ``torch.func``.
        theta: Angles ``(batch, *event)``, radians. Whole turns do not change the result.
        prior: The law at the horizon, of one angle, of every oscillator, or joint; by default ``sde.settled_law()``.
            If the angles have not reached it by then, values are wrong: see :mod:`circsde.sampling.mismatch`.
        divergence: ``"exact"``, at the cost of one backward pass per angle; ``"hutchinson"``, at one per probe; or
            ``"probing"``, at one per probe, for images whose score at a pixel depends on pixels nearby: its signs leave
            out all pairs of near pixels (:mod:`circsde.solvers.colouring`), in two sets or more.
        probes: The number of probes per sample, by default 1, and 64 of probing, for which it should be a power of two.
            With as many as there are angles the exact trace costs no more, and is taken instead.
        probe_law: The probe law of ``"hutchinson"``: ``"rademacher"``, random signs, or ``"gaussian"``.
        stderr_target: The standard error to reach. The probes of a sample are doubled, from 32 at least, until its
            standard error is no larger, or until they would be as many as there are angles: then the trace is exact.
        max_probes: The largest number of probes, at least 2.
        fresh_probes: Draw each probe anew at every node of the quadrature. Still unbiased, with a far smaller standard
            error at the same cost, and one that is known well from two probes. It is the default of probing. It
            is not that of Hutchinson's because ``value`` then changes within its standard error with the steps, so with
            the tolerance and the batch, and ``error`` takes the noise for an error.
        method: The method, as for :func:`circsde.odeint`.
        atol: The tolerance of an adaptive method, and of the quadrature in each of its steps. From 1e-4 on, a
            ``ScoreMLP`` has the derivatives of an exact divergence in single precision, unless there is ``wrt``.
        n_steps: The steps of a fixed-step method, at least 2.
        max_step: The longest step of an adaptive method, as for :func:`circsde.odeint`.
        max_steps: The most steps to try.
        batch_size: Samples to work on together: a bound on memory, 16 bytes per sample, angle and step for the path.
        generator: The generator of the probes, or a seed. A sample's probes depend on the seed and its index only.
        first_sample: The index of the first sample.
        wrt: Tensors in which ``value`` shall be differentiable: ``theta``, parameters of the score, of the equation.
            Its gradients are those of the computed value on the steps that were taken, to rounding, and so those of
            the exact log-density to the tolerance. Steps and nodes are computed again in the backward pass: 80 bytes
            per angle and step are kept, whatever the network. Take a one-step method and a twice differentiable score.

    Raises:
        ValueError: If the SDE has no default prior, a choice is unknown, angles have the wrong shape, or the score, or
            a drift whose divergence is not known, is random or has a derivative by ``torch.func`` that is not its own.
        TypeError: If the angles are not floating-point, or of a dtype that the score does not take.

    Sources: Chen et al. 2018, arXiv 1806.07366; Song et al. 2021, arXiv 2011.13456; for weighting residuals by the
    adjoint Becker and Rannacher 2001, doi:10.1017/S0962492901000010.

    >>> from circsde.laws.distributions import VonMises
    >>> from circsde.kuramoto import KuramotoSDE
    >>> from circsde.schedule import Schedule
    >>> sde = KuramotoSDE((3,), schedule=Schedule.constant(reference=2.0))
    >>> law = VonMises(0.0, 2.0)  # stationary: the flow stands still
    >>> theta = torch.tensor([[0.1, 2.0, -3.0]])
    >>> result = log_prob(sde, lambda t, theta: law.score(theta), theta)
    >>> abs(result.value - law.log_prob(theta).sum()).item() < 1e-6
    True
    """
    check_angles(theta, name="theta")
    probing = divergence == "probing"
    probes = (64 if probing else 1) if probes is None else probes
    _check_choices(sde, theta, divergence, probes, probe_law, stderr_target, max_probes, method, n_steps)
    flow = FlowField(sde, score, rough=method not in FIXED and atol >= _ROUGH)
    flow.check(torch.tensor(_LOOK * sde.horizon, dtype=torch.float64), wrap(theta))
    prior = sde.settled_law() if prior is None else prior
    if wrt:
        check_gradients(flow, partial(log_density, prior), wrap(theta.detach()), wrt, method)
    solve = partial(
        trajectory,
        ts=(0.0, sde.horizon),
        method=method,
        atol=atol,
        n_steps=n_steps,
        max_step=max_step,
        max_steps=max_steps,
    )
    seed, law = 0 if divergence == "exact" else draw_seed(generator), None
    fresh_probes = probing if fresh_probes is None else fresh_probes
    colours = colours_of(first_probes(probes, stderr_target, max_probes)) if probing else 1
    size = len(theta) if batch_size is None else batch_size
    precision = math.inf if method in FIXED or fresh_probes else atol
    parts = []
    theta = theta if any(one is theta for one in wrt) else theta.detach()
    recorded = RecomputedFlow(flow, [one for one in wrt if one is not theta], method) if wrt else flow
    with torch.set_grad_enabled(bool(wrt)):
        for first in range(0, len(theta), size):
            if divergence != "exact":
                name = "lattice" if probing else probe_law
                law = Probes(name, seed, first_sample + first, fresh_probes, colours)
            average = partial(over_probes, precision, law, probes, stderr_target, max_probes)
            weigh = partial(mismatch, flow, prior, Probes("rademacher", seed, first_sample + first))
            parts.append(_log_prob(recorded, theta[first : first + size], first, solve, prior, weigh, average))
        result = _join(parts)
    reached = [True] * len(theta) if stderr_target is None else (result.stderr <= stderr_target).tolist()
    status = (
        Status.MAX_PROBES if done == Status.SUCCESS and not enough else done
        for enough, done in zip(reached, result.status, strict=True)
    )
    return replace(result, status=tuple(status))


def _log_prob(
    flow: FlowField,
    theta: Angles,
    first: int,
    solve: Callable[..., Trajectory],
    prior: Law,
    weigh: Callable[..., Tensor],
    average: Callable[..., tuple[Tensor, ...]],
) -> LogProb:
    """The log-densities of the samples from number ``first`` on, solved together; samples that fail drop out."""
    batch = len(theta)
    nfe, probes = torch.zeros(2, batch, dtype=torch.int64)
    value, stderr, error = (torch.full((batch,), math.nan, dtype=torch.float64, device=theta.device) for _ in range(3))
    status, message = [Status.SUCCESS] * batch, ""
    kept = list(range(batch))
    while kept:
        with torch.no_grad():
            path = solve(flow, theta[kept], weight=lambda: flow.latest)
        stats = path.stats
        nfe[kept] += stats.nfe
        if stats.status == Status.SUCCESS:
            mesh, states = np.array(list(path.states)), torch.stack(list(path.states.values()))
            with torch.no_grad():
                doubt = weigh(mesh, states, theta, kept)
            if isinstance(flow, RecomputedFlow):
                states = flow.path(mesh, states, theta[kept])
            integral, stderr[kept], error[kept], probes[kept], nodes = average(flow, mesh, states, theta, kept, doubt)
            value[kept] = log_density(prior, wrap(states[-1])) + integral
            nfe[kept] += nodes + len(doubt)
            break
        lost = set(kept) if stats.status == Status.MAX_STEPS else {kept[i] for i in stats.samples}
        for i in lost:
            status[i] = stats.status
        reason = f"{stats.message.partition(',')[0]}, sample {first + min(lost)}:{stats.message.partition(':')[2]}"
        message = message or reason
        kept = [i for i in kept if i not in lost]
    for i in (~value.isfinite()).nonzero().flatten().tolist():
        if status[i] == Status.SUCCESS:
            status[i] = Status.NON_FINITE
            message = message or f"sample {first + i}: the divergence or the prior is not finite along its path"
    return LogProb(value, stderr.detach(), error.detach(), nfe, probes, tuple(status), message)


def _join(parts: list[LogProb]) -> LogProb:
    """The parts of a batch as one."""
    value, stderr, error, nfe, probes = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("value", "stderr", "error", "nfe", "probes")
    )
    status = tuple(status for part in parts for status in part.status)
    message = next((part.message for part in parts if part.message), "")
    return LogProb(value, stderr, error, nfe, probes, status, message)


def log_density(prior: Law, theta: Angles) -> PerSample:
    """``log p(theta)`` of each sample, nats, for a law of one angle, of every angle, or of all of them together.

    Raises:
        ValueError: If the law answers with another shape.
    """
    value = prior.log_prob(theta)
    if value.shape == theta.shape:
        return value.double().flatten(1).sum(1)
    if value.shape != theta.shape[:1]:
        raise ValueError(
            f"the prior must give a log-density per angle, {tuple(theta.shape)}, or per sample, ({len(theta)},), got"
            f" {tuple(value.shape)}"
        )
    return value.double()


def _check_choices(
    sde: SDE,
    theta: Tensor,
    divergence: str,
    probes: int,
    probe_law: str,
    target: float | None,
    most: int,
    method: str,
    n_steps: int | None,
) -> None:
    if sde.event_shape not in (None, theta.shape[1:]):
        raise ValueError(f"theta must have shape (batch, *{tuple(sde.event_shape or ())}), got {tuple(theta.shape)}")
    if divergence not in ("exact", "hutchinson", "probing"):
        raise ValueError(f'divergence must be "exact", "hutchinson" or "probing", got {divergence!r}')
    if probe_law not in ("rademacher", "gaussian"):
        raise ValueError(f'probe_law must be "rademacher" or "gaussian", got {probe_law!r}')
    if divergence == "exact" and target is not None:
        raise ValueError(
            'the exact divergence has no standard error: drop stderr_target, or choose "hutchinson" or "probing"'
        )
    if probes < 1 or not (target is None or target > 0):
        raise ValueError(f"probes must be at least 1 and stderr_target positive, got {probes} and {target}")
    if target is not None and most < 2:
        raise ValueError(f"a standard error needs at least 2 probes, got max_probes={most}: raise it for stderr_target")
    if method in FIXED and n_steps is not None and n_steps < 2:
        raise ValueError(f"a likelihood needs at least 2 steps to estimate its error, got n_steps={n_steps}")

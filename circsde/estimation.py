r"""Estimates of an equation from observed phases, by the likelihood of steps, with their standard errors.

Between observations that are near in time a step is a wrapped normal (eq. 6),
``theta_{n+1} | theta_n ~ WN(theta_n + h f(t_n, theta_n), g(t_n) sqrt(h))``. Its likelihood is maximised over the
parameters, and its curvature there, the observed information, gives their covariance.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from circsde.contracts import Law
from circsde.one_step import transition as one_step
from circsde.sde import SDE
from circsde.torus import require_finite

Parameters = Mapping[str, Tensor]
"""Parameters by name, float64, of any shapes."""

_BLIND = 1e-12  # relative to the largest information: below it the data say nothing about a parameter
_COLLINEAR = 1e-9  # the least eigenvalue of the information, its diagonal made one
_SETTLED = 1e-8  # twice the log-likelihood that another Newton step would gain


@dataclass(frozen=True)
class Fit:
    """Estimates of the parameters of an equation.

    Attributes:
        estimates: Values by name.
        stderr: Their standard errors, from the observed information; of positive parameters to first order.
        log_likelihood: The log-likelihood at the estimates, nats.
        steps: How many steps of how many angles were seen, in all.
        covariance: The covariance of all parameters in a row; positive ones by their logarithms.
        positive: The names of these.
    """

    estimates: dict[str, Tensor]
    stderr: dict[str, Tensor]
    log_likelihood: float
    steps: int
    covariance: Tensor
    positive: frozenset[str]

    def interval(self, name: str, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """The ends of the confidence interval of a parameter; symmetric, of a positive one on its logarithm.

        Raises:
            KeyError: If there is no such parameter.
            ValueError: If the level is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"a confidence level lies between 0 and 1, got {level}")
        z = math.sqrt(2.0) * float(torch.erfinv(torch.tensor(level, dtype=torch.float64)))
        value, error = self.estimates[name], z * self.stderr[name]
        if name in self.positive:
            return value * torch.exp(-error / value), value * torch.exp(error / value)
        return value - error, value + error


def fit(
    theta: Float[Tensor, "time sample *event"],
    ts: Float[Tensor, " time"],
    model: Callable[[Parameters], SDE],
    start: Mapping[str, float | Tensor],
    *,
    positive: Collection[str] = (),
    transition: Callable[[SDE, Tensor, Tensor, Tensor], Law] = one_step,
    most: int = 200,
) -> Fit:
    r"""Estimate the parameters of an equation from phases that were observed at many times.

    The drift of a step is that at its beginning, so that the time between observations has to be short: near a phase
    that attracts at the rate ``k``, the estimate of ``k`` tends to ``(1 - e^{-h k}) / h``, 2.5 % too small at
    ``h k = 0.05``. For one or two angles at any distance in time there is
    :func:`circsde.exact.transition.spectral_transition`.

    Args:
        theta: Observed angles, radians, ``(time, sample, *event)``, wrapped or not.
        ts: Times, increasing, in the units of the equation.
        model: The equation of given parameters, such as ``lambda p: KuramotoSDE(n, GlobalCoupling(p["lag"]),
            Schedule.constant(p["K"], 0.0, p["D"]))``; its horizon is not read.
        start: The values to begin from, by name. Of several maxima the nearest one is found.
        positive: The parameters that are positive; the search is for their logarithms.
        transition: The law after a step, ``(sde, t, h, theta) -> law``; by default that of one Euler-Maruyama step.
        most: Iterations at most.

    Raises:
        ValueError: If data and times do not fit, angles are not finite, a start is not positive, there are fewer steps
            than parameters, or the data do not identify them: which, and what to do, is said.
        RuntimeError: If no maximum is found.

    Sources: Kutoyants, 2004, doi:10.1007/978-1-4471-3866-2; the observed information, Efron and Hinkley, 1978,
    doi:10.1093/biomet/65.3.457.

    >>> from circsde.solvers.integrate import sdeint
    >>> turning = lambda p: SDE(lambda t, theta: p["w"] + 0.0 * theta, p["g"])
    >>> truth = turning({"w": torch.tensor(2.0), "g": torch.tensor(0.5)})
    >>> ts = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)
    >>> solution = sdeint(truth, torch.zeros(20, 1), ts, n_steps=100, generator=0)
    >>> found = fit(solution.theta, ts, turning, {"w": 0.0, "g": 1.0}, positive=("g",))
    >>> round(found.stderr["w"].item(), 2), round(found.estimates["g"].item(), 1)  # about 0.5 / sqrt(20)
    (0.12, 0.5)
    """
    if theta.ndim < 3 or ts.shape != theta.shape[:1] or len(ts) < 2 or not bool((ts.diff() > 0).all()):
        raise ValueError(
            "expected angles over two or more increasing times, samples and oscillators, got angles of shape"
            f" {tuple(theta.shape)} and times of shape {tuple(ts.shape)}"
        )
    require_finite(theta, "observed angles")
    shapes = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in start.items()}
    if unknown := set(positive) - set(shapes):
        raise ValueError(f"positive names {sorted(unknown)}, which are no parameters: those are {list(shapes)}")
    if wrong := [name for name in positive if not bool((shapes[name] > 0).all())]:
        raise ValueError(f"{', '.join(wrong)} must start above 0, as they are positive")
    sizes = [value.numel() for value in shapes.values()]
    steps = theta[1:].numel()
    if steps < sum(sizes):
        raise ValueError(f"{steps} steps of angles are fewer than {sum(sizes)} parameters: observe more, or fit fewer")

    def unpack(x: Tensor) -> dict[str, Tensor]:
        parts = zip(shapes.items(), torch.split(x, sizes), strict=True)
        return {name: (p.exp() if name in positive else p).reshape(value.shape) for (name, value), p in parts}

    before, after = theta[:-1].double().flatten(0, 1), theta[1:].double().flatten(0, 1)
    times, widths = (t.double().repeat_interleave(theta.shape[1]) for t in (ts[:-1], ts.diff()))

    def loss(x: Tensor) -> Tensor:
        law = transition(model(unpack(x)), times, widths, before)
        return -law.log_prob(after).sum()

    x = torch.cat([(v.log() if name in positive else v).flatten() for name, v in shapes.items()])
    x, information = _maximum(loss, x, most, lambda: [*_labels(shapes)])
    covariance = torch.linalg.inv(information)
    estimates = unpack(x)
    errors = dict(zip(shapes, torch.split(covariance.diagonal().sqrt(), sizes), strict=True))
    stderr = {name: errors[name].reshape(v.shape) * (v if name in positive else 1.0) for name, v in estimates.items()}
    return Fit(estimates, stderr, -loss(x).item(), steps, covariance, frozenset(positive))


def _maximum(
    loss: Callable[[Tensor], Tensor], x: Tensor, most: int, labels: Callable[[], list[str]]
) -> tuple[Tensor, Tensor]:
    """Minimise a loss by Newton's method, first in a trust region, then without; also returns its curvature there."""

    def value_and_slope(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        point = torch.from_numpy(at.copy()).requires_grad_()
        value = loss(point)
        (slope,) = torch.autograd.grad(value, point)
        return value.item(), slope.numpy()

    def curvature(at: NDArray[np.float64]) -> NDArray[np.float64]:
        found: Tensor = torch.autograd.functional.hessian(loss, torch.from_numpy(at))  # type: ignore[no-untyped-call]
        return found.numpy()

    options: Any = {"maxiter": most, "gtol": 1e-2, "initial_trust_radius": 0.5}
    found = minimize(value_and_slope, x.numpy(), jac=True, hess=curvature, method="trust-exact", options=options)
    x = torch.from_numpy(found.x)
    for _ in range(20):
        slope = torch.autograd.functional.jacobian(loss, x)  # type: ignore[no-untyped-call]
        information = torch.autograd.functional.hessian(loss, x)  # type: ignore[no-untyped-call]
        if not bool(slope.isfinite().all() and information.isfinite().all()):
            raise RuntimeError("the likelihood is not finite near where the search went: start elsewhere")
        _check_identified(information, labels())
        step = torch.linalg.solve(information, slope)
        x = x - step
        if float(step @ slope) < _SETTLED:
            return x, information
    raise RuntimeError("no maximum of the likelihood was found: start nearer to it, or allow more iterations by most=")


def _check_identified(information: Tensor, labels: list[str]) -> None:
    """Raise ValueError where the likelihood does not change along a parameter or a combination of them."""
    own = information.diagonal()
    blind = [label for label, value in zip(labels, own, strict=True) if value <= _BLIND * own.max()]
    if blind:
        raise ValueError(
            f"the data say nothing about {', '.join(blind[:5])}: leave these parameters out of the model (such as the"
            " weight of an oscillator in its own sum), or observe more states"
        )
    scale = own.sqrt()
    least, direction = (x[..., 0] for x in torch.linalg.eigh(information / scale / scale[:, None]))
    if least < -_COLLINEAR:
        raise RuntimeError("the search ended where the likelihood has no maximum: start elsewhere")
    if least < _COLLINEAR:
        shown = direction.abs().argsort(descending=True)[:4].tolist()
        part = " ".join(f"{direction[i].item():+.2f} {labels[i]}" for i in shown)
        raise ValueError(
            f"the data do not tell the parameters apart: along {part} (each over its own standard error) the likelihood"
            " does not change; fix one of them, or observe states that differ, such as oscillators out of step"
        )


def _labels(shapes: Parameters) -> list[str]:
    """A label for every scalar parameter."""
    return [
        name if value.ndim == 0 else f"{name}[{', '.join(map(str, index))}]"
        for name, value in shapes.items()
        for index in product(*map(range, value.shape))
    ]

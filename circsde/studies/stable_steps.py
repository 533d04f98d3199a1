"""How long a step of a method may be on an equation: by the linearisation of its drift, in time."""

import numpy as np
import torch
import xarray as xr
from scipy.sparse.linalg import LinearOperator, eigs
from torch import Tensor

from circsde.record import provenance
from circsde.sde import SDE
from circsde.solvers.methods import Method
from circsde.solvers.registry import find_method
from circsde.solvers.solution import Solution
from circsde.solvers.stability import Numbers, longest_steps
from circsde.streams import torch_stream
from circsde.studies.experiment import Simulation
from circsde.studies.statistics import Array
from circsde.torus import TWO_PI
from circsde.typing import Angles, Field

MOST_STATES = 32
"""The most states at which the drift is linearised at one time; the first are taken."""

_TINY = 1e-300
_TIMES = 9
_DENSE = 64  # angles up to which all eigenvalues are found
_LARGEST = 4  # eigenvalues that are found of more angles, those of the largest size
_FEW = 2  # states of so many angles


@torch.no_grad()
def stability(method: str | Method, sde: SDE, states: Angles | Solution | None = None) -> xr.Dataset:
    r"""Find the longest step for which a method is stable on an equation, from the linearisation of the drift.

    At each time and state, every eigenvalue of the drift's Jacobian that falls bounds the step by the method's region
    of stability (:mod:`circsde.solvers.stability`). Of the Moebius methods only the part of the drift that is not
    sinusoidal does so. That is necessary where paths stay near such states, and says nothing of accuracy: twice
    shorter steps are a beginning. An equation that knows its rates, as :class:`~circsde.KuramotoSDE`, adds the bound by
    these, which :func:`circsde.sdeint` warns of.

    Args:
        method: A name or a method.
        sde: The equation.
        states: Where the drift is linearised, the first :data:`MOST_STATES` of them: a solution, at its times; or
            angles ``(batch, *event)``, at nine times over the horizon. By default angles that are alike, and angles
            that are uniform, which paths of a network's drift may never come to: then give a solution.

    Returns:
        Over ``time``: ``step``, infinite where any is stable, and ``rate_real`` and ``rate_imag``, 1/time, of the
        eigenvalue that bounds it; ``longest``, the least of these steps, and ``least_steps``, how many equal steps that
        takes over the horizon.

    Raises:
        ValueError: If the method is not known, angles are needed and the equation does not know its event shape, or the
            drift is not finite.
        TypeError: If the method is one of reversed equations, whose steps are no function of a drift.

    >>> from circsde.kuramoto import KuramotoSDE
    >>> from circsde.schedule import Schedule
    >>> found = stability("heun", KuramotoSDE((3,), schedule=Schedule.linear((0.0, 4.0, 1.0), (0.0, 50.0, 1.0))))
    >>> round(found.longest.item(), 6), found.least_steps.item(), round(found.step[0].item(), 6)
    (0.04, 25.0, 0.5)
    """
    chosen = find_method(method, sde)
    if isinstance(states, Solution):
        at = [(float(t), theta[:MOST_STATES]) for t, theta in zip(states.ts, states.theta, strict=True)]
    else:
        theta = _states(sde) if states is None else states[:MOST_STATES]
        at = [(sde.horizon * i / (_TIMES - 1), theta) for i in range(_TIMES)]
    bounds = [_bound(chosen, sde, t, theta) for t, theta in at]
    steps, rates = (np.array(part) for part in zip(*bounds, strict=True))
    longest = float(steps.min())
    per_time = {"units": "1/time"}
    return xr.Dataset(
        {
            "step": ("time", steps, {"long_name": "longest stable step"}),
            "rate_real": ("time", rates.real, per_time | {"long_name": "real part of the rate that bounds it"}),
            "rate_imag": ("time", rates.imag, per_time | {"long_name": "its imaginary part"}),
            "longest": ((), longest, {"long_name": "the least of these steps"}),
            "least_steps": ((), max(1.0, np.ceil(sde.horizon / max(longest, _TINY) * (1.0 - 1e-9)))),
        },
        coords={"time": ("time", [t for t, _ in at])},
        attrs=provenance(method=chosen.name, horizon=sde.horizon),
    )


def _states(sde: SDE) -> Angles:
    """Half of them uniform, and half of them with angles that are alike, all the way around."""
    uniform = Simulation(sde).sample(MOST_STATES // 2, torch_stream(0, "checks"))
    around = torch.arange(MOST_STATES // 2).to(uniform) * (TWO_PI / (MOST_STATES // 2))
    return torch.cat((around.reshape(-1, *(1,) * (uniform.ndim - 1)).expand_as(uniform), uniform))


def _bound(method: Method, sde: SDE, t: float, theta: Angles) -> tuple[float, complex]:
    """The longest step at a time, and the rate that bounds it."""
    field: Field | None = sde.drift
    rates = [np.zeros(1, complex)]
    if not method.explicit:
        field = _remainder(sde) if sde.composite else None
    elif sde.attraction(t) > 0.0:
        rates.append(np.array([-sde.attraction(t)], complex))
    if field is not None:
        rates.append(eigenvalues(field, t, theta))
    every = np.concatenate(rates)
    steps = longest_steps(method, every)
    least = int(steps.argmin())
    return float(steps[least]), complex(every[least])


def _remainder(sde: SDE) -> Field:
    def field(t: float | Tensor, theta: Angles) -> Tensor:
        rest = sde.remainder(t, theta)
        assert rest is not None
        return rest

    return field


def eigenvalues(field: Field, t: float, theta: Angles) -> Numbers:
    """Eigenvalues of the Jacobian of a field at each of some states, 1/time, by central differences.

    All of them for up to 64 angles, else the few of the largest size, by Arnoldi's method.

    Raises:
        ValueError: If the field is not finite.
    """
    event, d = theta.shape[1:], theta[0].numel()
    small = torch.finfo(theta.dtype).eps ** (1.0 / 3.0)

    def product(state: Angles, directions: Tensor) -> Tensor:
        """The Jacobian at a state, applied to directions ``(k, d)``."""
        moves = small * directions.reshape(-1, *event)
        ahead, back = (field(t, state + sign * moves) for sign in (1.0, -1.0))
        slope: Tensor = ((ahead - back) / (2.0 * small)).flatten(1).double()
        if not bool(slope.isfinite().all()):
            raise ValueError(f"the drift is not finite at t = {t:g}: give states at times where it is")
        return slope

    if d <= _DENSE:
        one = torch.eye(d, dtype=theta.dtype, device=theta.device)
        found = [np.linalg.eigvals(product(state, one).cpu().numpy().T) for state in theta]
        return np.concatenate(found).astype(np.complex128)
    start = torch.randn(d, generator=torch_stream(0, "checks"), dtype=torch.float64).numpy()

    def largest(state: Angles) -> Numbers:
        def matvec(v: Array) -> Array:
            size = max(float(np.abs(v).max()), _TINY)
            direction = torch.from_numpy(v.ravel() / size).to(theta)
            applied: Array = product(state, direction[None])[0].cpu().numpy()
            return applied * size

        found: Numbers = eigs(
            LinearOperator((d, d), matvec=matvec, dtype=np.float64),
            k=_LARGEST,
            v0=start,
            tol=1e-3,
            return_eigenvectors=False,
        )
        return found

    return np.concatenate([largest(state) for state in theta[:_FEW]])

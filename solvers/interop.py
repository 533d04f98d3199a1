r"""torchsde in both directions: its Brownian motions and methods here, our methods on its Brownian motions there.

Every SDE of this package is a torchsde SDE already and goes unchanged into ``torchsde.sdeint(sde, y0, ts, ...)``, its
state flattened to ``(batch, d)``. Pass ``ts`` as a float64 tensor there: torchsde steps in the dtype of ``ts``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torchsde import BrownianInterval

from circsde.sde import SDE
from circsde.solvers.brownian import Noise
from circsde.solvers.grid import resolution
from circsde.solvers.methods import Method
from circsde.solvers.registry import find_method
from circsde.streams import torch_stream
from circsde.torus import TWO_PI
from circsde.typing import Angles, Tangent, Time

try:  # what torchsde 0.2.6 keeps to itself, and a bridge to its methods needs
    from torchsde._core.base_sde import ForwardSDE
    from torchsde._core.base_solver import BaseSDESolver
    from torchsde._core.methods import select
except ImportError as error:
    raise ImportError(
        f"this bridge was written for torchsde 0.2.6, and {version('torchsde')} is built otherwise: install 0.2.6, or"
        " use the methods of circsde.solvers.METHODS, which do not need it"
    ) from error

_TIMES, _STATES = 8, 16  # times and states at which a diffusion is tried, whether it depends on the state


@runtime_checkable
class DiagonalSDE(Protocol):
    """A torchsde SDE with diagonal noise: ``f`` and ``g`` map ``(t, y)`` to ``(batch, d)``."""

    noise_type: str

    def f(self, t: Any, y: Tensor) -> Tensor:
        """The drift."""

    def g(self, t: Any, y: Tensor) -> Tensor:
        """The diagonal of the diffusion."""


def from_torchsde(sde: DiagonalSDE, dim: int, horizon: float) -> SDE:
    """An SDE on the torus of ``dim`` angles from a torchsde SDE with diagonal, additive noise.

    It is given times as torchsde gives them, as tensors in the dtype of the state. Its parameters, if it is a module,
    are parameters of the result. Whether its diffusion depends on the state is seen at random states and times.

    Raises:
        ValueError: If its noise is not diagonal, its diffusion depends on the state, or, at any call, its drift or its
            diffusion is not of the shape of the state.
    """
    if sde.noise_type != "diagonal":
        raise ValueError(f'the SDE must have noise_type "diagonal", got {sde.noise_type!r}')
    own = next(iter(sde.parameters()), None) if isinstance(sde, nn.Module) else None
    origin = torch.zeros(1, dim, dtype=torch.float64) if own is None else own.new_zeros(1, dim)

    def called(name: str, t: Time, y: Tensor) -> Tensor:
        value: Tensor = getattr(sde, name)(torch.as_tensor(t, dtype=y.dtype, device=y.device), y)
        if value.shape != y.shape:
            raise ValueError(f"{name}(t, y) must have the shape of y, {tuple(y.shape)}, got {tuple(value.shape)}")
        return value

    def drift(t: Time, theta: Angles) -> Tangent:
        return called("f", t, theta)

    def diffusion(t: Time) -> Tensor:
        return called("g", t, origin)[0]

    generator = torch_stream(0, "checks")
    for t in (horizon * torch.rand(_TIMES, generator=generator)).tolist():
        states = TWO_PI * torch.rand(_STATES, dim, generator=generator, dtype=torch.float64).to(origin) - math.pi
        called("f", t, states)
        amplitudes = called("g", t, states).detach()
        most = 8.0 * torch.finfo(amplitudes.dtype).eps * amplitudes.abs().amax(0)
        if bool(((amplitudes - diffusion(t).detach()).abs() > most).any()):
            raise ValueError(
                f"the diffusion must not depend on the state (additive noise), but g({t:g}, y) changes with y"
            )
    converted = SDE(drift, diffusion, horizon, event_shape=(dim,))
    if isinstance(sde, nn.Module):
        converted.add_module("torchsde", sde)
    return converted


@dataclass(frozen=True)
class TorchsdePath:
    """A torchsde Brownian motion of shape ``(batch, d)`` as the ``brownian`` of :func:`circsde.sdeint`.

    For methods that read ``dZ`` it needs ``levy_area_approximation="space-time"``. Unless made with
    ``halfway_tree=True``, it is one path only as long as it is one object: the same entropy queried on another grid
    is another path.

    Raises:
        ValueError: When asked for increments before it begins or after it ends: torchsde would clip the times.
    """

    motion: BrownianInterval
    event_shape: tuple[int, ...]

    def increments(self, grid: Sequence[float], *, levy_area: bool) -> Iterator[Noise]:
        """The noise over each interval of ``grid``."""
        shape, (begins, ends) = (-1, *self.event_shape), (float(self.motion._start), float(self.motion._end))
        slack = resolution((begins, ends))
        if grid[0] < begins - slack or grid[-1] > ends + slack:
            raise ValueError(
                f"the Brownian path runs from {begins:g} to {ends:g} and was asked for {grid[0]:g} to {grid[-1]:g}:"
                " make it over the whole time"
            )
        for t0, t1 in pairwise(grid):
            dW, dZ = self.motion(t0, t1, return_U=True) if levy_area else (self.motion(t0, t1), None)
            yield Noise(dW.reshape(shape), None if dZ is None else dZ.reshape(shape))


@cache
def torchsde_method(name: str) -> Method:
    """One of torchsde's methods as a :class:`Method` for :func:`circsde.sdeint`: stepped on our grid, on the lift.

    Every SDE here has additive noise, so the Ito and the Stratonovich methods all apply. ``reversible_heun`` keeps a
    second state in torchsde; here it starts afresh at each step, which makes it Heun's method.

    Args:
        name: ``euler``, ``milstein``, ``srk``, ``heun``, ``midpoint``, ``euler_heun``, ``log_ode`` or
            ``reversible_heun``.

    Raises:
        ValueError: If torchsde has no such method.

    >>> torchsde_method("srk").nfe
    3
    """
    claims = {  # strong order, weak order, drift evaluations; for additive noise, g at the left end
        "euler": (1.0, 1.0, 1),
        "milstein": (1.0, 1.0, 1),
        "srk": (1.5, 2.0, 3),
        "heun": (1.0, 2.0, 2),
        "midpoint": (1.0, 1.0, 2),
        "euler_heun": (1.0, 1.0, 1),
        "log_ode": (1.0, 1.0, 2),
        "reversible_heun": (1.0, 2.0, 2),
    }
    if name not in claims:
        raise ValueError(f"torchsde has no method {name!r}; choose one of {', '.join(claims)}")
    strong_order, weak_order, nfe = claims[name]
    sde_type = "ito" if name in ("euler", "milstein", "srk") else "stratonovich"
    solver_class = select(name, sde_type)

    def step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
        view = _AdditiveView(sde, theta.shape[1:], sde_type, "diagonal" if name == "reversible_heun" else "additive")
        options = {"dt": h, "adaptive": False, "rtol": 0.0, "atol": 0.0, "dt_min": 0.0, "options": {}}
        solver = solver_class(sde=ForwardSDE(view), bm=_OneStep(noise), **options)
        t0, t1 = (torch.tensor(x, dtype=torch.float64) for x in (t, t + h))
        y0 = theta.flatten(1)
        y1: Tensor = solver.step(t0, t1, y0, solver.init_extra_solver_state(t0, y0))[0]
        return y1.reshape(theta.shape)

    return Method(f"torchsde:{name}", step, strong_order, weak_order, weak_order, nfe, levy_area=name == "srk")


def torchsde_solver(method: str | Method) -> type[BaseSDESolver]:
    """One of our methods as a torchsde solver class, running on torchsde's Brownian motion.

    torchsde finds its own solvers by name, so a class like this is used directly, as :func:`integrate_torchsde` does.

    Raises:
        ValueError: If the method's output is not its state: torchsde writes down the state. If it remembers earlier
            steps.
    """
    chosen = find_method(method)
    if chosen.begin is not None:
        raise ValueError(f"{chosen.name} remembers earlier steps, which torchsde does not know of; use sdeint")
    if chosen.observe is not None:
        raise ValueError(f"torchsde would write down the state of {chosen.name}, which is not its output; use sdeint")

    class Solver(BaseSDESolver):  # type: ignore[misc]  # torchsde has no types
        strong_order = chosen.strong_order
        weak_order = chosen.weak_order
        sde_type = "ito"
        noise_types = ("diagonal",)
        levy_area_approximations = (
            ("space-time", "davie", "foster") if chosen.levy_area else ("none", "space-time", "davie", "foster")
        )

        def step(self, t0: Tensor, t1: Tensor, y0: Tensor, extra0: tuple[Tensor, ...]) -> Any:
            sde: SDE = self.sde._base_sde
            shape = y0.shape if sde.event_shape is None else (len(y0), *sde.event_shape)
            drawn = self.bm(t0, t1, return_U=True) if chosen.levy_area else (self.bm(t0, t1),)
            noise = Noise(*(x.reshape(shape) for x in drawn))
            t, h = float(t0), float(t1) - float(t0)
            y1 = chosen.step(sde, t, h, y0.reshape(shape), noise)
            return y1.flatten(1), extra0

    Solver.__name__ = Solver.__qualname__ = f"{chosen.name}_solver"
    return Solver


def integrate_torchsde(
    sde: SDE, y0: Tensor, ts: Tensor, *, method: str | Method, dt: float, bm: BrownianInterval | None = None
) -> Tensor:
    """One of our methods in torchsde's loop, on its Brownian motion; lifted states ``(m, batch, d)``.

    Args:
        sde: An SDE of this package with ``sde_type="ito"``.
        y0: Flattened angles ``(batch, d)``.
        ts: Increasing times; converted to float64.
        method: A method of ours whose state is its output (all but ``leimkuhler_matthews``).
        dt: The step; torchsde interpolates where ``ts`` are not multiples of it.
        bm: Its Brownian motion; by default a new one from numpy's global random state, as torchsde does.

    Raises:
        ValueError: If the method's output is not its state, or the Brownian motion lacks the areas that it reads.
    """
    solver_class = torchsde_solver(method)
    ts = ts.double()
    if bm is None:
        bm = BrownianInterval(
            ts[0], ts[-1], tuple(y0.shape), y0.dtype, y0.device, dt=dt, levy_area_approximation="space-time"
        )
    exact = dt * (1 + 1e-12)  # torchsde accumulates t + dt and would take a last step of an ulp
    options = {"adaptive": False, "rtol": 0.0, "atol": 0.0, "dt_min": 0.0, "options": {}}
    solver = solver_class(sde=ForwardSDE(sde), bm=bm, dt=exact, **options)
    ys: Tensor = solver.integrate(y0, ts, ())[0]
    return ys


class _OneStep:
    """A torchsde Brownian motion that knows a single interval, the current step."""

    levy_area_approximation = "foster"

    def __init__(self, noise: Noise) -> None:
        self.noise = noise
        self.shape = noise.dW.flatten(1).shape

    def __call__(self, t0: Any, t1: Any, return_U: bool = False, return_A: bool = False) -> Any:  # noqa: ARG002
        area = self.noise.dZ if self.noise.dZ is None else self.noise.dZ.flatten(1)
        drawn = (self.noise.dW.flatten(1), *([area] if return_U else []), *([None] if return_A else []))
        return drawn if len(drawn) > 1 else drawn[0]


class _AdditiveView:
    """An SDE as torchsde wants additive noise: only the product of the diffusion with a vector, never a matrix."""

    def __init__(self, sde: SDE, event_shape: tuple[int, ...], sde_type: str, noise_type: str) -> None:
        self.sde, self.event_shape, self.sde_type, self.noise_type = sde, event_shape, sde_type, noise_type

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return self.sde.drift(t, y.reshape(-1, *self.event_shape)).flatten(1)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return self.g_prod(t, y, torch.ones_like(y))

    def g_prod(self, t: Tensor, y: Tensor, v: Tensor) -> Tensor:
        g = self.sde.diffusion(t)
        return (g * v.reshape(-1, *self.event_shape)).flatten(1).to(y.dtype)

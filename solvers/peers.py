"""Methods of torchdiffeq and diffrax as a :class:`Method`, so that studies measure and choose among them too.

They are stepped on our grid, on the lift, and on our Brownian paths. Those of torchsde are in
:mod:`circsde.solvers.interop`.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circsde.sde import SDE
from circsde.solvers.brownian import Noise
from circsde.solvers.methods import Method, Step
from circsde.solvers.trajectory import FIXED
from circsde.typing import Angles

DIFFRAX = {  # strong order, weak order (measured here for SRA1 and SPaRK only), drift evaluations; for additive noise
    "Euler": (1.0, 1.0, 1),
    "Heun": (1.0, 2.0, 2),
    "Midpoint": (1.0, 1.0, 2),
    "Ralston": (1.0, 1.0, 2),
    "SEA": (1.0, 1.0, 1),
    "SRA1": (1.5, 2.0, 2),
    "ShARK": (1.5, 2.0, 2),
    "SPaRK": (1.5, 2.0, 3),
    "GeneralShARK": (1.5, 2.0, 3),
    "SlowRK": (1.5, 2.0, 2),
}
"""Methods of diffrax for additive noise, which claims their strong orders."""


def torchdiffeq_method(name: str) -> Method:
    """One of torchdiffeq's one-step methods, for equations without noise, as probability flows.

    Args:
        name: ``euler``, ``midpoint``, ``heun2``, ``heun3`` or ``rk4``.

    Raises:
        ValueError: If torchdiffeq has no such one-step method.

    >>> torchdiffeq_method("rk4").weak_order
    4.0
    """
    order = FIXED.get(name, 0)
    if not order:
        known = ", ".join(one for one, order in FIXED.items() if order)
        raise ValueError(f"torchdiffeq has no one-step method {name!r}; choose one of {known}")
    from torchdiffeq import odeint  # only here, so that a solve does not need it

    def step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:  # noqa: ARG001
        if torch.as_tensor(sde.variance(t, t + h)).any():
            raise TypeError(f"torchdiffeq:{name} is for equations without noise, and this one has some: use heun")
        times = torch.tensor([t, t + h], dtype=torch.float64, device=theta.device)
        end: Tensor = odeint(sde.drift, theta, times, method=name)[1]
        return end

    return Method(f"torchdiffeq:{name}", step, float(order), float(order), float(order), nfe=order)


def diffrax_method(name: str) -> Method:
    """One of diffrax's methods for additive noise, stepped by diffrax in float64; it needs the extra ``diffrax``.

    Args:
        name: One of :data:`DIFFRAX`, as diffrax spells it.

    Raises:
        ValueError: If it is another.
        ImportError: If diffrax is not installed.
    """
    if name not in DIFFRAX:
        raise ValueError(f"diffrax has no method {name!r} for additive noise; choose one of {', '.join(DIFFRAX)}")
    strong_order, weak_order, nfe = DIFFRAX[name]
    return Method(f"diffrax:{name}", _diffrax_step(name), strong_order, weak_order, weak_order, nfe, levy_area=True)


@cache
def _diffrax_step(name: str) -> Step:
    """The step of a method of diffrax, compiled by JAX, which calls torch for drift and diffusion."""
    import diffrax
    import jax
    import lineax

    jax.config.update("jax_enable_x64", True)
    solver, equation = getattr(diffrax, name)(), list[SDE]()

    class Given(diffrax.AbstractBrownianPath):  # type: ignore[misc]
        """A path that answers with the increments of one step for any times."""

        W: Any
        H: Any
        t0: Any = 0.0
        t1: Any = 1.0
        levy_area: Any = diffrax.SpaceTimeLevyArea

        def evaluate(self, t0: Any, t1: Any = None, left: bool = True, use_levy: bool = False) -> Any:  # noqa: ARG002
            return diffrax.SpaceTimeLevyArea(t1 - t0, self.W, self.H) if use_levy else self.W

    def ask(function: Any, size: int, *given: Any) -> Any:
        return jax.pure_callback(function, jax.ShapeDtypeStruct((size,), float), *given, vmap_method="sequential")

    @jax.jit  # type: ignore[untyped-decorator]
    def advance(t: Any, h: Any, y: Any, W: Any, H: Any) -> Any:
        def drift(t: Any, y: Any) -> Any:
            at = torch.from_numpy(np.array(y)).reshape(shape[0])
            return equation[0].drift(float(t), at).numpy().reshape(-1)

        def diffusion(t: Any) -> Any:
            g = torch.as_tensor(equation[0].diffusion(float(t)), dtype=torch.float64)
            return g.expand(shape[0]).reshape(-1).numpy()

        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, y, _: ask(drift, y.size, t, y)),
            diffrax.ControlTerm(lambda t, y, _: lineax.DiagonalLinearOperator(ask(diffusion, y.size, t)), Given(W, H)),
        )
        state = solver.init(terms, t, t + h, y, None)
        return solver.step(terms, t, t + h, y, None, state, made_jump=False)[0]

    shape: list[torch.Size] = []

    def step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
        assert noise.dZ is not None
        equation[:], shape[:] = [sde], [theta.shape]
        area = noise.dZ / h - 0.5 * noise.dW  # diffrax's H, of variance h / 12
        arrays = (x.detach().double().expand(theta.shape).reshape(-1).numpy() for x in (theta, noise.dW, area))
        return torch.from_numpy(np.array(advance(t, h, *arrays))).reshape(theta.shape).to(theta)

    return step

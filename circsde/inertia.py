r"""Oscillators with inertia: the second-order Kuramoto model, the swing equation of power grids, Langevin dynamics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal

from circsde.kuramoto import KuramotoSDE, has_closed_form
from circsde.laws.settled import SettledLaw, settled_law
from circsde.sde import SDE


class GibbsMaxwell(NamedTuple):
    """A law of angles and velocities that are independent of one another.

    Attributes:
        angles: The Gibbs law of the angles of a sample.
        velocities: The Maxwell law of each velocity, ``N(0, D / (gamma m))``, rad/time.
    """

    angles: SettledLaw
    velocities: Normal


@dataclass(frozen=True)
class InertialSDE:
    r"""Oscillators that a force accelerates: ``d theta = v dt``, ``m dv = [f(t, theta) - gamma v] dt + g(t) dW``.

    The force ``f`` and the amplitude ``g`` are drift and diffusion of an equation without inertia, which this one tends
    to for ``m -> 0`` with ``gamma = 1``. With the drift of :class:`~circsde.KuramotoSDE` it is the second-order
    Kuramoto model, and with a power for each natural frequency and a line for each edge the swing equation.

    Attributes:
        sde: The equation without inertia. What it calls rad/time is a force here.
        inertia: ``m``, positive, a number or one for each oscillator. A tensor that requires a gradient gets it.
        damping: ``gamma``, not negative, likewise.

    Raises:
        ValueError: If an inertia is not positive, a damping negative, or one does not fit the oscillators.

    Sources: Ermentrout, 1991, doi:10.1007/BF00164052; Filatrella et al., 2008, doi:10.1140/epjb/e2008-00098-8.

    >>> from circsde.schedule import Schedule
    >>> grid = InertialSDE(KuramotoSDE(2, schedule=Schedule.constant(4.0, 0.0, 0.1)), inertia=2.0, damping=0.5)
    >>> round(grid.settled_law().velocities.variance.item(), 12)
    0.1
    """

    sde: SDE
    inertia: float | Tensor = 1.0
    damping: float | Tensor = 1.0
    solved_by: ClassVar[str] = "circsde.solve_inertial"

    def __post_init__(self) -> None:
        """Refuse what is no inertia or no damping."""
        for name, value, least in (("inertia", self.inertia, "positive"), ("damping", self.damping, "not negative")):
            x = torch.as_tensor(value)
            shape = self.event_shape
            if x.ndim and shape is not None and x.shape != shape:
                raise ValueError(f"{name} must be a number or have the shape {tuple(shape)}, got {tuple(x.shape)}")
            if not bool((x.isfinite() & ((x > 0) | ((x == 0) & (least == "not negative")))).all()):
                raise ValueError(f"{name} must be {least} and finite, got {value}")

    @property
    def horizon(self) -> float:
        """The last time."""
        return self.sde.horizon

    @property
    def event_shape(self) -> Sequence[int] | None:
        """The shape of one sample's angles, where it is known."""
        return self.sde.event_shape

    def settled_law(self, t: float | None = None) -> GibbsMaxwell:
        r"""The stationary law when the rates freeze at ``t`` (the horizon): Gibbs of the angles, Maxwell of velocities.

        With a force ``-grad U`` it is ``exp(-[U + sum_i m_i v_i^2 / 2] / T)`` at the temperature ``T = D / gamma``, so
        the angles have the law that they have without inertia and with the noise D over gamma (eq. 3).

        Raises:
            ValueError: If there is no noise or no damping, oscillators differ in damping, one has a natural frequency,
                or the law of the angles is not known.
            TypeError: If the force is not that of a :class:`~circsde.KuramotoSDE`, or its reference phase moves.
        """
        sde = self.sde
        if not isinstance(sde, KuramotoSDE) or not has_closed_form(sde):
            raise TypeError(
                "the law at rest is known for the force of a KuramotoSDE with one reference phase at all times, got"
                f" that of a {type(sde).__name__}"
            )
        if bool(sde.natural_frequency.any()):
            raise ValueError("with natural frequencies the force is no gradient and the law at rest is not known")
        gamma = torch.as_tensor(self.damping).detach().double()
        if not bool(((gamma == gamma.flatten()[0]) & (gamma > 0)).all()):
            raise ValueError(f"the law at rest needs one positive damping for all oscillators, got {self.damping}")
        rates = sde.schedule.at(self.horizon if t is None else t)
        temperature = rates.diffusion / gamma.flatten()[0].item()
        rates = rates._replace(diffusion=temperature)
        angles = settled_law(sde.event_shape, sde.coupling, rates, sde.reference_phase.detach(), torch.zeros(()))
        scale = (temperature / torch.as_tensor(self.inertia).detach().double()).sqrt()
        return GibbsMaxwell(angles, Normal(torch.zeros_like(scale), scale))

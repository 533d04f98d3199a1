r"""Exact scores: everything that needs a score can be tried and tested without training one.

Each is a field ``(t, theta) -> grad log p_t(theta)`` in forward time, 1/rad. Those with ``periodic`` are known to be
2 pi-periodic, so that no solver need try.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from circsde.contracts import Law, is_periodic
from circsde.coupling import GlobalCoupling
from circsde.exact.fokker_planck import CircleLaw, fokker_planck
from circsde.exact.fokker_planck_torus import TorusLaw, fokker_planck_torus
from circsde.kuramoto import KuramotoSDE, has_closed_form
from circsde.laws.distributions import VonMises
from circsde.laws.mixture import WrappedNormalMixture
from circsde.schedule import Rate
from circsde.typing import Angles, Field, Tangent, Time


def zero(t: Time, theta: Angles) -> Tangent:  # noqa: ARG001
    """The score of the uniform law."""
    return torch.zeros_like(theta)


@dataclass(frozen=True)
class VonMisesScore:
    """The score ``-kappa sin(theta - mu)`` of a von Mises law at every time, for independent angles.

    Attributes:
        loc: mu, rad.
        concentration: kappa.
    """

    periodic: ClassVar[bool] = True

    loc: float = 0.0
    concentration: float = 1.0

    def __call__(self, t: Time, theta: Angles) -> Tangent:  # noqa: ARG002
        """The score, whatever the time."""
        return VonMises(self.loc, self.concentration).score(theta)


@dataclass(frozen=True)
class DiffusedMixtureScore:
    """The score of a mixture of wrapped normals under pure diffusion ``d theta = sqrt(2 D(t)) dW``.

    The law at time t is the mixture with every variance raised by ``2 int_0^t D``; angles are independent.

    Attributes:
        start: The law at time 0.
        diffusion: D(t), rad^2/time.
    """

    periodic: ClassVar[bool] = True

    start: WrappedNormalMixture
    diffusion: Rate

    def __call__(self, t: Time, theta: Angles) -> Tangent:
        """The score at one time, or at one time per sample."""
        if isinstance(t, Tensor) and t.ndim:
            t = t.reshape(-1, *(1,) * (theta.ndim - 1))
            return self.start.diffused(2.0 * self.diffusion.integral(torch.zeros_like(t), t)).score(theta)
        return self.start.diffused(2.0 * self.diffusion.integral(0.0, float(t))).score(theta)


@dataclass(frozen=True)
class FokkerPlanckScore:
    """The score of a Kuramoto SDE from a given start, by the spectral Fokker-Planck equation (eq. 8).

    For uncoupled oscillators, where all start from one law, and for two oscillators with global coupling.

    Attributes:
        sde: The forward equation; ``psi`` must be one number, and so must ``w`` without coupling.
        start: The law of every phase at time 0, or a law for each of the two phases.

    Raises:
        ValueError: For any other number of coupled oscillators: their joint law is out of reach.
    """

    periodic: ClassVar[bool] = True

    sde: KuramotoSDE
    start: Law | tuple[Law, Law]

    def __call__(self, t: Time, theta: Angles) -> Tangent:
        """The score at one time."""
        return self.law.score(t, theta)

    @cached_property
    def law(self) -> CircleLaw | TorusLaw:
        """The law at every time, computed when it is first used."""
        sde, start = self.sde, self.start
        if not has_closed_form(sde) or type(sde).diffusion is not KuramotoSDE.diffusion:
            raise ValueError(
                f"the exact score is known for eq. (1), not for the drift or noise of {type(sde).__name__}"
            )
        psi, frequency = sde.reference_phase, sde.natural_frequency
        oscillators = torch.Size(sde.event_shape or ()).numel()
        known = isinstance(sde.coupling, GlobalCoupling) and not sde.coupling.lagged
        if sde.coupled and oscillators == 2 and known and not psi.ndim:
            w1, w2 = frequency.expand(2).tolist()
            laws = start if isinstance(start, tuple) else (start, start)
            return fokker_planck_torus(sde.schedule, laws, reference_phase=psi.item(), natural_frequency=(w1, w2))
        heard = sde.coupled and (oscillators > 1 or sde.coupling.lagged)
        if heard or psi.ndim or frequency.ndim or isinstance(start, tuple):
            raise ValueError(
                "the exact score is known for oscillators that are independent and alike, and for two with global"
                f" coupling and one reference phase, got event shape {sde.event_shape} with {sde.coupling}"
            )
        return fokker_planck(
            sde.schedule, start, reference_phase=psi.item(), natural_frequency=frequency.item(), mean_field=False
        )


@dataclass(frozen=True)
class IndependentScore:
    """The score of independent oscillators with a law each, along the last axis.

    Attributes:
        scores: One field per oscillator, for angles of any shape.
    """

    scores: tuple[Field, ...]

    @property
    def periodic(self) -> bool:
        """Whether all of them are known to be 2 pi-periodic."""
        return all(is_periodic(score) for score in self.scores)

    def __call__(self, t: Time, theta: Angles) -> Tangent:
        """Each oscillator's own score."""
        return torch.stack([score(t, x) for score, x in zip(self.scores, theta.unbind(-1), strict=True)], -1)

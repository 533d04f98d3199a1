"""The forward processes that models are trained along: what couples the phases, and rates in time."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from circsde.coupling import COUPLINGS, Coupling, LocalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.models.transitions import Objective
from circsde.schedule import Schedule


class Process(StrEnum):
    """The forward process, which drives data to a known law."""

    DIFFUSION = "diffusion"
    REFERENCE = "reference"
    GLOBAL = "global"
    LOCAL = "local"


class Family(StrEnum):
    """The rates of images in time."""

    SETTLING = "settling"
    PUBLISHED = "published"


class Weights(NamedTuple):
    """Scales of the rates of images; None where a process has no such rates.

    Attributes:
        settling: The coupling over the attraction, of :meth:`circsde.Schedule.settling`.
        published: The weight of the attraction, of :meth:`circsde.Schedule.published` (eq. 2).
    """

    settling: float | None
    published: float | None


IMAGES = {
    Process.DIFFUSION: Weights(None, 0.0),
    Process.REFERENCE: Weights(0.0, 1.5),
    Process.GLOBAL: Weights(0.25, 1.5),
    Process.LOCAL: Weights(0.25, 1.0),
}
"""The rates of images by process."""

RADIUS = 5
"""The radius of local coupling, as published."""

SLOWEST, FASTEST = 0.02, 12.0
"""D of angles at the start and at the horizon, rad^2/time; 6 rad^2 in all, which leaves e^-6 of a first harmonic."""


def coupling(process: Process, radius: int = RADIUS) -> Coupling:
    """Who listens to whom."""
    kind = COUPLINGS.get(process, NoCoupling)
    return LocalCoupling(radius) if kind is LocalCoupling else kind()


def angle_process(process: Process, event_shape: Sequence[int], attraction: float = 1.0) -> KuramotoSDE:
    """Make the forward equation for a few angles: diffusion, with ``K_ref = attraction D``, or with an equal ``K`` too.

    D is linear in time. As all rates keep their proportions, the process is one equation in a time of its own,
    ``int D dt``, and its settled law is stationary at every time.

    Raises:
        ValueError: If the process is that of local coupling, as the angles of a sample have no neighbours.
    """
    if process is Process.LOCAL:
        raise ValueError("the angles of a sample have no neighbours to listen to: take the process global")
    K = attraction if process is Process.GLOBAL else 0.0
    K_ref = 0.0 if process is Process.DIFFUSION else attraction
    schedule = Schedule.linear((K * SLOWEST, K_ref * SLOWEST, SLOWEST), (K * FASTEST, K_ref * FASTEST, FASTEST))
    return KuramotoSDE(event_shape, coupling(process), schedule)


def image_process(
    process: Process, event_shape: Sequence[int], family: Family, n_steps: int, radius: int = RADIUS
) -> KuramotoSDE:
    """Make the forward equation for images, with settling rates or the published rates of ``n_steps`` steps (eq. 2).

    Raises:
        ValueError: If the process has no such rates.
    """
    weight = getattr(IMAGES[process], family)
    if weight is None:
        raise ValueError(f"the process {process} has no {family} rates: take others, or another process")
    settling = family is Family.SETTLING
    schedule = Schedule.settling(weight) if settling else Schedule.published(n_steps, reference_weight=weight)
    return KuramotoSDE(event_shape, coupling(process, radius), schedule)


def best_objective(process: Process) -> Objective:
    """The best there is: the exact transition law of pure diffusion, else the whole path."""
    return Objective.DENOISING if process is Process.DIFFUSION else Objective.PATHWISE

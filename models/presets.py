"""Forward processes for a few angles per sample, each with the law that it settles to."""

from collections.abc import Sequence
from enum import StrEnum

from circsde.coupling import GlobalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.settled import SettledLaw
from circsde.models.transitions import Objective
from circsde.schedule import Schedule


class Process(StrEnum):
    """What drives data to a known law."""

    DIFFUSION = "diffusion"
    REFERENCE = "reference"
    GLOBAL = "global"


SLOWEST, FASTEST = 0.02, 12.0
"""D at the start and at the horizon, rad^2/time; 6 rad^2 in all, which leaves e^-6 of a first harmonic."""


def forward_process(process: Process, event_shape: Sequence[int], attraction: float = 1.0) -> KuramotoSDE:
    """Wrapped diffusion; with ``K_ref = attraction D``; or with ``K = K_ref = attraction D`` and global coupling.

    D is linear in time. As all rates keep their proportions, the process is one equation in a time of its own,
    ``int D dt``, and :func:`settled` is stationary at every time.
    """
    K = attraction if process is Process.GLOBAL else 0.0
    K_ref = 0.0 if process is Process.DIFFUSION else attraction
    schedule = Schedule.linear((K * SLOWEST, K_ref * SLOWEST, SLOWEST), (K * FASTEST, K_ref * FASTEST, FASTEST))
    return KuramotoSDE(event_shape, GlobalCoupling() if K else NoCoupling(), schedule)


def settled(sde: KuramotoSDE) -> SettledLaw:
    """The stationary law of the final rates, exact: :meth:`circsde.KuramotoSDE.settled_law`.

    Raises:
        ValueError: If it is not known.
    """
    law: SettledLaw = sde.settled_law()
    return law


def objective(process: Process) -> Objective:
    """The best there is: the exact transition law of pure diffusion, else the whole path."""
    return Objective.DENOISING if process is Process.DIFFUSION else Objective.PATHWISE

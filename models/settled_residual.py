r"""A score relative to the law that a process settles to."""

from typing import Any

from torch import Tensor, nn

from circsde.contracts import is_periodic
from circsde.noise import evaluate
from circsde.sde import SDE
from circsde.typing import Angles, Tangent, Time


class SettledResidual(nn.Module):
    r"""``score = 2 f / g^2 + network``: the network learns only what the drift has not yet forgotten.

    With rates frozen and symmetric coupling an equation settles to the law of score ``2 f / g^2`` (eq. 3). So near
    equilibrium the network has next to nothing to learn, and what it answers is the velocity of the probability flow
    (eq. 4) times ``-2 / g^2``: no drift is left whose cancellation has to be learnt. Without drift it is the score.

    Args:
        network: Anything like a score: ``(t, theta) -> 1/rad``.
        sde: The forward equation.

    >>> import torch
    >>> from circsde.kuramoto import KuramotoSDE
    >>> from circsde.models.mlp import ScoreMLP
    >>> from circsde.schedule import Schedule
    >>> sde = KuramotoSDE((1,), schedule=Schedule.constant(reference=2.0, diffusion=0.5))
    >>> score = SettledResidual(ScoreMLP((1,), sde.schedule.diffusion), sde)
    >>> score(0.5, torch.tensor([[torch.pi / 2]]))  # before training: von Mises with concentration 4
    tensor([[-4.]], grad_fn=<AddBackward0>)
    """

    def __init__(self, network: nn.Module, sde: SDE) -> None:
        super().__init__()
        self.network, self.sde, self.classes = network, sde, getattr(network, "classes", None)
        self.arguments: dict[str, Any] = {"network": network, "sde": sde}

    @property
    def periodic(self) -> bool:
        """Whether the drift and the network are known to be 2 pi-periodic."""
        return self.sde.periodic and is_periodic(self.network)

    def forward(self, t: Time, theta: Angles, *given: Tensor) -> Tangent:
        """The score at one time or at one per sample, 1/rad; what else is given, such as labels, the network reads."""
        settled = 2.0 / evaluate(self.sde.diffusion, t, theta) ** 2 * self.sde.drift(t, theta)
        learnt: Tangent = self.network(t, theta, *given)
        return learnt + settled

r"""Scores of chosen classes, from one network that learned them and all of them together."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from circsde.contracts import is_periodic
from circsde.typing import Angles, Labels, Tangent, Time


class Conditioned(nn.Module):
    r"""``w s(theta | class) + (1 - w) s(theta)`` (eq. 22): a score with labels and condition bound, for samplers.

    With ``w = 1`` it is the learned score of the classes, with 0 that of all together. Larger ``w`` lead to samples
    that differ more clearly from other classes than data do, and vary less: they follow no law of the data. Any ``w``
    but 1 takes an evaluation of twice the batch.

    Args:
        network: A network that was trained with labels, or one that reads a condition only.
        labels: One for each sample, or one for all; -1 stands for no class.
        condition: An image for each sample that the network reads, or one for all.
        guidance: ``w``.

    Raises:
        ValueError: If the network knows no such class, or guidance has no classes to lead to.

    Source: classifier-free guidance, Ho and Salimans 2022, arXiv 2207.12598, eq. 6 (there w is one less).
    """

    labels: Tensor | None
    condition: Tensor | None

    def __init__(
        self,
        network: Callable[..., Tangent],
        labels: Labels | None = None,
        condition: Tensor | None = None,
        guidance: float = 1.0,
    ) -> None:
        super().__init__()
        classes = getattr(network, "classes", None)
        if labels is not None and not -1 <= int(labels.min()) <= int(labels.max()) < (classes or 0):
            known = f"labels from 0 to {classes - 1}, or -1" if classes else "no labels"
            raise ValueError(f"this network knows {known}, got {int(labels.min())} to {int(labels.max())}")
        if not math.isfinite(guidance) or (labels is None and guidance != 1.0):
            told = "without labels" if labels is None else "with labels"
            raise ValueError(f"expected a finite guidance, and labels unless it is 1, got {guidance:g} {told}")
        self.network, self.guidance = network, guidance
        self.register_buffer("labels", labels, persistent=False)
        self.register_buffer("condition", condition, persistent=False)

    @property
    def periodic(self) -> bool:
        """Whether the network is known to be 2 pi-periodic."""
        return is_periodic(self.network)

    def forward(self, t: Time, theta: Angles) -> Tangent:
        """The score at one time or at one time per sample, 1/rad."""
        score: Tangent
        labels, condition = (
            None if x is None else x.expand(len(theta), *x.shape[1:]) for x in (self.labels, self.condition)
        )
        if labels is None or self.guidance == 1.0:
            score = self._of(t, theta, labels, condition)
            return score
        times = t.repeat(2) if isinstance(t, Tensor) and t.ndim else t
        twice = torch.cat((theta, theta)), torch.cat((labels, torch.full_like(labels, -1)))
        score = self._of(times, *twice, None if condition is None else torch.cat((condition, condition)))
        of_class, of_all = score.chunk(2)
        return of_all + self.guidance * (of_class - of_all)

    def _of(self, t: Time, theta: Angles, labels: Tensor | None, condition: Tensor | None) -> Tangent:
        """Call the network with the labels and the condition that there are, as a user's network need not read both."""
        if condition is not None:
            return self.network(t, theta, labels, condition)
        return self.network(t, theta) if labels is None else self.network(t, theta, labels)

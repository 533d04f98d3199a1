"""Scores that are periodic by what they are made of, so that a solver need not try."""

from torch import nn


class Periodic(nn.Module):
    """A network that reads angles by their sines and cosines only.

    >>> Periodic().periodic, Periodic().eval().periodic
    (False, True)
    """

    @property
    def periodic(self) -> bool:
        """Whether its answers are a 2 pi-periodic function of the angles; with dropout in training they are drawn."""
        return not self.training

"""The settings of a training."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The settings of a training.

    Attributes:
        epochs: Epochs; after each the network is validated, logged and saved. Not read where there is a time.
        updates: Updates per epoch.
        batch: Pairs per update.
        learning_rate: Its peak, reached after ``warmup`` updates; it falls to zero by half a cosine.
        warmup: Updates.
        weight_decay: The weight decay of AdamW.
        averaging: The decay per update of the average of the weights; less in the first updates.
        clip: The largest norm of a gradient.
        patience: Stop after this many epochs without a lower validation loss; by default never.
        pool: Draws until a path is used again; see :class:`Transitions`.
        stride: Steps of a path between two uses.
        states: One-step matching: next states per path and use.
        unlabelled: The share of labels that are withheld from a network of classes, so that it learns the score of all
            together, too; see :class:`circsde.models.guidance.Conditioned`.
        seed: The seed of all pairs; the first weights are those of the network given.
        paths_on: The device on which paths are simulated; by default that of the network. Where several trainings
            share a graphics card, simulation is faster on "cpu".
        recorded: Record the kernels of the network once, as a CUDA graph, and replay them, so that a small network does
            not wait for each to be launched. For one graphics card in full precision.
        seconds: The wall-clock time for all: preparation, which is measuring the linear part of a score and simulating
            the first paths, updates, validation and checkpoints. Training stops at the first update beyond it. The
            learning rate follows the part that is used of what preparation leaves, so results depend on the machine.

    Raises:
        ValueError: If the time is not positive.
    """

    epochs: int = 40
    updates: int = 500
    batch: int = 1024
    learning_rate: float = 1e-3
    warmup: int = 500
    weight_decay: float = 0.0
    averaging: float = 0.999
    clip: float = 1.0
    patience: int | None = None
    pool: int = 8
    stride: int = 10
    states: int = 1
    unlabelled: float = 0.1
    seed: int = 0
    paths_on: str | None = None
    recorded: bool = False
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse a time that is not positive."""
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds, the time to train for, must be positive, got {self.seconds}")

    def rate(self, update: int, used: float = 0.0) -> float:
        """The learning rate of an update, the first being 0, as a part of its peak.

        Args:
            update: Its number.
            used: The part that is used of the time that there is for updates, where there is a time to train for.
        """
        done = min(1.0, update / (self.epochs * self.updates) if self.seconds is None else used)
        return min((update + 1) / max(1, self.warmup), 0.5 * (1.0 + math.cos(math.pi * done)))

"""Changes to Lightning: its checkpoint files are replaced, its messages silenced, and callbacks added."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, WeightAveraging
from lightning.pytorch.plugins.io import CheckpointIO
from torch import nn

from circsde.models import checkpoint
from circsde.models.loop import ScoreMatching


class SafetensorsIO(CheckpointIO):
    """Lightning's states as :mod:`circsde.models.checkpoint` writes them."""

    def save_checkpoint(self, state: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write the state."""
        checkpoint.save(state, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Read it."""
        return checkpoint.load(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete it."""
        Path(path).unlink()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what Lightning says about hardware and data loaders."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)


class Watch(Checkpoint):
    """Shows the averaged network after every so many epochs.

    It does so after :class:`circsde.models.loop.Record` saved, as both are checkpoints.

    Args:
        average: What averages the weights.
        look: Called with a copy of the network and the number of updates.
        every: Epochs.
    """

    def __init__(self, average: WeightAveraging, look: Callable[[nn.Module, int], object], every: int) -> None:
        self.average, self.look, self.every = average, look, every

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Show the averaged network; the random numbers of training do not depend on it."""
        if (trainer.current_epoch + 1) % self.every == 0 and trainer.is_global_zero:
            assert self.average._average_model is not None
            averaged = self.average._average_model.module
            assert isinstance(averaged, ScoreMatching)
            network = deepcopy(averaged.network).eval().requires_grad_(False)
            with torch.no_grad():
                self.look(network, trainer.global_step)


class Counter(Callback):
    """Tells ``progress`` how many updates are finished."""

    def __init__(self, progress: Callable[[int], object]) -> None:
        self.progress = progress

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Report the number of finished updates."""
        self.progress(trainer.global_step)

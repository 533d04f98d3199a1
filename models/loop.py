"""The parts that Lightning runs: the loss and its optimiser, the pairs, the running average, the record of a run."""

import csv
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, WeightAveraging
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor, nn
from torch.utils.data import DataLoader

from circsde.matching import Pairs, loss
from circsde.models import checkpoint
from circsde.models.transitions import Transitions
from circsde.record import replacing

LAST, BEST, METRICS = "last.safetensors", "best.safetensors", "metrics.csv"
"""In the folder of a run: the state to go on from, that of least validation loss, and the log."""


class ScoreMatching(pl.LightningModule):
    """The loss of a network, and AdamW.

    Args:
        network: ``score(t, theta)``.
        optimiser: Options of AdamW.
        rate: The learning rate at each update, as a part of its peak.
        clip: The largest norm of a gradient.
    """

    def __init__(
        self, network: nn.Module, optimiser: Mapping[str, Any], rate: Callable[[int], float], clip: float
    ) -> None:
        super().__init__()
        self.network, self.optimiser, self.rate, self.clip = network, dict(optimiser), rate, clip
        self.losses: list[Tensor] = []

    def training_step(self, batch: int) -> Tensor:  # noqa: ARG002
        """The loss of new pairs; ``batch`` only counts."""
        pairs = self.trainer.datamodule.transitions.draw()  # type: ignore[attr-defined]
        losses = loss(self.network, pairs)
        if not bool(losses.isfinite().all()):
            raise FloatingPointError(self._where("the loss", pairs, losses))
        self.losses.append(losses.detach().mean())
        return losses.mean()

    def validation_step(self, pairs: Pairs) -> None:
        """Log the mean loss of pairs that stay the same."""
        mean = loss(self.network, pairs).mean()
        self.log("validation_loss", mean, batch_size=len(pairs.t), sync_dist=self.trainer.world_size > 1)

    def configure_optimizers(self) -> Any:
        """AdamW, its rate changed after every update."""
        adam = torch.optim.AdamW(self.network.parameters(), **self.optimiser)
        schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda update: self.rate(update))
        return {"optimizer": adam, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Clip by norm; refuse a norm that is not finite before it reaches the weights."""
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        if not bool(norm.isfinite()):
            raise FloatingPointError(self._where("the gradient"))

    def _where(self, what: str, pairs: Pairs | None = None, losses: Tensor | None = None) -> str:
        at = ""
        if pairs is not None and losses is not None:
            bad = (~losses.isfinite()).nonzero()[:, 0]
            at = f", for {len(bad)} of {len(losses)} pairs, first at t = {float(pairs.t[bad[0]]):g}"
        return (
            f"{what} is not finite at update {self.trainer.global_step + 1}{at}; the state of the last finished epoch"
            " is kept: try a lower learning rate or a smaller gradient norm"
        )


class PairSource(pl.LightningDataModule):
    """Training pairs, made where they are used and saved with the state; validation pairs, made once.

    Args:
        training: Makes the pairs of one process, from its device and rank.
        validation: Makes the batches of validation pairs, on a device.
        updates: Updates per epoch.
    """

    transitions: Transitions

    def __init__(
        self,
        training: Callable[[torch.device, int], Transitions],
        validation: Callable[[torch.device], list[Pairs]],
        updates: int,
    ) -> None:
        super().__init__()
        self._training, self._validation, self._updates = training, validation, updates

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Make the first pairs, on the device of this process."""
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        self.transitions = self._training(device, self.trainer.global_rank)
        self._pairs = self._validation(device)

    def train_dataloader(self) -> DataLoader[int]:
        """Counts: :class:`ScoreMatching` draws the pairs itself, so that none are lost when training is killed."""
        return DataLoader(range(self._updates), batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Pairs]:
        """The validation pairs."""
        return DataLoader(self._pairs, batch_size=None)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """The state of this process's pairs."""
        return self.transitions.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them; of several processes only the first, whose state it is."""
        if self.trainer is None or self.trainer.global_rank == 0:
            self.transitions.load_state_dict(state_dict)


def averaging(decay: float) -> WeightAveraging:
    """The running average of the weights: after n updates its decay is ``min(decay, (1 + n) / (10 + n))``."""

    def average(averaged: list[Tensor], current: list[Tensor], n: Tensor | int) -> None:
        torch._foreach_lerp_(averaged, current, 1.0 - min(decay, (1.0 + float(n)) / (10.0 + float(n))))

    return WeightAveraging(use_buffers=False, multi_avg_fn=torch.no_grad()(average))


class Record(Checkpoint):
    """After every epoch: a line of the log, and the state.

    Args:
        run: The folder.
        description: What made the run; saved along.
    """

    def __init__(self, run: Path, description: Mapping[str, Any]) -> None:
        self.run, self.description = run, description
        self.rows: list[dict[str, float]] = []
        self.seconds, self._since = 0.0, time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Start the clock."""
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log and save."""
        assert isinstance(pl_module, ScoreMatching)
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now
        self.rows.append(
            {
                "update": trainer.global_step,
                "seconds": round(self.seconds, 3),
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                "loss": float(torch.stack(pl_module.losses).mean()),
                "validation_loss": float(trainer.callback_metrics["validation_loss"]),
            }
        )
        pl_module.losses.clear()
        trainer.save_checkpoint(self.run / LAST)
        if self.rows[-1]["validation_loss"] <= min(row["validation_loss"] for row in self.rows):
            trainer.save_checkpoint(self.run / BEST)
        if trainer.is_global_zero:
            with replacing(self.run / METRICS, force=True) as temporary, temporary.open("w", newline="") as file:
                writer = csv.DictWriter(file, self.rows[0])
                writer.writeheader()
                writer.writerows(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """The log so far."""
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a saved log."""
        self.rows, self.seconds = state_dict["rows"], state_dict["seconds"]

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any]) -> None:  # noqa: ARG002
        """Say what made the run."""
        state["description"] = dict(self.description)


class Counter(Callback):
    """Tells ``progress`` how many updates are finished."""

    def __init__(self, progress: Callable[[int], object]) -> None:
        self.progress = progress

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Count."""
        self.progress(trainer.global_step)


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

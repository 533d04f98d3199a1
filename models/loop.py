"""The parts that Lightning runs: the loss and its optimiser, the pairs, the running average, the record of a run."""

import csv
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from torch import Tensor, nn
from torch.utils.data import DataLoader

from circsde.matching.chain import Pairs, loss
from circsde.models.transitions import PairStream
from circsde.record import replacing
from circsde.streams import seed_torch
from circsde.typing import Angles, Field, Labels, Tangent, Time

LAST, BEST, METRICS = "last.safetensors", "best.safetensors", "metrics.csv"
"""Files in the folder of a run, which are the state to resume from, the state of least validation loss, and the log."""


class ScoreMatching(pl.LightningModule):
    """The loss of a network, and AdamW.

    Args:
        network: ``score(t, theta)``; one with ``classes``, ``score(t, theta, labels)``.
        optimiser: Options of AdamW.
        rate: The learning rate at each update, as a part of its peak.
        clip: The largest norm of a gradient.
        seed: The seed of the network's own draws, as for dropout, and of the labels that are withheld from it.
        recorded: Whether a graphics card records the network once and replays it.
        unlabelled: The share of labels that are withheld.
    """

    def __init__(
        self,
        network: nn.Module,
        optimiser: Mapping[str, Any],
        rate: Callable[[int], float],
        clip: float,
        seed: int = 0,
        recorded: bool = False,
        unlabelled: float = 0.0,
    ) -> None:
        super().__init__()
        self.network, self.optimiser, self.rate, self.clip = network, dict(optimiser), rate, clip
        self.seed, self.recorded, self.unlabelled = seed, recorded, unlabelled
        self.losses: list[Tensor] = []

    def on_train_start(self) -> None:
        """Record the network for training; in evaluation it stays as it is."""
        if self.recorded:
            t, theta, *_, labels = self.trainer.datamodule.held_out[0]  # type: ignore[attr-defined]
            read = (t, theta, labels) if self._has_classes else (t, theta)
            like = (torch.zeros_like(x, device=self.device) for x in read)
            torch.cuda.make_graphed_callables(self.network, tuple(like))

    def on_train_end(self) -> None:
        """Give the network its own forward pass back."""
        if self.recorded:
            del self.network.forward

    def training_step(self, batch: int) -> Tensor:  # noqa: ARG002
        """The loss of new pairs; ``batch`` only counts."""
        with torch.autocast(self.device.type, enabled=False):
            drawn = self.trainer.datamodule.pairs.draw()  # type: ignore[attr-defined]
        pairs = Pairs(*(x.to(self.device) for x in drawn))
        seed_torch(self.seed, "update", self.trainer.global_step, self.trainer.global_rank)
        told = torch.rand(len(pairs.labels), device=self.device) >= self.unlabelled
        losses = loss(self._score(pairs.labels.where(told, -1)), pairs)
        if not bool(losses.isfinite().all()):
            raise FloatingPointError(self._where("the loss", pairs, losses))
        self.losses.append(losses.detach().mean())
        return losses.mean()

    def validation_step(self, pairs: Pairs) -> None:
        """Log the mean loss of pairs that stay the same."""
        mean = loss(self._score(pairs.labels), pairs).mean()
        together = self.trainer.world_size > 1
        self.log("validation_loss", mean, batch_size=len(pairs.t), sync_dist=together, logger=False)

    @property
    def _has_classes(self) -> bool:
        return getattr(self.network, "classes", None) is not None

    def _score(self, labels: Labels) -> Field:
        """The network as a score, with labels if it has classes."""

        def score(t: Time, theta: Angles) -> Tangent:
            answer: Tangent = self.network(t, theta, labels)
            return answer

        return score if self._has_classes else self.network

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
            " is kept, if there is one: try a lower learning rate or a smaller gradient norm"
        )


class PairSource(pl.LightningDataModule):
    """Training pairs, made where they are used and saved with the state; validation pairs, made once.

    Args:
        training: Makes the pairs of one process, from its device and rank.
        validation: Makes the batches of validation pairs, on a device.
        updates: Updates per epoch.
        device: Where pairs are made; by default that of the process.
    """

    pairs: PairStream

    def __init__(
        self,
        training: Callable[[torch.device, int], PairStream],
        validation: Callable[[torch.device], list[Pairs]],
        updates: int,
        device: str | None = None,
    ) -> None:
        super().__init__()
        self._training, self._validation, self._updates = training, validation, updates
        self._device = None if device is None else torch.device(device)

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Make the first pairs, on the device of this process."""
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        self.pairs = self._training(self._device or device, self.trainer.global_rank)
        self.held_out = self._validation(self._device or device)

    def train_dataloader(self) -> DataLoader[int]:
        """Counts: :class:`ScoreMatching` draws the pairs itself, so that none are lost when training is killed."""
        return DataLoader(range(self._updates), batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Pairs]:
        """The validation pairs."""
        return DataLoader(self.held_out, batch_size=None)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """The states of the pairs of all processes."""
        own = self.pairs.state_dict()
        states: list[Any] = [own]
        if torch.distributed.is_initialized():
            states *= torch.distributed.get_world_size()
            torch.distributed.all_gather_object(states, own)
        return {"processes": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from saved states; a process that was not there before begins anew."""
        rank = 0 if self.trainer is None else self.trainer.global_rank
        if rank < len(state_dict["processes"]):
            self.pairs.load_state_dict(state_dict["processes"][rank])


def averaging(decay: float) -> WeightAveraging:
    """The running average of the weights: after n updates its decay is ``min(decay, (1 + n) / (10 + n))``."""

    def average(averaged: list[Tensor], current: list[Tensor], n: Tensor | int) -> None:
        torch._foreach_lerp_(averaged, current, 1.0 - min(decay, (1.0 + float(n)) / (10.0 + float(n))))

    return WeightAveraging(use_buffers=False, multi_avg_fn=torch.no_grad()(average))


class Record(Checkpoint):
    """After every epoch: a line of the log, and the state. Stops training when its time is used.

    Args:
        run: The folder.
        description: What made the run; saved along.
        budget: The seconds of all, preparation and those before an interruption included; None for no end.
        clock: What they are read from.
        since: What it said when the work began; by default what it says now.
        preparing: Called with what is made before the first update.
    """

    def __init__(
        self,
        run: Path,
        description: Mapping[str, Any],
        budget: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
        since: float | None = None,
        preparing: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.run, self.description, self.budget, self.clock = run, description, budget, clock
        self.rows: list[dict[str, float]] = []
        self.seconds, self.prepared, self.preparing = 0.0, 0.0, preparing
        self._since = clock() if since is None else since

    def used(self, trainer: pl.Trainer) -> float:
        """The seconds so far; of several processes, those of the first."""
        seconds = self.seconds + self.clock() - self._since
        return seconds if trainer.world_size == 1 else trainer.strategy.broadcast(seconds)

    def part(self, trainer: pl.Trainer) -> float:
        """The used part of the time that preparation left."""
        assert self.budget is not None
        return (self.used(trainer) - self.prepared) / (self.budget - self.prepared)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Make the first paths, and refuse a time that is used before the first update."""
        self.preparing("the first paths")
        trainer.datamodule.pairs.state_dict()  # type: ignore[attr-defined]
        if self.rows:
            return  # prepared before an interruption
        self.prepared = self.used(trainer)
        if self.budget is not None and self.prepared >= self.budget:
            raise ValueError(
                f"preparation took {self.prepared:.0f} s, and the time to train for is {self.budget:g} s in all: give"
                f" more than {2.0 * self.prepared:.0f} s to train for half of it"
            )

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Stop when the time is used."""
        if self.budget is not None and self.used(trainer) >= self.budget:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log and save, if the validation loss is finite."""
        assert isinstance(pl_module, ScoreMatching)
        validation_loss = float(trainer.callback_metrics["validation_loss"])
        if not math.isfinite(validation_loss):
            raise FloatingPointError(
                f"the validation loss is {validation_loss} after update {trainer.global_step}; the state of the last"
                " finished epoch is kept, if there is one: try a lower learning rate or a smaller gradient norm"
            )
        self.seconds, self._since = self.used(trainer), self.clock()
        self.rows.append(
            {
                "update": trainer.global_step,
                "seconds": round(self.seconds, 3),
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                "loss": float(torch.stack(pl_module.losses).mean()),
                "validation_loss": validation_loss,
            }
        )
        pl_module.losses.clear()
        for logger in trainer.loggers:
            logger.log_metrics(self.rows[-1], trainer.global_step)
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
        return {"rows": self.rows, "seconds": self.seconds, "prepared": self.prepared}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume a saved log."""
        self.rows, self.seconds = state_dict["rows"], state_dict["seconds"]
        self.prepared = state_dict.get("prepared", 0.0)  # 0 in states of earlier versions, which did not count it

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any]) -> None:  # noqa: ARG002
        """Add the description of the run to the checkpoint."""
        state["description"] = dict(self.description)

"""Training a score network on pairs of times and states, on Lightning.

The whole state is saved after every epoch, so that training killed at any moment goes on from there to the same result.
What is validated and loaded is the running average of the weights.
"""

import signal
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from circsde.kuramoto import KuramotoSDE
from circsde.matching.chain import Chain
from circsde.models import checkpoint
from circsde.models.loop import (
    BEST,
    LAST,
    PairSource,
    Record,
    ScoreMatching,
    averaging,
)
from circsde.models.pairs import held_out_pairs, pair_stream
from circsde.models.plugins import Counter, SafetensorsIO, Watch, quiet
from circsde.models.preparation import check_classes, check_device, check_same, check_time, describe, prepare
from circsde.models.settings import Settings as Settings
from circsde.models.transitions import DataSampler, Objective, TensorSampler
from circsde.models.variance_preserving import VariancePreserving
from circsde.record import held
from circsde.streams import torch_stream
from circsde.typing import Angles


@dataclass(frozen=True)
class Trained:
    """A trained model, as a checkpoint holds it.

    Attributes:
        network: The score, with its averaged weights; not training, needing no gradients.
        process: What it was trained along: a chain of a forward equation, or the standard diffusion of values.
        objective: The objective of its training.
        about: The argument ``about`` of :func:`train`.
        update: After how many updates.
    """

    network: nn.Module
    process: Chain | VariancePreserving
    objective: Objective
    about: dict[str, Any]
    update: int

    @property
    def chain(self) -> Chain:
        """The chain of the forward equation.

        Raises:
            TypeError: If there is none.
        """
        if not isinstance(self.process, Chain):
            raise TypeError(f"this is no model of phases: it was trained along {self.process}")
        return self.process

    @property
    def sde(self) -> KuramotoSDE:
        """The forward equation."""
        assert isinstance(self.chain.sde, KuramotoSDE)
        return self.chain.sde


def train(
    network: nn.Module,
    process: Chain | VariancePreserving,
    objective: Objective,
    theta: Angles | DataSampler,
    validation: Float[Tensor, "..."] | DataSampler,
    run: str | Path,
    settings: Settings | None = None,
    *,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[int], object] | None = None,
    preparing: Callable[[str], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    spent: float = 0.0,
    watch: Callable[[nn.Module, int], object] | None = None,
    every: int = 1,
    **trainer: Any,
) -> Trained:
    """Train ``network``, or resume the same training if ``run`` holds a state of it.

    Args:
        network: ``score(t, theta)`` with its ``arguments``; see :mod:`circsde.models.checkpoint`. One with ``classes``
            is given the classes of data that have them, ``score(t, theta, labels)``. A part of it may be
            measured first: see :class:`circsde.models.preparation.Measured`.
        process: What to train along; for pathwise matching a chain is calibrated, if it has no discounts.
        objective: The objective; denoising for the standard diffusion.
        theta: Data, radians (or values): samples to draw from, or what draws them, ``(count, generator) -> samples``,
            with a text ``digest`` that identifies it.
        validation: Data for validation, likewise.
        run: The folder, made if need be, for ``last.safetensors``, ``best.safetensors`` and ``metrics.csv``.
        settings: How.
        about: What a reader of the checkpoint should know, as JSON: where the data came from, its units.
        progress: Called with the number of finished updates.
        preparing: Called, before the first update, with what is made next: a text.
        clock: What the time to train for is read from, in seconds; with ``time.process_time``, which counts all
            threads, trainings can be compared on a machine that is shared.
        spent: The part of a time to train for that the caller has used already, in seconds, as to choose a law.
        watch: Called with a copy of the averaged network and the number of updates after every ``every`` epochs, as for
            a sheet of samples. Training does not depend on what it draws; of a time to train for, it uses its part.
        every: See ``watch``.
        **trainer: Options of Lightning's ``Trainer``: ``accelerator``, ``devices``, ``strategy``, ``precision``
            (``"bf16-mixed"``; pairs are made in full precision), ``logger`` (as ``TensorBoardLogger``).

    Returns:
        The state of least validation loss.

    Raises:
        ValueError: If ``run`` holds another training, or a file that is no checkpoint; if data say not what they are,
            or are not finite; if the time to train for is too short to prepare in; if a network is to be recorded, but
            not by one graphics card in full precision; if paths are to be simulated on a device that is not there.
        FloatingPointError: If a loss, a gradient or the validation loss is not finite; it says at which update. The
            states of the epochs before are kept.
        OSError: If a checkpoint cannot be written, and the previous one is kept; or if another process trains in
            ``run``.
    """
    settings, run, told = Settings() if settings is None else settings, Path(run), preparing or (lambda _: None)
    since = clock() - spent
    data, held_out = (TensorSampler(given) if isinstance(given, Tensor) else given for given in (theta, validation))
    check_device(settings)
    run.mkdir(parents=True, exist_ok=True)
    # Lightning starts the processes of other ranks, which train in the same folder
    with held(run) if getattr(rank_zero_only, "rank", 0) == 0 else nullcontext():
        saved = checkpoint.load(run / LAST) if (run / LAST).exists() else None
        if saved is None and settings.seconds is not None:
            check_time(process, objective, data, settings, network, clock, since)
        for given in (data, held_out):
            check_classes(network, getattr(given, "classes", ()))
        process = prepare(network, process, objective, data, settings.seed, saved, told)
        known = checkpoint.kinds(network) | checkpoint.kinds(process.sde if isinstance(process, Chain) else process)
        parts = {"training": data, "validation": held_out}
        description = describe(network, process, objective, settings, parts, about or {})
        if saved is not None:
            check_same(run, description, saved["description"])
            if settings.seconds is not None and saved["callbacks"]["Record"]["seconds"] >= settings.seconds:
                return trained(run, known)
        source = PairSource(
            lambda device, rank: pair_stream(
                process, objective, data, settings, torch_stream(settings.seed, "pairs", rank, device=device)
            ),
            lambda device: held_out_pairs(process, objective, held_out, settings, device),
            settings.updates,
            settings.paths_on,
        )
        average = averaging(settings.averaging)
        record = Record(run, description, settings.seconds, clock, since, told)
        callbacks: list[Callback] = [average, record]
        if settings.patience is not None:
            callbacks.append(
                EarlyStopping("validation_loss", patience=settings.patience, check_on_train_epoch_end=True)
            )
        if progress is not None:
            callbacks.append(Counter(progress))
        if watch is not None:
            callbacks.append(Watch(average, watch, every))
        options = {
            "accelerator": "auto",
            "devices": 1,
            "max_epochs": settings.epochs if settings.seconds is None else -1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            **trainer,
        }
        with quiet(), isolate_rng():
            fitting = pl.Trainer(callbacks=callbacks, plugins=[SafetensorsIO()], **options)
            where = fitting.strategy.root_device.type, fitting.world_size, fitting.precision
            if settings.recorded and where != ("cuda", 1, "32-true"):
                raise ValueError(f"recorded=True is for one graphics card in full precision, got {where}; leave it out")

            def rate(update: int) -> float:
                return settings.rate(update, 0.0 if settings.seconds is None else record.part(fitting))

            optimiser = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
            module = ScoreMatching(
                network, optimiser, rate, settings.clip, settings.seed, settings.recorded, settings.unlabelled
            )
            try:
                fitting.fit(module, datamodule=source, ckpt_path=None if saved is None else run / LAST)
            except SystemExit:  # how Lightning reports Ctrl-C
                signal.signal(signal.SIGINT, signal.default_int_handler)
                raise KeyboardInterrupt from None
        return trained(run, known)


def trained(run: str | Path, known: Collection[type] = ()) -> Trained:
    """Load the state with the smallest validation loss from the folder ``run``, or any state from its file.

    Args:
        run: The folder of a training, or the file of a state.
        known: Classes of your own that were trained or trained along, as ``(MyNetwork, MyCoupling)``. A checkpoint
            holds their names and arguments, and no code.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is cut off or no state of a training, or holds a class that is not known, or its weights do
            not fit its network.
    """
    path = Path(run) / BEST if Path(run).is_dir() else Path(run)
    state = checkpoint.load(path)
    try:
        description = state["description"]
        with torch.random.fork_rng(devices=[]):
            network = checkpoint.rebuild(description["network"], known)
        weights = {name.removeprefix("network."): tensor for name, tensor in state["state_dict"].items()}
        checkpoint.load_weights(network, weights, path)
        network.eval().requires_grad_(False)
        process = checkpoint.rebuild(description["sde"], known)
        if (steps := description["chain"]) is not None:
            discounts = None if steps["discounts"] is None else tuple(steps["discounts"])
            process = Chain(process, tuple(steps["times"]), discounts, published=steps["published"])
        objective, about, update = Objective(description["objective"]), description["about"], state["global_step"]
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no state of a training, or one of another version: {error!r}") from error
    return Trained(network, process, objective, about, update)

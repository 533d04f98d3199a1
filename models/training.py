"""Training a score network on pairs of times and states, on Lightning.

The whole state is saved after every epoch, so that training killed at any moment goes on from there to the same result.
What is validated and loaded is the running average of the weights.
"""

import signal
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
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
from circsde.models.pairs import calibrated, check_device, check_time, digest, held_out_pairs, pair_stream
from circsde.models.plugins import SafetensorsIO, quiet
from circsde.models.settings import Settings as Settings
from circsde.models.transitions import DataSampler, Objective, TensorSampler
from circsde.models.variance_preserving import VariancePreserving
from circsde.models.watch import Counter, Watch
from circsde.models.wiener import Wiener
from circsde.record import held
from circsde.streams import torch_stream
from circsde.typing import Angles


@dataclass(frozen=True)
class Trained:
    """What a checkpoint holds, ready for use.

    Attributes:
        network: The score, with its averaged weights; not training, needing no gradients.
        process: What it was trained along: a chain of a forward equation, or the standard diffusion of values.
        objective: On what.
        about: What :func:`train` was told about the data.
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
    spent: float = 0.0,
    watch: Callable[[nn.Module, int], object] | None = None,
    every: int = 1,
    **trainer: Any,
) -> Trained:
    """Train ``network``, or go on where ``run`` holds a state of the same training already.

    Args:
        network: ``score(t, theta)`` with its ``arguments``; see :mod:`circsde.models.checkpoint`. One with ``classes``
            is told those of data that have them, ``score(t, theta, labels)``. The linear part of a
            :class:`circsde.models.wiener.Wiener` is measured first.
        process: What to train along; for pathwise matching a chain is calibrated, if it has no discounts.
        objective: On what; denoising for the standard diffusion.
        theta: Data, radians (or values): samples to draw from, or what draws them, ``(count, generator) -> samples``,
            with a text ``digest`` that tells it from others.
        validation: Data for validation, likewise.
        run: The folder, made if need be, for ``last.safetensors``, ``best.safetensors`` and ``metrics.csv``.
        settings: How.
        about: What a reader of the checkpoint should know, as JSON: where the data came from, its units.
        progress: Called with the number of finished updates.
        preparing: Called, before the first update, with what is made next: a text.
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
    settings, run = Settings() if settings is None else settings, Path(run)
    clock = time.perf_counter if settings.cpu_seconds is None else time.process_time
    since, told = clock() - spent, preparing or (lambda _: None)
    data, held_out = (TensorSampler(given) if isinstance(given, Tensor) else given for given in (theta, validation))
    check_device(settings)
    run.mkdir(parents=True, exist_ok=True)
    # Lightning starts the processes of other ranks, which train in the same folder
    with held(run) if getattr(rank_zero_only, "rank", 0) == 0 else nullcontext():
        saved = checkpoint.load(run / LAST) if (run / LAST).exists() else None
        if saved is None and settings.budget is not None:
            check_time(process, objective, data, settings, isinstance(network, Wiener), clock, since)
        if objective is Objective.PATHWISE and isinstance(process, Chain) and process.discounts is None:
            told("the discounts of the chain")
            process = calibrated(process, data, settings.seed, saved)
        for given in (data, held_out):
            _check_classes(network, getattr(given, "classes", ()))
        if isinstance(network, Wiener) and saved is None:
            if not isinstance(process, Chain):
                raise ValueError(
                    f"a Wiener network has a linear part along a chain, got {process}: train its network alone"
                )
            told("the linear part of the score")
            network.fit(process, data, torch_stream(settings.seed, "linear part"))
        known = checkpoint.kinds(network) | checkpoint.kinds(process.sde if isinstance(process, Chain) else process)
        description = {
            "network": checkpoint.describe(network),
            **_described(process),
            "objective": str(objective),
            "settings": asdict(settings),
            "data": {"training": digest(data), "validation": digest(held_out)},
            "about": dict(about or {}),
        }
        if saved is not None:
            _check_same(run, description, saved["description"])
            if settings.budget is not None and saved["callbacks"]["Record"]["seconds"] >= settings.budget:
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
        record = Record(run, description, settings.budget, clock, since, told)
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
            "max_epochs": settings.epochs if settings.budget is None else -1,
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
                return settings.rate(update, 0.0 if settings.budget is None else record.part(fitting))

            optimiser = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
            module = ScoreMatching(
                network, optimiser, rate, settings.clip, settings.seed, settings.recorded, settings.unlabelled
            )
            try:
                fitting.fit(module, datamodule=source, ckpt_path=None if saved is None else run / LAST)
            except SystemExit:  # Lightning's answer to Ctrl-C
                signal.signal(signal.SIGINT, signal.default_int_handler)
                raise KeyboardInterrupt from None
        return trained(run, known)


def trained(run: str | Path, known: Collection[type] = ()) -> Trained:
    """The state of least validation loss in the folder ``run``, or any state, given its file.

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


def _described(process: Chain | VariancePreserving) -> dict[str, Any]:
    if not isinstance(process, Chain):
        return {"sde": checkpoint.describe(process), "chain": None}
    steps = {"times": list(process.times), "discounts": process.discounts, "published": process.published}
    return {"sde": checkpoint.describe(process.sde), "chain": steps}


def _check_classes(network: nn.Module, known: tuple[str, ...]) -> None:
    """Refuse classes of data that the network cannot be told, and a network that is told none."""
    if (classes := getattr(network, "classes", None)) != (len(known) or None):
        raise ValueError(
            f"the network was made with classes={classes} and the data have {len(known)} classes"
            f" ({', '.join(known[:5])}): make it with classes={len(known) or None}"
        )


def _check_same(run: Path, description: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Refuse to go on with another training than this."""
    here, there = (_flat(tree) for tree in (description, saved))
    different = [name for name in {*here, *there} if here.get(name) != there.get(name)]
    if different:
        name = min(different, key=lambda name: (name == "chain.discounts", name))
        raise ValueError(
            f"{run} holds another training: {name} was {there.get(name)} and is now {here.get(name)}; train it"
            " as before to go on, or choose another folder"
        )


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping):
        return {key: value for part, child in tree.items() for key, value in _flat(child, f"{name}.{part}").items()}
    return {name.lstrip("."): list(tree) if isinstance(tree, tuple) else tree}

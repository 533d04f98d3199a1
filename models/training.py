"""Training a score network on the pairs of a chain, on Lightning.

The whole state is saved after every epoch, so that training killed at any moment goes on from there to the same result.
What is validated and loaded is the running average of the weights.
"""

import hashlib
import math
import signal
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn

from circsde.kuramoto import KuramotoSDE
from circsde.matching import Chain, Pairs
from circsde.models import checkpoint
from circsde.models.loop import BEST, LAST, Counter, PairSource, Record, SafetensorsIO, ScoreMatching, averaging, quiet
from circsde.models.transitions import Objective, Transitions, resampled
from circsde.typing import Angles

VALIDATION = 4
"""Batches of validation pairs."""


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        epochs: Epochs; after each the network is validated, logged and saved.
        updates: Updates per epoch.
        batch: Pairs per update.
        learning_rate: Its peak, reached after ``warmup`` updates; it falls to zero by half a cosine.
        warmup: Updates.
        weight_decay: Of AdamW.
        averaging: The decay per update of the average of the weights; less in the first updates.
        clip: The largest norm of a gradient.
        patience: Stop after this many epochs without a lower validation loss; by default never.
        pool: Draws until a path is used again; see :class:`Transitions`.
        stride: Steps of a path between two uses.
        states: One-step matching: next states per path and use.
        seed: Of all pairs; the first weights are those of the network given.
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
    seed: int = 0

    def rate(self, update: int) -> float:
        """The learning rate of an update, the first being 0, as a part of its peak."""
        done = min(1.0, update / (self.epochs * self.updates))
        return min((update + 1) / max(1, self.warmup), 0.5 * (1.0 + math.cos(math.pi * done)))


@dataclass(frozen=True)
class Trained:
    """What a checkpoint holds, ready for use.

    Attributes:
        network: The score, with its averaged weights; not training, needing no gradients.
        chain: What it was trained along; ``chain.sde`` is the forward equation.
        objective: On what.
        about: What :func:`train` was told about the data.
        update: After how many updates.
    """

    network: nn.Module
    chain: Chain
    objective: Objective
    about: dict[str, Any]
    update: int

    @property
    def sde(self) -> KuramotoSDE:
        """The forward equation."""
        assert isinstance(self.chain.sde, KuramotoSDE)
        return self.chain.sde


def train(
    network: nn.Module,
    chain: Chain,
    objective: Objective,
    theta: Angles,
    validation: Float[Tensor, "..."],
    run: Path,
    settings: Settings | None = None,
    *,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[int], object] | None = None,
    **trainer: Any,
) -> Trained:
    """Train ``network``, or go on where ``run`` holds a state of the same training already.

    Args:
        network: ``score(t, theta)`` with its ``arguments``; see :mod:`circsde.models.checkpoint`.
        chain: What to train along; for pathwise matching it is calibrated, if it has no discounts.
        objective: On what.
        theta: Data, radians.
        validation: Data for validation.
        run: The folder, made if need be, for ``last.safetensors``, ``best.safetensors`` and ``metrics.csv``.
        settings: How.
        about: What a reader of the checkpoint should know, as JSON: where the data came from, its units.
        progress: Called with the number of finished updates.
        **trainer: Options of Lightning's ``Trainer``: ``accelerator``, ``devices``, ``strategy``, ``precision``.

    Returns:
        The state of least validation loss.

    Raises:
        ValueError: If ``run`` holds another training, or a file that is no checkpoint.
        FloatingPointError: If a loss or a gradient is not finite; it says at which update and time.
        OSError: If a checkpoint cannot be written; the previous one is kept.
    """
    settings = Settings() if settings is None else settings
    run.mkdir(parents=True, exist_ok=True)
    if objective is Objective.PATHWISE and chain.discounts is None:
        generator = torch.Generator(theta.device).manual_seed(settings.seed)
        chain = chain.calibrated(resampled(theta)(4096, generator), generator)

    def transitions(data: Angles, device: torch.device, seed: int) -> Transitions:
        generator = torch.Generator(device).manual_seed(seed)
        options = settings.batch, generator, settings.pool, settings.stride, settings.states
        return Transitions(chain, objective, resampled(data), *options)

    def validation_pairs(device: torch.device) -> list[Pairs]:
        source = transitions(validation, device, settings.seed + 2**32)
        return [source.draw() for _ in range(VALIDATION)]

    source = PairSource(
        lambda device, rank: transitions(theta, device, settings.seed + rank), validation_pairs, settings.updates
    )
    description = {
        "network": checkpoint.describe(network),
        "sde": checkpoint.describe(chain.sde),
        "chain": {"times": list(chain.times), "discounts": chain.discounts, "published": chain.published},
        "objective": str(objective),
        "settings": asdict(settings),
        "data": {"training": _digest(theta), "validation": _digest(validation)},
        "about": dict(about or {}),
    }
    _check_same(run / LAST, description)
    callbacks: list[Callback] = [averaging(settings.averaging), Record(run, description)]
    if settings.patience is not None:
        callbacks.append(EarlyStopping("validation_loss", patience=settings.patience, check_on_train_epoch_end=True))
    if progress is not None:
        callbacks.append(Counter(progress))
    options = {
        "accelerator": "auto",
        "devices": 1,
        "max_epochs": settings.epochs,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        **trainer,
    }
    module = ScoreMatching(
        network, {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}, settings.rate, settings.clip
    )
    with quiet():
        fitting = pl.Trainer(callbacks=callbacks, plugins=[SafetensorsIO()], **options)
        try:
            fitting.fit(module, datamodule=source, ckpt_path=run / LAST if (run / LAST).exists() else None)
        except SystemExit:  # Lightning's answer to Ctrl-C
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from None
    return trained(run)


def trained(run: Path) -> Trained:
    """The state of least validation loss in the folder ``run``, or any state, given its file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is cut off, or its weights do not fit its network.
    """
    path = run / BEST if run.is_dir() else run
    state = checkpoint.load(path)
    description = state["description"]
    network = checkpoint.rebuild(description["network"])
    weights = {name.removeprefix("network."): tensor for name, tensor in state["state_dict"].items()}
    checkpoint.load_weights(network, weights, path)
    network.eval().requires_grad_(False)
    steps = description["chain"]
    chain = Chain(
        checkpoint.rebuild(description["sde"]),
        tuple(steps["times"]),
        None if steps["discounts"] is None else tuple(steps["discounts"]),
        published=steps["published"],
    )
    return Trained(network, chain, Objective(description["objective"]), description["about"], state["global_step"])


def _digest(theta: Angles) -> str:
    return hashlib.sha256(theta.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _check_same(path: Path, description: Mapping[str, Any]) -> None:
    """Refuse to go on with another training than this."""
    if not path.exists():
        return
    here, there = (_flat(tree) for tree in (description, checkpoint.load(path)["description"]))
    different = [name for name in {*here, *there} if here.get(name) != there.get(name)]
    if different:
        name = min(different, key=lambda name: (name == "chain.discounts", name))
        raise ValueError(
            f"{path.parent} holds another training: {name} was {there.get(name)} and is now {here.get(name)}; train it"
            " as before to go on, or choose another folder"
        )


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping):
        return {key: value for part, child in tree.items() for key, value in _flat(child, f"{name}.{part}").items()}
    return {name.lstrip("."): list(tree) if isinstance(tree, tuple) else tree}

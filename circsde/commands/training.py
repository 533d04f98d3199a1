"""Shared by trainings of angles and of images on the command line: the choices that they offer, and a bar."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from circsde.commands import console
from circsde.commands.answer import counted

if TYPE_CHECKING:
    from circsde.models.settings import Settings


ProcessName = StrEnum("ProcessName", ["DIFFUSION", "REFERENCE", "GLOBAL", "LOCAL", "STANDARD"])
"""The forward process; all but the last are members of :class:`circsde.models.processes.Process`."""

RatesName = StrEnum("RatesName", ["SETTLING", "PUBLISHED"])
"""The rates of images in time, as in :class:`circsde.models.processes.Family`."""

Preset = StrEnum("Preset", ["TINY", "SMALL", "BASE"])
"""The size of a U-Net."""

ObjectiveName = StrEnum(
    "ObjectiveName",
    {"BEST": "best", "DENOISING": "denoising", "ONE_STEP": "one-step", "PATHWISE": "pathwise"},
)
"""The objective: what the network regresses on."""


def end(settings: "Settings", begin: datetime) -> str:
    """Say in words when a training ends at the latest.

    >>> from circsde.models.settings import Settings
    >>> end(Settings(epochs=40, updates=500), datetime(2026, 1, 1, 12))
    'ends after 40 epochs of 500 updates at the latest'
    >>> end(Settings(seconds=300.0, patience=3), datetime(2026, 1, 1, 12))
    'ends after 300 s, at 12:05:00, at the latest, or after 3 epochs without a lower validation loss'
    """
    if settings.seconds is None:
        said = f"ends after {counted(settings.epochs, 'epoch')} of {counted(settings.updates, 'update')} at the latest"
    else:
        last = begin + timedelta(seconds=settings.seconds)
        said = f"ends after {settings.seconds:g} s, at {last:%H:%M:%S}, at the latest"
    if settings.patience is not None:
        said += f", or after {counted(settings.patience, 'epoch')} without a lower validation loss"
    return said


@contextmanager
def training_bar(settings: "Settings", notes: Sequence[str], begin: float) -> Iterator[dict[str, Any]]:
    """Show a progress bar during training, and turn a failure into a message.

    Args:
        settings: The settings of the training: updates, or a time, are what the bar counts.
        notes: The notes of the work; what ends it is added.
        begin: When the command began, by the monotonic clock.

    Yields:
        The arguments of :func:`circsde.models.train` that move it, and the time that is spent already.
    """
    notes = [*notes, end(settings, datetime.now() - timedelta(seconds=time.monotonic() - begin))]
    if settings.seconds is None:
        bar = console.progress_bar("training", settings.epochs * settings.updates, notes)
    else:
        bar = console.progress_bar("training, seconds", round(settings.seconds), notes)
    try:
        with bar as update:

            def done(updates: int) -> int:
                return updates if settings.seconds is None else int(time.monotonic() - begin)

            yield {
                "progress": lambda updates: update(done(updates)),
                "preparing": lambda what: update(done(0), now=f"preparing {what}"),
                "spent": time.monotonic() - begin,
            }
    except FloatingPointError as error:
        console.fail(str(error))
    except KeyboardInterrupt:
        console.note("the same command resumes from the last finished epoch")
        raise

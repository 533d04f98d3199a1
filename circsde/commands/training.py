"""What trainings of angles and of images share on the command line: the choices that they offer, and a bar."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from circsde.commands import console

if TYPE_CHECKING:
    from circsde.models.settings import Settings


class ProcessName(StrEnum):
    """What drives data to a known law; all but the last are those of :class:`circsde.models.processes.Process`."""

    DIFFUSION = "diffusion"
    REFERENCE = "reference"
    GLOBAL = "global"
    LOCAL = "local"
    STANDARD = "standard"


class RatesName(StrEnum):
    """The rates of images in time; those of :class:`circsde.models.processes.Family`."""

    SETTLING = "settling"
    PUBLISHED = "published"


class Preset(StrEnum):
    """The size of a U-Net."""

    TINY = "tiny"
    SMALL = "small"
    BASE = "base"


class ObjectiveName(StrEnum):
    """What the network regresses on."""

    BEST = "best"
    DENOISING = "denoising"
    ONE_STEP = "one-step"
    PATHWISE = "pathwise"


def end(settings: "Settings", begin: datetime) -> str:
    """What ends a training at the latest.

    >>> from circsde.models.settings import Settings
    >>> end(Settings(epochs=40, updates=500), datetime(2026, 1, 1, 12))
    'ends after 40 epochs of 500 updates at the latest'
    >>> end(Settings(seconds=300.0, patience=3), datetime(2026, 1, 1, 12))
    'ends after 300 s, at 12:05:00, at the latest, or after 3 epochs without a lower validation loss'
    """
    if settings.seconds is None:
        said = f"ends after {settings.epochs} epochs of {settings.updates} updates at the latest"
    else:
        last = begin + timedelta(seconds=settings.seconds)
        said = f"ends after {settings.seconds:g} s, at {last:%H:%M:%S}, at the latest"
    if settings.patience is not None:
        said += f", or after {settings.patience} epochs without a lower validation loss"
    return said


@contextmanager
def training_bar(
    settings: "Settings", notes: Sequence[str], begin: float
) -> Iterator[tuple[Callable[[int], object], Callable[[str], object]]]:
    """A bar and two ways to move it; a failure in a message.

    Args:
        settings: Of the training: updates, or a time, are what the bar counts.
        notes: Of the work; what ends it is added.
        begin: When the command began, by the monotonic clock.

    Yields:
        What takes the number of finished updates, and what takes a text that says what is prepared.
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

            yield lambda updates: update(done(updates)), lambda what: update(done(0), now=f"preparing {what}")
    except FloatingPointError as error:
        console.fail(str(error))
    except KeyboardInterrupt:
        console.note("the same command goes on from the last finished epoch")
        raise

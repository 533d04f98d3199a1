"""What commands share: errors as one message, progress, parsed options, output paths."""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, ParamSpec

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

P = ParamSpec("P")

FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130
"""Exit status: a computation that failed, bad input, Ctrl-C."""


def reporting_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Let ``command`` answer bad input with one message and status 2, and Ctrl-C with status 130.

    Bad input is what the library raises as ``ValueError`` or ``OSError``; anything else is a bug and keeps its
    traceback, as does everything where the environment sets ``CIRCSDE_TRACEBACK``.
    """

    @functools.wraps(command)
    def reported(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (ValueError, OSError) as error:
            if os.environ.get("CIRCSDE_TRACEBACK"):
                raise
            fail(str(error), USER_ERROR)
        except KeyboardInterrupt:
            fail("interrupted", INTERRUPTED)

    return reported


def say(message: str, style: str = "") -> None:
    """Print ``message`` on stdout as it is, however wide, so that paths in it can be copied."""
    Console(soft_wrap=True, highlight=False).print(Text(message, style))


def fail(message: str, status: int) -> NoReturn:
    """Say ``message`` on stderr and leave with ``status``."""
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), message))
    raise typer.Exit(status)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, moved by calling what it yields with the number of finished units."""
    numbers = MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(
        TextColumn(what), BarColumn(), *numbers, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


def outputs(out: Path, suffixes: tuple[str, ...], source: str, *, force: bool) -> list[Path]:
    """The files ``out`` + suffix, checked now rather than when the work is done.

    Raises:
        OSError: If one cannot be written; see :func:`circsde.record.check_writable`.
        ValueError: If one is the source itself.
    """
    from circsde.record import check_writable

    stem = out.with_suffix("") if out.suffix in suffixes else out
    paths = [stem.with_name(stem.name + suffix) for suffix in suffixes]
    for path in paths:
        if path.resolve() == Path(source).resolve():
            raise ValueError(f"{path} is the source: choose another output path")
        check_writable(path, force=force)
    return paths

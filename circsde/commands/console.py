"""Shared by all commands: how they run and answer, errors as one message, notes, progress, output paths."""

import functools
import inspect
import os
import platform
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text
from typer.core import TyperGroup

from circsde.commands.answer import Answer, show, show_json
from circsde.commands.options import OUTPUT, flag

P = ParamSpec("P")

FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130
"""Exit status: a computation that failed, bad input, Ctrl-C."""

_NO_MEMORY = ("allocate", "out of memory", "not enough memory")  # in what torch and numpy say

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)

_COMMON = {
    "as_json": Annotated[bool, flag(OUTPUT, "Answer with one JSON object on stdout.", "--json")],
    "quiet": Annotated[bool, flag(OUTPUT, "No progress and no notes.", "--quiet", "-q")],
}


USAGE_ERROR: Any = typer.BadParameter.__bases__[0]
"""The error of click for a command line that it cannot read; newer versions of Typer contain a copy of click."""

_JSON = "circsde.json"


class Program(TyperGroup):
    """The commands, whose usage errors are answered in JSON, too, where that is asked for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options of the program, and note whether JSON is asked for."""
        ctx.meta[_JSON] = "--json" in args
        with _usage_errors_as_json(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Read the options of a command and run it."""
        with _usage_errors_as_json(ctx):
            return super().invoke(ctx)


@contextmanager
def _usage_errors_as_json(ctx: Any) -> Iterator[None]:
    """Print the object that ``--json`` promises before click prints its message."""
    try:
        yield
    except USAGE_ERROR as error:
        if ctx.meta[_JSON]:
            name = (getattr(error, "ctx", None) or ctx).info_name
            _print(name, Failed(error.format_message(), USER_ERROR, {}), as_json=True)
        raise


class Failed(Exception):
    """Raised to end a command: a message, the exit status, and files that were written all the same."""

    def __init__(self, message: str, status: int, files: dict[str, Path]) -> None:
        super().__init__(message)
        self.status, self.files = status, files


def command(run: Callable[P, Answer]) -> Callable[..., None]:
    """Make a command of a function: it takes ``--json`` and ``--quiet`` too, and prints its answer.

    Bad input, which is what the library raises as ``ValueError`` or ``OSError``, is answered by one message and status
    2, a computation that failed, as a solve that raises ``SolveError``, by status 1, Ctrl-C by status 130. Anything
    else is a bug and keeps its traceback, as does everything where the environment sets ``CIRCSDE_TRACEBACK``. A
    warning of Python's is one line on stderr, also where the command is to be quiet, as it may put the answer in doubt.
    """

    @functools.wraps(run)
    def printed(*args: Any, as_json: bool = False, quiet: bool = False, **kwargs: Any) -> None:
        token = _quiet.set(quiet)
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _warn
                outcome = _outcome(lambda: run(*args, **kwargs))
            try:
                _print(run.__name__, outcome, as_json)
            except OSError as error:
                outcome = Failed(f"could not print the answer: {error}", FAILED, {})
            if isinstance(outcome, Failed):
                _stderr().print(Text.assemble(("error: ", "bold red"), str(outcome)))
                raise typer.Exit(outcome.status)
        finally:
            _quiet.reset(token)

    signature = inspect.signature(run)
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in _COMMON.items()
    ]
    parameters = [*signature.parameters.values(), *common]
    printed.__doc__ = re.sub(r"(?<=\S)\n(?=\S)", " ", inspect.cleandoc(run.__doc__ or ""))  # a line per paragraph
    printed.__dict__["__signature__"] = signature.replace(parameters=parameters, return_annotation=None)
    return printed


def _outcome(run: Callable[[], Answer]) -> Answer | Failed:
    """The answer of the command, or its error as a failure; a bug stays an exception."""
    try:
        return run()
    except (Exception, KeyboardInterrupt) as error:
        failure = _failure(error)
        if failure is None or os.environ.get("CIRCSDE_TRACEBACK"):
            raise
        return failure


def _failure(error: BaseException) -> Failed | None:
    if isinstance(error, Failed):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Failed("interrupted", INTERRUPTED, {})
    if isinstance(error, MemoryError | RuntimeError) and any(words in str(error) for words in _NO_MEMORY):
        return Failed(f"not enough memory: take a smaller batch or network, or fewer samples ({error})", FAILED, {})
    if isinstance(error, RuntimeError):
        from circsde.solvers.solution import SolveError

        return Failed(str(error), FAILED, {}) if isinstance(error, SolveError) else None
    return Failed(str(error), USER_ERROR, {}) if isinstance(error, ValueError | OSError) else None


def _print(name: str, outcome: Answer | Failed, as_json: bool) -> None:
    about: dict[str, object] = {"command": name, "versions": versions()}
    if isinstance(outcome, Failed):
        if as_json:
            show_json(**about, exit_code=outcome.status, files=outcome.files, error=str(outcome))
    elif as_json:
        show_json(**about, exit_code=0, files=outcome.files, result=outcome.values)
    else:
        show(outcome)


def fail(message: str, **files: Path) -> NoReturn:
    """End the command: its computation failed, but left ``files``."""
    raise Failed(message, FAILED, files)


def versions() -> dict[str, str]:
    """The versions that results depend on, by package."""
    return {"circsde": version("circsde"), "torch": version("torch"), "python": platform.python_version()}


def version_line() -> str:
    """The versions in one line."""
    return ", ".join(f"{name} {number}" for name, number in versions().items())


def note(message: str, style: str = "") -> None:
    """Print a note on stderr, unless the command was asked to be quiet."""
    if not _quiet.get():
        _stderr().print(Text(message, style))


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning in one line, without the place in the code where it arose."""
    _stderr().print(Text.assemble(("warning: ", "bold yellow"), " ".join(str(message).split())))


def is_quiet() -> bool:
    """Whether the command was asked to be quiet."""
    return _quiet.get()


def _stderr() -> Console:
    return Console(stderr=True, soft_wrap=True, highlight=False)


@contextmanager
def progress_bar(
    what: str, total: int | None = None, notes: Sequence[str] | None = None
) -> Iterator[Callable[..., object]]:
    """A bar on stderr, moved by calling what it yields with the number of finished units, and that of all if it varies.

    A call with ``now``, a text, shows that instead of ``what`` until the next call, as while something is prepared.
    Where stderr is no terminal there is no bar. With ``notes``, it says at the first other call, when the work turned
    out to be possible, which versions do it, and these. A command that is to be quiet has neither.
    """
    console, columns = _stderr(), (MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    told = _quiet.get() or notes is None
    hidden = _quiet.get() or not console.is_terminal
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), *columns, console=console, transient=True, disable=hidden
    )
    with nullcontext() if hidden else progress:  # before its version 14.3, rich ends a disabled bar with an empty line
        task = progress.add_task(what, total=total)

        def update(done: int, of: int | None = total, *, now: str | None = None) -> None:
            nonlocal told
            if not told and now is None:
                progress.console.print(Text("\n".join([version_line(), *(notes or ())]), "dim"))
                told = True
            progress.update(task, completed=done, total=of, description=now or what)

        yield update


def outputs(out: Path | None, default: Path, suffixes: tuple[str, ...], source: str, *, force: bool) -> list[Path]:
    """The files ``out`` + suffix, checked now rather than when the work is done.

    Args:
        out: As the user gave it: a path with or without a suffix, or a folder for files named as ``default`` is.
        default: Where there is none.
        suffixes: One per file.
        source: What must not be replaced.
        force: Whether files may be replaced.

    Raises:
        OSError: If one cannot be written; see :func:`circsde.record.check_writable`.
        ValueError: If one is the source itself.
    """
    from circsde.record import check_writable

    stem = default if out is None else out / default.name if out.is_dir() else out
    stem = stem.with_suffix("") if stem.suffix in suffixes else stem
    paths = [stem.with_name(stem.name + suffix) for suffix in suffixes]
    for path in paths:
        if path.resolve() == Path(source).resolve():
            raise ValueError(f"{path} is the source: choose another output path")
        check_writable(path, force=force)
    return paths


def check_folder(folder: Path) -> None:
    """Refuse now a folder that cannot be made, or written to.

    Raises:
        NotADirectoryError: If it, or what it would lie in, is a file.
        PermissionError: If it is not writable.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is a file, not a folder: choose another output path")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"the folder {there} is not writable")


def check_memory(needed: float, what: str, advice: str) -> None:
    """Refuse now what would be killed for its memory after hours of computing; ``needed`` is in bytes."""
    if hasattr(os, "sysconf") and needed > (here := float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")):
        raise ValueError(
            f"{what} take {needed / 2**30:.0f} GiB of memory, this machine has {here / 2**30:.0f}: {advice}"
        )

"""Results on disk: written whole or not at all, with what is needed to make them again."""

import json
import os
import platform
import shlex
import shutil
import signal
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType

import xarray as xr


@contextmanager
def replacing(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Write ``path`` through a temporary file beside it that takes its place only when it is complete.

    An exception, a full disk or a kill inside the block leaves what was at ``path`` as it was. The file gets the
    permissions of any new file, whatever the library that writes it prefers.

    Args:
        path: The file to which the result is written.
        force: Whether it may replace a file.

    Yields:
        The temporary path to write to, with the suffix of ``path``.

    Raises:
        OSError: As :func:`check_writable` says, or if writing fails.
    """
    path = Path(path)
    check_writable(path, force=force)
    # without the name of the file, which may be as long as a name can be
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        temporary.touch()
        permissions = temporary.stat().st_mode
        yield temporary
        temporary.chmod(permissions)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        check_writable(path, force=force)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # the NetCDF library reports a full disk as a RuntimeError
        free = shutil.disk_usage(path.parent).free / 2**20
        raise OSError(
            f"could not write {path}, and left no half file there: {error} ({free:.0f} MiB are free on its disk)"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | Path, *, force: bool = False) -> None:
    """Refuse now what would fail, or destroy something, after hours of computing.

    Raises:
        FileNotFoundError: If the folder does not exist.
        NotADirectoryError: If it is a file.
        FileExistsError: If ``path`` exists and ``force`` is not set.
        IsADirectoryError: If ``path`` is a folder.
        PermissionError: If the folder is not writable.
        OSError: If the name is longer than the file system allows.
    """
    path = Path(path)
    if path.parent.is_file():
        raise NotADirectoryError(f"{path.parent} is a file, not a folder: choose another output path")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist: make it, or choose another output path")
    if hasattr(os, "pathconf") and len(os.fsencode(path.name)) > (most := os.pathconf(path.parent, "PC_NAME_MAX")):
        raise OSError(f"the file name {path.name} has more than {most} bytes: choose a shorter one")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give a file name in it")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists already: choose another output path, or replace it with force (--force)")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"the folder {path.parent} is not writable")


@contextmanager
def held(folder: str | Path) -> Iterator[None]:
    """Hold ``folder`` for this process alone: one that dies lets go of it, and nothing is left in it.

    Where the system has no locks, as on Windows and on some network file systems, it does nothing.

    Raises:
        BlockingIOError: If another process, or another block of this one, holds the folder.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"another process is at work in {folder}: wait until it ends, or choose another folder"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(opened)


def save_netcdf(dataset: xr.Dataset, path: str | Path, *, force: bool = False) -> None:
    """Write ``dataset`` as compressed NetCDF-4, whole or not at all; Ctrl-C acts when it is written.

    Raises:
        OSError: As :func:`replacing` says.
    """
    with interrupts_wait(), replacing(path, force=force) as temporary:
        packed = {
            name: {"zlib": True, "complevel": 1} for name, v in dataset.variables.items() if v.dtype.kind in "fiu"
        }
        dataset.to_netcdf(temporary, engine="netcdf4", encoding=packed)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Let Ctrl-C act after the block instead of in it.

    For reading and writing NetCDF: an interruption just as xarray has taken the lock of a file leaves it locked, and
    closing the file then waits for it for ever.
    """
    act = signal.getsignal(signal.SIGINT)
    if not callable(act) or threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting = list[tuple[int, FrameType | None]]()
    signal.signal(signal.SIGINT, lambda *interrupt: waiting.append(interrupt))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, act)
    if waiting:
        act(*waiting[-1])


def provenance(**options: object) -> dict[str, str]:
    """Attributes that say how a result was made: time, versions, command line, and the options as JSON.

    >>> provenance(seed=0, method="heun")["options"]
    '{"seed": 0, "method": "heun"}'
    """
    packages = {name: version(name) for name in ("circsde", "torch", "numpy")}
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": json.dumps({"python": platform.python_version(), **packages}),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "options": json.dumps(options, default=str),
    }

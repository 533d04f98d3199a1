"""The cells of a study: independent pieces of work that are computed anywhere, in any order, with the same result."""

import hashlib
import importlib
import multiprocessing
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import xarray as xr

from circsde.record import interrupts_wait, save_netcdf
from circsde.studies.content import NoDigestError, package_sources
from circsde.threads import one_thread


@runtime_checkable
class Cell(Protocol):
    """A piece of a study."""

    def key(self) -> str:
        """Everything that determines the result, as text: a finished cell is found by it.

        Raises:
            NoDigestError: If that cannot be digested; the cell is then computed anew each time.
        """

    def compute(self) -> xr.Dataset:
        """The result."""


@dataclass(frozen=True)
class Runner:
    """Computes the cells of a study; results do not depend on it, bit for bit, on processors of one kind.

    Attributes:
        folder: Finished cells are kept there, each written whole or not at all, and are not computed again. A cell is
            found by the content of all that determines it (:mod:`circsde.studies.content`): any change of an equation,
            a step, an observable, a start or of circsde makes other cells.
        workers: Processes; each is started afresh and computes on one thread.
        dask: The address of a Dask scheduler to compute on instead, such as ``tcp://host:8786``.
        progress: Called with the numbers of finished cells and of all cells.

    >>> from circsde.studies import Runner, exact_convergence
    >>> runner = Runner(progress=lambda done, total: print(f"{done} of {total}"))
    >>> table = exact_convergence("von_mises_well", methods=["heun"], steps=[10], runner=runner)
    0 of 1
    1 of 1
    """

    folder: str | Path | None = None
    workers: int = 1
    dask: str | None = None
    progress: Callable[[int, int], object] | None = None

    def __post_init__(self) -> None:
        """Refuse fewer than one worker."""
        if self.workers < 1:
            raise ValueError(f"there must be at least one worker, got {self.workers}")

    def map(self, cells: Sequence[Cell]) -> list[xr.Dataset]:
        """The results of all cells, in their order.

        An interruption lets the cells that are being computed finish, and keeps them. Where the content of a cell
        cannot be digested, a warning says so, and the cell is neither looked for nor kept.

        Raises:
            ImportError: If a Dask address is given and Dask is not installed.
        """
        keys = self._keys(cells)
        results = {i: found for i, key in enumerate(keys) if (found := self._find(key)) is not None}
        missing = [i for i in range(len(cells)) if i not in results]
        self._report(len(results), len(cells))
        for i, result in self._compute(cells, missing, keys):
            results[i] = self._keep(keys[i], result)
            self._report(len(results), len(cells))
        return [results[i] for i in range(len(cells))]

    def _keys(self, cells: Sequence[Cell]) -> list[str | None]:
        """The key by which each cell is found; None where nothing is kept, or its content cannot be digested."""
        keys, reason = list[str | None](), ""
        for cell in cells:
            try:
                keys.append(None if self.folder is None else cell.key())
            except NoDigestError as error:
                keys.append(None)
                reason = str(error)
        if reason:
            warnings.warn(f"cells are computed, but not kept in {self.folder}: {reason}", stacklevel=3)
        return keys

    def _compute(
        self, cells: Sequence[Cell], wanted: Sequence[int], keys: Sequence[str | None]
    ) -> Iterator[tuple[int, xr.Dataset]]:
        if self.dask is None and (self.workers == 1 or len(wanted) < 2):
            for i in wanted:
                yield i, compute(cells[i])
            return
        with self._executor(len(wanted)) as executor:
            futures = {executor.submit(compute, cells[i]): i for i in wanted}
            try:
                for future in as_completed(futures):
                    yield futures.pop(future), future.result()
            except BaseException:
                for future in futures:
                    future.cancel()
                for future, i in futures.items():
                    if not future.cancelled() and future.exception() is None:
                        self._keep(keys[i], future.result())
                raise

    @contextmanager
    def _executor(self, cells: int) -> Iterator[Executor]:
        if self.dask is not None:
            try:
                distributed = importlib.import_module("dask.distributed")
            except ImportError as error:
                raise ImportError("computing on Dask needs pip install 'dask[distributed]'") from error
            with distributed.Client(self.dask) as client, client.get_executor() as executor:
                yield executor
        else:
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(min(self.workers, cells), spawn, initializer=_ignore_interrupts) as executor:
                yield executor

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        name = hashlib.sha256(f"{package_sources()} {key}".encode()).hexdigest()[:24]
        return Path(self.folder) / f"{name}.nc"

    def _find(self, key: str | None) -> xr.Dataset | None:
        if key is None or not (path := self._path(key)).exists():
            return None
        with interrupts_wait(), xr.open_dataset(path) as found:
            return found.load()

    def _keep(self, key: str | None, result: xr.Dataset) -> xr.Dataset:
        if key is not None:
            path = self._path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_netcdf(result.assign_attrs(cell=key), path, force=True)
        return result

    def _report(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)


def compute(cell: Cell) -> xr.Dataset:
    """The result of a cell, computed on one thread: sums over several depend on how many there are."""
    with one_thread():
        return cell.compute()


def _ignore_interrupts() -> None:
    """Ctrl-C reaches every process of the terminal; only the first one decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

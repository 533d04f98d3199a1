"""Threads: how many compiled loops take, and work on a single one."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

_WORTHWHILE = 1 << 15  # numbers below which a second thread costs more than it saves


def share(work: Callable[[int, int], object], count: int, grain: int, each: int, *, least: float = 1) -> None:
    """Do ``work(first, last)`` for ``count`` things, by several threads where they are worth it.

    Args:
        work: What releases the interpreter's lock while it computes.
        count: The number of things, which are in order.
        grain: Things that stay together.
        each: Numbers that one thing costs.
        least: How many times the usual a thread must have to do; infinity where this thread does all.
    """
    pieces = -(-count // grain)
    threads = min(torch.get_num_threads(), pieces, max(1, int(count * each / (least * _WORTHWHILE))))
    if threads == 1:
        work(0, count)
        return
    edges = [min(count, pieces * i // threads * grain) for i in range(threads + 1)]
    jobs = [_pool(threads - 1).submit(work, a, b) for a, b in zip(edges[1:], edges[2:], strict=False)]
    try:
        work(edges[0], edges[1])
    finally:
        for job in jobs:
            job.result()


def array(x: Tensor) -> NDArray[Any] | None:
    """The numbers of a tensor for numpy, which computes on one thread; None where it cannot have them.

    torch's threads, once woken, wait for more in a busy loop of milliseconds, and take the cores that :func:`share`
    needs: before compiled loops, whatever is done with all angles is done outside torch.

    >>> array(torch.zeros(2))
    array([0., 0.], dtype=float32)
    """
    plain = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    if not plain or torch._C._functorch.is_functorch_wrapped_tensor(x):
        return None
    found: NDArray[Any] = x.detach().numpy()
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, so that sums depend on no number of threads, and none waits for another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="circsde")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child process has none of its parent's threads

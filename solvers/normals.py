"""Standard normals by key and counter (:mod:`circsde.solvers.philox`), by the fastest way that the device has."""

from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from circsde.solvers.philox import normals
from circsde.threads import share


def standard_normals(
    key: int, first_sample: int, step: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Standard normals of the samples from ``first_sample`` on, shape ``(batch, *event)``, float32 or float64.

    The same on every device to rounding, 4e-7 in float32, and the same to the last bit whatever the batch and threads.

    >>> a = standard_normals(1, 0, 5, (4, 3), torch.float32, torch.device("cpu"))
    >>> b = standard_normals(1, 2, 5, (2, 3), torch.float32, torch.device("cpu"))
    >>> torch.equal(a[2:], b)
    True
    """
    if torch._C._functorch.peek_interpreter_stack() is None:
        return _drawn(key, first_sample, step, shape, dtype, device)
    with torch._C._DisableFuncTorch():  # torch.func wraps what is made inside of it, out of the reach of loops
        out = _drawn(key, first_sample, step, shape, dtype, device)
    return out.clone()  # a wrapped one, which may be changed


def _drawn(
    key: int, first_sample: int, step: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    out = torch.empty(shape, dtype=dtype, device=device)
    n = out[0].numel()
    if device.type == "cpu" and compiles():
        from circsde.solvers import kernels  # only here, as it takes a moment

        rows, flat, halves = kernels.rows_in_tile(n), out.view(-1).numpy(), kernels.halves(key)
        k = kernels.constants(flat.dtype)

        def fill(first: int, last: int) -> None:
            work, sample = kernels.scratch(flat.dtype), np.uint64(first_sample)
            kernels.fill(flat, n, rows, first, last, sample, np.uint64(step), *halves, work, k)

        share(fill, len(out), rows, n)
    elif device.type == "cuda" and has_triton():
        from circsde.solvers.gpu import fill_normals

        fill_normals(out, key, first_sample, step)
    else:
        samples = torch.arange(first_sample, first_sample + len(out), device=device)
        out = normals(key, samples, step, n, dtype).reshape(shape)
    return out


@cache
def has_triton() -> bool:
    """Whether Triton is there to compile for a GPU."""
    return find_spec("triton") is not None


@cache
def compiles() -> bool:
    """Whether numba is there to compile loops for this processor."""
    try:
        import circsde.solvers.kernels  # noqa: F401
    except ImportError:
        return False
    return True

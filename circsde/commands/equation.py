"""The parts of an equation as the command line names them: who listens to whom, lags, frequencies, first phases."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from circsde.adjacency import Adjacency
    from circsde.coupling import Coupling
    from circsde.data import Phases

COUPLINGS = ("none", "global", "local", "graph:", "matrix:")
"""The words with which the option for a coupling may begin."""

_RANDOM = re.compile(r"random(?::(\d+))?")
_LAWS = {"normal": 2, "uniform": 2, "cauchy": 2}


def complete_coupling(text: str) -> list[str]:
    """The couplings whose names begin with the given text."""
    return [name for name in COUPLINGS if name.startswith(text)]


def is_random(source: str) -> bool:
    """Whether a source asks for oscillators at random phases: ``random`` or ``random:N``."""
    return _RANDOM.fullmatch(source) is not None


def random_phases(
    source: str, listens: "Coupling", count: int | None, dtype: Any, generator: "torch.Generator"
) -> "Phases":
    """Uniform phases of N oscillators, by default as many as the matrix of their coupling has rows."""
    import torch

    from circsde.adjacency import WeightedCoupling
    from circsde.data import Phases

    matched = _RANDOM.fullmatch(source)
    assert matched is not None
    if matched[1] is not None:
        n = int(matched[1])
    elif isinstance(listens, WeightedCoupling):
        n = listens.vertices
    else:
        raise ValueError(
            "random phases of how many oscillators? give random:N, as random:100, or --coupling graph:FILE"
        )
    if n < 1:
        raise ValueError(f"there must be one oscillator at least, got {source}")
    uniform = torch.rand(count or 1, n, dtype=torch.float64, generator=generator)
    theta = (2.0 * math.pi * uniform - math.pi).to(dtype)
    return Phases(theta, source, tuple(map(str, range(n))), unit="rad")


def coupling(text: str, radius: int, boundary: Any, lag: float) -> "Coupling":
    """Make the coupling that an option names.

    ``graph:FILE`` is a mean over neighbours, with weights, and ``matrix:FILE`` a sum with weights of any sign.

    Raises:
        ValueError: If there is no such coupling, or the file holds no square matrix and no table of edges.
    """
    from circsde.coupling import GlobalCoupling, LocalCoupling, NoCoupling
    from circsde.graph import DenseCoupling, GraphCoupling

    kind, _, path = text.partition(":")
    if path and kind == "graph":
        return GraphCoupling(matrix(path), lag=lag)
    if path and kind == "matrix":
        return DenseCoupling(matrix(path), lag=lag)
    if text not in ("none", "global", "local"):
        raise ValueError(f"'{text}' is not one of none, global, local, graph:FILE, matrix:FILE")
    if text == "none":
        return NoCoupling()
    return GlobalCoupling(lag) if text == "global" else LocalCoupling(radius, boundary, lag)


def matrix(path: str) -> "Adjacency":
    """Weights from a file: a square table of numbers, or a table with columns source, target and, if you like, weight.

    Row i of a square table, or an edge with i as its source, says whom oscillator i listens to; the first is 0.
    ``.npy`` is a matrix, ``.npz`` one of scipy.sparse.

    Raises:
        ValueError: If it is neither.
    """
    import numpy as np
    import pandas as pd
    import scipy.sparse

    from circsde.files.frames import EXACT

    if path.endswith(".npz"):
        return scipy.sparse.load_npz(path)
    if path.endswith(".npy"):
        return np.load(path, allow_pickle=False).astype(np.float64)
    with Path(path).open() as file:
        first = file.readline()
    if not {"source", "target"} <= {name.strip().strip('"') for name in first.split(",")}:
        table = pd.read_csv(path, header=None, **EXACT)
        if not all(map(pd.api.types.is_numeric_dtype, table.dtypes)):
            raise ValueError(
                f"{path} is no matrix of numbers; a table of edges has columns named source, target and weight, got"
                f" {first.strip()!r}"
            )
        return table.to_numpy(np.float64)
    edges = pd.read_csv(path, skipinitialspace=True, **EXACT)
    ends = edges[["source", "target"]].to_numpy()
    if not np.issubdtype(ends.dtype, np.integer) or (len(ends) and ends.min() < 0):
        raise ValueError(f"{path} must number its vertices from 0, got {ends.min() if len(ends) else None}")
    n = int(ends.max()) + 1 if len(ends) else 0
    weights = edges["weight"].to_numpy(np.float64) if "weight" in edges else np.ones(len(ends))
    return scipy.sparse.coo_array((weights, (ends[:, 0], ends[:, 1])), shape=(n, n))


def frequency(text: str | None, shape: Any, generator: "torch.Generator") -> "float | torch.Tensor":
    """Natural frequencies, rad/time: a number, or one draw of a law for each oscillator.

    Laws are ``normal:MEAN,SD``, ``uniform:LOW,HIGH`` and ``cauchy:CENTRE,WIDTH``, half of it within WIDTH.

    Raises:
        ValueError: If it is neither.

    >>> frequency("0.5", (3,), None), frequency(None, (3,), None)
    (0.5, 0.0)
    """
    if text is None:
        return 0.0
    import torch

    kind, _, given = text.partition(":")
    try:
        numbers = [float(number) for number in (given if given else kind).split(",")]
        if not all(map(math.isfinite, numbers)) or len(numbers) != (_LAWS[kind] if given else 1):
            raise ValueError
    except (ValueError, KeyError):
        raise ValueError(
            f"{text!r} is no frequency: give a number, or normal:MEAN,SD, uniform:LOW,HIGH or cauchy:CENTRE,WIDTH"
        ) from None
    if not given:
        return numbers[0]
    a, b = numbers
    if kind == "normal":
        return a + b * torch.randn(shape, dtype=torch.float64, generator=generator)
    uniform = torch.rand(shape, dtype=torch.float64, generator=generator)
    return a + (b - a) * uniform if kind == "uniform" else a + b * (math.pi * (uniform - 0.5)).tan()

"""RNA backbone torsions, seven angles a row: the RNA column of the public table of densities on the torus.

Rows are read from ``rna.tsv``: entry, base, then alpha, beta, gamma, delta, epsilon, zeta, chi in degrees. Published
results split rows at random by five seeds. Rows of one entry are near-duplicates of each other, so that a second split
keeps entries together.

Source: Huang et al. 2022, arXiv 2208.07949, and Chen and Lipman 2024, arXiv 2302.03660, for table and splits.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circsde.encoding import to_radians

SETS = ("rna", "rna-entry")
"""Split by rows, and by entries."""

Rows = NDArray[np.integer[Any]]


def parts(name: str, seed: int, path: Path) -> list[Tensor]:
    """Rows for training, validation and test, radians, of one of :data:`SETS`."""
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    theta = to_radians(torch.tensor([[float(x) for x in line[2:]] for line in lines], dtype=torch.float64), "deg")
    entries = np.array([line[0] for line in lines])
    split = by_row(len(entries), seed) if name == "rna" else by_entry(entries, seed)
    return [theta[torch.from_numpy(rows)].float() for rows in split]


def by_row(count: int, seed: int) -> list[Rows]:
    """80 % for training, 10 % each for validation and test, at random."""
    return np.split(np.random.default_rng(seed).permutation(count), [count * 8 // 10, count * 9 // 10])


def by_entry(entries: NDArray[np.str_], seed: int) -> list[Rows]:
    """The same, without an entry in two parts.

    Entries in random order are for test while they fit into a tenth of all rows, else for validation while they fit
    into another, else for training; so one of more rows than that always trains.
    """
    limit = len(entries) // 10
    test, validation, training = list[Rows](), list[Rows](), list[Rows]()
    for entry in np.random.default_rng(seed).permutation(np.unique(entries)):
        rows = np.flatnonzero(entries == entry)
        fits = (part for part in (test, validation) if sum(map(len, part)) + len(rows) <= limit)
        next(fits, training).append(rows)
    return [np.concatenate(part) for part in (training, validation, test)]

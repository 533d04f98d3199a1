"""Protein torsion angles of the Top8000 set: real data on T^2 to T^6, a table per kind of residue.

Source: Richardson Laboratory, Duke University, github.com/rlabduke/reference_data, CC BY 4.0; Hintze et al. 2016,
doi:10.1002/prot.25039. Angles are degrees in the files, radians here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pooch
import torch
from numpy.typing import NDArray

from circsde.data.sources import Phases
from circsde.encoding import to_radians
from circsde.files.angles import read_angles
from circsde.record import replacing

BASE = "https://raw.githubusercontent.com/rlabduke/reference_data/cbe300663a2bb55015cf9e9978c720cb12dbf52f"
FOLDER = "Top8000/Top8000_filtered_residues_rotarama/srcdata"
ANGLES = ("phi", "psi", "chi1", "chi2", "chi3", "chi4")
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Table:
    """A file of the set.

    Attributes:
        dimension: How many of :data:`ANGLES` are torsions that this residue really has.
        rows: Rows of the file.
        sha256: The sha256 of the file.
    """

    dimension: int
    rows: int
    sha256: str


TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "cispro": Table(2, 2_780, "ef3f4c33d13c1aa5838a261b9f2dbf36005c84f72926de227770b13c2f910912"),
        "cys": Table(3, 16_767, "c590f9380042894297854c19c59ed051a69a560ee2560b90087de743699bf71c"),
        "his": Table(4, 29_837, "6c189127a8383bc10fc1fd78c8c03e66250b8a715d24b192c00893302488d997"),
        "trp": Table(4, 18_748, "9e4d1b46476b244c961a1cab2ff01cc22be0fe5baf96cec735b0d1115e79965b"),
        "lys": Table(6, 34_860, "cbd814e6eea436adbfeb50e20eb6a0cd4d1eb1e32c37fc709c5212b57d29fa3c"),
        "arg-1m": Table(6, 26_800, "dd840724883af6422adf5f01a097fc3d198354003fe62668cbdad1ac0ca405cc"),
    }
)
"""The tables by the name of their residue."""


def torsion(residue: str, part: str | None = None, path: str | Path | None = None) -> Phases:
    """The torsion angles of one kind of residue.

    Args:
        residue: A name in :data:`TABLES`.
        part: "train", "validation" or "test", of :func:`split`; by default all.
        path: The file, if it is here already; by default it is downloaded once.

    Returns:
        Float32 radians of shape ``(rows, dimension)``; ``dropped`` counts rows of the file that lack an angle.

    Raises:
        ValueError: If the residue or the part is unknown, or the file does not hold torsions in degrees.
        OSError: If the file is neither here nor can be downloaded.
    """
    known, path = _table(residue), fetch(residue) if path is None else path
    if part is not None and part not in PARTS:
        raise ValueError(f"unknown part {part!r}: choose {', '.join(PARTS)}, or none for all")
    read = read_angles(path, [str(i + 2) for i in range(known.dimension)], drop_missing=True)
    if len(read.values) and np.abs(read.values).max() <= 2 * np.pi + 0.01:
        raise ValueError(
            f"{path} should hold degrees, and no angle is beyond {np.abs(read.values).max():g}: are they radians?"
        )
    theta = to_radians(torch.from_numpy(read.values), "deg").float()
    if part is not None:
        theta = theta[torch.from_numpy(split(len(theta))[PARTS.index(part)])]
    return Phases(theta, f"torsion:{residue}", ANGLES[: known.dimension], unit="deg", dropped=read.dropped)


def split(rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Which rows are for training (80 %), validation and test (10 % each), shuffled by numpy's generator of seed 0.

    >>> [part.tolist() for part in split(10)]
    [[4, 6, 2, 7, 3, 5, 9, 0], [8], [1]]
    """
    order = np.random.default_rng(0).permutation(rows)
    train, validation, test = np.split(order, [rows * 8 // 10, rows * 9 // 10])
    return train, validation, test


def fetch(residue: str, local: str | Path | None = None) -> Path:
    """The file of a residue in the user's cache: downloaded the first time, or copied from ``local``; verified.

    Raises:
        ValueError: If the residue is unknown, or ``local`` is another file than it should be.
        OSError: If it cannot be downloaded or written.
    """
    known, name, cache = _table(residue), f"rota8000-{residue}.csv", Path(pooch.os_cache("circsde"))
    if local is not None:
        if pooch.file_hash(local) != known.sha256:
            raise ValueError(f"{local} is not the file {name} of the set: its SHA-256 is {pooch.file_hash(local)}")
        cache.mkdir(parents=True, exist_ok=True)
        with replacing(cache / name, force=True) as temporary:
            temporary.write_bytes(Path(local).read_bytes())
        return cache / name
    url = f"{BASE}/{FOLDER}/{name}"
    try:
        return Path(pooch.retrieve(url, f"sha256:{known.sha256}", name, cache))
    except (OSError, ValueError) as error:
        raise OSError(
            f"could not get {url} ({error}); where there is no network, download it elsewhere and give the path of the"
            f" file once: circsde data fetch torsion-{residue} --from PATH"
        ) from error


def _table(residue: str) -> Table:
    if residue not in TABLES:
        raise ValueError(f"unknown residue {residue!r}: choose one of {', '.join(TABLES)}")
    return TABLES[residue]

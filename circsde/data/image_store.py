"""Images of any sizes as 8-bit pixels in one flat array, in memory or mapped from a file that is built once."""

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from circsde.record import replacing

Item = tuple[str, NDArray[np.uint8] | str]
"""A name with its pixels, ``(rows, columns, channels)``, or with what is wrong with it."""

_VERSION = 1
_HEADER = 128
"""Bytes of the header of a flat ``.npy`` file, the same whatever the length of the file."""


@dataclass(frozen=True, eq=False)
class Store:
    """Images one after the other.

    Attributes:
        pixels: All pixels, flat: of each image its rows, columns and channels, the last index running fastest.
        shapes: Rows and columns of each image, ``(images, 2)``.
        names: A name per image.
        constant: Names of those that have one colour everywhere.
        skipped: What was left out, each with its name and the reason.
    """

    pixels: NDArray[np.uint8]
    shapes: NDArray[np.int64]
    names: tuple[str, ...]
    constant: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def in_memory(items: Iterable[Item]) -> Store:
    """All ``items`` in memory."""
    buffer = io.BytesIO()
    about = _write(items, buffer)
    return _store(np.frombuffer(buffer.getbuffer(), dtype=np.uint8), about)


def mapped(items: Iterable[Item], folder: str | Path, label: str, key: str) -> Store:
    """All ``items``, mapped from a file in ``folder``: read and written the first time, opened later.

    Several processes may build or read one file: it takes its place when it is complete.

    Args:
        items: Consumed only where there is no file yet, one at a time.
        folder: Made if there is none.
        label: What the name of the file begins with.
        key: What the items depend on, as :func:`digest` sums it up.

    Raises:
        OSError: If the file cannot be written.
    """
    path = Path(folder) / f"{label}-{key}.npy"
    about_path = path.with_suffix(".json")
    try:
        about = json.loads(about_path.read_text(encoding="utf-8"))
        return _store(np.load(path, mmap_mode="r", allow_pickle=False), about)
    except (FileNotFoundError, ValueError, EOFError, LookupError, TypeError):  # none yet, or a damaged copy of one
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, force=True) as temporary, temporary.open("wb") as file:
        file.seek(_HEADER)
        about = _write(items, file)
        length = file.tell() - _HEADER
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (length,)})
        if file.tell() != _HEADER:
            raise RuntimeError(f"the header has {file.tell()} bytes, {_HEADER} were left for it")
    with replacing(about_path, force=True) as temporary:
        temporary.write_text(json.dumps(about), encoding="utf-8")
    return _store(np.load(path, mmap_mode="r", allow_pickle=False), about)


def digest(folder: Path, files: Sequence[Path], *options: object) -> str:
    """A key that changes with the list of files, the size and time of change of any, and the options."""
    stats = [(path, path.stat()) for path in files]
    listed = [(str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    text = json.dumps([_VERSION, str(folder.resolve()), listed, options], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _write(items: Iterable[Item], file: BinaryIO | io.BytesIO) -> dict[str, list[object]]:
    """Append the pixels of ``items`` to ``file``; returns the rest of what a store holds."""
    about: dict[str, list[object]] = {"shapes": [], "names": [], "constant": [], "skipped": []}
    for name, image in items:
        if isinstance(image, str):
            about["skipped"].append(f"{name}: {image}")
            continue
        file.write(np.ascontiguousarray(image).data)
        about["shapes"].append(list(image.shape[:2]))
        about["names"].append(name)
        if (image == image[0, 0]).all():
            about["constant"].append(name)
    return about


def _store(pixels: NDArray[np.uint8], about: dict[str, list[object]]) -> Store:
    names, constant, skipped = (tuple(map(str, about[name])) for name in ("names", "constant", "skipped"))
    shapes = np.array(about["shapes"], dtype=np.int64).reshape(-1, 2)
    total = int(shapes.prod(1).sum())
    if len(shapes) != len(names) or pixels.size not in (total, 3 * total):
        raise ValueError(f"{pixels.size} bytes are not the pixels of {len(names)} images of {total} pixels in all")
    return Store(pixels, shapes, names, constant, skipped)

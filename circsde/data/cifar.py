"""CIFAR-10 as its authors distribute it: Python pickles, in a folder or a tar archive.

Pickles can run code, so only plain values and arrays of numbers are admitted.
Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, www.cs.toronto.edu/~kriz/cifar.html.
"""

import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")

_ADMITTED: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("_codecs", "encode"): lambda text, encoding: str(text).encode({"latin1": "latin1"}[encoding]),
}
"""All names that a pickle may use; the last is how the second protocol writes bytes."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """One of the admitted names."""
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}; only arrays and plain values are read")
        return _ADMITTED[module, name]


def batch_files(path: str | Path) -> list[Path]:
    """The archive ``path``, or the batches in the folder ``path`` or in ``cifar-10-batches-py`` below it.

    Raises:
        ValueError: If there are none.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    folders = (path, path / "cifar-10-batches-py")
    files = [file for folder in folders for name in BATCHES if (file := folder / name).is_file()]
    if not files:
        raise ValueError(f"{path} has no CIFAR-10 batch: it should hold {', '.join(BATCHES)}, or be the tar.gz of them")
    return files


def images(path: str | Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """All images, ``(32, 32, 3)``, named such as ``test_batch/cat/domestic_cat_s_000907.png``.

    Args:
        path: As :func:`batch_files` takes it.

    Raises:
        ValueError: If there are none, a batch cannot be read, is not one, or names what may run code.
    """
    for name, content in _contents(Path(path)):
        try:
            batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
            data, labels, names = batch[b"data"], batch[b"labels"], batch[b"filenames"]
            if data.dtype != np.uint8 or data.shape != (len(labels), 3072) or len(names) != len(labels):
                raise ValueError(f"its data are {data.dtype} of shape {data.shape}, should be uint8 of (n, 3072)")
            titles = [f"{name}/{CLASSES[label]}/{file.decode()}" for label, file in zip(labels, names, strict=True)]
        except (pickle.UnpicklingError, EOFError, LookupError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"cannot read {name} of {path} as a CIFAR-10 batch: {error!r}") from error
        yield from zip(titles, data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), strict=True)


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each batch."""
    if not path.is_file():
        yield from ((file.name, file.read_bytes()) for file in batch_files(path))
        return
    found = False
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member) if Path(member.name).name in BATCHES else None
                if stream is not None:
                    found = True
                    yield Path(member.name).name, stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"cannot read {path} as a tar archive: {error}") from error
    if not found:
        raise ValueError(f"{path} has no CIFAR-10 batch: it should hold {', '.join(BATCHES)}")

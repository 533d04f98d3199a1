"""Readers of images to train on: every source becomes a store of 8-bit pixels."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from circsde.data import cifar, images
from circsde.data.fingerprint import fingerprints
from circsde.data.image_store import Item, Store, digest, in_memory, mapped
from circsde.data.images import Colour, Size
from circsde.streams import torch_stream

KINDS = ("brodatz", "cifar10", "fingerprint", "socofing", "texture")
"""What may stand before the colon in the name of a source."""

FRAMED = (103, 96)
"""Rows and columns of a SOCOFing image."""

INSIDE = (slice(2, 99), slice(2, 92))
"""Those of its rows and columns that are not frame."""


def read(
    kind: str, rest: str, size: Size | None, colour: Colour, seed: int, prints: int, cache: str | Path | None
) -> Store:
    """All images of a source.

    Args:
        kind: One of :data:`KINDS`, or "file" for a folder or a file.
        rest: What stands after the colon: a path, or the name of a texture or pattern.
        size: Rows and columns to resize to.
        colour: One channel or three.
        seed: Of the generated fingerprints.
        prints: How many of them.
        cache: Where to keep a file of the pixels.

    Raises:
        ValueError: If there is nothing to read, or a name is unknown.
    """
    found, folder, files = items(kind, rest, size, colour, seed, prints)
    if cache is None:
        return in_memory(found)
    made_of = () if files else (rest, seed, prints)
    key = digest(folder, files, kind, size, colour, *made_of)
    return mapped(found, cache, f"{kind}-{Path(rest).stem}".strip("-"), key)


def items(
    kind: str, rest: str, size: Size | None, colour: Colour, seed: int = 0, prints: int = 16
) -> tuple[Iterator[Item], Path, list[Path]]:
    """All images of a source, one at a time, as :func:`read` takes it, and the folder and files that they are in."""
    folder, files = Path(), list[Path]()
    found: Iterator[Item]
    if kind == "fingerprint":
        found = _generated(rest, prints, seed, size, colour)
    elif kind == "texture":
        found = iter([(rest, _pixels(images.texture(rest, colour), size, colour))])
    else:
        path = Path(rest)
        if not path.exists():
            raise ValueError(
                f"there is no file or folder {rest}; a source is a path, or begins with {': or '.join(KINDS)}:"
            )
        folder = path if path.is_dir() else path.parent
        if kind == "cifar10":
            files = cifar.batch_files(path)
            found = ((name, _pixels(Image.fromarray(image), size, colour)) for name, image in cifar.images(path))
        else:
            files = images.image_files(path) if path.is_dir() else [path]
            found = _files(files, folder, size, colour, is_framed=kind == "socofing")
    return found, folder, files


def _files(files: list[Path], folder: Path, size: Size | None, colour: Colour, *, is_framed: bool) -> Iterator[Item]:
    """The images in ``files``, named by their paths below ``folder``."""
    for file in files:
        name = file.relative_to(folder).as_posix()
        try:
            image = images.read_image(file, colour)
        except ValueError as error:
            yield name, str(error)
            continue
        if is_framed and (image.height, image.width) != FRAMED:
            yield name, f"{image.height}x{image.width} pixels, and a SOCOFing image has {FRAMED[0]}x{FRAMED[1]}"
            continue
        yield name, _pixels(image, size, colour, INSIDE if is_framed else (slice(None), slice(None)))


def _generated(pattern: str, count: int, seed: int, size: Size | None, colour: Colour) -> Iterator[Item]:
    """Fingerprints, 96 x 96."""
    generator = torch_stream(seed, "data")
    for i in range(count):
        grey = fingerprints(1, pattern=pattern or None, generator=generator)[0]
        image = Image.fromarray(((grey + 1.0) * 127.5).round().to(torch.uint8).numpy())
        yield f"fingerprint-{i + 1}", _pixels(image, size, colour)


def _pixels(
    image: Image.Image, size: Size | None, colour: Colour, inside: tuple[slice, slice] = (slice(None), slice(None))
) -> NDArray[np.uint8]:
    """``(rows, columns, channels)`` of the pixels ``inside``, resized to ``size`` (Lanczos)."""
    values = np.asarray(image)
    eight_bits = (values >> 8).astype(np.uint8) if image.mode.startswith("I") else values
    cut = Image.fromarray(np.ascontiguousarray(eight_bits[inside])).convert("L" if colour == "grey" else "RGB")
    if size is not None and size != (cut.height, cut.width):
        cut = cut.resize(size[::-1], Image.Resampling.LANCZOS)
    pixels = np.asarray(cut)
    return pixels[..., None] if pixels.ndim == 2 else pixels

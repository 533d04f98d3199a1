"""One entry for images to train on: a folder, a known data set or a built-in name becomes a set of images."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from circsde.data import images
from circsde.data.image_set import ImageSet
from circsde.data.image_sources import SOURCES, ImageSource, Options, split_name
from circsde.data.image_store import Store, digest, in_memory, mapped
from circsde.data.images import Colour, Size

Part = Literal["train", "test"]


def image_set(
    source: str | Path,
    *,
    crop: Size | int | None = None,
    size: Size | int | None = None,
    first: Literal["crop", "size"] = "crop",
    colour: Colour = "grey",
    part: Part | None = None,
    fraction: float = 0.8,
    seed: int = 0,
    prints: int = 16,
    mirror: bool = False,
    turn: bool = False,
    strict: bool = False,
    cache: str | Path | None = None,
) -> ImageSet:
    """Load the images of ``source``.

    =========================  ==========================================================  =========================
    source                     what                                                        parts
    =========================  ==========================================================  =========================
    a folder                   images of any size, in it and below                         by image
    an image file              one image                                                   upper and lower rows
    ``brodatz:FOLDER``         one image per texture                                       upper and lower rows
    ``cifar10:PATH``           the batches of CIFAR-10 in a folder, or their tar.gz        its own: batches
    ``socofing:FOLDER``        fingerprints named ``100__M_Left_index_finger.BMP``; their  by person; its own if the
                               frames are cut off                                          folder has MANIFEST.tsv
    ``texture:NAME``           brick, grass or gravel of scikit-image, 512 x 512           upper and lower rows
    ``fingerprint[:PATTERN]``  generated, 96 x 96                                          by print
    =========================  ==========================================================  =========================

    CIFAR-10 has its own classes. The classes of Brodatz are textures, of SOCOFing fingers, and of a folder the folders
    in it, if all images are in one.

    Args:
        source: As above. MANIFEST.tsv is a table with columns file, group (the person) and split ("train" or another
            word).
        crop: Draw windows of this many rows and columns; by default whole images.
        size: Resize to this many rows and columns (the aspect ratio is not kept).
        first: With both, whether windows are cut and then resized, or images are resized and windows cut from them.
        colour: "grey" or "rgb".
        part: "train" or "test", which never share an image, a person or a pixel (but images that are resized first are
            mixed for three pixels beyond a cut between rows); by default all.
        fraction: The fraction of groups or rows that are for training, if the source has no parts of its own.
        seed: Decides which groups are for training, and draws the generated fingerprints.
        prints: How many fingerprints are generated.
        mirror: Mirror every second window, left to right.
        turn: Turn windows by random quarter turns.
        strict: Refuse the set if an image cannot be used, instead of leaving it out and saying so in ``skipped``.
        cache: A folder in which a file of all pixels is kept and mapped into memory; it is built anew when the list of
            images, the size or time of change of one, or an option that changes pixels is another. By default all
            pixels are held in memory.

    Raises:
        ValueError: If the source is unknown or has no image, if all images have one colour each, if the options do not
            fit, or, where ``strict``, if an image cannot be used.

    >>> image_set("texture:grass", crop=32, part="test").windows(3).shape
    torch.Size([3, 32, 32])
    """
    for value, known in ((part, (None, "train", "test")), (first, ("crop", "size")), (colour, ("grey", "rgb"))):
        if value not in known:
            raise ValueError(f"got {value!r}: choose one of {', '.join(str(name) for name in known)}")
    size, crop = images.pair(size, "size"), images.pair(crop, "crop")
    early = size if crop is None or first == "size" else None
    kind, rest = split_name(source)
    store = _read(kind, rest, early, Options(colour, seed, prints), cache)
    fits, skipped = _fits(store, crop)
    if not any(fits) or (strict and skipped):
        unusable = f"{len(skipped)} of {len(skipped) + sum(fits)} images of {source} cannot be used"
        raise ValueError(f"{unusable}: {'; '.join(skipped[:5])}")
    if len(store.constant) == len(store.names):
        raise ValueError(f"every image of {source} has one colour everywhere: there is nothing to learn from them")
    areas = store.shapes.prod(1) * (3 if colour == "rgb" else 1)
    names = tuple(name for name, fit in zip(store.names, fits, strict=True) if fit)
    groups, in_training = SOURCES[kind].groups(rest, names)
    whole = ImageSet(
        pixels=store.pixels,
        offsets=(np.cumsum(areas) - areas)[fits],
        shapes=store.shapes[fits],
        names=names,
        groups=groups,
        colour=colour,
        crop=crop,
        size=None if early else size,
        mirror=mirror,
        turn=turn,
        skipped=skipped,
        constant=tuple(sorted(set(store.constant) & set(names))),
        labels=_labels(SOURCES[kind], names),
    )
    if part is None:
        return whole
    if in_training is not None:
        wanted = [inside == (part == "train") for inside in in_training]
        if not any(wanted):
            raise ValueError(f"{source} has no image for the part {part!r}")
        return whole.where(wanted)
    train, test = whole.split_rows(fraction) if SOURCES[kind].is_cut(rest) else whole.split(fraction, seed)
    return train if part == "train" else test


def _fits(store: Store, crop: Size | None) -> tuple[list[bool], tuple[str, ...]]:
    """Find the images that are as large as a window, and say what is left out and why."""
    rows, columns = (1, 1) if crop is None else crop
    fits = [a >= rows and b >= columns for a, b in store.shapes.tolist()]
    small = [
        f"{name}: {a}x{b} pixels, fewer than the crop of {rows}x{columns}"
        for name, (a, b), fit in zip(store.names, store.shapes.tolist(), fits, strict=True)
        if not fit
    ]
    return fits, (*store.skipped, *small)


def _labels(source: ImageSource, names: tuple[str, ...]) -> tuple[str, ...]:
    """The class of each image; empty if not all images have one."""
    found = tuple(map(source.label, names))
    return found if all(found) else ()


def _read(kind: str, rest: str, size: Size | None, options: Options, cache: str | Path | None) -> Store:
    """All images of a source, resized to ``size``, in memory or in a file below ``cache``."""
    found = SOURCES[kind].find(rest, options)
    items = (
        (name, image if isinstance(image, str) else _pixels(image, size, options.colour))
        for name, image in found.pictures()
    )
    if cache is None:
        return in_memory(items)
    made_of = () if found.files else (rest, options.seed, options.count)
    key = digest(found.folder, found.files, kind, size, options.colour, *made_of)
    return mapped(items, cache, f"{kind}-{Path(rest).stem}".strip("-"), key)


def _pixels(image: Image.Image, size: Size | None, colour: Colour) -> NDArray[np.uint8]:
    """``(rows, columns, channels)``, resized to ``size`` (Lanczos)."""
    values = np.asarray(image)
    eight_bits = (values >> 8).astype(np.uint8) if image.mode.startswith("I") else values
    whole = Image.fromarray(np.ascontiguousarray(eight_bits)).convert("L" if colour == "grey" else "RGB")
    if size is not None and size != (whole.height, whole.width):
        whole = whole.resize(size[::-1], Image.Resampling.LANCZOS)
    pixels = np.asarray(whole)
    return pixels[..., None] if pixels.ndim == 2 else pixels

"""Where images come from: a record for each kind of source, which ``circsde simulate`` and ``train`` share.

A source is named ``kind:rest``, or is a path, whose kind is ``file``. To add a kind, add its record to :data:`SOURCES`.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from circsde.data import cifar, images
from circsde.data.fingerprint import fingerprints
from circsde.data.images import Colour
from circsde.streams import torch_stream

Picture = tuple[str, Image.Image | str]
"""A name with its image, as :func:`circsde.data.images.read_image` gives it, or with what is wrong with it."""

FRAMED = (103, 96)
"""Rows and columns of a SOCOFing image."""

PAGED = (".tif", ".tiff", ".gif", ".webp")
"""Files that may have several pages or frames, of which the first is read."""

INSIDE = (2, 2, 92, 99)
"""Left, upper, right and lower end of a SOCOFing image inside its frame."""


@dataclass(frozen=True)
class Found:
    """The images of a source.

    Attributes:
        pictures: Goes through them, one at a time, at each call.
        folder: What their names begin below.
        files: What they are read from; none where they are made.
        count: How many there are, where that is known without reading them.
    """

    pictures: Callable[[], Iterator[Picture]]
    folder: Path = Path()
    files: Sequence[Path] = ()
    count: int | None = None


@dataclass(frozen=True)
class Options:
    """How images are read or made.

    Attributes:
        colour: One channel or three.
        seed: Seed of images that are made.
        count: How many images are made.
    """

    colour: Colour = "grey"
    seed: int = 0
    count: int = 16


class Groups(NamedTuple):
    """Which images belong together.

    Attributes:
        names: The group of each image, which no split parts.
        in_training: Whether each is for training, where the source says that.
    """

    names: tuple[str, ...]
    in_training: list[bool] | None = None


def _each_alone(_: str, names: tuple[str, ...]) -> Groups:
    return Groups(names)


def _outer_folder(name: str) -> str:
    path = Path(name)
    return path.parts[0] if len(path.parts) > 1 else ""


@dataclass(frozen=True)
class ImageSource:
    """A kind of source; all functions are given what stands after the colon, or a path.

    Attributes:
        find: The images.
        label: The class of an image by its name, or an empty text.
        groups: Which images belong together.
        is_cut: Whether the parts for training and for validation are the upper and the lower rows of each image.
    """

    find: Callable[[str, Options], Found]
    label: Callable[[str], str] = _outer_folder
    groups: Callable[[str, tuple[str, ...]], Groups] = _each_alone
    is_cut: Callable[[str], bool] = lambda _: False


def split_name(source: str | Path) -> tuple[str, str]:
    """The kind of a source and the rest of its name.

    >>> split_name("texture:brick"), split_name("photos/cat.png")
    (('texture', 'brick'), ('file', 'photos/cat.png'))
    """
    kind, _, rest = str(source).partition(":")
    return (kind, rest) if kind in SOURCES and kind != "file" else ("file", str(source))


def holds_images(source: str | Path, unit: object = None) -> bool:
    """Whether a source is one of images by its name: a known kind, a folder, or an image file.

    A TIFF file holds grey levels, or if they have a unit angles.
    """
    kind, rest = split_name(source)
    if kind == "file" and unit is not None and rest.lower().endswith((".tif", ".tiff")):
        return False
    path = Path(rest)
    folder = path.is_dir() and path.suffix != ".zarr"
    return kind != "file" or folder or path.suffix.lower() in images.SUFFIXES


def _existing(rest: str) -> Path:
    path = Path(rest)
    if not path.exists():
        kinds = ": or ".join(sorted(kind for kind in SOURCES if kind != "file"))
        raise ValueError(f"there is no file or folder {rest}; a source is a path, or begins with {kinds}:")
    return path


def _files(rest: str, options: Options) -> Found:
    """The image files in a folder and below it, named by their paths in the folder, or a single file."""
    path = _existing(rest)
    folder = path if path.is_dir() else path.parent
    files = images.image_files(path) if path.is_dir() else [path]

    def pictures() -> Iterator[Picture]:
        for file in files:
            name = file.relative_to(folder).as_posix()
            count = images.pages(file) if file.suffix.lower() in PAGED else 1
            name += images.first_page(count)
            try:
                yield name, images.read_image(file, options.colour)
            except ValueError as error:
                yield name, str(error)

    return Found(pictures, folder, files, len(files))


def _unframed(rest: str, options: Options) -> Found:
    """The images of SOCOFing, without their frames."""
    found = _files(rest, options)

    def pictures() -> Iterator[Picture]:
        for name, image in found.pictures():
            if isinstance(image, str):
                yield name, image
            elif (image.height, image.width) != FRAMED:
                yield name, f"{image.height}x{image.width} pixels, and a SOCOFing image has {FRAMED[0]}x{FRAMED[1]}"
            else:
                yield name, image.crop(INSIDE)

    return replace(found, pictures=pictures)


def _cifar(rest: str, options: Options) -> Found:
    path = _existing(rest)
    mode = "L" if options.colour == "grey" else "RGB"

    def pictures() -> Iterator[Picture]:
        return ((name, Image.fromarray(image).convert(mode)) for name, image in cifar.images(path))

    return Found(pictures, path if path.is_dir() else path.parent, cifar.batch_files(path))


def _texture(rest: str, options: Options) -> Found:
    return Found(lambda: iter([(rest, images.texture(rest, options.colour))]), count=1)


def _generated(rest: str, options: Options) -> Found:
    """Generated fingerprints, 96 x 96."""

    def pictures() -> Iterator[Picture]:
        generator = torch_stream(options.seed, "data")
        for i in range(options.count):
            grey = fingerprints(1, pattern=rest or None, generator=generator)[0]
            image = Image.fromarray(((grey + 1.0) * 127.5).round().to(torch.uint8).numpy())
            yield f"fingerprint-{i + 1}", image.convert("L" if options.colour == "grey" else "RGB")

    return Found(pictures, count=options.count)


def _persons(rest: str, names: tuple[str, ...]) -> Groups:
    """Group SOCOFing by person: by the table MANIFEST.tsv of the folder, or by the numbers that names begin with."""
    manifest = Path(rest) / "MANIFEST.tsv"
    if manifest.is_file():
        with manifest.open(encoding="utf-8", newline="") as file:
            rows = {row["file"]: row for row in csv.DictReader(file, delimiter="\t")}
        unknown = [name for name in names if name not in rows]
        if unknown:
            raise ValueError(f"{manifest} does not say whose finger {unknown[0]} shows")
        in_training = [rows[name]["split"] == "train" for name in names]
        return Groups(tuple(rows[name]["group"] for name in names), in_training)
    nameless = [name for name in names if "__" not in name]
    if nameless:
        raise ValueError(
            f"{Path(rest) / nameless[0]} does not say whose finger it shows: names begin with the person's number, as"
            " in 100__M_Left_index_finger.BMP, or the folder has MANIFEST.tsv"
        )
    return Groups(tuple(Path(name).name.partition("__")[0] for name in names))


SOURCES = {
    "file": ImageSource(_files, is_cut=lambda rest: Path(rest).is_file()),
    "brodatz": ImageSource(_files, label=lambda name: Path(name).stem, is_cut=lambda _: True),
    "cifar10": ImageSource(
        _cifar,
        label=lambda name: Path(name).parts[1],  # test_batch/cat/domestic_cat_s_000907.png
        groups=lambda _, names: Groups(names, [not name.startswith("test") for name in names]),
    ),
    "fingerprint": ImageSource(_generated),
    "socofing": ImageSource(
        _unframed,
        label=lambda name: "_".join(Path(name).stem.partition("__")[2].split("_")[1:3]),  # 100__M_Left_index_finger.BMP
        groups=_persons,
    ),
    "texture": ImageSource(_texture, is_cut=lambda _: True),
}
"""The kinds of sources, by what stands before the colon of their names."""

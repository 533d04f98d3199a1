"""One entry for all data: a file, a folder or a built-in name becomes a tensor of phases."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from circsde.contracts import first_few
from circsde.data import images
from circsde.data.fingerprint import PATTERNS, fingerprints
from circsde.data.image_sources import SOURCES, Found, Options, Picture, holds_images, split_name
from circsde.data.images import Colour, Size
from circsde.encoding import PhaseEncoding, period, to_radians
from circsde.files.angles import read_angles
from circsde.files.doubts import largest, settled_unit
from circsde.files.table import Table
from circsde.torus import wrap
from circsde.typing import Angles

BUILT_IN = (*(f"texture:{name}" for name in images.TEXTURES), "fingerprint", *(f"fingerprint:{p}" for p in PATTERNS))
"""The sources that need no file."""


@dataclass(frozen=True)
class Phases:
    """A data set on the torus.

    Attributes:
        theta: Phases in radians, ``(batch, *event)``: the event is ``(rows, columns)`` for grey images, ``(3, rows,
            columns)`` for colour, ``(columns,)`` for a table.
        source: The place it was read from, as given.
        names: One name per sample for images, one per column for a table.
        encoding: How grey levels became phases; None for angles.
        unit: The unit that angles were given in; None for images.
        dropped: Rows left out because an angle was missing.
        skipped: Images left out, each with its name and the reason.
        notes: What was read, in sentences: for angles columns, unit, range, and what was left out.

    >>> grass = load("texture:grass", count=2, crop=32, generator=torch.Generator().manual_seed(0))
    >>> grass.theta.shape, grass.names, grass.unit
    (torch.Size([2, 32, 32]), ('texture:grass', 'texture:grass'), None)
    """

    theta: Angles
    source: str
    names: tuple[str, ...] = ()
    encoding: PhaseEncoding | None = None
    unit: str | None = None
    dropped: int = 0
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def load(
    source: str | Path,
    *,
    count: int | None = None,
    size: Size | int | None = None,
    crop: Size | int | None = None,
    centre: bool = False,
    colour: Colour = "grey",
    encoding: PhaseEncoding | None = None,
    unit: str | float | None = None,
    columns: Sequence[str] | None = None,
    drop_missing: bool = False,
    missing: Sequence[float] | None = None,
    along: str | int | None = None,
    phases: bool = False,
    like: Sequence[str] | None = None,
    strict: bool = True,
    otherwise: str | None = None,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> Phases:
    """Load angles from ``source``.

    Args:
        source: An image file; a folder of images; a file of angles, of a kind in :data:`circsde.files.angles.READERS`;
            one of :data:`BUILT_IN`; ``brodatz:FOLDER``, ``cifar10:FOLDER`` or ``socofing:FOLDER``, see
            :func:`circsde.data.image_set`; or ``torsion:lys`` and others of :mod:`circsde.data.torsion`, which may
            end in ``/train``, ``/validation`` or ``/test``.
        count: How many samples; by default one per image, one built-in picture, all rows of a table. More than there
            are images means several random crops of each; of a table it takes the first rows.
        size: Images: resize to this many rows and columns (the aspect ratio is not kept).
        crop: Images: first cut out a window of this many rows and columns. Fields of phases: cut them into tiles.
        centre: Images: cut the window from the middle, not at random.
        colour: Images: "grey", or "rgb" with a leading axis of three channels.
        encoding: Images: how values in ``[-1, 1]`` become phases.
        unit: Angles: "rad", "deg", "hours" or the length of one turn; a file may state it itself.
        columns: Angles: the columns to take, by name; see :func:`circsde.files.angles.read_angles`.
        drop_missing: Angles: leave out rows that lack one.
        missing: Angles: numbers that say that one is missing; ``()`` if none does.
        along: Angles: the dimension, or the axis from 0 on, whose entries are the samples, such as "time".
        phases: Angles: take the phases of complex numbers.
        like: Angles: columns to take if the file has them all and ``columns`` names none.
        strict: Images: refuse a source of several if one cannot be used, instead of leaving that out.
        otherwise: Angles: the unit where neither ``unit`` is given nor the file states one.
        dtype: The floating dtype of the phases.
        generator: Source of all randomness: crops and fingerprints.

    Raises:
        ValueError: If the source is unknown or unreadable, images differ in size and neither ``size`` nor ``crop`` is
            given, the unit is missing, or the options do not fit; with what to do about it.

    >>> load("texture:grass", count=4, crop=128, size=32, generator=torch.Generator().manual_seed(0)).theta.shape
    torch.Size([4, 32, 32])
    """
    if count is not None and count < 1:
        raise ValueError(f"count must be positive, got {count}")
    encoding = PhaseEncoding() if encoding is None else encoding
    size, crop = images.pair(size, "size"), images.pair(crop, "crop")
    name, path = str(source), Path(source)
    if name.partition(":")[0] == "fingerprint":
        grey = _fingerprints(name, count or 1, size, crop, colour, generator)
        return Phases(encoding.encode(grey.to(dtype)), name, (name,) * len(grey), encoding)
    is_torsion = name.partition(":")[0] == "torsion"
    if not is_torsion and split_name(name)[0] == "file" and not path.exists():
        raise ValueError(f"there is no file or folder {name}; built in are {', '.join(BUILT_IN)}")
    if holds_images(name, unit):
        _only_for("tables of angles", name, unit=unit, columns=columns, drop_missing=drop_missing or None)
        grey, names, skipped = _windows(name, count, size, crop, centre, colour, strict, generator)
        notes = images.paged(names)
        return Phases(encoding.encode(grey.to(dtype)), name, names, encoding, skipped=skipped, notes=notes)
    _only_for("images", name, size=size, centre=centre or None)
    if is_torsion:
        _only_for("images and fields of phases", name, crop=crop)
        if unit is not None or columns is not None:
            raise ValueError("torsions have their columns and their unit: drop unit and columns")
        return _torsions(name, count, dtype)
    if unit is not None:
        period(unit)  # refuse an unknown unit before reading
    table = read_angles(
        path, columns, drop_missing=drop_missing, missing=missing, along=along, phases=phases, like=like, tiles=crop
    )
    return _angles(path, table, count, unit, otherwise, dtype)


def _fingerprints(
    name: str, count: int, size: Size | None, crop: Size | None, colour: Colour, generator: torch.Generator | None
) -> Tensor:
    if crop is not None or colour != "grey":
        raise ValueError("fingerprints are generated grey at any size: give size, neither crop nor a colour")
    pattern = name.partition(":")[2] or None
    return fingerprints(count, size or (96, 96), pattern=pattern, generator=generator)


def _windows(
    name: str,
    count: int | None,
    size: Size | None,
    crop: Size | None,
    centre: bool,
    colour: Colour,
    strict: bool,
    generator: torch.Generator | None,
) -> tuple[Tensor, tuple[str, ...], tuple[str, ...]]:
    """``count`` windows of the images of a source, one image after the other, their names, and what is left out."""
    skipped: dict[str, str] = {}
    kind, rest = split_name(name)
    found = SOURCES[kind].find(rest, Options(colour))
    most = found.count or 0

    def usable() -> Iterator[tuple[str, Image.Image]]:
        for label, image in _named(found, name, whole_paths=kind == "file"):
            reason = image if isinstance(image, str) else images.too_small(image, crop)
            if isinstance(image, str) or reason:
                skipped[label] = str(reason)
                if strict or most == 1:
                    raise ValueError(f"{label}: {reason}")
            else:
                yield label, image

    total = 0 if count is None or count <= most else sum(1 for _ in usable())  # then windows are spread over them
    if count is not None and count > total > 0 and (centre or crop is None):
        raise ValueError(
            f"{name} has {total} image{'s' * (total > 1)} and {count} samples are asked for: give crop, and"
            " no centre, so that each sample is a window at a random place"
        )
    windows: list[Tensor] = []
    names: list[str] = []
    for i, (label, image) in enumerate(usable()):
        each = 1 if count is None or not total else count // total + (i < count % total)
        for _ in range(each):
            windows.append(images.window(image, crop, size, centre=centre, generator=generator))
            names.append(label)
            if windows[-1].shape != windows[0].shape:
                (first, other) = ("x".join(map(str, shape.shape[-2:])) for shape in (windows[0], windows[-1]))
                raise ValueError(
                    f"the images differ in size: {names[0]} has {first} pixels, {label} {other}; give size to resize"
                    " them all, or crop to cut a window of one size out of each"
                )
        if count is not None and len(windows) == count:
            break
    left_out = tuple(reason if label in reason else f"{label}: {reason}" for label, reason in skipped.items())
    if len(windows) < (count or 1):
        raise ValueError(
            f"{len(windows)} images of {name} can be used, {count or 1} are asked for: {first_few(left_out, '; ')}"
        )
    return torch.stack(windows), tuple(names), left_out


def _named(found: Found, source: str, *, whole_paths: bool) -> Iterator[Picture]:
    """Images with names that say where they are: those that are made have the name of their source."""
    for label, image in found.pictures():
        yield str(found.folder / label) if whole_paths else label if found.files else source, image


def _torsions(name: str, count: int | None, dtype: torch.dtype) -> Phases:
    from circsde.data.torsion import torsion  # it imports Phases from here

    residue, _, part = name.removeprefix("torsion:").partition("/")
    data = torsion(residue, part or None)
    if count is not None and count > len(data.theta):
        raise ValueError(f"{name} has {len(data.theta)} rows of angles, {count} are asked for")
    return replace(data, theta=data.theta[:count].to(dtype))


def _angles(
    path: Path, table: Table, count: int | None, unit: str | float | None, otherwise: str | None, dtype: torch.dtype
) -> Phases:
    """``table`` in radians: by the unit given, else by that of the file, else by ``otherwise``."""
    unit = settled_unit(path, table, unit, otherwise)
    if count is not None and count > len(table.values):
        raise ValueError(f"{path} has {len(table.values)} rows of angles, {count} are asked for")
    try:
        theta = wrap(to_radians(torch.from_numpy(table.values[:count]), unit).to(dtype))
    except ValueError as error:
        row, column = largest(table.values[:count], table.names)
        raise ValueError(f"{path}: {error}; the largest is in row {row}, column {column}") from None
    notes = (table.said(path, str(unit)), *table.notes)
    return Phases(theta, str(path), table.names, unit=str(unit), dropped=table.dropped, notes=notes)


def _only_for(what: str, source: str, **options: object) -> None:
    """Refuse options that mean nothing for ``source``."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{', '.join(given)} is for {what}, and {source} is something else")

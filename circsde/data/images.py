"""Images from files, folders and scikit-image, as floats in [-1, 1]."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from circsde.contracts import first_few

Colour = Literal["grey", "rgb"]
Size = tuple[int, int]

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp", ".wsq"}
)
"""File name endings that count as images in a folder."""

_SAMPLE_FORMAT = 339  # a tag of TIFF, in which 2 stands for signed integers

TEXTURES = ("brick", "grass", "gravel")
"""The CC0 textures inside scikit-image, 512x512 grey."""


def image_files(folder: str | Path) -> list[Path]:
    """The image files in ``folder`` and below, sorted; hidden ones left out.

    Raises:
        ValueError: If there are none.
    """
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not images:
        found = ", ".join(sorted({path.suffix or path.name for path in files})[:5])
        raise ValueError(
            f"no images in the folder {folder}: it {f'has only {found}' if found else 'is empty'};"
            f" images end in {' '.join(sorted(SUFFIXES))}"
        )
    return images


def read_image(path: str | Path, colour: Colour = "grey") -> Image.Image:
    """One image file as 8-bit grey ("L"), 16-bit grey ("I;16") or colour ("RGB"); transparency is dropped.

    Of several pages or frames it is the first.

    Raises:
        ValueError: If the file cannot be read as an image, or holds numbers that are no grey levels: floats, whose
            range is not stated, or signed ones.
    """
    if Path(path).suffix.lower() == ".wsq":
        _learn_wsq(path)
    try:
        with Image.open(path) as opened:
            signed = 2 in getattr(opened, "tag_v2", {}).get(_SAMPLE_FORMAT, ())
            image = ImageOps.exif_transpose(opened)
            image.load()
    except Exception as error:  # a damaged file makes decoders raise nearly anything, a TIFF file even TypeError
        raise ValueError(f"cannot read {path} as an image: {error}") from error
    low, high = (0, 0) if image.mode != "I" else (int(np.asarray(image).min()), int(np.asarray(image).max()))
    if image.mode == "F" or signed or low < 0 or high > 0xFFFF:
        found = "signed numbers" if signed or low < 0 else "32-bit values"
        raise ValueError(
            f"{path} holds {found} whose range is unknown; save it with 8 or 16 bits per channel, none of them a sign,"
            " or, if they are angles, give their unit (unit=, --unit)"
        )
    if image.mode.startswith("I"):
        return image if colour == "grey" else Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    image.info.pop("transparency", None)
    return image.convert("L" if colour == "grey" else "RGB")


def pages(path: str | Path) -> int:
    """How many pages or frames an image file has; 1 where it cannot be read."""
    try:
        with Image.open(path) as opened:
            return int(getattr(opened, "n_frames", 1))
    except Exception:  # reading it will say what is wrong
        return 1


def first_page(count: int) -> str:
    """The end of the name of an image that is the first of ``count`` pages; empty if it is the only page."""
    return f" (page 1 of {count})" if count > 1 else ""


def paged(names: Sequence[str]) -> tuple[str, ...]:
    """A remark on the images that are the first of several pages, if there are any.

    >>> paged(("a.png", "b.tif (page 1 of 3)"))
    ('1 image is the first page of several: b.tif (page 1 of 3)',)
    """
    found = sorted({name for name in names if " (page 1 of " in name})
    what = f"{len(found)} images are the first pages" if len(found) > 1 else "1 image is the first page"
    return (f"{what} of several: {first_few(found)}",) if found else ()


def _learn_wsq(path: str | Path) -> None:
    """Let Pillow read fingerprints of the FBI's format."""
    try:
        import wsq  # noqa: F401
    except ImportError:
        raise ValueError(f"{path} is read by wsq, which is not installed: pip install 'circsde[files]'") from None


def texture(name: str, colour: Colour = "grey") -> Image.Image:
    """One of :data:`TEXTURES`.

    Raises:
        ValueError: If there is no such texture.
    """
    if name not in TEXTURES:
        raise ValueError(f"unknown texture {name!r}: give texture:{', texture:'.join(TEXTURES)}")
    import skimage.data

    return Image.fromarray(getattr(skimage.data, name)()).convert("L" if colour == "grey" else "RGB")


def pair(value: Size | int | None, name: str) -> Size | None:
    """Rows and columns; one number stands for both.

    Raises:
        ValueError: If one is not positive.
    """
    both = (value, value) if isinstance(value, int) else value
    if both is not None and min(both) < 1:
        raise ValueError(f"{name} must be positive, got {both}")
    return both


def too_small(image: Image.Image, crop: Size | None) -> str:
    """Say why an image is too small to cut a window from it; empty where it is large enough."""
    if crop is None or (image.height >= crop[0] and image.width >= crop[1]):
        return ""
    return (
        f"the image has {image.height}x{image.width} pixels, fewer than the crop of {crop[0]}x{crop[1]}:"
        " take a smaller crop, or resize without cropping"
    )


def window(
    image: Image.Image,
    crop: Size | None = None,
    size: Size | None = None,
    *,
    centre: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A window cut out of ``image``, resized to ``size``.

    Args:
        image: As :func:`read_image` returns it.
        crop: Rows and columns of the window; the whole image by default.
        size: Rows and columns after resizing (Lanczos); those of the window by default.
        centre: Cut from the middle; otherwise uniformly at random.
        generator: Draws the place.

    Returns:
        Shape ``(rows, columns)``, or ``(3, rows, columns)`` for colour, float32 in ``[-1, 1]``.

    Raises:
        ValueError: If the window is larger than the image.
    """
    rows, columns = crop or (image.height, image.width)
    spare = image.height - rows, image.width - columns
    if min(spare) < 0:
        raise ValueError(too_small(image, crop))
    top, left = (n // 2 if centre else int(torch.randint(n + 1, (), generator=generator)) for n in spare)
    return _pixels(image.crop((left, top, left + columns, top + rows)), size)


def _pixels(image: Image.Image, size: Size | None) -> Tensor:
    """Pixels in ``[-1, 1]``, float32, ``(rows, columns)`` or ``(3, rows, columns)``, resized to ``size``."""
    white = 65535.0 if image.mode.startswith("I") else 255.0
    pixels = np.asarray(image, dtype=np.float32) / white * 2.0 - 1.0
    channels = pixels[..., None] if pixels.ndim == 2 else pixels
    if size is not None and size != channels.shape[:2]:
        resized = [
            np.asarray(Image.fromarray(channel).resize(size[::-1], Image.Resampling.LANCZOS))
            for channel in np.moveaxis(channels, -1, 0)
        ]
        channels = np.stack(resized, axis=-1).clip(-1.0, 1.0)
    planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(channels, -1, 0)))
    return planes[0] if pixels.ndim == 2 else planes

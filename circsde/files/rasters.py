"""Angles from rasters: TIFF, GeoTIFF with its code for missing, and NIfTI; a sample per page or slice."""

import re
from pathlib import Path

import numpy as np
import tifffile

from circsde.files.table import Request, Table, naming, needs
from circsde.files.units import stated

_NO_DATA, _METADATA = 42113, 42112  # tags of GDAL


def read_tiff(path: Path, request: Request) -> Table:
    """Angles from a TIFF file, ``(pages, rows, columns)``; pixels that say GDAL's NODATA are missing.

    Raises:
        ValueError: If the file cannot be read, pages differ in size, or a pixel has several samples.
    """
    _refuse_names(path, request)
    with naming(path), tifffile.TiffFile(path) as file:
        pages = [file.pages[i] for i in range(len(file.pages))]
        shapes = {page.shape for page in pages}
        if len(shapes) > 1 or len(pages[0].shape) != 2:
            found = " and ".join("x".join(map(str, shape)) for shape in sorted(shapes))
            raise ValueError(f"its pages have {found} numbers, and angles are one a pixel, on pages of one size")
        values = np.stack([page.asarray() for page in pages]).astype(np.float64)
        first = file.pages.first.tags
        tags = {code: first[code].value for code in (_NO_DATA, _METADATA) if code in first}
    if _NO_DATA in tags:
        values[values == float(str(tags[_NO_DATA]).strip("\0 "))] = np.nan
    units = re.search(r'name="(?:units?|UNITTYPE)"[^>]*>([^<]+)<', str(tags.get(_METADATA, "")))
    return Table(values, (), None if units is None else stated(units.group(1).strip()))


def read_nifti(path: Path, request: Request) -> Table:
    """Angles from a NIfTI file, ``(slices, rows, columns)``, scaled as its header says.

    Raises:
        ValueError: If the file cannot be read, or nibabel is not installed.
    """
    _refuse_names(path, request)
    needs("nibabel", path)
    import nibabel

    with naming(path):
        volume = np.asarray(nibabel.load(path).get_fdata(dtype=np.float64))  # type: ignore[attr-defined]
    if volume.ndim < 2:
        raise ValueError(f"{path} has {volume.ndim} axis, and a field of phases has rows and columns")
    slices = volume.reshape(*volume.shape[:2], -1)
    return Table(np.moveaxis(slices, -1, 0), ())


def _refuse_names(path: Path, request: Request) -> None:
    """Refuse what is for tables."""
    if request.columns is not None or request.along is not None:
        raise ValueError(f"{path} is a raster, whose samples are its pages or slices: leave out columns and along")

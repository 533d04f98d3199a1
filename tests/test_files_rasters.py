"""Rasters: what holds grey levels is read as such, what holds angles by its unit, and nothing for the other."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from command_line import ran
from numpy.typing import NDArray
from PIL import Image

from circsde.data import image_set, load
from circsde.data.fields import FieldEncoding, PhaseFields
from circsde.files.angles import read_angles
from circsde.models.training import trained

DEGREES = np.random.default_rng(0).uniform(0.0, 360.0, (3, 12, 16)).astype(np.float32)


def expected(degrees: NDArray[Any]) -> NDArray[Any]:
    """Points on the unit circle at these angles."""
    return np.exp(1j * np.deg2rad(degrees.astype(np.float64)))


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (np.array([[-4096, 4095], [0, 1]], np.int16), "signed numbers"),
        (np.array([[-9999, 180], [0, 1]], np.int32), "signed numbers"),
        (np.array([[-1, 127], [0, 1]], np.int8), "signed numbers"),
        (np.array([[0.5, 3.0], [0.0, 1.0]], np.float32), "32-bit values"),
    ],
    ids=["int16", "int32", "int8", "float32"],
)
@pytest.mark.parametrize("read", [lambda path: image_set(path, strict=True), load], ids=["train", "simulate"])
def test_numbers_that_are_no_grey_levels_are_refused_and_may_be_angles(
    read: Callable[[Path], object], numbers: NDArray[np.generic], said: str, tmp_path: Path
) -> None:
    """Pillow gives an image of signed 8-bit numbers modulo 256, of longer ones as 32-bit integers."""
    tifffile.imwrite(tmp_path / "a.tif", numbers)
    with pytest.raises(ValueError, match=rf"holds {said} whose range is unknown; .* give their unit \(unit=, --unit\)"):
        read(tmp_path / "a.tif")
    values = load(tmp_path / "a.tif", unit="360", dtype=torch.float64, missing=()).theta.numpy()
    np.testing.assert_allclose(np.exp(1j * values), expected(numbers[None]), atol=1e-12)


@pytest.mark.parametrize("name", ["a.tif", "a.npy", "a.npz", "a.nii.gz"])
def test_fields_of_angles_are_read_page_by_page(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("tif"):
        tifffile.imwrite(path, DEGREES, photometric="minisblack")
    elif name.endswith("npz"):
        np.savez(path, DEGREES)
    elif name.endswith("npy"):
        np.save(path, DEGREES)
    else:
        nibabel = pytest.importorskip("nibabel")
        nibabel.save(nibabel.Nifti1Image(np.moveaxis(DEGREES, 0, -1), np.eye(4)), path)
    theta = load(path, unit="deg", dtype=torch.float64).theta.numpy()
    np.testing.assert_allclose(np.exp(1j * theta), expected(DEGREES), atol=1e-6)


def test_a_scaled_volume_of_phases_is_read_in_its_scale(tmp_path: Path) -> None:
    """As scanners write phase: 12-bit integers, and a slope that makes radians of them."""
    nibabel = pytest.importorskip("nibabel")
    stored = np.arange(-2048, 2048, 128, dtype=np.int16).reshape(4, 4, 2)
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(math.pi / 2048, 0.0)
    nibabel.save(image, tmp_path / "phase.nii")
    raw = nibabel.load(tmp_path / "phase.nii").get_fdata()
    theta = load(tmp_path / "phase.nii", unit="rad", dtype=torch.float64).theta.numpy()
    np.testing.assert_allclose(np.exp(1j * theta), np.exp(1j * np.moveaxis(raw, -1, 0)), atol=1e-12)


def geotiff(path: Path, aspect: NDArray[np.float32]) -> None:
    """Write a GeoTIFF file as GDAL does, with the code for missing and the unit in its own tags."""
    metadata = '<GDALMetadata><Item name="UNITTYPE" sample="0" role="unittype">degree</Item></GDALMetadata>'
    tifffile.imwrite(path, aspect, extratags=[(42113, "s", 0, "-9999", True), (42112, "s", 0, metadata, True)])


def test_flat_cells_of_an_aspect_are_missing_and_tiles_without_them_are_taken(tmp_path: Path) -> None:
    aspect = DEGREES[0].copy()
    aspect[1, 2] = -9999.0
    geotiff(tmp_path / "aspect.tif", aspect)
    assert read_angles(tmp_path / "aspect.tif", tiles=(4, 4), drop_missing=True).unit == "deg"
    with pytest.raises(ValueError, match="1 of 1 rows lack an angle"):
        load(tmp_path / "aspect.tif", unit="deg")
    tiles = load(tmp_path / "aspect.tif", unit="deg", crop=4, drop_missing=True, dtype=torch.float64)
    assert (tiles.theta.shape, tiles.dropped) == ((11, 4, 4), 1)
    np.testing.assert_allclose(np.exp(1j * tiles.theta[-1].numpy()), expected(aspect[8:, 12:]), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: tifffile.imwrite(path, np.zeros((4, 4, 3), np.uint8)), "angles are one a pixel"),
        (lambda path: path.write_bytes(b"no raster"), "cannot read"),
        (lambda path: tifffile.imwrite(path, DEGREES[0]), "leave it out, or take a smaller one"),
    ],
)
def test_rasters_that_cannot_be_angles_are_refused(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    make(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "a.tif", unit="deg", crop=40)


@pytest.mark.parametrize(("name", "module"), [("a.nii", "nibabel"), ("a.wsq", "wsq")])
def test_a_library_that_is_not_there_is_named_with_its_extra(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(b"whatever")
    monkeypatch.setitem(sys.modules, module, None)
    said = (
        "needs nibabel .*: pip install nibabel"
        if module == "nibabel"
        else r"by wsq, .*: pip install 'circsde\[files\]'"
    )
    with pytest.raises(ValueError, match=said):
        load(tmp_path / name, **({"unit": "rad"} if module == "nibabel" else {}))  # type: ignore[arg-type]


def test_a_fingerprint_of_the_fbi_is_an_image(tmp_path: Path) -> None:
    """Its compression loses some: grey levels are within a sixth of their range."""
    pytest.importorskip("wsq")
    rows, columns = np.mgrid[:96, :96]
    grey = (127.5 + 100.0 * np.cos((rows + columns) / 4.0)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.wsq")
    theta = load(tmp_path / "a.wsq").theta[0].numpy() / (0.9 * math.pi)
    assert np.abs(theta - (grey / 127.5 - 1.0)).max() < 1.0 / 3.0
    assert len(image_set(tmp_path)) == 1


def test_of_several_pages_the_first_is_read_and_said(tmp_path: Path) -> None:
    pages = np.random.default_rng(1).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="minisblack")
    found = load(tmp_path / "stack.tif")
    assert found.notes == (f"1 image is the first page of several: {tmp_path / 'stack.tif'} (page 1 of 3)",)
    assert image_set(tmp_path).remarks == ("1 image is the first page of several: stack.tif (page 1 of 3)",)
    np.testing.assert_allclose(found.theta[0] / (0.9 * math.pi), pages[0] / 127.5 - 1.0, atol=1e-6)


def test_of_a_folder_both_pages_and_images_that_are_left_out_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    tifffile.imwrite(tmp_path / "set" / "a.tif", np.zeros((2, 8, 8), np.uint8), photometric="minisblack")
    (tmp_path / "set" / "b.png").write_bytes(b"no picture")
    said = ran("simulate set --steps 1 --frames 1 --out x")
    assert "1 image is the first page of several: set/a.tif (page 1 of 2)" in said
    assert "left out 1 image: cannot read set/b.png" in said


# fields to train on


@pytest.mark.parametrize("count", [1, 5])
def test_parts_of_fields_share_no_phase(count: int) -> None:
    """Every phase is identified by its value: several fields are divided as wholes, one is cut."""
    theta = torch.arange(count * 20 * 6, dtype=torch.float64).reshape(count, 20, 6) / 1000.0
    parts = PhaseFields(theta, crop=(4, 4)).split()
    seen = [set(part(200, torch.Generator().manual_seed(0)).flatten().tolist()) for part in parts]
    assert not seen[0] & seen[1]
    assert min(map(len, seen)) > 12
    windows = parts[0].phases(20)
    assert torch.equal(windows, parts[0].phases(20))
    assert set(windows.flatten().tolist()) <= seen[0] | set(parts[0].theta.flatten().tolist())
    inside = windows.diff(dim=2)
    torch.testing.assert_close(inside, torch.full_like(inside, 1e-3))  # neighbours in a row stay neighbours


def test_windows_are_at_every_place_alike() -> None:
    """Chi-squared over the nine places of a 2 x 2 window in 4 x 4, at a false-alarm rate of 1e-4."""
    fields = PhaseFields(torch.arange(16.0).reshape(1, 4, 4) / 10.0, crop=(2, 2))
    corner = (10 * fields(9000, torch.Generator().manual_seed(3))[:, 0, 0]).round().long()
    counts = corner.bincount(minlength=16)[torch.tensor([0, 1, 2, 4, 5, 6, 8, 9, 10])]
    assert float(((counts - 1000.0) ** 2 / 1000.0).sum()) < 31.8


@pytest.mark.parametrize(
    ("theta", "crop", "message"),
    [
        (torch.zeros(3, 4), None, "have the shape"),
        (torch.full((1, 4, 4), math.nan), None, "must be finite"),
        (torch.zeros(1, 4, 4), (5, 2), "fewer than the crop of 5x2"),
    ],
)
def test_fields_that_cannot_be_cut_are_refused(theta: torch.Tensor, crop: tuple[int, int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhaseFields(theta, crop)
    with pytest.raises(ValueError, match="take a crop of at most 3 rows, or more fields"):
        PhaseFields(torch.zeros(1, 6, 6), (4, 4)).split()
    with pytest.raises(ValueError, match="2 fields have 8 different windows, 9 are asked for"):
        PhaseFields(torch.zeros(2, 4, 4), (3, 3)).phases(9)


def test_the_picture_of_a_field_has_no_seam() -> None:
    theta = torch.tensor([math.pi - 1e-6, 1e-6 - math.pi, 0.0])
    assert float(FieldEncoding().decode(theta).diff()[0].abs()) < 1e-6


def test_a_field_is_trained_on_sampled_and_judged(tmp_path: Path) -> None:
    """Of two phases a turn apart by half: samples go to NetCDF as they are, and are drawn by their cosines."""
    np.save(tmp_path / "waves.npy", (np.arange(40.0)[:, None] * 9.0 + np.zeros(48)) + np.zeros((6, 1, 1)))
    shape = "--crop 8 --steps 8 --preset tiny --epochs 1 --updates 2 --batch 8 --device cpu"
    said = ran(f"train {tmp_path}/waves.npy --unit deg --process local --radius 2 {shape} --out {tmp_path}/run")
    assert "5 images to learn from, 1 to validate" in said
    model = trained(tmp_path / "run")
    assert model.about["encoding"] == "phase"
    assert model.sde.event_shape == (8, 8)
    told = json.loads(ran(f"sample {tmp_path}/run -n 3 --steps 3 --out {tmp_path}/drawn --json -q"))
    assert told["result"]["count"] == 3
    with Image.open(tmp_path / "drawn.png") as picture:
        assert picture.mode == "L"
    assert "for images, and" in ran(f"train {tmp_path}/waves.npy --unit deg --mirror {shape} --out {tmp_path}/x", 2)
    shape = shape.replace("--steps 8", "--process standard")
    assert "not of orientations or fields" in ran(
        f"train {tmp_path}/waves.npy --unit deg {shape} --out {tmp_path}/x", 2
    )


def test_slopes_with_flat_cells_are_trained_on_in_tiles(tmp_path: Path) -> None:
    """Of 24 tiles the one with a flat cell is left out; without tiles nothing would be left."""
    aspect = np.tile(DEGREES[0], (4, 2))
    aspect[3, 5] = -9999.0
    geotiff(tmp_path / "aspect.tif", aspect)
    options = f"{tmp_path}/aspect.tif --unit deg --drop-missing --process diffusion --epochs 1 --updates 2 --steps 8"
    said = ran(f"train {options} --crop 8 --batch 8 --device cpu --out {tmp_path}/run")
    assert "left out 1 row without all angles" in said
    assert "18 images to learn from, 5 to validate" in said
    assert "in which none is missing" in ran(f"train {options} --out {tmp_path}/x", 2)

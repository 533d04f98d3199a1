"""Images become phases; what cannot is refused with a way out."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from circsde.data import Phases, load
from circsde.data.images import TEXTURES, read_image, texture, window
from circsde.encoding import PhaseEncoding


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def save(path: Path, rows: int, columns: int, mode: str = "L") -> Path:
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (rows, columns, len(mode)), dtype=np.uint8)
    Image.fromarray(pixels.squeeze()).save(path)
    return path


def pixels_of(phases: Phases) -> Tensor:
    assert phases.encoding is not None
    return ((phases.encoding.decode(phases.theta) + 1) / 2 * 255).round()


@pytest.mark.parametrize(("mode", "colour"), [("L", "grey"), ("RGB", "rgb")])
def test_an_image_file_comes_back_from_its_phases_exactly(tmp_path: Path, mode: str, colour: str) -> None:
    path = save(tmp_path / "a.png", 5, 7, mode)
    phases = load(path, colour="rgb" if colour == "rgb" else "grey")
    expected = torch.from_numpy(np.asarray(Image.open(path)).copy()).float()
    assert torch.equal(pixels_of(phases)[0], expected if colour == "grey" else expected.permute(2, 0, 1))


def test_sixteen_bits_keep_their_depth_and_full_white(tmp_path: Path) -> None:
    values = np.array([[0, 1, 257], [32768, 65534, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    grey = window(read_image(tmp_path / "a.png"))
    np.testing.assert_allclose((grey.double().numpy() + 1) / 2 * 65535, values, atol=0.02)  # float32: 2^-24 * 65535
    colour = window(read_image(tmp_path / "a.png", "rgb"))
    assert colour.shape == (3, 2, 3)
    assert colour.max() == 1.0


def test_a_camera_s_rotation_mark_is_obeyed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by a quarter
    Image.fromarray(np.zeros((4, 9), dtype=np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert load(tmp_path / "a.jpg").theta.shape == (1, 9, 4)


def test_a_folder_gives_one_sample_per_image_in_sorted_order_and_skips_other_files(tmp_path: Path) -> None:
    for name in ("b.png", "sub/c.PNG", "a.gif", ".hidden.png"):
        save(tmp_path / name, 6, 6)
    (tmp_path / "notes.txt").write_text("not an image")
    phases = load(tmp_path)
    assert [Path(name).name for name in phases.names] == ["a.gif", "b.png", "c.PNG"]
    assert phases.theta.shape == (3, 6, 6)


def test_mixed_sizes_are_refused_and_either_way_out_works(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 8, 9)
    save(tmp_path / "b.png", 12, 8)
    with pytest.raises(ValueError, match=r"a\.png has 8x9 pixels, .*b\.png 12x8; give size .* or crop"):
        load(tmp_path)
    assert load(tmp_path, size=(4, 6)).theta.shape == (2, 4, 6)
    assert load(tmp_path, crop=8).theta.shape == (2, 8, 8)


def test_crops_are_windows_of_the_image(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 9, 11)
    whole = pixels_of(load(path))[0]
    places = whole.unfold(0, 4, 1).unfold(1, 5, 1).reshape(-1, 4, 5)
    for crop in pixels_of(load(path, crop=(4, 5), count=6, generator=seeded())):
        assert (places == crop).all(dim=(1, 2)).sum() == 1
    assert torch.equal(pixels_of(load(path, crop=(5, 5), centre=True))[0], whole[2:7, 3:8])


def test_random_crops_reach_every_place_and_follow_the_generator() -> None:
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    corners = [window(image, (2, 2), generator=generator)[0, 0] for generator in [seeded(1)] for _ in range(100)]
    # 2 x 3 places; a given one is missed by 100 draws with probability (5/6)^100 = 1e-8
    assert {round((corner.item() + 1) / 2 * 255) for corner in corners} == {0, 1, 2, 4, 5, 6}
    again = [load("texture:brick", crop=64, count=2, generator=seeded(5)).theta for _ in range(2)]
    assert torch.equal(*again)


def test_more_samples_than_images_are_spread_over_the_images(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / f"{name}.png", 9, 9)
    phases = load(tmp_path, count=7, crop=4, generator=seeded())
    assert [Path(name).stem for name in phases.names] == list("aaabbcc")


def test_resizing_keeps_the_mean_grey_and_the_value_range() -> None:
    image = texture("grass")
    small = window(image, size=(64, 32))
    assert small.shape == (64, 32)
    assert small.mean().item() == pytest.approx(window(image).mean().item(), abs=0.01)
    checkers = Image.fromarray(((np.indices((64, 64)) // 4).sum(0) % 2 * 255).astype(np.uint8))
    assert window(checkers, size=(96, 96)).abs().max() <= 1.0  # Lanczos overshoots at edges


def test_the_textures_ship_with_scikit_image() -> None:
    for name in TEXTURES:
        assert load(f"texture:{name}", size=16).theta.shape == (1, 16, 16)


def test_the_encoding_and_the_dtype_are_the_caller_s() -> None:
    phases = load("texture:brick", encoding=PhaseEncoding(0.5), dtype=torch.float64)
    assert phases.theta.dtype == torch.float64
    assert phases.theta.abs().max() <= 0.5


def test_the_transparency_of_a_palette_is_dropped(tmp_path: Path) -> None:
    grey = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2) * 80)
    grey.convert("P").save(tmp_path / "a.png", transparency=bytes([0, 255] * 128))
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png")), np.asarray(grey))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n broken"])
def test_an_unreadable_image_is_named(tmp_path: Path, content: bytes) -> None:
    save(tmp_path / "a.png", 4, 4)
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*bad\.png as an image"):
        load(tmp_path)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 64, 64)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"cannot read .*a\.png as an image"):
        load(path)


@pytest.mark.slow
def test_a_damaged_tiff_is_named_whatever_its_decoder_raises(tmp_path: Path) -> None:
    """Every byte of the directory of a TIFF file, spoilt in two ways: an image, or a ValueError with its name."""
    path = save(tmp_path / "a.tif", 2, 2)
    whole = path.read_bytes()
    refused = 0
    for i in range(len(whole)):
        for bits in (0xFF, 0x05):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ bits]) + whole[i + 1 :])
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read_image(str(path))
            except ValueError as error:
                refused += f"cannot read {path} as an image" in str(error)
    assert refused > 20


def test_a_header_that_is_no_number_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 2\xd3 2 255 abcd")
    with pytest.raises(ValueError, match=r"cannot read .*a\.pgm as an image"):
        load(tmp_path / "a.pgm")


def test_floating_point_images_are_refused_because_their_range_is_unknown(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="save it with 8 or 16 bits"):
        load(tmp_path / "a.tif")


def test_an_empty_folder_is_refused_and_says_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it is empty"):
        load(tmp_path)
    (tmp_path / "a.csv").write_text("1\n")
    with pytest.raises(ValueError, match=r"it has only \.csv"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("missing.png", {}, "there is no file or folder missing.png; built in are texture:brick"),
        ("texture:wood", {}, "give texture:brick, texture:grass, texture:gravel"),
        ("texture:brick", {"crop": 600}, "512x512 pixels, fewer than the crop of 600x600"),
        ("texture:brick", {"count": 2}, "give crop"),
        ("texture:brick", {"count": 2, "crop": 9, "centre": True}, "give crop, and no centre"),
        ("texture:brick", {"count": 0}, "count must be positive"),
        ("texture:brick", {"size": 0}, "size must be positive"),
        ("texture:brick", {"unit": "deg"}, "unit is for tables of angles"),
        ("fingerprint:tree", {}, "give one of loop, whorl, arch"),
        ("fingerprint", {"size": 8}, "at least 16x16"),
        ("fingerprint", {"crop": 32}, "give size"),
    ],
)
def test_a_source_or_an_option_without_sense_is_refused(source: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(source, **options)  # type: ignore[arg-type]

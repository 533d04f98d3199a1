"""Sets of images: windows are cut out of the images, parts share nothing, and what cannot be used is named."""

import json
import multiprocessing
import os
import pickle
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from circsde.coupling import GlobalCoupling
from circsde.data import image_store
from circsde.data.image_reading import image_set
from circsde.data.image_set import ImageSet
from circsde.data.image_store import Item, digest, in_memory, mapped
from circsde.data.sheet import sheet
from circsde.data.windows import RandomWindows
from circsde.encoding import Encoding, PhaseEncoding
from circsde.kuramoto import KuramotoSDE
from circsde.matching.chain import Chain
from circsde.models.transitions import Objective, Transitions
from circsde.schedule import Schedule


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def save(path: Path, rows: int = 12, columns: int = 9, channels: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns, channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze()).save(path)
    return pixels


def grey_levels(x: Tensor) -> NDArray[np.uint8]:
    """The bytes that became the floats ``x`` in [-1, 1]."""
    return ((x + 1) * 127.5).round().to(torch.uint8).numpy()


def numbered(tmp_path: Path, *sizes: tuple[int, int], colour: str = "grey") -> list[NDArray[np.uint8]]:
    channels = 3 if colour == "rgb" else 1
    return [save(tmp_path / f"{i}.png", *size, channels, seed=i) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("colour", ["grey", "rgb"])
def test_a_window_is_a_slice_of_an_image_and_every_slice_is_drawn(tmp_path: Path, colour: str) -> None:
    images = numbered(tmp_path, (5, 7), (6, 4), colour=colour)
    windows = image_set(tmp_path, crop=(4, 3), colour="rgb" if colour == "rgb" else "grey").draw(700, seeded())
    slices = {
        image[i : i + 4, j : j + 3].transpose(2, 0, 1).tobytes()
        for image in images
        for i in range(image.shape[0] - 3)
        for j in range(image.shape[1] - 2)
    }
    # the rarest has probability 1/20; 700 draws miss one of the 16 with probability below 16 * 0.95^700 < 1e-14
    assert {window.tobytes() for window in grey_levels(windows)} == slices


def test_images_are_drawn_alike_whatever_their_sizes(tmp_path: Path) -> None:
    numbered(tmp_path, (40, 40), (4, 4))
    small = image_set(tmp_path, crop=4).where([False, True]).draw(1, seeded())
    drawn = image_set(tmp_path, crop=4).draw(1000, seeded(1))
    share = (drawn == small).all(dim=(1, 2)).double().mean().item()
    assert share == pytest.approx(0.5, abs=4.42 * 0.5 / 1000**0.5)  # a false alarm in 1e5 seeds


def test_the_same_generator_draws_the_same_windows(tmp_path: Path) -> None:
    numbered(tmp_path, (20, 20), (15, 30))
    data = image_set(tmp_path, crop=8, mirror=True, turn=True)
    assert torch.equal(data.draw(50, seeded(3)), data.draw(50, seeded(3)))
    assert not torch.equal(data.draw(50, seeded(3)), data.draw(50, seeded(4)))
    assert torch.equal(data.windows(50, seed=3), data.windows(50, seed=3))


def test_a_fixed_sample_uses_the_images_evenly_and_whole_images_once(tmp_path: Path) -> None:
    images = numbered(tmp_path, *[(6, 6)] * 5)
    wholes = grey_levels(image_set(tmp_path).windows(5, seed=1))
    assert {whole.tobytes() for whole in wholes} == {image.tobytes() for image in images}
    crops = grey_levels(image_set(tmp_path, crop=(5, 6)).windows(10))
    places = {image[i : i + 5].tobytes(): k for k, image in enumerate(images) for i in (0, 1)}
    assert sorted(places[crop.tobytes()] for crop in crops) == sorted([0, 1, 2, 3, 4] * 2)
    with pytest.raises(ValueError, match="5 images have 5 different windows, 6 are asked for"):
        image_set(tmp_path).windows(6)


def test_mirrors_and_quarter_turns_give_the_eight_symmetries_of_the_square(tmp_path: Path) -> None:
    (image,) = (pixels[..., 0] for pixels in numbered(tmp_path, (3, 3)))
    plain, both = image_set(tmp_path), image_set(tmp_path, mirror=True, turn=True)
    symmetries = {np.rot90(side, k).tobytes() for side in (image, image[:, ::-1]) for k in range(4)}
    # one of 8 is missed by 300 draws with probability below 8 * (7/8)^300 < 1e-16
    assert {x.tobytes() for x in grey_levels(both.draw(300, seeded()))} == symmetries
    assert {x.tobytes() for x in grey_levels(plain.draw(300, seeded()))} == {image.tobytes()}
    mirrored = {x.tobytes() for x in grey_levels(image_set(tmp_path, mirror=True).draw(60, seeded()))}
    assert mirrored == {image.tobytes(), image[:, ::-1].tobytes()}


def test_windows_that_are_not_square_are_turned_by_half_turns(tmp_path: Path) -> None:
    (image,) = (pixels[..., 0] for pixels in numbered(tmp_path, (3, 5)))
    turned = {x.tobytes() for x in grey_levels(image_set(tmp_path, turn=True).draw(60, seeded()))}
    assert turned == {image.tobytes(), image[::-1, ::-1].tobytes()}


def test_a_window_is_resized_as_pillow_does(tmp_path: Path) -> None:
    numbered(tmp_path, (20, 30))
    crops = image_set(tmp_path, crop=(16, 16)).draw(3, seeded())
    small = image_set(tmp_path, crop=(16, 16), size=(8, 12)).draw(3, seeded())
    for window, resized in zip(crops, small, strict=True):
        expected = Image.fromarray(window.numpy()).resize((12, 8), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(resized, np.asarray(expected).clip(-1, 1), atol=1e-5)


def test_images_may_be_resized_before_windows_are_cut(tmp_path: Path) -> None:
    numbered(tmp_path, (20, 30), (9, 9))
    whole = grey_levels(image_set(tmp_path, size=(10, 12)).windows(2))
    window = grey_levels(image_set(tmp_path, size=(10, 12), crop=(10, 11), first="size").draw(1, seeded()))[0]
    assert any(np.array_equal(window, image[:, j : j + 11]) for image in whole for j in (0, 1))


def test_starts_are_the_phases_of_the_windows(tmp_path: Path) -> None:
    numbered(tmp_path, (12, 12))
    data, encoding = image_set(tmp_path, crop=8), PhaseEncoding(0.5)
    assert isinstance(encoding, Encoding)
    torch.testing.assert_close(RandomWindows(data, encoding)(5, seeded()), 0.5 * data.draw(5, seeded()))
    torch.testing.assert_close(data.phases(5, encoding, seed=2), 0.5 * data.windows(5, seed=2))
    assert torch.equal(RandomWindows(data)(5, seeded()), data.draw(5, seeded()))


def test_paths_start_from_windows(tmp_path: Path) -> None:
    numbered(tmp_path, (12, 12))
    draws = RandomWindows(image_set(tmp_path, crop=8), PhaseEncoding(0.5))
    chain = Chain.uniform(KuramotoSDE((8, 8), GlobalCoupling(), Schedule.published(10)), 10)
    pairs = Transitions(chain, Objective.ONE_STEP, pickle.loads(pickle.dumps(draws)), 20, seeded()).draw()
    again = Transitions(chain, Objective.ONE_STEP, draws, 20, seeded()).draw()
    assert pairs.theta.shape == (20, 8, 8)
    assert torch.equal(pairs.theta, again.theta)


def test_draws_tell_data_from_other_data(tmp_path: Path) -> None:
    numbered(tmp_path / "data", (20, 12), (20, 12), (20, 12))
    data, encoding = image_set(tmp_path / "data", crop=8), PhaseEncoding(0.5)
    mapped_from_file = image_set(tmp_path / "data", crop=8, cache=tmp_path / "cache")
    assert RandomWindows(data, encoding).digest == RandomWindows(mapped_from_file, PhaseEncoding(0.5)).digest
    others = [
        RandomWindows(data),
        RandomWindows(data, PhaseEncoding(0.6)),
        RandomWindows(replace(data, crop=(7, 8)), encoding),
        RandomWindows(replace(data, turn=True), encoding),
        *(RandomWindows(part, encoding) for part in (*data.split(), *data.split_rows(0.5))),
    ]
    save(tmp_path / "data" / "0.png", 20, 12, seed=9)
    others.append(RandomWindows(image_set(tmp_path / "data", crop=8), encoding))
    assert len({draws.digest for draws in (RandomWindows(data, encoding), *others)}) == 10


def test_parts_by_groups_share_no_group_and_leave_none_out(tmp_path: Path) -> None:
    for person in range(10):
        for finger in "ab":
            save(tmp_path / f"{person}__{finger}.BMP", 103, 96, seed=person)
    data = image_set(f"socofing:{tmp_path}")
    for seed in range(5):
        first, second = data.split(0.7, seed)
        assert (len(first), len(second)) == (14, 6)
        assert not set(first.groups) & set(second.groups)
        assert sorted(first.names + second.names) == sorted(data.names)
    assert data.split(0.7, 0)[0].names != data.split(0.7, 1)[0].names
    assert data.of(["3", "4"]).names == ("3__a.BMP", "3__b.BMP", "4__a.BMP", "4__b.BMP")
    assert len(data.without(["3", "4"])) == 16
    parts = [image_set(f"socofing:{tmp_path}", part=part, fraction=0.7) for part in ("train", "test")]
    assert [part.names for part in parts] == [part.names for part in data.split(0.7, 0)]


@pytest.mark.parametrize("colour", ["grey", "rgb"])
def test_parts_by_rows_share_no_pixel_and_leave_none_out(tmp_path: Path, colour: str) -> None:
    images = numbered(tmp_path, (11, 6), (20, 5), colour=colour)
    upper, lower = image_set(tmp_path, crop=2, colour="rgb" if colour == "rgb" else "grey").split_rows(0.8)
    for k, image in enumerate(images):
        cut = round(0.8 * len(image))
        for part, expected in ((upper, image[:cut]), (lower, image[cut:])):
            one = replace(part.where([i == k for i in range(2)]), crop=None)
            pixels = grey_levels(one.draw(1, seeded())[0])
            np.testing.assert_array_equal(pixels, expected.transpose(2, 0, 1) if colour == "rgb" else expected[..., 0])


@pytest.mark.parametrize(("rows", "columns", "cut"), [(128, 128, 96), (77, 101, 45), (64, 40, 32), (400, 40, 320)])
def test_an_image_is_cut_between_rows_so_that_a_window_fits_into_either_part(
    rows: int, columns: int, cut: int, tmp_path: Path
) -> None:
    """At four fifths, where the rows below have a window; else just above a window."""
    numbered(tmp_path, (rows, columns))
    (path,) = tmp_path.glob("*.png")
    parts = [image_set(path, crop=32, part=part) for part in ("train", "test")]
    assert [part.shapes.tolist() for part in parts] == [[[cut, columns]], [[rows - cut, columns]]]
    with pytest.raises(ValueError, match=rf"has {rows}x{columns} pixels, .* at most {rows // 2} rows"):
        image_set(path, crop=(rows // 2 + 1, 8), part="train")


def test_the_frame_of_socofing_is_cut_off_and_its_manifest_decides_about_parts(tmp_path: Path) -> None:
    images = {f"{i}.png": save(tmp_path / f"{i}.png", 103, 96, seed=i) for i in range(3)}
    rows = ["file\tgroup\tsplit", "0.png\tA\ttrain", "1.png\tB\tval", "2.png\tA\ttrain"]
    (tmp_path / "MANIFEST.tsv").write_text("\n".join(rows))
    train, test = (image_set(f"socofing:{tmp_path}", part=part) for part in ("train", "test"))
    assert (train.names, train.groups) == (("0.png", "2.png"), ("A", "A"))
    assert test.names == ("1.png",)
    np.testing.assert_array_equal(grey_levels(test.windows(1))[0], images["1.png"][2:99, 2:92, 0])


def test_names_that_do_not_say_whose_finger_they_show_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.bmp", 103, 96)
    with pytest.raises(ValueError, match=r"a\.bmp does not say whose finger it shows"):
        image_set(f"socofing:{tmp_path}")
    (tmp_path / "MANIFEST.tsv").write_text("file\tgroup\tsplit\n")
    with pytest.raises(ValueError, match=r"MANIFEST\.tsv does not say whose finger a\.bmp shows"):
        image_set(f"socofing:{tmp_path}")


def test_a_mapped_set_equals_one_in_memory_and_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbered(tmp_path / "data", (12, 9), (9, 20), colour="rgb")
    (tmp_path / "data" / "bad.png").write_bytes(b"no image")

    def load(cache: Path | None) -> ImageSet:
        return image_set(tmp_path / "data", crop=6, colour="rgb", cache=cache)

    plain, first = load(None), load(tmp_path / "cache")
    monkeypatch.setattr(image_store, "_write", None)
    again = load(tmp_path / "cache")
    assert isinstance(again.pixels, np.memmap)
    assert not again.pixels.flags.writeable
    for data in (first, again):
        assert torch.equal(data.draw(40, seeded()), plain.draw(40, seeded()))
        assert (data.names, data.skipped, data.constant) == (plain.names, plain.skipped, plain.constant)


def test_a_change_of_a_file_or_an_option_is_noticed(tmp_path: Path) -> None:
    numbered(tmp_path / "data", (12, 9))
    files = [tmp_path / "data" / "0.png"]
    keys = [digest(tmp_path, files, "grey"), digest(tmp_path, files, "rgb")]
    os.utime(files[0], ns=(0, 0))
    keys.append(digest(tmp_path, files, "grey"))
    save(tmp_path / "data" / "1.png")
    keys.append(digest(tmp_path, [*files, tmp_path / "data" / "1.png"], "grey"))
    assert len(set(keys)) == 4
    assert digest(tmp_path, files, "grey") == keys[2]


def test_one_file_serves_all_windows_and_parts_and_ways_to_name_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered(tmp_path / "data", (12, 9), (12, 9), (12, 9))
    monkeypatch.chdir(tmp_path)
    for source in (tmp_path / "data", "data", "./data/"):
        for seed in (0, 1):
            image_set(source, crop=4 + seed, part="train", seed=seed, turn=True, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    image_set("data", size=4, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2
    for seed in (0, 1):
        image_set("fingerprint:arch", prints=1, seed=seed, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 4


def test_half_a_cache_is_built_anew(tmp_path: Path) -> None:
    numbered(tmp_path / "data", (12, 9))
    data = image_set(tmp_path / "data", cache=tmp_path)
    (path,) = tmp_path.glob("*.npy")
    expected = data.draw(2, seeded())
    path.write_bytes(path.read_bytes()[:-10])
    assert torch.equal(image_set(tmp_path / "data", cache=tmp_path).draw(2, seeded()), expected)
    assert sorted(file.suffix for file in tmp_path.glob("*.*")) == [".json", ".npy"]


@pytest.mark.parametrize(
    ("suffix", "content"),
    [(".npy", ""), (".json", ""), (".json", "{}"), (".json", "[]"), (".json", "null"), (".json", '{"shapes": 3}')],
)
def test_a_damaged_cache_is_built_anew(suffix: str, content: str, tmp_path: Path) -> None:
    numbered(tmp_path / "data", (12, 9))
    expected = image_set(tmp_path / "data", cache=str(tmp_path)).draw(2, seeded())
    (path,) = tmp_path.glob(f"*{suffix}")
    path.write_text(content)
    assert torch.equal(image_set(tmp_path / "data", cache=tmp_path).draw(2, seeded()), expected)


def test_a_cache_of_other_images_is_built_anew(tmp_path: Path) -> None:
    numbered(tmp_path / "data", (12, 9))
    expected = image_set(tmp_path / "data", cache=tmp_path).draw(2, seeded())
    (path,) = tmp_path.glob("*.json")
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"shapes": [[9, 9]], "names": ["a"]}))
    assert torch.equal(image_set(tmp_path / "data", cache=tmp_path).draw(2, seeded()), expected)


def test_a_set_that_fails_while_it_is_built_leaves_no_file(tmp_path: Path) -> None:
    def items() -> Iterator[Item]:
        yield "a", np.ones((2, 2, 1), dtype=np.uint8)
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="left no half file there: No space left"):
        mapped(items(), tmp_path, "a", "key")
    assert not list(tmp_path.iterdir())


def test_a_file_is_built_one_image_at_a_time(tmp_path: Path) -> None:
    side, count = 512, 40  # 10 MB in all, a quarter of one MB each

    def items() -> Iterator[Item]:
        return ((str(i), np.full((side, side, 1), i, dtype=np.uint8)) for i in range(count))

    tracemalloc.start()
    store = mapped(items(), tmp_path, "a", "key")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert store.pixels.size == count * side**2
    assert peak < 8 * side**2
    np.testing.assert_array_equal(store.pixels, in_memory(items()).pixels)


def test_a_mapped_set_is_pickled_as_the_path_of_its_file(tmp_path: Path) -> None:
    numbered(tmp_path / "data", (300, 300))
    data = image_set(tmp_path / "data", crop=8, cache=tmp_path)
    pickled = pickle.dumps(data)
    assert len(pickled) < 2000
    copy = pickle.loads(pickled)
    assert isinstance(copy.pixels, np.memmap)
    assert torch.equal(copy.draw(5, seeded()), data.draw(5, seeded()))


def read_in_worker(data: ImageSet, seed: int, results: "SimpleQueue[NDArray[np.float32]]") -> None:
    results.put(data.draw(4, seeded(seed)).numpy())


def test_worker_processes_read_the_same_windows_from_the_file(tmp_path: Path) -> None:
    numbered(tmp_path / "data", (30, 30), (20, 40))
    data = image_set(tmp_path / "data", crop=8, cache=tmp_path)
    context = multiprocessing.get_context("fork")
    for seed in (0, 1):
        results: SimpleQueue[NDArray[np.float32]] = context.SimpleQueue()
        worker = context.Process(target=read_in_worker, args=(data, seed, results))
        worker.start()
        np.testing.assert_array_equal(results.get(), data.draw(4, seeded(seed)))
        worker.join()


def test_an_image_that_cannot_be_used_is_named_and_left_out_or_refused(tmp_path: Path) -> None:
    numbered(tmp_path, (12, 9), (12, 9))
    (tmp_path / "broken.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    save(tmp_path / "sub" / "small.png", 4, 40)
    data = image_set(tmp_path, crop=8)
    assert data.names == ("0.png", "1.png")
    assert [line.partition(":")[0] for line in data.skipped] == ["broken.png", "sub/small.png"]
    assert "4x40 pixels, fewer than the crop of 8x8" in data.skipped[1]
    assert data.remarks[0].startswith("2 images are left out: broken.png: cannot read")
    assert len(data.split()[0].skipped) == 2
    with pytest.raises(ValueError, match=r"2 of 4 images of .* cannot be used: broken\.png"):
        image_set(tmp_path, crop=8, strict=True)
    with pytest.raises(ValueError, match=r"4 of 4 images of .* cannot be used"):
        image_set(tmp_path, crop=50)


def test_images_of_one_colour_are_kept_and_counted_unless_there_is_nothing_else(tmp_path: Path) -> None:
    for name, grey in (("a", 255), ("b", 7)):
        Image.fromarray(np.full((9, 9), grey, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match="every image of .* has one colour everywhere"):
        image_set(tmp_path)
    save(tmp_path / "c.png", 9, 9)
    data = image_set(tmp_path)
    assert (len(data), data.constant) == (3, ("a.png", "b.png"))
    assert data.remarks == ("2 of 3 images have one colour: a.png, b.png",)
    assert data.of(["c.png"]).remarks == ()


def test_images_of_several_sizes_need_a_crop_or_a_size(tmp_path: Path) -> None:
    numbered(tmp_path, (12, 9), (9, 9))
    with pytest.raises(ValueError, match=r"0\.png has 12x9 pixels, 1\.png 9x9; give size .* or crop"):
        image_set(tmp_path)
    assert image_set(tmp_path, size=8).draw(2, seeded()).shape == (2, 8, 8)


def test_built_in_images_need_no_file() -> None:
    data = image_set("fingerprint:loop", crop=32, prints=2, seed=1)
    assert torch.equal(data.windows(4), image_set("fingerprint:loop", crop=32, prints=2, seed=1).windows(4))
    assert (len(data), data.event_shape, data.colour) == (2, (32, 32), "grey")
    brick = [image_set("texture:brick", crop=64, part=part) for part in ("train", "test")]
    assert [part.shapes.tolist() for part in brick] == [[[410, 512]], [[102, 512]]]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("missing", {}, "no file or folder missing; a source is a path, or begins with"),
        ("socofing:missing", {}, "no file or folder missing"),
        ("texture:wood", {}, "give texture:brick"),
        ("texture:brick", {"crop": 300, "part": "test"}, "512x512 pixels, .* take a crop of at most 256 rows"),
        ("texture:brick", {"part": "val"}, "got 'val': choose one of None, train, test"),
        ("texture:brick", {"first": "both"}, "got 'both': choose one of crop, size"),
        ("texture:brick", {"crop": 0}, "crop must be positive"),
        ("texture:brick", {"part": "test", "fraction": 1.0}, r"must be in \(0, 1\)"),
        ("fingerprint:tree", {}, "give one of loop"),
    ],
)
def test_a_source_or_an_option_without_sense_is_refused(source: str, options: dict[str, Any], message: str) -> None:
    function = getattr(image_set, "__wrapped__", image_set)  # without the checks of types
    with pytest.raises(ValueError, match=message):
        function(source, **options)


@pytest.mark.parametrize("source", [pytest.param("socofing", marks=pytest.mark.slow), "brodatz"])
def test_parts_of_the_real_sets_share_nothing(shared_data: Callable[..., Path], source: str, tmp_path: Path) -> None:
    path = shared_data("data", source)
    train, test = (image_set(f"{source}:{path}", crop=32, part=part, cache=tmp_path) for part in ("train", "test"))
    assert train.windows(100).shape == (100, 32, 32)
    if source == "socofing":
        assert (len(train), len(test)) == (4756, 599)
        assert not set(train.groups) & set(test.groups)
    else:
        assert (len(train), len(test)) == (91, 91)
        ends = train.offsets + train.shapes.prod(1)
        np.testing.assert_array_equal(ends, test.offsets)


def test_a_sheet_shows_every_picture_in_its_place() -> None:
    pictures = torch.linspace(-1, 1, 5)[:, None, None].expand(5, 2, 3)
    drawn = np.asarray(sheet(pictures, 3, gap=1, zoom=2))
    assert drawn.shape == (9, 20)
    assert drawn[:4, 14:20].tolist() == [[128] * 6] * 4  # the third: 127.5, rounded to even
    assert drawn[5:9, 7:13].tolist() == [[255] * 6] * 4  # the fifth
    assert (drawn[4] == 255).all()
    assert sheet(torch.zeros(2, 3, 4, 4)).mode == "RGB"
    for bad in (torch.zeros(4, 4), torch.zeros(1, 2, 4, 4), torch.full((1, 2, 2), torch.nan)):
        with pytest.raises(ValueError, match="pictures"):
            sheet(bad)

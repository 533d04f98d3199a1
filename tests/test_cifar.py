"""CIFAR-10 as its authors distribute it is read, and a pickle that names anything else is refused."""

import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from circsde.data.cifar import images
from circsde.data.image_reading import image_set


def batch(count: int, seed: int) -> dict[bytes, Any]:
    random = np.random.default_rng(seed)
    return {
        b"batch_label": b"a batch",
        b"labels": random.integers(0, 10, count).tolist(),
        b"data": random.integers(0, 256, (count, 3072), dtype=np.uint8),
        b"filenames": [b"picture_%d.png" % i for i in range(count)],
    }


BATCHES = {"data_batch_1": batch(3, 1), "data_batch_2": batch(2, 2), "test_batch": batch(2, 3)}


def as_folder(path: Path, protocol: int = 2) -> Path:
    path.mkdir(exist_ok=True)
    for name, content in BATCHES.items():
        (path / name).write_bytes(pickle.dumps(content, protocol))
    return path


def as_archive(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (BATCHES | {"batches.meta": {}}).items():
            data = pickle.dumps(content, 2)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def planes(name: str) -> NDArray[np.uint8]:
    data: NDArray[np.uint8] = BATCHES[name][b"data"].reshape(-1, 3, 32, 32)
    return data


@pytest.mark.parametrize("form", ["folder", "folder above", "archive"])
def test_the_batches_are_read_from_a_folder_or_an_archive(tmp_path: Path, form: str) -> None:
    path = as_archive(tmp_path / "c.tar.gz") if form == "archive" else as_folder(tmp_path / "cifar-10-batches-py")
    source = f"cifar10:{path.parent if form == 'folder above' else path}"
    train, test = (image_set(source, colour="rgb", part=part, cache=tmp_path / "cache") for part in ("train", "test"))
    assert (len(train), len(test)) == (5, 2)
    assert train.names[4].startswith("data_batch_2/")
    assert train.names[4].endswith("/picture_1.png")
    drawn = ((test.windows(2) + 1) * 127.5).round().to(torch.uint8).numpy()
    assert {x.tobytes() for x in drawn} == {x.tobytes() for x in planes("test_batch")}
    assert image_set(source, size=16, part="train").windows(3).shape == (3, 16, 16)


def test_pickles_of_the_second_version_of_python_are_read(tmp_path: Path) -> None:
    # The same opcodes as in the distributed files: names and bytes as Python 2's str
    data = planes("test_batch")[:1].tobytes()
    content = (
        b"\x80\x02}q\x01(U\x06labels]q\x02K\x03aU\x09filenames]q\x03U\x05c.pngaU\x04data"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01M\x00\x0c\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + len(data).to_bytes(4, "little") + data + b"tbu."
    )
    (tmp_path / "test_batch").write_bytes(content)
    ((name, image),) = images(tmp_path)
    assert name == "test_batch/cat/c.png"
    np.testing.assert_array_equal(image.transpose(2, 0, 1), planes("test_batch")[0])


class Runs:
    def __reduce__(self) -> Any:
        return os.mkdir, ("made-by-a-pickle",)


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_a_pickle_that_would_run_code_is_refused_before_it_runs(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(BATCHES["test_batch"] | {b"labels": Runs()}, 2)
    if form == "folder":
        (tmp_path / "test_batch").write_bytes(content)
    else:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            member = tarfile.TarInfo("test_batch")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(ValueError, match=r"cannot read test_batch .*names (posix|nt)\.mkdir; only arrays"):
        list(images(tmp_path if form == "folder" else tmp_path / "a.tar"))
    assert not (tmp_path / "made-by-a-pickle").exists()
    pickle.loads(content)  # the twin: without the restriction it runs
    assert (tmp_path / "made-by-a-pickle").exists()


@pytest.mark.parametrize("name", ["builtins eval", "numpy load", "os system", "numpy.core.multiarray fromstring"])
def test_no_other_name_is_admitted(tmp_path: Path, name: str) -> None:
    (tmp_path / "test_batch").write_bytes(b"c" + name.replace(" ", "\n").encode() + b"\n.")
    with pytest.raises(ValueError, match="only arrays and plain values are read"):
        list(images(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": 1}),
        pickle.dumps(BATCHES["test_batch"], 2)[:-500],
        pickle.dumps(BATCHES["test_batch"] | {b"data": np.zeros((2, 100), dtype=np.uint8)}, 2),
        pickle.dumps(BATCHES["test_batch"] | {b"labels": [1]}, 2),
        pickle.dumps(BATCHES["test_batch"] | {b"labels": [1, 20]}, 2),
    ],
)
def test_what_is_no_batch_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(ValueError, match="cannot read test_batch of .* as a CIFAR-10 batch"):
        list(images(tmp_path))


def test_a_folder_or_a_file_without_batches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no CIFAR-10 batch: it should hold data_batch_1"):
        image_set(f"cifar10:{tmp_path}")
    (tmp_path / "a.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="as a tar archive"):
        image_set(f"cifar10:{tmp_path / 'a.tar.gz'}")
    broken = as_archive(tmp_path / "b.tar.gz")
    broken.write_bytes(broken.read_bytes()[:9000])
    with pytest.raises(ValueError, match="as a tar archive|as a CIFAR-10 batch"):
        image_set(f"cifar10:{broken}")


def test_a_part_that_the_batches_lack_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(BATCHES["data_batch_1"], 2))
    with pytest.raises(ValueError, match="no image for the part 'test'"):
        image_set(f"cifar10:{tmp_path}", part="test")

"""Results are on disk whole or not at all, whatever happens while they are written."""

import json
import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from circsde.record import check_writable, provenance, replacing, save_netcdf

NOISE = xr.Dataset({"x": ("row", np.random.default_rng(0).random(10_000), {"units": "rad"})})


def test_a_dataset_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    dataset = NOISE.assign(n=3, names=("row2", ["a", "b"])).assign_attrs(seed=1)
    save_netcdf(dataset, tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as loaded:
        xr.testing.assert_identical(loaded.load(), dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nc"]


def test_an_existing_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="exists already"):
        save_netcdf(NOISE, path)
    assert path.read_text() == "precious"
    save_netcdf(NOISE, path, force=True)
    assert path.stat().st_size > 10_000


def test_a_file_that_appears_while_writing_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a"

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("new")
            path.write_text("theirs")

    with pytest.raises(OSError, match="exists already"):
        write()
    assert path.read_text() == "theirs"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt(), RuntimeError("HDF error")])
def test_a_failure_while_writing_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a"
    path.write_text("precious")

    def write() -> None:
        with replacing(path, force=True) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises((OSError, KeyboardInterrupt)):
        write()
    assert path.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("limit", [100, 40_000])
def test_a_full_disk_leaves_no_file(tmp_path: Path, limit: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # a larger file fails as on a full disk
    try:
        with pytest.raises(OSError, match=r"could not write .*a\.nc.*MiB are free"):
            save_netcdf(NOISE, tmp_path / "a.nc")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_kill_while_writing_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("precious")
    program = (
        "import signal; from pathlib import Path; from circsde.record import replacing\n"
        f"with replacing(Path({str(path)!r}), force=True) as temporary:\n"
        "    temporary.write_text('half'); print('writing', flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as stdout:
        assert stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.read_text() == "precious"


def test_ctrl_c_while_writing_acts_when_the_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one too; afterwards it acts at once again."""
    write = xr.Dataset.to_netcdf

    def interrupted(*arguments: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        write(*arguments, **options)

    monkeypatch.setattr(xr.Dataset, "to_netcdf", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_netcdf(NOISE, tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as found:
        xr.testing.assert_identical(found, NOISE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nc"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_elsewhere_than_in_the_main_thread_writing_asks_for_no_signal(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(save_netcdf, NOISE, tmp_path / "a.nc").result()
    assert (tmp_path / "a.nc").exists()


def test_an_output_path_without_sense_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder .*missing does not exist"):
        check_writable(tmp_path / "missing" / "a.nc")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        check_writable(tmp_path)


def test_provenance_says_versions_time_and_options() -> None:
    said = provenance(seed=3, out=Path("a"), method=None)
    assert json.loads(said["options"]) == {"seed": 3, "out": "a", "method": None}
    assert {"python", "circsde", "torch", "numpy"} <= set(json.loads(said["versions"]))
    assert datetime.fromisoformat(said["created"]).tzinfo is not None


def test_a_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    """Also where what writes it makes a private one, as safetensors does."""
    usual = tmp_path / "usual"
    usual.touch()
    with replacing(str(tmp_path / "a")) as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    assert (tmp_path / "a").stat().st_mode == usual.stat().st_mode
    save_netcdf(NOISE, str(tmp_path / "b.nc"))
    assert (tmp_path / "b.nc").stat().st_mode == usual.stat().st_mode

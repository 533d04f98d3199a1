"""Torsion angles: read in degrees, split for good, fetched once and verified, or refused with what to do."""

import functools
import hashlib
import math
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch

from circsde.data import torsion as module
from circsde.data.torsion import TABLES, Table, fetch, split, torsion

ROWS = """\
1abc A 1 CYS,-60.000,145.000,298.800,NULL,NULL,NULL,112.792,0.088
1abc A 2 CYS,-143.277,149.266,NULL,NULL,NULL,NULL,113.834,0.138
1abc A 3 CYS,180.000,-179.900,0.000,NULL,NULL,NULL,113.758,0.093
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text(ROWS)
    return path


def test_degrees_become_radians_and_rows_that_lack_an_angle_are_counted(table: Path) -> None:
    data = torsion("cys", path=table)
    expected = torch.tensor([[-60.0, 145.0, -61.2], [-180.0, -179.9, 0.0]]) * math.pi / 180
    torch.testing.assert_close(data.theta, expected)
    assert (data.names, data.unit, data.dropped) == (("phi", "psi", "chi1"), "deg", 1)


def test_radians_are_not_taken_for_degrees(tmp_path: Path) -> None:
    path = tmp_path / "radians.csv"
    path.write_text("a,-1.047,2.530,5.215\nb,3.141,-3.139,0.0\n")
    with pytest.raises(ValueError, match="are they radians"):
        torsion("cys", path=path)


def test_degrees_beyond_a_turn_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tenths.csv"
    path.write_text("a,-600,1450,2988\nb,900,-1799,0\n")
    with pytest.raises(ValueError, match="beyond one turn of 360"):
        torsion("cys", path=path)


def test_the_file_of_a_shorter_residue_is_refused(table: Path) -> None:
    with pytest.raises(ValueError, match="no row of angles in which none is missing"):
        torsion("lys", path=table)


@pytest.mark.parametrize(
    ("residue", "part", "message"), [("xyz", None, "choose one of cispro"), ("cys", "all", "train, val")]
)
def test_unknown_names_are_refused(residue: str, part: str | None, message: str, table: Path) -> None:
    with pytest.raises(ValueError, match=message):
        torsion(residue, part, table)


@pytest.mark.parametrize("rows", [2780, 34860, 101])
def test_the_split_is_the_shuffle_of_seed_0_cut_at_8_and_9_tenths(rows: int) -> None:
    parts = split(rows)
    assert [len(part) for part in parts] == [rows * 8 // 10, rows * 9 // 10 - rows * 8 // 10, rows - rows * 9 // 10]
    assert np.array_equal(np.concatenate(parts), np.random.default_rng(0).permutation(rows))


@pytest.mark.parametrize("residue", ["cispro", "cys"])
def test_a_real_table_has_its_rows_and_its_checksum(residue: str, shared_data: Callable[..., Path]) -> None:
    path = shared_data("data", "torsion", f"{residue}.csv")
    data = torsion(residue, path=path)
    assert data.theta.shape == (TABLES[residue].rows, TABLES[residue].dimension)
    assert data.dropped == 0
    assert hashlib.sha256(path.read_bytes()).hexdigest() == TABLES[residue].sha256
    parts = [torsion(residue, part, path).theta for part in ("train", "validation", "test")]
    assert torch.equal(torch.cat(parts), data.theta[torch.from_numpy(np.concatenate(split(len(data.theta))))])


def test_every_table_has_a_checksum_of_its_own() -> None:
    assert len({known.sha256 for known in TABLES.values()}) == len(TABLES)
    assert all(len(known.sha256) == 64 for known in TABLES.values())


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served in place of the source of the set, and an empty cache."""
    folder = tmp_path / "served"
    (folder / module.FOLDER).mkdir(parents=True)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as http:
        monkeypatch.setattr(module, "BASE", f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield folder / module.FOLDER
        http.shutdown()
        thread.join()


def test_a_table_is_downloaded_once(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Table(3, 3, hashlib.sha256(ROWS.encode()).hexdigest())
    monkeypatch.setattr(module, "TABLES", {"cys": known})
    (server / "rota8000-cys.csv").write_text(ROWS)
    path = fetch("cys")
    assert path.read_text() == ROWS
    (server / "rota8000-cys.csv").unlink()
    assert fetch("cys") == path
    assert torsion("cys").theta.shape == (2, 3)


def test_a_download_that_is_another_file_is_refused(server: Path) -> None:
    (server / "rota8000-cys.csv").write_text(ROWS)
    with pytest.raises(OSError, match=r"could not get http.*hash.*give the path"):
        fetch("cys")


def test_without_a_network_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BASE", "http://127.0.0.1:9")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    with pytest.raises(OSError, match="where there is no network, download it elsewhere and give the path"):
        fetch("lys")


def test_a_file_that_is_here_serves_without_a_network(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BASE", "http://127.0.0.1:9")
    monkeypatch.setattr(pooch, "os_cache", lambda name: table.parent / "cache")
    with pytest.raises(ValueError, match="not the file rota8000-cys.csv of the set"):
        fetch("cys", table)
    monkeypatch.setattr(module, "TABLES", {"cys": Table(3, 3, hashlib.sha256(ROWS.encode()).hexdigest())})
    assert fetch("cys", table) == fetch("cys")
    assert torsion("cys").theta.shape == (2, 3)

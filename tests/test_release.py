"""A public host runs the project's own checks, and the version, the date and the notes of a release agree."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

import circsde

ROOT = Path(__file__).resolve().parents[1]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_jobs_of_a_public_host_are_the_targets_of_the_checks() -> None:
    jobs: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text())["jobs"]
    commands = {"make test"} | {f"make {target}" for target in jobs["others"]["strategy"]["matrix"]["target"]}
    wanted = re.findall(r"^make ([a-z -]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    targets = {target for command in commands for target in command.split()[1:]}
    assert targets == {target for line in wanted for target in line.split()}
    assert targets <= TARGETS


def test_every_job_runs_a_target() -> None:
    jobs: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text())["jobs"]
    ran = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert ran == ["make test", "make ${{ matrix.target }}"]


def test_the_version_and_its_date_are_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## \[([\d.]+)\] - ([\d-]+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert newest.groups() == (circsde.__version__, str(citation["date-released"]))
    assert citation["version"] == circsde.__version__


def resolves(name: str) -> bool:
    """Whether there is a module, or a name in one, of that dotted name; ``module.*`` is any of it."""
    module, _, last = name.partition("(")[0].removesuffix(".*").rpartition(".")
    try:
        return hasattr(import_module(module), last) or bool(import_module(f"{module}.{last}"))
    except ImportError:
        return False


def _moved() -> list[tuple[str, str]]:
    """The rows of the table of what has moved, old and new."""
    notes = (ROOT / "CHANGELOG.md").read_text().partition("Modules have moved")[2].partition("\n### ")[0]
    return [
        (old, new) for old, new in re.findall(r"^\| (`.*) \| (`.*) \|$", notes, flags=re.MULTILINE) if "circsde." in old
    ]


@pytest.mark.parametrize(("old", "new"), _moved())
def test_what_has_moved_is_where_the_notes_say_and_no_longer_where_it_was(old: str, new: str) -> None:
    dotted = re.compile(r"`(circsde\.[\w.*]+)")
    gone, found = dotted.findall(old), dotted.findall(new)
    assert gone
    assert [name for name in found if not resolves(name)] == []
    assert [name for name in gone if resolves(name)] == []

"""What a public host runs is what the project's own checks run."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_jobs_of_a_public_host_are_the_targets_of_the_checks() -> None:
    jobs: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text())["jobs"]
    commands = {"make test"} | {f"make {target}" for target in jobs["others"]["strategy"]["matrix"]["target"]}
    wanted = set(re.findall(r"^make [a-z -]+", (ROOT / ".ci" / "run").read_text(), re.MULTILINE))
    assert commands == wanted
    assert {target for command in commands for target in command.split()[1:]} <= TARGETS


def test_every_job_runs_a_target() -> None:
    jobs: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text())["jobs"]
    ran = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert ran == ["make test", "make ${{ matrix.target }}"]

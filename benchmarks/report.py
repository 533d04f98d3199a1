"""Shared by all benchmarks: options, how numbers are kept, and the rows of the common table."""

import argparse
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from circsde.record import provenance, replacing

Record = Mapping[str, Any]
"""The record that a benchmark keeps, as read from its JSON."""


class Row(NamedTuple):
    """A line of the common table: what the peer takes, or errs, over what circsde does, so that above 1 is good.

    Against a claim or a theory it is what was measured over what was expected, so that 1 is good.

    Attributes:
        question: What was measured.
        peer: Against whom or what.
        ratio: The answer.
        low: The lower end of its interval; equal to ``ratio`` where nothing is random.
        high: The upper end.
    """

    question: str
    peer: str
    ratio: float
    low: float
    high: float


def options(description: str | None, quick: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have; ``quick`` says what ``--quick`` leaves out."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--out", type=Path, help="keep the numbers as JSON")
    return parser


def keep(path: Path | None, *packages: str, **numbers: object) -> None:
    """Write ``numbers`` with when, where and by which versions they were made; nothing without a path."""
    if path is None:
        return
    about = provenance()
    record = {
        "command": f"python benchmarks/{about['command']}",
        "created": about["created"],
        "machine": machine(),
        "versions": json.loads(about["versions"]) | {name: version(name) for name in packages},
        **numbers,
    }
    with replacing(path, force=True) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def machine() -> str:
    """The processor, its instructions, and the threads in use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(names, platform.processor() or platform.machine())
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"

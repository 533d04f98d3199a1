"""Run all benchmarks in their quick form, which shows that they run, and print one table of their answers.

python benchmarks                        # minutes: sizes so small that the numbers mean little
python benchmarks --committed            # the table of the committed results, nothing measured
python benchmarks --only forward stiff
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import Record, Row
from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parent
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__main__", "report"))


def rows(script: str, record: Record) -> list[Row]:
    """The rows that a record gives; none where the script has no ``summary``."""
    summary = getattr(importlib.import_module(script), "summary", None)
    return [] if summary is None else list(summary(record))


def committed(script: str) -> Record | None:
    """The committed record of a script; of a folder of records, each by its name."""
    kept = FOLDER / "results" / script
    if kept.is_dir():
        return {path.stem: json.loads(path.read_text()) for path in sorted(kept.glob("*.json"))}
    file = kept.with_suffix(".json")
    return json.loads(file.read_text()) if file.exists() else None


def measured(script: str, folder: Path) -> Record | None:
    """Run a script in its quick form, showing its output; returns its record, empty without one, None if it failed."""
    out, begin = folder / f"{script}.json", time.perf_counter()
    done = subprocess.run([sys.executable, str(FOLDER / f"{script}.py"), "--quick", "--out", str(out)])
    print(f"-- {script}: {time.perf_counter() - begin:.0f} s, exit status {done.returncode}\n", flush=True)
    if done.returncode:
        return None
    return json.loads(out.read_text()) if out.is_file() else {}


def table(found: list[Row]) -> Table:
    """A table with one line per answer."""
    shown = Table(title="What the peer takes, or errs, over what circsde does")
    for title in ("question", "against", "ratio", "interval"):
        shown.add_column(title, justify="right" if title in ("ratio", "interval") else "left")
    for row in found:
        interval = "exact" if row.low == row.high else f"{row.low:.2f} to {row.high:.2f}"
        shown.add_row(row.question, row.peer, f"{row.ratio:.2f}", interval)
    return shown


def main() -> None:
    """Run, then print the table; exit with 1 if a script failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--committed", action="store_true", help="measure nothing: read results/")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=SCRIPTS, metavar="NAME", help=", ".join(SCRIPTS))
    arguments = parser.parse_args()
    found: list[Row] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for script in arguments.only:
            if not arguments.committed:
                record = measured(script, Path(folder))
                failed += [script] if record is None else []
            else:
                record = committed(script)
            if record is not None:
                found += rows(script, record)
    Console(width=110 if not sys.stdout.isatty() else None).print(table(found))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

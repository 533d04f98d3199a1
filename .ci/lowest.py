"""Constraints for pip: the lowest version that pyproject.toml declares of every dependency, the pins for all others.

python .ci/lowest.py > lowest.txt; pip install -c lowest.txt '.[test,dask]'

Users get the newest version of what a dependency needs in its turn, and so does this, but for distributed and llvmlite,
which must fit dask's and numba's versions: pip chooses them. torch keeps its pin: of older versions PyPI has only the
builds with CUDA, of several gigabytes, so that its bound is not tried.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_TO_PIP = {"distributed", "llvmlite"}
PINNED = {"torch"}


def lowest() -> dict[str, str]:
    """The lowest declared versions, by name in lower case."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {}
    for requirement in (*project["dependencies"], *project["optional-dependencies"]["dask"]):
        match = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)", requirement)
        if match is None:
            raise ValueError(f"pyproject.toml requires {requirement}, which is no NAME>=VERSION: write it so")
        found[match[1].lower()] = match[2]
    return found


def main() -> None:
    """Print them."""
    bounds = {name: version for name, version in lowest().items() if name not in PINNED}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name = line.partition("==")[0].lower()
        if not line.startswith("#") and name not in bounds.keys() | LEFT_TO_PIP:
            print(line)
    for name, version in bounds.items():
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()

"""The layout of the package: one import direction, every folder installed, small files, documented public names."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

import circsde
from circsde.sde import SDE
from circsde.solvers.methods import axpy

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path.relative_to(ROOT)
    for folder in ("circsde", "solvers", "models")
    for path in (ROOT / folder).rglob("*.py")
    if path.resolve() == path
)
ROOMS = (  # from what may import nothing above it to what may import all; the equations lie beside the laws
    ("laws",),
    ("exact", "matching"),
    ("solvers", "models", "files"),
    ("studies", "sampling", "metrics", "data"),
    ("plots", "commands", "cli"),
)
LAYERS = {room: height for height, rooms in enumerate(ROOMS) for room in rooms}


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts if path.name != "__init__.py" else path.parent.parts
    return ".".join(parts if parts[0] == "circsde" else ("circsde", *parts))


def part(module: str) -> str:
    """The part of a module's name below ``circsde``: ``solvers`` for ``circsde.solvers.methods``."""
    return (module.split(".") + [""])[1]


def imported_modules(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Every module of circsde that the source imports, anywhere in it, by its absolute name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "circsde")
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            if name == "circsde":
                yield from (f"circsde.{alias.name}" for alias in node.names)
            elif name.startswith("circsde."):
                yield name


def broken_rules(source: str, module: str, is_package: bool = False) -> list[str]:
    modules = {module_name(path) for path in SOURCES}
    broken = []
    for imported in imported_modules(source, module, is_package):
        here, there = part(module), part(imported)
        if not any(imported == known or imported.startswith(known + ".") for known in modules - {"circsde"}):
            broken.append(f"{module} imports {imported}, which is no module: import from the defining module")
        elif LAYERS.get(there, 0) > LAYERS.get(here, 0):
            broken.append(f"{module} imports {imported}, which lies above it")
        elif {here, there} == {"solvers", "models"}:
            broken.append(f"{module} imports {imported}: solvers and models meet only in circsde.typing.Field")
    return broken


@pytest.mark.parametrize("path", [path for path in SOURCES if path != Path("circsde/__init__.py")], ids=str)
def test_imports_run_from_equations_to_methods_to_studies_to_the_command_line(path: Path) -> None:
    assert not broken_rules((ROOT / path).read_text(), module_name(path), path.name == "__init__.py")


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import circsde.solvers.methods", "circsde.torus"),
        ("from circsde.solvers import methods", "circsde.sde"),
        ("def f():\n    from circsde.models.training import train", "circsde.solvers.methods"),
        ("from circsde.solvers import methods", "circsde.models.training"),
        ("from ..solvers import methods", "circsde.models.training"),
        ("from circsde import wrap", "circsde.solvers.methods"),
        ("from .. import wrap", "circsde.solvers.methods"),
        ("from . import studies", "circsde.torus"),
        ("from circsde.cli import main", "circsde.studies.convergence"),
    ],
)
def test_a_wrong_import_is_noticed(source: str, module: str) -> None:
    assert broken_rules(source, module)


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import math\nfrom torch import Tensor", "circsde.torus"),
        ("from circsde.torus import wrap", "circsde.solvers.methods"),
        ("from .torus import wrap", "circsde.sde"),
        ("from circsde.solvers.methods import METHODS", "circsde.studies.convergence"),
    ],
)
def test_a_right_import_is_accepted(source: str, module: str) -> None:
    assert not broken_rules(source, module)


def test_every_package_on_disk_is_installed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert {module_name(path) for path in SOURCES if path.name == "__init__.py"} == set(setuptools["packages"])


@pytest.mark.parametrize("folder", ["solvers", "models"])
def test_the_folder_link_lets_static_tools_find_the_modules(folder: str) -> None:
    assert (ROOT / "circsde" / folder).resolve() == ROOT / folder


@pytest.mark.parametrize("folder", ["solvers", "models"])
def test_a_bare_import_of_a_source_folder_is_refused(folder: str) -> None:
    run = subprocess.run([sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode != 0
    assert f"import circsde.{folder}, not {folder}" in run.stderr


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_source_file_has_at_most_300_lines(path: Path) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= 300


def test_equations_are_numbered_as_docstrings_cite_them() -> None:
    labels = re.findall(r"^\$\$ \(eq-(\d+)-", (ROOT / "docs" / "mathematics.md").read_text(), flags=re.MULTILINE)
    assert labels == [str(i) for i in range(1, len(labels) + 1)]
    cited = {number for path in SOURCES for number in re.findall(r"eq\. \(?(\d+)", (ROOT / path).read_text())}
    assert cited <= set(labels)


@pytest.mark.parametrize("name", circsde.__all__)
def test_a_public_name_exists_and_has_a_docstring(name: str) -> None:
    assert getattr(circsde, name).__doc__


def test_shapes_and_types_are_checked_while_tests_run() -> None:
    right, wrong_dtype = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64)
    sde = SDE(lambda t, theta: theta, lambda t: 1.0, horizon=1.0)
    wrong_shape = SDE(lambda t, theta: theta[0], lambda t: 1.0, horizon=1.0)
    assert sde.drift(0.0, right).shape == (2, 3)
    with pytest.raises(TypeCheckError):
        sde.drift(0.0, wrong_dtype)
    with pytest.raises(TypeCheckError):
        wrong_shape.drift(0.0, right)
    with pytest.raises(TypeCheckError):  # behind the link to solvers/ too
        axpy(right, "1", right)  # type: ignore[arg-type]


def test_importing_the_package_imports_no_torch_until_a_name_is_used() -> None:
    script = "import sys, circsde.cli; assert 'torch' not in sys.modules; circsde.wrap; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)

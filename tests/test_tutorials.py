"""The visible code of tutorials is complete, and its output shows no object representations or warnings."""

import builtins
import json
import re
import subprocess
import symtable
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
TUTORIALS = sorted(FOLDER.glob("*.md"))
PAGES = [*TUTORIALS, FOLDER.parent / "gallery.md"]
HIDDEN = {"remove-cell", "remove-input"}


@dataclass(frozen=True)
class Cell:
    """The code of a cell and the lines that set it up, as ``:tags: [...]`` or as YAML."""

    options: str
    code: str

    @property
    def visible(self) -> bool:
        return not HIDDEN & set(re.findall(r"[\w-]+", self.options))

    @property
    def draws(self) -> bool:
        return bool(re.search(r"\bplots\.\w+\(|\bsubplots\(", self.code))


def cells(page: str) -> list[Cell]:
    """The cells of a page, from first to last."""
    found = re.findall(
        r"^```\{code-cell\}[^\n]*\n(---\n.*?^---\n|(?::[^\n]*\n)*)(.*?)^```$", page, re.DOTALL | re.MULTILINE
    )
    return [Cell(options, code) for options, code in found]


def visible(page: Path) -> list[Cell]:
    return [cell for cell in cells(page.read_text()) if cell.visible]


def unknown(sources: list[str]) -> list[str]:
    """The names that cells read, at the top or in a function, although no cell until then has made them."""
    made, missing = set(dir(builtins)), []
    for source in sources:
        top = symtable.symtable(source, "<cell>", "exec")
        made |= {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
        missing += [name for name in _read(top) if name not in made]
    return missing


def _read(table: symtable.SymbolTable) -> Iterator[str]:
    at_the_top = table.get_type() == "module"
    yield from (s.get_name() for s in table.get_symbols() if s.is_referenced() and (at_the_top or s.is_global()))
    for child in table.get_children():
        yield from _read(child)


def test_a_name_that_only_a_hidden_cell_makes_is_noticed() -> None:
    page = (
        "```{code-cell} python3\n:tags: [remove-cell]\nimport torch\n```\ntext\n"
        "```{code-cell} python3\n---\nmystnb:\n  image:\n    alt: a\n---\n"
        "import math\ndef f(x):\n    return torch.exp(x) + math.pi\n```\n"
        "```{code-cell} python3\ny = f(1) + len('a')\n```\n"
    )
    first, second, third = cells(page)
    assert (first.visible, second.visible, third.visible) == (False, True, True)
    assert unknown([second.code, third.code]) == ["torch"]
    assert unknown([first.code, second.code, third.code]) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_visible_uses_only_names_that_what_is_visible_makes(page: Path) -> None:
    shown = visible(page)
    assert len(shown) >= 5
    assert unknown([cell.code for cell in shown]) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_figure_has_a_text_in_its_place(page: Path) -> None:
    drawing = [cell for cell in visible(page) if cell.draws]
    assert drawing
    for cell in drawing:
        assert re.search(r"^mystnb:\n  image:\n    alt: \S.{40,}$", cell.options, re.MULTILINE), cell.code


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_ends_with_a_link_onwards(page: Path) -> None:
    assert re.search(r"\]\([\w./]+\.md\)[^\n`]*\n*\Z", page.read_text())
    assert f"tutorials/{page.name}" in (FOLDER.parent / "tutorials.md").read_text()


RUN = """
import ast, json, sys, warnings
import matplotlib
matplotlib.use("Agg")
from matplotlib import pyplot
warnings.simplefilter("error")
warnings.filterwarnings("ignore", ".torch.jit.script", DeprecationWarning)
space = {"__name__": "__main__"}
for code in json.load(sys.stdin):
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), space)
    value = None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), space)
    silent = code.rstrip().endswith(";") or value is None
    drew = isinstance(value, matplotlib.figure.Figure) or bool(pyplot.get_fignums())
    pyplot.close("all")
    text = "" if silent or isinstance(value, matplotlib.figure.Figure) else repr(value)
    print(json.dumps({"text": text, "drew": drew}))
"""
"""Runs cells as a notebook does: the value of a last expression is shown, unless a semicolon ends it."""


def shown_by(sources: list[str], folder: Path) -> tuple[list[dict[str, Any]], str]:
    """The output that each cell shows in a fresh interpreter, and whatever else was written."""
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=json.dumps(sources), capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = [json.loads(line) for line in lines if line.startswith('{"text"')]
    return rows, "\n".join([line for line in lines if not line.startswith('{"text"')] + done.stderr.splitlines())


UNREADABLE = r"\bat 0x[0-9a-f]+>|<[\w.]+ object|Warning|site-packages|/(?:home|root|tmp|work|usr)/"


def test_what_is_not_fit_to_be_read_is_noticed(tmp_path: Path) -> None:
    rows, rest = shown_by(["object()", "object();", "1 + 1\nprint('said')"], tmp_path)
    assert re.search(UNREADABLE, rows[0]["text"])
    assert [(row["text"], row["drew"]) for row in rows[1:]] == [("", False), ("", False)]
    assert rest == "said"
    with pytest.raises(AssertionError, match="a warning"):
        shown_by(["import warnings; warnings.warn('a warning')"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_visible_runs_alone_and_is_fit_to_be_read(page: Path, tmp_path: Path) -> None:
    shown = visible(page)
    rows, rest = shown_by([cell.code for cell in shown], tmp_path)
    assert len(rows) == len(shown)
    assert [row["drew"] for row in rows] == [cell.draws for cell in shown]
    assert not re.search(UNREADABLE, "\n".join([*(row["text"] for row in rows), rest]))

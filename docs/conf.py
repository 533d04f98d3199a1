"""Sphinx settings: `make docs` runs every tutorial, makes every figure, and fails on a warning. It needs no network."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import circsde
from circsde import problems
from circsde.solvers import METHODS, Method

project = "circsde"
release = circsde.__version__
copyright = "the circsde authors"  # noqa: A001

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "reference/*_table.md"]
templates_path = ["_templates"]

nb_execution_mode = "force"  # a tutorial that fails, fails the build
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True

nitpicky = True  # a reference to a name of circsde must lead somewhere; those of other projects are links or plain text
nitpick_ignore_regex = [
    ("py:.*", r"(?!circsde\.).*"),
    ("py:.*", r"circsde\.\w+\.T"),
    ("py:class", r"circsde\.data\.image_set\.ImageSet"),  # a function of that name hides the module
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # shapes such as "batch *event" are no markup

html_theme = "pydata_sphinx_theme"
html_title = f"circsde {release}"
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "show_prev_next": False,
    "header_links_before_dropdown": 8,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_static_path = ["_static"]
html_css_files = ["circsde.css"]
html_show_sourcelink = False


def reachable(inventories: dict[str, str], seconds: float = 3.0) -> dict[str, tuple[str, None]]:
    """The projects whose names can be looked up now: without a network, references to them are plain text."""
    found: dict[str, tuple[str, None]] = {}
    for project, url in inventories.items():
        try:
            with urlopen(f"{url}objects.inv", timeout=seconds):
                found[project] = (url, None)
        except OSError:
            pass
    return found


intersphinx_mapping = reachable(  # torchsde and torchdiffeq publish no inventory
    {
        "python": "https://docs.python.org/3/",
        "numpy": "https://numpy.org/doc/stable/",
        "torch": "https://docs.pytorch.org/docs/stable/",
        "xarray": "https://docs.xarray.dev/en/stable/",
        "matplotlib": "https://matplotlib.org/stable/",
    }
)


def resolve_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Lead ``circsde.sdeint`` to the module that defines it, ``circsde.solvers.integrate.sdeint``."""
    public: Any = circsde
    for name in node["reftarget"].removeprefix("circsde.").split("."):
        public = getattr(public, name, None)
    if node["refdomain"] != "py" or not hasattr(public, "__qualname__"):
        return None
    target = f"{public.__module__}.{public.__qualname__}"
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, node["reftype"], target, node, content)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def order(value: float | None) -> str:
    """An order that a method claims."""
    return "–" if value is None else f"{value:g}"


def evaluations(method: Method) -> str:
    """Per step; where oscillators are coupled, if that takes more."""
    return f"{method.nfe}" if method.nfe_coupled is None else f"{method.nfe} ({method.nfe_coupled} coupled)"


def linked(source: str) -> str:
    """A source with its digital object identifier as a link."""
    return re.sub(r"doi:(\S+)", r"[doi:\1](https://doi.org/\1)", source)


def methods_table() -> str:
    """What every method claims and costs, from the objects themselves."""
    header = ["method", "strong", "weak", "stationary", "drift evaluations", "what for, and source"]
    return table(
        header,
        (
            [
                f"`{name}`",
                *map(order, (method.strong_order, method.weak_order, method.invariant_order)),
                evaluations(method),
                f"{method.note} ({linked(method.source)})",
            ]
            for name, method in METHODS.items()
        ),
    )


def orders_table(results: Sequence[dict[str, Any]]) -> str:
    """Claimed and measured orders."""
    kinds = ("strong", "weak", "stationary")
    cells = (
        [
            f"`{row['method']}`" if row["method"] in METHODS else row["method"],
            *(
                f"{row[kind][0]:.2f} ± {row[kind][1]:.2f} (of {row['claimed'][kind]:g})" if row[kind] else "–"
                for kind in kinds
            ),
        ]
        for row in results
    )
    return table(["method", *kinds], cells)


def costs_table(results: Sequence[dict[str, Any]]) -> str:
    """Drift evaluations that a weak tolerance costs."""
    methods = list(results[0]["drift_evaluations"])
    cells = (
        [
            f"`{row['problem']}`",
            f"{row['tolerance']:g}",
            *("–" if n is None else f"{n:g}" for n in row["drift_evaluations"].values()),
        ]
        for row in results
    )
    return table(["problem", "tolerance", *(f"`{method}`" for method in methods)], cells)


def problems_table() -> str:
    """The test problems."""
    return table(
        ["problem", "what it is"], ([f"`{name}`", problems.describe(name).rstrip(".")] for name in problems.names())
    )


def write_tables(app: Sphinx) -> None:
    """Tables that pages include, from the objects and the committed results."""
    results = Path(app.confdir).parent / "benchmarks" / "results"
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)

    def measured(name: str) -> Sequence[dict[str, Any]]:
        rows: Sequence[dict[str, Any]] = json.loads((results / f"{name}.json").read_text())["results"]
        return rows

    (folder / "methods_table.md").write_text(methods_table())
    (folder / "orders_table.md").write_text(orders_table(measured("orders")))
    (folder / "costs_table.md").write_text(costs_table(measured("stiff")))
    (folder / "problems_table.md").write_text(problems_table())


def trim_examples(app: Sphinx, document: str, source: list[str]) -> None:  # noqa: ARG001
    """Without the blank line that doctest needs at the end of an example in Markdown."""
    source[0] = source[0].replace("\n\n```\n", "\n```\n")


def setup(app: Sphinx) -> None:
    """Connect to Sphinx."""
    app.connect("source-read", trim_examples)
    app.connect("builder-inited", write_tables)
    app.connect("missing-reference", resolve_public_name)

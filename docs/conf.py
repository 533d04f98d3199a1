"""Sphinx settings; `make docs` builds the pages with warnings as errors and needs no network."""

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import circsde
from circsde.solvers import METHODS

project = "circsde"
release = circsde.__version__
copyright = "the circsde authors"  # noqa: A001

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
exclude_patterns = ["_build", "reference/*_table.md"]
templates_path = ["_templates"]

nitpicky = True  # a reference to a name of circsde must lead somewhere; those of other projects are plain text
nitpick_ignore_regex = [("py:.*", r"(?!circsde\.).*"), ("py:.*", r"circsde\.\w+\.T")]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # shapes such as "batch *event" are no markup

html_theme = "pydata_sphinx_theme"
html_title = f"circsde {release}"
html_theme_options = {"navbar_end": ["theme-switcher"], "show_prev_next": False}


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


def write_tables(app: Sphinx) -> None:
    """Tables of methods, their claims and what benchmarks measured, from the objects and the committed results."""
    results = Path(app.confdir).parent / "benchmarks" / "results"
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    rows = ["| method | strong | weak | stationary | drift evaluations | |", "| --- | --- | --- | --- | --- | --- |"]
    for row in json.loads((results / "orders.json").read_text())["results"]:
        method = METHODS.get(row["method"])
        cost = "" if method is None else "/".join(str(n) for n in (method.nfe, method.nfe_coupled) if n is not None)
        cells = [
            f"claims {row['claimed'][kind]:g}, measured {row[kind][0]:.2f} ± {row[kind][1]:.2f}" if row[kind] else "–"
            for kind in ("strong", "weak", "stationary")
        ]
        rows.append(
            "| " + " | ".join([f"`{row['method']}`", *cells, cost, "" if method is None else method.note]) + " |"
        )
    (folder / "methods_table.md").write_text("\n".join(rows) + "\n")

    costs = json.loads((results / "stiff.json").read_text())["results"]
    methods = list(costs[0]["drift_evaluations"])
    rows = [
        "Drift evaluations per path that a weak tolerance costs (`benchmarks/stiff.py`); – where 640 steps miss it.",
        "",
    ]
    rows += [
        "| problem | tolerance | " + " | ".join(f"`{m}`" for m in methods) + " |",
        "| --- " * (2 + len(methods)) + "|",
    ]
    for row in costs:
        cells = ["–" if n is None else f"{n:g}" for n in row["drift_evaluations"].values()]
        rows.append("| " + " | ".join([f"`{row['problem']}`", f"{row['tolerance']:g}", *cells]) + " |")
    (folder / "costs_table.md").write_text("\n".join(rows) + "\n")


def setup(app: Sphinx) -> None:
    """Connect to Sphinx."""
    app.connect("builder-inited", write_tables)
    app.connect("missing-reference", resolve_public_name)

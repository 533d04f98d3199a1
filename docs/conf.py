"""Sphinx settings; `make docs` builds the pages with warnings as errors and needs no network."""

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import circsde

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
exclude_patterns = ["_build"]
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


def setup(app: Sphinx) -> None:
    """Connect to Sphinx."""
    app.connect("missing-reference", resolve_public_name)

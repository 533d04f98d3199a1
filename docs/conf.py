"""Sphinx settings: `make docs` runs every tutorial, makes every figure, and fails on a warning.

Neither the build nor the pages need a network: formulas are drawn by the copy of MathJax in `_static/mathjax`.
"""

import builtins
import inspect
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from docutils import nodes
from jupyter_cache.executors.utils import single_nb_execution
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from myst_nb.core.execute import direct
from nbformat.v4 import new_code_cell
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext import autosummary
from sphinx.pycode import ModuleAnalyzer

import circsde

sys.path.insert(0, str(Path(__file__).parent))
import generated  # beside this file

ROOT = Path(__file__).resolve().parents[1]

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
    "sphinx_copybutton",
    "sphinx_design",
]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_static", "reference/*_table.md"]
templates_path = ["_templates"]

mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}  # whose speech and zoom would load more, from the network

nb_execution_mode = "force"  # a tutorial that fails, fails the build
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True
nb_output_stderr = "remove"

nitpicky = True  # a reference to a name of circsde must lead somewhere; those of other projects are links or plain text
nitpick_ignore_regex = [
    ("py:.*", r"(?!circsde\.).*"),
    ("py:.*", r"circsde\.[\w.]+\.[FPRT]"),
    ("py:class", r"circsde\.data\.image_set\.ImageSet"),  # a function of that name hides the module
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_use_type_comments = False
autosummary_generate = False  # generated.py writes the pages of modules
autosummary.WELL_KNOWN_ABBREVIATIONS += ("eq.",)  # which does not end a sentence
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # shapes such as "batch *event" are no markup

viewcode_follow_imported_members = False

viewcode_follow_imported_members = False
maximum_signature_line_length = 100

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "pydata_sphinx_theme"
html_title = f"circsde {release}"
repository = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {}).get("Repository")
html_theme_options = {
    "navbar_end": ["theme-switcher", "navbar-icon-links"],
    "icon_links": [{"name": "Repository", "url": repository, "icon": "fa-brands fa-git-alt"}] if repository else [],
    "show_prev_next": False,
    "header_links_before_dropdown": 6,  # what fits in a line beside the search
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc", "download"],
}
html_sidebars: dict[str, list[str]] = {page: [] for page in ("mathematics", "comparison", "decisions", "search")}
html_static_path = ["_static"]
html_css_files = ["circsde.css"]
html_show_sourcelink = False
html_copy_source = False
html_use_index = False
html_domain_indices = False


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


def write_pages(app: Sphinx) -> None:
    """Pages, tables and pictures that are made from the package itself and from the committed results."""
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    for name, text in generated.pages(ROOT / "benchmarks" / "results").items():
        (folder / name).write_text(text)
    generated.draw_figures(folder)


def trim_examples(app: Sphinx, document: str, source: list[str]) -> None:  # noqa: ARG001
    """Without the blank line that doctest needs at the end of an example in Markdown."""
    source[0] = source[0].replace("\n\n```\n", "\n```\n")


def leave_foreign_names(app: Sphinx, document: nodes.document) -> None:
    """Names of other packages are plain text where no inventory is at hand; to look each up takes long."""
    if not app.config.intersphinx_mapping:
        for node in list(document.findall(pending_xref)):
            first, *inside = node.get("reftarget", "").split(".")
            foreign = first in sys.modules and first != "circsde" if inside else hasattr(builtins, first)
            if node["refdomain"] == "py" and foreign:
                node.replace_self(node.children)


def skip_imported(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool | None:  # noqa: ARG001
    """What a module imports is documented where it is defined; autodoc would load it all before it finds that out."""
    module = app.env.current_document.autodoc_module
    if what != "module" or not (inspect.isclass(member) or inspect.isroutine(member)) or member.__module__ == module:
        return None
    return ("", name) not in ModuleAnalyzer.for_module(module).find_attr_docs() or None


KERNEL = AsyncKernelManager(kernel_name="python3")


def run_in_one_process(notebook: Any, **options: Any) -> Any:
    """Run all tutorials in one process, each from an empty namespace: each would take seconds to import torch."""
    notebook.cells.insert(0, new_code_cell("%reset -f"))
    result = single_nb_execution(notebook, km=KERNEL, **options)
    notebook.cells.pop(0)
    return result


direct.single_nb_execution = run_in_one_process


def keep_notebooks(app: Sphinx, error: Exception | None) -> None:
    """The tutorials as executed notebooks, for downloads."""
    if error is None and app.builder.name == "html":
        run_sync(KERNEL.shutdown_kernel)(now=True)
        shutil.copytree(app.outdir.parent / "jupyter_execute", app.outdir / "notebooks", dirs_exist_ok=True)


def setup(app: Sphinx) -> None:
    """Connect to Sphinx."""
    app.connect("source-read", trim_examples)
    app.connect("builder-inited", write_pages)
    app.connect("doctree-read", leave_foreign_names)
    app.connect("autodoc-skip-member", skip_imported)
    app.connect("missing-reference", resolve_public_name)
    app.connect("build-finished", keep_notebooks)

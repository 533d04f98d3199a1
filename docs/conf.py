"""Sphinx settings; `make docs` builds the pages with warnings as errors and needs no network."""

import importlib.metadata

project = "circsde"
release = importlib.metadata.version("circsde")
copyright = "the circsde authors"  # noqa: A001

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
exclude_patterns = ["_build"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # shapes such as "batch *event" are no markup

html_theme = "pydata_sphinx_theme"
html_title = f"circsde {release}"
html_theme_options = {"navbar_end": ["theme-switcher"], "show_prev_next": False}

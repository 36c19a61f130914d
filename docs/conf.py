"""Sphinx: the guides of this folder and the API reference from the docstrings. See `make docs`."""

import ajour

project = "ajour"
author = "the ajour authors"
version = release = ajour.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"ajour {version}"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["docs.css"]

myst_heading_anchors = 3
default_role = "code"  # docstrings put names in single backticks

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

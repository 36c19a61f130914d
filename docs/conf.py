"""Sphinx: the guides of this folder and the API reference from the docstrings. See `make docs`."""

import ajour

project = "ajour"
author = "the ajour authors"
version = release = ajour.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"ajour {version}"
html_show_copyright = False

myst_heading_anchors = 3
default_role = "code"  # docstrings put names in single backticks

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

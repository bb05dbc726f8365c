"""Settings of the site: ``make docs`` builds it from the documents of the repository, wherever in it they lie.

Sources are read from the root of the repository, so that a link in a document leads to the same place on the site, in a
checkout and wherever else the Markdown is shown.
"""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent / "tests/helpers")]

project = "maml_rl"
author = copyright = "The maml_rl authors"
version = release = version_of("maml_rl")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docstrings",
    "mathml",
    "notebooks",
    "reports",
    "source_pages",
]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "docs/notebooks/*.ipynb", "experiments/README.md"]
exclude_patterns = [".*", "**/.*", "build", "dist", "runs", "SECURITY.md", "**/__pycache__"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # as GitHub names them

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
toc_object_entries = False
# Types in signatures: those of other projects cannot be looked up without a network, and not all of ours are described.
nitpick_ignore_regex = [("py:class", ".*"), ("py:exc", "ContractError"), ("py:obj", r"maml_rl\.core\.adapt\.Data")]

highlight_language = "text"
smartquotes = False  # -- begins a flag
templates_path = ["templates"]
html_theme = "furo"
html_title = "maml_rl"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#2a5db0", "color-brand-content": "#2a5db0"},
    "dark_css_variables": {"color-brand-primary": "#86b1f5", "color-brand-content": "#86b1f5"},
    "navigation_with_keys": True,
}

linkcheck_ignore = [r"(\.\./)*_files/"]
linkcheck_timeout = 20

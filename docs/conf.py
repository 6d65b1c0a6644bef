"""Builds these pages: ``make docs``, then open ``docs/_build/html/index.html``."""

import sys
from pathlib import Path

from sparse_rnn import __version__

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "sparse_rnn"
author = copyright = "The sparse_rnn authors"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
]
exclude_patterns = ["_build"]
nitpicky = True
# Links into other projects need their indices, and so a network: they stay plain names.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|torchmetrics|lightning|numpy|networkx|nx|nn|matplotlib)\..*"),
    (r"py:.*", r"(collections|pathlib|datetime|os|re)\..*"),
    (r"py:class", r"Axes|Tensor|Path|timedelta"),
    # Variables of types, and what only the inside of the package sees.
    (r"py:class", r"sparse_rnn(\.\w+)+\.(Model|OfKind|Some|_Pass|Part|Entry)"),
    # Places in the source.
    (r"py:mod", r"sparse_rnn\..*"),
]

html_theme = "furo"
html_title = "sparse_rnn"
html_static_path = ["static"]
html_css_files = ["style.css"]
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0072B2",
        "color-brand-content": "#0072B2",
    },
    "dark_css_variables": {
        "color-brand-primary": "#56B4E9",
        "color-brand-content": "#56B4E9",
    },
}
pygments_style, pygments_dark_style = "tango", "monokai"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "auto"  # notebooks are stored without outputs
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_typehints_description_target = "documented"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

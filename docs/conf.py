"""Builds these pages: ``pip install '.[docs]' && sphinx-build docs docs/_build``."""

project = "sparse_rnn"
author = copyright = "The sparse_rnn authors"
extensions = ["myst_parser"]
html_theme = "alabaster"
exclude_patterns = ["_build"]
myst_heading_anchors = 2

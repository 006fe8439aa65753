"""Sphinx configuration."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "shiftable"
author = "The shiftable maintainers"
project_copyright = "2026, the shiftable maintainers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "changes/*"]
html_theme = "furo"
html_title = "shiftable"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autoclass_content = "class"
nitpicky = False

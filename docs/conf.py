"""The site of the documentation, built by `make docs`.

Pages are where a repository shows them, README and CHANGELOG at its root, so that every link works
there and in the site: the folder of Sphinx's sources is the root of the repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mrcz.naming import software

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# Of the bar on the left; a page that is missing here is a warning.
CONTENTS = {
    "Start": "../README tutorial widgets fields quality settings faq",
    "How to": (
        "how-to/k3-relion how-to/eer-falcon how-to/night how-to/archive how-to/microed "
        "how-to/counting"
    ),
    "Reference": "command-line python api formats results corrections file-format benchmarks",
    "Development": "scaling ../CONTRIBUTING ../CHANGELOG",
}

project, release = software().split()
author = "napari-mrcz developers"
copyright = author

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**"]
exclude_patterns = [".*", "build", "dist", "napari_mrcz", "resources", "tests"]

myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings have them, as people say them
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = f"{project} {release}"
html_logo = "../napari_mrcz/resources/icon.svg"
html_theme_options = {"navigation_with_keys": False}


def setup(app: Sphinx) -> None:
    """Add the contents to the first page, and lead to it from the root of the site."""
    app.connect("source-read", _add_contents)
    app.connect("build-finished", _write_root)


def _add_contents(_app: Sphinx, page: str, source: list[str]) -> None:
    if page == root_doc:
        for caption, pages in CONTENTS.items():
            listed = "\n".join(pages.split())
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"


def _write_root(app: Sphinx, _error: Exception | None) -> None:
    page = f'<meta http-equiv="refresh" content="0; url={root_doc}.html">\n'
    Path(app.outdir, "index.html").write_text(page, "utf-8")

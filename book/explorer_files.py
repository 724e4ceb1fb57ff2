"""Sphinx extension: gives the page "The explorer" its style sheet, its data and its program.

No other page loads them.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

PAGE = "book/explorer"
STYLES = ("explorer/explorer.css",)
SCRIPTS = ("explorer/data.js", "explorer/explorer.js")


def add_files(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Adds the files to one page; what is added while a page is written stays with it."""
    if page != PAGE:
        return
    for name in STYLES:
        app.add_css_file(name)
    for name in SCRIPTS:
        app.add_js_file(name, loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

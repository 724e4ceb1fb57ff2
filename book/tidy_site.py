"""Sphinx extension: leaves out of the pages what they do not use, and mends what it can.

The Jupyter Book 1.x line loads sphinx-thebe twice on every page, an error in the browser's console.
This book's pages run without a kernel and fetch nothing from elsewhere.

Sphinx writes the parameters of a long signature as descriptions without a term, which is no list
that a screen reader could announce. They become lines. The works of a bibliography get the role of
a list's items in place of one that is deprecated.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def drop_thebe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Removes the scripts of sphinx-thebe from one page."""
    context["script_files"] = [
        script for script in context.get("script_files", []) if not _is_thebe(script)
    ]


def _is_thebe(script: Any) -> bool:
    body = getattr(script, "attributes", {}).get("body") or ""
    return "thebe" in str(getattr(script, "filename", "") or "") or "THEBE_JS_URL" in body


SIGNATURE = re.compile(r'<dt class="sig .*?</dt>', re.DOTALL)


def mend_lists(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Mends the signatures and the bibliography of one page."""
    if "body" in context:
        body = SIGNATURE.sub(lambda found: as_lines(found[0]), context["body"])
        context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def as_lines(signature: str) -> str:
    """A signature with lines in place of descriptions; what holds none stays as it is."""
    signature = re.sub(r"</?dl>", "", signature)
    return signature.replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", mend_lists)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

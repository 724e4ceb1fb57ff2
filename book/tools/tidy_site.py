"""Sphinx extension: leaves out of the pages what they do not use, and mends what it can.

- Jupyter Book 1.x loads sphinx-thebe twice on every page, which is an error in the console.
- Sphinx writes the parameters of a long signature as descriptions without a term, which no screen
  reader can announce: they become lines. Works of a bibliography lose a deprecated role.
- Each page gets a description: its first full paragraph of words.
- The site's address follows from `_config.yml`, the book's version from the installed package.
- Only "The explorer" and the front page load the explorer's style sheet, data and program.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

SIGNATURE = re.compile(r'<dt class="sig .*?</dt>', re.DOTALL)


LEAST, MOST = 60, 200  # letters of a description


def name_site(app: Sphinx, config: Config) -> None:
    """Set the address of the published site and the version that its pages show."""
    owner, name = urlsplit(config.html_theme_options["repository_url"]).path.split("/")[1:3]
    config.html_baseurl = config.html_baseurl or f"https://{owner}.github.io/{name}/"
    config.version = config.release = version("qaconv-book")


def describe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give a page the description that search engines and shared links show."""
    texts = (
        " ".join(paragraph.astext().split())
        for paragraph in (doctree.findall(nodes.paragraph) if doctree else ())
        if not any(paragraph.findall(nodes.math))
    )
    text = next((text for text in texts if len(text) >= LEAST), context["docstitle"])
    context["description"] = text if len(text) <= MOST else text[:MOST].rsplit(" ", 1)[0] + " …"
    context["html_baseurl"] = app.config.html_baseurl


def drop_thebe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Remove the scripts of sphinx-thebe from one page."""

    def is_thebe(script: Any) -> bool:
        body = getattr(script, "attributes", {}).get("body") or ""
        return "thebe" in str(getattr(script, "filename", "") or "") or "THEBE_JS_URL" in body

    scripts = context.get("script_files", [])
    context["script_files"] = [script for script in scripts if not is_thebe(script)]


def mend_lists(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Mend the signatures and the bibliography of one page."""
    if "body" in context:
        body = SIGNATURE.sub(lambda found: _as_lines(found[0]), context["body"])
        context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def _as_lines(signature: str) -> str:
    signature = re.sub(r"</?dl>", "", signature)
    return signature.replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")


def add_explorer(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    data = {"book/explorer": "data.js", app.config.root_doc: "front.js"}.get(page)
    if data:
        app.add_css_file("explorer/explorer.css")
        for name in (data, "explorer.js"):
            app.add_js_file(f"explorer/{name}", loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", name_site)
    app.connect("html-page-context", describe)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", mend_lists)
    app.connect("html-page-context", add_explorer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

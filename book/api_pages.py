"""Sphinx extension: readable pages from the library's docstrings.

The docstrings follow Google's style, with names and code between single backticks. Such a name
becomes a link where it is one of the library's, and stays code elsewhere.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.environment import BuildEnvironment

LENIENT = {"obj", "class", "exc", "data"}  # names between backticks, and types
RETURNS = re.compile(r"^(?:Returns|Yields):$")


def leave_foreign_names(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.TextElement | None:
    """Keeps as code what a docstring names and no page describes: shapes, formulas, other types.

    Pages written by hand are not within a module, so that their links must lead somewhere.
    """
    in_docstring = node.get("refdomain") == "py" and node.get("py:module")
    return contnode if in_docstring and node.get("reftype") in LENIENT else None


def mark_results(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    """Says that a result's description holds no type: a colon in it would be taken for its end.

    The same goes for the first line about a property or a constant.
    """
    marked = [0] if what in ("attribute", "data", "property") and lines else []
    marked += [place + 1 for place, line in enumerate(lines[:-1]) if RETURNS.match(line.strip())]
    for place in marked:
        text = lines[place].lstrip()
        indent = " " * (len(lines[place]) - len(text))
        lines[place] = f"{indent}: {text}"


def shorten_defaults(
    app: Sphinx, what: str, name: str, obj: object, options: Any, signature: str, result: str
) -> tuple[str, str] | None:
    """Writes a default that is made anew for each instance as Python can read it."""
    return (signature.replace("<factory>", "..."), result) if signature else None


def skip_field_numbers(
    app: Sphinx, what: str, name: str, obj: object, skip: bool, options: Any
) -> bool | None:
    """Leaves out what Python itself says about the fields of a named tuple."""
    about = getattr(obj, "__doc__", None) or ""
    return True if about.startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, Any]:
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"  # the docstrings' word
    app.connect("missing-reference", leave_foreign_names)
    app.connect("autodoc-process-docstring", mark_results, priority=400)  # before napoleon's 500
    app.connect("autodoc-process-signature", shorten_defaults)
    app.connect("autodoc-skip-member", skip_field_numbers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

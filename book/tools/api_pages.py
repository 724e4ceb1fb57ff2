"""Sphinx extension: the pages of the library, written from the package when the site is built.

A page asks for modules in a comment, `<!-- modules: experiments -->`, and so never lists them.
Docstrings follow Google's style, with names and code between single backticks: such a name becomes
a link if the library documents it, and stays code otherwise.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
from typing import Any
from unittest import mock

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.environment import BuildEnvironment

import qaconv_lib
from qaconv_lib.cli import make_parser

# Root modules by group; all others belong to the group "matching".
GROUPS = {
    "datasets": ["datasets", "transforms"],
    "evaluation": ["evaluation", "reranking", "temporal", "visualize"],
    "commands": ["cli"],
}
REQUEST = re.compile(r"^<!-- (names|commands|modules: \w+) -->$", re.MULTILINE)
# The line in between keeps the module's id, which the search cannot select, off the heading.
AUTOMODULE = """
## `{heading}`

`qaconv_lib.{name}`

```{{eval-rst}}
.. automodule:: qaconv_lib.{name}
   :members:
   :ignore-module-all:
   :no-value:
```
"""
LENIENT = {"obj", "class", "exc", "data"}  # names between backticks, and types
RETURNS = re.compile(r"^(?:Returns|Yields):$")


def modules_of(group: str) -> list[str]:
    """Public modules of a sub-package, or of a group of root modules."""
    if group in GROUPS:
        return GROUPS[group]
    package = qaconv_lib
    if group != "matching":
        package = importlib.import_module(f"qaconv_lib.{group}")
    found = [
        module.name
        for module in pkgutil.iter_modules(package.__path__)
        if not module.name.startswith("_") and not module.ispkg
    ]
    if group == "matching":
        return [name for name in found if name not in sum(GROUPS.values(), [])]
    return [group, *(f"{group}.{name}" for name in found)]


def describe_names() -> str:
    """A table of the names that can be imported from the library itself."""
    rows = ["| name | what it is |", "|---|---|"]
    for name in qaconv_lib.__all__:
        thing = getattr(qaconv_lib, name)
        summary = (thing.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
        rows.append(f"| {{py:obj}}`~{thing.__module__}.{name}` | {summary} |")
    return "\n".join(rows)


def describe_commands() -> str:
    """What each command says about itself."""
    parsers = make_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    with mock.patch.dict(os.environ, COLUMNS="80"):
        return "\n".join(
            f"## `{name}`\n\n```text\n{parser.format_help()}```\n"
            for name, parser in parsers.items()
        )


def fill_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace what a page asks for by what the library says."""

    def answer(found: re.Match[str]) -> str:
        if found[1] == "names":
            return describe_names()
        if found[1] == "commands":
            return describe_commands()
        names = modules_of(found[1].removeprefix("modules: "))
        return "\n".join(
            AUTOMODULE.format(name=name, heading=name.split(".")[-1]) for name in names
        )

    source[0] = REQUEST.sub(answer, source[0])


def leave_foreign_names(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.TextElement | None:
    """Keep as code what a docstring names and no page describes: shapes, formulas, other types."""
    in_docstring = node.get("refdomain") == "py" and node.get("py:module")
    return contnode if in_docstring and node.get("reftype") in LENIENT else None


def mark_results(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    """Say that a result, property or constant is described without its type before a colon."""
    marked = [0] if what in ("attribute", "data", "property") and lines else []
    marked += [place + 1 for place, line in enumerate(lines[:-1]) if RETURNS.match(line.strip())]
    for place in marked:
        text = lines[place].lstrip()
        lines[place] = f"{' ' * (len(lines[place]) - len(text))}: {text}"


def shorten_defaults(
    app: Sphinx, what: str, name: str, obj: object, options: Any, signature: str, result: str
) -> tuple[str, str] | None:
    """Write the default of a dataclass's factory as Python can read it."""
    return (signature.replace("<factory>", "..."), result) if signature else None


def skip_field_numbers(
    app: Sphinx, what: str, name: str, obj: object, skip: bool, options: Any
) -> bool | None:
    """Leave out what Python itself says about the fields of a named tuple."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field") else None


def setup(app: Sphinx) -> dict[str, Any]:
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"  # the docstrings' word
    app.connect("source-read", fill_page)
    app.connect("missing-reference", leave_foreign_names)
    app.connect("autodoc-process-docstring", mark_results, priority=400)  # before napoleon's 500
    app.connect("autodoc-process-signature", shorten_defaults)
    app.connect("autodoc-skip-member", skip_field_numbers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""What `book/tools/tidy_site.py` makes of the pages' HTML."""

from types import SimpleNamespace

import pytest

tidy_site = pytest.importorskip("tidy_site", reason="what builds the pages is not installed")


PAGE = """<dl class="py function">
<dt class="sig sig-object py" id="f">f(<dl>
<dd><em>a</em>,</dd>
<dd><em>b</em>,</dd>
</dl>
)</dt>
<dd><p>What it does.</p></dd></dl>
<dl><dt>term</dt><dd>description</dd></dl>"""


def test_parameters_of_a_signature_become_lines_and_lists_stay() -> None:
    context = {"body": PAGE}
    tidy_site.mend_lists(None, "page", "page.html", context, None)
    signature, rest = context["body"].split("</dt>", 1)
    assert signature.count('<span class="sig-line"><em>') == signature.count("</span>") == 2
    assert "<dl>" not in signature and "<dd>" not in signature
    assert rest == PAGE.split("</dt>", 1)[1]


def test_a_page_is_described_by_its_first_paragraph_of_words() -> None:
    nodes = pytest.importorskip("docutils.nodes")
    document = nodes.Element()
    for text in ("Open in Colab", "A sentence of the page. " * 20):
        document += nodes.paragraph("", text)
    context = {"docstitle": "The book"}
    app = SimpleNamespace(config=SimpleNamespace(html_baseurl="https://example.org/"))
    tidy_site.describe(app, "page", "page.html", context, document)
    assert context["description"].startswith("A sentence of the page. A")
    assert context["description"].endswith(" …") and len(context["description"]) <= 202
    tidy_site.describe(app, "page", "page.html", context, None)
    assert context["description"] == "The book"

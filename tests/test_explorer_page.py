"""The page "The explorer" in headless Chromium: what it shows is the library's answer."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from qaconv_lib.experiments.runs import checkpoint_path
from qaconv_lib.matches.explorer import matcher_of, score_parts
from qaconv_lib.matches.explorer_page import read_explorer
from qaconv_lib.matching import correlate, find_correspondences
from qaconv_lib.models import load_model

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BOOK = Path(__file__).resolve().parent.parent / "book"
FOLDER = BOOK / "_static" / "explorer"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
TOLERANCE = 1e-3  # processors differ in the last bits of a cosine
CELLS = '[data-side="{}"] [role="gridcell"]'

pytestmark = pytest.mark.browser

# Only files beside the page, no program in the page itself and no style attributes.
POLICY = "default-src 'none'; script-src file:; style-src file:; img-src file:"
FRAME = """<!doctype html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>The explorer</title>
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="{book}/_static/custom.css">
<link rel="stylesheet" href="{book}/_static/explorer/explorer.css">
<script defer src="{book}/_static/explorer/data.js"></script>
<script defer src="{book}/_static/explorer/explorer.js"></script></head>
<body><article class="bd-article"><figure class="explorer-still">
<img src="{book}/_static/explorer/still.png" alt="still" width="300"></figure>
{fragment}</article></body></html>"""


@pytest.fixture(scope="module")
def data():
    return read_explorer(FOLDER)


@pytest.fixture(scope="module")
def model():
    return load_model(checkpoint_path("qaconv", "mini-market"))


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page's own fragment, without the theme around it."""
    text = (BOOK / "explorer.md").read_text(encoding="utf-8")
    (fragment,) = re.findall(r"^```\{raw\} html\n(.*?)^```$", text, re.M | re.S)
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    page = FRAME.format(policy=POLICY, book=BOOK.as_uri(), fragment=fragment)
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Opens the page; whatever it reports in the console fails the test in the end."""
    contexts, complaints = [], []

    def open_(**settings):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.goto(address, timeout=120_000)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not complaints


def maps_of(model, data, query, gallery):
    chosen = data["queries"][query]
    names = chosen["image"], chosen["gallery"][gallery]["image"]
    paths = [str(FOLDER / "images" / name) for name in names]
    return model.extract(pd.DataFrame({"path": paths, "identity": 0}))


def matches_of(pair, direction):
    """Best matches as (query location, gallery location, similarity), by the library."""
    found = find_correspondences(*pair)
    if direction == "gallery":
        places = enumerate(found.query_location.tolist())
        return [(q, g, float(found.similarity_to_query[g])) for g, q in places]
    return [
        (q, g, float(found.similarity_to_gallery[q]))
        for q, g in enumerate(found.gallery_location.tolist())
        if direction == "query" or int(found.query_location[g]) == q
    ]


def clear_level(matches, wanted):
    """The hundredth nearest to `wanted` that no similarity comes too close to."""
    levels = sorted(range(100), key=lambda level: abs(level - wanted))
    return next(
        level
        for level in levels
        if all(abs(value - level / 100) > TOLERANCE for *_, value in matches)
    )


def chosen_text(page):
    return page.inner_text("#explorer-match")


@pytest.mark.parametrize(
    "query, gallery, direction", [(0, 0, "query"), (2, 4, "gallery"), (2, 4, "mutual")]
)
def test_lines_are_the_librarys(open_page, model, data, query, gallery, direction):
    page = open_page()
    page.locator('[name="explorer-query"]').nth(query).check()
    page.locator('[name="explorer-gallery"]').nth(gallery).check()
    page.locator(f'[name="explorer-direction"][value="{direction}"]').check()
    matches = matches_of(maps_of(model, data, query, gallery), direction)
    for wanted in (10, 75, 90):
        level = clear_level(matches, wanted)
        page.locator("#explorer-threshold").fill(str(level))
        kept = [match for match in matches if match[2] > level / 100]
        assert page.locator(".explorer-lines .explorer-line").count() == len(kept)
        assert page.inner_text("#explorer-count").startswith(f"{len(kept)} line")
        rows = page.locator("#explorer-table tr").evaluate_all(
            "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        )
        places = {tuple("{}, {}".format(*divmod(cell, 4)) for cell in match[:2]) for match in kept}
        assert {tuple(row[:2]) for row in rows} == places
        shown = sorted((float(row[2]) for row in rows), reverse=True)
        expected = sorted((match[2] for match in kept), reverse=True)
        assert shown == pytest.approx(expected, abs=0.005 + TOLERANCE)


def test_it_starts_with_the_first_pair_and_hides_the_still_figure(open_page, model, data):
    page = open_page()
    assert page.locator("#explorer").is_visible()
    assert page.locator(".explorer-still").is_hidden()
    matches = matches_of(maps_of(model, data, 0, 0), "mutual")
    above = sum(value > data["threshold"] for *_, value in matches)
    near = sum(abs(value - data["threshold"]) < TOLERANCE for *_, value in matches)
    assert abs(page.locator(".explorer-lines .explorer-line").count() - above) <= near
    assert page.locator(".explorer-picture img").evaluate_all(
        "images => images.every(image => image.complete && image.naturalWidth === 64 && image.alt)"
    )


def test_the_score_is_the_librarys(open_page, model, data):
    page = open_page()
    for query, gallery in ((0, 0), (7, 3)):
        page.locator('[name="explorer-query"]').nth(query).check()
        page.locator('[name="explorer-gallery"]').nth(gallery).check()
        parts = score_parts(matcher_of(model), *maps_of(model, data, query, gallery))
        texts = page.locator("#explorer-score tr td:nth-child(2)").all_inner_texts()
        shown = [float(text.replace("−", "-")) for text in texts]
        order = parts.constant, parts.from_query, parts.from_gallery, *parts[3:]
        assert shown == pytest.approx(order, abs=0.02)
        one = data["queries"][query]["gallery"][gallery]
        verdict = page.inner_text("#explorer-verdict")
        assert verdict.startswith("✓ The same" if one["same"] else "✗ Somebody else")
        assert f"rank {one['rank']} of 1,3" in verdict


def test_a_location_is_reached_by_pointer_keys_and_touch(open_page, model, data):
    pair = maps_of(model, data, 0, 0)
    found, table = find_correspondences(*pair), correlate(*pair).flatten(1)

    def expected(side, location):
        places = found.gallery_location if side == "query" else found.query_location
        best = table.max(dim=1 if side == "query" else 0).values[location]
        names = [
            "row {}, column {}".format(*divmod(n, 4)) for n in (location, int(places[location]))
        ]
        return names[0].capitalize(), f"{names[1]}, similarity {best:.2f}", int(places[location])

    def check(page, side, location):
        start, match, place = expected(side, location)
        text = chosen_text(page)
        assert text.startswith(f"{start} of the {side}") and match in text
        assert page.locator(".explorer-lines .explorer-chosen").count() == 1
        selected = page.locator('[role="gridcell"][aria-selected="true"]')
        assert selected.count() == 1
        assert selected.get_attribute("aria-label").startswith(start.lower())
        return place

    page = open_page()
    assert chosen_text(page).startswith("None yet")
    page.locator(CELLS.format("gallery")).nth(6).hover()
    check(page, "gallery", 6)
    page.mouse.move(2, 2)
    assert chosen_text(page).startswith("None yet")

    page.locator("#explorer-tint").focus()
    page.keyboard.press("Tab")
    check(page, "query", 0)
    for key in "ArrowDown ArrowDown ArrowRight ArrowUp End ArrowRight ArrowLeft".split():
        page.keyboard.press(key)
    place = check(page, "query", 6)
    page.keyboard.press("Enter")
    check(page, "gallery", place)
    page.keyboard.press("Escape")
    assert chosen_text(page).startswith("None yet")
    page.keyboard.press("Shift+Tab")
    check(page, "query", 6)  # a picture remembers where one was

    phone = open_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    phone.locator(CELLS.format("query")).nth(13).tap()
    check(phone, "query", 13)


def test_no_width_scrolls_sideways_and_motion_is_left_out_if_unwanted(open_page):
    page = open_page(reduced_motion="reduce")
    for width in (360, 768, 1440):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator(CELLS.format("gallery")).first.bounding_box()
        assert min(box["width"], box["height"]) >= 24, "large enough to be tapped"
    line = "getComputedStyle(document.querySelector('.explorer-line')).transitionDuration"
    assert page.evaluate(line) == "0s"


def test_without_javascript_there_is_a_figure(open_page):
    page = open_page(java_script_enabled=False)
    still = page.locator(".explorer-still img")
    assert still.is_visible() and still.get_attribute("alt")
    assert page.locator("#explorer").is_hidden()

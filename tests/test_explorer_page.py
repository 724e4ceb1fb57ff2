"""The page "The explorer" in headless Chromium: what it shows is the library's answer."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from qaconv_lib.experiments.runs import NAMED
from qaconv_lib.matches import pairs
from qaconv_lib.matches.correspondence import right_links
from qaconv_lib.matching import best_matches, correlate, find_correspondences
from qaconv_lib.models import load_model

BOOK = Path(__file__).resolve().parent.parent / "book"
FOLDER = BOOK / "_static" / "explorer"
TOLERANCE = 1e-3  # processors differ in the last bits of a cosine
CELLS = '[data-side="{}"] [role="gridcell"]'

pytestmark = pytest.mark.browser

# Only files beside the page, no program in the page itself and no style attributes.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'"
SITE = "https://book.example/"
FRAME = """<!doctype html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>The explorer</title>
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="_static/custom.css">
<link rel="stylesheet" href="_static/explorer/explorer.css">
<script defer src="_static/explorer/data.js"></script>
<script defer src="_static/explorer/explorer.js"></script></head>
<body><article class="bd-article"><figure class="explorer-still">
<img src="_static/explorer/still.jpg" alt="still" width="300"></figure>
{fragment}</article></body></html>"""


@pytest.fixture(scope="module")
def data():
    text = (FOLDER / "data.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("window.qaconvExplorer = ").removesuffix(";\n"))


@pytest.fixture(scope="module")
def model():
    return load_model(NAMED["general-small"].shipped())


@pytest.fixture(scope="module")
def served():
    """The page's own fragment, without the theme around it, and the files beside it."""
    text = (BOOK / "explorer.md").read_text(encoding="utf-8")
    (fragment,) = re.findall(r"^```\{raw\} html\n(.*?)^```$", text, re.M | re.S)
    page = FRAME.format(policy=POLICY, fragment=fragment)

    def answer(route):
        path = route.request.url.removeprefix(SITE).partition("#")[0].partition("?")[0]
        if path == "explorer.html":
            route.fulfill(body=page, content_type="text/html; charset=utf-8")
        else:
            route.fulfill(path=BOOK / path)

    return answer


@pytest.fixture
def open_page(browser, served):
    """Opens the page; whatever it reports in the console fails the test in the end."""
    contexts, complaints = [], []

    def open_(hash="", **settings):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **settings})
        contexts.append(context)
        context.route(SITE + "**", served)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.goto(SITE + "explorer.html" + hash, timeout=120_000)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not complaints


def maps_of(model, data, query, gallery, features="trained"):
    chosen = data["queries"][query]
    names = chosen["image"], chosen["gallery"][gallery]["image"]
    paths = [str(FOLDER / "images" / name) for name in names]
    table = pd.DataFrame({"path": paths, "identity": 0})
    if features == "trained":
        return model.extract(table)
    with torch.no_grad():
        return pairs.maps_of(pairs.network_before_training(model), table, model)


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
    levels = sorted(range(1, 100), key=lambda level: abs(level - wanted))
    return next(
        level
        for level in levels
        if all(abs(value - level / 100) > TOLERANCE for *_, value in matches)
    )


def chosen_text(page):
    return page.inner_text("#explorer-match")


def rows_of(page):
    return page.locator("#explorer-table tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )


def name_of(location):
    return "row {}, column {}".format(*divmod(location, 4))


@pytest.mark.parametrize(
    "query, gallery, direction, features",
    [(0, 0, "query", "trained"), (2, 4, "gallery", "ImageNet"), (2, 3, "mutual", "trained")],
)
def test_lines_are_the_librarys(open_page, model, data, query, gallery, direction, features):
    page = open_page()
    page.locator('[name="explorer-query"]').nth(query).check()
    page.locator('[name="explorer-gallery"]').nth(gallery).check()
    page.locator(f'[name="explorer-lines"][value="{direction}"]').check()
    page.locator(f'[name="explorer-features"][value="{features}"]').check()
    matches = matches_of(maps_of(model, data, query, gallery, features), direction)
    one = data["queries"][query]
    names = one["image"], one["gallery"][gallery]["image"]
    right = right_links(*(data["parts"][name] for name in names))
    for wanted in (10, 60, 85):
        level = clear_level(matches, wanted)
        page.locator("#explorer-above").fill(str(level))
        kept = [match for match in matches if match[2] > level / 100]
        good = {match[:2] for match in kept if right[match[:2]]}
        assert page.locator(".explorer-line").count() == len(kept)
        assert page.locator(".explorer-line.explorer-right").count() == len(good)
        assert f"{len(good)} link the same part" in page.inner_text("#explorer-count")
        rows = rows_of(page)
        places = {(name_of(q), name_of(g), "yes" if right[q, g] else "no") for q, g, _ in kept}
        assert {(row[0], row[1], row[3]) for row in rows} == places
        shown = sorted((float(row[4].replace("−", "-")) for row in rows), reverse=True)
        expected = sorted((match[2] for match in kept), reverse=True)
        assert shown == pytest.approx(expected, abs=0.005 + TOLERANCE)


def test_it_starts_with_the_first_pair_and_hides_the_still_figure(open_page, model, data):
    page = open_page(reduced_motion="reduce", viewport={"width": 360, "height": 740})
    box = page.locator(CELLS.format("gallery")).first.bounding_box()
    assert min(box["width"], box["height"]) >= 24, "large enough to be tapped"
    line = "getComputedStyle(document.querySelector('.explorer-line')).transitionDuration"
    assert page.evaluate(line) == "0s", "no motion if it is not wanted"
    assert page.locator(".explorer").is_visible()
    assert page.locator(".explorer-still").is_hidden()
    matches = matches_of(maps_of(model, data, 0, 0), "mutual")
    above = sum(value > data["threshold"] for *_, value in matches)
    near = sum(abs(value - data["threshold"]) < TOLERANCE for *_, value in matches)
    assert abs(page.locator(".explorer-line").count() - above) <= near
    drawn = "images => images.every(image => image.naturalWidth === 256 && image.alt)"
    assert page.locator(".explorer-picture img").evaluate_all(drawn)


def score_parts(model, query_map, gallery_map):
    """Constant, sums over the query's and the gallery image's locations, logit, similarity."""
    weights, constant = model.criterion.matcher.fold()
    matches = best_matches(query_map[None], gallery_map[None])[0, 0]
    from_gallery, from_query = (matches * weights).view(2, -1).sum(dim=1).tolist()
    logit = float(constant) + from_query + from_gallery
    return [float(constant), from_query, from_gallery, logit, 1 / (1 + math.exp(-logit))]


def test_the_score_is_the_librarys(open_page, model, data):
    page = open_page()
    for query, gallery in ((0, 0), (6, 3)):
        page.locator('[name="explorer-query"]').nth(query).check()
        page.locator('[name="explorer-gallery"]').nth(gallery).check()
        parts = score_parts(model, *maps_of(model, data, query, gallery))
        texts = page.locator("#explorer-score tr td:nth-child(2)").all_inner_texts()
        shown = [float(text.replace("−", "-")) for text in texts]
        assert shown == pytest.approx(parts, abs=0.02)
        one = data["queries"][query]["gallery"][gallery]
        verdict = page.inner_text("#explorer-verdict")
        assert verdict.startswith("✓ The same" if one["same"] else "✗ Another")
        assert f"rank {one['rank']} of 1,4" in verdict


def test_a_location_is_reached_by_pointer_keys_and_touch(open_page, model, data):
    pair = maps_of(model, data, 0, 0)
    found, table = find_correspondences(*pair), correlate(*pair).flatten(1)

    def check(page, side, location):
        places = found.gallery_location if side == "query" else found.query_location
        best = table.max(dim=1 if side == "query" else 0).values[location]
        text = chosen_text(page)
        assert text.startswith(f"{name_of(location).capitalize()} of the {side}")
        assert f"{name_of(int(places[location]))}, local similarity {best:.2f}" in text
        assert page.locator(".explorer-lines .explorer-chosen").count() == 1
        selected = page.locator('[role="gridcell"][aria-selected="true"]')
        assert selected.count() == 1
        assert selected.get_attribute("aria-label").startswith(name_of(location))
        return int(places[location])

    page = open_page()
    assert chosen_text(page).startswith("None yet")
    page.locator(CELLS.format("gallery")).nth(6).hover()
    check(page, "gallery", 6)
    page.mouse.move(2, 2)
    assert chosen_text(page).startswith("None yet")

    page.locator(CELLS.format("query")).nth(0).focus()
    check(page, "query", 0)
    for key in "ArrowDown ArrowDown ArrowRight ArrowUp End ArrowRight ArrowLeft".split():
        page.keyboard.press(key)
    place = check(page, "query", 6)
    page.keyboard.press("Enter")
    check(page, "gallery", place)
    page.keyboard.press("Escape")
    assert chosen_text(page).startswith("None yet")
    page.keyboard.press("Shift+Tab")
    check(page, "query", 6)  # an image remembers where one was

    phone = open_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    phone.locator(CELLS.format("query")).nth(13).tap()
    check(phone, "query", 13)


def test_the_address_keeps_the_view(open_page):
    page = open_page()
    assert page.url == SITE + "explorer.html"
    page.locator('[name="explorer-query"]').nth(3).check()
    page.locator('[name="explorer-gallery"]').nth(1).check()
    page.locator('[name="explorer-lines"][value="gallery"]').check()
    page.locator("#explorer-above").fill("66")
    page.locator("#explorer-colour").select_option("similarity")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#explorer-copy").click()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url and "at=query-" in link, "a location is chosen, so that colours show"
    again = open_page("#" + link.partition("#")[2])
    for selector in ("#explorer-count", "#explorer-verdict", "#explorer-match"):
        assert again.inner_text(selector) == page.inner_text(selector)
    odd = open_page("#query=99&gallery=x&lines=none&at=query-500&above=-3")
    assert odd.inner_text("#explorer-count") == open_page().inner_text("#explorer-count")


def test_guessing_counts_both_scores_and_hides_the_answer(open_page, model, data):
    page = open_page()
    same = {
        (query["image"], one["image"]): (one["same"], number, place)
        for number, query in enumerate(data["queries"])
        for place, one in enumerate(query["gallery"])
    }
    page.locator("#explorer-quiz").click()
    you = models = 0
    for turn in range(1, 6):
        assert page.locator(".explorer-lines").is_hidden()
        assert page.locator('[data-choice="gallery"]').is_hidden()
        images = page.locator(".explorer-picture img").evaluate_all(
            "images => images.map(image => image.src.split('/').pop())"
        )
        truth, number, place = same[tuple(images)]
        assert "person" not in page.locator(".explorer-picture img").nth(1).get_attribute("alt")
        page.locator("#explorer-same").press("Enter")
        similarity = score_parts(model, *maps_of(model, data, number, place))[-1]
        you, models = you + truth, models + ((similarity > 0.5) == truth)
        result = page.inner_text("#explorer-result")
        assert f"You {you} of {turn}, the model {models} of {turn}." in result
        assert page.locator(".explorer-lines").is_visible()
        page.keyboard.press("Enter")  # the next pair has the focus
    page.locator("#explorer-quiz").click()
    assert page.locator('[data-choice="gallery"]').is_visible()


def test_without_javascript_there_is_a_figure_and_with_it_one_to_save(open_page, tmp_path):
    still = open_page(java_script_enabled=False).locator(".explorer-still img")
    assert still.is_visible() and still.get_attribute("alt")
    page = open_page()
    with page.expect_download() as download:
        page.locator("#explorer-save").click()
    download.value.save_as(tmp_path / "saved.png")
    image = np.asarray(Image.open(tmp_path / "saved.png").convert("RGB"))
    assert image.shape == (860, 1200, 3)
    assert (image[:800, :400].std(), image[:800, 800:].std()) > (10, 10), "both images are there"
    assert len(np.unique(image[:800, 410:790].reshape(-1, 3), axis=0)) > 3, "so are the lines"

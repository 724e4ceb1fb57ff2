"""The demo: its answers are the library's, and it takes and keeps no more than it says."""

import base64
import io
import os
import re
import shutil
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from qaconv_lib.cli import main
from qaconv_lib.datasets import load_dataset
from qaconv_lib.photographs import demo
from qaconv_lib.photographs.calibration import Calibration
from qaconv_lib.photographs.demo import MAX_FILES, MAX_MEGABYTES, Answers
from qaconv_lib.photographs.gallery import search_gallery
from qaconv_lib.photographs.matching import Knowledge, match_photographs

KNOWN = Knowledge("here", "here", Calibration(2.0, 3.0), {0.01: -0.5})


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A query and six images of a gallery, as file names."""
    folder = tmp_path_factory.mktemp("people")
    data = load_dataset("mini-market")
    query = shutil.copy(data.query["path"].iloc[0], folder / "query.jpg")
    names = [folder / f"walk {number}.jpg" for number in range(6)]
    gallery = [shutil.copy(*pair) for pair in zip(data.gallery["path"], names, strict=False)]
    return str(query), [str(path) for path in gallery]


@pytest.fixture(scope="module")
def answers(model):
    return Answers(model, KNOWN)


def image(answer):
    (data,) = re.findall(r'<img src="data:image/png;base64,([^"]+)"', answer)
    return Image.open(io.BytesIO(base64.b64decode(data)))


def saved(answer):
    (data,) = re.findall(r'href="data:text/csv;base64,([^"]+)"', answer)
    return pd.read_csv(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("lines", ["mutual", "query", "gallery"])
def test_a_comparison_is_the_librarys(answers, model, people, lines):
    pair = people[0], people[1][0]
    answer = answers.compare(pair, 0.25, lines)
    found = match_photographs(model, *pair)
    assert f"<p>Similarity: {found.similarity:.2f}</p>" in answer
    stated = float(re.search(r"Probability: ([\d.]+) %", answer)[1])
    expected = float(KNOWN.calibration.probability(found.score))
    assert stated == pytest.approx(100 * expected, rel=0.06)
    verdict = "above" if found.score >= -0.5 else "below"
    assert f"Decision: {verdict} the threshold that 1 %" in answer
    assert image(answer).width > 400
    assert 'alt="Two images side by side' in answer and "a cosine above 0.25" in answer


def test_a_ranking_is_the_librarys(answers, model, people):
    query, gallery = people
    answer = answers.rank([query], gallery)
    expected = search_gallery(model, [query], gallery, calibration=KNOWN.calibration)
    found = saved(answer)
    assert list(found["image"]) == [Path(path).name for path in expected["image"]]
    for column in ("similarity", "probability"):
        assert found[column].to_numpy() == pytest.approx(expected[column].to_numpy(), rel=1e-5)
    first = re.search(r"<tbody>\s*<tr>(.*?)</tr>", answer, re.S)[1]
    assert f"<td>{found['image'][0]}</td>" in first
    assert image(answer).width > 900 and "probability of 14 % to show the person" in answer  # 1 / 7


def test_what_is_not_taken_is_said(answers, people, tmp_path):
    query, gallery = people
    (tmp_path / "me.jpg").write_text("text")
    text = str(tmp_path / "me.jpg")
    for ask, arguments, sentence in (
        (answers.compare, ([query],), "two images are needed"),
        (answers.compare, ([query, text],), "me.jpg is not an image"),
        (answers.compare, ([query, query], 1.0), "threshold must lie"),
        (answers.rank, ([], [query]), "a query is needed"),
        (answers.rank, ([query], []), "a gallery is needed"),
        (answers.rank, ([query], [query]), "contains only the query"),
        (answers.rank, ([query], [query] * (MAX_FILES + 1)), "at most 200 images"),
        (answers.rank, ([query], [gallery[0], text]), "me.jpg is not an image"),
    ):
        with pytest.raises(ValueError, match=sentence):
            ask(*arguments)


def test_names_are_text_and_not_part_of_the_page(answers, people, tmp_path):
    name = shutil.copy(people[1][0], tmp_path / "<img src=x onerror=alert(1)>.jpg")
    answer = answers.rank([people[0]], [str(name)])
    assert "<img src=x" not in answer and "&lt;img src=x onerror=alert(1)&gt;.jpg" in answer


GRADIO = ("GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY", "GRADIO_TEMP_DIR")  # `launch` sets them


class Page:
    def block_thread(self):
        """Return at once."""


def test_the_command_says_where_the_page_is(capsys, monkeypatch):
    asked = []

    def launch(answers, *place):
        asked.append((answers, *place))
        return Page(), "http://there/"

    monkeypatch.setattr(demo, "launch", launch)
    assert main(["demo"]) == 0
    said = capsys.readouterr().out
    assert "http://there/" in said and "password" not in said
    _, folder, *place = asked[0]
    assert place == ["127.0.0.1", 7860]
    assert not os.path.exists(folder), "uploads go with the demo"
    assert main(["demo", "--host", "192.0.2.1"]) == 0
    assert "without a password" in capsys.readouterr().out


def test_without_gradio_the_way_to_it_is_named(capsys, monkeypatch):
    for name in GRADIO:
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo"]) == 2
    assert 'the demo needs Gradio: pip install -e ".[demo]"' in capsys.readouterr().err


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """The demo of the small model: its address, and the folder of uploads."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    with pytest.MonkeyPatch.context() as patch:
        for name in GRADIO:
            patch.setenv(name, "")
        folder = tmp_path_factory.mktemp("uploads")
        page, address = demo.launch(Answers(model, KNOWN), str(folder), "127.0.0.1", 0)
        yield address, folder
        page.close()


@pytest.mark.slow
def test_places_that_cannot_be_listened_at(capsys, monkeypatch):
    pytest.importorskip("gradio", reason="gradio is not installed")
    for name in GRADIO:
        monkeypatch.setenv(name, "")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for place in (["--port", port], ["--host", "256.0.0.1"]):
            assert main(["demo", *place]) == 2
            assert "cannot listen at" in capsys.readouterr().err


def test_other_files_are_not_served(served, people):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError, match="403"):
        opener.open(f"{served[0]}gradio_api/file={people[0]}")


@pytest.fixture
def page(served, browser):
    """The page in a browser; a request to elsewhere fails the test."""
    page, asked = browser.new_page(), []
    page.set_default_timeout(120_000)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served[0])
    page.get_by_role("button", name="Compare").wait_for()
    yield page
    page.close()
    assert not [url for url in asked if not url.startswith((served[0], "data:", "blob:"))]


def choose(page, place, *paths):
    """Put files into an input, and wait until they are uploaded."""
    with page.expect_response(lambda answer: "/upload?" in answer.url):
        page.locator(f"#{place} input[type=file]").set_input_files([str(path) for path in paths])


@pytest.mark.browser
def test_two_images_are_compared_on_the_page(page, model, people):
    choose(page, "pair-query", people[0])
    choose(page, "pair-gallery", people[1][0])
    page.get_by_label("gallery", exact=True).check()
    page.get_by_role("button", name="Compare").click()
    similarity = match_photographs(model, people[0], people[1][0]).similarity
    page.get_by_text(f"Similarity: {similarity:.2f}").wait_for()


@pytest.mark.browser
def test_a_gallery_is_ranked_on_the_page(page, answers, people):
    page.get_by_role("tab", name="A gallery").click()
    choose(page, "search-query", people[0])
    choose(page, "search-gallery", *people[1])
    page.get_by_role("button", name="Search").click()
    with page.expect_download() as download:
        page.get_by_text("Save 6 rows as CSV").click()
    expected = saved(answers.rank([people[0]], people[1]))
    assert pd.read_csv(download.value.path())["similarity"].to_numpy() == pytest.approx(
        expected["similarity"].to_numpy(), abs=1e-4
    )


@pytest.mark.browser
def test_what_is_not_taken_is_said_on_the_page(page, people, tmp_path):
    text, large = tmp_path / "me & you.jpg", tmp_path / "large.png"
    text.write_text("text")
    large.write_bytes(bytes((MAX_MEGABYTES << 20) + 1))
    choose(page, "pair-query", people[0])
    choose(page, "pair-gallery", text)
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("me & you.jpg is not an image", exact=False).wait_for()
    page.get_by_role("tab", name="A gallery").click()
    page.locator("#search-gallery input[type=file]").set_input_files([str(large)])
    page.get_by_text(re.compile("maximum allowed size")).first.wait_for()

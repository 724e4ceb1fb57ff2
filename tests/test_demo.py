"""The demo: its answers are the library's, and it takes and keeps no more than it says."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from PIL import Image

from qaconv_lib.__main__ import main, make_parser
from qaconv_lib.datasets import load_dataset
from qaconv_lib.models import save_model
from qaconv_lib.photographs import demo, demo_uploads
from qaconv_lib.photographs import matching as photographs
from qaconv_lib.photographs.calibration import Calibration
from qaconv_lib.photographs.demo_answers import Answers
from qaconv_lib.photographs.demo_uploads import MAX_BYTES, MAX_FILES, Upload, example_pictures
from qaconv_lib.photographs.files import read_times
from qaconv_lib.photographs.matching import Knowledge, known_about, match_photographs, open_model
from qaconv_lib.photographs.own_gallery import search_gallery
from qaconv_lib.visualize import finish

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
KNOWN = Knowledge("here", "here", Calibration(2.0, 3.0), {0.01: -0.5})
WAIT = 120_000  # milliseconds, for machines that do other things too


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A query and six pictures of a gallery."""
    folder = tmp_path_factory.mktemp("people")
    data = load_dataset("mini-market")
    (folder / "gallery").mkdir()
    shutil.copy(data.query["path"].iloc[0], folder / "query.jpg")
    for number, path in enumerate(data.gallery["path"][:6]):
        shutil.copy(path, folder / "gallery" / f"walk {number} (b).jpg")
    return folder


@pytest.fixture(scope="module")
def gallery(people):
    return sorted((people / "gallery").iterdir())


@pytest.fixture(scope="module")
def answers(model):
    return Answers(model, KNOWN)


def upload(path, name=None):
    return Upload(str(path), name or Path(path).name)


def facts(answer):
    return re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", answer)


def picture(answer):
    (data,) = re.findall(r'<img src="data:image/png;base64,([^"]+)"', answer)
    return Image.open(io.BytesIO(base64.b64decode(data)))


def saved(answer):
    (data,) = re.findall(r'href="data:text/csv;base64,([^"]+)"', answer)
    return pd.read_csv(io.BytesIO(base64.b64decode(data)))


# ---------------------------------------------------------------------------------- the answers


def test_a_comparison_is_the_librarys(answers, model, people, gallery):
    answer = answers.compare(upload(people / "query.jpg"), upload(gallery[0]))
    found = match_photographs(model, people / "query.jpg", gallery[0])
    said = dict(facts(answer))
    assert said["similarity"] == f"{found.similarity:.2f}"
    stated = float(KNOWN.calibration.probability(found.score))
    assert float(said["probability"].split(" %")[0]) == pytest.approx(100 * stated, rel=0.06)
    assert said["decision"].split()[0] == ("above" if found.score >= -0.5 else "below")
    assert picture(answer).width > 400
    assert f'alt="Two pictures side by side, similarity {found.similarity:.2f}' in answer


@pytest.mark.parametrize(
    "direction, side, mutual",
    [("mutual", "query", True), ("query", "query", False), ("gallery", "gallery", False)],
)
def test_lines_start_from_the_side_that_is_chosen(
    answers, people, gallery, monkeypatch, direction, side, mutual
):
    drawn = []

    def draw(*arguments, **settings):
        drawn.append(settings)
        return finish(plt.figure(figsize=(1, 1)), "lines")

    monkeypatch.setattr(photographs, "show_correspondences", draw)
    answers.compare(upload(people / "query.jpg"), upload(gallery[0]), 0.25, direction)
    (settings,) = drawn
    assert (settings["side"], settings["mutual"]) == (side, mutual)
    assert settings["threshold"] == 0.25 * answers.model.config.kernel_size**2


def test_a_ranking_is_the_librarys(answers, model, people, gallery):
    answer = answers.rank(upload(people / "query.jpg"), [upload(path) for path in gallery])
    expected = search_gallery(model, [people / "query.jpg"], gallery, calibration=KNOWN.calibration)
    found = saved(answer)
    assert list(found["image"]) == [Path(path).name for path in expected["image"]]
    for column in ("similarity", "probability", "rank_score"):
        assert found[column].to_numpy() == pytest.approx(expected[column].to_numpy(), rel=1e-5)
    first = re.search(r"<tbody>\s*<tr>(.*?)</tr>", answer, re.S).group(1)
    assert f"<td>{found['image'][0]}</td>" in first
    assert f"<td>{found['similarity'][0]:.2f}</td>" in first
    assert picture(answer).width > 900
    assert "probability of 14 % to show the person" in answer  # 1 / 7


def test_a_folder_is_searched_where_nothing_is_uploaded(model, people, gallery, tmp_path):
    found = Answers(model, KNOWN, gallery=gallery, folder=people, store=tmp_path / "maps")
    own = found.rank(upload(people / "query.jpg"))
    ranks = saved(own)
    assert set(ranks["image"]) == {f"gallery/{path.name}" for path in gallery}
    assert (tmp_path / "maps").is_dir()
    assert saved(found.rank(upload(people / "query.jpg"))).equals(ranks)
    other = found.rank(upload(people / "query.jpg"), [upload(gallery[0])])
    assert list(saved(other)["image"]) == [gallery[0].name]


def test_times_name_files_as_their_owner_does(answers, model, people, gallery, tmp_path):
    """Gradio strips brackets from names, and a browser folders; the CSV has both."""
    stored = [shutil.copy(path, tmp_path / f"{n}.jpg") for n, path in enumerate(gallery)]
    rows = ["query.jpg,door,5", *(f"b/{path.name},hall,{n * 40}" for n, path in enumerate(gallery))]
    csv = tmp_path / "times.csv"
    csv.write_text("file,camera,seconds\n" + "\n".join(rows))
    uploads = [upload(path, original.name) for path, original in zip(stored, gallery, strict=True)]
    answer = answers.rank(upload(people / "query.jpg"), uploads[1:], upload(csv), uploads[:1])

    plain = tmp_path / "plain.csv"
    plain.write_text(csv.read_text().replace("b/", ""))
    expected = search_gallery(
        model, [people / "query.jpg", gallery[0]], gallery[1:], times=read_times(plain)
    )
    expected = expected[expected["query"] == str(people / "query.jpg")]
    found = saved(answer)
    assert list(found["image"]) == [Path(path).name for path in expected["image"]]
    assert found["rank_score"].to_numpy() == pytest.approx(
        expected["rank_score"].to_numpy(), abs=1e-4
    )
    assert list(found["camera"].unique()) == ["hall"] and "score with times" in answer
    assert "add other people" not in answer
    assert "add other people" in answers.rank(upload(people / "query.jpg"), uploads, upload(csv))

    csv.write_text("\n".join(["file,camera,seconds", *rows, "c/query.jpg,hall,7"]))
    with pytest.raises(ValueError, match=r"times.csv names query.jpg in several folders"):
        answers.rank(upload(people / "query.jpg"), uploads, upload(csv))


def test_files_that_are_not_taken(answers, people, gallery, tmp_path, monkeypatch):
    text = tmp_path / "kept as 0.jpg"
    text.write_text("no picture")
    query = upload(people / "query.jpg")

    def refused(*uploads, **more):
        with pytest.raises(ValueError) as error:
            answers.compare(*uploads, **more)
        return str(error.value)

    assert refused(query, None).startswith("two pictures are needed")
    assert refused(query, upload(text, "me.jpg")).startswith("me.jpg is no image, or of a kind")
    assert refused(query, upload(people / "query.jpg", "me.txt")).startswith("me.txt is no image;")
    assert refused(query, upload(tmp_path / "0.png", "me.png")).startswith("me.png is no longer")
    assert "direction must be one of mutual" in refused(query, query, direction="up")
    assert "threshold" in refused(query, query, threshold=1.0)
    monkeypatch.setattr(demo_uploads, "MAX_BYTES", 100)
    assert refused(query, query) == "query.jpg is larger than 0 MB"
    monkeypatch.undo()

    for arguments, sentence in (
        ((None, [query]), "a query is needed"),
        ((query,), "a gallery is needed"),
        ((query, [query]), "the gallery holds nothing but the query"),
        ((query, [query] * (MAX_FILES + 1)), f"201 files are too many; {MAX_FILES} can be"),
        ((query, [upload(gallery[0]), upload(text, "me.jpg")]), "me.jpg is no image"),
        ((query, [upload(gallery[0])], None, [query]), "count only with a CSV"),
        ((query, [upload(gallery[0])], upload(text, "t.csv")), "t.csv lacks the column"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)) as error:
            answers.rank(*arguments)
        assert str(tmp_path) not in str(error.value)


def test_names_are_text_and_not_part_of_the_page(answers, people, gallery):
    name = "<img src=x onerror=alert(1)>.jpg"
    answer = answers.rank(upload(people / "query.jpg"), [upload(gallery[0], name)])
    assert "<img src=x" not in answer and "&lt;img src=x onerror=alert(1)&gt;.jpg" in answer


def test_large_pictures_are_drawn_small(answers, people, tmp_path, monkeypatch):
    Image.new("RGB", (1500, 3000), "red").save(tmp_path / "large.png")
    seen = []
    show = photographs.show_correspondences

    def spy(*images, **more):
        seen.extend(image.size for image in images[:2])
        return show(*images, **more)

    monkeypatch.setattr(photographs, "show_correspondences", spy)
    answers.compare(upload(tmp_path / "large.png"), upload(people / "query.jpg"))
    assert seen[0] == (480, 960) and seen[1] == Image.open(people / "query.jpg").size


def test_the_examples_are_a_true_pair_and_one_that_deceives():
    examples = example_pictures()
    person, same, stranger = (
        int(Path(path).name[:4]) for path in (examples.query, examples.same, examples.stranger)
    )
    assert person == same != stranger
    assert len({Path(path).name[9:11] for path in examples[:3]}) == 3, "three cameras"
    model = open_model(device="cpu")
    threshold = known_about(model).thresholds[0.01]
    scores = [match_photographs(model, examples.query, path).score for path in examples[1:3]]
    assert scores[0] > scores[1] >= threshold
    assert {examples.same, examples.stranger} < set(examples.gallery)


# ---------------------------------------------------------------------------------- the command


def said_of(capsys, *arguments):
    assert main(["demo", *map(str, arguments)]) == 2
    return capsys.readouterr().err


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """`load_gradio` sets these."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, str(tmp_path))


def test_places_that_cannot_be_listened_at(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} is taken; name another with --port" in said_of(capsys, "--port", port)
    assert "port must be between 0 and 65535" in said_of(capsys, "--port", 70_000)
    assert "cannot listen at 256.0.0.1, port 0: " in said_of(
        capsys, "--host", "256.0.0.1", "--port", 0
    )


def test_without_gradio_the_way_to_it_is_named(capsys, monkeypatch, environment):
    monkeypatch.setitem(sys.modules, "gradio", None)
    said = said_of(capsys, "--port", 0)
    assert 'the demo needs Gradio: pip install -e ".[demo]"' in said
    assert "Traceback" not in said and said.count("\n") == 1


@pytest.fixture
def without_gradio(monkeypatch):
    """The command as if Gradio were there; the server ends at once."""
    made = []

    class Server:
        def run(self, sockets):
            made[-1]["folder"].mkdir(exist_ok=True)
            raise KeyboardInterrupt

    def make_server(gr, answers, *, local, on_stop):
        made.append({"answers": answers, "local": local, "folder": answers.store.parent})
        return Server()

    monkeypatch.setattr(demo, "load_gradio", lambda folder: None)
    monkeypatch.setattr(demo, "make_server", make_server)
    return made


def test_a_model_and_a_gallery_that_are_none(capsys, without_gradio, tmp_path, people):
    assert "no images in" in said_of(capsys, "--port", 0, "--gallery", tmp_path)
    assert "there is no folder" in said_of(capsys, "--port", 0, "--gallery", tmp_path / "none")
    (tmp_path / "model.safetensors").write_text("no model")
    assert "model.safetensors" in said_of(
        capsys, "--port", 0, "--model", tmp_path / "model.safetensors"
    )
    (tmp_path / "text.jpg").write_text("no picture")
    assert "text.jpg is no image" in said_of(capsys, "--port", 0, "--gallery", tmp_path)
    assert "prior must lie" in said_of(capsys, "--port", 0, "--prior", 1)
    assert not without_gradio


def test_the_command_says_where_the_page_is(capsys, without_gradio, model, people, tmp_path):
    save_model(tmp_path / "own.safetensors", model)
    command = ["--model", str(tmp_path / "own.safetensors"), "--gallery", str(people / "gallery")]
    assert main(["demo", "--port", "0", *command]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^demo +http://127\.0\.0\.1:\d+ \(stop it with Ctrl\+C\)$", said, re.M)
    assert "is not on record" in said and "password" not in said
    made = without_gradio[0]
    assert made["local"] and len(made["answers"].gallery) == 6 and not made["answers"].shipped
    assert not made["folder"].exists(), "uploads go with the demo"


def test_a_page_for_others_is_warned_of(capsys, without_gradio, monkeypatch):
    class Place:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def getsockname(self):
            return "192.0.2.1", 7860

    monkeypatch.setattr(demo, "_listen", lambda host, port: Place())
    assert main(["demo", "--host", "192.0.2.1"]) == 0
    said = capsys.readouterr().out
    assert "http://192.0.2.1:7860" in said and "asks for no password" in said
    assert "trained on drawn people" in said
    assert not without_gradio[0]["local"] and without_gradio[0]["answers"].shipped


def test_only_this_machine_is_answered_by_default():
    options = make_parser().parse_args(["demo"])
    assert (options.host, options.port, options.gallery) == ("127.0.0.1", demo.PORT, None)


# ----------------------------------------------------------------------------------- the server


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """The demo of the small model: its address, and the folder of uploads."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    patch = pytest.MonkeyPatch()
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY", "GRADIO_TEMP_DIR"):
        patch.setenv(name, "")
    folder = tmp_path_factory.mktemp("uploads")
    stopped = []

    def left():
        return sorted(path.name for path in folder.rglob("*") if path.is_file())

    gr = demo.load_gradio(folder)
    server = demo.make_server(gr, Answers(model, KNOWN), on_stop=lambda: stopped.append(left()))
    place = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.05)
    yield f"http://127.0.0.1:{place.getsockname()[1]}", folder
    server.should_exit = True
    thread.join()
    place.close()
    patch.undo()
    examples = example_pictures()
    drawn = {examples.query, examples.same, examples.stranger, *examples.gallery}
    (files,) = stopped
    assert files == sorted(Path(path).name for path in drawn), "of all files only the examples"


def fetch(address, data=None, **headers):
    """Status, headers and body of an answer."""
    request = urllib.request.Request(address, data, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=120) as answer:
            return answer.status, dict(answer.headers), answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def send(address, name, content):
    """Upload a file as the page does; the path it got, or None with the status."""
    lines = (
        b"--line",
        b'Content-Disposition: form-data; name="files"; filename="' + name.encode() + b'"',
        b"Content-Type: application/octet-stream",
        b"",
        content,
        b"--line--",
        b"",
    )
    kind = "multipart/form-data; boundary=line"
    status, _, text = fetch(
        f"{address}/gradio_api/upload", b"\r\n".join(lines), **{"Content-Type": kind}
    )
    return status, (json.loads(text)[0] if status == 200 else text)


def test_the_page_is_told_to_keep_to_itself(served):
    status, headers, page = fetch(served[0])
    assert status == 200
    policy = {key.lower(): value for key, value in headers.items()}["content-security-policy"]
    assert policy.startswith("default-src 'self';") and "http" not in policy
    assert not re.findall(r"<(?:script|link)[^>]*(?:src|href)=\"https?:", page)
    config = json.loads(fetch(f"{served[0]}/config")[2])
    assert config["analytics_enabled"] is False and config.get("run_history") is not True
    css = fetch(f"{served[0]}/theme.css")[2]
    assert "http" not in css.replace("http://www.w3.org", "")


def test_other_names_and_other_files_are_refused(served, people):
    address, folder = served
    assert fetch(address, Host="evil.example")[0] == 400
    assert fetch(f"{address}/gradio_api/file={people / 'query.jpg'}")[0] == 403
    assert fetch(f"{address}/gradio_api/file={Path(demo.__file__)}")[0] == 403
    status, path = send(address, "query.jpg", (people / "query.jpg").read_bytes())
    assert status == 200 and Path(path).is_relative_to(folder)
    assert fetch(f"{address}/gradio_api/file={path}")[0] == 200


def test_uploads_are_bounded_and_kept_for_a_while(served):
    address, _ = served
    status, said = send(address, "large.png", bytes(MAX_BYTES + 1))
    assert status == 413 and "maximum" in said
    assert send(address, "fitting.png", bytes(MAX_BYTES))[0] == 200


def test_only_uploads_are_read(served, people, monkeypatch):
    page = pytest.importorskip("qaconv_lib.photographs.demo_page")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(served[1]))
    with pytest.raises(ValueError, match="only files that were uploaded"):
        page._upload({"path": str(people / "query.jpg")})
    with pytest.raises(ValueError, match="only files that were uploaded"):
        page._upload({"path": str(served[1] / ".." / "query.jpg"), "orig_name": "a.jpg"})
    inside = {"path": str(served[1] / "a.jpg"), "orig_name": "../b (1).jpg"}
    assert page._upload(inside) == Upload(str((served[1] / "a.jpg").resolve()), "b (1).jpg")


# ---------------------------------------------------------------------------------- the browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, timeout=WAIT)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, served):
    """Opens the page; a complaint of the browser or a request to elsewhere fails the test."""
    contexts, complaints = [], []

    def heard(message):
        # Gradio asks for the progress of a file that is up already; 5 calls that "Response".
        late = "/upload_progress?" in message.location.get("url", "") or message.text == "Response"
        if message.type == "error" and not late:
            complaints.append(message.text)

    def asked(request):
        if not request.url.startswith((served[0], "data:", "blob:")):
            complaints.append(request.url)

    def open_(**settings):
        context = browser.new_context(viewport={"width": 360, "height": 740}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", asked)
        page.goto(served[0])
        page.get_by_role("button", name="Compare").wait_for()
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not complaints


def choose(page, place, *paths):
    """Put files where files are wanted, and wait until they are up."""
    with page.expect_response(lambda answer: "/upload?" in answer.url):
        page.locator(f"#{place} input[type=file]").set_input_files([str(path) for path in paths])


def test_two_pictures_are_compared_on_the_page(open_page, answers, people, gallery):
    page = open_page()
    choose(page, "pair-query", people / "query.jpg")
    choose(page, "pair-gallery", gallery[0])
    page.get_by_label("gallery → query").check()
    page.get_by_role("button", name="Compare").click()
    page.locator(".facts").wait_for()
    shown = page.locator(".facts dd").all_inner_texts()
    pair = upload(people / "query.jpg"), upload(gallery[0])
    assert shown == [text for _, text in facts(answers.compare(*pair, direction="gallery"))]
    loaded = "image => image.complete && image.naturalWidth > 400 && image.alt.length > 20"
    assert page.locator(".picture img").evaluate(loaded)
    for width in (360, 768, 1440):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_gallery_is_ranked_on_the_page(open_page, answers, people, gallery):
    page = open_page(color_scheme="dark")
    page.get_by_role("tab", name="A gallery").click()
    choose(page, "search-query", people / "query.jpg")
    choose(page, "search-gallery", *gallery)
    page.get_by_role("button", name="Search").click()
    page.locator(".ranks").wait_for()
    expected = saved(answers.rank(upload(people / "query.jpg"), [upload(p) for p in gallery]))
    first = page.locator(".ranks tbody tr").first.locator("td").all_inner_texts()
    row = expected.iloc[0]
    assert first[:3] == ["1", row["image"], f"{row['similarity']:.2f}"]
    with page.expect_download() as download:
        page.get_by_text("Save 6 rows as CSV").click()
    assert download.value.suggested_filename == "ranks.csv"
    assert pd.read_csv(download.value.path()).equals(expected)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_what_is_not_taken_is_said_on_the_page(open_page, people, tmp_path):
    page = open_page()
    text, large = tmp_path / "me & you.jpg", tmp_path / "large.png"
    text.write_text("no picture")
    large.write_bytes(bytes(MAX_BYTES + 1))
    choose(page, "pair-query", people / "query.jpg")
    choose(page, "pair-gallery", text)
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("me & you.jpg is no image, or of a kind that cannot be read").wait_for()
    page.get_by_role("tab", name="A gallery").click()
    page.locator("#search-gallery input[type=file]").set_input_files([str(large)])
    page.get_by_text(re.compile("exceed.* the maximum allowed size of 10.*large.png")).wait_for()
    page.get_by_role("button", name="Search").click()
    page.get_by_text("a query is needed: a picture of the person to look for").wait_for()
    assert page.locator(".facts, .ranks").count() == 0

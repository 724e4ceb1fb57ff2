"""The demo: a page in the browser that compares images or searches a gallery (appendix B)."""

from __future__ import annotations

import base64
import html
import io
import os
import re
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qaconv_lib.datasets import load_dataset
from qaconv_lib.models import ReidModel
from qaconv_lib.photographs import matching
from qaconv_lib.photographs.files import ENDINGS
from qaconv_lib.photographs.gallery import gallery_prior, search_gallery
from qaconv_lib.photographs.results import draw_list

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_MEGABYTES, MAX_FILES, KEPT_MINUTES = 10, 200, 10
_SHOWN = 10  # images drawn
#: Drawn people of mini-msmt17: a query, the same person, a stranger whom the model that comes with
#: the book takes for them at the threshold of 1 %, and the rest of a gallery.
_EXAMPLES = """0011_001_04_0302afternoon_0004_1 0011_003_05_0302afternoon_0003_0
0176_001_03_0113noon_0003_1 0078_006_15_0113morning_0001_0 0011_007_06_0302afternoon_0002_2
0132_009_13_0302morning_0003_1 0087_002_08_0302afternoon_0003_2 0081_003_05_0302morning_0003_0"""
_INTRODUCTION = f"""# Do two images show one person?
QAConv finds the best match of each location in the other image. An image should show one person,
cropped from the frame. Uploads stay on the computer that runs this demo and are deleted after
{KEPT_MINUTES} minutes. Use only images of people who agreed to it. Nobody may face consequences
because of a score: [ethics and law](https://github.com/qaconv-book/qaconv-book/blob/main/book/ethics.md).

"""


class Answers(NamedTuple):
    """Answers to what the page asks."""

    model: ReidModel
    known: matching.Knowledge
    prior: float | None = None  # None: 0.5 for two images, and `gallery_prior`

    def compare(self, pair: Sequence[str], threshold: float = 0.6, lines: str = "mutual") -> str:
        """How two image files match, as HTML; `lines` is "mutual", "query" or "gallery"."""
        if len(pair) < 2:
            raise ValueError("two images are needed: the query, and the one to compare it with")
        found = matching.match_photographs(self.model, *pair)
        side = "gallery" if lines == "gallery" else "query"
        figure = found.show(threshold=threshold, side=side, mutual=lines == "mutual")
        facts = matching.describe_match(found, self.known, self.prior or 0.5)
        said = [f"{name}: {text}" for name, text in facts]
        return _text(said) + _image(figure) + _text(matching.remarks(self.known, pair))

    def rank(self, query: Sequence[str], gallery: Sequence[str]) -> str:
        """The image files of a gallery, best first, as HTML with a table that can be saved."""
        if not query:
            raise ValueError("a query is needed: an image of the person to look for")
        if not gallery:
            raise ValueError("a gallery is needed: the images to look among")
        if len(gallery) > MAX_FILES:
            raise ValueError(f"at most {MAX_FILES} images can be searched, got {len(gallery):,}")
        prior = gallery_prior(len(gallery)) if self.prior is None else self.prior
        more: dict[str, Any] = {"calibration": self.known.calibration, "prior": prior}
        found = search_gallery(self.model, query, gallery, **more)
        found = found.drop(columns=["query", "rank_score"])
        figure = draw_list(query[0], found.head(_SHOWN))
        found["image"] = found["image"].map(os.path.basename)
        csv = found.to_csv(index=False, float_format="%.6g").encode("utf-8", "backslashreplace")
        link = f"data:text/csv;base64,{base64.b64encode(csv).decode()}"
        link = f'<a download="ranks.csv" href="{link}">Save {len(found):,} rows as CSV</a>'
        written = {"similarity": "{:.2f}".format, "probability": matching.percent}
        table = found.head(_SHOWN).to_html(index=False, border=0, formatters=written)
        notes = matching.remarks(self.known, [*query, *gallery], prior)
        return _image(figure) + table + link + _text(notes)


def example_images() -> list[str]:
    """Files of drawn people to try the page with; none if the miniature is not there."""
    try:
        data = load_dataset("mini-msmt17")
    except FileNotFoundError:
        return []
    paths = {Path(path).stem: path for path in [*data.query["path"], *data.gallery["path"]]}
    return [paths[name] for name in _EXAMPLES.split()]


def _text(lines: Sequence[str]) -> str:
    return "".join(f"<p>{html.escape(_named(line[0].upper() + line[1:]))}</p>" for line in lines)


def _named(text: str) -> str:
    """A text without the folders of uploads."""
    folder = re.escape(os.environ.get("GRADIO_TEMP_DIR", "\0"))
    return re.sub(rf"{folder}[\\/]\w+[\\/]", "", text)


def _image(figure: Figure) -> str:
    """A figure as an `img` with its description; it is closed."""
    import matplotlib.pyplot as plt

    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, bbox_inches="tight")
    plt.close(figure)
    data, alt = base64.b64encode(stream.getvalue()).decode(), html.escape(str(figure.get_label()))
    return f'<img src="data:image/png;base64,{data}" alt="{alt}" style="max-width: 100%">'


def build_page(gr: Any, answers: Answers) -> Any:
    """The page as `gradio.Blocks`; `gr` is Gradio."""

    def paths_of(*uploads: dict[str, Any] | None) -> list[str]:
        paths = [os.path.realpath(str(upload["path"])) for upload in uploads if upload]
        folder = os.path.realpath(os.environ["GRADIO_TEMP_DIR"])
        if not all(Path(path).is_relative_to(folder) for path in paths):
            raise ValueError("only files that were uploaded can be read")
        return paths

    def image(label: str, name: str) -> Any:
        return gr.Image(label=label, sources=["upload"], type="filepath", height=260, elem_id=name)

    def ask(text: str, function: Callable[..., str], inputs: list[Any]) -> None:
        """A button and its answer. One question at a time; files are handed over unopened."""

        def answer(*values: Any) -> str:
            try:
                return function(*values)
            except (ValueError, OSError, ArithmeticError, MemoryError) as error:
                sentence = html.escape(_named(str(error) or "out of memory"), quote=False)
                raise gr.Error(sentence, duration=None, print_exception=False) from error

        queue = {"concurrency_limit": 1, "concurrency_id": "model"}
        button, result = gr.Button(text, variant="primary"), gr.HTML()
        button.click(answer, inputs, result, preprocess=False, **queue)

    examples = example_images()
    delete = 60, 60 * KEPT_MINUTES  # seconds: how often, and from what age
    with gr.Blocks(title="QAConv", analytics_enabled=False, delete_cache=delete) as page:
        gr.Markdown(_INTRODUCTION + answers.known.warning)
        with gr.Tab("Two images"):
            with gr.Row():
                pair = [image("Query", "pair-query"), image("Gallery image", "pair-gallery")]
            if examples:
                gr.Examples([[examples[0], other] for other in examples[1:3]], pair)
            threshold = gr.Slider(0, 0.95, 0.6, step=0.05, label="Least cosine of a line")
            lines = gr.Radio(["mutual", "query", "gallery"], value="mutual", label="Lines from")
            ask(
                "Compare",
                lambda one, other, *more: answers.compare(paths_of(one, other), *more),
                [*pair, threshold, lines],
            )
        with gr.Tab("A gallery"):
            label = f"Gallery, up to {MAX_FILES} images"
            several = {"file_count": "multiple", "file_types": list(ENDINGS)}
            query = image("Query", "search-query")
            gallery = gr.File(label=label, elem_id="search-gallery", **several)
            if examples:
                gr.Examples([[examples[0], examples[1:]]], [query, gallery])
            ask(
                "Search",
                lambda one, files: answers.rank(paths_of(one), paths_of(*files or ())),
                [query, gallery],
            )
    return page


def launch(answers: Answers, folder: str, host: str, port: int) -> tuple[Any, str]:
    """Start the server with its files in `folder`; gives back the page and its address."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY"):
        os.environ[name] = "False"
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        import gradio
        import matplotlib
    except ImportError as error:
        raise ValueError('the demo needs Gradio: pip install -e ".[demo]"') from error
    matplotlib.use("Agg")  # figures are drawn in threads
    page = build_page(gradio, answers)
    most = f"{MAX_MEGABYTES}mb"
    settings = {"share": False, "ssr_mode": False, "quiet": True, "prevent_thread_lock": True}
    try:
        socket.getaddrinfo(host, port)  # Gradio waits for a host that does not exist
        found = page.launch(
            server_name=host, server_port=port or None, max_file_size=most, **settings
        )
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"cannot listen at {host}, port {port}; name another --host or --port (0 for any free)"
        ) from error
    return page, found[1]


def serve(answers: Answers, host: str, port: int) -> None:
    """Serve the page until it is stopped; all uploads are deleted then."""
    with tempfile.TemporaryDirectory(prefix="qaconv-demo-", ignore_cleanup_errors=True) as folder:
        page, address = launch(answers, folder, host, port)
        print(f"demo         {address} (stop it with Ctrl+C)")
        if host not in ("127.0.0.1", "localhost", "::1"):
            print("Note: anyone who can reach this port can use the demo without a password.")
        if answers.known.warning:
            print(f"Note: {answers.known.warning}", flush=True)
        page.block_thread()

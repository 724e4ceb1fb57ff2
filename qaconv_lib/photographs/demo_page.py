"""The page of the demo, made with Gradio (chapter 14)."""

from __future__ import annotations

import html
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qaconv_lib.photographs.demo_answers import Answers
from qaconv_lib.photographs.demo_uploads import (
    KEPT_MINUTES,
    MAX_BYTES,
    MAX_FILES,
    Examples,
    Upload,
    example_pictures,
)
from qaconv_lib.photographs.files import ENDINGS

_ETHICS = "https://github.com/qaconv-book/qaconv-book/blob/main/book/ethics.md"
_WAITING = 20  # questions in the queue
_LOOK = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 0.3rem 1rem; margin: 0; }
.facts dt { font-weight: 600; }
.facts dd { margin: 0; }
.picture { overflow-x: auto; margin: 0.8rem 0; padding: 0.5rem; background: white;
  border: 1px solid var(--border-color-primary); border-radius: 8px; }
.picture img { display: block; margin: 0 auto; max-width: 100%; height: auto; }
.picture.wide img { min-width: 44rem; }
.scroll { overflow-x: auto; }
.picture, .scroll { contain: inline-size; }  /* they scroll, not the page */
.prose table.ranks { width: auto; border: 0; border-collapse: collapse; }
.prose table.ranks :is(thead, tbody, tr, th, td) { border-width: 0 0 1px; white-space: nowrap;
  border-color: var(--border-color-primary); }
.prose table.ranks :is(th, td) { padding: 0.25rem 1.5rem 0.25rem 0; }
.note, .hint { margin: 0.6rem 0 0; font-size: 0.9rem; }
.save { display: inline-block; margin-top: 0.6rem; text-decoration: underline;
  color: var(--link-text-color); }
"""


def build_page(gr: Any, answers: Answers, *, local: bool = True) -> Any:
    """The page, as `gradio.Blocks`.

    Args:
        gr: Gradio, from `qaconv_lib.photographs.demo.load_gradio`.
        answers: what the page asks.
        local: only this machine can open the page; it says so.
    """
    examples = example_pictures()
    page = gr.Blocks(
        title="QAConv: do two pictures show one person?",
        analytics_enabled=False,
        delete_cache=(60, 60 * KEPT_MINUTES),
        **({} if look_is_served(gr) else look(gr)),
    )
    with page:
        gr.Markdown(_introduction(answers, local))
        with gr.Tab("Two pictures"):
            _add_pair(gr, answers, examples)
        with gr.Tab("A gallery"):
            _add_gallery(gr, answers, examples)
    return page.queue(default_concurrency_limit=1, max_size=_WAITING)


def _introduction(answers: Answers, local: bool) -> str:
    place = (
        "Nothing leaves this machine"
        if local
        else "Pictures go to the machine that runs this demo, and from there nowhere else"
    )
    return (
        "# Do two pictures show one person?\n"
        "QAConv looks for each place of one picture in the other. A picture here is a crop of one "
        f"person, in a file of at most {MAX_BYTES // 2**20} MB.\n\n"
        f"{place}. Uploads are deleted after {KEPT_MINUTES} minutes and when the demo is stopped. "
        "Use pictures of people who agreed to it, and take no measure against anybody on the "
        f"strength of a score: [ethics and law]({_ETHICS}).\n\n{answers.warning}"
    )


def _add_pair(gr: Any, answers: Answers, examples: Examples | None) -> None:
    with gr.Row():
        with gr.Column():
            with gr.Row():
                pictures = [
                    _picture_input(gr, "Query", "pair-query"),
                    _picture_input(gr, "Gallery picture", "pair-gallery"),
                ]
            threshold = gr.Slider(0, 0.95, 0.6, step=0.05, label="Least cosine of a line")
            direction = gr.Radio(
                [
                    ("best of both", "mutual"),
                    ("query → gallery", "query"),
                    ("gallery → query", "gallery"),
                ],
                value="mutual",
                label="Lines",
            )
            button = gr.Button("Compare", variant="primary")
            if examples is not None:
                pairs = {
                    "One person, two cameras": [examples.query, examples.same],
                    "Two people who look alike": [examples.query, examples.stranger],
                }
                _add_examples(gr, pairs, pictures)
        with gr.Column():
            result = gr.HTML(
                '<p class="hint">Choose two pictures and compare them.</p>', padding=False
            )

    def compare(query: Any, gallery: Any, least: float, lines: str) -> str:
        return answers.compare(_upload(query), _upload(gallery), least, lines)

    _on(gr, button.click, compare, [*pictures, threshold, direction], result)


def _add_gallery(gr: Any, answers: Answers, examples: Examples | None) -> None:
    label = f"Gallery, up to {MAX_FILES} pictures"
    if answers.gallery:
        place = f" of {answers.folder.resolve().name}" if answers.folder else ""
        label += f"; without any, the {len(answers.gallery):,}{place} are searched"
    with gr.Row():
        with gr.Column(scale=1):
            query = _picture_input(gr, "Query", "search-query")
        with gr.Column(scale=2):
            gallery = _files_input(gr, label, "search-gallery", 260)
    with gr.Accordion("Cameras and times (TLift)", open=False):
        gr.Markdown(
            "A CSV with the columns `file`, `camera` and `seconds` names all pictures, by their "
            "names without folders. TLift asks where those who walked near the query turn up, so "
            "add other people whom the query's camera saw."
        )
        with gr.Row():
            times = gr.File(
                label="CSV of cameras and times",
                file_types=[".csv"],
                height=140,
                elem_id="search-times",
            )
            others = _files_input(gr, "Other people of the query's camera", "search-others", 140)
    button = gr.Button("Search", variant="primary")
    if examples is not None:
        search = [examples.query, examples.gallery]
        label = f"One person among {len(examples.gallery)} pictures"
        _add_examples(gr, {label: search}, [query, gallery])
    result = gr.HTML('<p class="hint">Choose a query and a gallery, and search.</p>', padding=False)

    def rank(query: Any, gallery: Any, times: Any, others: Any) -> str:
        return answers.rank(_upload(query), _uploads(gallery), _upload(times), _uploads(others))

    _on(gr, button.click, rank, [query, gallery, times, others], result)


def _picture_input(gr: Any, label: str, name: str) -> Any:
    return gr.Image(label=label, sources=["upload"], type="filepath", height=260, elem_id=name)


def _files_input(gr: Any, label: str, name: str, height: int) -> Any:
    return gr.File(
        label=label,
        file_count="multiple",
        file_types=list(ENDINGS),
        height=height,
        elem_id=name,
    )


def _add_examples(gr: Any, examples: dict[str, list[Any]], inputs: list[Any]) -> None:
    """Buttons that fill in pictures; their files stay while uploads are deleted."""
    gr.Examples(
        list(examples.values()),
        inputs,
        example_labels=list(examples),
        label="Drawn people to try it with",
    )
    for component in inputs:
        component.keep_in_cache.update(component.temp_files)


def _on(gr: Any, event: Callable, function: Callable, inputs: list[Any], output: Any) -> None:
    """Ask when something happens, one question at a time; what is wrong is said in a sentence.

    Files come as they were uploaded: Gradio would open and convert them first.
    """

    def answer(*values: Any) -> str:
        try:
            return function(*values)
        except (ValueError, OSError, ArithmeticError, MemoryError) as error:
            sentence = html.escape(str(error) or "out of memory", quote=False)
            raise gr.Error(
                sentence, duration=None, title="No answer", print_exception=False
            ) from error

    event(
        answer,
        inputs,
        output,
        preprocess=False,
        concurrency_limit=1,
        concurrency_id="model",
    )


def _upload(value: dict[str, Any] | None) -> Upload | None:
    """What Gradio says of a file, once it lies where uploads lie."""

    if value is None:
        return None
    path = os.path.realpath(str(value["path"]))
    if not Path(path).is_relative_to(os.path.realpath(os.environ["GRADIO_TEMP_DIR"])):
        raise ValueError("only files that were uploaded can be read")
    return Upload(path, os.path.basename(value.get("orig_name") or path))


def _uploads(values: list[dict[str, Any]] | None) -> list[Upload]:
    return [upload for value in values or () if (upload := _upload(value)) is not None]


def look_is_served(gr: Any) -> bool:
    """Gradio 6 takes theme and style where the page is served, 5 where it is built."""
    return "theme" in inspect.signature(gr.mount_gradio_app).parameters


def look(gr: Any) -> dict[str, Any]:
    """Theme and style; all fonts are the system's."""
    theme = gr.themes.Default(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return {"theme": theme, "css": _LOOK}

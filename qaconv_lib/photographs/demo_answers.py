"""What the demo answers: uploaded pictures in, a piece of a page out (chapter 14).

Nothing here knows of Gradio; the page is in `demo`.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from qaconv_lib.datasets import load_image
from qaconv_lib.losses import MatchingLoss
from qaconv_lib.models import ReidModel
from qaconv_lib.photographs.demo_uploads import (
    Upload,
    check_uploads,
    read_upload_times,
    short_names,
    with_names,
)
from qaconv_lib.photographs.matching import DRAWN_WARNING, Knowledge, match_photographs
from qaconv_lib.photographs.own_gallery import gallery_prior, search_gallery
from qaconv_lib.photographs.words import describe_match, describe_prior, percent, remarks
from qaconv_lib.visualize import show_rank_list

DIRECTIONS = ("mutual", "query", "gallery")
_SHOWN = 10  # images of a rank list
_ROWS = 1000  # of the table that can be saved
_DPI = 150
_LARGEST_SHOWN = (480, 960)  # pixels of a picture in a figure


@dataclass(frozen=True)
class Answers:
    """A model and what it answers.

    Attributes:
        model: from `open_model`.
        known: from `known_about`.
        prior: as the commands take it; None means 0.5 for two pictures, and `gallery_prior`.
        shipped: the model is the one that comes with the book.
        gallery: pictures that are searched where none are uploaded.
        folder: their folder.
        store: folder that keeps the gallery's maps between searches, or None.
    """

    model: ReidModel
    known: Knowledge
    prior: float | None = None
    shipped: bool = False
    gallery: Sequence[Path] = field(default=())
    folder: Path | None = None
    store: Path | None = None

    @property
    def warning(self) -> str:
        """What the user of the model must be told, or nothing."""
        return DRAWN_WARNING if self.shipped else self.known.warning

    def compare(
        self,
        query: Upload | None,
        gallery: Upload | None,
        threshold: float = 0.6,
        direction: str = "mutual",
    ) -> str:
        """Two pictures, and how they match, as HTML.

        Args:
            query: a picture.
            gallery: another.
            threshold: least cosine of a line.
            direction: "query" draws a line from each location of the query, "gallery" one from
                each of the other picture, "mutual" those that are both.

        Raises:
            ValueError: a picture is missing or cannot be used, or a number is out of its range.
        """
        if query is None or gallery is None:
            raise ValueError("two pictures are needed: the query, and the one to compare it with")
        if direction not in DIRECTIONS:
            raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
        uploads = [query, gallery]
        check_uploads(uploads)
        found = with_names(uploads, lambda: match_photographs(self.model, query.path, gallery.path))
        small = _small(found.images[0]), _small(found.images[1])
        side = "gallery" if direction == "gallery" else "query"
        figure = found._replace(images=small).show(
            threshold=threshold, side=side, mutual=direction == "mutual"
        )
        words = describe_match(found, self.known, 0.5 if self.prior is None else self.prior)
        return _facts(words) + _picture(figure) + self._remarks(uploads)

    def rank(
        self,
        query: Upload | None,
        gallery: Sequence[Upload] = (),
        times: Upload | None = None,
        others: Sequence[Upload] = (),
    ) -> str:
        """The pictures of a gallery, best first, as HTML with a table that can be saved.

        Args:
            query: a picture.
            gallery: pictures; none means those of `Answers.gallery`.
            times: a CSV of cameras and times, as `read_times` takes it; TLift is applied.
            others: other people whom the query's camera saw, for TLift.

        Raises:
            ValueError: a picture is missing or cannot be used, or as `search_gallery`.
        """
        if query is None:
            raise ValueError("a query is needed: a picture of the person to look for")
        if not gallery and not self.gallery:
            raise ValueError("a gallery is needed: the pictures to look among")
        if others and times is None:
            raise ValueError("other people of the query's camera count only with a CSV of times")
        check_uploads([query, *others])
        check_uploads(gallery)
        images = gallery or [Upload(str(path), self._name(path)) for path in self.gallery]
        uploads = [query, *others, *images]
        keeps = not gallery and isinstance(self.model.criterion, MatchingLoss)
        prior = gallery_prior(len(images)) if self.prior is None else self.prior
        found = with_names(
            [*uploads, *([] if times is None else [times])],
            lambda: search_gallery(
                self.model,
                [query.path, *(other.path for other in others if other.path != query.path)],
                [image.path for image in images],
                calibration=self.known.calibration,
                prior=prior,
                times=None if times is None else read_upload_times(times, uploads),
                store=self.store if keeps else None,
                length=_ROWS,
            ),
        )
        found = found[found["query"] == query.path].drop(columns="query")
        if not len(found):
            raise ValueError("the gallery holds nothing but the query")
        best = found.head(_SHOWN)
        figure = show_rank_list(
            _small(load_image(query.path)),
            [_small(load_image(path)) for path in best["image"]],
            ["unknown"] * len(best),
            best["similarity"],
            alt=f"A query and the {len(best)} best pictures of the gallery with their similarity.",
        )
        names = {image.path: image.name for image in images}
        found["image"] = found["image"].map(names)
        notes = [describe_prior(self.known, prior)] if self.known.calibration else []
        if times is not None and not others:
            notes.append(
                "TLift asks where those who walked near the query turn up; add other people of "
                "its camera."
            )
        return (
            _picture(figure, "picture wide")
            + _table(found)
            + self._remarks([query, *images], notes)
        )

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix() if self.folder else path.name

    def _remarks(self, uploads: Sequence[Upload], notes: Sequence[str] = ()) -> str:
        said = remarks(self.known, [upload.path for upload in uploads], shipped=self.shipped)
        return "".join(
            f'<p class="note">{html.escape(short_names(text[0].upper() + text[1:], uploads))}</p>'
            for text in [*notes, *said]
        )


def _small(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.thumbnail(_LARGEST_SHOWN)
    return image


def _picture(figure: Figure, kind: str = "picture") -> str:
    """A figure as an `img` that is part of the page; the figure is forgotten."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI, bbox_inches="tight", pad_inches=0.05)
    alt = html.escape(str(figure.get_label()))
    width = round(100 * figure.get_figwidth())
    plt.close(figure)
    data = base64.b64encode(stream.getvalue()).decode()
    return (
        f'<div class="{kind}"><img src="data:image/png;base64,{data}" width="{width}" alt="{alt}">'
        "</div>"
    )


def _facts(lines: Sequence[tuple[str, str]]) -> str:
    rows = (f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in lines)
    return f'<dl class="facts">{"".join(rows)}</dl>'


def _table(found: pd.DataFrame) -> str:
    """The best rows, and a link that saves all of them as CSV."""
    content = found.to_csv(index=False, float_format="%.6g").encode("utf-8", "backslashreplace")
    shown = found.head(_SHOWN).drop(columns="rank_score")
    if (found["rank_score"] != found["similarity"]).any():
        shown.insert(2, "score with times", found["rank_score"].head(_SHOWN).map("{:.2f}".format))
    shown["similarity"] = shown["similarity"].map("{:.2f}".format)
    if "probability" in shown:
        shown["probability"] = shown["probability"].map(percent)
    rows = shown.to_html(index=False, border=0, classes="ranks", justify="left")
    link = base64.b64encode(content).decode()
    return (
        f'<div class="scroll">{rows}</div><p><a class="save" download="ranks.csv" '
        f'href="data:text/csv;base64,{link}">Save {len(found):,} rows as CSV</a></p>'
    )

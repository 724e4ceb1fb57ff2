"""Looking over a dataset: a sheet of its people, and tables of its counts."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from qaconv_lib.datasets import ReidDataset, load_dataset, load_image

__all__ = ["contact_sheet", "counts_markdown"]

TILE = (128, 64)  # height and width of a tile, pixels


def contact_sheet(
    dataset: str | ReidDataset,
    identities: int = 10,
    cameras: int = 6,
    *,
    split: str = "train",
    seed: int = 0,
) -> Image.Image:
    """People of a dataset side by side: a row an identity, a column a camera.

    A tile is grey where a camera did not see that person.

    Args:
        dataset: its name or itself.
        identities: rows, drawn at random.
        cameras: columns, the first cameras.
        split: which table.
        seed: of the draw.
    """
    dataset = load_dataset(dataset) if isinstance(dataset, str) else dataset
    table = dataset.splits[split]
    table = table[(table["identity"] != dataset.distractor_identity) & (table["camera"] < cameras)]
    rng = np.random.default_rng(seed)
    known = np.sort(table["identity"].unique())
    rows = np.sort(rng.choice(known, size=min(identities, len(known)), replace=False))
    height, width = TILE
    sheet = Image.new("RGB", (cameras * (width + 4) - 4, len(rows) * (height + 4) - 4), "white")
    blank = Image.new("RGB", (width, height), (225, 225, 225))
    for top, identity in enumerate(rows):
        for left in range(cameras):
            paths = table["path"][
                (table["identity"] == identity) & (table["camera"] == left)
            ].to_numpy()
            tile = load_image(rng.choice(paths)).resize((width, height)) if len(paths) else blank
            sheet.paste(tile, (left * (width + 4), top * (height + 4)))
    return sheet


def counts_markdown(root: str | os.PathLike[str] | None = None) -> str:
    """Tables of the data card: counts of each split and of each camera.

    Args:
        root: folder of the archives; the data search path if None.
    """
    names = ("mini-market", "mini-duke", "mini-cuhk03", "mini-cuhk03-labeled", "mini-msmt17")
    datasets = [load_dataset(name, root) for name in names]
    lines = [
        "| dataset | split | images | identities | cameras | per identity: least, median, most |",
        "|---|---|---|---|---|---|",
    ]
    for dataset in datasets:
        for split, row in dataset.summary().iterrows():
            table = dataset.splits[str(split)]
            each = table["identity"][
                table["identity"] != dataset.distractor_identity
            ].value_counts()
            spread = f"{each.min()}, {each.median():g}, {each.max()}"
            images = f"{row['images']:,}"
            if row["distractor images"]:
                images += f" ({row['distractor images']:,} of distractors)"
            cells = (dataset.name, split, images, row["identities"], row["cameras"], spread)
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    lines += ["", "| dataset | split | images under camera 1, 2, ... |", "|---|---|---|"]
    for dataset in datasets:
        for split, table in dataset.splits.items():
            each = ", ".join(str(count) for count in table["camera"].value_counts().sort_index())
            lines.append(f"| {dataset.name} | {split} | {each} |")
    return "\n".join(lines) + "\n"

"""What may be wrong with a dataset besides its counts: copies, and flaws of one's own images."""

from __future__ import annotations

import os
from collections import Counter

import pandas as pd

from qaconv_lib.datasets import ReidDataset, content_digests


def copies_by_name(table: pd.DataFrame) -> list[str]:
    """What the file names of a split tell: copies of an image under two names."""
    stems = Counter(
        os.path.join(os.path.dirname(path), os.path.basename(path).partition(".")[0].lower())
        for path in table["path"]
    )
    copies = [stem for stem, count in stems.items() if count > 1]
    if not copies:
        return []
    first = os.path.basename(copies[0])
    return [f"{len(copies):,} images are there twice under other endings, e.g. {first}"]


def copies_by_content(dataset: ReidDataset, progress: bool) -> list[str]:
    """Files of the same content, within a split and across splits."""
    table = pd.concat(t.assign(split=split) for split, t in dataset.splits.items() if len(t))
    table = table.assign(digest=content_digests(table["path"], progress))
    table = table[(table["digest"] != "") & table.duplicated("digest", keep=False)]
    within: Counter[str] = Counter()
    across: Counter[tuple[str, ...]] = Counter()
    examples: dict[str | tuple[str, ...], str] = {}
    for _, group in table.groupby("digest", sort=False):
        counts = group["split"].value_counts(sort=False)
        for split, count in counts.items():
            if count > 1:
                within[split] += count - 1
                rows = group[group["split"] == split]["path"]
                examples.setdefault(split, f"{rows.iloc[0]} and {rows.iloc[1]}")
        if len(counts) > 1:
            splits = tuple(counts.index)
            across[splits] += 1
            first = group.drop_duplicates("split")["path"]
            examples.setdefault(splits, " and ".join(first))
    return [
        f"{split}: {count:,} files repeat the content of another, e.g. {examples[split]}"
        for split, count in within.items()
    ] + [
        f"{' and '.join(splits)} have {count:,} files of the same content, e.g. {examples[splits]}"
        for splits, count in across.items()
    ]


def flaws_of_own(dataset: ReidDataset) -> list[str]:
    """What would spoil training or testing on one's own images."""
    remarks = []
    if len(dataset.train):
        cameras = dataset.train.groupby("identity")["camera"].nunique()
        if (alone := int((cameras == 1).sum())) == len(cameras):
            remarks.append(
                f"train: all {alone:,} identities were seen by one camera only; what a person "
                "looks like under another one cannot be learnt from them"
            )
        tested = pd.concat([dataset.query, dataset.gallery])["identity"].unique()
        if shared := len(set(cameras.index) & set(tested)):
            remarks.append(f"{shared:,} identities are both trained on and tested on")
    query = dataset.query.reset_index(names="row")[["row", "identity", "camera"]]
    pairs = query.merge(dataset.gallery[["identity", "camera"]].drop_duplicates(), on="identity")
    matched = pairs["row"][pairs["camera_x"] != pairs["camera_y"]].nunique()
    if without := len(query) - matched:
        remarks.append(
            f"query: {without:,} of {len(query):,} images have no gallery image of the "
            "same identity under another camera, and are not scored"
        )
    return remarks

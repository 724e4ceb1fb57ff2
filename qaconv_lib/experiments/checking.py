"""Is a dataset complete? Its counts compared with the published ones (`check-data`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from qaconv_lib.datasets import ReidDataset, load_dataset
from qaconv_lib.experiments.runs import name_some, unreadable_images


class Counts(NamedTuple):
    """Published counts of a split, None if unknown; distractors count as images only."""

    images: int | None
    identities: int | None
    cameras: int | None


def _of_splits(*counts: tuple[int, int, int]) -> dict[str, Counts]:
    return dict(zip(("train", "query", "gallery"), map(Counts._make, counts), strict=True))


#: Counts that the datasets' authors publish, after bad detections (identity -1) are dropped.
#: "all" counts the splits together.
#: Market-1501: Zheng et al., ICCV 2015 (19,732 gallery files, 3,819 of them bad detections and
#: 2,798 distractors). DukeMTMC-reID: Zheng et al., ICCV 2017. CUHK03-NP: Zhong et al., CVPR 2017.
#: MSMT17: Wei et al., CVPR 2018. RandPerson: images of the subset from the project's page,
#: github.com/VideoObjectSearch/RandPerson. ClonedPerson: Wang et al., CVPR 2022 and the project's
#: page, github.com/Yanan-Wang-cs/ClonedPerson; they give totals. Its 24 cameras: Table I of Zhao et
#: al., arXiv 2410.13567.
PUBLISHED: dict[str, dict[str, Counts]] = {
    "market1501": _of_splits((12_936, 751, 6), (3_368, 750, 6), (15_913, 750, 6)),
    "dukemtmc": _of_splits((16_522, 702, 8), (2_228, 702, 8), (17_661, 1_110, 8)),
    "cuhk03-np-detected": _of_splits((7_365, 767, 2), (1_400, 700, 2), (5_332, 700, 2)),
    "cuhk03-np-labeled": _of_splits((7_368, 767, 2), (1_400, 700, 2), (5_328, 700, 2)),
    "msmt17": _of_splits((32_621, 1_041, 15), (11_659, 3_060, 15), (82_161, 3_060, 15)),
    "randperson": {"train": Counts(132_145, None, None)},  # the subset
    "clonedperson": {"all": Counts(887_766, 5_621, 24)},
}
#: Gallery files with identity 0 and -1.
DISTRACTORS, BAD_DETECTIONS = {"market1501": 2_798}, {"market1501": 3_819}


def check_dataset(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    read_images: bool = False,
    skip_unreadable: bool = False,
    progress: bool = False,
) -> tuple[pd.DataFrame, list[str]]:
    """Count a dataset, compare the counts with the published ones, and say what may be wrong.

    `name` is a public dataset or a CSV file of your own images. `read_images` opens every image,
    and `skip_unreadable` also leaves out those that cannot be read.

    Returns a table with one row per split, and remarks; none means that nothing was found. The
    table's `attrs` have "notes", which are not objections, and "verdict", for want of remarks.
    """
    own = name.lower().endswith(".csv")
    if name not in PUBLISHED and not own:
        raise ValueError(f"no published counts for {name!r}; there are for {', '.join(PUBLISHED)}")
    dataset, remarks = load_dataset(name, root), list[str]()
    if read_images or skip_unreadable:
        paths = [path for table in dataset.splits.values() for path in table["path"]]
        if bad := unreadable_images(paths, progress):
            left_out = "; their rows were left out" if skip_unreadable else ""
            remarks.append(f"{len(bad):,} images cannot be read: {name_some(bad)}{left_out}")
        if skip_unreadable:
            readable = {s: t[~t["path"].isin(bad)] for s, t in dataset.splits.items()}
            dataset = replace(dataset, **readable)
    published, notes = PUBLISHED.get(name, {}), list(_notes(name, dataset))
    tables = {s: t for s, t in dataset.splits.items() if len(t) or s in published}
    if "all" in published:
        tables["all"] = pd.concat(tables.values())
    rows = {}
    for split, table in tables.items():
        known = table["identity"] != dataset.distractor_identity
        found = len(table), table["identity"][known].nunique(), table["camera"].nunique()
        there = published.get(split, Counts(None, None, None))
        wanted = [f if p is None else p for f, p in zip(found, there, strict=True)]
        counts = zip(found, wanted, strict=True)
        rows[split] = [f"{f:,}" + f" ({p:,} published)" * (f != p) for f, p in counts]
        if any(more := np.subtract(found, wanted)):
            remarks.append(f"{split}: {_explain(*more)}")
    distractors = int((dataset.gallery["identity"] == dataset.distractor_identity).sum())
    if distractors != (right := DISTRACTORS.get(name, distractors)):
        remarks.append(
            f"gallery: {distractors:,} distractors (identity 0000) instead of {right:,}; without "
            "them scores are too high"
        )
    if own:
        remarks += _flaws_of_own(dataset)
    if dataset.untimed:
        remarks.append(f"{dataset.untimed}; TLift needs a time for every one of them")
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(Counts._fields))
    verdict = f"{name} is complete: all counts are as published"
    if own:
        verdict = "no problems were found (there are no published counts for it)"
    table.attrs |= {"notes": notes, "verdict": verdict}
    return table.rename_axis("split"), remarks


def _notes(name: str, dataset: ReidDataset) -> Iterator[str]:
    if name == "randperson":
        yield "of the subset, only the number of images is known to be published"
    if name == "clonedperson":
        yield "published totals only: no source for the counts of its splits is known"
    if name in BAD_DETECTIONS:
        found = dataset.gallery.attrs.get("bad detections", 0)
        yield (
            f"gallery: {found:,} bad detections (identity -1) were left out; "
            f"{BAD_DETECTIONS[name]:,} are published"
        )


def _explain(images: int, identities: int, cameras: int) -> str:
    """What may have happened to a split; the arguments are numbers found minus published ones."""
    people = f"{images:,} images and {identities:,} identities".replace("-", "")
    if images < 0 and identities < 0:
        return f"{people} are missing: part of the archive was not unpacked"
    if images < 0:
        return f"{-images:,} images are missing, but no identity: single files were lost or removed"
    if cameras < 0:
        return f"{-cameras} cameras are missing: a part of the dataset"
    if images > 0 and identities > 0:
        return f"{people} too many: another split, or another release, lies in the same folder"
    if images > 0:
        return f"{images:,} images too many: copies, or images of another release"
    return f"{identities:+,} identities and {cameras:+,} cameras: files were renamed or exchanged"


def _flaws_of_own(dataset: ReidDataset) -> list[str]:
    """What would spoil training or testing on your own images."""
    remarks = []
    if len(dataset.train):
        cameras = dataset.train.groupby("identity")["camera"].nunique()
        if (cameras == 1).all():
            remarks.append(
                f"train: all {len(cameras):,} identities were seen by one camera only, so a model "
                "cannot learn from them what a person looks like under another"
            )
        tested = pd.concat([dataset.query, dataset.gallery])["identity"].unique()
        if shared := len(set(cameras.index) & set(tested)):
            remarks.append(f"{shared:,} identities are both trained on and tested on")
    if twice := len(set(dataset.query["path"]) & set(dataset.gallery["path"])):
        remarks.append(
            f"{twice:,} images are both query and gallery images; they are ignored as junk, so "
            "leave them out of the gallery"
        )
    query = dataset.query.reset_index(names="row")[["row", "identity", "camera"]]
    pairs = query.merge(dataset.gallery[["identity", "camera"]].drop_duplicates(), on="identity")
    matched = pairs["row"][pairs["camera_x"] != pairs["camera_y"]].nunique()
    if without := len(query) - matched:
        remarks.append(
            f"query: {without:,} of {len(query):,} images have no gallery image of the "
            "same identity under another camera, and are not scored"
        )
    return remarks

"""Is a public dataset complete? Its counts beside the published ones (`check-data`)."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from qaconv_lib.datasets import ReidDataset, load_dataset, load_image


class Counts(NamedTuple):
    """Images, identities and cameras of a split; distractors count as images only."""

    images: int
    identities: int
    cameras: int


#: Counts that the datasets' authors publish, after bad detections (identity -1) are dropped.
#: Market-1501: Zheng et al., ICCV 2015 (19,732 gallery files, 3,819 of them bad detections and
#: 2,798 distractors). DukeMTMC-reID: Zheng et al., ICCV 2017. CUHK03-NP: Zhong et al., CVPR 2017.
#: MSMT17: Wei et al., CVPR 2018.
PUBLISHED: dict[str, dict[str, Counts]] = {
    "market1501": {
        "train": Counts(12_936, 751, 6),
        "query": Counts(3_368, 750, 6),
        "gallery": Counts(15_913, 750, 6),
    },
    "dukemtmc": {
        "train": Counts(16_522, 702, 8),
        "query": Counts(2_228, 702, 8),
        "gallery": Counts(17_661, 1_110, 8),
    },
    "cuhk03-np-detected": {
        "train": Counts(7_365, 767, 2),
        "query": Counts(1_400, 700, 2),
        "gallery": Counts(5_332, 700, 2),
    },
    "cuhk03-np-labeled": {
        "train": Counts(7_368, 767, 2),
        "query": Counts(1_400, 700, 2),
        "gallery": Counts(5_328, 700, 2),
    },
    "msmt17": {
        "train": Counts(32_621, 1_041, 15),
        "query": Counts(11_659, 3_060, 15),
        "gallery": Counts(82_161, 3_060, 15),
    },
}
_DISTRACTORS = {"market1501": 2_798}


def check_dataset(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    read_images: bool = False,
    progress: bool = False,
) -> tuple[pd.DataFrame, list[str]]:
    """Count a dataset, hold it against the published counts, and say what may be the matter.

    Args:
        name: a public dataset.
        root: as for `load_dataset`.
        read_images: open every image too.
        progress: show a progress bar while images are opened.

    Returns:
        A table with one row a split, and remarks; no remarks means that all is as published.

    Raises:
        FileNotFoundError, ValueError: as `load_dataset`; or there are no published counts for it.
    """
    if name not in PUBLISHED:
        raise ValueError(f"no published counts for {name!r}; there are for {', '.join(PUBLISHED)}")
    dataset = load_dataset(name, root)
    rows, remarks = {}, []
    for split, table in dataset.splits.items():
        known = table["identity"] != dataset.distractor_identity
        found = Counts(len(table), table["identity"][known].nunique(), table["camera"].nunique())
        wanted = PUBLISHED[name][split]
        rows[split] = {
            label: f"{mine:,}" if mine == theirs else f"{mine:,} ({theirs:,} published)"
            for label, mine, theirs in zip(Counts._fields, found, wanted, strict=True)
        }
        if found != wanted:
            remarks.append(f"{split}: {_explain(found, wanted)}")
        remarks += [f"{split}: {remark}" for remark in _look_at_files(table)]
    remarks += _look_at_distractors(name, dataset)
    if read_images:
        remarks += _unreadable(dataset, progress)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("split"), remarks


def _explain(found: Counts, wanted: Counts) -> str:
    images = found.images - wanted.images
    if images < 0 and found.identities < wanted.identities:
        return (
            f"{-images:,} images and {wanted.identities - found.identities:,} identities are "
            "missing: part of the archive was not unpacked"
        )
    if images < 0:
        return (
            f"{-images:,} images are missing, no identity is: files were lost or removed one by "
            "one, or names were not recognised"
        )
    if found.cameras < wanted.cameras:
        return f"{wanted.cameras - found.cameras} cameras are missing: a part of the dataset"
    if images > 0 and found.identities > wanted.identities:
        return (
            f"{images:,} images and {found.identities - wanted.identities:,} identities too many: "
            "another split, or another release, lies in the same folder"
        )
    if images > 0:
        return f"{images:,} images too many: copies, or images of another release"
    return (
        f"{found.identities:,} identities and {found.cameras:,} cameras instead of "
        f"{wanted.identities:,} and {wanted.cameras:,}: files were renamed or exchanged"
    )


def _look_at_files(table: pd.DataFrame) -> list[str]:
    """What the file names of a split tell: copies of an image under two names."""
    stems = Counter(Path(path).name.partition(".")[0].lower() for path in table["path"])
    copies = [stem for stem, count in stems.items() if count > 1]
    if not copies:
        return []
    return [f"{len(copies):,} images are there twice under other endings, e.g. {copies[0]}"]


def _look_at_distractors(name: str, dataset: ReidDataset) -> list[str]:
    if name not in _DISTRACTORS:
        return []
    found = int((dataset.gallery["identity"] == dataset.distractor_identity).sum())
    if found == _DISTRACTORS[name]:
        return []
    return [
        f"gallery: {found:,} distractors (identity 0000) instead of {_DISTRACTORS[name]:,}; "
        "without them scores are too high"
    ]


def _unreadable(dataset: ReidDataset, progress: bool) -> list[str]:
    paths = [path for table in dataset.splits.values() for path in table["path"]]
    bad = []
    for path in tqdm(paths, unit="image", disable=not progress):
        try:
            load_image(path)
        except (ValueError, OSError):
            bad.append(path)
    if not bad:
        return []
    return [f"{len(bad):,} images cannot be read: {', '.join(bad[:3])}{' ...' * (len(bad) > 3)}"]

"""Is a dataset complete? Its counts beside the published ones (`check-data`)."""

from __future__ import annotations

import dataclasses
import os
from typing import NamedTuple

import pandas as pd

from qaconv_lib.datasets import ReidDataset, load_dataset, name_some, unreadable_images
from qaconv_lib.experiments.flaws import copies_by_content, copies_by_name, flaws_of_own
from qaconv_lib.layouts.names import passing_over


class Counts(NamedTuple):
    """Images, identities and cameras of a split; distractors count as images only.

    None stands for a number for which no published source is known here.
    """

    images: int | None
    identities: int | None
    cameras: int | None


class _Found(NamedTuple):
    """Counts of which all are known."""

    images: int
    identities: int
    cameras: int


_RANDPERSON_SUBSET = 132_145
#: Counts that the datasets' authors publish, after bad detections (identity -1) are dropped.
#: "all" counts the splits together.
#: Market-1501: Zheng et al., ICCV 2015 (19,732 gallery files, 3,819 of them bad detections and
#: 2,798 distractors). DukeMTMC-reID: Zheng et al., ICCV 2017. CUHK03-NP: Zhong et al., CVPR 2017.
#: MSMT17: Wei et al., CVPR 2018. RandPerson: images of the subset from the project's page,
#: github.com/VideoObjectSearch/RandPerson. ClonedPerson: Wang et al., CVPR 2022 and the project's
#: page, github.com/Yanan-Wang-cs/ClonedPerson; they give totals. Its 24 cameras: Table I of Zhao et
#: al., arXiv 2410.13567.
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
    "randperson": {"train": Counts(_RANDPERSON_SUBSET, None, None)},
    "clonedperson": {"all": Counts(887_766, 5_621, 24)},
}
_DISTRACTORS = {"market1501": 2_798}
_BAD_DETECTIONS = {"market1501": 3_819}
#: All of RandPerson: Wang et al., ACM Multimedia 2020; its 19 cameras: Table I as above.
_WHOLE_RANDPERSON = _Found(1_801_816, 8_000, 19)
_UNKNOWN = Counts(None, None, None)


def check_dataset(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    read_images: bool = False,
    find_duplicates: bool = False,
    skip_unreadable: bool = False,
    progress: bool = False,
) -> tuple[pd.DataFrame, list[str]]:
    """Count a dataset, hold it against the published counts, and say what may be the matter.

    Args:
        name: a public dataset, or a CSV file of one's own images (which has no published counts).
        root: as for `load_dataset`.
        read_images: open every image too.
        find_duplicates: compare the contents of all files.
        skip_unreadable: open every image, and count only those that can be read.
        progress: show a progress bar while images are opened or compared.

    Returns:
        A table with one row a split, and remarks; no remarks means that nothing is amiss. The
        table's `attrs` hold "notes", lines that are no objections, and "verdict", what may be said
        where there are no remarks.

    Raises:
        FileNotFoundError, ValueError: as `load_dataset`; or there are no published counts for it.
    """
    own = name.lower().endswith(".csv")
    if name not in PUBLISHED and not own:
        raise ValueError(f"no published counts for {name!r}; there are for {', '.join(PUBLISHED)}")
    dataset, remarks = _load(name, root)
    lost: list[str] = []
    if read_images or skip_unreadable:
        lost, unreadable = _unreadable(dataset, progress, skip_unreadable)
        remarks += unreadable
    if skip_unreadable:
        dataset = _without(dataset, lost)
    published, notes = _published(name, dataset)
    rows = {}
    nothing = {split: _Found(0, 0, 0) for split in published if split != "all"}
    for split, found in (nothing | _count(dataset, "all" in published)).items():
        wanted = published.get(split, _UNKNOWN)
        rows[split] = {
            label: f"{mine:,}" + ("" if theirs in (mine, None) else f" ({theirs:,} published)")
            for label, mine, theirs in zip(Counts._fields, found, wanted, strict=True)
        }
        expected = _Found(*(n if m is None else m for m, n in zip(wanted, found, strict=True)))
        if found != expected:
            remarks.append(f"{split}: {_explain(found, expected)}")
        if split != "all":
            remarks += [f"{split}: {note}" for note in copies_by_name(dataset.splits[split])]
    remarks += _look_at_distractors(name, dataset)
    if own:
        remarks += flaws_of_own(dataset)
    if find_duplicates:
        remarks += copies_by_content(dataset, progress)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("split")
    table.attrs["notes"] = notes
    table.attrs["verdict"] = (
        "nothing amiss was found; there are no published counts of one's own images"
        if own
        else f"{name} is complete: all counts are as published"
    )
    return table, remarks


def _load(name: str, root: str | os.PathLike[str] | None) -> tuple[ReidDataset, list[str]]:
    """A dataset, and remarks on files that `load_dataset` stops at.

    Where there are more of them than images it is another dataset, and the first error says so.
    """
    try:
        return load_dataset(name, root), []
    except (ValueError, FileNotFoundError) as first:
        with passing_over() as found:
            try:
                dataset = load_dataset(name, root)
            except (ValueError, LookupError, FileNotFoundError):
                raise first from None
        if sum(map(len, found.values())) > sum(map(len, dataset.splits.values())):
            raise
    return dataset, [f"{len(paths):,} {flaw}: {name_some(paths)}" for flaw, paths in found.items()]


def _count(dataset: ReidDataset, together: bool) -> dict[str, _Found]:
    """Counts of every split that has images, and of all together if asked."""
    tables = {split: table for split, table in dataset.splits.items() if len(table)}
    if together:
        tables["all"] = pd.concat(dataset.splits.values())
    found = {}
    for split, table in tables.items():
        known = table["identity"] != dataset.distractor_identity
        found[split] = _Found(
            len(table), table["identity"][known].nunique(), table["camera"].nunique()
        )
    return found


def _published(name: str, dataset: ReidDataset) -> tuple[dict[str, Counts], list[str]]:
    """The counts to hold a dataset against, and notes on them."""
    published, notes = PUBLISHED.get(name, {}), []
    if name == "randperson":
        images = len(dataset.train)
        if abs(images - _WHOLE_RANDPERSON.images) < abs(images - _RANDPERSON_SUBSET):
            published = {"train": Counts(*_WHOLE_RANDPERSON)}
            notes.append("held against all of RandPerson, not the subset that its authors train on")
        else:
            notes.append(
                "of the subset only the number of images is published where this could be looked "
                f"up; all of RandPerson has {_WHOLE_RANDPERSON.identities:,} identities and "
                f"{_WHOLE_RANDPERSON.cameras} cameras"
            )
    if name == "clonedperson":
        notes.append(
            "published totals only: no source for the counts of its splits could be looked up"
        )
    if name in _BAD_DETECTIONS:
        bad = dataset.gallery.attrs.get("bad detections", 0)
        notes.append(
            f"gallery: {bad:,} bad detections (identity -1) were left out; "
            f"{_BAD_DETECTIONS[name]:,} are published"
        )
    return published, notes


def _explain(found: _Found, wanted: _Found) -> str:
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


def _unreadable(dataset: ReidDataset, progress: bool, skip: bool) -> tuple[list[str], list[str]]:
    """Images that cannot be read, and the remark on them."""
    paths = [path for table in dataset.splits.values() for path in table["path"]]
    bad = unreadable_images(paths, progress)
    if not bad:
        return [], []
    left_out = "; their rows were left out" if skip else ""
    return bad, [f"{len(bad):,} images cannot be read: {name_some(bad)}{left_out}"]


def _without(dataset: ReidDataset, paths: list[str]) -> ReidDataset:
    kept = {
        split: table[~table["path"].isin(paths)].reset_index(drop=True)
        for split, table in dataset.splits.items()
    }
    return dataclasses.replace(dataset, **kept)

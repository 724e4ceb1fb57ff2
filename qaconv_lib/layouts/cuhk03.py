"""CUHK03 with the new protocol: as folders, or as the original images and the protocol's file."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from qaconv_lib.layouts.archives import whole_folder
from qaconv_lib.layouts.names import Tables, image_files, make_table, parse_name, read_boxes

_SPLITS = ("train", "query", "gallery")
_IMAGE_ARCHIVE = "cuhk-03.mat"


def protocol_name(boxes: str) -> str:
    """Name of the file with the new protocol of "detected" or "labeled" boxes."""
    return f"cuhk03_new_protocol_config_{boxes}.mat"


def read_cuhk03(root: Path, boxes: str) -> Tables:
    """CUHK03 with the protocol of Zhong et al. (CVPR 2017), in either of its forms.

    As folders (CUHK03-NP): ``detected/query/0001_c1_1.png`` = boxes, split, identity, camera,
    number. The number (column ``frame``) counts images and is not a time. ``root`` may be the
    folder of the boxes itself. As the protocol's file beside the images: see `read_protocol`.
    """
    inside = root / boxes
    if not (inside / "bounding_box_train").is_dir() and (root / protocol_name(boxes)).is_file():
        return read_protocol(root, boxes)
    if not inside.is_dir() and root.name != boxes and root.name in ("detected", "labeled"):
        wrong = f"{root} holds the {root.name} boxes of CUHK03-NP"
        raise ValueError(f"{wrong}; the {boxes} ones were requested")
    return read_boxes(inside if inside.is_dir() else root, "CUHK03-NP")


def read_protocol(root: Path, boxes: str) -> Tables:
    """CUHK03 as the protocol's file and the original images.

    The images lie in ``images_detected`` or ``images_labeled`` under names such as
    ``1_001_1_01.png`` = pair of cameras, person, view (our camera), number. If there is no such
    folder, it is made from ``cuhk-03.mat`` of the original release, beside it or in
    ``cuhk03_release``.
    """
    path = root / protocol_name(boxes)
    names, labels, rows_of = _protocol(path)
    folder = _image_folder(root, boxes)
    present = {file.stem.lower(): str(file) for file in image_files(folder)}
    found = [present.get(Path(name).stem.lower()) for name in names]
    used = sorted({row for rows in rows_of.values() for row in rows})
    if missing := [names[row] for row in used if found[row] is None]:
        raise FileNotFoundError(
            f"{path} names {missing[0]}, which is not in {folder}; {len(missing):,} of its "
            f"{len(used):,} images are missing there"
        )
    images = {}
    for row in used:
        fields = parse_name(names[row], "CUHK03", path)
        fields["camera"] -= 1
        images[row] = {**fields, "path": found[row], "identity": labels[row]}
    return {split: make_table([images[row] for row in rows]) for split, rows in rows_of.items()}


def _protocol(path: Path) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
    """File names, identities, and the rows of each split, from 0."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    wanted = ("filelist", "labels", *(f"{split}_idx" for split in _SPLITS))
    damage = (ValueError, TypeError, LookupError, OSError, EOFError, NotImplementedError)
    try:
        content = loadmat(path)
        if lacking := [key for key in wanted if key not in content]:
            raise ValueError(f"it has no {', '.join(lacking)}")
        names = [str(np.squeeze(cell)).strip() for cell in content["filelist"].ravel()]
        labels = content["labels"].astype("int64").ravel()
        rows_of = {s: content[f"{s}_idx"].astype("int64").ravel() - 1 for s in _SPLITS}
    except (*damage, MatReadError, zlib.error) as error:
        raise ValueError(
            f"cannot read {path} as a protocol of CUHK03 ({error}); it is a MATLAB file with "
            f"{', '.join(wanted)}"
        ) from error
    if len(names) != len(labels):
        raise ValueError(f"{path} lists {len(names):,} files but {len(labels):,} identities")
    for split, rows in rows_of.items():
        if not len(rows):
            raise ValueError(f"{path} has an empty {split}_idx")
        if rows.min() < 0 or rows.max() >= len(names):
            found = f"{split}_idx goes from {rows.min() + 1:,} to {rows.max() + 1:,}"
            raise ValueError(f"{path}: {found}, but the list has the files 1 to {len(names):,}")
    return names, labels + (1 - min(1, labels.min())), rows_of  # count from 1


def _image_folder(root: Path, boxes: str) -> Path:
    for name in (f"images_{boxes}", boxes):
        if (root / name).is_dir():
            return root / name
    for place in (root / "cuhk03_release", root):
        if (place / _IMAGE_ARCHIVE).is_file():
            return extract_images(place / _IMAGE_ARCHIVE, boxes, root / f"images_{boxes}")
    wanted = f"neither the folder images_{boxes} nor cuhk03_release/{_IMAGE_ARCHIVE} is there"
    raise FileNotFoundError(f"{root} holds {protocol_name(boxes)} but no images: {wanted}")


def extract_images(archive: Path, boxes: str, folder: Path) -> Path:
    """Write the images of ``cuhk-03.mat`` as PNG files; the folder appears when it is whole.

    The archive has one cell array per pair of cameras, with one row per person and ten columns:
    five images of the first view, five of the second, some of them empty.
    """
    from PIL import Image
    from tqdm.auto import tqdm

    try:
        import h5py
    except ImportError:
        hint = (
            f"making it from {archive} needs the package h5py; install it with `pip install h5py`"
        )
        raise FileNotFoundError(f"there is no folder {folder}, and {hint}") from None
    try:
        content = h5py.File(archive, "r")
    except OSError as error:
        raise ValueError(f"{archive} is damaged, or not a MATLAB 7.3 file ({error})") from error
    with content, whole_folder(folder) as work:
        if boxes not in content:
            raise ValueError(f"{archive} has no {boxes!r}; cuhk-03.mat of CUHK03 is expected")
        pairs = content[boxes][0]
        for pair, reference in enumerate(tqdm(pairs, desc=boxes, unit="pair", disable=None)):
            people = content[reference][:].T  # (people, 10); MATLAB stores the transpose
            for person, image in np.ndindex(people.shape):
                pixels = content[people[person, image]][:].T
                if pixels.ndim == 3 and pixels.size:  # an empty cell holds its size instead
                    view = 1 if image < people.shape[1] // 2 else 2
                    name = f"{pair + 1}_{person + 1:03d}_{view}_{image + 1:02d}.png"
                    Image.fromarray(pixels.astype("uint8")).save(work / name)
    return folder

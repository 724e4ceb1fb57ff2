"""Public layouts on generated trees: protocols of CUHK03, lists of MSMT17, rendered people."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from test_datasets import touch

from qaconv_lib.datasets import all_images, load_dataset
from qaconv_lib.experiments.runs import load_test
from qaconv_lib.layouts import COLUMNS
from qaconv_lib.layouts.cuhk03 import extract_images, protocol_name
from qaconv_lib.layouts.names import image_files

#: One person a pair of cameras; the images of each, and the split and identity of each image.
CUHK03 = {
    "1_001_1_01.png": ("train", 1),
    "1_001_2_06.png": ("train", 1),
    "2_001_1_01.png": ("query", 2),
    "2_001_2_06.png": ("query", 2),
    "2_001_1_02.png": ("gallery", 2),
    "2_001_2_07.png": ("gallery", 2),
    "5_002_1_05.png": (None, 3),  # listed, and in no split
}


def write_protocol(root: Path, boxes: str = "detected", **changes) -> Path:
    """A protocol as MATLAB writes it: columns that count from 1, and a cell array of names."""
    root.mkdir(parents=True, exist_ok=True)
    names = np.empty((len(CUHK03), 1), dtype=object)
    names[:, 0] = list(CUHK03)
    content = {
        "filelist": names,
        "labels": np.array([[label] for _, label in CUHK03.values()], np.uint16),
        "camId": np.array([[int(name[6])] for name in CUHK03], np.uint8),
    }
    for split in ("train", "query", "gallery"):
        rows = [row for row, (part, _) in enumerate(CUHK03.values(), start=1) if part == split]
        content[f"{split}_idx"] = np.array(rows, np.uint16)[:, None]
    content |= changes
    savemat(root / protocol_name(boxes), {k: v for k, v in content.items() if v is not None})
    return root


class TestCuhk03Protocol:
    @pytest.mark.parametrize("boxes", ["detected", "labeled"])
    def test_splits_identities_and_cameras(self, tmp_path, boxes):
        root = write_protocol(tmp_path / "cuhk03", boxes)
        touch(root / f"images_{boxes}", *CUHK03)
        data = load_dataset(f"cuhk03-np-{boxes}", tmp_path)
        assert data.root == root and list(data.train.columns) == COLUMNS
        assert {s: sorted(t["identity"]) for s, t in data.splits.items()} == {
            "train": [1, 1], "query": [2, 2], "gallery": [2, 2],
        }  # fmt: skip
        assert data.gallery["camera"].tolist() == [0, 1]
        assert data.gallery["frame"].tolist() == [2, 7]
        assert [Path(p).name for p in data.query["path"]] == ["2_001_1_01.png", "2_001_2_06.png"]

    def test_other_suffixes_shadows_of_a_mac_and_folders_which_come_first(self, tmp_path):
        root = write_protocol(tmp_path)
        names = [name.replace(".png", ".JPG") for name in CUHK03]
        touch(root / "images_detected", *names, *(f"._{name}" for name in CUHK03))
        assert load_dataset("cuhk03-np-detected", root).train["path"].str.endswith("01.JPG").any()
        for folder in ("bounding_box_train", "query", "bounding_box_test"):
            touch(tmp_path / "detected" / folder, "0001_c1_1.png", "0001_c2_1.png")
        path = load_dataset("cuhk03-np-detected", tmp_path).query["path"][0]
        assert Path(path).name == "0001_c1_1.png"

    def test_missing_images_are_counted(self, tmp_path):
        root = write_protocol(tmp_path)
        touch(root / "images_detected", *list(CUHK03)[2:])
        with pytest.raises(FileNotFoundError, match="1_001_1_01.png, .*; 2 of its 6 images are"):
            load_dataset("cuhk03-np-detected", root)
        with pytest.raises(FileNotFoundError, match="neither the folder images_detected"):
            load_dataset("cuhk03-np-detected", write_protocol(tmp_path / "empty"))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"labels": None}, "it has no labels"),
            ({"labels": np.ones((3, 1))}, "lists 7 files but 3 identities"),
            ({"query_idx": np.array([[1], [8]])}, "query_idx goes from 1 to 8, .* files 1 to 7"),
            ({"gallery_idx": np.zeros((0, 1))}, "an empty gallery_idx"),
        ],
    )
    def test_bad_protocols(self, tmp_path, changes, message):
        root = write_protocol(tmp_path, **changes)
        touch(root / "images_detected", *CUHK03)
        with pytest.raises(ValueError, match=message):
            load_dataset("cuhk03-np-detected", root)

    @pytest.mark.parametrize("content", [b"", b"no MATLAB file" * 20, b"MATLAB 5.0 MAT-file" * 20])
    def test_a_file_that_is_no_protocol(self, tmp_path, content):
        (tmp_path / protocol_name("detected")).write_bytes(content)
        with pytest.raises(ValueError, match="config_detected.mat as a protocol of CUHK03"):
            load_dataset("cuhk03-np-detected", tmp_path)


def write_release(path: Path, boxes: tuple[str, ...] = ("detected", "labeled")) -> dict[str, int]:
    """`cuhk-03.mat` with five pairs of two persons; returns the grey of each image by its name."""
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    greys = {}
    with h5py.File(path, "w") as file:
        for kind in boxes:
            pairs = np.empty((1, 5), dtype=h5py.ref_dtype)
            for pair in range(5):
                people = np.empty((10, 2), dtype=h5py.ref_dtype)  # MATLAB stores the transpose
                for person in range(2):
                    for image in range(10):
                        name = f"{pair + 1}_{person + 1:03d}_{1 + image // 5}_{image + 1:02d}.png"
                        grey = pair * 20 + person * 10 + image
                        key = f"{kind}-{name}"
                        if image in (4, 9) and name != "5_002_1_05.png":
                            file[key] = np.zeros(2, np.uint64)  # an empty cell
                        else:
                            file[key] = np.full((3, 4, 6), grey, np.uint8)  # 6 rows, 4 columns
                            greys[name] = grey
                        people[image, person] = file[key].ref
                file[f"{kind}-pair{pair}"] = people
                pairs[0, pair] = file[f"{kind}-pair{pair}"].ref
            file[kind] = pairs
    return greys


class TestCuhk03Release:
    def test_images_are_taken_out_once(self, tmp_path):
        root = write_protocol(tmp_path / "cuhk03", "labeled")
        greys = write_release(root / "cuhk03_release" / "cuhk-03.mat")
        data = load_dataset("cuhk03-np-labeled", root)
        assert len(data.train) == 2 and data.query["camera"].tolist() == [0, 1]
        files = image_files(root / "images_labeled")
        assert [file.name for file in files] == sorted(greys)
        with Image.open(root / "images_labeled" / "2_001_2_07.png") as image:
            assert image.size == (4, 6) and image.getpixel((0, 0)) == (greys["2_001_2_07.png"],) * 3
        (root / "cuhk03_release" / "cuhk-03.mat").unlink()
        assert len(load_dataset("cuhk03-np-labeled", root).train) == 2

    @pytest.mark.parametrize("damage", ["cut", "other boxes"])
    def test_a_damaged_release_leaves_nothing(self, tmp_path, damage):
        archive = tmp_path / "cuhk-03.mat"
        write_release(archive, ("labeled",))
        if damage == "cut":
            archive.write_bytes(archive.read_bytes()[:5000])
        with pytest.raises(ValueError, match="cuhk-03.mat"):
            extract_images(archive, "detected", tmp_path / "images_detected")
        assert [path.name for path in tmp_path.iterdir()] == ["cuhk-03.mat"]

    def test_without_the_package_that_reads_it(self, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "h5py", None)
        touch(write_protocol(tmp_path), "cuhk-03.mat")
        with pytest.raises(FileNotFoundError, match="pip install h5py"):
            load_dataset("cuhk03-np-detected", tmp_path)


LISTS = {
    "list_train.txt": ["0000/0000_000_01_0303morning_0008_0.jpg 0"],
    "list_val.txt": ["0000/0000_001_02_0303morning_0020_0.jpg 0"],
    "list_query.txt": ["0000/0000_000_03_0113afternoon_0008_0_ex.jpg 0"],
    "list_gallery.txt": ["0000/0000_001_04_0113afternoon_0018_0_ex.jpg 0"],
}


def write_msmt17(root: Path, folders=("train", "test")) -> Path:
    for name, lines in LISTS.items():
        folder = folders[name in ("list_query.txt", "list_gallery.txt")]
        touch(root / folder, *(line.split()[0].replace(".jpg", ".JPG") for line in lines))
        (root / name).write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    return root


class TestMsmt17:
    @pytest.mark.parametrize(
        ("folder", "parts"),
        [
            ("MSMT17_V1", ("train", "test")),
            ("MSMT17_V2", ("mask_train_v2", "mask_test_v2")),
            ("msmt17/MSMT17_V2", ("mask_train_V2", "mask_test_V2")),
        ],
    )
    def test_names_of_both_releases(self, tmp_path, folder, parts):
        root = write_msmt17(tmp_path / folder, parts)
        data = load_dataset("msmt17", tmp_path)
        assert data.root == root and len(data.train) == 2
        assert all(Path(path).is_file() for table in data.splits.values() for path in table["path"])
        assert data.train["camera"].tolist() == [0, 1] and data.query["camera"].tolist() == [2]
        assert data.query["identity"].tolist() == [1]  # 0, as in the list, would be a distractor
        assert all_images(data)["identity"].tolist() == [0, 0, 1, 1]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("0000/a.jpg 0".encode("utf-16-le"), "perhaps UTF-16; save it as UTF-8"),
            (b"0000/\xe9.jpg 0", "list_val.txt cannot be read as text"),
            (b"0000/0000_001_02_0303morning_0020_0.jpg", "list_val.txt, line 1"),
            (b"0000/0000_001_00_0303morning_0020_0.jpg 0", "list_val.txt, line 1.* camera 00"),
            (b"0000/0001_c1s1_000451_03.jpg 0", "list_val.txt, line 1.* Market-1501"),
        ],
    )
    def test_bad_lists_are_named(self, tmp_path, content, message):
        write_msmt17(tmp_path)
        (tmp_path / "list_val.txt").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_dataset("msmt17", tmp_path)

    @pytest.mark.parametrize("name", ["test", "list_query.txt"])
    def test_half_of_it(self, tmp_path, name):
        (write_msmt17(tmp_path) / name).rename(tmp_path / "later")
        with pytest.raises(FileNotFoundError, match=f"{name}; MSMT17 keeps"):
            load_dataset("msmt17", tmp_path)

    def test_missing_images_are_counted(self, tmp_path):
        with open(write_msmt17(tmp_path) / "list_gallery.txt", "a") as file:
            file.write("\n0001/0001_000_05_0113noon_0018_0.jpg 1")
        with pytest.raises(FileNotFoundError, match="line 2, .*; 1 of the list's 2 images"):
            load_dataset("msmt17", tmp_path)


RANDPERSON = ["000000_s00_c00_f000264", "000000_s10_c03_f000096", "000007_s00_c01_f001632"]


class TestRandPerson:
    @pytest.mark.parametrize("folder", ["randperson_subset", "randperson_subset/randperson_subset"])
    def test_the_subset(self, tmp_path, folder):
        names = [f"{name}.jpg" for name in RANDPERSON]
        touch(tmp_path / folder, *names, "._" + names[0], "readme.txt")
        data = load_dataset("randperson", tmp_path)
        assert data.root == tmp_path / folder
        assert data.train["identity"].tolist() == [1, 1, 8]  # 0 would be a distractor
        assert data.train["camera"].tolist() == [0, 2, 1]  # pairs of scene and camera
        assert data.train["session"].tolist() == [0, 10, 0]
        assert data.train["seconds"].tolist() == [11.0, 4.0, 68.0]
        assert list(data.query.columns) == COLUMNS and data.query.empty and data.gallery.empty
        assert data.query.dtypes.equals(data.train.dtypes)

    def test_the_older_names(self, tmp_path):
        touch(tmp_path, "000003_c02_s01_f000024.JPG", "000003_c00_s02_f000048.JPG")
        table = load_dataset("randperson", tmp_path).train
        assert table["session"].tolist() == [2, 1] and table["camera"].tolist() == [1, 0]

    def test_all_scenes(self, tmp_path):
        images = tmp_path / "randperson" / "images"
        touch(images / "scene00" / "camera0_1", f"{RANDPERSON[0]}.jpg", f"{RANDPERSON[2]}.jpg")
        touch(images / "scene00" / "delete_camera0_1", "000009_s00_c00_f000264.jpg")
        touch(images / "scene10" / "camera3_1", f"{RANDPERSON[1]}.jpg")
        assert load_dataset("randperson", images).train["identity"].tolist() == [1, 1, 8]
        touch(images / "subset", f"{RANDPERSON[2]}.jpg")  # what its authors train on comes first
        assert len(load_dataset("randperson", tmp_path).train) == 1

    def test_there_is_nothing_to_test_on(self, tmp_path, monkeypatch):
        touch(tmp_path / "randperson_subset", *(f"{name}.jpg" for name in RANDPERSON))
        monkeypatch.setenv("QACONV_DATA", str(tmp_path))
        data = load_dataset("randperson")
        assert not data.has_test and not data.has_time and "nothing to test on" in repr(data)
        assert all_images(data)["identity"].tolist() == [0, 0, 1]
        with pytest.raises(ValueError, match="randperson has no query and gallery images"):
            load_test("randperson")


def write_clonedperson(root: Path) -> Path:
    touch(root / "train", "700000_s02_c00_f023389.jpg", "700000_s06_c00_f023413.jpg")
    touch(root / "test" / "query", "705227_s02_c02_f001200.jpg")
    touch(root / "test" / "gallery", "705227_s06_c00_f000024.jpg", "705228_s06_c02_f005521.JPG")
    return root


def test_cameras_of_different_scenes_of_clonedperson_differ(tmp_path):
    data = load_dataset("clonedperson", write_clonedperson(tmp_path / "clonedperson").parent)
    assert data.train["camera"].tolist() == [0, 2] and data.train["identity"].nunique() == 1
    assert data.query["camera"].tolist() == [1] and data.gallery["camera"].tolist() == [2, 3]
    assert data.has_time and data.query["seconds"].tolist() == [50.0]


def test_a_wrong_root_is_named(tmp_path):
    touch(tmp_path / "half" / "Market-1501" / "query", "0001_c1s3_000010_00.jpg")
    with pytest.raises(FileNotFoundError, match="Market-1501 .* lacks bounding_box_train"):
        load_dataset("market1501", tmp_path / "half")
    with pytest.raises(FileNotFoundError, match="looks like ClonedPerson"):
        load_dataset("market1501", write_clonedperson(tmp_path / "other"))
    touch(tmp_path / "else", "letters/a.txt", "photographs/b.jpg")
    with pytest.raises(FileNotFoundError, match="letters, photographs"):
        load_dataset("msmt17", tmp_path / "else")

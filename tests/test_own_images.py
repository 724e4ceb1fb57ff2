"""Your own images from a CSV file or a table, and what is wrong with them by row and column."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from qaconv_lib.cli import main
from qaconv_lib.datasets import dataset_from_table, load_dataset
from qaconv_lib.experiments.checking import check_dataset
from qaconv_lib.experiments.records import read_records
from qaconv_lib.experiments.runs import load_test
from qaconv_lib.layouts import COLUMNS

HEADER = "path,identity,camera,seconds,split"
ROWS = [
    "a.jpg,3,0,,train",
    "b.jpg,3,1,,train",
    "c.jpg,8,0,2.5,query",
    "d.jpg,8,1,4,gallery",
    "e.jpg,0,1,5,gallery",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abcde":
        (tmp_path / f"{name}.jpg").write_bytes(b"")
    return tmp_path


def write(folder: Path, *rows: str, header: str = HEADER, encoding: str = "utf-8") -> Path:
    path = folder / "people.csv"
    path.write_bytes("\n".join([header, *rows]).encode(encoding))
    return path


class TestCsv:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_all_columns(self, folder, encoding):
        path = write(folder, *ROWS, "", encoding=encoding)
        for root in (folder, path):
            data = load_dataset("people.csv", root)
            assert data.name == "people.csv" and data.root == folder
            assert [len(table) for table in data.splits.values()] == [2, 1, 2]
            assert list(data.train.columns) == COLUMNS
            assert data.gallery["identity"].tolist() == [8, 0] and data.has_time
            assert data.gallery["path"].tolist() == [str(folder / "d.jpg"), str(folder / "e.jpg")]
            assert data.query["seconds"].tolist() == [2.5] and data.train["seconds"].isna().all()
        assert data.summary().loc["gallery", "distractor images"] == 0

    def test_identity_0_is_a_person(self, folder):
        write(
            folder, "a.jpg,0,0,,train", "b.jpg,1,0,,train", "c.jpg,0,0,,query", "d.jpg,0,1,,gallery"
        )
        assert load_dataset("people.csv", folder).train["identity"].tolist() == [0, 1]
        train = load_dataset("people.csv-all", folder).train  # 0 is one person in all splits
        assert train["identity"].tolist() == [0, 1, 0, 0]
        write(folder, "a.jpg,5,0,,train", "b.jpg,5,1,,query", "b.jpg,5,1,,gallery")
        assert load_dataset("people.csv-all", folder).train["identity"].tolist() == [0, 0]

    def test_accents_that_are_composed_in_another_way(self, folder):
        (folder / "Jose\u0301.jpg").write_bytes(b"")
        write(folder, "Jos\u00e9.jpg,Jos\u00e9,0,,train", "a.jpg,Jose\u0301,1,,train")
        train = load_dataset("people.csv", folder).train
        assert train["identity"].nunique() == 1 and Path(train["path"][0]).is_file()

    def test_decimal_commas_of_a_spreadsheet(self, folder):
        header = "path;identity;camera;seconds;split"
        write(folder, "a.jpg;1;0;2,5;query", "b.jpg;1;1;4;gallery", header=header)
        assert load_dataset("people.csv", folder).query["seconds"].tolist() == [2.5]

    def test_tables_of_other_programs(self, folder):
        (folder / "hall").mkdir()
        (folder / "hall" / "f.png").write_bytes(b"")
        windows = {"path , identity,camera ": "hall\\f.png, 1 , 0"}
        tabs = {"Path\tIdentity\tCamera": "hall/f.png\t1\t0"}
        tabs |= {"\nsep=;\npath;identity;camera": "hall/f.png;1.0;0.0"}
        for header, row in (windows | tabs | {"path;identity;camera": "hall/f.png;1;0"}).items():
            write(folder, row, header=header, encoding="utf-8-sig")
            (image,) = load_dataset("people.csv", folder).train.itertuples()
            assert (image.path, image.identity) == (str(folder / "hall" / "f.png"), 1)

    def test_names_instead_of_numbers(self, folder):
        write(folder, "b.jpg,zoe,yard", "a.jpg,ann,hall", "c.jpg,ann,yard", header=HEADER[:20])
        data = load_dataset("people.csv", folder)
        assert data.train["identity"].tolist() == [2, 1, 1]
        assert data.train["camera"].tolist() == [1, 0, 1]
        assert data.query.empty and not data.has_test

    def test_it_is_looked_for_in_the_search_path(self, folder, monkeypatch):
        write(folder, *ROWS)
        monkeypatch.setenv("QACONV_DATA", str(folder))
        assert len(load_test("people.csv").gallery) == 2
        with pytest.raises(FileNotFoundError, match="others.csv not found in"):
            load_dataset("others.csv")
        with pytest.raises(ValueError, match="file name without its folder"):
            load_dataset("here/people.csv")

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([",1,0,,train"], "row 2, column path"),
            (["a.jpg,,0,,train"], "row 2, column identity"),
            ([ROWS[0], "", "b.jpg,3,-1,,train"], "row 4, column camera: '-1' is negative"),
            ([ROWS[0], "b.jpg,3,hall,,train"], "row 3, column camera: 'hall' is not a whole num"),
            ([ROWS[0], "b.jpg,1.5,1,,train", "c.jpg,3,1,,train"], "row 3, column identity: '1.5'"),
            (["a.jpg,3,0,noon,train"], "row 2, column seconds: 'noon'"),
            (["a.jpg,3,0,,test", "b.jpg,3,0,,val"], r"row 2, column split: 'test' .*\(and 1"),
            (["a.jpg,3,0,1.7e12,train"], "row 2, column seconds: '1.7e12' is too large"),
            ([ROWS[0], "a.jpg,4,0,,train"], "row 3, column path: 'a.jpg' was named before"),
            ([ROWS[2], "c.jpg,8,1,4,gallery"], "row 2, column path: .* is listed with several"),
            (ROWS[:3], "query images but no gallery images"),
            ([ROWS[0], ROWS[3]], "gallery images but no query images"),
            ([ROWS[0], "../{here}/a.jpg,3,0,,train"], "row 3, .*a.jpg' was named before"),
            (["a.jpg,-1.0,0,,train", "b.jpg,3.0,1,,train"], "row 2, .* identity: .* is negative"),
            ([], "has no rows; the columns path, identity, camera"),
            ([ROWS[0], f"{ROWS[1]},extra"], "line 3"),
        ],
    )  # fmt: skip
    def test_bad_rows_are_named(self, folder, rows, message):
        write(folder, *(row.format(here=folder.name) for row in rows))
        with pytest.raises(ValueError, match=f"people.csv.*{message}"):
            load_dataset("people.csv", folder)

    def test_missing_images_are_named_and_counted(self, folder):
        write(folder, ROWS[0], "x.jpg,3,1,,train", "y.jpg,3,1,,train")
        with pytest.raises(FileNotFoundError, match=r"row 3, column path: .*x\.jpg.* 1 more row"):
            load_dataset("people.csv", folder)

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            ("path|identity|camera", "no column path .*identity .*camera"),
            ("path,identity,camera,Path ", "more than one column path"),
            ("path,identity,camera,camera", "more than one column camera"),
            ("path,identity,cam", "no column camera; .* its columns are: path, identity, cam"),
        ],
    )
    def test_missing_columns_are_named(self, folder, header, message):
        write(folder, header.replace("path", "a.jpg"), header=header)
        with pytest.raises(ValueError, match=message):
            load_dataset("people.csv", folder)
        (folder / "people.csv").write_bytes(b"")
        with pytest.raises(ValueError, match="people.csv is empty"):
            load_dataset("people.csv", folder)


class TestTable:
    def test_numbers_as_pandas_keeps_them(self, folder):
        columns = {"path": [folder / "a.jpg", "b.jpg"], "identity": [2.0, 5.0]}
        columns |= {"camera": pd.Categorical(["hall", "yard"]), "seconds": [1.5, np.nan]}
        table = pd.DataFrame(columns, index=[7, 7])
        data = dataset_from_table(table, folder, name="hall and yard")
        assert data.name == "hall and yard" and data.train["identity"].tolist() == [2, 5]
        assert data.train["camera"].tolist() == [0, 1] and data.train["seconds"][0] == 1.5

    def test_rows_count_from_zero(self, folder):
        table = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "identity": [1, None], "camera": [0, 0]})
        with pytest.raises(ValueError, match="own images, row 1, column identity"):
            dataset_from_table(table, folder)

    def test_times_too_coarse_for_their_dtype(self, folder):
        table = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "identity": [1, 1], "camera": [0, 1]})
        table["seconds"] = np.float32([1.7e9, np.nan])
        with pytest.raises(ValueError, match="seconds are rounded to 128"):
            dataset_from_table(table, folder)


def checked(folder: Path, *rows: str) -> list[str]:
    write(folder, *rows)
    return check_dataset("people.csv", folder)[1]


class TestCheck:
    @pytest.mark.parametrize(
        ("rows", "remark"),
        [
            ([*ROWS[:3], "d.jpg,8,0,4,gallery", "e.jpg,9,1,5,gallery"], "query: 1 of 1 images"),
            ([row.replace(",8,", ",3,") for row in ROWS], "1 identities .* trained on and tested"),
            (ROWS[:1], "train: all 1 identities were seen by one camera only"),
        ],
    )
    def test_remarks(self, folder, rows, remark):
        (found,) = checked(folder, *rows)
        assert re.match(remark, found)

    def test_nothing_amiss(self, folder, capsys):
        assert checked(folder, *ROWS) == []
        assert main(["check-data", "people.csv", "--root", str(folder)]) == 0
        assert "people.csv: no problems were found" in capsys.readouterr().out


def write_people(folder: Path, rng: np.random.Generator, count: int, images: int = 1) -> None:
    """People drawn as noise, in two cameras each; all but the last two are for training."""
    rows = []
    for person, camera, number in np.ndindex(count, 2, images):
        split = "train" if person < count - 2 else "gallery" if camera else "query"
        name = f"{person + 1}_{camera}_{number}.png"
        pixels = rng.integers(0, 255, (64, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        rows.append(f"{name},{person + 1},{camera},,{split}")
    write(folder, *rows)


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """Two training images and one gallery image are damaged."""
    folder = tmp_path_factory.mktemp("studio")
    (folder / "results").mkdir()
    write_people(folder, np.random.default_rng(0), 8, images=3)
    for name in ("2_0_1", "3_1_2", "7_1_0"):
        (folder / f"{name}.png").write_bytes(b"damaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QACONV_DATA", str(folder))
        patch.setenv("QACONV_CACHE", str(folder / "cache"))
        yield folder


class TestUnreadableImages:
    RUN = ["softmax", "people.csv", "--profile", "smoke", "--quiet", "--device", "cpu"]

    def test_training_stops_and_says_how_many(self, studio, capsys):
        assert main(["train", *self.RUN]) == 2
        error = capsys.readouterr().err
        for part in ("2 of 36 images", "2_0_1.png", "3_1_2.png", "--skip-unreadable"):
            assert part in error
        assert not list(studio.rglob("*.safetensors"))

    def test_training_and_testing_go_on_without_them(self, studio):
        with pytest.warns(UserWarning, match=r"training: 2 of 36 .* rows are left out"):
            assert main(["train", *self.RUN, "--skip-unreadable"]) == 0
        (record,) = read_records("train")
        assert record["images"] == 34 and record["unreadable_images"] == 2
        evaluate = ["evaluate", *self.RUN[:2], "people.csv", *self.RUN[2:]]
        with pytest.warns(UserWarning, match=r"gallery: 1 of 6 images cannot be read: .*7_1_0.png"):
            assert main([*evaluate, "--skip-unreadable"]) == 0
        (record,) = read_records("evaluate")
        assert record["gallery"] == 5 and record["queries"] == 6
        assert record["unreadable_images"] == 1
        assert main(evaluate) == 2  # the similarities kept are those of the readable images


def test_flaws_of_times_and_of_images_listed_twice(folder):
    write(folder, "a.jpg,3,0,,query", "b.jpg,3,1,7,gallery", "a.jpg,3,0,,gallery")
    remarks = " ".join(check_dataset("people.csv", folder)[1])
    assert "2 of 3 query and gallery images have no time" in remarks
    assert "1 images are both query and gallery images" in remarks


@pytest.mark.parametrize("change", ["another folder", "another image"])
def test_models_and_records_are_of_the_images_they_were_made_from(
    tmp_path, monkeypatch, capsys, change
):
    """Two folders have a `people.csv`, or images are replaced under the same names."""
    (tmp_path / "results").mkdir()
    monkeypatch.setenv("QACONV_CACHE", str(tmp_path / "cache"))
    run = ["softmax", "people.csv", "--profile", "smoke", "--device=cpu", "--quiet"]
    evaluate = ["evaluate", *run[:2], "people.csv", *run[2:]]
    models, rng = [], np.random.default_rng(0)
    for number in range(2):
        folder = tmp_path / ("one" if change == "another image" else f"{number}")
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("QACONV_DATA", f"{folder}{os.pathsep}{tmp_path}")
        write_people(folder, rng, 18)
        if number:
            assert main(evaluate) == 2 and "softmax-people.csv" in capsys.readouterr().err
        assert main(["train", *run]) == 0
        models.append(Path(capsys.readouterr().out.strip()))
        assert main(evaluate) == 0
    assert models[0] != models[1] and all(path.is_file() for path in models)
    assert len(read_records("train")) == len(read_records("evaluate")) == 2
    lines = (folder / "people.csv").read_text().split()[1:]
    lines.sort(key=lambda line: line.rpartition(",")[2], reverse=True)  # train, query, gallery
    write(folder, *lines)
    assert main(evaluate) == 0
    last = max(i for i, line in enumerate(lines) if line.endswith("query"))
    write(folder, *lines[:last], lines[last].replace("query", "gallery"), *lines[last + 1 :])
    assert main(evaluate) == 0  # the same images in the same order, but one query fewer

"""Your own photographs: files, matching, searching, and the sentences that bad input gets."""

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.special import expit, logit

from qaconv_lib.cli import main
from qaconv_lib.datasets import load_dataset
from qaconv_lib.experiments.calibration_records import find_calibrations
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.runs import rerank
from qaconv_lib.models import ReidModel, save_model
from qaconv_lib.photographs.calibration import Calibration
from qaconv_lib.photographs.files import (
    add_times,
    check_photographs,
    list_photographs,
    photograph_table,
    read_times,
)
from qaconv_lib.photographs.gallery import gallery_prior, search_gallery
from qaconv_lib.photographs.matching import (
    DEFAULT_DOMAIN,
    known_about,
    match_photographs,
    open_model,
    percent,
    remarks,
)
from qaconv_lib.scale.store import MapStore
from qaconv_lib.temporal import tlift


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Three queries and twelve gallery images of a miniature, under names of many kinds."""
    folder = tmp_path_factory.mktemp("my pictures 写真")
    data = load_dataset("mini-market")
    (folder / "queries").mkdir()
    (folder / "gallery" / "second camera").mkdir(parents=True)
    for number, path in enumerate(data.query["path"][:3]):
        shutil.copy(path, folder / "queries" / f"кто {number}.jpg")
    for number, path in enumerate(data.gallery["path"][:12]):
        place = "second camera/" if number % 2 else ""
        shutil.copy(path, folder / "gallery" / f"{place}人 {number:02d}.jpg")
    return folder


@pytest.fixture(scope="module")
def pooled():
    return ReidModel(get_profile("smoke").config("softmax", pretrained=False), 2).eval()


@pytest.fixture(scope="module")
def lists(people):
    return list_photographs(people / "queries"), list_photographs(people / "gallery")


@pytest.fixture(scope="module")
def maps(model, lists):
    return [model.extract(photograph_table(paths)) for paths in lists]


@pytest.fixture(scope="module")
def logits(model, maps):
    return model.similarity(*maps).numpy()


@pytest.fixture(scope="module")
def times(people, lists):
    """Every image has a camera, by name, and a time."""
    rows = [
        {"file": path.relative_to(people).as_posix(), "camera": f"door {number % 2}"}
        for number, path in enumerate([*lists[0], *lists[1]])
    ]
    table = pd.DataFrame(rows).assign(seconds=np.arange(len(rows)) * 17.5)
    table.to_csv(people / "times.csv", index=False)
    return read_times(people / "times.csv")


# files


def test_a_folder_is_listed_with_its_folders(tmp_path):
    for name in ("b.JPG", "a.png", "in/c.webp", ".hidden.jpg", ".trash/d.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_photographs(tmp_path)]
    assert found == ["a.png", "b.JPG", "in/c.webp"]


def test_the_first_of_several_bad_files_is_named(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match=r"dot.png has 1 x 1 pixels.*\(and 1 more"):
        check_photographs([tmp_path / "dot.png", tmp_path / "text.png"])
    with pytest.raises(FileNotFoundError, match="no image at .*none.png"):
        check_photographs([tmp_path / "none.png"])


def test_times_are_found_by_path_or_by_name(tmp_path):
    accented = unicodedata.normalize("NFC", "é.png")
    (tmp_path / "times.csv").write_text(
        f"file, camera, seconds\nin/a.png,door,1.5\nb.png,hall,2\n{accented},hall,3\n", "utf-8-sig"
    )
    files = ["in/a.png", "deep/er/b.png", unicodedata.normalize("NFD", accented)]
    table = photograph_table(tmp_path / name for name in files)
    timed = add_times(table, read_times(tmp_path / "times.csv"))
    assert timed["camera"].tolist() == ["door", "hall", "hall"]
    assert timed["seconds"].tolist() == [1.5, 2, 3]
    with pytest.raises(ValueError, match="c.png has no camera and time"):
        add_times(photograph_table(["c.png"]), read_times(tmp_path / "times.csv"))
    with pytest.raises(ValueError, match="have one name"):
        add_times(photograph_table(["x/b.png", "y/b.png"]), read_times(tmp_path / "times.csv"))


@pytest.mark.parametrize(
    "text, message",
    [
        (b'file,camera,seconds\n"a,1,2\n', "cannot read"),
        (b"file,camera\na,1\n", "lacks the column seconds"),
        (b"file,camera,seconds\n", "no rows"),
        (b"file,camera,seconds\na,1,soon\n", "'soon' for seconds in row 2"),
        (b"file,camera,seconds\na,1,inf\n", "row 2"),
        (b"file,camera,seconds\n\na,1,1.7e12\n", "row 3; .* not of milliseconds"),
        (b"file,camera,seconds\na,,3\n", "no camera in row 2"),
        (b"file,camera,seconds\na,1,2\na,1,3\n", "names a twice"),
    ],
)
def test_bad_times_are_named(tmp_path, text, message):
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        read_times(tmp_path / "t.csv")


# matching


def test_a_match_is_what_the_model_says(model, lists, logits):
    found = match_photographs(model, lists[0][0], lists[1][4])
    assert found.score == pytest.approx(logits[0, 4], abs=1e-4)
    assert expit(found.score) == pytest.approx(found.similarity, abs=1e-5)
    for image, path in zip(found.images, (lists[0][0], lists[1][4]), strict=True):
        assert image.size == Image.open(path).size
    assert "cosine above 0.6" in found.show().get_label()
    with pytest.raises(ValueError, match="threshold"):
        found.show(threshold=1.0)


def test_scores_of_a_pooled_model_are_its_similarities(lists, pooled):
    found = match_photographs(pooled, lists[0][0], lists[1][0])
    assert found.score == pytest.approx(found.similarity) and 0 <= found.score <= 1
    norms = [float(maps.norm(dim=0).sub(1).abs().max()) for maps in found.maps]
    assert max(norms) < 1e-5  # so that lines show cosines


def test_the_shipped_model_warns_and_is_calibrated(tmp_path):
    assert known_about(None).calibration is None and not known_about(None).thresholds
    with pytest.raises(ValueError, match="python -m qaconv_lib calibrate"):
        known_about(None, "mini-duke")
    record = find_calibrations(open_model(device="cpu"))
    known = known_about(record)
    assert known.domain == DEFAULT_DOMAIN and known.source != known.domain
    assert known.calibration.slope > 0 and set(known.thresholds) == {1e-2, 1e-3}
    assert known.thresholds[1e-2] < known.thresholds[1e-3]
    assert known_about(record, "mini-cuhk03").calibration != known.calibration
    with pytest.raises(ValueError, match="domain must be one of"):
        known_about(record, "market1501")
    Image.new("RGB", (40, 20)).save(tmp_path / "frame.png")
    wide, drawn = remarks(known, [tmp_path / "frame.png"])
    assert "frame.png" in wide and "drawn people" in drawn


# searching


def as_matrix(found, column, lists):
    """A column of the long table as (q, g)."""
    table = found.pivot(index="query", columns="image", values=column)
    return table.loc[[str(p) for p in lists[0]], [str(p) for p in lists[1]]].to_numpy()


def test_a_search_ranks_by_similarity(model, lists, logits):
    found = search_gallery(model, *lists)
    expected = expit(logits)
    assert as_matrix(found, "similarity", lists) == pytest.approx(expected, abs=1e-5)
    for query, row in zip(lists[0], expected, strict=True):
        mine = found[found["query"] == str(query)]
        assert mine["rank"].tolist() == list(range(1, 13))
        assert mine["image"].tolist() == [str(lists[1][i]) for i in np.argsort(-row)]
    assert len(search_gallery(model, *lists, length=4)) == 12
    many = search_gallery(model, lists[0][:1], lists[1] * 22)  # more than are compared at once
    known = dict(zip(map(str, lists[1]), expected[0], strict=True))
    assert many["similarity"].to_numpy() == pytest.approx(many["image"].map(known), abs=1e-5)


def test_a_query_in_the_gallery_does_not_find_itself(model, lists):
    folder = [*lists[1][:5], os.path.relpath(lists[0][0])]
    found = search_gallery(model, lists[0], folder)
    assert found.groupby("query", sort=False).size().tolist() == [5, 6, 6]


def test_reranking_is_that_of_the_book(model, lists, maps, logits):
    pairs = {
        f"{a}_{b}": model.similarity(x, y).numpy()
        for a, x in zip(("query", "gallery"), maps, strict=True)
        for b, y in zip(("query", "gallery"), maps, strict=True)
    }
    found = search_gallery(model, *lists, rerank=True)
    assert as_matrix(found, "rank_score", lists) == pytest.approx(rerank(pairs, "qaconv"), abs=1e-4)


def test_times_lift(model, lists, logits, times):
    found = search_gallery(model, *lists, times=times)
    cameras, seconds = np.arange(15) % 2, np.arange(15) * 17.5
    lifted = tlift(expit(logits), cameras[:3], seconds[:3], cameras[3:], seconds[3:])
    assert as_matrix(found, "rank_score", lists) == pytest.approx(lifted, abs=1e-5)
    assert set(found["camera"]) == {"door 0", "door 1"}


def test_some_models_are_lifted_only_with_a_calibration(lists, times, pooled):
    of_pairs = ReidModel(get_profile("smoke").config("pairwise", pretrained=False), 2).eval()
    for model in (pooled, of_pairs):
        with pytest.raises(ValueError, match="TLift takes probabilities"):
            search_gallery(model, *lists, times=times)
    assert len(search_gallery(of_pairs, *lists, times=times, rerank=True))
    calibration = Calibration(8.0, -4.0)
    found = search_gallery(pooled, *lists, times=times, calibration=calibration)
    assert found["rank_score"].between(0, 1.2).all() and found["probability"].between(0, 1).all()
    with pytest.raises(ValueError, match="searched by QAConv"):
        search_gallery(pooled, *lists, store="anywhere")


def test_a_store_is_filled_once_and_brought_up_to_date(model, lists, maps, tmp_path):
    gallery = [shutil.copy(path, tmp_path / path.name) for path in lists[1]]
    folder = tmp_path / "store"
    first = search_gallery(model, lists[0], gallery[:7], store=folder)
    assert first.equals(search_gallery(model, lists[0], gallery[:7], store=folder))
    assert len(MapStore(folder)) == 7
    shutil.copy(lists[0][0], gallery[2])  # another image under an old name
    found = search_gallery(model, lists[0], gallery, store=folder)
    assert len(MapStore(folder)) == 13
    expected = model.similarity(maps[0], torch.cat([maps[1][:2], maps[0][:1], maps[1][3:]])).numpy()
    got = as_matrix(found, "similarity", (lists[0], gallery))
    assert got == pytest.approx(expit(expected), abs=1e-2)


# commands


@pytest.fixture(scope="module")
def model_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "my model.safetensors"
    save_model(path, model)
    return path


def test_match_command(model_file, lists, tmp_path, capsys):
    command = ["match", str(lists[0][0]), str(lists[1][0]), "--device", "cpu", "--output"]
    out = tmp_path / "пара.png"
    assert main([*command, str(out), "--prior", ".1"]) == 0
    said = capsys.readouterr().out
    assert "similarity" in said and "10 % before" in said and said.count("decision") == 2
    with Image.open(out) as image:
        assert image.text["Description"]
    own = ["--model", str(model_file), "--threshold", "-1"]
    assert main([*command, str(tmp_path / "pair.pdf"), *own]) == 0
    assert (tmp_path / "pair.pdf").stat().st_size > 1000
    assert "no calibration of this model" in capsys.readouterr().out


def test_search_command(model_file, people, lists, times, tmp_path, capsys):
    out = tmp_path / "found here"
    command = ["search", str(people / "queries"), "--gallery", str(people / "gallery"), "--quiet"]
    command += ["--model", str(model_file), "--output", str(out), "--length", "3", "--rerank"]
    assert main([*command, "--times", str(people / "times.csv")]) == 0
    table = pd.read_csv(out / "ranks.csv")
    assert len(table) == 9 and {"camera", "seconds", "rank_score"} <= set(table.columns)
    assert sorted(p.name for p in out.glob("*.png")) == [
        f"{n + 1:03d}-кто {n}.png" for n in range(3)
    ]
    assert capsys.readouterr().out.count("similarity") == 3


def test_a_search_says_what_its_probabilities_rest_on(people, lists, tmp_path, capsys):
    command = ["search", str(lists[0][0]), "--gallery", str(people / "gallery"), "--quiet"]
    assert main([*command, "--output", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert "a probability of 7.7 % to show" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "out" / "ranks.csv")
    known = known_about(find_calibrations(open_model(device="cpu")))
    scores = logit(found["similarity"])
    expected = known.calibration.probability(scores, gallery_prior(12))
    assert found["probability"].to_numpy() == pytest.approx(expected, abs=1e-4)


def test_percentages_have_the_digits_that_matter():
    shares = {1e-7: "under 0.0001 %", 0.000123: "0.012 %", 0.5: "50 %", 0.9998: "99.98 %"}
    assert [percent(share) for share in shares] == list(shares.values())


def test_files_that_cannot_be_used_are_left_out_if_asked(model_file, people, tmp_path, capsys):
    queries, gallery = tmp_path / "queries", tmp_path / "gallery"
    shutil.copytree(people / "queries", queries)
    shutil.copytree(people / "gallery", gallery)
    (gallery / "broken.jpg").write_text("hello")
    for folder in (queries, gallery):
        content = next(folder.glob("*.jpg")).read_bytes()
        (folder / "half.jpg").write_bytes(content[: len(content) // 2])
    command = ["search", str(queries), "--gallery", str(gallery), "--quiet", "--length", "1"]
    command += ["--model", str(model_file), "--output", str(tmp_path / "out")]
    assert main(command) == 2
    assert "broken.jpg is not an image" in capsys.readouterr().err
    assert main([*command, "--skip-unreadable"]) == 0
    said = capsys.readouterr().err
    assert said.count("left out: ") == 3 and said.count("half.jpg") == 2
    assert len(pd.read_csv(tmp_path / "out" / "ranks.csv")) == 3


def test_lists_of_an_earlier_search_go_and_other_files_stay(model_file, people, tmp_path, capsys):
    out, gallery = tmp_path / "out", tmp_path / "gallery"
    shutil.copytree(people / "gallery", gallery)
    (gallery / "phone.HEIC").touch()
    (gallery / ".hidden").touch()
    command = ["--gallery", str(gallery), "--model", str(model_file), "--output", str(out)]
    command += ["--quiet", "--length", "1"]
    assert main(["search", str(people / "queries"), *command]) == 0
    assert ".heic" in capsys.readouterr().out
    (out / "002-mine.png").touch()
    assert len(list(out.glob("*.png"))) == 4
    one = next((people / "queries").glob("*2.jpg"))
    assert main(["search", str(one), *command]) == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == [f"001-{one.stem}.png", "002-mine.png", "ranks.csv"]


@pytest.fixture
def bad(tmp_path, people, lists, model_file, monkeypatch):
    """A folder with one of each kind of bad input, and a good picture."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(lists[0][0], "good.jpg")
    Path("text.jpg").write_text("hello")
    Image.new("RGB", (1, 1)).save("dot.png")
    Image.new("1", (10_000, 9_000)).save("huge.png")
    Path("nothing").mkdir()
    Path("gallery").mkdir()
    shutil.copy(lists[1][0], "gallery/one.jpg")
    save_file({"a": torch.zeros(1)}, "other.safetensors")
    content = model_file.read_bytes()
    Path("half.safetensors").write_bytes(content[: len(content) // 2])
    Path("times.csv").write_text("file,camera,seconds\ngood.jpg,0,0\n")
    Path("mine").mkdir()
    Path("mine/ranks.csv").write_text("name,place\nme,1\n")
    return tmp_path


@pytest.mark.parametrize(
    "command, message",
    [
        ("match good.jpg text.jpg", "text.jpg is not an image"),
        ("match good.jpg none.jpg", "no image at none.jpg"),
        ("match good.jpg dot.png", "dot.png has 1 x 1 pixels"),
        ("match good.jpg huge.png", "huge.png has more than 89,478,485 pixels"),
        ("match good.jpg good.jpg --output pair.txt", "must end in .png"),
        ("match good.jpg good.jpg --output none/pair.png", "no folder none"),
        ("match good.jpg dot.png --output dot.png", "one of the images"),
        ("match good.jpg good.jpg --threshold nan", "threshold must lie in"),
        ("match good.jpg good.jpg --prior 1", "prior must lie between 0 and 1"),
        ("match good.jpg good.jpg --domain moon", "domain must be one of"),
        ("match good.jpg good.jpg --model none.safetensors", "no checkpoint at none"),
        ("match good.jpg good.jpg --model half.safetensors", "is damaged or not a safetensors"),
        ("match good.jpg good.jpg --model other.safetensors", "not written by qaconv_lib"),
        ("search good.jpg --gallery nothing", "no images in nothing"),
        ("search good.jpg --gallery none", "there is no folder none"),
        ("search good.jpg --gallery gallery --times none.csv", "no file none.csv"),
        ("search good.jpg --gallery gallery --output mine", "ranks.csv lacks the column query"),
        ("search good.jpg --gallery gallery --times times.csv", "one.jpg has no camera and time"),
        ("search good.jpg --gallery gallery --store gallery", "no store in gallery"),
    ],
)
def test_bad_input_is_one_sentence(bad, capsys, command, message):
    before = sorted(path.name for path in bad.iterdir())
    assert main([*command.split(), "--quiet", "--device", "cpu"]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.startswith("qaconv_lib: ") and said.err.count("\n") == 1
    assert sorted(path.name for path in bad.iterdir()) == before

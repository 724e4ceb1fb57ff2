"""Plans, drawing and archives of the miniatures; the shipped archives against a new drawing."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from qaconv_lib.__main__ import main
from qaconv_lib.data_commands import replace_counts
from qaconv_lib.datasets import load_dataset, load_image, load_part_map
from qaconv_lib.miniatures import drawing as miniatures
from qaconv_lib.miniatures.domains import PART_NAMES
from qaconv_lib.miniatures.drawing import (
    MINIATURES,
    contact_sheet,
    counts_markdown,
    draw_image,
    encode_image,
    plan,
    write_archive,
)
from qaconv_lib.miniatures.network import Habits
from qaconv_lib.miniatures.plans import make_plan
from qaconv_lib.miniatures.render import Drawing

CHECKOUT = Path(__file__).resolve().parent.parent
DATA = CHECKOUT / "data"
NAMES = tuple(MINIATURES)


def decode(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=float)


@pytest.mark.parametrize("name", NAMES)
def test_archive_holds_what_is_planned(name: str) -> None:
    table = plan(name)
    with zipfile.ZipFile(DATA / f"{name}.zip") as bundle:
        files = set(bundle.namelist())
        manifest = json.loads(bundle.read("manifest.json"))
    assert table["path"].is_unique
    test = table["split"] != "train"
    maps = {
        f"part_maps/{Path(path).with_suffix('.png').as_posix()}" for path in table["path"][test]
    }
    lists = set(table["list"]) if "list" in table else set()
    assert files == set(table["path"]) | maps | lists | {"manifest.json"}
    assert manifest["specification"]["seed"] == MINIATURES[name].seed
    assert manifest["images"] == table["split"].value_counts().to_dict()


@pytest.mark.parametrize("name", NAMES)
def test_drawing_again_gives_the_shipped_images(name: str) -> None:
    """A sample under two cameras; machines may differ in the last bits, not in the picture."""
    table = plan(name)
    table = table[table["camera"] < 2]
    kinds = table.groupby(["split", "population", "labelled"])["path"]
    rng = np.random.default_rng(0)
    sample = [path for _, paths in kinds for path in rng.choice(paths.to_numpy(), 2)]
    with zipfile.ZipFile(DATA / f"{name}.zip") as bundle:
        for path in sample:
            picture, parts = encode_image(name, path)
            assert np.abs(decode(picture) - decode(bundle.read(path))).mean() < 1.0, path
            if parts is not None:
                part_map = f"part_maps/{Path(path).with_suffix('.png').as_posix()}"
                shipped = np.asarray(Image.open(io.BytesIO(bundle.read(part_map))))
                drawn = np.asarray(Image.open(io.BytesIO(parts)))
                assert (shipped == drawn).mean() > 0.995, path
                assert shipped.max() < len(PART_NAMES)


def test_archives_are_small_enough() -> None:
    assert sum((DATA / f"{name}.zip").stat().st_size for name in NAMES) <= 46e6


def test_the_data_card_counts_what_is_shipped() -> None:
    page = (CHECKOUT / "book" / "data_card.md").read_text(encoding="utf-8")
    assert counts_markdown(DATA) in page


def test_part_maps_fit_their_images() -> None:
    """People fill a good part of the picture; left and right limbs, head and torso occur."""
    gallery = load_dataset("mini-market", DATA).gallery
    people = gallery[gallery["identity"] > 0].iloc[::40]
    shares = np.zeros(len(PART_NAMES))
    for path in people["path"]:
        parts = load_part_map(path)
        assert parts.shape == (128, 64) == load_image(path).size[::-1]
        shares += np.bincount(parts.ravel(), minlength=len(PART_NAMES)) / parts.size
    shares /= len(people)
    assert 0.3 < shares[0] < 0.85
    assert all(shares[PART_NAMES.index(part)] > 0.004 for part in ("head", "torso", "left shin"))


def test_images_can_be_drawn_alone_and_in_any_order() -> None:
    table = plan("mini-duke")
    rows = table.index[(table["camera"] == 0) & (table["population"] == "test")][:2].tolist()
    first = [draw_image("mini-duke", row) for row in rows]
    miniatures._world.cache_clear()
    again = [draw_image("mini-duke", table["path"][row]) for row in reversed(rows)][::-1]
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.image, two.image) and np.array_equal(one.parts, two.parts)
    assert not np.array_equal(first[0].image, first[1].image)


def test_several_processes_draw_the_same() -> None:
    table = plan("mini-cuhk03")
    paths = table["path"][table["camera"] == 0][:2]
    tasks = [("mini-cuhk03", path) for path in paths]
    with miniatures._drawn(tasks, 2) as several, miniatures._drawn(tasks, 1) as single:
        assert list(several) == list(single)


def test_two_boxes_of_one_scene() -> None:
    table = plan("mini-cuhk03")
    pair = table[table["drawing"] == table["drawing"].iloc[0]]
    assert sorted(pair["labelled"]) == [False, True]
    assert {path.split("/")[0] for path in pair["path"]} == {"detected", "labeled"}
    boxes = [draw_image("mini-cuhk03", path).image for path in pair["path"]]
    assert not np.array_equal(*boxes)
    means = [box.mean(axis=(0, 1)) for box in boxes]
    assert np.abs(means[0] - means[1]).max() < 40  # the same people in the same light


def test_nobody_occurs_twice() -> None:
    people = []
    for name, spec in MINIATURES.items():
        world = miniatures._world(name)
        sizes = {"train": spec.train_identities, "test": spec.test_identities}
        sizes["distractor"] = spec.distractors
        people += [world.person(group, n) for group, size in sizes.items() for n in range(size)]
    looks = {replace(person, seed=0) for person in people}
    assert len(looks) == len(people) == 340 + 340 + 200 + 500


def test_companions_are_among_the_bystanders() -> None:
    world = miniatures._world("mini-market")
    tests = (row for row in world.rows if row["population"] == "test")
    row = next(row for row in tests if len(world.groups["test", row["group"]]) == 4)
    companions = {world.person("test", other) for other in world.groups["test", row["group"]]}
    rng = np.random.default_rng(0)
    chosen = [world.bystanders(row, rng) for _ in range(60)]
    assert all(
        len(set(pair)) == 2 and world.person("test", row["person"]) not in pair for pair in chosen
    )
    assert 0.3 < np.mean([pair[0] in companions for pair in chosen]) < 0.9


def test_light_changes_with_the_time_of_day() -> None:
    world = miniatures._world("mini-msmt17")
    morning, noon = world.camera(3, 0), world.camera(3, 1)
    assert morning != noon and morning.light_colour != noon.light_colour
    assert (morning.scene_seed, morning.cast) == (noon.scene_seed, noon.cast)


@pytest.mark.parametrize("name", ["mini-market", "mini-duke"])
def test_time_in_file_names_is_that_of_the_walks(name: str) -> None:
    """After loading, time differences in one session of one camera are the true ones."""
    table, data = plan(name), load_dataset(name, DATA)
    loaded = pd.concat(data.splits.values())
    loaded["name"] = [Path(path).name for path in loaded["path"]]
    table["name"] = [Path(path).name for path in table["path"]]
    both = table.merge(loaded[["name", "seconds", "camera"]], on="name", suffixes=("", "_loaded"))
    assert len(both) == len(loaded) and (both["camera"] == both["camera_loaded"]).all()
    ahead = both["seconds"] - both["time"]
    if name == "mini-market":
        parts = ahead.groupby([both["camera"], both["session"]])
        assert (parts.max() - parts.min()).max() < 0.05
    else:  # one clock for all cameras
        assert ahead.max() - ahead.min() < 0.05


@pytest.mark.parametrize("name", ["mini-market", "mini-duke"])
def test_temporal_lifting_finds_pivots(name: str) -> None:
    """Queries have others near them, and groups of three and more about K = 10 true pivots."""
    data, table = load_dataset(name, DATA), plan(name)
    sizes = table[table["population"] == "test"].groupby("group")["person"].nunique()
    group = table[table["population"] == "test"].groupby("identity")["group"].first()
    query, gallery = data.query, data.gallery
    images = pd.crosstab(gallery["identity"], gallery["camera"])
    camera, seconds = query["camera"].to_numpy(), query["seconds"].to_numpy()
    near = (camera[:, None] == camera) & (np.abs(seconds[:, None] - seconds) < 100)
    pivots = []
    for row, around in zip(query.itertuples(), near, strict=True):
        if sizes[group[row.identity]] >= 3:
            counts = images.loc[query["identity"][around].unique()].sum()
            other = (images.loc[row.identity] > 0) & (images.columns != row.camera)
            pivots.extend(counts[other])
    assert np.median(near.sum(axis=1) - 1) >= 4
    assert np.median(pivots) >= 10
    assert (sizes == 1).sum() >= 3  # lone walkers


def test_msmt17_lists() -> None:
    data = load_dataset("mini-msmt17", DATA)
    validation = (data.root / "list_val.txt").read_text().splitlines()
    training = (data.root / "list_train.txt").read_text().splitlines()
    assert 0.05 < len(validation) / len(training) < 0.1
    assert len(data.train) == len(validation) + len(training)
    assert sorted(data.train["identity"].unique()) == list(range(1, 301))
    assert data.num_cameras == 15 and not data.has_time


def tiny(name: str) -> miniatures.Miniature:
    habits = Habits(visits=(3, 4))
    return replace(
        MINIATURES[name], train_identities=4, test_identities=5, families=(2, 2),
        distractors=min(2, MINIATURES[name].distractors), train_habits=habits,
        test_habits=habits, distractor_habits=habits,
        bad_detections=min(2, MINIATURES[name].bad_detections),
    )  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch):
    """Miniatures of a few people, and a renderer that draws grey boxes."""

    def box(*arguments: object, size: tuple[int, int], **_: object) -> Drawing:
        rng = next(value for value in arguments if isinstance(value, np.random.Generator))
        grey = np.full((*size, 3), rng.integers(256), np.uint8)
        return Drawing(grey, np.full(size, rng.integers(len(PART_NAMES)), np.uint8))

    monkeypatch.setattr(miniatures, "render_person", box)
    monkeypatch.setattr(miniatures, "render_background", box)
    for name in NAMES:
        monkeypatch.setitem(MINIATURES, name, tiny(name))
    miniatures._world.cache_clear()
    yield
    miniatures._world.cache_clear()


@pytest.mark.parametrize("name", NAMES)
def test_equal_drawings_give_equal_archives(name: str, quick: None, tmp_path: Path) -> None:
    first = write_archive(name, tmp_path / "one", jobs=1)
    second = write_archive(name, tmp_path / "two", jobs=1)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second)]
    assert digests[0] == digests[1]
    assert [path.name for path in first.parent.iterdir()] == [f"{name}.zip"]
    data = load_dataset(name, first)
    assert data.train["identity"].nunique() == 4 and data.query["identity"].nunique() == 5
    assert set(load_part_map(data.query["path"][0]).shape) == {128, 64}


def test_an_interrupted_drawing_leaves_the_old_archive(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mini-duke.zip").write_bytes(b"old")
    drawn = []

    def fail(*_: object, **__: object) -> None:
        drawn.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(miniatures, "render_person", fail)
    with pytest.raises(KeyboardInterrupt):
        write_archive("mini-duke", tmp_path, jobs=1)
    assert drawn and [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("name", NAMES)
def test_plans_do_not_change_between_calls(name: str) -> None:
    pd.testing.assert_frame_equal(make_plan(MINIATURES[name]), plan(name))


def test_wrong_requests() -> None:
    with pytest.raises(ValueError, match="mini-market, mini-duke"):
        plan("mini-something")
    with pytest.raises(ValueError, match="images 0 to"):
        draw_image("mini-market", 10**6)
    with pytest.raises(ValueError, match="nothing.jpg"):
        draw_image("mini-market", "nothing.jpg")
    with pytest.raises(ValueError, match="2 images end in that: detected/.*, labeled/"):
        draw_image("mini-cuhk03", "bounding_box_train/0001_c1_1.jpg")
    with pytest.raises(ValueError, match="jobs"):
        write_archive("mini-market", ".", jobs=0)


def test_contact_sheet() -> None:
    sheet = contact_sheet("mini-duke", identities=3, cameras=4)
    assert sheet.size == (4 * 68 - 4, 3 * 132 - 4)
    assert np.asarray(sheet).std() > 20
    same = contact_sheet(load_dataset("mini-duke"), identities=3, cameras=4)
    assert np.array_equal(np.asarray(sheet), np.asarray(same))


def test_command_line(quick: None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["synthesize", "mini-duke", "--out", str(tmp_path), "--jobs", "1", "--quiet"]) == 0
    assert "mini-duke.zip" in capsys.readouterr().out
    assert main(["synthesize", "mini-dude", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "'mini-dude'" in error and "mini-duke" in error
    assert main(["synthesize", "mini-duke", "--out", str(tmp_path), "--jobs", "0"]) == 2
    (tmp_path / "file").write_text("")
    assert main(["synthesize", "mini-duke", "--out", str(tmp_path / "file")]) == 2
    for wrong in ([], ["nothing"], ["synthesize", "--jobs", "two"]):
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2


def test_counts_are_put_between_their_marks(tmp_path: Path) -> None:
    page = tmp_path / "card.md"
    page.write_text("a\n<!-- counts: begin -->\nold\n<!-- counts: end -->\nz\n")
    replace_counts(page, "| new |\n")
    replace_counts(page, "| newer |\n")
    text = page.read_text()
    assert "new |" not in text and "| newer |" in text
    assert text.startswith("a\n") and text.endswith("\nz\n")
    page.write_text("no marks")
    with pytest.raises(ValueError, match="counts: begin"):
        replace_counts(page, "")

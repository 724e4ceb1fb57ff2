"""Plans, drawing and archives of the miniatures; the shipped archives against a new drawing."""

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from qaconv_lib.cli import main
from qaconv_lib.datasets import load_dataset, load_part_map
from qaconv_lib.miniatures import drawing
from qaconv_lib.miniatures.domains import PART_NAMES
from qaconv_lib.miniatures.drawing import MINIATURES, draw_image, encode_image, plan, write_archive
from qaconv_lib.miniatures.network import Habits, build_network, simulate
from qaconv_lib.miniatures.plans import Miniature
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


def counts_markdown() -> str:
    """The tables of the data card."""
    names = ("mini-market", "mini-duke", "mini-cuhk03", "mini-cuhk03-labeled", "mini-msmt17")
    datasets = [load_dataset(name, DATA) for name in names]
    head = "| dataset | split | images | identities | cameras | per identity: least, median, most |"
    lines = [head, "|---|---|---|---|---|---|"]
    for dataset in datasets:
        for split, row in dataset.summary().iterrows():
            table = dataset.splits[str(split)]
            people = table["identity"][table["identity"] != dataset.distractor_identity]
            each = people.value_counts()
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


def test_the_data_card_counts_what_is_shipped() -> None:
    page = (CHECKOUT / "book" / "data_card.md").read_text(encoding="utf-8")
    assert counts_markdown() in page, f"it should have:\n{counts_markdown()}"


@pytest.mark.slow
def test_several_processes_draw_the_same() -> None:
    table = plan("mini-cuhk03")
    paths = table["path"][table["camera"] == 0][:2].tolist()
    with drawing.mapped(partial(encode_image, "mini-cuhk03"), paths, 2) as several:
        assert list(several) == [encode_image("mini-cuhk03", path) for path in paths]


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


# Archives of a few people ------------------------------------------------------------------------


def tiny(name: str) -> Miniature:
    habits = Habits(visits=(3, 4))
    return replace(
        MINIATURES[name], train_identities=4, test_identities=5, families=(2, 2),
        distractors=min(3, MINIATURES[name].distractors), train_habits=habits,
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

    monkeypatch.setattr(drawing, "render_person", box)
    monkeypatch.setattr(drawing, "render_background", box)
    for name in NAMES:
        monkeypatch.setitem(MINIATURES, name, tiny(name))
    drawing._world.cache_clear()
    yield
    drawing._world.cache_clear()


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


def test_an_interrupted_drawing_leaves_the_old_archive(quick, tmp_path, monkeypatch) -> None:
    (tmp_path / "mini-duke.zip").write_bytes(b"old")
    monkeypatch.setattr(drawing, "render_person", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_archive("mini-duke", tmp_path, jobs=1)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_wrong_requests() -> None:
    for wrong in (10**6, "nothing.jpg"):
        with pytest.raises(ValueError, match=str(wrong)):
            draw_image("mini-market", wrong)


def test_contact_sheet() -> None:
    sheet = drawing.contact_sheet(load_dataset("mini-duke", DATA), identities=3, cameras=4)
    assert sheet.size == (4 * 68 - 4, 3 * 132 - 4)
    assert np.asarray(sheet).std() > 20


def test_command_line(quick: None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["synthesize", "mini-duke", "--out", str(tmp_path), "--jobs", "1", "--quiet"]) == 0
    assert "mini-duke.zip" in capsys.readouterr().out


# The camera network -------------------------------------------------------------------------------


@pytest.mark.parametrize(("cameras", "seconds"), [(2, 300.0), (15, 3000.0)])
def test_everybody_is_seen_by_two_cameras_in_time(cameras: int, seconds: float) -> None:
    rng = np.random.default_rng(2)
    network = build_network(cameras, rng, 2, seconds)
    table = simulate(network, 80, rng, Habits())
    assert sorted(table["identity"].unique()) == list(range(80))
    assert table.groupby("identity")["camera"].nunique().min() >= 2
    assert table["time"].min() >= 0 and table["time"].max() <= seconds + 1e-6
    assert set(table["session"]) <= {0, 1} and set(table["camera"]) <= set(range(cameras))

"""mini-world: drawing on demand, interruption, loading, and unions of training sets."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qaconv_lib.cli import main
from qaconv_lib.datasets import load_dataset
from qaconv_lib.miniatures.cameras import FRAME
from qaconv_lib.miniatures.domains import DOMAINS
from qaconv_lib.miniatures.prints import PRINTS, printed
from qaconv_lib.miniatures.render import (
    detect,
    inside_frame,
    place,
    shadow_factor,
    spot,
    tight_window,
)
from qaconv_lib.miniatures.textures import weave
from qaconv_lib.miniatures.wild import photograph
from qaconv_lib.miniatures.world import World, draw_image, person, plan, view, write_world

SMALL = World(identities=3, cameras=3, seed=5)
DATA = Path(__file__).resolve().parent.parent / "data"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(SMALL, tmp_path_factory.mktemp("world"), jobs=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_splits_share_neither_people_nor_cameras(drawn: Path) -> None:
    data = load_dataset("mini-world-3", drawn.parent)
    train, query, gallery = data.train, data.query, data.gallery
    assert train["identity"].nunique() == 3 and train["camera"].nunique() == 3
    assert set(query["identity"]) <= set(gallery["identity"]) and len(query)
    for column in ("identity", "camera"):
        assert not set(train[column]) & (set(query[column]) | set(gallery[column]))
    assert not data.has_time
    whole = load_dataset("mini-world-3-all", drawn.parent)
    assert len(whole.train) == len(plan(SMALL)) and whole.train["identity"].nunique() == 5


def test_images_differ_in_size_and_are_neither_black_nor_flat(drawn: Path) -> None:
    images = [Image.open(path) for path in load_dataset("mini-world-3", drawn).train["path"]]
    assert len({image.size for image in images}) > 3
    for image in images:
        pixels = np.asarray(image, float)
        assert image.height >= 80 and pixels.mean() > 8 and pixels.std() > 3


def test_an_interrupted_drawing_is_completed(drawn: Path, tmp_path: Path) -> None:
    """To the same files, by one process as by two; until then it is not loaded."""
    whole = contents(drawn)
    for name, content in list(whole.items())[::7]:
        (tmp_path / "mini-world-3" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mini-world-3" / name).write_bytes(content)
    for name in ("query", "bounding_box_test", "bounding_box_train"):
        (tmp_path / "mini-world-3" / name).mkdir(exist_ok=True)
    (tmp_path / "mini-world-3" / "manifest.json").write_bytes(whole["manifest.json"])
    with pytest.raises(ValueError, match="synthesize world"):
        load_dataset("mini-world-3", tmp_path)
    options = ["--identities", "3", "--cameras", "3", "--seed", "5", "--out", str(tmp_path)]
    assert main(["synthesize", "world", "--jobs", "1", "--quiet", *options]) == 0
    assert contents(tmp_path / "mini-world-3") == whole


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    options = ["world", "--identities", "60", "--jobs", "2", "--quiet", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "qaconv_lib", "synthesize", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while process.poll() is None and not list(tmp_path.rglob("*.jpg")):
            time.sleep(0.1)
        process.terminate()
        process.communicate(timeout=20)  # as long as a worker lives, the pipe is open
    assert process.returncode != 0
    assert len(list(tmp_path.rglob("*.jpg"))) < len(plan(World(60)))


def test_another_world_in_the_folder_is_not_mixed_with_this_one(drawn: Path) -> None:
    for other in (replace(SMALL, identities=2), replace(SMALL, seed=6)):
        with pytest.raises(ValueError, match="'identities': 3"):
            write_world(other, drawn.parent)
    with pytest.raises(ValueError, match="cameras"):
        World(cameras=1)


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    for name in ("query", "bounding_box_test", "bounding_box_train"):
        (tmp_path / "mini-world" / name).mkdir(parents=True)
    for text in ("", "[]", json.dumps({"images": 3})):
        (tmp_path / "mini-world" / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json .*synthesize world"):
            load_dataset("mini-world", tmp_path)
    for text in ("", "[]", '{"world": 3}', '{"world": {"identities": "3"}}'):
        (tmp_path / "mini-world-3").mkdir(exist_ok=True)
        (tmp_path / "mini-world-3" / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json .*remove it"):
            write_world(SMALL, tmp_path)


def test_a_smaller_world_is_part_of_a_larger_one() -> None:
    large, small = (plan(replace(SMALL, identities=count)) for count in (30, 3))
    both = large[(large["population"] == "train") & (large["person"] < 3)]
    own = small[small["population"] == "train"]
    assert set(small["path"]) <= set(large["path"])  # so that it can grow
    columns = ["person", "camera", "session", "heading", "path"]
    assert both[columns].reset_index(drop=True).equals(own[columns].reset_index(drop=True))
    row = own.iloc[0].to_dict()
    assert draw_image(SMALL, row) == draw_image(replace(SMALL, identities=30), row)
    assert draw_image(SMALL, row) != draw_image(replace(SMALL, seed=6), row)


def test_a_camera_looks_elsewhere_on_another_day() -> None:
    (first, look), (second, same) = view(SMALL, 0, 0), view(SMALL, 0, 1)
    assert look == same and first.focal == second.focal
    assert first.scene_seed != second.scene_seed and first.sun_azimuth != second.sun_azimuth


@pytest.mark.parametrize("kind", PRINTS)
def test_prints_show_several_colours(kind: str) -> None:
    colours = ((0.2, 0.2, 0.5), (0.9, 0.9, 0.9), (0.6, 0.1, 0.1))
    bitmap = printed(kind, 3, colours)
    assert bitmap.shape == (64, 64, 3) and 0 <= bitmap.min() and bitmap.max() <= 1
    assert bitmap.std(axis=(0, 1)).max() > 0.005
    assert not any(kind in domain.patterns for domain in DOMAINS.values())


def images(index: int, *changes: dict) -> list[np.ndarray]:
    """One scene per set of changed clothes, of one person alone under one camera."""
    row = plan(SMALL).iloc[8 * index].to_dict()
    camera, look = view(SMALL, row["camera"], row["session"])
    look = replace(look, domain=replace(look.domain, occlusion=0.0, company=0.0))
    shown = person(SMALL, row["population"], row["person"])
    others = [person(SMALL, "passer-by", 0)]
    drawn = []
    for change in changes:
        rng = np.random.default_rng(index)
        dressed = replace(shown, top=replace(shown.top, **change))
        image = photograph(dressed, camera, look, rng, heading=row["heading"], passers_by=others)
        assert look.rows[0] - 1 <= image.height <= look.rows[1] + 1
        assert not look.shape or image.width / image.height == look.shape
        drawn.append(np.asarray(image, float))
    return drawn


@pytest.mark.parametrize("index", range(6))
def test_the_person_is_in_the_middle_of_the_image(index: int) -> None:
    red, blue = ({"colour": c, "sleeve_colour": c} for c in ((0.8, 0.1, 0.1), (0.1, 0.1, 0.8)))
    plain = {"pattern": replace(person(SMALL, "train", 0).top.pattern, kind="plain")}
    first, second, again = images(index, red | plain, blue | plain, red | plain)
    assert np.array_equal(first, again)
    assert first.std() > 5 and 5 < first.mean() < 250
    tint = (first - second)[..., 0] - (first - second)[..., 2]
    rows, columns = tint.shape
    middle = tint[rows // 6 : rows // 2, columns // 3 : -(columns // 3)]
    assert middle.mean() > 10 and middle.mean() > 3 * np.abs(tint[:, [0, -1]]).mean()


@pytest.mark.parametrize("kind", PRINTS)
def test_a_print_covers_the_cloth_and_repeats(kind: str) -> None:
    pattern = replace(person(SMALL, "train", 0).top.pattern, kind=kind, period=0.05)
    where = np.random.default_rng(0).uniform(0, 0.3, (2, 500))
    cloth = weave(pattern, (0.2, 0.3, 0.6), *where)
    assert cloth.std(axis=0).max() > 0.005
    close = np.isclose(cloth, weave(pattern, (0.2, 0.3, 0.6), where[0] + 0.4, where[1])).all(axis=1)
    assert close.mean() > 0.95  # the others lie on the border of two texels
    same, other = ({"pattern": replace(pattern, kind=k)} for k in ("plain", kind))
    assert np.abs(np.subtract(*images(0, same, other))).mean() > 0.02


def test_bodies_darken_the_ground_beside_them_and_boxes_stay_in_the_frame() -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        camera, look = view(SMALL, number % 3, number % 4)
        camera = replace(camera, sun=1.0, sun_elevation=1.0)
        shown = person(SMALL, "train", number % 3)
        placed = place(shown, look.domain, spot(camera, rng), 0.5, None, rng)
        window = tight_window(placed, camera)
        factor = shadow_factor(camera, window, [placed], (96, 48))
        assert factor.shape == (96, 48) and factor.min() > 0 and factor.max() < 1.1
        assert factor[64:].min() < 0.8 < factor[:32].min()
        left, top, right, bottom = inside_frame(detect(window, look.domain, rng))
        assert -FRAME[1] / 2 <= left < right <= FRAME[1] / 2
        assert -FRAME[0] / 2 <= top < bottom <= FRAME[0] / 2


def test_without_data_the_command_that_draws_it_is_named(tmp_path: Path) -> None:
    for name in ("mini-world", "mini-world-all", "mini-world+mini-duke"):
        with pytest.raises(FileNotFoundError, match="synthesize mini-world"):
            load_dataset(name, tmp_path)
    with pytest.raises(
        FileNotFoundError, match="mini-world-10 with .*synthesize world --cameras 10"
    ):
        load_dataset("mini-world-10", tmp_path)
    for name in (
        "mini-world-x",
        "mini-world-1",
        "mini-world-40",
        "mini-worldly",
        "mini-world-2/..",
    ):
        with pytest.raises(ValueError, match="unknown dataset"):
            load_dataset(name, tmp_path)


def test_a_world_is_not_taken_for_another(drawn: Path) -> None:
    assert len(load_dataset("mini-world-3", drawn).train)
    with pytest.raises(FileNotFoundError, match="mini-world-4"):
        load_dataset("mini-world-4", drawn)


def test_a_union_keeps_people_and_cameras_apart(drawn: Path, monkeypatch) -> None:
    monkeypatch.setenv("QACONV_DATA", f"{drawn.parent}")
    parts = [load_dataset(name) for name in ("mini-world-3", "mini-market", "mini-duke")]
    union = load_dataset("mini-world-3+mini-market+mini-duke")
    assert union.train["path"].tolist() == [path for part in parts for path in part.train["path"]]
    for column in ("identity", "camera"):
        each = [part.train[column].nunique() for part in parts]
        assert union.train[column].nunique() == sum(each)
    assert sorted(union.train["identity"].unique()) == list(range(403))
    assert not union.has_test
    known = union.train.groupby("identity")["path"].apply(frozenset)
    assert set(parts[1].train.groupby("identity")["path"].apply(frozenset)) <= set(known)


@pytest.mark.parametrize(
    "name",
    [
        "mini-duke+mini-duke",
        "mini-duke+mini-duke-all",
        "mini-cuhk03+mini-cuhk03-labeled-all",
        "mini-world+mini-world-10",
    ],  # who share people
)
def test_a_union_with_one_dataset_twice_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="images twice"):
        load_dataset(name, DATA)

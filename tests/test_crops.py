"""From frames to crops, by boxes and by a detector without trained weights."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import detection

from qaconv_lib import crops
from qaconv_lib.__main__ import main
from qaconv_lib.crops import Box, crop_frames, cut_boxes, make_detector, read_boxes
from qaconv_lib.datasets import load_image
from qaconv_lib.photographs.files import add_times, list_photographs, photograph_table, read_times

SMALL = "ssdlite320_mobilenet_v3_large"


@pytest.fixture
def frames(tmp_path):
    """Two frames of noise, a box in the first and two in the second."""
    rng = np.random.default_rng(0)
    (tmp_path / "frames").mkdir()
    for number in range(2):
        pixels = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "frames" / f"рамка {number}.png")
    (tmp_path / "boxes.csv").write_text(
        "file,x,y,width,height\nрамка 0.png,10,20,16,30\nframes/рамка 1.png,0,0,10,20\n"
        "рамка 1.png,70,40,40.4,40\n",
        "utf-8",
    )
    return tmp_path


def crop(frames, *more):
    folders = [str(frames / "frames"), "--output", str(frames / "crops")]
    return main(["crop", *folders, "--quiet", "--device", "cpu", *more])


def test_boxes_outside_of_their_frames_are_counted(frames):
    boxes = {name: [Box(0, 0, 20, 20)] for name in ("рамка 0.png", "рамка 1.png")}
    boxes["рамка 1.png"].append(Box(900, 0, 20, 20))
    with pytest.warns(UserWarning, match=r"^1 of 3 boxes .* the first of .*рамка 1\.png"):
        pictures = list_photographs(frames / "frames")
        table = crop_frames(pictures, frames / "some", boxes)
    assert len(table) == 2


def test_crops_are_the_boxes(frames):
    assert crop(frames, "--boxes", str(frames / "boxes.csv"), "--fps", "2", "--camera", "gate") == 0
    table = pd.read_csv(frames / "crops" / "crops.csv")
    assert table["file"].tolist() == ["000001_01.png", "000002_01.png", "000002_02.png"]
    assert table["seconds"].tolist() == [0, 0.5, 0.5] and set(table["camera"]) == {"gate"}
    sides = table[["x", "y", "width", "height"]].to_numpy().tolist()
    assert sides == [[10, 20, 16, 30], [0, 0, 10, 20], [70, 40, 10, 20]]  # the last cut off
    for row in table.itertuples():
        frame = np.asarray(load_image(row.frame))
        expected = frame[row.y : row.y + row.height, row.x : row.x + row.width]
        assert np.array_equal(np.asarray(load_image(frames / "crops" / row.file)), expected)
    timed = add_times(
        photograph_table(list_photographs(frames / "crops")),
        read_times(frames / "crops" / "crops.csv"),
    )
    assert timed["seconds"].tolist() == [0, 0.5, 0.5]


def test_too_little_of_a_box_is_left_out():
    boxes = [Box(-20, 0, 27.4, 40), Box(-20, 0, 28, 40), Box(200, 0, 30, 30)]
    ((cut, image),) = cut_boxes(Image.new("RGB", (50, 30)), boxes)
    assert cut[:4] == (0, 0, 8, 30) and image.size == (8, 30)


def test_a_detector_keeps_sure_people(monkeypatch):
    class Network(torch.nn.Module):
        def forward(self, images):
            assert images[0].shape == (3, 30, 50) and float(images[0].max()) <= 1
            corners = torch.tensor([[1.0, 2, 11, 22], [0, 0, 9, 9], [5, 5, 20, 25], [3, 3, 9, 9]])
            labels, scores = torch.tensor([1, 3, 1, 1]), torch.tensor([0.81, 0.99, 0.9, 0.7])
            return [{"boxes": corners, "labels": labels, "scores": scores}]

    monkeypatch.setattr(crops, "_fetch", lambda name: Network())
    found = make_detector()(Image.new("RGB", (50, 30), "white"))
    assert [tuple(box[:4]) for box in found] == [(5, 5, 15, 20), (1, 2, 10, 20)]
    assert found[0].score == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_weights_from_a_file(tmp_path, name):
    torch.manual_seed(0)
    network = detection.__dict__[SMALL](weights=None, weights_backbone=None)
    save = save_file if name.endswith("s") else torch.save
    save(dict(network.state_dict()), tmp_path / name)
    detect = make_detector(SMALL, weights=tmp_path / name, least_score=0.0)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8))
    with torch.no_grad():
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        found = network.eval()([pixels])[0]
    assert len(detect(image)) == int((found["labels"] == 1).sum())


def test_without_a_network_the_way_out_is_named(frames, monkeypatch, capsys):
    def refuse(**options):
        raise OSError("no route")

    monkeypatch.setitem(detection.__dict__, SMALL, refuse)
    assert crop(frames, "--detector", SMALL) == 2
    said = capsys.readouterr().err
    assert "could not be fetched (no route)" in said and "--boxes" in said
    assert not (frames / "crops").exists()


@pytest.mark.parametrize(
    "boxes, message",
    [
        ("file,x,y,width\nрамка 0.png,1,1,9\n", "lacks the column height"),
        ("file,x,y,width,height\nрамка 0.png,1,1,0,9\n", "without width or height in row 1"),
        ("file,x,y,width,height\nрамка 0.png,1,one,9,9\n", "'one' for y in row 1"),
        ("file,x,y,width,height\nother.png,1,1,9,9\n", "other.png, which is not among the frames"),
        ("file,x,y,width,height\nрамка 0.png,900,1,9,9\n", "1 of 1 boxes show less than 8"),
    ],
)
def test_bad_boxes_are_named(frames, capsys, boxes, message):
    (frames / "boxes.csv").write_text(boxes, "utf-8")
    assert crop(frames, "--boxes", str(frames / "boxes.csv")) == 2
    assert message in capsys.readouterr().err


def test_bad_crops_are_refused(frames, capsys):
    (frames / "bad.pth").write_text("hello")
    (frames / "film.MP4").write_text("hello")
    boxes = str(frames / "boxes.csv")
    for options, message in (
        (["--boxes", boxes, "--fps", "0"], "frames_per_second must be positive"),
        (["--boxes", boxes, "--detector", SMALL], "boxes or a detector, not both"),
        (["--detector", "yolo"], "the detector must be one of"),
        (["--detector", SMALL, "--weights", str(frames / "bad.pth")], "does not hold weights"),
        (["--detector", SMALL, "--weights", str(frames / "none.pth")], "there is no file"),
        (["--boxes", str(frames / "none.csv")], "there is no file"),
    ):
        assert crop(frames, *options) == 2
        assert message in capsys.readouterr().err
        assert not (frames / "crops").exists()
    with pytest.raises(ValueError, match="film.MP4 is a video; make frames of it first"):
        crop_frames([frames / "film.MP4"], frames / "crops", read_boxes(boxes))
    shutil.copytree(frames / "frames", frames / "crops")
    assert crop(frames, "--boxes", boxes) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_folder_of_videos_is_told_what_to_do(frames, capsys):
    for path in (frames / "frames").iterdir():
        path.unlink()
    (frames / "frames" / "film.MP4").touch()
    assert crop(frames, "--boxes", str(frames / "boxes.csv")) == 2
    assert "film.MP4 is a video; make frames of it first" in capsys.readouterr().err


def test_weights_of_another_detector_are_refused(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "a.safetensors").write_text("hello")
    for name in ("a.pth", "list.pth", "a.safetensors"):
        with pytest.raises(ValueError, match="does not hold weights of the detector"):
            make_detector(SMALL, weights=tmp_path / name)


def test_all_crops_or_none(frames, capsys):
    boxes = str(frames / "boxes.csv")
    whole = (frames / "frames" / "рамка 1.png").read_bytes()
    (frames / "frames" / "рамка 1.png").write_bytes(whole[: len(whole) // 2])
    assert crop(frames, "--boxes", boxes) == 2
    assert "рамка 1.png" in capsys.readouterr().err and not (frames / "crops").exists()
    (frames / "crops").mkdir()
    assert crop(frames, "--boxes", boxes) == 2 and not list((frames / "crops").iterdir())
    (frames / "frames" / "рамка 1.png").write_bytes(whole)
    assert crop(frames, "--boxes", boxes) == 0
    names = sorted(path.name for path in (frames / "crops").iterdir())
    assert names == ["000001_01.png", "000002_01.png", "000002_02.png", "crops.csv"]


def test_frames_of_one_name_cannot_share_boxes(frames):
    (frames / "frames" / "more").mkdir()
    shutil.copy(frames / "frames" / "рамка 0.png", frames / "frames" / "more")
    with pytest.raises(ValueError, match="several frames are called рамка 0.png"):
        crop_frames(
            list_photographs(frames / "frames"), frames / "crops", read_boxes(frames / "boxes.csv")
        )


def test_frames_come_in_the_order_of_their_numbers(tmp_path):
    names = ["b 1.png", "frame 2.png", "frame 10.png", "frame 10b.png", "x9/1.png", "x10/0.png"]
    for name in reversed(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    found = [path.relative_to(tmp_path).as_posix() for path in list_photographs(tmp_path)]
    assert found == names

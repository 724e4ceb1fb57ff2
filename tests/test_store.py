"""The store on disk: what is written comes back, and damage is named."""

import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from qaconv_lib.config import TrainingConfig
from qaconv_lib.models import ReidModel, load_model, save_model
from qaconv_lib.scale.store import MapStore, model_fingerprint, pool_maps

SHAPE = (6, 4, 2)
MODEL = "0" * 16


def unit_maps(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, *SHAPE, generator=generator), dim=1)


def rows(count, first=0):
    return pd.DataFrame({"path": [f"{first + i}.jpg" for i in range(count)], "camera": 3})


@pytest.fixture
def filled(tmp_path):
    """A store of 5 and 3 images in two parts."""
    store = MapStore.create(tmp_path / "store", MODEL, SHAPE)
    maps = unit_maps(8)
    store.append(maps[:5], rows(5))
    store.append(maps[5:], rows(3, first=5))
    return store, maps


class TestWhatIsWritten:
    def test_comes_back(self, filled):
        store, maps = filled
        again = MapStore(store.folder, model=MODEL)
        for one in (store, again):
            assert len(one) == 8 and one.shape == SHAPE
            assert list(one.table["path"]) == [f"{i}.jpg" for i in range(8)]
            torch.testing.assert_close(one.vectors, pool_maps(maps.half()))
            torch.testing.assert_close(one.maps([7, 0, 5, 0]), maps[[7, 0, 5, 0]].half())

    def test_tables_come_back_as_they_were(self, tmp_path):
        table = pd.DataFrame(
            {
                "name": [" ", 'p\rq,"', "NA"],
                "track": ["0012", "0012b", ""],
                "seconds": [0.1, np.nan, 1e300],
                "identity": [-1, 0, 2**40],
                "late": [True, False, True],
            }
        )
        store = MapStore.create(tmp_path / "new", MODEL, SHAPE)
        for row in range(3):
            store.append(unit_maps(1), table.iloc[[row]])
        pd.testing.assert_frame_equal(MapStore(store.folder).table, table)

    def test_a_store_that_was_changed_elsewhere_is_left_alone(self, filled):
        store, maps = filled
        MapStore(store.folder).append(maps[:2], rows(2, first=8))
        with pytest.raises(ValueError, match="has changed since it was opened"):
            store.append(maps[:1], rows(1))
        assert list(MapStore(store.folder).table["path"][8:]) == ["8.jpg", "9.jpg"]


@pytest.mark.parametrize("step", range(1, 5))
def test_an_append_that_is_interrupted_changes_nothing(filled, monkeypatch, step):
    """Stopped just before its `step`-th file is in place, the last of which names the others."""
    store, maps = filled
    left, replace = [step], os.replace

    def stop(source, target):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", stop)
        store.append(unit_maps(4, seed=1), rows(4, first=8))
    again = MapStore(store.folder)
    assert len(again) == 8
    again.append(unit_maps(4, seed=1), rows(4, first=8))
    torch.testing.assert_close(again.maps(range(8)), maps.half())
    torch.testing.assert_close(again.maps(range(8, 12)), unit_maps(4, seed=1).half())


class TestDamage:
    @pytest.mark.parametrize("kind", ["maps.npy", "vectors.npy", "table.json"])
    def test_a_truncated_or_missing_file_is_named(self, filled, kind):
        path = filled[0].folder / f"part-000001.{kind}"
        path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(ValueError, match=f"part-000001.{kind}"):
            MapStore(filled[0].folder)
        path.unlink()
        with pytest.raises(FileNotFoundError, match=f"part-000001.{kind}"):
            MapStore(filled[0].folder)

    @pytest.mark.parametrize("old, new", [(b"\x93", b"x"), (b"{", b"("), (b"<f2", b"<i2")])
    def test_a_file_of_other_contents_is_named(self, filled, old, new):
        path = filled[0].folder / "part-000000.maps.npy"
        path.write_bytes(path.read_bytes().replace(old, new, 1))
        with pytest.raises(ValueError, match="part-000000.maps.npy is damaged"):
            MapStore(filled[0].folder)

    @pytest.mark.parametrize(
        "change",
        [b"", b"{", b"\xff", b"[]", {"version": 2}, {"parts": [1]}, {"shape": [6, 4, 0]}]
        + [{"name": "../other/part-000000"}, {"images": 0}, {"bytes": {}}],
    )
    def test_a_damaged_manifest_is_named(self, filled, change):
        path = filled[0].folder / "store.json"
        if isinstance(change, dict):
            manifest = json.loads(path.read_text())
            (manifest if change.keys() <= manifest.keys() else manifest["parts"][0]).update(change)
            change = json.dumps(manifest).encode()
        path.write_bytes(change)
        with pytest.raises(ValueError, match="store.json|version 2"):
            MapStore(filled[0].folder)


class TestBadInput:
    def test_a_store_of_another_model_and_a_folder_without_one(self, filled, tmp_path):
        with pytest.raises(ValueError, match="maps of model 0{16}, not of def"):
            MapStore(filled[0].folder, model="def")
        with pytest.raises(FileNotFoundError, match="store.json"):
            MapStore(tmp_path)

    def test_a_folder_in_use_is_left_alone(self, tmp_path):
        (tmp_path / "note.txt").write_text("mine")
        with pytest.raises(FileExistsError, match="not empty"):
            MapStore.create(tmp_path, MODEL, SHAPE)
        assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]

    @pytest.mark.parametrize(
        ("maps", "table", "error", "message"),
        [
            (unit_maps(2)[:, :5], rows(2), ValueError, r"maps must have shape \(n, 6, 4, 2\)"),
            (unit_maps(2), rows(3), ValueError, "2 maps need 2 rows, got 3"),
            (unit_maps(2) * 1.5, rows(2), ValueError, "row 0 must have channels of unit length"),
            (unit_maps(2) * torch.nan, rows(2), ValueError, "row 0 must have channels"),
            (np.zeros((2, *SHAPE)), rows(2), TypeError, "maps must be a torch.Tensor"),
            (unit_maps(2), rows(2)[["path"]], ValueError, "the store has columns path, camera"),
            (unit_maps(2), rows(2).assign(camera=["a", None]), TypeError, "'camera' holds"),
            (unit_maps(2), pd.DataFrame([[1, 2], [3, 4]]), ValueError, "the new rows 0, 1"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, filled, maps, table, error, message):
        with pytest.raises(error, match=message):
            filled[0].append(maps, table)
        assert len(MapStore(filled[0].folder)) == 8

    def test_locations_where_nothing_was_found_are_kept(self, filled):
        maps = unit_maps(2)
        maps[0, :, 0, 0] = 0
        filled[0].append(maps, rows(2))
        torch.testing.assert_close(MapStore(filled[0].folder).maps([8, 9]), maps.half())

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [([8], IndexError), ([-1], IndexError), ([[0, 1]], ValueError), ([0.5], TypeError)],
    )
    def test_rows_are_checked(self, filled, wrong, error):
        with pytest.raises(error, match="rows must"):
            filled[0].maps(wrong)


def test_a_model_and_its_file_have_one_fingerprint(tmp_path):
    config = TrainingConfig(backbone="resnet18", pretrained=False, height=32, width=16)
    models = [ReidModel(config, classes) for classes in (3, 3)]
    save_model(tmp_path / "model.safetensors", models[0])
    again = load_model(tmp_path / "model.safetensors")
    assert model_fingerprint(models[0]) == model_fingerprint(again)
    assert model_fingerprint(models[0]) != model_fingerprint(models[1])
    assert np.char.isalnum(model_fingerprint(again)) and len(model_fingerprint(again)) == 16

"""Weights from elsewhere: what is read, what is refused, where published files are looked for."""

from __future__ import annotations

import hashlib
import urllib.error
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from qaconv_lib import backbones as weights
from qaconv_lib.backbones import check_fit, fetch_weights, read_weights

TENSORS = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.ones(2)}


def equal(found, expected=TENSORS):
    return set(found) == set(expected) and all(torch.equal(found[k], expected[k]) for k in found)


class TestRead:
    @pytest.mark.parametrize("entry", [None, "state_dict", "model"])
    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_state_dict_alone_wrapped_or_of_data_parallel(self, tmp_path, entry, prefix):
        content = {prefix + key: value for key, value in TENSORS.items()}
        torch.save({entry: content, "epoch": 3} if entry else content, tmp_path / "w.pth")
        assert equal(read_weights(tmp_path / "w.pth"))

    def test_safetensors(self, tmp_path):
        save_file(TENSORS, tmp_path / "w.safetensors")
        assert equal(read_weights(tmp_path / "w.safetensors"))

    def test_a_name_that_only_some_share_is_no_prefix(self, tmp_path):
        tensors = {"module.weight": torch.ones(1), "head.weight": torch.ones(1)}
        torch.save(tensors, tmp_path / "w.pth")
        assert equal(read_weights(tmp_path / "w.pth"), tensors)

    def test_no_code_in_a_file_is_run(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return Path.touch, (tmp_path / "sprung",)

        torch.save({"conv.weight": Trap()}, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=r"w\.pth is damaged.*or holds objects that run code"):
            read_weights(tmp_path / "w.pth")
        assert not (tmp_path / "sprung").exists()

    @pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
    @pytest.mark.parametrize("content", [b"", b"<html>404</html>", bytes(range(256))])
    def test_file_of_something_else(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} is damaged"):
            read_weights(tmp_path / name)

    @pytest.mark.parametrize("save, name", [(torch.save, "w.pth"), (save_file, "w.safetensors")])
    def test_truncated_file(self, tmp_path, save, name):
        save(TENSORS, tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            read_weights(tmp_path / name)

    @pytest.mark.parametrize(
        "content, message",
        [
            (torch.ones(2), "holds no state dict, but a Tensor"),
            ({}, "holds no state dict, but a dict"),
            ({"epoch": 3}, "'epoch' is a int, not a tensor"),
            ({"state_dict": {"a": {"b": 1}}}, "'a' is a dictionary with b, not a tensor"),
        ],
    )
    def test_no_state_dict(self, tmp_path, content, message):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=rf"w\.pth holds.*{message}|{message}"):
            read_weights(tmp_path / "w.pth")

    @pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
    def test_missing_file(self, tmp_path, name):
        with pytest.raises(FileNotFoundError, match=name):
            read_weights(tmp_path / name)
        with pytest.raises(FileNotFoundError, match="a folder"):
            read_weights(tmp_path)


class TestFetch:
    content = b"weights"
    digits = hashlib.sha256(content).hexdigest()[:8]
    name = f"net-{digits}.pth"

    @pytest.fixture
    def places(self, tmp_path, monkeypatch):
        """A data folder and PyTorch's cache, both empty."""
        monkeypatch.setattr(weights, "data_folders", lambda: [tmp_path / "data"])
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setattr(torch.hub, "_hub_dir", None)
        return tmp_path / "data" / "weights", tmp_path / "torch" / "hub" / "checkpoints"

    @pytest.mark.parametrize("place", [0, 1])
    def test_a_file_that_is_there_is_not_fetched(self, places, monkeypatch, place):
        places[place].mkdir(parents=True)
        (places[place] / self.name).write_bytes(self.content)
        monkeypatch.setattr(torch.hub, "download_url_to_file", None)  # would fail if called
        assert fetch_weights(f"https://example.org/{self.name}", "net") == places[place] / self.name

    def test_what_is_fetched_is_kept_and_checked(self, places, tmp_path):
        source = tmp_path / "site" / self.name
        source.parent.mkdir()
        source.write_bytes(self.content)
        assert fetch_weights(source.as_uri(), "net") == places[1] / self.name
        source.unlink()
        assert fetch_weights(source.as_uri(), "net").read_bytes() == self.content

    def test_a_file_with_other_digits_is_thrown_away(self, places, tmp_path):
        source = tmp_path / "site" / "net-00000000.pth"
        source.parent.mkdir()
        source.write_bytes(self.content)
        with pytest.raises(ConnectionError, match="invalid hash"):
            fetch_weights(source.as_uri(), "net")
        assert not list(places[1].iterdir())

    def test_no_network_says_what_to_do(self, places, monkeypatch):
        def fail(*_, **__):
            raise urllib.error.URLError("no route to host")

        monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
        with pytest.raises(ConnectionError) as caught:
            fetch_weights("https://example.org/net-0123abcd.pth", "net")
        message = str(caught.value)
        assert "weights of net" in message and "https://example.org/net-0123abcd.pth" in message
        assert all(str(place) in message for place in places)
        assert "--weights (in Python, weights=)" in message and "pretrained=False" in message


def test_everything_that_does_not_fit_is_named():
    wanted = {f"a{i}": torch.ones(2) for i in range(9)} | {
        "b": torch.ones(2, 3),
        "c": torch.ones(1),
    }
    found = {"b": torch.ones(3), "d": torch.ones(1)}
    with pytest.raises(ValueError) as caught:
        check_fit(found, wanted, "x.pth", "resnet18", may_lack="c".__eq__)
    assert str(caught.value) == (
        "x.pth does not hold the weights of resnet18; missing: a0, a1, a2 and 6 more; "
        "left over: d; misshapen: b of shape (3,), the model wants (2, 3)"
    )
    fits = {**wanted, "d": torch.ones(1)}
    check_fit(fits, wanted, "x.pth", "resnet18", may_lack="c".__eq__, may_add="d".__eq__)

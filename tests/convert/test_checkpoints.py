# SPDX-License-Identifier: Apache-2.0
"""Hostile and broken checkpoint files: nothing in them is run, and each gives an error that says what it is."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import original_checkpoints as published
import pytest
import torch

from pcvideo._files import WeightsCorruptError
from pcvideo.cli.main import main
from pcvideo.convert import read_checkpoint


class Bomb:
    """Makes a file when it is unpickled without care."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def bombs(mark):
    return {
        "os.system": Bomb(os.system, f"touch {mark}"),
        "eval": Bomb(eval, f"open({str(mark)!r}, 'w')"),
        "open": Bomb(open, str(mark), "w"),
        "a class that numpy has": Bomb(np.memmap, str(mark), "uint8", "w+", 0, (8,)),
        "getattr": Bomb(getattr, (), "__class__"),
        "torch.load": Bomb(torch.load, str(mark)),
    }


@pytest.mark.parametrize("kind", bombs(""))
@pytest.mark.parametrize("form", ["zip", "old", "plain", "protocol 0"])
def test_a_pickle_that_calls_something_is_refused_and_not_run(tmp_path, kind, form, capsys):
    mark, path = tmp_path / "mark", tmp_path / "best.pth"
    content = {
        "model_state": published.mspn(channels=(2, 3, 4), levels=2, in_channels=1, hidden=2),
        "info": bombs(mark)[kind],
    }
    if form in ("zip", "old"):
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    else:
        path.write_bytes(pickle.dumps(content["info"], protocol=0 if form == "protocol 0" else 2))
    # The bomb is a real one.
    if kind == "os.system" and form == "plain":
        pickle.loads(path.read_bytes())
        assert mark.exists()
        mark.unlink()
    with pytest.raises(WeightsCorruptError) as caught:
        read_checkpoint(path)
    assert not mark.exists()
    words = str(caught.value)
    assert str(path) in words
    # torch's own message ends in advice to read the file without care.
    assert "weights_only" not in words
    assert main(["convert", str(path), str(tmp_path / "out")]) == 2
    assert not mark.exists()
    assert not (tmp_path / "out").exists()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_error_names_what_a_pickle_asks_for(tmp_path):
    torch.save({"a": torch.ones(1), "b": Bomb(os.system, "true")}, tmp_path / "a.pt")
    with pytest.raises(WeightsCorruptError, match=f"asks to run {os.name}.system, which was not done"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("spelling", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
@pytest.mark.parametrize("kind", ["?", "i1", "u2", "i4", "i8", "f2", "f4", "f8"])
def test_numbers_of_numpy_under_the_names_of_its_versions_are_read(tmp_path, spelling, kind):
    content = {"loss": np.ones((), kind)[()], "model_state": {"a": torch.arange(3.0)}}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    raw = (tmp_path / "a.pt").read_bytes()
    for known in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        raw = raw.replace(b"c" + known + b"\n", b"c" + spelling + b"\n")
    assert spelling in raw
    (tmp_path / "a.pt").write_bytes(raw)
    parts = read_checkpoint(tmp_path / "a.pt")
    assert parts.keys() == {"model_state"}
    assert torch.equal(parts["model_state"]["a"], torch.arange(3.0))


def test_an_object_in_the_clothes_of_a_numpy_number_is_refused(tmp_path):
    make = np.float64(0).__reduce__()[0]
    for kind in (np.dtype("O"), np.dtype([("a", "f4")]), np.dtype("U4"), np.dtype("M8[s]")):
        torch.save({"a": torch.ones(1), "b": Bomb(make, kind, b"xxxxxxxx")}, tmp_path / "a.pt")
        with pytest.raises(WeightsCorruptError, match="expected a kind of number"):
            read_checkpoint(tmp_path / "a.pt")


def good(path):
    torch.save({"model_state": {"a": torch.rand(50, 50)}}, path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: b"", "no complete safetensors file"),
        (lambda raw: raw[:5], "no complete checkpoint|no complete safetensors"),
        (lambda raw: raw[: len(raw) // 2], "no complete checkpoint"),
        (lambda raw: raw[:-10], "no complete checkpoint"),
        (lambda raw: b"\x80\x02", "no complete checkpoint"),
        (lambda raw: b"\x80\x02" + os.urandom(64), "no complete checkpoint"),
        (lambda raw: struct.pack("<Q", 2**63) + b"{}", "no complete safetensors file"),
        (lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
        (lambda raw: b"<html>not found</html>", "no complete safetensors file"),
    ],
    ids=["empty", "five bytes", "half", "cut", "two bytes", "noise", "huge header", "LFS pointer", "web page"],
)
def test_a_broken_file_is_told_as_broken(tmp_path, change, words):
    path = tmp_path / "a.pt"
    path.write_bytes(change(good(path)))
    with pytest.raises(WeightsCorruptError, match=words):
        read_checkpoint(path)


def test_an_archive_that_would_unpack_to_more_than_it_has_is_refused(tmp_path):
    good(tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as stored,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
        packed.writestr("a/data/9", bytes(2**24))
    with pytest.raises(WeightsCorruptError, match="would unpack to"):
        read_checkpoint(tmp_path / "b.pt")


def test_a_tensor_that_claims_more_than_the_file_has_is_refused(tmp_path):
    torch.save({"a": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "a.pt")
    with pytest.raises(WeightsCorruptError, match="claim 4000000000000 bytes, more than the file has"):
        read_checkpoint(tmp_path / "a.pt")


def test_a_sparse_tensor_is_refused_by_name(tmp_path):
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "a.pt")
    with pytest.raises(WeightsCorruptError, match="its entry a is no plain tensor"):
        read_checkpoint(tmp_path / "a.pt")


def test_files_without_named_tensors_folders_and_missing_files_are_told(tmp_path):
    for content in ([torch.ones(1)], {"epoch": 3}, torch.ones(2), {}):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(ValueError, match="holds no tensors by name"):
            read_checkpoint(tmp_path / "a.pt")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        read_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.pt")


def test_a_name_that_is_there_with_and_without_its_prefix_is_refused(tmp_path):
    torch.save(OrderedDict({"module.a": torch.ones(1), "a": torch.ones(1)}), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds the tensor a twice"):
        read_checkpoint(tmp_path / "a.pt")

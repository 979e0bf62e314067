# SPDX-License-Identifier: Apache-2.0
"""Weights and configs that are broken or foreign: clear errors that name the file, the key or the tensor."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save

from pcvideo import MSPN, _files
from pcvideo._files import WeightsCorruptError

TINY = {"in_channels": 1, "levels": 1, "channels": (2, 3), "hidden_channels": 2}
GOOD = save({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4)})


def header(entries, data=b""):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


class Bomb:
    def __reduce__(self):
        return (os._exit, (99,))


BROKEN = {
    "empty": b"",
    "five bytes": GOOD[:5],
    "header cut off": GOOD[:40],
    "truncated": GOOD[:-3],
    "trailing bytes": GOOD + b"xx",
    "header of 2**63 bytes": struct.pack("<Q", 2**63) + GOOD[8:],
    "header of 2**40 bytes": struct.pack("<Q", 2**40) + GOOD[8:],
    "header is no JSON": struct.pack("<Q", 20) + b"x" * 20,
    "header is a list": header([1]),
    "overlapping offsets": header({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "offsets beyond the end": header({"a": entry([2**40], 0, 2**42)}, bytes(12)),
    "offsets that don't fit the shape": header({"a": entry([3], 0, 8)}, bytes(8)),
    "negative shape": header({"a": entry([-2], 0, 8)}, bytes(8)),
    "unknown dtype": header({"a": entry([2], 0, 8, "Q32")}, bytes(8)),
    "pickle": pickle.dumps({"weight": Bomb()}),
    "old pickle": pickle.dumps({"weight": Bomb()}, protocol=0),
    "html": b"<!DOCTYPE html><html><body>Not found</body></html>",
    "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
}


@pytest.fixture
def weights(tmp_path):
    """A folder of good weights."""
    MSPN(**TINY).save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


def peak_memory():
    """In KiB on Linux, in bytes on macOS; either way far from what a broken header claims."""
    resource = pytest.importorskip("resource", reason="needs a POSIX system")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# Reading


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_weights_file_is_told_by_its_name_and_takes_no_memory(tmp_path, kind):
    path = tmp_path / "model.safetensors"
    path.write_bytes(BROKEN[kind])
    before = peak_memory()
    with pytest.raises(WeightsCorruptError, match=r"model.safetensors can't be read: .*; ") as caught:
        _files.read_tensors(path)
    assert caught.value.path == str(path)
    assert caught.value.mend in str(caught.value)
    assert peak_memory() - before < 2**26


def test_a_pointer_and_a_pickle_get_their_own_mend(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(BROKEN["LFS pointer"])
    with pytest.raises(WeightsCorruptError, match="git lfs pull"):
        _files.read_tensors(path)
    torch.save({"weight": torch.ones(2)}, path)
    assert zipfile.is_zipfile(path)
    with pytest.raises(WeightsCorruptError, match="never opened; ask for a safetensors file"):
        _files.read_tensors(path)


@pytest.mark.parametrize("size", [0x280, 0x380, 0x480, 0x580])
def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path, size):
    path = tmp_path / "model.safetensors"
    text = json.dumps({"a": entry([1], 0, 4)}).encode().ljust(size)
    path.write_bytes(struct.pack("<Q", size) + text + struct.pack("<f", 1.5))
    assert path.read_bytes().startswith(b"\x80")
    assert _files.read_tensors(path)["a"].tolist() == [1.5]


def test_a_good_file_gives_its_tensors_and_a_missing_one_is_missing(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(GOOD)
    assert _files.read_tensors(path)["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(FileNotFoundError):
        _files.read_tensors(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError):
        MSPN.from_pretrained(tmp_path)


def test_views_channels_last_and_shared_tensors_are_written_plainly(tmp_path):
    base = torch.arange(24.0).view(1, 2, 3, 4)
    tensors = {"whole": base, "view": base[..., ::2], "last": base.to(memory_format=torch.channels_last)}
    tensors |= {"grown": base.expand(2, 2, 3, 4), "scalar": torch.tensor(3), "half": base.half().requires_grad_()}
    _files.write_tensors(tmp_path / "file", tensors, {"note": "kept"})
    read = _files.read_tensors(tmp_path / "file")
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor), name
        assert read[name].dtype == tensor.dtype


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "no complete JSON"),
        (b'{"format": 1, "model": "MS', "no complete JSON"),
        (b"\xff\xfe{}", "no complete JSON"),
        (b"[1, 2]", "holds a list, expected an object"),
        (b"null", "holds a NoneType, expected an object"),
    ],
)
def test_a_broken_config_file_is_told_by_its_name(weights, text, words):
    (weights / "config.json").write_bytes(text)
    with pytest.raises(WeightsCorruptError, match=f"config.json can't be read: it .*{words}|config.json.*{words}"):
        MSPN.from_pretrained(weights)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2, "version": "7.1"}, r"format 2, this version .* reads up to 1; it needs pcvideo 7.1 or newer"),
        ({"format": 2, "new key": 1}, "format 2"),
        ({"format": 0}, "format 0, which no released version"),
        ({"format": True}, "format True"),
        ({"format": None}, "format None"),
        ({"modle": "MSPN"}, "unknown key 'modle'; did you mean 'model'"),
        ({"model": 3}, "'model' as a name"),
        ({"config": [1]}, "'config' as an object"),
        ({"model": "PPNV2"}, "holds a PPNV2, not a MSPN"),
    ],
)
def test_a_config_file_of_another_kind_says_what_is_wrong(weights, change, words):
    content = json.loads((weights / "config.json").read_text())
    (weights / "config.json").write_text(json.dumps(content | change))
    with pytest.raises(ValueError, match=words):
        MSPN.from_pretrained(weights)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"hiden_channels": 2}, ValueError, "unknown key 'hiden_channels'; did you mean 'hidden_channels'"),
        ({"hidden_channels": "2"}, TypeError, "hidden_channels must be a whole number of at least 1, got str '2'"),
        ({"levels": 0}, ValueError, "levels must be a whole number of at least 1, got 0"),
        ({"channels": {"a": 1}}, TypeError, "channels must be a sequence"),
        ({"clamp": "no"}, TypeError, "clamp must be True or False, got str 'no'"),
    ],
)
def test_a_wrong_config_value_is_told_by_its_key(weights, change, error, words):
    content = json.loads((weights / "config.json").read_text())
    content["config"] |= change
    (weights / "config.json").write_text(json.dumps(content))
    with pytest.raises(error, match=words):
        MSPN.from_pretrained(weights)


def test_a_config_without_a_needed_key_names_it():
    with pytest.raises(ValueError, match="lacks levels, channels"):
        MSPN.from_config({"in_channels": 1})


# Tensors that don't fit


def change_tensors(weights, change):
    tensors = _files.read_tensors(weights / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    (weights / "model.safetensors").write_bytes(save(tensors))
    (weights / "manifest.json").unlink(missing_ok=True)


def test_missing_unexpected_and_misshaped_tensors_are_named(weights):
    def change(tensors):
        tensors["extra"] = tensors.pop("cells.0.to_image.bias")
        tensors["cells.0.to_image.weight"] = torch.zeros(1, 2, 3, 3)

    change_tensors(weights, change)
    with pytest.raises(ValueError, match=r"missing: cells.0.to_image.bias") as caught:
        MSPN.from_pretrained(weights)
    assert "unexpected: extra" in str(caught.value)
    assert "cells.0.to_image.weight: the file has (1, 2, 3, 3), the model (1, 2, 5, 5)" in str(caught.value)
    with pytest.raises(ValueError, match="the file has"):
        MSPN.from_pretrained(weights, strict=False)


def test_not_strict_keeps_the_lists_and_loads_the_rest(weights):
    def change(tensors):
        tensors["extra"] = tensors.pop("cells.0.to_image.bias")
        tensors["cells.0.to_image.weight"].fill_(0.25)

    change_tensors(weights, change)
    model = MSPN.from_pretrained(weights, strict=False)
    assert model.missing_tensors == ["cells.0.to_image.bias"]
    assert model.unexpected_tensors == ["extra"]
    assert (model.cells[0].to_image.weight == 0.25).all()


def test_whole_numbers_in_place_of_weights_are_refused_and_half_precision_is_widened(weights):
    name = "cells.0.to_image.weight"
    change_tensors(weights, lambda tensors: tensors.update({key: value.half() for key, value in tensors.items()}))
    half = _files.read_tensors(weights / "model.safetensors")[name]
    model = MSPN.from_pretrained(weights)
    assert model.dtype == torch.float32
    assert torch.equal(model.cells[0].to_image.weight, half.float())
    assert MSPN.from_pretrained(weights, dtype=torch.bfloat16).dtype == torch.bfloat16
    change_tensors(weights, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    with pytest.raises(ValueError, match=f"wrong dtypes: {name}: the file has torch.int8, the model torch.float32"):
        MSPN.from_pretrained(weights)


def test_a_manifest_tells_a_missing_a_shortened_and_an_altered_file(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"0123456789")
    _files.write_manifest(tmp_path, ["a", "b"])
    _files.check_manifest(tmp_path)
    (tmp_path / "not listed").write_bytes(b"")
    _files.check_manifest(tmp_path)

    for content, why in ((b"0123456780", "sha256"), (b"012345678", "9 bytes, expected 10"), (None, "missing")):
        (tmp_path / "b").unlink() if content is None else (tmp_path / "b").write_bytes(content)
        with pytest.raises(_files.WeightsCorruptError, match=why):
            _files.check_manifest(tmp_path)


@pytest.mark.parametrize("entry", [{"../a": {"bytes": 1, "sha256": ""}}, {"a": 3}])
def test_a_manifest_that_names_no_file_of_its_folder_is_refused(tmp_path, entry):
    _files.write_json(tmp_path / _files.MANIFEST_NAME, entry)
    with pytest.raises(_files.WeightsCorruptError, match="no file of this folder"):
        _files.check_manifest(tmp_path)

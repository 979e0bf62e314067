# SPDX-License-Identifier: Apache-2.0
"""A weights folder as a whole: shards, checksums, formats, hostile names, and saves that are killed half way."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_files import BROKEN

import pcvideo
from pcvideo import MSPN
from pcvideo._files import WeightsCorruptError
from pcvideo.models import _pretrained

TINY = {"in_channels": 1, "levels": 1, "channels": (4, 8), "hidden_channels": 4}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
INDEX = "model.safetensors.index.json"
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")


def make_model(seed=0, **options):
    torch.manual_seed(seed)
    return MSPN(**(TINY | options))


def assert_same_tensors(model, other):
    assert model.state_dict().keys() == other.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def whole(model, tmp_path):
    """A folder with its weights in one file."""
    model.save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture
def sharded(model, tmp_path):
    """A folder with its weights in several files, without a manifest, as from elsewhere."""
    model.save_pretrained(tmp_path / "weights", max_shard_size=4000)
    (tmp_path / "weights" / "manifest.json").unlink()
    return tmp_path / "weights"


# Shards


def test_large_weights_lie_in_files_of_the_hubs_form(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size=4000)
    index = json.loads((tmp_path / INDEX).read_text())
    tensors = model.state_dict()
    assert index["metadata"] == {"total_size": sum(4 * tensor.numel() for tensor in tensors.values())}
    assert index["weight_map"].keys() == tensors.keys()
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert shards == [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    found = {}
    for shard in shards:
        part = load_file(tmp_path / shard)
        assert len(part) == 1 or sum(4 * tensor.numel() for tensor in part.values()) <= 4000
        assert {name for name, place in index["weight_map"].items() if place == shard} == part.keys()
        found |= part
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert_same_tensors(MSPN.from_pretrained(tmp_path), model)


def test_shards_that_the_hubs_own_client_wrote_are_read(model, whole):
    hub = pytest.importorskip("huggingface_hub")
    for name in ("model.safetensors", "manifest.json"):
        (whole / name).unlink()
    hub.save_torch_state_dict(model.state_dict(), whole, max_shard_size=4000)
    assert (whole / INDEX).is_file()
    assert_same_tensors(MSPN.from_pretrained(whole), model)


def test_a_save_leaves_no_tensors_of_the_one_before_and_no_other_file_out(model, tmp_path):
    (tmp_path / "mine.safetensors").write_bytes(b"kept")
    for size, count in ((4000, 7), (10**9, 1), (8000, 3), (4000, 7)):
        other = make_model(size)
        other.save_pretrained(tmp_path, max_shard_size=size)
        files = [path.name for path in tmp_path.glob("model*.safetensors")]
        assert len(files) == count
        assert (tmp_path / INDEX).is_file() == (count > 1)
        assert_same_tensors(MSPN.from_pretrained(tmp_path), other)
    assert (tmp_path / "mine.safetensors").read_bytes() == b"kept"


def test_a_size_of_a_shard_that_is_no_size_is_refused(model, tmp_path):
    for size, error in ((0, ValueError), ("5GB", TypeError), (True, TypeError)):
        with pytest.raises(error, match="max_shard_size"):
            model.save_pretrained(tmp_path / "none", max_shard_size=size)
    assert not (tmp_path / "none").exists()


def test_a_shard_that_is_missing_or_holds_other_tensors_is_named(sharded):
    path = sharded / "model-00002-of-00007.safetensors"
    content, tensors = path.read_bytes(), load_file(path)
    save_file(tensors | {"more": torch.ones(1)}, path)
    with pytest.raises(WeightsCorruptError, match=rf"{path.name} can't be read: it holds the tensor 'more'"):
        MSPN.from_pretrained(sharded)
    save_file(dict(list(tensors.items())[1:]) or {"more": torch.ones(1)}, path)
    with pytest.raises(WeightsCorruptError, match=rf"{path.name} can't be read: it (lacks|holds) the tensor"):
        MSPN.from_pretrained(sharded)
    path.write_bytes(content[:-1])
    with pytest.raises(WeightsCorruptError, match=rf"{path.name} can't be read"):
        MSPN.from_pretrained(sharded)
    path.unlink()
    for load in (MSPN.from_pretrained, pcvideo.from_pretrained):
        with pytest.raises(WeightsCorruptError, match=rf"{path.name} can't be read: it is missing"):
            load(sharded)


HOSTILE = [
    "../model.safetensors", "/tmp/model.safetensors", "C:\\model.safetensors", "C:model.safetensors", "a/b.safetensors",
    "\\\\server\\share\\model.safetensors", "model\0.safetensors", "..", ".hidden.safetensors", "", "model.bin", 3,
    None, "model.safetensors\n", "..\\model.safetensors", "con:.safetensors",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_a_name_in_an_index_that_leads_elsewhere_is_refused(sharded, name):
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"]["cells.0.to_image.bias"] = name
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(WeightsCorruptError, match="expected a plain name in this folder"):
        MSPN.from_pretrained(sharded)


@pytest.mark.parametrize("text", [b"{}", b'{"weight_map": []}', b'{"weight_map": {}}', b"[", b"[" * 100_000, POINTER])
def test_an_index_that_is_none_is_told(sharded, text):
    (sharded / INDEX).write_bytes(text)
    with pytest.raises(WeightsCorruptError, match=r"index\.json can't be read"):
        MSPN.from_pretrained(sharded)


def test_links_to_files_elsewhere_are_followed_as_the_hubs_cache_has_them(model, sharded, tmp_path):
    cache = tmp_path / "snapshot"
    cache.mkdir()
    for number, path in enumerate(sharded.iterdir()):
        blob = tmp_path / f"blob-{number}"
        blob.write_bytes(path.read_bytes())
        (cache / path.name).symlink_to(Path("..") / blob.name)
    assert_same_tensors(MSPN.from_pretrained(cache), model)


# Checksums, and what comes before them


def test_altered_and_shortened_tensors_are_told_and_a_config_may_be_edited(model, whole):
    path = whole / "model.safetensors"
    content = path.read_bytes()
    config = json.loads((whole / "config.json").read_text())
    config["config"]["clamp"] = True
    (whole / "config.json").write_text(json.dumps(config))
    assert MSPN.from_pretrained(whole).clamp
    # One bit of one number: a file that loads all the same.
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsCorruptError, match=r"its sha256 is another .*remove manifest\.json if you changed"):
        MSPN.from_pretrained(whole)
    path.write_bytes(content[:-1])
    with pytest.raises(WeightsCorruptError, match=f"{len(content) - 1} bytes, expected {len(content)}"):
        MSPN.from_pretrained(whole)
    path.write_bytes(content)
    (whole / "manifest.json").unlink()
    assert_same_tensors(MSPN.from_pretrained(whole), model)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_told_by_name_with_a_manifest_and_without(whole, kind):
    path = whole / "model.safetensors"
    path.write_bytes(BROKEN[kind])
    for _ in range(2):
        for load in (MSPN.from_pretrained, pcvideo.from_pretrained):
            with pytest.raises(WeightsCorruptError, match=r"model\.safetensors can't be read: .*; ") as caught:
                load(whole)
            assert caught.value.path == str(path)
        (whole / "manifest.json").unlink(missing_ok=True)


def test_a_manifest_of_other_files_does_not_stand_in_the_way(model, whole):
    (whole / "manifest.json").write_text(json.dumps({"training.json": {"bytes": 1, "sha256": ""}}))
    assert_same_tensors(MSPN.from_pretrained(whole), model)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (POINTER, "it is a Git LFS pointer.*git lfs pull"),
        (b"", "it is empty"),
        (pickle.dumps({}), "it is a pickle.*never opened"),
    ],
)
def test_what_kind_of_file_it_is_comes_before_its_checksum(whole, tmp_path, content, words):
    (whole / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsCorruptError, match=words):
        MSPN.from_pretrained(whole)
    if content == POINTER:
        (whole / "config.json").write_bytes(POINTER)
        with pytest.raises(WeightsCorruptError, match=r"config\.json can't be read: it is a Git LFS pointer"):
            MSPN.from_pretrained(whole)


class Bomb:
    def __reduce__(self):
        return (os._exit, (99,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_a_folder_of_pickles_is_refused_and_none_is_opened(whole, name):
    for file in ("model.safetensors", "manifest.json"):
        (whole / file).unlink()
    (whole / name).write_bytes(pickle.dumps({"weight": Bomb()}))
    for load in (MSPN.from_pretrained, pcvideo.from_pretrained):
        with pytest.raises(FileNotFoundError, match=rf"'{name}', a pickle.*model\.safetensors.*pcvideo convert"):
            load(whole)


@pytest.mark.parametrize("text", [b'{"format": ' + b"1" * 5000 + b"}", b'{"a":' * 100_000], ids=["long", "deep"])
def test_a_config_that_json_itself_gives_up_on_is_told(whole, text):
    (whole / "config.json").write_bytes(text)
    with pytest.raises(WeightsCorruptError, match=r"config\.json can't be read"):
        MSPN.from_pretrained(whole)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"levels": 0}, ValueError, "levels must be"),
        ({"channels": [4, "8"]}, TypeError, r"channels\[1\] must be"),
        ({"hiden_channels": 2}, ValueError, "unknown key 'hiden_channels'; did you mean 'hidden_channels'"),
        ({"channels": [10**9, 10**9]}, ValueError, "no network of these sizes"),
    ],
)
def test_a_wrong_config_value_is_told_with_its_file_and_key(whole, change, error, words):
    content = json.loads((whole / "config.json").read_text())
    content["config"] |= change
    (whole / "config.json").write_text(json.dumps(content))
    with pytest.raises(error, match=rf"config\.json, under 'config': .*{words}"):
        MSPN.from_pretrained(whole)


def test_a_path_that_is_no_folder_is_not_taken_for_a_repository(tmp_path):
    for name in (tmp_path / "none", "./none", "a/b/c", "none", ""):
        with pytest.raises(FileNotFoundError, match=r"there is no folder|holds no weights|config\.json"):
            MSPN.from_pretrained(name)


# Formats


def test_an_older_format_is_turned_into_the_present_one_step_by_step(model, whole, monkeypatch):
    def rename_model(content):
        content["model"] = content.pop("class")
        return content

    def rename_key(content):
        content["config"]["hidden_channels"] = content["config"].pop("hidden")
        return content

    monkeypatch.setattr(_pretrained, "FORMAT", 3)
    monkeypatch.setattr(_pretrained, "UPGRADES", {1: rename_model, 2: rename_key})
    content = json.loads((whole / "config.json").read_text())
    content["config"]["hidden"] = content["config"].pop("hidden_channels")
    second = content | {"format": 2}
    first = {key: value for key, value in content.items() if key != "model"} | {"class": "MSPN"}
    for old in (first, second):
        (whole / "config.json").write_text(json.dumps(old))
        assert_same_tensors(MSPN.from_pretrained(whole), model)
    monkeypatch.setattr(_pretrained, "UPGRADES", {2: rename_key})
    (whole / "config.json").write_text(json.dumps(first))
    with pytest.raises(ValueError, match="format 1, which no released version"):
        MSPN.from_pretrained(whole)


def test_a_config_says_which_version_wrote_it(whole):
    assert json.loads((whole / "config.json").read_text())["version"] == pcvideo.__version__


# Saves that are killed


@needs_fork
@pytest.mark.parametrize("moves", [1, 2, 3])
@pytest.mark.parametrize("before", ["with a manifest", "without one", "in shards"])
def test_a_kill_amid_the_moves_never_pairs_one_saves_config_with_anothers_weights(tmp_path, monkeypatch, moves, before):
    # The same shapes, so that nothing but the checksums tells them apart.
    old, new = make_model(0), make_model(1, clamp=True)
    folder = tmp_path / "weights"
    old.save_pretrained(folder, max_shard_size=4000 if before == "in shards" else 10**9)
    if before == "without one":
        (folder / "manifest.json").unlink()
    real, left = Path.replace, iter(range(moves))

    def act():
        def replace(path, target):
            real(path, target)
            # Those into the folder itself; within the temporary one each JSON file is moved too.
            if Path(target).parent == folder and next(left, None) == moves - 1:
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(Path, "replace", replace)
        new.save_pretrained(folder)

    process = multiprocessing.get_context("fork").Process(target=act)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    try:
        loaded = MSPN.from_pretrained(folder)
    except WeightsCorruptError:
        assert moves < 3
    else:
        assert moves == 3
        assert loaded.clamp
        assert_same_tensors(loaded, new)
    new.save_pretrained(folder)
    assert_same_tensors(MSPN.from_pretrained(folder), new)

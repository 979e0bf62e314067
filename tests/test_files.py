# SPDX-License-Identifier: Apache-2.0
"""Weights and configs that are broken, foreign, or half written: clear errors, and nothing lost."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import pickle
import random
import signal
import stat
import struct
import subprocess
import time
import zipfile

import pytest
import torch
from safetensors.torch import save

from pcvideo import MSPN, _files
from pcvideo._files import WeightsCorruptError
from pcvideo.models import Predictor

TINY = {"in_channels": 1, "levels": 1, "channels": (2, 3), "hidden_channels": 2}
LARGER = TINY | {"channels": (16, 32), "hidden_channels": 16}
GOOD = save({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4)})
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")


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


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
        ({"format": 2}, "format 2, this version reads 1; upgrade"),
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


# Writing


def test_saving_replaces_the_weights_and_keeps_the_folders_other_files(weights):
    (weights / "README.md").write_text("mine")
    larger = MSPN(**LARGER)
    larger.save_pretrained(weights)
    assert (weights / "README.md").read_text() == "mine"
    loaded = MSPN.from_pretrained(weights)
    assert loaded.config == larger.config
    assert torch.equal(loaded.cells[0].to_image.weight, larger.cells[0].to_image.weight)
    assert [path.name for path in weights.parent.iterdir()] == ["weights"]


def test_a_new_folder_gets_the_mode_that_the_umask_gives(tmp_path):
    mask = os.umask(0o027)
    try:
        MSPN(**TINY).save_pretrained(tmp_path / "deep" / "weights")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "deep" / "weights").stat().st_mode) == 0o750


def test_nan_in_a_config_is_refused_and_nothing_is_written(weights):
    before = contents(weights)

    def write(temporary):
        _files.write_json(temporary / "config.json", {"value": math.nan})

    with pytest.raises(ValueError, match="not JSON compliant"):
        _files.update_folder(weights, write)
    assert contents(weights) == before


@pytest.mark.parametrize("calls_that_work", [0, 1, 2])
def test_a_failing_flush_leaves_the_old_weights(weights, monkeypatch, calls_that_work):
    before, real, calls = contents(weights), os.fsync, iter(range(100))

    def flush(descriptor):
        if next(calls) >= calls_that_work:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    with pytest.raises(OSError, match="No space left"):
        MSPN(**LARGER).save_pretrained(weights)
    assert contents(weights) == before
    assert [path.name for path in weights.parent.iterdir()] == ["weights"]


def in_a_process(act):
    """Run `act` in a forked process; returns its exit status, negative for a signal."""
    process = multiprocessing.get_context("fork").Process(target=act)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


@needs_fork
def test_a_file_that_outgrows_its_limit_leaves_the_old_weights(weights):
    before, larger = contents(weights), MSPN(**LARGER)

    def act():
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            larger.save_pretrained(weights)
        except OSError:
            os._exit(7)

    assert in_a_process(act) == 7
    assert contents(weights) == before
    assert [path.name for path in weights.parent.iterdir()] == ["weights"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("inside", [False, True], ids=["below the disk's root", "the disk's root itself"])
def test_a_full_disk_leaves_the_old_weights(tmp_path, inside):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk], check=False, capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"no disk can be mounted here: {mount.stderr}")
    try:
        weights = disk if inside else disk / "weights"
        small = MSPN(**TINY)
        small.save_pretrained(weights)
        before = contents(weights)
        with pytest.raises(OSError, match="No space left"):
            MSPN(**LARGER).save_pretrained(weights)
        assert contents(weights) == before
        small.save_pretrained(weights)
        assert sorted(contents(weights)) == ["config.json", "model.safetensors"]
    finally:
        subprocess.run(["umount", disk], check=True)


@needs_fork
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_kill_amid_saving_leaves_the_old_weights_and_an_orphan_that_is_removed(weights, monkeypatch, name):
    before, real = contents(weights), os.fsync

    def act():
        def flush(descriptor):
            real(descriptor)
            # The file is whole, but not yet moved over.
            if os.readlink(f"/proc/self/fd/{descriptor}").endswith(name):
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(os, "fsync", flush)
        MSPN(**LARGER).save_pretrained(weights)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("needs /proc to see which file is flushed")
    assert in_a_process(act) == -signal.SIGKILL
    assert contents(weights) == before
    removed = _files.remove_orphans(weights.parent)
    assert len(removed) == 1
    assert [path.name for path in weights.parent.iterdir()] == ["weights"]


def write_number(number):
    def write(temporary):
        for name in ("a", "b"):
            (temporary / name).write_text(str(number))

    return write


def test_a_folder_is_replaced_whole(tmp_path):
    _files.write_folder(tmp_path / "step", write_number(1))
    (tmp_path / "step" / "c").write_text("of before")
    _files.write_folder(tmp_path / "step", write_number(2))
    assert contents(tmp_path / "step") == {"a": b"2", "b": b"2"}
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_a_folder_that_fails_to_be_written_leaves_the_old_one(tmp_path):
    def write(temporary):
        write_number(2)(temporary)
        raise RuntimeError("half way")

    for there in (False, True):
        if there:
            _files.write_folder(tmp_path / "step", write_number(1))
        with pytest.raises(RuntimeError, match="half way"):
            _files.write_folder(tmp_path / "step", write)
        assert [path.name for path in tmp_path.iterdir()] == ["step"] * there
    assert contents(tmp_path / "step") == {"a": b"1", "b": b"1"}


@pytest.mark.parametrize("moves_that_work", [0, 1])
def test_a_move_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch, moves_that_work):
    _files.write_folder(tmp_path / "step", write_number(1))
    real, moves = os.rename, iter(range(100))

    def rename(source, target, **options):
        if next(moves) == moves_that_work:
            raise PermissionError(errno.EACCES, "no", str(source))
        real(source, target, **options)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(PermissionError):
        _files.write_folder(tmp_path / "step", write_number(2))
    assert contents(tmp_path / "step") == {"a": b"1", "b": b"1"}
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


@needs_fork
def test_a_kill_between_the_two_moves_of_a_replacement_is_undone(tmp_path, monkeypatch):
    _files.write_folder(tmp_path / "step-01", write_number(1))
    real = os.rename

    def act():
        def rename(source, target, **options):
            real(source, target, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(os, "rename", rename)
        _files.write_folder(tmp_path / "step-01", write_number(2))

    assert in_a_process(act) == -signal.SIGKILL
    assert not (tmp_path / "step-01").exists()
    _files.remove_orphans(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-01"]
    assert contents(tmp_path / "step-01") == {"a": b"1", "b": b"1"}


def save_both_at_once(saves, monkeypatch):
    """Each of `saves` in a process of its own, several times, every move slow; returns their exit statuses."""
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(len(saves))

    def act(save):
        draw = random.Random(os.getpid())
        for name in ("rename", "replace"):
            real = getattr(os, name)
            monkeypatch.setattr(os, name, lambda *paths, move=real: (time.sleep(0.02 * draw.random()), move(*paths)))
        ready.wait(30)
        for _ in range(10):
            save()

    processes = [context.Process(target=act, args=(save,)) for save in saves]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


@needs_fork
def test_two_processes_that_save_into_one_folder_at_once_leave_the_weights_of_one(tmp_path, monkeypatch):
    models = [MSPN(**TINY), MSPN(**(TINY | {"hidden_channels": 3}))]
    saves = [lambda m=model: m.save_pretrained(tmp_path / "weights") for model in models]
    assert save_both_at_once(saves, monkeypatch) == [0, 0]
    loaded: Predictor = MSPN.from_pretrained(tmp_path / "weights")
    (winner,) = [model for model in models if model.config == loaded.config]
    assert torch.equal(loaded.cells[0].to_image.weight, winner.cells[0].to_image.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


@needs_fork
def test_two_processes_that_replace_one_folder_at_once_leave_that_of_one(tmp_path, monkeypatch):
    saves = [lambda n=number: _files.write_folder(tmp_path / "step", write_number(n)) for number in (1, 2)]
    assert save_both_at_once(saves, monkeypatch) == [0, 0]
    assert contents(tmp_path / "step") in ({"a": b"1", "b": b"1"}, {"a": b"2", "b": b"2"})
    assert [path.name for path in tmp_path.iterdir()] == ["step"]

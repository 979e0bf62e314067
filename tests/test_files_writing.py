# SPDX-License-Identifier: Apache-2.0
"""Writing that fails, is killed or meets another writer: what was there before is there after it."""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import random
import signal
import stat
import subprocess
import time

import pytest
import torch

from pcvideo import MSPN, _files
from pcvideo.models import Predictor

TINY = {"in_channels": 1, "levels": 1, "channels": (2, 3), "hidden_channels": 2}
LARGER = TINY | {"channels": (16, 32), "hidden_channels": 16}
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")


@pytest.fixture
def weights(tmp_path):
    """A folder of good weights."""
    MSPN(**TINY).save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_saving_replaces_the_weights_and_keeps_the_folders_other_files(weights):
    (weights / "README.md").write_text("mine")
    larger = MSPN(**LARGER)
    larger.save_pretrained(weights)
    assert (weights / "README.md").read_text() == "mine"
    loaded = MSPN.from_pretrained(weights)
    assert loaded.config == larger.config
    assert torch.equal(loaded.cells[0].to_image.weight, larger.cells[0].to_image.weight)
    assert [path.name for path in weights.parent.iterdir()] == ["weights"]


def test_a_new_folder_and_its_files_get_the_modes_that_the_umask_gives(tmp_path):
    mask = os.umask(0o027)
    try:
        MSPN(**TINY).save_pretrained(tmp_path / "deep" / "weights")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "deep" / "weights").stat().st_mode) == 0o750
    for name in ("config.json", "manifest.json", "model.safetensors"):
        assert stat.S_IMODE((tmp_path / "deep" / "weights" / name).stat().st_mode) == 0o640


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
        assert sorted(contents(weights)) == ["config.json", "manifest.json", "model.safetensors"]
    finally:
        subprocess.run(["umount", disk], check=True)


@needs_fork
@pytest.mark.parametrize("name", ["config.json", "manifest.json", "model.safetensors"])
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

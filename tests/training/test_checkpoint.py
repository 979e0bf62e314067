# SPDX-License-Identifier: Apache-2.0
"""Checkpoints under faults: killed saves, full disks, folders that can't be written."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import (
    Clips,
    SlowClips,
    assert_same_tensors,
    read_log,
    start_fork,
    tiny_model,
    tiny_trainer,
    wait_for,
)

from pcvideo import MSPN, _files
from pcvideo._files import TEMPORARY_PREFIX, WeightsCorruptError
from pcvideo.training import newest_checkpoint
from pcvideo.training.checkpoint import load_checkpoint

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def save_for_ever(folder: Path) -> None:
    trainer = tiny_trainer(folder, ema=0.9)
    while True:
        trainer.step += 1
        # What is in it says of which step it is.
        for parameter in trainer.model.parameters():
            parameter.data.fill_(trainer.step)
        trainer.save()


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(f"{TEMPORARY_PREFIX}*"))


@needs_fork
def test_after_sigkill_at_any_moment_of_saving_the_newest_checkpoint_loads_and_the_rest_is_tidied(
    tmp_path: Path,
) -> None:
    chance = random.Random(0)
    orphans = 0
    for trial in range(20):
        folder = tmp_path / str(trial)
        process = start_fork(save_for_ever, folder)
        wait_for(folder / "checkpoints" / "step-00000002")
        time.sleep(chance.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        orphans += len(leftovers(folder))

        newest = newest_checkpoint(folder)
        step = int(newest.name.removeprefix("step-"))
        trainer = tiny_trainer(folder, ema=0.9, steps=step)
        trainer.fit(Clips(), resume="auto")
        assert trainer.step == step >= 2
        assert all(bool((parameter == step).all()) for parameter in trainer.model.parameters())
        MSPN.from_pretrained(newest)
        assert not leftovers(folder)
    # Else no kill came amid a save, and nothing was tried.
    assert orphans


def save_without_space(folder: Path) -> None:
    trainer = tiny_trainer(folder, model=tiny_model(hidden_channels=16))
    trainer.load(newest_checkpoint(folder))
    trainer.step += 1
    import resource

    # No file may grow beyond this: what a full disk is for a writer.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        trainer.save()
    except OSError:
        os._exit(7)
    os._exit(0)


@needs_fork
def test_a_save_without_space_is_an_error_and_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    first = tiny_trainer(tmp_path, steps=3, model=tiny_model(hidden_channels=16))
    assert sum(parameter.numel() for parameter in first.model.parameters()) * 4 > 20_000
    first.fit(Clips())

    process = start_fork(save_without_space, tmp_path)
    process.join(30)
    assert process.exitcode == 7
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
    again = tiny_trainer(tmp_path, model=tiny_model(5, hidden_channels=16))
    again.load(newest_checkpoint(tmp_path))
    assert_same_tensors(again.model.state_dict(), first.model.state_dict())


@pytest.mark.parametrize("blocked", ["", "checkpoints"])
def test_a_run_folder_that_cannot_be_written_is_told_before_the_first_step(blocked: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    place = run_dir / blocked
    place.parent.mkdir(exist_ok=True)
    place.write_text("a file where the folder should be")
    trainer = tiny_trainer(run_dir)
    with pytest.raises(OSError, match=r"run_dir .* can't be written .*choose another folder"):
        trainer.fit(Clips())
    assert trainer.step == 0


def test_a_folder_that_takes_no_files_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def refuse(self: Path, data: bytes) -> int:
        if self.parent == tmp_path / "checkpoints":
            raise PermissionError(13, "Permission denied", str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    trainer = tiny_trainer(tmp_path)
    with pytest.raises(OSError, match=r"Permission denied.*make it writable"):
        trainer.fit(Clips())
    assert trainer.step == 0


def test_only_the_newest_are_kept_and_only_after_the_new_one_is_whole(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, steps=5, checkpoint_every=1, keep=3)
    trainer.fit(Clips())
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"step-{step:08d}" for step in (3, 4, 5)]


def test_each_checkpoint_is_a_weights_folder_with_the_averaged_weights(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, steps=4, ema=0.5)
    trainer.fit(Clips(), Clips(3))
    for folder in (newest_checkpoint(tmp_path), tmp_path / "best"):
        loaded = MSPN.from_pretrained(folder)
        assert_same_tensors(loaded.state_dict(), trainer.average.module.state_dict())
    assert not torch.equal(next(loaded.parameters()), next(trainer.model.parameters()))


def test_a_restored_optimizer_holds_the_same_numbers_in_the_same_layout(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, steps=2)
    trainer.fit(Clips())
    other = tiny_trainer(tmp_path, model=tiny_model(3))
    other.load(newest_checkpoint(tmp_path))
    before, after = (each.optimizer.state_dict()["state"] for each in (trainer, other))
    assert before.keys() == after.keys()
    for index, values in before.items():
        assert_same_tensors(after[index], values)
        strides = [{name: value.stride() for name, value in each[index].items()} for each in (before, after)]
        assert strides[0] == strides[1]


@pytest.mark.parametrize("name", ["training.json", "training.safetensors"])
def test_a_checkpoint_that_was_damaged_is_told_as_such(name: str, tmp_path: Path) -> None:
    tiny_trainer(tmp_path, steps=1).fit(Clips())
    path = newest_checkpoint(tmp_path) / name
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(WeightsCorruptError, match=name):
        tiny_trainer(tmp_path).fit(Clips(), resume="auto")


def test_a_checkpoint_holds_safetensors_and_json_only(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, steps=1).fit(Clips())
    names = sorted(path.name for path in newest_checkpoint(tmp_path).iterdir())
    assert names == ["config.json", "manifest.json", "model.safetensors", "training.json", "training.safetensors"]
    state, tensors = load_checkpoint(newest_checkpoint(tmp_path))
    assert state["step"] == 1
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())


def test_a_validation_that_fails_does_not_cost_the_steps_of_a_due_checkpoint(tmp_path: Path) -> None:
    def fail(validation: Any) -> None:
        raise RuntimeError("no ink")

    trainer = tiny_trainer(tmp_path, steps=3, callbacks=[fail])
    with pytest.raises(RuntimeError, match="no ink"):
        trainer.fit(Clips(), Clips(3))
    assert newest_checkpoint(tmp_path).name == "step-00000003"
    mended = tiny_trainer(tmp_path, steps=3)
    metrics = mended.fit(Clips(), Clips(3), resume="auto")
    assert ("validation/mse", repr(metrics["mse"])) in [row[1:] for row in read_log(tmp_path)]


def test_a_broken_newest_checkpoint_is_passed_over_with_a_warning_and_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unbroken = tiny_trainer(tmp_path / "unbroken", steps=6)
    unbroken.fit(Clips())
    tiny_trainer(tmp_path / "run", steps=6, checkpoint_every=2, keep=1, keep_every=2).fit(Clips())
    path = tmp_path / "run" / "checkpoints" / "step-00000006" / "training.safetensors"
    content = bytearray(path.read_bytes())
    # One bit, which safetensors itself would not notice.
    content[-1] ^= 1
    path.write_bytes(bytes(content))

    resumed = tiny_trainer(tmp_path / "run", model=tiny_model(4), steps=6, keep=1)
    resumed.fit(Clips(), resume="auto")
    told = [record.getMessage() for record in caplog.records if "is broken" in record.getMessage()]
    assert told
    assert str(path.parent) in told[0]
    assert_same_tensors(resumed.model.state_dict(), unbroken.model.state_dict())
    names = sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["broken-step-00000006", "step-00000006"]


def test_the_newest_and_those_at_whole_multiples_are_kept(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, steps=8, checkpoint_every=1, keep=1, keep_every=3).fit(Clips())
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"step-{step:08d}" for step in (3, 6, 8)]


def test_a_disk_without_room_for_a_checkpoint_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    trainer = tiny_trainer(tmp_path)
    with pytest.raises(OSError, match=r"0 MiB of free space, and a checkpoint needs .*make room"):
        trainer.fit(Clips())
    assert trainer.step == 0


def test_where_asked_to_warn_training_goes_on_without_a_checkpoint_and_the_previous_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = _files.write_tensors

    def full_from_the_fourth_step_on(path: Path, tensors: Any, *rest: Any) -> None:
        if "step-00000002" not in str(path):
            raise OSError(28, "No space left on device", str(path))
        write(path, tensors, *rest)

    monkeypatch.setattr(_files, "write_tensors", full_from_the_fourth_step_on)
    trainer = tiny_trainer(tmp_path, steps=5, checkpoint_every=2, on_save_error="warn")
    trainer.fit(Clips())
    assert trainer.step == 5
    assert newest_checkpoint(tmp_path).name == "step-00000002"
    assert not leftovers(tmp_path)
    told = [record.getMessage() for record in caplog.records if "could not be written" in record.getMessage()]
    assert [step for step in (4, 5) if any(f"step-0000000{step}" in line for line in told)] == [4, 5]


def train_slowly(folder: Path) -> None:
    tiny_trainer(folder / "run", steps=10**6).fit(SlowClips(folder / "told", count=30, slow=17))


@needs_fork
def test_a_second_run_in_the_folder_of_one_that_goes_on_is_refused_until_that_one_ends(tmp_path: Path) -> None:
    first = start_fork(train_slowly, tmp_path)
    wait_for(tmp_path / "told")
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    with pytest.raises(BlockingIOError, match=rf"in use by a run that is still going \(process {first.pid} on "):
        tiny_trainer(tmp_path / "run").fit(Clips(), resume="auto")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    trainer = tiny_trainer(tmp_path / "run", steps=1)
    trainer.fit(Clips(), resume="auto")
    assert trainer.step == 1


def test_other_rates_and_frozen_parts_on_resume_find_their_own_moments(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, steps=2).fit(Clips())
    other = tiny_trainer(tmp_path, steps=3, freeze=["cells.0.to_image.*"], rates={"cells.0.codec.*": 0.5})
    other.load(newest_checkpoint(tmp_path))
    saved = load_checkpoint(newest_checkpoint(tmp_path))[1]
    names = {id(parameter): name for name, parameter in other.strategy.named_parameters()}
    moments = {names[id(parameter)]: state["exp_avg"] for parameter, state in other.optimizer.state.items()}
    assert moments
    assert not any(".to_image." in name for name in moments)
    for name, moment in moments.items():
        assert torch.equal(moment, saved[f"optimizer.{name}.exp_avg"])

# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and Ctrl-C at any moment: a checkpoint, then the exit status that the signal stands for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import Clips, SignalAt, SlowClips, self_feeding, start_fork, tiny_trainer, wait_for

import pcvideo
from pcvideo.training import SelfFeeding, TrainingStopped, newest_checkpoint
from pcvideo.training.checkpoint import load_checkpoint
from pcvideo.training.signals import Interrupted, StopRequest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
GRACE = 20.0  # seconds; these processes wait for a minute where nothing stops them


def test_an_uncaught_stop_ends_the_interpreter_with_143_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    script = """
        from pathlib import Path
        from training_helpers import Clips, SignalAt, tiny_trainer
        tiny_trainer(Path(RUN), SignalAt(3), steps=10**6).fit(Clips())
    """
    code = textwrap.dedent(script).replace("RUN", repr(str(tmp_path)))
    places = [str(Path(pcvideo.__file__).parents[1]), str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 143, done.stderr
    # No terminal, so no progress bar; no traceback either.
    assert "step/s" not in done.stderr
    assert "Traceback" not in done.stderr
    assert newest_checkpoint(tmp_path).name == "step-00000003"


class Announcing(SelfFeeding):
    """Makes a file at the second training step, or at the first validation."""

    def __init__(self, told: Path, where: str) -> None:
        super().__init__(context=2, horizon=2)
        self.told, self.where, self.calls = told, where, 0

    def forward(self, batch: Any) -> Any:
        self.calls += 1
        if self.where == "train" and self.calls == 2:
            self.told.touch()
        return super().forward(batch)

    def forecast(self, batch: Any, model: Any) -> Any:
        if self.where == "validation":
            self.told.touch()
            # In pieces: it is the signal that must end it, not one long sleep that a signal would cut short.
            for _ in range(600):
                time.sleep(0.1)
        return super().forecast(batch, model)


def run_in(folder: Path, place: str) -> None:
    told = folder / "told"
    clips: Any = Clips()
    options: dict[str, Any] = {}
    if place.startswith("waiting"):
        clips = SlowClips(told, count=30, slow=17)
        options = {"num_workers": 2} if "workers" in place else {}
    strategy = Announcing(told, place)
    trainer = tiny_trainer(folder / "run", strategy, steps=10**6, validate_every=3, **options)
    trainer.fit(clips, Clips(3) if place == "validation" else None)


@needs_fork
@pytest.mark.parametrize("place", ["train", "validation", "waiting", "waiting for workers"])
def test_sigterm_saves_within_the_grace_time_and_exits_with_143(place: str, tmp_path: Path) -> None:
    process = start_fork(run_in, tmp_path, place)
    wait_for(tmp_path / "told")
    started = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    while newest_checkpoint(tmp_path / "run") is None and time.monotonic() - started < GRACE:
        time.sleep(0.01)
    saved = time.monotonic() - started
    process.join(2 * GRACE)
    assert process.exitcode == 143
    assert saved < GRACE
    state, _ = load_checkpoint(newest_checkpoint(tmp_path / "run"))
    if place == "validation":
        assert state["step"] == 3
        assert state["validated"] == 0


def wait_with_workers_in_own_group(folder: Path) -> None:
    os.setpgrp()
    run_in(folder, "waiting for workers")


@needs_fork
@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
def test_a_signal_to_the_whole_process_group_does_not_take_the_workers_first(tmp_path: Path) -> None:
    process = start_fork(wait_with_workers_in_own_group, tmp_path)
    wait_for(tmp_path / "told")
    os.killpg(process.pid, signal.SIGTERM)
    process.join(2 * GRACE)
    assert process.exitcode == 143
    assert newest_checkpoint(tmp_path / "run") is not None


def test_ctrl_c_once_saves_the_step_it_came_in_and_stops_with_130(tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped) as stopped:
        tiny_trainer(tmp_path, SignalAt(2, signal.SIGINT)).fit(Clips())
    assert stopped.value.code == 130
    assert Path(stopped.value.checkpoint) == newest_checkpoint(tmp_path)
    assert str(stopped.value) == f"stopped by SIGINT; resume from {tmp_path / 'checkpoints' / 'step-00000002'}"


def test_ctrl_c_twice_stops_at_once_without_a_checkpoint(tmp_path: Path) -> None:
    class Twice(SelfFeeding):
        def forward(self, batch: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("went on after the second Ctrl-C")

    with pytest.raises(KeyboardInterrupt):
        tiny_trainer(tmp_path, Twice(context=2, horizon=2)).fit(Clips())
    assert newest_checkpoint(tmp_path) is None


def test_ctrl_c_amid_the_save_that_the_first_one_began_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, SignalAt(4, signal.SIGINT), checkpoint_every=3)
    save_weights = trainer.model.save_pretrained

    def interrupted_save(folder: Path) -> None:
        if trainer.step == 4:
            signal.raise_signal(signal.SIGINT)
        save_weights(folder)

    trainer.model.save_pretrained = interrupted_save
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(Clips())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
    tiny_trainer(tmp_path).load(newest_checkpoint(tmp_path))


def test_a_step_that_is_saved_already_is_not_saved_again_on_a_signal(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, SignalAt(3), checkpoint_every=3)
    saves = []
    save = trainer.save
    trainer.save = lambda: saves.append(trainer.step) or save()
    with pytest.raises(TrainingStopped):
        trainer.fit(Clips())
    assert saves == [3]


def test_the_handlers_of_before_are_back_after_a_run(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        # In a shell's background job SIGINT is ignored from the start.
        mine, interrupt = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        tiny_trainer(tmp_path / "one", steps=1).fit(Clips())
        assert signal.getsignal(signal.SIGTERM) is mine
        with pytest.raises(TrainingStopped):
            tiny_trainer(tmp_path / "two", SignalAt(1)).fit(Clips())
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGINT) is interrupt
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_waits_for_the_work_and_cuts_the_waiting_short() -> None:
    worked = []

    def slow_items() -> Any:
        yield 1
        signal.raise_signal(signal.SIGTERM)
        worked.append("never")

    def signalled_while_working(items: Any) -> Any:
        for item in items:
            signal.raise_signal(signal.SIGTERM)
            yield item

    with StopRequest() as stop, pytest.raises(Interrupted) as interrupted:
        worked.extend(stop.each(slow_items()))
    assert worked == [1]
    assert interrupted.value.number == signal.SIGTERM
    with StopRequest() as stop, pytest.raises(Interrupted):
        worked.extend(signalled_while_working(stop.each(iter([2, 3]))))
    assert worked == [1, 2]


def test_a_data_set_that_swallows_exceptions_does_not_swallow_the_stop(tmp_path: Path) -> None:
    class Careless(Clips):
        def __getitem__(self, index: int) -> torch.Tensor:
            if self.epoch == 1:
                try:
                    signal.raise_signal(signal.SIGTERM)
                except Exception:  # noqa: BLE001
                    pytest.fail("swallowed")
            return super().__getitem__(index)

    with pytest.raises(TrainingStopped):
        tiny_trainer(tmp_path, self_feeding()).fit(Careless())
    assert newest_checkpoint(tmp_path).name == "step-00000003"


def hang_in_a_step(folder: Path) -> None:
    class Hanging(SelfFeeding):
        def forward(self, batch: Any) -> Any:
            (folder / "told").touch()
            for _ in range(600):
                time.sleep(0.1)
            return super().forward(batch)

    tiny_trainer(folder / "run", Hanging(context=2, horizon=2), grace=1.0).fit(Clips())


@needs_fork
def test_a_process_that_hangs_after_a_signal_ends_when_the_grace_time_is_over(tmp_path: Path) -> None:
    process = start_fork(hang_in_a_step, tmp_path)
    wait_for(tmp_path / "told")
    started = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    process.join(40)
    assert process.exitcode == 143
    assert time.monotonic() - started < 20


def test_a_signal_that_is_answered_in_time_leaves_the_process_alone(tmp_path: Path) -> None:
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with pytest.raises(TrainingStopped):
        tiny_trainer(tmp_path, SignalAt(1), grace=0.3).fit(Clips())
    # Were the watch still there, it would end the tests.
    time.sleep(0.6)
    after = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(after)
    assert after == before

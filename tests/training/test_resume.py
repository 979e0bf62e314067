# SPDX-License-Identifier: Apache-2.0
"""A run that is stopped and goes on ends as the unbroken one, bit for bit."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import (
    BatchClips,
    Clips,
    Noisy,
    SignalAt,
    assert_same_tensors,
    read_log,
    self_feeding,
    tiny_model,
    tiny_trainer,
)

from pcvideo.data import Compose, HorizontalFlip, TensorClips, TimeReverse
from pcvideo.models.mspn import MSPN
from pcvideo.training import SelfFeeding, TrainingStopped, newest_checkpoint


def tensor_clips() -> TensorClips:
    clips = torch.stack([Clips()[index] for index in range(10)])
    return TensorClips(clips, transform=Compose([HorizontalFlip(), TimeReverse()]), seed=3)


RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "random transforms": (tensor_clips, {}),
    "two workers": (tensor_clips, {"num_workers": 2}),
    "whole batches": (BatchClips, {"schedule": "one_cycle", "optimizer": "adamw", "weight_decay": 0.1}),
    "averaging": (Clips, {"ema": 0.9, "warmup": 3, "clip_norm": 1.0}),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_stopped_in_mid_epoch_and_resumed_equals_the_unbroken_one_bit_for_bit(run: str, tmp_path: Path) -> None:
    clips, options = RUNS[run]
    options = options | {"validate_every": 3, "batch_size": 3}
    unbroken = tiny_trainer(tmp_path / "unbroken", **options)
    metrics = unbroken.fit(clips(), Clips(4))

    with pytest.raises(TrainingStopped):
        # Step 5 is the second of the second epoch's three.
        tiny_trainer(tmp_path / "broken", SignalAt(5), **options).fit(clips(), Clips(4))
    assert newest_checkpoint(tmp_path / "broken") == tmp_path / "broken" / "checkpoints" / "step-00000005"
    # Other weights and other random numbers at the start: all must come from the checkpoint.
    resumed = tiny_trainer(tmp_path / "broken", model=tiny_model(seed=9), **options)
    torch.manual_seed(77)
    assert resumed.fit(clips(), Clips(4), resume="auto") == metrics

    assert read_log(tmp_path / "broken") == read_log(tmp_path / "unbroken")
    assert_same_tensors(resumed.model.state_dict(), unbroken.model.state_dict())
    assert_same_tensors(resumed.weights.state_dict(), unbroken.weights.state_dict())
    best = [MSPN.from_pretrained(tmp_path / name / "best").state_dict() for name in ("broken", "unbroken")]
    assert_same_tensors(*best)


def test_a_run_that_died_after_its_last_checkpoint_repeats_the_lost_steps_alike(tmp_path: Path) -> None:
    class Dying(Clips):
        def __getitem__(self, index: int) -> Any:
            if self.epoch == 2:
                raise RuntimeError("the disk came off")
            return super().__getitem__(index)

    options = {"checkpoint_every": 4, "validate_every": 2}
    unbroken = tiny_trainer(tmp_path / "unbroken", **options)
    unbroken.fit(Clips(), Clips(4))
    with pytest.raises(RuntimeError, match="came off"):
        tiny_trainer(tmp_path / "broken", **options).fit(Dying(), Clips(4))
    # Steps 5 and 6 are in the log and in no checkpoint.
    assert max(step for step, _, _ in read_log(tmp_path / "broken")) == 6
    assert newest_checkpoint(tmp_path / "broken").name == "step-00000004"
    resumed = tiny_trainer(tmp_path / "broken", **options)
    resumed.fit(Clips(), Clips(4), resume="auto")
    rows = read_log(tmp_path / "broken")
    assert rows == read_log(tmp_path / "unbroken")
    assert len({(step, name) for step, name, _ in rows}) == len(rows)
    assert_same_tensors(resumed.model.state_dict(), unbroken.model.state_dict())


def test_randomness_inside_the_strategy_survives_a_resume_and_a_validation_between(tmp_path: Path) -> None:
    unbroken = tiny_trainer(tmp_path / "unbroken", self_feeding(loss=Noisy()), checkpoint_every=3)
    unbroken.fit(Clips())
    validated = tiny_trainer(tmp_path / "validated", self_feeding(loss=Noisy()), validate_every=1)
    validated.fit(Clips(), Clips(4))
    second = tiny_trainer(tmp_path / "again", self_feeding(loss=Noisy()))
    second.load(tmp_path / "unbroken" / "checkpoints" / "step-00000006")
    second.fit(Clips(), resume=tmp_path / "unbroken" / "checkpoints" / "step-00000006")
    losses = [
        {step: value for step, name, value in read_log(tmp_path / name) if name.endswith("loss")}
        for name in ("unbroken", "validated", "again")
    ]
    assert losses[1] == losses[0]
    assert losses[2] == {step: losses[0][step] for step in (7, 8)}


def test_two_runs_with_one_seed_are_equal_bit_for_bit_and_another_seed_differs(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        torch.manual_seed(hash(name) % 1000)
        tiny_trainer(tmp_path / name, model=tiny_model(1), seed=seed).fit(Clips())
    assert read_log(tmp_path / "one") == read_log(tmp_path / "two")
    assert read_log(tmp_path / "one") != read_log(tmp_path / "other")


def test_a_run_stopped_while_validating_makes_that_validation_when_it_goes_on(tmp_path: Path) -> None:
    class Interrupting(SelfFeeding):
        def forecast(self, batch: Any, model: Any) -> Any:
            signal.raise_signal(signal.SIGTERM)
            return super().forecast(batch, model)

    options = {"steps": 4, "validate_every": 2}
    unbroken = tiny_trainer(tmp_path / "unbroken", **options).fit(Clips(), Clips(4))
    for start in (None, "auto"):
        trainer = tiny_trainer(tmp_path / "broken", Interrupting(context=2, horizon=2), **options)
        with pytest.raises(TrainingStopped) as stopped:
            trainer.fit(Clips(), Clips(4), resume=start)
        assert Path(stopped.value.checkpoint).name == "step-00000002"
    assert tiny_trainer(tmp_path / "broken", **options).fit(Clips(), Clips(4), resume="auto") == unbroken
    assert read_log(tmp_path / "broken") == read_log(tmp_path / "unbroken")


def test_resuming_a_finished_run_makes_no_step_and_returns_its_last_validation(tmp_path: Path) -> None:
    first = tiny_trainer(tmp_path, steps=2)
    metrics = first.fit(Clips(), Clips(4))
    again = tiny_trainer(tmp_path, steps=2, model=tiny_model(seed=4))
    assert again.fit(Clips(), Clips(4), resume="auto") == metrics
    assert_same_tensors(first.model.state_dict(), again.model.state_dict())
    assert {step for step, _, _ in read_log(tmp_path)} == {1, 2}


def test_resume_auto_in_a_new_folder_starts_afresh(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path / "new", steps=1)
    trainer.fit(Clips(), resume="auto")
    assert trainer.step == 1


def test_a_run_folder_with_checkpoints_is_not_started_over_or_mixed(tmp_path: Path) -> None:
    tiny_trainer(tmp_path / "run", steps=2, checkpoint_every=1).fit(Clips())
    before = (tmp_path / "run" / "log.csv").read_bytes()
    with pytest.raises(FileExistsError, match=r"step-00000002; resume='auto'"):
        tiny_trainer(tmp_path / "run").fit(Clips())
    with pytest.raises(FileExistsError, match="remove the newer ones"):
        tiny_trainer(tmp_path / "run").fit(Clips(), resume=tmp_path / "run" / "checkpoints" / "step-00000001")
    assert (tmp_path / "run" / "log.csv").read_bytes() == before


def test_a_wrong_resume_path_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no checkpoint"):
        tiny_trainer(tmp_path).fit(Clips(), resume=tmp_path / "nowhere")


def test_a_checkpoint_of_another_model_is_refused_by_name_and_changes_nothing(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, steps=1).fit(Clips())
    wide = tiny_trainer(tmp_path, model=tiny_model(channels=(4, 6)))
    before = {name: tensor.clone() for name, tensor in wide.model.state_dict().items()}
    with pytest.raises(ValueError, match=r"other shapes: model\.\S+ \(8, .* in the checkpoint, \(6, .* in the model"):
        wide.fit(Clips(), resume="auto")
    assert_same_tensors(wide.model.state_dict(), before)
    deep = tiny_trainer(tmp_path, model=tiny_model(levels=2, channels=(4, 6, 8)))
    with pytest.raises(ValueError, match=r"only the model that is trained has: model\.cells"):
        deep.fit(Clips(), resume="auto")


def test_settings_that_changed_are_warned_of_with_both_values(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_trainer(tmp_path, steps=1, lr=1e-3).fit(Clips())
    strategy = SelfFeeding(context=1, horizon=2)
    tiny_trainer(tmp_path, strategy, steps=2, lr=2e-3, batch_size=2).fit(Clips(), resume="auto")
    warnings = " ".join(record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    for change in ("steps 1 -> 2", "lr 0.001 -> 0.002", "batch_size 3 -> 2", "context 2 -> 1"):
        assert change in warnings
    assert "seed" not in warnings


def test_averaging_taken_up_on_resume_starts_from_the_trained_weights(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, steps=2).fit(Clips())
    resumed = tiny_trainer(tmp_path, steps=3, ema=0.5, model=tiny_model(seed=8))
    resumed.fit(Clips(), resume="auto")
    assert_same_tensors(resumed.weights.state_dict(), resumed.model.state_dict())

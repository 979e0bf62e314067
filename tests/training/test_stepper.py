# SPDX-License-Identifier: Apache-2.0
"""Parts of a batch, 16 bits, compiled steps; and memory: what is told when it ends, and the batch that fits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import Clips, assert_same_tensors, read_log, self_feeding, tiny_model, tiny_trainer

from pcvideo.training import SelfFeeding, largest_batch
from pcvideo.training.checkpoint import load_checkpoint, newest_checkpoint
from pcvideo.training.stepper import LossScale


def losses_of(folder: Path) -> list[float]:
    return [float(value) for _, name, value in read_log(folder) if name == "loss"]


@pytest.mark.parametrize("accumulate", [2, 3, 5])
def test_parts_of_a_batch_one_after_another_train_as_the_whole(accumulate: int, tmp_path: Path) -> None:
    tiny_trainer(tmp_path / "whole", batch_size=5, steps=4).fit(Clips())
    tiny_trainer(tmp_path / "parts", batch_size=5, steps=4, accumulate=accumulate).fit(Clips())
    whole, parts = (
        [(name, float(value)) for _, name, value in read_log(tmp_path / each)] for each in ("whole", "parts")
    )
    assert [name for name, _ in whole] == [name for name, _ in parts]
    assert [value for _, value in parts] == pytest.approx([value for _, value in whole], rel=1e-5)


def test_float16_trains_near_float32_and_its_scale_and_weights_come_back_on_resume(tmp_path: Path) -> None:
    options = {"steps": 6, "lr": 0.01, "checkpoint_every": 3}
    unbroken = tiny_trainer(tmp_path / "half", precision="float16", **options)
    unbroken.fit(Clips(), Clips(3))
    tiny_trainer(tmp_path / "single", **options).fit(Clips())
    losses = losses_of(tmp_path / "half")
    good = [loss for loss in losses if math.isfinite(loss)]
    assert good == losses
    assert losses[0] == pytest.approx(losses_of(tmp_path / "single")[0], rel=0.01)
    assert {parameter.dtype for parameter in unbroken.model.parameters()} == {torch.float32}

    resumed = tiny_trainer(tmp_path / "again", model=tiny_model(7), precision="float16", **options)
    resumed.fit(Clips(), resume=tmp_path / "half" / "checkpoints" / "step-00000003")
    assert_same_tensors(resumed.model.state_dict(), unbroken.model.state_dict())
    scales = [load_checkpoint(newest_checkpoint(tmp_path / name))[0]["loss_scale"] for name in ("half", "again")]
    assert scales[0] == scales[1]


def test_an_overflow_in_float16_leaves_the_step_out_halves_the_scale_and_is_no_bad_step(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, precision="float16", steps=4, max_bad_steps=0)
    trainer._stepper.loss_scale = LossScale(scale=2.0**120)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.fit(Clips())
    # Far too large for four halvings to mend.
    assert_same_tensors(trainer.model.state_dict(), before)
    assert [float(value) for _, name, value in read_log(tmp_path) if name == "loss_scale"] == [
        2.0**power for power in (120, 119, 118, 117)
    ]


def test_the_loss_scale_halves_on_an_overflow_and_doubles_after_2000_good_steps() -> None:
    scale = LossScale()
    reference = torch.amp.GradScaler("cpu")
    weight = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    for step in range(4100):
        overflows = step in (3, 2500)
        weight.grad = torch.tensor(math.inf if overflows else 1.0)
        reference.scale(torch.ones(()))
        reference.unscale_(optimizer)
        reference.step(optimizer)
        reference.update()
        scale.update(overflows)
        assert scale.scale == reference.get_scale()


def test_the_compiled_step_is_used_for_training_alone_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []

    def compiled(step: Any) -> Any:
        def run(frame: Any, state: Any) -> Any:
            calls.append(torch.is_grad_enabled())
            return step(frame, state)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    trainer = tiny_trainer(tmp_path, steps=2, compile=True, ema=0.5)
    trainer.fit(Clips(), Clips(3))
    # Three steps over time for each of two training steps, and none in validation.
    assert calls == [True] * 6
    assert "step" not in vars(trainer.model)
    assert "step" not in vars(trainer.weights)
    plain = tiny_trainer(tmp_path / "plain", steps=2, ema=0.5)
    plain.fit(Clips(), Clips(3))
    assert losses_of(tmp_path) == losses_of(tmp_path / "plain")


class Hungry(SelfFeeding):
    """Fits so many clips and no more."""

    def __init__(self, room: int, error: type[Exception] = torch.OutOfMemoryError) -> None:
        super().__init__(context=2, horizon=2)
        self.room, self.error, self.tried = room, error, []

    def forward(self, batch: torch.Tensor) -> Any:
        self.tried.append(len(batch))
        if len(batch) > self.room:
            raise self.error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        return super().forward(batch)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_out_of_memory_says_what_to_turn_down(error: type[Exception], tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, Hungry(2, error))
    with pytest.raises(torch.OutOfMemoryError) as told:
        trainer.fit(Clips())
    for word in ("accumulate", "checkpoint=True", "precision", "batch_size", "horizon", "smaller frames", "(3, 4, 1"):
        assert word in str(told.value)
    assert "99 bytes" in str(told.value)


@pytest.mark.parametrize(
    ("room", "maximum", "expected"), [(1, 64, 1), (5, 64, 5), (11, 64, 11), (100, 12, 12), (3, 3, 3)]
)
def test_the_largest_batch_is_the_last_that_fits(room: int, maximum: int, expected: int, tmp_path: Path) -> None:
    strategy = Hungry(room)
    trainer = tiny_trainer(tmp_path, strategy, model=tiny_model(norm="batch"), batch_size=1)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    random = torch.get_rng_state()
    assert largest_batch(trainer, Clips(), maximum=maximum, memory_limit=2**40) == expected
    assert len(strategy.tried) <= 9
    assert max(strategy.tried) <= maximum
    assert_same_tensors(trainer.model.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_the_largest_batch_keeps_within_the_memory_that_is_given(tmp_path: Path) -> None:
    def found(megabytes: int, **options: Any) -> int:
        trainer = tiny_trainer(tmp_path, self_feeding(**options), batch_size=1)
        return largest_batch(trainer, Clips(), maximum=400, memory_limit=megabytes * 2**20)

    small, large, recomputed = found(4), found(8), found(4, checkpoint=True)
    assert small > 1
    # What a clip takes is the same, and the rest is small beside it.
    assert large == pytest.approx(2 * small, rel=0.2)
    assert recomputed > 1.3 * small
    with pytest.raises(torch.OutOfMemoryError, match=r"a single clip: .* more than memory_limit=1,000"):
        largest_batch(tiny_trainer(tmp_path), Clips(), memory_limit=1000)


def test_on_a_cpu_the_memory_limit_has_to_be_stated(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="memory_limit must be given on a CPU"):
        largest_batch(tiny_trainer(tmp_path), Clips())

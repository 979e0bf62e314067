# SPDX-License-Identifier: Apache-2.0
"""The loop itself: its steps against loops written out, bad steps, averaging, validation, what it leaves to read."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_helpers import (
    BatchClips,
    Clips,
    assert_same_tensors,
    read_log,
    self_feeding,
    tiny_model,
    tiny_trainer,
)

import pcvideo
from pcvideo.models import Predictor
from pcvideo.training import Strategy, Trainer, Validation, learning_rate_factor, newest_checkpoint
from pcvideo.training.batches import epoch_batches


def train_by_hand(optimizer_kind: Any, *, steps: int, clip: float | None, **options: Any) -> list[list[Tensor]]:
    """The weights after each step of a loop without any trainer."""
    model = tiny_model()
    strategy = self_feeding().attach(model.to(memory_format=torch.channels_last))
    optimizer = optimizer_kind(model.parameters(), lr=0.01, **options)
    clips, weights = Clips(), []
    for step in range(steps):
        epoch, place = divmod(step, 3)
        clips.set_epoch(epoch)
        indices = epoch_batches(10, 3, seed=0, epoch=epoch)[place]
        optimizer.param_groups[0]["lr"] = 0.01 * learning_rate_factor("one_cycle", step, steps=steps)
        optimizer.zero_grad()
        strategy(torch.stack([clips[index] for index in indices]))[0].backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
        if clip is not None and norm > clip:
            for gradient in gradients:
                gradient.mul_(clip / (norm + 1e-6))
        optimizer.step()
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
    return weights


@pytest.mark.parametrize(
    ("name", "kind", "decay", "clip"),
    [
        ("adam", torch.optim.Adam, 0.0, None),
        ("adamw", torch.optim.AdamW, 0.2, None),
        ("adam", torch.optim.Adam, 0.1, 0.5),
    ],
)
def test_the_trained_weights_are_those_of_a_plain_loop(
    name: str, kind: Any, decay: float, clip: float | None, tmp_path: Path
) -> None:
    expected = train_by_hand(kind, steps=5, clip=clip, weight_decay=decay)[-1]
    options = {"optimizer": name, "weight_decay": decay, "clip_norm": clip, "lr": 0.01, "schedule": "one_cycle"}
    trainer = tiny_trainer(tmp_path, steps=5, **options)
    trainer.fit(Clips())
    for parameter, weight in zip(trainer.model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), weight, rtol=1e-5, atol=1e-6)
    norms = [float(value) for _, what, value in read_log(tmp_path) if what == "gradient_norm"]
    # Else clipping was not tried.
    assert min(norms) > 0.5


def test_the_average_is_an_exponential_moving_average_from_the_first_step_on(tmp_path: Path) -> None:
    history = train_by_hand(torch.optim.Adam, steps=5, clip=None)
    average = history[0]
    for weights in history[1:]:
        average = [0.8 * old + 0.2 * new for old, new in zip(average, weights, strict=True)]
    trainer = tiny_trainer(tmp_path, steps=5, ema=0.8, lr=0.01, schedule="one_cycle")
    trainer.fit(Clips())
    for parameter, weight in zip(trainer.weights.parameters(), average, strict=True):
        torch.testing.assert_close(parameter.detach(), weight, rtol=1e-5, atol=1e-6)


def test_the_logged_learning_rate_is_the_schedule_times_the_peak(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, steps=4, lr=0.3, warmup=1).fit(Clips())
    rates = [float(value) for _, name, value in read_log(tmp_path) if name == "learning_rate"]
    assert rates == [0.3 * learning_rate_factor("cosine", step, steps=4, warmup=1) for step in range(4)]


class Poisoned(Clips):
    """Some clips hold a NaN."""

    def __init__(self, bad: set[int], **options: Any) -> None:
        super().__init__(**options)
        self.bad = bad

    def __getitem__(self, index: int) -> Tensor:
        clip = super().__getitem__(index)
        if index in self.bad:
            clip[1, 0, 3, 3] = math.nan
        return clip


@pytest.mark.parametrize("norm", [None, "batch"])
def test_a_step_on_a_nan_is_left_out_and_told_with_its_clips(
    norm: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = tiny_trainer(tmp_path, model=tiny_model(norm=norm), steps=3, ema=0.5, batch_size=2, checkpoint_every=1)
    batches = epoch_batches(6, 2, seed=0, epoch=0)
    trainer.keep = 3
    # The second step of three meets the bad clip.
    trainer.fit(Poisoned({batches[1][0]}, count=6))
    losses = [float(value) for _, name, value in read_log(tmp_path) if name == "loss"]
    assert [math.isfinite(loss) for loss in losses] == [True, False, True]
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(told) == 1
    assert f"step 2: loss nan, gradient norm nan on the training clips {batches[1]}" in told[0]
    # Weights, running statistics and averages alike.
    first, second, third = (pcvideo.MSPN.from_pretrained(path) for path in sorted((tmp_path / "checkpoints").iterdir()))
    assert_same_tensors(first.state_dict(), second.state_dict())
    assert not torch.equal(next(second.parameters()), next(third.parameters()))
    assert all(bool(torch.isfinite(tensor).all()) for tensor in trainer.strategy.state_dict().values())


def test_too_many_bad_steps_in_a_row_stop_with_step_and_clips_and_keep_the_last_good_checkpoint(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, batch_size=2, max_bad_steps=2, checkpoint_every=1)
    batches = epoch_batches(10, 2, seed=0, epoch=0)
    bad = {index for batch in batches[2:] for index in batch}
    with pytest.raises(
        FloatingPointError,
        match=re.escape(f"step 5: loss nan, gradient norm nan on the training clips {batches[4]}; 3 such"),
    ):
        trainer.fit(Poisoned(bad))
    assert trainer.step == 5
    good = tiny_trainer(tmp_path)
    good.load(newest_checkpoint(tmp_path))
    assert good.step <= 4
    assert all(bool(torch.isfinite(parameter).all()) for parameter in good.model.parameters())


def test_bad_steps_with_good_ones_between_do_not_add_up(tmp_path: Path) -> None:
    batches = epoch_batches(8, 2, seed=0, epoch=0)
    trainer = tiny_trainer(tmp_path, batch_size=2, steps=4, max_bad_steps=1)
    trainer.fit(Poisoned({batches[0][0], batches[2][1]}, count=8))
    assert trainer.step == 4


def test_an_infinite_gradient_is_a_bad_step_even_where_the_loss_is_finite(tmp_path: Path) -> None:
    class Steep(nn.Module):
        def forward(self, predictions: Any, targets: Any) -> Tensor:
            # The root's slope at zero is infinite.
            return (predictions[0][0] * 0.0).abs().sum().sqrt()

    trainer = tiny_trainer(tmp_path, self_feeding(loss=Steep()), max_bad_steps=0)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    with pytest.raises(FloatingPointError, match="step 1: loss 0, gradient norm nan"):
        trainer.fit(Clips())
    assert_same_tensors(trainer.model.state_dict(), before)


def test_bfloat16_trains_with_finite_losses_and_keeps_the_weights_in_float32(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, precision="bfloat16", steps=6, lr=0.01)
    states: list[torch.dtype] = []
    step = trainer.model.step

    def spied(frame: Any, state: Any) -> Any:
        states.extend(cell.cell.dtype for cell in state.cells)
        return step(frame, state)

    trainer.model.step = spied
    trainer.fit(Clips(), Clips(3))
    losses = [float(value) for _, name, value in read_log(tmp_path) if name == "loss"]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
    assert set(states) == {torch.float32}
    exact = tiny_trainer(tmp_path / "exact", steps=6, lr=0.01)
    exact.fit(Clips())
    reference = [float(value) for _, name, value in read_log(tmp_path / "exact") if name == "loss"]
    assert losses == pytest.approx(reference, rel=0.05)
    assert losses != reference


def test_validation_scores_the_forecast_beside_copy_last_and_keeps_the_best_weights(tmp_path: Path) -> None:
    seen: list[Validation] = []
    trainer = tiny_trainer(tmp_path, steps=4, validate_every=2, validation_clips=5, callbacks=[seen.append])
    metrics = trainer.fit(Clips(), BatchClips(9))
    # By hand: clamped predictions, sums over a frame's pixels, means over frames of the first five clips.
    clips = torch.stack([BatchClips(9)[index] for index in range(5)])
    truth, last = clips[:, 2:4], clips[:, 1:2]

    def score(model: pcvideo.MSPN) -> float:
        with torch.no_grad():
            return float(((model(clips[:, :2], 2).clamp(0, 1) - truth) ** 2).sum((2, 3, 4)).mean())

    assert metrics["mse"] == pytest.approx(score(trainer.model.eval()), rel=1e-5)
    assert metrics["copy_last/mse"] == pytest.approx(float(((last - truth) ** 2).sum((2, 3, 4)).mean()), rel=1e-5)
    assert [validation.step for validation in seen] == [2, 4]
    assert seen[1].metrics == metrics
    assert seen[1].run_dir == tmp_path
    with torch.no_grad():
        torch.testing.assert_close(seen[1].prediction, trainer.model(clips[:3, :2], 2))
    assert torch.equal(seen[1].truth, truth[:3])
    assert torch.equal(seen[1].context, clips[:3, :2])
    best = min(seen, key=lambda validation: validation.metrics["mse"])
    assert trainer.best == best.metrics["mse"]
    assert score(pcvideo.MSPN.from_pretrained(tmp_path / "best")) == pytest.approx(trainer.best, rel=1e-5)


def test_worse_weights_do_not_replace_the_best(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, steps=12, lr=0.03)
    trainer.fit(Clips(), Clips(3))
    before = (tmp_path / "best" / "model.safetensors").read_bytes()
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.zero_()
    assert trainer.validate(Clips(3))["mse"] > trainer.best
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == before


def test_validation_leaves_training_as_it_was(tmp_path: Path) -> None:
    for name, every in (("often", 1), ("seldom", 0)):
        tiny_trainer(tmp_path / name, model=tiny_model(norm="batch"), steps=4, validate_every=every).fit(
            Clips(), Clips(3)
        )
    losses = [
        [row for row in read_log(tmp_path / name) if not row[1].startswith("validation")]
        for name in ("often", "seldom")
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (Clips(2), None, "batch_size=3 is more than the 2 clips"),
        (Clips(0), None, "train_clips is empty"),
        (Clips(frames=3), None, "got 3"),
        (Clips(), Clips(0), "val_clips is empty"),
        (Clips(), Clips(frames=3), "val_clips must hold clips of"),
        (Clips(), Clips(channels=3), "val_clips.*expects C=1"),
    ],
)
def test_data_that_do_not_fit_are_told_before_a_folder_is_made(
    train: Clips, val: Clips | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_trainer(tmp_path / "run").fit(train, val)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"optimizer": "adamv"}, "did you mean 'adam"),
        ({"schedule": "cosinus"}, "did you mean 'cosine'"),
        ({"precision": "float8"}, "precision must be one of"),
        ({"ema": 1.0}, "ema must be"),
        ({"lr": float("nan")}, "lr must be"),
        ({"clip_norm": 0}, "clip_norm must be"),
    ],
)
def test_settings_out_of_range_are_told_by_name(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_trainer(tmp_path, **options)


def test_the_run_folder_tells_what_was_run(tmp_path: Path) -> None:
    model = tiny_model()
    Trainer(
        model, self_feeding(), run_dir=tmp_path, steps=1, batch_size=2, device="cpu", notes={"data": "gratings"}
    ).fit(Clips())
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["settings"]["steps"] == 1
    assert facts["settings"]["lr"] == 1e-3
    assert facts["strategy"] == {"kind": "SelfFeeding", "context": 2, "horizon": 2}
    assert facts["model"] == "MSPN"
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["notes"] == {"data": "gratings"}


def test_nothing_is_printed_and_no_bar_is_drawn_without_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_trainer(tmp_path, steps=2, validate_every=1).fit(Clips(), Clips(3))
    assert capsys.readouterr() == ("", "")


def test_whole_batches_and_single_clips_train_alike(tmp_path: Path) -> None:
    tiny_trainer(tmp_path / "batches").fit(BatchClips())
    tiny_trainer(tmp_path / "clips").fit(Clips())
    assert read_log(tmp_path / "batches") == read_log(tmp_path / "clips")


class Volume(Predictor):
    """A filter of volumes, which has five axes."""

    def __init__(self) -> None:
        super().__init__(in_channels=1)
        self.filter = nn.Conv3d(1, 1, 3, padding=1)

    def init_state(self, like: Tensor) -> Tensor:
        return like

    def step(self, frame: Tensor | None, state: Tensor) -> tuple[list[Tensor], Tensor]:
        state = self.filter((state if frame is None else frame)[:, None])[:, 0]
        return [state], state


def test_models_of_volumes_train_too(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, model=Volume(), steps=3)
    trainer.fit(Clips())
    losses = [float(value) for _, name, value in read_log(tmp_path) if name == "loss"]
    assert losses[-1] < losses[0]


def test_frozen_weights_stay_as_they_are(tmp_path: Path) -> None:
    model = tiny_model()
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    before = frozen.clone()
    tiny_trainer(tmp_path, model=model, steps=2, optimizer="adamw", weight_decay=0.5).fit(Clips())
    assert torch.equal(frozen, before)


def test_networks_that_belong_to_the_strategy_are_trained_and_saved_with_it(tmp_path: Path) -> None:
    class Weighted(Strategy):
        def __init__(self) -> None:
            super().__init__(context=2, horizon=2)
            self.judge = nn.Conv2d(1, 1, 3)

        def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            prediction = self.model(batch[:, :2], 2)
            return self.judge((prediction - batch[:, 2:]).flatten(0, 1)).square().mean(), {}

    strategy = Weighted()
    before = strategy.judge.weight.detach().clone()
    tiny_trainer(tmp_path, strategy, steps=2).fit(Clips())
    assert not torch.equal(strategy.judge.weight, before)
    other = Weighted()
    tiny_trainer(tmp_path, other, model=tiny_model(2)).load(newest_checkpoint(tmp_path))
    assert torch.equal(other.judge.weight, strategy.judge.weight)

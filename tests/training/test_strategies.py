# SPDX-License-Identifier: Apache-2.0
"""What the strategies feed and compare, against loops written out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_helpers import Clips, assert_same_tensors, read_log, tiny_model, tiny_trainer

from pcvideo import MSPN
from pcvideo.losses import PyramidLoss
from pcvideo.models import Predictor
from pcvideo.training import SelfFeeding, Strategy, TeacherForced


class Spy(Predictor):
    """Predicts `gain` times what it was corrected with, and remembers what that was."""

    def __init__(self) -> None:
        super().__init__(in_channels=1)
        self.gain = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.fed: list[Tensor] = []

    def init_state(self, like: Tensor) -> Tensor:
        return torch.zeros_like(like)

    def step(self, frame: Tensor | None, state: Tensor) -> tuple[list[Tensor], Tensor]:
        fed = state if frame is None else frame
        self.fed.append(fed)
        prediction = self.gain * fed
        return [prediction], prediction


def make_batch(frames: int, *, channels: int = 1, size: tuple[int, int] = (4, 4), seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, frames, channels, *size, generator=generator, dtype=torch.float64)


def test_teacher_forcing_feeds_every_true_frame_but_the_last() -> None:
    spy, batch = Spy(), make_batch(7)
    TeacherForced(context=2, horizon=3).attach(spy)(batch)
    # Frames beyond context + horizon are cut off.
    assert len(spy.fed) == 4
    assert all(torch.equal(fed, batch[:, time]) for time, fed in enumerate(spy.fed))


@pytest.mark.parametrize("detach", [False, True])
def test_self_feeding_feeds_true_frames_in_the_context_and_predictions_after_it(detach: bool) -> None:
    spy, batch = Spy(), make_batch(6)
    SelfFeeding(context=3, horizon=3, detach=detach).attach(spy)(batch)
    assert len(spy.fed) == 5
    assert all(torch.equal(fed, batch[:, time]) for time, fed in enumerate(spy.fed[:3]))
    for power, fed in enumerate(spy.fed[3:], start=1):
        assert torch.allclose(fed, 0.5**power * batch[:, 2])
        assert fed.requires_grad is not detach


def test_the_gradient_flows_through_frames_that_are_fed_back_unless_they_are_detached() -> None:
    batch = make_batch(4)
    slopes = {}
    for detach in (False, True):
        spy = Spy()
        loss, _ = SelfFeeding(context=1, horizon=3, detach=detach).attach(spy)(batch)
        loss.backward()
        slopes[detach] = float(spy.gain.grad)
    # Prediction k is gain**k times frame 0; detached, gain times what prediction k - 1 happens to be.
    first, gain = batch[:, 0], 0.5
    expected = {False: 0.0, True: 0.0}
    for power in (1, 2, 3):
        gap = 2 * (gain**power * first - batch[:, power])
        expected[False] += float((gap * power * gain ** (power - 1) * first).sum()) / len(batch)
        expected[True] += float((gap * gain ** (power - 1) * first).sum()) / len(batch)
    assert slopes == pytest.approx(expected)
    assert abs(slopes[True] - slopes[False]) > 0.1


def loop_by_hand(model: MSPN, batch: Tensor, context: int, *, detach: bool = False) -> Tensor:
    """Sum of squares over all levels and frames from the second on, divided by the batch size."""
    state = model.init_state(batch[:, 0])
    total = torch.zeros((), dtype=batch.dtype)
    for time in range(batch.shape[1] - 1):
        frame = batch[:, time] if time < context else state.predictions[0]
        pyramid, state = model.step(frame.detach() if detach else frame, state)
        target = batch[:, time + 1]
        for level in pyramid:
            total = total + ((level - target) ** 2).sum()
            target = target[..., ::2, ::2]
    return total / batch.shape[0]


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"), [("forced", {}), ("fed", {}), ("fed", {"detach": True}), ("fed", {"detach_targets": True})]
)
def test_loss_and_gradients_equal_the_loop_written_out(kind: str, options: dict[str, Any], checkpoint: bool) -> None:
    model = tiny_model(levels=2, channels=(4, 6, 8)).double()
    batch = make_batch(5, size=(8, 8))
    maker = SelfFeeding if kind == "fed" else TeacherForced
    loss, logs = maker(context=2, horizon=3, checkpoint=checkpoint, **options).attach(model)(batch)
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    expected = loop_by_hand(model, batch, 2 if kind == "fed" else 5, detach=options.get("detach", False))
    expected.backward()
    assert logs == {}
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("cell", "golden"), [("ed_lstm", 3556.36865305), ("encoder_lstm_decoder", 3543.54192176)])
def test_self_feeding_gives_the_published_loss(cell: str, golden: float) -> None:
    model = MSPN(in_channels=3, levels=2, channels=(8, 16, 32), hidden_channels=4, cell=cell).double()
    with torch.no_grad():
        for parameter in model.parameters():
            wave = torch.sin(0.9 * torch.arange(parameter.numel(), dtype=torch.float64) + 0.5)
            fan = parameter.numel() / parameter.shape[0]
            parameter.copy_((wave / math.sqrt(fan) if parameter.ndim >= 2 else 0.1 * wave).view_as(parameter))
    count = 2 * 5 * 3 * 16 * 24
    batch = 0.5 + 0.5 * torch.sin(0.05 * torch.arange(count, dtype=torch.float64) + 0.2).view(2, 5, 3, 16, 24)
    loss, _ = SelfFeeding(context=3, horizon=2, loss=PyramidLoss(batch_mean=False)).attach(model)(batch)
    assert loss.item() == pytest.approx(golden, rel=1e-10)


def test_the_default_loss_does_not_depend_on_how_often_a_clip_stands_in_the_batch() -> None:
    model, batch = tiny_model().double(), make_batch(4, size=(8, 8))
    strategy = SelfFeeding(context=2, horizon=2).attach(model)
    once, twice = (float(strategy(clips)[0]) for clips in (batch, torch.cat([batch, batch])))
    assert once == pytest.approx(twice)


def test_16_bit_predictions_are_compared_in_float32() -> None:
    seen: list[torch.dtype] = []

    class Loss(nn.Module):
        def forward(self, predictions: Any, targets: Any) -> Tensor:
            seen.extend(level.dtype for pyramid in predictions for level in pyramid)
            return predictions[0][0].sum()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        SelfFeeding(context=2, horizon=2, loss=Loss()).attach(tiny_model())(make_batch(4, size=(8, 8)).float())
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (make_batch(3), r"context \+ horizon = 4 frames, got 3"),
        (make_batch(4, channels=3), "expects C=1 channels, got 3"),
        (make_batch(4)[0], "add the batch axis"),
    ],
)
def test_batches_that_do_not_fit_are_told_why(batch: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TeacherForced(context=2, horizon=2).attach(Spy())(batch)


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0), (1.5, 1), (True, 1)])
def test_context_and_horizon_are_whole_numbers_from_1(numbers: tuple[Any, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="must be a whole number"):
        SelfFeeding(context=numbers[0], horizon=numbers[1])


class MeanFrame(Strategy):
    """A user's own: one class, one method."""

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        prediction = self.model(batch[:, : self.context], self.horizon)
        gap = (prediction - batch[:, self.context : self.length]).abs().mean()
        return gap, {"brightness": prediction.detach().mean()}


def test_a_strategy_of_ones_own_trains_logs_validates_and_resumes(tmp_path: Path) -> None:
    runs = {name: tmp_path / name for name in ("unbroken", "broken")}
    options = {"steps": 6, "lr": 0.03}
    unbroken = tiny_trainer(runs["unbroken"], MeanFrame(context=2, horizon=2), **options)
    unbroken.fit(Clips(), Clips(3))
    rows = read_log(runs["unbroken"])
    assert {name for _, name, _ in rows} >= {"loss", "brightness", "validation/mse", "validation/copy_last/mse"}
    losses = [float(value) for _, name, value in rows if name == "loss"]
    assert losses[-1] < losses[0]

    broken = tiny_trainer(runs["broken"], MeanFrame(context=2, horizon=2), checkpoint_every=4, keep=9, **options)
    broken.fit(Clips(), Clips(3))
    resumed = tiny_trainer(tmp_path / "third", MeanFrame(context=2, horizon=2), model=tiny_model(4), **options)
    resumed.fit(Clips(), resume=runs["broken"] / "checkpoints" / "step-00000004")
    assert_same_tensors(resumed.model.state_dict(), unbroken.model.state_dict())


def test_a_strategy_without_a_forward_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="forward"):
        type("Empty", (Strategy,), {})(context=1, horizon=1)

# SPDX-License-Identifier: Apache-2.0
"""Truncated back-propagation through time: pieces of a clip, against the whole and against loops that cut the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_strategies_on_features import Toy, distance, toy
from torch import Tensor, nn
from training_helpers import CONTEXT, HORIZON, Clips, assert_same_tensors, read_log, tiny_model, tiny_trainer

from pcvideo.losses import EncodingLoss, FramePerceptualLoss, PPNV2Loss, PyramidLoss, SumLoss
from pcvideo.models import Predictor
from pcvideo.rollout import map_state
from pcvideo.training import Linear, SelfFeeding, SequenceStrategy, TeacherForced
from pcvideo.training.batches import epoch_batches

Make = Callable[..., SequenceStrategy]
BOTH = pytest.mark.parametrize("make", [TeacherForced, SelfFeeding])


def make_batch(frames: int, size: tuple[int, int] = (8, 8), channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, frames, channels, *size, generator=generator, dtype=torch.float64)


def run(strategy: SequenceStrategy, model: nn.Module, batch: Tensor) -> tuple[float, list[Tensor | None], int]:
    """Loss, gradients and number of pieces, as the trainer goes through them."""
    model.zero_grad()
    total, count = 0.0, 0
    for piece in strategy.attach(model).pieces(batch):
        loss, _ = strategy(piece)
        loss.backward()
        total, count = total + loss.item(), count + 1
    return total, [None if each.grad is None else each.grad.clone() for each in model.parameters()], count


def assert_same_gradients(one: list[Tensor | None], other: list[Tensor | None], **tolerances: float) -> None:
    assert [gradient is None for gradient in one] == [gradient is None for gradient in other]
    for mine, others in zip(one, other, strict=True):
        if mine is not None:
            torch.testing.assert_close(mine, others, **({"rtol": 0, "atol": 0} | tolerances))


@BOTH
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("truncate", [6, 100])
def test_a_piece_as_long_as_the_clip_gives_the_untruncated_gradients_bit_for_bit(
    make: Make, checkpoint: bool, truncate: int
) -> None:
    model, batch = tiny_model(levels=2, channels=(4, 6, 8)).double(), make_batch(7)
    options = {"context": 3, "horizon": 4, "checkpoint": checkpoint}
    loss, whole, _ = run(make(**options), model, batch)
    other_loss, pieces, count = run(make(truncate=truncate, **options), model, batch)
    assert count == 1
    assert other_loss == loss
    assert_same_gradients(pieces, whole)


@BOTH
@pytest.mark.parametrize("truncate", [1, 2, 3, 4])
def test_the_gradients_are_those_of_a_loop_whose_state_is_cut_off_between_pieces(make: Make, truncate: int) -> None:
    model, batch, context = tiny_model(levels=2, channels=(4, 6, 8)).double(), make_batch(9), 4
    loss, gradients, count = run(make(context=context, horizon=4, truncate=truncate), model, batch)
    assert count == -(-7 // truncate)

    model.zero_grad()
    state, total = model.init_state(batch[:, 0]), torch.zeros((), dtype=torch.float64)
    for time in range(7):
        if time and time % truncate == 0:
            state = map_state(Tensor.detach, state)
        is_fed_back = make is SelfFeeding and time >= context
        pyramid, state = model.step(state.predictions[0] if is_fed_back else batch[:, time], state)
        target = batch[:, time + 1]
        for level in pyramid:
            total = total + ((level - target) ** 2).sum() / 2
            target = target[..., ::2, ::2]
    total.backward()
    assert loss == pytest.approx(total.item(), rel=1e-12)
    assert_same_gradients(gradients, [each.grad for each in model.parameters()], rtol=1e-9, atol=1e-12)


class Gain(Predictor):
    """Predicts `gain` times what it was corrected with."""

    def __init__(self) -> None:
        super().__init__(in_channels=1)
        self.gain = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def init_state(self, like: Tensor) -> Tensor:
        return torch.zeros_like(like)

    def step(self, frame: Tensor | None, state: Tensor) -> tuple[list[Tensor], Tensor]:
        prediction = self.gain * (state if frame is None else frame)
        return [prediction], prediction


@pytest.mark.parametrize("detach", [False, True])
def test_no_gradient_passes_from_one_piece_to_the_one_before(detach: bool) -> None:
    batch, gain = make_batch(5), 0.5
    _, (slope,), _ = run(SelfFeeding(context=1, horizon=4, truncate=2, detach=detach), Gain(), batch)
    # Prediction k is gain**k times frame 0: in pieces of two, a gain for each step since the piece began.
    expected = 0.0
    for power in (1, 2, 3, 4):
        own = 1 if detach else 2 - power % 2
        gap = gain**power * batch[:, 0] - batch[:, power]
        expected += float((2 * gap * own * gain ** (power - 1) * batch[:, 0]).sum()) / 2
    assert slope.item() == pytest.approx(expected, rel=1e-12)


LOSSES: dict[str, Callable[[], nn.Module]] = {
    "sum": PyramidLoss,
    "mean": lambda: PyramidLoss(norm="mean"),
    "euclidean": lambda: PyramidLoss(norm="euclidean", level_weights="linear"),
    "first step skipped": lambda: PyramidLoss(step_weights="skip_first", batch_mean=True),
    "first step skipped, mean": lambda: PyramidLoss(step_weights="skip_first", norm="mean"),
    "weights by number": lambda: PyramidLoss(step_weights=[0.5, 0, 2, 0, 0, 1, 3], norm="mean"),
    "PPNV2": lambda: PPNV2Loss(network=distance),
    "perceptual by number": lambda: FramePerceptualLoss(step_weights=[0, 1, 2, 3, 4, 5, 6], network=distance),
    "sum of losses": lambda: SumLoss(PyramidLoss(batch_mean=True), FramePerceptualLoss(network=distance)),
}


@BOTH
@pytest.mark.parametrize("truncate", [1, 3, 5])
@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_of_all_pieces_add_up_to_that_of_the_whole(make: Make, truncate: int, name: str) -> None:
    model, batch = toy(), make_batch(8, (8, 12))
    options = {"context": 4, "horizon": 4, "loss": LOSSES[name]()}
    expected, _, _ = run(make(**options), model, batch)
    loss, _, count = run(make(truncate=truncate, **options), model, batch)
    assert count > 1
    assert loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("truncate", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("step_weights", [None, [1, 0.5, 0, 2]])
def test_so_does_the_loss_of_what_is_fed_back(truncate: int, step_weights: Any) -> None:
    model, batch = toy(), make_batch(8, (8, 12))

    def strategy(**options: Any) -> SelfFeeding:
        losses = {"loss": PPNV2Loss(network=distance), "encoding_loss": EncodingLoss(step_weights=step_weights)}
        return SelfFeeding(context=3, horizon=5, **losses, **options)

    _, whole = strategy().attach(model)(batch)
    total = dict.fromkeys(whole, 0.0)
    pieces = strategy(truncate=truncate).attach(model)
    for piece in pieces.pieces(batch):
        _, logs = pieces(piece)
        total = {name: total[name] + value.item() for name, value in logs.items()}
    assert total == pytest.approx({name: value.item() for name, value in whole.items()}, rel=1e-12)
    assert total["encoding"] > 1e-3


def test_learned_targets_get_the_untruncated_gradients_in_a_piece_as_long_as_the_clip() -> None:
    model, batch = toy(), make_batch(8, (8, 12))
    options = {"context": 3, "horizon": 5, "loss": PPNV2Loss(network=distance), "encoding_loss": EncodingLoss()}
    _, whole, _ = run(SelfFeeding(**options), model, batch)
    _, piece, _ = run(SelfFeeding(truncate=7, **options), model, batch)
    assert_same_gradients(piece, whole)


def test_a_piece_may_be_forgotten_and_the_next_batch_begins_afresh() -> None:
    model, batch = toy(), make_batch(8, (8, 12))
    strategy = TeacherForced(context=4, horizon=4, truncate=3).attach(model)
    first = [strategy(piece)[0].item() for piece in strategy.pieces(batch)]
    # An error in the middle of a batch, say.
    strategy(next(iter(strategy.pieces(batch.flip(1)))))
    assert [strategy(piece)[0].item() for piece in strategy.pieces(batch)] == first


class _DoubleClips(Clips):
    def __getitem__(self, index: int) -> Tensor:
        return super().__getitem__(index).double()


def test_a_step_of_the_trainer_takes_the_gradients_of_all_pieces(tmp_path: Path) -> None:
    # In float64, as Adam's first step makes much of how a gradient near 0 is rounded.
    strategy = SelfFeeding(context=CONTEXT, horizon=HORIZON, truncate=2)
    model, other, clips = tiny_model().double(), tiny_model().double(), _DoubleClips()
    trainer = tiny_trainer(tmp_path / "run", strategy, model=model, steps=1, schedule="constant", lr=0.01)
    trainer.fit(clips)
    batch = torch.stack([clips[index] for index in epoch_batches(10, 3, seed=0, epoch=0)[0]])
    optimizer = torch.optim.Adam(other.parameters(), lr=0.01)
    loss, _, count = run(SelfFeeding(context=CONTEXT, horizon=HORIZON, truncate=2), other, batch)
    optimizer.step()
    assert count == 2
    for mine, others in zip(trainer.model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, others, rtol=1e-5, atol=1e-7)
    logged = [float(value) for _, name, value in read_log(tmp_path / "run") if name == "loss"]
    assert logged == [pytest.approx(loss, rel=1e-5)]


def test_a_truncated_run_resumes_as_if_unbroken(tmp_path: Path) -> None:
    def strategy() -> SelfFeeding:
        return SelfFeeding(context=CONTEXT, horizon=HORIZON, truncate=2, true_frames=Linear(1, 0, steps=6))

    unbroken = tiny_trainer(tmp_path / "unbroken", strategy(), steps=6, checkpoint_every=1, keep=9)
    unbroken.fit(Clips())
    resumed = tiny_trainer(tmp_path / "resumed", strategy(), model=tiny_model(8), steps=6)
    resumed.fit(Clips(), resume=tmp_path / "unbroken" / "checkpoints" / "step-00000003")
    assert_same_tensors(resumed.model.state_dict(), unbroken.model.state_dict())


class Held:
    """Counts the bytes of the tensors that are kept for the backward pass, while they are kept."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def pack(self, tensor: Tensor) -> Any:
        size, outer = tensor.numel() * tensor.element_size(), self
        self.now += size
        self.peak = max(self.peak, self.now)

        class Kept:
            def __init__(self) -> None:
                self.tensor = tensor

            def __del__(self) -> None:
                outer.now -= size

        return Kept()


@BOTH
def test_the_activations_of_one_piece_are_kept_at_a_time(make: Make) -> None:
    model, batch, peaks = tiny_model().double(), make_batch(41), {}
    for truncate in (None, 4, 10):
        held = Held()
        with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda kept: kept.tensor):
            run(make(context=21, horizon=20, truncate=truncate), model, batch)
        assert held.now == 0
        peaks[truncate] = held.peak
    # A tenth and a quarter of the steps, and a little for the loss.
    assert peaks[4] < 0.14 * peaks[None]
    assert 0.2 * peaks[None] < peaks[10] < 0.3 * peaks[None]


class Plain(nn.Module):
    def forward(self, predictions: Any, targets: Any) -> Tensor:
        return predictions[-1][0].sum()


def test_a_loss_that_takes_no_pieces_is_told_what_it_needs() -> None:
    for options, name in (({"loss": Plain()}, "loss"), ({"encoding_loss": Plain()}, "encoding_loss")):
        with pytest.raises(TypeError, match=rf"truncate needs a {name} that takes pieces .* Plain has them not"):
            SelfFeeding(context=2, horizon=2, truncate=2, **options)
        SelfFeeding(context=2, horizon=2, **options)


@pytest.mark.parametrize("truncate", [0, 2.0, True])
def test_truncate_is_a_whole_number_from_1(truncate: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="truncate must be a whole number"):
        TeacherForced(context=2, horizon=2, truncate=truncate)


def test_batches_that_do_not_fit_are_told_why_before_the_first_piece() -> None:
    with pytest.raises(ValueError, match=r"context \+ horizon = 9 frames, got 8"):
        TeacherForced(context=4, horizon=5, truncate=2).attach(Toy()).pieces(make_batch(8, (8, 12)))

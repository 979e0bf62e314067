# SPDX-License-Identifier: Apache-2.0
"""Self-feeding on schedules: true frames by a draw, a growing horizon, and what the levels are given where it feeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training_helpers import Clips, assert_same_tensors, read_log, tiny_model, tiny_trainer

from pcvideo.models import Predictor
from pcvideo.training import Exponential, InverseSigmoid, Linear, SelfFeeding, TeacherForced


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


def make_batch(samples: int, frames: int, side: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(samples, frames, 1, side, side, generator=generator, dtype=torch.float64)


def was_true(spy: Spy, batch: Tensor) -> Tensor:
    """(samples, steps): whether each was fed its true frame."""
    true = [(fed == batch[:, time]).flatten(1).all(1) for time, fed in enumerate(spy.fed)]
    return torch.stack(true, 1)


# The long-term strategy.


@pytest.mark.parametrize("context", [2, 3])
def test_where_a_prediction_is_fed_back_every_level_is_given_the_downsampled_finest_one(context: int) -> None:
    model, inputs = tiny_model(levels=3, channels=(4, 6, 8, 10)).double(), [[], [], []]
    for level, cell in enumerate(model.cells):
        cell.register_forward_hook(lambda _, given, __, level=level: inputs[level].append(given[0].detach()))
    batch = make_batch(2, 6, side=16)
    strategy = SelfFeeding(context=context, horizon=6 - context).attach(model)
    predictions = strategy.roll_out(batch).predictions
    # Entry 0 of the inputs is the anticipation of frame 0; step t gives entry t + 1 its errors.
    for time in range(1, 5):
        fed = batch[:, time] if time < context else predictions[time - 1][0]
        for level in range(3):
            error = fed[..., :: 2**level, :: 2**level] - predictions[time - 1][level]
            expected = torch.cat([F.relu(error), F.relu(-error)], 1).detach()
            torch.testing.assert_close(inputs[level][time + 1][:, :2], expected, rtol=0, atol=1e-12)
            # So the finest level is told of no error, and the others of the gap to the finest one.
            assert bool(expected.any()) is (time < context or level > 0)


# True frames by a draw.


def loss_and_gradients(strategy: Any, batch: Tensor) -> tuple[Tensor, list[Tensor]]:
    model = tiny_model(levels=2, channels=(4, 6, 8)).double()
    loss, _ = strategy.attach(model)(batch)
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize(("share", "like"), [(1.0, TeacherForced), (0.0, SelfFeeding), (1, TeacherForced)])
@pytest.mark.parametrize("schedule", [False, True])
def test_a_probability_of_1_is_teacher_forcing_and_of_0_self_feeding_exactly(
    share: float, like: type[Any], schedule: bool
) -> None:
    batch = make_batch(3, 7, side=8)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    drawn = SelfFeeding(context=3, horizon=4, true_frames=Linear(share, share, steps=1) if schedule else share)
    loss, gradients = loss_and_gradients(drawn, batch)
    other_loss, others = loss_and_gradients(like(context=3, horizon=4), batch)
    assert torch.equal(loss, other_loss)
    assert all(torch.equal(mine, other) for mine, other in zip(gradients, others, strict=True))
    torch.manual_seed(4)
    drawn(batch)
    # Nothing was drawn, so a model's own draws are those that they would be.
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_each_sample_and_each_step_past_the_context_is_drawn_by_itself(share: float) -> None:
    spy, batch = Spy(), make_batch(4000, 7)
    torch.manual_seed(1)
    SelfFeeding(context=2, horizon=5, true_frames=share).attach(spy)(batch)
    true = was_true(spy, batch)
    assert bool(true[:, :2].all())
    drawn = true[:, 2:].double()
    assert drawn.shape == (4000, 4)
    # The standard error of a mean is at most 0.008, of a correlation 0.016.
    np.testing.assert_allclose(drawn.mean(0).numpy(), share, atol=0.03)
    correlations = torch.corrcoef(drawn.T) - torch.eye(4, dtype=torch.float64)
    assert correlations.abs().max() < 0.07


def test_what_was_not_drawn_is_fed_its_own_prediction_and_the_draws_follow_the_seed() -> None:
    batch = make_batch(6, 6)
    seen = []
    for seed in (0, 0, 1):
        spy = Spy()
        torch.manual_seed(seed)
        SelfFeeding(context=2, horizon=4, true_frames=0.5).attach(spy)(batch)
        for time in range(2, 5):
            true = was_true(spy, batch)[:, time]
            own = 0.5 * spy.fed[time - 1]
            assert torch.equal(spy.fed[time], torch.where(true.view(-1, 1, 1, 1), batch[:, time], own))
        seen.append(was_true(spy, batch))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("detach", [False, True])
def test_gradients_pass_through_those_samples_that_were_fed_back_unless_detached(detach: bool) -> None:
    spy, batch = Spy(), make_batch(8, 3)
    torch.manual_seed(3)
    loss, _ = SelfFeeding(context=1, horizon=2, true_frames=0.5, detach=detach).attach(spy)(batch)
    loss.backward()
    true = was_true(spy, batch)[:, 1].view(-1, 1, 1, 1).double()
    assert 0 < true.mean() < 1
    first, second, third = batch.unbind(1)
    gain = 0.5
    slope = 2 * (gain * first - second) * first
    fed = true * second + (1 - true) * gain * first
    own = fed + (0 if detach else (1 - true) * gain * first)
    slope = slope + 2 * (gain * fed - third) * own
    assert spy.gain.grad.item() == pytest.approx(slope.sum().item() / 8, rel=1e-12)


def test_pieces_of_a_clip_draw_what_the_whole_clip_would() -> None:
    batch, losses = make_batch(5, 9), []
    for truncate in (None, 3, 1):
        strategy = SelfFeeding(context=2, horizon=7, true_frames=0.5, truncate=truncate).attach(Spy())
        torch.manual_seed(2)
        losses.append(sum(strategy(piece)[0].item() for piece in strategy.pieces(batch)))
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-12)


def test_the_draws_of_a_run_that_is_resumed_are_those_of_the_unbroken_one(tmp_path: Path) -> None:
    def strategy() -> SelfFeeding:
        # At least one step past the context must be fed for anything to be drawn.
        return SelfFeeding(context=1, horizon=3, true_frames=InverseSigmoid(3), growth=Linear(2, 3, steps=5))

    unbroken = tiny_trainer(tmp_path / "unbroken", strategy(), checkpoint_every=1, keep=9)
    unbroken.fit(Clips())
    for step in (1, 4):
        resumed = tiny_trainer(tmp_path / str(step), strategy(), model=tiny_model(7))
        torch.manual_seed(99)
        resumed.fit(Clips(), resume=tmp_path / "unbroken" / "checkpoints" / f"step-{step:08d}")
        assert_same_tensors(resumed.model.state_dict(), unbroken.model.state_dict())
    told = {name: {} for name in ("true_frames", "trained_horizon")}
    for step, name, value in read_log(tmp_path / "unbroken"):
        if name in told:
            told[name][step - 1] = float(value)
    assert told["trained_horizon"] == {0: 2, 1: 2, 2: 2, 3: 2, 4: 2, 5: 3, 6: 3, 7: 3}
    assert told["true_frames"] == pytest.approx({step: 3 / (3 + np.exp(step / 3)) for step in range(8)}, rel=1e-6)


# Schedules.


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (Linear(1, 0.25, steps=8), lambda i: np.maximum(0.25, 1 - 0.75 / 8 * i)),
        (Linear(1, 10, steps=9, after=4), lambda i: np.clip(1 + (i - 4), 1, 10)),
        (Exponential(0.9), lambda i: 0.9**i),
        (InverseSigmoid(5), lambda i: 5 / (5 + np.exp(i / 5))),
        (InverseSigmoid(1), lambda i: 1 / (1 + np.exp(i))),
    ],
)
def test_schedules_are_the_formulas_of_the_paper(schedule: Any, formula: Any) -> None:
    steps = np.arange(30)
    np.testing.assert_allclose([schedule(int(step)) for step in steps], formula(steps), rtol=1e-12)


def test_an_inverse_sigmoid_ends_at_0_without_overflow() -> None:
    assert InverseSigmoid(1)(10**9) == pytest.approx(0, abs=1e-300)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(1, 0, steps=0), "steps"),
        (lambda: Linear(1, float("inf"), steps=1), "end"),
        (lambda: Linear(1, 0, steps=1, after=-1), "after"),
        (lambda: Exponential(1.0), "base must be above 0 and below 1"),
        (lambda: InverseSigmoid(0.5), "scale"),
        (lambda: SelfFeeding(context=1, horizon=1, true_frames=1.5), "true_frames"),
    ],
)
def test_numbers_out_of_range_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_schedule_that_leaves_its_range_is_told_at_that_step() -> None:
    strategy = SelfFeeding(context=1, horizon=1, true_frames=lambda step: 0.5 + step)
    with pytest.raises(ValueError, match=r"true_frames must be a finite number in \[0, 1\], got 1.5"):
        strategy.begin(1)


@pytest.mark.parametrize(("step", "frames"), [(0, 1), (1, 1), (2, 2), (3, 2), (17, 9), (18, 10), (500, 10)])
def test_the_horizon_grows_with_its_schedule_from_1_to_all_of_it(step: int, frames: int) -> None:
    spy, batch = Spy(), make_batch(2, 12)
    strategy = SelfFeeding(context=2, horizon=10, growth=Linear(1, 10, steps=18)).attach(spy)
    strategy.begin(step)
    loss, logs = strategy(batch)
    # The last frame is only compared with.
    assert len(spy.fed) == 2 + frames - 1
    assert logs["trained_horizon"].item() == frames
    assert strategy.length == 12
    shorter, _ = SelfFeeding(context=2, horizon=frames).attach(Spy())(batch)
    assert torch.equal(loss, shorter)


def test_a_growth_beyond_the_horizon_or_below_1_is_held_within() -> None:
    for value, frames in ((-3, 1), (0.9, 1), (99, 4)):
        strategy = SelfFeeding(context=2, horizon=4, growth=lambda step, value=value: value)
        assert strategy.trained_length == 2 + frames

# SPDX-License-Identifier: Apache-2.0
"""Training a model and a discriminator in turn: who learns what from which batch, against loops written out."""

from __future__ import annotations

import copy
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_helpers import Clips, SignalAt, assert_same_tensors, read_log, self_feeding, tiny_model, tiny_trainer

from pcvideo.losses import HingeScoreLoss, PyramidLoss, WassersteinScoreLoss
from pcvideo.models import MSPN, FrameDiscriminator
from pcvideo.training import (
    Adversarial,
    Alternating,
    Balanced,
    Generated,
    SelfFeeding,
    Strategy,
    TeacherForced,
    TrainingStopped,
    Turns,
)


def tiny_discriminator(seed: int = 1, **options: Any) -> FrameDiscriminator:
    torch.manual_seed(seed)
    return FrameDiscriminator(**({"in_channels": 1, "channels": (3, 4, 5)} | options))


def adversarial(**options: Any) -> Adversarial:
    regime = options.pop("regime", None) or self_feeding()
    discriminator = options.pop("discriminator", None) or tiny_discriminator()
    return Adversarial(regime, discriminator, **options)


class Told(Turns):
    """Whose turn it is, is told beforehand."""

    def __init__(self, turns: str) -> None:
        super().__init__()
        self.turns = turns
        self.heard: list[tuple[float, float]] = []

    def is_discriminators(self, step: int) -> bool:
        return self.turns[step] == "D"

    def update(self, real: float, fake: float) -> None:
        self.heard.append((real, fake))


def make_batch(frames: int = 6, size: int = 8) -> Tensor:
    return torch.rand(2, frames, 1, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def predictions_by_hand(model: MSPN, batch: Tensor, context: int) -> list[Any]:
    """The pyramids for frames 1 on, fed back past the context."""
    state, pyramids = model.init_state(batch[:, 0]), []
    for time in range(batch.shape[1] - 1):
        pyramid, state = model.step(batch[:, time] if time < context else state.predictions[0], state)
        pyramids.append(pyramid)
    return pyramids


def frames_from(first: int, pyramids: list[Any]) -> Tensor:
    return torch.cat([pyramid[0] for pyramid in pyramids[first - 1 :]])


def ready(turn: str, **options: Any) -> Adversarial:
    """Context 4, horizon 2, in float64, at the first step of that turn."""
    regime = SelfFeeding(context=4, horizon=2)
    strategy = adversarial(regime=regime, turns=Told(turn), **options).attach(tiny_model(levels=2, channels=(4, 6, 8)))
    strategy.double().train()
    strategy.begin(0)
    return strategy


def gradients(network: nn.Module) -> list[Tensor | None]:
    return [parameter.grad for parameter in network.parameters()]


# What each network learns.


def test_in_its_turn_the_discriminator_learns_from_true_frames_and_detached_predictions_of_them() -> None:
    strategy, batch = ready("D"), make_batch()
    other = copy.deepcopy(strategy.discriminator)
    loss, logs = strategy(batch)
    loss.backward()
    assert strategy.discriminator.training
    assert not strategy.model.training
    assert gradients(strategy.model) == [None] * len(gradients(strategy.model))

    # Half of a context of 4: frames 2 to 5. Both kinds pass through apart, as batch normalisation shows.
    with torch.no_grad():
        fake = frames_from(2, predictions_by_hand(strategy.model, batch, 4))
    real_scores, fake_scores = other(batch[:, 2:6].transpose(0, 1).flatten(0, 1)), other(fake)
    expected = ((real_scores - 1) ** 2).mean() + ((fake_scores + 1) ** 2).mean()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for own, others in zip(gradients(strategy.discriminator), gradients(other), strict=True):
        torch.testing.assert_close(own, others, rtol=1e-5, atol=1e-8)
    assert logs["real_score"].item() == pytest.approx(real_scores.mean().item(), rel=1e-6)
    assert logs["predicted_score"].item() == pytest.approx(fake_scores.mean().item(), rel=1e-6)
    assert logs["phase"].item() == 1


@pytest.mark.parametrize("weight", [100.0, 3.0])
def test_in_its_turn_the_model_learns_from_the_pixels_and_from_the_resting_discriminator(weight: float) -> None:
    strategy, batch = ready("G", adversarial_weight=weight), make_batch()
    model = copy.deepcopy(strategy.model)
    loss, logs = strategy(batch)
    loss.backward()
    assert strategy.model.training
    assert not strategy.discriminator.training
    assert gradients(strategy.discriminator) == [None] * len(gradients(strategy.discriminator))

    pyramids = predictions_by_hand(model, batch, 4)
    pixel = torch.zeros((), dtype=torch.float64)
    for time, pyramid in enumerate(pyramids):
        target = batch[:, time + 1]
        for level in pyramid:
            pixel = pixel + ((level - target) ** 2).sum() / 2
            target = target[..., ::2, ::2]
    scores = strategy.discriminator(frames_from(2, pyramids))
    judged = ((scores - 1) ** 2).mean()
    expected = pixel + weight * judged
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for own, others in zip(gradients(strategy.model), gradients(model), strict=True):
        torch.testing.assert_close(own, others, rtol=1e-4, atol=1e-7)
    told = {name: value.item() for name, value in logs.items()}
    real = strategy.discriminator(batch[:, 2:6].flatten(0, 1)).mean().item()
    assert told == pytest.approx(
        {
            "pixel": pixel.item(),
            "adversarial": judged.item(),
            "real_score": real,
            "predicted_score": scores.mean().item(),
            "phase": 2,
        },
        rel=1e-6,
    )


@pytest.mark.parametrize(("context", "judge_from", "first"), [(4, None, 2), (5, None, 2), (1, None, 1), (4, 4, 4)])
def test_frames_are_judged_from_half_of_the_context_on_unless_told_otherwise(
    context: int, judge_from: int | None, first: int
) -> None:
    strategy = adversarial(regime=TeacherForced(context=context, horizon=2), judge_from=judge_from).attach(tiny_model())
    batch = make_batch(context + 4).float()
    generated = strategy.generate(batch)
    count = context + 2 - first
    assert generated.real.shape == generated.fake.shape == (2 * count, 1, 8, 8)
    assert torch.equal(generated.real.unflatten(0, (2, count)), batch[:, first : context + 2])
    pyramids = predictions_by_hand(strategy.model, batch[:, : context + 2], context + 2)
    torch.testing.assert_close(
        generated.fake.unflatten(0, (2, count)).transpose(0, 1).flatten(0, 1), frames_from(first, pyramids)
    )


def test_both_networks_stay_in_train_mode_where_that_is_wanted() -> None:
    for turn in "DG":
        strategy = ready(turn, rest_in_eval=False)
        assert strategy.model.training
        assert strategy.discriminator.training


class Watching(Adversarial):
    """Notes which of the two networks each step has changed, and the phase it was in."""

    def begin(self, step: int) -> None:
        super().begin(step)
        self.before = {name: tensor.detach().clone() for name, tensor in self.named_parameters()}

    def update(self, logs: Any) -> None:
        super().update(logs)
        changed = {
            name.split(".")[0]
            for name, tensor in self.named_parameters()
            if not torch.equal(tensor.detach(), self.before[name])
        }
        self.changes = [*getattr(self, "changes", []), (int(logs["phase"]), changed)]


def test_each_batch_trains_one_of_the_two_and_the_other_is_left_alone(tmp_path: Path) -> None:
    turns = Told("DDGDGG")
    strategy = Watching(self_feeding(), tiny_discriminator(), turns=turns, pixel_steps=2, discriminator_rate=1)
    # With weight decay, parameters that rest would still be seen to move.
    tiny_trainer(tmp_path, strategy, steps=8, weight_decay=0.1).fit(Clips())
    model, discriminator = (0, {"model"}), (1, {"discriminator"})
    by_scores = (2, {"model"})
    assert strategy.changes == [model, model, discriminator, discriminator, by_scores, discriminator] + 2 * [by_scores]
    # The turns hear of the steps that had scores, and hear what was logged.
    logged = defaultdict(dict)
    for step, name, value in read_log(tmp_path):
        logged[step][name] = float(value)
    assert turns.heard == [(logged[step]["real_score"], logged[step]["predicted_score"]) for step in range(3, 9)]
    assert [logged[step]["phase"] for step in range(1, 9)] == [0, 0, 1, 1, 2, 1, 2, 2]


def test_what_someone_else_froze_stays_frozen() -> None:
    strategy = adversarial(turns=Told("DGD")).attach(tiny_model())
    frozen = [*strategy.model.cells[0].to_image.parameters(), *strategy.discriminator.stem.parameters()]
    for parameter in frozen:
        parameter.requires_grad_(False)
    trained = [parameter for parameter in strategy.parameters() if parameter.requires_grad]
    for step in range(3):
        strategy.begin(step)
    strategy.rest()
    assert not any(parameter.requires_grad for parameter in frozen)
    assert all(parameter.requires_grad for parameter in trained)


def test_pixel_steps_first_are_the_regime_alone_bit_for_bit(tmp_path: Path) -> None:
    alone = tiny_trainer(tmp_path / "alone", steps=4, schedule="constant")
    alone.fit(Clips())
    first = tiny_trainer(tmp_path / "first", adversarial(pixel_steps=4), steps=4, schedule="constant")
    first.fit(Clips())
    assert_same_tensors(first.model.state_dict(), alone.model.state_dict())


def test_the_model_is_saved_once_under_its_own_name() -> None:
    strategy = adversarial().attach(tiny_model())
    names = strategy.state_dict().keys()
    assert {name.split(".")[0] for name in names} == {"model", "discriminator", "turns"}
    assert strategy.regime.model is strategy.model
    # Also where the regime had a model of its own before.
    used = self_feeding().attach(tiny_model(3))
    other = adversarial(regime=used).attach(tiny_model())
    assert other.state_dict().keys() == names
    assert used.model is other.model


def test_validation_is_the_models_forecast() -> None:
    strategy, batch = adversarial().attach(tiny_model().eval()), make_batch(4).float()
    forecast, truth = strategy.forecast(batch, strategy.model)
    assert torch.equal(forecast, strategy.model(batch[:, :2], 2))
    assert torch.equal(truth, batch[:, 2:])


# WGAN-GP, and critics with a condition.


class Conditional(Adversarial):
    """Judges each frame beside the frame before it."""

    def generate(self, batch: Tensor) -> Generated:
        generated = super().generate(batch)
        return generated._replace(condition=batch[:, self.judge_from - 1 : self.length - 1].flatten(0, 1))

    def judge(self, frames: Tensor, condition: Any) -> Tensor:
        return self.discriminator(torch.cat([frames, condition], 1))


class Linear(nn.Module):
    """Scores by weights on the frame and on the condition."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-0.5, 0.7, 2 * 8 * 8, dtype=torch.float64).view(2, 8, 8))

    def forward(self, frames: Tensor) -> Tensor:
        return (frames * self.weight).sum((1, 2, 3))


def test_a_critic_with_a_condition_is_trained_as_wgan_gp() -> None:
    regime, critic = TeacherForced(context=3, horizon=1), Linear()
    strategy = Conditional(
        regime,
        critic,
        score=WassersteinScoreLoss(),
        turns=Alternating(discriminator_steps=2),
        gradient_penalty=10,
        adversarial_weight=1,
        pixel_weight=0,
        judge_from=3,
    )
    strategy.attach(tiny_model().double()).train()
    batch, weight = make_batch(4), critic.weight.detach()
    fake = predictions_by_hand(strategy.model, batch, 4)[2][0].detach()
    gap = (weight[0] * (fake - batch[:, 3])[:, 0]).sum((1, 2))
    for step in (0, 1):
        strategy.begin(step)
        loss, logs = strategy(batch)
        # The slope in the frame is that part of the weights, wherever it is taken.
        assert loss.item() == pytest.approx(
            gap.mean().item() + 10 * (weight[0].norm().item() - 1) ** 2, rel=1e-5, abs=1e-6
        )
        assert logs["gradient_penalty"].item() == pytest.approx((weight[0].norm().item() - 1) ** 2, rel=1e-6)
    strategy.begin(2)
    loss, logs = strategy(batch)
    score = (weight[0] * fake[:, 0] + weight[1] * batch[:, 2, 0]).sum((1, 2)).mean()
    assert loss.item() == pytest.approx(-score.item(), rel=1e-5, abs=1e-6)
    assert "pixel" not in logs
    loss.backward()
    assert critic.weight.grad is None
    assert all(gradient is not None for gradient in gradients(strategy.model))


def test_the_hinge_is_trained_by_too() -> None:
    strategy, batch = ready("D", score=HingeScoreLoss()), make_batch()
    other = copy.deepcopy(strategy.discriminator)
    with torch.no_grad():
        fake = frames_from(2, predictions_by_hand(strategy.model, batch, 4))
    real_scores, fake_scores = other(batch[:, 2:6].transpose(0, 1).flatten(0, 1)), other(fake)
    expected = (1 - real_scores).relu().mean() + (1 + fake_scores).relu().mean()
    assert strategy(batch)[0].item() == pytest.approx(expected.item(), rel=1e-6)


# Runs.

RUNS: dict[str, dict[str, Any]] = {
    "balanced": {"turns": Balanced, "pixel_steps": 2},
    "alternating, with a penalty on the slope": {
        "turns": lambda: Alternating(discriminator_steps=2),
        "gradient_penalty": 1.0,
        "discriminator": lambda: tiny_discriminator(norm=None),
    },
}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_resumed_in_the_middle_of_a_phase_equals_the_unbroken_one_bit_for_bit(run: str, tmp_path: Path) -> None:
    def make() -> Adversarial:
        options = {name: made() if callable(made) else made for name, made in RUNS[run].items()}
        return adversarial(discriminator_rate=1, **options)

    settings = {"steps": 14, "lr": 0.003, "schedule": "constant"}
    unbroken = tiny_trainer(tmp_path / "unbroken", make(), checkpoint_every=1, keep=20, **settings)
    unbroken.fit(Clips())
    for step in (1, 4, 5, 7, 9):
        resumed = tiny_trainer(tmp_path / str(step), make(), model=tiny_model(seed=9), **settings)
        torch.manual_seed(77)
        resumed.fit(Clips(), resume=tmp_path / "unbroken" / "checkpoints" / f"step-{step:08d}")
        assert_same_tensors(resumed.strategy.state_dict(), unbroken.strategy.state_dict())
        later = [row for row in read_log(tmp_path / "unbroken") if row[0] > step]
        assert read_log(tmp_path / str(step)) == later


def test_a_run_that_was_stopped_by_a_signal_goes_on_alike(tmp_path: Path) -> None:
    class Stopping(SignalAt):
        """The signal comes within the regime's own forward, that is in the pixel steps."""

    settings = {"steps": 8, "lr": 0.003}
    unbroken = tiny_trainer(tmp_path / "unbroken", adversarial(pixel_steps=3), **settings)
    unbroken.fit(Clips())
    with pytest.raises(TrainingStopped):
        tiny_trainer(tmp_path / "run", adversarial(pixel_steps=3, regime=Stopping(3)), **settings).fit(Clips())
    resumed = tiny_trainer(tmp_path / "run", adversarial(pixel_steps=3), model=tiny_model(5), **settings)
    resumed.fit(Clips(), resume="auto")
    assert_same_tensors(resumed.strategy.state_dict(), unbroken.strategy.state_dict())


# Arguments.


class Alone(Strategy):
    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return batch.sum(), {}


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"regime": Alone(context=2, horizon=2)}, TypeError, "regime must be a strategy that rolls clips out"),
        ({"regime": nn.Identity()}, TypeError, "regime must be a strategy that rolls clips out"),
        ({"regime": self_feeding(loss=PyramidLoss())}, ValueError, "batch_mean=True"),
        ({"regime": self_feeding(truncate=2)}, ValueError, "leave truncate out"),
        ({"judge_from": 4}, ValueError, r"judge_from must be below context \+ horizon = 4, got 4"),
        ({"judge_from": 0}, ValueError, "judge_from"),
        ({"adversarial_weight": -1}, ValueError, "adversarial_weight"),
        ({"pixel_steps": 1.5}, TypeError, "pixel_steps"),
        ({"discriminator_rate": "1e-2"}, TypeError, "discriminator_rate"),
        ({"gradient_penalty": -1}, ValueError, "gradient_penalty"),
        ({"rest_in_eval": 1}, TypeError, "rest_in_eval"),
    ],
)
def test_arguments_that_do_not_fit_are_told_why(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        adversarial(**options)


def test_the_discriminators_learning_rate_is_a_hundredth_of_the_models_unless_told_otherwise() -> None:
    assert adversarial().rates == {"discriminator.*": 0.01}
    regime = self_feeding()
    regime.rates = {"model.cells.0.*": 0.5, "loss.*": 2.0}
    assert adversarial(regime=regime, discriminator_rate=0.3).rates == {
        "discriminator.*": 0.3,
        "model.cells.0.*": 0.5,
        "regime.loss.*": 2.0,
    }

# SPDX-License-Identifier: Apache-2.0
"""Strategies one after another on the same model, and what every strategy that holds others keeps to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_helpers import Clips, assert_same_tensors, self_feeding, tiny_model, tiny_trainer

from pcvideo.losses import EncodingLoss, L1Loss, PPNV2Loss, PyramidLoss, SumLoss
from pcvideo.models import FrameDiscriminator
from pcvideo.training import Adversarial, Balanced, InPhases, SelfFeeding, Strategy, TeacherForced


class Noting(Strategy):
    """Notes what it is called with."""

    def __init__(self, *, context: int = 1, horizon: int = 1) -> None:
        super().__init__(context=context, horizon=horizon)
        self.calls: list[Any] = []

    def begin(self, step: int) -> None:
        self.calls.append(("begin", step))

    def pieces(self, batch: Tensor) -> Any:
        return (batch, batch)

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls.append("forward")
        return batch.sum(), {"own": batch.sum()}

    def update(self, logs: Any) -> None:
        self.calls.append(("update", logs["step"]))


def test_each_strategy_has_its_steps_and_counts_them_from_0() -> None:
    parts = [Noting(), Noting(), Noting()]
    phases = InPhases([(2, parts[0]), (1, parts[1]), (None, parts[2])])
    for step in range(5):
        phases.begin(step)
        for piece in phases.pieces(torch.ones(1)):
            phases(piece)
        phases.update({"step": step})

    def of(own: int, step: int) -> list[Any]:
        return [("begin", own), "forward", "forward", ("update", step)]

    assert parts[0].calls == of(0, 0) + of(1, 1)
    assert parts[1].calls == of(0, 2)
    assert parts[2].calls == of(0, 3) + of(1, 4)


def discriminator() -> FrameDiscriminator:
    torch.manual_seed(1)
    return FrameDiscriminator(in_channels=1, channels=(3, 4))


def pixels_then_scores(steps: int = 3) -> InPhases:
    adversarial = Adversarial(self_feeding(), discriminator(), discriminator_rate=1, turns=Balanced(max_phase_steps=3))
    return InPhases([(steps, TeacherForced(context=2, horizon=2)), (None, adversarial)])


def test_the_first_phase_trains_as_its_strategy_alone_would_bit_for_bit(tmp_path: Path) -> None:
    alone = tiny_trainer(tmp_path / "alone", TeacherForced(context=2, horizon=2), steps=4, schedule="constant")
    alone.fit(Clips())
    phases = tiny_trainer(tmp_path / "phases", pixels_then_scores(4), steps=4, schedule="constant")
    phases.fit(Clips())
    assert_same_tensors(phases.model.state_dict(), alone.model.state_dict())


def test_pixels_first_by_phases_or_by_pixel_steps_are_the_same_run(tmp_path: Path) -> None:
    def adversarial(pixel_steps: int) -> Adversarial:
        return Adversarial(self_feeding(), discriminator(), discriminator_rate=1, pixel_steps=pixel_steps)

    one = tiny_trainer(tmp_path / "one", adversarial(3), steps=10, schedule="constant")
    other = tiny_trainer(
        tmp_path / "other", InPhases([(3, self_feeding()), (None, adversarial(0))]), steps=10, schedule="constant"
    )
    for trainer in (one, other):
        trainer.fit(Clips())
    assert_same_tensors(one.model.state_dict(), other.model.state_dict())
    assert_same_tensors(
        one.strategy.discriminator.state_dict(), other.strategy.strategies[1].discriminator.state_dict()
    )


def test_a_run_resumed_in_either_phase_equals_the_unbroken_one_bit_for_bit(tmp_path: Path) -> None:
    settings = {"steps": 10, "lr": 0.003}
    unbroken = tiny_trainer(tmp_path / "unbroken", pixels_then_scores(), checkpoint_every=1, keep=20, **settings)
    unbroken.fit(Clips())
    for step in (2, 3, 6):
        resumed = tiny_trainer(tmp_path / str(step), pixels_then_scores(), model=tiny_model(seed=4), **settings)
        torch.manual_seed(5)
        resumed.fit(Clips(), resume=tmp_path / "unbroken" / "checkpoints" / f"step-{step:08d}")
        assert_same_tensors(resumed.strategy.state_dict(), unbroken.strategy.state_dict())


def test_the_model_is_shared_and_has_one_name_however_deep_a_strategy_lies() -> None:
    phases, model = pixels_then_scores(), tiny_model()
    phases.attach(model)
    names = phases.state_dict().keys()
    assert {name for name in names if "cells" in name} == {f"model.{name}" for name in model.state_dict()}
    assert phases.strategies[0].model is phases.strategies[1].model is phases.strategies[1].regime.model is model
    assert len(list(phases.parameters())) == len(list(model.parameters())) + len(list(discriminator().parameters()))


def test_what_one_phase_let_rest_is_awake_in_the_next() -> None:
    adversarial = Adversarial(self_feeding(), discriminator(), turns=Balanced())
    phases = InPhases([(1, adversarial), (None, self_feeding())]).attach(tiny_model())
    phases.begin(0)
    assert not any(parameter.requires_grad for parameter in phases.model.parameters())
    phases.train()
    phases.begin(1)
    assert all(parameter.requires_grad for parameter in phases.model.parameters())
    assert phases.model.training


def test_clips_are_as_long_as_the_longest_phase_and_validation_is_the_last_ones() -> None:
    phases = InPhases([(5, TeacherForced(context=9, horizon=3)), (None, SelfFeeding(context=4, horizon=6))])
    assert phases.length == 12
    assert (phases.context, phases.horizon) == (4, 6)
    forecast, truth = phases.attach(tiny_model()).forecast(torch.rand(2, 12, 1, 8, 8), phases.model)
    assert forecast.shape == truth.shape == (2, 6, 1, 8, 8)


def test_learning_rates_keep_to_the_networks_that_they_were_meant_for() -> None:
    first, second = self_feeding(), Adversarial(self_feeding(), discriminator(), discriminator_rate=0.2)
    first.rates = {"model.cells.0.*": 0.5}
    assert InPhases([(1, first), (None, second)]).rates == {
        "model.cells.0.*": 0.5,
        "strategies.1.discriminator.*": 0.2,
    }


@pytest.mark.parametrize(
    ("phases", "kind", "message"),
    [
        ([], TypeError, "phases must be a sequence of pairs"),
        ([self_feeding()], TypeError, r"as phases\[0\]"),
        ([(3, self_feeding())], ValueError, r"\(None, strategy\).* got 3 steps"),
        ([(None, self_feeding()), (None, self_feeding())], TypeError, r"phases\[0\]\[0\] must be a whole number"),
        ([(0, self_feeding()), (None, self_feeding())], ValueError, r"phases\[0\]\[0\] must be a whole number"),
        ([(1, self_feeding(loss=PyramidLoss())), (None, self_feeding())], ValueError, "batch_mean=True"),
    ],
)
def test_phases_that_do_not_fit_are_told_why(phases: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        InPhases(phases)


# What the losses say of the batch.


@pytest.mark.parametrize(
    ("options", "reduction"),
    [
        ({}, "mean"),
        ({"loss": PyramidLoss()}, "sum"),
        ({"loss": PyramidLoss(norm="euclidean")}, "sum"),
        ({"loss": PyramidLoss(batch_mean=True)}, "mean"),
        ({"loss": PyramidLoss(norm="mean")}, "mean"),
        ({"loss": PPNV2Loss(network=lambda one, other: (one - other).mean((1, 2, 3)))}, "mean"),
        ({"loss": SumLoss(PyramidLoss(), PyramidLoss(norm="euclidean"))}, "sum"),
        ({"loss": L1Loss(reduction="sum")}, "sum"),
        ({"loss": torch.nn.Identity()}, "mean"),
    ],
)
def test_a_strategy_says_what_its_loss_does_over_the_batch(options: Any, reduction: str) -> None:
    for strategy in (SelfFeeding(context=1, horizon=1, **options), TeacherForced(context=1, horizon=1, **options)):
        assert strategy.reduction == reduction
        assert InPhases([(None, strategy)]).reduction == reduction


@pytest.mark.parametrize("kind", [SelfFeeding, TeacherForced])
@pytest.mark.parametrize("batch_mean", [False, True])
def test_losses_of_halves_of_a_batch_make_up_the_loss_of_the_whole_as_the_strategy_says(
    kind: Any, batch_mean: bool
) -> None:
    batch = torch.rand(4, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    strategy = kind(context=2, horizon=2, loss=PyramidLoss(batch_mean=batch_mean)).attach(tiny_model())
    with torch.no_grad():
        whole, *halves = (strategy(part)[0].item() for part in (batch, batch[:2], batch[2:]))
    expected = sum(halves) / 2 if strategy.reduction == "mean" else sum(halves)
    assert whole == pytest.approx(expected, rel=1e-5)


def test_a_mixture_of_sums_and_means_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    SelfFeeding(context=1, horizon=1, loss=SumLoss(PyramidLoss(), PyramidLoss(batch_mean=True)))
    SelfFeeding(context=1, horizon=1, loss=PyramidLoss(), encoding_loss=EncodingLoss())
    told = [record.getMessage() for record in caplog.records]
    assert [message.split(" add up ")[0] for message in told] == ["SumLoss", "loss and encoding_loss"]
    caplog.clear()
    SelfFeeding(context=1, horizon=1, loss=PyramidLoss(batch_mean=True), encoding_loss=EncodingLoss())
    assert not caplog.records

# SPDX-License-Identifier: Apache-2.0
"""Training on learned features, against PPNV2's published loop written out for a toy of its form."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training_helpers import tiny_model

from pcvideo.losses import EncodingLoss, PPNV2Loss, PyramidLoss
from pcvideo.models import Predictor
from pcvideo.training import SelfFeeding, TeacherForced

LEVELS, BATCH = 3, 2


class Toy(Predictor):
    """Three levels that awake one a step, on features that an encoder learns; predictions may be negative."""

    size_multiple = 4

    def __init__(self) -> None:
        super().__init__(in_channels=1)
        channels = (1, 2, 3)
        self.encoders = nn.ModuleList(
            nn.Conv2d(low, high, 3, stride=2, padding=1) for low, high in itertools.pairwise(channels)
        )
        self.predictors = nn.ModuleList(nn.Conv2d(3 * number, number, 3, padding=1) for number in channels)
        self.expanders = nn.ModuleList(nn.Conv2d(high, low, 1) for low, high in itertools.pairwise(channels))
        self.encoded = 0

    def init_state(self, like: Tensor) -> Any:
        return (), ()

    def step(self, frame: Tensor | None, state: Any) -> Any:
        _, before = state
        frame = before[0] if frame is None else frame
        features = [frame.relu()]
        while len(features) < min(len(before) + 1, LEVELS):
            features.append(self.encoders[len(features) - 1](features[-1]))
        pyramid: list[Tensor] = []
        for level in reversed(range(len(features))):
            error = (
                split(before[level], features[level]) if level < len(before) else features[level].repeat(1, 2, 1, 1) * 0
            )
            prediction = self.predictors[level](torch.cat([features[level], error], 1))
            if pyramid:
                prediction = prediction + self.expanders[level](F.interpolate(pyramid[0], scale_factor=2))
            pyramid.insert(0, prediction)
        return tuple(pyramid), (tuple(features), tuple(pyramid))

    def targets(self, frame: Tensor) -> list[Tensor]:
        self.encoded += 1
        features = [frame]
        for encoder in self.encoders:
            features.append(encoder(features[-1]))
        return features

    def seen(self, state: Any) -> list[Tensor] | None:
        return list(state[0])


class Forgetful(Toy):
    """Keeps no more than the frame of what it has seen."""

    def seen(self, state: Any) -> list[Tensor] | None:
        return [state[0][0]]


class Blind(Toy):
    """Keeps nothing."""

    def seen(self, state: Any) -> list[Tensor] | None:
        return None


def split(prediction: Tensor, truth: Tensor) -> Tensor:
    return torch.cat([F.relu(prediction - truth), F.relu(truth - prediction)], 1)


def distance(first: Tensor, second: Tensor) -> Tensor:
    """In place of LPIPS: (N, 3, H, W) in [-1, 1] to N values."""
    return (first - second).abs().mean((1, 2, 3))


def toy(kind: type[Toy] = Toy) -> Toy:
    torch.manual_seed(0)
    return kind().double()


def make_batch(frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(BATCH, frames, 1, 8, 12, generator=generator, dtype=torch.float64)


def published(
    model: Toy, batch: Tensor, real: int, *, detach: bool = False, detach_targets: bool = False
) -> tuple[Tensor, Tensor]:
    """PPNV2's loop as published: for each step from the top down, then from the bottom up; its two terms.

    Inputs and targets of the levels above the frame are encoded apart from each other, each as it is needed.
    """
    steps = batch.shape[1] - 1
    inputs: list[list[Any]] = [[None] * LEVELS for _ in range(steps + 1)]
    targets: list[list[Any]] = [[batch[:, t], *([None] * (LEVELS - 1))] for t in range(steps + 1)]
    for t in range(real):
        inputs[t][0] = batch[:, t]
    sizes = [(BATCH, 2 * (level + 1), 8 >> level, 12 >> level) for level in range(LEVELS)]
    errors = [torch.zeros(size, dtype=torch.float64) for size in sizes]

    def squares(one: Tensor, other: Tensor) -> Tensor:
        return ((one - (other.detach() if detach_targets else other)) ** 2).sum() / BATCH

    prediction, encoding = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for t in range(steps):
        lambda_t = 0.2 if t == 0 else 1.0
        predicted: list[Any] = [None] * LEVELS
        for level in reversed(range(LEVELS)):
            lambda_l = 1.0 if level == 0 else 1 / LEVELS
            if inputs[t][level] is None:
                continue
            predicted[level] = model.predictors[level](torch.cat([inputs[t][level], errors[level]], 1))
            if level + 1 < LEVELS and predicted[level + 1] is not None:
                above = F.interpolate(predicted[level + 1], scale_factor=2)
                predicted[level] = predicted[level] + model.expanders[level](above)
            if t >= real - 1 and level == 0:
                fed = predicted[0].detach() if detach else predicted[0]
                inputs[t + 1][0] = F.relu(fed)
            if t >= real and level > 0 and targets[t][level] is not None:
                encoding = encoding + lambda_t * lambda_l * squares(inputs[t][level], targets[t][level])
        for level in range(LEVELS):
            lambda_l = 1.0 if level == 0 else 1 / LEVELS
            fed, truth = inputs[t + 1][level], targets[t + 1][level]
            if predicted[level] is None:
                break
            errors[level] = split(predicted[level], fed)
            if level + 1 < LEVELS:
                inputs[t + 1][level + 1] = model.encoders[level](fed)
                targets[t + 1][level + 1] = model.encoders[level](truth)
            prediction = prediction + lambda_t * lambda_l * squares(predicted[level], truth)
            if level == 0:
                pair = [(2 * frame - 1).expand(-1, 3, -1, -1) for frame in (predicted[0], truth)]
                prediction = prediction + lambda_t * (1 * 8 * 12) * (distance(*pair) ** 2).mean()
    return prediction, encoding


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("options", [{}, {"detach": True}, {"detach_targets": True}])
@pytest.mark.parametrize(
    ("kind", "context", "horizon"), [(Toy, 4, 3), (Toy, 2, 3), (Toy, 1, 2), (Forgetful, 4, 3), (Blind, 2, 3)]
)
def test_self_feeding_gives_the_published_loss_and_gradients(
    kind: type[Toy], context: int, horizon: int, options: dict[str, bool], checkpoint: bool
) -> None:
    model, batch = toy(kind), make_batch(context + horizon)
    # Without features of what was fed back, only the prediction's term can be had.
    encoding_loss = EncodingLoss() if kind is Toy else None
    strategy = SelfFeeding(
        context=context,
        horizon=horizon,
        loss=PPNV2Loss(network=distance),
        encoding_loss=encoding_loss,
        checkpoint=checkpoint,
        **options,
    )
    loss, logs = strategy.attach(model)(batch)
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    prediction, encoding = published(model, batch, context, **options)
    expected = prediction + encoding if kind is Toy else prediction
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    if kind is Toy:
        assert encoding > 1e-3
        assert {name: value.item() for name, value in logs.items()} == pytest.approx(
            {"prediction": prediction.item(), "encoding": encoding.item()}, rel=1e-12
        )
        assert not any(value.requires_grad for value in logs.values())
    reached = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    # In two steps the third level hasn't awoken: its predictor, and what leads to and from it, are not reached.
    assert len(reached) == (14 if context + horizon > 3 else 8)
    for gradient, grad in zip(gradients, reached, strict=True):
        torch.testing.assert_close(gradient, grad, rtol=1e-9, atol=1e-12)


def test_teacher_forcing_gives_the_published_loss_where_all_frames_are_real() -> None:
    model, batch = toy(), make_batch(5)
    loss, logs = TeacherForced(context=3, horizon=2, loss=PPNV2Loss(network=distance)).attach(model)(batch)
    expected, encoding = published(model, batch, 4)
    assert encoding == 0
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert logs == {}


def test_a_horizon_of_one_frame_feeds_nothing_back_and_has_no_encoding_loss() -> None:
    model, batch = toy(), make_batch(4)
    strategy = SelfFeeding(context=3, horizon=1, loss=PPNV2Loss(network=distance), encoding_loss=EncodingLoss())
    loss, logs = strategy.attach(model)(batch)
    assert loss.item() == pytest.approx(published(model, batch, 3)[0].item(), rel=1e-12)
    assert logs["encoding"].item() == 0


def test_a_true_frame_that_was_fed_is_not_encoded_again() -> None:
    batch = make_batch(6)
    counts = {}
    for kind in (Toy, Forgetful, Blind):
        for strategy in (SelfFeeding(context=4, horizon=2), TeacherForced(context=4, horizon=2)):
            model = toy(kind)
            strategy.attach(model)(batch)
            counts[kind.__name__, type(strategy).__name__] = model.encoded
    assert counts == {
        # Frames 4 and 5 were not fed; frame 5 alone where all that came were.
        ("Toy", "SelfFeeding"): 2,
        ("Toy", "TeacherForced"): 1,
        # The first prediction is of the frame alone, which is as much as is kept.
        ("Forgetful", "SelfFeeding"): 4,
        ("Forgetful", "TeacherForced"): 4,
        ("Blind", "SelfFeeding"): 5,
        ("Blind", "TeacherForced"): 5,
    }


def test_detached_targets_pass_no_gradient_into_the_encoder() -> None:
    model, batch = toy(), make_batch(3)

    class LevelsOfTargets(nn.Module):
        """Looks at the targets alone."""

        def forward(self, predictions: Any, targets: Any) -> Tensor:
            total = sum(level.square().sum() for target in targets for level in target)
            return total + 0 * predictions[0][0].sum()

    slopes = {}
    for detach_targets in (False, True):
        strategy = TeacherForced(context=2, horizon=1, loss=LevelsOfTargets(), detach_targets=detach_targets)
        loss, _ = strategy.attach(model)(batch)
        model.zero_grad()
        loss.backward()
        slopes[detach_targets] = sum(
            0.0 if parameter.grad is None else float(parameter.grad.abs().sum())
            for parameter in model.encoders.parameters()
        )
    assert slopes[False] > 1
    assert slopes[True] == 0


def test_a_frame_that_was_fed_altered_is_still_compared_as_it_was() -> None:
    class Darkened(TeacherForced):
        def feed(self, time: int, frame: Tensor | None, prediction: Tensor | None) -> Tensor | None:
            return None if frame is None else 0.5 * frame

    class FirstLevel(nn.Module):
        def forward(self, predictions: Any, targets: Any) -> Tensor:
            self.frames = torch.stack([target[0] for target in targets], 1)
            return predictions[0][0].sum()

    batch, loss = make_batch(5), FirstLevel()
    Darkened(context=3, horizon=2, loss=loss).attach(toy())(batch)
    assert torch.equal(loss.frames, batch[:, 1:])


def test_a_model_that_keeps_nothing_it_has_seen_is_told_what_the_encoding_loss_needs() -> None:
    for model in (toy(Blind), tiny_model().double()):
        strategy = SelfFeeding(context=2, horizon=2, encoding_loss=EncodingLoss()).attach(model)
        with pytest.raises(ValueError, match=rf"{type(model).__name__}\.seen\(state\) gives none; leave encoding_loss"):
            strategy(make_batch(4))


def test_16_bit_features_are_compared_in_float32() -> None:
    dtypes: list[torch.dtype] = []

    class Noting(nn.Module):
        def __init__(self, loss: nn.Module) -> None:
            super().__init__()
            self.loss = loss

        def forward(self, *pyramids: Any) -> Tensor:
            dtypes.extend(level.dtype for steps in pyramids for pyramid in steps for level in pyramid)
            return self.loss(*pyramids)

    strategy = SelfFeeding(context=2, horizon=2, loss=Noting(PyramidLoss()), encoding_loss=Noting(EncodingLoss()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        strategy.attach(toy().float())(make_batch(4).float())
    assert set(dtypes) == {torch.float32}

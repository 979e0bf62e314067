# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pcvideo.losses import BinaryCrossEntropyLoss, DiceLoss, JaccardLoss, VolumeLoss
from pcvideo.metrics import jaccard_distance


def volumes(seed: int, *, binary: bool = False) -> Tensor:
    values = torch.rand(2, 3, 1, 4, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (values > 0.5).double() if binary else values


def test_cross_entropy_is_torchs_own_and_the_loop_in_numpy() -> None:
    prediction, target = volumes(0), volumes(1, binary=True)
    expected = nn.functional.binary_cross_entropy(prediction, target).item()
    assert BinaryCrossEntropyLoss()(prediction, target).item() == pytest.approx(expected, rel=1e-12)
    p, y = prediction.numpy().ravel(), target.numpy().ravel()
    weighted = np.mean([-(1.5 * b * math.log(a) + (1 - b) * math.log(1 - a)) for a, b in zip(p, y, strict=True)])
    assert BinaryCrossEntropyLoss(set_weight=1.5)(prediction, target).item() == pytest.approx(weighted, rel=1e-12)


@pytest.mark.parametrize("weight", [1.0, 1.5])
def test_from_logits_it_is_the_same_and_stays_right_where_a_probability_is_1(weight: float) -> None:
    logits, target = 4 * volumes(0) - 2, volumes(1, binary=True)
    by_logits = BinaryCrossEntropyLoss(set_weight=weight, logits=True)
    by_probability = BinaryCrossEntropyLoss(set_weight=weight)(torch.sigmoid(logits), target)
    torch.testing.assert_close(by_logits(logits, target), by_probability)
    far = torch.full((1, 1, 1, 1), 60.0, requires_grad=True)
    loss = by_logits(far, torch.zeros(1, 1, 1, 1))
    loss.backward()
    assert loss.item() == pytest.approx(60)
    assert far.grad.item() == pytest.approx(1)


def test_probabilities_of_0_and_1_have_keras_finite_loss() -> None:
    sure = torch.tensor([[[1.0, 0.0]]]).double()
    wrong = BinaryCrossEntropyLoss()(sure, 1 - sure)
    assert wrong.item() == pytest.approx(-math.log(1e-7), rel=1e-6)


def test_of_binary_frames_the_soft_jaccard_loss_is_their_distance() -> None:
    prediction, target = volumes(0, binary=True), volumes(1, binary=True)
    expected = jaccard_distance(prediction.float(), target.float()).mean().item()
    assert JaccardLoss(smooth=0)(prediction, target).item() == pytest.approx(expected, abs=1e-6)
    # 1 - D = 2 (1 - J) / (2 - J), frame by frame.
    distance = jaccard_distance(prediction.float(), target.float()).double()
    dice = (1 - 2 * (1 - distance) / (2 - distance)).mean().item()
    assert DiceLoss(smooth=0)(prediction, target).item() == pytest.approx(dice, abs=1e-6)


def test_an_empty_frame_that_is_predicted_empty_costs_nothing_and_has_a_gradient() -> None:
    prediction = torch.zeros(1, 1, 1, 2, 2, 2, requires_grad=True)
    for loss in (JaccardLoss(), DiceLoss()):
        value = loss(prediction, torch.zeros(1, 1, 1, 2, 2, 2))
        (gradient,) = torch.autograd.grad(value, prediction)
        assert value.item() == 0
        assert (gradient > 0).all()


def test_gradients_are_those_of_finite_differences() -> None:
    target = volumes(1, binary=True)[:1, :1]
    for loss in (BinaryCrossEntropyLoss(set_weight=1.3), JaccardLoss(), DiceLoss(), JaccardLoss(logits=True)):
        prediction = (0.1 + 0.8 * volumes(0)[:1, :1]).requires_grad_()
        assert torch.autograd.gradcheck(lambda p, of=loss: of(p, target), prediction)


def test_the_loss_of_sequences_is_the_weighted_sum_of_its_terms_over_the_frames() -> None:
    prediction, target = volumes(0), volumes(1, binary=True)
    steps = [[[frame, frame[:, :, :1]] for frame in clip.unbind(1)] for clip in (prediction, target)]
    found = VolumeLoss(cross_entropy=2, jaccard=0.5, dice=0.25, set_weight=1.4)(*steps)
    terms = (BinaryCrossEntropyLoss(set_weight=1.4), JaccardLoss(), DiceLoss())
    expected = sum(weight * term(prediction, target) for weight, term in zip((2, 0.5, 0.25), terms, strict=True))
    torch.testing.assert_close(found, expected)


def test_options_and_frames_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        VolumeLoss(cross_entropy=0)
    with pytest.raises(ValueError, match="set_weight"):
        BinaryCrossEntropyLoss(set_weight=-1)
    with pytest.raises(ValueError, match="same shape"):
        JaccardLoss()(volumes(0), volumes(1)[:1])
    frame = volumes(0)[:, 0]
    with pytest.raises(ValueError, match="alike"):
        VolumeLoss()([[frame]], [[frame[:1]]])

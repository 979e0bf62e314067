# SPDX-License-Identifier: Apache-2.0
"""Losses on pyramids against loops over steps, levels and samples."""

from __future__ import annotations

import math

import pytest
import torch

from pcvideo.losses import EncodingLoss, PyramidLoss

BATCH, STEPS, LEVELS = 2, 3, 3


def pyramids(seed: int, batch: int = BATCH) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        [
            torch.rand(batch, 2, 8 >> level, 4 >> level, generator=generator, dtype=torch.float64)
            for level in range(LEVELS)
        ]
        for _ in range(STEPS)
    ]


def cut(steps: list[list[torch.Tensor]], lengths: tuple[int, ...]) -> list[list[torch.Tensor]]:
    """The first so many levels of each step, as of a network whose levels awake one by one."""
    return [step[:length] for step, length in zip(steps, lengths, strict=True)]


def eq5(predictions, targets, norm, level_weights, step_weights, eps=0.0):
    """Eq. 5 of arXiv 2212.11642 as loops over steps, levels and samples; over the levels that a prediction has."""
    total = 0.0
    for t in range(STEPS):
        for level in range(len(predictions[t])):
            if not level_weights[level]:
                continue
            difference = predictions[t][level].numpy() - targets[t][level].numpy()
            term = 0.0
            for sample in difference:
                squares = sum(float(value) ** 2 for value in sample.ravel())
                if norm == "sum_of_squares":
                    term += squares
                elif norm == "euclidean":
                    term += math.sqrt(squares + eps)
                else:
                    term += squares / sample.size / len(difference)
            total += step_weights[t] * level_weights[level] * term
    return total / sum(step_weights) if norm == "mean" else total


@pytest.mark.parametrize("norm", ["sum_of_squares", "euclidean", "mean"])
@pytest.mark.parametrize(
    ("levels", "level_numbers"),
    [
        ("equal", (1, 1, 1)),
        ("linear", (1, 2 / 3, 1 / 3)),
        ("shared_above", (1, 1 / 3, 1 / 3)),
        ((1, 0.5, 0), (1, 0.5, 0)),
    ],
)
@pytest.mark.parametrize(
    ("steps", "step_numbers"),
    [
        (None, (1, 1, 1)),
        ("skip_first", (0, 1, 1)),
        ("damp_first", (0.2, 1, 1)),
        ([0.2, 1, 3], (0.2, 1, 3)),
    ],
)
@pytest.mark.parametrize("lengths", [(3, 3, 3), (1, 2, 3), (2, 1, 1)])
def test_the_pyramid_loss_is_equation_5_over_the_levels_there_are(
    norm, levels, level_numbers, steps, step_numbers, lengths
):
    loss = PyramidLoss(norm=norm, level_weights=levels, step_weights=steps, eps=1e-4)
    predictions = cut(pyramids(0), lengths)
    value = loss(predictions, pyramids(1))
    expected = eq5(predictions, pyramids(1), norm, level_numbers, step_numbers, eps=1e-4)
    assert value.shape == ()
    assert value.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("norm", ["sum_of_squares", "euclidean"])
def test_the_batch_mean_divides_by_the_batch_size(norm):
    predictions, targets = pyramids(0, batch=5), pyramids(1, batch=5)
    value = PyramidLoss(norm=norm, batch_mean=True)(predictions, targets)
    expected = eq5(predictions, targets, norm, (1, 1, 1), (1, 1, 1)) / 5
    assert value.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("norm", ["sum_of_squares", "euclidean", "mean"])
def test_the_pyramid_loss_has_correct_gradients(norm):
    loss = PyramidLoss(norm=norm, level_weights="linear", step_weights="skip_first")
    targets = pyramids(1)
    flat = [frame.requires_grad_() for step in pyramids(0) for frame in step]

    def of_flat(*frames):
        return loss([frames[i : i + LEVELS] for i in range(0, len(frames), LEVELS)], targets)

    assert torch.autograd.gradcheck(of_flat, flat)


def test_the_euclidean_norm_has_a_finite_gradient_where_prediction_and_target_agree():
    frame = torch.rand(2, 1, 4, 4, requires_grad=True)
    PyramidLoss(norm="euclidean")([[frame]], [[frame.detach().clone()]]).backward()
    assert torch.equal(frame.grad, torch.zeros_like(frame))


def test_a_step_of_weight_zero_is_not_looked_at():
    predictions, targets = pyramids(0), pyramids(1)
    predictions[0][0][:] = float("nan")
    assert PyramidLoss(step_weights="skip_first")(predictions, targets).isfinite()


def test_half_precision_sums_do_not_overflow():
    prediction, target = torch.full((4, 3, 128, 128), 1.0).half(), torch.zeros(4, 3, 128, 128).half()
    assert PyramidLoss()([[prediction]], [[target]]).item() == 4 * 3 * 128 * 128


def test_misshapen_pyramids_are_refused_with_their_place():
    loss, good = PyramidLoss(), pyramids(0)
    with pytest.raises(ValueError, match="same number of steps, at least one, got 3 and 2"):
        loss(good, pyramids(1)[:2])
    with pytest.raises(ValueError, match="same number of steps, at least one, got 0 and 0"):
        loss([], [])
    with pytest.raises(ValueError, match="no more than targets, got 3 and 2 at step 1; cut the prediction"):
        loss(good, [good[0], good[1][:2], good[2]])
    with pytest.raises(ValueError, match=r"at least one level at each step, .* got 0 and 3 at step 2"):
        loss([good[0], good[1], []], good)
    with pytest.raises(TypeError, match=r"targets must hold a float tensor.*step 2, level 1, got NoneType"):
        loss(good, [good[0], good[1], [good[2][0], None, good[2][2]]])
    with pytest.raises(ValueError, match=r"step 0, level 0, got \(2, 2, 8, 4\) and \(1, 2, 8, 4\)"):
        loss(good, [[level[:1] for level in step] for step in good])
    with pytest.raises(TypeError, match=r"predictions must be a sequence over time.*got a tensor"):
        loss(good[0][0], good)
    with pytest.raises(TypeError, match=r"targets\[0\] must be a sequence over levels.*\[frame\]"):
        loss(good, [step[0] for step in good])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"norm": "euclid"}, ValueError, "did you mean 'euclidean'"),
        ({"level_weights": "liner"}, ValueError, "did you mean 'linear'"),
        ({"step_weights": "skip-first"}, ValueError, "did you mean 'skip_first'"),
        ({"level_weights": (1, -1)}, ValueError, r"level_weights\[1\]"),
        ({"level_weights": 2.0}, TypeError, "sequence of numbers"),
        ({"norm": "mean", "batch_mean": True}, ValueError, "averages over the batch already"),
    ],
)
def test_impossible_options_are_refused_at_construction(options, error, match):
    with pytest.raises(error, match=match):
        PyramidLoss(**options)


def test_weights_that_do_not_fit_the_clip_are_refused():
    with pytest.raises(ValueError, match="each of the 3 levels, got 2"):
        PyramidLoss(level_weights=(1, 1))(pyramids(0), pyramids(1))
    with pytest.raises(ValueError, match="each of the 3 steps, got 4"):
        PyramidLoss(step_weights=(1, 1, 1, 1))(pyramids(0), pyramids(1))
    with pytest.raises(ValueError, match="must not all be 0 for 1 steps"):
        PyramidLoss(step_weights="skip_first")(pyramids(0)[:1], pyramids(1)[:1])
    with pytest.raises(ValueError, match="PyramidLoss has nothing to compare"):
        PyramidLoss(level_weights=(0, 1, 1))(cut(pyramids(0), (1, 1, 1)), pyramids(1))


@pytest.mark.parametrize("word", ["linear", "shared_above"])
def test_the_levels_of_the_network_are_those_of_the_longest_target(word):
    # Targets that grow too, up to three levels: the weights are those of three levels from the first step on.
    numbers = {"linear": (1, 2 / 3, 1 / 3), "shared_above": (1, 1 / 3, 1 / 3)}[word]
    predictions, targets = cut(pyramids(0), (1, 2, 2)), cut(pyramids(1), (1, 3, 2))
    value = PyramidLoss(level_weights=word)(predictions, targets)
    assert value.item() == pytest.approx(eq5(predictions, targets, "sum_of_squares", numbers, (1, 1, 1)), rel=1e-12)


def test_a_level_that_predictions_lack_is_not_looked_at():
    targets = [[step[0], *(torch.full_like(level, torch.nan) for level in step[1:])] for step in pyramids(1)]
    assert PyramidLoss(level_weights="shared_above")(cut(pyramids(0), (1, 1, 1)), targets).isfinite()


@pytest.mark.parametrize("norm", ["sum_of_squares", "euclidean", "mean"])
@pytest.mark.parametrize(
    ("levels", "numbers"), [("shared_above", (0, 1 / 3, 1 / 3)), ("linear", (0, 2 / 3, 1 / 3)), ((9, 0, 2), (0, 0, 2))]
)
def test_the_encoding_loss_compares_all_levels_but_the_frame(norm, levels, numbers):
    fed, truth = cut(pyramids(0, batch=5), (2, 3, 3)), pyramids(1, batch=5)
    batch_mean = norm != "mean"
    loss = EncodingLoss(norm=norm, level_weights=levels, step_weights=(1, 2, 3), batch_mean=batch_mean, eps=1e-4)
    for steps in (fed, truth):
        steps[1][0][:] = torch.nan
    expected = eq5(fed, truth, norm, numbers, (1, 2, 3), eps=1e-4) / (5 if batch_mean else 1)
    assert loss(fed, truth).item() == pytest.approx(expected, rel=1e-12)


def test_the_encoding_loss_has_the_published_numbers_by_default():
    fed, truth = pyramids(0), pyramids(1)
    # Sums of squares over the batch size; one over the number of levels, the frame's counted.
    expected = eq5(fed, truth, "sum_of_squares", (0, 1 / 3, 1 / 3), (1, 1, 1)) / BATCH
    assert EncodingLoss()(fed, truth).item() == pytest.approx(expected, rel=1e-12)


def test_the_encoding_loss_says_what_it_cannot_do():
    with pytest.raises(ValueError, match="EncodingLoss has nothing to compare"):
        EncodingLoss()(cut(pyramids(0), (1, 1, 1)), cut(pyramids(1), (1, 1, 1)))
    with pytest.raises(TypeError, match="first step of a clip is never one of them"):
        EncodingLoss(step_weights="damp_first")
    with pytest.raises(ValueError, match="each of the 3 steps, got 2"):
        EncodingLoss(step_weights=(1, 1))(pyramids(0), pyramids(1))

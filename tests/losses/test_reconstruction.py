# SPDX-License-Identifier: Apache-2.0
"""Pixel losses against plain numpy loops, their closed forms, and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from pcvideo.losses import CharbonnierLoss, GradientDifferenceLoss, L1Loss, PyramidLoss, SSIMLoss

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


def eq5(predictions, targets, norm, level_weights, step_weights, eps=0.0):
    """Eq. 5 of arXiv 2212.11642 as loops over steps, levels and samples."""
    total = 0.0
    for t in range(STEPS):
        for level in range(LEVELS):
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
    [("equal", (1, 1, 1)), ("linear", (1, 2 / 3, 1 / 3)), ((1, 0.5, 0), (1, 0.5, 0))],
)
@pytest.mark.parametrize(
    ("steps", "step_numbers"), [(None, (1, 1, 1)), ("skip_first", (0, 1, 1)), ([0.2, 1, 3], (0.2, 1, 3))]
)
def test_the_pyramid_loss_is_equation_5(norm, levels, level_numbers, steps, step_numbers):
    loss = PyramidLoss(norm=norm, level_weights=levels, step_weights=steps, eps=1e-4)
    value = loss(pyramids(0), pyramids(1))
    expected = eq5(pyramids(0), pyramids(1), norm, level_numbers, step_numbers, eps=1e-4)
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
    with pytest.raises(ValueError, match="same number of levels, at least one, got 3 and 2 at step 1"):
        loss(good, [good[0], good[1][:2], good[2]])
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


def frames(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, *shape, generator=generator, dtype=torch.float64).unbind()


REDUCE = {"mean": np.mean, "sum": np.sum, "none": lambda values: values}


@pytest.mark.parametrize("reduction", REDUCE)
def test_l1_and_charbonnier_are_their_closed_forms(reduction):
    prediction, target = frames(2, 3, 1, 5, 4)
    difference = (prediction - target).numpy()
    reduce = REDUCE[reduction]
    np.testing.assert_allclose(L1Loss(reduction=reduction)(prediction, target), reduce(np.abs(difference)), rtol=1e-12)
    expected = reduce(np.sqrt(difference**2 + 0.05**2))
    np.testing.assert_allclose(CharbonnierLoss(eps=0.05, reduction=reduction)(prediction, target), expected, rtol=1e-12)


def test_charbonnier_has_the_published_default_and_a_zero_gradient_at_zero():
    frame = torch.rand(1, 4, 4, requires_grad=True)
    loss = CharbonnierLoss()(frame, frame.detach().clone())
    loss.backward()
    assert loss.item() == pytest.approx(1e-3, rel=1e-5)
    assert torch.equal(frame.grad, torch.zeros_like(frame))


@pytest.mark.parametrize("alpha", [1, 2, 1.5])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_gradient_difference_loss_is_equation_6_of_mathieu(alpha, reduction):
    prediction, target = frames(2, 3, 5, 4)
    vertical, horizontal = [], []
    for p, t in zip(prediction.reshape(-1, 5, 4).numpy(), target.reshape(-1, 5, 4).numpy(), strict=True):
        for i in range(5):
            for j in range(4):
                if i:
                    vertical.append(abs(abs(t[i, j] - t[i - 1, j]) - abs(p[i, j] - p[i - 1, j])) ** alpha)
                if j:
                    horizontal.append(abs(abs(t[i, j] - t[i, j - 1]) - abs(p[i, j] - p[i, j - 1])) ** alpha)
    expected = REDUCE[reduction](vertical) + REDUCE[reduction](horizontal)
    loss = GradientDifferenceLoss(alpha=alpha, reduction=reduction)
    assert loss(prediction, target).item() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(loss, (prediction.requires_grad_(), target))


def test_the_gradient_difference_loss_ignores_a_constant_and_sees_blur():
    frame = torch.rand(1, 8, 8, dtype=torch.float64)
    loss = GradientDifferenceLoss()
    assert loss(frame + 0.3, frame).item() == pytest.approx(0, abs=1e-12)
    assert loss(torch.full_like(frame, 0.5), frame) > 0.1


@pytest.mark.parametrize("weight", [0, 0.1, 1])
def test_the_ssim_loss_mixes_mse_and_dissimilarity_per_frame(weight):
    prediction, target = frames(2, 3, 1, 16, 12)
    expected = np.empty((2, 3))
    for b in range(2):
        for t in range(3):
            p, q = prediction[b, t, 0].numpy(), target[b, t, 0].numpy()
            similarity = structural_similarity(
                p, q, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
            expected[b, t] = (1 - weight) * ((p - q) ** 2).mean() + weight * (1 - similarity)
    np.testing.assert_allclose(SSIMLoss(weight=weight, reduction="none")(prediction, target), expected, rtol=1e-10)
    assert SSIMLoss(weight=weight)(prediction, target).item() == pytest.approx(expected.mean(), rel=1e-10)


@pytest.mark.parametrize("loss", [L1Loss(), CharbonnierLoss(), GradientDifferenceLoss(), SSIMLoss()])
def test_frame_losses_lower_under_descent_and_refuse_unfit_frames(loss):
    target = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    prediction = torch.full_like(target, 0.4).requires_grad_()
    # A flat prediction has no gradient magnitude's slope; a ripple starts the gradient difference off.
    with torch.no_grad():
        prediction += 0.01 * torch.rand(prediction.shape, generator=torch.Generator().manual_seed(1))
    before = loss(prediction, target)
    (slope,) = torch.autograd.grad(before, prediction)
    assert loss(prediction - 0.01 * slope / slope.abs().max(), target) < before
    with pytest.raises(ValueError, match="same shape"):
        loss(target, target[:1])
    with pytest.raises(TypeError, match="must be float"):
        loss((255 * target).byte(), target)


def test_impossible_numbers_are_refused():
    for make in (
        lambda: CharbonnierLoss(eps=0),
        lambda: GradientDifferenceLoss(alpha=0.5),
        lambda: SSIMLoss(weight=1.5),
        lambda: L1Loss(reduction="avg"),
        lambda: SSIMLoss(reduction="sum"),
    ):
        with pytest.raises(ValueError, match="must be"):
            make()
    with pytest.raises(ValueError, match="at least 2x2"):
        GradientDifferenceLoss()(torch.rand(1, 1, 5), torch.rand(1, 1, 5))

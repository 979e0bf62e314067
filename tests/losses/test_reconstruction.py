# SPDX-License-Identifier: Apache-2.0
"""Pixel losses against plain numpy loops, their closed forms, and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from pcvideo.losses import CharbonnierLoss, GradientDifferenceLoss, L1Loss, SSIMLoss


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

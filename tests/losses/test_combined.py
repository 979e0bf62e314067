# SPDX-License-Identifier: Apache-2.0
"""Sums of losses, and PPNV2's published one, against the formula written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pcvideo.losses import FramePerceptualLoss, PPNV2Loss, PyramidLoss, SumLoss

BATCH, LEVELS = 2, 3


def distance(first: Tensor, second: Tensor) -> Tensor:
    """In place of LPIPS: (N, 3, H, W) in [-1, 1] to N values."""
    return (first - second).abs().mean((1, 2, 3)) + (first * second).mean((1, 2, 3)) ** 2


def pyramids(seed: int, *, channels: int = 3, lengths: tuple[int, ...] = (1, 2, 3, 3)) -> list[list[Tensor]]:
    """Frames 8x6 and two levels of features above them; step t has as many levels as `lengths` says."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(channels, 8, 6), (4, 4, 3), (5, 2, 2)]
    return [
        [torch.randn(BATCH, *shape, generator=generator, dtype=torch.float64) for shape in shapes[:length]]
        for length in lengths
    ]


def published(predictions: list[list[Tensor]], targets: list[list[Tensor]], *, perceptual: bool) -> float:
    """sum over t, l of lambda_t * lambda_l * |P - target|^2 / B, and lambda_t * C*H*W * mean(LPIPS^2) at level 0."""
    total = 0.0
    for t, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        lambda_t = 0.2 if t == 0 else 1.0
        for level, (p, q) in enumerate(zip(prediction, target, strict=False)):
            lambda_l = 1.0 if level == 0 else 1 / LEVELS
            total += lambda_t * lambda_l * sum(v * v for v in (p - q).flatten().tolist()) / BATCH
        if perceptual:
            p, q = prediction[0], target[0]
            channels, height, width = p.shape[1:]
            distances = distance((2 * p - 1).expand(-1, 3, -1, -1), (2 * q - 1).expand(-1, 3, -1, -1)).tolist()
            total += lambda_t * channels * height * width * sum(d * d for d in distances) / BATCH
    return total


@pytest.mark.parametrize("perceptual", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_loss_of_ppnv2_is_the_published_formula(perceptual: bool, channels: int) -> None:
    predictions, targets = pyramids(0, channels=channels), pyramids(1, channels=channels, lengths=(3, 3, 3, 3))
    value = PPNV2Loss(perceptual=perceptual, network=distance)(predictions, targets)
    assert value.shape == ()
    assert value.item() == pytest.approx(published(predictions, targets, perceptual=perceptual), rel=1e-12)


def test_the_gradient_of_the_loss_of_ppnv2_is_correct() -> None:
    lengths = (1, 2, 3)
    targets = pyramids(1, lengths=(3, 3, 3))
    loss = PPNV2Loss(network=distance)

    def of_flat(*levels: Tensor) -> Tensor:
        rest = list(levels)
        return loss([[rest.pop(0) for _ in range(length)] for length in lengths], targets)

    flat = [level.requires_grad_() for step in pyramids(0, lengths=lengths) for level in step]
    assert torch.autograd.gradcheck(of_flat, flat)


def test_without_the_perceptual_term_the_lpips_network_is_not_asked() -> None:
    def refuse(first: Tensor, second: Tensor) -> Tensor:
        raise AssertionError

    loss = PPNV2Loss(perceptual=False, network=refuse)
    assert loss(pyramids(0), pyramids(1)).isfinite()
    with pytest.raises(AssertionError):
        PPNV2Loss(network=refuse)(pyramids(0), pyramids(1))


def test_a_sum_of_losses_is_their_sum_and_holds_what_they_hold() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

        def forward(self, predictions, targets):
            return self.scale * predictions[0][0].mean()

    predictions, targets = pyramids(0), pyramids(1)
    terms = PyramidLoss(), FramePerceptualLoss(network=distance), Scaled()
    total = SumLoss(*terms)
    assert total(predictions, targets).item() == pytest.approx(
        sum(term(predictions, targets).item() for term in terms), rel=1e-12
    )
    assert [name for name, _ in total.named_parameters()] == ["losses.2.scale"]


def test_what_cannot_be_summed_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one loss"):
        SumLoss()
    with pytest.raises(TypeError, match=r"modules, got .* as number 1"):
        SumLoss(PyramidLoss(), distance)
    with pytest.raises(TypeError, match="perceptual must be True or False"):
        PPNV2Loss(perceptual="vgg")

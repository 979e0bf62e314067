# SPDX-License-Identifier: Apache-2.0
"""The regularisers: the published number, plain loops in numpy, and what each one wants of a picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pcvideo.losses import MaximumEntropy, RegularisedLoss, SoftmaxEntropy, SSIMLoss, TotalVariation

ALL = [TotalVariation(), TotalVariation(reduction="mean"), SoftmaxEntropy(), MaximumEntropy()]


def wave(phase):
    flat = torch.arange(2 * 3 * 16 * 24, dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(0.05 * flat + phase)).view(2, 3, 16, 24)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_the_colouriser_s_loss_is_the_published_number():
    loss = RegularisedLoss(TotalVariation(), weight=0.1)(wave(0.2), wave(1.0))
    assert loss.item() == pytest.approx(0.17427552984731245, rel=1e-12)


def test_total_variation_is_the_loop_over_neighbours():
    frames = noise(2, 3, 5, 4).numpy()
    total = 0.0
    for frame in frames.reshape(-1, 5, 4):
        for row in range(5):
            for column in range(4):
                if row:
                    total += abs(frame[row, column] - frame[row - 1, column])
                if column:
                    total += abs(frame[row, column] - frame[row, column - 1])
    published = TotalVariation()(torch.from_numpy(frames)).item()
    assert published == pytest.approx(total / (2 * 5 * 4))
    assert TotalVariation(reduction="mean")(torch.from_numpy(frames)).item() == pytest.approx(published / 3)


def test_softmax_entropy_is_the_entropy_of_each_pixel_s_colours():
    frames = noise(2, 3, 4, 5)
    expected = 0.0
    for pixel in frames.movedim(1, -1).reshape(-1, 3).numpy():
        shares = np.exp(pixel) / np.exp(pixel).sum()
        expected -= (shares * np.log(shares)).sum() / 40
    assert SoftmaxEntropy()(frames).item() == pytest.approx(expected)
    # The limits that its words give.
    assert SoftmaxEntropy()(torch.full((3, 2, 2), 0.3)).item() == pytest.approx(math.log(3))
    vivid = SoftmaxEntropy()(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)).item()
    assert vivid == pytest.approx(0.98, abs=0.01)


def test_maximum_entropy_is_minus_that_of_the_shared_out_histogram():
    frames = noise(2, 3, 4, 5)
    entropies = []
    for plane in frames.reshape(-1, 20).numpy():
        histogram = np.zeros(8)
        for value in plane * 7:
            lower = min(int(value), 6)
            histogram[lower] += (1 - (value - lower)) / 20
            histogram[lower + 1] += (value - lower) / 20
        entropies.append(-sum(share * math.log(share) for share in histogram if share))
    assert MaximumEntropy(bins=8)(frames).item() == pytest.approx(-np.mean(entropies))


def test_maximum_entropy_is_lowest_where_all_values_are_taken_equally_often():
    places = torch.linspace(0, 1, 16)
    assert MaximumEntropy()(places.repeat(4).view(1, 8, 8)).item() == pytest.approx(-math.log(16), rel=1e-5)
    assert MaximumEntropy()(places[5].expand(1, 8, 8)).item() == pytest.approx(0, abs=1e-6)


def test_following_its_gradient_each_does_what_its_name_says():
    for loss, measure in [
        (TotalVariation(), lambda frames: -frames.diff(dim=-1).abs().mean() - frames.diff(dim=-2).abs().mean()),
        (SoftmaxEntropy(), lambda frames: (frames.amax(-3) - frames.amin(-3)).mean()),
        (MaximumEntropy(), lambda frames: frames.std((-2, -1)).mean()),
    ]:
        frames = (0.4 + 0.2 * noise(1, 3, 16, 16)).requires_grad_()
        optimizer = torch.optim.SGD([frames], lr=5.0)
        before = measure(frames.detach())
        for _ in range(20):
            optimizer.zero_grad()
            loss(frames).backward()
            optimizer.step()
        assert measure(frames.detach()) > before


@pytest.mark.parametrize("loss", ALL)
def test_16_bit_frames_are_computed_in_float32(loss):
    frames = noise(2, 3, 16, 24).half()
    assert loss(frames).dtype == torch.float32
    torch.testing.assert_close(loss(frames), loss(frames.float()))


@pytest.mark.parametrize("loss", ALL)
def test_gradients_are_those_of_finite_differences(loss):
    frames = (0.05 + 0.9 * noise(1, 3, 4, 4)).requires_grad_()
    assert torch.autograd.gradcheck(loss, frames)


@pytest.mark.parametrize("loss", ALL)
def test_what_is_no_frame_is_refused(loss):
    for wrong, error in [(torch.zeros(4, 4), ValueError), (torch.zeros(3, 0, 4), ValueError), (None, TypeError),
                         (torch.zeros(3, 4, 4, dtype=torch.uint8), TypeError)]:  # fmt: skip
        with pytest.raises(error, match="frames must be"):
            loss(wrong)


def test_the_weight_is_shared_with_any_error_or_added_to_it():
    prediction, target = noise(1, 3, 16, 16), noise(1, 3, 16, 16, seed=1)
    variation = TotalVariation()(prediction)
    error = SSIMLoss()(prediction, target)
    found = RegularisedLoss(TotalVariation(), weight=0.3, error=SSIMLoss())(prediction, target)
    torch.testing.assert_close(found, 0.7 * error + 0.3 * variation)
    squared = (prediction - target).square().mean()
    third = RegularisedLoss(TotalVariation(), weight=0.2, keep_error=True)(prediction, target)
    torch.testing.assert_close(third, squared + 0.2 * variation)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TotalVariation(reduction="sum"), "reduction"),
        (lambda: MaximumEntropy(bins=1), "bins"),
        (lambda: RegularisedLoss("tv"), "regulariser must be a module"),
        (lambda: RegularisedLoss(TotalVariation(), weight=2), "weight"),
        (lambda: RegularisedLoss(TotalVariation(), keep_error=1), "keep_error"),
    ],
)
def test_impossible_options_are_refused(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make()

# SPDX-License-Identifier: Apache-2.0
"""WaveletVFI's losses: the published numbers, and loops in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pcvideo.losses import CensusLoss, CharbonnierLoss, MiddleFrameLoss, MotionLoss, WaveletLoss


def wave(phase, shape=(1, 3, 64, 96)):
    count = int(np.prod(shape))
    return (0.5 + 0.5 * torch.sin(0.05 * torch.arange(count, dtype=torch.float64) + phase)).view(shape)


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_census_and_charbonnier_are_the_published_numbers():
    assert CensusLoss()(wave(0.2), wave(0.9)).item() == pytest.approx(0.2776975819, rel=1e-9)
    assert CharbonnierLoss()(wave(0.2), wave(0.9)).item() == pytest.approx(0.2182253996, rel=1e-9)
    assert MiddleFrameLoss()(wave(0.2), wave(0.9)).item() == pytest.approx(0.2776975819 + 0.2182253996, rel=1e-9)


def census_by_loop(prediction, target, scale):
    """Pixel by pixel, for one sample (C, H, W)."""
    greys = [scale * frame.mean(0) for frame in (prediction, target)]
    height, width = greys[0].shape
    total = 0.0
    for y in range(3, height - 3):
        for x in range(3, width - 3):
            codes = []
            for grey in greys:
                q = grey[y - 3 : y + 4, x - 3 : x + 4] - grey[y, x]
                codes.append(q / np.sqrt(0.81 + q**2))
            e = codes[0] - codes[1]
            total += (e**2 / (0.1 + e**2)).sum() / 49
    return total / (height * width)


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_the_census_loss_is_its_loop_for_each_sample(scale):
    prediction, target = draw(2, 3, 9, 11), draw(2, 3, 9, 11, seed=1)
    found = CensusLoss(scale=scale)(prediction, target)
    expected = [census_by_loop(p, t, scale) for p, t in zip(prediction.numpy(), target.numpy(), strict=True)]
    np.testing.assert_allclose(found.numpy(), expected)


def test_the_census_loss_does_not_see_brightness_and_gives_the_target_no_gradient():
    prediction, target = draw(1, 1, 8, 8).requires_grad_(), draw(1, 1, 8, 8, seed=1).requires_grad_()
    loss = CensusLoss()(prediction, target)
    torch.testing.assert_close(CensusLoss()(prediction + 0.25, target), loss)
    loss.backward()
    assert target.grad is None or not target.grad.any()
    assert torch.autograd.gradcheck(lambda frames: CensusLoss()(frames, target.detach()), prediction)


def test_frames_smaller_than_the_window_have_no_inner_pixels():
    assert CensusLoss()(draw(1, 3, 5, 5), draw(1, 3, 5, 5, seed=1)).item() == 0


def test_the_wavelet_loss_is_the_sum_of_the_means_over_each_scale():
    target = draw(2, 3, 8, 12)
    blocks = target.view(2, 3, 4, 2, 6, 2)
    a, b, c, d = blocks[..., 0, :, 0], blocks[..., 0, :, 1], blocks[..., 1, :, 0], blocks[..., 1, :, 1]
    low, high = (a + b + c + d) / 2, torch.stack((a + b - c - d, a - b + c - d, a - b - c + d), dim=2) / 2
    exact = WaveletLoss()(low, [high], target)
    torch.testing.assert_close(exact, torch.full((2,), 2e-3, dtype=torch.float64))
    off = WaveletLoss()(low + 0.3, [high - 0.4], target)
    expected = np.sqrt(0.3**2 + 1e-6) + np.sqrt(0.4**2 + 1e-6)
    torch.testing.assert_close(off, torch.full((2,), expected, dtype=torch.float64))


def test_16_bit_frames_are_compared_in_float32():
    pair = draw(1, 3, 16, 16).half(), draw(1, 3, 16, 16, seed=1).half()
    assert MiddleFrameLoss()(*pair).dtype == torch.float32


def test_an_even_window_is_refused():
    with pytest.raises(ValueError, match="window must be odd, got 6; take 5 or 7"):
        CensusLoss(window=6)


def averaged(frames, side):
    """(..., H, W) averaged over squares, in numpy."""
    *lead, height, width = frames.shape
    return frames.reshape(*lead, height // side, side, width // side, side).mean((-3, -1))


def test_the_motion_loss_is_its_sum_in_numpy_where_nothing_is_moved():
    before, truth, after = (draw(2, 3, 8, 16, seed=seed) for seed in range(3))
    logits = [draw(2, 1, 4, 8, seed=3), draw(2, 1, 8, 16, seed=4)]
    scales = [torch.cat((torch.zeros(2, 4, *logit.shape[2:]), logit), dim=1) for logit in logits]
    flows = torch.cat((6 * draw(2, 2, 2, 8, 16, seed=5) - 3, torch.ones(2, 2, 1, 8, 16)), dim=2)
    flows[1, :, 2] = 0
    loss, colours, distance = MotionLoss(flow_weight=0.1)(scales, before, truth, after, flows)
    parts, lengths = [], []
    for side, logit in ((2, logits[0]), (1, logits[1])):
        small = [averaged(frames.numpy(), side) for frames in (before, truth, after)]
        share = 1 / (1 + np.exp(-logit.numpy()))
        parts.append(np.sqrt((share * small[0] + (1 - share) * small[2] - small[1]) ** 2 + 1e-6).mean())
        # The second sample's flows are not known.
        lengths.append(np.sqrt((averaged(flows[0, :, :2].numpy(), side) ** 2).sum(1) + 1e-4).mean())
    assert colours.item() == pytest.approx(parts[1])
    assert distance.item() == pytest.approx(np.mean(lengths), rel=1e-6)
    assert loss.item() == pytest.approx(0.5 * parts[0] + parts[1] + 0.1 * np.mean(lengths), rel=1e-6)
    assert MotionLoss(flow_weight=0)(scales, before, truth, after, flows)[2] == 0


def test_the_motion_loss_is_least_at_the_true_flows():
    large = draw(1, 3, 16, 24)
    before, truth, after = large[..., 4:20], large[..., 2:18], large[..., 0:16]
    # What is at x in the middle is two pixels further to the left before, and to the right after.
    true = torch.tensor([-2.0, 0, 2, 0, 0], dtype=torch.float64).view(1, 5, 1, 1).expand(1, 5, 16, 16)
    flows = torch.cat((true[:, :4].unflatten(1, (2, 2)), torch.ones(1, 2, 1, 16, 16)), dim=2)
    loss = MotionLoss(flow_weight=1)
    right, wrong = (loss([found], before, truth, after, flows) for found in (true, -true))
    assert right[2].item() == pytest.approx(0.01)
    assert wrong[2].item() == pytest.approx(4, rel=1e-3)
    # Beyond the border nothing is seen, in two of sixteen columns.
    assert right[1] < 0.2 * wrong[1]

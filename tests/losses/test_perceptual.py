# SPDX-License-Identifier: Apache-2.0
"""LPIPS as a loss: its value, its gradient, and that nobody sees its network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pcvideo.losses import FramePerceptualLoss, LPIPSLoss
from pcvideo.metrics import MetricUnavailable


class Distance(nn.Module):
    """A small stand-in for the packaged network: mean squared difference of smooth features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 4, 3).double()
        self.dropout = nn.Dropout(0.5)

    def forward(self, first, second):
        gap = self.dropout(torch.tanh(self.features(first)) - torch.tanh(self.features(second)))
        return gap.square().mean((1, 2, 3), keepdim=True)


def clips() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 2, 2, 3, 6, 5, generator=generator, dtype=torch.float64).unbind()


def test_the_loss_is_the_mean_distance_or_mean_squared_distance_of_frames():
    prediction, target = clips()
    network = Distance().eval()
    each = torch.stack([network(2 * p - 1, 2 * t - 1).flatten() for p, t in zip(prediction, target, strict=True)])
    torch.testing.assert_close(LPIPSLoss(network=network)(prediction, target), each.mean())
    torch.testing.assert_close(LPIPSLoss(network=network, squared=True)(prediction, target), (each**2).mean())
    torch.testing.assert_close(LPIPSLoss(network=network, reduction="none")(prediction, target), each)


def test_the_gradient_with_respect_to_the_prediction_is_correct():
    prediction, target = clips()
    loss = LPIPSLoss(network=Distance(), squared=True)
    assert torch.autograd.gradcheck(lambda p: loss(p, target), prediction.requires_grad_())


def test_the_network_is_frozen_and_invisible_to_its_owner():
    network = Distance()
    owner = nn.ModuleDict({"loss": LPIPSLoss(network=network), "model": nn.Linear(2, 2)})
    owner.train()
    assert set(owner.state_dict()) == {"model.weight", "model.bias"}
    assert len(list(owner.parameters())) == 2
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())


def test_building_it_touches_nothing_and_calling_it_offline_says_why(monkeypatch, tmp_path):
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    pytest.importorskip("lpips", reason="the lpips package is not installed")
    monkeypatch.setenv("PCVIDEO_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    loss = LPIPSLoss()
    with pytest.raises(MetricUnavailable, match="vgg16"):
        loss(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    assert list(tmp_path.iterdir()) == []


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="did you mean 'vgg'"):
        LPIPSLoss("vgg16")
    with pytest.raises(ValueError, match="reduction must be one of"):
        LPIPSLoss(reduction="sum")


@pytest.mark.parametrize(
    ("weights", "numbers"), [(None, (1, 1)), ("skip_first", (0, 1)), ("damp_first", (0.2, 1)), ((2, 0), (2, 0))]
)
def test_the_frame_loss_is_the_squared_distance_times_the_size_of_a_frame_summed_over_steps(weights, numbers):
    prediction, target = clips()
    network = Distance().eval()
    expected = 0.0
    for step, number in enumerate(numbers):
        for p, t in zip(prediction[:, step], target[:, step], strict=True):
            expected += number * 3 * 6 * 5 * network(2 * p[None] - 1, 2 * t[None] - 1).item() ** 2 / 2
    steps = [[list(frames.unbind(1))[step] for frames in (prediction, target)] for step in range(2)]
    # Only the frame is looked at: levels above it may be anything, and as many as they like.
    predictions = [[p, torch.full((2, 4, 3, 2), torch.nan)][: 1 + step] for step, (p, _) in enumerate(steps)]
    targets = [[t, torch.zeros(2, 7, 1, 1)] for _, t in steps]
    value = FramePerceptualLoss(step_weights=weights, network=network)(predictions, targets)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_the_frame_loss_is_refused_what_the_pyramid_loss_is():
    with pytest.raises(ValueError, match="did you mean 'damp_first'"):
        FramePerceptualLoss(step_weights="damp-first")
    with pytest.raises(ValueError, match="did you mean 'vgg'"):
        FramePerceptualLoss("vgg19")
    loss, frame = FramePerceptualLoss(network=Distance()), torch.rand(1, 3, 6, 5)
    with pytest.raises(TypeError, match=r"predictions\[0\] must be a sequence over levels"):
        loss([frame], [frame])
    with pytest.raises(ValueError, match="no more than targets, got 2 and 1 at step 0"):
        loss([[frame, frame]], [[frame]])

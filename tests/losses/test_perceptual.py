# SPDX-License-Identifier: Apache-2.0
"""LPIPS as a loss: its value, its gradient, and that nobody sees its network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pcvideo.losses import LPIPSLoss
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

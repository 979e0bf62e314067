# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of WaveletVFI as the published code saves them: the golden numbers after conversion."""

from __future__ import annotations

import pytest
import torch
from original_checkpoints import Drawn, conv, golden

import pcvideo
from pcvideo import WaveletVFI
from pcvideo.cli.main import main
from pcvideo.convert import read_original, to_original


def published(*, fill=golden, width=1.0):
    """Names and shapes from the published layer table, with the taps of its Haar transform."""
    tensors = {}

    def wide(*channels):
        return [8 * round(count * width / 8) for count in channels]

    def add(name, i, o):
        tensors.update(conv(name, fill, i, o, 3))

    def linear(name, i, o):
        tensors.update({f"{name}.weight": fill((o, i)), f"{name}.bias": fill((o,))})

    pyramid = [3, *wide(32, 64, 96, 128)]
    for scale in (1, 2, 3, 4):
        add(f"ifnet.pconv{scale}.0.0", pyramid[scale - 1], pyramid[scale])
        add(f"ifnet.pconv{scale}.1.0", pyramid[scale], pyramid[scale])
    for scale, inner in zip((4, 3, 2, 1), wide(192, 160, 128, 64), strict=True):
        entry = 2 * pyramid[scale] + (0 if scale == 4 else 5)
        for number in range(1, 6):
            add(f"ifnet.decoder{scale}.conv{number}.0", entry if number == 1 else inner, inner)
        tensors[f"ifnet.decoder{scale}.conv6.weight"] = fill((inner, 5, 4, 4))
        tensors[f"ifnet.decoder{scale}.conv6.bias"] = fill((5,))
    (deepest,) = wide(192)
    add("ifnet.decoder4.classifier.0.0", deepest, deepest)
    linear("ifnet.decoder4.classifier.3", deepest, deepest)
    linear("ifnet.decoder4.classifier.5", deepest, 4)
    context = wide(48, 96, 144, 192)
    for chain, first in ((1, 3), (2, 8)):
        for number, (i, o) in enumerate(zip([first, *context], context, strict=False), start=1):
            add(f"contextnet.pconv{chain}_{number}.0", i, o)
    features = wide(216, 432, 648, 576)
    add("conv4.0", 3 * context[3], features[3])
    add("conv4_l", features[3], 3)
    add("conv4_h", features[3], 9)
    for level in (3, 2, 1):
        add(f"conv{level}.0", 3 * context[level - 1] + features[level], features[level - 1])
        add(f"conv{level}_h", features[level - 1], 9)
    for module, letter in (("waveletencoder.dwt", "h"), ("idwt", "g")):
        for tap in (0, 1):
            for axis in ("col", "row"):
                tensors[f"{module}.{letter}{tap}_{axis}"] = torch.full((1, 1, 2, 1), 0.5**0.5)
    return tensors


def wave(phase):
    return (0.5 + 0.5 * torch.sin(0.05 * torch.arange(3 * 64 * 96, dtype=torch.float64) + phase)).view(1, 3, 64, 96)


def test_the_built_checkpoint_holds_as_much_as_the_published_one():
    tensors = published(fill=lambda shape: torch.empty(shape, device="meta"))
    assert len(tensors) == 112
    taps = sum(tensor.numel() for name, tensor in tensors.items() if "dwt" in name)
    assert taps == 16
    assert sum(tensor.numel() for tensor in tensors.values()) - taps == 19_411_151


@pytest.mark.slow
def test_a_converted_checkpoint_of_several_devices_gives_the_golden_numbers(tmp_path, capsys):
    torch.save({f"module.{name}": tensor for name, tensor in published().items()}, tmp_path / "best.pkl")
    assert main(["convert", str(tmp_path / "best.pkl"), str(tmp_path / "mine")]) == 0
    assert "pcvideo interpolate" in capsys.readouterr().out
    model = pcvideo.from_pretrained(tmp_path / "mine", dtype=torch.float64)
    assert isinstance(model, WaveletVFI)
    with torch.no_grad():
        frame = model(wave(0.2), wave(0.9), 0.0)
    found = (frame.mean().item(), frame.std(correction=0).item(), frame.flatten()[0].item(), frame.flatten()[-1].item())
    assert found == pytest.approx((0.0958137095, 0.0995204629, 0.4927253296, 0.2465565273), rel=1e-6)


def test_narrow_checkpoints_are_seen_by_their_channels_and_go_back(tmp_path):
    tensors = published(fill=Drawn(), width=0.5)
    torch.save(tensors, tmp_path / "half.pth")
    original = read_original(tmp_path / "half.pth")
    assert original.config == {"width": 0.5}
    assert sorted(original.dropped) == sorted(name for name in tensors if "dwt" in name)
    back = to_original(original.model)
    assert back.keys() == tensors.keys() - set(original.dropped)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in back.items())
    with pytest.raises(ValueError, match="knows residual=False alone"):
        to_original(WaveletVFI(width=0.1, residual=True))

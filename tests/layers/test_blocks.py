# SPDX-License-Identifier: Apache-2.0
"""The fusion of features: each kind against its formula, and where the U-Net has it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pcvideo.layers import EDLSTMCell, EncoderDecoder
from pcvideo.layers.blocks import AddConv, ConcatConv

FUSIONS = ("concat", "modulate", "add")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5


def filled(module: nn.Module) -> nn.Module:
    """The module in float64, every parameter random, so that no default hides a mistake."""
    module = module.double()
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.copy_(random(*parameter.shape, seed=10 + seed))
    return module


def array(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().numpy()


def convolved(image: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """3x3, zeros outside: (B, C, H, W) and (D, C, 3, 3) -> (B, D, H, W)."""
    height, width = image.shape[-2:]
    padded = np.pad(image, [(0, 0), (0, 0), (1, 1), (1, 1)])
    out = np.zeros((image.shape[0], weight.shape[0], height, width))
    for row in range(3):
        for column in range(3):
            window = padded[..., row : row + height, column : column + width]
            out += np.einsum("bchw,dc->bdhw", window, weight[:, :, row, column])
    return out


def per_channel(values: Tensor) -> NDArray[np.float64]:
    return array(values)[:, None, None]


def test_concatenation_convolves_both_and_adds() -> None:
    fuse = filled(ConcatConv(3, other_channels=2, out_channels=4))
    features, other, weight = array(random(2, 3, 5, 6)), array(random(2, 2, 5, 6, seed=1)), array(fuse.weight)
    expected = convolved(features, weight[:, :3]) + convolved(other, weight[:, 3:]) + per_channel(fuse.bias)
    found = fuse(torch.from_numpy(features), torch.from_numpy(other))
    np.testing.assert_allclose(array(found), expected, rtol=0, atol=1e-13)


def test_addition_convolves_the_sum() -> None:
    fuse = filled(AddConv(3, out_channels=4))
    features, other = array(random(2, 3, 5, 6)), array(random(2, 3, 5, 6, seed=1))
    expected = convolved(features + other, array(fuse.conv.weight)) + per_channel(fuse.conv.bias)
    found = fuse(torch.from_numpy(features), torch.from_numpy(other))
    np.testing.assert_allclose(array(found), expected, rtol=0, atol=1e-13)
    assert [name for name, _ in fuse.named_parameters()] == ["conv.weight", "conv.bias"]


def test_addition_first_matches_the_width_of_the_others() -> None:
    fuse = filled(AddConv(3, other_channels=2, bias=False))
    features, other = array(random(2, 3, 5, 6)), array(random(2, 2, 5, 6, seed=1))
    matched = np.einsum("bchw,dc->bdhw", other, array(fuse.match.weight)[:, :, 0, 0])
    found = fuse(torch.from_numpy(features), torch.from_numpy(other))
    np.testing.assert_allclose(array(found), convolved(features + matched, array(fuse.conv.weight)), rtol=0, atol=1e-13)
    assert [name for name, _ in fuse.named_parameters()] == ["match.weight", "conv.weight"]


def codec_of(fusion: str) -> nn.Module:
    return filled(
        EncoderDecoder(in_channels=2, out_channels=5, channels=(3, 4, 6), latent_channels=2, fusion=fusion)
    ).eval()


def activated(image: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(image > 0, image, 0.01 * image)


def fused(fusion: str, module: nn.Module, features: Tensor, other: Tensor) -> NDArray[np.float64]:
    """What a fusion gives, before any activation, from its weights alone."""
    own, others = array(features), array(other)
    if fusion == "concat":
        bias = 0 if module.bias is None else per_channel(module.bias)
        return convolved(np.concatenate([own, others], axis=1), array(module.weight)) + bias
    bias = 0 if module.conv.bias is None else per_channel(module.conv.bias)
    if fusion == "add":
        if isinstance(module.match, nn.Conv2d):
            others = np.einsum("bchw,dc->bdhw", others, array(module.match.weight)[:, :, 0, 0])
        return convolved(own + others, array(module.conv.weight)) + bias
    maps = convolved(others, array(module.to_scale_shift.weight)) + per_channel(module.to_scale_shift.bias)
    scale, shift = maps[:, : own.shape[1]], maps[:, own.shape[1] :]
    modulated = own * module.gain.item() / (1 + np.exp(-scale)) + np.tanh(shift)
    return convolved(modulated, array(module.conv.weight)) + bias


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_unet_takes_in_the_latent_and_every_skip_by_its_fusion(fusion: str) -> None:
    codec, frame, coarser = codec_of(fusion), random(2, 2, 8, 12), random(2, 2, 2, 3, seed=1)
    # Its plain parts, one after the other; each fusion between them by its formula.
    fine = torch.from_numpy(activated(array(codec.stem(frame))))
    middle = codec.encoders[0](fine)
    latent = activated(fused(fusion, codec.merge_latent, codec.encoders[1](middle), coarser))
    inner = np.maximum(fused(fusion, codec.merge_skips[0], codec.decoders[0](torch.from_numpy(latent)), middle), 0)
    output = fused(fusion, codec.head, codec.decoders[1](torch.from_numpy(inner)), fine)
    found, found_latent = codec(frame, coarser)
    assert found.shape == (2, 5, 8, 12)
    np.testing.assert_allclose(array(found_latent), latent, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(array(found), output, rtol=1e-11, atol=1e-12 * np.abs(output).max())


def test_a_modulation_that_lets_everything_through_is_the_plain_convolution() -> None:
    head = codec_of("modulate").head
    with torch.no_grad():
        head.to_scale_shift.weight.zero_()
        head.to_scale_shift.bias.zero_()
        head.gain.fill_(2)  # twice a sigmoid of 0
    features = random(2, 3, 5, 6)
    expected = convolved(array(features), array(head.conv.weight)) + per_channel(head.conv.bias)
    np.testing.assert_allclose(array(head(features, random(2, 3, 5, 6, seed=1))), expected, rtol=0, atol=1e-13)


def test_concatenation_keeps_the_published_names_of_its_weights() -> None:
    names = [name for name, _ in codec_of("concat").named_parameters() if name.startswith(("merge", "head"))]
    assert names == ["merge_latent.weight", "merge_skips.0.weight", "merge_skips.0.bias", "head.weight", "head.bias"]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_unet_that_merges_a_latent_refuses_to_go_without(fusion: str) -> None:
    with pytest.raises(ValueError, match="merges the coarser level's latent, got latent=None"):
        codec_of(fusion)(random(1, 2, 8, 8))


def test_an_unknown_fusion_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"fusion must be one of 'concat', 'modulate', 'add', got 'ad'.*mean 'add'"):
        EDLSTMCell(in_channels=1, hidden_channels=2, image_channels=1, channels=(2, 3), fusion="ad")

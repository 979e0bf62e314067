# SPDX-License-Identifier: Apache-2.0
"""Tiles against loops in numpy; the masked level against convolutions that are done everywhere and then multiplied."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pcvideo.layers import MaskedLevel, active_tiles, conv2d_of_doubled, gather_tiles, scatter_tiles
from pcvideo.layers import masked_level as module


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def level(dtype=torch.float64):
    torch.manual_seed(1)
    return MaskedLevel(skip_channels=3, parent_channels=5, channels=6, out_channels=4).to(dtype)


def published(layer, skip, parent, mask):
    """The published form: everything convolved, then multiplied by the mask and by the dilated mask."""
    dilated = F.max_pool2d(mask, 3, 1, 1)
    doubled = F.interpolate(parent, scale_factor=2, mode="nearest")
    features = F.leaky_relu(layer.to_features(torch.cat((skip, doubled), dim=1)) * dilated, 0.1)
    return features, layer.to_outputs(features) * mask


def masks(height, width, batch=2):
    """Masks of many kinds, (batch, 1, H, W) each."""
    generator = torch.Generator().manual_seed(4)
    found = {}
    for share in (0.02, 0.3, 0.9):
        found[f"random {share}"] = (torch.rand(batch, 1, height, width, generator=generator) < share).double()
    corners = torch.zeros(batch, 1, height, width, dtype=torch.float64)
    corners[..., 0, 0] = corners[..., -1, -1] = 1
    stripe = torch.zeros_like(corners)
    stripe[..., height // 2, :] = 1
    one_sample = torch.zeros_like(corners)
    one_sample[-1, :, : height // 2] = 1
    return found | {
        "corners": corners,
        "stripe": stripe,
        "one sample": one_sample,
        "none": torch.zeros_like(corners),
        "all": torch.ones_like(corners),
    }


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("size", [(3, 5), (2, 2), (20, 17), (16, 16)])
def test_a_convolution_of_doubled_features_is_what_its_name_says(size, padding):
    features, weight, bias = draw(2, 3, *size), draw(4, 3, 3, 3, seed=1), draw(4, seed=2)
    expected = F.conv2d(F.interpolate(features, scale_factor=2, mode="nearest"), weight, bias, padding=padding)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = features.contiguous(memory_format=memory_format), weight.contiguous(memory_format=memory_format)
        torch.testing.assert_close(conv2d_of_doubled(*given, bias, padding=padding), expected)


def test_its_gradients_are_those_of_finite_differences(monkeypatch):
    monkeypatch.setattr("pcvideo.layers.doubled_conv._FEW_PIXELS", 0)
    inputs = draw(1, 2, 2, 3).requires_grad_(), draw(2, 2, 3, 3, seed=1).requires_grad_(), draw(2).requires_grad_()
    assert torch.autograd.gradcheck(conv2d_of_doubled, inputs)


def test_shapes_that_do_not_fit_a_doubled_convolution_are_named():
    with pytest.raises(ValueError, match=r"weight \(D, C, 3, 3\) and padding 0 or 1"):
        conv2d_of_doubled(draw(1, 3, 4, 4), draw(2, 4, 3, 3))
    with pytest.raises(ValueError, match=r"padding 0 or 1, got .* and 2"):
        conv2d_of_doubled(draw(1, 3, 4, 4), draw(2, 3, 3, 3), padding=2)


@pytest.mark.parametrize("size", [4, 8])
def test_active_tiles_are_those_that_hold_a_pixel_of_the_mask(size):
    mask = masks(13, 18)["random 0.02"]
    expected = sorted({(b, y // size, x // size) for b, _, y, x in np.argwhere(mask.numpy())})
    assert active_tiles(mask, size).tolist() == [list(map(int, tile)) for tile in expected]


@pytest.mark.parametrize("halo", [0, 1, 2])
def test_tiles_are_cut_out_with_zeros_beyond_the_map(halo):
    maps, size = draw(2, 3, 10, 13), 4
    tiles = torch.tensor([[0, 0, 0], [1, 2, 3], [1, 1, 2], [0, 2, 0]])
    padded = np.pad(maps.numpy(), [(0, 0), (0, 0), (halo, size + halo), (halo, size + halo)])
    side = size + 2 * halo
    for found, (sample, row, column) in zip(gather_tiles(maps, tiles, size, halo), tiles.tolist(), strict=True):
        top, left = size * row, size * column
        np.testing.assert_array_equal(found.numpy(), padded[sample, :, top : top + side, left : left + side])


@pytest.mark.parametrize("halo", [0, 1])
def test_tiles_that_were_cut_out_are_put_back_where_they_were(halo):
    maps, size = draw(2, 3, 8, 12), 4
    tiles = active_tiles(torch.ones(2, 1, 8, 12), size)
    target = torch.zeros(2, 3, 8 + 2 * halo, 12 + 2 * halo, dtype=torch.float64)
    scatter_tiles(target, gather_tiles(maps, tiles, size, halo), tiles, size, halo)
    assert torch.equal(target, F.pad(maps, (halo,) * 4))


@pytest.mark.parametrize("size", [(8, 8), (24, 34), (70, 66), (2, 10)])
@pytest.mark.parametrize("kind", list(masks(2, 2)))
def test_a_sparse_level_gives_the_numbers_of_the_masked_dense_one(size, kind):
    layer, mask = level(), masks(*size)[kind]
    skip, parent = draw(2, 3, *size), draw(2, 5, size[0] // 2, size[1] // 2, seed=1)
    features, outputs = published(layer, skip, parent, mask)
    dilated = F.max_pool2d(mask, 3, 1, 1)
    with torch.no_grad():
        for tile in (4, 8, 16, 64):
            own = layer.tiled(skip, parent, mask, active_tiles(mask, tile), tile)
            torch.testing.assert_close(own[0], features, rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(own[1], outputs, rtol=1e-6, atol=1e-9)
        # By the door the features may be more than was asked for, beyond the dilated mask.
        own = layer(skip, parent, mask)
        torch.testing.assert_close(own[0] * dilated, features * dilated, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(own[1], outputs, rtol=1e-6, atol=1e-9)
        assert layer(skip, parent, mask, keep_features=False)[0] is None


def test_a_map_beyond_the_limit_of_memory_is_done_in_parts_with_the_same_numbers(monkeypatch):
    layer, mask = level(), masks(130, 70)["all"]
    skip, parent = draw(2, 3, 130, 70), draw(2, 5, 65, 35, seed=1)
    expected = published(layer, skip, parent, mask)
    monkeypatch.setattr(module, "MOST_BYTES", 2**10)
    with torch.no_grad():
        assert layer.tile(skip) == module.LARGE_TILE
        for own, other in zip(layer(skip, parent, mask), expected, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-9)


def test_a_sparse_mask_is_computed_by_tiles_and_a_nearly_full_one_densely(monkeypatch):
    layer, called = level(), []
    skip, parent = draw(1, 3, 32, 32), draw(1, 5, 16, 16)
    for name in ("tiled", "dense"):
        original = getattr(layer, name)
        monkeypatch.setattr(layer, name, lambda *a, n=name, f=original, **k: (called.append(n), f(*a, **k))[1])
    with torch.no_grad():
        layer(skip, parent, masks(32, 32, 1)["corners"])
        layer(skip, parent, masks(32, 32, 1)["all"])
    layer(skip, parent, masks(32, 32, 1)["corners"])
    # With gradients it is dense: a tile's way back costs more than it saves.
    assert called == ["tiled", "dense", "dense"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_numbers_agree_as_far_as_they_go(dtype):
    layer, mask = level(dtype), masks(24, 34)["random 0.02"].to(dtype)
    skip, parent = draw(2, 3, 24, 34).to(dtype), draw(2, 5, 12, 17, seed=1).to(dtype)
    reference = level()
    reference.load_state_dict({name: tensor.double() for name, tensor in layer.state_dict().items()})
    expected = published(reference, skip.double(), parent.double(), mask.double())
    with torch.no_grad():
        own = layer.tiled(skip, parent, mask, active_tiles(mask, 8), 8)
    for one, other in zip(own, expected, strict=True):
        assert one.dtype == dtype
        bound = 8 * torch.finfo(dtype).eps * other.abs().max()
        assert (one.double() - other).abs().max() <= bound


def test_gradients_are_those_of_the_published_form():
    skip, parent = draw(2, 3, 32, 40), draw(2, 5, 16, 20, seed=1)
    mask = masks(32, 40)["random 0.02"]
    gradients = []
    for run in (lambda layer: layer(skip, parent, mask), lambda layer: published(layer, skip, parent, mask)):
        layer = level()
        run(layer)[1].square().sum().backward()
        gradients.append([parameter.grad for parameter in layer.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_the_cost_counts_multiplications_within_the_mask_for_each_sample():
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, 3, 3] = 1
    layer = level()
    assert (layer.features_cost, layer.outputs_cost) == ((3 + 5) * 6, 6 * 4)
    assert layer.cost(mask).tolist() == pytest.approx([9 / 64 * 48 + 1 / 64 * 24, 0])
    assert layer.cost(torch.ones(1, 1, 8, 8)).item() == 48 + 24

# SPDX-License-Identifier: Apache-2.0
"""Convolutions by Fourier transforms against PyTorch's own, in numbers, gradients and everyday use."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

import pcvideo
from pcvideo.layers import FourierConv3d, use_fourier
from pcvideo.ops import fourier_conv3d, fourier_fits, fourier_spectrum


def pair(kernel_size=5, channels=(3, 4), dtype=torch.float64):
    torch.manual_seed(0)
    plain = nn.Conv3d(*channels, kernel_size, padding=kernel_size // 2).to(dtype)
    return plain, use_fourier(nn.Sequential(copy.deepcopy(plain)), kernel_size=1)[0]


@pytest.mark.parametrize("size", [(16, 16, 16), (5, 7, 6), (1, 2, 9)])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_numbers_and_gradients_are_those_of_the_plain_convolution(size, kernel_size):
    plain, fourier = pair(kernel_size)
    assert type(fourier) is FourierConv3d
    one = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    other = one.detach().clone().requires_grad_()
    expected, found = plain(one), fourier(other)
    weights = torch.randn_like(expected)
    expected.backward(weights)
    found.backward(weights)
    assert (found - expected).abs().max() < 1e-12
    assert (other.grad - one.grad).abs().max() < 1e-12
    for ours, theirs in zip(fourier.parameters(), plain.parameters(), strict=True):
        assert (ours.grad - theirs.grad).abs().max() < 1e-10


def test_in_float32_at_the_published_sizes_the_difference_is_rounding():
    plain, fourier = pair(5, (33, 128), torch.float32)
    inputs = torch.randn(2, 33, 16, 16, 16)
    with torch.no_grad():
        expected = plain(inputs)
        assert (fourier(inputs) - expected).abs().max() < 3e-5 * expected.abs().max()


def test_kernels_of_different_sides_and_derivatives_of_second_order():
    inputs = torch.randn(1, 2, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 3, 1, 5, dtype=torch.float64, requires_grad=True)
    expected = nn.functional.conv3d(inputs, weight, padding=(1, 0, 2))
    assert (fourier_conv3d(inputs, weight) - expected).abs().max() < 1e-12
    assert gradcheck(fourier_conv3d, (inputs, weight), fast_mode=True)
    assert gradgradcheck(fourier_conv3d, (inputs, weight), fast_mode=True)


def test_new_weights_are_seen_whichever_way_they_came():
    plain, fourier = pair(3)
    inputs = torch.randn(1, 3, 4, 4, 4, dtype=torch.float64)

    def agree():
        with torch.no_grad():
            return (fourier(inputs) - plain(inputs)).abs().max() < 1e-12

    assert agree()
    with torch.no_grad():
        for conv in (plain, fourier):
            conv.weight.mul_(2)
    assert agree()
    state = {name: tensor + 1 for name, tensor in plain.state_dict().items()}
    plain.load_state_dict(state)
    fourier.load_state_dict(state)
    assert agree()
    plain.weight = fourier.weight = nn.Parameter(plain.weight.detach() - 3)
    assert agree()
    # Another size of volume has another spectrum.
    inputs = torch.randn(1, 3, 6, 4, 5, dtype=torch.float64)
    assert agree()


def test_a_kernel_is_transformed_once_without_gradients_and_copies_do_without():
    _, fourier = pair(3)
    inputs = torch.randn(1, 3, 4, 4, 4, dtype=torch.float64)
    with torch.inference_mode():
        first = fourier(inputs)
        kept = fourier._kept.spectrum
        assert torch.equal(fourier(inputs), first)
        assert fourier._kept.spectrum is kept
    # What was kept in inference mode does not stand in training's way.
    fourier(inputs).sum().backward()
    assert fourier.weight.grad is not None
    assert copy.deepcopy(fourier)._kept is None


def test_a_model_keeps_its_names_weights_and_predictions_and_saves_as_before(tmp_path):
    torch.manual_seed(0)
    model = pcvideo.ConvLSTMPredictor(hidden_channels=(4, 4, 4), legacy=True).eval()
    frames = (torch.rand(2, 4, 1, 8, 8, 8) > 0.6).float()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        expected = model(frames, 3)
        assert use_fourier(model, kernel_size=3) is model
        found = model(frames, 3)
    assert [type(cell.to_gates) is FourierConv3d for cell in model.cells] == [True, True, False]
    assert type(model.head) is FourierConv3d
    assert (found - expected).abs().max() < 1e-5
    assert model.state_dict().keys() == state.keys()
    model.save_pretrained(tmp_path / "saved")
    loaded = pcvideo.from_pretrained(tmp_path / "saved")
    assert type(loaded.head) is nn.Conv3d
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


def test_convolutions_of_another_kind_and_small_kernels_are_left_alone():
    kept = [
        nn.Conv3d(2, 2, 3, padding=1),
        nn.Conv3d(2, 2, 5, padding=2, stride=2),
        nn.Conv3d(2, 2, 5, padding=2, dilation=2),
        nn.Conv3d(2, 2, 5, padding=2, groups=2),
        nn.Conv3d(2, 2, 5),
        nn.Conv3d(2, 2, 4, padding="same"),
        nn.Conv3d(2, 2, 5, padding=2, padding_mode="replicate"),
        nn.Conv2d(2, 2, 5, padding=2),
    ]
    replaced = [nn.Conv3d(2, 2, 5, padding=2), nn.Conv3d(2, 2, 5, padding="same", bias=False)]
    network = use_fourier(nn.ModuleList([*kept, *replaced]))
    assert list(network)[: len(kept)] == kept
    assert all(type(conv) is FourierConv3d for conv in list(network)[len(kept) :])


def test_where_the_spectrum_would_be_too_large_the_plain_convolution_is_taken():
    weight = torch.zeros(128, 33, 5, 5, 5)
    assert fourier_fits(weight, (16, 16, 16))
    assert fourier_spectrum(weight, (16, 16, 16)).nbytes == 2 * 18 * 18 * 10 * 33 * 128 * 4
    assert not fourier_fits(weight, (64, 64, 64))
    # 1 GiB would be the spectrum of this one.
    weight = torch.ones(64, 64, 3, 3, 3)
    outputs = fourier_conv3d(torch.ones(1, 64, 39, 39, 39), weight)
    assert outputs[0, 0, 1, 1, 1] == 64 * 27


def test_what_can_not_be_convolved_is_refused_with_the_mend():
    volumes, weight = torch.zeros(1, 2, 4, 4, 4), torch.zeros(3, 2, 3, 3, 3)
    with pytest.raises(TypeError, match=r"float32 or float64.*\.float\(\)"):
        fourier_conv3d(volumes.half(), weight.half())
    with pytest.raises(ValueError, match="channels out, C"):
        fourier_conv3d(volumes[:, :1], weight)
    with pytest.raises(ValueError, match="odd sides"):
        fourier_conv3d(volumes, weight[..., :2])
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        FourierConv3d(2, 2, 4)

# SPDX-License-Identifier: Apache-2.0
"""The Haar transform by its definition, other wavelets against PyWavelets, both against what orthogonal means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pcvideo.ops import haar_dwt, haar_idwt, orthogonal_dwt, orthogonal_idwt

ROOT_2, ROOT_3 = math.sqrt(2), math.sqrt(3)
# Daubechies 1988, in the order of PyWavelets' dec_lo.
HAAR = [1 / ROOT_2, 1 / ROOT_2]
DB2 = [
    (1 - ROOT_3) / (4 * ROOT_2),
    (3 - ROOT_3) / (4 * ROOT_2),
    (3 + ROOT_3) / (4 * ROOT_2),
    (1 + ROOT_3) / (4 * ROOT_2),
]


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_each_block_of_four_pixels_becomes_its_doubled_mean_and_three_differences():
    low, high = haar_dwt(torch.tensor([[1.0, 2.0], [4.0, 8.0]]))
    assert low.item() == 7.5
    assert high.flatten().tolist() == [(1 + 2 - 4 - 8) / 2, (1 - 2 + 4 - 8) / 2, (1 - 2 - 4 + 8) / 2]


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (4, 2), (2, 2)])
def test_haar_is_its_matrix(shape):
    frames = draw(*shape)
    height, width = shape[-2:]

    def matrix(side):
        half = np.eye(side // 2)
        return np.concatenate([np.kron(half, [1, 1]), np.kron(half, [1, -1])]) / ROOT_2

    bands = matrix(height) @ frames.numpy() @ matrix(width).T
    low, high = haar_dwt(frames)
    rows, columns = slice(height // 2), slice(width // 2)
    below, right = slice(height // 2, None), slice(width // 2, None)
    np.testing.assert_allclose(low.numpy(), bands[..., rows, columns], atol=1e-12)
    for index, (row, column) in enumerate([(below, columns), (rows, right), (below, right)]):
        np.testing.assert_allclose(high.select(-3, index).numpy(), bands[..., row, column], atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_there_and_back_gives_the_frames_in_their_dtype(dtype):
    # Sixteenths below two: exact in every dtype here, and so are their sums and halves.
    frames = (16 * draw(2, 3, 6, 10).abs().clamp(max=1)).round().to(dtype) / 16
    low, high = haar_dwt(frames)
    assert low.shape == (2, 3, 3, 5)
    assert high.shape == (2, 3, 3, 3, 5)
    assert low.dtype == dtype
    assert torch.equal(haar_idwt(low, high), frames)


def test_gradients_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(haar_dwt, (draw(2, 4, 6).requires_grad_(),))
    inputs = draw(2, 2, 3).requires_grad_(), draw(2, 3, 2, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(haar_idwt, inputs)
    assert torch.autograd.gradcheck(lambda frames: orthogonal_dwt(frames, DB2), (draw(2, 4, 6).requires_grad_(),))
    assert torch.autograd.gradcheck(lambda low, high: orthogonal_idwt(low, high, DB2), inputs)


def test_the_haar_filter_gives_the_haar_transform():
    frames = draw(2, 8, 6)
    for one, other in zip(orthogonal_dwt(frames, HAAR), haar_dwt(frames), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("taps", [HAAR, DB2], ids=["haar", "db2"])
@pytest.mark.parametrize("shape", [(3, 8, 6), (2, 2), (2, 10)])
def test_an_orthogonal_wavelet_keeps_the_energy_and_the_way_back_is_exact(taps, shape):
    frames = draw(*shape)
    low, high = orthogonal_dwt(frames, taps)
    energy = low.square().sum() + high.square().sum()
    torch.testing.assert_close(energy, frames.square().sum())
    torch.testing.assert_close(orthogonal_idwt(low, high, taps), frames)


def test_the_details_of_db2_vanish_on_a_slope_away_from_the_border():
    frames = torch.arange(16, dtype=torch.float64).expand(16, 16)
    _, high = orthogonal_dwt(frames, DB2)
    assert high[..., 2:-2].abs().max() < 1e-12
    assert haar_dwt(frames)[1].abs().max() > 0.5


@pytest.mark.parametrize("name", ["haar", "db3", "sym4", "coif1"])
def test_wavelets_by_name_give_the_numbers_of_pywavelets(name):
    pywt = pytest.importorskip("pywt", reason="PyWavelets is an extra")
    frames = draw(2, 16, 24)
    low, high = orthogonal_dwt(frames, name)
    expected_low, expected_high = pywt.dwt2(frames.numpy(), name, mode="periodization")
    np.testing.assert_allclose(low.numpy(), expected_low, atol=1e-9)
    for index, band in enumerate(expected_high):
        np.testing.assert_allclose(high[:, index].numpy(), band, atol=1e-9)
    torch.testing.assert_close(orthogonal_idwt(low, high, name), frames)


def test_names_that_pywavelets_does_not_know_or_that_are_not_orthogonal_are_refused():
    pytest.importorskip("pywt", reason="PyWavelets is an extra")
    with pytest.raises(ValueError, match="did you mean 'haar'"):
        orthogonal_dwt(draw(4, 4), "harr")
    with pytest.raises(ValueError, match=r"bior2\.2"):
        orthogonal_dwt(draw(4, 4), "bior2.2")


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="even height and width, got a tensor of shape \\(3, 5, 4\\)"):
        haar_dwt(draw(3, 5, 4))
    with pytest.raises(ValueError, match="even height"):
        orthogonal_dwt(draw(4, 0), HAAR)
    with pytest.raises(TypeError, match="frames must be a float tensor"):
        haar_dwt(torch.zeros(4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"got \(2, 4\) and \(3, 2, 5\)"):
        haar_idwt(draw(2, 4), draw(3, 2, 5))
    with pytest.raises(ValueError, match="wavelet must be orthogonal"):
        orthogonal_dwt(draw(4, 4), [0.5, 0.5])

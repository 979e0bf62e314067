# SPDX-License-Identifier: Apache-2.0
"""Halving and doubling against numpy and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from pcvideo.layers import Downsample, Upsample

SHAPE = (2, 3, 8, 12)


def image():
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_nearest_takes_the_even_rows_and_columns():
    expected = [[image()[0, 0, row, column].item() for column in range(0, 12, 2)] for row in range(0, 8, 2)]
    assert Downsample("nearest")(image())[0, 0].tolist() == expected


def test_average_is_the_mean_of_each_block_of_four():
    expected = image().numpy().reshape(2, 3, 4, 2, 6, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(Downsample("average")(image()).numpy(), expected, rtol=1e-14)


def test_binomial_filters_along_both_axes_with_edges_repeated_and_then_takes_the_even_ones():
    taps = np.array([math.comb(4, k) for k in range(5)]) / 16
    filtered = ndimage.convolve1d(
        ndimage.convolve1d(image().numpy(), taps, axis=2, mode="nearest"), taps, axis=3, mode="nearest"
    )
    np.testing.assert_allclose(Downsample("binomial")(image()).numpy(), filtered[:, :, ::2, ::2], rtol=1e-13)


def test_binomial_takes_away_the_stripes_that_nearest_turns_into_a_plain_colour():
    stripes = torch.zeros(1, 1, 16, 16)
    stripes[..., ::2] = 1
    assert (Downsample("nearest")(stripes) == 1).all()
    inner = Downsample("binomial")(stripes)[..., 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5))


@pytest.mark.parametrize("kind", ["nearest", "average", "binomial"])
def test_every_kind_halves_keeps_the_dtype_and_a_plain_colour(kind):
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        plain = torch.full((1, 2, 4, 6), 0.75, dtype=dtype)
        half = Downsample(kind)(plain)
        assert (half.shape, half.dtype) == ((1, 2, 2, 3), dtype)
        assert (half == 0.75).all()


@pytest.mark.parametrize("kind", ["average", "binomial"])
def test_gradients_are_those_of_finite_differences(kind):
    inputs = torch.rand(1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(Downsample(kind), inputs)


def test_an_unknown_kind_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match="did you mean 'binomial'"):
        Downsample("binomal")


@pytest.mark.parametrize("align_corners", [True, False])
def test_doubling_is_linear_interpolation_between_the_old_pixels(align_corners):
    expected = image().numpy()
    for axis in (2, 3):
        size = SHAPE[axis]
        # Either the first and last pixels stay in place, or each pixel becomes two around its centre.
        places = np.linspace(0, size - 1, 2 * size) if align_corners else (np.arange(2 * size) + 0.5) / 2 - 0.5
        expected = np.apply_along_axis(lambda row, at=places: np.interp(at, np.arange(len(row)), row), axis, expected)
    doubled = Upsample(align_corners=align_corners)(image())
    np.testing.assert_allclose(doubled.numpy(), expected, rtol=1e-12)

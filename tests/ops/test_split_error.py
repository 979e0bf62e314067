# SPDX-License-Identifier: Apache-2.0
"""The split error against its definition in numpy, and its gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pcvideo.ops import split_error


def draw(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_holds_what_was_too_little_and_then_what_was_too_much():
    target, prediction = draw(0, 2, 3, 4, 5), draw(1, 2, 3, 4, 5)
    error = split_error(target, prediction).numpy()
    difference = target.numpy() - prediction.numpy()
    np.testing.assert_array_equal(error[:, :3], np.where(difference > 0, difference, 0))
    np.testing.assert_array_equal(error[:, 3:], np.where(difference < 0, -difference, 0))


def test_its_halves_differ_by_the_signed_error_and_add_up_to_the_absolute_one():
    target, prediction = draw(0, 2, 3, 4, 5), draw(1, 2, 3, 4, 5)
    little, much = split_error(target, prediction).chunk(2, dim=1)
    assert torch.equal(little - much, target - prediction)
    assert torch.equal(little + much, (target - prediction).abs())
    assert not (little * much).any()


def test_a_perfect_prediction_has_no_error():
    frame = draw(0, 1, 3, 4, 5)
    assert not split_error(frame, frame).any()


def test_its_gradients_are_those_of_finite_differences():
    target, prediction = draw(0, 1, 2, 3, 4).requires_grad_(), draw(1, 1, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(split_error, (target, prediction))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_it_keeps_the_dtype_and_the_wider_one_of_two(dtype):
    target, prediction = draw(0, 1, 1, 2, 2), draw(1, 1, 1, 2, 2)
    assert split_error(target.to(dtype), prediction.to(dtype)).dtype == dtype
    assert split_error(target.float(), prediction.to(dtype)).dtype == torch.float32

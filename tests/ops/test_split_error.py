# SPDX-License-Identifier: Apache-2.0
"""The split error against its definition in numpy, and its gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_cases import draw_inputs, saved_by

from pcvideo.ops import split_error
from pcvideo.ops.split_error.op import fused_backward, fused_split_error


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


def test_the_fused_operation_has_the_gradients_of_finite_differences():
    target, prediction = draw(0, 1, 2, 3, 4).requires_grad_(), draw(1, 1, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(fused_split_error, (target, prediction))
    assert torch.autograd.gradgradcheck(fused_split_error, (target, prediction))


@pytest.mark.parametrize("run", [split_error, fused_split_error], ids=["door", "fused"])
def test_where_there_is_no_error_there_is_no_gradient(run):
    frame = draw(0, 1, 2, 3, 4)
    target, prediction = frame.clone().requires_grad_(), frame.clone().requires_grad_()
    run(target, prediction).sum().backward()
    assert not target.grad.any()
    assert not prediction.grad.any()


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "mixed", "transposed"])
def test_the_fused_operation_keeps_what_its_registrations_promise(layout):
    inputs = draw_inputs("split_error", (2, 3, 4, 5), layout)
    torch.library.opcheck(fused_split_error, tuple(inputs))
    error = fused_split_error(*inputs).detach()
    torch.library.opcheck(fused_backward, (torch.ones(2, 6, 4, 5, dtype=torch.float64), error))


def test_the_fused_operation_keeps_its_output_and_nothing_else_for_the_gradient():
    assert [
        tuple(tensor.shape) for tensor in saved_by(fused_split_error, draw_inputs("split_error", (2, 3, 4, 5)))
    ] == [(2, 6, 4, 5)]


def test_an_error_changed_in_place_is_refused_backward():
    error = fused_split_error(*draw_inputs("split_error", (2, 3, 4, 5)))
    error.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        error.sum().backward()


def test_the_fused_operation_keeps_the_channels_last_even_of_a_single_one():
    for channels in (1, 3):
        error = fused_split_error(*draw_inputs("split_error", (2, channels, 4, 5), "channels last"))
        assert error.is_contiguous(memory_format=torch.channels_last)


def test_the_gradients_of_two_dtypes_keep_theirs():
    target, prediction = draw(0, 1, 1, 2, 2).half().requires_grad_(), draw(1, 1, 1, 2, 2).float().requires_grad_()
    fused_split_error(target, prediction).sum().backward()
    assert (target.grad.dtype, prediction.grad.dtype) == (torch.float16, torch.float32)


def test_two_shapes_are_named():
    with pytest.raises(
        ValueError, match=r"target and prediction must both be .* got \(1, 2, 3, 4\) and \(1, 1, 3, 4\)"
    ):
        split_error(draw(0, 1, 2, 3, 4), draw(0, 1, 1, 3, 4))

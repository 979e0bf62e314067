# SPDX-License-Identifier: Apache-2.0
"""The backward warp against a loop over pixels, its gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pcvideo.ops import backward_warp
from pcvideo.ops.warp import reference

DOORS = [backward_warp, reference.backward_warp]


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loop(frames, flow):
    """Bilinear, border: pixel by pixel in numpy."""
    batch, channels, height, width = frames.shape
    result = np.empty_like(frames)
    for b, y, x in np.ndindex(batch, height, width):
        across = min(max(x + flow[b, 0, y, x], 0), width - 1)
        down = min(max(y + flow[b, 1, y, x], 0), height - 1)
        left, top = math.floor(across), math.floor(down)
        value = np.zeros(channels)
        for row, weight_y in ((top, 1 - (down - top)), (top + 1, down - top)):
            for column, weight_x in ((left, 1 - (across - left)), (left + 1, across - left)):
                if weight_x and weight_y:
                    value += weight_x * weight_y * frames[b, :, row, column]
        result[b, :, y, x] = value
    return result


@pytest.mark.parametrize("door", DOORS, ids=["door", "definition"])
@pytest.mark.parametrize("size", [(7, 9), (1, 5), (6, 1), (1, 1)])
@pytest.mark.parametrize("scale", [0.7, 8.0])
def test_every_pixel_is_the_four_around_its_place_weighed_bilinearly(door, size, scale):
    frames, flow = draw(2, 3, *size), scale * draw(2, 2, *size, seed=1)
    np.testing.assert_allclose(door(frames, flow).numpy(), by_loop(frames.numpy(), flow.numpy()), atol=1e-12)


@pytest.mark.parametrize("door", DOORS, ids=["door", "definition"])
def test_flow_is_x_first_and_says_where_to_look(door):
    frames = torch.arange(12, dtype=torch.float64).view(1, 1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    flow[:, 0] = 1
    expected = torch.tensor([[1, 2, 3, 3], [5, 6, 7, 7], [9, 10, 11, 11]], dtype=torch.float64)
    torch.testing.assert_close(door(frames, flow)[0, 0], expected)


@pytest.mark.parametrize("door", DOORS, ids=["door", "definition"])
def test_its_gradients_are_those_of_finite_differences(door):
    # Places near a seam of the piecewise function, or held at the border, have no derivative to compare with.
    frames, flow = draw(1, 2, 4, 5).requires_grad_(), (0.3 + 0.2 * draw(1, 2, 4, 5, seed=1).sin()).requires_grad_()
    assert torch.autograd.gradcheck(door, (frames, flow))


def test_the_definition_has_second_derivatives():
    inputs = draw(1, 2, 3, 4).requires_grad_(), (0.3 + 0.2 * draw(1, 2, 3, 4, seed=1).sin()).requires_grad_()
    assert torch.autograd.gradgradcheck(reference.backward_warp, inputs)


def test_both_have_the_same_gradients_beyond_the_border_too():
    frames, flow = draw(2, 3, 6, 5), 6 * draw(2, 2, 6, 5, seed=1)
    gradients = []
    for door in DOORS:
        inputs = frames.clone().requires_grad_(), flow.clone().requires_grad_()
        gradients.append(torch.autograd.grad(door(*inputs).square().sum(), inputs))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_frames_are_looked_up_at_exact_places_in_wide_frames(dtype):
    # Columns beyond 2048 are not all numbers in 16 bit.
    width = 4096
    frames = (torch.arange(width) % 7).to(dtype).view(1, 1, 1, width)
    flow = torch.zeros(1, 2, 1, width, dtype=dtype)
    flow[:, 0] = 3
    warped = backward_warp(frames, flow)
    assert warped.dtype == dtype
    # The places are exact to within float32's rounding, and neighbours differ by 6 at most.
    expected = frames.float().roll(-3, dims=-1)[..., :-3]
    assert (warped.float()[..., :-3] - expected).abs().max() < 0.02


def test_a_flow_that_is_no_number_stays_within_the_frame():
    frames = draw(1, 1, 4, 4)
    for value in (math.nan, math.inf, -math.inf, 1e30):
        flow = torch.full((1, 2, 4, 4), value, dtype=torch.float64)
        for door in DOORS:
            assert torch.isfinite(door(frames, flow)).all()


def test_it_compiles_whole():
    frames, flow = draw(1, 2, 4, 6), draw(1, 2, 4, 6, seed=1)
    compiled = torch.compile(backward_warp, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(frames, flow), backward_warp(frames, flow))


def test_shapes_and_dtypes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"flow \(B, 2, H, W\), got \(1, 3, 4, 4\) and \(1, 2, 4, 5\)"):
        backward_warp(draw(1, 3, 4, 4), draw(1, 2, 4, 5))
    with pytest.raises(TypeError, match="frames must be a float tensor"):
        backward_warp(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), draw(1, 2, 4, 4))
    with pytest.raises(TypeError, match="flow must be a float tensor"):
        backward_warp(draw(1, 3, 4, 4), None)

# SPDX-License-Identifier: Apache-2.0
"""The modulation against its definition in numpy, and its gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_cases import draw_inputs, saved_by

from pcvideo.ops import modulate
from pcvideo.ops.modulate.op import fused_backward, fused_modulate


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(inputs, scale_shift, gain):
    channels = inputs.shape[1]
    scale = 1 / (1 + np.exp(-scale_shift[:, :channels]))
    return inputs * (gain * scale) + np.tanh(scale_shift[:, channels:])


@pytest.mark.parametrize("space", [(), (4,), (3, 2), (2, 2, 3)], ids=["none", "line", "image", "volume"])
@pytest.mark.parametrize("axes", [(), (1,), (1, 1, 1, 1)])
def test_it_is_the_definition_whatever_the_axes_of_the_gain(space, axes):
    inputs, scale_shift = draw(2, 3, *space), draw(2, 6, *space, seed=1)
    result = modulate(inputs, scale_shift, torch.full(axes, 0.7))
    expected = by_definition(inputs.numpy(), scale_shift.numpy(), np.float32(0.7).astype(np.float64))
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)
    assert result.shape == inputs.shape


@pytest.mark.parametrize("run", [modulate, fused_modulate], ids=["door", "fused"])
def test_its_gradients_are_those_of_finite_differences(run):
    inputs = draw(2, 2, 2, 3).requires_grad_(), draw(2, 4, 2, 3, seed=1).requires_grad_(), draw(seed=2).requires_grad_()
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "mixed", "transposed"])
def test_the_fused_operation_keeps_what_its_registrations_promise(layout):
    inputs = draw_inputs("modulate", (2, 3, 4, 5), layout)
    torch.library.opcheck(fused_modulate, tuple(inputs))
    plain = [tensor.detach() for tensor in inputs]
    torch.library.opcheck(fused_backward, (torch.ones(2, 3, 4, 5, dtype=torch.float64), *plain))


def test_the_fused_operation_keeps_its_inputs_and_nothing_else_for_the_gradient():
    inputs = draw_inputs("modulate", (2, 3, 4, 5))
    kept = saved_by(fused_modulate, inputs)
    assert [tensor.data_ptr() for tensor in kept] == [tensor.data_ptr() for tensor in inputs]


def test_the_fused_operation_keeps_the_channels_last():
    result = fused_modulate(*draw_inputs("modulate", (2, 3, 4, 5), "channels last"))
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_float32_gain_leaves_16_bit_features_in_16_bit(dtype):
    inputs, scale_shift = draw(1, 2, 2, 2).to(dtype), draw(1, 4, 2, 2).to(dtype)
    assert modulate(inputs, scale_shift, torch.ones(1)).dtype == dtype
    assert modulate(inputs.float(), scale_shift, torch.ones(())).dtype == torch.float32


def test_wrong_widths_and_gains_are_named():
    inputs, scale_shift = draw(2, 3, 4, 4), draw(2, 6, 4, 4)
    with pytest.raises(ValueError, match=r"scale_shift must be .* got scale_shift \(2, 5, 4, 4\) and inputs"):
        modulate(inputs, scale_shift[:, :5], torch.ones(()))
    with pytest.raises(ValueError, match="scale_shift must be"):
        modulate(inputs, scale_shift[..., :3], torch.ones(()))
    with pytest.raises(ValueError, match=r"gain must be a tensor of one number, got shape \(3,\)"):
        modulate(inputs, scale_shift, torch.ones(3))

# SPDX-License-Identifier: Apache-2.0
"""The LSTM update against its definition in plain Python, and its gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from kernel_cases import draw_inputs, saved_by

from pcvideo.ops import lstm_gates
from pcvideo.ops.lstm_gates.op import fused_backward, fused_lstm_gates


def draw(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(gates, cell):
    """Pixel by pixel; channels of `gates` are the input, forget and output gates and the candidate, in blocks."""
    batch, hidden, *space = cell.shape
    next_hidden, next_cell = np.empty(cell.shape), np.empty(cell.shape)
    for b, h, *at in np.ndindex(batch, hidden, *space):
        i, f, o = (1 / (1 + math.exp(-gates[(b, block * hidden + h, *at)])) for block in range(3))
        candidate = math.tanh(gates[(b, 3 * hidden + h, *at)])
        place = (b, h, *at)
        next_cell[place] = f * cell[place] + i * candidate
        next_hidden[place] = o * math.tanh(next_cell[place])
    return next_hidden, next_cell


@pytest.mark.parametrize("space", [(3, 2), (2, 2, 3)], ids=["image", "volume"])
def test_it_is_the_definition_at_every_pixel(space):
    gates, cell = draw(2, 12, *space), draw(2, 3, *space, seed=1)
    hidden, following = lstm_gates(gates, cell)
    expected_hidden, expected_cell = by_definition(gates.numpy(), cell.numpy())
    np.testing.assert_allclose(hidden.numpy(), expected_hidden, rtol=1e-13)
    np.testing.assert_allclose(following.numpy(), expected_cell, rtol=1e-12, atol=1e-15)


def test_its_gradients_are_those_of_finite_differences():
    gates, cell = draw(2, 8, 2, 3).requires_grad_(), draw(2, 2, 2, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lstm_gates, (gates, cell))
    assert torch.autograd.gradgradcheck(lstm_gates, (gates, cell))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_with_16_bit_gates_the_cell_stays_float32_and_loses_nothing(dtype):
    gates, cell = draw(2, 8, 4, 4).to(dtype), draw(2, 2, 4, 4, seed=1).float()
    hidden, following = lstm_gates(gates, cell)
    expected_hidden, expected_cell = by_definition(gates.double().numpy(), cell.double().numpy())
    assert (hidden.dtype, following.dtype) == (dtype, torch.float32)
    np.testing.assert_allclose(following.numpy(), expected_cell, rtol=1.3e-6, atol=1e-5)
    np.testing.assert_array_equal(hidden.float().numpy(), torch.from_numpy(expected_hidden).to(dtype).float().numpy())


def test_a_float32_cell_adds_up_what_a_16_bit_one_would_lose():
    # Each step adds about 2**-11, which float16 can't add to 2: the sum would stand still.
    shut, open_ = -30.0, 30.0
    step = 2.0**-11
    gates = torch.tensor([open_, open_, shut, math.atanh(step)], dtype=torch.float16).view(1, 4, 1, 1)
    cell = torch.full((1, 1, 1, 1), 2.0)
    for _ in range(1000):
        _, cell = lstm_gates(gates, cell)
    assert cell.item() == pytest.approx(2 + 1000 * math.tanh(gates[0, 3].item()), rel=1e-4)


def test_extreme_gates_saturate_without_nan():
    gates = torch.tensor([1e4, -1e4, 1e4, 1e4], dtype=torch.float32).view(1, 4, 1, 1).requires_grad_()
    hidden, following = lstm_gates(gates, torch.full((1, 1, 1, 1), 5.0))
    assert following.item() == 1.0
    assert hidden.item() == pytest.approx(math.tanh(1.0))
    hidden.sum().backward()
    assert torch.isfinite(gates.grad).all()


def test_the_fused_operation_has_the_gradients_of_finite_differences():
    gates, cell = draw(2, 8, 2, 3).requires_grad_(), draw(2, 2, 2, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(fused_lstm_gates, (gates, cell))
    assert torch.autograd.gradgradcheck(fused_lstm_gates, (gates, cell))


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "mixed", "transposed"])
def test_the_fused_operation_keeps_what_its_registrations_promise(layout):
    inputs = draw_inputs("lstm_gates", (2, 3, 4, 5), layout)
    torch.library.opcheck(fused_lstm_gates, tuple(inputs))
    ones = torch.ones(2, 3, 4, 5, dtype=torch.float64)
    torch.library.opcheck(fused_backward, (ones, ones, *(tensor.detach() for tensor in inputs)))


def test_the_fused_operation_keeps_its_inputs_and_nothing_else_for_the_gradient():
    inputs = draw_inputs("lstm_gates", (2, 3, 4, 5))
    kept = saved_by(fused_lstm_gates, inputs)
    assert [tensor.data_ptr() for tensor in kept] == [tensor.data_ptr() for tensor in inputs]


def test_the_fused_operation_keeps_the_channels_last():
    for output in fused_lstm_gates(*draw_inputs("lstm_gates", (2, 3, 4, 5), "channels last")):
        assert output.is_contiguous(memory_format=torch.channels_last)


def test_gates_that_do_not_fit_the_cell_are_named():
    with pytest.raises(ValueError, match=r"4 \* hidden.* got gates \(2, 9, 3, 3\) and cell \(2, 3, 3, 3\)"):
        lstm_gates(draw(2, 9, 3, 3), draw(2, 3, 3, 3))
    with pytest.raises(ValueError, match="gates must be"):
        lstm_gates(draw(2, 12, 3, 3), draw(2, 3, 3, 4))

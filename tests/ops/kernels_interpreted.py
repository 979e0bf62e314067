# SPDX-License-Identifier: Apache-2.0
"""The kernels on a CPU, in Triton's interpreter; `test_kernels.py` runs this file in a process of its own.

The interpreter is chosen when Triton is imported, hence the process. Here the kernels take the place of the definition
on the CPU, so that the ops run as they do on a GPU, autograd included.
"""

from __future__ import annotations

import os

import pytest
import torch
from kernel_cases import DTYPES, F16, F32, F64, LAYOUTS, OPS, SHAPES, check_agreement, draw_inputs

from pcvideo.ops import _dispatch
from pcvideo.ops.lstm_gates import kernel as lstm_gates_kernel
from pcvideo.ops.modulate import kernel as modulate_kernel
from pcvideo.ops.split_error import kernel as split_error_kernel

assert os.environ.get("TRITON_INTERPRET") == "1", "run test_kernels.py"

KERNELS = {"lstm_gates": lstm_gates_kernel, "split_error": split_error_kernel, "modulate": modulate_kernel}
# A sigmoid far out is the inverse of infinity, which is right.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")
each_op = pytest.mark.parametrize("op", OPS)


@pytest.fixture(scope="module", autouse=True)
def kernels_on_the_cpu():
    for op, kernel in KERNELS.items():
        OPS[op].fused.register_kernel("cpu")(kernel.forward)
        OPS[op].backward.register_kernel("cpu")(kernel.backward)


@pytest.fixture
def launched(monkeypatch):
    """The names of the kernels that ran."""
    names = []
    for kernel in KERNELS.values():

        def launch(function, *tensors, **options):
            names.append(function.__name__)
            _dispatch.launch(function, *tensors, **options)

        monkeypatch.setattr(kernel, "launch", launch)
    return names


CASES = [(shape, layout) for shape in SHAPES for layout in LAYOUTS[:2]] + [("odd", layout) for layout in LAYOUTS[2:]]


@each_op
@pytest.mark.parametrize(("shape", "layout"), CASES)
def test_outputs_and_all_gradients_are_the_definitions(op, shape, layout, launched):
    check_agreement(op, OPS[op].fused, draw_inputs(op, SHAPES[shape], layout, (F32,)))
    assert launched == ["forward_kernel", "backward_kernel"]


@each_op
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
def test_every_dtype_is_computed_as_exactly_as_it_can_hold(op, dtypes, layout):
    check_agreement(op, OPS[op].fused, draw_inputs(op, (2, 3, 5, 7), layout, dtypes))


@each_op
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_places_of_64_bits_are_the_same_places(op, layout, monkeypatch):
    monkeypatch.setattr(_dispatch, "NARROW", 0)
    check_agreement(op, OPS[op].fused, draw_inputs(op, (2, 3, 19, 23), layout, (F32,)))


@each_op
def test_gradients_are_those_of_finite_differences(op):
    inputs = [(tensor / 10).detach().requires_grad_() for tensor in draw_inputs(op, (2, 2, 2, 3))]
    assert torch.autograd.gradcheck(OPS[op].fused, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(OPS[op].fused, inputs, fast_mode=True)


@each_op
def test_they_keep_what_the_registrations_promise(op):
    for layout in ("contiguous", "channels last"):
        torch.library.opcheck(OPS[op].fused, tuple(draw_inputs(op, (2, 3, 4, 5), layout, (F16, F32))))


@each_op
def test_no_number_is_not_hidden_and_the_largest_do_no_harm(op):
    inputs = [tensor.detach() for tensor in draw_inputs(op, (1, 2, 2, 2), dtypes=(F32,))]
    inputs[0][0, 0, 0, 0] = float("nan")
    inputs[0][0, 0, 1] = torch.tensor([3e38, -3e38])
    inputs = [tensor.requires_grad_() for tensor in inputs]
    found, expected = OPS[op].fused(*inputs), OPS[op].reference(*inputs)
    found, expected = (out if isinstance(out, tuple) else (out,) for out in (found, expected))
    ones = [torch.ones_like(output) for output in found]
    pairs = zip(
        (*found, *torch.autograd.grad(found, inputs, ones)),
        (*expected, *torch.autograd.grad(expected, inputs, ones)),
        strict=True,
    )
    for ours, right in pairs:
        torch.testing.assert_close(ours, right, equal_nan=True)


def test_small_values_keep_their_digits():
    # (1 - e) / (1 + e) alone would have lost half of them.
    shift = torch.logspace(-30, 0, 200)
    output = modulate_kernel.forward(torch.zeros(1, 200), torch.stack([shift, shift]).view(1, 400), torch.ones(()))
    torch.testing.assert_close(output[0].double(), torch.tanh(shift.double()), rtol=4e-7, atol=0)


def test_the_gradient_of_the_gain_is_the_same_every_time():
    inputs = draw_inputs("modulate", (2, 3, 19, 23), dtypes=(F32,))
    ones = torch.ones(2, 3, 19, 23)
    gains = {torch.autograd.grad(OPS["modulate"].fused(*inputs), inputs[2], ones)[0].item() for _ in range(3)}
    assert len(gains) == 1


def test_float64_is_computed_in_float64():
    gates, cell = draw_inputs("lstm_gates", (1, 2, 2, 2), dtypes=(F32, F64))
    hidden, following = OPS["lstm_gates"].fused(gates, cell)
    assert (hidden.dtype, following.dtype) == (F32, F64)
    expected = OPS["lstm_gates"].reference(gates.double(), cell)[1]
    torch.testing.assert_close(following, expected, rtol=1e-13, atol=1e-15)

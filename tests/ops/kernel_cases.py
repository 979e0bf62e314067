# SPDX-License-Identifier: Apache-2.0
"""What the tests of the kernels share: inputs in every layout and dtype, and the comparison with the definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pcvideo.ops.lstm_gates import op as lstm_gates_op
from pcvideo.ops.lstm_gates import reference as lstm_gates_reference
from pcvideo.ops.modulate import op as modulate_op
from pcvideo.ops.modulate import reference as modulate_reference
from pcvideo.ops.split_error import op as split_error_op
from pcvideo.ops.split_error import reference as split_error_reference

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64


class Op(NamedTuple):
    """An op as the tests see it; `widths` are its inputs' channels in units of C, 0 for a single number."""

    fused: Callable
    backward: Callable
    reference: Callable
    widths: tuple[int, ...]


OPS = {
    "lstm_gates": Op(
        lstm_gates_op.fused_lstm_gates, lstm_gates_op.fused_backward, lstm_gates_reference.lstm_gates, (4, 1)
    ),
    "split_error": Op(
        split_error_op.fused_split_error, split_error_op.fused_backward, split_error_reference.split_error, (1, 1)
    ),
    "modulate": Op(
        modulate_op.fused_modulate, modulate_op.fused_backward, modulate_reference.modulate, (1, 2, 0)
    ),
}  # fmt: skip

# Dtypes of the inputs, in order; the last stands for all that follow.
DTYPES = {
    "float32": (F32,),
    "float64": (F64,),
    "float16": (F16,),
    "bfloat16": (BF16,),
    "float16 beside float32": (F16, F32),
    "bfloat16 beside float32": (BF16, F32),
}
# (B, C, *space); no run's length is a multiple of the tile, and some take several tiles along and across.
SHAPES = {
    "odd": (2, 3, 5, 7),
    "one channel": (3, 1, 6, 4),
    "several tiles": (2, 3, 19, 23),
    "more channels than a tile": (1, 1030, 1, 2),
    "volume": (2, 5, 3, 4, 3),
    "no space": (3, 4),
    "empty": (0, 3, 4, 4),
}
LAYOUTS = ("contiguous", "channels last", "mixed", "every second column", "transposed")
# Relative, and absolute per unit of the largest value: some rounding steps of the dtype that is computed in, and one of
# the dtype of the result (Triton's interpreter cuts bfloat16 off, where a GPU rounds to half a step).
TOLERANCES = {F64: (1e-12, 1e-14), F32: (2e-6, 3e-7), F16: (6e-4, 3e-7), BF16: (8e-3, 3e-7)}


def lay_out(tensor: Tensor, layout: str, position: int) -> Tensor:
    """The same values otherwise in memory; with "mixed" only every second input has its channels last."""
    if layout == "channels last" or (layout == "mixed" and position % 2 == 0):
        last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.ndim)
        return tensor if last is None else tensor.to(memory_format=last)
    if layout == "every second column":
        return torch.stack([tensor, tensor + 1], dim=-1).flatten(-2)[..., ::2]
    if layout == "transposed":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    return tensor


def draw_inputs(
    op: str, shape: tuple[int, ...], layout: str = "contiguous", dtypes: tuple[torch.dtype, ...] = (F64,)
) -> list[Tensor]:
    """Leaves that require gradients, on the CPU; some values are far out, where the activations saturate."""
    generator = torch.Generator().manual_seed(0)
    batch, channels, *space = shape
    inputs = []
    for position, width in enumerate(OPS[op].widths):
        size = (batch, width * channels, *space) if width else ()
        values = 2 * torch.randn(size, generator=generator, dtype=F64)
        if width:
            values.view(-1)[::17] *= 20
            values.view(-1)[::13] *= 1e-3
        values = values.to(dtypes[min(position, len(dtypes) - 1)])
        inputs.append((lay_out(values, layout, position) if width else values).requires_grad_())
    return inputs


def gradients_of(outputs: tuple[Tensor, ...]) -> list[Tensor]:
    """What comes back into each output, in its dtype."""
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(output.shape, generator=generator, dtype=F64).to(output.dtype).to(output.device)
        for output in outputs
    ]


def check_agreement(op: str, run: Callable, inputs: list[Tensor]) -> None:
    """`run(*inputs)` and all its gradients against the definition in float64 on the CPU."""
    outputs = run(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    arriving = gradients_of(outputs)
    found = (*outputs, *torch.autograd.grad(outputs, inputs, arriving))
    exact = [tensor.detach().cpu().double().requires_grad_() for tensor in inputs]
    expected = OPS[op].reference(*exact)
    expected = expected if isinstance(expected, tuple) else (expected,)
    back = torch.autograd.grad(expected, exact, [gradient.cpu().double() for gradient in arriving])
    assert [tensor.dtype for tensor in found[len(outputs) :]] == [tensor.dtype for tensor in inputs]
    for ours, right in zip(found, (*expected, *back), strict=True):
        relative, absolute = TOLERANCES[ours.dtype]
        # A sum is as exact as its terms; elsewhere the largest value tells what rounding can do.
        size = inputs[0].numel() if ours.ndim == 0 else max([1.0, *right.abs().flatten().tolist()])
        torch.testing.assert_close(ours.detach().cpu().double(), right.detach(), rtol=relative, atol=absolute * size)


def saved_by(run: Callable, inputs: list[Tensor]) -> list[Tensor]:
    """What a call keeps for its gradient."""
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        run(*inputs)
    return kept

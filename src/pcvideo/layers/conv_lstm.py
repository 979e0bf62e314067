# SPDX-License-Identifier: Apache-2.0
"""The plain convolutional LSTM cell (Shi et al., arXiv 1506.04214, equation 3 without peepholes), for 2-D and 3-D.

Keras' cell is among its options: gates by its hard sigmoid, ReLU in place of tanh.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pcvideo._checks import check_choice, check_int, describe
from pcvideo.layers._lstm_state import LSTMState, zero_state
from pcvideo.ops import lstm_gates

__all__ = ["ConvLSTMCell"]

_AXES = {2: "(B, C, H, W)", 3: "(B, C, D, H, W)"}


def _hard_sigmoid(inputs: Tensor) -> Tensor:
    # Keras' until version 2; torch's own has the slope 1/6.
    return (0.2 * inputs + 0.5).clamp(0, 1)


_GATE_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "hard_sigmoid": _hard_sigmoid}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


class ConvLSTMCell(nn.Module):
    """An LSTM whose gates are one convolution of inputs and hidden state side by side.

    With i, f, o and g the convolution's output in four blocks of `hidden_channels`, s the gate activation and a the
    activation: `cell' = s(f) * cell + s(i) * a(g)` and `hidden' = s(o) * a(cell')`.

    Args:
        in_channels: channels of the inputs, the hidden state not counted.
        hidden_channels: channels of the hidden state.
        kernel_size: side of the convolution's kernel, odd; zeros stand around the image.
        spatial_dims: 2 for images, 3 for volumes.
        gate_activation: "sigmoid", or "hard_sigmoid", which is clip(0.2 x + 0.5, 0, 1), as in Keras 2.
        activation: "tanh", or "relu", under which the cell can grow with every step.

    Shape: inputs (B, in_channels, *space), state of (B, hidden_channels, *space) -> hidden (B, hidden_channels, *space)
    and the state, whose hidden it is; *space is (H, W) or (D, H, W).

    Raises:
        TypeError, ValueError: an argument out of its range or of another type; the message names it.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        *,
        kernel_size: int = 3,
        spatial_dims: int = 2,
        gate_activation: str = "sigmoid",
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        self.in_channels = check_int("in_channels", in_channels)
        self.hidden_channels = check_int("hidden_channels", hidden_channels)
        self.kernel_size = check_int("kernel_size", kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size must be odd, so that the image keeps its size, got {kernel_size}; take {kernel_size + 1}"
            )
        self.spatial_dims = check_choice("spatial_dims", spatial_dims, (2, 3))
        self.gate_activation = check_choice("gate_activation", gate_activation, tuple(_GATE_ACTIVATIONS))
        self.activation = check_choice("activation", activation, tuple(_ACTIVATIONS))
        convolution = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.to_gates = convolution(
            in_channels + hidden_channels, 4 * hidden_channels, kernel_size, padding=kernel_size // 2
        )

    def init_state(self, like: Tensor) -> LSTMState:
        """Zeros for inputs of the size, dtype and device of `like` (B, any, *space).

        Raises:
            TypeError: `like` is no float tensor.
            ValueError: it has another number of axes.
        """
        self._check("like", like)
        return zero_state(like, (like.shape[0], self.hidden_channels, *like.shape[2:]))

    def forward(self, inputs: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """One time step, from the state of `init_state` or of the step before.

        Raises:
            TypeError: `inputs` is no float tensor.
            ValueError: another number of axes or channels, or a state of another size.
        """
        self._check("inputs", inputs)
        if inputs.shape[1] != self.in_channels:
            raise ValueError(f"inputs must have C={self.in_channels} channels, got {describe(inputs)}")
        hidden, cell = state
        expected = (inputs.shape[0], self.hidden_channels, *inputs.shape[2:])
        if hidden.shape != expected or cell.shape != expected:
            raise ValueError(
                f"state must be two tensors {expected} for inputs {tuple(inputs.shape)}, got hidden "
                f"{tuple(hidden.shape)} and cell {tuple(cell.shape)}; init_state(inputs) makes a fitting one"
            )
        state = self._update(self.to_gates(torch.cat([inputs, hidden], dim=1)), cell)
        return state.hidden, state

    def extra_repr(self) -> str:
        """What the convolution doesn't tell."""
        return f"gate_activation={self.gate_activation!r}, activation={self.activation!r}"

    def _update(self, gates: Tensor, cell: Tensor) -> LSTMState:
        if (self.gate_activation, self.activation) == ("sigmoid", "tanh"):
            return LSTMState(*lstm_gates(gates, cell))
        gate, activate = _GATE_ACTIVATIONS[self.gate_activation], _ACTIVATIONS[self.activation]
        # As lstm_gates: the cell is a sum over time, and keeps its own dtype.
        dtype = torch.promote_types(gates.dtype, cell.dtype)
        input_gate, forget_gate, output_gate, candidate = gates.to(dtype).chunk(4, dim=1)
        cell = gate(forget_gate) * cell + gate(input_gate) * activate(candidate)
        return LSTMState((gate(output_gate) * activate(cell)).to(gates.dtype), cell)

    def _check(self, name: str, tensor: Tensor) -> None:
        axes = _AXES[self.spatial_dims]
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise TypeError(f"{name} must be a float tensor {axes}, got {describe(tensor)}")
        if tensor.ndim != 2 + self.spatial_dims:
            hint = "; volumes want spatial_dims=3" if (tensor.ndim, self.spatial_dims) == (5, 2) else ""
            raise ValueError(f"{name} must be {axes}, got {describe(tensor)}{hint}")

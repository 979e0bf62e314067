# SPDX-License-Identifier: Apache-2.0
"""The plain ConvLSTM cell against its definition in numpy, and against torch's LSTM where there is one pixel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import pcvideo
from pcvideo.layers import ConvLSTMCell, LSTMState

OPTIONS = [*itertools.product(["sigmoid", "hard_sigmoid"], ["tanh", "relu"])]
SPACES = {2: (4, 3), 3: (3, 2, 4)}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(in_channels: int, hidden_channels: int, *, spread: float = 1.0, **options: object) -> ConvLSTMCell:
    """In float64, with weights that are drawn wider than fresh ones where `spread` says so."""
    cell = ConvLSTMCell(in_channels, hidden_channels, **options).double()
    with torch.no_grad():
        for seed, parameter in enumerate(cell.parameters()):
            parameter.copy_(spread * draw(*parameter.shape, seed=seed) / parameter[0].numel() ** 0.5)
    return cell


def correlate(image: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(channels, *space) to (outputs, *space), pixel by pixel; outside of the image are zeros."""
    half, space = weight.shape[-1] // 2, image.shape[1:]
    padded = np.pad(image, [(0, 0), *[(half, half)] * len(space)])
    output = np.empty((len(weight), *space))
    for channel, *place in np.ndindex(output.shape):
        window = (slice(None), *(slice(start, start + 2 * half + 1) for start in place))
        output[(channel, *place)] = bias[channel] + (weight[channel] * padded[window]).sum()
    return output


def by_definition(cell: ConvLSTMCell, clip: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Every step's hidden for one sample (T, C, *space), and the last cell."""
    gate = {
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "hard_sigmoid": lambda x: np.maximum(0, np.minimum(1, 0.2 * x + 0.5)),
    }[cell.gate_activation]
    activate = {"tanh": np.tanh, "relu": lambda x: np.maximum(0, x)}[cell.activation]
    weight, bias = (parameter.detach().numpy() for parameter in (cell.to_gates.weight, cell.to_gates.bias))
    hidden = memory = np.zeros((cell.hidden_channels, *clip.shape[2:]))
    hiddens = []
    for frame in clip:
        i, f, o, g = np.split(correlate(np.concatenate([frame, hidden]), weight, bias), 4)
        memory = gate(f) * memory + gate(i) * activate(g)
        hidden = gate(o) * activate(memory)
        hiddens.append(hidden)
    return hiddens, memory


@pytest.mark.parametrize(("gate_activation", "activation"), OPTIONS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_three_steps_are_the_definition_at_every_pixel(kernel_size, spatial_dims, gate_activation, activation):
    cell = build(
        2,
        3,
        spread=3.0,
        kernel_size=kernel_size,
        spatial_dims=spatial_dims,
        gate_activation=gate_activation,
        activation=activation,
    )
    clips = draw(2, 3, 2, *SPACES[spatial_dims], seed=9)
    state = cell.init_state(clips[:, 0])
    steps = []
    for frame in clips.unbind(1):
        hidden, state = cell(frame, state)
        assert hidden is state.hidden
        steps.append(hidden.detach().numpy())
    for sample, clip in enumerate(clips.numpy()):
        hiddens, memory = by_definition(cell, clip)
        for built, expected in zip(steps, hiddens, strict=True):
            np.testing.assert_allclose(built[sample], expected, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(state.cell[sample].detach().numpy(), memory, rtol=1e-10, atol=1e-13)


def test_on_a_single_pixel_it_is_torchs_lstm():
    cell, lstm = build(3, 4, kernel_size=1), torch.nn.LSTMCell(3, 4).double()
    with torch.no_grad():
        # torch has the candidate before the output gate.
        for kind in ("ih", "hh"):
            i, f, g, o = getattr(lstm, f"weight_{kind}").chunk(4)
            part = slice(None, 3) if kind == "ih" else slice(3, None)
            cell.to_gates.weight[:, part, 0, 0] = torch.cat([i, f, o, g])
        i, f, g, o = (lstm.bias_ih + lstm.bias_hh).chunk(4)
        cell.to_gates.bias.copy_(torch.cat([i, f, o, g]))
    state, expected = cell.init_state(torch.zeros(2, 3, 1, 1, dtype=torch.float64)), None
    for frame in draw(5, 2, 3):
        hidden, state = cell(frame[:, :, None, None], state)
        expected = lstm(frame, expected)
        torch.testing.assert_close(hidden[:, :, 0, 0], expected[0])
        torch.testing.assert_close(state.cell[:, :, 0, 0], expected[1])


def test_the_hard_sigmoid_is_that_of_keras_with_its_corners_at_two_and_a_half():
    cell = ConvLSTMCell(1, 1, kernel_size=1, gate_activation="hard_sigmoid", activation="relu").double()
    for input_, opened in ((-4.0, 0.0), (-2.5, 0.0), (-1.0, 0.3), (0.0, 0.5), (2.0, 0.9), (2.5, 1.0), (4.0, 1.0)):
        with torch.no_grad():
            cell.to_gates.weight.zero_()
            cell.to_gates.bias.copy_(torch.tensor([input_, 1.0, 2.0, 3.0]))
        zeros = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
        hidden, state = cell(zeros, LSTMState(zeros, zeros + 10))
        # Forget gate 0.7 of 10, candidate 3, output gate 0.9.
        assert state.cell.item() == pytest.approx(7 + 3 * opened)
        assert hidden.item() == pytest.approx(0.9 * (7 + 3 * opened))


@pytest.mark.parametrize(("gate_activation", "activation"), OPTIONS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_gradients_are_those_of_finite_differences(spatial_dims, gate_activation, activation):
    options = {"gate_activation": gate_activation, "activation": activation}
    cell = build(1, 2, spatial_dims=spatial_dims, kernel_size=3, **options)
    space = (2, 1, 2)[:spatial_dims]

    def run(inputs: torch.Tensor, hidden: torch.Tensor, memory: torch.Tensor, weight: torch.Tensor) -> tuple:
        state = LSTMState(hidden, memory)
        return torch.func.functional_call(cell, {"to_gates.weight": weight}, (inputs, state))[1]

    arguments = [draw(1, 1, *space), draw(1, 2, *space, seed=1), draw(1, 2, *space, seed=2), cell.to_gates.weight]
    assert torch.autograd.gradcheck(run, [argument.detach().requires_grad_() for argument in arguments])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("gate_activation", "activation"), OPTIONS)
def test_the_hidden_keeps_the_inputs_dtype_and_the_cell_is_float32_at_least(dtype, gate_activation, activation):
    cell = build(2, 3, gate_activation=gate_activation, activation=activation).to(dtype)
    frames = draw(3, 1, 2, 4, 4).to(dtype)
    state = cell.init_state(frames[0])
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert (state.hidden.dtype, state.cell.dtype) == (dtype, wide)
    for frame in frames:
        hidden, state = cell(frame, state)
        assert (hidden.dtype, state.cell.dtype) == (dtype, wide)
    hiddens, memory = by_definition(cell.double(), frames[:, 0].double().numpy())
    bound = 16 * torch.finfo(dtype).eps
    np.testing.assert_allclose(hidden[0].detach().double().numpy(), hiddens[-1], atol=bound)
    np.testing.assert_allclose(state.cell[0].detach().double().numpy(), memory, atol=bound)


@pytest.mark.parametrize(("gate_activation", "activation"), [("sigmoid", "tanh"), ("hard_sigmoid", "relu")])
def test_a_16_bit_cell_would_lose_the_small_steps_that_this_one_adds_up(gate_activation, activation):
    cell = ConvLSTMCell(1, 1, kernel_size=1, gate_activation=gate_activation, activation=activation).half()
    step = 2.0**-11
    with torch.no_grad():
        cell.to_gates.weight.zero_()
        # Input and forget gate open, output gate shut; tanh(step) is step here. float16 can't add this to 2.
        cell.to_gates.bias.copy_(torch.tensor([30.0, 30.0, -30.0, step]))
    zeros = torch.zeros(1, 1, 1, 1, dtype=torch.float16)
    state = LSTMState(zeros, torch.full((1, 1, 1, 1), 2.0))
    for _ in range(64):
        _, state = cell(zeros, state)
    assert state.cell.item() == pytest.approx(2 + 64 * step, rel=1e-5)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_first_state_is_zeros_of_the_size_of_what_it_is_like(spatial_dims):
    like = torch.ones(2, 7, *SPACES[spatial_dims], dtype=torch.bfloat16)
    state = ConvLSTMCell(7, 5, spatial_dims=spatial_dims).init_state(like)
    for tensor in state:
        assert tensor.shape == (2, 5, *SPACES[spatial_dims])
        assert not tensor.any()


def test_a_plain_pair_serves_as_a_state():
    cell, frame = build(2, 3), draw(1, 2, 4, 4)
    state = LSTMState(draw(1, 3, 4, 4, seed=1), draw(1, 3, 4, 4, seed=2))
    assert torch.equal(cell(frame, tuple(state))[0], cell(frame, state)[0])


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_step_compiles_in_one_graph(activation):
    cell, frame = build(1, 2, activation=activation), draw(1, 1, 4, 4)
    _, state = cell(frame, cell.init_state(frame))
    compiled = torch.compile(cell, fullgraph=True, backend="eager")
    for one, other in zip(compiled(frame, state)[1], cell(frame, state)[1], strict=True):
        torch.testing.assert_close(one, other)


def test_it_stands_at_the_top_of_the_package():
    assert pcvideo.ConvLSTMCell is ConvLSTMCell
    assert LSTMState is pcvideo.layers.ed_lstm.LSTMState


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"in_channels": 0}, ValueError, "in_channels must be a whole number of at least 1, got 0"),
        ({"hidden_channels": 2.0}, TypeError, "hidden_channels must be a whole number"),
        ({"kernel_size": 4}, ValueError, "kernel_size must be odd.*got 4; take 5"),
        ({"kernel_size": (3, 3)}, TypeError, "kernel_size must be a whole number"),
        ({"spatial_dims": 1}, ValueError, "spatial_dims must be one of 2, 3, got 1"),
        ({"gate_activation": "hardsigmoid"}, ValueError, "gate_activation must be .*did you mean 'hard_sigmoid'"),
        ({"activation": "leaky_relu"}, ValueError, "activation must be one of 'tanh', 'relu'"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(arguments, error, words):
    with pytest.raises(error, match=words):
        ConvLSTMCell(**{"in_channels": 2, "hidden_channels": 3, **arguments})


@pytest.mark.parametrize(
    ("spatial_dims", "inputs", "error", "words"),
    [
        (
            2,
            torch.zeros(1, 2, 3, 4, 4),
            ValueError,
            r"inputs must be \(B, C, H, W\), got .*volumes want spatial_dims=3",
        ),
        (3, torch.zeros(1, 2, 4, 4), ValueError, r"inputs must be \(B, C, D, H, W\), got"),
        (2, torch.zeros(1, 2, 4, 4).byte(), TypeError, "inputs must be a float tensor .*uint8"),
        (2, np.zeros((1, 2, 4, 4)), TypeError, r"inputs must be a float tensor \(B, C, H, W\), got an array"),
        (2, torch.zeros(1, 3, 4, 4), ValueError, "inputs must have C=2 channels, got .*3, 4, 4"),
        (2, torch.zeros(1, 2, 4, 6), ValueError, r"state must be two tensors \(1, 5, 4, 6\).*init_state\(inputs\)"),
        (2, torch.zeros(3, 2, 4, 4), ValueError, r"got hidden \(1, 5, 4, 4\) and cell \(1, 5, 4, 4\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_the_mend(spatial_dims, inputs, error, words):
    cell = ConvLSTMCell(2, 5, spatial_dims=spatial_dims)
    state = cell.init_state(torch.zeros(1, 2, *(4 for _ in range(spatial_dims))))
    with pytest.raises(error, match=words):
        cell(inputs, state)


def test_a_state_is_not_made_for_what_is_no_image():
    with pytest.raises(TypeError, match="like must be a float tensor"):
        ConvLSTMCell(1, 2).init_state(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"like must be \(B, C, H, W\)"):
        ConvLSTMCell(1, 2).init_state(torch.zeros(1, 4, 4))

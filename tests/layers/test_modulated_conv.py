# SPDX-License-Identifier: Apache-2.0
"""Fusion by modulation against its formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from pcvideo.layers import ModulatedConv


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def convolve(images: np.ndarray, convolution: torch.nn.Conv2d) -> np.ndarray:
    """With zeros around the image."""
    weight, bias = convolution.weight.detach().numpy(), convolution.bias.detach().numpy()
    together = [
        [
            bias[out] + sum(map(lambda x, k: signal.correlate2d(x, k, "same"), image, weight[out]))
            for out in range(len(bias))
        ]
        for image in images
    ]
    return np.array(together)


def by_formula(module: ModulatedConv, inputs: torch.Tensor, modulator: torch.Tensor, slope: float) -> np.ndarray:
    both = convolve(modulator.numpy(), module.to_scale_shift)
    scale, shift = both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]
    modulated = inputs.numpy() * module.gain.item() / (1 + np.exp(-scale)) + np.tanh(shift)
    convolved = convolve(modulated, module.conv)
    return np.where(convolved > 0, convolved, slope * convolved)


@pytest.mark.parametrize(("activation", "slope"), [("leaky_relu", 0.01), ("relu", 0.0), (None, 1.0)])
@pytest.mark.parametrize("gain", [1.0, -1.7])
def test_it_is_the_formula_at_every_pixel(activation, slope, gain):
    module = ModulatedConv(2, modulator_channels=3, out_channels=4, activation=activation).double()
    with torch.no_grad():
        module.gain.fill_(gain)
    inputs, modulator = draw(2, 2, 4, 5), 3 * draw(2, 3, 4, 5, seed=1)
    expected = by_formula(module, inputs, modulator, slope)
    assert (expected < 0).any() == (activation != "relu")
    np.testing.assert_allclose(module(inputs, modulator).detach().numpy(), expected, rtol=1e-11, atol=1e-12)


def test_plainly_it_has_the_published_activation_and_a_gain_of_one():
    module = ModulatedConv(2).double()
    assert module.gain.item() == 1
    inputs, modulator = draw(1, 2, 3, 3), draw(1, 2, 3, 3, seed=1)
    expected = by_formula(module, inputs, modulator, 0.01)
    np.testing.assert_allclose(module(inputs, modulator).detach().numpy(), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "modulator_channels", "out_channels"),
    [({}, 4, 4), ({"modulator_channels": 7}, 7, 4), ({"out_channels": 3}, 4, 3)],
)
def test_channels_that_are_not_given_are_those_of_the_inputs(options, modulator_channels, out_channels):
    module = ModulatedConv(4, **options)
    output = module(torch.zeros(2, 4, 5, 6), torch.zeros(2, modulator_channels, 5, 6))
    assert output.shape == (2, out_channels, 5, 6)
    # 3x3 weights and biases of both convolutions, and the gain.
    count = 8 * (9 * modulator_channels + 1) + out_channels * (9 * 4 + 1) + 1
    assert sum(parameter.numel() for parameter in module.parameters()) == count


def test_gradients_of_gain_inputs_and_modulator_are_those_of_finite_differences():
    module = ModulatedConv(2, modulator_channels=1, activation=None).double()

    def run(gain: torch.Tensor, inputs: torch.Tensor, modulator: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, {"gain": gain}, (inputs, modulator))

    arguments = [torch.tensor(0.8, dtype=torch.float64), draw(1, 2, 3, 2), draw(1, 1, 3, 2, seed=1)]
    assert torch.autograd.gradcheck(run, [argument.requires_grad_() for argument in arguments])


def test_the_gain_is_learnt_with_the_rest():
    module = ModulatedConv(2)
    module(torch.ones(1, 2, 4, 4), torch.ones(1, 2, 4, 4)).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_features_stay_16_bit_and_near_the_formula(dtype):
    module = ModulatedConv(2).to(dtype)
    inputs, modulator = draw(1, 2, 4, 4).to(dtype), draw(1, 2, 4, 4, seed=1).to(dtype)
    output = module(inputs, modulator)
    assert output.dtype == dtype
    expected = by_formula(module.double(), inputs.double(), modulator.double(), 0.01)
    np.testing.assert_allclose(output.detach().double().numpy(), expected, atol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"channels": 0}, ValueError, "channels must be a whole number of at least 1, got 0"),
        ({"channels": "2"}, TypeError, "channels must be a whole number"),
        ({"channels": 2, "modulator_channels": 0}, ValueError, "modulator_channels must be"),
        ({"channels": 2, "out_channels": 1.5}, TypeError, "out_channels must be"),
        ({"channels": 2, "activation": "leaky-relu"}, ValueError, "did you mean 'leaky_relu'"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(arguments, error, words):
    with pytest.raises(error, match=words):
        ModulatedConv(**arguments)


def test_a_modulator_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"got scale_shift \(1, 4, 4, 4\) and inputs \(1, 2, 8, 8\)"):
        ModulatedConv(2)(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4))

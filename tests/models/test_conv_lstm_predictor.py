# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch
from golden import fill_golden, golden_input
from model_contract import PredictorContract
from volume_contract import VolumeContract

from pcvideo.convert import conv_lstm_from_keras
from pcvideo.models import ConvLSTMPredictor, forecast_windows, next_frames
from pcvideo.rollout import feed_context, flatten_state, rollout, unroll

SMALL = {"hidden_channels": (3, 4, 2), "kernel_sizes": (5, 3, 1), "head_kernel_size": 3}


class TestImages(PredictorContract):
    multiple = 1

    def make(self) -> ConvLSTMPredictor:
        return ConvLSTMPredictor(in_channels=3, spatial_dims=2, **SMALL)


class TestPublishedVolumes(VolumeContract):
    backend = "eager"

    def make(self) -> ConvLSTMPredictor:
        return ConvLSTMPredictor(legacy=True, **SMALL)


class TestPatchesOfVolumes(VolumeContract):
    multiple = 2

    def make(self) -> ConvLSTMPredictor:
        return ConvLSTMPredictor(
            hidden_channels=(5,),
            kernel_sizes=(1,),
            head_kernel_size=1,
            patch=2,
            history=3,
            encoder_channels=6,
            residual=True,
            batch_norm=False,
        )


def wave(shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """The fill rule of `golden.py` in torch's layout, times `scale` from two axes on, laid out as Keras has it."""
    count = math.prod(shape)
    flat = np.sin(0.9 * np.arange(count, dtype=np.float64) + 0.5)
    if len(shape) == 1:
        return 0.1 * flat
    return (scale * flat / math.sqrt(count / shape[0])).reshape(shape).transpose(2, 3, 4, 1, 0)


def keras_arrays(scale: float) -> dict[str, np.ndarray]:
    arrays = {}
    for layer, (inputs, side) in enumerate([(1, 5), (32, 3), (32, 1)]):
        name = f"conv_lstm3d_{layer}" if layer else "conv_lstm3d"
        arrays[f"{name}/kernel"] = wave((128, inputs, side, side, side), scale)
        arrays[f"{name}/recurrent_kernel"] = wave((128, 32, side, side, side), scale)
        arrays[f"{name}/bias"] = wave((128,))
    for name in ("batch_normalization", "batch_normalization_1"):
        arrays |= {f"{name}/{one}": np.ones(32) for one in ("gamma", "moving_variance")}
        arrays |= {f"{name}/{zero}": np.zeros(32) for zero in ("beta", "moving_mean")}
    return arrays | {"conv3d/kernel": wave((1, 32, 5, 5, 5), scale), "conv3d/bias": wave((1,))}


@pytest.mark.parametrize(
    ("scale", "mean", "std", "first", "last", "tolerance"),
    [
        (1.0, 0.5118938684, 0.0001473783, 0.5120634437, 0.5122484565, 1e-5),
        (8.0, 0.5111524408, 0.0046855065, 0.5101326808, 0.5138738365, 1e-9),
    ],
)
def test_the_published_network_gives_keras_golden_numbers(
    scale: float, mean: float, std: float, first: float, last: float, tolerance: float
) -> None:
    model = conv_lstm_from_keras(keras_arrays(scale))
    with torch.no_grad():
        output = torch.stack([p[0] for p in rollout(model, golden_input(1, 3, 1, 16, 16, 16)).pyramids], 1)
    found = [output.mean(), output.std(correction=0), output.flatten()[0], output.flatten()[-1]]
    assert [value.item() for value in found] == pytest.approx([mean, std, first, last], abs=tolerance)


def test_swapped_gates_and_a_missing_recurrence_fail_the_stricter_golden_number() -> None:
    for fault in ("gates", "recurrence"):
        model = conv_lstm_from_keras(keras_arrays(8.0))
        weight = model.cells[0].to_gates.weight.data
        if fault == "gates":
            weight[:64] = torch.cat([weight[32:64], weight[:32]])
        else:
            weight[:, 1:] = 0
        with torch.no_grad():
            output = torch.stack([p[0] for p in rollout(model, golden_input(1, 3, 1, 16, 16, 16)).pyramids], 1)
        assert abs(output.std(correction=0).item() - 0.0046855065) > 1e-6


def test_the_published_network_has_the_published_number_of_parameters() -> None:
    model = ConvLSTMPredictor(legacy=True)
    trainable = sum(parameter.numel() for parameter in model.parameters())
    statistics = sum(buffer.numel() for buffer in model.buffers() if buffer.ndim)
    assert (trainable, trainable + statistics) == (761_889, 762_017)
    per_layer = [sum(p.numel() for p in part.parameters()) for part in (*model.cells, model.head)]
    assert per_layer == [528_128, 221_312, 8_320, 4_001]


def test_fresh_weights_are_keras_own() -> None:
    cell = ConvLSTMPredictor(legacy=True).cells[0]
    hidden, recurrent = 32, cell.to_gates.weight[:, 1:].flatten(1)
    torch.testing.assert_close(recurrent @ recurrent.T, torch.eye(128), atol=1e-4, rtol=0)
    bound = math.sqrt(6 / (125 * (1 + 128)))
    inputs = cell.to_gates.weight[:, :1]
    assert inputs.abs().max() <= bound
    assert inputs.abs().max() > 0.99 * bound
    bias = cell.to_gates.bias
    assert (bias[hidden : 2 * hidden] == 1).all()
    assert bias.sum() == hidden


def test_a_residual_network_with_no_head_copies_the_newest_frame() -> None:
    model = ConvLSTMPredictor(patch=2, residual=True, batch_norm=False, **SMALL)
    torch.nn.init.zeros_(model.head.weight)
    frames = (torch.rand(2, 3, 1, 4, 4, 4) > 0.5).float()
    assert torch.equal((model(frames, 1)[:, 0] > 0.5).float(), frames[:, -1])


def test_history_shows_the_frames_before_and_zeros_before_the_first() -> None:
    model = ConvLSTMPredictor(hidden_channels=(2,), kernel_sizes=(1,), head_kernel_size=1, history=3, batch_norm=False)
    frames, shown = torch.rand(1, 4, 1, 2, 2, 2), []
    model.cells[0].register_forward_pre_hook(lambda cell, arguments: shown.append(arguments[0]))
    with torch.no_grad():
        rollout(model, frames)
    padded = torch.cat([torch.zeros(1, 2, 1, 2, 2, 2), frames], dim=1)
    for time, features in enumerate(shown):
        assert torch.equal(features, padded[:, time : time + 3, 0].flip(1))


def test_a_forecast_by_windows_is_the_loop_written_out() -> None:
    torch.manual_seed(0)
    model = ConvLSTMPredictor(**SMALL).eval()
    frames = torch.rand(2, 6, 1, 4, 4, 4)
    for binarize in (False, True):
        window, expected = list(frames[:, -3:].unbind(1)), []
        with torch.no_grad():
            for _ in range(4):
                state = model.init_state(window[0])
                for frame in window:
                    pyramid, state = model.step(frame, state)
                expected.append(pyramid[0])
                window = [*window[1:], (pyramid[0] > 0.5).float() if binarize else pyramid[0]]
        found = forecast_windows(model, frames, 4, window=3, binarize=binarize)
        torch.testing.assert_close(found, torch.stack(expected, dim=1))


def test_a_forecast_by_windows_that_carries_its_state_is_the_models_own() -> None:
    torch.manual_seed(0)
    model = ConvLSTMPredictor(**SMALL).eval()
    frames = torch.rand(2, 5, 1, 4, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(forecast_windows(model, frames, 4, carry=True), model(frames, 4))


def test_next_frames_are_forecasts_of_one_step_from_each_beginning() -> None:
    torch.manual_seed(0)
    model = ConvLSTMPredictor(**SMALL).eval()
    frames = torch.rand(2, 4, 1, 4, 4, 4)
    with torch.no_grad():
        expected = torch.cat([model(frames[:, : time + 1], 1) for time in range(3)], dim=1)
    torch.testing.assert_close(next_frames(model, frames), expected)


def test_a_hundred_steps_carry_a_state_of_constant_size() -> None:
    model = ConvLSTMPredictor(hidden_channels=(4,), kernel_sizes=(3,), head_kernel_size=1, patch=2, batch_norm=False)
    frames = torch.rand(1, 2, 1, 8, 8, 8)
    sizes = set()
    with torch.no_grad():
        tracemalloc.start()
        for time, (_, state) in enumerate(unroll(model, frames, 100)):
            sizes.add(sum(tensor.numel() for tensor in flatten_state(state).values()))
            if time == 10:
                early, _ = tracemalloc.get_traced_memory()
        late, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(sizes) == 1
    assert late - early < 100_000
    assert time == 100


def test_a_volume_of_64_a_side_is_predicted() -> None:
    model = ConvLSTMPredictor(hidden_channels=(4,), kernel_sizes=(1,), head_kernel_size=1, patch=2, batch_norm=False)
    future = model.predict(torch.zeros(2, 1, 64, 64, 64), 2)
    assert future.shape == (2, 1, 64, 64, 64)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spatial_dims": 4}, "spatial_dims"),
        ({"hidden_channels": (4, 4)}, "one number per layer"),
        ({"hidden_channels": 32}, "hidden_channels must be a sequence"),
        ({"kernel_sizes": (4, 3, 1)}, "odd"),
        ({"head_kernel_size": 2}, "head_kernel_size must be odd"),
        ({"encoder_kernel_size": 2}, "encoder_kernel_size must be odd"),
        ({"history": 0}, "history"),
        ({"patch": 0}, "patch"),
        ({"legacy": 1}, "legacy"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(options: dict, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        ConvLSTMPredictor(**options)


def test_images_given_to_a_model_of_volumes_are_refused_with_the_axes_it_wants() -> None:
    with pytest.raises(ValueError, match=r"\(B, T, C, D, H, W\)"):
        ConvLSTMPredictor(**SMALL)(torch.zeros(1, 2, 8, 8), 1)


def test_filled_alike_a_model_with_steps_fed_back_forgets_nothing_of_the_context() -> None:
    # Golden weights, for they tell frames apart.
    model = fill_golden(ConvLSTMPredictor(**SMALL).double()).eval()
    frames = golden_input(1, 4, 1, 4, 4, 4)
    other = frames.clone()
    other[:, 0] = 0
    ends = [rollout(model, clip, feed=feed_context(2)).pyramids[-1][0] for clip in (frames, other)]
    assert (ends[0] - ends[1]).abs().max() > 1e-9

# SPDX-License-Identifier: Apache-2.0
"""Pins docs/conventions.md: each sentence in bold there is run here, under the same words."""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pcvideo import MSPN, PPNV2, MultiScalePredictor, losses, metrics, ops, video_io
from pcvideo.data import MovingMNIST
from pcvideo.layers import EDLSTMCell
from pcvideo.models import Interpolator, Predictor
from pcvideo.rollout import feed_context, rollout

PAGE = Path(__file__).resolve().parents[1] / "docs" / "conventions.md"
PINNED: list[str] = []


def pins(*sentences: str) -> Callable[[Any], Any]:
    """Marks a test with the sentences of the page that it pins."""
    PINNED.extend(sentences)
    return lambda test: test


class StraightOn(Predictor):
    """Each pixel goes on as it went: exact on a ramp. Notes what it is corrected with."""

    def __init__(self) -> None:
        super().__init__(in_channels=1)
        self.gain = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.fed: list[bool] = []

    def init_state(self, like: Tensor) -> Any:
        return None, None

    def step(self, frame: Tensor | None, state: Any) -> Any:
        self.fed.append(frame is not None)
        previous, prediction = state
        frame = prediction if frame is None else frame
        prediction = frame if previous is None else self.gain * (2 * frame - previous)
        return (prediction,), (frame, prediction)


def ramp(length: int) -> Tensor:
    """(1, length, 1, 2, 3) whose frame t is t / 100 everywhere."""
    return (torch.arange(length, dtype=torch.float64) / 100).view(1, -1, 1, 1, 1).expand(1, length, 1, 2, 3)


@pytest.fixture
def model() -> MSPN:
    torch.manual_seed(0)
    return MSPN(in_channels=1, levels=2, channels=(2, 3, 4), hidden_channels=3).eval()


@pytest.fixture
def clips() -> Tensor:
    return torch.rand(2, 3, 1, 8, 12, generator=torch.Generator().manual_seed(1))


@pins("A batch of clips is (B, T, C, H, W); a model maps T frames to `horizon` frames.")
def test_a_model_maps_clips_to_clips(model: MSPN, clips: Tensor) -> None:
    assert model(clips, horizon=4).shape == (2, 4, 1, 8, 12)


@pins("A frame is (B, C, H, W) in `step`, and (C, H, W) or (B, C, H, W) in a stream.")
def test_a_frame_has_no_time_axis(model: MSPN, clips: Tensor) -> None:
    frame = clips[:, 0]
    assert model.step(frame, model.init_state(frame))[0][0].shape == frame.shape
    assert model.stream().push(frame).shape == frame.shape
    assert model.stream().push(frame[0]).shape == (1, 8, 12)


@pins("`predict` takes a single clip (T, C, H, W) and gives (horizon, C, H, W); with a batch axis it gives one back.")
def test_predict_keeps_the_batch_axis_it_is_given(model: MSPN, clips: Tensor) -> None:
    assert model.predict(clips[0], horizon=2).shape == (2, 1, 8, 12)
    assert model.predict(clips, horizon=2).shape == (2, 2, 1, 8, 12)


@pins("Sizes are (height, width).")
def test_sizes_name_the_height_first(model: MSPN, clips: Tensor) -> None:
    assert video_io.resize_frames(clips, (5, 7)).shape[-2:] == (5, 7)
    assert MovingMNIST(np.ones((1, 4, 4), np.uint8), size=(10, 20), frames=2)[0].shape == (2, 1, 10, 20)
    with pytest.raises(ValueError, match="got 8x10"):
        model(clips[..., :10], horizon=1)


@pins("A model is strict about the size and names the nearest that fits; `predict` and streams pad, run and crop.")
def test_models_are_strict_where_predict_pads(model: MSPN) -> None:
    odd = torch.rand(1, 2, 1, 9, 11)
    with pytest.raises(ValueError, match="nearest size that fits is 8x12"):
        model(odd, horizon=1)
    assert model.predict(odd, horizon=2).shape == (1, 2, 1, 9, 11)
    assert model.stream().push(odd[0, 0]).shape == (1, 9, 11)
    padded = torch.from_numpy(np.pad(odd.numpy(), [(0, 0)] * 3 + [(0, 3), (0, 1)], mode="edge"))
    torch.testing.assert_close(model.predict(odd, horizon=2), model(padded, horizon=2)[..., :9, :11].clamp(0, 1))


@pins("Frames are float in [0, 1]; anything outside, or NaN, is an error that names the frame.")
@pytest.mark.parametrize("value", [1.01, -0.01, math.nan, math.inf])
def test_values_outside_the_range_are_named(model: MSPN, clips: Tensor, value: float) -> None:
    clips[1, 2, 0, 3, 3] = value
    for run in (model, model.predict):
        with pytest.raises(ValueError, match="frame 2"):
            run(clips, horizon=1)
    with pytest.raises(ValueError, match="frame"):
        model.stream().push(clips[:, 2])


@pins("uint8 is taken by `predict` and streams, divided by 255; `forward` refuses it.")
def test_uint8_is_scaled_where_it_is_taken(model: MSPN, clips: Tensor) -> None:
    whole = (clips * 255).to(torch.uint8)
    torch.testing.assert_close(model.predict(whole, horizon=2), model.predict(whole / 255, horizon=2))
    torch.testing.assert_close(model.stream().push(whole[:, 0]), model.stream().push(whole[:, 0] / 255))
    with pytest.raises(TypeError, match="uint8"):
        model(whole, horizon=1)


@pins("Colour is RGB.")
def test_colour_is_red_first_in_and_out(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    colour = (200, 100, 50)
    image.new("RGB", (16, 16), colour).save(tmp_path / "0.png")
    frames = video_io.read_clip(tmp_path).frames
    assert (frames[0, :, 0, 0] * 255).round().int().tolist() == list(colour)
    video_io.write_frames(tmp_path / "out", frames)
    assert image.open(next((tmp_path / "out").glob("*.png"))).getpixel((3, 3)) == colour
    video_io.write_video(tmp_path / "out.mp4", frames.expand(5, 3, 16, 16), rate=5)
    decoded = video_io.read_clip(tmp_path / "out.mp4").frames[0, :, 8, 8] * 255
    assert (decoded - torch.tensor(colour)).abs().max() < 12


@pins("Grey is the luma of ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B.")
def test_grey_is_the_luma_of_the_standard() -> None:
    pixels = torch.eye(3, dtype=torch.float64).view(3, 3, 1, 1)
    assert video_io.to_grey(pixels).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])


@pins(
    "`forward` returns what the network gives, unless it is built with `clamp=True`; `predict` and streams clamp to "
    "[0, 1]."
)
def test_only_the_outermost_doors_clamp(model: MSPN, clips: Tensor) -> None:
    with torch.no_grad():
        model.cells[0].to_image.bias.fill_(2.0)
    clamping = MSPN(**model.config | {"clamp": True}).eval()
    clamping.load_state_dict(model.state_dict())
    free = model(clips, horizon=3)
    assert free.max() > 1
    for clamped in (clamping(clips, horizon=3), model.predict(clips, horizon=3)):
        torch.testing.assert_close(clamped, free.clamp(0, 1))
    assert model.stream().push(clips[:, 0]).max() <= 1


@pins("The prediction made at step t is of frame t + 1.")
def test_a_step_predicts_the_frame_after_the_one_it_was_given() -> None:
    clip = ramp(6)
    pyramids = rollout(StraightOn(), clip).pyramids
    for time in range(1, 5):
        torch.testing.assert_close(pyramids[time][0], clip[:, time + 1])


@pins("The first frame of `forward` and `predict` follows the last frame of the clip.")
def test_the_first_predicted_frame_follows_the_clip() -> None:
    clip, model = ramp(9), StraightOn()
    torch.testing.assert_close(model(clip[:, :5], horizon=4), clip[:, 5:])
    torch.testing.assert_close(model.predict(clip[0, :5], horizon=4), clip[0, 5:].float())


@pins("A clip of T frames and a horizon of h take T + h - 1 steps.")
def test_steps_are_counted_and_the_last_ones_feed_themselves() -> None:
    model = StraightOn()
    model(ramp(5), horizon=4)
    assert model.fed == [True] * 5 + [False] * 3
    model = StraightOn()
    assert len(rollout(model, ramp(5), horizon=2, feed=feed_context(3)).pyramids) == 6
    assert model.fed == [True] * 3 + [False] * 3


@pins("`step(None, state)` is `step` with the model's own prediction.")
def test_no_frame_means_the_own_prediction(model: MSPN, clips: Tensor) -> None:
    (prediction, *_), state = model.step(clips[:, 0], model.init_state(clips[:, 0]))
    fed, own = model.step(prediction, state), model.step(None, state)
    torch.testing.assert_close(own, fed, rtol=0, atol=0)


@pins("A prediction depends neither on how far the horizon goes beyond it, nor on its batch-mates.")
def test_a_prediction_is_the_same_alone_and_for_any_horizon(model: MSPN, clips: Tensor) -> None:
    model, clips = model.double(), clips.double()
    both = model(clips, horizon=5)
    torch.testing.assert_close(model(clips, horizon=2), both[:, :2], rtol=0, atol=0)
    torch.testing.assert_close(model(clips[1:], horizon=5), both[1:])


@pins("`init_state(like)` reads the size, dtype and device of a frame, never its values.")
def test_a_state_does_not_know_the_frame(model: MSPN, clips: Tensor) -> None:
    ours, other = model.init_state(clips[:, 0]), model.init_state(torch.full_like(clips[:, 0], math.nan))
    torch.testing.assert_close(ours, other, rtol=0, atol=0)
    assert model.double().init_state(clips[:, 0].double()).cells[0].hidden.dtype == torch.float64


@pins("Entry 0 of the pyramid is the frame; entry l is what level l stands for, for MSPN the frame at H / 2**l.")
def test_a_pyramid_halves_from_level_to_level(model: MSPN, clips: Tensor) -> None:
    pyramid, _ = model.step(clips[:, 0], model.init_state(clips[:, 0]))
    targets = model.targets(clips[:, 1])
    assert [tuple(level.shape[-2:]) for level in pyramid] == [(8, 12), (4, 6)]
    assert [level.shape for level in targets] == [level.shape for level in pyramid]
    assert torch.equal(targets[0], clips[:, 1])
    assert np.array_equal(targets[1].numpy(), clips[:, 1].numpy()[..., ::2, ::2])


@pins(
    "For PPNV2, entry l of the pyramid is level l's learnt features; the first steps have fewer entries, one more each."
)
def test_levels_of_ppnv2_begin_one_after_another(clips: Tensor) -> None:
    pyramids = rollout(PPNV2(channels=(1, 3, 4)), clips, 3).pyramids
    shapes = [(2, 1, 8, 12), (2, 3, 4, 6), (2, 4, 2, 3)]
    assert [[level.shape for level in pyramid] for pyramid in pyramids] == [shapes[:1], shapes[:2], *[shapes] * 3]


@pins("What PPNV2 returns and feeds back is its prediction's non-negative part; losses take the prediction itself.")
def test_what_ppnv2_predicts_may_be_negative(clips: Tensor) -> None:
    torch.manual_seed(0)
    model = PPNV2(channels=(1, 3)).eval()
    with torch.no_grad():
        model.merge_predictions[0].conv.bias.sub_(0.1)
        state = model.step(clips[:, 0], model.init_state(clips[:, 0]))[1]
        pyramid, state = model.step(clips[:, 1], state)
        assert pyramid[0].min() < 0
        by_none, by_hand = (model.step(fed, state)[0][0] for fed in (None, pyramid[0].clamp(min=0)))
        assert torch.equal(by_none, by_hand)
        assert torch.equal(model(clips[:, :2], 1)[:, 0], pyramid[0].clamp(min=0))


@pins("Filters are computed from the weights in `init_state` and carried in the state.")
def test_a_step_takes_its_filters_from_the_state(clips: Tensor) -> None:
    model = PPNV2(channels=(1, 3)).eval()
    state = rollout(model, clips).state
    before = model.step(None, state)[0][0]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("cutoff_logit"):
                parameter.sub_(2)
    assert torch.equal(model.step(None, state)[0][0], before)
    assert not torch.equal(model.step(None, model.renew(state))[0][0], before)


@pins("`stream.forecast(h)` begins with what the last `push` gave, and does not move the stream.")
def test_a_forecast_leaves_the_stream_where_it_is(model: MSPN, clips: Tensor) -> None:
    stream, undisturbed = model.stream(), model.stream()
    for time in range(3):
        pushed = stream.push(clips[:, time])
        assert torch.equal(stream.forecast(4)[:, 0], pushed)
        assert torch.equal(undisturbed.push(clips[:, time]), pushed)
    torch.testing.assert_close(stream.forecast(4), model.predict(clips, horizon=4))


class Halfway(Interpolator):
    """The mean of both frames."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return self.gain * (before + after) / 2


@pins("`interpolate` keeps every frame at `factor` times its place: T frames become (T - 1) * factor + 1.")
def test_interpolated_frames_stand_where_their_time_is() -> None:
    clip = torch.tensor([0.0, 0.4, 0.8]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    frames = Halfway().interpolate(clip, 4, cut=None)
    assert len(frames) == 9
    torch.testing.assert_close(frames[:, 0, 0, 0], torch.linspace(0, 0.8, 9))
    assert torch.equal(frames[::4], clip)


@pins("Flow is in pixels, as (x, y), and says where to look: `backward_warp` sees pixel (x, y) at (x, y) + flow.")
def test_flow_says_where_to_look() -> None:
    frames = torch.arange(12.0).view(1, 1, 3, 4)
    flow = torch.tensor([2.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 3, 4)
    # Column 0 + 2, row 0 + 1.
    assert ops.backward_warp(frames, flow)[0, 0, 0, 0] == frames[0, 0, 1, 2]


@pins("A horizon is a whole number of at least 1.")
@pytest.mark.parametrize(
    ("horizon", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError), ("3", TypeError)]
)
def test_a_horizon_that_is_none_is_refused(model: MSPN, clips: Tensor, horizon: Any, error: type[Exception]) -> None:
    stream = model.stream()
    stream.push(clips[:, 0])
    for run in (lambda: model(clips, horizon), lambda: model.predict(clips, horizon), lambda: stream.forecast(horizon)):
        with pytest.raises(error, match="horizon must be a whole number of at least 1"):
            run()


@pins(
    "`forward` computes in the dtype of the weights and returns the dtype of the frames.", "`predict` returns float32."
)
@pytest.mark.parametrize("weights", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("frames", [torch.float32, torch.float64, torch.float16])
def test_the_result_has_the_dtype_of_the_frames(
    model: MSPN, clips: Tensor, weights: torch.dtype, frames: torch.dtype
) -> None:
    model, clips = model.to(weights), clips.to(frames)
    result = model(clips, horizon=2)
    assert result.dtype == frames
    assert torch.equal(result, model(clips.to(weights), horizon=2).to(frames))
    assert model.predict(clips, horizon=1).dtype == torch.float32


@pins("The LSTM's cell is kept in float32 at least; its hidden state has the dtype of the frames.")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_cell_is_never_kept_in_16_bits(model: MSPN, clips: Tensor, dtype: torch.dtype) -> None:
    frame = clips[:, 0].to(dtype)
    _, state = model.to(dtype).step(frame, model.to(dtype).init_state(frame))
    assert {cell.hidden.dtype for cell in state.cells} == {dtype}
    assert {cell.cell.dtype for cell in state.cells} == {torch.promote_types(dtype, torch.float32)}


@pins("Metrics and losses of 16-bit frames are computed in float32.")
def test_16_bit_frames_are_scored_in_float32() -> None:
    # There is no 4095 in bfloat16: its neighbours there are 4080 and 4096.
    ones, zeros = torch.ones(1, 64, 64, dtype=torch.bfloat16), torch.zeros(1, 64, 64, dtype=torch.bfloat16)
    zeros[0, 0, 0] = 1
    assert metrics.mse(ones, zeros).item() == 64 * 64 - 1
    assert losses.L1Loss(reduction="sum")(ones[None, None], zeros[None, None]).item() == 64 * 64 - 1


@pins("Clip i of a generated data set depends on the seed and on i alone.")
def test_a_generated_clip_is_the_same_in_every_set() -> None:
    digits = np.arange(2 * 16, dtype=np.uint8).reshape(2, 4, 4)
    few, many = (MovingMNIST(digits, clips=clips, size=16, frames=4, seed=5) for clips in (4, 100))
    other = MovingMNIST(digits, clips=4, size=16, frames=4, seed=6)
    assert torch.equal(few[3], many[3])
    assert torch.equal(few[3], many.batch([50, 3])[1])
    assert not torch.equal(few[3], other[3])


@pins("Nothing is drawn at random when predicting.")
def test_predicting_twice_agrees_bit_for_bit(model: MSPN, clips: Tensor) -> None:
    before = torch.get_rng_state()
    first = model.predict(clips, horizon=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(model.predict(clips, horizon=3), first)


@pins("Models are built from keyword-only, JSON-able arguments, and `config` gives them back.")
def test_a_config_builds_the_same_model(model: MSPN) -> None:
    with pytest.raises(TypeError, match="positional"):
        MSPN(1, 2, (2, 3, 4))  # type: ignore[misc]
    config = json.loads(json.dumps(model.config))
    assert MSPN.from_config(config).config == model.config
    cell = EDLSTMCell(in_channels=2, hidden_channels=2, image_channels=1, channels=(2, 3))
    with pytest.raises(TypeError, match="no config"):
        _ = MultiScalePredictor([cell], in_channels=1).config


@pins("A weights folder is `config.json`, `model.safetensors` and `manifest.json`, without pickle.")
def test_a_weights_folder_holds_three_plain_files(model: MSPN, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "weights")
    names = sorted(path.name for path in (tmp_path / "weights").iterdir())
    assert names == ["config.json", "manifest.json", "model.safetensors"]
    header = (tmp_path / "weights" / "model.safetensors").read_bytes()
    assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])


@pins("An unknown key is refused with the nearest known name.")
def test_a_misspelt_key_is_met_with_the_right_one(model: MSPN) -> None:
    with pytest.raises(ValueError, match="did you mean 'hidden_channels'"):
        MSPN.from_config(model.config | {"hiden_channels": 3})


@pins("Bad input is a ValueError or TypeError that names the argument, what was expected and what came.")
def test_errors_name_argument_expectation_and_input(model: MSPN, clips: Tensor) -> None:
    cases = [
        (lambda: model(clips[0], 1), ValueError, r"frames must be \(B, T, C, H, W\), got .*\(3, 1, 8, 12\)"),
        (lambda: model(clips.expand(2, 3, 3, 8, 12), 1), ValueError, "frames: .*C=1 channels, got 3"),
        (lambda: model("clip", 1), TypeError, "frames must be a tensor .*, got str 'clip'"),
        (lambda: MSPN(in_channels=0, levels=1, channels=(1, 2)), ValueError, "in_channels must .* at least 1, got 0"),
    ]
    for run, error, message in cases:
        with pytest.raises(error, match=message):
            run()


def test_every_bold_sentence_of_the_page_is_pinned_once_and_nothing_else_is() -> None:
    metric_tests = importlib.import_module("test_conventions_of_metrics")
    sentences = re.findall(r"^- \*\*(.+?)\*\*(?=\s|$)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert sorted(" ".join(sentence.split()) for sentence in sentences) == sorted([*PINNED, *metric_tests.PINNED])

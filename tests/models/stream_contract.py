# SPDX-License-Identifier: Apache-2.0
"""What every predictor's stream promises; `PredictorContract` inherits it. The makings that both use stand here too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pcvideo.models import Predictor

# torch.testing's relative tolerances; the absolute one is taken of the largest value, as errors of a deep network are.
TOLERANCES = {torch.float64: 1e-7, torch.float32: 1.3e-6, torch.float16: 1e-3, torch.bfloat16: 1.6e-2}


def assert_near(actual: Tensor, expected: Tensor, relative: float) -> None:
    """Every value within `relative` of the largest one."""
    assert actual.shape == expected.shape
    distance = (actual.double() - expected.double()).abs().max().item()
    assert distance <= relative * expected.double().abs().max().item()


class StreamContract:
    """The part of the contract that is about `model.stream()`."""

    channels = 3
    multiple = 8
    """What divides height and width, told apart from the model's own attribute."""
    size: tuple[int, ...] = (16, 24)
    """Of a frame; with a depth in front where frames are volumes."""
    backend: str | None = "aot_eager"
    """What `torch.compile` hands its graphs to; for variants "eager" takes half the time, None leaves it out."""
    enough = 4
    """Frames of a clip in which every part is used."""
    graphs = 2
    """How many a compiled step takes: one for a frame that came, one for none, one for each level that begins later."""

    def make(self) -> Predictor:
        """A tiny model, with fresh weights."""
        raise NotImplementedError

    def model(self, dtype: torch.dtype = torch.float64) -> Predictor:
        torch.manual_seed(3)
        return self.make().to(dtype).eval()

    def frames(self, batch: int = 2, length: int = 3, *, size: tuple[int, int] | None = None, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        # A size without a depth has that of the others.
        space = self.size if size is None else (*self.size[:-2], *size)
        return torch.rand(batch, length, self.channels, *space, generator=generator, dtype=torch.float64)

    def test_a_stream_gives_what_forward_gives_and_a_forecast_does_not_move_it(self) -> None:
        model, frames = self.model(), self.frames()
        stream = model.stream()
        for time in range(3):
            pushed = stream.push(frames[:, time])
            expected = model(frames[:, : time + 1], 3).clamp(0, 1)
            assert_near(pushed, expected[:, 0], 1e-12)
            assert_near(stream.forecast(3), expected, 1e-12)
        assert torch.equal(stream.forecast(1)[:, 0], pushed)

    def test_a_stream_takes_single_frames_uint8_and_any_size(self) -> None:
        model = self.model()
        clip = (255 * self.frames(1, 2, size=(13, 11))[0]).to(torch.uint8)
        stream = model.stream()
        for frame in clip:
            pushed = stream.push(frame)
        assert pushed.shape == clip.shape[1:]
        assert_near(stream.forecast(2), model.predict(clip, 2), 1e-5)

    def test_a_stream_that_was_reset_is_as_new(self) -> None:
        model, frames = self.model(), self.frames()
        stream = model.stream()
        first = stream.push(frames[:, 0])
        stream.push(frames[:, 1])
        stream.reset()
        assert stream.state_dict() == {}
        assert torch.equal(stream.push(frames[:, 0]), first)

    def test_a_saved_stream_goes_on_in_a_new_one_bit_for_bit(self, tmp_path) -> None:
        model, frames = self.model(), self.frames()
        stream, other = model.stream(), model.stream()
        stream.push(frames[:, 0])
        stream.save(tmp_path / "state.safetensors")
        other.load(tmp_path / "state.safetensors")
        assert torch.equal(other.forecast(2), stream.forecast(2))
        # The file may be written anew while the stream that was read from it lives on.
        other.save(tmp_path / "state.safetensors")
        assert torch.equal(other.push(frames[:, 1]), stream.push(frames[:, 1]))
        assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_a_stream_moves_to_a_model_of_another_dtype(self, dtype: torch.dtype) -> None:
        model, frames = self.model(), self.frames()
        stream, moved = model.stream(), self.model(dtype).stream()
        stream.push(frames[:, 0])
        moved.load_state_dict(stream.state_dict())
        pushed = moved.push(frames[:, 1])
        assert pushed.dtype == dtype
        assert_near(pushed, stream.push(frames[:, 1]), 4 * TOLERANCES[dtype])

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_a_stream_moves_to_another_device_and_back(self) -> None:
        model, frames = self.model(), self.frames()
        stay, stream = model.stream(), model.stream()
        expected = [stay.push(frames[:, time]) for time in range(3)]
        for time, device in enumerate(["cpu", "cuda", "cpu"]):
            model.to(device)
            assert_near(stream.to(device).push(frames[:, time]).cpu(), expected[time], 1e-7)

    def test_a_stream_that_refuses_a_frame_has_not_moved(self) -> None:
        model, frames = self.model(), self.frames()
        stream = model.stream()
        stream.push(frames[:, 0])
        before, broken = stream.forecast(2), frames[:, 1].clone()
        broken[0, 0, 0, 0] = torch.nan
        refused: list[tuple[Any, type[Exception], str]] = [
            (broken, ValueError, "NaN"),
            (frames[:, 1] * 255, ValueError, "ranges over"),
            (frames[:, 1, ..., :4], ValueError, "reset"),
            (frames[:1, 1], ValueError, "reset"),
            (frames[:0, 1], ValueError, "at least one"),
            (frames[:, 1, :0], ValueError, "channels|at least one"),
            (frames, TypeError, r"\(B, C, (D, )?H, W\)"),
            (frames[:, 1].long(), TypeError, "uint8"),
            (frames[:, 1].numpy(), TypeError, "tensor"),
        ]
        for frame, error, words in refused:
            with pytest.raises(error, match=words):
                stream.push(frame)
        assert torch.equal(stream.forecast(2), before)
        with pytest.raises(RuntimeError, match="push"):
            model.stream().forecast(1)

    def test_a_stream_refuses_the_state_of_another_model_and_keeps_its_own(self) -> None:
        model, frames = self.model(), self.frames()
        stream = model.stream()
        stream.push(frames[:, 0])
        saved, before = stream.state_dict(), stream.forecast(2)
        name = next(name for name in saved if name.startswith("state"))
        with pytest.raises(ValueError, match=f"missing .*{name}"):
            stream.load_state_dict({key: value for key, value in saved.items() if key != name})
        with pytest.raises(ValueError, match=rf"{name} is \(2,\)"):
            stream.load_state_dict(saved | {name: torch.zeros(2)})
        with pytest.raises(ValueError, match="'next'"):
            stream.load_state_dict({name: saved[name]})
        with pytest.raises(ValueError, match=r"next: .*channels"):
            stream.load_state_dict(saved | {"next": torch.zeros(1, self.channels + 1, *self.size)})
        assert torch.equal(stream.forecast(2), before)

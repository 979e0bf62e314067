# SPDX-License-Identifier: Apache-2.0
"""Comparison frames and GIFs against the pixels that they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pcvideo.viz import comparison_frames, save_comparison_gif


def noise(frames: int, *, channels: int = 3, seed: int = 0, size: int = 64) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.random((frames, channels, size, size), dtype=np.float32))


def corners(picture: np.ndarray, frame: torch.Tensor, scale: int = 3) -> list[tuple[int, int]]:
    """Every (y, x) where the frame stands, its pixels repeated `scale` times."""
    pixels = np.broadcast_to((frame.numpy() * 255).round().astype(np.uint8), (3, *frame.shape[1:])).transpose(1, 2, 0)
    block = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = block.shape[:2]
    rows, columns = picture.shape[0] - height + 1, picture.shape[1] - width + 1
    found = np.argwhere((picture[:rows, :columns] == block[0, 0]).all(-1))
    return [(int(y), int(x)) for y, x in found if (picture[y : y + height, x : x + width] == block).all()]


def pictures(frames: torch.Tensor) -> list[np.ndarray]:
    return [frame.permute(1, 2, 0).numpy() for frame in frames]


@pytest.mark.parametrize("channels", [1, 3])
def test_all_panels_show_the_context_then_each_its_own_future(channels):
    context, prediction, truth, baseline = (
        noise(count, channels=channels, seed=seed) for seed, count in enumerate((3, 2, 2, 2))
    )
    frames = comparison_frames(context, prediction, truth, baseline)
    assert frames.dtype == torch.uint8
    assert frames.shape[:2] == (5, 3)
    drawn = pictures(frames)
    panels = corners(drawn[0], context[0])
    assert len(panels) == 3
    assert len({y for y, _ in panels}) == 1
    for t in range(3):
        assert corners(drawn[t], context[t]) == panels
    for t in range(2):
        for panel, clip in zip(panels, (truth, prediction, baseline), strict=True):
            assert corners(drawn[3 + t], clip[t]) == [panel]


def test_a_panel_without_frames_is_left_out():
    context, prediction = noise(1), noise(1, seed=1)
    whole, no_truth, alone = (
        comparison_frames(context, prediction, *others)
        for others in ((prediction, context), (None, context), (None, None))
    )
    assert [len(corners(pictures(frames)[0], context[0])) for frames in (whole, no_truth, alone)] == [3, 2, 1]
    assert whole.shape[-1] > no_truth.shape[-1] > alone.shape[-1]
    assert corners(pictures(no_truth)[1], prediction[0]) < corners(pictures(no_truth)[1], context[0])


def test_the_border_of_the_prediction_alone_takes_colour_when_the_future_begins():
    context, prediction, truth = noise(2), noise(2, seed=1), noise(2, seed=2)
    drawn = pictures(comparison_frames(context, prediction, truth))
    (y, truth_x), (_, prediction_x) = corners(drawn[0], context[0])

    def border(t: int, x: int) -> np.ndarray:
        ring = drawn[t][y - 1 : y + 193, x - 1 : x + 193].astype(int)
        edges = np.concatenate([ring[0], ring[-1], ring[:, 0], ring[:, -1]])
        assert (edges == edges[0]).all()
        return edges[0]

    def saturation(colour: np.ndarray) -> int:
        return int(colour.max() - colour.min())

    assert [saturation(border(t, prediction_x)) > 100 for t in range(4)] == [False, False, True, True]
    assert [saturation(border(t, truth_x)) > 100 for t in range(4)] == [False] * 4


def test_captions_and_the_bar_change_with_time_though_nothing_moves():
    still = torch.zeros(1, 1, 16, 16)
    frames = comparison_frames(still.expand(3, -1, -1, -1), still.expand(3, -1, -1, -1))
    assert len({frame.numpy().tobytes() for frame in frames}) == 6


def test_both_sides_are_even_as_video_codecs_want():
    for size in (15, 16, 31):
        frames = comparison_frames(noise(1, size=size), noise(1, size=size), noise(1, size=size))
        assert frames.shape[-1] % 2 == frames.shape[-2] % 2 == 0


def test_large_frames_are_shrunk_to_a_readable_width():
    clip = torch.zeros(1, 3, 480, 640)
    frames = comparison_frames(clip, clip, clip, clip)
    assert 600 < frames.shape[-1] < 1000


def test_a_gif_plays_each_frame_for_its_time_and_rests_on_the_last(tmp_path):
    still = torch.zeros(1, 1, 16, 16)
    context, future = still.expand(4, -1, -1, -1), still.expand(3, -1, -1, -1)
    save_comparison_gif(tmp_path / "new" / "still.gif", context, future, future, future, rate=5)
    with Image.open(tmp_path / "new" / "still.gif") as gif:
        assert gif.n_frames == 7
        assert gif.info["loop"] == 0
        durations = []
        for index in range(7):
            gif.seek(index)
            durations.append(gif.info["duration"])
    assert durations == [200] * 6 + [1200]


def test_a_slow_gif_is_written_without_a_rest(tmp_path):
    still = torch.zeros(2, 1, 16, 16)
    save_comparison_gif(tmp_path / "slow.gif", still, still, rate=0.25)
    with Image.open(tmp_path / "slow.gif") as gif:
        assert gif.n_frames == 4
        assert gif.info["duration"] == 4000


def test_a_gif_shows_the_comparison_frames(tmp_path):
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    context, prediction = ramp.expand(2, -1, -1, -1), (1 - ramp).expand(2, -1, -1, -1)
    save_comparison_gif(tmp_path / "ramp.gif", context, prediction, rate=10)
    expected = pictures(comparison_frames(context, prediction))
    with Image.open(tmp_path / "ramp.gif") as gif:
        for index, frame in enumerate(expected):
            gif.seek(index)
            shown = np.asarray(gif.convert("RGB")).astype(int)
            # A GIF frame has 256 colours.
            assert np.abs(shown - frame).mean() < 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"truth": noise(3)}, "truth must have as many frames as the prediction"),
        ({"baseline": noise(2, size=32)}, "baseline must have frames of the context's shape"),
        ({"prediction": noise(2) * 255}, "prediction: frame 0 ranges over"),
        ({"rate": 0}, "rate"),
        ({"path": "clip.mp4"}, "gif"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path, change, words):
    given = {"path": "clip.gif", "context": noise(2), "prediction": noise(2, seed=1)} | change
    path = tmp_path / given.pop("path")
    with pytest.raises(ValueError, match=words):
        save_comparison_gif(path, **given)
    assert not list(tmp_path.iterdir())

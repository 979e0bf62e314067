# SPDX-License-Identifier: Apache-2.0
"""Pictures of middle frames against the pixels that they are made of."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from test_strips import enlarged, noise, place

from pcvideo.viz import middles, save_middles


def test_rows_are_triplets_and_columns_neighbours_truth_middle_average_and_errors():
    before, truth, after, found = (noise(2, seed=seed) for seed in range(4))
    picture = np.asarray(middles(before, truth, after, found, scale=2))
    average = ((before.float() + after.float()) / 2).round().byte()
    columns = [[place(picture, frame, 2) for frame in frames] for frames in (before, truth, after, found, average)]
    for row in (0, 1):
        assert len({column[row][0] for column in columns}) == 1
        xs = [column[row][1] for column in columns]
        assert len(set(np.diff(xs))) == 1
        assert xs[1] - xs[0] > 2 * 20
    assert columns[0][1][0] - columns[0][0][0] > 2 * 16
    for number, frames in enumerate((found, average)):
        apart = (frames.float() - truth.float()).abs().mean(1, keepdim=True)
        error = (255 - (5 * apart).round().clamp(max=255)).byte().expand(-1, 3, -1, -1)
        y, x = columns[4][0][0], columns[4][0][1] + (number + 1) * (columns[1][0][1] - columns[0][0][1])
        shown = picture[y : y + 32, x : x + 40]
        # The average is rounded to 8 bit before it is compared.
        assert np.abs(shown.astype(int) - enlarged(error[0], 2)).max() <= 5


def test_pictures_are_written_under_names_of_pictures_alone(tmp_path):
    frames = noise(1).float() / 255
    save_middles(tmp_path / "deep" / "middle.png", frames, frames, frames, frames)
    assert PIL.Image.open(tmp_path / "deep" / "middle.png").size[0] > 7 * 20
    with pytest.raises(ValueError, match=r"must end in \.png"):
        save_middles(tmp_path / "middle.gif", frames, frames, frames, frames)


def test_frames_that_do_not_fit_are_refused():
    frames = torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match="as many frames as the prediction"):
        middles(frames, frames[:1], frames, frames)
    with pytest.raises(ValueError, match="a frame for each of truth"):
        middles(frames[:1], frames, frames, frames)
    with pytest.raises(ValueError, match="ranges over"):
        middles(frames, 3 * frames + 1, frames, frames)

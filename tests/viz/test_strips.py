# SPDX-License-Identifier: Apache-2.0
"""Strips against the pixels that they are made of."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch

from pcvideo.viz import save_strip, strip
from pcvideo.viz._drawing import PAPER, check_scene


def noise(frames: int, height: int = 16, width: int = 20, *, channels: int = 3, seed: int = 0) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.integers(0, 256, (frames, channels, height, width), dtype=np.uint8))


def enlarged(frame: torch.Tensor, scale: int) -> np.ndarray:
    """(H * scale, W * scale, 3) by repetition, in numpy."""
    pixels = np.broadcast_to(frame.numpy().transpose(1, 2, 0), (*frame.shape[1:], 3))
    return np.kron(pixels, np.ones((scale, scale, 1), dtype=np.uint8))


def places(picture: np.ndarray, block: np.ndarray) -> list[tuple[int, int]]:
    """Every (y, x) at which `block` stands in `picture`, pixel by pixel."""
    height, width = block.shape[:2]
    rows, columns = picture.shape[0] - height + 1, picture.shape[1] - width + 1
    corners = np.argwhere(
        (picture[:rows, :columns] == block[0, 0]).all(-1)
        & (picture[height - 1 :, width - 1 :] == block[-1, -1]).all(-1)
    )
    return [(int(y), int(x)) for y, x in corners if (picture[y : y + height, x : x + width] == block).all()]


def place(picture: np.ndarray, frame: torch.Tensor, scale: int) -> tuple[int, int]:
    (found,) = places(picture, enlarged(frame, scale))
    return found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("labels", [True, False])
def test_frames_stand_in_rows_and_columns_enlarged_by_repetition(channels, labels):
    context, truth, prediction, baseline = (
        noise(count, channels=channels, seed=seed) for seed, count in enumerate((4, 3, 3, 3))
    )
    picture = np.asarray(strip(context, prediction, truth=truth, baseline=baseline, scale=3, labels=labels))
    seen, came, predicted, beside = (
        [place(picture, frame, 3) for frame in clip] for clip in (context, truth, prediction, baseline)
    )
    assert {y for y, _ in seen + came} == {seen[0][0]}
    xs = [x for _, x in seen + came]
    # Columns leave a gap, and a wider one before the future.
    steps = np.diff(xs)
    assert len(set(steps[[0, 1, 2, 4, 5]])) == 1
    assert 20 * 3 < steps[0] < steps[3]
    assert [x for _, x in predicted] == [x for _, x in beside] == [x for _, x in came]
    pitch = predicted[0][0] - came[0][0]
    assert pitch > 16 * 3
    assert beside[0][0] - predicted[0][0] == pitch


def test_the_difference_row_is_paper_minus_twice_the_mean_absolute_difference():
    context, truth, prediction = noise(2), noise(2, seed=1), noise(2, seed=2)
    picture = np.asarray(strip(context, prediction, truth=truth, scale=2))
    for t in range(2):
        y, x = place(picture, truth[t], 2)
        below = 2 * (place(picture, prediction[t], 2)[0] - y)
        drawn = picture[y + below : y + below + 32, x : x + 40]
        apart = np.abs(prediction[t].numpy().astype(float) - truth[t].numpy().astype(float)).mean(0)
        expected = 255 - np.minimum(2 * apart, 255)
        assert (drawn == drawn[..., :1]).all()
        np.testing.assert_allclose(drawn[::2, ::2, 0], expected, atol=0.5 + 1e-4)
        np.testing.assert_array_equal(drawn, np.kron(drawn[::2, ::2], np.ones((2, 2, 1), np.uint8)))


def test_a_perfect_prediction_leaves_the_difference_white():
    context, truth = noise(1), noise(1, seed=1)
    picture = np.asarray(strip(context, truth, truth=truth, scale=2))
    (y, x), (below, same_x) = places(picture, enlarged(truth[0], 2))
    assert same_x == x
    assert (picture[2 * below - y : 2 * below - y + 32, x : x + 40] == 255).all()


def test_without_a_truth_the_prediction_goes_on_in_the_row_of_the_context():
    context, prediction = noise(3), noise(2, seed=1)
    picture = np.asarray(strip(context, prediction, scale=2))
    found = [place(picture, frame, 2) for frame in (*context, *prediction)]
    assert len({y for y, _ in found}) == 1
    assert sorted(found) == found


def test_floats_grey_arrays_and_half_precision_draw_the_same_picture():
    context, prediction = noise(2, channels=1), noise(2, channels=1, seed=1)
    expected = np.asarray(strip(context, prediction, truth=prediction))
    for convert in (
        lambda clip: clip / 255,
        lambda clip: (clip / 255).half(),
        lambda clip: clip.expand(-1, 3, -1, -1),
        lambda clip: clip.numpy(),
        lambda clip: (clip / 255).requires_grad_(),
    ):
        drawn = strip(convert(context), convert(prediction), truth=convert(prediction))
        np.testing.assert_array_equal(np.asarray(drawn), expected)


def test_a_prediction_that_overshoots_is_clamped():
    context, prediction = noise(1) / 255, noise(1, seed=1) / 255
    wild = prediction * 1.4 - 0.2
    drawn, expected = strip(context, wild), strip(context, wild.clamp(0, 1))
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))


def test_shrinking_averages_areas():
    context, prediction = noise(1, 80, 120), noise(1, 80, 120, seed=1)
    picture = np.asarray(strip(context, prediction, scale=0.25, labels=False))
    means = [clip[0].numpy().reshape(3, 20, 4, 30, 4).mean((2, 4)).transpose(1, 2, 0) for clip in (context, prediction)]
    margin = (picture.shape[0] - 20) // 2
    np.testing.assert_allclose(picture[margin : margin + 20, margin : margin + 30], means[0], atol=1)
    np.testing.assert_allclose(picture[margin : margin + 20, -margin - 30 : -margin], means[1], atol=1)


@pytest.mark.parametrize(
    ("size", "scale"), [((64, 64), 2), ((28, 28), 4), ((32, 32), 4), ((128, 160), 1), ((8, 8), 14), ((2, 100), 2)]
)
def test_small_frames_are_enlarged_by_a_whole_number_to_about_a_hundred_pixels(size, scale):
    context, prediction = noise(1, *size), noise(1, *size, seed=1)
    picture = np.asarray(strip(context, prediction))
    assert place(picture, context[0], scale)[0] == place(picture, prediction[0], scale)[0]


def test_large_frames_are_shrunk():
    context, prediction = noise(2, 480, 640), noise(2, 480, 640, seed=1)
    assert strip(context, prediction, labels=False).height < 150
    assert strip(context, prediction, labels=False).width < 700


@pytest.mark.parametrize(("seen", "horizon"), [(10, 10), (200, 10), (10, 70), (1, 100), (90, 1)])
@pytest.mark.parametrize("size", [(64, 64), (48, 128)])
def test_a_strip_is_never_wider_than_2400_pixels_and_ends_its_context_with_the_last_frame_seen(seen, horizon, size):
    context, prediction = noise(seen, *size), noise(horizon, *size, seed=1)
    image = strip(context, prediction, truth=prediction)
    picture = np.asarray(image)
    assert 300 < image.width <= 2400
    scale = 2 if size == (64, 64) else 1
    y, _ = place(picture, context[-1], scale)
    row = picture[y : y + size[0] * scale]
    shown = [index for index in range(horizon) if places(row, enlarged(prediction[index], scale))]
    assert shown
    assert len(set(np.diff([-1, *shown]))) == 1


def test_the_width_is_used_up_to_2400_pixels_and_no_further():
    clip = noise(60, 2, 16)
    widths = [strip(clip[:1], clip[:horizon], scale=4).width for horizon in range(1, 60)]
    assert 2300 < max(widths) <= 2400


def test_every_counts_from_the_last_frame_seen():
    context, prediction = noise(7), noise(7, seed=1)
    picture = np.asarray(strip(context, prediction, every=3, scale=2))
    assert [i for i in range(7) if places(picture, enlarged(context[i], 2))] == [0, 3, 6]
    assert [i for i in range(7) if places(picture, enlarged(prediction[i], 2))] == [2, 5]


def test_a_horizon_shorter_than_every_shows_its_last_frame():
    context, prediction = noise(7), noise(2, seed=1)
    picture = np.asarray(strip(context, prediction, every=3, scale=2))
    assert [i for i in range(2) if places(picture, enlarged(prediction[i], 2))] == [1]


def test_words_below_the_frames_appear_only_where_frames_were_left_out():
    context, prediction = noise(6), noise(6, seed=1)
    for every, written in ((1, False), (2, True)):
        picture = np.asarray(strip(context, prediction, every=every, scale=2))
        y, _ = place(picture, context[-1], 2)
        assert (picture[y + 32 :] != PAPER).any() == written


def test_without_labels_there_is_nothing_but_frames_and_paper():
    context, prediction = noise(2), noise(2, seed=1)
    picture = np.asarray(strip(context, prediction, labels=False, scale=2)).copy()
    for frame in (*context, *prediction):
        y, x = place(picture, frame, 2)
        picture[y : y + 32, x : x + 40] = PAPER
    assert (picture == PAPER).all()


def test_a_baseline_is_called_copy_last_only_where_it_repeats_the_last_frame_seen():
    context, prediction = noise(3), noise(2, seed=1)
    still = context[-1:].expand(2, -1, -1, -1)
    assert check_scene(context, prediction, None, still).baseline_name == "copy-last"
    assert check_scene(context, prediction, None, torch.zeros_like(still)).baseline_name == "baseline"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"context": noise(2)[None]}, ValueError, r"context must be one clip .*context\[0\]"),
        ({"context": noise(2)[:0]}, ValueError, "context must be one clip"),
        ({"prediction": noise(2, channels=2)}, ValueError, "prediction must be one clip"),
        ({"prediction": noise(2, 16, 16)}, ValueError, "prediction must have frames of the context's shape"),
        ({"prediction": noise(2, channels=1)}, ValueError, "prediction must have frames of the context's shape"),
        ({"truth": noise(3)}, ValueError, "truth must have as many frames as the prediction, 2, got 3"),
        ({"baseline": noise(1)}, ValueError, "baseline must have as many frames as the prediction, 2, got 1"),
        ({"context": noise(2).float()}, ValueError, "context: frame 0 ranges over"),
        ({"prediction": noise(2).float()}, ValueError, "prediction: frame 0 ranges over"),
        ({"prediction": noise(2) / 127.5 - 1}, ValueError, "prediction: frame 0 ranges over"),
        ({"truth": torch.stack([torch.zeros(3, 16, 20), torch.full((3, 16, 20), torch.nan)])}, ValueError, "frame 1"),
        ({"context": noise(2).long()}, TypeError, "context must be float"),
        ({"context": [1, 2]}, TypeError, "context must be a tensor or an array"),
        ({"every": 0}, ValueError, "every"),
        ({"every": 1.5}, TypeError, "every"),
        ({"scale": 0}, ValueError, "scale"),
        ({"scale": 1.5}, ValueError, "scale must be a whole number"),
        ({"scale": float("nan")}, ValueError, "scale"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, error, words):
    given = {"context": noise(2), "prediction": noise(2, seed=1)} | change
    with pytest.raises(error, match=words):
        strip(given.pop("context"), given.pop("prediction"), **given)


def test_a_saved_strip_holds_the_same_pixels(tmp_path):
    context, prediction = noise(2), noise(2, seed=1)
    save_strip(tmp_path / "new" / "strip.png", context, prediction, truth=prediction)
    expected = strip(context, prediction, truth=prediction)
    with PIL.Image.open(tmp_path / "new" / "strip.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), np.asarray(expected))


def test_a_write_that_fails_leaves_the_old_strip_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "strip.png"
    path.write_bytes(b"old")

    def save(self, target, *args, **kwargs):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(PIL.Image.Image, "save", save)
    with pytest.raises(OSError, match="disk full"):
        save_strip(path, noise(1), noise(1))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_suffix_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"path must end in \.png"):
        save_strip(tmp_path / "strip.txt", noise(1), noise(1))
    assert not list(tmp_path.iterdir())

# SPDX-License-Identifier: Apache-2.0
"""Transforms of clips, against numpy; every random draw is made once per clip."""

import numpy as np
import pytest
import torch

from pcvideo.data import (
    CenterCrop,
    Compose,
    Enlarge,
    HorizontalFlip,
    LivelyCrop,
    MovingCrop,
    RandomCrop,
    Resize,
    ReverseChannels,
    TimeReverse,
    ToGrey,
    Transpose,
    VerticalFlip,
)


@pytest.fixture
def clip():
    return torch.rand(5, 3, 12, 16, generator=torch.Generator().manual_seed(0))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_center_crop_keeps_the_middle(clip):
    assert torch.equal(CenterCrop((6, 10))(clip, seeded()), clip[:, :, 3:9, 3:13])


def test_flips_and_reversal_turn_their_own_axis(clip):
    array = clip.numpy()
    turning = ((HorizontalFlip(1), 3), (VerticalFlip(1), 2), (ReverseChannels(1), 1), (TimeReverse(1), 0))
    for transform, axis in turning:
        np.testing.assert_array_equal(transform(clip, seeded()).numpy(), np.flip(array, axis))
        assert torch.equal(type(transform)(0)(clip, seeded()), clip)


def test_a_flip_happens_as_often_as_its_probability_says(clip):
    generator = seeded()
    flipped = sum(not torch.equal(HorizontalFlip(0.3)(clip, generator), clip) for _ in range(1000))
    # Three standard deviations of a binomial are 43.
    assert abs(flipped - 300) < 45


def test_a_random_crop_cuts_all_frames_at_one_place_and_reaches_every_place(clip):
    places = np.arange(12 * 16, dtype=np.float32).reshape(1, 1, 12, 16) / 192
    marked = torch.from_numpy(np.repeat(places, 5, axis=0))
    seen = set()
    generator = seeded()
    for _ in range(300):
        crop = RandomCrop((10, 13))(marked, generator)
        assert crop.shape == (5, 1, 10, 13)
        assert torch.equal(crop, crop[:1].expand_as(crop))
        corner = round(float(crop[0, 0, 0, 0]) * 192)
        seen.add((corner // 16, corner % 16))
    assert seen == {(top, left) for top in range(3) for left in range(4)}


def test_transposing_swaps_rows_and_columns(clip):
    np.testing.assert_array_equal(Transpose(1)(clip, seeded()).numpy(), clip.numpy().swapaxes(2, 3))
    assert torch.equal(Transpose(0)(clip, seeded()), clip)


def test_enlarging_takes_each_factor_as_often_as_its_probability_says(clip):
    generator = seeded()
    enlarged = [Enlarge((2, 4), p=0.2)(clip[:1], generator) for _ in range(600)]
    counts = [sum(frames.shape[-2:] == (12 * factor, 16 * factor) for frames in enlarged) for factor in (1, 2, 4)]
    assert sum(counts) == 600
    # Three standard deviations of a binomial are 29.
    assert max(abs(count - expected) for count, expected in zip(counts, (360, 120, 120), strict=True)) < 32
    flat = Enlarge((2,), p=1)(torch.full((1, 3, 4, 5), 0.25))
    torch.testing.assert_close(flat, torch.full((1, 3, 8, 10), 0.25))


def test_a_moving_crop_holds_what_moves_at_any_place_in_it_and_lies_within_the_frame():
    clip = torch.zeros(3, 3, 64, 96)
    clip[2, :, 40:48, 72:80] = 1
    generator, places, whole = seeded(), set(), 0
    for _ in range(200):
        crop = MovingCrop((32, 32))(clip, generator)
        assert crop.shape == (3, 3, 32, 32)
        moved = (crop[2, 0] != crop[0, 0]).nonzero()
        # The block's middle is in the crop, and so is a quarter of the block at the least.
        if len(moved) >= 16:
            whole += 1
            places.add(tuple(moved.min(0).values.tolist()))
    # One in a hundred is of any place.
    assert whole > 190
    rows, columns = (sorted({place[axis] for place in places}) for axis in (0, 1))
    # A crop at the frame's lower right corner has the block 8 pixels from its own.
    assert rows[0] == columns[0] == 8
    assert rows[-1] >= 24
    assert columns[-1] >= 24


def test_a_moving_crop_of_a_still_clip_reaches_all_of_it():
    still = torch.zeros(3, 1, 24, 24)
    places = torch.arange(24 * 24.0).view(1, 1, 24, 24).expand(3, 1, 24, 24).clone()
    generator = seeded()
    corners = {float(MovingCrop((16, 16))(places, generator)[0, 0, 0, 0]) for _ in range(300)}
    assert {0, 8, 24 * 8, 24 * 8 + 8} <= corners
    assert MovingCrop((24, 24))(still, generator).shape == still.shape


def test_a_lively_crop_is_the_one_of_those_drawn_where_most_changes():
    still = torch.rand(1, 1, 40, 40, generator=seeded(1)).repeat(3, 1, 1, 1)
    still[1:, :, 30:, 30:] += 1
    generator = seeded()
    drawn = [RandomCrop((8, 8))(still, generator) for _ in range(6)]
    changes = [float((crop[-1] - crop[0]).abs().sum()) for crop in drawn]
    assert len(set(changes)) > 1
    assert torch.equal(LivelyCrop((8, 8), tries=6)(still, seeded()), drawn[changes.index(max(changes))])
    with pytest.raises(ValueError, match="does not fit"):
        LivelyCrop((41, 8))(still, seeded())
    with pytest.raises(ValueError, match="tries"):
        LivelyCrop((8, 8), tries=0)


def test_resizing_gives_the_size_and_keeps_a_flat_clip_flat(clip):
    assert Resize((7, 9))(clip, seeded()).shape == (5, 3, 7, 9)
    flat = torch.full((2, 1, 12, 16), 0.25)
    torch.testing.assert_close(Resize((24, 8))(flat), torch.full((2, 1, 24, 8), 0.25))


def test_halving_a_ramp_gives_the_ramp_of_half_the_length():
    """A triangle of weights 1 3 3 1 over eight around the middle of two pixels; a straight line is kept by it."""
    ramp = (torch.arange(16.0) / 16).expand(1, 1, 4, 16)
    half = Resize((4, 8))(ramp)[0, 0, 0]
    expected = (torch.arange(8.0) * 2 + 0.5) / 16
    torch.testing.assert_close(half[1:-1], expected[1:-1])


def test_grey_is_one_channel_of_luma(clip):
    red, green, blue = clip.unbind(1)
    torch.testing.assert_close(ToGrey()(clip)[:, 0], 0.299 * red + 0.587 * green + 0.114 * blue)


def test_composed_transforms_run_in_order_and_share_the_draws(clip):
    both = Compose([RandomCrop((8, 8)), HorizontalFlip(0.5)])
    generator = seeded(3)
    expected = HorizontalFlip(0.5)(RandomCrop((8, 8))(clip, generator), generator)
    assert torch.equal(both(clip, seeded(3)), expected)


def test_what_does_not_fit_is_refused(clip):
    with pytest.raises(ValueError, match="13x4 does not fit into frames of 12x16"):
        RandomCrop((13, 4))(clip, seeded())
    with pytest.raises(ValueError, match="13x4 does not fit into frames of 12x16"):
        MovingCrop((13, 4))(clip, seeded())
    for transform in (HorizontalFlip, Transpose, ReverseChannels):
        with pytest.raises(ValueError, match="p must be"):
            transform(1.5)
    with pytest.raises(ValueError, match="p must be"):
        Enlarge((2, 4), p=0.6)
    with pytest.raises(ValueError, match="factors"):
        Enlarge((1,))
    with pytest.raises(TypeError, match="size"):
        Resize(64)
    with pytest.raises(TypeError, match=r"transforms\[1\]"):
        Compose([ToGrey(), 3])

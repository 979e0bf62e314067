# SPDX-License-Identifier: Apache-2.0
"""Frames and the ones between, as a stream: beside the models' own passes over whole clips."""

from __future__ import annotations

import weakref

import pytest
import torch
from small_sequences import HEIGHT, WIDTH, colouriser, frame_doubler, moving, pair_interpolator, two_scenes

from pcvideo.enhancement import Enhancer, double_frames
from pcvideo.models import MSPN
from pcvideo.video_io import to_grey


def doubled(frames, doubler, **options):
    return torch.stack(list(double_frames(iter(frames), doubler, **options)))


def whole_clip(doubler, clip, last):
    """The frames between, by the pass over a whole clip, padded by hand to the size that it takes."""
    bottom, right = (-side % doubler.size_multiple for side in clip.shape[-2:])
    padded = torch.nn.functional.pad(clip, (0, right, 0, bottom), mode="replicate")
    with torch.no_grad():
        return doubler(padded[None], last=last)[0, :, :, :HEIGHT, :WIDTH].clamp(0, 1)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("extrapolate", [False, True])
def test_every_frame_stays_and_what_lies_between_is_what_the_whole_clip_gives(legacy, extrapolate):
    doubler, clip = frame_doubler(legacy=legacy), moving(6)
    out = doubled(clip, doubler, extrapolate=extrapolate)
    assert len(out) == 12 if extrapolate else 11
    assert torch.equal(out[::2], clip)
    torch.testing.assert_close(out[1::2], whole_clip(doubler, clip, extrapolate), atol=1e-6, rtol=0)


def test_each_scene_begins_anew_and_nothing_lies_between_two():
    doubler, clip = frame_doubler(), two_scenes(3, 4)
    out = doubled(clip, doubler, extrapolate=True)
    assert torch.equal(out[::2], clip)
    assert torch.equal(out[5], clip[2])
    torch.testing.assert_close(out[1:5:2], whole_clip(doubler, clip[:3], last=False), atol=1e-6, rtol=0)
    torch.testing.assert_close(out[7::2], whole_clip(doubler, clip[3:], last=True), atol=1e-6, rtol=0)
    # Without looking for scenes it is one clip.
    torch.testing.assert_close(
        doubled(clip, doubler, cut=None)[1::2], whole_clip(doubler, clip, False), atol=1e-6, rtol=0
    )


def test_an_interpolator_of_pairs_gives_what_it_gives_for_each_pair():
    doubler, clip = pair_interpolator(), two_scenes(3, 2, channels=3)
    out = doubled(clip, doubler)
    assert torch.equal(out, torch.stack(list(doubler.stream(clip))))


def test_a_grey_doubler_doubles_colour_plane_by_plane():
    doubler, clip = frame_doubler(), moving(4, channels=3)
    out = doubled(clip, doubler)
    for plane in range(3):
        alone = doubled(clip[:, plane : plane + 1], doubler)
        torch.testing.assert_close(out[:, plane : plane + 1], alone, atol=1e-6, rtol=0)


def test_a_doubler_for_colour_gives_the_luma_of_what_it_gives_for_grey():
    doubler, clip = pair_interpolator(), moving(3)
    as_colour = doubled(clip.expand(-1, 3, -1, -1), doubler)
    torch.testing.assert_close(doubled(clip, doubler), to_grey(as_colour), atol=1e-6, rtol=0)


def test_a_frame_of_colour_is_what_the_colouriser_makes_of_its_grey():
    model, clip = colouriser(), moving(3, channels=3)
    notes: list[str] = []
    out = torch.stack(list(Enhancer(colouriser=model).stream(iter(clip), notes=notes)))
    with torch.no_grad():
        torch.testing.assert_close(out, model(to_grey(clip)).clamp(0, 1), atol=1e-6, rtol=0)
    assert len(notes) == 1
    assert "its grey was taken" in notes[0]


def test_grey_in_three_equal_channels_is_grey_without_a_word():
    notes: list[str] = []
    wide = moving(3).expand(-1, 3, -1, -1)
    out = list(Enhancer(colouriser=colouriser()).stream(iter(wide), notes=notes))
    assert notes == []
    assert torch.equal(torch.stack(out), torch.stack(list(Enhancer(colouriser=colouriser()).stream(moving(3)))))


def test_between_two_frames_of_a_stream_the_caller_has_gradients_and_the_models_their_mode():
    doubler, model = frame_doubler().train(), colouriser().train()
    for stream in (
        Enhancer(doubler, model).stream(moving(3)),
        double_frames(moving(3), doubler),
        model.stream(moving(3)),
    ):
        for _ in stream:
            assert torch.is_grad_enabled()
            assert doubler.training
            assert model.training


def most_alive(length):
    """How many frames of the source are held in memory at once, while all that is made is thrown away."""
    alive = most = 0

    def gone():
        nonlocal alive
        alive -= 1

    def source():
        nonlocal alive, most
        for frame in moving(7).repeat(1 + length // 7, 1, 1, 1)[:length]:
            # The tensor's memory is this array's, which so lives as long as any view of it.
            memory = frame.numpy().copy()
            weakref.finalize(memory, gone)
            alive += 1
            most = max(most, alive)
            yield torch.from_numpy(memory)
            del memory

    for _ in Enhancer(frame_doubler(), colouriser()).stream(source()):
        pass
    return most


def test_no_more_frames_are_held_for_a_longer_sequence():
    assert most_alive(30) == most_alive(6) <= 3


def test_what_is_no_doubler_or_no_sequence_is_refused_by_name():
    with pytest.raises(TypeError, match="doubler must be an interpolator"):
        double_frames(moving(3), MSPN(in_channels=1, levels=1, channels=(2, 3), hidden_channels=2))
    with pytest.raises(TypeError, match="colouriser must be a Grey2RGB"):
        Enhancer(colouriser=frame_doubler())
    with pytest.raises(ValueError, match="extrapolate=True needs a FrameDoubler"):
        double_frames(moving(3), pair_interpolator(), extrapolate=True)
    with pytest.raises(ValueError, match="extrapolate=True needs a doubler"):
        Enhancer(colouriser=colouriser(), extrapolate=True)
    for frames, words in [
        (moving(1), "two at least"),
        ([], "two at least"),
        ([moving(1)[0], moving(1)[0, :, 1:]], "frame 1 must be"),
        ([moving(1)[0], 2 * moving(1)[0] + 1], "frame 1 ranges over"),
    ]:
        with pytest.raises(ValueError, match=words):
            list(double_frames(iter(frames), frame_doubler()))
    assert len(list(double_frames(moving(1), frame_doubler(), extrapolate=True))) == 2

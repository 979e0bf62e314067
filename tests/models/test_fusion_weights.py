# SPDX-License-Identifier: Apache-2.0
"""The weights of fusion's networks that come with the package, on pictures that they have not learnt from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import pcvideo
from pcvideo.data import MovingPhotographs, VideoFolder
from pcvideo.metrics import score_colours, score_doubling

VIDEOS = Path(os.environ.get("PCVIDEO_SHARED_DATA", "/nowhere")) / "video"
HELD_OUT = ["walk", "want", "yes", "thanks"]


def test_a_photograph_that_moves_is_found_between_with_two_thirds_of_the_blend_s_error_or_less():
    model = pcvideo.from_pretrained("frame-doubler")
    photographs = MovingPhotographs(clips=8, size=(128, 128), speed=6.0, pieces=0, seed=3)
    triplets = torch.stack([photographs[index] for index in range(8)]).mean(2, keepdim=True)
    with torch.no_grad():
        found = model(triplets[:, ::2], last=False)[:, 0]
    truth, blend = triplets[:, 1], (triplets[:, 0] + triplets[:, 2]) / 2
    assert (found - truth).square().mean() < 2 / 3 * (blend - truth).square().mean()


def test_the_luma_of_what_is_coloured_is_what_was_given():
    model = pcvideo.from_pretrained("grey2rgb")
    grey = torch.rand(2, 1, 61, 47, generator=torch.Generator().manual_seed(0))
    colour = model.colourise(grey)
    red, green, blue = colour.split(1, dim=1)
    torch.testing.assert_close(0.299 * red + 0.587 * green + 0.114 * blue, grey, rtol=0, atol=1e-6)
    assert (colour.amax(1) - colour.amin(1)).mean() > 0.01


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="needs the signing clips: PCVIDEO_SHARED_DATA")
def test_on_held_out_clips_the_doubler_beats_the_blend_and_the_colouriser_grey():
    doubler, colouriser = (pcvideo.from_pretrained(name) for name in ("frame-doubler", "grey2rgb"))
    clips = VideoFolder(VIDEOS, length=5, size=(240, 320), include=HELD_OUT, channels=1)
    middles = score_doubling(
        (clips[index] for index in range(0, len(clips), 8)),
        lambda frames: doubler.interpolate(frames, cut=None)[:, 1::2],
        leave_out=("lpips",),
    )["middles"]
    assert middles["model"]["psnr"] > middles["average_frames"]["psnr"]
    stills = VideoFolder(VIDEOS, length=1, stride=40, size=(480, 640), include=HELD_OUT)
    colours = score_colours((stills[index] for index in range(2)), colouriser)["colours"]
    assert colours["model"]["ciede2000"] < colours["grey"]["ciede2000"]

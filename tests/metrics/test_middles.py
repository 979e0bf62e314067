# SPDX-License-Identifier: Apache-2.0
"""Middle frames scored beside averaging and copying; the volume SSIM against scipy's Gaussian filter."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from pcvideo.metrics import average_frames, copy_before, mse, score_doubling, score_middles, ssim, ssim_volume


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_scores_are_means_over_triplets_beside_both_baselines():
    triplets = draw(5, 3, 3, 16, 20)
    before, truth, after = triplets.unbind(1)
    report = score_middles(triplets.split(2), lambda one, other: one * 0 + 0.5)
    assert report["protocol"] == "standard"
    assert report["samples"] == 5
    expected = {
        "model": mse(torch.full_like(truth, 0.5), truth),
        "average_frames": mse((before + after) / 2, truth),
        "copy_before": mse(before, truth),
    }
    for name, values in expected.items():
        assert report["middles"][name]["mse"] == pytest.approx(values.mean().item(), rel=1e-6)
    assert report["middles"]["model"]["lpips"] is None
    assert report["unavailable"] == {"lpips": "left out"}


def test_several_ways_are_scored_under_their_names_each_with_its_time():
    triplets = draw(3, 3, 3, 16, 20)

    def slow(before, after):
        time.sleep(0.02)
        return after

    report = score_middles(triplets.split(1), {"after": slow, "grey": lambda one, other: one * 0 + 0.5})
    assert list(report["middles"]) == ["after", "grey", "average_frames", "copy_before"]
    assert report["middles"]["after"]["mse"] == pytest.approx(
        mse(triplets[:, 2], triplets[:, 1]).mean().item(), rel=1e-6
    )
    assert report["milliseconds"]["after"] >= 20 > report["milliseconds"]["grey"]
    with pytest.raises(ValueError, match="at least one way"):
        score_middles(triplets.split(1), {"copy_before": slow})


def test_the_published_protocol_has_its_own_figures():
    report = score_middles([draw(2, 3, 3, 16, 20)], average_frames, "wavelet_vfi")
    assert report["middles"]["model"] == report["middles"]["average_frames"]
    assert set(report["middles"]["model"]) == {"psnr", "ssim"}


def test_identical_frames_have_no_finite_psnr_and_no_figure():
    still = draw(1, 1, 3, 16, 16).float().expand(1, 3, 3, 16, 16)
    assert score_middles([still], copy_before)["middles"]["model"]["psnr"] is None


def test_what_is_no_triplet_is_refused():
    with pytest.raises(ValueError, match="triplets must be batches"):
        score_middles([draw(2, 4, 3, 16, 16)], average_frames)
    with pytest.raises(ValueError, match="no samples"):
        score_middles([], average_frames)


def test_the_volume_window_mixes_colours_and_keeps_the_frame_s_border():
    frames = draw(2, 3, 16, 20)
    assert ssim_volume(frames, frames).tolist() == pytest.approx([1, 1])
    noisy = (frames + 0.2 * draw(2, 3, 16, 20, seed=1)).clamp(0, 1)
    assert not np.allclose(ssim_volume(noisy, frames), ssim(noisy, frames), atol=1e-3)
    # The same noise in one colour is a smaller part of its surroundings in a volume.
    assert ssim_volume(draw(3, 4, 5), draw(3, 4, 5, seed=1)).shape == ()


def smooth_clip(length, seed):
    return torch.rand(length, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_whole_clips_score_as_their_triplets_do():
    clips = [smooth_clip(7, 0), smooth_clip(6, 1), smooth_clip(3, 2)]
    triplets = [clip[start : start + 3][None] for clip in clips for start in range(0, len(clip) - 2, 2)]
    by_clips = score_doubling(clips, lambda frames: 0.3 * frames[:, :-1] + 0.7 * frames[:, 1:])
    by_triplets = score_middles(triplets, lambda before, after: 0.3 * before + 0.7 * after)
    assert by_clips["samples"] == by_triplets["samples"] == 6
    for way, figures in by_triplets["middles"].items():
        assert by_clips["middles"][way] == pytest.approx(figures)


def test_clips_that_hold_no_middle_frame_and_doublers_that_give_too_much_are_refused():
    with pytest.raises(ValueError, match="three frames at least"):
        score_doubling([smooth_clip(2, 0)], lambda frames: frames[:, 1:])
    with pytest.raises(ValueError, match="double must give"):
        score_doubling([smooth_clip(5, 0)], lambda frames: frames)
    with pytest.raises(ValueError, match="no samples"):
        score_doubling([], lambda frames: frames)

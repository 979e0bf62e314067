# SPDX-License-Identifier: Apache-2.0
"""Protocols against scikit-image called as each of them calls it, and the baselines."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest
import torch
from skimage.data import astronaut
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.transform import rescale

from pcvideo.metrics import BASELINES, LPIPS, PROTOCOLS, black, copy_last, evaluate_frames, get_protocol

# The attribute pcvideo.metrics.lpips is the function.
lpips_module = importlib.import_module("pcvideo.metrics.lpips")


@pytest.fixture
def clips():
    """Dark colour frames with two bright boxes, and a prediction that is off by noise and overshoots both ends."""
    generator = np.random.default_rng(0)
    target = np.zeros((2, 3, 3, 32, 32))
    target[..., 4:12, 6:14] = 1
    target[..., 1:, 18:26, 15:29] = 0.7
    noise = np.array([0.02, 0.05, 0.08])[:, None, None]
    prediction = target + noise * generator.standard_normal(target.shape)
    return torch.from_numpy(prediction), torch.from_numpy(target)


def frame_mean(metric, prediction, target):
    pairs = zip(prediction.flatten(0, 1).numpy(), target.flatten(0, 1).numpy(), strict=True)
    return np.mean([metric(p, t) for p, t in pairs])


def squared(p, t):
    return ((p - t) ** 2).sum()


def absolute(p, t):
    return np.abs(p - t).sum()


def psnr(p, t):
    return peak_signal_noise_ratio(t, p, data_range=1.0)


def skimage_ssim(**options):
    return lambda p, t: structural_similarity(p, t, channel_axis=0, **options)


def planewise(metric):
    """The loop over colour planes that PPNV2's test script comes to run in place of one over samples."""
    return lambda p, t: np.mean([metric(p[channel], t[channel]) for channel in range(len(p))])


def column_ssim(p, t):
    # One plane with the multichannel flag: every column counts as a channel.
    return structural_similarity(p, t, channel_axis=-1, data_range=1.0)


GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


@pytest.mark.parametrize(
    ("protocol", "metric", "is_clamped", "oracle"),
    [
        ("standard", "mse", True, squared),
        ("standard", "mae", True, absolute),
        ("standard", "psnr", True, psnr),
        ("standard", "ssim", True, skimage_ssim(data_range=1.0, **GAUSSIAN)),
        ("mspn", "mse", False, squared),
        ("mspn", "psnr", False, psnr),
        ("mspn", "ssim", False, skimage_ssim(data_range=1.0)),
        ("ppnv2", "mse", False, squared),
        ("ppnv2", "psnr", False, planewise(psnr)),
        ("ppnv2", "ssim", False, planewise(column_ssim)),
        ("openstl", "mse", False, squared),
        ("openstl", "mae", False, absolute),
        ("openstl", "psnr", True, psnr),
        ("openstl", "ssim", True, skimage_ssim(data_range=2.0)),
    ],
)
def test_each_protocol_computes_what_it_says(protocol, metric, is_clamped, oracle, clips):
    prediction, target = clips
    ours = get_protocol(protocol).metrics[metric](prediction, target).mean().item()
    expected = frame_mean(oracle, prediction.clamp(0, 1) if is_clamped else prediction, target)
    assert ours == pytest.approx(expected, rel=1e-10)


def test_the_same_pair_scores_differently_in_each_protocol(clips):
    metrics = [protocol.metrics["ssim"] for protocol in PROTOCOLS.values() if "ssim" in protocol.metrics]
    scores = [metric(*clips).mean().item() for metric in metrics]
    assert min(abs(a - b) for a, b in itertools.combinations(scores, 2)) > 0.01
    assert max(scores) - min(scores) > 0.05


def smooth(frames):
    """A frame's rows and columns averaged over three."""
    for axis in (-2, -1):
        frames = (np.roll(frames, -1, axis) + frames + np.roll(frames, 1, axis)) / 3
    return frames


@pytest.mark.parametrize(
    ("spoil", "at_least"),
    [
        (smooth, 0.01),
        (lambda picture: picture + 0.05 * np.random.default_rng(1).standard_normal(picture.shape), 0.05),
    ],
)
def test_columns_alone_score_lower_than_windows_on_a_photograph(spoil, at_least):
    """As measured on natural images with scikit-image: blur .873 for .904, noise of 0.05 .601 for .701."""
    photograph = np.moveaxis(rescale(astronaut(), 0.25, anti_aliasing=True, channel_axis=-1), -1, 0)
    pair = torch.from_numpy(spoil(photograph)), torch.from_numpy(photograph)
    columns, windows = (PROTOCOLS[name].metrics["ssim"](*pair).item() for name in ("ppnv2", "mspn"))
    assert at_least < windows - columns < 0.2
    planes, whole = (PROTOCOLS[name].metrics["psnr"](*pair).item() for name in ("ppnv2", "mspn"))
    # The mean of logarithms is above the logarithm of the mean, by little.
    assert 0 < planes - whole < 0.1


def test_lpips_times_100_is_named_so_and_is_100_times_the_distance(clips, monkeypatch):
    def distance(first, second):
        return (first - second).abs().mean((1, 2, 3))

    monkeypatch.setattr(lpips_module, "_shared", {"alex": LPIPS(network=distance)})
    plain = PROTOCOLS["openstl"].metrics["lpips"](clips[0].clamp(0, 1), clips[1])
    scaled = PROTOCOLS["mspn"].metrics["lpips_x100"](clips[0].clamp(0, 1), clips[1])
    # Rescaling to [-1, 1] doubles every difference.
    expected = 2 * (clips[0].clamp(0, 1) - clips[1]).abs().mean((2, 3, 4))
    torch.testing.assert_close(plain, expected)
    torch.testing.assert_close(scaled, 100 * expected)


def test_a_misspelt_protocol_gets_the_nearest_name_and_an_object_is_handed_through():
    with pytest.raises(ValueError, match="did you mean 'openstl'"):
        get_protocol("openslt")
    assert get_protocol(PROTOCOLS["mspn"]) is PROTOCOLS["mspn"]


def test_every_protocol_reports_every_metric_or_its_reason(clips, monkeypatch, tmp_path):
    monkeypatch.setenv("PCVIDEO_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(lpips_module, "_shared", {})
    for name, protocol in PROTOCOLS.items():
        report = evaluate_frames(*clips, name)
        assert report["protocol"] == name
        assert list(report["metrics"]) == list(protocol.metrics)
        missing = [metric for metric, figures in report["metrics"].items() if figures is None]
        assert missing == list(report["unavailable"]) == [metric for metric in protocol.metrics if "lpips" in metric]


def test_copy_last_repeats_the_last_frame_and_black_is_zero():
    context = torch.rand(2, 4, 3, 5, 6)
    assert copy_last(context, 7).shape == black(context, 7).shape == (2, 7, 3, 5, 6)
    for step in range(7):
        assert torch.equal(copy_last(context, 7)[:, step], context[:, 3])
    assert black(context, 7).abs().sum() == 0
    assert set(BASELINES) == {"copy_last", "black"}


@pytest.mark.parametrize("horizon", [0, -1, 2.5, True])
def test_a_horizon_that_is_no_count_is_refused(horizon):
    for baseline in BASELINES.values():
        with pytest.raises((TypeError, ValueError), match="horizon must be a whole number of at least 1"):
            baseline(torch.rand(1, 2, 1, 4, 4), horizon)


def test_a_baseline_without_a_context_frame_is_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        copy_last(torch.rand(1, 0, 1, 4, 4), 2)
    with pytest.raises(ValueError, match=r"\(B, T, C, H, W\)"):
        black(torch.rand(2, 1, 4, 4), 2)

# SPDX-License-Identifier: Apache-2.0
"""Pins the metrics of docs/conventions.md; `test_conventions.py` pins the rest and compares the sentences."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from torch import Tensor

from pcvideo import metrics

PINNED: list[str] = []


def pins(*sentences: str) -> Callable[[Any], Any]:
    """Marks a test with the sentences of the page that it pins."""
    PINNED.extend(sentences)
    return lambda test: test


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """Float64 clips (2, 3, 1, 16, 20); the prediction leaves [0, 1]."""
    generator = torch.Generator().manual_seed(2)
    target = torch.rand(2, 3, 1, 16, 20, generator=generator, dtype=torch.float64)
    return target + 0.3 * torch.randn(target.shape, generator=generator, dtype=torch.float64), target


@pytest.fixture
def fake_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distance in place of the backbone: a tenth of the mean absolute difference of what the network would see."""
    # The attribute pcvideo.metrics.lpips is the function.
    module = importlib.import_module("pcvideo.metrics.lpips")
    network = metrics.LPIPS(network=lambda first, second: (first - second).abs().mean((1, 2, 3)) / 10)
    monkeypatch.setattr(module, "_shared", {"alex": network})


def score(protocol: str, pair: tuple[Tensor, Tensor]) -> dict[str, float]:
    """The means of one protocol."""
    report = metrics.evaluate_frames(*pair, protocol)
    return {name: entry["mean"] for name, entry in report["metrics"].items()}


def skimage_ssim(prediction: np.ndarray, target: np.ndarray, **options: Any) -> float:
    """scikit-image's SSIM of each grey frame, averaged."""
    planes = zip(prediction.reshape(-1, 16, 20), target.reshape(-1, 16, 20), strict=True)
    return float(np.mean([structural_similarity(*plane, **options) for plane in planes]))


@pins("A metric reduces the frame and nothing else: (..., C, H, W) to (...).")
def test_a_metric_keeps_batch_and_time(pair: tuple[Tensor, Tensor]) -> None:
    for metric in (metrics.mse, metrics.mse_mean, metrics.mae, metrics.mae_mean, metrics.psnr, metrics.ssim):
        values = metric(*pair)
        assert values.shape == (2, 3)
        torch.testing.assert_close(metric(pair[0][1, 2], pair[1][1, 2]), values[1, 2])


@pins("`mse` and `mae` are sums over a frame's pixels and channels; `mse_mean` and `mae_mean` are their averages.")
def test_errors_are_sums_and_their_means_stand_beside() -> None:
    prediction, target = np.full((3, 4, 5), 0.75), np.full((3, 4, 5), 0.25)
    frames = torch.from_numpy(prediction), torch.from_numpy(target)
    assert metrics.mse(*frames).item() == pytest.approx(3 * 4 * 5 * 0.25)
    assert metrics.mae(*frames).item() == pytest.approx(3 * 4 * 5 * 0.5)
    assert metrics.mse_mean(*frames).item() == pytest.approx(0.25)
    assert metrics.mae_mean(*frames).item() == pytest.approx(0.5)


@pins("`data_range` is 1 unless it is given; it is never guessed from the values or the dtype.")
def test_the_data_range_is_never_guessed(pair: tuple[Tensor, Tensor]) -> None:
    error = np.mean((pair[0] - pair[1]).numpy() ** 2, axis=(-3, -2, -1))
    for scale in (1.0, 0.1, 255.0):
        scaled = pair[0] * scale, pair[1] * scale
        expected = torch.from_numpy(10 * np.log10(1 / (error * scale**2)))
        torch.testing.assert_close(metrics.psnr(*scaled), expected)
        torch.testing.assert_close(metrics.psnr(*scaled, data_range=scale), torch.from_numpy(10 * np.log10(1 / error)))
        torch.testing.assert_close(metrics.ssim(*scaled, data_range=scale), metrics.ssim(*pair))


@pins("The PSNR of identical frames is infinite, and in a report the mean over such frames is null with the reason.")
def test_identical_frames_are_not_averaged_away(pair: tuple[Tensor, Tensor]) -> None:
    prediction, target = pair
    prediction[0, 1] = target[0, 1]
    assert math.isinf(metrics.psnr(*pair)[0, 1])
    entry = metrics.evaluate_frames(prediction, target, {"psnr": metrics.psnr})["metrics"]["psnr"]
    assert entry["mean"] is None
    assert entry["infinite"] == 1
    assert "infinity" in entry["reason"]
    values = metrics.psnr(*pair)
    assert entry["finite_mean"] == pytest.approx(values[values.isfinite()].mean().item())


@pins("A reported figure is the mean over samples for each step, then over steps, however the samples were batched.")
def test_batches_of_any_size_give_the_same_means() -> None:
    generator = torch.Generator().manual_seed(3)
    prediction, target = (torch.rand(7, 3, 1, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    per_step = np.mean(np.sum((prediction - target).numpy() ** 2, axis=(-3, -2, -1)), axis=0)
    for batch in (7, 3, 1):
        scores = metrics.PerStep({"mse": metrics.mse})
        for start in range(0, 7, batch):
            scores.update(prediction[start : start + batch], target[start : start + batch])
        entry = scores.compute()["mse"]
        assert entry is not None
        assert entry["per_step"] == pytest.approx(per_step.tolist(), rel=1e-12)
        assert entry["mean"] == pytest.approx(per_step.mean(), rel=1e-12)


@pytest.mark.usefixtures("fake_lpips")
@pins(
    "A report names its protocol: `standard`, `mspn`, `ppnv2`, `openstl`, `wavelet_vfi` or `voxels`; the same clips "
    "score differently in each."
)
def test_reports_name_their_protocol(pair: tuple[Tensor, Tensor]) -> None:
    assert sorted(metrics.PROTOCOLS) == ["mspn", "openstl", "ppnv2", "standard", "voxels", "wavelet_vfi"]
    assert [metrics.evaluate_frames(*pair, name)["protocol"] for name in metrics.PROTOCOLS] == list(metrics.PROTOCOLS)
    of_frames = [name for name in metrics.PROTOCOLS if name != "voxels"]
    assert len({round(score(name, pair)["ssim"], 3) for name in of_frames}) == 5
    with pytest.raises(ValueError, match="did you mean 'openstl'"):
        metrics.evaluate_frames(*pair, "openstI")


@pytest.mark.usefixtures("fake_lpips")
@pins(
    "`standard`: predictions clamped to [0, 1]; SSIM with a Gaussian window, sigma 1.5, population covariance, range 1."
)
def test_the_standard_protocol(pair: tuple[Tensor, Tensor]) -> None:
    prediction, target = pair[0].clamp(0, 1).numpy(), pair[1].numpy()
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    scores = score("standard", pair)
    assert scores["mse"] == pytest.approx(np.mean(np.sum((prediction - target) ** 2, axis=(-3, -2, -1))))
    assert scores["ssim"] == pytest.approx(skimage_ssim(prediction, target, **options), rel=1e-12)
    assert scores["lpips"] == pytest.approx(np.mean(2 * np.abs(prediction - target)) / 10)


@pytest.mark.usefixtures("fake_lpips")
@pins("`mspn`: nothing clamped; SSIM with a uniform 7x7 window, sample covariance, range 1; LPIPS times 100.")
def test_the_protocol_of_mspn(pair: tuple[Tensor, Tensor]) -> None:
    prediction, target = (frames.numpy() for frames in pair)
    scores = score("mspn", pair)
    assert scores["mse"] == pytest.approx(np.mean(np.sum((prediction - target) ** 2, axis=(-3, -2, -1))))
    assert scores["ssim"] == pytest.approx(skimage_ssim(prediction, target, data_range=1), rel=1e-12)
    assert scores["lpips_x100"] == pytest.approx(100 * np.mean(2 * np.abs(prediction - target)) / 10)


@pytest.mark.usefixtures("fake_lpips")
@pins("`ppnv2`: as `mspn`, but SSIM along columns alone, and PSNR of each colour plane, averaged.")
def test_the_protocol_of_ppnv2(pair: tuple[Tensor, Tensor]) -> None:
    # Three colour planes, the prediction's further and further off.
    target = pair[1].expand(2, 3, 3, 16, 20)
    colour = target + torch.tensor([0.2, 1.0, 1.5]).view(3, 1, 1) * (pair[0] - pair[1]), target
    prediction, target = (frames.numpy() for frames in colour)
    scores, other = score("ppnv2", colour), score("mspn", colour)
    error = np.mean((prediction - target) ** 2, axis=(-2, -1))
    assert scores["psnr"] == pytest.approx(np.mean(10 * np.log10(1 / error)), rel=1e-12)
    assert scores["psnr"] > other["psnr"] + 1
    columns = skimage_ssim(prediction, target, data_range=1, channel_axis=-1)
    assert scores["ssim"] == pytest.approx(columns, rel=1e-12)
    assert abs(scores["ssim"] - other["ssim"]) > 1e-3
    assert {name: scores[name] for name in scores if name not in ("psnr", "ssim")} == {
        name: other[name] for name in other if name not in ("psnr", "ssim")
    }


@pytest.mark.usefixtures("fake_lpips")
@pins("`openstl`: sums of the unclamped prediction; SSIM with a uniform 7x7 window, sample covariance, range 2.")
def test_the_protocol_of_openstl(pair: tuple[Tensor, Tensor]) -> None:
    prediction, target = (frames.numpy() for frames in pair)
    scores = score("openstl", pair)
    assert scores["mse"] == pytest.approx(np.mean(np.sum((prediction - target) ** 2, axis=(-3, -2, -1))))
    assert scores["mae"] == pytest.approx(np.mean(np.sum(np.abs(prediction - target), axis=(-3, -2, -1))))
    assert scores["ssim"] == pytest.approx(skimage_ssim(prediction.clip(0, 1), target, data_range=2), rel=1e-12)


@pins("`wavelet_vfi`: PSNR and SSIM of middle frames; SSIM with a Gaussian window over rows, columns and colours.")
def test_the_protocol_of_wavelet_vfi(pair: tuple[Tensor, Tensor]) -> None:
    prediction, target = (frames.flatten(0, 1).numpy() for frames in pair)
    scores = score("wavelet_vfi", pair)
    error = np.mean((prediction - target) ** 2, axis=(1, 2, 3))
    assert scores["psnr"] == pytest.approx(np.mean(10 * np.log10(1 / error)))
    smooth = partial(gaussian_filter, sigma=1.5, radius=5, mode="nearest")
    expected = [volume_ssim(one, other, smooth) for one, other in zip(prediction, target, strict=True)]
    assert scores["ssim"] == pytest.approx(np.mean(expected), rel=1e-9)


def volume_ssim(one: np.ndarray, other: np.ndarray, smooth: Callable[[np.ndarray], np.ndarray]) -> float:
    """The formula of Wang et al. 2004, Eq. 13, over three axes."""
    mean, other_mean = smooth(one), smooth(other)
    variances = smooth(one**2) - mean**2 + smooth(other**2) - other_mean**2
    covariance = smooth(one * other) - mean * other_mean
    first, second = 0.01**2, 0.03**2
    numerator = (2 * mean * other_mean + first) * (2 * covariance + second)
    return float((numerator / ((mean**2 + other_mean**2 + first) * (variances + second))).mean())


@pins("A metric that can't be computed here is null, beside the reason.")
def test_a_missing_backbone_is_null_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.import_module("pcvideo.metrics.lpips"), "_shared", {})
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    report = metrics.evaluate_frames(torch.rand(1, 1, 1, 32, 32), torch.rand(1, 1, 1, 32, 32))
    assert report["metrics"]["lpips"] is None
    assert report["unavailable"]["lpips"]
    assert report["metrics"]["mse"]["mean"] > 0


@pins("`copy_last` repeats the last context frame, `black` is zero; `BASELINES` names both.")
def test_the_baselines_predict_nothing_new(pair: tuple[Tensor, Tensor]) -> None:
    context = pair[1]
    copied, dark = (metrics.BASELINES[name](context, 4) for name in ("copy_last", "black"))
    assert np.array_equal(copied.numpy(), np.repeat(context.numpy()[:, -1:], 4, axis=1))
    assert np.array_equal(dark.numpy(), np.zeros((2, 4, 1, 16, 20)))


@pins("`voxels`: the Jaccard distance of voxels above 0.5, 0 where both are empty, and the mean squared error.")
def test_the_protocol_of_voxels() -> None:
    target, prediction = torch.zeros(1, 3, 1, 2, 2, 2), torch.zeros(1, 3, 1, 2, 2, 2)
    # Two voxels of which one is hit, beside a half that is none; then one empty volume; then two.
    target[0, 0, 0, 0, 0] = 1
    prediction[0, 0, 0, 0, 0, 0], prediction[0, 0, 0, 1] = 0.6, 0.5
    target[0, 1] = 1
    found = metrics.evaluate_frames(prediction, target, "voxels")["metrics"]
    assert found["jaccard"]["per_step"] == pytest.approx([0.5, 1, 0])
    assert found["mse_mean"]["per_step"] == pytest.approx([(0.4**2 + 1 + 4 * 0.25) / 8, 1, 0])

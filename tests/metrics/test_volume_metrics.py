# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jaccard
from torch import Tensor

from pcvideo.metrics import (
    PerStep,
    VolumeScores,
    copy_last,
    jaccard_distance,
    jaccard_distance_pooled,
    voxel_error,
)


def volumes(seed: int, shape: tuple[int, ...] = (2, 3, 1, 4, 5, 6)) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_the_jaccard_distance_of_a_frame_is_that_of_scipy() -> None:
    prediction, target = volumes(0), volumes(1)
    values = jaccard_distance(prediction, target)
    assert values.shape == (2, 3)
    for batch, time in itertools.product(range(2), range(3)):
        pair = [frames[batch, time].flatten().numpy() > 0.5 for frames in (prediction, target)]
        assert values[batch, time].item() == pytest.approx(jaccard(*pair), abs=1e-6)


def test_two_empty_frames_are_alike_and_an_empty_one_is_as_far_as_can_be_from_any_other() -> None:
    empty, one = torch.zeros(1, 1, 1, 4, 4, 4), torch.zeros(1, 1, 1, 4, 4, 4)
    one[..., 0, 0, 0] = 1
    assert jaccard_distance(empty, empty).item() == 0
    assert jaccard_distance(empty, one).item() == 1
    assert jaccard_distance(one, one).item() == 0


def test_a_probability_of_one_half_is_not_set() -> None:
    half = torch.full((1, 1, 1, 2, 2, 2), 0.5)
    assert jaccard_distance(half, torch.ones_like(half)).item() == 1
    assert jaccard_distance(half, torch.ones_like(half), threshold=0.4).item() == 0


def test_the_pooled_distance_counts_voxels_of_all_frames_together() -> None:
    prediction, target = volumes(2), volumes(3)
    for batch in range(2):
        pair = [frames[batch].flatten().numpy() > 0.5 for frames in (prediction, target)]
        assert jaccard_distance_pooled(prediction, target)[batch].item() == pytest.approx(jaccard(*pair), abs=1e-6)


def test_images_are_scored_as_volumes_are() -> None:
    prediction, target = volumes(0, (2, 3, 1, 8, 9)), volumes(1, (2, 3, 1, 8, 9))
    assert torch.equal(
        jaccard_distance(prediction, target), jaccard_distance(prediction[..., None, :], target[..., None, :])
    )


def test_nan_gives_nan_for_its_frame_alone() -> None:
    prediction = volumes(0)
    prediction[1, 2, 0, 0, 0, 0] = torch.nan
    values = jaccard_distance(prediction, volumes(1))
    assert values.isnan().nonzero().tolist() == [[1, 2]]


def test_pairs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="same shape"):
        jaccard_distance(volumes(0), volumes(1)[:1])
    with pytest.raises(TypeError, match="float"):
        jaccard_distance(volumes(0) > 0.5, volumes(1) > 0.5)
    with pytest.raises(ValueError, match=r"\(B, T, C"):
        jaccard_distance(torch.zeros(2, 2, 2), torch.zeros(2, 2, 2))


def test_the_report_is_what_loops_over_frames_give_however_they_were_batched() -> None:
    frames = (volumes(0, (3, 5, 1, 4, 4, 4)) > 0.5).float()
    one_step, long_term = volumes(1, (3, 4, 1, 4, 4, 4)), volumes(2, (3, 2, 1, 4, 4, 4))
    scores = VolumeScores(context=3, horizon=2)
    scores.update(frames[:1], one_step[:1], long_term[:1])
    scores.update(frames[1:], one_step[1:], long_term[1:])
    report = scores.report()
    x, one, long = (np.asarray(part[:, :, 0]) for part in (frames, one_step, long_term))

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([jaccard(p.ravel() > 0.5, q.ravel() > 0.5) for p, q in zip(a, b, strict=True)]))

    def error(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean((a - b) ** 2))

    pairs = {
        ("one_step", "prediction"): [(one[:, t], x[:, t + 1]) for t in range(4)],
        ("one_step", "null"): [(x[:, t], x[:, t + 1]) for t in range(4)],
        ("one_step", "input"): [(one[:, t], x[:, t]) for t in range(4)],
        ("long_term", "prediction"): [(long[:, k], x[:, 3 + k]) for k in range(2)],
        ("long_term", "null"): [(x[:, 2 + k], x[:, 3 + k]) for k in range(2)],
        ("long_term", "input"): [(long[:, k], x[:, 2 + k]) for k in range(2)],
        ("long_term", "copy"): [(x[:, 2], x[:, 3 + k]) for k in range(2)],
    }
    for (test, kind), steps in pairs.items():
        for metric, measure in (("jaccard", distance), ("mse_mean", error)):
            expected = [measure(*pair) for pair in steps]
            assert report[test][kind][metric]["per_step"] == pytest.approx(expected, abs=1e-6)
            assert report[test][kind][metric]["mean"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert report["samples"] == 3


def test_a_report_of_nothing_and_clips_that_are_too_short_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to report"):
        VolumeScores().report()
    with pytest.raises(ValueError, match="context \\+ horizon = 10"):
        VolumeScores().update(volumes(0), volumes(0)[:, :2], volumes(0))


def test_per_step_and_copy_last_take_volumes() -> None:
    frames = volumes(4)
    copied = copy_last(frames[:, :1], 2)
    assert torch.equal(copied[:, 1], frames[:, 0])
    scores = PerStep({"jaccard": jaccard_distance, "mse_mean": voxel_error})
    scores.update(copied, frames[:, 1:])
    expected = ((frames[:, :1] - frames[:, 1:]) ** 2).mean((0, 2, 3, 4, 5))
    assert scores.compute()["mse_mean"]["per_step"] == pytest.approx(expected.tolist(), rel=1e-5)


def test_the_protocol_of_voxels_is_scipys_distance_and_the_mean_squared_error_and_the_report_names_it() -> None:
    prediction, target = volumes(5), volumes(6).round()
    scores = PerStep("voxels")
    scores.update(prediction, target)
    metrics = scores.report()["metrics"]
    pair = [frames.flatten(2).numpy() for frames in (prediction, target)]
    for time in range(3):
        one, other = (frames[:, time] for frames in pair)
        distances = [jaccard(one[batch] > 0.5, other[batch] > 0.5) for batch in range(2)]
        assert metrics["jaccard"]["per_step"][time] == pytest.approx(np.mean(distances), abs=1e-6)
        assert metrics["mse_mean"]["per_step"][time] == pytest.approx(np.mean((one - other) ** 2), rel=1e-5)
    whole = VolumeScores(context=1, horizon=1)
    whole.update(target, prediction[:, 1:], prediction[:, 1:2])
    assert whole.report()["protocol"] == "voxels"

# SPDX-License-Identifier: Apache-2.0
"""Accumulation per step: exact over uneven batches, merges, saved states and ranks; honest about what is no number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pcvideo.metrics import MetricUnavailable, PerStep, evaluate_frames, mae, mse, psnr, ssim

METRICS = {"mse": mse, "mae": mae, "ssim": ssim}


def clips(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, count, 3, 1, 12, 12, generator=generator, dtype=torch.float64).unbind()


def numpy_means(prediction: torch.Tensor, target: torch.Tensor) -> tuple[float, list[float]]:
    errors = ((prediction - target).numpy() ** 2).sum((2, 3, 4))
    return errors.mean(), list(errors.mean(0))


def lost(prediction, target):
    raise MetricUnavailable("no backbone here")


def test_means_are_over_samples_for_each_step_and_then_over_steps():
    prediction, target = clips(5)
    figures = evaluate_frames(prediction, target, METRICS)["metrics"]["mse"]
    mean, per_step = numpy_means(prediction, target)
    assert figures["mean"] == pytest.approx(mean, rel=1e-13)
    assert figures["per_step"] == pytest.approx(per_step, rel=1e-13)


def test_uneven_batches_give_the_mean_over_samples_not_over_batches():
    prediction, target = clips(7)
    scores = PerStep(METRICS)
    for part in (slice(0, 1), slice(1, 5), slice(5, 7)):
        scores.update(prediction[part], target[part])
    mean, per_step = numpy_means(prediction, target)
    assert scores.samples == 7
    assert scores.compute()["mse"]["mean"] == pytest.approx(mean, rel=1e-13)
    assert scores.compute()["mse"]["per_step"] == pytest.approx(per_step, rel=1e-13)


def test_merged_accumulators_and_a_state_that_went_through_json_give_the_same_means():
    prediction, target = clips(6)
    parts = [PerStep(METRICS) for _ in range(3)]
    parts[0].update(prediction[:1], target[:1])
    parts[1].update(prediction[1:], target[1:])
    parts[0].merge(parts[1])
    parts[0].merge(parts[2])  # an empty one
    restored = PerStep(METRICS)
    restored.load_state_dict(json.loads(json.dumps(parts[0].state_dict())))
    assert restored.compute() == parts[0].compute()
    assert restored.compute()["mse"]["mean"] == pytest.approx(numpy_means(prediction, target)[0], rel=1e-13)


@pytest.mark.parametrize("batch", [1, 65])
def test_float32_values_are_added_in_float64(batch):
    # In float32 each 1 is lost beside 2**25.
    prediction = torch.tensor([2.0**25] + [1.0] * 64).reshape(65, 1, 1, 1, 1)
    scores = PerStep({"mae": mae})
    for part in prediction.split(batch):
        scores.update(part, torch.zeros_like(part))
    assert scores.compute()["mae"]["mean"] == (2**25 + 64) / 65


def test_an_unavailable_metric_is_asked_once_and_is_null_beside_its_reason():
    asked = []

    def counting(prediction, target):
        asked.append(1)
        lost(prediction, target)

    scores = PerStep({"mse": mse, "lpips": counting})
    for _ in range(3):
        scores.update(*clips(2))
    report = json.loads(json.dumps(scores.report(), allow_nan=False))
    assert len(asked) == 1
    assert report["metrics"]["lpips"] is None
    assert report["unavailable"] == {"lpips": "no backbone here"}
    assert report["metrics"]["mse"]["mean"] == pytest.approx(numpy_means(*clips(2))[0])


def test_a_metric_lost_on_one_side_of_a_merge_is_lost():
    whole, broken = PerStep({"mse": mse}), PerStep({"mse": lost})
    whole.update(*clips(2))
    broken.update(*clips(2))
    for first, second in ((whole, broken), (broken, whole)):
        total = PerStep({"mse": mse})
        total.merge(first)
        total.merge(second)
        assert total.compute() == {"mse": None}
        assert total.unavailable == {"mse": "no backbone here"}


def test_frames_smaller_than_the_ssim_window_make_ssim_null_not_the_report():
    small = torch.rand(1, 2, 1, 8, 8)
    report = evaluate_frames(small, small.flip(-1), {"mse": mse, "ssim": ssim})
    assert report["metrics"]["ssim"] is None
    assert "11x11" in report["unavailable"]["ssim"]
    assert report["metrics"]["mse"]["mean"] > 0


def test_an_infinite_psnr_makes_the_mean_null_with_a_reason_and_the_finite_mean_is_named_as_such():
    prediction, target = clips(4)
    prediction[1, 2] = target[1, 2]
    figures = evaluate_frames(prediction, target, {"psnr": psnr})["metrics"]["psnr"]
    json.dumps(figures, allow_nan=False)
    values = psnr(prediction, target).numpy()
    assert figures["mean"] is None
    assert figures["per_step"] == [pytest.approx(values[:, 0].mean()), pytest.approx(values[:, 1].mean()), None]
    assert figures["finite_mean"] == pytest.approx(values[np.isfinite(values)].mean())
    assert (figures["infinite"], figures["nan"]) == (1, 0)
    assert "identical" in figures["reason"]


def test_a_nan_in_the_prediction_is_counted_and_never_averaged_away():
    prediction, target = clips(4)
    prediction[0, 0, 0, 3, 3] = float("nan")
    figures = evaluate_frames(prediction, target, "standard")["metrics"]["mse"]
    assert figures["mean"] is None
    assert figures["nan"] == 1
    assert figures["per_step"][0] is None
    assert figures["per_step"][1] is not None


def test_unfit_batches_are_refused_and_leave_the_sums_alone():
    prediction, target = clips(2)
    scores = PerStep("standard")
    scores.update(prediction, target)
    before = scores.state_dict()
    with pytest.raises(ValueError, match="same horizon T=3, got 2"):
        scores.update(prediction[:, :2], target[:, :2])
    with pytest.raises(ValueError, match=r"\(B, T, C, H, W\)"):
        scores.update(prediction[0], target[0])
    with pytest.raises(ValueError, match="not empty"):
        scores.update(prediction[:0], target[:0])
    with pytest.raises(ValueError, match=r"target: frame 0 ranges over"):
        scores.update(prediction, 255 * target)
    with pytest.raises(TypeError, match="target must be a float tensor"):
        scores.update(prediction, (255 * target).byte())
    assert scores.state_dict() == before


def test_a_metric_of_ones_own_that_reduces_too_much_is_told_the_shape():
    with pytest.raises(ValueError, match=r"'mine' must return one value per frame, shape \(2, 3\)"):
        PerStep({"mine": lambda p, t: (p - t).mean()}).update(*clips(2))


def test_states_of_other_metrics_and_empty_accumulators_are_refused():
    scores = PerStep(METRICS)
    with pytest.raises(ValueError, match="no samples yet"):
        scores.compute()
    with pytest.raises(ValueError, match="at least one metric"):
        PerStep({})
    other = PerStep({"psnr": psnr})
    other.update(*clips(1))
    with pytest.raises(ValueError, match="unknown key 'psnr'"):
        scores.merge(other)
    with pytest.raises(ValueError, match="belongs to the protocol 'custom'"):
        PerStep("mspn").load_state_dict(other.state_dict())


def _rank(rank: int, folder: str) -> None:
    """One of two ranks: five samples against two, one metric that only rank 0 can compute; then none on rank 1."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    prediction, target = clips(7)
    uneven = PerStep({"mse": mse, "lpips": mae if rank == 0 else lost})
    for part in [slice(0, 3), slice(3, 5)] if rank == 0 else [slice(5, 7)]:
        uneven.update(prediction[part], target[part])
    uneven.all_reduce()
    one_sided = PerStep({"mse": mse})
    if rank == 0:
        one_sided.update(prediction, target)
    one_sided.all_reduce()
    refused = ""
    try:
        one_sided.all_reduce()
    except RuntimeError as error:
        refused = str(error)
    result = {"uneven": uneven.report(), "one_sided": one_sided.report(), "refused": refused}
    Path(folder, f"{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


def test_ranks_with_uneven_shares_agree_on_the_mean_over_all_samples(tmp_path):
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    mean, per_step = numpy_means(*clips(7))
    assert first == second
    for case in ("uneven", "one_sided"):
        assert first[case]["samples"] == 7
        assert first[case]["metrics"]["mse"]["mean"] == pytest.approx(mean, rel=1e-13)
        assert first[case]["metrics"]["mse"]["per_step"] == pytest.approx(per_step, rel=1e-13)
    assert first["uneven"]["metrics"]["lpips"] is None
    assert first["uneven"]["unavailable"] == {"lpips": "no backbone here"}
    assert "count samples twice" in first["refused"]


def test_without_a_process_group_all_reduce_changes_nothing():
    scores = PerStep(METRICS)
    scores.update(*clips(2))
    before = scores.compute()
    assert scores.all_reduce().compute() == before

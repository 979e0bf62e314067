# SPDX-License-Identifier: Apache-2.0
"""Frame interpolation scored: every figure beside averaging the outer frames and copying the one before."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from pcvideo._checks import describe
from pcvideo.metrics.per_step import PerStep
from pcvideo.metrics.protocols import Protocol

__all__ = ["average_frames", "copy_before", "score_doubling", "score_middles"]


def average_frames(before: Tensor, after: Tensor) -> Tensor:
    """The mean of both frames: what costs nothing, and is right where nothing moves."""
    return (before + after) / 2


def copy_before(before: Tensor, after: Tensor) -> Tensor:
    """The frame before, as a player without interpolation shows it."""
    return before


_BASELINES = {"average_frames": average_frames, "copy_before": copy_before}


@torch.no_grad()
def score_middles(
    triplets: Iterable[Tensor],
    middle: Callable[[Tensor, Tensor], Tensor] | Mapping[str, Callable[[Tensor, Tensor], Tensor]],
    protocol: str | Protocol = "standard",
    *,
    leave_out: tuple[str, ...] = ("lpips",),
) -> dict[str, Any]:
    """Score a way to find middle frames on triplets whose middle frame is known.

    Args:
        triplets: batches (B, 3, C, H, W), float in [0, 1].
        middle: `middle(before, after)`, (B, C, H, W) each, gives the frame between; an interpolator, for one. Several
            by name stand in the report under their names, a single one as "model".
        protocol: a `Protocol` or the name of one.
        leave_out: metrics of it that are not computed; LPIPS takes longer than all the others.

    Returns:
        `{"protocol", "samples", "middles": {"model" | "average_frames" | "copy_before": {metric: mean or None}},
        "unavailable": {metric: reason}, "milliseconds": {"model" | ...: median of the calls}}`. A mean that is not
        finite (the PSNR of identical frames) is None. A call on a GPU that does not wait for its end seems short.

    Raises:
        TypeError, ValueError: no triplets, or as `PerStep.update`.
    """
    ways = {**(middle if isinstance(middle, Mapping) else {"model": middle}), **_BASELINES}
    if len(ways) == len(_BASELINES):
        raise ValueError(f"middle must hold at least one way by a name other than {', '.join(_BASELINES)}, got none")
    scores = _scores(ways, protocol, leave_out)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for batch in triplets:
        if not isinstance(batch, Tensor) or batch.ndim != 5 or batch.shape[1] != 3:
            raise ValueError(f"triplets must be batches (B, 3, C, H, W), got {describe(batch)}")
        before, truth, after = batch.unbind(1)
        for name, way in ways.items():
            started = time.perf_counter()
            found = way(before, after)
            seconds[name].append(time.perf_counter() - started)
            scores[name].update(found[:, None].float(), truth[:, None])
    milliseconds = {name: 1e3 * statistics.median(each) for name, each in seconds.items() if each}
    return {**_report(scores), "milliseconds": milliseconds}


@torch.no_grad()
def score_doubling(
    clips: Iterable[Tensor],
    double: Callable[[Tensor], Tensor],
    protocol: str | Protocol = "standard",
    *,
    leave_out: tuple[str, ...] = ("lpips",),
) -> dict[str, Any]:
    """Score a way to double the frames of whole clips, on every second frame of clips that have them.

    For what carries a state through a clip; the figures are comparable with those of `score_middles` on the triplets
    of the same clips.

    Args:
        clips: (T, C, H, W), float in [0, 1], of three frames at least, of any lengths; an even last frame is not used.
        double: `double(frames)`, (1, n, C, H, W), gives the n - 1 frames between them, (1, n - 1, C, H, W).
        protocol, leave_out: as in `score_middles`.

    Returns:
        as `score_middles`, without the times; samples are middle frames.

    Raises:
        TypeError, ValueError: no clips, or too short ones, or as `PerStep.update`.
    """
    scores = _scores(("model", "average_frames", "copy_before"), protocol, leave_out)
    for clip in clips:
        if not isinstance(clip, Tensor) or clip.ndim != 4 or len(clip) < 3:
            raise ValueError(f"clips must be (T, C, H, W) of three frames at least, got {describe(clip)}")
        truth = clip[1:-1:2]
        given = clip[::2][: len(truth) + 1]
        middles = double(given[None])
        if middles.shape != (1, *truth.shape):
            raise ValueError(f"double must give {(1, *truth.shape)} for {len(given)} frames, got {describe(middles)}")
        before, after = given[:-1], given[1:]
        found = {
            "model": middles[0].float().clamp(0, 1),
            "average_frames": average_frames(before, after),
            "copy_before": copy_before(before, after),
        }
        for name, frames in found.items():
            # One at a time: the metrics of a whole clip at once would hold it many times over.
            for one, true in zip(frames, truth, strict=True):
                scores[name].update(one[None, None], true[None, None])
    return _report(scores)


def _scores(names: Iterable[str], protocol: str | Protocol, leave_out: tuple[str, ...]) -> dict[str, PerStep]:
    scores = {name: PerStep(protocol) for name in names}
    for score in scores.values():
        for metric in leave_out:
            score.unavailable[metric] = "left out"
    return scores


def _report(scores: dict[str, PerStep]) -> dict[str, Any]:
    first = next(iter(scores.values()))
    if not first.samples:
        raise ValueError("there must be at least one batch or clip to score, got no samples")
    means = {name: {metric: figures and figures["mean"] for metric, figures in score.compute().items()}
             for name, score in scores.items()}  # fmt: skip
    return {
        "protocol": first.protocol.name,
        "samples": first.samples,
        "middles": means,
        "unavailable": dict(first.unavailable),
    }

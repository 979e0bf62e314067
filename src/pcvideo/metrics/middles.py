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

__all__ = ["average_frames", "copy_before", "score_middles"]


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
    scores = {name: PerStep(protocol) for name in ways}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for batch in triplets:
        if not isinstance(batch, Tensor) or batch.ndim != 5 or batch.shape[1] != 3:
            raise ValueError(f"triplets must be batches (B, 3, C, H, W), got {describe(batch)}")
        before, truth, after = batch.unbind(1)
        for name, way in ways.items():
            for metric in leave_out:
                scores[name].unavailable.setdefault(metric, "left out")
            started = time.perf_counter()
            found = way(before, after)
            seconds[name].append(time.perf_counter() - started)
            scores[name].update(found[:, None].float(), truth[:, None])
    first = next(iter(scores.values()))
    if not first.samples:
        raise ValueError("triplets must hold at least one batch, got no samples")
    means = {name: {metric: figures and figures["mean"] for metric, figures in score.compute().items()}
             for name, score in scores.items()}  # fmt: skip
    return {
        "protocol": first.protocol.name,
        "samples": first.samples,
        "middles": means,
        "unavailable": dict(first.unavailable),
        "milliseconds": {name: 1e3 * statistics.median(each) for name, each in seconds.items()},
    }

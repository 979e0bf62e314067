# SPDX-License-Identifier: Apache-2.0
"""How well `pcvideo interpolate` does: frames that are there are found again, and what that costs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from pcvideo._checks import check_int
from pcvideo.metrics import score_middles
from pcvideo.models import Interpolator, WaveletVFI

__all__ = ["add_scoring", "compare", "tell_scores"]

# Multiplications are counted on so many pairs: it takes as long again as finding the frames.
_COUNTED = 4
_COSTS = {"milliseconds": "ms", "gmac": "GMAC", "gmac_paper": "GMAC, paper's"}


def add_scoring(parser: Any) -> None:
    """Add the options that say what is told."""
    parser.add_argument(
        "--each-threshold", action="store_true", help="compare all thresholds of a WaveletVFI beside its own choice"
    )
    parser.add_argument("--cost", action="store_true", help="tell milliseconds and multiplications, too")
    parser.add_argument("--lpips", action="store_true", help="compute LPIPS, which takes longer than all else")


def compare(arguments: argparse.Namespace, model: Interpolator, triplets: Iterator[Tensor]) -> dict[str, Any]:
    """The figures of triplets (3, C, H, W), for the command's result."""
    if (arguments.each_threshold or arguments.cost) and not isinstance(model, WaveletVFI):
        raise ValueError(
            f"--each-threshold and --cost are for a WaveletVFI, and {arguments.model} is a {type(model).__name__}"
        )
    most = None if arguments.clips is None else check_int("--clips", arguments.clips)
    ways = {name: partial(_middle, model, threshold) for name, threshold in _thresholds(arguments, model).items()}
    kept: list[Tensor] = []

    def batches() -> Iterator[Tensor]:
        for triplet in islice(triplets, most):
            if arguments.cost and len(kept) < _COUNTED:
                kept.append(triplet)
            yield triplet[None]

    started = time.perf_counter()
    left_out = () if arguments.lpips else ("lpips",)
    report = score_middles(batches(), ways, arguments.protocol, leave_out=left_out)
    seconds = round(time.perf_counter() - started, 3)
    result = {"model": str(arguments.model), "clip": arguments.clip, **report, "seconds": seconds}
    timed = result.pop("milliseconds")
    if arguments.cost:
        counts = {name: _count(model, threshold, kept) for name, threshold in _thresholds(arguments, model).items()}
        result["costs"] = {name: {"milliseconds": timed[name], **count} for name, count in counts.items()}
    return result


def tell_scores(result: dict[str, Any]) -> None:
    """The figures, for people."""
    print(
        f"{result['model']} on {result['clip']}: {result['samples']} middle frames, protocol {result['protocol']}, "
        f"in {result['seconds']:.1f} s\n"
    )
    costs = result.get("costs", {})
    names = [name for name in next(iter(result["middles"].values())) if name not in result["unavailable"]]
    rows = [["", *names, *(_COSTS.values() if costs else ())]]
    for way, figures in result["middles"].items():
        cells = ["-" if figures[name] is None else f"{figures[name]:.4f}" for name in names]
        if costs:
            cells += [f"{costs[way][name]:.4g}" if way in costs else "-" for name in _COSTS]
        rows.append([way.replace("_", " "), *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for name, reason in result["unavailable"].items():
        if reason != "left out":
            print(f"note: no {name}: {reason}")


def _thresholds(arguments: argparse.Namespace, model: Interpolator) -> dict[str, float | None]:
    """What is compared, by name: the threshold that was asked for, or all of them."""
    thresholds: dict[str, float | None] = {"model": arguments.threshold}
    if arguments.each_threshold and isinstance(model, WaveletVFI):
        thresholds |= {f"threshold {value:g}": value for value in model.thresholds}
    return thresholds


@torch.no_grad()
def _middle(model: Interpolator, threshold: float | None, before: Tensor, after: Tensor) -> Tensor:
    """The middle frame of frames of any size, on the CPU."""
    height, width = before.shape[-2:]
    pair = model.pad(before.to(model.device)), model.pad(after.to(model.device))
    found: Callable[..., Tensor] = model.middle if threshold is None else partial(model, threshold=threshold)
    return found(*pair)[..., :height, :width].cpu()


def _count(model: Any, threshold: float | None, triplets: list[Tensor]) -> dict[str, float]:
    """Billions of multiplications for a pair: those made, and those by the paper's count."""
    pairs = [[model.pad(frame[None].to(model.device)) for frame in (clip[0], clip[2])] for clip in triplets]
    macs = [model.count_macs(*pair, threshold) for pair in pairs]
    made, paper = (sum(count) / len(macs) / 1e9 for count in zip(*macs, strict=True))
    return {"gmac": made, "gmac_paper": paper}

# SPDX-License-Identifier: Apache-2.0
"""Score frame doublers and colourisers on held-out videos, beside what costs nothing, one row for each kind of network.

    python benchmarks/score_fusion.py --data FOLDER --doubling default=runs/a/best,runs/b/best legacy=runs/c/best \
        --colour "keeps luminance=runs/d/best" published=runs/e/best

A name has one folder of weights for each seed, or names of published weights; a figure is the mean over them, and
behind it, for two or more, the lowest and the highest. Doublers are given every second frame of whole clips in grey,
and scored on the others, beside repeating the frame before and the blend of both; colourisers are given the luma of
single frames, beside leaving them grey. `examples/training/fusion.py` trains both.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from statistics import mean
from typing import Any

import torch
from torch import Tensor

import pcvideo
from pcvideo.data import VideoFolder
from pcvideo.metrics import score_colours, score_doubling
from pcvideo.video_io import iter_frames

# Of each metric the column's name, the number its values are multiplied by, and the decimals that are shown.
Columns = dict[str, tuple[str, float, int]]
_COMMON: Columns = {"psnr": ("PSNR", 1, 2), "ssim": ("SSIM", 1, 4), "lpips": ("LPIPS", 1, 4)}
DOUBLING: Columns = {**_COMMON, "mse_mean": ("MSE x 1e4", 1e4, 3)}
COLOUR: Columns = {"ciede2000": ("CIEDE2000", 1, 2), **_COMMON}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of videos")
    parser.add_argument("--include", nargs="+", default=["walk", "want", "yes", "thanks"], help="those to score on")
    parser.add_argument("--doubling", nargs="*", default=[], metavar="NAME=WEIGHTS,...")
    parser.add_argument("--colour", nargs="*", default=[], metavar="NAME=WEIGHTS,...")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="resize to (default: their own)")
    parser.add_argument("--stride", type=int, default=4, help="colours: every so many frames (default: %(default)s)")
    parser.add_argument("--lpips", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tables = {}
    if options.doubling:
        tables["frames between"] = doubling(options)
    if options.colour:
        tables["colours"] = colours(options)
    if options.json:
        print(json.dumps(tables, indent=2))
        return
    for name, table in tables.items():
        show(name, table, DOUBLING if name == "frames between" else COLOUR)


def doubling(options: argparse.Namespace) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, folders in named(options.doubling):
        seeds = []
        for folder in folders:
            model = pcvideo.from_pretrained(folder)
            report = score_doubling(clips(options), through(model), leave_out=() if options.lpips else ("lpips",))
            seeds.append(report["middles"]["model"])
            rows |= {
                "repetition": [report["middles"]["copy_before"]],
                "blend": [report["middles"]["average_frames"]],
                "samples": report["samples"],
                "unavailable": report["unavailable"],
            }
        rows[name] = seeds
    return rows


def through(model: Any) -> Any:
    """The model's frames between those of a clip of any size."""

    def double(frames: Tensor) -> Tensor:
        if not isinstance(model, pcvideo.FrameDoubler):
            return model.interpolate(frames, cut=None)[:, 1::2]
        # As `forward`, without the activations of a whole clip at once.
        state, middles = None, []
        height, width = frames.shape[-2:]
        for time in range(frames.shape[1] - 1):
            before, after = model.pad(frames[:, time]), model.pad(frames[:, time + 1])
            state = model.init_state(before) if state is None else state
            middle, state = model.step(before, after, state)
            middles.append(middle[..., :height, :width])
        return torch.stack(middles, dim=1)

    return double


def clips(options: argparse.Namespace) -> Iterator[Tensor]:
    """The whole clips in grey."""
    size = options.size and tuple(options.size)
    folder = VideoFolder(options.data, length=3, include=options.include, channels=1, size=size)
    for path in sorted({str(window.path) for window in folder.windows}):
        yield torch.stack(list(iter_frames(path, channels=1, size=size, to_grey=True)))


def colours(options: argparse.Namespace) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    size = options.size and tuple(options.size)
    frames = VideoFolder(options.data, length=1, stride=options.stride, include=options.include, size=size)
    for name, folders in named(options.colour):
        seeds = []
        for folder in folders:
            model = pcvideo.from_pretrained(folder)
            report = score_colours((frames[index] for index in range(len(frames))), model, lpips=options.lpips)
            seeds.append(report["colours"]["model"])
            rows |= {
                "grey": [report["colours"]["grey"]],
                "samples": report["samples"],
                "unavailable": report["unavailable"],
            }
        rows[name] = seeds
    return rows


def named(arguments: list[str]) -> Iterator[tuple[str, list[str]]]:
    for argument in arguments:
        name, folders = argument.split("=", 1)
        yield name, folders.split(",")


def show(title: str, rows: dict[str, Any], columns: Columns) -> None:
    samples, unavailable = rows.pop("samples"), rows.pop("unavailable")
    print(f"\n{title}, {samples} frames\n")
    print("| | seeds | " + " | ".join(words for words, _, _ in columns.values()) + " |")
    print("|---" * (len(columns) + 2) + "|")
    for name, seeds in rows.items():
        cells = [
            figure([seed.get(key) for seed in seeds], scale, places) for key, (_, scale, places) in columns.items()
        ]
        print(f"| {name} | {len(seeds)} | {' | '.join(cells)} |")
    for metric, reason in unavailable.items():
        print(f"\n{metric}: {reason}")


def figure(values: list[float | None], scale: float, places: int) -> str:
    known = [scale * value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ({min(known):.{places}f} to {max(known):.{places}f})" if len(known) > 1 else ""
    return f"{mean(known):.{places}f}{spread}"


if __name__ == "__main__":
    main()

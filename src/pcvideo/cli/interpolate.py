# SPDX-License-Identifier: Apache-2.0
"""`pcvideo interpolate`: a video with more frames a second, or how well the frames between are found."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcvideo import hub
from pcvideo._checks import check_int, check_number
from pcvideo.cli._common import add_command, add_reading, device_of, print_json, set_threads, what_it_does
from pcvideo.cli._middles import add_scoring, compare, tell_scores
from pcvideo.data import TripletFolder
from pcvideo.data.triplets import LAYOUTS
from pcvideo.metrics import PROTOCOLS
from pcvideo.models import Interpolator, WaveletVFI
from pcvideo.models._interpolator import FACTORS
from pcvideo.video_io import CUT, OpenedFrames, open_frames, write_video

__all__ = ["add_parser", "run"]

_DESCRIPTION = """Put frames between the frames of a clip, so that it moves more smoothly.

Every frame stays where its time is: T frames become (T - 1) * FACTOR + 1, at FACTOR times the rate. Where the scene
changes, frames are repeated instead. The video is read and written frame by frame, in constant memory, of any size;
sound is not taken over.

With --check nothing is written: every second frame is taken away, found again from its neighbours, and compared, beside
the average of these and a copy of the one before. With --triplets, CLIP is a folder of triplets in that layout."""

_EPILOG = """examples:
  pcvideo interpolate walk.mkv --out smooth.mp4
  pcvideo interpolate walk.mkv --factor 4 --model runs/mine/best
  pcvideo interpolate walk.mkv --check --each-threshold --cost --lpips
  pcvideo interpolate vimeo_triplet --triplets vimeo90k --split test --protocol wavelet_vfi
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    summary = "put frames between the frames of a clip"
    parser = add_command(commands, "interpolate", run, summary=summary, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("clip", metavar="CLIP", help="video file, GIF, folder of pictures, .npy, .npz or .pt")
    parser.add_argument("--model", default="wavelet-vfi", help="name or folder of weights (default: %(default)s)")
    parser.add_argument("--factor", type=int, default=2, choices=FACTORS, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="video to write (default: CLIP's name with -xFACTOR.mp4, here)")
    parser.add_argument(
        "--threshold", type=float, help="a higher one saves time; 0: all detail (default: by the picture)"
    )
    parser.add_argument(
        "--cut", type=float, default=CUT, help="change that is one of scene (default: %(default)s; 1: none)"
    )
    parser.add_argument("--rate", type=float, help="frames a second of CLIP, where it doesn't tell (default: 25)")
    parser.add_argument("--json", action="store_true", help="print the result as a JSON object, and nothing else")
    add_reading(parser, "how the clip is read")
    scoring = parser.add_argument_group("how well it does")
    scoring.add_argument("--check", action="store_true", help="find every second frame of CLIP, and compare")
    scoring.add_argument("--triplets", choices=tuple(LAYOUTS), help="CLIP is a folder in this layout; compare")
    scoring.add_argument("--split", choices=("train", "test"), help="of a layout with lists")
    scoring.add_argument("--clips", type=int, help="compare so many triplets at most (default: all)")
    add_scoring(scoring)
    scoring.add_argument("--protocol", default="standard", choices=tuple(PROTOCOLS), help="(default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")


def run(arguments: argparse.Namespace) -> None:
    """Write the video, or compare, and say what came out."""
    check_number("--cut", arguments.cut, minimum=0, maximum=1)
    set_threads(arguments.threads)
    model = _load(arguments.model, device_of(arguments.device))
    if arguments.threshold is not None:
        check_number("--threshold", arguments.threshold, minimum=0)
        if not isinstance(model, WaveletVFI):
            raise ValueError(f"--threshold is for a WaveletVFI, and {arguments.model} is a {type(model).__name__}")
    if arguments.check or arguments.triplets:
        triplets = _of_folder(arguments) if arguments.triplets else _of_clip(arguments, model.in_channels)
        result = compare(arguments, model, triplets)
    else:
        result = _write(arguments, model)
    print_json(result) if arguments.json else _tell(arguments, result)


def _load(name: str, device: torch.device) -> Interpolator:
    model: Any = hub.from_pretrained(name, device=device)
    if not isinstance(model, Interpolator):
        raise ValueError(f"{name} is a {type(model).__name__}, which {what_it_does(model)}")
    return model


def _write(arguments: argparse.Namespace, model: Interpolator) -> dict[str, Any]:
    """Read, interpolate and write, one frame after the other."""
    out = arguments.out or Path(f"{Path(arguments.clip).stem}-x{arguments.factor}.mp4")
    if Path(arguments.clip).resolve() == out.resolve():
        raise ValueError(f"--out {out} is CLIP itself; name another file")
    opened = _open(arguments, model.in_channels)
    rate = check_number("--rate", arguments.rate or opened.rate or 25, minimum=0.01, maximum=1000 / arguments.factor)
    total = None if opened.count is None else (opened.count - 1) * arguments.factor + 1
    started, written = time.perf_counter(), 0

    def counted() -> Iterator[Tensor]:
        nonlocal written
        for frame in _with_progress(_stream(arguments, model, opened.frames()), total):
            written += 1
            yield frame

    write_video(out, counted(), rate * arguments.factor)
    return {
        "model": str(arguments.model),
        "clip": arguments.clip,
        "frames": [(written - 1) // arguments.factor + 1, written],
        "rate": [rate, rate * arguments.factor],
        "notes": list(opened.notes),
        "seconds": round(time.perf_counter() - started, 3),
        "out": str(out),
    }


def _open(arguments: argparse.Namespace, channels: int) -> OpenedFrames:
    """What was asked for of the clip, to be read one frame after the other."""
    return open_frames(
        arguments.clip,
        channels=channels,
        size=arguments.size,
        start=check_int("--start", arguments.start, minimum=0),
        stop=arguments.stop,
        on_error=arguments.on_error,
        layout=arguments.layout,
        value_range=None if arguments.value_range is None else tuple(arguments.value_range),
    )


def _stream(arguments: argparse.Namespace, model: Interpolator, frames: Iterator[Tensor]) -> Iterator[Tensor]:
    cut = None if arguments.cut == 1 else arguments.cut
    if isinstance(model, WaveletVFI):
        return model.stream(frames, arguments.factor, threshold=arguments.threshold, cut=cut)
    return model.stream(frames, arguments.factor, cut=cut)


def _of_folder(arguments: argparse.Namespace) -> Iterator[Tensor]:
    folder = TripletFolder(arguments.clip, layout=arguments.triplets, split=arguments.split, size=arguments.size)
    most = len(folder) if arguments.clips is None else min(len(folder), arguments.clips)
    return _with_progress((folder[index] for index in range(most)), most)


def _of_clip(arguments: argparse.Namespace, channels: int) -> Iterator[Tensor]:
    """The first to third frame, the third to fifth, and so on."""
    opened = _open(arguments, channels)
    frames, count = opened.frames(), opened.count or 0
    first = next(frames, None)
    if first is None or count < 3:
        raise ValueError(f"--check needs a clip of three frames at least, {arguments.clip} has {count}")

    def triplets() -> Iterator[Tensor]:
        before = first
        for between, after in zip(frames, frames, strict=False):
            yield torch.stack((before, between, after))
            before = after

    return _with_progress(triplets(), (count - 1) // 2)


def _with_progress(items: Iterator[Tensor], total: int | None) -> Iterator[Tensor]:
    from tqdm import tqdm  # noqa: PLC0415

    yield from tqdm(items, total=total, unit="frame", leave=False, disable=not sys.stderr.isatty())


def _tell(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    """What came out, for people."""
    if "out" not in result:
        tell_scores(result)
        return
    (before, after), (slow, fast) = result["frames"], result["rate"]
    print(
        f"{result['model']}: {before} frames of {result['clip']} became {after}, {slow:g} a second became {fast:g}"
        f", in {result['seconds']:.1f} s"
    )
    for note in result["notes"]:
        print(f"note: {note}")
    print(f"\nwritten: {result['out']}")

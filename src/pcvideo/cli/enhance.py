# SPDX-License-Identifier: Apache-2.0
"""`pcvideo enhance`: a grey sequence in colour and with twice the frames, or one of the two."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pcvideo import hub
from pcvideo._checks import check_int, check_number
from pcvideo.cli._common import add_command, add_reading, device_of, print_json, set_threads, size_note, what_it_does
from pcvideo.enhancement import Enhanced, enhance
from pcvideo.models import Grey2RGB, Interpolator
from pcvideo.video_io import CUT, open_frames
from pcvideo.video_io.write import BIT_DEPTHS

__all__ = ["add_parser", "run"]

# What torchrun tells a process, and what it is without.
_RANKS = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}

_DESCRIPTION = """Give a grey sequence twice the frames and colour, frame by frame, in constant memory.

IN is a video, a GIF, a TIFF of many pages, or a folder of pictures (TIFF, PNG, camera RAW, ...; 16 bits in full). OUT
ending in .mp4, .m4v, .mov, .mkv, .webm or .avi is a video of twice the rate, replaced when the new one is complete; any
other OUT is a folder of pictures. T frames become 2T - 1, each kept as it is. Where the scene changes, frames are
repeated instead. Of an input in colour the grey is taken; with --no-colour it keeps its colours. Sound is not kept.

A folder can be made by several processes at once (--part, or under torchrun), and one that was interrupted is gone on
with (--resume). Its pictures are the same in either case. `--no-double --no-colour` makes a video of it."""

_EPILOG = """examples:
  pcvideo enhance walk.mkv walk-colour.mp4
  pcvideo enhance scans/ colour/ --bit-depth 16 --format tif
  pcvideo enhance film.mp4 frames/ --part 2/4        the second of four processes
  pcvideo enhance frames/ film.mp4 --no-double --no-colour
  pcvideo enhance walk.mkv smooth.mp4 --no-colour --doubler runs/mine/best
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    summary = "give a grey sequence twice the frames and colour"
    parser = add_command(commands, "enhance", run, summary=summary, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("source", metavar="IN", help="video file, GIF, TIFF, folder of pictures, .npy, .npz or .pt")
    parser.add_argument("out", metavar="OUT", type=Path, help="video or folder to write")
    on_off = argparse.BooleanOptionalAction
    parser.add_argument("--double", action=on_off, default=True, help="find a frame between each two (default: yes)")
    parser.add_argument("--colour", action=on_off, default=True, help="colour the frames (default: yes)")
    named = "name or folder of weights (default: %(default)s)"
    parser.add_argument("--doubler", default="frame-doubler", help=f"{named}; a WaveletVFI serves too")
    parser.add_argument("--colouriser", default="grey2rgb", help=named)
    parser.add_argument("--extrapolate", action="store_true", help="a frame after the last one, too: 2T frames")
    parser.add_argument(
        "--cut", type=float, default=CUT, help="change that is one of scene (default: %(default)s; 1: none)"
    )
    writing = parser.add_argument_group("what is written")
    writing.add_argument(
        "--rate", "--fps", type=float, help="frames a second of IN, where it doesn't tell (default: its own, or 25)"
    )
    writing.add_argument("--bit-depth", type=int, choices=BIT_DEPTHS, help="of pictures (default: that of IN)")
    writing.add_argument("--format", default="png", choices=("png", "tif"), help="of pictures (default: %(default)s)")
    writing.add_argument("--part", type=_part, metavar="K/N", help="the K-th of N shares of a folder's pictures")
    writing.add_argument("--resume", action="store_true", help="make the pictures of a folder that are missing")
    writing.add_argument("--json", action="store_true", help="print the result as a JSON object, and nothing else")
    add_reading(parser, "how IN is read")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")


def run(arguments: argparse.Namespace) -> None:
    """Write the frames, and say what came out."""
    check_number("--cut", arguments.cut, minimum=0, maximum=1)
    if arguments.extrapolate and not arguments.double:
        raise ValueError("--extrapolate goes with --double; leave --no-double out")
    set_threads(arguments.threads)
    device, part = _device_and_part(arguments)
    opened = open_frames(
        arguments.source,
        size=arguments.size,
        start=check_int("--start", arguments.start, minimum=0),
        stop=arguments.stop,
        on_error=arguments.on_error,
        layout=arguments.layout,
        value_range=None if arguments.value_range is None else tuple(arguments.value_range),
    )
    started = time.perf_counter()
    with _Progress() as progress:
        result = enhance(
            opened,
            arguments.out,
            doubler=_load(arguments.doubler, device, Interpolator, "--doubler") if arguments.double else None,
            colouriser=_load(arguments.colouriser, device, Grey2RGB, "--colouriser") if arguments.colour else None,
            extrapolate=arguments.extrapolate,
            cut=None if arguments.cut == 1 else arguments.cut,
            rate=arguments.rate,
            bit_depth=arguments.bit_depth,
            picture=f".{arguments.format}",
            part=part,
            resume=arguments.resume,
            on_frame=progress.show,
        )
    told = _as_json(arguments, result, part, time.perf_counter() - started)
    for name in (told["doubler"], told["colouriser"]):
        told["notes"] += [] if name is None or opened.size is None else size_note(name, opened.size)
    print_json(told) if arguments.json else _tell(told)


def _part(text: str) -> tuple[int, int]:
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise argparse.ArgumentTypeError(f"expected K/N, such as 2/4, counted from 1, got {text!r}")
    return int(number), int(parts)


def _device_and_part(arguments: argparse.Namespace) -> tuple[torch.device, tuple[int, int]]:
    """The device, and the share of this process: the one that is given, or by its rank under torchrun."""
    device = device_of(arguments.device)
    if arguments.part is not None:
        return device, arguments.part
    ranks = {name: int(os.environ.get(name, default)) for name, default in _RANKS.items()}
    if arguments.device is None and device.type == "cuda":
        device = torch.device("cuda", ranks["LOCAL_RANK"] % torch.cuda.device_count())
    return device, (ranks["RANK"] + 1, ranks["WORLD_SIZE"])


def _load(name: str, device: torch.device, kind: type, flag: str) -> Any:
    model: Any = hub.from_pretrained(name, device=device)
    if not isinstance(model, kind):
        raise ValueError(f"{flag} {name} is a {type(model).__name__}, which {what_it_does(model)}")
    return model


class _Progress:
    """A bar on standard error, where that is a terminal."""

    def __enter__(self) -> _Progress:
        from tqdm import tqdm  # noqa: PLC0415

        self.bar = tqdm(unit="frame", leave=False, disable=not sys.stderr.isatty())
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def show(self, done: int, total: int | None) -> None:
        """So many are done."""
        if self.bar.total is None and total is not None:
            # What was there before this call took no time.
            self.bar.reset(total)
            self.bar.initial = done - 1
        self.bar.update(done - self.bar.n)


def _as_json(arguments: argparse.Namespace, result: Enhanced, part: tuple[int, int], seconds: float) -> dict[str, Any]:
    return {
        "source": arguments.source,
        "doubler": str(arguments.doubler) if arguments.double else None,
        "colouriser": str(arguments.colouriser) if arguments.colour else None,
        "frames": result.frames,
        "written": result.written,
        "kept": result.kept,
        "missing": result.missing,
        "part": list(part),
        "rate": result.rate,
        "notes": list(result.notes),
        "seconds": round(seconds, 3),
        "out": str(result.out),
    }


def _tell(told: dict[str, Any]) -> None:
    """What came out, for people."""
    done = " and ".join(name for name in (told["doubler"], told["colouriser"]) if name) or "written anew"
    part = "" if told["part"] == [1, 1] else f", part {told['part'][0]} of {told['part'][1]}"
    kept = f", {told['kept']} were there already" if told["kept"] else ""
    print(
        f"{done}: of {told['frames']} frames of {told['source']}, {told['written']} were written{part}{kept}, "
        f"{told['rate']:g} a second, in {told['seconds']:.1f} s"
    )
    for note in told["notes"]:
        print(f"note: {note}")
    if told["missing"]:
        print(f"note: {told['missing']} of the whole are not there yet")
    print(f"\nwritten: {told['out']}")

# SPDX-License-Identifier: Apache-2.0
"""`pcvideo predict`: how a clip goes on, as a GIF, a strip and figures beside copy-last."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pcvideo._checks import check_int, check_number
from pcvideo._files import write_json
from pcvideo.cli import _voxels
from pcvideo.cli._common import (
    add_command,
    add_reading,
    device_of,
    forecast,
    load_model,
    print_json,
    set_threads,
    size_note,
)
from pcvideo.cli._scores import MODEL, Scores, add_metric_flags, nothing_to_compare, table
from pcvideo.data import MovingMNIST, procedural_digits
from pcvideo.metrics import copy_last
from pcvideo.video_io import Clip, open_source, read_clip, write_frames, write_video
from pcvideo.video_io.pictures import list_pictures
from pcvideo.video_io.read import ARRAY_SUFFIXES
from pcvideo.viz import comparison_frames, save_comparison_gif, save_strip

__all__ = ["add_parser", "run"]

# What is taken where no --model is given: for a clip of one's own, and for the built-in one.
_CLIP_MODEL, _BUILT_IN_MODEL = "mspn-natural", "mspn-moving-mnist"
# Of the first 24 seeds, the one whose digits cover each other least, so that one sees what is predicted.
_BUILT_IN_SEED = 9
BUILT_IN_CLIP = f"moving digits (procedural, seed {_BUILT_IN_SEED})"
# Two frames show a motion; with fewer, nothing is held out, unless --context 1 asks for no more.
_LEAST_CONTEXT = 2

_DESCRIPTION = """Predict how a clip goes on.

The last HORIZON frames of the clip are held out and compared with, when at least two frames remain before them;
otherwise the prediction goes beyond the clip's end. Only the last CONTEXT frames before the prediction are looked at,
and of a long video only the frames that are needed are read.

Without CLIP: a generated clip of moving digits. Written to the folder --out, over what an earlier call left there:
  prediction.gif   truth, prediction and copy-last side by side
  strip.png        the same as rows of frames, with the difference
  metrics.json     the figures, per protocol, beside copy-last and black frames"""

_EPILOG = """examples:
  pcvideo predict
  pcvideo predict walk.mkv --horizon 10
  pcvideo predict walk.mkv --model mspn-moving-mnist --to-grey --size 64 64 --context 20 --out walk-prediction --video
  pcvideo predict --model convlstm-voxels --mesh stl
  pcvideo predict clip.npy --layout THWC --value-range 0 255 --model runs/pcvideo/best --json
"""


@dataclass(frozen=True, eq=False)
class Scene:
    """A clip, cut in two: context (T, C, H, W), and the truth (horizon, C, H, W) where it is long enough."""

    context: Tensor
    truth: Tensor | None
    reason: str


def add_parser(commands: Any) -> None:
    """Add the command."""
    summary = "predict how a clip goes on"
    parser = add_command(commands, "predict", run, summary=summary, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "clip", nargs="?", metavar="CLIP", help="video file, GIF, folder of pictures, .npy, .npz or .pt"
    )
    defaults = f"{_CLIP_MODEL}, without CLIP {_BUILT_IN_MODEL}"
    parser.add_argument("--model", help=f"name (see pcvideo models) or folder (default: {defaults})")
    parser.add_argument("--horizon", type=int, default=10, help="frames to predict (default: %(default)s)")
    parser.add_argument("--context", type=int, default=10, help="frames to look at (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("pcvideo-prediction"), help="folder (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print metrics.json on standard output, and nothing else")
    parser.add_argument("--video", action="store_true", help="write prediction.mp4 too, at the clip's own rate")
    parser.add_argument("--frames", action="store_true", help="write the predicted frames into frames/ too")
    parser.add_argument("--gif-rate", type=float, default=5.0, help="frames a second of the GIF (default: %(default)s)")
    parser.add_argument("--mesh", choices=("stl", "obj"), help="volumes: write the predicted surfaces into meshes/ too")
    _voxels.add_format(parser)
    reading = add_reading(parser, "how the clip is read")
    reading.add_argument("--step", type=int, default=1, help="take every n-th frame (default: %(default)s)")
    reading.add_argument("--to-grey", action="store_true", help="make colour grey, for a model with one channel")
    reading.add_argument("--nan", default="error", choices=("error", "repair"), help="what to do with NaN in an array")
    add_metric_flags(parser, protocols=["standard"])
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")


def run(arguments: argparse.Namespace) -> None:
    """Predict, write the pictures and the figures, and say what came out."""
    horizon, context = check_int("--horizon", arguments.horizon), check_int("--context", arguments.context)
    _prepare(arguments)
    if arguments.model is None:
        arguments.model = _BUILT_IN_MODEL if arguments.clip is None else _CLIP_MODEL
        arguments.model = _voxels.MODEL if _voxels.is_scene_file(arguments.clip) else arguments.model
    set_threads(arguments.threads)
    model = load_model(arguments.model, device_of(arguments.device))
    if model.spatial_dims == 3:
        _voxels.predict(arguments, model)
        return
    clip = _read(arguments, context + horizon, model.in_channels)
    scene = _cut(clip.frames, context, horizon)
    seen = scene.context[None].to(model.device)
    started = time.perf_counter()
    raw = forecast(model, seen, horizon, progress=True)
    prediction, seconds = raw.clamp(0, 1)[0].cpu(), time.perf_counter() - started
    files = _draw(arguments, scene, prediction, clip.rate)
    result = {
        "model": str(arguments.model),
        "horizon": horizon,
        "protocols": _compare(arguments, scene, seen, raw),
        "context": len(scene.context),
        "held_out": scene.truth is not None,
        "clip": BUILT_IN_CLIP if arguments.clip is None else arguments.clip,
        "size": list(scene.context.shape[-2:]),
        "rate": clip.rate,
        "notes": [*clip.notes, *size_note(arguments.model, scene.context.shape[-2:])],
        "seconds": round(seconds, 4),
        "files": files,
    }
    write_json(arguments.out / "metrics.json", result)
    print_json(result) if arguments.json else _tell(arguments, scene, result)


def _prepare(arguments: argparse.Namespace) -> None:
    """Refuse what would fail after the computation."""
    check_number("--gif-rate", arguments.gif_rate, minimum=0.01, maximum=50)
    arguments.out.mkdir(parents=True, exist_ok=True)
    frames = arguments.out / "frames"
    if arguments.frames and frames.is_dir() and list_pictures(frames):
        raise ValueError(f"{frames} holds pictures already; remove them, or name another --out")


def _read(arguments: argparse.Namespace, needed: int, channels: int) -> Clip:
    """The last `needed` frames of what was asked for."""
    source: Any = arguments.clip
    start = check_int("--start", arguments.start, minimum=0)
    if source is None:
        digits = procedural_digits(20, seed=1)
        source = MovingMNIST(digits, clips=1, frames=max(20, needed), seed=_BUILT_IN_SEED, split="test")[0]
    elif Path(source).suffix.lower() not in ARRAY_SUFFIXES or Path(source).is_dir():
        step = check_int("--step", arguments.step)
        wanted = range(open_source(source).count)[start : arguments.stop : step]
        start = wanted[-needed] if len(wanted) > needed else start
    clip = read_clip(
        source,
        channels=channels,
        size=arguments.size,
        start=start,
        stop=arguments.stop,
        step=arguments.step,
        on_error=arguments.on_error,
        layout=arguments.layout,
        value_range=None if arguments.value_range is None else tuple(arguments.value_range),
        nan=arguments.nan,
        to_grey=arguments.to_grey,
    )
    return Clip(clip.frames[-needed:].float(), clip.rate, clip.notes)


def _cut(frames: Tensor, context: int, horizon: int) -> Scene:
    """Hold the last frames out where enough remain before them."""
    least = horizon + min(context, _LEAST_CONTEXT)
    if len(frames) >= least:
        return Scene(frames[:-horizon][-context:], frames[-horizon:], "")
    reason = (
        f"the clip has {len(frames)} frames; {least} are needed to hold out the last {horizon}, so the prediction goes "
        f"beyond its end"
    )
    return Scene(frames[-context:], None, reason)


def _draw(arguments: argparse.Namespace, scene: Scene, prediction: Tensor, rate: float | None) -> dict[str, str]:
    """Write the pictures; the files by what they are."""
    out: Path = arguments.out
    baseline = copy_last(scene.context[None], len(prediction))[0]
    files = {"gif": out / "prediction.gif", "strip": out / "strip.png", "metrics": out / "metrics.json"}
    save_comparison_gif(files["gif"], scene.context, prediction, scene.truth, baseline, rate=arguments.gif_rate)
    save_strip(files["strip"], scene.context, prediction, truth=scene.truth, baseline=baseline)
    if arguments.video:
        files["video"] = out / "prediction.mp4"
        frames = comparison_frames(scene.context, prediction, scene.truth, baseline)
        write_video(files["video"], frames, rate or arguments.gif_rate)
    if arguments.frames:
        files["frames"] = out / "frames"
        write_frames(files["frames"], prediction)
    return {name: str(path) for name, path in files.items()}


def _compare(arguments: argparse.Namespace, scene: Scene, context: Tensor, prediction: Tensor) -> dict[str, Any]:
    protocols: Sequence[str] = arguments.protocol or ["standard"]
    if scene.truth is None:
        return nothing_to_compare(protocols, scene.reason)
    scores = Scores(protocols, lpips=arguments.lpips)
    scores.update(context, scene.truth[None].to(context.device), {MODEL: prediction})
    return scores.report()


def _tell(arguments: argparse.Namespace, scene: Scene, result: dict[str, Any]) -> None:
    """What came out, for people."""
    height, width = result["size"]
    steps = len(scene.context) + result["horizon"] - 1
    speed = steps / result["seconds"] if result["seconds"] else math.inf
    print(
        f"{result['model']}: {result['horizon']} frames of {height}x{width} predicted from {len(scene.context)} of "
        f"{result['clip']}, in {result['seconds']:.2f} s ({speed:.1f} steps a second)"
    )
    for note in result["notes"]:
        print(f"note: {note}")
    if scene.truth is None:
        print(f"no comparison: {scene.reason}")
    else:
        print(f"compared with the last {result['horizon']} frames of the clip, which the model did not see\n")
        print(table(result["protocols"]))
    print("\nwritten: " + ", ".join(result["files"].values()))

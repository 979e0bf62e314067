# SPDX-License-Identifier: Apache-2.0
"""`pcvideo evaluate`: a model's figures on many clips, per protocol, beside copy-last and black frames."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pcvideo._checks import check_int
from pcvideo._files import write_json
from pcvideo.cli import _voxels
from pcvideo.cli._clips import batches, generated_clips, own_clips, spread
from pcvideo.cli._common import (
    add_command,
    device_of,
    forecast,
    load_model,
    print_json,
    set_threads,
)
from pcvideo.cli._scores import MODEL, Scores, add_metric_flags, table
from pcvideo.metrics import PROTOCOLS
from pcvideo.models import Predictor
from pcvideo.viz import horizon_curve

__all__ = ["add_parser", "run"]

_CLIPS = 1000

# The others are for frames between frames, and for scenes, which are scored by theirs alone.
_FORECAST_PROTOCOLS = [name for name in PROTOCOLS if name not in ("wavelet_vfi", "voxels")]

_DESCRIPTION = """Score a model on many clips, beside copying the last frame and beside black frames.

--dataset moving-mnist makes clips of moving digits, where clip i depends on --seed and i alone: from the folder with
MNIST's IDX files that --data names (the t10k file for --split test), else from the cache, else from procedural digits.
--data may also be the standard mnist_test_seq.npy.
--dataset videos cuts windows of CONTEXT + HORIZON frames out of the folder of videos, the folder of frames or the array
file that --data names; windows share no frame unless --stride says so.
--dataset voxel4d scores a model of volumes on the scenes in the packed .npz or TFRecord file, or the folder of these,
that --data names (without it, on generated ones), as ConvLSTM3D was published: --format 80/4 is every fourth frame."""

_EPILOG = """examples:
  pcvideo evaluate --model mspn-moving-mnist --dataset moving-mnist --data mnist/ --clips 1000 --seed 0 --json out.json
  pcvideo evaluate --model runs/pcvideo/best --data videos/ --include walk want --size 128 160 --json
  pcvideo evaluate --model mspn-natural --data videos/ --size 128 160 --protocol standard
  pcvideo evaluate --model convlstm-voxels --dataset voxel4d --data test_400_packed.npz --format 80/4
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    summary = "score a model on many clips, beside copy-last"
    parser = add_command(commands, "evaluate", run, summary=summary, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--model", required=True, help="name (see pcvideo models) or folder")
    parser.add_argument(
        "--dataset",
        choices=("moving-mnist", "videos", _voxels.DATASET),
        help="default: moving-mnist, or videos where --data has some",
    )
    _voxels.add_format(parser)
    parser.add_argument("--data", type=Path, help="folder or file, see above")
    parser.add_argument("--clips", type=int, help=f"how many (default: {_CLIPS} generated ones, or all windows)")
    parser.add_argument("--seed", type=int, default=0, help="of generated clips (default: %(default)s)")
    parser.add_argument("--split", choices=("test", "train"), default="test", help="digits (default: %(default)s)")
    parser.add_argument("--context", type=int, default=10, help="frames to look at (default: %(default)s)")
    parser.add_argument("--horizon", type=int, default=10, help="frames to predict (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="clips at a time (default: %(default)s)")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="frames are resized, digits placed so")
    parser.add_argument("--stride", type=int, help="frames from one window's start to the next one's")
    parser.add_argument("--interval", type=int, default=1, help="take every n-th frame (default: %(default)s)")
    parser.add_argument("--include", nargs="+", default=(), metavar="GLOB", help="only the videos of these names")
    parser.add_argument("--exclude", nargs="+", default=(), metavar="GLOB", help="without the videos of these names")
    parser.add_argument("--on-error", choices=("error", "skip"), default="error", help="for a file that can't be read")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="OUT", help="write the figures there; alone or as -, print them alone"
    )
    parser.add_argument("--curve", type=Path, metavar="OUT", help="draw the MSE of each step there, as .png or .svg")
    add_metric_flags(parser, protocols=_FORECAST_PROTOCOLS)
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")


def run(arguments: argparse.Namespace) -> None:
    """Score the model, print the table and write the figures."""
    for name in ("context", "horizon", "batch"):
        check_int(f"--{name}", getattr(arguments, name))
    set_threads(arguments.threads)
    model = load_model(arguments.model, device_of(arguments.device))
    if arguments.dataset == _voxels.DATASET or model.spatial_dims == 3:
        _voxels.evaluate(arguments, model)
        return
    clips, facts = _open(arguments, model)
    scores = _score(arguments, model, clips)
    result = {
        "model": str(arguments.model),
        "horizon": arguments.horizon,
        "protocols": scores.report(),
        "context": arguments.context,
        **facts,
    }
    if arguments.curve is not None:
        _draw(arguments.curve, result["protocols"])
    if arguments.json not in (None, "-"):
        write_json(Path(arguments.json), result)
    if arguments.json == "-":
        print_json(result)
        return
    print(
        f"{result['model']} on {result['clips']} clips of {result['source']}, {arguments.context} frames to "
        f"{arguments.horizon}; means over clips and steps\n"
    )
    print(table(result["protocols"]))
    if arguments.json is not None:
        print(f"\nwritten: {arguments.json}")


def _draw(path: Path, protocols: dict[str, Any]) -> None:
    """The first protocol's MSE over the steps of the horizon, beside the baselines'."""
    protocol, report = next(iter(protocols.items()))
    steps = {name.replace("_", "-"): figures["mse"] for name, figures in report["per_step"].items()}
    horizon_curve({"model": steps.pop(MODEL), **steps}, metric=f"MSE, sum over a frame ({protocol})", path=path)


def _open(arguments: argparse.Namespace, model: Predictor) -> tuple[Any, dict[str, Any]]:
    """The clips, and what a reader of the figures must know of them."""
    length = arguments.context + arguments.horizon
    dataset = arguments.dataset or _guess(arguments.data)
    facts: dict[str, Any] = {"dataset": dataset, "data": None if arguments.data is None else str(arguments.data)}
    if dataset == "moving-mnist":
        if arguments.include or arguments.exclude or arguments.stride or arguments.interval != 1:
            raise ValueError("--include, --exclude, --stride and --interval are for --dataset videos")
        clips: Any = generated_clips(
            arguments.data,
            clips=_CLIPS if arguments.clips is None else arguments.clips,
            length=length,
            seed=arguments.seed,
            split=arguments.split,
            size=arguments.size,
        )
        facts |= {"source": f"moving digits, {clips.source}", "seed": arguments.seed, "split": arguments.split}
    else:
        if arguments.data is None:
            raise ValueError("--dataset videos needs --data FOLDER")
        clips = own_clips(
            arguments.data,
            length=length,
            channels=model.in_channels,
            size=arguments.size,
            stride=arguments.stride,
            interval=arguments.interval,
            include=arguments.include,
            exclude=arguments.exclude,
            on_error=arguments.on_error,
        )
        facts |= {"source": str(arguments.data)}
    count = len(clips) if arguments.clips is None else min(check_int("--clips", arguments.clips), len(clips))
    return clips, facts | {"clips": count}


def _guess(data: Path | None) -> str:
    """Which data set is meant where `--dataset` does not say."""
    if data is None or data.name == "mnist_test_seq.npy" or (data.is_dir() and any(data.glob("*-idx3-ubyte*"))):
        return "moving-mnist"
    return "videos"


def _score(arguments: argparse.Namespace, model: Predictor, clips: Any) -> Scores:
    from tqdm import tqdm  # noqa: PLC0415

    scores = Scores(arguments.protocol or _FORECAST_PROTOCOLS, lpips=arguments.lpips)
    indices = spread(len(clips), arguments.clips)
    with tqdm(total=len(indices), unit="clip", leave=False, disable=not sys.stderr.isatty()) as bar:
        for batch in batches(clips, indices, arguments.batch, model.device):
            context, truth = batch[:, : arguments.context], batch[:, arguments.context :][:, : arguments.horizon]
            scores.update(context, truth, {MODEL: forecast(model, context, arguments.horizon)})
            bar.update(len(batch))
    return scores

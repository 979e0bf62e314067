# SPDX-License-Identifier: Apache-2.0
"""Score next-volume predictors as ConvLSTM3D was published: one step, and five fed back, beside NULL and copy-last.

    python benchmarks/score_voxels.py --data voxel4d/test_400_packed.npz --model convlstm-voxels --format 80/4
    python benchmarks/score_voxels.py --data voxel4d/test_400_packed.npz --keras convlstm3d_16_T80_TINC4.h5 \\
        --format 80/4 --tests windows --fourier 3

`windows` is the published long-term test, which computes five frames anew for each step; `carried` carries the state.
"""

from __future__ import annotations

import argparse
import json

import torch

import pcvideo
from pcvideo.convert import load_original
from pcvideo.data import VOXEL_FORMATS, VoxelScenes
from pcvideo.layers import use_fourier
from pcvideo.metrics import VolumeScores
from pcvideo.models import forecast_windows, next_frames

CONTEXT = HORIZON = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", help="name or folder of weights")
    parser.add_argument("--keras", help="a published .h5 file in its place")
    parser.add_argument("--format", choices=(*VOXEL_FORMATS,), default="80/4")
    parser.add_argument("--clips", type=int, help="only the first so many")
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument(
        "--tests", nargs="+", choices=("windows", "carried", "binary"), default=("windows", "carried", "binary")
    )
    parser.add_argument(
        "--fourier", type=int, metavar="SIDE", help="take kernels of this side and more by Fourier transforms"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keras = arguments.keras
    model = pcvideo.from_pretrained(arguments.model) if keras is None else load_original(keras)
    if arguments.fourier is not None:
        model = use_fourier(model, kernel_size=arguments.fourier)
    clips = VoxelScenes(arguments.data, format=arguments.format)
    count = len(clips) if arguments.clips is None else min(arguments.clips, len(clips))
    scores = {name: VolumeScores(context=CONTEXT, horizon=HORIZON) for name in arguments.tests}
    ways = {
        "windows": lambda seen: forecast_windows(model, seen, HORIZON),
        "carried": lambda seen: forecast_windows(model, seen, HORIZON, carry=True),
        "binary": lambda seen: forecast_windows(model, seen, HORIZON, carry=True, binarize=True),
    }
    for start in range(0, count, arguments.batch):
        frames = torch.stack([clips[index] for index in range(start, min(start + arguments.batch, count))])
        one_step = next_frames(model, frames)
        for name, score in scores.items():
            score.update(frames, one_step, ways[name](frames[:, :CONTEXT]))
    reports = {name: score.report() for name, score in scores.items()}
    if arguments.json:
        print(json.dumps(reports, indent=2))
        return
    first = next(iter(reports.values()))
    for kind, figures in first["one_step"].items():
        print(f"one step   {kind:11s} Jaccard {figures['jaccard']['mean']:.4f}  MSE {figures['mse_mean']['mean']:.5f}")
    for name, report in reports.items():
        for kind, figures in report["long_term"].items():
            if kind == "prediction" or name == arguments.tests[0]:
                print(f"{name:10s} {kind:11s} Jaccard " + " ".join(f"{v:.4f}" for v in figures["jaccard"]["per_step"]))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Train a narrow WaveletVFI on videos and on photographs that are moved: one command, which goes on where it stopped.

    python examples/training/wavelet_vfi.py --data FOLDER --run-dir runs/wavelet-vfi

FOLDER holds the videos of intel-iot-devkit/sample-videos (CC BY 4.0) and big_buck_bunny (CC BY 3.0); the clips walk,
want, yes and thanks are for testing alone, again and learn choose the best step. First everything is computed
(`static`), then, from the best weights of that, the classifier learns how much each picture needs (`dynamic`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset

import pcvideo
from pcvideo.data import (
    Compose,
    HorizontalFlip,
    MovingPhotographs,
    RandomCrop,
    TimeReverse,
    VerticalFlip,
    VideoTriplets,
)
from pcvideo.metrics import score_middles
from pcvideo.training import DynamicInterpolation, StaticInterpolation, Trainer

TESTED, CHOOSING = ("walk", "want", "yes", "thanks"), ("again", "learn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/wavelet-vfi"))
    parser.add_argument("--width", type=float, default=0.375)
    parser.add_argument("--static-steps", type=int, default=6000)
    parser.add_argument("--dynamic-steps", type=int, default=2000)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--every", type=int, default=250, help="steps between validations and checkpoints")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    augment = Compose([RandomCrop((options.crop, options.crop)), HorizontalFlip(), VerticalFlip(), TimeReverse()])
    signing = {"size": (240, 320), "stride": 2, "cache": True}
    videos = [
        VideoTriplets(
            options.data, exclude=[*TESTED, *CHOOSING, "*.mp4", "*.webm"], interval=2, least_motion=0.006,
            transform=augment, **signing,
        ),
        VideoTriplets(
            options.data, include=["car-detection", "one-by-one*", "big_buck_bunny*"], size=(216, 384), stride=2,
            least_motion=0.006, transform=augment, cache=True,
        ),
    ]  # fmt: skip
    generated = MovingPhotographs(clips=sum(map(len, videos)), size=(options.crop, options.crop))
    train = Epochs([*videos, generated])
    validation = VideoTriplets(options.data, include=CHOOSING, interval=2, least_motion=0.004, **signing)
    held_out = VideoTriplets(options.data, include=TESTED, interval=2, **signing)

    model = pcvideo.WaveletVFI(width=options.width, residual=True)
    for stage, strategy, steps, rate in (
        ("static", StaticInterpolation(), options.static_steps, 4e-4),
        ("dynamic", DynamicInterpolation(steps=max(options.dynamic_steps, 1)), options.dynamic_steps, 1e-4),
    ):
        if not steps:
            continue
        run_dir = options.run_dir / stage
        trainer = Trainer(
            model,
            strategy,
            run_dir=run_dir,
            steps=steps,
            batch_size=options.batch,
            lr=rate,
            optimizer="adamw",
            warmup=min(100, steps // 10),
            clip_norm=1.0,
            ema=0.998 if steps >= 1000 else 0.98,
            validate_every=options.every,
            checkpoint_every=options.every,
            validation_clips=48,
            notes={"command": "examples/training/wavelet_vfi.py", "triplets": [len(part) for part in train.datasets]},
        )
        trainer.fit(train, validation, resume="auto")
        model = pcvideo.WaveletVFI.from_pretrained(run_dir / "best")
        report = score_middles((triplet[None] for triplet in held_out), padded(model))
        (run_dir / "held-out.json").write_text(json.dumps(report, indent=2))
        for name, figures in report["middles"].items():
            told = [f"{key} {value:.4f}" for key, value in figures.items() if value is not None]
            print(f"{stage}, held out, {name}: {', '.join(told)}")


class Epochs(ConcatDataset[Tensor]):
    """Data sets one after the other, each told of the epoch."""

    def set_epoch(self, epoch: int) -> None:
        for part in self.datasets:
            part.set_epoch(epoch)


def padded(model: pcvideo.WaveletVFI):
    """The model for frames of any size."""

    @torch.no_grad()
    def middle(before: Tensor, after: Tensor) -> Tensor:
        height, width = before.shape[-2:]
        return model(model.pad(before), model.pad(after))[..., :height, :width]

    return middle


if __name__ == "__main__":
    main()

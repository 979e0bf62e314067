# SPDX-License-Identifier: Apache-2.0
"""Train a narrow WaveletVFI on videos and on photographs that are moved: one command, which goes on where it stopped.

    python examples/training/wavelet_vfi.py --data FOLDER --run-dir runs/wavelet-vfi

FOLDER holds the videos of intel-iot-devkit/sample-videos (CC BY 4.0) and big_buck_bunny (CC BY 3.0); the clips walk,
want, yes and thanks are for testing alone, again and learn to watch the training. In three stages, each from the last
weights of the one before: the flows alone, which are known for the moved photographs (`motion`); the whole network,
with every detail computed (`static`); and the classifier, which learns how much each picture needs (`dynamic`).
`examples/training/publish.py wavelet-vfi RUN/dynamic SHELF --data FOLDER` rounds, scores and packs them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

import pcvideo
from pcvideo.data import (
    Compose,
    HorizontalFlip,
    MovingCrop,
    MovingPhotographs,
    TimeReverse,
    UnknownFlows,
    VerticalFlip,
    VideoTriplets,
)
from pcvideo.training import (
    DynamicInterpolation,
    MotionInterpolation,
    StaticInterpolation,
    Strategy,
    Trainer,
    newest_checkpoint,
)

TESTED, WATCHED = ("walk", "want", "yes", "thanks"), ("again", "learn")
STAGES = ("motion", "static", "dynamic")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/wavelet-vfi"))
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--steps", type=int, nargs=3, default=(5000, 4000, 150), metavar=STAGES)
    parser.add_argument("--rates", type=float, nargs=3, default=(1e-3, 5e-4, 1e-4), metavar=STAGES)
    parser.add_argument("--batches", type=int, nargs=3, default=(8, 4, 4), metavar=STAGES)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--every", type=int, default=500, help="steps between validations and checkpoints")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    validation = VideoTriplets(options.data, include=WATCHED, size=(240, 320), stride=8, cache=True)
    videos = cut(options.data)
    size = (options.crop, options.crop)
    generated = Kept(MovingPhotographs(clips=sum(map(len, videos)), size=size, with_flows=True))
    model = pcvideo.WaveletVFI(width=options.width, residual=True)
    for number, stage in enumerate(STAGES):
        if not options.steps[number]:
            continue
        run_dir = options.run_dir / stage
        augment: list[Any] = [MovingCrop(size), HorizontalFlip(), VerticalFlip(0.2), TimeReverse()]
        for part in videos:
            part.transform = Compose([*augment, UnknownFlows()] if stage == "motion" else augment)
        trainer = Trainer(
            model,
            strategy(stage, options.steps[number]),
            run_dir=run_dir,
            batch_size=options.batches[number],
            notes={"command": "examples/training/wavelet_vfi.py", "triplets": [len(part) for part in videos]},
            **settings(options.steps[number], options.rates[number], options.every),
        )
        # Flows are learnt where they are known, so these come twice as often; the rest is learnt on videos.
        train = ConcatDataset([*videos, generated, generated] if stage == "motion" else videos)
        train.set_epoch = lambda epoch: [part.set_epoch(epoch) for part in videos]
        trainer.fit(train, validation, resume="auto")
        # The last weights, not the best: squared errors hang on the few frames that move most, and PSNR does not.
        model = pcvideo.WaveletVFI.from_pretrained(newest_checkpoint(run_dir))


def strategy(stage: str, steps: int) -> Strategy:
    if stage == "motion":
        return MotionInterpolation()
    return StaticInterpolation() if stage == "static" else DynamicInterpolation(steps=steps)


def settings(steps: int, rate: float, every: int) -> dict[str, Any]:
    return {
        "steps": steps,
        "lr": rate,
        "optimizer": "adamw",
        "warmup": min(100, steps // 10),
        "clip_norm": 1.0,
        "ema": 0.998 if steps >= 1000 else 0.98,
        "validate_every": min(every, steps),
        "checkpoint_every": min(every, steps),
        "validation_clips": 16,
    }


def cut(data: Path) -> list[VideoTriplets]:
    """Triplets of signing, at two sizes, of an animation and of a street."""
    common: dict[str, Any] = {"cache": True, "least_motion": 0.004}
    signing = {"exclude": [*TESTED, *WATCHED, "*.mp4", "*.webm"], **common}
    return [
        VideoTriplets(data, size=(240, 320), interval=1, **signing),
        VideoTriplets(data, size=(240, 320), interval=2, **signing),
        VideoTriplets(data, size=(480, 640), interval=1, stride=2, **signing),
        VideoTriplets(data, include=["car-detection", "big_buck_bunny*"], size=(216, 384), stride=4, **common),
    ]


class Kept(Dataset[Tensor]):
    """A data set whose items are made once, and kept in 16 bit."""

    def __init__(self, clips: Dataset[Tensor]) -> None:
        self.clips, self.made = clips, {}

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Tensor:
        if index not in self.made:
            self.made[index] = self.clips[index].half()
        return self.made[index].float()


if __name__ == "__main__":
    main()

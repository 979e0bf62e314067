# SPDX-License-Identifier: Apache-2.0
"""Train a colouriser and a frame doubler on videos, by one of the four published methods; goes on where it stopped.

    python examples/training/fusion.py --data FOLDER --method 4 --run-dir runs/fusion

| method | colouriser's loss | doubler's loss |
|---|---|---|
| 1 | squared error | squared error |
| 2 | and total variation | squared error |
| 3 | squared error | SSIM |
| 4 | and total variation | SSIM |

Each network is trained once for each loss, from a seed of its own (the published code went on from the weights of the
method before), into a folder that the methods share: 4 finds the colouriser of 2 and the doubler of 3. `--form
published` builds the published networks; without it, the colouriser keeps the luminance and works on frames four times
smaller (`--form luminance`: on whole ones), and the doubler sees both frames.

FOLDER holds the videos of intel-iot-devkit/sample-videos (CC BY 4.0); the clips walk, want, yes and thanks are for
testing alone, again and learn choose the best step. Of any other folder of videos, name those with --test and --choose.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pcvideo
from pcvideo.data import Compose, HorizontalFlip, LivelyCrop, RandomCrop, TensorClips, TimeReverse, VideoFolder
from pcvideo.losses import RegularisedLoss, SSIMLoss, TotalVariation
from pcvideo.training import Colourisation, FrameDoubling, Trainer

COLOUR_LOSSES = {"mse": None, "tv": RegularisedLoss(TotalVariation(), weight=0.1)}
DOUBLING_LOSSES = {"mse": None, "ssim": SSIMLoss(weight=0.1)}
METHODS = {1: ("mse", "mse"), 2: ("tv", "mse"), 3: ("mse", "ssim"), 4: ("tv", "ssim")}
# Of each form, the colouriser's arguments and the doubler's.
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "default": ({"keep_luminance": True, "chroma_stride": 4}, {}),
    "luminance": ({"keep_luminance": True}, {}),
    "published": ({}, {"legacy": True}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/fusion"))
    parser.add_argument("--method", type=int, choices=METHODS, default=4)
    parser.add_argument("--form", choices=FORMS, default="default")
    parser.add_argument("--only", choices=("colour", "doubling"), help="one of the two")
    parser.add_argument("--colour-steps", type=int, default=3000)
    parser.add_argument("--doubling-steps", type=int, default=3000)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--colour-lr", type=float, default=5e-3)
    parser.add_argument("--doubling-lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=250, help="steps between validations and checkpoints")
    parser.add_argument("--test", nargs="*", default=["walk", "want", "yes", "thanks"], help="left out")
    parser.add_argument("--choose", nargs="*", default=["again", "learn"], help="choose the best step")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    colour, doubling = METHODS[options.method]
    if options.only != "doubling":
        train_colour(options, colour)
    if options.only != "colour":
        train_doubling(options, doubling)


def train_colour(options: argparse.Namespace, loss: str) -> None:
    torch.manual_seed(options.seed)
    model = pcvideo.Grey2RGB(**FORMS[options.form][0])
    crop = Compose([RandomCrop((options.crop, options.crop)), HorizontalFlip()])
    left_out = [*options.test, *options.choose, "chaplin", "big_buck_bunny*", "bottle*", "one-by-one*"]
    train = TensorClips(stills(options.data, stride=4, exclude=left_out), transform=crop, seed=options.seed)
    choose = TensorClips(stills(options.data, stride=10, include=options.choose))
    fit(options, model, Colourisation(loss=COLOUR_LOSSES[loss]), f"colour-{loss}", options.colour_steps, train, choose)


def stills(data: Path, **which: Any) -> Tensor:
    """Every so many frames of videos, (N, 1, 3, 480, 640), as bytes: all of them would take the memory of many."""
    frames = VideoFolder(data, length=1, size=(480, 640), **which)
    return torch.stack([(255 * frames[index]).round().to(torch.uint8) for index in range(len(frames))])


def train_doubling(options: argparse.Namespace, loss: str) -> None:
    torch.manual_seed(options.seed + 1)
    model = pcvideo.FrameDoubler(**FORMS[options.form][1])
    lively = Compose([LivelyCrop((options.crop, options.crop), tries=8), HorizontalFlip(), TimeReverse()])
    strategy = FrameDoubling(frames=3, loss=DOUBLING_LOSSES[loss])
    clips = {"length": strategy.length, "size": (480, 640), "channels": 1, "cache": True, "seed": options.seed}
    left_out = [*options.test, *options.choose, "big_buck_bunny*", "bottle*", "one-by-one*"]
    train = VideoFolder(options.data, exclude=left_out, stride=2, transform=lively, **clips)
    middle = pcvideo.data.CenterCrop((384, 512))
    choose = VideoFolder(options.data, include=options.choose, transform=middle, **clips)
    fit(options, model, strategy, f"doubling-{loss}", options.doubling_steps, train, choose)


def fit(options: Any, model: Any, strategy: Any, name: str, steps: int, train: Any, choose: Any) -> None:
    form = "" if options.form == "default" else f"-{options.form}"
    doubling = name.startswith("doubling")
    trainer = Trainer(
        model,
        strategy,
        run_dir=options.run_dir / f"{name}{form}-seed{options.seed}",
        steps=steps,
        batch_size=options.batch,
        lr=options.doubling_lr if doubling else options.colour_lr,
        schedule="cosine",
        warmup=min(100, steps // 10),
        clip_norm=1.0,
        ema=0.995 if steps >= 1000 else 0.95,
        seed=options.seed,
        validate_every=options.every,
        checkpoint_every=options.every,
        validation_clips=8 if doubling else 16,
        notes={"command": "examples/training/fusion.py", "method": options.method, "clips": len(train)},
    )
    trainer.fit(train, choose, resume="auto")
    told = ", ".join(f"{key} {value:.5g}" for key, value in trainer.metrics.items() if "psnr" in key or "ssim" in key)
    print(f"{name}{form}: {told}")


if __name__ == "__main__":
    main()

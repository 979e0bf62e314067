# SPDX-License-Identifier: Apache-2.0
"""Train built-in weights further, on tensors or on a folder of videos of one's own; in colour, though they are grey.

    python examples/fine_tune.py --data videos/ --size 64 80 --steps 500 --out runs/fine-tuned

The command line does the same: pcvideo train --init mspn-moving-mnist --in-channels 3 --data videos/ --size 64 80
"""

import argparse

import torch

import pcvideo
from pcvideo.training import SelfFeeding
from pcvideo.viz import ValidationPictures


def fine_tune(train_clips, val_clips, *, steps: int, out: str) -> pcvideo.models.Predictor:
    """Clips are a data set of (T, C, H, W) float in [0, 1], T of 20 at least."""
    grey = pcvideo.from_pretrained("mspn-moving-mnist")
    adaptation = pcvideo.adapt(grey, {"in_channels": 3})
    print(adaptation)  # what was kept, carried over, and is fresh
    trainer = pcvideo.Trainer(
        adaptation.model,
        SelfFeeding(context=10, horizon=10),
        run_dir=out,
        steps=steps,
        batch_size=4,
        lr=5e-4,
        rates={"cells.0.codec.encoders": 0.1},  # a tenth of the rate where little is to be learnt anew
        freeze=["cells.1.codec.encoders"],
        clip_norm=1000.0,
        callbacks=[ValidationPictures()],
    )
    trainer.fit(train_clips, val_clips, resume="auto")
    return pcvideo.from_pretrained(f"{out}/best")


def main(data: str | None, size: tuple[int, int], steps: int, out: str) -> torch.Tensor:
    if data is None:
        # A tensor of 16 clips: moving digits, coloured.
        digits = pcvideo.data.MovingMNIST(pcvideo.data.procedural_digits(), clips=16, size=tuple(size))
        colours = torch.rand(16, 1, 3, 1, 1, generator=torch.Generator().manual_seed(0))
        tensor = torch.stack([digits[index] for index in range(16)]) * colours
        train_clips, val_clips = pcvideo.data.TensorClips(tensor[:12]), pcvideo.data.TensorClips(tensor[12:])
    else:
        clips = pcvideo.data.VideoFolder(data, length=20, size=tuple(size))
        some = len(clips) // 10 + 1
        train_clips = torch.utils.data.Subset(clips, range(len(clips) - some))
        val_clips = torch.utils.data.Subset(clips, range(len(clips) - some, len(clips)))
    model = fine_tune(train_clips, val_clips, steps=steps, out=out)
    future = model.predict(val_clips[0][:10], horizon=10)
    print(f"weights in {out}/best; predicted {tuple(future.shape)}")
    return future


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder of videos (default: coloured moving digits)")
    parser.add_argument("--size", type=int, nargs=2, default=(64, 80), metavar=("H", "W"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--out", default="runs/fine-tuned")
    main(**vars(parser.parse_args()))

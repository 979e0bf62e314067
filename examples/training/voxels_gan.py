# SPDX-License-Identifier: Apache-2.0
"""Train a narrow AEncGAN3D, as aencgan3d-voxels was: WGAN-GP with a critic that is shown the input, and voxels beside.

    python examples/training/voxels_gan.py --data voxel4d/train_3200_packed.npz --run-dir runs/gan --steps 1600

Three volumes go in, and noise, so that one past can have several futures. Published are a width of 256, no noise, no
loss on voxels and a critic that is shown the truth. Called again with the same --run-dir, a run goes on.
"""

from __future__ import annotations

import argparse
import logging

import torch

import pcvideo
from pcvideo.data import Compose, CubeSymmetry, RandomTimes, TimeReverse, VoxelScenes
from pcvideo.losses import VolumeLoss, WassersteinScoreLoss
from pcvideo.training import Alternating, ConditionalAdversarial, TeacherForced, Trainer

# Jaccard distance is least where voxels are set from a probability of about 0.42 on; this weight moves 0.42 to 0.5.
SET_WEIGHT = 1.4


def main() -> None:
    arguments = parse()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    model = pcvideo.AEncGAN3D(
        context=3, width=arguments.width, code_channels=arguments.codes, noise_channels=8, dropout=0.0
    )
    strategy = ConditionalAdversarial(
        TeacherForced(context=3, horizon=1, loss=VolumeLoss(set_weight=SET_WEIGHT)),
        model.make_critic(),
        score=WassersteinScoreLoss(),
        turns=Alternating(discriminator_steps=1),
        gradient_penalty=10,
        adversarial_weight=arguments.adversarial_weight,
        pixel_weight=1,
        judge_from=3,
        discriminator_rate=0.1,
        rest_in_eval=False,
    )
    # The first and last frames are empty, and so are the clips that keep to them.
    times = RandomTimes(strategy.length, steps=[4], margin=14)
    augment = Compose([times, TimeReverse(), CubeSymmetry()])
    clips = VoxelScenes(arguments.data, format=None, transform=augment, seed=arguments.seed)
    trainer = Trainer(
        model,
        strategy,
        run_dir=arguments.run_dir,
        steps=arguments.steps,
        batch_size=16,
        lr=arguments.lr,
        schedule="cosine",
        warmup=50,
        ema=0.98,
        checkpoint_every=50,
        keep=2,
        seed=arguments.seed,
    )
    trainer.fit(clips, resume="auto")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="packed scenes, a TFRecord file or a folder of these")
    parser.add_argument("--run-dir", required=True)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--width", type=int, default=32, help="channels of the widest layer; published: 256")
    parser.add_argument("--codes", type=int, default=128, help="numbers of a volume's code; published: 256")
    parser.add_argument("--adversarial-weight", type=float, default=0.01)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()

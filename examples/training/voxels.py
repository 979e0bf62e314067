# SPDX-License-Identifier: Apache-2.0
"""Train the next-volume predictor of scenes of voxels, as convlstm-voxels was: two stages, both resumable.

    python examples/training/voxels.py patches --data voxel4d/train_3200_packed.npz --run-dir runs/patches --steps 2000
    python examples/training/voxels.py volumes --data voxel4d/train_3200_packed.npz --run-dir runs/volumes --steps 400 \
        --init runs/patches

Most of a scene is empty, and what is not moves only at its surface. In this network a place remembers nothing but its own
neighbourhood, so the first stage trains it on single places: those where something happens are drawn more often, and weigh
less by as much. The second stage runs whole volumes and feeds predictions back. Called again with the same --run-dir, a
stage goes on where it stopped.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import pcvideo
from pcvideo.data import Compose, CubeSymmetry, RandomTimes, TimeReverse, VoxelScenes
from pcvideo.layers import to_patches
from pcvideo.losses import VolumeLoss
from pcvideo.ops import lstm_gates
from pcvideo.training import SelfFeeding, Strategy, Trainer, newest_checkpoint

MODEL = {
    "patch": 2,
    "history": 3,
    "encoder_channels": 96,
    "hidden_channels": (64,),
    "kernel_sizes": (1,),
    "head_kernel_size": 1,
    "residual": True,
    "batch_norm": False,
}
# Jaccard distance is least where voxels are set from a probability of about 0.42 on; this weight moves 0.42 to 0.5.
SET_WEIGHT = 1.4


class Places(Strategy):
    """Cross-entropy at places drawn from whole clips, each with its 3**3 neighbours.

    Args:
        frames: of a clip.
        places: drawn per clip of the batch.
    """

    def __init__(self, *, frames: int, places: int) -> None:
        super().__init__(context=frames - 1, horizon=1)
        self.places = places

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch (B, T, 1, D, H, W)."""
        clips = batch[:, :, 0]
        chosen, weights = self._draw(clips)
        around = F.pad(clips, (2,) * 6).unfold(2, 6, 2).unfold(3, 6, 2).unfold(4, 6, 2)
        clip, *place = torch.unravel_index(chosen, (len(clips), *around.shape[2:5]))
        # (places, T, 6, 6, 6)
        seen = around[clip, :, place[0], place[1], place[2]]
        truth = seen[:, 1:, 2:4, 2:4, 2:4].flatten(2).transpose(0, 1)
        logits = self._at_places(seen[:, :-1].transpose(0, 1))
        rarity = torch.tensor(SET_WEIGHT)
        losses = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=rarity, reduction="none")
        return (losses.mean(2) * weights).mean(), {}

    @torch.no_grad()
    def _draw(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Places by number, and their weights."""
        changes = (clips[:, 1:] != clips[:, :-1]).float().sum(1, keepdim=True)
        here = 8 * F.avg_pool3d(changes, 2)
        near = F.max_pool3d(here, 3, stride=1, padding=1) > 0
        scores = (here.clamp(max=16) / 16 + 0.25 * near + 0.02).flatten()
        count = self.places * len(clips)
        # Evenly spaced with one random offset: less noise than independent draws.
        marks = (torch.arange(count, dtype=torch.float64) + torch.rand(count, dtype=torch.float64)) / count
        share = scores.double().cumsum(0) / scores.double().sum()
        chosen = torch.searchsorted(share, marks).clamp(max=len(scores) - 1)
        return chosen, scores.mean() / scores[chosen]

    def _at_places(self, seen: Tensor) -> Tensor:
        """Logits (T, places, 8) at the middle of neighbourhoods (T, places, 6, 6, 6): what the network gives there."""
        model = self.model
        length, count = seen.shape[:2]
        shown = to_patches(seen.reshape(length * count, 1, 6, 6, 6), 2).view(length, count, 8, 27)
        nothing = torch.zeros_like(shown[:1])
        past = [torch.cat([nothing[:0], *[nothing] * back, shown[: length - back]]) for back in range(model.history)]
        features = torch.relu(
            F.linear(torch.cat(past, 2).flatten(2), model.encoder.weight.flatten(1), model.encoder.bias)
        )
        for cell in model.cells:
            own, recurrent = cell.to_gates.weight.flatten(1).split([cell.in_channels, cell.hidden_channels], 1)
            gates = F.linear(features, own, cell.to_gates.bias)
            hidden = state = features.new_zeros(count, cell.hidden_channels)
            outputs = []
            for gate in gates:
                hidden, state = lstm_gates(gate + F.linear(hidden, recurrent), state)
                outputs.append(hidden)
            features = torch.stack(outputs)
        logits = F.linear(features, model.head.weight.flatten(1), model.head.bias)
        return logits + model.stay * (2 * shown[..., 13] - 1)


def main() -> None:
    arguments = parse()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    model = pcvideo.ConvLSTMPredictor(**MODEL)
    if arguments.init is not None:
        model = pcvideo.from_pretrained(weights_of(Path(arguments.init)))
    strategy: Any = Places(frames=9, places=40)
    if arguments.stage == "volumes":
        strategy = SelfFeeding(context=arguments.context, horizon=4, loss=VolumeLoss(set_weight=SET_WEIGHT))
    frames = strategy.length
    # The first and last frames are empty, and so are the clips that keep to them.
    times = RandomTimes(frames, steps=arguments.steps_apart, margin=14)
    augment = Compose([times, TimeReverse(), CubeSymmetry()])
    clips = VoxelScenes(arguments.data, format=None, transform=augment, seed=arguments.seed)
    trainer = Trainer(
        model,
        strategy,
        run_dir=arguments.run_dir,
        steps=arguments.steps,
        batch_size=arguments.batch or {"patches": 32, "volumes": 4}[arguments.stage],
        lr=arguments.lr or {"patches": 3e-3, "volumes": 1e-3}[arguments.stage],
        optimizer="adamw",
        weight_decay=1e-3,
        schedule={"patches": "constant", "volumes": "cosine"}[arguments.stage],
        warmup=100 if arguments.stage == "patches" else 10,
        clip_norm=0.3,
        ema=0.99 if arguments.stage == "patches" else 0.98,
        checkpoint_every=50,
        keep=2,
        seed=arguments.seed,
    )
    trainer.fit(clips, resume="auto")
    print(f"weights: {weights_of(Path(arguments.run_dir))}")


def weights_of(folder: Path) -> Path:
    """A weights folder, or the averaged weights of a run's newest checkpoint."""
    newest = newest_checkpoint(folder)
    return folder if newest is None else newest


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("patches", "volumes"))
    parser.add_argument("--data", required=True, help="packed scenes, a TFRecord file or a folder of these")
    parser.add_argument("--run-dir", required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument(
        "--steps-apart", type=int, nargs="+", default=[4], help="frames from one to the next: 4 is 80/4"
    )
    parser.add_argument("--context", type=int, default=6, help="true frames before predictions are fed back")
    parser.add_argument("--init", help="weights or a run folder to begin from")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()

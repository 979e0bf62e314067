# SPDX-License-Identifier: Apache-2.0
"""Train the next-volume predictor of scenes of voxels, as convlstm-voxels was; every run is resumable.

    DATA="--data voxel4d/train_3200_packed.npz --steps-apart 4 4 4 2 1"
    python examples/training/voxels.py patches $DATA --run-dir runs/small --steps 2000 \
        --encoder-kernel-size 3 --encoder-channels 96 --hidden-channels 64 --history 3
    python examples/training/voxels.py patches $DATA --run-dir runs/large --init runs/small --steps 2000 \
        --lr 1e-3 --schedule cosine
    python examples/training/voxels.py volumes $DATA --run-dir runs/volumes --init runs/large --steps 200 --lr 5e-4

Most of a scene is empty, and what is not moves only at its surface. In this network a place remembers nothing but
its own neighbourhood, so it can be trained on single places: those where something happens are drawn more often, and
weigh less by as much. A small network learns quickly what a large one then begins with: --init puts a smaller network
into the one that is trained, so that it predicts the same at first.

The other stage, `volumes`, runs whole volumes and feeds predictions back, with the Jaccard distance in the loss: it
gains in the long term and loses in one step. The mean of both networks' weights (`publish_voxels.py --average-with`)
keeps most of either. Called again with the same --run-dir, a run goes on where it stopped.
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
        # The places that the encoder sees at once, and those at each side of the middle.
        across = self.model.encoder_kernel_size
        beside = across // 2
        side, margin = 2 * across, 2 * beside
        around = F.pad(clips, (margin,) * 6).unfold(2, side, 2).unfold(3, side, 2).unfold(4, side, 2)
        clip, *place = torch.unravel_index(chosen, (len(clips), *around.shape[2:5]))
        seen = around[clip, :, place[0], place[1], place[2]]
        middle = slice(margin, margin + 2)
        truth = seen[:, 1:, middle, middle, middle].flatten(2).transpose(0, 1)
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
        """Logits (T, places, 8) at the middle of neighbourhoods (T, places, s, s, s): what the network gives there."""
        model = self.model
        length, count = seen.shape[:2]
        shown = to_patches(seen.reshape(length * count, 1, *seen.shape[2:]), 2).view(length, count, 8, -1)
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
        return logits + model.stay * (2 * shown[..., shown.shape[-1] // 2] - 1)


def main() -> None:
    arguments = parse()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    model = pcvideo.ConvLSTMPredictor(
        history=arguments.history,
        encoder_channels=arguments.encoder_channels,
        encoder_kernel_size=arguments.encoder_kernel_size,
        hidden_channels=(arguments.hidden_channels,),
        **MODEL,
    )
    if arguments.init is not None:
        begin_as(model, pcvideo.from_pretrained(weights_of(Path(arguments.init))))
    strategy: Any = Places(frames=9, places=40)
    if arguments.stage == "volumes":
        strategy = SelfFeeding(
            context=arguments.context, horizon=4, loss=VolumeLoss(jaccard=0.1, set_weight=SET_WEIGHT)
        )
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
        schedule=arguments.schedule or {"patches": "constant", "volumes": "cosine"}[arguments.stage],
        warmup=100 if arguments.stage == "patches" else 10,
        clip_norm=0.3,
        ema=0.99 if arguments.stage == "patches" else 0.98,
        checkpoint_every=50,
        keep=2,
        seed=arguments.seed,
    )
    trainer.fit(clips, resume="auto")
    print(f"weights: {weights_of(Path(arguments.run_dir))}")


@torch.no_grad()
def begin_as(model: pcvideo.ConvLSTMPredictor, small: pcvideo.ConvLSTMPredictor) -> None:
    """Put a smaller network of this kind into a larger one, which then predicts what it does.

    What the small one has not is seen with a weight of zero by what it has. New features and new hidden channels keep
    their random weights, and nothing looks at them yet.
    """
    given, wanted = small.config, model.config
    features, hidden = given["encoder_channels"], given["hidden_channels"][0]
    all_features, all_hidden = wanted["encoder_channels"], wanted["hidden_channels"][0]
    inner = (wanted["encoder_kernel_size"] - given["encoder_kernel_size"]) // 2
    middle = slice(inner, inner + given["encoder_kernel_size"])
    # The frames of the history stand one after the other, the newest first.
    seen = small.encoder.weight.shape[1]
    model.encoder.weight[:features] = 0
    model.encoder.weight[:features, :seen, middle, middle, middle] = small.encoder.weight
    model.encoder.bias[:features] = small.encoder.bias
    gates, old_gates = (network.cells[0].to_gates for network in (model, small))
    for new, old in zip(gates.weight.split(all_hidden), old_gates.weight.split(hidden), strict=True):
        new[:hidden] = 0
        new[:hidden, :features] = old[:, :features]
        new[:hidden, all_features : all_features + hidden] = old[:, features:]
    for new, old in zip(gates.bias.split(all_hidden), old_gates.bias.split(hidden), strict=True):
        new[:hidden] = old
    model.head.weight[:] = 0
    model.head.weight[:, :hidden] = small.head.weight
    model.head.bias.copy_(small.head.bias)
    model.stay.copy_(small.stay)


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
    parser.add_argument("--init", help="weights or a run folder to begin from; may be of a smaller network")
    parser.add_argument("--history", type=int, default=4, help="frames that the encoder sees at once")
    parser.add_argument("--encoder-channels", type=int, default=128)
    parser.add_argument("--encoder-kernel-size", type=int, default=5, help="places of 2x2x2 voxels")
    parser.add_argument("--hidden-channels", type=int, default=128)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--schedule", choices=("constant", "cosine"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()

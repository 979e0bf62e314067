# SPDX-License-Identifier: Apache-2.0
"""MSPN with other resampling between its levels, and other fusion in its cells, all trained alike.

    python benchmarks/ablate_mspn.py --digits MNIST_FOLDER --run-dir runs/ablation [--seeds 0 1] [--only NAME ...]

Each variant is trained for the same steps with the same seeds to predict four frames of moving digits from four, and
scored on digits that no training clip shows. Runs that were stopped go on, and those that are done are only told.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from _measure import machine, print_table
from torch import Tensor

import pcvideo
from pcvideo.data import MovingMNIST
from pcvideo.metrics import PerStep, copy_last
from pcvideo.training import SelfFeeding

NETWORK = {"in_channels": 1, "levels": 2, "channels": (16, 32, 48), "hidden_channels": 16, "patch": 4}
VARIANTS: dict[str, dict[str, Any]] = {
    "nearest-concat": {},
    "average-concat": {"resample": "average"},
    "binomial-concat": {"resample": "binomial"},
    "fir-concat": {"resample": "fir"},
    "nearest-modulate": {"fusion": "modulate"},
    "nearest-add": {"fusion": "add"},
    "fir-modulate": {"resample": "fir", "fusion": "modulate"},
}
METRICS = ("mse", "mae", "psnr", "ssim")
CONTEXT = HORIZON = 4
BATCH = 4


def train(variant: str, seed: int, options: argparse.Namespace) -> Path:
    """Train one variant, or go on with it; its run folder."""
    folder = options.run_dir / f"{variant}-{seed}"
    torch.manual_seed(seed)
    model = pcvideo.MSPN(**NETWORK, **VARIANTS[variant])
    trainer = pcvideo.Trainer(
        model,
        SelfFeeding(context=CONTEXT, horizon=HORIZON),
        run_dir=folder,
        steps=options.steps,
        batch_size=BATCH,
        lr=2e-3,
        optimizer="adamw",
        weight_decay=1e-4,
        warmup=50,
        clip_norm=1000.0,
        ema=0.99,
        seed=seed,
        device=options.device,
        checkpoint_every=500,
        keep=1,
    )
    clips = MovingMNIST(options.digits, clips=100_000, frames=CONTEXT + HORIZON, seed=seed, split="train")
    trainer.fit(clips, resume="auto")
    trainer.weights.save_pretrained(folder / "weights")
    return folder


@torch.no_grad()
def score(weights: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Figures of the model and of copy-last on the same test clips, protocol `standard` without LPIPS."""
    model = pcvideo.MSPN.from_pretrained(weights, device=options.device)
    clips = MovingMNIST(options.digits, clips=options.clips, frames=CONTEXT + HORIZON, seed=0, split="test")
    standard = pcvideo.metrics.PROTOCOLS["standard"].metrics
    scores = {name: PerStep({metric: standard[metric] for metric in METRICS}) for name in ("model", "copy_last")}
    for start in range(0, options.clips, 25):
        batch: Tensor = clips.batch(list(range(start, min(start + 25, options.clips))), options.device)
        context, truth = batch[:, :CONTEXT], batch[:, CONTEXT:]
        scores["model"].update(model(context, HORIZON), truth)
        scores["copy_last"].update(copy_last(context, HORIZON), truth)
    return {
        name: {metric: figures["mean"] for metric, figures in each.compute().items() if figures}
        for name, each in scores.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", required=True, help="folder with MNIST's IDX files")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--clips", type=int, default=500, help="test clips")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    results: dict[str, list[dict[str, float]]] = {name: [] for name in options.only}
    baseline: dict[str, float] = {}
    for seed in options.seeds:
        for variant in options.only:
            done = options.run_dir / f"{variant}-{seed}" / "figures.json"
            if not done.exists():
                folder = train(variant, seed, options)
                done.write_text(json.dumps(score(folder / "weights", options), indent=2))
            figures = json.loads(done.read_text())
            results[variant].append(figures["model"])
            baseline = figures["copy_last"]

    print(f"{machine()}; {options.steps} steps, {options.clips} test clips, seeds {options.seeds}")
    rows = [
        [name, str(parameters(name)), *(spread([run[metric] for run in runs]) for metric in METRICS)]
        for name, runs in results.items()
    ]
    rows.append(["copy-last", "", *(f"{baseline[metric]:.4g}" for metric in METRICS)])
    print_table("Four frames from four: mean over seeds (lowest to highest)", ["", "parameters", *METRICS], rows)


def parameters(variant: str) -> int:
    with torch.device("meta"):
        model = pcvideo.MSPN(**NETWORK, **VARIANTS[variant])
    return sum(parameter.numel() for parameter in model.parameters())


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4g} ({min(values):.4g} to {max(values):.4g})"


if __name__ == "__main__":
    main()

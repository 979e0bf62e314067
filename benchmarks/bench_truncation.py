# SPDX-License-Identifier: Apache-2.0
"""Memory of a training step on a long clip: whole, in pieces, and with activations computed twice.

A small MSPN on one clip of noise, batch 1; the peak is that of a fresh process above its weights, their
gradients and its clip.

    python benchmarks/bench_truncation.py --frames 100 --pieces 10 25
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from _measure import machine, peak_memory, print_table

import pcvideo
from pcvideo.training import SelfFeeding

WIDTHS, HIDDEN = (8, 16, 32, 64), 8


def train_step(start: Callable[[], None], frames: int, truncate: int | None, checkpoint: bool, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = pcvideo.MSPN(in_channels=1, levels=3, channels=WIDTHS, hidden_channels=HIDDEN)
    clip = torch.rand(1, frames, 1, 64, 64)
    # Gradients, and what the libraries set up, are there whatever the length.
    SelfFeeding(context=1, horizon=1, checkpoint=checkpoint).attach(model)(clip)[0].backward()
    context = frames // 2
    strategy = SelfFeeding(context=context, horizon=frames - context, truncate=truncate, checkpoint=checkpoint)
    start()
    for piece in strategy.attach(model).pieces(clip):
        strategy(piece)[0].backward()


def main(frames: int, pieces: list[int], threads: int) -> None:
    print(machine())
    rows = []
    for truncate in (None, *pieces):
        for checkpoint in (False, True):
            peak = peak_memory(train_step, frames, truncate, checkpoint, threads)
            rows.append([str(truncate or "whole"), "yes" if checkpoint else "no", f"{peak:.0f}"])
    print_table(f"One training step on {frames} frames of 64x64", ("steps in a piece", "checkpoint", "MiB"), rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--pieces", type=int, nargs="+", default=[10])
    parser.add_argument("--threads", type=int, default=1)
    main(**vars(parser.parse_args()))

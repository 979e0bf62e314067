# SPDX-License-Identifier: Apache-2.0
"""Time convolutions of volumes by Fourier transforms beside PyTorch's own, in processor time of one thread.

python benchmarks/bench_fourier_conv.py
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pcvideo.layers import use_fourier

# Channels in and out, the kernel's and the volume's side: ConvLSTM3D's first two layers and head, convlstm-voxels.
CASES = ((33, 128, 5, 16), (64, 128, 3, 16), (32, 1, 5, 16), (32, 128, 5, 8))
BATCHES = (1, 8, 25)
RUNS = 5


def main() -> None:
    torch.set_num_threads(1)
    print("channels   kernel  side  batch  plain ms  Fourier ms  times   training: plain ms  Fourier ms  times")
    for inputs, outputs, kernel, side in CASES:
        plain = nn.Conv3d(inputs, outputs, kernel, padding=kernel // 2)
        fourier = use_fourier(nn.Sequential(copy.deepcopy(plain)), kernel_size=1)
        for batch in BATCHES:
            volumes = torch.randn(batch, inputs, side, side, side)
            row = f"{inputs:3d} to {outputs:3d}  {kernel:5d}  {side:4d}  {batch:5d}"
            for train in (False, True) if batch < 25 else (False,):
                one, other = (best(step(conv, volumes, train=train)) for conv in (plain, fourier))
                row += f"  {one:8.1f}  {other:10.1f}  {one / other:5.2f}" + " " * 6
            print(row, flush=True)


def step(conv: nn.Module, volumes: Tensor, *, train: bool) -> Callable[[], None]:
    """A forward pass, or one with all gradients."""

    def forward() -> None:
        with torch.no_grad():
            conv(volumes)

    def both() -> None:
        conv(volumes.requires_grad_()).sum().backward()

    return both if train else forward


def best(call: Callable[[], None]) -> float:
    """The least processor time of several calls, in milliseconds."""
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - start))
    return min(times)


if __name__ == "__main__":
    main()

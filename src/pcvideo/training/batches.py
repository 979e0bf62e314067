# SPDX-License-Identifier: Apache-2.0
"""Which clips make up which step: a function of seed and step alone, so that a run resumes in mid-epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

__all__ = ["epoch_batches", "load_batches", "train_batches"]


def epoch_batches(count: int, batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The indices of every batch of an epoch, in a random order; an incomplete last batch waits for the next epoch.

    Raises:
        ValueError: there are fewer clips than one batch takes.
    """
    if count < batch_size:
        raise ValueError(
            f"batch_size={batch_size} is more than the {count} training clips there are; take a smaller batch, or cut "
            f"more windows from the videos with a smaller stride"
        )
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(count, generator=generator).tolist()
    return [order[start : start + batch_size] for start in range(0, count - batch_size + 1, batch_size)]


def train_batches(
    clips: Any, batch_size: int, *, seed: int, step: int, device: torch.device, num_workers: int = 0
) -> Iterator[Tensor]:
    """The batches (B, T, C, H, W) from `step` on, without an end, on the device.

    A data set with `batch(indices, device)` makes whole batches itself, where they are needed; any other goes through
    PyTorch's DataLoader. `clips.set_epoch(epoch)` is called where there is one.
    """
    per_epoch = len(clips) // batch_size
    epoch, skip = divmod(step, per_epoch) if per_epoch else (0, 0)
    while True:
        indices = epoch_batches(len(clips), batch_size, seed=seed, epoch=epoch)[skip:]
        if hasattr(clips, "set_epoch"):
            clips.set_epoch(epoch)
        yield from load_batches(clips, indices, device=device, num_workers=num_workers)
        epoch, skip = epoch + 1, 0


def load_batches(
    clips: Any, indices: list[list[int]], *, device: torch.device, num_workers: int = 0
) -> Iterator[Tensor]:
    """The batches of the given indices, on the device."""
    if hasattr(clips, "batch"):
        for batch in indices:
            yield clips.batch(batch, device=device)
        return
    loader = DataLoader(clips, batch_sampler=indices, num_workers=num_workers, pin_memory=device.type == "cuda")
    for batch in loader:
        yield batch.to(device, non_blocking=True)

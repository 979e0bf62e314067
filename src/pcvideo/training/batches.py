# SPDX-License-Identifier: Apache-2.0
"""Which clips make up which step, and which rank takes them: a function of seed and step alone.

So a run resumes in mid-epoch, and every clip of a batch is taken once, however many ranks share it.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pcvideo._checks import check_clip, describe
from pcvideo.training.ranks import Ranks, split_evenly

# What a DataLoader says of a worker that is gone.
_WORKER_DIED = re.compile(r"DataLoader worker .*(exited unexpectedly|killed by)", re.DOTALL)

__all__ = ["check_clips", "epoch_batches", "load_batches", "train_batches"]


def check_clips(
    name: str, clips: Any, *, length: int, model: Any, channels: int | None = None, minimum: int = 1
) -> None:
    """Refuse, before the first step, a data set that would fail at it or at the first validation; loads one clip.

    Args:
        name: of the argument, for the message.
        clips: the data set.
        length: frames that a clip must have at least.
        model: its `in_channels` and `size_multiple`, where it has them, say what a frame must be.
        channels: of a frame, where they are not the model's.
        minimum: clips that there must be at least.

    Raises:
        TypeError: it has no length or no clips of float tensors.
        ValueError: it is too small, or its first clip is too short, or of another shape.
    """
    if not hasattr(clips, "__len__") or not (hasattr(clips, "__getitem__") or hasattr(clips, "batch")):
        raise TypeError(
            f"{name} must be a data set with a length, whose items are clips (T, C, H, W), got {describe(clips)}"
        )
    if len(clips) == 0:
        raise ValueError(f"{name} is empty; look whether its folder holds clips of at least {length} frames")
    if len(clips) < minimum:
        raise ValueError(
            f"batch_size={minimum} is more than the {len(clips)} clips of {name}; take a smaller batch, or cut more "
            f"windows from the videos with a smaller stride"
        )
    first = clips.batch([0], device="cpu")[0] if hasattr(clips, "batch") else clips[0]
    dims = getattr(model, "spatial_dims", 2)
    if not isinstance(first, Tensor) or first.ndim != 2 + dims:
        axes = "(T, C, H, W)" if dims == 2 else "(T, C, D, H, W)"
        raise TypeError(f"{name}[0] must be a clip, a float tensor {axes}, got {describe(first)}")
    if first.shape[0] < length:
        raise ValueError(
            f"{name} must hold clips of context + horizon = {length} frames at least, got {first.shape[0]}; cut longer "
            f"clips or turn one of the two down"
        )
    channels = getattr(model, "in_channels", first.shape[1]) if channels is None else channels
    multiple = getattr(model, "size_multiple", 1)
    check_clip(f"{name}[:1]", first[None], channels=channels, multiple=multiple, spatial_dims=dims)


def epoch_batches(count: int, batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The indices of every batch of an epoch, in a random order; what doesn't fill a last batch is left out."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order = torch.randperm(count, generator=generator).tolist()
    return [order[start : start + batch_size] for start in range(0, count - batch_size + 1, batch_size)]


def train_batches(
    clips: Any,
    batch_size: int,
    *,
    seed: int,
    step: int,
    device: torch.device,
    num_workers: int = 0,
    timeout: float = 0.0,
    ranks: Ranks | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """The indices and the clips (B, T, C, H, W) of every batch from `step` on, without an end, on the device.

    `clips.set_epoch(epoch)` is called where there is one. There must be at least `batch_size` clips. Of many ranks each
    is given the indices of the whole batch, and of the clips its own share; shares differ by one clip at most.
    """
    ranks = ranks or Ranks()
    epoch, skip = divmod(step, len(clips) // batch_size)
    while True:
        indices = epoch_batches(len(clips), batch_size, seed=seed, epoch=epoch)[skip:]
        shares = [split_evenly(batch, ranks.count)[ranks.number] for batch in indices]
        if hasattr(clips, "set_epoch"):
            clips.set_epoch(epoch)
        loaded = load_batches(
            clips, shares, device=device, num_workers=num_workers, seed=seed + step + epoch, timeout=timeout
        )
        yield from ((batch, share) for batch, (_, share) in zip(indices, loaded, strict=True))
        epoch, skip = epoch + 1, 0


def load_batches(
    clips: Any,
    indices: list[list[int]],
    *,
    device: torch.device,
    num_workers: int = 0,
    seed: int = 0,
    timeout: float = 0.0,
) -> Iterator[tuple[list[int], Tensor]]:
    """The given indices, each with its batch on the device.

    A data set with `batch(indices, device)` makes whole batches itself, where they are needed; any other goes through
    PyTorch's DataLoader. `seed` is that of the workers' own random numbers; clips that shall not depend on the number
    of workers draw theirs from (seed, epoch, index), as those of `pcvideo.data` do.

    Raises:
        RuntimeError: a worker process died, or gave nothing for `timeout` seconds (0 waits for ever); the message
            names the clips that were being loaded.
    """
    if hasattr(clips, "batch"):
        for batch in indices:
            yield batch, clips.batch(batch, device=device)
        return
    loader = DataLoader(
        clips,
        batch_sampler=indices,
        num_workers=num_workers,
        worker_init_fn=_settle_worker,
        pin_memory=device.type == "cuda",
        timeout=timeout if num_workers else 0,
        # Its own, or each new loader would draw from the generator that the model's randomness comes from.
        generator=torch.Generator().manual_seed(seed % 2**63),
    )
    loaded = iter(loader)
    # What workers are at while the batch at a place is waited for: each is handed two batches ahead.
    ahead = max(1, 2 * num_workers)
    for place, batch in enumerate(indices):
        under_way = [index for each in indices[place : place + ahead] for index in each]
        yield batch, _next_of(loaded, clips, under_way).to(device, non_blocking=True)


def _next_of(loaded: Iterator[Tensor], clips: Any, under_way: list[int]) -> Tensor:
    try:
        return next(loaded)
    except RuntimeError as error:
        died, late = _WORKER_DIED.search(str(error)), "DataLoader timed out" in str(error)
        if not died and not late:
            raise
        what = "died" if died else "gave nothing in time (data_timeout)"
        raise RuntimeError(
            f"a worker process that loads clips {what}: {error}. It was at one of {_named(clips, under_way)}. A worker "
            f"dies of a broken file's decoder or of too little memory (turn num_workers down), and hangs on a file "
            f"server; num_workers=0 shows which clip it is"
        ) from error


def _named(clips: Any, indices: list[int]) -> str:
    windows = getattr(clips, "windows", None)
    if windows is None:
        return f"the clips {indices}"
    return "the clips " + ", ".join(f"{index} ({getattr(windows[index], 'path', '?')})" for index in indices)


def _settle_worker(worker: int) -> None:
    """Keep signals to the whole group (Ctrl-C in a terminal) from workers: their death would disturb the last save."""
    # What the parent left to the collector may wait, when it goes, for threads that a fork leaves behind (PyAV's).
    gc.freeze()
    if os.name == "posix":
        os.setpgrp()
    if threading.current_thread() is threading.main_thread():
        # And what is sent to a worker from the process that waits for it: it has a copy of that one's ears.
        signal.set_wakeup_fd(-1)

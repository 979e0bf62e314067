# SPDX-License-Identifier: Apache-2.0
"""The clips that `train` and `evaluate` open: generated ones, or a user's own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcvideo._checks import check_int
from pcvideo.data import ClipDataset, HorizontalFlip, MovingMNIST, MovingMNISTFile, open_clips, read_moving_mnist_test

__all__ = ["GENERATED", "batches", "generated_clips", "own_clips", "spread"]

logger = logging.getLogger(__name__)

# What stands in place of a path for clips that are made.
GENERATED = "moving-mnist"


def generated_clips(
    digits: str | Path | None,
    *,
    clips: int,
    length: int,
    seed: int,
    split: str,
    size: Sequence[int] | None = None,
    num_digits: int = 2,
    speed: float = 0.1,
) -> MovingMNIST | MovingMNISTFile:
    """Clips of moving digits; `digits` is a folder with MNIST's IDX files, one IDX file, or `mnist_test_seq.npy`.

    Raises:
        FileNotFoundError, ValueError, TypeError: see `MovingMNIST`.
    """
    if digits is not None and Path(digits).suffix == ".npy":
        standard = read_moving_mnist_test(digits)
        if length > 20:
            raise ValueError(f"{digits} has clips of 20 frames, context + horizon = {length}; turn one of them down")
        return standard
    return MovingMNIST(
        None if digits is None else str(digits),
        clips=clips,
        frames=length,
        size=64 if size is None else (size[0], size[1]),
        num_digits=num_digits,
        speed=speed,
        seed=seed,
        split=split,
    )


def own_clips(
    path: str | Path,
    *,
    length: int,
    channels: int,
    size: Sequence[int] | None = None,
    stride: int | None = None,
    interval: int = 1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    cache: bool = False,
    on_error: str = "error",
    flip: bool = False,
    seed: int = 0,
) -> ClipDataset:
    """Windows out of a folder of videos, a folder of frames, a video file or an array file.

    Raises:
        FileNotFoundError, VideoError, ValueError, TypeError: see `pcvideo.data.open_clips`; or a flag is for another
            kind of data.
    """
    # Each kind of data set takes some of these, and refuses the others.
    options: dict[str, Any] = {}
    options |= {"include": tuple(include)} if include else {}
    options |= {"exclude": tuple(exclude)} if exclude else {}
    options |= {"cache": True} if cache else {}
    options |= {"on_error": on_error} if on_error != "error" else {}
    try:
        return open_clips(
            path,
            length=length,
            stride=stride,
            interval=interval,
            size=None if size is None else (size[0], size[1]),
            channels=channels,
            transform=HorizontalFlip() if flip else None,
            seed=seed,
            **options,
        )
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        names = ", ".join(f"--{name.replace('_', '-')}" for name in options)
        raise ValueError(f"{path} is no folder of videos: some of {names} are for these alone") from error


def spread(count: int, wanted: int | None) -> list[int]:
    """`wanted` indices out of `count`, evenly spread and ascending; all of them where there are no more."""
    if wanted is None or check_int("--clips", wanted) >= count:
        return list(range(count))
    return [index * count // wanted for index in range(wanted)]


def batches(clips: Any, indices: Sequence[int], size: int, device: torch.device) -> Iterator[Tensor]:
    """Batches (B, T, C, H, W) in order; clips of another size begin a new batch."""
    if hasattr(clips, "batch"):
        for start in range(0, len(indices), size):
            yield clips.batch(list(indices[start : start + size]), device=device)
        return
    held: list[Tensor] = []
    for index in indices:
        clip = clips[index]
        if held and (len(held) == size or held[0].shape != clip.shape):
            yield torch.stack(held).to(device)
            held = []
        held.append(clip)
    if held:
        yield torch.stack(held).to(device)

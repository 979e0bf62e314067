# SPDX-License-Identifier: Apache-2.0
"""Clips out of arrays and tensors, and what every data set of clips shares: windows, one random draw per clip, skips.

Window `i` and its random draws depend on (seed, epoch, i) alone, so that any worker, or none, gives the same clip.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pcvideo._checks import check_choice, check_int, describe
from pcvideo.video_io import VideoError, resize_frames, to_clip_tensor
from pcvideo.video_io.convert import arrange, as_tensor, check_frame_size, fit_channels, guess_layout
from pcvideo.video_io.read import read_array

__all__ = ["ClipDataset", "TensorClips", "Transform", "Window", "cut_windows"]

logger = logging.getLogger(__name__)

Transform = Callable[[Tensor, torch.Generator], Tensor]
"""`transform(clip, generator)`: a clip (T, C, H, W) to a clip, with all its random draws from the generator."""


class Window(NamedTuple):
    """Where a clip lies: `length` frames from `start` in steps of `interval`; `path` is a file, or a clip's number."""

    path: Path | int
    start: int
    length: int
    interval: int = 1


def cut_windows(frames: int, *, length: int, stride: int | None = None, interval: int = 1) -> list[int]:
    """First frames of the windows of `length` frames, `interval` apart, in a clip of `frames` frames.

    Args:
        frames: number of frames of the clip.
        length: frames of a window.
        stride: frames from one window's start to the next one's. None cuts windows that share no frame: for each of the
            `interval` ways to take every `interval`-th frame, windows end to end, as MSPN's protocol does it.
        interval: step between the frames of a window.

    Returns:
        The starts, ascending; empty where the clip is too short.
    """
    span = (length - 1) * interval + 1
    if stride is not None:
        return list(range(0, frames - span + 1, stride))
    offsets = range(interval)
    return sorted(start for offset in offsets for start in range(offset, frames - span + 1, length * interval))


class ClipDataset(Dataset[Tensor]):
    """What data sets of clips share; a subclass fills `windows` and says how one is loaded.

    `dataset[i]` is a float32 clip (length, C, H, W) in [0, 1], transformed. A window that can't be read is an error, or
    with `on_error="skip"` is left out: the next one that can be read stands in, the loss is logged and kept in
    `skipped`, and more than `max_errors` of them are an error. (Worker processes count for themselves.)

    Attributes:
        windows: where each clip lies.
        skipped: (path, reason) of all that was left out.
    """

    def __init__(
        self, *, transform: Transform | None = None, seed: int = 0, on_error: str = "error", max_errors: int = 10
    ) -> None:
        if transform is not None and not callable(transform):
            raise TypeError(f"transform must be callable as transform(clip, generator), got {describe(transform)}")
        self.transform = transform
        self.seed = check_int("seed", seed, minimum=0)
        self.on_error = check_choice("on_error", on_error, ("error", "skip"))
        self.max_errors = check_int("max_errors", max_errors, minimum=0)
        self.windows: list[Window] = []
        self.skipped: list[tuple[Path | int, str]] = []
        self._errors = 0
        # Shared memory: workers that live on from epoch to epoch see the change too.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def load(self, window: Window) -> Tensor:
        """The clip of one window, (length, C, H, W) float32 in [0, 1], before the transform.

        Raises:
            VideoError: it can't be read.
        """
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Give other random draws, the same again for the same epoch; reaches running workers."""
        self._epoch.fill_(check_int("epoch", epoch, minimum=0))

    def generator(self, index: int) -> torch.Generator:
        """The source of all random draws for clip `index` in this epoch."""
        state = np.random.SeedSequence([self.seed, int(self._epoch), index]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Tensor:
        index = check_int("index", index, minimum=-len(self))
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} clips")
        index %= len(self)
        clip = self._load_or_next(index)
        return clip if self.transform is None else self.transform(clip, self.generator(index))

    def _load_or_next(self, index: int) -> Tensor:
        for offset in range(len(self)):
            window = self.windows[(index + offset) % len(self)]
            try:
                return self.load(window)
            except VideoError as error:
                self._skip(window.path, error)
        raise VideoError(f"none of the {len(self)} clips can be read; the last ones: {self.skipped[-3:]}")

    def _skip(self, path: Path | int, error: Exception) -> None:
        """Put `path` on the list, or raise `error` where that is asked for or too much is lost already."""
        if self.on_error == "error":
            raise error
        entry = (path, str(error))
        if entry in self.skipped:
            return
        self._errors += 1
        self.skipped.append(entry)
        logger.warning("left out: %s", error)
        if self._errors > self.max_errors:
            lost = "; ".join(reason for _, reason in self.skipped[-3:])
            raise VideoError(f"more than max_errors={self.max_errors} clips can't be read, the last ones: {lost}")


class TensorClips(ClipDataset):
    """Clips out of an array, a tensor or an array file.

    Args:
        source: (N, T, C, H, W), N clips; or (T, C, H, W) or (T, H, W), one long clip; uint8, uint16, or float in
            [0, 1]. A path of a .npy file (stays on the disk, memory-mapped), of a .npz, or of a .pt or .pth file that
            holds one tensor (one that holds pickled code is refused, never run).
        length: frames of a window that each clip is cut into; None takes each clip whole.
        stride, interval: see `cut_windows`.
        size: (height, width) to resize to.
        channels: 1 makes colour grey, 3 repeats grey; None keeps what is there.
        layout: the axes where they are others, B for the clips; `mnist_test_seq.npy` is "TBHW".
        value_range: (low, high) that become 0 and 1, see `to_clip_tensor`.
        transform: `transform(clip, generator)`.
        seed: of the transform's random draws.

    Raises:
        FileNotFoundError, VideoError: the file is not there, damaged, or holds something other than one array.
        TypeError, ValueError: axes that are not clear, a dtype without a known range, no window long enough.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | np.ndarray | Tensor,
        *,
        length: int | None = None,
        stride: int | None = None,
        interval: int = 1,
        size: tuple[int, int] | None = None,
        channels: int | None = None,
        layout: str | None = None,
        value_range: tuple[float, float] | None = None,
        transform: Transform | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(transform=transform, seed=seed)
        self.path = Path(source) if isinstance(source, (str, os.PathLike)) else None
        self.size = check_frame_size("size", size)
        self.channels, self.value_range = channels, value_range
        self._array: Tensor | None = _open_array(source)
        self.layout = guess_layout(tuple(self._array.shape), layout, channels)
        clips, frames = self._clips().shape[:2]
        interval = check_int("interval", interval)
        stride = None if stride is None else check_int("stride", stride)
        length = -(-frames // interval) if length is None else check_int("length", length)
        starts = cut_windows(frames, length=length, stride=stride, interval=interval)
        self.windows = [Window(clip, start, length, interval) for clip in range(clips) for start in starts]
        if not self.windows:
            raise ValueError(
                f"source has {clips} clips of {frames} frames; a window needs {(length - 1) * interval + 1}: "
                f"use a smaller length or interval"
            )
        # One frame shows a wrong dtype, range or number of channels before the training starts.
        self.load(self.windows[0]._replace(length=1))

    def load(self, window: Window) -> Tensor:
        """The frames of one window; window.path is the number of the clip."""
        clip = self._clips()[cast(int, window.path)]
        stop = window.start + window.length * window.interval
        # Of a mapped file only the window is read; the clone is the caller's own, to change as they like.
        frames = clip[window.start : stop : window.interval].clone()
        try:
            frames = to_clip_tensor(frames, layout="TCHW", value_range=self.value_range).to(torch.float32)
        except ValueError as error:
            raise ValueError(f"clip {window.path}, window from frame {window.start}: {error}") from error
        frames = fit_channels(frames, self.channels, grey=self.channels == 1, notes=[])
        return resize_frames(frames, self.size)

    def _clips(self) -> Tensor:
        """All clips as a view (N, T, C, H, W)."""
        if self._array is None:
            self._array = _open_array(self.path)
        frames = arrange(self._array, self.layout)
        return frames if frames.ndim == 5 else frames[None]

    def __getstate__(self) -> dict[str, Any]:
        # A worker maps the file itself; a pickled map would carry all of it along.
        return {**self.__dict__, "_array": None} if self.path is not None else dict(self.__dict__)


def _open_array(source: Any) -> Tensor:
    if not isinstance(source, (str, os.PathLike)):
        return as_tensor(source)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist (looked for it in {path.absolute().parent})")
    return read_array(path, mapped=True)

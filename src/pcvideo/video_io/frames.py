# SPDX-License-Identifier: Apache-2.0
"""Whatever holds frames, to be gone through in constant memory, from the top or from any frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcvideo._checks import check_int, check_values, describe
from pcvideo.video_io.convert import as_tensor, check_frame_size, fit_channels, resize_frames, scale_values
from pcvideo.video_io.pictures import is_picture, open_pictures, picture_tensor
from pcvideo.video_io.read import ARRAY_SUFFIXES, iter_frames, open_source, read_array, read_clip

__all__ = ["OpenedFrames", "open_frames"]


@dataclass(frozen=True, eq=False)
class OpenedFrames:
    """Frames that wait to be gone through; `open_frames` makes one.

    Attributes:
        name: what they are, for messages.
        start: the number in the source of the first one.
        count: how many there are, at most; None where the end alone tells.
        size: (height, width); None where the first frame alone tells.
        rate: frames per second, or None.
        bit_depth: 8 or 16.
        notes: what is odd about them, in words.
        repeatable: whether they can be gone through more than once, and from any frame, with the same numbers.
    """

    name: str
    start: int
    count: int | None
    size: tuple[int, int] | None
    rate: float | None
    bit_depth: int
    notes: tuple[str, ...]
    repeatable: bool
    _read: Callable[[int], Iterator[Tensor]] = field(repr=False)

    def frames(self, first: int = 0) -> Iterator[Tensor]:
        """Yield (C, H, W), float32 in [0, 1], from number `first` on.

        Raises:
            VideoError, ValueError, TypeError: a frame that can't be read, when its turn comes.
        """
        return self._read(first)


def open_frames(
    source: Any,
    *,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    start: int = 0,
    stop: int | None = None,
    on_error: str = "error",
    to_grey: bool = False,
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
    nan: str = "error",
) -> OpenedFrames:
    """Look through a source of frames, without reading it all.

    Args:
        source: a path of what `open_source` takes, or a list of paths of pictures: read frame by frame. A .npy, .npz,
            .pt or .pth file, an array, a tensor or a list of pictures: kept in memory. Any other iterable of frames
            (C, H, W) or pictures, such as a generator: gone through once.
        channels, size, start, stop, on_error, to_grey: as for `read_clip`.
        layout, value_range, nan: for arrays, as for `read_clip`.

    Raises:
        FileNotFoundError, VideoError, TypeError, ValueError: as `read_clip`.
    """
    options: dict[str, Any] = {"channels": channels, "size": check_frame_size("size", size), "to_grey": to_grey}
    span = check_int("start", start, minimum=0), None if stop is None else check_int("stop", stop, minimum=0)
    of_arrays = {"layout": layout, "value_range": value_range, "nan": nan}
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.suffix.lower() not in ARRAY_SUFFIXES or path.is_dir():
            return _files(source, span, {**options, "on_error": on_error})
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist (looked for it in {path.absolute().parent})")
        return _array(str(source), read_array(path), span, {**options, **of_arrays})
    if isinstance(source, Sequence) and source and all(isinstance(item, (str, os.PathLike)) for item in source):
        return _files(source, span, {**options, "on_error": on_error})
    if isinstance(source, (Tensor, np.ndarray, Sequence)) or is_picture(source):
        return _array("the array", source, span, {**options, **of_arrays})
    if not isinstance(source, Iterable):
        raise TypeError(f"source must be a path, an array, a tensor or frames one by one, got {describe(source)}")
    return OpenedFrames("the frames", span[0], None, size, None, 8, (), False, _once(source, span, options))


def _files(source: Any, span: tuple[int, int | None], options: dict[str, Any]) -> OpenedFrames:
    """A file or folder, or a list of pictures: each time, no more is read than is asked for."""
    start, stop = span
    if isinstance(source, (str, os.PathLike)):
        opened: Any = open_source(source)
    else:
        paths = [Path(path) for path in source]
        opened = open_pictures(paths[0].parent, paths)
    count = len(range(opened.count)[start:stop])
    size = options["size"] or (opened.height, opened.width)

    def read(first: int) -> Iterator[Tensor]:
        return iter_frames(opened, start=start + first, stop=stop, **options)

    # Where broken frames are left out, the numbers of those behind them depend on where one begins.
    repeatable = options["on_error"] != "skip"
    return OpenedFrames(
        str(opened.path), start, count, size, opened.rate, opened.bit_depth, opened.notes, repeatable, read
    )


def _array(name: str, source: Any, span: tuple[int, int | None], options: dict[str, Any]) -> OpenedFrames:
    clip = read_clip(source, start=span[0], stop=span[1], **options)
    frames, height, width = clip.frames.float(), *clip.frames.shape[-2:]
    depth = 16 if str(getattr(source, "dtype", "")).endswith("uint16") else 8
    return OpenedFrames(
        name, span[0], len(frames), (height, width), None, depth, clip.notes, True, lambda first: iter(frames[first:])
    )


def _once(
    source: Iterable[Any], span: tuple[int, int | None], options: dict[str, Any]
) -> Callable[[int], Iterator[Tensor]]:
    """Frames that are made as they are asked for."""
    iterator = iter(source)

    def read(first: int) -> Iterator[Tensor]:
        for index, item in enumerate(islice(iterator, span[0] + first, span[1]), start=span[0] + first):
            frame = picture_tensor(item, notes=[]) if is_picture(item) else scale_values(as_tensor(item), None)
            if frame.ndim != 3:
                raise ValueError(f"frame {index} must be (C, H, W), got {describe(item)}")
            check_values("frames", frame[None], time_axis=0, first=index, door="enhance")
            frame = fit_channels(
                frame.to(torch.float32).clamp(0, 1), options["channels"], grey=options["to_grey"], notes=[]
            )
            yield resize_frames(frame, options["size"])

    return read

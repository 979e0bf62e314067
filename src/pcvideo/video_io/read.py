# SPDX-License-Identifier: Apache-2.0
"""The reading doors: a whole clip, frame by frame, or a window, from whatever holds frames."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pcvideo._checks import check_choice, check_int, describe
from pcvideo.video_io.containers import open_video
from pcvideo.video_io.convert import (
    VideoError,
    add_note,
    as_tensor,
    check_frame_size,
    convert,
    fit_channels,
    in_spans,
    resize_frames,
)
from pcvideo.video_io.deep_pictures import RAW_SUFFIXES
from pcvideo.video_io.pictures import PICTURE_SUFFIXES, is_picture, open_picture_file, open_pictures, picture_tensor

__all__ = [
    "ARRAY_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Clip",
    "FrameSource",
    "VideoInfo",
    "iter_frames",
    "open_source",
    "probe",
    "read_array",
    "read_clip",
    "read_window",
]

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"}
)
"""Suffixes of the files that a folder of videos is searched for; a file that is named is read whatever its suffix."""

ARRAY_SUFFIXES = frozenset({".npy", ".npz", ".pt", ".pth"})
"""Suffixes of the files that are read as arrays."""

_ARRAY_NAMES = ("frames", "clip", "clips", "video", "arr_0")
_ON_ERROR = ("error", "skip", "repeat")


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames and what is known of them.

    Attributes:
        frames: (T, C, H, W) float32 in [0, 1] (float64 where the source was), RGB or grey.
        rate: frames per second; the average where it varies, None where the source does not tell.
        notes: what was repaired, left out, turned or odd, in words.
    """

    frames: Tensor
    rate: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class VideoInfo:
    """What `probe` finds: path, number of frames (counted, not believed), upright size, frames per second, notes."""

    path: Path
    frames: int
    height: int
    width: int
    rate: float | None
    notes: tuple[str, ...] = ()


class FrameSource(Protocol):
    """A file or folder that holds one clip's frames, 8 or 16 bits deep: a plain record, which keeps nothing open."""

    @property
    def path(self) -> Path: ...  # noqa: D102
    @property
    def count(self) -> int: ...  # noqa: D102
    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def rate(self) -> float | None: ...  # noqa: D102
    @property
    def bit_depth(self) -> int: ...  # noqa: D102
    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102
    def frames(
        self, start: int = 0, stop: int | None = None, step: int = 1, *, notes: list[str] | None = None
    ) -> Iterator[tuple[int, Tensor | str]]:
        """Yield (index, frame (C, H, W) float32 in [0, 1]), or (index, reason) for a broken one; append to `notes`."""
        ...


def open_source(path: str | os.PathLike[str]) -> FrameSource:
    """Look through a video file, GIF, picture, TIFF of many pages or folder of pictures, without decoding it all.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        VideoError: it can't be read as frames.
    """
    path = _existing(path)
    if path.is_dir():
        return open_pictures(path)
    suffix = path.suffix.lower()
    if suffix == ".gif" or suffix in PICTURE_SUFFIXES | RAW_SUFFIXES:
        return open_picture_file(path)
    if suffix in ARRAY_SUFFIXES:
        raise VideoError(f"{path} is an array file, expected a video; read_clip and TensorClips read arrays")
    return open_video(path)


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Number of frames, size and rate of a video, GIF or folder of pictures; the frames are counted by demuxing.

    Raises:
        FileNotFoundError, VideoError: as `open_source`.
    """
    source = open_source(path)
    return VideoInfo(source.path, source.count, source.height, source.width, source.rate, source.notes)


def read_clip(
    source: Any,
    *,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
    on_error: str = "error",
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
    nan: str = "error",
    to_grey: bool = False,
) -> Clip:
    """Read a whole clip into memory.

    Args:
        source: path of a video file, a GIF, a picture (TIFF, PNG and camera RAW in full depth), a folder of pictures
            (natural order), a .npy, .npz, .pt or .pth file; an array or tensor; a list of pictures, arrays or paths.
        channels: 1 or 3 to have grey or colour; None keeps what is there.
        size: (height, width) to resize to, frame by frame, so that the memory needed is that of the small clip.
        start, stop, step: which frames, as in a slice; from 0, in steps of at least 1.
        on_error: for a broken frame: "error", "skip" it, or "repeat" the frame before it; the last two are noted.
        layout, value_range, nan: for arrays, see `to_clip_tensor`.
        to_grey: make colour grey (ITU-R BT.601). Without it, `channels=1` takes a file in a colour format only if its
            three channels are equal, and colour arrays not at all.

    Raises:
        FileNotFoundError: there is nothing at the path.
        VideoError: a file that can't be read, a broken frame, no frame left; names the path, the frame and the mend.
        TypeError, ValueError: an argument or an array outside what is stated.
    """
    check_choice("on_error", on_error, _ON_ERROR)
    size = check_frame_size("size", size)
    wanted = _slice(start, stop, step)
    if isinstance(source, (str, os.PathLike)):
        path = _existing(source)
        if path.suffix.lower() not in ARRAY_SUFFIXES or path.is_dir():
            return _read_source(open_source(path), wanted, channels, size, on_error, to_grey)
        source = read_array(path)
    elif isinstance(source, Sequence) and source and all(isinstance(item, (str, os.PathLike)) for item in source):
        paths = [_existing(item) for item in source]
        return _read_source(open_pictures(paths[0].parent, paths), wanted, channels, size, on_error, to_grey)
    frames, notes = _array_frames(source, layout, value_range, nan, channels)
    picked = frames[wanted]
    if not len(picked):
        raise ValueError(f"source has {len(frames)} frames, none is left of {_in_words(wanted)}")
    picked = fit_channels(picked, channels, grey=to_grey, notes=notes)
    return Clip(resize_frames(picked, size), None, tuple(notes))


def iter_frames(
    path: str | os.PathLike[str] | FrameSource,
    *,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
    on_error: str = "error",
    to_grey: bool = False,
) -> Iterator[Tensor]:
    """Yield frame after frame (C, H, W), float32 in [0, 1], in constant memory; arguments as for `read_clip`.

    What `read_clip` notes is logged here, as a warning.

    Raises:
        FileNotFoundError, VideoError, TypeError, ValueError: as `read_clip`; a broken frame when its turn comes.
    """
    check_choice("on_error", on_error, _ON_ERROR)
    size = check_frame_size("size", size)
    wanted = _slice(start, stop, step)
    source = open_source(path) if isinstance(path, (str, os.PathLike)) else path
    notes = list(source.notes)
    for frame in _mended(source, wanted, on_error, notes):
        yield resize_frames(fit_channels(frame, channels, grey=to_grey, notes=[]), size)
    for note in notes:
        logger.warning("%s: %s", source.path, note)


def read_window(
    path: str | os.PathLike[str] | FrameSource,
    start: int,
    length: int,
    *,
    step: int = 1,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    on_error: str = "error",
    to_grey: bool = False,
) -> Tensor:
    """Frames start, start + step, ..., `length` of them: (length, C, H, W) float32 in [0, 1].

    Seeks to the key frame before, and gives bit for bit the frames that reading from the top gives. An opened source
    (`open_source`) saves looking through the file each time.

    Raises:
        FileNotFoundError, VideoError, TypeError, ValueError: as `read_clip`; also where the file ends too early.
    """
    check_choice("on_error", on_error, ("error", "repeat"))
    size = check_frame_size("size", size)
    wanted = _slice(start, start + check_int("length", length) * check_int("step", step), step)
    source = open_source(path) if isinstance(path, (str, os.PathLike)) else path
    frames = [
        resize_frames(fit_channels(frame, channels, grey=to_grey, notes=[]), size)
        for frame in _mended(source, wanted, on_error, [])
    ]
    if len(frames) != length:
        raise VideoError(
            f"{source.path} ends before the window: {length} frames from {start} in steps of {step} were asked for, "
            f"it has {source.count}"
        )
    return torch.stack(frames)


def read_array(path: Path, *, mapped: bool = False) -> Tensor:
    """The one array of a .npy or .npz file, or the one tensor of a .pt or .pth file; pickled code is never run.

    With `mapped`, a .npy file stays on the disk and is read where it is looked at.

    Raises:
        VideoError: damaged, several arrays without a clear name, or a pickle of something else.
    """
    try:
        if path.suffix.lower() in {".pt", ".pth"}:
            value = torch.load(path, map_location="cpu", weights_only=True)
        else:
            # "c" gives memory that may be written to, as torch wants it, but never writes to the file.
            loaded = np.load(path, allow_pickle=False, mmap_mode="c" if mapped else None)
            value = (
                {name: loaded[name] for name in loaded.files} if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
            )
    except pickle.UnpicklingError as error:
        raise VideoError(
            f"{path} is no plain tensor file: it is damaged or holds pickled code, which is not run; "
            f"save the tensor alone: torch.save(frames, path)"
        ) from error
    except (OSError, ValueError, EOFError, RuntimeError, KeyError) as error:
        raise VideoError(f"{path} can't be read as an array ({error}); write or copy it again") from error
    if isinstance(value, dict):
        names = [name for name in _ARRAY_NAMES if name in value] or list(value)
        if not names or (len(names) > 1 and names[0] not in _ARRAY_NAMES):
            raise VideoError(f"{path} holds {', '.join(map(str, names)) or 'nothing'}; name the one to use 'frames'")
        value = value[names[0]]
    if not isinstance(value, (np.ndarray, Tensor)):
        raise VideoError(f"{path} holds {describe(value)}, expected an array or a tensor of frames")
    return as_tensor(value)


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist (looked for it in {path.absolute().parent})")
    if path.is_file() and not path.stat().st_size:
        raise VideoError(f"{path} is empty (0 bytes); copy or record it again")
    return path


def _slice(start: int, stop: int | None, step: int) -> slice:
    start = check_int("start", start, minimum=0)
    return slice(start, None if stop is None else check_int("stop", stop, minimum=0), check_int("step", step))


def _in_words(wanted: slice) -> str:
    return f"start={wanted.start}, stop={wanted.stop}, step={wanted.step}"


def _read_source(
    source: FrameSource, wanted: slice, channels: int | None, size: tuple[int, int] | None, on_error: str, grey: bool
) -> Clip:
    notes = list(source.notes)
    frames: Tensor | None = None
    filled = 0
    # One block from the start: a list that is stacked at the end would hold the clip twice.
    most = len(range(*wanted.indices(source.count)))
    for frame in _mended(source, wanted, on_error, notes):
        picture = resize_frames(_plain_grey(frame, channels, grey, notes), size)
        if frames is None:
            frames = picture.new_empty(most, *picture.shape)
        frames[filled] = picture
        filled += 1
    if frames is None:
        raise VideoError(f"{source.path} has {source.count} frames, none is left of {_in_words(wanted)}")
    return Clip(frames[:filled], source.rate and source.rate / wanted.step, tuple(notes))


def _plain_grey(frame: Tensor, channels: int | None, grey: bool, notes: list[str]) -> Tensor:
    """Most grey clips lie in colour formats; three equal channels are grey without asking."""
    grey_content = channels == 1 and frame.shape[0] == 3 and bool((frame == frame[:1]).all())
    if grey_content and not grey:
        add_note(notes, "the file's format is colour, its content grey; one channel was taken")
        return frame[:1]
    return fit_channels(frame, channels, grey=grey, notes=notes)


def _mended(source: FrameSource, wanted: slice, on_error: str, notes: list[str]) -> Iterator[Tensor]:
    """The wanted frames; broken ones raise, are left out, or are replaced by the frame before (at the start: after)."""
    broken: list[int] = []
    owed, before, reason = 0, None, ""
    for index, item in source.frames(wanted.start, wanted.stop, wanted.step, notes=notes):
        if isinstance(item, str):
            if on_error == "error":
                raise VideoError(
                    f'{source.path}: frame {index} is broken ({item}); on_error="skip" leaves such frames out, '
                    f'on_error="repeat" shows the frame before again'
                )
            broken.append(index)
            reason = reason or item
            if on_error == "repeat" and before is not None:
                yield before
            owed += before is None and on_error == "repeat"
            continue
        for _ in range(owed):
            yield item
        owed, before = 0, item
        yield item
    if broken:
        done = "left out" if on_error == "skip" else "replaced by the frame before"
        notes.append(f"broken frames {in_spans(broken)} were {done} ({reason})")


def _array_frames(
    source: Any, layout: str | None, value_range: tuple[float, float] | None, nan: str, channels: int | None
) -> tuple[Tensor, list[str]]:
    """An array, a tensor or a list as (T, C, H, W), with notes."""
    notes: list[str] = []
    frames = _stacked(source, notes)
    layout = "TCHW" if isinstance(frames, list) else layout
    frames = torch.stack(frames) if isinstance(frames, list) else frames
    frames, repairs = convert(frames, layout=layout, value_range=value_range, nan=nan, channels=channels)
    if frames.ndim != 4:
        raise ValueError(
            f"source must be one clip, got a batch {tuple(frames.shape)}; take source[0], or to_clip_tensor"
        )
    return frames, notes + repairs


def _stacked(source: Any, notes: list[str]) -> Tensor | np.ndarray | list[Tensor]:
    """An array as it is; a list of pictures as (C, H, W) tensors, a list of arrays stacked."""
    if isinstance(source, (Tensor, np.ndarray)):
        return source
    if is_picture(source):
        source = [source]
    if not isinstance(source, Iterable):
        raise TypeError(f"source must be a path, an array, a tensor or a list of pictures, got {describe(source)}")
    items = list(source)
    if not items:
        raise ValueError("source is an empty list, expected at least one frame")
    if all(is_picture(item) for item in items):
        pictures = [picture_tensor(item, notes=notes) for item in items]
        if len({picture.shape[0] for picture in pictures}) > 1:
            pictures = [picture_tensor(item, colour=True, notes=notes) for item in items]
            add_note(notes, "grey and colour pictures are mixed; all were made colour")
    else:
        pictures = [as_tensor(item) for item in items]
    shapes = {tuple(picture.shape): index for index, picture in reversed(list(enumerate(pictures)))}
    if len(shapes) > 1:
        first, other = sorted(shapes, key=lambda shape: shapes[shape])[:2]
        raise ValueError(f"the frames of a clip must have one size, frame 0 is {first}, frame {shapes[other]} {other}")
    return pictures if is_picture(items[0]) else torch.stack(pictures)

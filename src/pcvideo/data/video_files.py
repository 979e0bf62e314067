# SPDX-License-Identifier: Apache-2.0
"""Clips out of video files, and the door that picks the data set by what lies at a path."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pcvideo.data.clips import ClipDataset, TensorClips, Transform
from pcvideo.data.frame_folders import FrameFolder, SourceClips, visible_below
from pcvideo.video_io import PICTURE_SUFFIXES, VIDEO_SUFFIXES, VideoError
from pcvideo.video_io.read import ARRAY_SUFFIXES

__all__ = ["VideoFolder", "open_clips"]

logger = logging.getLogger(__name__)


class VideoFolder(SourceClips):
    """Clips out of video files: windows of `length` frames, decoded when asked for.

    Every file is looked through once at the start, without decoding, for its true number of frames; then a window is
    read from the key frame before it. `dataset[i]` is (length, C, H, W) float32 in [0, 1].

    Args:
        root: a folder, searched with its subfolders in natural order; a video file; or a list of files.
        length: frames of a window.
        stride: frames from one window's start to the next one's; None cuts windows that share no frame, see
            `cut_windows`.
        interval: step between the frames of a window.
        size: (height, width) to resize to; needed where files differ in size and are to be batched.
        channels: 3, 1 for grey (ITU-R BT.601), None for what is there.
        transform: `transform(clip, generator)`, see `transforms`.
        seed: of the transform's random draws, with `set_epoch`.
        on_error: a file or window that can't be read is an "error", or "skip" leaves it out and puts it on `skipped`.
        max_errors: more than so many left out for that are an error. Files that are only too short don't count.
        exclude, include: glob patterns; a file is meant where its name, its name without suffix, or its path below
            `root` matches one. `include` leaves out all others.
        cache: decode every file once, now, and keep the resized frames in memory as uint8 (within half of 1/255 of what
            is read without it); with a small set, training then never waits for a decoder. A broken frame then makes
            the whole file one that can't be read.

    Raises:
        FileNotFoundError: there is nothing at a path.
        VideoError: no video file, none that makes a window, or one that can't be read.
        TypeError, ValueError: an argument outside what is stated.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        length: int,
        stride: int | None = None,
        interval: int = 1,
        size: tuple[int, int] | None = None,
        channels: int | None = 3,
        transform: Transform | None = None,
        seed: int = 0,
        on_error: str = "error",
        max_errors: int = 10,
        exclude: Sequence[str] = (),
        include: Sequence[str] = (),
        cache: bool = False,
    ) -> None:
        files, base = _find_videos(root)
        if not files:
            raise VideoError(
                f"{root} holds no video files ({', '.join(sorted(VIDEO_SUFFIXES))}), nor do its subfolders"
            )
        files = _chosen(files, base, _patterns("include", include), _patterns("exclude", exclude))
        if not files:
            raise VideoError(f"{root} holds videos, but include={include!r} and exclude={exclude!r} leave none")
        super().__init__(
            files,
            what=str(base or "the files"),
            length=length,
            stride=stride,
            interval=interval,
            size=size,
            channels=channels,
            transform=transform,
            seed=seed,
            on_error=on_error,
            max_errors=max_errors,
            cache=cache,
        )


def open_clips(
    path: str | os.PathLike[str],
    *,
    length: int,
    stride: int | None = None,
    interval: int = 1,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    transform: Transform | None = None,
    seed: int = 0,
    **options: Any,
) -> ClipDataset:
    """`TensorClips`, `VideoFolder` or `FrameFolder`, by what lies at `path`.

    Args:
        path: an array file, a video file, or a folder of videos or of pictures.
        length, stride, interval, size, channels, transform, seed: as for these.
        options: further arguments of the one that is picked, such as `cache`, `exclude` or `layout`.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        VideoError: neither, or both, videos and pictures in the folder; or as the data set.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist (looked for it in {path.absolute().parent})")
    kind: Any = VideoFolder
    if path.suffix.lower() in ARRAY_SUFFIXES and path.is_file():
        kind = TensorClips
    elif path.is_dir():
        kind = _folder_kind(path)
    return kind(
        path,
        length=length,
        stride=stride,
        interval=interval,
        size=size,
        channels=channels,
        transform=transform,
        seed=seed,
        **options,
    )


def _folder_kind(folder: Path) -> type[SourceClips]:
    suffixes = {path.suffix.lower() for path in visible_below(folder, Path.is_file)}
    videos, pictures = suffixes & VIDEO_SUFFIXES, suffixes & PICTURE_SUFFIXES
    if videos and pictures:
        raise VideoError(f"{folder} holds both videos and pictures; name the subfolder that is meant")
    if not videos and not pictures:
        found = ", ".join(sorted(suffixes)) or "nothing"
        raise VideoError(
            f"{folder} holds neither videos nor pictures (found: {found}); array files are named one by one"
        )
    return VideoFolder if videos else FrameFolder


def _find_videos(root: Any) -> tuple[list[Path], Path | None]:
    """The files, and the folder that their names are relative to."""
    if isinstance(root, (str, os.PathLike)):
        root = Path(root)
        if root.is_dir():
            return visible_below(root, lambda path: path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()), root
        files = [root]
    else:
        files = [Path(path) for path in root]
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is no file (looked for it in {path.absolute().parent})")
    return files, None


def _patterns(name: str, patterns: Sequence[str]) -> tuple[str, ...]:
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"{name} must be glob patterns such as ('walk*',), got {patterns!r}")
    return patterns


def _chosen(files: list[Path], base: Path | None, include: Iterable[str], exclude: Iterable[str]) -> list[Path]:
    def matches(path: Path, pattern: str) -> bool:
        relative = path.relative_to(base).as_posix() if base else path.as_posix()
        return any(fnmatchcase(name, pattern) for name in (path.name, path.stem, relative))

    # A misspelt pattern would let held-out files slip in unseen.
    for pattern in (*include, *exclude):
        if not any(matches(path, pattern) for path in files):
            logger.warning("the pattern %r matches none of the %d video files", pattern, len(files))
    kept = [path for path in files if not include or any(matches(path, pattern) for pattern in include)]
    return [path for path in kept if not any(matches(path, pattern) for pattern in exclude)]

# SPDX-License-Identifier: Apache-2.0
"""Clips out of folders of pictures, and what folders of pictures and of videos share: windows read when asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from pcvideo._checks import check_int
from pcvideo.data.clips import ClipDataset, Transform, Window, cut_windows
from pcvideo.video_io import FrameSource, VideoError, iter_frames, natural_key, open_source, read_window
from pcvideo.video_io.convert import check_frame_size
from pcvideo.video_io.pictures import list_pictures

__all__ = ["FrameFolder", "SourceClips"]

logger = logging.getLogger(__name__)


class SourceClips(ClipDataset):
    """Windows cut from videos or folders of pictures, read when asked for or kept in memory; see `VideoFolder`.

    Args:
        paths: one per clip.
        what: what they are, for the error where nothing can be used.

    The other arguments are those of `VideoFolder`.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        what: str,
        length: int,
        stride: int | None,
        interval: int,
        size: tuple[int, int] | None,
        channels: int | None,
        transform: Transform | None,
        seed: int,
        on_error: str,
        max_errors: int,
        cache: bool,
    ) -> None:
        super().__init__(transform=transform, seed=seed, on_error=on_error, max_errors=max_errors)
        self.length, self.interval = check_int("length", length), check_int("interval", interval)
        self.stride = None if stride is None else check_int("stride", stride)
        self.size = check_frame_size("size", size)
        self.channels = None if channels is None else check_int("channels", channels)
        self._sources: dict[Path, FrameSource] = {}
        self._cached: dict[Path, Tensor] = {}
        longest = 0
        for path in paths:
            longest = max(longest, self._add(path, cache=cache))
        if not self.windows:
            reasons = "".join(f"\n  {reason}" for _, reason in self.skipped[-3:])
            raise VideoError(
                f"no clip of {self.length} frames in {what}: the longest has {longest} frames, "
                f"{len(self.skipped)} were left out{reasons}"
            )

    def load(self, window: Window) -> Tensor:
        """The frames of one window; window.path is the file or folder."""
        path = Path(str(window.path))
        if path in self._cached:
            stop = window.start + window.length * window.interval
            return self._cached[path][window.start : stop : window.interval].to(torch.float32) / 255
        return read_window(
            self._sources[path],
            window.start,
            window.length,
            step=window.interval,
            channels=self.channels,
            size=self.size,
            to_grey=self.channels == 1,
        )

    def _add(self, path: Path, *, cache: bool) -> int:
        """Cut the windows of one clip; its number of frames."""
        try:
            source = open_source(path)
            frames = self._decode(source) if cache else None
        except VideoError as error:
            self._skip(path, error)
            return 0
        count = source.count if frames is None else len(frames)
        starts = cut_windows(count, length=self.length, stride=self.stride, interval=self.interval)
        if not starts:
            reason = f"{path} has {count} frames, a window needs {(self.length - 1) * self.interval + 1}"
            self.skipped.append((path, reason))
            logger.warning("left out: %s", reason)
            return count
        for note in source.notes:
            logger.info("%s: %s", path, note)
        self._sources[path] = source
        if frames is not None:
            self._cached[path] = frames
        self.windows += [Window(path, start, self.length, self.interval) for start in starts]
        return count

    def _decode(self, source: FrameSource) -> Tensor:
        frames = iter_frames(source, channels=self.channels, size=self.size, to_grey=self.channels == 1)
        return torch.stack([(frame * 255).round().to(torch.uint8) for frame in frames])


class FrameFolder(SourceClips):
    """Clips out of folders of pictures: each folder at or below `root` that holds pictures is one clip.

    Pictures are taken in natural order (2.png before 10.png), hidden files and folders are left out.

    Args:
        root: the folder.
        length, stride, interval, size, channels, transform, seed, on_error, max_errors, cache: as for `VideoFolder`.

    Raises:
        FileNotFoundError: there is no folder `root`.
        VideoError: no pictures, or none that make a window.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
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
        cache: bool = False,
    ) -> None:
        root = Path(root)
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is no folder (looked for it in {root.absolute().parent})")
        folders = visible_below(root, lambda path: path.is_dir() and bool(list_pictures(path)))
        if list_pictures(root):
            folders.insert(0, root)
        if not folders:
            raise VideoError(f"{root} holds no pictures, nor do its subfolders")
        super().__init__(
            folders,
            what=str(root),
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


def visible_below(root: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """Whatever is wanted below `root`, in natural order, without what is hidden or lies in a hidden folder."""
    found = []
    for path in root.rglob("*"):
        relative = path.relative_to(root)
        if not any(part.startswith(".") for part in relative.parts) and wanted(path):
            found.append((natural_key(relative), path))
    return [path for _, path in sorted(found)]

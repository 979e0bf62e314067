# SPDX-License-Identifier: Apache-2.0
"""Video files through PyAV: every frame by its number, with or without seeking, and what is wrong told.

A file is demuxed once, which costs reading but no decoding: that gives the true number of frames, their presentation
times and the key frames. Frame k is the one with the k-th time, so that a window read after a seek holds the frames
that reading from the top gives. AVI files and raw streams keep no such times; their frames are counted from the top.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcvideo._optional import require
from pcvideo.video_io.convert import VideoError, add_note

__all__ = ["VideoFile", "open_video"]

_NO_PICTURE = "the decoder gives no picture for it"


@dataclass(frozen=True, eq=False)
class VideoFile:
    """A video file that has been demuxed: a plain record, no open file, that can be pickled.

    Attributes:
        path: of the file.
        count: frames that the file really lists.
        height, width: of the upright picture.
        rate: frames per second, the average where it varies; None where the file tells no times.
        notes: what is odd about the file, in words.
        times: (count,) presentation times in the stream's own ticks, ascending; None where they can't be trusted.
        keys: presentation times of the key frames, ascending.
        bit_depth: of the frames as they are decoded, 8.
    """

    path: Path
    count: int
    height: int
    width: int
    rate: float | None
    notes: tuple[str, ...] = ()
    times: np.ndarray | None = field(default=None, repr=False)
    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    bit_depth: int = field(default=8, init=False, repr=False)

    def frames(
        self, start: int = 0, stop: int | None = None, step: int = 1, *, notes: list[str] | None = None
    ) -> Iterator[tuple[int, Tensor | str]]:
        """Yield (index, frame) for every index asked for, in order; where a frame is broken, the reason as a string.

        A frame is (3, H, W), or (1, H, W) of a grey format; float32 in [0, 1], 8 bit deep, upright.
        """
        wanted = range(start, self.count if stop is None else min(stop, self.count), step)
        if not wanted:
            return
        for index, item in self._counted(notes) if self.times is None else self._timed(self.times, start):
            if index in wanted:
                yield index, item if isinstance(item, str) else self._picture(item)
            if index == wanted[-1] < self.count - 1:
                return

    def _picture(self, frame: Any) -> Tensor | str:
        picture = _upright(frame)
        if tuple(picture.shape[-2:]) != (self.height, self.width):
            return f"its size is {picture.shape[-2]}x{picture.shape[-1]}, that of the clip {self.height}x{self.width}"
        return picture

    def _timed(self, times: np.ndarray, start: int) -> Iterator[tuple[int, Any]]:
        """Decode from the key frame before `start`, or from the top where the seek does not reach it."""
        before = self.keys[self.keys <= times[start]] if start else self.keys[:0]
        for key in (*before[-1:].tolist(), None):
            faults: dict[int, str] = {}
            with _opened(self.path) as (container, stream):
                if key is not None:
                    container.seek(key, stream=stream)
                decoded = _ranked(container, stream, times, faults)
                first = next(decoded, None)
                if key is not None and (first is None or first[0] > start):
                    continue
                yield from self._filled(decoded if first is None else chain([first], decoded), start, faults)
                return

    def _filled(
        self, decoded: Iterator[tuple[int, Any]], start: int, faults: dict[int, str]
    ) -> Iterator[tuple[int, Any]]:
        """Put a reason wherever the file lists a frame that the decoder did not give."""
        upcoming = start
        for index, frame in decoded:
            if index < upcoming:
                continue
            for lost in range(upcoming, index):
                yield lost, faults.get(lost, _NO_PICTURE)
            yield index, "its data are damaged" if frame.is_corrupt else frame
            upcoming = index + 1
        for lost in range(upcoming, self.count):
            yield lost, faults.get(lost, _NO_PICTURE)

    def _counted(self, notes: list[str] | None) -> Iterator[tuple[int, Any]]:
        index = 0
        with _opened(self.path) as (container, stream):
            for _, item in _decode(container, stream):
                damaged = not isinstance(item, str) and item.is_corrupt
                yield index, "its data are damaged" if damaged else item
                index += 1
        if index != self.count and notes is not None:
            add_note(notes, f"the file lists {self.count} frames, the decoder gives {index}")


def open_video(path: Path) -> VideoFile:
    """Demux `path` once and decode its first good frame.

    Raises:
        VideoError: no video file, no video in it (audio only), no frame, or none that can be decoded.
    """
    notes: list[str] = []
    with _opened(path) as (container, stream):
        times, keys, size = _listed(container, stream, notes)
        if not size:
            raise VideoError(f"{path} holds a video stream without frames; copy or record it again")
        rate = _rate(stream, times, notes)
        if stream.frames and stream.frames != size:
            notes.append(f"the container promises {stream.frames} frames, the file holds {size}")
        elif not stream.frames:
            _note_shortfall(container, stream, times, rate, notes)
    with _opened(path) as (container, stream):
        first = next((item for _, item in _decode(container, stream) if not isinstance(item, str)), None)
        if first is None:
            raise VideoError(f"{path}: none of its {size} frames can be decoded; copy or record it again")
        height, width = _upright(first).shape[-2:]
        if any(_orientation(first)):
            notes.append("the frames were turned upright, as the file's rotation tag asks")
    return VideoFile(path, size, height, width, rate, tuple(notes), times, keys)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The open container and its video stream, with PyAV's errors told in ours."""
    av = _pyav()
    try:
        # "file:" keeps a colon in the name from being a protocol; broken titles don't matter.
        container = av.open(f"file:{path.absolute()}", metadata_errors="replace")
    except av.FFmpegError as error:
        raise VideoError(f"{path} is no video file that can be read, or is cut off ({_reason(error)})") from error
    with container:
        # FFmpeg draws plain text as ANSI art; nobody's clip is that.
        if container.format.name == "tty":
            raise VideoError(f"{path} is a text file, expected a video")
        # A cover picture in a music file counts as video for FFmpeg.
        streams = [stream for stream in container.streams.video if not _is_cover(stream)]
        if not streams:
            kind = "sound only" if container.streams.audio else "no video stream"
            raise VideoError(f"{path} holds {kind}, expected a video")
        yield container, streams[0]


def _is_cover(stream: Any) -> bool:
    disposition = getattr(stream, "disposition", None)
    return disposition is not None and "attached_pic" in str(disposition)


def _pyav() -> ModuleType:
    return require("av", purpose="reading and writing video files")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _packets(container: Any, stream: Any, notes: list[str]) -> Iterator[Any]:
    """The packets in the file's order, the empty one at the end included; a broken end is noted."""
    try:
        yield from container.demux(stream)
    except _pyav().FFmpegError as error:
        add_note(notes, f"the file breaks off ({_reason(error)})")


def _decode(container: Any, stream: Any) -> Iterator[tuple[int | None, Any]]:
    """Decoded frames with their presentation time; for a packet that can't be decoded, the reason as a string."""
    av = _pyav()
    for packet in _packets(container, stream, []):
        try:
            decoded = packet.decode()
        except av.FFmpegError as error:
            if packet.size:
                yield packet.pts, _reason(error)
            continue
        for frame in decoded:
            yield frame.pts, frame


def _ranked(container: Any, stream: Any, times: np.ndarray, faults: dict[int, str]) -> Iterator[tuple[int, Any]]:
    """Decoded frames with their index in `times`; a packet's error goes to `faults` under its index."""
    for time, item in _decode(container, stream):
        rank = len(times) if time is None else int(np.searchsorted(times, time))
        if rank == len(times) or times[rank] != time:
            continue
        if isinstance(item, str):
            faults[rank] = item
        else:
            yield rank, item


def _listed(container: Any, stream: Any, notes: list[str]) -> tuple[np.ndarray | None, np.ndarray, int]:
    """Presentation times of all frames (None where they can't be trusted) and of the key frames; number of frames."""
    times: list[int | None] = []
    keys: list[int] = []
    hides_frames = stream.codec_context.name in {"vp8", "libvpx"}
    for packet in _packets(container, stream, notes):
        if not packet.size or packet.is_discard:
            continue
        # VP8 stores reference frames that are never shown: inter frames (bit 0 of the first byte is set) whose bit 4 is
        # not (RFC 6386, section 9.1).
        if hides_frames and memoryview(packet)[0] & 0x11 == 0x01:
            continue
        times.append(packet.pts)
        if packet.is_keyframe and packet.pts is not None:
            keys.append(packet.pts)
    known = [time for time in times if time is not None]
    trusted = "avi" not in container.format.name and len(set(known)) == len(times)
    if not trusted:
        return None, np.empty(0, np.int64), len(times)
    return np.array(sorted(known), np.int64), np.array(sorted(keys), np.int64), len(times)


def _rate(stream: Any, times: np.ndarray | None, notes: list[str]) -> float | None:
    declared = stream.average_rate or stream.guessed_rate
    rate = float(declared) if declared else None
    if times is None or len(times) < 3:
        return rate
    tick = float(stream.time_base)
    gaps = np.diff(times) * tick
    measured = 1 / float(gaps.mean())
    # Times are rounded to ticks, so a steady rate wavers by one tick.
    if np.abs(gaps - np.median(gaps)).max() > max(1.5 * tick, 0.05 * float(np.median(gaps))):
        notes.append(
            f"variable frame rate: {1 / gaps.max():.4g} to {1 / gaps.min():.4g} frames a second, {measured:.4g} on "
            f"average; the frames are taken as they come"
        )
        return measured
    return rate if rate and abs(rate - measured) < 0.01 * measured else measured


def _note_shortfall(
    container: Any, stream: Any, times: np.ndarray | None, rate: float | None, notes: list[str]
) -> None:
    """Containers that keep no count still promise a duration; sound may be longer, so only silent ones are judged."""
    if times is None or not rate or not container.duration or len(container.streams) > 1:
        return
    promised = container.duration / _pyav().time_base
    held = float(times[-1] * stream.time_base) + 1 / rate
    if promised - held > max(2 / rate, 0.05 * promised):
        notes.append(f"the container promises {promised:.4g} seconds, the frames end after {held:.4g}")


def _orientation(frame: Any) -> tuple[bool, bool, bool]:
    """Whether the display matrix swaps the axes, then mirrors left to right, then top to bottom.

    The matrix (a b u, c d v, x y w) moves a pixel (p, q) to (a p + c q, b p + d q); 16.16 fixed point.
    """
    side_data = next((item for item in frame.side_data if item.type.name == "DISPLAYMATRIX"), None)
    if side_data is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(side_data), np.int32)[:5].tolist()
    if abs(b) > abs(a):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


def _upright(frame: Any) -> Tensor:
    grey = frame.format.name.startswith(("gray", "mono"))
    array = frame.to_ndarray(format="gray" if grey else "rgb24")
    picture = torch.from_numpy(array)
    picture = picture[None] if grey else picture.permute(2, 0, 1)
    swapped, mirrored, upended = _orientation(frame)
    if swapped:
        picture = picture.transpose(-2, -1)
    picture = picture.flip([axis for axis, turned in ((-1, mirrored), (-2, upended)) if turned])
    return picture.to(torch.float32, memory_format=torch.contiguous_format).div_(255)

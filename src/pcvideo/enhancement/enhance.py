# SPDX-License-Identifier: Apache-2.0
"""The door: from a source of frames to a video or a folder of pictures."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pcvideo._checks import check_bool, check_choice, check_int, check_number, describe
from pcvideo.enhancement.enhancer import Enhancer
from pcvideo.enhancement.folder import FrameFolder, checksum, fingerprint, recorded_rate
from pcvideo.models import Grey2RGB, Interpolator
from pcvideo.video_io import CUT, OpenedFrames, open_frames, write_picture, write_video
from pcvideo.video_io.pictures import PICTURE_SUFFIXES
from pcvideo.video_io.write import BIT_DEPTHS, WRITTEN_VIDEOS

__all__ = ["Enhanced", "enhance"]

_PICTURES = (".png", ".tif")
_RATE = 25.0

OnFrame = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Enhanced:
    """What `enhance` did.

    Attributes:
        out: the video, or the folder of pictures.
        frames: how many frames the source has, as far as it was gone through.
        written: how many were written by this call.
        kept: how many were there already.
        missing: how many of the whole are not there yet, for other parts to make; None where the length is not known,
            or broken frames may have been left out.
        rate: frames per second of what was written.
        notes: what is odd about the source, and what was done to it, in words.
    """

    out: Path
    frames: int
    written: int
    kept: int
    missing: int | None
    rate: float
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Job:
    """What goes where."""

    opened: OpenedFrames
    enhancer: Enhancer
    out: Path
    rate: float
    on_frame: OnFrame

    @property
    def total(self) -> int | None:
        return None if self.opened.count is None else self.enhancer.total(self.opened.count)


def enhance(
    source: Any,
    out: str | os.PathLike[str],
    *,
    doubler: Interpolator | None = None,
    colouriser: Grey2RGB | None = None,
    extrapolate: bool = False,
    cut: float | None = CUT,
    rate: float | None = None,
    bit_depth: int | None = None,
    picture: str = ".png",
    part: tuple[int, int] = (1, 1),
    resume: bool = False,
    on_frame: OnFrame | None = None,
) -> Enhanced:
    """Write a sequence with twice the frames, in colour, or one of the two, frame by frame in constant memory.

    T frames become 2T - 1: each one as it is, and the one halfway to the next. A video is written in one move when it
    is complete, a folder picture by picture: 00000.png, 00001.png and so on, beside `enhance.json`, which records what
    they are. What is in the folder stays when a run is stopped, and `resume` makes the rest.

    Several processes share a folder by `part`: (1, 4) to (4, 4) each make a quarter, whose pictures are the same as
    those of one process alone, bit for bit on one kind of machine. A doubler that carries a state (`FrameDoubler`) goes
    through the scene before its part again for that, without colouring it.

    Args:
        source: a path (video file, GIF, TIFF, folder of pictures), a list of paths, an array or a tensor, frames one by
            one, or what `video_io.open_frames` gives, which also takes the size and the part to read.
        out: the video (.mp4, .m4v, .mov, .mkv, .webm, .avi) or the folder to write.
        doubler, colouriser, extrapolate, cut: as in `Enhancer`; without both the frames are only written anew, which
            makes a video of a folder that several processes filled.
        rate: frames per second of the source, where it doesn't tell, or tells wrong; None takes its own, that which
            `enhance.json` in its folder records, or 25.
        bit_depth: of the pictures, 8 or 16; None takes that of the source.
        picture: ".png" or ".tif", the kind of the pictures in a folder.
        part: (number, of how many) of a folder's pictures to make, counted from 1.
        resume: go on with a folder that was begun: make the pictures that are missing.
        on_frame: is called after each picture with how many are done, and how many there will be (None: not known).

    Raises:
        FileNotFoundError, VideoError: the source can't be read; a broken frame, when its turn comes.
        TypeError, ValueError: an argument outside what is stated; a folder that holds other pictures, or these already.
        OSError: `out` can't be written; the disk is full, for one. The pictures written before stay.
    """
    enhancer = Enhancer(doubler, colouriser, extrapolate, cut)
    opened = source if isinstance(source, OpenedFrames) else open_frames(source)
    _check_source(opened, enhancer, Path(out))
    rate = opened.rate or recorded_rate(opened.name) or _RATE if rate is None else rate
    rate = check_number("rate", rate, minimum=0.01, maximum=1000 / enhancer.factor)
    job = _Job(opened, enhancer, Path(out), rate * enhancer.factor, on_frame or (lambda done, total: None))
    share = _check_part(part)
    suffix, is_video = Path(out).suffix.lower(), Path(out).suffix.lower() in WRITTEN_VIDEOS and not Path(out).is_dir()
    if is_video:
        _check_video(share, check_bool("resume", resume), bit_depth)
        return _to_video(job)
    if suffix in {".gif", *PICTURE_SUFFIXES} and not Path(out).is_dir():
        raise ValueError(f"out {out} is the name of a picture; name a folder, or a video (.mp4, .mkv, .webm)")
    if not opened.repeatable and (share != (1, 1) or resume):
        raise ValueError(
            f"part and resume need frames whose numbers are sure, and {opened.name} can be gone through only once, or "
            f'leaves broken frames out; name a file or folder, with on_error="repeat"'
        )
    check_choice("picture", picture, _PICTURES)
    depth = opened.bit_depth if bit_depth is None else check_choice("bit_depth", bit_depth, BIT_DEPTHS)
    return _to_folder(job, picture, depth, share, check_bool("resume", resume))


def _check_source(opened: OpenedFrames, enhancer: Enhancer, out: Path) -> None:
    if Path(opened.name).resolve() == out.resolve():
        raise ValueError(f"out {out} is the source itself; name another")
    if opened.count == 0:
        raise ValueError(f"{opened.name}: no frame is left between start and stop")
    if opened.count == 1 and enhancer.total(1) == 1 and enhancer.doubler is not None:
        raise ValueError(
            f"{opened.name} has one frame, and nothing lies between; doubling needs two, or extrapolate=True"
        )


def _check_part(part: Any) -> tuple[int, int]:
    if not isinstance(part, (tuple, list)) or len(part) != 2:
        raise TypeError(f"part must be (number, of how many), such as (2, 4), got {describe(part)}")
    number, parts = check_int("part[0]", part[0]), check_int("part[1]", part[1])
    if number > parts:
        raise ValueError(f"part must be (number, of how many), counted from 1, got {tuple(part)}")
    return number, parts


def _check_video(share: tuple[int, int], resume: bool, bit_depth: int | None) -> None:
    if share != (1, 1):
        raise ValueError(
            "part is for a folder of pictures, as one process alone can write a video; name a folder, and make a video "
            "of it when all parts are there: enhance(folder, video), without a doubler and a colouriser"
        )
    if resume:
        raise ValueError("resume is for a folder of pictures, as a video is there in one piece or not at all")
    if bit_depth not in {None, 8}:
        raise ValueError(f"bit_depth must be 8 for a video, got {bit_depth!r}; a folder of pictures takes 16")


def _to_video(job: _Job) -> Enhanced:
    notes = list(job.opened.notes)
    read = written = 0

    def frames_in() -> Iterator[Tensor]:
        nonlocal read
        for read, frame in enumerate(job.opened.frames(), start=1):  # noqa: B007
            yield frame

    def frames_out() -> Iterator[Tensor]:
        nonlocal written
        for frame in job.enhancer.stream(frames_in(), notes=notes):
            yield frame
            written += 1
            job.on_frame(written, job.total)

    write_video(job.out, frames_out(), job.rate)
    return Enhanced(job.out, read, written, 0, 0, job.rate, tuple(notes))


def _to_folder(job: _Job, suffix: str, bit_depth: int, part: tuple[int, int], resume: bool) -> Enhanced:
    opened, notes = job.opened, list(job.opened.notes)
    folder = FrameFolder(job.out, job.total, suffix, _record(job, bit_depth))
    span = _share(job, part)
    folder.prepare(span, resume=resume)
    held = folder.held(span)
    first, stop, written = span.start, span.stop, 0
    while first < stop and first in held:
        first += 1
    while first < stop and stop - 1 in held:
        stop -= 1
    for number, frame in job.enhancer.uncoloured(opened, range(first, stop), notes):
        if number in held:
            continue
        write_picture(folder.picture(number), job.enhancer.colour(frame), bit_depth=bit_depth)
        written += 1
        job.on_frame(len(held) + written, None if job.total is None else len(span))
    missing = None
    if job.total is not None and opened.repeatable:
        missing = job.total - len(folder.held(range(job.total)))
    return Enhanced(job.out, opened.count or written, written, len(held), missing, job.rate, tuple(notes))


def _share(job: _Job, part: tuple[int, int]) -> range:
    """The pictures of a part: those of its frames, and of what follows each."""
    if job.opened.count is None or job.total is None:
        return range(sys.maxsize)
    number, parts = part
    first, stop = (job.opened.count * edge // parts * job.enhancer.factor for edge in (number - 1, number))
    return range(first, min(stop, job.total))


def _record(job: _Job, bit_depth: int) -> dict[str, Any]:
    enhancer = job.enhancer
    return {
        "format": 1,
        "source": Path(job.opened.name).name,
        # Many a folder is called "frames".
        "first_frame": checksum(next(job.opened.frames())) if job.opened.repeatable else None,
        "start": job.opened.start,
        "frames": job.opened.count,
        "size": None if job.opened.size is None else list(job.opened.size),
        "pictures": job.total,
        "rate": job.rate,
        "bit_depth": bit_depth,
        "doubler": fingerprint(enhancer.doubler),
        "colouriser": fingerprint(enhancer.colouriser),
        "extrapolate": enhancer.extrapolate,
        "cut": enhancer.cut,
    }

# SPDX-License-Identifier: Apache-2.0
"""The writing doors: clips to video files, GIFs, PNGs and TIFFs, written aside first, flushed and renamed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcvideo._checks import check_choice, check_number, describe
from pcvideo._files import update_folder, written_aside
from pcvideo._optional import require
from pcvideo.video_io.convert import as_tensor
from pcvideo.video_io.deep_pictures import TIFF_SUFFIXES, encode_deep_png
from pcvideo.video_io.pictures import list_pictures

__all__ = ["BIT_DEPTHS", "WRITTEN_VIDEOS", "write_frames", "write_gif", "write_picture", "write_video"]

Frames = Tensor | np.ndarray | Iterable[Tensor]

# The first of a row that this PyAV brings is taken.
_ENCODERS = {
    ".mp4": ("libx264", "libopenh264", "mpeg4"),
    ".m4v": ("libx264", "libopenh264", "mpeg4"),
    ".mov": ("libx264", "libopenh264", "mpeg4"),
    ".mkv": ("libx264", "libopenh264", "mpeg4"),
    ".avi": ("mpeg4",),
    ".webm": ("libvpx-vp9", "libvpx"),
}

WRITTEN_VIDEOS = frozenset(_ENCODERS)
"""Suffixes of the files that `write_video` writes."""

BIT_DEPTHS = (8, 16)


def write_video(path: str | os.PathLike[str], frames: Frames, rate: float) -> None:
    """Write a video file; the suffix chooses the kind: .mp4, .m4v, .mov, .mkv (H.264), .webm (VP9) or .avi (MPEG-4).

    Colour is stored at half resolution (yuv420p), the one form that every player shows. That needs even sides, so an
    odd height or width gets its last row or column twice: a 59x59 clip becomes a 60x60 video.

    Args:
        path: file to write; missing folders are made, a file of that name is replaced when the new one is complete.
        frames: (T, C, H, W), C 1 or 3, float in [0, 1] (what lies outside is clamped) or uint8; or frames (C, H, W) one
            after the other, of one size, in constant memory.
        rate: frames per second.

    Raises:
        ValueError: no frames, NaN, another number of channels, sizes that differ, a suffix that is not known.
    """
    path = Path(path)
    rate = check_number("rate", rate, minimum=0.01, maximum=1000)
    if path.suffix.lower() not in _ENCODERS:
        raise ValueError(f"path must end in {', '.join(_ENCODERS)} (write_gif writes .gif), got {path.name!r}")
    av = require("av", purpose="writing video files")
    encoder = next((name for name in _ENCODERS[path.suffix.lower()] if name in av.codecs_available), None)
    if encoder is None:
        raise ValueError(f"the installed PyAV has no encoder for {path.suffix}; write an .mp4, or pip install av")
    pictures = _pictures(frames)
    first = next(pictures)
    with written_aside(path) as temporary, av.open(str(temporary), "w") as container:
        stream = _video_stream(container, encoder, first, rate)
        for picture in _with_first(first, pictures):
            even = np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")
            colour = np.ascontiguousarray(np.broadcast_to(even, (*even.shape[:2], 3)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(colour, format="rgb24")))
        container.mux(stream.encode(None))


def _video_stream(container: Any, encoder: str, first: np.ndarray, rate: float) -> Any:
    # MPEG-4 counts time in at most 65535 parts of a second; 1001 is the denominator of the television rates.
    stream = container.add_stream(encoder, rate=Fraction(rate).limit_denominator(1001))
    stream.height, stream.width = (side + side % 2 for side in first.shape[:2])
    stream.pix_fmt = "yuv420p"
    if encoder == "libx264":
        stream.options = {"crf": "18"}
    else:
        stream.bit_rate = int(max(500_000, 0.2 * stream.height * stream.width * rate))
    return stream


def write_gif(path: str | os.PathLike[str], frames: Frames, rate: float, *, loop: bool = True) -> None:
    """Write a GIF; grey is exact, colour is brought down to 256 colours a frame.

    GIF counts time in hundredths of a second, and viewers slow down below two of them: the rate is rounded to that, and
    50 frames a second is the most. A frame equal to the one before lengthens that one instead of being stored again.

    Args:
        path, frames: as for `write_video`.
        rate: frames per second.
        loop: play it over and over, or once.

    Raises:
        ValueError: as `write_video`.
    """
    path = Path(path)
    rate = check_number("rate", rate, minimum=0.01, maximum=1000)
    if path.suffix.lower() != ".gif":
        raise ValueError(f"path must end in .gif, got {path.name!r}")
    images = [_image(picture) for picture in _pictures(frames)]
    duration = 10 * max(2, round(100 / rate))
    repeat = {"loop": 0} if loop else {}
    with written_aside(path) as temporary:
        images[0].save(temporary, save_all=True, append_images=images[1:], duration=duration, **repeat)


def write_frames(folder: str | os.PathLike[str], frames: Frames) -> None:
    """Write the frames as folder/00000.png, 00001.png and so on, 8 bits deep.

    Args:
        folder: made where it is missing; other files in it stay.
        frames: as for `write_video`.

    Raises:
        ValueError: as `write_video`, or the folder holds pictures already.
    """
    folder = Path(folder)
    if folder.is_dir() and list_pictures(folder):
        raise ValueError(f"{folder} holds pictures already, they would mix with the new ones; name an empty folder")
    pictures = _pictures(frames)
    first = next(pictures)

    def write(temporary: Path) -> None:
        for index, picture in enumerate(_with_first(first, pictures)):
            _image(picture).save(temporary / f"{index:05d}.png")

    update_folder(folder, write)


def write_picture(path: str | os.PathLike[str], frame: Tensor | np.ndarray, *, bit_depth: int = 8) -> None:
    """Write one picture: a .png, or a .tif or .tiff (deflated); the file of that name is replaced in one move.

    Whole numbers come back exactly: n / 65535 is written as n in 16 bits, n / 255 in 8.

    Args:
        path: file to write; missing folders are made.
        frame: (C, H, W), C 1 or 3, float in [0, 1] (what lies outside is clamped), or uint8 for 8 bits.
        bit_depth: 8 or 16.

    Raises:
        ValueError: NaN, another number of channels, another suffix or depth.
        TypeError: neither float nor uint8.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in {".png", *TIFF_SUFFIXES}:
        raise ValueError(f"path must end in .png, .tif or .tiff, got {path.name!r}")
    deep = check_choice("bit_depth", bit_depth, BIT_DEPTHS) == 16
    picture = _whole_numbers(as_tensor(frame), 0, deep=deep)
    with written_aside(path) as temporary:
        if suffix in TIFF_SUFFIXES:
            tifffile = require("tifffile", purpose="writing TIFF")
            grey = picture.shape[-1] == 1
            array, meaning = (picture[..., 0], "minisblack") if grey else (picture, "rgb")
            tifffile.imwrite(temporary, array, photometric=meaning, compression="zlib", metadata=None)
        elif deep:
            temporary.write_bytes(encode_deep_png(picture))
        else:
            _image(picture).save(temporary)


def _with_first(first: np.ndarray, others: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from others


def _pictures(frames: Frames) -> Iterator[np.ndarray]:
    """The frames as uint8 arrays (H, W, 1 or 3), checked one by one; at least one."""
    if isinstance(frames, (Tensor, np.ndarray)) and frames.ndim != 4:
        hint = "; take one clip of the batch" if frames.ndim == 5 else ""
        raise ValueError(f"frames must be (T, C, H, W), got {describe(frames)}{hint}")
    shape = None
    for index, frame in enumerate(frames):
        picture = _whole_numbers(as_tensor(frame), index)
        shape = shape or tuple(frame.shape)
        if tuple(frame.shape) != shape:
            raise ValueError(f"frames must have one size, frame 0 is {shape}, frame {index} {tuple(frame.shape)}")
        yield picture
    if shape is None:
        raise ValueError("frames must hold at least one frame, got none")


def _whole_numbers(frame: Tensor, index: int, *, deep: bool = False) -> np.ndarray:
    """A frame as uint8, or uint16 where `deep`: (H, W, 1 or 3)."""
    if frame.ndim != 3 or frame.shape[0] not in {1, 3} or not frame.numel():
        raise ValueError(f"frame {index} must be (C, H, W) with 1 or 3 channels, got {describe(frame)}")
    if frame.is_floating_point():
        if not bool(torch.isfinite(frame).all()):
            raise ValueError(f"frame {index} holds NaN or infinity, which no picture can show; repair it first")
        frame = (frame.float().clamp(0, 1) * (65535 if deep else 255)).round().to(torch.int32)
    elif frame.dtype != torch.uint8 or deep:
        raise TypeError(f"frame {index} must be float in [0, 1]{'' if deep else ' or uint8'}, got {describe(frame)}")
    array = np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy())
    return array.astype(np.uint16 if deep else np.uint8, copy=False)


def _image(picture: np.ndarray) -> Any:
    image_module = require("PIL.Image", purpose="writing pictures")
    return image_module.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)

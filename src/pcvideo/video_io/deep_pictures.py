# SPDX-License-Identifier: Apache-2.0
"""Pictures deeper than 8 bits: TIFF through tifffile, 16-bit colour PNG through PyAV, camera RAW through rawpy.

Pillow, which reads all others, has no form for colour of 16 bits and gives its upper eight without a word.
"""

from __future__ import annotations

import logging
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pcvideo._optional import require
from pcvideo.video_io.convert import VideoError, add_note

__all__ = [
    "RAW_SUFFIXES",
    "TIFF_SUFFIXES",
    "DeepHeader",
    "TiffStack",
    "deep_header",
    "encode_deep_png",
    "load_deep",
    "open_tiff_stack",
]

RAW_SUFFIXES = frozenset({".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"})
"""Suffixes of the files that are taken as a camera's RAW pictures."""

TIFF_SUFFIXES = frozenset({".tif", ".tiff"})

# Damage shows as whatever the broken numbers lead to.
_TIFF_DAMAGE = (ValueError, TypeError, KeyError, IndexError, RuntimeError, EOFError, struct.error, zlib.error)

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class DeepHeader(NamedTuple):
    """What is known of a picture before its pixels are read."""

    height: int
    width: int
    grey: bool
    bit_depth: int


def deep_header(path: Path) -> DeepHeader | None:
    """Size and depth of a picture that is deeper than 8 bits; None of any other, which is Pillow's.

    Raises:
        OSError, VideoError: it can't be read.
        ImportError: camera RAW, and rawpy is missing.
    """
    suffix = path.suffix.lower()
    if suffix in RAW_SUFFIXES:
        with _raw(path) as raw:
            sizes = raw.sizes
            # Bit 2 of LibRaw's `flip` lays the picture on its side.
            height, width = (sizes.width, sizes.height) if sizes.flip & 4 else (sizes.height, sizes.width)
            return DeepHeader(height, width, False, 16)
    if suffix in TIFF_SUFFIXES:
        with _tiff(path) as file:
            return _page_header(file.pages.first)
    if suffix == ".png":
        return _png_header(path)
    return None


def load_deep(path: Path, *, colour: bool, notes: list[str]) -> Tensor | None:
    """A picture that is deeper than 8 bits as `picture_tensor` gives others; None of any other."""
    suffix = path.suffix.lower()
    if suffix in RAW_SUFFIXES:
        return _scaled(_develop(path), 65535)
    if suffix in TIFF_SUFFIXES:
        with _tiff(path) as file:
            page = file.pages.first
            return None if _page_header(page) is None else _page_picture(path, page, colour=colour, notes=notes)
    if suffix == ".png" and _png_header(path) is not None:
        return _with_colour(_read_png(path, notes), colour)
    return None


def _with_colour(picture: Tensor, colour: bool) -> Tensor:
    return picture.expand(3, -1, -1) if colour and len(picture) == 1 else picture


def _scaled(array: np.ndarray, most: int) -> Tensor:
    """(H, W) or (H, W, C) of whole numbers as (C, H, W), `most` becoming 1."""
    array = array[..., None] if array.ndim == 2 else array
    picture = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)).astype(np.float32))
    return picture.div_(most)


# PNG: the header chunk stands at a fixed place (ISO/IEC 15948, section 11.2.2).


def _png_header(path: Path) -> DeepHeader | None:
    with path.open("rb") as file:
        start = file.read(26)
    if len(start) < 26 or not start.startswith(_PNG_SIGNATURE) or start[24] != 16:
        return None
    width, height = struct.unpack(">II", start[16:24])
    # Colour types 0 and 4 are grey, without and with alpha.
    return DeepHeader(height, width, start[25] in {0, 4}, 16)


def _read_png(path: Path, notes: list[str]) -> Tensor:
    av = require("av", purpose="reading 16-bit PNG")
    try:
        with av.open(f"file:{path.absolute()}", format="png_pipe") as container:
            # A broken picture comes as an error, or as none at all.
            frame = next(container.decode(video=0), None)
    except av.FFmpegError as error:
        raise VideoError(f"it is cut off or damaged ({error.strerror})") from error
    if frame is None or frame.is_corrupt:
        raise VideoError("it is cut off or damaged")
    name = frame.format.name
    if name.startswith(("rgba", "ya")):
        add_note(notes, "the alpha channel of pictures was dropped")
    return _scaled(frame.to_ndarray(format="gray16le" if name.startswith(("gray", "ya")) else "rgb48le"), 65535)


def encode_deep_png(picture: np.ndarray) -> bytes:
    """The content of a PNG file of 16 bits: (H, W, 1 or 3) uint16."""
    av = require("av", purpose="writing 16-bit PNG")
    grey = picture.shape[-1] == 1
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = picture.shape[:2]
    encoder.pix_fmt, encoder.time_base = "gray16be" if grey else "rgb48be", Fraction(1)
    plain = np.ascontiguousarray(picture[..., 0] if grey else picture)
    frame = av.VideoFrame.from_ndarray(plain, format="gray16le" if grey else "rgb48le")
    frame = frame.reformat(format=encoder.pix_fmt)
    return b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))


# Camera RAW.


@contextmanager
def _raw(path: Path) -> Iterator[Any]:
    rawpy = require("rawpy", extra="raw", purpose="reading camera RAW")
    try:
        with rawpy.imread(str(path)) as raw:
            yield raw
    except rawpy.LibRawError as error:
        reason = error.args[0] if error.args else type(error).__name__
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
        raise VideoError(f"{path} is no camera RAW that can be read ({reason})") from error


def _develop(path: Path) -> np.ndarray:
    """(H, W, 3) uint16, upright, in sRGB's primaries with the camera's own white balance.

    Brightness is never fitted to the picture: fitted frame by frame, a sequence would flicker.
    """
    with _raw(path) as raw:
        developed: np.ndarray = raw.postprocess(output_bps=16, use_camera_wb=True, no_auto_bright=True)
        return developed


# TIFF.


@dataclass(frozen=True, eq=False)
class TiffStack:
    """The pages of one TIFF file, deeper than 8 bits, as the frames of a clip; a plain record that can be pickled.

    Attributes: `path`, the numbers of the `pages` that are frames, `count`, `height`, `width`, `rate` (unknown),
    `bit_depth` and `notes`.
    """

    path: Path
    pages: tuple[int, ...]
    height: int
    width: int
    colour: bool
    bit_depth: int = 16
    notes: tuple[str, ...] = ()
    rate: None = None

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.pages)

    def frames(
        self, start: int = 0, stop: int | None = None, step: int = 1, *, notes: list[str] | None = None
    ) -> Iterator[tuple[int, Tensor | str]]:
        """Yield (index, frame) as `VideoFile.frames` does, one page at a time; another size is an error."""
        notes = [] if notes is None else notes
        with _tiff(self.path) as file:
            for index in range(start, self.count if stop is None else min(stop, self.count), step):
                try:
                    picture = _page_picture(self.path, file.pages[self.pages[index]], colour=self.colour, notes=notes)
                except ValueError as error:
                    yield index, str(error)
                    continue
                if tuple(picture.shape[-2:]) != (self.height, self.width):
                    raise VideoError(
                        f"{self.path}: page {self.pages[index]} is {picture.shape[-2]}x{picture.shape[-1]}, the first "
                        f"{self.height}x{self.width}: the pages of a clip must have one size"
                    )
                yield index, picture


def open_tiff_stack(path: Path) -> TiffStack | None:
    """The pages of a TIFF file; None where they are no deeper than 8 bits, which Pillow reads.

    Raises:
        VideoError: it is no TIFF that can be read, or keeps its frames in a form that is not by pages.
    """
    told: list[str] = []
    with _tiff(path, told) as file:
        first = file.pages.first
        header = _page_header(first)
        if header is None:
            return None
        held = len(file.pages)
        if held == 1 and not told and _is_one_block(file):
            raise VideoError(
                f"{path} keeps its frames as one block behind a single page (ImageJ does above 4 GB); save them as "
                f"pages, or as pictures in a folder"
            )
        notes = [f"the file breaks off or is damaged after page {held - 1} ({told[0]})"] if told else []
        # A viewer's thumbnails are no frames.
        pages = [index for index in range(held) if held == 1 or not file.pages[index].is_reduced]
        if len(pages) < held:
            notes.append(f"{held - len(pages)} reduced pages (thumbnails) were left out")
    colour = not header.grey
    return TiffStack(path, tuple(pages), header.height, header.width, colour, header.bit_depth, tuple(notes))


def _is_one_block(file: Any) -> bool:
    """Whether a file of one page says that it holds more frames than that."""
    if file.is_imagej:
        return int((file.imagej_metadata or {}).get("images", 1)) > 1
    shape = file.shaped_metadata[0].get("shape", ()) if file.is_shaped and file.shaped_metadata else ()
    return bool(shape) and math.prod(shape) > math.prod(file.pages.first.shape)


@contextmanager
def _tiff(path: Path, told: list[str] | None = None) -> Iterator[Any]:
    """The opened file; where `told` is given, it takes what tifffile would log of damage."""
    tifffile = require("tifffile", purpose="reading TIFF")
    logger = logging.getLogger("tifffile")

    def caught(record: logging.LogRecord) -> bool:
        told.append(record.getMessage())  # type: ignore[union-attr]
        return False

    if told is not None:
        logger.addFilter(caught)
    try:
        with tifffile.TiffFile(path) as file:
            yield file
    except VideoError:
        raise
    except (tifffile.TiffFileError, *_TIFF_DAMAGE) as error:
        raise VideoError(f"{path} is no TIFF that can be read, or is cut off ({error})") from error
    finally:
        logger.removeFilter(caught)


def _page_header(page: Any) -> DeepHeader | None:
    # One number, or one for each channel where these differ.
    bits = page.bitspersample
    bits = max(bits) if isinstance(bits, tuple) else bits
    if bits <= 8:
        return None
    return DeepHeader(page.imagelength, page.imagewidth, page.samplesperpixel < 3, min(bits, 16))


def _page_picture(path: Path, page: Any, *, colour: bool, notes: list[str]) -> Tensor:
    """One page as (1 or 3, H, W), float32 in [0, 1]; ValueError with the reason where that can't be."""
    photometric = page.photometric.name
    if photometric not in {"MINISBLACK", "MINISWHITE", "RGB"} or page.imagedepth > 1:
        raise VideoError(f"its colours are kept as {photometric}; save it as grey or RGB")
    array = _page_array(path, page)
    if array.ndim == 3 and page.planarconfig.name == "SEPARATE":
        array = array.transpose(1, 2, 0)
    channels = 3 if photometric == "RGB" else 1
    if array.ndim == 3:
        if array.shape[-1] > channels:
            add_note(notes, "the alpha channel of pictures was dropped")
        array = array[..., :channels]
    picture = _in_unit_range(array, page.bitspersample)
    return _with_colour(1 - picture if photometric == "MINISWHITE" else picture, colour)


def _page_array(path: Path, page: Any) -> np.ndarray:
    try:
        array: np.ndarray = page.asarray()
    except _TIFF_DAMAGE as error:
        if "imagecodecs" not in str(error):
            raise VideoError(f"it is cut off or damaged ({error})") from error
        # What Pillow has a form for, it reads under any compression.
        if page.samplesperpixel == 1 and page.bitspersample == 16 and page.sampleformat == 1:
            with require("PIL.Image", purpose="reading pictures").open(path) as image:
                image.seek(page.index)
                return np.asarray(image).astype(np.uint16)
        raise VideoError(
            f'its compression ({page.compression.name}) needs another package: pip install "pcvideo[tiff]"; or save it '
            f"uncompressed or with deflate"
        ) from error
    return array


def _in_unit_range(array: np.ndarray, bits: int) -> Tensor:
    if array.dtype.kind == "u" and bits <= 16:
        return _scaled(array, 2**bits - 1)
    if array.dtype.kind != "f":
        raise VideoError(f"its values are {array.dtype}, which has no known range; save it as 16 bits")
    picture = _scaled(array, 1)
    low, high = torch.aminmax(picture)
    # NaN fails both comparisons.
    if not bool((low >= -1e-3) & (high <= 1 + 1e-3)):
        raise VideoError(
            f"its values range over [{float(low):.4g}, {float(high):.4g}], expected [0, 1] of floats; rescale it, or "
            f"save it as 16 bits"
        )
    return picture.clamp_(0, 1)

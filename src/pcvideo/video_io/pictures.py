# SPDX-License-Identifier: Apache-2.0
"""Pictures: folders in natural order, GIFs and other moving pictures, single pictures.

Pillow reads them; those deeper than 8 bits are read by `deep_pictures`.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcvideo._optional import require
from pcvideo.video_io.convert import VideoError, add_note, in_spans
from pcvideo.video_io.deep_pictures import (
    RAW_SUFFIXES,
    TIFF_SUFFIXES,
    DeepHeader,
    TiffStack,
    deep_header,
    load_deep,
    open_tiff_stack,
)

__all__ = [
    "PICTURE_SUFFIXES",
    "MovingPicture",
    "PictureList",
    "is_picture",
    "list_pictures",
    "natural_key",
    "open_moving_picture",
    "open_picture_file",
    "open_pictures",
    "picture_tensor",
]

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Suffixes of the files that are taken as the pictures of a folder; where it holds none, camera RAW is."""

# What Pillow raises on damaged files.
_PICTURE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error)


def natural_key(name: str | Path) -> list[Any]:
    """Sort key that counts as people do: 2.png before 10.png, folder by folder; upper and lower case are equal."""
    text = Path(name).as_posix()
    # re.split gives text and number by turns, so equal places always hold equal kinds.
    parts = [
        [int(part) if odd % 2 else part for odd, part in enumerate(re.split(r"([0-9]+)", folder.casefold()))]
        for folder in text.split("/")
    ]
    return [parts, text]


def list_pictures(folder: Path) -> list[Path]:
    """The pictures directly in `folder`, in natural order, hidden files left out; camera RAW where it holds no others.

    Cameras write both kinds side by side, and each frame shall be taken once.
    """
    listed = [path for path in folder.iterdir() if path.name[0] != "."]
    for suffixes in (PICTURE_SUFFIXES, RAW_SUFFIXES):
        found = [path for path in listed if path.suffix.lower() in suffixes and path.is_file()]
        if found:
            return sorted(found, key=lambda path: natural_key(path.name))
    return []


def is_picture(value: Any) -> bool:
    """Whether `value` is a Pillow image; does not import Pillow."""
    return any(cls.__module__ == "PIL.Image" and cls.__name__ == "Image" for cls in type(value).__mro__)


def picture_tensor(image: Any, *, colour: bool = False, notes: list[str]) -> Tensor:
    """A Pillow image as (3, H, W) or, where it is grey and `colour` is False, (1, H, W); float32 in [0, 1]."""
    mode = image.mode
    if mode == "F":
        raise ValueError("a picture of mode F (float) has no known range; hand it over as an array")
    if "A" in mode or (mode == "P" and "transparency" in image.info):
        add_note(notes, "the alpha channel of pictures was dropped")
    if mode.startswith("I"):
        grey = torch.from_numpy(np.asarray(image).astype(np.float32))[None] / 65535
        return grey.expand(3, -1, -1) if colour else grey
    if mode in {"1", "L", "LA", "La"} and not colour:
        return torch.from_numpy(np.array(image.convert("L")))[None].to(torch.float32) / 255
    # A palette with transparency goes through RGBA, or its colours come out wrong.
    image = image.convert("RGBA") if mode == "P" and "transparency" in image.info else image
    array = np.array(image.convert("RGB"))
    picture = torch.from_numpy(array).permute(2, 0, 1)
    return picture.to(torch.float32, memory_format=torch.contiguous_format) / 255


@dataclass(frozen=True, eq=False)
class PictureList:
    """Picture files that are the frames of one clip; a plain record that can be pickled.

    Attributes: `path` of the folder, the `pictures` in order, `count`, `height`, `width`, `rate` (unknown), `bit_depth`
    (8 or 16, of the deepest) and `notes`.
    """

    path: Path
    pictures: tuple[Path, ...]
    height: int
    width: int
    colour: bool
    notes: tuple[str, ...] = ()
    rate: None = None
    bit_depth: int = 8

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.pictures)

    def frames(
        self, start: int = 0, stop: int | None = None, step: int = 1, *, notes: list[str] | None = None
    ) -> Iterator[tuple[int, Tensor | str]]:
        """Yield (index, frame) as `VideoFile.frames` does; a picture of another size is an error."""
        for index in range(start, self.count if stop is None else min(stop, self.count), step):
            path = self.pictures[index]
            try:
                picture = _load_picture(path, colour=self.colour, notes=[] if notes is None else notes)
            except _PICTURE_ERRORS as error:
                yield index, f"{path.name}: {error}"
                continue
            if tuple(picture.shape[-2:]) != (self.height, self.width):
                raise VideoError(
                    f"{path} is {picture.shape[-2]}x{picture.shape[-1]}, {self.pictures[0].name} is "
                    f"{self.height}x{self.width}: the pictures of a clip must have one size; resize them, or move "
                    f"those of another size elsewhere"
                )
            yield index, picture


def open_pictures(path: Path, pictures: Sequence[Path] | None = None) -> PictureList:
    """The pictures of a folder (or those listed) as the frames of one clip.

    Raises:
        VideoError: no picture there, or none that can be read.
    """
    pictures = list_pictures(path) if pictures is None else list(pictures)
    if not pictures:
        raise VideoError(
            f"{path} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))}); a folder is read as one clip, "
            f"name a video file or a subfolder"
        )
    notes: list[str] = []
    gaps = _numbering_gaps([picture.stem for picture in pictures])
    if gaps:
        notes.append(f"the numbering of the pictures has gaps: {in_spans(gaps)} missing")
    headers = list(_headers(pictures))
    if not headers:
        raise VideoError(f"{path}: none of its {len(pictures)} pictures can be read")
    colour = any(not header.grey for header in headers)
    if len({header.grey for header in headers}) > 1:
        notes.append("grey and colour pictures are mixed; all were made colour")
    depth = max(header.bit_depth for header in headers)
    first = headers[0]
    return PictureList(path, tuple(pictures), first.height, first.width, colour, tuple(notes), bit_depth=depth)


def _headers(pictures: Sequence[Path]) -> Iterator[DeepHeader]:
    """What is known of each picture that opens; reads no pixels, and only the first one's orientation."""
    image_module = _pillow()
    first = True
    for path in pictures:
        try:
            header = deep_header(path)
            if header is None:
                with image_module.open(path) as image:
                    # Values 5 to 8 of the orientation tag (0x0112) lay the picture on its side.
                    turned = first and image.getexif().get(0x0112, 1) in range(5, 9)
                    height, width = (image.width, image.height) if turned else (image.height, image.width)
                    grey = image.mode in {"1", "L", "LA", "La"} or image.mode.startswith("I")
                    header = DeepHeader(height, width, grey, 16 if image.mode.startswith("I") else 8)
        except _PICTURE_ERRORS:
            continue
        first = False
        yield header


def _load_picture(path: Path, *, colour: bool, notes: list[str]) -> Tensor:
    picture = load_deep(path, colour=colour, notes=notes)
    if picture is not None:
        return picture
    with _pillow().open(path) as image:
        image.load()
        if image.getexif().get(0x0112, 1) != 1:
            image = require("PIL.ImageOps", purpose="turning pictures upright").exif_transpose(image)  # noqa: PLW2901
            add_note(notes, "pictures were turned upright, as their orientation tag asks")
        return picture_tensor(image, colour=colour, notes=notes)


def _numbering_gaps(stems: Sequence[str]) -> list[int]:
    """The numbers missing in names that differ by their last number only; none where the names follow no numbering."""
    matches = [re.fullmatch(r"(.*?)([0-9]+)", stem) for stem in stems]
    if len(stems) < 3 or len({match.group(1) if match else None for match in matches}) != 1 or not matches[0]:
        return []
    numbers = sorted(int(match.group(2)) for match in matches if match)
    steps = [after - before for before, after in pairwise(numbers)]
    # Every fifth frame kept is a numbering too: the usual step is the most frequent one.
    usual = Counter(steps).most_common(1)[0][0]
    if usual < 1:
        return []
    return [
        missing
        for before, after in pairwise(numbers)
        for missing in range(before + usual, min(after, before + 1000 * usual), usual)
    ]


def open_picture_file(path: Path) -> PictureList | TiffStack | MovingPicture:
    """The frames of one picture file: the pages of a TIFF, the frames of a GIF, or the one picture that it is.

    Raises:
        VideoError: it is no picture that can be read.
    """
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        stack = open_tiff_stack(path)
        return open_moving_picture(path) if stack is None else stack
    # A deep picture is a clip of one frame; what moves has 8 bits.
    return open_moving_picture(path) if deep_header(path) is None else open_pictures(path, [path])


@dataclass(frozen=True, eq=False)
class MovingPicture:
    """A GIF, an animated PNG or WebP, or a single picture; a plain record that can be pickled.

    Attributes: `path`, `count`, `height`, `width`, `rate` in frames per second (None where not told), `bit_depth` (8)
    and `notes`.
    """

    path: Path
    count: int
    height: int
    width: int
    colour: bool
    rate: float | None
    notes: tuple[str, ...] = ()
    bit_depth: int = 8

    def frames(
        self, start: int = 0, stop: int | None = None, step: int = 1, *, notes: list[str] | None = None
    ) -> Iterator[tuple[int, Tensor | str]]:
        """Yield (index, frame) as `VideoFile.frames` does."""
        with _pillow().open(self.path) as image:
            for index in range(start, self.count if stop is None else min(stop, self.count), step):
                try:
                    image.seek(index)
                    picture: Tensor | str = picture_tensor(
                        image, colour=self.colour, notes=[] if notes is None else notes
                    )
                except _PICTURE_ERRORS as error:
                    picture = str(error) or type(error).__name__
                yield index, picture


def open_moving_picture(path: Path) -> MovingPicture:
    """Go through the frames of a GIF, an animated PNG or WebP, or a single picture.

    Raises:
        VideoError: it is no picture, or none of its frames can be read.
    """
    notes: list[str] = []
    durations: list[float] = []
    greys: list[bool] = []
    try:
        with _pillow().open(path) as image:
            height, width = image.height, image.width
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                durations.append(float(image.info.get("duration", 0)))
                greys.append(image.mode in {"1", "L", "LA"} or image.mode.startswith("I"))
    except _PICTURE_ERRORS as error:
        if not greys:
            raise VideoError(f"{path} is no picture that can be read ({error})") from error
        notes.append(f"the file breaks off after frame {len(greys) - 1} ({error})")
    total = sum(durations) / 1000
    rate = len(durations) / total if total > 0 and len(durations) > 1 else None
    # The last frame's time says how long to wait before the loop starts again.
    if rate is not None and len(set(durations[:-1])) > 1:
        notes.append(f"variable frame rate: {rate:.4g} frames a second on average; the frames are taken as they come")
    return MovingPicture(path, len(greys), height, width, not all(greys), rate, tuple(notes))


def _pillow() -> Any:
    return require("PIL.Image", purpose="reading and writing pictures")

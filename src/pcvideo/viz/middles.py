# SPDX-License-Identifier: Apache-2.0
"""Middle frames on one picture: neighbours, truth, what was found, the average, and how far off these are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from pcvideo._files import written_aside
from pcvideo.viz._drawing import ACCENT, FAINT, INK, MUTED, SUFFIXES, check_scene, draw_on, fit_scale, font, resized

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["middles", "save_middles"]

_SIDE = 160
_GAP, _MARGIN, _TYPE = 6, 16, 14
# Differences are small: black stands for 0.2 and more.
_GAIN = 5
_NAMES = ("before", "truth", "after", "middle", "average", "middle's error", "average's error")
_LEGEND = "error: |frame - truth|, averaged over colours; white is 0, black 0.2 and more"


def middles(
    before: Tensor | np.ndarray,
    truth: Tensor | np.ndarray,
    after: Tensor | np.ndarray,
    middle: Tensor | np.ndarray,
    *,
    scale: float | None = None,
) -> Image:
    """Draw found middle frames, a row for each: neighbours, truth, what was found, their average, and both errors.

    Args:
        before, truth, after: (N, C, H, W) each, C 1 or 3, float in [0, 1] or uint8.
        middle: what was found, as many frames. A float may overshoot [0, 1] by up to 0.5 and is clamped.
        scale: pixels on the picture per pixel of the frame: a whole number, or below 1 to shrink. None takes about
            160 x 160 pixels for a frame.

    Returns:
        an RGB `PIL.Image.Image`.

    Raises:
        TypeError, ValueError: clips that do not fit together, values out of range or NaN, a wrong `scale`.
    """
    neighbours = [check_scene(frames, middle, truth, None) for frames in (before, after)]
    first, last = (scene.context for scene in neighbours)
    scene = neighbours[0]
    if scene.truth is None or not len(first) == len(last) == len(scene.truth):
        raise ValueError(f"before and after must have a frame for each of truth, got {len(first)} and {len(last)}")
    average = np.round((first.astype(np.float32) + last) / 2).astype(np.uint8)
    errors = [_error(frames, scene.truth) for frames in (scene.prediction, average)]
    columns = [first, scene.truth, last, scene.prediction, average, *errors]
    scale = fit_scale(scale, scene.size, target=_SIDE)
    height, width = (max(1, round(side * scale)) for side in scene.size)
    top, line = _MARGIN + 2 * _TYPE, 2 * _TYPE
    size = (top + len(first) * (height + _GAP) + line, 2 * _MARGIN + len(columns) * (width + _GAP) - _GAP)
    picture, pen = draw_on(size)
    for number, (name, frames) in enumerate(zip(_NAMES, columns, strict=True)):
        x = _MARGIN + number * (width + _GAP)
        colour = ACCENT if name.startswith("middle") else INK
        pen.text((x, top - _TYPE // 2), name, font=font(_TYPE), fill=colour, anchor="ls")
        for row, frame in enumerate(frames):
            y = top + row * (height + _GAP)
            picture.paste(resized(frame, scale), (x, y))
            if number >= len(columns) - len(errors):
                pen.rectangle((x - 1, y - 1, x + width, y + height), outline=FAINT)
    pen.text((_MARGIN, size[0] - _TYPE), _LEGEND, font=font(_TYPE), fill=MUTED, anchor="ls")
    return picture


def save_middles(
    path: str | os.PathLike[str],
    before: Tensor | np.ndarray,
    truth: Tensor | np.ndarray,
    after: Tensor | np.ndarray,
    middle: Tensor | np.ndarray,
    *,
    scale: float | None = None,
) -> None:
    """Draw middle frames as `middles` does, and write them aside, then under their name.

    Args:
        path: file to write, .png, .jpg or .webp; missing folders are made.
        before, truth, after, middle, scale: as for `middles`.

    Raises:
        TypeError, ValueError: as `middles`, or another suffix.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"path must end in {', '.join(SUFFIXES)}, got {path.name!r}")
    picture = middles(before, truth, after, middle, scale=scale)
    with written_aside(path) as temporary:
        picture.save(temporary)


def _error(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Ink on paper, (N, H, W, 3): the darker, the further apart."""
    apart = np.abs(frames.astype(np.float32) - truth.astype(np.float32)).mean(axis=-1, keepdims=True)
    return np.repeat(255 - np.minimum(np.round(_GAIN * apart), 255), 3, axis=-1).astype(np.uint8)

# SPDX-License-Identifier: Apache-2.0
"""A forecast on one picture: time runs to the right; truth, prediction, baseline and difference are its rows."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pcvideo._checks import check_int
from pcvideo._files import written_aside
from pcvideo.viz._drawing import (
    ACCENT,
    FAINT,
    INK,
    MUTED,
    SUFFIXES,
    Scene,
    check_scene,
    draw_on,
    fit_scale,
    font,
    resized,
)

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["save_strip", "strip"]

_WIDEST = 2400
_SIDE = 112
_GAIN = 2
_LEGEND = ("|prediction - truth|: 0", "0.5 and more")


def strip(
    context: Tensor | np.ndarray,
    prediction: Tensor | np.ndarray,
    *,
    truth: Tensor | np.ndarray | None = None,
    baseline: Tensor | np.ndarray | None = None,
    every: int = 1,
    labels: bool = True,
    scale: float | None = None,
) -> Image:
    """Draw a forecast as rows of frames: what was seen and what came, the prediction, a baseline, the difference.

    The difference row shows |prediction - truth|, averaged over the channels: white where it is 0, black from 0.5 on.
    Without a truth the prediction follows the context in the first row, and there is no difference.
    The picture stays within 2400 pixels of width: a long context loses its oldest frames, then only every n-th frame is
    shown; the line at the bottom says so.

    Args:
        context: the frames the model saw, (T, C, H, W), C 1 or 3, float in [0, 1] or uint8.
        prediction: what it predicted, (horizon, C, H, W). A float may overshoot [0, 1] by up to 0.5 and is clamped.
        truth: what came, as many frames.
        baseline: what stands beside it, as many frames; it is named "copy-last" where it repeats the last frame seen.
        every: show every n-th frame, counted from the last one seen, t.
        labels: write what the rows and columns are.
        scale: pixels on the picture per pixel of the frame: a whole number, or below 1 to shrink. None takes about
            112 x 112 pixels for a frame.

    Returns:
        an RGB `PIL.Image.Image`.

    Raises:
        TypeError: neither tensors nor arrays, or another dtype.
        ValueError: clips that do not fit together, values out of range or NaN (names the frame), a wrong `every` or
            `scale`.
    """
    scene = check_scene(context, prediction, truth, baseline)
    scale = fit_scale(scale, scene.size, target=_SIDE)
    style = _Style.fit(scene.size, scale, labels)
    columns, step = _columns(len(scene.context), len(scene.prediction), check_int("every", every), style.capacity)
    rows = _rows(scene, columns)
    grid = _Grid.plan(style, columns, rows)
    note = _note(scene, columns, step) if labels else ""
    footer = _Footer.plan(grid, note, legend=labels and scene.truth is not None)
    picture, pen = draw_on((grid.height + footer.height, footer.width))
    for index, row in enumerate(rows):
        for time, frame in row.frames.items():
            picture.paste(resized(frame, scale), grid.corner(index, time))
            if row.outlined:
                _outline(pen, grid.corner(index, time), style.cell)
    if labels:
        _write_names(pen, grid, rows)
        _write_header(pen, grid, "prediction" if scene.truth is None else "future")
        _write_footer(pen, footer, grid)
    return picture


def save_strip(
    path: str | os.PathLike[str],
    context: Tensor | np.ndarray,
    prediction: Tensor | np.ndarray,
    *,
    truth: Tensor | np.ndarray | None = None,
    baseline: Tensor | np.ndarray | None = None,
    every: int = 1,
    labels: bool = True,
    scale: float | None = None,
) -> None:
    """Draw a forecast as `strip` does, and write it aside, then under its name.

    Args:
        path: file to write, .png, .jpg or .webp; missing folders are made.
        context, prediction, truth, baseline, every, labels, scale: as for `strip`.

    Raises:
        TypeError, ValueError: as `strip`, or another suffix.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"path must end in {', '.join(SUFFIXES)}, got {path.name!r}")
    picture = strip(context, prediction, truth=truth, baseline=baseline, every=every, labels=labels, scale=scale)
    with written_aside(path) as temporary:
        picture.save(temporary)


@dataclass(frozen=True, eq=False)
class _Row:
    """Frames by their time: 0 is the last frame seen, 1 the first one predicted."""

    name: str
    frames: dict[int, np.ndarray]
    outlined: bool = False


def _rows(scene: Scene, columns: list[int]) -> list[_Row]:
    past = {time: scene.context[time - 1] for time in columns if time <= 0}
    future = [time for time in columns if time > 0]
    prediction = {time: scene.prediction[time - 1] for time in future}
    if scene.truth is None:
        rows = [_Row("", past | prediction)]
    else:
        rows = [_Row("truth", past | {time: scene.truth[time - 1] for time in future}), _Row("prediction", prediction)]
    if scene.baseline is not None:
        rows.append(_Row(scene.baseline_name, {time: scene.baseline[time - 1] for time in future}))
    if scene.truth is not None:
        apart = {time: _difference(scene.prediction[time - 1], scene.truth[time - 1]) for time in future}
        rows.append(_Row("difference", apart, outlined=True))
    return rows


def _difference(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Ink on paper, (H, W, 3): the darker, the further apart."""
    apart = np.abs(prediction.astype(np.float32) - truth.astype(np.float32)).mean(axis=-1, keepdims=True)
    return np.repeat(255 - np.minimum(np.round(_GAIN * apart), 255), 3, axis=-1).astype(np.uint8)


def _columns(context: int, horizon: int, every: int, capacity: int) -> tuple[list[int], int]:
    """The times to show, and the step between them.

    Where there are too many, the context is cut to the length of the future, but not below 3; then the step grows.
    """
    step = every
    while True:
        past = list(range(0, -context, -step))[::-1]
        future = list(range(step, horizon + 1, step)) or [horizon]
        if len(past) + len(future) > capacity:
            past = past[-max(3, len(future)) :]
        if len(past) + len(future) <= capacity or step >= max(context, horizon):
            return past + future, step
        step += 1


@dataclass(frozen=True)
class _Style:
    """Sizes in pixels: of a cell (height, width), of the gaps, and of the type, 0 where nothing is written."""

    cell: tuple[int, int]
    gap: int
    type_size: int

    @classmethod
    def fit(cls, size: tuple[int, int], scale: float, labels: bool) -> _Style:
        cell = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        return cls(cell, max(2, round(0.04 * cell[1])), min(18, max(11, round(0.12 * cell[1]))) if labels else 0)

    @property
    def margin(self) -> int:
        return self.type_size or self.gap

    @property
    def split(self) -> int:
        """What parts the future from the context, beside the gap."""
        return 3 * self.gap

    @property
    def line(self) -> int:
        return round(1.6 * self.type_size)

    @property
    def capacity(self) -> int:
        """How many columns fit."""
        room = _WIDEST - 2 * self.margin - self.split - self.name_width("prediction")
        return (room + self.gap) // (self.cell[1] + self.gap)

    def text_width(self, text: str) -> int:
        return math.ceil(font(self.type_size).getlength(text)) if self.type_size and text else 0

    def name_width(self, name: str) -> int:
        """The width of a row's name, with the space behind it."""
        width = self.text_width(name)
        return width + self.type_size // 2 if width else 0


@dataclass(frozen=True)
class _Grid:
    """Where the cells stand, in pixels."""

    style: _Style
    columns: list[int]
    rows: int
    left: int

    @classmethod
    def plan(cls, style: _Style, columns: list[int], rows: list[_Row]) -> _Grid:
        # A name stands right before its row's first frame, so that those below a long context need no margin.
        past = sum(time <= 0 for time in columns) * (style.cell[1] + style.gap) + style.split
        needs = [style.name_width(row.name) - (past if min(row.frames) > 0 else 0) for row in rows]
        return cls(style, columns, len(rows), style.margin + max(0, *needs))

    def corner(self, row: int, time: int) -> tuple[int, int]:
        """(x, y) of a cell's upper left pixel."""
        height, width = self.style.cell
        x = self.left + self.columns.index(time) * (width + self.style.gap) + (self.style.split if time > 0 else 0)
        return x, self.top + row * (height + self.style.gap)

    @property
    def top(self) -> int:
        return self.style.margin + round(3.2 * self.style.type_size)

    @property
    def width(self) -> int:
        return self.corner(0, self.columns[-1])[0] + self.style.cell[1] + self.style.margin

    @property
    def height(self) -> int:
        return self.corner(self.rows - 1, 0)[1] + self.style.cell[0] + self.style.margin


def _outline(pen: Any, corner: tuple[int, int], cell: tuple[int, int]) -> None:
    """A hairline around white cells, outside their pixels."""
    x, y = corner
    pen.rectangle((x - 1, y - 1, x + cell[1], y + cell[0]), outline=FAINT)


def _write_names(pen: Any, grid: _Grid, rows: list[_Row]) -> None:
    style = grid.style
    for index, row in enumerate(rows):
        x, y = grid.corner(index, min(row.frames))
        place = (x - style.type_size // 2, y + style.cell[0] / 2)
        colour = ACCENT if row.name == "prediction" else INK
        pen.text(place, row.name, font=font(style.type_size), fill=colour, anchor="rm")


def _write_header(pen: Any, grid: _Grid, future_name: str) -> None:
    """Two groups of columns, each with its name, a rule and the times."""
    style, type_size = grid.style, grid.style.type_size
    width = style.cell[1]
    groups = (
        ("context", [time for time in grid.columns if time <= 0], MUTED),
        (future_name, [time for time in grid.columns if time > 0], ACCENT),
    )
    # Narrow columns carry every second or third time, so that the words don't touch.
    widest = max(style.text_width(_time_name(time)) for time in grid.columns)
    stride = math.ceil((widest + type_size // 3) / (width + style.gap))
    for name, times, colour in groups:
        left, right = grid.corner(0, times[0])[0], grid.corner(0, times[-1])[0] + width
        rule = grid.top - round(1.55 * type_size)
        pen.text((left, rule - 0.45 * type_size), name, font=font(type_size), fill=colour, anchor="ls")
        pen.rectangle((left, rule, right - 1, rule + 1), fill=colour)
        for time in times[::-stride]:
            middle = grid.corner(0, time)[0] + width / 2
            pen.text(
                (middle, grid.top - 0.45 * type_size), _time_name(time), font=font(type_size), fill=MUTED, anchor="ms"
            )


def _time_name(time: int) -> str:
    return f"t{time:+d}" if time else "t"


def _note(scene: Scene, columns: list[int], step: int) -> str:
    """What was left out, in words."""
    notes = [f"every {_ordinal(step)} frame is shown"] if step > 1 else []
    seen = len(scene.context)
    if min(columns) - step > -seen:
        notes.append(f"the context has {seen} frames in all")
    return "; ".join(notes)


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in {11, 12, 13} else "th"
    return f"{number}{ending}"


@dataclass(frozen=True)
class _Footer:
    """The words below the rows: a note at the left, the legend of the difference below the difference."""

    note: str
    legend_x: int | None
    lines: int
    width: int
    height: int

    @classmethod
    def plan(cls, grid: _Grid, note: str, *, legend: bool) -> _Footer:
        style = grid.style
        note_end = style.margin + style.text_width(note)
        width = max(grid.width, note_end + style.margin)
        if not legend:
            return cls(note, None, bool(note), width, style.line * bool(note))
        needs = sum(style.text_width(part) for part in _LEGEND) + 7 * style.type_size
        width = max(width, needs + 2 * style.margin)
        future = grid.corner(0, next(time for time in grid.columns if time > 0))[0]
        legend_x = min(future, width - style.margin - needs)
        lines = 2 if note and note_end + 2 * style.type_size > legend_x else 1
        return cls(note, legend_x, lines, width, style.line * lines)


def _write_footer(pen: Any, footer: _Footer, grid: _Grid) -> None:
    style, type_size = grid.style, grid.style.type_size
    words = {"font": font(type_size), "fill": MUTED, "anchor": "ls"}
    y = grid.height + round(0.8 * type_size)
    if footer.legend_x is not None:
        before, after = _LEGEND
        x = footer.legend_x
        pen.text((x, y), before, **words)
        x += style.text_width(before) + type_size // 2
        _ramp(pen, (x, y - round(0.75 * type_size)), (round(0.85 * type_size), 6 * type_size))
        pen.text((x + 6 * type_size + type_size // 2, y), after, **words)
    pen.text((style.margin, y + style.line * (footer.lines - 1)), footer.note, **words)


def _ramp(pen: Any, corner: tuple[int, int], size: tuple[int, int]) -> None:
    """The greys of the difference row."""
    x, y = corner
    height, width = size
    for column in range(width):
        grey = 255 - round(255 * column / (width - 1))
        pen.line((x + column, y, x + column, y + height - 1), fill=(grey, grey, grey))
    _outline(pen, corner, size)

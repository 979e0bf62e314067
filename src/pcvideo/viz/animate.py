# SPDX-License-Identifier: Apache-2.0
"""A forecast in motion: truth, prediction and baseline side by side, first the context, then the future."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcvideo._checks import check_number
from pcvideo.viz._drawing import ACCENT, FAINT, INK, MUTED, Scene, check_scene, draw_on, fit_scale, font, resized

__all__ = ["comparison_frames", "save_comparison_gif"]

_SIDE = 192
_BORDER = 3
_BAR = 5
_HOLD_SECONDS = 1.0


def comparison_frames(
    context: Tensor | np.ndarray,
    prediction: Tensor | np.ndarray,
    truth: Tensor | np.ndarray | None = None,
    baseline: Tensor | np.ndarray | None = None,
) -> Tensor:
    """Draw a forecast as frames with the panels "truth", "prediction" and "copy-last" side by side.

    All panels show the context first, and say so; then each shows its future, the prediction with a coloured border.
    A bar at the bottom fills with time. Small frames are enlarged by repeating pixels, large ones shrunk, to about
    192 x 192 pixels.

    Args:
        context: the frames the model saw, (T, C, H, W), C 1 or 3, float in [0, 1] or uint8. All are shown: give the
            last few of a long one.
        prediction: what it predicted, (horizon, C, H, W). A float may overshoot [0, 1] by up to 0.5 and is clamped.
        truth: what came, as many frames; None leaves its panel out.
        baseline: what stands beside it, as many frames; it is named "copy-last" where it repeats the last frame seen.

    Returns:
        (T + horizon, 3, height, width), uint8, for `write_gif` or `write_video`.

    Raises:
        TypeError: neither tensors nor arrays, or another dtype.
        ValueError: clips that do not fit together, values out of range or NaN (names the frame).
    """
    scene = check_scene(context, prediction, truth, baseline)
    stage = _Stage.build(scene)
    seen, horizon = len(scene.context), len(scene.prediction)
    frames = [stage.draw(scene, time, seen, horizon) for time in range(1 - seen, horizon + 1)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def save_comparison_gif(
    path: str | os.PathLike[str],
    context: Tensor | np.ndarray,
    prediction: Tensor | np.ndarray,
    truth: Tensor | np.ndarray | None = None,
    baseline: Tensor | np.ndarray | None = None,
    *,
    rate: float = 5,
) -> None:
    """Write `comparison_frames` as a GIF that plays over and over, and rests for a second on the last frame.

    Args:
        path: file to write, .gif; it is written aside, then renamed.
        context, prediction, truth, baseline: as for `comparison_frames`.
        rate: frames per second, up to 50.

    Raises:
        TypeError, ValueError: as `comparison_frames`, or another suffix.
    """
    from pcvideo.video_io import write_gif  # noqa: PLC0415

    rate = check_number("rate", rate, minimum=0.01, maximum=50)
    frames = comparison_frames(context, prediction, truth, baseline)
    # Equal frames become one of that length in the file.
    rest = frames[-1:].repeat(round(_HOLD_SECONDS * rate), 1, 1, 1)
    write_gif(path, torch.cat([frames, rest]), rate)


@dataclass(frozen=True)
class _Stage:
    """Where the panels stand, in pixels; a panel is a border with the frame inside."""

    names: tuple[str, ...]
    scale: float
    panel: tuple[int, int]
    type_size: int

    @classmethod
    def build(cls, scene: Scene) -> _Stage:
        scale = fit_scale(None, scene.size, target=_SIDE)
        height, width = (max(1, round(side * scale)) + 2 * _BORDER for side in scene.size)
        names = ["truth"] * (scene.truth is not None) + ["prediction"]
        names += [scene.baseline_name] * (scene.baseline is not None)
        type_size = min(18, max(12, round(0.085 * width)))
        # Tall frames get panels as wide as their caption.
        longest = max(font(type_size).getlength(name) for name in names) + font(type_size).getlength("  context")
        return cls(tuple(names), scale, (height, max(width, round(longest))), type_size)

    @property
    def gap(self) -> int:
        return self.type_size

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the whole frame, both even, as video codecs want them."""
        height = round(2.2 * self.type_size) + self.panel[0] + self.gap + _BAR + self.gap
        width = self.gap + len(self.names) * (self.panel[1] + self.gap)
        return height + height % 2, width + width % 2

    def draw(self, scene: Scene, time: int, seen: int, horizon: int) -> np.ndarray:
        """The frame at `time`, (height, width, 3); 0 is the last one seen, 1 the first one predicted."""
        picture, pen = draw_on(self.size)
        futures = {"truth": scene.truth, "prediction": scene.prediction, scene.baseline_name: scene.baseline}
        top = round(2.2 * self.type_size)
        for index, name in enumerate(self.names):
            left = self.gap + index * (self.panel[1] + self.gap)
            clip = scene.context if time <= 0 else futures[name]
            if clip is None:
                continue
            image = resized(clip[time - 1], self.scale)
            x = left + (self.panel[1] - image.width) // 2
            self._caption(pen, name, time, (left, top))
            box = (x - _BORDER, top, x + image.width + _BORDER - 1, top + self.panel[0] - 1)
            pen.rectangle(box, fill=_border_colour(name, time))
            picture.paste(image, (x, top + _BORDER))
        self._bar(pen, time, seen, horizon)
        return np.asarray(picture)

    def _caption(self, pen: Any, name: str, time: int, corner: tuple[int, int]) -> None:
        left, top = corner
        place = top - round(0.6 * self.type_size)
        words = font(self.type_size)
        predicted = time > 0 and name == "prediction"
        colour = MUTED if time <= 0 else ACCENT if predicted else INK
        pen.text((left, place), name, font=words, fill=colour, anchor="ls")
        when = "context" if time <= 0 else f"t+{time}"
        pen.text((left + self.panel[1], place), when, font=words, fill=ACCENT if predicted else MUTED, anchor="rs")

    def _bar(self, pen: Any, time: int, seen: int, horizon: int) -> None:
        """Time as one segment a frame: grey for what was seen, coloured for what is predicted."""
        left, right = self.gap, self.size[1] - self.gap
        bottom = self.size[0] - self.gap
        count = seen + horizon
        gap = 2 if right - left >= 6 * count else 0
        edges = [left + round((right - left + gap) * index / count) for index in range(count + 1)]
        for index, moment in enumerate(range(1 - seen, horizon + 1)):
            reached = MUTED if moment <= 0 else ACCENT
            box = (edges[index], bottom - _BAR, max(edges[index], edges[index + 1] - 1 - gap), bottom - 1)
            pen.rectangle(box, fill=reached if moment <= time else FAINT)


def _border_colour(name: str, time: int) -> tuple[int, int, int]:
    if time <= 0:
        return FAINT
    return ACCENT if name == "prediction" else MUTED

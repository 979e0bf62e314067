# SPDX-License-Identifier: Apache-2.0
"""What strips and animations share: frames checked and brought to 8 bit, their size on paper, type and colours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcvideo._checks import check_number, describe
from pcvideo._optional import require

__all__ = [
    "ACCENT",
    "FAINT",
    "INK",
    "MUTED",
    "PAPER",
    "SUFFIXES",
    "Scene",
    "check_scene",
    "draw_on",
    "fit_scale",
    "font",
    "resized",
]

PAPER = (250, 250, 248)
INK = (34, 36, 40)
MUTED = (118, 122, 128)
FAINT = (206, 208, 212)
# Vermilion of Okabe and Ito's palette, which colour-blind readers tell from grey and from blue.
ACCENT = (213, 94, 0)

# The formats that pictures are written in.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

# What a network without a clamp may overshoot by; beyond it, the frames are on another scale than [0, 1].
_OVERSHOOT = 0.5


@dataclass(frozen=True, eq=False)
class Scene:
    """The frames to draw, each (T, H, W, 3) uint8, and what the baseline is called."""

    context: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray | None
    baseline: np.ndarray | None
    baseline_name: str

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a frame."""
        return self.context.shape[1], self.context.shape[2]


def check_scene(
    context: Tensor | np.ndarray,
    prediction: Tensor | np.ndarray,
    truth: Tensor | np.ndarray | None,
    baseline: Tensor | np.ndarray | None,
) -> Scene:
    """The four clips in 8 bit; refuse those that are no clips, hold NaN or another range, or do not fit together."""
    given: dict[str, Tensor | np.ndarray] = {"context": context, "prediction": prediction}
    given |= {name: clip for name, clip in (("truth", truth), ("baseline", baseline)) if clip is not None}
    clips = {name: _as_clip(name, clip) for name, clip in given.items()}
    for name, clip in clips.items():
        if clip.shape[1:] != clips["context"].shape[1:]:
            raise ValueError(
                f"{name} must have frames of the context's shape (C, H, W) {tuple(clips['context'].shape[1:])}, "
                f"got {tuple(clip.shape[1:])}; convert or resize one of the two"
            )
        if name in {"truth", "baseline"} and clip.shape[0] != clips["prediction"].shape[0]:
            count = clips["prediction"].shape[0]
            raise ValueError(
                f"{name} must have as many frames as the prediction, {count}, got {clip.shape[0]}; "
                f"cut both to the same horizon"
            )
    pixels = {name: _eight_bit(name, clip) for name, clip in clips.items()}
    still = "baseline" in pixels and bool((pixels["baseline"] == pixels["context"][-1]).all())
    return Scene(
        pixels["context"],
        pixels["prediction"],
        pixels.get("truth"),
        pixels.get("baseline"),
        "copy-last" if still else "baseline",
    )


def _as_clip(name: str, clip: Tensor | np.ndarray) -> Tensor:
    if isinstance(clip, np.ndarray):
        clip = torch.from_numpy(np.array(clip))
    if not isinstance(clip, Tensor):
        raise TypeError(f"{name} must be a tensor or an array (T, C, H, W), got {describe(clip)}")
    if clip.ndim != 4 or clip.shape[1] not in {1, 3} or clip.numel() == 0:
        hint = f"; take one clip of the batch: {name}[0]" if clip.ndim == 5 else ""
        raise ValueError(
            f"{name} must be one clip (T, C, H, W) of at least one frame with C 1 or 3, got {describe(clip)}{hint}"
        )
    return clip


def _eight_bit(name: str, clip: Tensor) -> np.ndarray:
    clip = clip.detach().cpu()
    if clip.is_floating_point():
        clip = clip.float()
        slack = _OVERSHOOT if name in {"prediction", "baseline"} else 1e-3
        for index, frame in enumerate(clip):
            low, high = (float(value) for value in torch.aminmax(frame))
            # NaN fails both comparisons, so one test serves every fault.
            if not (low >= -slack and high <= 1 + slack):
                raise ValueError(
                    f"{name}: frame {index} ranges over [{low:.4g}, {high:.4g}], expected [0, 1]; "
                    f"rescale it first, or mend what holds NaN"
                )
        clip = (clip.clamp(0, 1) * 255).round().to(torch.uint8)
    elif clip.dtype != torch.uint8:
        raise TypeError(f"{name} must be float in [0, 1] or uint8, got {describe(clip)}")
    return np.ascontiguousarray(clip.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy())


def fit_scale(scale: float | None, size: tuple[int, int], *, target: int) -> float:
    """Pixels on the picture per pixel of the frame: a whole number, or at most 1.

    None chooses it so that a frame takes about `target` squared pixels, and its longer side at most twice `target`.
    """
    if scale is not None:
        scale = check_number("scale", scale, minimum=0)
        if scale == 0 or (scale > 1 and scale != int(scale)):
            raise ValueError(
                f"scale must be a whole number, which repeats pixels, or between 0 and 1, which shrinks; got {scale}"
            )
        return scale
    side, longest = math.sqrt(size[0] * size[1]), max(size)
    if side > 1.4 * target or longest > 2 * target:
        return min(target / side, 2 * target / longest, 1.0)
    return max(1, min(round(target / side), 2 * target // longest))


def resized(frame: np.ndarray, scale: float) -> Any:
    """A frame (H, W, 3) uint8 as a Pillow image: pixels repeated, or averaged over areas where it shrinks."""
    images = require("PIL.Image", purpose="drawing pictures")
    height, width = (max(1, round(side * scale)) for side in frame.shape[:2])
    method = images.Resampling.NEAREST if scale >= 1 else images.Resampling.BOX
    return images.fromarray(frame).resize((width, height), method)


def draw_on(size: tuple[int, int]) -> tuple[Any, Any]:
    """An empty picture of size (height, width), and the pen for it."""
    images = require("PIL.Image", purpose="drawing pictures")
    pens = require("PIL.ImageDraw", purpose="drawing pictures")
    picture = images.new("RGB", (size[1], size[0]), PAPER)
    return picture, pens.Draw(picture)


def font(size: int) -> Any:
    """Pillow's own sans serif; it has no minus sign and no arrows."""
    return require("PIL.ImageFont", purpose="writing on pictures").load_default(size=size)

# SPDX-License-Identifier: Apache-2.0
"""Volumes over time on pictures: their slices side by side, and their surfaces as a strip or in motion."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcvideo._checks import check_int, describe
from pcvideo._files import written_aside
from pcvideo._optional import require
from pcvideo.video_io import write_gif
from pcvideo.viz.meshes import surface

__all__ = ["save_surface_gif", "save_surface_strip", "slice_frames"]

_COLOURS = ("#3a6ea5", "#c8553d", "#8a8a8a", "#4d8f5b")
_INCH, _DPI = 1.15, 100
_LIGHT = np.array([0.35, -0.5, 0.8]) / np.linalg.norm([0.35, -0.5, 0.8])


def slice_frames(volumes: Tensor | np.ndarray, *, columns: int | None = None) -> Tensor:
    """Every volume as one picture of its slices along the depth, row by row, for `strip` and `save_comparison_gif`.

    Args:
        volumes: (T, 1, D, H, W), float in [0, 1].
        columns: slices in a row; None makes the picture about square.

    Returns:
        (T, 1, rows * (H + 1) - 1, columns * (W + 1) - 1), float; a grey line of one pixel between slices.

    Raises:
        TypeError, ValueError: they have other axes.
    """
    frames = _as_frames("volumes", volumes)
    count, depth, height, width = frames.shape
    columns = math.ceil(math.sqrt(depth * height / width)) if columns is None else check_int("columns", columns)
    columns = min(columns, depth)
    rows = math.ceil(depth / columns)
    grid = frames.new_full((count, rows, columns, height + 1, width + 1), 0.5)
    grid[..., :height, :width].flatten(1, 2)[:, depth:] = 0.5
    grid.view(count, rows * columns, height + 1, width + 1)[:, :depth, :height, :width] = frames
    picture = grid.permute(0, 1, 3, 2, 4).reshape(count, 1, rows * (height + 1), columns * (width + 1))
    return picture[..., :-1, :-1]


def save_surface_strip(
    path: str | os.PathLike[str], rows: Mapping[str, Tensor | np.ndarray], *, first: int = 1, every: int = 1
) -> None:
    """Draw surfaces as a picture: time runs to the right, a row for each of what is compared.

    Args:
        path: ends in .png.
        rows: by name, such as "truth" and "prediction", as many volumes (T, 1, D, H, W) each; surfaces lie at 0.5.
        first: what the first column is called: t + first.
        every: show every n-th volume.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: there is no row, or rows don't fit together.
    """
    clips = _as_rows(rows)
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got {path.name!r}")
    shown = range(0, len(next(iter(clips.values()))), check_int("every", every))
    figure = _figure(len(shown), len(clips))
    for row, (name, clip) in enumerate(clips.items()):
        for column, time in enumerate(shown):
            axes = figure.add_subplot(len(clips), len(shown), row * len(shown) + column + 1, projection="3d")
            _draw(axes, clip[time], _COLOURS[row % len(_COLOURS)])
            if row == 0:
                axes.set_title(f"t + {first + time}" if first + time else "t", fontsize=9, pad=0)
        figure.text(0.004, 1 - (row + 0.5) / len(clips), name, fontsize=9, rotation=90, va="center", ha="left")
    with written_aside(path) as temporary:
        figure.savefig(temporary, format="png")


def save_surface_gif(
    path: str | os.PathLike[str], rows: Mapping[str, Tensor | np.ndarray], *, first: int = 1, rate: float = 4.0
) -> None:
    """Draw surfaces in motion, side by side.

    Args:
        path: ends in .gif.
        rows: as for `save_surface_strip`; each is a panel.
        first: what the first frame is called: t + first.
        rate: volumes per second.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: as `save_surface_strip`.
    """
    clips = _as_rows(rows)
    pictures = []
    for time in range(len(next(iter(clips.values())))):
        figure = _figure(len(clips), 1, inch=2.2)
        for panel, (name, clip) in enumerate(clips.items()):
            axes = figure.add_subplot(1, len(clips), panel + 1, projection="3d")
            _draw(axes, clip[time], _COLOURS[panel % len(_COLOURS)])
            axes.set_title(f"{name}, t + {first + time}" if first + time else f"{name}, t", fontsize=10, pad=0)
        pictures.append(_pixels(figure))
    write_gif(path, torch.stack(pictures), rate)


def _figure(columns: int, rows: int, inch: float = _INCH) -> Any:
    module = require("matplotlib.figure", extra="train", purpose="drawing surfaces")
    require("mpl_toolkits.mplot3d", extra="train", purpose="drawing surfaces")
    figure = module.Figure(figsize=(inch * columns + 0.2, (inch + 0.15) * rows), dpi=_DPI)
    left = 0.2 / (inch * columns + 0.2)
    figure.subplots_adjust(left=left, right=1, bottom=0, top=1 - 0.16 / ((inch + 0.15) * rows), wspace=0, hspace=0.02)
    return figure


def _draw(axes: Any, volume: Tensor, colour: str) -> None:
    """One volume's surface in its box, lit from above."""
    art = require("mpl_toolkits.mplot3d.art3d", extra="train", purpose="drawing surfaces")
    colours = require("matplotlib.colors", extra="train", purpose="drawing surfaces")
    depth, height, width = volume.shape
    mesh = surface(volume)
    if len(mesh.faces):
        corners = mesh.vertices[:, ::-1][mesh.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        light = 0.55 + 0.45 * np.abs(normals @ _LIGHT)
        shades = np.clip(light[:, None] * np.array(colours.to_rgb(colour)), 0, 1)
        axes.add_collection3d(art.Poly3DCollection(corners, facecolors=shades, edgecolors="none"))
    axes.set(xlim=(0, width), ylim=(0, height), zlim=(0, depth), xticks=[], yticks=[], zticks=[])
    axes.set_box_aspect((width, height, depth), zoom=1.25)


def _pixels(figure: Any) -> Tensor:
    backend = require("matplotlib.backends.backend_agg", extra="train", purpose="drawing surfaces")
    canvas = backend.FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3]).permute(2, 0, 1).contiguous()


def _as_rows(rows: Mapping[str, Tensor | np.ndarray]) -> dict[str, Tensor]:
    clips = {name: _as_frames(f"rows[{name!r}]", clip) for name, clip in rows.items()}
    if not clips or len({tuple(clip.shape) for clip in clips.values()}) > 1:
        shapes = {name: tuple(clip.shape) for name, clip in clips.items()}
        raise ValueError(f"rows must be at least one, and of one shape, got {shapes or 'none'}")
    return clips


def _as_frames(name: str, volumes: Tensor | np.ndarray) -> Tensor:
    frames = torch.as_tensor(volumes).detach().cpu()
    if frames.ndim != 5 or frames.shape[1] != 1 or not frames.numel():
        raise ValueError(f"{name} must be volumes (T, 1, D, H, W), got {describe(volumes)}")
    return frames[:, 0].float()

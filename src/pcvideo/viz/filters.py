# SPDX-License-Identifier: Apache-2.0
"""Frequency responses drawn: the gain over both frequencies as a map, and along the axes and the diagonal as curves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pcvideo._checks import check_int, describe
from pcvideo.viz._drawing import FAINT, INK, MUTED
from pcvideo.viz.curves import _COLOURS, _axes, _figure, _hex, _label_ends, _matplotlib, _save

__all__ = ["plot_response"]

# What lies below looks alike, and what lies above is clipped.
_LOWEST_DB, _HIGHEST_DB = -60.0, 5.0
_FREQUENCY = "frequency, in units of Nyquist"


def plot_response(
    responses: Mapping[str, Tensor | np.ndarray], path: str | os.PathLike[str], *, factor: int | Mapping[str, int] = 2
) -> None:
    """Draw filters' gains, a row each: a map over both frequencies, and curves along x, along y and along the diagonal.

    What a decimation by `factor` would alias lies outside the dashed square, and right of the dashed line.

    Args:
        responses: by the name that is written above each row, (size, size) of even size, complex or real, by vertical,
            then horizontal frequency in the order of `numpy.fft.fftfreq`; a channel of what
            `pcvideo.ops.fir.frequency_response` gives.
        path: file to write, .png, .svg, .pdf or .jpg; it is written aside, then renamed.
        factor: of the decimation, at least 1; or one by each name.

    Raises:
        TypeError: `responses` is no mapping, or `factor` no whole number.
        ValueError: no responses, one of another shape or with NaN, no factor of that name, or another suffix.
        ImportError: matplotlib is missing.
    """
    if not isinstance(responses, Mapping):
        raise TypeError(f"responses must map names to frequency responses, got {describe(responses)}")
    if not responses:
        raise ValueError("responses must hold at least one frequency response, such as {'default': response}; got none")
    gains = {str(name): _decibels(name, response) for name, response in responses.items()}
    factors = {name: _factor_of(name, factor) for name in gains}
    figure = _figure(path, (10.0, 3.8 * len(gains)))
    grid = figure.add_gridspec(len(gains), 2, width_ratios=[1.0, 1.4])
    curves = []
    for row, (name, gain) in enumerate(gains.items()):
        _draw_map(figure, _axes(figure, grid[row, 0]), name, gain, factors[name])
        curves.append(_axes(figure, grid[row, 1]))
        _draw_curves(curves[-1], gain, factors[name])
    _label_ends(figure, curves)
    _save(figure, Path(path))


def _factor_of(name: str, factor: int | Mapping[str, int]) -> int:
    if isinstance(factor, Mapping):
        if name not in factor:
            raise ValueError(f"factor must name each response, got none for {name!r} (given: {', '.join(factor)})")
        factor = factor[name]
    return check_int("factor", factor)


def _decibels(name: str, response: Tensor | np.ndarray) -> np.ndarray:
    values = np.abs(response.detach().cpu().numpy() if isinstance(response, Tensor) else np.asarray(response))
    if values.ndim != 2 or values.shape[0] != values.shape[1] or values.size == 0 or values.shape[0] % 2:
        raise ValueError(
            f"responses[{name!r}] must be (size, size) with an even size, got {describe(response)}; "
            f"of several channels, take one"
        )
    if np.isnan(values).any():
        raise ValueError(f"responses[{name!r}] must not hold NaN, got {describe(response)}")
    return 20 * np.log10(np.maximum(values, 10 ** (_LOWEST_DB / 20)))


def _draw_map(figure: Any, axes: Any, name: str, gain: np.ndarray, factor: int) -> None:
    # Each pixel's middle is its frequency; rows run upwards.
    edges = (-1 - 1 / len(gain), 1 - 1 / len(gain))
    picture = axes.imshow(
        np.fft.fftshift(gain),
        origin="lower",
        extent=(*edges, *edges),
        vmin=_LOWEST_DB,
        vmax=_HIGHEST_DB,
        cmap="cividis",
    )
    square = _matplotlib("patches").Rectangle(
        (-1 / factor, -1 / factor), 2 / factor, 2 / factor, fill=False, linestyle="--", edgecolor=_hex(INK)
    )
    axes.add_patch(square)
    axes.grid(visible=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(_matplotlib("ticker").MultipleLocator(0.5))
    axes.set_title(name, loc="left", fontsize=11, color=_hex(INK), pad=8)
    axes.set_xlabel(f"horizontal {_FREQUENCY}")
    axes.set_ylabel(f"vertical {_FREQUENCY}")
    bar = figure.colorbar(picture, ax=axes, shrink=0.8)
    bar.outline.set_edgecolor(_hex(FAINT))
    bar.ax.tick_params(colors=_hex(MUTED), labelsize=9, length=3)


def _draw_curves(axes: Any, gain: np.ndarray, factor: int) -> None:
    half = len(gain) // 2
    frequency = np.arange(half + 1) / half
    steps = np.arange(half + 1)
    # Broken lines on top, as those of a symmetric filter lie on one another.
    lines = (
        ("along x", gain[0, steps], "-"),
        ("along y", gain[steps, 0], (0, (4, 3))),
        ("diagonal", gain[steps, steps], "-"),
    )
    for colour, (label, values, dashes) in zip(_COLOURS, lines, strict=False):
        axes.plot(frequency, values, label=label, color=colour, linestyle=dashes, linewidth=2.0)
    axes.axvline(1 / factor, color=_hex(MUTED), linestyle="--", linewidth=1.0)
    axes.set_xlim(0, 1)
    axes.set_ylim(_LOWEST_DB, _HIGHEST_DB)
    axes.set_xlabel(f"{_FREQUENCY} (on the diagonal, that of each axis)")
    axes.set_title("gain in dB", loc="left", fontsize=11, color=_hex(INK), pad=8)

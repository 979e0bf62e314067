# SPDX-License-Identifier: Apache-2.0
"""Curves: a metric over the steps of the horizon, and what a training run has logged.

Drawn by matplotlib on a figure of its own: pyplot, its backends and its open figures are not touched.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pcvideo._checks import describe
from pcvideo._files import written_aside
from pcvideo._optional import require
from pcvideo.viz._drawing import FAINT, INK, MUTED, PAPER

__all__ = ["horizon_curve", "loss_curve"]

# Okabe and Ito's palette, which colour-blind readers tell apart; grey is kept for what needs no model.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_BASELINE_DASHES = {"copy-last": "--", "black": ":", "baseline": "-.", "linear-blend": "-."}
_SUFFIXES = (".png", ".svg", ".pdf", ".jpg")
_LOG_COLUMNS = ["step", "name", "value"]
# What stands above the axes, and the unit beside them.
_NAMES = {
    "mse": ("MSE", "squared error, sum over a frame"),
    "mse_mean": ("MSE", "squared error, mean over pixels"),
    "mae": ("MAE", "absolute error, sum over a frame"),
    "mae_mean": ("MAE", "absolute error, mean over pixels"),
    "psnr": ("PSNR", "dB"),
    "ssim": ("SSIM", "similarity, at most 1"),
    "lpips": ("LPIPS", "perceptual distance"),
}
_RISING = {"psnr", "ssim"}
_FALLING = {"mse", "mse_mean", "mae", "mae_mean", "lpips"}
# Beyond this ratio of its largest to its smallest values, a curve needs a logarithmic axis to be read.
_DECADES = 30

_Series = tuple[np.ndarray, np.ndarray]


def horizon_curve(per_step: Mapping[str, Sequence[float | None]], *, metric: str, path: str | os.PathLike[str]) -> None:
    """Draw a metric over the steps of the horizon, one labelled line each; a baseline's is grey and broken.

    Args:
        per_step: the values from t+1 on, by what made them, such as {"MSPN": [...], "copy-last": [...]}; "copy-last",
            "black", "baseline" and "linear-blend" (with a hyphen or an underscore) are drawn as baselines. None, NaN
            and infinity leave a gap.
        metric: its name, such as "mse"; those of `pcvideo.metrics` get their units on the axis.
        path: file to write, .png, .svg, .pdf or .jpg; it is written aside, then renamed.

    Raises:
        TypeError: `per_step` is no mapping, or a value is no number.
        ValueError: no lines, a line without any finite value, or another suffix.
        ImportError: matplotlib is missing.
    """
    if not isinstance(per_step, Mapping):
        raise TypeError(f"per_step must map labels to lists of values, got {describe(per_step)}")
    if not per_step:
        raise ValueError("per_step must hold at least one line, such as {'MSPN': [...], 'copy-last': [...]}; got none")
    lines = {str(label): _finite_or_gap(label, values) for label, values in per_step.items()}
    figure = _figure(path, (7.0, 4.0))
    axes = _axes(figure, figure.add_gridspec(1, 1)[0])
    for label, values in lines.items():
        _plot(axes, label, np.arange(1, len(values) + 1), values, _look(label, lines))
    axes.set_xlabel("predicted frame (steps after the last frame seen)")
    _name(axes, metric)
    axes.xaxis.set_major_locator(_matplotlib("ticker").MaxNLocator(integer=True, min_n_ticks=1))
    _label_ends(figure, [axes])
    _save(figure, Path(path))


def loss_curve(log_csv_path: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Draw what a training run has logged: the loss, then each validation metric beside copy-last, then the rest.

    A long series is drawn faintly, with its running mean over it. Half a row at the end, which a killed run may leave,
    is skipped. "seconds" is not drawn, nor a `..._mean` whose sum is there too.

    Args:
        log_csv_path: the `log.csv` of a run folder, with the columns step, name, value.
        path: file to write, .png, .svg, .pdf or .jpg; it is written aside, then renamed.

    Raises:
        FileNotFoundError: there is no log.
        ValueError: other columns, no rows yet, a row without numbers (names its line), or another suffix for `path`.
        ImportError: matplotlib is missing.
    """
    panels = _panels(_read_log(Path(log_csv_path)))
    across = min(3, max(1, len(panels) - 1))
    down = math.ceil((len(panels) - 1) / across)
    figure = _figure(path, (10.0, 3.4 + 2.8 * down))
    grid = figure.add_gridspec(1 + down, across, height_ratios=[3.4] + [2.8] * down)
    places = [grid[0, :], *(grid[1 + index // across, index % across] for index in range(len(panels) - 1))]
    drawn = []
    for place, (name, lines) in zip(places, panels.items(), strict=True):
        axes = _axes(figure, place)
        for label, (steps, values) in lines.items():
            # A line that stands alone is named by its axis.
            _draw_series(axes, label if len(lines) > 1 else "", steps, values, _look(label, lines))
        axes.set_xlabel("training step")
        _name(axes, name)
        _fit_scale(axes, [values for _, values in lines.values()])
        drawn.append(axes)
    _label_ends(figure, drawn)
    _save(figure, Path(path))


def _finite_or_gap(label: str, values: Sequence[float | None]) -> np.ndarray:
    try:
        numbers = np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"per_step[{label!r}] must be a list of numbers, got {describe(values)} ({error})") from error
    if not np.isfinite(numbers).any():
        raise ValueError(
            f"per_step[{label!r}] must hold at least one finite value, got {describe(values)}; leave it out"
        )
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _read_log(path: Path) -> dict[str, _Series]:
    """The finite values of each name, with their steps."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames is None or not set(_LOG_COLUMNS) <= set(reader.fieldnames):
            raise ValueError(
                f"{path} must be a log with the columns {', '.join(_LOG_COLUMNS)}, got {reader.fieldnames}"
            )
        for row in reader:
            if not all(row[column] for column in _LOG_COLUMNS):
                continue
            try:
                step, value = int(row["step"]), float(row["value"])
            except ValueError as error:
                raise ValueError(f"{path}, line {reader.line_num}: step and value must be numbers ({error})") from error
            if math.isfinite(value) and row["name"] != "seconds":
                steps, values = found.setdefault(row["name"], ([], []))
                steps.append(step)
                values.append(value)
    if not found:
        raise ValueError(f"{path} holds no values yet; draw it after the first steps of the run")
    return {name: (np.array(steps), np.array(values)) for name, (steps, values) in found.items()}


def _panels(log: Mapping[str, _Series]) -> dict[str, dict[str, _Series]]:
    """What to draw in each panel: lines by label; the loss first, validation next, then the rest."""
    panels: dict[str, dict[str, _Series]] = {}
    for name in sorted(log, key=lambda name: (name != "loss", not name.startswith("validation/"))):
        *groups, metric = name.split("/")
        if metric.endswith("_mean") and name.removesuffix("_mean") in log:
            continue
        if groups[:1] == ["validation"]:
            panels.setdefault(metric, {})[_hyphens("/".join(groups[1:]) or "validation")] = log[name]
        else:
            panels.setdefault(name, {})["training"] = log[name]
    return panels


def _matplotlib(module: str) -> Any:
    return require(f"matplotlib.{module}", extra="train", purpose="drawing curves")


def _figure(path: str | os.PathLike[str], size: tuple[float, float]) -> Any:
    if Path(path).suffix.lower() not in _SUFFIXES:
        raise ValueError(f"path must end in {', '.join(_SUFFIXES)}, got {Path(path).name!r}")
    figure = _matplotlib("figure").Figure(figsize=size, dpi=150, facecolor=_hex(PAPER), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
    return figure


def _axes(figure: Any, place: Any) -> Any:
    axes = figure.add_subplot(place, facecolor=_hex(PAPER))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_hex(FAINT))
    axes.tick_params(colors=_hex(MUTED), labelsize=9, length=3, which="both")
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=_hex(MUTED), fontsize=9)
    axes.grid(axis="y", color=_hex(FAINT), linewidth=0.5)
    axes.set_axisbelow(True)
    return axes


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _hyphens(label: str) -> str:
    return label.replace("_", "-")


def _look(label: str, lines: Iterable[str]) -> dict[str, Any]:
    """Colour and dashes of a line: the models in turn through the palette, the baselines grey."""
    if _hyphens(label) in _BASELINE_DASHES:
        return {"color": _hex(MUTED), "linestyle": _BASELINE_DASHES[_hyphens(label)], "linewidth": 1.5}
    models = [other for other in lines if _hyphens(other) not in _BASELINE_DASHES]
    return {"color": _COLOURS[models.index(label) % len(_COLOURS)], "linestyle": "-", "linewidth": 2.0}


def _plot(axes: Any, label: str, steps: np.ndarray, values: np.ndarray, look: dict[str, Any]) -> None:
    """A line; where its points are few, each has a dot, a baseline's apart."""
    dots = "o" if len(values) == 1 or (len(values) <= 40 and look["linestyle"] == "-") else None
    axes.plot(steps, values, label=label, marker=dots, markersize=4, **look)


def _draw_series(axes: Any, label: str, steps: np.ndarray, values: np.ndarray, look: dict[str, Any]) -> None:
    """A line; a long and restless one faintly, under its running mean over a fiftieth of its length."""
    window = len(values) // 50
    if window < 2 or np.abs(np.diff(values)).sum() < 5 * np.ptp(values):
        _plot(axes, label, steps, values, look)
        return
    axes.plot(steps, values, color=look["color"], alpha=0.25, linewidth=0.7)
    sums = np.cumsum(np.insert(values, 0, 0.0))
    means = (sums[window:] - sums[:-window]) / window
    axes.plot(steps[window // 2 : window // 2 + len(means)], means, label=label, **look)


def _fit_scale(axes: Any, series: list[np.ndarray]) -> None:
    """A logarithmic axis where a linear one would hide the small values."""
    values = np.concatenate(series)
    if values.min() > 0 and values.max() > _DECADES * values.min():
        axes.set_yscale("log")


def _name(axes: Any, metric: str) -> None:
    """Say above the axes what is drawn and which way is better, and beside them the unit."""
    title, unit = _NAMES.get(metric, (metric.replace("_", " "), ""))
    words = ", higher is better" if metric in _RISING else ", lower is better" if metric in _FALLING else ""
    axes.set_title(title + words, loc="left", fontsize=11, color=_hex(INK), pad=8)
    axes.set_ylabel(unit)


def _label_ends(figure: Any, drawn: Sequence[Any]) -> None:
    """Write each line's name beside its end, in its colour; names that would overlap are pushed apart."""
    # The sizes of the axes are settled by a drawing that leaves no pixels.
    figure.draw_without_rendering()
    for axes in drawn:
        lines = [line for line in axes.get_lines() if line.get_label() and not line.get_label().startswith("_")]
        if not lines:
            continue
        ends = [line.get_xydata()[np.isfinite(line.get_ydata())][-1] for line in lines]
        heights = axes.transAxes.inverted().transform(axes.transData.transform(ends))[:, 1]
        apart = 12 * figure.dpi / 72 / axes.get_window_extent().height
        for line, height in zip(lines, _spread(heights.tolist(), apart), strict=True):
            axes.annotate(
                line.get_label(),
                (1, height),
                xycoords="axes fraction",
                xytext=(6, 0),
                textcoords="offset points",
                color=line.get_color(),
                fontsize=10,
                verticalalignment="center",
            )


def _spread(wanted: list[float], apart: float) -> list[float]:
    """Places at least `apart` from each other, as near as they can be to those wanted, in the same order."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    # Each group is a run of places that touch, kept by its members and the middle of what they want.
    groups: list[tuple[list[int], float]] = []
    for index in order:
        members, middle = [index], wanted[index]
        while groups and middle - groups[-1][1] < apart * (len(members) + len(groups[-1][0])) / 2:
            before, _ = groups.pop()
            members = before + members
            middle = sum(wanted[member] for member in members) / len(members)
        groups.append((members, middle))
    places = dict.fromkeys(order, 0.0)
    for members, middle in groups:
        for rank, member in enumerate(members):
            places[member] = middle + apart * (rank - (len(members) - 1) / 2)
    return [places[index] for index in range(len(wanted))]


def _save(figure: Any, path: Path) -> None:
    with written_aside(path) as temporary:
        figure.savefig(temporary, dpi=150, facecolor=_hex(PAPER))

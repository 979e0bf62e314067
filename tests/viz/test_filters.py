# SPDX-License-Identifier: Apache-2.0
"""Plots of frequency responses, read back from the SVG that matplotlib writes, and from the pixels of a PNG."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pcvideo.viz import plot_response

pytest.importorskip("matplotlib", reason="matplotlib comes with pcvideo[train]")

ALONG_X, ALONG_Y, DIAGONAL = "#0072b2", "#d55e00", "#009e73"


def curve(path: Path, colour: str) -> np.ndarray:
    """The points (x, -y) of the first line of a colour."""
    for points, style in re.findall(r'<path d="([^"]*)" clip-path[^>]*style="([^"]*)"', path.read_text()):
        if f"stroke: {colour}" in style:
            return np.array([(float(x), -float(y)) for x, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", points)])
    raise AssertionError(f"no line of colour {colour}")


def falling(size: int = 16) -> np.ndarray:
    """-10 dB at the horizontal Nyquist frequency, -20 dB at the vertical one, straight lines in dB in between."""
    frequency = 2 * np.abs(np.fft.fftfreq(size))
    return 10 ** (-(20 * frequency[:, None] + 10 * frequency) / 20)


def test_the_curves_run_through_the_gains_along_x_along_y_and_the_diagonal(tmp_path):
    path = tmp_path / "response.svg"
    plot_response({"some filter": falling()}, path)
    slopes = []
    for colour in (ALONG_X, ALONG_Y, DIAGONAL):
        points = curve(path, colour)
        fitted = np.polyfit(points[:, 0], points[:, 1], 1)
        np.testing.assert_allclose(np.polyval(fitted, points[:, 0]), points[:, 1], atol=1e-3)
        slopes.append(fitted[0])
    np.testing.assert_allclose(np.array(slopes) / slopes[0], [1, 2, 3], rtol=1e-3)
    assert slopes[0] < 0
    texts = set(re.findall(r"<!-- (.*?) -->", path.read_text()))
    assert {"some filter", "along x", "along y", "diagonal", "gain in dB"} <= texts


def test_tensors_and_arrays_complex_and_real_are_drawn_alike(tmp_path):
    real = falling()
    turned = torch.from_numpy(real * np.exp(1j))
    plot_response({"filter": real}, tmp_path / "real.png")
    plot_response({"filter": turned}, tmp_path / "complex.png", factor={"filter": 2})
    with Image.open(tmp_path / "real.png") as one, Image.open(tmp_path / "complex.png") as other:
        np.testing.assert_allclose(np.asarray(one).astype(int), np.asarray(other).astype(int), atol=1)


def test_frequency_zero_stands_in_the_middle_of_the_map(tmp_path):
    # One bright pixel at frequency 0 of a dark map.
    response = np.full((8, 8), 1e-9)
    response[0, 0] = 10 ** (5 / 20)
    plot_response({"filter": response}, tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    dark = np.argwhere(np.abs(pixels - (0, 34, 78)).sum(axis=2) < 12)
    # Its uppermost row; the colour bar beside it is shorter.
    (top, bottom), across = (dark[:, 0].min(), dark[:, 0].max()), dark[dark[:, 0] == dark[:, 0].min(), 1]
    west, east = across.min(), across.max()
    inside = pixels[top : bottom + 1, west : east + 1]
    bright = np.argwhere(np.abs(inside - (254, 232, 56)).sum(axis=2) < 40)
    # The fifth of eight pixels from the left, and the fifth from below.
    middle = bright.mean(axis=0) / inside.shape[:2]
    np.testing.assert_allclose(middle, [3.5 / 8, 4.5 / 8], atol=0.02)


@pytest.mark.parametrize(
    ("responses", "arguments", "error", "words"),
    [
        (falling(), {}, TypeError, "map names"),
        ({}, {}, ValueError, "at least one"),
        ({"one": falling()[0]}, {}, ValueError, r"\(size, size\)"),
        ({"one": falling()[:7, :7]}, {}, ValueError, "even size"),
        ({"one": np.full((8, 8), np.nan)}, {}, ValueError, "NaN"),
        ({"one": falling()}, {"factor": {"two": 2}}, ValueError, "none for 'one'"),
        ({"one": falling()}, {"factor": 0}, ValueError, "factor"),
        ({"one": falling()}, {"path": "response.txt"}, ValueError, ".png"),
    ],
)
def test_bad_arguments_are_refused_with_the_mend(tmp_path, responses, arguments, error, words):
    arguments = {"path": "response.png", **arguments}
    path = tmp_path / arguments.pop("path")
    with pytest.raises(error, match=words):
        plot_response(responses, path, **arguments)
    assert not path.exists()

# SPDX-License-Identifier: Apache-2.0
"""Digits drawn from strokes of our own, for moving digits without MNIST: demonstrations, tests, first training runs.

Their size, place, stroke width and mean brightness follow MNIST's; their variety does not come near it, so that scores
on them stand for themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from pcvideo._checks import check_int

__all__ = ["procedural_digits"]

# Control points (x, y) of each digit's strokes in a unit box, y downwards; several ways to write some of them.
_Stroke = tuple[tuple[float, float], ...]
_STROKES: tuple[tuple[tuple[_Stroke, ...], ...], ...] = (
    (
        (
            (
                (0.6, 0.01), (0.3, 0.06), (0.07, 0.35), (0.07, 0.7), (0.3, 0.97),
                (0.65, 0.97), (0.93, 0.68), (0.93, 0.32), (0.72, 0.05), (0.45, 0.02),
            ),
        ),
        (
            (
                (0.4, 0.03), (0.12, 0.25), (0.05, 0.6), (0.25, 0.95), (0.6, 0.98),
                (0.9, 0.7), (0.92, 0.3), (0.7, 0.04), (0.42, 0.0), (0.3, 0.12),
            ),
        ),
    ),
    (
        (((0.5, 0.0), (0.49, 0.5), (0.5, 1.0)),),
        (((0.5, 0.0), (0.51, 0.5), (0.5, 1.0)),),
        (((0.36, 0.2), (0.52, 0.0)), ((0.52, 0.0), (0.51, 0.5), (0.5, 1.0))),
    ),
    (
        (
            ((0.08, 0.25), (0.3, 0.02), (0.7, 0.05), (0.82, 0.3), (0.55, 0.65), (0.08, 0.97)),
            ((0.08, 0.97), (0.5, 0.94), (0.95, 0.96)),
        ),
        (
            (
                (0.1, 0.2), (0.4, 0.0), (0.8, 0.15), (0.7, 0.5), (0.35, 0.88),
                (0.1, 0.97), (0.08, 0.8), (0.35, 0.78), (0.65, 0.95), (0.98, 0.9),
            ),
        ),
    ),
    (
        (
            ((0.1, 0.12), (0.45, 0.0), (0.8, 0.15), (0.7, 0.38), (0.35, 0.47)),
            ((0.35, 0.47), (0.78, 0.53), (0.88, 0.78), (0.55, 0.99), (0.05, 0.9)),
        ),
        (
            ((0.1, 0.05), (0.5, 0.03), (0.85, 0.05)),
            ((0.85, 0.05), (0.4, 0.42)),
            ((0.4, 0.42), (0.8, 0.52), (0.85, 0.8), (0.5, 1.0), (0.08, 0.92)),
        ),
    ),
    (
        (((0.12, 0.02), (0.06, 0.4), (0.25, 0.54), (0.85, 0.48)), ((0.85, 0.02), (0.8, 0.5), (0.72, 1.0))),
        (((0.65, 0.0), (0.3, 0.35), (0.03, 0.62)), ((0.03, 0.62), (0.95, 0.6)), ((0.68, 0.1), (0.66, 0.5), (0.6, 1.0))),
    ),
    (
        (
            ((0.9, 0.02), (0.3, 0.05)),
            ((0.3, 0.05), (0.2, 0.42)),
            ((0.2, 0.42), (0.6, 0.4), (0.85, 0.65), (0.6, 0.96), (0.05, 0.92)),
        ),
        (
            ((0.35, 0.02), (0.2, 0.42)),
            ((0.2, 0.42), (0.55, 0.38), (0.8, 0.62), (0.65, 0.93), (0.3, 1.0), (0.05, 0.85)),
            ((0.35, 0.04), (0.92, 0.0)),
        ),
    ),
    (
        (((0.7, 0.0), (0.3, 0.3), (0.1, 0.7), (0.38, 1.0), (0.8, 0.85), (0.72, 0.58), (0.4, 0.58), (0.13, 0.78)),),
        (((0.5, 0.0), (0.18, 0.35), (0.08, 0.75), (0.4, 1.0), (0.75, 0.85), (0.65, 0.65), (0.35, 0.68), (0.2, 0.9)),),
    ),
    (
        (((0.05, 0.1), (0.5, 0.07), (0.92, 0.03)), ((0.92, 0.03), (0.62, 0.45), (0.42, 1.0))),
        (((0.06, 0.25), (0.1, 0.06)), ((0.1, 0.06), (0.9, 0.05)), ((0.9, 0.05), (0.65, 0.5), (0.5, 1.0))),
        (((0.05, 0.06), (0.9, 0.03)), ((0.9, 0.03), (0.6, 0.5), (0.35, 1.0)), ((0.3, 0.52), (0.88, 0.47))),
    ),
    (
        (
            (
                (0.82, 0.12), (0.5, 0.0), (0.2, 0.18), (0.45, 0.46), (0.75, 0.75),
                (0.5, 1.0), (0.18, 0.82), (0.42, 0.52), (0.78, 0.28), (0.8, 0.1),
            ),
        ),
        (
            ((0.5, 0.0), (0.22, 0.2), (0.48, 0.45), (0.76, 0.2), (0.5, 0.0)),
            ((0.48, 0.45), (0.15, 0.72), (0.5, 1.0), (0.85, 0.72), (0.48, 0.45)),
        ),
    ),
    (
        (
            ((0.82, 0.15), (0.5, 0.0), (0.15, 0.22), (0.3, 0.48), (0.65, 0.4), (0.82, 0.15)),
            ((0.82, 0.15), (0.8, 0.55), (0.65, 1.0)),
        ),
        (
            ((0.85, 0.12), (0.45, 0.02), (0.1, 0.3), (0.35, 0.48), (0.8, 0.25)),
            ((0.85, 0.12), (0.86, 0.6), (0.65, 0.95), (0.25, 0.95)),
        ),
    ),
)  # fmt: skip


def procedural_digits(per_class: int = 200, *, seed: int = 0) -> np.ndarray:
    """Draw digits that resemble handwriting: strokes of our own with random slant, scale, thickness and bends.

    As in MNIST, the ink fits a box of 20x20 pixels and its centre of mass lies in the middle of the image.

    Args:
        per_class: how many of each of the ten digits.
        seed: the images depend on this and on their place in the row alone.

    Returns:
        uint8 array (10 * per_class, 28, 28), grey, 0 is background; digit `k` stands at k, k + 10, k + 20, ...

    Raises:
        TypeError, ValueError: `per_class` below 1, or `seed` below 0.
    """
    check_int("per_class", per_class)
    check_int("seed", seed, minimum=0)
    # Only uniform draws: numpy keeps their stream the same from version to version.
    random = np.random.Generator(np.random.PCG64(seed))
    return np.stack([_draw(_STROKES[number % 10], random) for number in range(10 * per_class)])


def _draw(variants: Sequence[Sequence[_Stroke]], random: np.random.Generator) -> np.ndarray:
    """One image of one digit, uint8 (28, 28)."""
    strokes = variants[int(random.random() * len(variants))]
    half_width = random.uniform(0.8, 1.6)
    place = _handwriting(random)
    lines = [place(_smooth(np.array(stroke))) for stroke in strokes]
    points = np.concatenate(lines)
    extent = points.max(axis=0) - points.min(axis=0)
    # The soft edge adds half a pixel on either side.
    scale = (random.uniform(18.5, 19.9) - 2 * half_width - 1) / extent.max()
    begins = scale * np.concatenate([line[:-1] for line in lines])
    ends = scale * np.concatenate([line[1:] for line in lines])
    lengths = np.linalg.norm(ends - begins, axis=1, keepdims=True)
    centre = (lengths * (begins + ends) / 2).sum(axis=0) / lengths.sum()
    distance = _distance(begins - centre + 13.5, ends - centre + 13.5)
    # Full ink up to half a pixel within the edge, none from half a pixel outside it.
    return np.round(255 * np.clip(half_width + 0.5 - distance, 0, 1)).astype(np.uint8)


def _smooth(control: np.ndarray) -> np.ndarray:
    """A Catmull-Rom curve through the control points (P, 2), four pieces between each two."""
    if len(control) == 2:
        return control
    before = np.concatenate([[2 * control[0] - control[1]], control[:-2]])
    after = np.concatenate([control[2:], [2 * control[-1] - control[-2]]])
    begin, end = control[:-1], control[1:]
    share = (np.arange(4) / 4)[:, None, None]
    curve = 0.5 * (
        2 * begin
        + (end - before) * share
        + (2 * before - 5 * begin + 4 * end - after) * share**2
        + (3 * begin - before - 3 * end + after) * share**3
    )
    return np.concatenate([curve.swapaxes(0, 1).reshape(-1, 2), control[-1:]])


def _handwriting(random: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """One hand's way with a digit: bends, then narrowing, slant and turn; strokes that meet stay together."""
    size = random.uniform(-0.07, 0.07, (2, 2))
    wave = random.uniform(2.0, 5.0, (2, 2))
    phase = random.uniform(0.0, 2 * math.pi, (2, 2))
    narrow = random.uniform(0.6, 1.05)
    # Writers lean to the right rather than to the left.
    slant = random.uniform(-0.15, 0.45)
    turn = random.uniform(-0.15, 0.15)
    turned = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    linear = turned @ np.array([[narrow, -slant], [0.0, 1.0]])

    def place(points: np.ndarray) -> np.ndarray:
        # [:, k, j]: how far the coordinate j bends the coordinate k.
        bends = size * np.sin(wave * points[:, None, :] + phase)
        return (points + bends.sum(axis=2)) @ linear.T

    return place


def _distance(begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """From each pixel of a 28x28 image to the nearest of the line pieces (S, 2), in pixels."""
    pixels = np.arange(28.0)[:, None]
    along = ends - begins
    length = np.maximum((along**2).sum(axis=1), 1e-12)
    x, y = (pixels - begins[:, axis] for axis in range(2))
    # (row, column, piece): the products over both coordinates come apart into a row's part and a column's.
    projection = (y * along[:, 1])[:, None] + (x * along[:, 0])[None]
    share = np.clip(projection / length, 0, 1)
    squares = (y**2)[:, None] + (x**2)[None] - share * (2 * projection - share * length)
    return np.sqrt(np.maximum(squares.min(axis=2), 0))

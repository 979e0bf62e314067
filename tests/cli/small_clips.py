# SPDX-License-Identifier: Apache-2.0
"""Clips that tests write into files."""

from __future__ import annotations

import numpy as np
import torch


def moving_square(seed: int, frames: int, height: int, width: int) -> torch.Tensor:
    """(frames, 3, height, width) in [0, 1]: a bright square on a dark ground, two pixels further each frame."""
    random = np.random.default_rng(seed)
    clip = np.full((frames, 3, height, width), 0.2, np.float32)
    row, colour = random.integers(0, height - 6), random.uniform(0.5, 1, (3, 1, 1))
    for time in range(frames):
        column = 2 * time % (width - 6)
        clip[time, :, row : row + 6, column : column + 6] = colour
    return torch.from_numpy(clip)

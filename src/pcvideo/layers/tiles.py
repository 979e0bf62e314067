# SPDX-License-Identifier: Apache-2.0
"""Square tiles of feature maps: which of them are wanted, taken out with a halo as one batch, and put back."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["active_tiles", "gather_tiles", "scatter_tiles"]


def active_tiles(mask: Tensor, size: int) -> Tensor:
    """The tiles of `size` x `size` in which anything is wanted.

    Args:
        mask: (B, 1, H, W), above zero where something is wanted. Where `size` does not divide H or W, the last tiles
            reach beyond the map.
        size: side of a tile.

    Returns:
        (N, 3) whole numbers: sample, and row and column of the tile, counted in tiles.
    """
    return F.max_pool2d(mask, size, ceil_mode=True)[:, 0].nonzero()


def gather_tiles(maps: Tensor, tiles: Tensor, size: int, halo: int = 0) -> Tensor:
    """Tiles with what surrounds them, zeros beyond the map.

    Args:
        maps: (B, C, H, W).
        tiles: (N, 3), as of `active_tiles`.
        size: side of a tile.
        halo: pixels around it on each side.

    Returns:
        (N, C, size + 2 halo, size + 2 halo), with the channels last in memory.
    """
    height, width = maps.shape[-2:]
    side = size + 2 * halo
    after = (-width % size + halo, -height % size + halo)
    padded = F.pad(maps.contiguous(memory_format=torch.channels_last), (halo, after[0], halo, after[1]))
    windows = padded.permute(0, 2, 3, 1).unfold(1, side, size).unfold(2, side, size)
    samples, rows, columns = tiles.unbind(1)
    return windows.permute(0, 1, 2, 4, 5, 3)[samples, rows, columns].permute(0, 3, 1, 2)


def scatter_tiles(maps: Tensor, values: Tensor, tiles: Tensor, size: int, halo: int = 0) -> None:
    """Write tiles with their halos into maps; where halos overlap, the values must agree.

    Args:
        maps: (B, C, rows * size + 2 halo, columns * size + 2 halo), for as many rows and columns of tiles as there are.
        values: (N, C, size + 2 halo, size + 2 halo).
        tiles: (N, 3), as of `active_tiles`.
        size: side of a tile.
        halo: pixels around it on each side, fewer than `size` / 2.
    """
    pixels = torch.arange(size + 2 * halo, device=maps.device)
    places = maps.permute(0, 2, 3, 1)
    # Tiles two apart don't overlap, so each write sets a place once: the outcome does not depend on threads.
    parities = [tiles[:, 1] % 2 * 2 + tiles[:, 2] % 2 == parity for parity in range(4)] if halo else [slice(None)]
    for chosen in parities:
        samples, rows, columns = tiles[chosen].unbind(1)
        y, x = (size * start[:, None] + pixels for start in (rows, columns))
        places[samples[:, None, None], y[:, :, None], x[:, None, :]] = values[chosen].permute(0, 2, 3, 1)

# SPDX-License-Identifier: Apache-2.0
"""Betti numbers of a set of voxels in four dimensions, by its cubical complex: collapses, then ranks over GF(2).

Independent of how the voxels were made. Voxels are closed cubes, so those that share a corner are connected.
"""

from __future__ import annotations

import itertools

import numpy as np

PARITIES = list(itertools.product((0, 1), repeat=4))


def betti_numbers(voxels: np.ndarray) -> list[int]:
    """b0 to b4 of the union of the closed cubes."""
    cells = _complex(voxels)
    while _collapse(cells):
        pass
    by_dimension = [[] for _ in range(5)]
    for cell in np.argwhere(cells):
        by_dimension[int((cell % 2).sum())].append(tuple(cell.tolist()))
    ranks = [0, *(_rank(by_dimension[dimension]) for dimension in range(1, 5)), 0]
    return [len(by_dimension[k]) - ranks[k] - ranks[k + 1] for k in range(5)]


def _complex(voxels: np.ndarray) -> np.ndarray:
    """All cells on a grid of doubled coordinates: odd along the axes that a cell extends in."""
    cells = np.zeros([2 * side + 1 for side in voxels.shape], bool)
    filled = voxels.astype(bool)
    for offset in itertools.product((0, 1, 2), repeat=4):
        view = tuple(slice(start, start + 2 * side, 2) for start, side in zip(offset, voxels.shape, strict=True))
        cells[view] |= filled
    return cells


def _lattice(cells: np.ndarray, parity: tuple[int, ...]) -> np.ndarray:
    return cells[tuple(slice(start, None, 2) for start in parity)]


def _collapse(cells: np.ndarray) -> bool:
    """Remove pairs of a cell and the only one that it bounds; the homotopy type stays."""
    changed = False
    for parity in PARITIES:
        faces = _lattice(cells, parity)
        bounded = np.zeros(faces.shape, np.uint8)
        sides = []
        for axis in range(4):
            if parity[axis]:
                continue
            above = _lattice(cells, tuple(one + (index == axis) for index, one in enumerate(parity)))
            inner = [slice(None)] * 4
            for start in (1, 0):
                # The cell behind face i is i - 1, the one before it i.
                inner[axis] = slice(start, start + above.shape[axis])
                bounded[tuple(inner)] += above
                sides.append((tuple(inner), above))
        free = faces & (bounded == 1)
        if not free.any():
            continue
        for inner, above in sides:
            pair = free[inner] & above
            if pair.any():
                faces[inner] &= ~pair
                np.logical_and(above, ~pair, out=above)
                free[inner] &= ~pair
                changed = True
    return changed


def _rank(cells: list[tuple[int, ...]]) -> int:
    """The rank of the boundary of these cells, over GF(2)."""
    pivots: dict[tuple[int, ...], set] = {}
    for cell in cells:
        boundary: set = set()
        for axis in range(4):
            if cell[axis] % 2:
                for step in (-1, 1):
                    boundary ^= {(*cell[:axis], cell[axis] + step, *cell[axis + 1 :])}
        while boundary:
            last = max(boundary)
            if last not in pivots:
                pivots[last] = boundary
                break
            boundary = boundary ^ pivots[last]
    return len(pivots)

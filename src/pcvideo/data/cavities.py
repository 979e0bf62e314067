# SPDX-License-Identifier: Apache-2.0
"""Cavities in a cube of four dimensions, from equations: scenes whose topology is known, seen slice by slice over time.

A cavity is a static solid of space and time, and a scene holds several: balls, and thickened circles, spheres and tori,
turned at random. What moves is only the slice at a time: balls appear, grow and vanish, rings open and close, parts
split and merge. After Hannouch and Chalup, arXiv 2306.14442; their equations were not readable, these are our own,
and the mixture of sizes is too. Lengths are in halves of the cube's side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pcvideo._checks import check_bool, check_int, check_number, describe
from pcvideo.video_io import Scenes

__all__ = ["CAVITIES", "Cavity", "CavityScene", "generate_scenes", "make_scene"]

_MARGIN, _GAP = 0.03, 0.04
_TRIES = 30
# In voxels, for cavities that a grid can hold: half the thickness, half of what is open within, and what lies between.
_THICK, _OPEN, _APART = 1.2, 1.3, 2.6


class _Kind(NamedTuple):
    name: str
    betti: tuple[int, int, int]
    distance: Callable[[Sequence[np.ndarray], Sequence[float]], np.ndarray]


def _ball(p: Sequence[np.ndarray], radii: Sequence[float]) -> np.ndarray:
    return np.sqrt(p[0] ** 2 + p[1] ** 2 + p[2] ** 2 + p[3] ** 2) - radii[0]


def _ring(p: Sequence[np.ndarray], radii: Sequence[float]) -> np.ndarray:
    tube, core = radii
    return np.sqrt((np.hypot(p[0], p[1]) - core) ** 2 + p[2] ** 2 + p[3] ** 2) - tube


def _shell(p: Sequence[np.ndarray], radii: Sequence[float]) -> np.ndarray:
    tube, core = radii
    return np.hypot(np.sqrt(p[0] ** 2 + p[1] ** 2 + p[2] ** 2) - core, p[3]) - tube


def _torus(p: Sequence[np.ndarray], radii: Sequence[float]) -> np.ndarray:
    tube, inner, outer = radii
    return np.hypot(np.hypot(np.hypot(p[0], p[1]) - outer, p[2]) - inner, p[3]) - tube


CAVITIES: tuple[_Kind, ...] = (
    _Kind("ball", (0, 0, 1), _ball),
    _Kind("ring", (0, 1, 1), _ring),
    _Kind("shell", (1, 0, 1), _shell),
    _Kind("torus", (1, 2, 1), _torus),
)
"""The kinds, in the order of `objs`: what each adds to the Betti numbers b1, b2 and b3 of the cube without it."""


@dataclass(frozen=True, eq=False)
class Cavity:
    """A solid of four dimensions.

    Attributes:
        kind: 0 to 3, its place in `CAVITIES`.
        centre: (4,), as (time, depth, height, width).
        rotation: (4, 4), whose columns are its own axes.
        radii: of the ball; of the tube and the core; of the tube, the inner and the outer circle.
    """

    kind: int
    centre: np.ndarray
    rotation: np.ndarray
    radii: tuple[float, ...]

    @property
    def reach(self) -> float:
        """The radius of the ball that holds it."""
        return sum(self.radii)

    def distance(self, axes: Sequence[np.ndarray]) -> np.ndarray:
        """Signed distance to its surface, negative within, on the grid of four coordinate axes (time first)."""
        shifted = np.ix_(*(axis - centre for axis, centre in zip(axes, self.centre, strict=True)))
        own = [sum(self.rotation[axis, index] * shifted[axis] for axis in range(4)) for index in range(4)]
        return CAVITIES[self.kind].distance(own, self.radii)


@dataclass(frozen=True, eq=False)
class CavityScene:
    """A scene and what is known of it.

    Attributes:
        volumes: (T, D, H, W) uint8, 1 in a cavity.
        betti: (4,) the Betti numbers b0 to b3 of the cube without its cavities (Alexander duality: they add up).
        objs: (4,) how many cavities of each kind.
        cavities: the solids.
    """

    volumes: np.ndarray
    betti: np.ndarray
    objs: np.ndarray
    cavities: tuple[Cavity, ...]


def make_scene(
    seed: int,
    *,
    frames: int = 128,
    size: Sequence[int] = (16, 16, 16),
    objects: int | None = None,
    kinds: Sequence[int] = (0, 1, 2, 3),
    reach: tuple[float, float] = (0.3, 0.7),
    subsamples: int = 2,
    resolved: bool = False,
) -> CavityScene:
    """A random scene, a function of its arguments alone.

    Args:
        seed: which scene.
        frames: slices T through time.
        size: (depth, height, width); the longest side is the cube's, and voxels are cubes.
        objects: how many cavities are tried; None draws 1 to 8. One that finds no room is left out.
        kinds: which kinds, each as likely; numbers of `CAVITIES`.
        reach: the smallest and the largest radius of the ball that holds a cavity; (0.45, 0.95) is nearer to the
            occupancy of the published scenes.
        subsamples: a voxel is set where at least half of so many points a side lie in a cavity.
        resolved: only cavities so thick, so open and so far from one another that the voxels have the Betti numbers
            too. Without it the Betti numbers are those of the solids, which a coarse grid may not hold.

    Raises:
        TypeError, ValueError: an argument out of its range.
    """
    size = _check_size(size)
    check_int("frames", frames)
    check_int("subsamples", subsamples)
    check_bool("resolved", resolved)
    least, most = (check_number("reach", bound, minimum=1e-3, maximum=1) for bound in reach)
    if least > most:
        raise ValueError(f"reach must be (smallest, largest), got {tuple(reach)}")
    for kind in kinds:
        if check_int("kinds", kind, minimum=0) >= len(CAVITIES):
            raise ValueError(f"kinds must be numbers of 0 to {len(CAVITIES) - 1}, got {kind}")
    rng = np.random.default_rng(check_int("seed", seed, minimum=0))
    count = int(rng.integers(1, 9)) if objects is None else check_int("objects", objects, minimum=0)
    extents = np.array([1.0, *(side / max(size) for side in size)])
    # A slice is at its time's centre; in space, points within each voxel.
    axes = [_centres(frames, 1.0), *(_centres(side * subsamples, side / max(size)) for side in size)]
    voxel = 2 / min(frames, max(size)) if resolved else 0.0
    occupied = np.zeros([len(axis) for axis in axes], bool)
    cavities: list[Cavity] = []
    for _ in range(count):
        for _ in range(_TRIES):
            cavity = _draw(rng, kinds, (least, most), extents)
            if cavity is not None and _is_resolved(cavity, voxel) and _place(cavity, occupied, axes, voxel):
                cavities.append(cavity)
                break
    objs = np.bincount([cavity.kind for cavity in cavities], minlength=len(CAVITIES)).astype(np.uint8)
    holes = objs @ np.array([kind.betti for kind in CAVITIES])
    betti = np.array([1, *holes], np.uint8)
    return CavityScene(_reduced(occupied, size, subsamples), betti, objs, tuple(cavities))


def generate_scenes(
    count: int,
    *,
    seed: int = 0,
    frames: int = 128,
    size: Sequence[int] = (16, 16, 16),
    reach: tuple[float, float] = (0.45, 0.95),
) -> Scenes:
    """Packed random scenes with their labels, for `VoxelScenes`; scene i is a function of the seed and of i alone.

    Args:
        count: how many.
        seed: another seed gives other scenes.
        frames, size, reach: as in `make_scene`.

    Raises:
        TypeError, ValueError: an argument out of its range.
    """
    check_int("count", count)
    check_int("seed", seed, minimum=0)
    numbers = [int(np.random.SeedSequence([seed, index]).generate_state(1)[0]) for index in range(count)]
    scenes = [make_scene(number, frames=frames, size=size, reach=reach) for number in numbers]
    packed = np.stack([np.packbits(scene.volumes) for scene in scenes])
    labels = {name: np.stack([getattr(scene, name) for scene in scenes]) for name in ("betti", "objs")}
    return Scenes(packed, (frames, *_check_size(size)), labels)


def _check_size(size: Sequence[int]) -> tuple[int, int, int]:
    if isinstance(size, str) or not isinstance(size, Sequence) or len(size) != 3:
        raise TypeError(f"size must be (depth, height, width), got {describe(size)}")
    depth, height, width = (check_int(f"size[{index}]", side) for index, side in enumerate(size))
    return depth, height, width


def _centres(count: int, extent: float) -> np.ndarray:
    return (extent * ((2 * np.arange(count) + 1) / count - 1)).astype(np.float32)


def _draw(
    rng: np.random.Generator, kinds: Sequence[int], reach: tuple[float, float], extents: np.ndarray
) -> Cavity | None:
    """A cavity within the cube, or None where the one that was drawn is too large for it."""
    kind, held = int(rng.choice(np.asarray(kinds))), rng.uniform(*reach)
    if kind == 0:
        radii: tuple[float, ...] = (held,)
    elif kind == 3:
        tube, inner = held * rng.uniform(0.14, 0.20), held * rng.uniform(0.26, 0.32)
        radii = (tube, inner, held - inner - tube)
    else:
        tube = held * rng.uniform(0.25, 0.40)
        radii = (tube, held - tube)
    # QR of a Gaussian matrix, signs fixed, is an evenly distributed rotation.
    rotation, upper = np.linalg.qr(rng.normal(size=(4, 4)))
    rotation = rotation * np.sign(np.diag(upper))
    rotation[:, 0] *= np.sign(np.linalg.det(rotation))
    room = extents - held - _MARGIN
    if (room < 0).any():
        return None
    return Cavity(kind, rng.uniform(-room, room).astype(np.float32), rotation.astype(np.float32), radii)


def _is_resolved(cavity: Cavity, voxel: float) -> bool:
    if not voxel:
        return True
    tube, *rest = cavity.radii
    openings = [rest[0] - tube] if len(rest) == 1 else [rest[0] - tube, rest[1] - rest[0] - tube] if rest else []
    return tube >= _THICK * voxel and all(half >= _OPEN * voxel for half in openings)


def _place(cavity: Cavity, occupied: np.ndarray, axes: Sequence[np.ndarray], voxel: float) -> bool:
    """Fill the cavity into `occupied`, unless another one is too near."""
    gap = max(_GAP, _APART * voxel)
    near = tuple(
        slice(*np.searchsorted(axis, [centre - cavity.reach - gap, centre + cavity.reach + gap]))
        for axis, centre in zip(axes, cavity.centre, strict=True)
    )
    distance = cavity.distance([axis[part] for axis, part in zip(axes, near, strict=True)])
    if (occupied[near] & (distance <= gap)).any():
        return False
    occupied[near] |= distance <= 0
    return True


def _reduced(occupied: np.ndarray, size: Sequence[int], subsamples: int) -> np.ndarray:
    if subsamples == 1:
        return occupied.astype(np.uint8)
    split = [part for side in size for part in (side, subsamples)]
    blocks = occupied.reshape(len(occupied), *split)
    return (blocks.mean((2, 4, 6)) >= 0.5).astype(np.uint8)

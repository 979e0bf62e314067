# SPDX-License-Identifier: Apache-2.0
"""Surfaces of volumes, by marching cubes, and files of them: STL and OBJ."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from pcvideo._checks import check_number, describe
from pcvideo._files import written_aside
from pcvideo._optional import require

__all__ = ["Surface", "surface", "write_mesh"]

_SUFFIXES = (".stl", ".obj")
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


class Surface(NamedTuple):
    """Triangles: vertices (V, 3) as (depth, height, width) in voxels, float32; faces (F, 3), numbers of vertices."""

    vertices: np.ndarray
    faces: np.ndarray


def surface(volume: Tensor | np.ndarray, *, threshold: float = 0.5) -> Surface:
    """The surface of what is set in a volume, closed also where that touches the volume's border.

    Voxel i has its centre at i + 0.5. By scikit-image's marching cubes (Lewiner et al. 2003).

    Args:
        volume: (D, H, W) or (1, D, H, W), of probabilities or binary.
        threshold: where the surface lies between a voxel that is set and one that is not.

    Returns:
        the surface; of an empty volume one without vertices.

    Raises:
        TypeError, ValueError: it has other axes, or holds NaN.
    """
    check_number("threshold", threshold)
    values = _as_volume(volume)
    if not (values > threshold).any():
        return Surface(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int64))
    measure = require("skimage.measure", purpose="drawing surfaces")
    # A border that is surely not set closes the surface, wherever the threshold is.
    outside = min(float(values.min()), 2 * threshold - float(values.max()), threshold - 0.5)
    vertices, faces, _, _ = measure.marching_cubes(np.pad(values, 1, constant_values=outside), level=threshold)
    return Surface((vertices - 0.5).astype(np.float32), faces.astype(np.int64))


def write_mesh(path: str | os.PathLike[str], volume: Tensor | np.ndarray | Surface, *, threshold: float = 0.5) -> None:
    """Write a volume's surface as a binary STL or as an OBJ file, by the path's suffix.

    The first coordinate is the width, the last the depth. An empty volume gives a file without triangles.

    Args:
        path: ends in .stl or .obj.
        volume: as for `surface`, or a surface.
        threshold: as for `surface`.

    Raises:
        TypeError, ValueError: another suffix, or as `surface`.
        OSError: the file can't be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"path must end in {' or '.join(_SUFFIXES)}, got {path.name!r}")
    mesh = volume if isinstance(volume, Surface) else surface(volume, threshold=threshold)
    # In the order (depth, height, width) the corners go round clockwise; the exchange of axes makes them
    # counter-clockwise seen from outside, as both formats have it.
    mesh = Surface(mesh.vertices[:, ::-1], mesh.faces)
    content = _stl(mesh) if path.suffix.lower() == ".stl" else _obj(mesh).encode()
    with written_aside(path) as temporary:
        temporary.write_bytes(content)


def _stl(mesh: Surface) -> bytes:
    triangles = np.zeros(len(mesh.faces), _TRIANGLE)
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    triangles["normal"] = np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)
    triangles["corners"] = corners
    header = b"pcvideo surface".ljust(80, b"\0")
    return header + np.uint32(len(triangles)).tobytes() + triangles.tobytes()


def _obj(mesh: Surface) -> str:
    lines = ["# pcvideo surface"]
    lines += [f"v {x:.6g} {y:.6g} {z:.6g}" for x, y, z in mesh.vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in mesh.faces + 1]
    return "\n".join(lines) + "\n"


def _as_volume(volume: Tensor | np.ndarray) -> np.ndarray:
    values = volume.detach().cpu().numpy() if isinstance(volume, Tensor) else volume
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise TypeError(f"volume must be an array or a tensor of numbers (D, H, W), got {describe(volume)}")
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 3 or not values.size:
        raise ValueError(f"volume must be (D, H, W) or (1, D, H, W), got {describe(volume)}")
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("volume holds NaN or infinity, which has no surface; look at what gave it")
    return values

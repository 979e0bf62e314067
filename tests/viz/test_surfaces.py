# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pcvideo.viz import save_surface_gif, save_surface_strip, slice_frames, strip, surface, write_mesh


def ball(side: int = 16, radius: float = 5.0) -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.arange(side) + 0.5] * 3, indexing="ij"))
    return (np.sqrt(((grid - side / 2) ** 2).sum(0)) <= radius).astype(np.float32)


def volume_within(vertices: np.ndarray, faces: np.ndarray) -> float:
    """By the divergence theorem; positive if the corners go round counter-clockwise seen from outside."""
    a, b, c = (vertices[faces[:, corner]].astype(float) for corner in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def edges_are_shared_by_two(faces: np.ndarray) -> bool:
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    return bool((counts == 2).all())


def read_stl(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = path.read_bytes()
    (count,) = struct.unpack("<I", content[80:84])
    assert len(content) == 84 + 50 * count
    rows = np.array([struct.unpack("<12f", content[84 + 50 * i : 84 + 50 * i + 48]) for i in range(count)])
    return rows.reshape(-1, 4, 3)[:, 0], rows.reshape(-1, 4, 3)[:, 1:]


def test_a_balls_surface_is_closed_and_holds_its_volume_in_its_place() -> None:
    mesh = surface(ball())
    assert edges_are_shared_by_two(mesh.faces)
    assert abs(volume_within(*mesh)) == pytest.approx(ball().sum(), rel=0.03)
    np.testing.assert_allclose(mesh.vertices.mean(0), [8, 8, 8], atol=0.05)


def test_what_touches_the_border_has_a_closed_surface_too() -> None:
    for values in (np.ones((3, 4, 5)), np.full((2, 2, 2), 0.6)):
        mesh = surface(values)
        assert edges_are_shared_by_two(mesh.faces)
        assert mesh.vertices.min() >= -0.5


def test_an_empty_volume_has_no_surface_and_writes_files_without_triangles(tmp_path: Path) -> None:
    mesh = surface(torch.zeros(1, 4, 4, 4))
    assert (mesh.vertices.shape, mesh.faces.shape) == ((0, 3), (0, 3))
    write_mesh(tmp_path / "a.stl", torch.zeros(4, 4, 4))
    write_mesh(tmp_path / "a.obj", torch.zeros(4, 4, 4))
    assert read_stl(tmp_path / "a.stl")[1].shape == (0, 3, 3)
    assert (tmp_path / "a.obj").read_text().splitlines() == ["# pcvideo surface"]


def test_stl_and_obj_hold_the_same_surface_with_normals_that_point_out(tmp_path: Path) -> None:
    # Longer along the width than along the depth, so that axes can't be mixed up unseen.
    values = np.zeros((6, 8, 12))
    values[2:4, 2:6, 2:10] = 1
    write_mesh(tmp_path / "a.stl", values)
    write_mesh(tmp_path / "a.obj", values)
    normals, corners = read_stl(tmp_path / "a.stl")
    lines = [line.split() for line in (tmp_path / "a.obj").read_text().splitlines()[1:]]
    vertices = np.array([line[1:] for line in lines if line[0] == "v"], float)
    faces = np.array([line[1:] for line in lines if line[0] == "f"], int) - 1
    np.testing.assert_allclose(vertices[faces], corners, atol=1e-4)
    extent = corners.reshape(-1, 3).max(0) - corners.reshape(-1, 3).min(0)
    np.testing.assert_allclose(extent, [8, 4, 2], atol=0.01)
    assert volume_within(vertices, faces) > 0
    centre = np.array([6, 4, 3])
    assert (((corners.mean(1) - centre) * normals).sum(1) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)


def test_other_suffixes_and_volumes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.stl or \.obj"):
        write_mesh(tmp_path / "a.ply", ball())
    with pytest.raises(ValueError, match=r"\(D, H, W\)"):
        surface(np.zeros((2, 4, 4, 4)))
    with pytest.raises(ValueError, match="NaN"):
        surface(np.full((2, 2, 2), np.nan))
    with pytest.raises(TypeError, match="numbers"):
        surface("volume")


@pytest.mark.parametrize("columns", [None, 1, 2, 5])
def test_slices_stand_row_by_row_with_a_line_between(columns: int | None) -> None:
    volumes = torch.rand(2, 1, 5, 3, 4)
    picture = slice_frames(volumes, columns=columns)
    wide = (picture.shape[-1] + 1) // 5
    for index in range(5):
        row, column = divmod(index, wide)
        cut = picture[:, 0, 4 * row : 4 * row + 3, 5 * column : 5 * column + 4]
        assert torch.equal(cut, volumes[:, 0, index])
    assert strip(picture, picture).size[0] > 0


def test_surfaces_are_drawn_as_a_strip_and_in_motion_empty_ones_too(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    clip = torch.stack([torch.from_numpy(ball(8, 3)), torch.zeros(8, 8, 8)])[:, None]
    rows = {"truth": clip, "prediction": clip.flip(0)}
    save_surface_strip(tmp_path / "s.png", rows)
    save_surface_gif(tmp_path / "s.gif", rows)
    with Image.open(tmp_path / "s.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    # A ball's colour stands at the left above and at the right below, where the others are empty.
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    blue = (pixels[..., 2] - pixels[..., 0] > 30).astype(int)
    red = (pixels[..., 0] - pixels[..., 2] > 30).astype(int)
    assert blue[:height, :width].sum() > 50
    assert blue[:height, width:].sum() == 0
    assert red[height:, width:].sum() > 50
    assert red[height:, :width].sum() == 0
    with Image.open(tmp_path / "s.gif") as animation:
        assert animation.n_frames == 2
    with pytest.raises(ValueError, match="of one shape"):
        save_surface_strip(tmp_path / "s.png", {"a": clip, "b": clip[:1]})
    with pytest.raises(ValueError, match=r"\.png"):
        save_surface_strip(tmp_path / "s.jpg", rows)

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from betti import betti_numbers
from scipy import ndimage

from pcvideo.data import CAVITIES, VoxelScenes, generate_scenes, make_scene


def of_the_cube_without(voxels: np.ndarray) -> list[int]:
    """b0 to b3 of the cube without these voxels, by Alexander duality, from the Betti numbers of the voxels."""
    places = np.argwhere(voxels)
    if not len(places):
        return [1, 0, 0, 0]
    filled = tuple(slice(low, high + 1) for low, high in zip(places.min(0), places.max(0), strict=True))
    components, loops, voids, hollows, none = betti_numbers(voxels[filled])
    assert none == 0
    return [1 + hollows, voids, loops, components]


def test_the_count_of_betti_numbers_knows_figures_from_the_textbook() -> None:
    point = np.ones((1, 1, 1, 1))
    assert betti_numbers(point) == [1, 0, 0, 0, 0]
    assert betti_numbers(np.ones((3, 2, 3, 4))) == [1, 0, 0, 0, 0]
    frame = np.ones((1, 1, 3, 3))
    frame[..., 1, 1] = 0
    assert betti_numbers(frame) == [1, 1, 0, 0, 0]
    box = np.ones((1, 3, 3, 3))
    box[0, 1, 1, 1] = 0
    assert betti_numbers(box) == [1, 0, 1, 0, 0]
    hollow = np.ones((3, 3, 3, 3))
    hollow[1, 1, 1, 1] = 0
    assert betti_numbers(hollow) == [1, 0, 0, 1, 0]
    apart = np.zeros((5, 1, 1, 1))
    apart[[0, 3]] = 1
    assert betti_numbers(apart) == [2, 0, 0, 0, 0]
    torus = np.einsum("ab,cd->acbd", frame[0, 0], frame[0, 0])
    assert betti_numbers(torus) == [1, 2, 1, 0, 0]


@pytest.mark.slow
def test_the_betti_numbers_of_a_scene_are_those_of_its_voxels() -> None:
    kinds = np.zeros(4, int)
    for seed in range(6):
        scene = make_scene(
            seed, frames=16, size=(16, 16, 16), objects=1 + seed % 3, reach=(0.4, 0.9), subsamples=1, resolved=True
        )
        assert of_the_cube_without(scene.volumes) == scene.betti.tolist(), seed
        kinds += scene.objs
    # A torus needs more room than the others, and a scene of its own.
    scene = make_scene(
        0, frames=24, size=(24, 24, 24), objects=1, kinds=(3,), reach=(0.9, 0.95), subsamples=1, resolved=True
    )
    assert of_the_cube_without(scene.volumes) == scene.betti.tolist() == [1, 1, 2, 1]
    assert (kinds[:3] > 0).all()


def test_the_labels_are_those_of_the_solids_added_up() -> None:
    table = {"ball": (0, 0, 1), "ring": (0, 1, 1), "shell": (1, 0, 1), "torus": (1, 2, 1)}
    for seed in range(6):
        scene = make_scene(seed, frames=16, size=(8, 8, 8))
        names = [CAVITIES[cavity.kind].name for cavity in scene.cavities]
        assert scene.betti.tolist() == [1, *np.sum([table[name] for name in names] or [(0, 0, 0)], axis=0)]
        assert scene.objs.tolist() == [names.count(name) for name in table]


def test_a_resolved_scene_has_as_many_components_as_cavities() -> None:
    for seed in range(5):
        scene = make_scene(seed, frames=16, size=(16, 16, 16), subsamples=1, reach=(0.3, 0.6), resolved=True)
        _, components = ndimage.label(scene.volumes, np.ones((3, 3, 3, 3)))
        assert components == scene.objs.sum()


def test_a_ball_is_seen_as_balls_of_the_radius_that_pythagoras_gives() -> None:
    scene = make_scene(3, frames=64, size=(32, 32, 32), objects=1, kinds=(0,), reach=(0.6, 0.6))
    (ball,) = scene.cavities
    times = (2 * np.arange(64) + 1) / 64 - 1
    squares = 0.6**2 - (times - ball.centre[0]) ** 2
    expected = 4 / 3 * np.pi * np.clip(squares, 0, None) ** 1.5 * 16**3
    found = scene.volumes.sum((1, 2, 3))
    assert (found[squares < 0] == 0).all()
    large = expected > 500
    assert large.any()
    np.testing.assert_allclose(found[large], expected[large], rtol=0.05)


def test_a_scene_depends_on_its_arguments_alone_and_keeps_its_objects_apart() -> None:
    one, same, other = (make_scene(seed, frames=32, size=(8, 8, 8)) for seed in (5, 5, 6))
    assert np.array_equal(one.volumes, same.volumes)
    assert not np.array_equal(one.volumes, other.volumes)
    for cavity in one.cavities:
        assert np.allclose(cavity.rotation @ cavity.rotation.T, np.eye(4), atol=1e-5)
        assert np.linalg.det(cavity.rotation) == pytest.approx(1)
        assert (np.abs(cavity.centre) + cavity.reach <= 1).all()


def test_any_size_is_made_also_one_that_is_no_cube() -> None:
    scene = make_scene(1, frames=10, size=(8, 12, 16), reach=(0.2, 0.4))
    assert scene.volumes.shape == (10, 8, 12, 16)
    assert scene.volumes.any()
    assert make_scene(1, frames=3, size=(4, 4, 4), objects=0).volumes.sum() == 0


def test_generated_scenes_do_not_depend_on_how_many_there_are() -> None:
    few, more = (generate_scenes(count, seed=2, frames=20, size=(4, 4, 4)) for count in (1, 3))
    assert np.array_equal(few.packed[0], more.packed[0])
    assert more.labels["betti"].shape == more.labels["objs"].shape == (3, 4)
    assert VoxelScenes(more, format="20/1")[2].shape == (20, 1, 4, 4, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": (16, 16)}, "size must be"),
        ({"reach": (0.5, 0.3)}, "smallest, largest"),
        ({"reach": (0.0, 0.3)}, "reach"),
        ({"kinds": (4,)}, "kinds"),
        ({"frames": 0}, "frames"),
        ({"subsamples": 0}, "subsamples"),
        ({"resolved": 1}, "resolved"),
        ({"objects": -1}, "objects"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(options: dict, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        make_scene(0, **options)

# SPDX-License-Identifier: Apache-2.0
"""Volumes over time, in: from arrays, .npy and .npz files, packed scenes and TFRecord files.

A scene is binary and mostly empty: packed, eight voxels to a byte, one of 128 frames of 16**3 takes 64 kB. A packed file
is an .npz of `packed` (N, bytes), `shape` (T, D, H, W) and, where they are known, the labels `betti` and `objs` (N, 4);
without `shape` it is (128, 16, 16, 16), as the published scenes are.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from pcvideo import _files
from pcvideo._checks import check_choice, check_values, describe
from pcvideo.video_io.convert import VideoError, as_tensor, repair_frames, scale_values
from pcvideo.video_io.read import read_array
from pcvideo.video_io.tfrecords import read_examples

__all__ = ["SCENE_SUFFIXES", "Scenes", "read_scenes", "read_volumes", "write_scenes"]

SCENE_SUFFIXES = frozenset({".tfrecord", ".tfrecords"})
"""Suffixes of the TFRecord files that a folder of scenes is searched for."""

_PUBLISHED = (128, 16, 16, 16)
_LAYOUTS = {4: "TDHW", 5: "TCDHW", 6: "BTCDHW"}
_AXES = "BTCDHW"


class Scenes(NamedTuple):
    """Binary scenes, eight voxels to a byte.

    Attributes:
        packed: (N, bytes) uint8, as `numpy.packbits` gives it.
        shape: (T, D, H, W) of each.
        labels: for each scene, (N, ...) by name: `betti`, the Betti numbers b0 to b3, and `objs`, the cavities of each kind.
    """

    packed: np.ndarray
    shape: tuple[int, ...]
    labels: dict[str, np.ndarray]

    def unpack(self, index: int | slice) -> np.ndarray:
        """Scene `index` as (T, D, H, W) uint8 of 0 and 1; several, (N, T, D, H, W), for a slice."""
        count = int(np.prod(self.shape))
        return np.unpackbits(self.packed[index], axis=-1, count=count).reshape(
            *self.packed[index].shape[:-1], *self.shape
        )


def read_scenes(source: str | os.PathLike[str]) -> Scenes:
    """All scenes of a packed .npz file, of a TFRecord file, or of a folder of these.

    Raises:
        FileNotFoundError: there is nothing at the path, or no scene in the folder.
        VideoError: a file is damaged, truncated or holds something else.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SCENE_SUFFIXES)
        if not files:
            raise FileNotFoundError(f"{path} holds no {' or '.join(sorted(SCENE_SUFFIXES))} file")
        return _joined([_read_records(file) for file in files])
    if not path.is_file():
        raise FileNotFoundError(f"there are no scenes at {path}")
    return _read_packed(path) if path.suffix.lower() == ".npz" else _read_records(path)


def write_scenes(
    path: str | os.PathLike[str], volumes: np.ndarray, labels: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write binary scenes (N, T, D, H, W) of 0 and 1 as a packed .npz file, aside and then moved over.

    Raises:
        TypeError, ValueError: they hold something else, or labels are not one row per scene.
        OSError: the file can't be written.
    """
    volumes = np.asarray(volumes)
    if volumes.ndim != 5 or not volumes.size:
        raise ValueError(f"volumes must be (N, T, D, H, W) and hold something, got {describe(volumes)}")
    if ((volumes != 0) & (volumes != 1)).any():
        raise ValueError("volumes must hold 0 and 1 alone to be packed; threshold them first")
    labels = {name: np.asarray(values) for name, values in (labels or {}).items()}
    for name, values in labels.items():
        if len(values) != len(volumes):
            raise ValueError(f"labels[{name!r}] must have a row for each of {len(volumes)} scenes, got {len(values)}")
    packed = np.packbits(volumes.astype(np.uint8).reshape(len(volumes), -1), axis=1)
    with _files.written_aside(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, packed=packed, shape=np.asarray(volumes.shape[1:]), **labels)


def read_volumes(
    source: Any,
    *,
    channels: int = 1,
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
    nan: str = "error",
) -> Tensor:
    """Volumes over time as (T, C, D, H, W), or with a batch axis in front where the source has one.

    Args:
        source: path of a .npy, .npz, .pt or TFRecord file; or an array or tensor (T, D, H, W), (T, C, D, H, W) or
            (B, T, C, D, H, W). Floats are in [0, 1]; whole numbers are 0 and 1, as occupancies are, unless `value_range`
            says otherwise. Files of scenes have a batch axis if they hold more than one.
        channels: C that is expected.
        layout: the axes where they are others, letters out of "BTCDHW"; B, T and C may be missing.
        value_range: (low, high) that become 0 and 1.
        nan: "error", or "repair" to take a NaN's value from the frame before.

    Returns:
        float32 in [0, 1] (float64 stays float64).

    Raises:
        FileNotFoundError, VideoError: the file is not there, damaged, or holds something else.
        TypeError, ValueError: axes, channels or values other than these; the message names the first such frame.
    """
    check_choice("nan", nan, ("error", "repair"))
    array = _load(source)
    frames = as_tensor(np.stack([np.asarray(item) for item in array]) if isinstance(array, (list, tuple)) else array)
    letters = _LAYOUTS.get(frames.ndim, "") if layout is None else str(layout).upper()
    if len(letters) != frames.ndim or len(set(letters)) != len(letters) or not {*"DHW"} <= set(letters) <= set(_AXES):
        raise ValueError(
            f"volumes must be (T, D, H, W), (T, C, D, H, W) or (B, T, C, D, H, W), or have their axes declared with "
            f'layout= by letters of "{_AXES}", such as "TDHWC"; got {describe(array)} and layout={layout!r}'
        )
    frames = frames.permute([letters.index(axis) for axis in _AXES if axis in letters])
    for axis, place in (("C", -4), ("T", -5)):
        frames = frames if axis in letters else frames.unsqueeze(place)
    if not frames.numel():
        raise ValueError(f"volumes must hold at least one frame and one voxel, got an empty array of {describe(array)}")
    if frames.shape[-4] != channels:
        hint = '; a batch of scenes without channels is layout="BTDHW"' if layout is None and frames.ndim == 5 else ""
        raise ValueError(
            f"volumes: expects C={channels} channels, got {describe(array)} as ({', '.join(letters)}){hint}"
        )
    if value_range is None and not frames.is_floating_point():
        if int(frames.max()) > 1 or int(frames.min()) < 0:
            raise ValueError(
                f"volumes of whole numbers hold 0 and 1, got {int(frames.min())} to {int(frames.max())}; say "
                f"value_range=(low, high), such as (0, 255)"
            )
        frames = frames.bool()
    frames = scale_values(frames, value_range)
    time_axis = frames.ndim - 5
    if nan == "repair":
        frames, _ = repair_frames(frames, time_axis)
    check_values("volumes", frames, time_axis=time_axis)
    return frames.clamp(0, 1)


def _load(source: Any) -> Any:
    """The array that a path stands for; packed scenes are unpacked, and one alone loses its batch axis."""
    if not isinstance(source, (str, os.PathLike)):
        return source
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist (looked for it in {path.absolute().parent})")
    if path.is_dir() or path.suffix.lower() in SCENE_SUFFIXES or _is_packed(path):
        volumes = read_scenes(path).unpack(slice(None))[:, :, None]
        return volumes[0] if len(volumes) == 1 else volumes
    return read_array(path)


def _is_packed(path: Path) -> bool:
    if path.suffix.lower() != ".npz":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return "packed.npy" in archive.namelist()
    except zipfile.BadZipFile as error:
        raise VideoError(f"{path} is no .npz file, or damaged ({error}); copy it anew") from error


def _read_packed(path: Path) -> Scenes:
    if not _is_packed(path):
        raise VideoError(f"{path} holds no packed scenes: expected the arrays 'packed' (N, bytes) and 'shape'")
    try:
        with np.load(path, allow_pickle=False) as file:
            packed = file["packed"]
            shape = tuple(int(side) for side in file["shape"]) if "shape" in file else _PUBLISHED
            labels = {name: file[name] for name in ("betti", "objs") if name in file}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise VideoError(f"{path} can't be read: {error}") from error
    size = -(-int(np.prod(shape)) // 8)
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != size or len(shape) != 4 or not len(packed):
        raise VideoError(
            f"{path}: packed must be (N, {size}) uint8 for scenes of shape {shape}, got {describe(packed)}; say the shape "
            f"(T, D, H, W) in an array 'shape'"
        )
    return Scenes(packed, shape, labels)


def _read_records(path: Path) -> Scenes:
    scenes = [_scene(path, index, example) for index, example in enumerate(read_examples(path))]
    return _joined(scenes)


def _scene(path: Path, index: int, example: Mapping[str, list[bytes]]) -> Scenes:
    where = f"{path}: record {index}"
    if len(example.get("object4d", ())) != 1:
        raise VideoError(f"{where} is of another data set: it has no feature 'object4d', but {sorted(example)}")
    voxels = np.frombuffer(example["object4d"][0], np.uint8)
    frames = _PUBLISHED[0]
    side = round((voxels.size / frames) ** (1 / 3))
    if not voxels.size or frames * side**3 != voxels.size:
        raise VideoError(f"{where}: object4d has {voxels.size} bytes, expected {frames} frames of a cube")
    if voxels.max() > 1:
        raise VideoError(f"{where}: object4d holds {int(voxels.max())}, expected 0 and 1")
    labels = {
        ours: np.frombuffer(example[theirs][0], np.uint8)[None]
        for ours, theirs in (("betti", "labelBetti"), ("objs", "labelObjs"))
        if example.get(theirs)
    }
    return Scenes(np.packbits(voxels)[None], (frames, side, side, side), labels)


def _joined(parts: list[Scenes]) -> Scenes:
    shapes = {part.shape for part in parts}
    if len(shapes) > 1:
        raise VideoError(f"the scenes must have one shape, got {sorted(shapes)}; read them one by one")
    common = set.intersection(*(set(part.labels) for part in parts))
    labels = {name: np.concatenate([part.labels[name] for part in parts]) for name in sorted(common)}
    return Scenes(np.concatenate([part.packed for part in parts]), parts[0].shape, labels)

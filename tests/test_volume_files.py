# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from pcvideo.video_io import VideoError, read_scenes, read_volumes, write_scenes
from pcvideo.video_io.tfrecords import crc32c, read_examples, read_records

SHARED = Path(os.environ.get("PCVIDEO_SHARED_DATA", "/nowhere")) / "voxel4d"


def field(number: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def example(features: dict[str, bytes]) -> bytes:
    """A tf.train.Example, by the protocol-buffer specification."""
    entries = b"".join(
        field(1, field(1, name.encode()) + field(2, field(1, field(1, value)))) for name, value in features.items()
    )
    return field(1, entries)


def slow_crc(data: bytes) -> int:
    """CRC-32C bit by bit, by its definition."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def record(data: bytes) -> bytes:
    def masked(part: bytes) -> bytes:
        crc = slow_crc(part)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def scene(side: int = 2) -> np.ndarray:
    return (np.random.default_rng(0).random((128, side, side, side)) > 0.7).astype(np.uint8)


@pytest.fixture
def scene_file(tmp_path: Path) -> Path:
    features = {"object4d": scene().tobytes(), "labelBetti": bytes([1, 2, 3, 4]), "labelObjs": bytes([4, 0, 0, 0])}
    path = tmp_path / "one.tfrecords"
    path.write_bytes(gzip.compress(record(example(features))))
    return path


def test_the_checksum_is_that_of_rfc_3720() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


@pytest.mark.parametrize("size", [2047, 2048, 2049, 5000])
def test_long_records_have_the_checksum_of_the_definition(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == slow_crc(data)


def test_a_scene_of_a_tfrecord_file_is_read_with_its_labels(scene_file: Path) -> None:
    scenes = read_scenes(scene_file)
    assert scenes.shape == (128, 2, 2, 2)
    assert np.array_equal(scenes.unpack(0), scene())
    assert scenes.labels["betti"].tolist() == [[1, 2, 3, 4]]
    assert scenes.labels["objs"].tolist() == [[4, 0, 0, 0]]
    assert torch.equal(read_volumes(scene_file)[:, 0], torch.from_numpy(scene()).float())


def test_files_without_compression_and_with_several_records_are_read(tmp_path: Path) -> None:
    path = tmp_path / "two.tfrecord"
    path.write_bytes(record(example({"object4d": scene().tobytes()})) * 2)
    assert len(list(read_examples(path))) == 2
    assert read_volumes(path).shape == (2, 128, 1, 2, 2, 2)
    assert read_scenes(tmp_path).packed.shape[0] == 2


def test_a_flipped_bit_is_found_wherever_it_is(scene_file: Path) -> None:
    content = gzip.decompress(scene_file.read_bytes())
    for position in (3, 9, 12, 500, len(content) - 1):
        damaged = bytearray(content)
        damaged[position] ^= 4
        scene_file.write_bytes(gzip.compress(bytes(damaged)))
        with pytest.raises(VideoError, match=r"record 0: the checksum"):
            list(read_records(scene_file))


def test_a_truncated_file_is_told_packed_and_plain(scene_file: Path) -> None:
    packed = scene_file.read_bytes()
    content = gzip.decompress(packed)
    for damaged in (packed[: len(packed) // 2], content[: len(content) // 2], content[:7], packed[:-4]):
        scene_file.write_bytes(damaged)
        with pytest.raises(VideoError, match=r"truncated|ends|damaged"):
            list(read_records(scene_file))


def test_foreign_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecords"
    for content, words in [
        (b"PNG and so on, nothing of a record", "no TFRecord file"),
        (b"", "holds no record"),
        (record(b"\xff\xff\xff"), "no tf.train.Example"),
        (record(example({"image": b"1"})), "another data set: it has no feature 'object4d'"),
        (record(example({"object4d": bytes(100)})), "object4d has 100 bytes"),
        (record(example({"object4d": bytes([7]) * 1024})), "holds 7, expected 0 and 1"),
    ]:
        path.write_bytes(content)
        with pytest.raises(VideoError, match=words):
            read_scenes(path)
    with pytest.raises(FileNotFoundError):
        read_scenes(tmp_path / "none.tfrecords")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="tfrecord"):
        read_scenes(tmp_path / "empty")


def test_packed_scenes_come_back_as_they_were_written(tmp_path: Path) -> None:
    volumes = (np.random.default_rng(0).random((3, 4, 2, 3, 5)) > 0.5).astype(np.uint8)
    write_scenes(tmp_path / "s.npz", volumes, {"betti": np.arange(12).reshape(3, 4)})
    scenes = read_scenes(tmp_path / "s.npz")
    assert np.array_equal(scenes.unpack(slice(None)), volumes)
    assert np.array_equal(scenes.labels["betti"], np.arange(12).reshape(3, 4))
    assert torch.equal(read_volumes(tmp_path / "s.npz")[:, :, 0], torch.from_numpy(volumes).float())


def test_packed_files_that_are_damaged_or_foreign_are_told(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, packed=np.zeros((2, 7), np.uint8))
    with pytest.raises(VideoError, match=r"packed must be \(N, 65536\)"):
        read_scenes(path)
    np.savez(path, frames=np.zeros(3))
    with pytest.raises(VideoError, match="holds no packed scenes"):
        read_scenes(path)
    write_scenes(path, np.zeros((1, 2, 2, 2, 2)))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(VideoError, match="damaged"):
        read_scenes(path)


def test_only_binary_scenes_are_packed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 and 1"):
        write_scenes(tmp_path / "s.npz", np.full((1, 1, 2, 2, 2), 0.5))
    with pytest.raises(ValueError, match="a row for each"):
        write_scenes(tmp_path / "s.npz", np.zeros((2, 1, 2, 2, 2)), {"betti": np.zeros((1, 4))})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((4, 2, 3, 5), {}, (4, 1, 2, 3, 5)),
        ((4, 1, 2, 3, 5), {}, (4, 1, 2, 3, 5)),
        ((6, 4, 1, 2, 3, 5), {}, (6, 4, 1, 2, 3, 5)),
        ((6, 4, 2, 3, 5), {"layout": "BTDHW"}, (6, 4, 1, 2, 3, 5)),
        ((2, 3, 5), {"layout": "DHW"}, (1, 1, 2, 3, 5)),
        ((2, 3, 5, 1, 4), {"layout": "dhwct"}, (4, 1, 2, 3, 5)),
    ],
)
def test_axes_are_those_of_the_shape_or_those_declared(shape: tuple, options: dict, expected: tuple) -> None:
    assert read_volumes(np.zeros(shape), **options).shape == expected


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (np.zeros((4, 3, 2, 3, 5)), {}, r"expects C=1 .*BTDHW"),
        (np.zeros((3, 5)), {}, "must be"),
        (np.zeros((2, 3, 5)), {"layout": "DHX"}, "declared"),
        (np.zeros((0, 2, 2, 2)), {}, "at least one frame"),
        (np.full((1, 2, 2, 2), np.nan), {}, "frame 0 holds NaN"),
        (np.full((1, 2, 2, 2), 3.0), {}, "frame 0 ranges over"),
        (np.full((1, 2, 2, 2), 200, np.uint8), {}, r"value_range=\(low, high\)"),
        (np.full((1, 2, 2, 2), -1, np.int64), {}, "0 and 1, got -1"),
        ("nowhere.npy", {}, "does not exist"),
    ],
)
def test_other_volumes_are_refused_with_the_mend(source: object, options: dict, words: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        read_volumes(source, **options)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the published scenes: PCVIDEO_SHARED_DATA")
def test_published_files_hold_what_the_packed_ones_do() -> None:
    files = sorted((SHARED / "tfrecord").glob("*.tfrecords"))
    packed = [read_scenes(SHARED / f"{split}_packed.npz") for split in ("test_400", "val_400")]
    rows = {
        row.tobytes(): labels.tolist()
        for scenes in packed
        for row, labels in zip(scenes.packed, scenes.labels["betti"], strict=True)
    }
    for file in files:
        scenes = read_scenes(file)
        assert scenes.shape == (128, 16, 16, 16)
        if scenes.packed[0].tobytes() in rows:
            assert rows[scenes.packed[0].tobytes()] == scenes.labels["betti"][0].tolist()
        # The number of cavities stands in the name's last but one part.
        assert scenes.labels["betti"][0, 3] == scenes.labels["objs"].sum() == int(file.stem.split("_")[-2])

# SPDX-License-Identifier: Apache-2.0
"""TFRecord files without TensorFlow: records with their checksums, and the byte strings of an Example.

The form is TensorFlow's: for each record its length (64 bit), the length's checksum, the bytes, and their checksum, the
whole file usually compressed with gzip. A checksum is CRC-32C (Castagnoli), rotated and shifted by a constant. An
Example is a protocol buffer; of its features those that are byte strings are read.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pcvideo.video_io.convert import VideoError

__all__ = ["crc32c", "read_examples", "read_records"]

_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
_LANES = 512
# A record larger than this is a damaged length rather than a scene: 128 frames of 128**3 voxels have 268 MB.
_MOST_BYTES = 1 << 31


def read_records(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield the records of a TFRecord file, plain or compressed with gzip, each checked against its checksums.

    Raises:
        FileNotFoundError: there is no such file.
        VideoError: it is truncated, damaged, or no TFRecord file; the message says at which record.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no TFRecord file at {path}")
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
    count = 0
    with gzip.open(path, "rb") if is_gzip else path.open("rb") as file:
        try:
            while (record := _next_record(file, path, count)) is not None:
                yield record
                count += 1
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise VideoError(
                f"{path}: the gzip stream ends or breaks in record {count} ({error}); copy it anew"
            ) from error
    if not count:
        raise VideoError(f"{path} holds no record; expected a TFRecord file")


def read_examples(path: str | os.PathLike[str]) -> Iterator[dict[str, list[bytes]]]:
    """Yield the byte-string features of each Example in a TFRecord file by name; other kinds are empty lists.

    Raises:
        FileNotFoundError, VideoError: as `read_records`; a record is no Example.
    """
    for index, record in enumerate(read_records(path)):
        try:
            yield _features(memoryview(record))
        except (IndexError, ValueError) as error:
            raise VideoError(f"{path}: record {index} is no tf.train.Example ({error})") from error


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of some bytes, as iSCSI (RFC 3720) and TFRecord files use it."""
    if len(data) < 4 * _LANES:
        return _bytewise(data)
    table, count = _table(), -(-len(data) // _LANES)
    # Lanes side by side: a checksum is linear, so each begins at 0, and leading zeros change nothing. The register's
    # first value of all ones is the same as the first four bytes inverted.
    lanes = np.zeros(_LANES * count, np.uint8)
    message = lanes[len(lanes) - len(data) :]
    message[:] = np.frombuffer(data, np.uint8)
    message[:4] ^= 0xFF
    columns = lanes.reshape(_LANES, count)
    state = np.zeros(_LANES, np.uint32)
    # And 32 more that tell what as many zeros make of each bit.
    bits = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))
    for index in range(count):
        state = table[(state ^ columns[:, index]) & 0xFF] ^ (state >> 8)
        bits = table[bits & 0xFF] ^ (bits >> 8)
    total = 0
    for lane in state.tolist():
        moved = 0
        for bit, image in enumerate(bits.tolist()):
            if total >> bit & 1:
                moved ^= image
        total = moved ^ lane
    return total ^ 0xFFFFFFFF


def _next_record(file: BinaryIO | gzip.GzipFile, path: Path, index: int) -> bytes | None:
    header = file.read(12)
    if not header:
        return None
    where = f"{path}: record {index}"
    if len(header) < 12:
        raise VideoError(f"{where} ends within its header; the file is truncated, copy it anew")
    length = int.from_bytes(header[:8], "little")
    if _masked(header[:8]) != int.from_bytes(header[8:], "little") or length > _MOST_BYTES:
        hint = "this is no TFRecord file" if index == 0 else "the file is damaged, copy it anew"
        raise VideoError(f"{where}: the checksum of its length is wrong; {hint}")
    body = file.read(length + 4)
    if len(body) < length + 4:
        raise VideoError(f"{where} has {len(body)} of {length + 4} bytes; the file is truncated, copy it anew")
    if _masked(body[:length]) != int.from_bytes(body[length:], "little"):
        raise VideoError(f"{where}: the checksum of its bytes is wrong; the file is damaged, copy it anew")
    return body[:length]


def _masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _bytewise(data: bytes) -> int:
    table, state = _table().tolist(), 0xFFFFFFFF
    for byte in data:
        state = table[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


@cache
def _table() -> np.ndarray:
    """What a byte makes of an empty register."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


def _features(example: memoryview) -> dict[str, list[bytes]]:
    """Example.features (1), Features.feature (1, a map: key 1, value 2), Feature.bytes_list (1), BytesList.value (1)."""
    found = {}
    for features in _fields(example, 1):
        for entry in _fields(features, 1):
            (name,) = _fields(entry, 1)
            values = [value for feature in _fields(entry, 2) for value in _fields(feature, 1)]
            found[bytes(name).decode()] = [bytes(item) for value in values for item in _fields(value, 1)]
    return found


def _fields(message: memoryview, wanted: int) -> list[memoryview]:
    """The parts of a protocol-buffer message under one number, of those that have a length."""
    parts, position = [], 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            _, position = _varint(message, position)
            continue
        if kind == 2:
            size, position = _varint(message, position)
        else:
            size = {1: 8, 5: 4}.get(kind, -1)
        if size < 0 or position + size > len(message):
            raise ValueError(f"a field of kind {kind} does not fit at byte {position}")
        if kind == 2 and key >> 3 == wanted:
            parts.append(message[position : position + size])
        position += size
    return parts


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
        if shift > 63:
            raise ValueError(f"a number is too long at byte {position}")

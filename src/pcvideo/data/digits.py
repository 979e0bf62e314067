# SPDX-License-Identifier: Apache-2.0
"""Where digit images come from: IDX files on disk, a verified download of MNIST, or digits drawn here.

The IDX form is described on the MNIST page (LeCun, Cortes, Burges): two zero bytes, a type code, the number of
dimensions, the dimensions as big-endian 32-bit numbers, then the values. Nothing here touches the network except
`download_mnist`, and only when it is called.
"""

from __future__ import annotations

import gzip
import logging
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .._checks import check_choice

__all__ = ["find_mnist", "procedural_digits", "read_idx"]

MNIST_MIRRORS: tuple[str, ...] = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

logger = logging.getLogger(__name__)

_STEMS = {"train": "train-images", "test": "t10k-images"}
# Of the uncompressed content: mirrors may compress anew.
_MD5 = {"train": "6bbc9ace898e44ae57da46a324031adb", "test": "2646ac647ad5339dbf082846283269ea"}
_LARGEST_DOWNLOAD = 32 * 2**20
_LARGEST_CONTENT = 2**30


# IDX files


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzip-compressed (told apart by content, not by name).

    Args:
        path: the file; MNIST's images have three dimensions (N, height, width), its labels one.

    Returns:
        uint8 array of the shape that the file states.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no IDX file of unsigned bytes, is cut short, or goes on beyond its stated shape.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; expected an IDX file such as t10k-images-idx3-ubyte.gz")
    try:
        with path.open("rb") as plain:
            if plain.peek(2)[:2] == b"\x1f\x8b":
                with gzip.open(plain, "rb") as unpacked:
                    return _parse_idx(unpacked, str(path))
            return _parse_idx(plain, str(path))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error}); copy or download it again") from error


def _parse_idx(stream: BinaryIO | gzip.GzipFile, name: str) -> np.ndarray:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != 0x08 or not 1 <= magic[3] <= 4:
        raise ValueError(
            f"{name} is not an IDX file of unsigned bytes: it begins with {magic.hex(' ') or 'nothing'}, "
            f"expected 00 00 08 and the number of dimensions (MNIST images: 00 00 08 03)"
        )
    header = stream.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise ValueError(f"{name} is cut short within its header; copy or download it again")
    shape = tuple(int(side) for side in np.frombuffer(header, dtype=">u4"))
    size = math.prod(shape)
    if size == 0 or size > _LARGEST_CONTENT:
        raise ValueError(f"{name} states the shape {shape}, which is empty or above {_LARGEST_CONTENT} bytes")
    # One byte more than stated is asked for, so that a longer file shows.
    content = stream.read(size + 1)
    if len(content) != size:
        fault = "is cut short" if len(content) < size else "goes on beyond its stated shape"
        raise ValueError(
            f"{name} {fault}: the shape {shape} needs {size} bytes, "
            f"found {len(content) if len(content) < size else 'more'}; copy or download it again"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape).copy()


# MNIST on disk


def find_mnist(folder: str | os.PathLike[str], split: str) -> Path | None:
    """The IDX file with the images of `split` in `folder`, or None.

    Looks into the folder, its `mnist` and its `MNIST/raw` (torchvision's place), for `train-images-idx3-ubyte` or
    `t10k-images-idx3-ubyte`, also in the spelling `.idx3-ubyte`, plain or with `.gz`.

    Raises:
        ValueError: `split` is neither "train" nor "test".
    """
    stem = _STEMS[check_choice("split", split, tuple(_STEMS))]
    for place in (Path(folder), Path(folder, "mnist"), Path(folder, "MNIST", "raw")):
        for ending in ("-idx3-ubyte", ".idx3-ubyte", "-idx3-ubyte.gz", ".idx3-ubyte.gz"):
            if (place / (stem + ending)).is_file():
                return place / (stem + ending)
    return None


def default_mnist_folder() -> Path:
    """Where `download_mnist` puts the files and where they are looked for."""
    return Path.home() / ".cache" / "pcvideo" / "mnist"


# Digits drawn here


def procedural_digits(per_class: int = 200, *, seed: int = 0) -> np.ndarray:
    """Draw digits that resemble handwriting: strokes of our own with random slant, scale, thickness and jitter.

    As in MNIST, the ink fits a box of 20x20 pixels and its centre of mass lies in the middle of the image.

    Args:
        per_class: how many of each of the ten digits.
        seed: the images depend on this and `per_class` alone.

    Returns:
        uint8 array (10 * per_class, 28, 28), grey, 0 is background; digit `k` stands at k, k + 10, k + 20, ...

    Raises:
        TypeError, ValueError: `per_class` below 1, or `seed` below 0.
    """
    raise NotImplementedError("the strokes follow in the next commit")

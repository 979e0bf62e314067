# SPDX-License-Identifier: Apache-2.0
"""Where digit images come from: IDX files on disk, or a verified download of MNIST.

The IDX form is described on the MNIST page (LeCun, Cortes, Burges): two zero bytes, a type code, the number of
dimensions, the dimensions as big-endian 32-bit numbers, then the values. Nothing here touches the network except
`download_mnist`, and only when it is called.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import logging
import math
import os
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pcvideo._checks import check_choice
from pcvideo._files import written_aside

__all__ = ["MNIST_MIRRORS", "default_mnist_folder", "download_mnist", "find_mnist", "read_idx"]

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
_LARGEST_UNPACKED = 64 * 2**20


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


# MNIST from the network


def download_mnist(
    folder: str | os.PathLike[str] | None = None,
    *,
    split: str = "both",
    mirrors: Sequence[str] = MNIST_MIRRORS,
    timeout: float = 30.0,
) -> Path:
    """Download MNIST's images (11 MB for both splits) unless they are there already.

    Each file is verified by the checksum of its content, written aside and renamed, so that an interrupted or foreign
    download never stands under the final name.

    Args:
        folder: where to; None is `~/.cache/pcvideo/mnist`, where `MovingMNIST` looks by itself.
        split: "train", "test" or "both".
        mirrors: addresses of folders, tried in turn.
        timeout: seconds without an answer after which a mirror is given up.

    Returns:
        The folder.

    Raises:
        ValueError: an unknown `split`, or no mirror given.
        ConnectionError: no mirror gave the right file, with what each of them said.
        OSError: the folder can't be written.
    """
    check_choice("split", split, (*_STEMS, "both"))
    if isinstance(mirrors, str) or not mirrors:
        raise ValueError(f"mirrors must be a list of at least one address, got {mirrors!r}")
    place = default_mnist_folder() if folder is None else Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for part in _STEMS if split == "both" else (split,):
        target = place / f"{_STEMS[part]}-idx3-ubyte.gz"
        if not (target.is_file() and _fault_of(target.read_bytes(), _MD5[part]) is None):
            with written_aside(target) as aside:
                aside.write_bytes(_download(target.name, mirrors, _MD5[part], timeout))
    return place


def _download(name: str, mirrors: Sequence[str], md5: str, timeout: float) -> bytes:
    """The file `name` from the first mirror that has it right."""
    said = []
    for mirror in mirrors:
        address = mirror.rstrip("/") + "/" + name
        try:
            packed = _fetch(address, timeout)
            fault = _fault_of(packed, md5)
        except (OSError, http.client.HTTPException, ValueError) as error:
            fault = f"{type(error).__name__}: {error}"
        if fault is None:
            return packed
        logger.info("%s: %s", address, fault)
        said.append(f"\n  {address}: {fault}")
    raise ConnectionError(
        f"no mirror gave {name}:{''.join(said)}\nTry again later, give other mirrors=[...], or put the file into the "
        f"folder by hand"
    )


def _fetch(address: str, timeout: float) -> bytes:
    """The body behind `address`, refused as soon as it grows beyond what MNIST can be."""
    from tqdm import tqdm  # noqa: PLC0415

    body = io.BytesIO()
    with urllib.request.urlopen(address, timeout=timeout) as answer:
        stated = int(answer.headers["Content-Length"]) if answer.headers["Content-Length"] else None
        # disable=None: silent unless it is looked at.
        with tqdm(total=stated, desc=address.rsplit("/", 1)[-1], unit="B", unit_scale=True, disable=None) as progress:
            while chunk := answer.read(2**16):
                body.write(chunk)
                progress.update(len(chunk))
                if body.tell() > _LARGEST_DOWNLOAD:
                    raise ValueError(f"more than {_LARGEST_DOWNLOAD} bytes came")
    if stated is not None and body.tell() < stated:
        raise ValueError(f"the connection ended after {body.tell()} of {stated} bytes")
    return body.getvalue()


def _fault_of(packed: bytes, md5: str) -> str | None:
    """What is wrong with a downloaded gzip file, or None."""
    if not packed.startswith(b"\x1f\x8b"):
        return f"not a gzip file; it begins with {packed[:20]!r}"
    checksum = hashlib.md5(usedforsecurity=False)
    try:
        with gzip.open(io.BytesIO(packed), "rb") as unpacked:
            size = 0
            while chunk := unpacked.read(2**20):
                checksum.update(chunk)
                size += len(chunk)
                if size > _LARGEST_UNPACKED:
                    return f"unpacks to more than {_LARGEST_UNPACKED} bytes"
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        return f"a damaged gzip file ({error})"
    if checksum.hexdigest() != md5:
        return f"its content has md5 {checksum.hexdigest()}, expected {md5}"
    return None

# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files of published code, read without running anything that they hold.

A `.pt` or `.pth` file is a pickle, which can name any function to call. It is opened by torch's restricted reader
alone, which besides tensors knows numbers of numpy, since old training scripts saved those beside the weights.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcvideo import _files
from pcvideo._files import WeightsCorruptError
from pcvideo.convert.keras_3d import read_keras_weights

__all__ = ["Parts", "read_checkpoint"]

Parts = dict[str, dict[str, Tensor]]
"""The tensors of a file by the entry that they stand in; those of the file itself under an empty name."""

_TORCH_STARTS = (b"PK\x03\x04", b"\x80")
_HDF5_START = b"\x89HDF\r\n\x1a\n"
# What wrapping a model for several devices, or compiling it, puts before every name.
_PREFIX = re.compile(r"^(?:module\.|_orig_mod\.)+")
_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


def read_checkpoint(path: str | Path) -> Parts:
    """The tensors of a checkpoint file (.pt, .pth, .safetensors, .h5; by its content, not its ending), on the CPU.

    The prefixes `module.` and `_orig_mod.` are taken off the names. What is no tensor, such as an epoch, is left out.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsCorruptError: it is truncated, of another kind, or a pickle that calls for more than tensors and numbers,
            none of which was run.
        ValueError: it holds no tensors, or two of the same name once prefixes are off.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; convert takes a checkpoint file of the published code")
    with path.open("rb") as file:
        start = file.read(8)
    if start == _HDF5_START:
        content: Any = {name: torch.from_numpy(array) for name, array in read_keras_weights(path).items()}
    else:
        content = _read_torch(path) if start.startswith(_TORCH_STARTS) else _files.read_tensors(path)
    parts = {part: _named(path, tensors) for part, tensors in _parts_of(content).items()}
    if not parts:
        raise ValueError(f"{path} holds no tensors by name; expected a state dict, or an entry that is one")
    claimed = sum(tensor.numel() * tensor.element_size() for part in parts.values() for tensor in part.values())
    # Views can claim any size over a few bytes.
    if claimed > path.stat().st_size:
        raise WeightsCorruptError(path, f"its tensors claim {claimed} bytes, more than the file has")
    return parts


def _read_torch(path: Path) -> Any:
    _refuse_bombs(path)
    try:
        with torch.serialization.safe_globals(_number_types()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A broken or hostile file can make the reader fail in any way; torch's own words would go on to advise reading
        # it unrestrictedly.
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found:
            why = f"it is a pickle that asks to run {found[1]}, which was not done"
            raise WeightsCorruptError(path, why, "ask for a file that holds tensors alone") from error
        first = " ".join(str(error).split(". ", maxsplit=1)[0].split())[:200]
        raise WeightsCorruptError(
            path, f"it is no complete checkpoint of tensors ({type(error).__name__}: {first})"
        ) from error


def _refuse_bombs(path: Path) -> None:
    """Refuse an archive that would unpack to more than the file; torch stores its own as they are."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > path.stat().st_size:
        raise WeightsCorruptError(path, f"it is an archive that would unpack to {unpacked} bytes, more than it has")


def _number_types() -> list[Any]:
    """What the restricted reader may make besides tensors: numbers of numpy, under the names of its versions.

    Ours stand in numpy's place, whose own would make objects too, and set on a dtype whatever a pickle says.
    """
    scalars = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [*((_number, name) for name in scalars), (_NumberKind, "numpy.dtype")]


class _NumberKind:
    """In the place of a dtype of numpy, if it is one of numbers."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in _NUMBERS:
            raise TypeError(f"expected a kind of number, got {code!r}")

    def __setstate__(self, state: Any) -> None:
        """The order of its bytes and the like, which nobody reads."""


def _number(kind: Any, data: Any = None) -> None:
    """In the place of a number of numpy, such as a loss; it is no weight, so it is left out."""
    if not isinstance(kind, _NumberKind) or not isinstance(data, bytes):
        raise TypeError(f"expected a kind of number and its bytes, got {kind!r}")


def _parts_of(content: Any) -> Parts:
    if not isinstance(content, Mapping):
        return {}
    nested = {str(name): value for name, value in content.items() if isinstance(value, Mapping)}
    parts = {name: _tensors_of(value) for name, value in {"": content, **nested}.items()}
    return {name: tensors for name, tensors in parts.items() if tensors}


def _tensors_of(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _named(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by their names without prefixes."""
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        bare = _PREFIX.sub("", name)
        if bare in named:
            raise ValueError(f"{path} holds the tensor {bare} twice, with and without the prefix of {name}")
        named[bare] = _plain(path, name, tensor.detach())
    return named


def _plain(path: Path, name: str, tensor: Tensor) -> Tensor:
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise WeightsCorruptError(path, f"its entry {name} is no plain tensor of numbers")
    return tensor

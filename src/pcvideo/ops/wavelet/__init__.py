# SPDX-License-Identifier: Apache-2.0
"""Frames as a coarse frame and its details, and back."""

from pcvideo.ops.wavelet.orthogonal import orthogonal_dwt, orthogonal_idwt
from pcvideo.ops.wavelet.reference import haar_dwt, haar_idwt

__all__ = ["haar_dwt", "haar_idwt", "orthogonal_dwt", "orthogonal_idwt"]

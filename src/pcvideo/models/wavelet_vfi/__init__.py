# SPDX-License-Identifier: Apache-2.0
"""WaveletVFI: the frame between two frames, by motion and wavelets (arXiv 2309.03508)."""

from pcvideo.models.wavelet_vfi.model import Macs, Middle, WaveletVFI
from pcvideo.models.wavelet_vfi.motion import Motion
from pcvideo.models.wavelet_vfi.synthesis import Bands, Synthesis

__all__ = ["Bands", "Macs", "Middle", "Motion", "Synthesis", "WaveletVFI"]

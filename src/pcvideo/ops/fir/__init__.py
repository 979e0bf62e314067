# SPDX-License-Identifier: Apache-2.0
"""Low-pass filters: their taps from a cutoff."""

from pcvideo.ops.fir.design import lowpass_taps, reshaped_taps

__all__ = ["lowpass_taps", "reshaped_taps"]

# SPDX-License-Identifier: Apache-2.0
"""Low-pass filters: their taps from a cutoff, what they pass, and images that are resampled by them."""

from pcvideo.ops.fir.design import lowpass_taps, reshaped_taps
from pcvideo.ops.fir.polyphase import upfirdn2d
from pcvideo.ops.fir.response import FilterReport, describe_filter, frequency_response

__all__ = ["FilterReport", "describe_filter", "frequency_response", "lowpass_taps", "reshaped_taps", "upfirdn2d"]

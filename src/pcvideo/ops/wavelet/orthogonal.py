# SPDX-License-Identifier: Apache-2.0
"""Other orthogonal wavelets, by the filter tables of PyWavelets (an extra); frames are continued periodically.

With that continuation the transform of every orthogonal wavelet is an orthogonal matrix: as many numbers come out as
went in, and the way back is the transposed matrix. Numbers and order are those of `pywt.dwt2(mode="periodization")`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pcvideo._checks import did_you_mean
from pcvideo._optional import require
from pcvideo.ops.wavelet.reference import check_bands, check_even

__all__ = ["orthogonal_dwt", "orthogonal_idwt"]

Wavelet = str | Sequence[float]


def orthogonal_dwt(frames: Tensor, wavelet: Wavelet) -> tuple[Tensor, Tensor]:
    """One level of the transform; `"haar"` gives what `haar_dwt` gives.

    Args:
        frames: (..., H, W), float, with even H and W.
        wavelet: a name that PyWavelets knows, such as "db2" or "sym4"; or the low-pass filter itself, in the order of
            `pywt.Wavelet(...).dec_lo`, which needs no package.

    Returns:
        the coarse frame (..., H/2, W/2) and the details (..., 3, H/2, W/2), in the order of `haar_dwt`.

    Raises:
        ImportError: a name was given, and PyWavelets is missing.
        TypeError: not a float tensor.
        ValueError: an odd height or width, an unknown name, or a filter that is not orthogonal.
    """
    check_even("frames", frames)
    taps = _low_pass(wavelet)
    rows, columns = (_matrix(taps, side, frames) for side in frames.shape[-2:])
    bands = rows @ frames @ columns.mT
    height, width = (side // 2 for side in frames.shape[-2:])
    above, below = bands.split(height, dim=-2)
    low, down = above.split(width, dim=-1)
    across, both = below.split(width, dim=-1)
    return low, torch.stack((across, down, both), dim=-3)


def orthogonal_idwt(low: Tensor, high: Tensor, wavelet: Wavelet) -> Tensor:
    """The frames (..., 2H, 2W) whose `orthogonal_dwt` is (low, high).

    Args:
        low: (..., H, W), float.
        high: (..., 3, H, W).
        wavelet: as in `orthogonal_dwt`.

    Raises:
        ImportError, TypeError, ValueError: as `orthogonal_dwt`.
    """
    check_bands(low, high)
    taps = _low_pass(wavelet)
    across, down, both = high.unbind(-3)
    bands = torch.cat((torch.cat((low, down), dim=-1), torch.cat((across, both), dim=-1)), dim=-2)
    rows, columns = (_matrix(taps, side, bands) for side in bands.shape[-2:])
    return rows.mT @ bands @ columns


def _low_pass(wavelet: Wavelet) -> list[float]:
    """The analysis low-pass filter, checked."""
    if isinstance(wavelet, str):
        pywt = require("pywt", extra="wavelets", purpose="wavelets by name")
        names = pywt.wavelist(kind="discrete")
        if wavelet not in names:
            raise ValueError(f"PyWavelets knows no discrete wavelet {wavelet!r}{did_you_mean(wavelet, names)}")
        taps = [float(tap) for tap in pywt.Wavelet(wavelet).dec_lo]
    else:
        taps = [float(tap) for tap in wavelet]
    # Orthogonal: of norm one, and at right angles to itself shifted by every even number.
    shifts = range(0, len(taps), 2)
    products = [sum(one * other for one, other in zip(taps, taps[shift:], strict=False)) for shift in shifts]
    if len(taps) < 2 or len(taps) % 2 or any(abs(value - (not shift)) > 1e-6 for shift, value in enumerate(products)):
        raise ValueError(f"wavelet must be orthogonal, which {wavelet!r} is not; take haar, dbN, symN or coifN")
    return taps


def _matrix(taps: Sequence[float], side: int, like: Tensor) -> Tensor:
    """The orthogonal (side, side) matrix of one axis: coarse values first, then details."""
    matrix = torch.zeros(2, side // 2, side, dtype=torch.float64)
    length = len(taps)
    places = torch.arange(side // 2)
    for index, tap in enumerate(taps):
        # The high-pass filter is the low-pass one turned round, every second sign changed.
        column = (2 * places + length // 2 - index) % side
        matrix[0, places, column] += tap
        matrix[1, places, column] += (-1) ** (index + 1) * taps[length - 1 - index]
    return matrix.flatten(0, 1).to(like.device, like.dtype)

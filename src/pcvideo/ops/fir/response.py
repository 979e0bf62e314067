# SPDX-License-Identifier: Apache-2.0
"""What a low-pass filter does to each frequency, and how much of what follows its decimation is aliased."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pcvideo._checks import check_int, describe

__all__ = ["FilterReport", "describe_filter", "frequency_response"]

# Below the rounding of float64; a filter with an exact zero everywhere beyond the new Nyquist would be at -infinity.
_LOWEST_DB = -300.0


class FilterReport(NamedTuple):
    """One filter in figures, for a decimation by a factor: the new Nyquist frequency is the old one over the factor.

    "Horizontal" is where only the horizontal frequency lies above the new Nyquist, "vertical" where only the vertical
    one does. Shares are of the output's energy, in [0, 1]; decibels are 20 log10 of a gain.
    """

    gain_horizontal: float
    """Gain of the finest pattern along x: stripes that alternate from column to column."""
    gain_vertical: float
    """Gain of the finest pattern along y: stripes that alternate from row to row."""
    stopband_horizontal_db: float
    """Root-mean-square gain over the horizontal stop band."""
    stopband_vertical_db: float
    """Root-mean-square gain over the vertical stop band."""
    stopband_worst_db: float
    """Largest gain at any frequency above the new Nyquist along x, y or both."""
    aliased_white: float
    """Share that lies above the new Nyquist, and so is aliased, where the input is white noise."""
    aliased_white_horizontal: float
    """The part of `aliased_white` in the horizontal stop band."""
    aliased_white_vertical: float
    """The part of `aliased_white` in the vertical stop band."""
    aliased_natural: float
    """Share that is aliased where the input's power falls as 1/f^2, as that of natural pictures does."""
    passband_min: float
    """Smallest gain at up to half of the new Nyquist frequency, in every direction."""
    passband_max: float
    """Largest gain there."""
    asymmetry: float
    """Largest |H(u, v) - H(v, u)|: 0 if the filter treats x and y alike."""
    skew: float
    """Largest |H(u, v) - H(u, -v)|: 0 if it treats the two diagonals alike."""


def frequency_response(taps: Tensor, size: int = 256) -> Tensor:
    """The gain and phase of each channel's filter at `size` x `size` frequencies, the filter's centre as origin.

    Args:
        taps: (C, N), those of a separable filter, the same along both axes, or (C, N, N), those of any; float.
        size: of the grid along each axis.

    Returns:
        (C, size, size) complex, H(v, u) by vertical, then horizontal frequency in the order of `torch.fft.fftfreq`:
        frequency 0 first; index `size // 2` is the Nyquist frequency if `size` is even. The imaginary part is 0 for a
        filter that is point-symmetric.

    Raises:
        TypeError: `taps` is no float tensor.
        ValueError: another shape, an even number of taps, or a size of 0.
    """
    _check_taps(taps)
    check_int("size", size)
    taps = taps.to(torch.promote_types(taps.dtype, torch.float32))
    half = taps.shape[-1] // 2
    offsets = torch.arange(-half, half + 1, dtype=taps.dtype, device=taps.device)
    angle = 2 * math.pi * torch.fft.fftfreq(size, dtype=taps.dtype, device=taps.device)
    waves = torch.polar(torch.ones(1, dtype=taps.dtype, device=taps.device), -angle[:, None] * offsets)
    if taps.ndim == 2:
        along = taps.to(waves.dtype) @ waves.T
        return along[:, :, None] * along[:, None, :]
    return waves @ taps.to(waves.dtype) @ waves.T


def describe_filter(taps: Tensor, *, factor: int = 2, size: int = 256) -> list[FilterReport]:
    """Measure each channel's filter for a decimation by `factor`.

    Args:
        taps: (C, N), those of a separable filter, or (C, N, N), those of any; float. They are used as they are: an
            up-sampling filter with a gain is to be divided by it.
        factor: of the decimation, at least 2.
        size: of the frequency grid along each axis, even.

    Returns:
        a report for each channel, computed in float64.

    Raises:
        TypeError: `taps` is no float tensor.
        ValueError: another shape, an even number of taps, a channel that is 0 or not finite throughout, a factor below
            2, or an odd size or one below `4 * factor`.
    """
    _check_taps(taps)
    check_int("factor", factor, minimum=2)
    if check_int("size", size, minimum=4 * factor) % 2:
        raise ValueError(
            f"size must be even, so that the Nyquist frequency is on the grid, got {size}; take {size + 1}"
        )
    taps = taps.detach().to("cpu", torch.float64)
    bad = ~torch.isfinite(taps).flatten(1).all(dim=1) | (taps == 0).flatten(1).all(dim=1)
    if bool(bad.any()):
        raise ValueError(f"taps of channel {int(bad.nonzero()[0])} must be finite and not all 0")
    return [_report(frequency_response(channel[None], size)[0], factor) for channel in taps]


def _report(response: Tensor, factor: int) -> FilterReport:
    size = response.shape[-1]
    # In units of the old Nyquist frequency. The new Nyquist itself is still kept, as is the end of the pass band.
    frequency = 2 * torch.fft.fftfreq(size, dtype=torch.float64)
    above = frequency.abs() > 1 / factor
    radius = torch.hypot(frequency[:, None], frequency)
    horizontal, vertical, outside = above & ~above[:, None], above[:, None] & ~above, above | above[:, None]

    gain = response.abs()
    power = gain**2
    natural = power / torch.where(radius == 0, math.inf, radius) ** 2
    passed = gain[radius <= 0.5 / factor]
    # The frequency -v of each v.
    mirrored = -torch.arange(size) % size
    figures: dict[str, Tensor] = {
        "gain_horizontal": response[0, size // 2].real,
        "gain_vertical": response[size // 2, 0].real,
        "stopband_horizontal_db": _decibels(power[horizontal].mean()),
        "stopband_vertical_db": _decibels(power[vertical].mean()),
        "stopband_worst_db": _decibels(power[outside].max()),
        "aliased_white": power[outside].sum() / power.sum(),
        "aliased_white_horizontal": power[horizontal].sum() / power.sum(),
        "aliased_white_vertical": power[vertical].sum() / power.sum(),
        "aliased_natural": natural[outside].sum() / natural.sum(),
        "passband_min": passed.min(),
        "passband_max": passed.max(),
        "asymmetry": (response - response.T).abs().max(),
        "skew": (response - response[mirrored]).abs().max(),
    }
    return FilterReport(**{name: float(figure) for name, figure in figures.items()})


def _decibels(power: Tensor) -> Tensor:
    return (10 * torch.log10(power)).clamp(min=_LOWEST_DB)


def _check_taps(taps: Tensor) -> None:
    if not isinstance(taps, Tensor) or not taps.is_floating_point():
        raise TypeError(f"taps must be a float tensor (C, N) or (C, N, N), got {describe(taps)}")
    fits = taps.ndim == 2 or (taps.ndim == 3 and taps.shape[1] == taps.shape[2])
    if not fits or 0 in taps.shape:
        raise ValueError(
            f"taps must be (C, N), of separable filters, or (C, N, N), of any, got {describe(taps)}; "
            f"one filter is taps[None]"
        )
    if taps.shape[-1] % 2 == 0:
        raise ValueError(f"taps must be odd in number, so that one of them is the centre, got {describe(taps)}")

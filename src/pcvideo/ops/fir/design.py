# SPDX-License-Identifier: Apache-2.0
"""Low-pass filters from their cutoff: windowed sinc (separable) and windowed jinc (round), differentiable in it.

Both are the ideal low-pass, a box or a disk of frequencies, cut short by a window; see Oppenheim and Schafer,
"Discrete-Time Signal Processing", chapter 7. The taps are what `upfirdn2d` takes. `reshaped_taps` is the filter that
PPNV2 (Ling et al., arXiv 2301.05421) was published with, which is none of the two.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pcvideo._checks import check_choice, check_int, check_number, describe

__all__ = ["DESIGNS", "WINDOWS", "lowpass_taps", "reshaped_taps"]

DESIGNS = ("separable", "radial")
WINDOWS = ("kaiser", "hamming")


def lowpass_taps(
    cutoff: Tensor, taps: int = 9, *, design: str = "separable", window: str = "kaiser", beta: float = 4.0
) -> Tensor:
    """A low-pass filter per channel, differentiable in its cutoff to any order.

    "separable" is the windowed sinc `c sinc(c m) w(m)` at the offsets m, and the filter is the outer product of these
    taps with themselves, applied along one axis after the other. "radial" is the windowed jinc `c J1(pi c r) / (2 r)
    w(r)` at the distances r from the centre; it passes equally much in every direction, and costs taps^2 a pixel.

    Before a decimation by n, a cutoff of at most 1/n is wanted; 0.9/n leaves room for the width of the transition.

    Args:
        cutoff: (C,) float, where each channel's filter cuts, in units of the Nyquist frequency, in (0, 1]. The range is
            checked where that needs no waiting for a device: on a CPU, outside `torch.compile`.
        taps: their number along each axis, odd and at least 3.
        design: "separable" or "radial".
        window: "kaiser" or "hamming".
        beta: what the Kaiser window takes: more of it attenuates more and makes the transition wider; 0 is no window.

    Returns:
        (C, taps) for "separable", (C, taps, taps) for "radial"; each sums to 1; in the dtype and on the device of
        `cutoff`, computed in float32 at least.

    Raises:
        TypeError: `cutoff` is no float tensor, or `taps` no whole number.
        ValueError: another shape, a cutoff outside (0, 1], an even number of taps or fewer than 3, or an unknown name.
    """
    _check_cutoff(cutoff)
    check_int("taps", taps, minimum=3)
    if taps % 2 == 0:
        raise ValueError(f"taps must be odd, so that one of them is the centre, got {taps}; take {taps + 1}")
    check_choice("design", design, DESIGNS)
    check_choice("window", window, WINDOWS)
    check_number("beta", beta, minimum=0)
    make = _sinc_taps if design == "separable" else _jinc_taps
    return make(_at_least_float32(cutoff), taps, window, beta).to(cutoff.dtype)


def reshaped_taps(cutoff: Tensor) -> Tensor:
    """The filter that PPNV2 was published with: 25 taps of a sinc under a Hamming window, in five rows of five.

    This is no low-pass. Neighbours in a row are neighbouring samples of the sinc, neighbours in a column lie five
    samples apart, so that it filters along x, leaves y as it is or makes it stronger, and is skewed: of white noise
    decimated by 2, 50 to 69 % is aliased, against 75 % without a filter. It is kept because weights that were trained
    with it need it; for anything else take `lowpass_taps`.

    Args:
        cutoff: (C,) float, as for `lowpass_taps`.

    Returns:
        (C, 5, 5), row-major; each sums to 1; in the dtype and on the device of `cutoff`.

    Raises:
        TypeError, ValueError: as `lowpass_taps`.
    """
    _check_cutoff(cutoff)
    return _sinc_taps(_at_least_float32(cutoff), 25, "hamming", 0.0).unflatten(1, (5, 5)).to(cutoff.dtype)


def _check_cutoff(cutoff: Tensor) -> None:
    if not isinstance(cutoff, Tensor):
        raise TypeError(f"cutoff must be a float tensor (C,), got {describe(cutoff)}; torch.tensor([0.45]) makes one")
    if not cutoff.is_floating_point():
        raise TypeError(f"cutoff must be a float tensor (C,), got {describe(cutoff)}")
    if cutoff.ndim != 1 or cutoff.shape[0] == 0:
        hint = "; one cutoff is cutoff[None]" if cutoff.ndim == 0 else ""
        raise ValueError(f"cutoff must be (C,) with at least one channel, got {describe(cutoff)}{hint}")
    if torch.compiler.is_compiling() or cutoff.device.type != "cpu":
        return
    low, high = torch.aminmax(cutoff.detach())
    # NaN fails both comparisons.
    if not bool((low > 0) & (high <= 1)):
        raise ValueError(
            f"cutoff must lie in (0, 1], in units of the Nyquist frequency, got values in "
            f"[{float(low):.4g}, {float(high):.4g}]; an angular frequency is divided by pi"
        )


def _at_least_float32(cutoff: Tensor) -> Tensor:
    return cutoff.to(torch.promote_types(cutoff.dtype, torch.float32))


def _sinc_taps(cutoff: Tensor, taps: int, window: str, beta: float) -> Tensor:
    # c sinc(c m) is sin(pi c m) / (pi m), and c in the centre. torch.sinc would do too, but for its higher derivatives
    # at 0.
    offsets = torch.arange(1, taps // 2 + 1, dtype=cutoff.dtype, device=cutoff.device)
    arm = torch.sin(math.pi * cutoff[:, None] * offsets) / (math.pi * offsets)
    arm = arm * _window(offsets / (taps // 2), window, beta)
    filters = torch.cat([arm.flip(1), cutoff[:, None], arm], dim=1)
    return filters / filters.sum(dim=1, keepdim=True)


def _jinc_taps(cutoff: Tensor, taps: int, window: str, beta: float) -> Tensor:
    half = taps // 2
    offsets = torch.arange(half + 1, dtype=cutoff.dtype, device=cutoff.device)
    radius = torch.hypot(offsets[:, None], offsets)
    # The window ends at the corner of the kernel, not at the middle of its sides: no tap is cut off, and for the same
    # number of taps the transition is narrower (5x5 under Hamming at half of Nyquist: 11.3 % of white noise aliased
    # instead of 23.1 %).
    quarter = _jinc(cutoff, radius, points=taps + 8) * _window(radius / (math.sqrt(2) * half), window, beta)
    mirrored = torch.arange(-half, half + 1, device=cutoff.device).abs()
    filters = quarter.index_select(1, mirrored).index_select(2, mirrored)
    return filters / filters.sum(dim=(1, 2), keepdim=True)


def _jinc(cutoff: Tensor, radius: Tensor, *, points: int) -> Tensor:
    """`c J1(pi c r) / (2 r)` for each cutoff c (C,) and radius r, and its limit pi c^2 / 4 at 0.

    By Bessel's integral (DLMF 10.9.4), J1(x) / x is the mean of cos(x cos(t)) sin(t)^2 over t in (0, pi). The integrand
    is periodic, so that the midpoint rule converges faster than any power: once 4 `points` exceed pi times the largest
    radius by thirty, it is right to the last digits of float64.
    """
    # torch.special.bessel_j1 passes no gradient, and is wrong by up to 5e-7 with a jump at 5; this has neither a branch
    # nor a quotient, and all of its derivatives are right.
    angle = (torch.arange(points, dtype=cutoff.dtype, device=cutoff.device) + 0.5) * (math.pi / (2 * points))
    phase = math.pi * radius[..., None] * torch.cos(angle)
    cutoff = cutoff[:, None, None]
    mean = (torch.cos(cutoff[..., None] * phase) * torch.sin(angle) ** 2).mean(dim=-1)
    return math.pi / 2 * cutoff**2 * mean


def _window(position: Tensor, window: str, beta: float) -> Tensor:
    """The window's right half; `position` runs from 0 in the middle to 1 at the end."""
    if window == "hamming":
        return 0.54 + 0.46 * torch.cos(math.pi * position)
    top = torch.tensor(beta, dtype=position.dtype, device=position.device)
    return torch.special.i0(beta * torch.sqrt((1 - position**2).clamp(min=0))) / torch.special.i0(top)

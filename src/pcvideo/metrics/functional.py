# SPDX-License-Identifier: Apache-2.0
"""Frame metrics in plain torch: one value for each frame, differentiable.

Every function takes `prediction` and `target` of equal shape (..., C, H, W), float, and returns a tensor of shape
(...). Nothing but the frame is reduced: averages over samples and steps are the caller's
([`PerStep`][pcvideo.metrics.PerStep] takes them exactly). 16-bit input is computed in float32. `data_range` is the
distance between the lowest and the highest value a frame may hold; it is never guessed from the data or the dtype, and
its default of 1.0 is this library's contract that frames lie in [0, 1].

SSIM follows Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 13(4),
2004, in the forms scikit-image gives it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pcvideo._checks import check_choice, check_int, check_number
from pcvideo.metrics._errors import FrameTooSmall
from pcvideo.metrics._pairs import working_pair

__all__ = ["mae", "mae_mean", "mse", "mse_mean", "psnr", "ssim", "ssim_columns", "ssim_volume"]

_FRAME = (-3, -2, -1)
# scikit-image cuts its Gaussian at 3.5 sigma, which gives the 11 taps of Wang et al. at sigma 1.5.
_TRUNCATE = 3.5


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error SUMMED over the frame's pixels and channels, as the field reports it for Moving MNIST.

    Args:
        prediction: (..., C, H, W), float.
        target: the same shape.

    Returns:
        (...), one sum per frame; `mse_mean` is this divided by C * H * W.

    Raises:
        TypeError: not tensors, or not floating point.
        ValueError: the shapes differ, or have fewer than three axes.
    """
    prediction, target = working_pair(prediction, target)
    return (prediction - target).square().sum(_FRAME)


def mse_mean(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error averaged over the frame's pixels and channels. Arguments, result and errors as for `mse`."""
    prediction, target = working_pair(prediction, target)
    return (prediction - target).square().mean(_FRAME)


def mae(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute error SUMMED over the frame's pixels and channels. Arguments, result and errors as for `mse`."""
    prediction, target = working_pair(prediction, target)
    return (prediction - target).abs().sum(_FRAME)


def mae_mean(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute error averaged over the frame's pixels and channels. Arguments, result and errors as for `mse`."""
    prediction, target = working_pair(prediction, target)
    return (prediction - target).abs().mean(_FRAME)


def psnr(prediction: Tensor, target: Tensor, *, data_range: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio of each frame in decibels, over all its channels together.

    Identical frames give `inf`, and a mean over frames that holds one is `inf` too: nothing is capped here.

    Args:
        prediction: (..., C, H, W), float.
        target: the same shape.
        data_range: highest minus lowest possible value; 1.0 for frames in [0, 1].

    Returns:
        (...), 10 log10(data_range**2 / mse_mean).

    Raises:
        TypeError: not tensors, or not floating point.
        ValueError: the shapes differ, or have fewer than three axes; `data_range` is not positive.
    """
    peak = _check_positive("data_range", data_range)
    return 10 * torch.log10(peak**2 / mse_mean(prediction, target))


def ssim(
    prediction: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    window: Literal["gaussian", "uniform"] = "gaussian",
    window_size: int | None = None,
    sigma: float = 1.5,
    sample_covariance: bool = False,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Tensor:
    """Structural similarity of each frame: the mean over its SSIM map, per channel, then over channels.

    The map is taken where the whole window lies inside the frame, which is what scikit-image averages over too.
    The defaults are Wang et al. 2004 (`gaussian_weights=True, sigma=1.5, use_sample_covariance=False` in
    scikit-image); `window="uniform", sample_covariance=True` is scikit-image's own default.

    Args:
        prediction: (..., C, H, W), float, any number of channels.
        target: the same shape.
        data_range: highest minus lowest possible value; 1.0 for frames in [0, 1].
        window: weights of the window, `"gaussian"` or `"uniform"`.
        window_size: taps along each axis, odd; None takes 7 for `"uniform"`, and for `"gaussian"` the taps within
            3.5 sigma, 11 at sigma 1.5. A Gaussian cut elsewhere is normalised to a sum of one.
        sigma: standard deviation of the Gaussian in pixels; the uniform window has none.
        sample_covariance: divide variances by N - 1 instead of N, N being the taps of the window.
        k1: stabilises the luminance term.
        k2: stabilises the contrast and structure term.

    Returns:
        (...), at most 1; identical frames give 1.

    Raises:
        TypeError: not tensors, or not floating point; a number of the wrong kind.
        ValueError: the shapes differ; an option is out of range; the frame is smaller than the window
            (`FrameTooSmall`).
    """
    check_choice("window", window, ("gaussian", "uniform"))
    taps = _window_taps(window, window_size, sigma)
    prediction, target = working_pair(prediction, target)
    if min(prediction.shape[-2:]) < len(taps):
        raise FrameTooSmall(
            f"ssim needs frames of at least {len(taps)}x{len(taps)} pixels for its window, got "
            f"{prediction.shape[-2]}x{prediction.shape[-1]}; pass a smaller odd window_size"
        )
    similarity = _similarity_map(
        prediction, target, taps, (-2, -1), sample_covariance, _stabilisers(data_range, k1, k2)
    )
    return similarity.mean(_FRAME)


def ssim_columns(prediction: Tensor, target: Tensor, *, data_range: float = 1.0, window_size: int = 7) -> Tensor:
    """SSIM as the published test scripts of MSPN (grey) and PPNV2 come to compute it: on columns, in one dimension.

    Those scripts hand scikit-image a single (H, W) plane with the multichannel flag, so that every column counts as a
    channel, and the window (uniform, sample covariance) runs along the height alone. For natural images the result
    lies a few hundredths from `ssim`. Only for comparing with figures published that way.

    Args:
        prediction: (..., C, H, W), float; each channel is taken as a plane, and planes are averaged.
        target: the same shape.
        data_range: highest minus lowest possible value; 1.0 for frames in [0, 1].
        window_size: taps along the height, odd.

    Returns:
        (...), at most 1.

    Raises:
        TypeError: not tensors, or not floating point.
        ValueError: the shapes differ; an option is out of range; the frame is lower than the window (`FrameTooSmall`).
    """
    taps = _window_taps("uniform", window_size, 1.0)
    prediction, target = working_pair(prediction, target)
    if prediction.shape[-2] < len(taps):
        raise FrameTooSmall(
            f"ssim_columns needs frames at least {len(taps)} pixels high, got {prediction.shape[-2]}; "
            f"pass a smaller odd window_size"
        )
    return _similarity_map(prediction, target, taps, (-2,), True, _stabilisers(data_range, 0.01, 0.03)).mean(_FRAME)


def ssim_volume(
    prediction: Tensor, target: Tensor, *, data_range: float = 1.0, window_size: int = 11, sigma: float = 1.5
) -> Tensor:
    """SSIM as frame interpolation reports it: a Gaussian window in three dimensions, with the colours as the depth.

    The published evaluation of WaveletVFI, and of many interpolators since RIFE (arXiv 2011.06294). The window goes
    over rows, columns and channels together; what it lacks beyond the border repeats the last pixel, and the mean goes
    over the whole frame. Figures lie above those of `ssim`. Only for comparing with figures published that way.

    Args:
        prediction: (..., C, H, W), float.
        target: the same shape.
        data_range: highest minus lowest possible value; 1.0 for frames in [0, 1].
        window_size: taps along each axis, odd.
        sigma: of the Gaussian.

    Returns:
        (...), at most 1.

    Raises:
        TypeError: not tensors, or not floating point.
        ValueError: the shapes differ; an option is out of range.
    """
    taps = _window_taps("gaussian", window_size, sigma)
    prediction, target = working_pair(prediction, target)
    leading, half = prediction.shape[:-3], len(taps) // 2
    volumes = [frames.reshape(-1, 1, *frames.shape[-3:]) for frames in (prediction, target)]
    one, other = (F.pad(volume, (half,) * 6, mode="replicate") for volume in volumes)
    similarity = _similarity_map(one, other, taps, _FRAME, False, _stabilisers(data_range, 0.01, 0.03))
    return similarity.mean(_FRAME).reshape(leading)


def _similarity_map(
    prediction: Tensor,
    target: Tensor,
    taps: list[float],
    axes: tuple[int, ...],
    sample_covariance: bool,
    stabilisers: tuple[float, float],
) -> Tensor:
    """The SSIM map (Wang et al. 2004, Eq. 13) with a separable window along `axes`, where the window fits."""
    moments = torch.stack((prediction, target, prediction**2, target**2, prediction * target))
    for axis in axes:
        moments = _correlate(moments, taps, axis)
    mean_p, mean_t, square_p, square_t, product = moments.unbind()
    count = len(taps) ** len(axes)
    # A window of one tap has no sample variance; its plain one is zero, and scaling leaves it there.
    scale = count / (count - 1) if sample_covariance and count > 1 else 1.0
    variances = scale * (square_p - mean_p**2 + square_t - mean_t**2)
    covariance = scale * (product - mean_p * mean_t)
    c1, c2 = stabilisers
    numerator = (2 * mean_p * mean_t + c1) * (2 * covariance + c2)
    return numerator / ((mean_p**2 + mean_t**2 + c1) * (variances + c2))


def _correlate(maps: Tensor, taps: list[float], axis: int) -> Tensor:
    """Correlate with `taps` along one axis, where all taps fit.

    Shifted additions instead of a convolution: neither TF32 nor autocast can lower their precision, and the variances
    are differences of nearly equal numbers.
    """
    length = maps.shape[axis] - len(taps) + 1
    total = maps.narrow(axis, 0, length) * taps[0]
    for shift, tap in enumerate(taps[1:], start=1):
        total = torch.add(total, maps.narrow(axis, shift, length), alpha=tap)
    return total


def _window_taps(window: str, window_size: int | None, sigma: float) -> list[float]:
    """The window's weights along one axis, with a sum of one."""
    sigma = _check_positive("sigma", sigma)
    if window_size is None:
        window_size = 7 if window == "uniform" else 2 * int(_TRUNCATE * sigma + 0.5) + 1
    size = check_int("window_size", window_size)
    if size % 2 == 0:
        raise ValueError(f"window_size must be odd, got {size}; take {size - 1} or {size + 1}")
    if window == "uniform":
        return [1 / size] * size
    weights = [math.exp(-0.5 * ((index - size // 2) / sigma) ** 2) for index in range(size)]
    return [weight / math.fsum(weights) for weight in weights]


def _stabilisers(data_range: float, k1: float, k2: float) -> tuple[float, float]:
    """C1 and C2 of the SSIM formula."""
    peak = _check_positive("data_range", data_range)
    k1, k2 = check_number("k1", k1, minimum=0), check_number("k2", k2, minimum=0)
    return (k1 * peak) ** 2, (k2 * peak) ** 2


def _check_positive(name: str, value: float) -> float:
    """`value` as a finite number above zero."""
    number = check_number(name, value, minimum=0)
    if number == 0:
        raise ValueError(f"{name} must be above zero, got {value}")
    return number

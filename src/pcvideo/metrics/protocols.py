# SPDX-License-Identifier: Apache-2.0
"""Evaluation protocols by name: the same pair of clips scores differently in each, so no figure goes without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from torch import Tensor

from pcvideo._checks import check_choice
from pcvideo.metrics.functional import mae, mae_mean, mse, mse_mean, psnr, ssim, ssim_columns, ssim_volume
from pcvideo.metrics.lpips import lpips
from pcvideo.metrics.volumes import jaccard_distance, voxel_error

__all__ = ["PROTOCOLS", "Metric", "Protocol", "get_protocol"]

Metric = Callable[[Tensor, Tensor], Tensor]
"""`(prediction, target)`, both (B, T, C, H, W), to one value per frame, (B, T)."""


@dataclass(frozen=True)
class Protocol:
    """A named set of metrics, each with every choice that changes its value already made.

    Args:
        name: what reports call it.
        metrics: metric by name; each maps (B, T, C, H, W) pairs in [0, 1] to (B, T) values.
        description: the choices, for reports and help texts.
    """

    name: str
    metrics: Mapping[str, Metric]
    description: str


def get_protocol(name: str | Protocol) -> Protocol:
    """The protocol of that name; a `Protocol` is handed through.

    Raises:
        ValueError: no protocol has that name; the message gives the nearest.
    """
    if isinstance(name, Protocol):
        return name
    return PROTOCOLS[check_choice("protocol", name, tuple(PROTOCOLS))]


def _on_clamped(metric: Metric, prediction: Tensor, target: Tensor) -> Tensor:
    """`metric` of the prediction clamped to [0, 1]; the target is taken as it is."""
    return metric(prediction.clamp(0, 1), target)


def _percent(metric: Metric, prediction: Tensor, target: Tensor) -> Tensor:
    """100 times `metric`."""
    return 100 * metric(prediction, target)


def _mean_over_planes(metric: Metric, prediction: Tensor, target: Tensor) -> Tensor:
    """`metric` of each channel by itself, averaged over channels."""
    return metric(prediction.unsqueeze(-3), target.unsqueeze(-3)).mean(-1)


_skimage_ssim = partial(ssim, window="uniform", window_size=7, sample_covariance=True)

_STANDARD = Protocol(
    name="standard",
    metrics={
        "mse": partial(_on_clamped, mse),
        "mse_mean": partial(_on_clamped, mse_mean),
        "mae": partial(_on_clamped, mae),
        "psnr": partial(_on_clamped, psnr),
        "ssim": partial(_on_clamped, ssim),
        "lpips": partial(_on_clamped, lpips),
    },
    description=(
        "Predictions clamped to [0, 1]. MSE and MAE are sums over a frame's pixels and channels; mse_mean is the "
        "average. PSNR per frame, data range 1. SSIM of Wang et al. 2004: Gaussian 11x11, sigma 1.5, population "
        "covariance, data range 1. LPIPS 0.1, AlexNet."
    ),
)

# Facts: arXiv 2212.11642 and its published evaluation code. That code read frames as BGR, which moves LPIPS alone;
# here they are RGB. Its grey SSIM goes over columns during validation (see ssim_columns), not in the test this follows.
_MSPN = Protocol(
    name="mspn",
    metrics={
        "mse": mse,
        "mse_mean": mse_mean,
        "psnr": psnr,
        "ssim": _skimage_ssim,
        "lpips_x100": partial(_percent, lpips),
    },
    description=(
        "As in the MSPN paper (arXiv 2212.11642): predictions neither clamped nor quantised. MSE is the sum over a "
        "frame's pixels and channels. PSNR per frame, data range 1. SSIM with scikit-image's defaults: uniform 7x7, "
        "sample covariance, data range 1. LPIPS 0.1, AlexNet, times 100."
    ),
)

# Facts: PPNV2's published test script. It scores clips one at a time and drops the axis of one, so that its loop over
# the samples of a batch runs over a frame's colour planes; each plane goes to scikit-image with the multichannel flag.
_PPNV2 = Protocol(
    name="ppnv2",
    metrics={
        "mse": mse,
        "mse_mean": mse_mean,
        "psnr": partial(_mean_over_planes, psnr),
        "ssim": ssim_columns,
        "lpips_x100": partial(_percent, lpips),
    },
    description=(
        "As PPNV2's published test script (arXiv 2301.05421) comes to compute them: predictions neither clamped nor "
        "quantised. MSE is the sum over a frame's pixels and channels. PSNR per colour plane, averaged over planes, "
        "data range 1. SSIM along columns alone: scikit-image's defaults (uniform 7, sample covariance, data range 1) "
        "on each column of each plane; mspn has the usual one. LPIPS 0.1, AlexNet, times 100."
    ),
)

# Facts: openstl/core/metrics.py, whose requirements pin scikit-image to at most 0.19.3; that version takes the data
# range of float images from their dtype, [-1, 1], hence 2. Its first releases computed PSNR on frames cut to uint8,
# with differences and squares that wrap at 256: figures from then cannot be compared with any PSNR.
_OPENSTL = Protocol(
    name="openstl",
    metrics={
        "mse": mse,
        "mse_mean": mse_mean,
        "mae": mae,
        "mae_mean": mae_mean,
        "psnr": partial(_on_clamped, psnr),
        "ssim": partial(_on_clamped, partial(_skimage_ssim, data_range=2.0)),
        "lpips": partial(_on_clamped, lpips),
    },
    description=(
        "As OpenSTL computes them on data in [0, 1]: MSE and MAE are sums over a frame's pixels and channels of the "
        "unclamped prediction; the others take it clamped to [0, 1]. PSNR per frame, data range 1, unquantised. SSIM "
        "with scikit-image 0.19's defaults for float images: uniform 7x7, sample covariance, data range 2. LPIPS 0.1, "
        "AlexNet."
    ),
)

# Facts: the published evaluation script. It read frames as BGR, which moves neither figure.
_WAVELET_VFI = Protocol(
    name="wavelet_vfi",
    metrics={"psnr": psnr, "ssim": ssim_volume},
    description=(
        "As the published evaluation of WaveletVFI (arXiv 2309.03508), and that of many interpolators: frames as the "
        "network gives them, clamped but not quantised. PSNR per frame, data range 1. SSIM with a Gaussian window of "
        "11x11x11, sigma 1.5, colours as the depth, borders repeated, mean over the whole frame."
    ),
)

# Facts: the published validation of both networks of the 4-D cavities. The single-step test of ConvLSTM3D pools a
# sequence instead, which is `jaccard_distance_pooled`.
_VOXELS = Protocol(
    name="voxels",
    metrics={"jaccard": jaccard_distance, "mse_mean": voxel_error},
    description=(
        "As in the project of the 4-D cavities (arXiv 2306.14442 has the data): the Jaccard distance of each frame, a "
        "voxel set where its value is above 0.5, two empty frames at distance 0; and the squared error of the "
        "probabilities, averaged over voxels. Means are over frames and scenes. For images and volumes."
    ),
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {p.name: p for p in (_STANDARD, _MSPN, _PPNV2, _OPENSTL, _WAVELET_VFI, _VOXELS)}
)
"""Every protocol by name: `standard`, `mspn`, `ppnv2`, `openstl`, `wavelet_vfi`, `voxels`."""

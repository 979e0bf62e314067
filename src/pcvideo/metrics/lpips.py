# SPDX-License-Identifier: Apache-2.0
"""LPIPS, the learned perceptual distance of Zhang et al. (arXiv 1801.03924), version 0.1, through the `lpips` package.

The package brings the linear weights; the backbone's ImageNet weights come from torchvision's server at first use.
Importing this module touches neither. Where the backbone cannot be had, the call fails with `MetricUnavailable`.
"""

from __future__ import annotations

import http.client
import logging
import os
import pickle
import socket
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from pcvideo._checks import check_choice
from pcvideo._optional import require
from pcvideo.metrics._errors import FrameTooSmall, MetricUnavailable
from pcvideo.metrics._pairs import working_pair

__all__ = ["LPIPS", "lpips"]

Backbone = Literal["alex", "vgg", "squeeze"]
Network = Callable[[Tensor, Tensor], Tensor]

_logger = logging.getLogger(__name__)
_BACKBONES = ("alex", "vgg", "squeeze")
_WEIGHTS = {
    "alex": "AlexNet_Weights.IMAGENET1K_V1",
    "vgg": "VGG16_Weights.IMAGENET1K_V1",
    "squeeze": "SqueezeNet1_1_Weights.IMAGENET1K_V1",
}
# Below these sides a pooling layer of the backbone has nothing left to pool.
_SMALLEST_SIDE = {"alex": 31, "vgg": 16, "squeeze": 17}
_OFFLINE_VARIABLES = ("PCVIDEO_OFFLINE", "HF_HUB_OFFLINE")
_CONNECT_SECONDS = 10.0
# A download that failed is not tried again for this long, so that three reports in a row wait once, not thrice.
_RETRY_SECONDS = 60.0
# Frames that pass the backbone at a time: bounds the memory, whatever the batch and the horizon.
_CHUNK = 64

_failures: dict[str, tuple[float, str]] = {}
_shared: dict[str, LPIPS] = {}


class LPIPS:
    """The distance as an object that keeps its network; built on the first call, not before.

    Not an `nn.Module`: whoever holds it gets no parameters and no state-dict entries from it. The network is frozen,
    in eval mode, follows the device of its input, and runs in full precision under autocast too.

    Args:
        backbone: `"alex"` (the usual one for evaluation), `"vgg"` (the usual one for training) or `"squeeze"`.
        network: in place of the packaged one: any callable that maps two batches (N, 3, H, W) in [-1, 1] to N values.
            A module is frozen and put in eval mode, in place.

    Raises:
        ValueError: `backbone` is not one of the three.
        TypeError: `network` cannot be called.
    """

    def __init__(self, backbone: Backbone = "alex", *, network: Network | None = None) -> None:
        check_choice("backbone", backbone, _BACKBONES)
        if network is not None and not callable(network):
            raise TypeError(f"network must be callable on two batches of frames, got {type(network).__name__}")
        self.backbone = backbone
        self._network = _freeze(network) if network is not None else None
        self._smallest_side = _SMALLEST_SIDE[backbone] if network is None else 1

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Distance of each frame, differentiable.

        Args:
            prediction: (..., C, H, W), float, [0, 1] (not clamped), C = 3 in RGB order, or 1, which is repeated.
            target: the same shape.

        Returns:
            (...), one distance per frame; 0 for identical frames.

        Raises:
            TypeError, ValueError: as for `mse`; another number of channels; frames too small for the backbone
                (`FrameTooSmall`).
            MetricUnavailable: the backbone's weights are not here and cannot be had.
            ImportError: `lpips` or torchvision is missing, or does not match the installed torch.
        """
        prediction, target = working_pair(prediction, target)
        channels, height, width = prediction.shape[-3:]
        if channels not in (1, 3):
            raise ValueError(f"lpips takes frames of 1 or 3 channels, got {channels}")
        if min(height, width) < self._smallest_side:
            raise FrameTooSmall(
                f"lpips with the backbone {self.backbone!r} needs frames of at least {self._smallest_side} pixels a "
                f"side, got {height}x{width}; backbone='vgg' takes {_SMALLEST_SIDE['vgg']}"
            )
        network, dtype = self._network_for(prediction)
        first, second = (_rescale(frames).to(dtype).split(_CHUNK) for frames in (prediction, target))
        with torch.autocast(prediction.device.type, enabled=False):
            values = [network(*pair).reshape(-1) for pair in zip(first, second, strict=True)]
        return torch.cat(values).reshape(prediction.shape[:-3])

    def _network_for(self, frames: Tensor) -> tuple[Network, torch.dtype]:
        """The network, moved to the device of `frames`, and the precision it computes in."""
        # Weights made or moved in inference mode could never serve a loss afterwards.
        with torch.inference_mode(False):
            if self._network is None:
                self._network = _freeze(_load_network(self.backbone))
            if not isinstance(self._network, nn.Module):
                return self._network, frames.dtype
            self._network.to(frames.device)
        return self._network, next((weight.dtype for weight in self._network.parameters()), frames.dtype)


def lpips(prediction: Tensor, target: Tensor, backbone: Backbone = "alex") -> Tensor:
    """LPIPS of each frame with a network that is kept for the process; see `LPIPS` for arguments and errors."""
    check_choice("backbone", backbone, _BACKBONES)
    if backbone not in _shared:
        _shared[backbone] = LPIPS(backbone)
    return _shared[backbone](prediction, target)


def _rescale(frames: Tensor) -> Tensor:
    """(..., C, H, W) in [0, 1] to (N, 3, H, W) in [-1, 1]."""
    flat = frames.reshape(-1, *frames.shape[-3:])
    return (2 * flat - 1).expand(-1, 3, -1, -1)


def _freeze(network: Network) -> Network:
    if isinstance(network, nn.Module):
        network.eval().requires_grad_(False)
    return network


def _load_network(backbone: str) -> nn.Module:
    """The packaged network with its published weights."""
    package = require("lpips", purpose="the LPIPS metric")
    path = _backbone_file(backbone)
    # The constructors draw random weights before they load; the caller's random stream must not notice.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            network: nn.Module = package.LPIPS(net=backbone, verbose=False)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise MetricUnavailable(
                f"LPIPS: its backbone file {path} cannot be read ({error}); delete it, and it is downloaded again"
            ) from error
    return network


def _backbone_file(backbone: str) -> Path:
    """Path of the backbone's weights in torch hub's cache, downloaded where they are missing."""
    models = require("torchvision.models", purpose="the backbone of the LPIPS metric")
    url = models.get_weight(_WEIGHTS[backbone]).url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if path.is_file():
        return path
    mend = f"put {url} at {path}, or pass network= to LPIPS"
    for variable in _OFFLINE_VARIABLES:
        if os.environ.get(variable, "").strip().upper() in ("1", "ON", "YES", "TRUE"):
            raise MetricUnavailable(f"LPIPS: its backbone is not at {path}, and {variable} forbids the network; {mend}")
    failed_at, reason = _failures.get(url, (float("-inf"), ""))
    if time.monotonic() - failed_at >= _RETRY_SECONDS:
        reason = _download(url, path)
    if reason:
        raise MetricUnavailable(f"LPIPS: its backbone cannot be downloaded ({reason}); {mend}")
    return path


def _download(url: str, path: Path) -> str:
    """Fetch `url` to `path`; returns why it failed, or an empty string.

    torch.hub would do this inside torchvision's constructor, but without a time limit and with lines on stderr.
    """
    _logger.info("downloading the LPIPS backbone from %s", url)
    hash_prefix = path.stem.rpartition("-")[2]
    # urlopen inside torch.hub takes no limit of its own, so the process-wide one is lent for the while.
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_CONNECT_SECONDS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix, progress=False)
    # OSError covers URLError, timeouts and a full disk; RuntimeError is torch.hub's word for a wrong checksum.
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
        _failures[url] = (time.monotonic(), reason)
        return reason
    finally:
        socket.setdefaulttimeout(previous)
    _failures.pop(url, None)
    return ""

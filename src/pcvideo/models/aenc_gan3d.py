# SPDX-License-Identifier: Apache-2.0
"""AEncGAN3D: an encoder of volumes and a generator of the next one, to be trained against a critic.

Published with the 4-D cavities (github.com/Marchine85/4D-Predictive-GAN-ConvLSTM, data of arXiv 2306.14442): from one
volume or from three, pre-residual or classic. Its parts stand in `models/volume_networks.py`.

We differ where the published code is wrong: its critic is shown the target beside each candidate, here the input
(`condition="input"`); "target" is as published. The codes of past volumes are kept instead of computed three times.
Latent noise, by which one past can have several futures, is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pcvideo._checks import check_choice, check_int, check_number, describe
from pcvideo.models._base import Predictor
from pcvideo.models.volume_networks import (
    ARCHITECTURES,
    VolumeCritic,
    VolumeEncoder,
    VolumeGenerator,
    check_volume_size,
)

__all__ = ["AEncGAN3D", "AEncGAN3DState"]


class AEncGAN3DState(NamedTuple):
    """What is carried: the anticipation of the volume to come, the codes of those before, oldest first, and the noise."""

    prediction: Tensor
    codes: tuple[Tensor, ...]
    noise: Tensor


class AEncGAN3D(Predictor):
    """An encoder makes a code of each volume, a generator the next volume of the newest codes; sizes are fixed.

    Args:
        in_channels: channels C of a volume.
        size: (depth, height, width) of all volumes, each divisible by 4: the codes come from a linear layer over all
            that is left.
        context: of how many volumes the codes are looked at, 1 or 3 as published. Until so many have come, the newest
            volume is the prediction.
        architecture: "preres", pre-activated residual blocks, or "classic", plain convolutions.
        condition: what a critic made by `make_critic` is shown beside a candidate: "input", the volumes looked at, or
            "target", the true next one, as published.
        width: channels of the widest layer; the others have a half, a quarter and an eighth.
        code_channels: numbers of a volume's code.
        noise_channels: normal random numbers beside the codes. In training they are drawn once per clip; a prediction
            takes zeros, and `sample` draws.
        dropout: in the encoder, in training.
        clamp: as in every predictor; probabilities are in [0, 1] anyway.

    Shape: `model(frames, horizon)` takes (B, T, C, D, H, W) to (B, horizon, C, D, H, W).

    Raises:
        TypeError, ValueError: an argument out of its range or of another type; the message names it.
    """

    spatial_dims = 3

    def __init__(
        self,
        *,
        in_channels: int = 1,
        size: Sequence[int] = (16, 16, 16),
        context: int = 1,
        architecture: str = "preres",
        condition: str = "input",
        width: int = 256,
        code_channels: int = 256,
        noise_channels: int = 0,
        dropout: float = 0.2,
        clamp: bool = False,
    ) -> None:
        super().__init__(in_channels=in_channels, clamp=clamp)
        self.size = check_volume_size(size)
        self.context = check_int("context", context)
        self.architecture = check_choice("architecture", architecture, ARCHITECTURES)
        self.condition = check_choice("condition", condition, ("input", "target"))
        self.width = check_int("width", width)
        self.code_channels = check_int("code_channels", code_channels)
        self.noise_channels = check_int("noise_channels", noise_channels, minimum=0)
        self.dropout = check_number("dropout", dropout, minimum=0, maximum=0.999)
        common = {"architecture": architecture, "size": self.size, "width": width}
        self.encoder = VolumeEncoder(in_channels, code_channels, dropout=dropout, **common)
        self.generator = VolumeGenerator(code_channels * context + noise_channels, in_channels, **common)

    def init_state(self, like: Tensor) -> AEncGAN3DState:
        """An empty state for volumes of the form of `like` (B, C, D, H, W); in training with noise.

        Raises:
            ValueError: `like` is not of the network's size.
        """
        if tuple(like.shape[2:]) != self.size:
            raise ValueError(
                f"frames must be {'x'.join(map(str, self.size))}, the size that this network was built for, got "
                f"{describe(like)}; build one with size={tuple(like.shape[2:])}"
            )
        noise = like.new_zeros(like.shape[0], self.noise_channels)
        return AEncGAN3DState(torch.zeros_like(like), (), noise.normal_() if self.training else noise)

    def step(self, frame: Tensor | None, state: AEncGAN3DState) -> tuple[list[Tensor], AEncGAN3DState]:
        """Take in a volume (B, C, D, H, W), or the prediction itself if None, and predict the next one."""
        frame = state.prediction if frame is None else frame
        codes = (*state.codes, self.encoder(frame))
        prediction = frame
        if len(codes) == self.context:
            logits = self.generator(torch.cat([*codes, state.noise], dim=1))
            # In 16 bit a probability near 1 would lose what the losses see.
            wide = torch.promote_types(logits.dtype, torch.float32)
            prediction = torch.sigmoid(logits.to(wide)).to(frame.dtype)
            codes = codes[1:]
        return [prediction], AEncGAN3DState(prediction, codes, state.noise)

    @torch.no_grad()
    def sample(self, frames: Tensor, horizon: int, *, generator: torch.Generator | None = None) -> Tensor:
        """One of the futures that noise stands for; without `noise_channels` it is `model(frames, horizon)`.

        Args:
            frames: (B, T, C, D, H, W), as for `forward`.
            horizon: how many volumes, at least 1.
            generator: of the noise; None is PyTorch's own.

        Raises:
            TypeError, ValueError: as `forward`.
        """
        horizon = check_int("horizon", horizon)
        state = self.init_state(frames[:, 0].to(self.dtype))
        drawn = torch.randn(state.noise.shape, generator=generator).to(state.noise)
        state, future = state._replace(noise=drawn), []
        for time in range(frames.shape[1] + horizon - 1):
            frame = frames[:, time].to(self.dtype) if time < frames.shape[1] else None
            (prediction,), state = self.step(frame, state)
            if time >= frames.shape[1] - 1:
                future.append(self.to_frames(prediction).to(frames.dtype))
        return torch.stack(future, dim=1)

    def make_critic(self, *, dropout: float | None = None) -> VolumeCritic:
        """A fresh critic that fits: of this size, width, architecture and condition."""
        seen = self.in_channels * (1 + (self.context if self.condition == "input" else 1))
        return VolumeCritic(
            seen,
            architecture=self.architecture,
            size=self.size,
            width=self.width,
            dropout=self.dropout if dropout is None else dropout,
        )

    def pad(self, frames: Tensor) -> Tensor:
        """Repeat the last slices of smaller volumes (..., C, D, H, W) up to the network's size."""
        missing = [wanted - side for side, wanted in zip(frames.shape[-3:], self.size, strict=True)]
        if not any(missing) or min(missing) < 0:
            return frames
        lead = frames.shape[:-4]
        pad = [amount for side in reversed(missing) for amount in (0, side)]
        padded = F.pad(frames.flatten(0, len(lead) - 1) if lead else frames[None], pad, mode="replicate")
        return padded.reshape(*lead, *padded.shape[1:])

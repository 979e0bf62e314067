# SPDX-License-Identifier: Apache-2.0
"""MSPN transcribed step by step from its description, as a yardstick for speed, memory and numbers.

It does what the published algorithm says in the order it says it: all frames first, one list per quantity, the error
update after every step (the last one too, which nothing reads), the dead last merge convolution and scalar created.
Its state-dict keys are the published ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResBlock(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.bottleneck = nn.Sequential(
            nn.Conv2d(i, o, 3, padding=1), nn.LeakyReLU(0.01), nn.Conv2d(o, o, 3, padding=1)
        )
        self.res = nn.Sequential(nn.Conv2d(i, o, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.bottleneck(x) + self.res(x), 0.01)


class UNet(nn.Module):
    def __init__(self, channels: list[int], inputs: int, outputs: int, shared: int) -> None:
        super().__init__()
        self.stages = len(channels) - 1
        down = list(channels)
        up = down[::-1]
        self.scale = nn.Parameter(torch.ones(1))
        self.in_conv = nn.Sequential(nn.Conv2d(inputs, down[0], 5, padding=2), nn.LeakyReLU(0.01))
        for j in range(self.stages):
            encoder = nn.Sequential(ResBlock(down[j], down[j + 1]), nn.MaxPool2d(2), ResBlock(down[j + 1], down[j + 1]))
            decoder = nn.Sequential(
                ResBlock(up[j], up[j + 1]),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
                ResBlock(up[j + 1], up[j + 1]),
            )
            merge = nn.Sequential(nn.Conv2d(2 * up[j + 1], up[j + 1], 3, padding=1), nn.ReLU())
            setattr(self, f"encoder{j}", encoder)
            setattr(self, f"upsample{j}", decoder)
            setattr(self, f"merge_conv{j}", merge)
        if shared:
            self.Merge_Hidden = nn.Sequential(
                nn.Conv2d(up[0] + shared, up[0], 3, padding=1, bias=False), nn.LeakyReLU(0.01)
            )
        self.out_conv = nn.Sequential(nn.Conv2d(2 * down[0], outputs, 3, padding=1))

    def forward(self, x: Tensor, latent: Tensor | None) -> tuple[Tensor, Tensor]:
        features = [self.in_conv(x)]
        for j in range(self.stages):
            features.append(getattr(self, f"encoder{j}")(features[-1]))
        value = features[-1]
        if latent is not None:
            value = self.Merge_Hidden(torch.cat([value, latent], dim=1))
        x = value
        for j in range(self.stages):
            x = torch.cat([getattr(self, f"upsample{j}")(x), features[self.stages - 1 - j]], dim=1)
            x = self.out_conv(x) if j == self.stages - 1 else getattr(self, f"merge_conv{j}")(x)
        return x, value


class Cell(nn.Module):
    def __init__(self, channels: list[int], inputs: int, image: int, hidden: int, shared: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.en_decoder = UNet(channels, inputs + hidden, 4 * hidden, shared)
        self.out_conv = nn.Sequential(nn.Conv2d(hidden, image, 5, padding=2), nn.LeakyReLU(0.01))

    def forward(self, x: Tensor, h: Tensor, c: Tensor, latent: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        gates, value = self.en_decoder(torch.cat([x, h], dim=1), latent)
        i, f, o, g = torch.split(gates, self.hidden, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return self.out_conv(h), h, c, value


class PlainMSPN(nn.Module):
    def __init__(self, *, in_channels: int, levels: int, channels: tuple[int, ...], hidden_channels: int) -> None:
        super().__init__()
        self.levels, self.image, self.hidden = levels, in_channels, hidden_channels
        for level in range(levels):
            own = list(channels[: len(channels) - level])
            top = level == levels - 1
            factor = (2 if level == 0 else 4) + (0 if top else 1)
            cell = Cell(own, factor * in_channels, in_channels, hidden_channels, 0 if top else own[-2])
            setattr(self, self.name(level), cell)

    def name(self, level: int) -> str:
        return "EHcell" if level == 0 else "ELcell" if level == self.levels - 1 else f"ELHcell{level}"

    def forward(self, frames: Tensor, horizon: int, train: bool = False) -> tuple[list[Tensor], Tensor]:
        """In training the last `horizon` frames of the clip are the targets of self-fed steps; else they lie beyond."""
        batch, length, _, height, width = frames.shape
        real = length - horizon if train else length
        sizes = [(height // 2**level, width // 2**level) for level in range(self.levels)]

        def zeros(level: int, channels: int) -> Tensor:
            return frames.new_zeros(batch, channels, *sizes[level])

        every = range(self.levels)
        errors = [zeros(level, 2 * self.image) for level in every]
        predictions = [zeros(level, self.image) for level in every]
        h = [zeros(level, self.hidden) for level in every]
        c = [zeros(level, self.hidden) for level in every]
        out: list[Tensor] = []
        loss = frames.new_zeros(())
        for t in range(real + horizon):
            latent = None
            for level in reversed(every):
                inputs = [errors[level]]
                if level > 0:
                    inputs.append(F.interpolate(errors[level - 1], scale_factor=0.5, mode="nearest"))
                if level < self.levels - 1:
                    upper = predictions[level + 1]
                    inputs.append(F.interpolate(upper, scale_factor=2, mode="bilinear", align_corners=True))
                cell = getattr(self, self.name(level))
                predictions[level], h[level], c[level], latent = cell(
                    torch.cat(inputs, dim=1), h[level], c[level], latent
                )
            if not train and t >= real:
                out.append(predictions[0])
            x = frames[:, t] if t < real else predictions[0]
            for level in every:
                small = F.interpolate(x, size=sizes[level], mode="nearest")
                difference = small - predictions[level]
                errors[level] = torch.cat([F.relu(difference), F.relu(-difference)], dim=1)
                if train and t > 0:
                    target = F.interpolate(frames[:, t], size=sizes[level], mode="nearest")
                    loss = loss + ((predictions[level] - target) ** 2).sum()
        return out, loss

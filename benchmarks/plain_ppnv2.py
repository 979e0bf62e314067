# SPDX-License-Identifier: Apache-2.0
"""PPNV2 transcribed step by step from its description, as a yardstick for speed, memory and numbers.

It does what the published algorithm says in the order it says it: lists with a slot for each level that is None until
the level has begun, taps computed at every call of a filter, zeros inserted and multiplied, the features of every
target encoded even where it is the input, the top level's dead merge and the lowest level's dead factor created. Inputs
and targets are held for two steps only, so a long forecast fills no memory that it could do without.

Its state-dict keys are the published ones; `counterparts` pairs them with those of `PPNV2(legacy=True)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo import PPNV2

SLOPE = 0.01
OURS_TO_PUBLISHED = {
    r"^cells\.(\d+)\.to_gates": r"rnncell\1.conv",
    r"^cells\.(\d+)\.to_output": r"rnncell\1.out_conv",
    r"^merge_errors\.(\d+)": r"MergeError\1",
    r"^merge_inputs\.(\d+)": r"MergeErrorInput\1",
    r"^merge_predictions\.(\d+)": r"MergePred\1",
    r"^up_inputs\.(\d+)": r"UpInput\1",
    r"^up_errors\.(\d+)": r"UpError\1",
    r"^down_predictions\.(\d+)": r"DownPred\1",
    r"^error_mix$": "error_factor",
    r"^(Merge\w+)\.to_scale_shift": r"\1.scale_shift",
    r"^(Merge\w+)\.gain": r"\1.scale_factor",
    r"^(Merge\w+)\.conv": r"\1.DS.0",
    r"^(Up\w+|Down\w+)\.filter\.cutoff_logit": r"\1.cutoff",
    r"^(Up\w+)\.before": r"\1.FE",
    r"^(Down\w+)\.before": r"\1.CST",
    r"^(Up\w+|Down\w+)\.after": r"\1.DS",
    r"^(Down\w+)\.kernel": r"\1.upsample.weight",
}


def convolution(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.LeakyReLU(SLOPE, inplace=True))


class Cell(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        gates = 4 * channels
        self.conv = nn.Sequential(
            nn.Conv2d(2 * channels, gates, 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(gates, gates, 3, padding=1, groups=4),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(gates, gates, 3, padding=1, groups=4),
        )
        self.out_conv = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
        )

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        i, f, o, g = torch.split(self.conv(torch.cat([x, h], dim=1)), x.shape[1], dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return self.out_conv(h), h, c


class Modulate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale_shift = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.scale_factor = nn.Parameter(torch.ones(1))
        self.DS = convolution(channels, channels)

    def forward(self, x: Tensor, modulator: Tensor) -> Tensor:
        scale, shift = torch.split(self.scale_shift(modulator), x.shape[1], dim=1)
        return self.DS(x * (torch.sigmoid(scale) * self.scale_factor) + torch.tanh(shift))


class LowPass(nn.Module):
    """What has a learnable cutoff for each channel, q."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cutoff = nn.Parameter(torch.full((channels, 1), 2.0))

    def low_pass(self, x: Tensor, stride: int) -> Tensor:
        cutoff = torch.sigmoid(F.leaky_relu(self.cutoff, SLOPE))
        place = torch.arange(25, dtype=x.dtype, device=x.device)
        window = 0.54 - 0.46 * torch.cos(2 * torch.pi * place / 24)
        taps = cutoff * torch.sinc(cutoff * (place - 12)) * window
        taps = (taps / taps.sum(dim=1, keepdim=True)).view(-1, 1, 5, 5)
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), taps, stride=stride, groups=x.shape[1])


class Up(LowPass):
    def __init__(self, i: int, o: int) -> None:
        super().__init__(o)
        self.FE, self.DS = convolution(i, o), convolution(o, o)

    def forward(self, x: Tensor) -> Tensor:
        return self.DS(self.low_pass(self.FE(x), stride=2))


class Down(LowPass):
    def __init__(self, i: int, o: int) -> None:
        super().__init__(i)
        self.CST, self.DS = convolution(i, i), convolution(i, o)
        # Its weights are copied from ours.
        self.upsample = nn.Conv2d(i, i, 7, groups=i, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.CST(x)
        batch, channels, height, width = x.shape
        spaced = x.new_zeros(batch, channels, 2 * height, 2 * width)
        spaced[:, :, ::2, ::2] = x
        x = F.leaky_relu(self.upsample(F.pad(spaced, (3, 3, 3, 3), mode="reflect")), SLOPE)
        return self.DS(self.low_pass(x, stride=1))


class PlainPPNV2(nn.Module):
    """The published network with `merge="modulate"`; its weights are those of `model`, a `PPNV2(legacy=True)`."""

    def __init__(self, model: PPNV2) -> None:
        super().__init__()
        self.channels = channels = model.channels
        self.levels = len(channels)
        self.error_factor = nn.Parameter(torch.ones(self.levels))
        for level, own in enumerate(channels):
            setattr(self, f"rnncell{level}", Cell(own))
            setattr(self, f"MergeError{level}", convolution(2 * own, own))
            setattr(self, f"MergeErrorInput{level}", Modulate(own))
            setattr(self, f"MergePred{level}", Modulate(own))
            if level < self.levels - 1:
                setattr(self, f"UpInput{level}", Up(own, channels[level + 1]))
                setattr(self, f"UpError{level}", Up(2 * own, channels[level + 1]))
                setattr(self, f"DownPred{level}", Down(channels[level + 1], own))
        self.to(model.dtype)
        with torch.no_grad():
            for _, ours, own in counterparts(model, self):
                own.copy_(ours)

    def part(self, name: str, level: int) -> nn.Module:
        return getattr(self, f"{name}{level}")

    def forward(self, frames: Tensor, horizon: int, train: bool = False) -> tuple[list[Tensor], Tensor]:
        """In training the last `horizon` frames of the clip are the targets of self-fed steps; else they lie beyond."""
        frames = frames.to(self.error_factor.dtype)
        batch, length, _, height, width = frames.shape
        real = length - horizon if train else length
        every = range(self.levels)

        def zeros(factor: int) -> list[Tensor]:
            return [
                frames.new_zeros(batch, factor * own, height >> level, width >> level)
                for level, own in enumerate(self.channels)
            ]

        errors, h, c = zeros(2), zeros(1), zeros(1)
        inputs, targets = self.slots(frames[:, 0]), self.slots(frames[:, 0] if train else None)
        out: list[Tensor] = []
        loss = frames.new_zeros(())
        for t in range(real + horizon - 1):
            following = self.slots(frames[:, t + 1] if t + 1 < real else None)
            following_targets = self.slots(frames[:, t + 1] if train else None)
            of_step = 0.2 if t == 0 else 1.0
            predictions: list[Tensor | None] = [None for _ in every]
            for level in reversed(every):
                x, target = inputs[level], targets[level]
                if x is None:
                    continue
                prediction, h[level], c[level] = self.predict(level, x, errors, predictions, h, c)
                predictions[level] = prediction
                if level == 0 and t >= real - 1:
                    following[0] = frame = F.relu(prediction)
                    out.append(frame)
                if train and level > 0 and t >= real and target is not None:
                    loss = loss + of_step / self.levels * ((x - target) ** 2).sum() / batch
            loss = loss + of_step * self.correct(predictions, errors, following, following_targets)
            inputs, targets = following, following_targets
        return out, loss

    def slots(self, frame: Tensor | None) -> list[Tensor | None]:
        return [frame, *(None for _ in range(self.levels - 1))]

    def predict(
        self,
        level: int,
        x: Tensor,
        errors: list[Tensor],
        predictions: list[Tensor | None],
        h: list[Tensor],
        c: list[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """From the top down: one level's prediction and its cell's new state."""
        error = self.part("MergeError", level)(errors[level])
        if level > 0:
            share = torch.sigmoid(self.error_factor[level])
            error = share * error + (1 - share) * self.part("UpError", level - 1)(errors[level - 1])
        x = self.part("MergeErrorInput", level)(x, error)
        prediction, hidden, cell = self.part("rnncell", level)(x, h[level], c[level])
        upper = predictions[level + 1] if level + 1 < self.levels else None
        if upper is not None:
            prediction = self.part("MergePred", level)(self.part("DownPred", level)(upper), prediction)
        return prediction, hidden, cell

    def correct(
        self,
        predictions: list[Tensor | None],
        errors: list[Tensor],
        inputs: list[Tensor | None],
        targets: list[Tensor | None],
    ) -> Tensor:
        """From the bottom up: fill in the next step's errors, inputs and targets; what the predictions cost."""
        loss = errors[0].new_zeros(())
        for level, prediction in enumerate(predictions):
            x, target = inputs[level], targets[level]
            if prediction is None or x is None:
                continue
            errors[level] = torch.cat([F.relu(prediction - x), F.relu(x - prediction)], dim=1)
            if level < self.levels - 1:
                inputs[level + 1] = self.part("UpInput", level)(x)
                if target is not None:
                    targets[level + 1] = self.part("UpInput", level)(target)
            if target is not None:
                of_level = 1 if level == 0 else 1 / self.levels
                loss = loss + of_level * ((prediction - target) ** 2).sum() / prediction.shape[0]
        return loss


def counterparts(model: PPNV2, plain: PlainPPNV2, grad: bool = False) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Every parameter of `model` by its name, and the transcription's as a view of the same shape; or their gradients.

    The dead ones of the transcription have no counterpart.
    """
    published = dict(plain.named_parameters())
    for name, ours in model.named_parameters():
        key = name
        for pattern, replacement in OURS_TO_PUBLISHED.items():
            key = re.sub(pattern, replacement, key)
        own = published[key]
        first, second = (ours.grad, own.grad) if grad else (ours, own)
        # Of the factors, the lowest level's comes first and has no counterpart.
        yield name, first, second.flatten()[-ours.numel() :].view(ours.shape)

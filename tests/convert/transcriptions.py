# SPDX-License-Identifier: Apache-2.0
"""The published networks' forward passes, step by step, straight on a state dict with the published names."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


def convolved(weights: Weights, name: str, x: Tensor, groups: int = 1) -> Tensor:
    weight = weights[f"{name}.weight"]
    return F.conv2d(x, weight, weights.get(f"{name}.bias"), padding=weight.shape[-1] // 2, groups=groups)


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.01)


def split_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    i, f, o, g = gates.chunk(4, dim=1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def split(first: Tensor, second: Tensor) -> Tensor:
    return torch.cat([F.relu(first - second), F.relu(second - first)], dim=1)


# MSPN


def block(weights: Weights, name: str, x: Tensor) -> Tensor:
    def normed(part: str, y: Tensor) -> Tensor:
        statistics = (weights[f"{name}.{part}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(y, *statistics, training=False)

    if f"{name}.bottleneck.1.weight" not in weights:
        main = convolved(weights, f"{name}.bottleneck.2", leaky(convolved(weights, f"{name}.bottleneck.0", x)))
        return leaky(main + convolved(weights, f"{name}.res", x))
    main = leaky(normed("bottleneck.1", convolved(weights, f"{name}.bottleneck.0", x)))
    main = normed("bottleneck.4", convolved(weights, f"{name}.bottleneck.3", main))
    return leaky(main + normed("res.1", convolved(weights, f"{name}.res.0", x)))


def mspn_cell(weights: Weights, cell: str, x: Tensor, state, latent, stages: int):
    ablation = f"{cell}.lstm_conv.0.weight" in weights
    codec = cell if ablation else f"{cell}.en_decoder"
    hidden, memory = state
    features = leaky(convolved(weights, f"{codec}.in_conv.0", x if ablation else torch.cat([x, hidden], 1)))
    skips = []
    for stage in range(stages):
        skips.append(features)
        features = F.max_pool2d(block(weights, f"{codec}.encoder{stage}.0", features), 2)
        features = block(weights, f"{codec}.encoder{stage}.2", features)
    if ablation:
        gates = leaky(convolved(weights, f"{cell}.lstm_conv.0", torch.cat([features, hidden], 1)))
        hidden, memory = split_gates(gates, memory)
        features = leaky(convolved(weights, f"{cell}.lstm_out_conv.0", hidden))
    elif f"{codec}.Merge_Hidden.0.weight" in weights:
        features = leaky(convolved(weights, f"{codec}.Merge_Hidden.0", torch.cat([features, latent], 1)))
    found = features
    for stage in range(stages):
        features = block(weights, f"{codec}.upsample{stage}.0", features)
        features = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=True)
        features = torch.cat([block(weights, f"{codec}.upsample{stage}.2", features), skips.pop()], 1)
        if stage < stages - 1:
            features = F.relu(convolved(weights, f"{codec}.merge_conv{stage}.0", features))
    output = convolved(weights, f"{codec}.out_conv.0", features)
    if ablation:
        return output, (hidden, memory), None
    hidden, memory = split_gates(output, memory)
    return leaky(convolved(weights, f"{cell}.out_conv.0", hidden)), (hidden, memory), found


def mspn_forward(weights: Weights, frames: Tensor, horizon: int, *, levels: int, stages: int, hidden: int) -> Tensor:
    batch, given, channels, height, width = frames.shape
    cells = ["EHcell", *(f"ELHcell{level}" for level in range(1, levels - 1)), "ELcell"]
    sizes = [(height >> level, width >> level) for level in range(levels)]
    errors = [frames.new_zeros(batch, 2 * channels, *size) for size in sizes]
    states = []
    for level, name in enumerate(cells):
        if f"{name}.lstm_conv.0.weight" in weights:
            wide = weights[f"{name}.lstm_conv.0.weight"].shape[0] // 4
            size = [side >> (stages - level) for side in sizes[level]]
            states.append((frames.new_zeros(batch, wide, *size),) * 2)
        else:
            states.append((frames.new_zeros(batch, hidden, *sizes[level]),) * 2)
    future = []
    for time in range(given + horizon):
        latent, predictions = None, [None] * levels
        for level in reversed(range(levels)):
            inputs = [errors[level]]
            inputs += [errors[level - 1][..., ::2, ::2]] if level > 0 else []
            if level < levels - 1:
                up = F.interpolate(predictions[level + 1], scale_factor=2, mode="bilinear", align_corners=True)
                inputs.append(up)
            predictions[level], states[level], latent = mspn_cell(
                weights, cells[level], torch.cat(inputs, 1), states[level], latent, stages - level
            )
        if time >= given:
            future.append(predictions[0])
        seen = frames[:, time] if time < given else predictions[0]
        errors = [
            split(seen[..., :: 2**level, :: 2**level], prediction) for level, prediction in enumerate(predictions)
        ]
    return torch.stack(future, 1)


# PPNV2


def low_pass(q: Tensor, x: Tensor, stride: int) -> Tensor:
    cutoff = torch.sigmoid(F.leaky_relu(q, 0.01))  # (C, 1)
    n = torch.arange(25, dtype=x.dtype)
    taps = cutoff * torch.sinc(cutoff * (n - 12)) * (0.54 - 0.46 * torch.cos(2 * torch.pi * n / 24))
    taps = (taps / taps.sum(1, keepdim=True)).reshape(-1, 1, 5, 5)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), taps, stride=stride, groups=len(taps))


def named(weights: Weights, *names: str) -> str:
    return next(name for name in names if f"{name}.weight" in weights)


def up(weights: Weights, name: str, x: Tensor) -> Tensor:
    x = leaky(convolved(weights, named(weights, f"{name}.FE", f"{name}.FE.0"), x))
    x = low_pass(weights[f"{name}.cutoff"], x, 2)
    return leaky(convolved(weights, named(weights, f"{name}.DS", f"{name}.DS.0"), x))


def down(weights: Weights, name: str, x: Tensor) -> Tensor:
    x = leaky(convolved(weights, named(weights, f"{name}.DS", f"{name}.DS.0"), x))
    spaced = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    spaced[..., ::2, ::2] = x
    spaced = F.pad(spaced, (3, 3, 3, 3), mode="reflect")
    x = leaky(F.conv2d(spaced, weights[f"{name}.upsample.weight"], groups=x.shape[1]))
    x = low_pass(weights[f"{name}.cutoff"], x, 1)
    return leaky(convolved(weights, named(weights, f"{name}.CST", f"{name}.CST.0"), x))


def merged(weights: Weights, name: str, x: Tensor, other: Tensor) -> Tensor:
    if f"{name}.scale_factor" in weights:
        scale, shift = convolved(weights, f"{name}.scale_shift", other).chunk(2, dim=1)
        x = x * (torch.sigmoid(scale) * weights[f"{name}.scale_factor"]) + torch.tanh(shift)
        return leaky(convolved(weights, f"{name}.DS.0", x))
    x = x + other if f"{name}.Conv.4.weight" in weights else torch.cat([x, other], 1)
    for index in (0, 2, 4):
        x = leaky(convolved(weights, f"{name}.Conv.{index}", x)) if f"{name}.Conv.{index}.weight" in weights else x
    return x


def ppnv2_cell(weights: Weights, name: str, x: Tensor, state):
    hidden, memory = state
    gates = leaky(convolved(weights, f"{name}.conv.0", torch.cat([x, hidden], 1)))
    gates = leaky(convolved(weights, f"{name}.conv.2", gates, groups=4))
    hidden, memory = split_gates(convolved(weights, f"{name}.conv.4", gates, groups=4), memory)
    output = leaky(convolved(weights, f"{name}.out_conv.0", hidden))
    return leaky(convolved(weights, f"{name}.out_conv.2", output)), (hidden, memory)


def ppnv2_forward(weights: Weights, frames: Tensor, horizon: int, *, channels, hidden=None) -> Tensor:
    batch, given, _, height, width = frames.shape
    levels = len(channels)
    sizes = [(height >> level, width >> level) for level in range(levels)]
    states = [(frames.new_zeros(batch, own, *size),) * 2 for own, size in zip(hidden or channels, sizes, strict=True)]
    errors = [frames.new_zeros(batch, 2 * width_, *size) for width_, size in zip(channels, sizes, strict=True)]
    inputs = [frames[:, 0], *[None] * (levels - 1)]
    future = []
    for time in range(given + horizon - 1):
        predictions = [None] * levels
        for level in reversed(range(levels)):
            if inputs[level] is None:
                continue
            error = leaky(convolved(weights, f"MergeError{level}.0", errors[level]))
            if level > 0:
                share = torch.sigmoid(weights["error_factor"][level])
                error = share * error + (1 - share) * up(weights, f"UpError{level - 1}", errors[level - 1])
            x = merged(weights, f"MergeErrorInput{level}", inputs[level], error)
            y, states[level] = ppnv2_cell(weights, f"rnncell{level}", x, states[level])
            if level < levels - 1 and predictions[level + 1] is not None:
                coarser = down(weights, f"DownPred{level}", predictions[level + 1])
                y = merged(weights, f"MergePred{level}", coarser, y)
            predictions[level] = y
        following = F.relu(predictions[0])
        if time >= given - 1:
            future.append(following)
        x = frames[:, time + 1] if time + 1 < given else following
        following_inputs = [x, *[None] * (levels - 1)]
        for level in range(levels):
            x = following_inputs[level]
            if predictions[level] is None or x is None:
                continue
            errors[level] = split(predictions[level], x)
            if level < levels - 1:
                following_inputs[level + 1] = up(weights, f"UpInput{level}", x)
        inputs = following_inputs
    return torch.stack(future, 1)

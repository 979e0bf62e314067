# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as the published codes save them: names and shapes from the layer tables, filled by a rule.

Written from what is known of the published modules, without a look at the names here; what they make and never use is
in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Fill = Callable[[tuple[int, ...]], Tensor]


def golden(shape: tuple[int, ...]) -> Tensor:
    """The rule of the golden numbers: flat index i of n elements, sin(0.9 i + 0.5) scaled."""
    count = math.prod(shape)
    wave = torch.sin(0.9 * torch.arange(count, dtype=torch.float64) + 0.5)
    return (wave / math.sqrt(count / shape[0]) if len(shape) > 1 else 0.1 * wave).reshape(shape)


class Drawn:
    """Every tensor another one, so that no two of a shape can be swapped unseen."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        fan = math.prod(shape[1:]) if len(shape) > 1 else 16
        return torch.randn(shape, generator=self.generator, dtype=torch.float64) / math.sqrt(fan)


def conv(
    name: str, fill: Fill, in_channels: int, out_channels: int, side: int | tuple[int, int], *, bias=True
) -> Tensors:
    sides = (side, side) if isinstance(side, int) else side
    weight = {f"{name}.weight": fill((out_channels, in_channels, *sides))}
    return weight | ({f"{name}.bias": fill((out_channels,))} if bias else {})


def batch_norm(name: str, channels: int, fill: Fill) -> Tensors:
    """As it is at first, but for a rule that draws."""
    at_first = fill is golden
    one, zero = torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    moved = 0 if at_first else 0.2
    return {
        f"{name}.weight": one + moved * fill((channels,)),
        f"{name}.bias": zero + moved * fill((channels,)),
        f"{name}.running_mean": zero + moved * fill((channels,)),
        f"{name}.running_var": one + moved * fill((channels,)).abs(),
        f"{name}.num_batches_tracked": torch.tensor(0),
    }


# MSPN


def residual_block(name: str, fill: Fill, i: int, o: int, *, norm: bool) -> Tensors:
    if not norm:
        return (
            conv(f"{name}.bottleneck.0", fill, i, o, 3)
            | conv(f"{name}.bottleneck.2", fill, o, o, 3)
            | conv(f"{name}.res", fill, i, o, 1)
        )
    return (
        conv(f"{name}.bottleneck.0", fill, i, o, 3)
        | batch_norm(f"{name}.bottleneck.1", o, fill)
        | conv(f"{name}.bottleneck.3", fill, o, o, 3)
        | batch_norm(f"{name}.bottleneck.4", o, fill)
        | conv(f"{name}.res.0", fill, i, o, 1)
        | batch_norm(f"{name}.res.1", o, fill)
    )


def mspn(
    *, channels, levels, in_channels, hidden=0, norm=False, latent_sharing=True, ablation=False, fill: Fill = golden
) -> Tensors:
    tensors: Tensors = {}
    for level in range(levels):
        top = level == levels - 1
        cell = "EHcell" if level == 0 else "ELcell" if top else f"ELHcell{level}"
        widths = channels[: len(channels) - level]
        frames = 3 if level == 0 else 4 if top else 5
        codec = cell if ablation else f"{cell}.en_decoder"
        seen, last = frames * in_channels + (0 if ablation else hidden), len(widths) - 1
        tensors[f"{codec}.scale"] = torch.ones((), dtype=torch.float64)
        tensors |= conv(f"{codec}.in_conv.0", fill, seen, widths[0], 5)
        for stage in range(last):
            for place, i in ((0, widths[stage]), (2, widths[stage + 1])):
                tensors |= residual_block(f"{codec}.encoder{stage}.{place}", fill, i, widths[stage + 1], norm=norm)
        if not top and latent_sharing:
            tensors |= conv(f"{codec}.Merge_Hidden.0", fill, widths[-1] + widths[-2], widths[-1], 3, bias=False)
        back = widths[::-1]
        for stage in range(last):
            for place, i in ((0, back[stage]), (2, back[stage + 1])):
                tensors |= residual_block(f"{codec}.upsample{stage}.{place}", fill, i, back[stage + 1], norm=norm)
            tensors |= conv(f"{codec}.merge_conv{stage}.0", fill, 2 * back[stage + 1], back[stage + 1], 3)
        if ablation:
            wide = widths[-1]
            tensors |= conv(f"{cell}.lstm_conv.0", fill, 2 * wide, 4 * wide, 3)
            tensors |= conv(f"{cell}.lstm_out_conv.0", fill, wide, wide, 3)
            tensors |= conv(f"{cell}.out_conv.0", fill, 2 * widths[0], in_channels, 3)
        else:
            tensors |= conv(f"{codec}.out_conv.0", fill, 2 * widths[0], 4 * hidden, 3)
            tensors |= conv(f"{cell}.out_conv.0", fill, hidden, in_channels, 5)
    return tensors


def discriminator(*, channels, kernel: tuple[int, int], in_channels=3, fill: Fill = golden) -> Tensors:
    tensors = conv("layer1", fill, in_channels, channels[0], 7)
    for stage in range(len(channels) - 1):
        tensors |= residual_block(f"conv.{2 * stage}", fill, channels[stage], channels[stage + 1], norm=True)
    tensors |= conv("full_conv", fill, channels[-1], 1024, kernel)
    tensors |= {"linear.0.weight": fill((256, 1024)), "linear.0.bias": fill((256,))}
    return tensors | {"linear.2.weight": fill((1, 256)), "linear.2.bias": fill((1,))}


# PPNV2

# By the distance of the columns and of the rows; all other pairs of even distances are 0.
INTERPOLATION = {
    (0, 0): 1.0, (0, 1): 0.1797, (1, 2): 0.0804, (0, 3): 0.0599, (2, 3): 0.0498, (1, 1): 0.1122, (1, 3): 0.0502,
    (3, 3): 0.0347,
}  # fmt: skip


def interpolation_kernel(channels: int) -> Tensor:
    kernel = [[INTERPOLATION.get(tuple(sorted((abs(x), abs(y)))), 0.0) for x in range(-3, 4)] for y in range(-3, 4)]
    return torch.tensor(kernel).double().repeat(channels, 1, 1, 1)


def merge_of_two(name: str, channels: int, merge: str, fill: Fill) -> Tensors:
    if merge == "modulate":
        gain = torch.ones(1, dtype=torch.float64) if fill is golden else 1 + 0.2 * fill((1,))
        scale_shift = conv(f"{name}.scale_shift", fill, channels, 2 * channels, 3)
        return {f"{name}.scale_factor": gain} | scale_shift | conv(f"{name}.DS.0", fill, channels, channels, 3)
    widths = (2 * channels, channels) if merge == "concat" else (channels,) * 3
    convolutions = [conv(f"{name}.Conv.{2 * index}", fill, width, channels, 3) for index, width in enumerate(widths)]
    return {key: tensor for part in convolutions for key, tensor in part.items()}


def ppnv2(*, channels, merge="modulate", hidden=None, fill: Fill = golden, wrapped=True) -> Tensors:
    """`wrapped`: the convolutions between levels stand in sequences with their activations."""
    levels, at_first = len(channels), fill is golden
    in_sequence = ".0" if wrapped else ""

    def cutoff(width: int) -> Tensor:
        return torch.full((width, 1), 2.0, dtype=torch.float64) + (0 if at_first else fill((width, 1)))

    shares = torch.ones(levels, dtype=torch.float64)
    tensors = {"error_factor": shares if at_first else shares + fill((levels,))}
    for level, (width, own) in enumerate(zip(channels, hidden or channels, strict=True)):
        cell = f"rnncell{level}"
        tensors |= conv(f"{cell}.conv.0", fill, width + own, 4 * own, 3)
        tensors |= conv(f"{cell}.conv.2", fill, own, 4 * own, 3) | conv(f"{cell}.conv.4", fill, own, 4 * own, 3)
        tensors |= conv(f"{cell}.out_conv.0", fill, own, own, 1) | conv(f"{cell}.out_conv.2", fill, own, width, 3)
        tensors |= conv(f"MergeError{level}.0", fill, 2 * width, width, 3)
        tensors |= merge_of_two(f"MergeErrorInput{level}", width, merge, fill)
        tensors |= merge_of_two(f"MergePred{level}", width, merge, fill)
    for level in range(levels - 1):
        fine, coarse = channels[level : level + 2]
        for name, i in ((f"UpInput{level}", fine), (f"UpError{level}", 2 * fine)):
            tensors[f"{name}.cutoff"] = cutoff(coarse)
            tensors |= conv(f"{name}.FE{in_sequence}", fill, i, coarse, 3)
            tensors |= conv(f"{name}.DS{in_sequence}", fill, coarse, coarse, 3)
        name = f"DownPred{level}"
        kernel = interpolation_kernel(coarse)
        tensors[f"{name}.cutoff"] = cutoff(coarse)
        tensors[f"{name}.upsample.weight"] = kernel if at_first else kernel + fill(kernel.shape)
        tensors |= conv(f"{name}.DS{in_sequence}", fill, coarse, coarse, 3)
        tensors |= conv(f"{name}.CST{in_sequence}", fill, coarse, fine, 3)
    return tensors

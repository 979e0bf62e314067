# SPDX-License-Identifier: Apache-2.0
"""The filters between PPNV2's levels against a plain transcription of the published ones, on the same taps.

    python benchmarks/bench_fir.py [--rounds 9] [--threads 1]

Halving is the low-pass filter with stride 2; doubling is zero insertion, the 7x7 interpolation, LeakyReLU, and the
low-pass filter. The transcription computes its taps at every call and keeps its images contiguous, as published; ours
come from outside the time loop, and models that were loaded or trained have their channels last in memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from _measure import interleaved, machine, print_table, ratios
from torch import Tensor
from torch.nn import functional as F

from pcvideo import PPNV2
from pcvideo.layers import FIRDownsample

SIZES = ((1, 64, 64, 80), (1, 256, 16, 20))


def plain_taps(logit: Tensor) -> Tensor:
    """25 taps of a Hamming-windowed sinc, reshaped to (C, 1, 5, 5)."""
    cutoff = torch.sigmoid(F.leaky_relu(logit, 0.01))
    place = torch.arange(25, dtype=logit.dtype)
    window = 0.54 - 0.46 * torch.cos(2 * torch.pi * place / 24)
    taps = cutoff * torch.sinc(cutoff * (place - 12)) * window
    return (taps / taps.sum(dim=1, keepdim=True)).view(-1, 1, 5, 5)


def plain_filter(inputs: Tensor, logit: Tensor, stride: int) -> Tensor:
    padded = F.pad(inputs, (2, 2, 2, 2), mode="replicate")
    return F.conv2d(padded, plain_taps(logit), stride=stride, groups=inputs.shape[1])


def plain_double(inputs: Tensor, kernel: Tensor, logit: Tensor) -> Tensor:
    batch, channels, height, width = inputs.shape
    spaced = inputs.new_zeros(batch, channels, 2 * height, 2 * width)
    spaced[:, :, ::2, ::2] = inputs
    spaced = F.pad(spaced, (3, 3, 3, 3), mode="reflect")
    return plain_filter(F.leaky_relu(F.conv2d(spaced, kernel[:, None], groups=channels), 0.01), logit, 1)


def variants_of(shape: tuple[int, ...]) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """For each block its variants, all on the same parameters and inputs."""
    halve, default = FIRDownsample(shape[1], design="reshaped", bound="published"), FIRDownsample(shape[1])
    step = PPNV2(channels=(3, shape[1]), legacy=True).down_predictions[0]
    # Computed outside of the time loop; gradients reach them there.
    halve_taps, step_taps, default_taps = (
        block.make_taps().detach().requires_grad_() for block in (halve, step.filter, default)
    )
    halve_logit, step_logit = halve.cutoff_logit[:, None], step.filter.cutoff_logit[:, None]
    image = torch.rand(shape)
    x, last = image.requires_grad_(), image.detach().to(memory_format=torch.channels_last).requires_grad_()

    return {
        "halving": {
            "plain": lambda: plain_filter(x, halve_logit.detach().requires_grad_(), 2),
            "plain, channels last": lambda: plain_filter(last, halve_logit.detach().requires_grad_(), 2),
            "ours": lambda: halve(x, halve_taps),
            "ours, channels last": lambda: halve(last, halve_taps),
            "ours with 9 Kaiser taps an axis, channels last": lambda: default(last, default_taps),
        },
        "doubling": {
            "plain": lambda: plain_double(x, step.kernel, step_logit.detach().requires_grad_()),
            "plain, channels last": lambda: plain_double(last, step.kernel, step_logit.detach().requires_grad_()),
            "ours": lambda: step.enlarge(x, step_taps),
            "ours, channels last": lambda: step.enlarge(last, step_taps),
        },
    }


def backward(run: Callable[[], Tensor]) -> Callable[[], object]:
    def both() -> None:
        run().sum().backward()

    return both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=20, help="of each variant in a round")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = []
    for shape in SIZES:
        for block, variants in variants_of(shape).items():
            torch.testing.assert_close(variants["ours"](), variants["plain"](), rtol=1e-5, atol=1e-6)
            columns = []
            for train in (False, True):
                runs = {name: backward(run) if train else run for name, run in variants.items()}
                with torch.set_grad_enabled(train):
                    columns.append(ratios(interleaved(runs, options.rounds, options.calls), "plain"))
            for name in list(variants)[1:]:
                cells = [f"{median:.2f} ({low:.2f} to {high:.2f})" for median, low, high in (c[name] for c in columns)]
                rows.append(["x".join(map(str, shape)), block, name, *cells])
    print(machine())
    title = "Times as fast as the plain transcription: median (lowest to highest) over rounds"
    print_table(title, ["inputs", "block", "variant", "forward", "forward and backward"], rows)


if __name__ == "__main__":
    main()

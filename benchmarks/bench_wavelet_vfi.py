# SPDX-License-Identifier: Apache-2.0
"""WaveletVFI's sparse decoder against one that convolves everything and multiplies by masks, and the whole model.

    python benchmarks/bench_wavelet_vfi.py --rounds 7 [--clip VIDEO --model WEIGHTS]

The decoder runs on contexts of a 448x256 frame, with masks that are set: the share of blocks of 64x64 pixels that are
active, at every level the same ones. "Published" is the published form: coarser features doubled, concatenated,
convolved everywhere, multiplied by masks. "Dense" is ours where nothing is left out. With --clip, the whole model runs
on frames of a video, with each threshold, beside itself with the published decoder in its place.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from _measure import interleaved, machine, peak_memory, print_table
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import pcvideo
from pcvideo.layers.masked_level import dilate
from pcvideo.models import WaveletVFI
from pcvideo.video_io import read_window

SIZE = (256, 448)
BLOCKS = (4, 7)
ACTIVE = (28, 8, 3, 0)
# Thresholds that the classifier has not, but a caller may take.
BEYOND = (0.05, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--clip", help="a video for the whole model")
    parser.add_argument("--frames", type=int, nargs=2, default=(10, 12), help="two frames of it")
    parser.add_argument("--whole", action="store_true", help="the whole model alone")
    parser.add_argument("--model", help="weights for the whole model")
    parser.add_argument("--memory", action="store_true", help="the peak memory of one 1920x1080 pair, too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    print(machine())
    if not options.whole:
        decoder(options)
    if options.clip:
        whole_model(options)
    if options.memory:
        memory(options)


def decoder(options: argparse.Namespace) -> None:
    model = WaveletVFI(width=options.width).eval().to(memory_format=torch.channels_last)
    synthesis = model.synthesis
    counts = [level.skip_channels for level in synthesis.levels] + [synthesis.coarsest[0].in_channels]
    contexts = [
        torch.randn(1, count, SIZE[0] >> k, SIZE[1] >> k).contiguous(memory_format=torch.channels_last)
        for k, count in enumerate(counts, start=1)
    ]
    rows = []
    for active in ACTIVE:
        masks = block_masks(active)
        forms = {name: partial(run, synthesis, contexts, masks) for name, run in FORMS.items()}
        seconds = interleaved(forms, options.rounds)
        macs = {name: count_macs(run) for name, run in forms.items()}
        cells = [f"{active / 28:.0%}"]
        cells += [f"{statistics.median(seconds[name]) * 1e3:.0f} ms, {macs[name] / 1e9:.1f} G" for name in FORMS]
        for baseline in ("published", "dense"):
            shares = [own / base for own, base in zip(seconds["sparse"], seconds[baseline], strict=True)]
            cells.append(f"{statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})")
        rows.append(cells)
    columns = ["active", *FORMS, "sparse to published", "sparse to dense"]
    print_table(f"Decoder at {SIZE[1]}x{SIZE[0]}, width {options.width:g}: time, multiplications", columns, rows)


def block_masks(active: int) -> list[Tensor]:
    """Masks of the three levels, fine to coarse, with so many of the 28 blocks."""
    blocks = torch.zeros(28)
    blocks[torch.randperm(28, generator=torch.Generator().manual_seed(0))[:active]] = 1
    blocks = blocks.view(1, 1, *BLOCKS)
    return [F.interpolate(blocks, size=(SIZE[0] >> k, SIZE[1] >> k), mode="nearest") for k in (1, 2, 3)]


def published(synthesis: torch.nn.Module, contexts: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
    features, _ = synthesis.coarsest_bands(contexts)
    for index in (2, 1, 0):
        level = synthesis.levels[index]
        doubled = F.interpolate(features, scale_factor=2, mode="nearest")
        hidden = level.to_features(torch.cat((contexts[index], doubled), dim=1)) * dilate(masks[index])
        features = F.leaky_relu(hidden, 0.1)
        level.to_outputs(features).mul_(masks[index])


def dense(synthesis: torch.nn.Module, contexts: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
    features, _ = synthesis.coarsest_bands(contexts)
    for index in (2, 1, 0):
        features, outputs = synthesis.levels[index].dense(contexts[index], features)
        outputs.mul_(masks[index])


def sparse(synthesis: torch.nn.Module, contexts: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
    features, _ = synthesis.coarsest_bands(contexts)
    for index in (2, 1, 0):
        features, _ = synthesis.levels[index](contexts[index], features, masks[index], keep_features=index > 0)


FORMS = {"published": published, "dense": dense, "sparse": sparse}


def count_macs(run: Callable[[], None]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2


def whole_model(options: argparse.Namespace) -> None:
    """Times, counts and memory of the whole model for each threshold on two frames of a video."""
    model = load(options.model, options.width)
    pair = read_pair(options.clip, options.frames)
    thresholds = sorted({*model.thresholds, *BEYOND})
    calls = {f"{value:g}": partial(model, *pair, value) for value in thresholds}
    # The published form computes all, whatever the masks: those of the threshold 0 stand for any.
    masks = model.explain(*pair, 0.0).synthesis.masks
    calls["published form"] = partial(whole_published, model, *pair, masks)
    seconds = interleaved(calls, options.rounds)
    rows = []
    for name, call in calls.items():
        value = None if call.func is whole_published else float(name)
        peak = peak_memory(on_frames, options.model, options.width, options.clip, options.frames, value)
        shares = [base / own for base, own in zip(seconds["published form"], seconds[name], strict=True)]
        times = f"{statistics.median(seconds[name]) * 1e3:.0f} ms"
        rows.append([name, times, f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"])
        rows[-1] += [f"{count_macs(call) / 1e9:.2f} G", "", f"{peak:.0f} MiB", ""]
        if value is not None:
            macs, synthesis = model.count_macs(*pair, value), model.explain(*pair, value).synthesis
            rows[-1][4] = f"{macs.paper / 1e9:.2f} G"
            rows[-1][6] = ", ".join(f"{float(mask.mean()):.0%}" for mask in synthesis.masks)
    columns = ["threshold", "time", "times as fast", "multiplications", "paper's count", "peak memory", "masks"]
    first, last = options.frames
    print_table(f"Frames {first} and {last} of {options.clip} at {SIZE[1]}x{SIZE[0]}", columns, rows)


def load(weights: str | None, width: float) -> WaveletVFI:
    return pcvideo.from_pretrained(weights) if weights else WaveletVFI(width=width).eval()


def read_pair(clip: str, frames: Sequence[int]) -> list[Tensor]:
    return [read_window(clip, number, 1, channels=3, size=SIZE).float() for number in frames]


def whole_published(model: WaveletVFI, before: Tensor, after: Tensor, masks: Sequence[Tensor]) -> None:
    """All up to the decoder, and the decoder in its published form; the inverse transforms are left out."""
    motion = model.motion(before, after)
    published(model.synthesis, model.context(before, after, motion), masks)


def on_frames(
    start: Callable[[], None], weights: str | None, width: float, clip: str, frames: Sequence[int], value: float | None
) -> None:
    """In a process of its own: one middle frame with a threshold, or None for the published form."""
    torch.set_num_threads(1)
    model, pair = load(weights, width), read_pair(clip, frames)
    start()
    with torch.no_grad():
        if value is None:
            whole_published(model, *pair, [torch.ones(1, 1, SIZE[0] >> k, SIZE[1] >> k) for k in (1, 2, 3)])
        else:
            model(*pair, value)


def memory(options: argparse.Namespace) -> None:
    rows = [
        [f"{width}x{height}", f"{peak_memory(one_pair, options.model, options.width, (height, width), 0.0):.0f} MiB"]
        for height, width in (SIZE, (720, 1280), (1088, 1920))
    ]
    print_table(f"Peak memory of one pair beyond the weights, width {options.width:g}, all detail", ["size", ""], rows)


def one_pair(start: Callable[[], None], weights: str | None, width: float, size: tuple[int, int], value: float) -> None:
    """In a process of its own: one middle frame of noise."""
    torch.set_num_threads(1)
    model = load(weights, width)
    pair = torch.rand(2, 1, 3, *size)
    start()
    with torch.no_grad():
        model(*pair, value)


if __name__ == "__main__":
    main()

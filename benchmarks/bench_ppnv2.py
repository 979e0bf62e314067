# SPDX-License-Identifier: Apache-2.0
"""PPNV2 against a plain transcription of its algorithm: forecasts, the stream, training steps, peak memory.

    python benchmarks/bench_ppnv2.py [--rounds 5] [--threads 2] [--quick | --published]

First both must give the same frames, loss and gradients. All times are then taken in one run, the variants in turn, and
told as ratios; an absolute time says as much about the machine as about the code. `legacy=True` is the published
network; a row with the filters of ours is another network, and says so.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from math import nan

import torch
from _measure import interleaved, machine, peak_memory, print_table, ratios
from plain_ppnv2 import PlainPPNV2, counterparts
from torch import Tensor

from pcvideo import PPNV2
from pcvideo.losses import EncodingLoss, PPNV2Loss
from pcvideo.rollout import unroll
from pcvideo.training import SelfFeeding

CONTEXT, HORIZON, LONG = 10, 10, 100
STEPS = CONTEXT + HORIZON - 1
# Channels of the levels, and (height, width) of the frames.
Size = tuple[tuple[int, ...], tuple[int, int]]
TINY: Size = ((3, 4), (8, 8))
QUICK: Size = ((3, 8, 12, 16), (32, 40))
MEDIUM: Size = ((3, 32, 64, 128, 128), (64, 80))
PUBLISHED: Size = ((3, 64, 128, 256, 512, 512), (128, 160))
PLAIN = "plain transcription"
PLAIN_AGAIN = "plain transcription, the clip seen again"


def make(size: Size, *, last: bool = False, dtype: torch.dtype = torch.float32, legacy: bool = True) -> PPNV2:
    """The network, with its channels last in memory, as `from_pretrained` and the trainer have it, if `last`."""
    torch.manual_seed(0)
    order = torch.channels_last if last else torch.contiguous_format
    return PPNV2(channels=size[0], legacy=legacy).to(dtype=dtype, memory_format=order)


def make_clip(size: Size, frames: int) -> Tensor:
    return torch.rand(1, frames, size[0][0], *size[1], generator=torch.Generator().manual_seed(1))


def make_strategy(model: PPNV2, context: int, horizon: int, checkpoint: bool = False) -> SelfFeeding:
    """The published training, without LPIPS, whose network takes the same time in both."""
    loss, encoding = PPNV2Loss(perceptual=False), EncodingLoss()
    strategy = SelfFeeding(context=context, horizon=horizon, loss=loss, encoding_loss=encoding, checkpoint=checkpoint)
    return strategy.attach(model)


def compare(size: Size, dtype: torch.dtype, tolerance: float) -> None:
    """Raise AssertionError unless both give the same frames, the same training loss and the same gradients."""
    model = make(size, dtype=dtype)
    with torch.no_grad():
        # Cutoffs, kernels and factors start alike in all channels, which would hide a mistaken channel or level.
        for parameter in model.parameters():
            parameter.mul_(1 + 0.2 * torch.rand_like(parameter))
    plain = PlainPPNV2(model)
    # All levels have begun before the first frame is fed back.
    context, horizon = len(size[0]) + 1, 3
    clip = make_clip(size, context + horizon).to(dtype)

    def same(name: str, found: Tensor, expected: Tensor) -> None:
        room = tolerance * expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0, atol=room, msg=lambda text: f"{name}: {text}")

    with torch.no_grad():
        expected = torch.stack(plain(clip[:, :context], horizon)[0], dim=1)
        same("frames", model(clip[:, :context], horizon), expected)
    loss, _ = make_strategy(model, context, horizon)(clip)
    _, expected = plain(clip, horizon, train=True)
    same("training loss", loss, expected)
    loss.backward()
    expected.backward()
    for name, *pair in counterparts(model, plain, grad=True):
        same(f"gradient of {name}", *pair)


def forecast_rows(size: Size, rounds: int) -> list[list[str]]:
    """Ten frames from ten, batch 1."""
    clip = make_clip(size, CONTEXT)
    models: dict[str, torch.nn.Module] = {PLAIN: PlainPPNV2(make(size)), "pcvideo": make(size)}
    models["pcvideo, channels last"] = make(size, last=True)
    models["pcvideo, channels last, filters of ours (another network)"] = make(size, last=True, legacy=False)
    half = torch.bfloat16
    models |= {f"{PLAIN}, bfloat16": PlainPPNV2(make(size, dtype=half)), "pcvideo, bfloat16": make(size, dtype=half)}
    models["pcvideo, channels last, bfloat16"] = make(size, last=True, dtype=half)

    def run(model: torch.nn.Module) -> Callable[[], object]:
        return lambda: model.eval()(clip, HORIZON)

    with torch.no_grad():
        return _rows(interleaved({name: run(model) for name, model in models.items()}, rounds), PLAIN, STEPS)


def stream_rows(size: Size, rounds: int) -> list[list[str]]:
    """The prediction after one more frame has come, ten having been seen."""
    clip, plain = make_clip(size, CONTEXT + 1), PlainPPNV2(make(size)).eval()
    variants: dict[str, Callable[[], object]] = {PLAIN_AGAIN: lambda: plain(clip, 1)}
    for name, last in (("pcvideo, stream.push", False), ("pcvideo, channels last, stream.push", True)):
        stream = make(size, last=last).eval().stream()
        for frame in clip[0, :CONTEXT]:
            stream.push(frame)
        variants[name] = lambda stream=stream: stream.push(clip[0, -1])
    with torch.no_grad():
        return _rows(interleaved(variants, rounds), PLAIN_AGAIN, 1)


def training_rows(size: Size, rounds: int) -> list[list[str]]:
    """Loss and gradients of a clip of twenty frames, ten of them fed back."""
    clip, plain = make_clip(size, CONTEXT + HORIZON), PlainPPNV2(make(size))
    variants: dict[str, Callable[[], object]] = {PLAIN: lambda: _backward(plain, plain(clip, HORIZON, train=True)[1])}
    for name, last, checkpoint in (
        ("pcvideo", False, False),
        ("pcvideo, channels last", True, False),
        ("pcvideo, channels last, checkpoint=True", True, True),
    ):
        strategy = make_strategy(make(size, last=last), CONTEXT, HORIZON, checkpoint)
        variants[name] = lambda strategy=strategy: _backward(strategy, strategy(clip)[0])
    return _rows(interleaved(variants, rounds), PLAIN, STEPS)


def _backward(module: torch.nn.Module, loss: Tensor) -> None:
    module.zero_grad()
    loss.backward()


def _rows(seconds: dict[str, list[float]], baseline: str, steps: int) -> list[list[str]]:
    times = ratios(seconds, baseline)
    return [
        [name, f"{times[name][0]:.2f} ({times[name][1]:.2f} to {times[name][2]:.2f})", f"{milliseconds:.1f}"]
        for name, values in seconds.items()
        for milliseconds in [1000 * statistics.median(values) / steps]
    ]


def _train(start: Callable[[], None], size: Size, kind: str) -> None:
    clip, model = make_clip(size, CONTEXT + HORIZON), make(size, last=kind != PLAIN)
    strategy = make_strategy(model, CONTEXT, HORIZON, checkpoint="checkpoint" in kind)
    held = PlainPPNV2(model) if kind == PLAIN else model
    for parameter in held.parameters():
        parameter.grad = torch.ones_like(parameter)  # touched, so that its memory counts as held
    start()
    loss = held(clip, HORIZON, train=True)[1] if kind == PLAIN else strategy(clip)[0]
    loss.backward()


@torch.no_grad()
def _forecast(start: Callable[[], None], size: Size, kind: str) -> None:
    clip, model = make_clip(size, CONTEXT), make(size, last=kind != PLAIN).eval()
    held = PlainPPNV2(model) if kind == PLAIN else model
    start()
    if "unroll" in kind:
        for _ in unroll(model, clip, LONG):
            pass
    else:
        held(clip, LONG)


def _measured(start: Callable[[], None], run: Callable[..., None], size: Size, threads: int, kind: str) -> None:
    torch.set_num_threads(threads)
    # What torch imports on first use, more than a hundred MiB for checkpoints, is no matter of the network's size.
    run(lambda: None, TINY, kind)
    run(start, size, kind)


def memory_rows(size: Size, threads: int) -> list[list[str]]:
    """Peak memory beyond weights and gradients."""
    runs = {
        f"training, {CONTEXT + HORIZON} frames": (_train, (PLAIN, "pcvideo", "pcvideo, checkpoint=True")),
        f"forecast, {LONG} frames": (_forecast, (PLAIN, "pcvideo", "pcvideo, unroll, no frame kept")),
    }
    rows = []
    for task, (run, kinds) in runs.items():
        measured = {kind: peak_memory(_measured, run, size, threads, kind) for kind in kinds}
        rows += [
            [task, kind, f"{value:.0f}", f"{value / (measured[PLAIN] or nan):.2f}"] for kind, value in measured.items()
        ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="a small network, to see that the script runs")
    sizes.add_argument("--published", action="store_true", help="the published network and frame size")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = QUICK if options.quick else PUBLISHED if options.published else MEDIUM
    channels, (height, width) = size
    print(f"{machine()}; frames {height}x{width} colour, batch 1, channels={channels}, legacy=True")
    compare(QUICK, torch.float64, 1e-9)
    compare(size, torch.float32, 1e-3)
    print("Both give the same frames, training loss and gradients.")
    columns = ["variant", "times as fast (low to high)", "ms a step"]
    print_table("Ten frames from ten", columns, forecast_rows(size, options.rounds))
    print_table("One more frame of a stream", columns, stream_rows(size, options.rounds))
    print_table("Loss and gradients of 20 frames", columns, training_rows(size, options.rounds))
    rows = memory_rows(size, options.threads)
    print_table("Peak memory beyond weights and gradients", ["task", "variant", "MiB", "share of plain"], rows)


if __name__ == "__main__":
    main()

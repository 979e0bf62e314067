# SPDX-License-Identifier: Apache-2.0
"""MSPN against a plain transcription of its algorithm: frames per second, latency of the stream, peak memory.

    python benchmarks/bench_mspn.py [--rounds 7] [--threads 2] [--quick]

All times are taken in one run, the variants in turn, and told as ratios; an absolute time says as much about the
machine as about the code.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from _measure import interleaved, machine, peak_memory, print_table, ratios
from plain_mspn import PlainMSPN
from torch import Tensor

import pcvideo
from pcvideo.rollout import feed_context
from pcvideo.rollout import rollout as roll_out

PUBLISHED = {"in_channels": 1, "levels": 3, "channels": (64, 128, 256, 512), "hidden_channels": 32}
SMALL = {"in_channels": 1, "levels": 2, "channels": (16, 32, 64), "hidden_channels": 16}
CONTEXT, HORIZON, SIZE = 10, 10, 64


def forecast_rows(config: dict, rounds: int) -> list[list[str]]:
    """Ten frames from ten, batch 1."""
    clip = torch.rand(1, CONTEXT, 1, SIZE, SIZE)
    plain, ours = PlainMSPN(**config).eval(), pcvideo.MSPN(**config).eval()
    last = pcvideo.MSPN(**config).eval().to(memory_format=torch.channels_last)
    half = pcvideo.MSPN(**config).eval().to(torch.bfloat16, memory_format=torch.channels_last)
    patched = pcvideo.MSPN(
        **{**config, "channels": config["channels"][:-1], "levels": config["levels"] - 1}, patch=4
    ).eval()
    variants: dict[str, Callable[[], object]] = {
        "plain transcription": lambda: plain(clip, HORIZON),
        "pcvideo": lambda: ours(clip, HORIZON),
        "pcvideo, channels last": lambda: last(clip, HORIZON),
        "pcvideo, channels last, bfloat16": lambda: half(clip, HORIZON),
        "pcvideo, patch=4, one stage less (another network)": lambda: patched(clip, HORIZON),
    }
    with torch.no_grad():
        seconds = interleaved(variants, rounds)
    return _rows(seconds, "plain transcription", frames=CONTEXT + HORIZON - 1)


def stream_rows(config: dict, rounds: int) -> list[list[str]]:
    """The prediction after one more frame has come, ten having been seen."""
    clip = torch.rand(1, CONTEXT + 1, 1, SIZE, SIZE)
    plain, ours = PlainMSPN(**config).eval(), pcvideo.MSPN(**config).eval()
    stream = ours.stream()
    for frame in clip[0, :CONTEXT]:
        stream.push(frame)
    variants: dict[str, Callable[[], object]] = {
        "plain transcription, the clip seen again": lambda: plain(clip, 1),
        "pcvideo, stream.push": lambda: stream.push(clip[0, -1]),
    }
    with torch.no_grad():
        return _rows(interleaved(variants, rounds), "plain transcription, the clip seen again", frames=1)


def _rows(seconds: dict[str, list[float]], baseline: str, frames: int) -> list[list[str]]:
    times = ratios(seconds, baseline)
    rows = []
    for name, values in seconds.items():
        median, low, high = times[name]
        milliseconds = 1000 * statistics.median(values) / frames
        rows.append(
            [name, f"{median:.2f} ({low:.2f} to {high:.2f})", f"{milliseconds:.1f}", f"{1000 / milliseconds:.1f}"]
        )
    return rows


def _hold_what_does_not_count(model: torch.nn.Module) -> torch.optim.Optimizer:
    """Gradients and Adam's averages, touched, so that their memory counts as held before the measurement begins.

    The optimizer also brings in torch's compiler as a module, which checkpointing alone would bring in after the start.
    """
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    optimizer.step()
    return optimizer


def _train_plain(start: Callable[[], None], config: dict) -> None:
    model, clip = PlainMSPN(**config), torch.rand(1, CONTEXT + HORIZON, 1, SIZE, SIZE)
    optimizer = _hold_what_does_not_count(model)
    start()
    model(clip, HORIZON, train=True)[1].backward()
    optimizer.step()


def _train_ours(start: Callable[[], None], config: dict, checkpoint: bool) -> None:
    model, clip = pcvideo.MSPN(**config), torch.rand(1, CONTEXT + HORIZON, 1, SIZE, SIZE)
    optimizer = _hold_what_does_not_count(model)
    start()
    pyramids = roll_out(model, clip[:, :-1], feed=feed_context(CONTEXT), checkpoint=checkpoint).pyramids
    loss: Tensor = sum(
        ((prediction - target) ** 2).sum()
        for time, pyramid in enumerate(pyramids)
        for prediction, target in zip(pyramid, model.targets(clip[:, time + 1]), strict=True)
    )
    loss.backward()
    optimizer.step()


@torch.no_grad()
def _forecast(start: Callable[[], None], config: dict, plain: bool, horizon: int) -> None:
    model = PlainMSPN(**config) if plain else pcvideo.MSPN(**config)
    clip = torch.rand(1, CONTEXT, 1, SIZE, SIZE)
    start()
    if plain:
        model(clip, horizon)
    else:
        for _ in zip(range(CONTEXT + horizon), pcvideo.rollout.unroll(model, clip, horizon), strict=False):
            pass


def memory_rows(config: dict, horizons: tuple[int, ...]) -> list[list[str]]:
    """Peak memory beyond weights, gradients and optimizer."""
    runs = {"training, 20 frames": [("plain transcription", _train_plain, (config,))]}
    runs["training, 20 frames"] += [
        ("pcvideo", _train_ours, (config, False)),
        ("pcvideo, checkpoint=True", _train_ours, (config, True)),
    ]
    for horizon in horizons:
        runs[f"forecast, {horizon} frames"] = [
            ("plain transcription", _forecast, (config, True, horizon)),
            ("pcvideo, unroll", _forecast, (config, False, horizon)),
        ]
    rows = []
    for task, variants in runs.items():
        measured = {name: peak_memory(run, *arguments) for name, run, arguments in variants}
        first = measured[variants[0][0]]
        rows += [
            [task, name, f"{value:.0f}", f"{value / first:.2f}" if first else "-"] for name, value in measured.items()
        ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a small network, to see that the script runs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = SMALL if options.quick else PUBLISHED
    print(f"{machine()}; frames 64x64 grey, batch 1, {config}")
    columns = ["variant", "times as fast (low to high)", "ms a frame", "frames a second"]
    print_table("Ten frames from ten", columns, forecast_rows(config, options.rounds))
    print_table("One more frame of a stream", columns, stream_rows(config, options.rounds))
    rows = memory_rows(config, (10, 100))
    print_table(
        "Peak memory beyond weights, gradients and optimizer", ["task", "variant", "MiB", "share of plain"], rows
    )
    print_table("Built-in weights", columns, builtin_rows(options.rounds))


def builtin_rows(rounds: int) -> list[list[str]]:
    """The package's own weights, ten frames from ten."""
    rows = []
    for published in pcvideo.list_models():
        model = pcvideo.from_pretrained(published.name)
        if model.spatial_dims != 2:
            continue
        size = published.facts["recipe"]["size"]
        clip = torch.rand(1, CONTEXT, model.in_channels, *size)
        with torch.no_grad():
            seconds = interleaved({published.name: lambda model=model, clip=clip: model(clip, HORIZON)}, rounds)
        rows += _rows(seconds, published.name, frames=CONTEXT + HORIZON - 1)
    return rows


if __name__ == "__main__":
    main()

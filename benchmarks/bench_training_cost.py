# SPDX-License-Identifier: Apache-2.0
"""What a step of training costs: memory and time as the clip, the frame and the batch grow.

    python benchmarks/bench_training_cost.py [--models mspn-moving-mnist ...] [--quick]

A step is forward, backward and Adam, in float32 on one thread, as the trainer makes it. Memory is what it raises the
peak of a fresh process by, beyond weights, gradients and the optimizer's averages. Time is that of the processor, which
other work on the machine changes little; of a second step, but for the published network, whose first one takes so long
that what is loaded in it doesn't count.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from _measure import machine, peak_memory, peak_memory_and_result, print_table
from bench_mspn import PUBLISHED, _train_plain

import pcvideo
from pcvideo.training import SelfFeeding

CONTEXT = 10
# Frames, (height, width) and clips: one grows at a time from the first row on.
Row = tuple[int, tuple[int, int], int]
PUBLISHED_NAME = "published"


def make(name: str) -> pcvideo.models.Predictor:
    if name == PUBLISHED_NAME:
        return pcvideo.MSPN(**PUBLISHED)
    return pcvideo.from_pretrained(name)


def step(start: Callable[[], None], name: str, row: Row, checkpoint: bool, *, repeats: int) -> float:
    """Seconds of the processor for the last of some steps."""
    torch.set_num_threads(1)
    frames, size, batch = row
    # As the trainer has it.
    model = make(name).to(memory_format=torch.channels_last).train()
    strategy = SelfFeeding(context=CONTEXT, horizon=frames - CONTEXT, checkpoint=checkpoint).attach(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    clip = torch.rand(batch, frames, model.in_channels, *size)
    start()
    for _ in range(repeats):
        began = time.process_time()
        strategy(clip)[0].backward()
        optimizer.step()
        seconds = time.process_time() - began
    return seconds


def first_step(start: Callable[[], None], name: str, row: Row, checkpoint: bool) -> float:
    return step(start, name, row, checkpoint, repeats=1)


def second_step(start: Callable[[], None], name: str, row: Row, checkpoint: bool) -> float:
    return step(start, name, row, checkpoint, repeats=2)


def cost_rows(name: str, rows: Sequence[Row]) -> list[list[str]]:
    """Each row twice: activations kept, and computed again."""
    table = []
    run = first_step if name == PUBLISHED_NAME else second_step
    for row in rows:
        frames, size, batch = row
        measured = [peak_memory_and_result(run, name, row, checkpoint) for checkpoint in (False, True)]
        (kept, kept_time), (again, again_time) = measured
        cells = [str(frames), f"{size[0]}x{size[1]}", str(batch)]
        cells += [f"{kept:.0f}", f"{again:.0f}", f"{again / kept:.2f}"]
        cells += [f"{kept_time:.2f}", f"{again_time:.2f}", f"{again_time / kept_time:.2f}"]
        table.append(cells)
        print(f"{name}: {' '.join(cells)}", flush=True)
    return table


def grid(
    size: tuple[int, int], *, batches: Sequence[int], lengths: Sequence[int], factors: Sequence[float]
) -> list[Row]:
    """A base of 20 frames and one clip, then more of each."""
    sizes = [(int(size[0] * factor), int(size[1] * factor)) for factor in factors]
    rows: list[Row] = [(20, size, 1)]
    rows += [(length, size, 1) for length in lengths]
    rows += [(20, larger, 1) for larger in sizes]
    rows += [(20, size, batch) for batch in batches]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    facts = {model.name: model.facts["recipe"]["size"] for model in pcvideo.list_models()}
    # Those of images; volumes are trained otherwise.
    names = [PUBLISHED_NAME, *(name for name, size in facts.items() if len(size) == 2)]
    parser.add_argument("--models", nargs="+", default=names, choices=names)
    parser.add_argument("--quick", action="store_true", help="one row each, to see that the script runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    columns = ["frames", "size", "batch", "MiB, kept", "MiB, again", "share", "s, kept", "s, again", "times"]
    for name in options.models:
        large = name == PUBLISHED_NAME
        size = (64, 64) if large else (int(facts[name][0]), int(facts[name][1]))
        rows = grid(
            size,
            batches=(2,) if large else (4,),
            lengths=(40,),
            factors=(1.5,) if large else (2,),
        )
        print_table(f"A step of training, {name}", columns, cost_rows(name, rows[:1] if options.quick else rows))
    if PUBLISHED_NAME in options.models and not options.quick:
        plain = peak_memory(_train_plain, PUBLISHED)
        again, _ = peak_memory_and_result(first_step, PUBLISHED_NAME, (20, (64, 64), 1), True)
        print(
            f"\nplain transcription, 20 frames of 64x64, one clip: {plain:.0f} MiB; checkpoint=True: {again:.0f} MiB, "
        )
        print(f"{again / plain:.2f} of it")


if __name__ == "__main__":
    main()

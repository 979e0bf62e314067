# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: interleaved ratios, peak memory of a fresh process, and the machine in words."""

from __future__ import annotations

import multiprocessing
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.benchmark import Timer

__all__ = ["interleaved", "machine", "peak_memory", "peak_memory_and_result", "print_table", "ratios"]


def interleaved(variants: Mapping[str, Callable[[], object]], rounds: int, calls: int = 1) -> dict[str, list[float]]:
    """Seconds of a call of every variant, one after the other in each round, after one warm-up each."""
    timers = {
        name: Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
        for name, run in variants.items()
    }
    for timer in timers.values():
        timer.timeit(1)
    seconds: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            seconds[name].append(timer.timeit(calls).mean)
    return seconds


def ratios(seconds: Mapping[str, Sequence[float]], baseline: str) -> dict[str, tuple[float, float, float]]:
    """For each variant, how many times as fast as the baseline: median, lowest and highest over the rounds."""
    result = {}
    for name, values in seconds.items():
        quotients = [base / value for base, value in zip(seconds[baseline], values, strict=True)]
        result[name] = (statistics.median(quotients), min(quotients), max(quotients))
    return result


def peak_memory(run: Callable[..., None], *arguments: object) -> float:
    """MiB by which `run(*arguments)` raised the peak memory of a fresh process above what it held before; Linux only.

    `run` is given a function as its first argument, to call once everything is set up that doesn't count.
    """
    return peak_memory_and_result(run, *arguments)[0]


def peak_memory_and_result(run: Callable[..., Any], *arguments: object) -> tuple[float, Any]:
    """`peak_memory`, and what `run` returned."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (run, *arguments))


def _peak(run: Callable[..., Any], *arguments: object) -> tuple[float, Any]:
    before: list[float] = []

    def start() -> None:
        # Linux forgets the peak so far, which making the weights may have set.
        Path("/proc/self/clear_refs").write_text("5")
        before.append(_high_water())

    result = run(start, *arguments)
    return _high_water() - before[-1], result


def _high_water() -> float:
    """The peak of this process's resident memory, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def machine() -> str:
    """Processor, threads, and versions."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = [line.split(":", 1)[1].strip() for line in information.read_text().splitlines() if "model name" in line]
        processor = lines[0] if lines else processor
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{processor}{gpu}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table."""
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")

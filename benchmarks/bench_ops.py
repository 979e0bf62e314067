# SPDX-License-Identifier: Apache-2.0
"""The ops by kernel against plain torch and against `torch.compile`: time as ratios, and the share of the bandwidth.

    python benchmarks/bench_ops.py [--rounds 7] [--quick]

On a CUDA GPU each op is timed forward, and forward and backward, at the sizes of the published networks, the variants
in turn; the share of the bandwidth is the bytes an op has to move at least, by its time, by the bandwidth of a large
copy on the same machine. A small tensor stays in the GPU's cache, so its share can be above one, and its time is that
of launching. A kernel that doesn't beat `torch.compile` here is taken out again. Without a GPU the table has the two
variants that run on a CPU.
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
from collections.abc import Callable, Sequence

import torch
from _measure import interleaved, machine, print_table, ratios
from torch import Tensor

from pcvideo.ops._dispatch import use_kernel

# (B, C, H, W) of the cell, of the prediction, of the inputs; the first is large enough to tell the bandwidth.
SIZES = {
    "lstm_gates": [(8, 64, 128, 160), (32, 64, 32, 40), (1, 512, 8, 10)],
    "split_error": [(8, 64, 128, 160), (32, 64, 32, 40), (1, 3, 128, 160)],
    "modulate": [(8, 64, 128, 160), (32, 64, 32, 40), (1, 256, 16, 20)],
}
# Channels of the inputs in units of C; 0 is a single number.
WIDTHS = {"lstm_gates": (4, 1), "split_error": (1, 1), "modulate": (1, 2, 0)}
# A float32 cell beside 16-bit gates, as under autocast; the other ops have one dtype.
DTYPES = [torch.float32, torch.bfloat16]
ORDERS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
COPY = 2**30  # bytes


def make_inputs(op: str, size: Sequence[int], dtype: torch.dtype, order: torch.memory_format, device: str):
    batch, channels, *space = size
    inputs = []
    for position, width in enumerate(WIDTHS[op]):
        is_kept_wide = (op == "lstm_gates" and position == 1) or not width
        shape = (batch, width * channels, *space) if width else ()
        values = torch.randn(shape, device=device, dtype=torch.float32 if is_kept_wide else dtype)
        inputs.append((values.to(memory_format=order) if width else values).requires_grad_())
    return inputs


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def count_bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def least_bytes(op: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], backward: bool) -> int:
    """What must be read and written once: forward inputs and outputs; backward their gradients and what is kept."""
    moved = count_bytes(inputs) + count_bytes(outputs)
    if backward:
        moved *= 2
        moved += count_bytes(outputs if op == "split_error" else inputs)
    return moved


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a copy on the GPU; the best of ten."""
    source = torch.zeros(COPY, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end) / 1000)
    return 2 * COPY / best


def repeat(run: Callable[[], object], times: int) -> Callable[[], None]:
    """One call after another without waiting, so that a GPU stays busy."""

    def run_all() -> None:
        for _ in range(times):
            run()

    return run_all


def make_run(op: Callable, inputs: Sequence[Tensor], arriving: Sequence[Tensor], backward: bool) -> Callable:
    if backward:
        return lambda: torch.autograd.grad(as_tuple(op(*inputs)), inputs, arriving)
    plain = [tensor.detach() for tensor in inputs]
    return lambda: op(*plain)


def rows_of(
    op: str, size: Sequence[int], dtype: torch.dtype, order: str, *, rounds: int, times: int, bandwidth: float | None
) -> list[list[str]]:
    """Forward, and forward and backward, of one op at one size."""
    device = "cpu" if bandwidth is None else "cuda"
    reference = getattr(importlib.import_module(f"pcvideo.ops.{op}.reference"), op)
    inputs = make_inputs(op, size, dtype, ORDERS[order], device)
    compiled = torch.compile(reference, fullgraph=True, dynamic=False)
    variants = {"plain": reference, "compiled": compiled}
    if bandwidth is not None:
        if not use_kernel(*inputs):
            raise SystemExit("the kernels don't run here: they need Triton, a C compiler and a GPU of 8.0 or newer")
        variants["kernel"] = getattr(importlib.import_module(f"pcvideo.ops.{op}.op"), op)
    outputs = as_tuple(reference(*inputs))
    arriving = [torch.randn_like(output) for output in outputs]
    rows = []
    for backward in (False, True):
        runs = {name: repeat(make_run(run, inputs, arriving, backward), times) for name, run in variants.items()}
        seconds = interleaved(runs, rounds)
        name = f"{op}, {'forward and backward' if backward else 'forward'}"
        row = [name, "x".join(map(str, size)), str(dtype).removeprefix("torch."), order]
        row += [f"{1e6 * statistics.median(seconds['plain']) / times:.0f}"]
        row += [speed(ratios(seconds, "plain")["compiled"])]
        if bandwidth is not None:
            least = least_bytes(op, inputs, outputs, backward)
            share = least * times / statistics.median(seconds["kernel"]) / bandwidth
            row += [speed(ratios(seconds, "plain")["kernel"]), speed(ratios(seconds, "compiled")["kernel"])]
            row += [f"{100 * share:.0f} %"]
        rows.append(row)
    return rows


def speed(ratio: tuple[float, float, float]) -> str:
    return f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="the smallest size of each op in float32 only")
    arguments = parser.parse_args()
    has_gpu = torch.cuda.is_available()
    bandwidth = copy_bandwidth() if has_gpu else None
    print(machine())
    columns = ["op", "size", "dtype", "order", "plain, µs", "compiled to plain"]
    if bandwidth is None:
        print("The kernels need a GPU; these are the two variants that run on a CPU.")
    else:
        print(f"A copy of 1 GiB moves {bandwidth / 1e12:.2f} TB/s.")
        columns += ["kernel to plain", "kernel to compiled", "kernel's share of the bandwidth"]
    rows = []
    for op, sizes in SIZES.items():
        for size in sizes[-1:] if arguments.quick else sizes:
            for dtype in DTYPES[:1] if arguments.quick or not has_gpu else DTYPES:
                for order in ORDERS:
                    # Each op, size and dtype is compiled afresh, which is more often than torch allows by default.
                    torch.compiler.reset()
                    times = 50 if has_gpu else max(1, 2**22 // math.prod(size))
                    rows += rows_of(op, size, dtype, order, rounds=arguments.rounds, times=times, bandwidth=bandwidth)
    print_table("Times as fast, median (lowest to highest)", columns, rows)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""`pcvideo filter`: what a low-pass filter, or those of a model, pass and alias, in figures and as a plot."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcvideo.cli._common import add_command, load_model, print_json
from pcvideo.layers.fir import LearnableFIR
from pcvideo.ops.fir import FilterReport, describe_filter, frequency_response, lowpass_taps, reshaped_taps
from pcvideo.viz import plot_response

__all__ = ["add_parser", "run"]

_DESCRIPTION = """Measure a low-pass filter before a decimation, or each one of a model (before its decimation or after
its insertion of zeros).

Aliased is the share of the output's energy that lies above the new Nyquist frequency, where the input is white noise
and where its power falls as 1/f^2. The stop band is where the horizontal (h) or the vertical (v) frequency alone lies
above it, the pass band all up to half of it. Of a filter with several channels, the mean of their figures and the
channel that aliases most are shown."""

_EPILOG = """examples:
  pcvideo filter
  pcvideo filter --taps 7 --window hamming --cutoff 0.5 --out response.png
  pcvideo filter --design radial --taps 7
  pcvideo filter --design reshaped --cutoff 0.88
  pcvideo filter --model weights/ppnv2 --json
"""

# What a filter is made of where nothing is said: the default of the layers.
_DESIGN, _TAPS, _WINDOW, _BETA = "separable", 9, "kaiser", 4.0
_SHARE_OF_NYQUIST = 0.9
_COLUMNS = (
    "filter", "factor", "channel", "cutoff", "aliased %", "1/f^2 %", "stop h dB", "stop v dB", "worst dB",
    "pass band dB", "asymmetry",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Filter:
    """Filters of one kind, one a channel."""

    name: str
    factor: int
    cutoff: Tensor
    taps: Tensor


def add_parser(commands: Any) -> None:
    """Add the command."""
    summary = "measure a low-pass filter, or those of a model"
    parser = add_command(commands, "filter", run, summary=summary, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--model", help="name or folder of weights whose filters to measure, instead of one given here")
    parser.add_argument(
        "--design",
        choices=("separable", "radial", "reshaped"),
        help="a sinc along each axis (default), a round jinc, or PPNV2's published one, which is no low-pass",
    )
    parser.add_argument("--taps", type=int, help="length along each axis, odd (default 9)")
    parser.add_argument("--window", choices=("kaiser", "hamming"), help="default kaiser")
    parser.add_argument("--beta", type=float, help="of the Kaiser window (default 4)")
    parser.add_argument(
        "--cutoff", type=float, help="in units of the Nyquist frequency, in (0, 1] (default 0.9 of the new one)"
    )
    parser.add_argument("--factor", type=int, default=2, help="of the decimation; with --model, of plain filters")
    parser.add_argument("--out", type=Path, help="picture of the response to write, .png, .svg, .pdf or .jpg")
    parser.add_argument("--json", action="store_true", help="print a JSON object on standard output")


@torch.no_grad()
def run(arguments: argparse.Namespace) -> None:
    """Measure, print, and draw where a picture is asked for."""
    if arguments.factor < 2:
        raise ValueError(f"--factor must be at least 2, got {arguments.factor}")
    _refuse_unused(arguments)
    filters = [_given(arguments)] if arguments.model is None else _of_model(arguments.model, arguments.factor)
    entries = [_describe(item) for item in filters]
    if arguments.out is not None and filters:
        _draw(filters, entries, arguments.out)
    if arguments.json:
        print_json({"filters": entries})
        return
    if not entries:
        print(f"{arguments.model} has no learnable low-pass filters")
        return
    _print_table([row for entry in entries for row in _rows(entry)])
    if arguments.out is not None:
        print(f"response: {arguments.out}")


def _refuse_unused(arguments: argparse.Namespace) -> None:
    """Refuse flags that another one overrules."""
    given = [name for name in ("design", "taps", "window", "beta", "cutoff") if getattr(arguments, name) is not None]
    if arguments.model is not None and given:
        raise ValueError(f"--{given[0]} says how to make a filter, and --model has its own; leave one of them out")
    unused = [name for name in given if name not in ("design", "cutoff")]
    if arguments.design == "reshaped" and unused:
        raise ValueError(f"--design reshaped has 25 taps under a Hamming window as published; leave --{unused[0]} out")


def _given(arguments: argparse.Namespace) -> _Filter:
    """The filter that the flags describe."""
    cutoff = _SHARE_OF_NYQUIST / arguments.factor if arguments.cutoff is None else arguments.cutoff
    at = torch.tensor([cutoff], dtype=torch.float64)
    design = arguments.design or _DESIGN
    if design == "reshaped":
        return _Filter("reshaped 5x5", arguments.factor, at, reshaped_taps(at))
    window = arguments.window or _WINDOW
    if window != "kaiser" and arguments.beta is not None:
        raise ValueError(f"--beta is of the Kaiser window, and --window is {window}; leave one of them out")
    length = _TAPS if arguments.taps is None else arguments.taps
    beta = _BETA if arguments.beta is None else arguments.beta
    taps = lowpass_taps(at, length, design=design, window=window, beta=beta)
    name = f"{design} {length} {window}" + (f"({beta:g})" if window == "kaiser" else "")
    return _Filter(name, arguments.factor, at, taps)


def _of_model(name: str, factor: int) -> list[_Filter]:
    """The filters of a model; one that neither shrinks nor enlarges is measured for a decimation by `factor`."""
    model = load_model(name, torch.device("cpu")).double()
    return [
        _Filter(
            path,
            resampling if (resampling := max(module.up, module.down)) > 1 else factor,
            module.cutoff,
            module.make_taps(),
        )
        for path, module in model.named_modules()
        if isinstance(module, LearnableFIR)
    ]


def _describe(item: _Filter) -> dict[str, Any]:
    """The mean of the channels' figures, and those of the channel that aliases most."""
    # Fresh filters are all the same, and trained ones often are.
    distinct, which = torch.unique(item.taps, dim=0, return_inverse=True)
    found = describe_filter(distinct, factor=item.factor)
    reports = [found[index] for index in which.tolist()]
    worst = max(range(len(reports)), key=lambda channel: reports[channel].aliased_white)
    mean = FilterReport(*(math.fsum(figures) / len(reports) for figures in zip(*reports, strict=True)))
    return {
        "name": item.name,
        "channels": len(reports),
        "factor": item.factor,
        "mean": {"cutoff": float(item.cutoff.mean()), **mean._asdict()},
        "worst": {"channel": worst, "cutoff": float(item.cutoff[worst]), **reports[worst]._asdict()},
    }


def _rows(entry: dict[str, Any]) -> list[tuple[str, ...]]:
    mean = _row(entry, f"mean of {entry['channels']}", entry["mean"])
    worst = _row(entry, f"worst, {entry['worst']['channel']}", entry["worst"])
    if entry["channels"] == 1:
        return [_row(entry, "-", entry["mean"])]
    # Fresh filters have nothing to tell apart.
    alike = mean[3:] == worst[3:]
    return [_row(entry, f"all {entry['channels']}", entry["mean"])] if alike else [mean, worst]


def _row(entry: dict[str, Any], channel: str, figures: dict[str, Any]) -> tuple[str, ...]:
    edges = [20 * math.log10(max(figures[name], 1e-15)) for name in ("passband_min", "passband_max")]
    return (
        entry["name"],
        str(entry["factor"]),
        channel,
        f"{figures['cutoff']:.3f}",
        f"{100 * figures['aliased_white']:.1f}",
        f"{100 * figures['aliased_natural']:.2f}",
        *(f"{figures[f'stopband_{name}']:.1f}" for name in ("horizontal_db", "vertical_db", "worst_db")),
        # Adding 0 takes the sign off a zero.
        " to ".join(f"{round(edge, 1) + 0.0:.1f}" for edge in edges),
        f"{figures['asymmetry']:.2f}",
    )


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    table = [_COLUMNS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_COLUMNS))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _draw(filters: Sequence[_Filter], entries: Sequence[dict[str, Any]], out: Path) -> None:
    """Draw each filter's channel that aliases most."""
    responses, factors = {}, {}
    for item, entry in zip(filters, entries, strict=True):
        worst = entry["worst"]["channel"]
        name = f"{item.name}, cutoff {entry['worst']['cutoff']:.3f}"
        name += f", channel {worst}" if entry["channels"] > 1 else ""
        responses[name] = frequency_response(item.taps[worst][None])[0]
        factors[name] = item.factor
    plot_response(responses, out, factor=factors)

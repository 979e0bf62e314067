# SPDX-License-Identifier: Apache-2.0
"""`pcvideo models`: which weights there are, where they lie, and how they score beside copy-last."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from pcvideo import hub
from pcvideo.cli._common import add_command, print_json

__all__ = ["add_parser", "run"]

_DESCRIPTION = """List the weights at hand: those built into the package, and those of a source checkout.

The figure is the first protocol's MSE (sum over a frame) on the data that the weights' card names, beside copy-last's;
figures on other data don't compare."""

_EPILOG = """examples:
  pcvideo models
  pcvideo models --json
"""

_COLUMNS = ("name", "task", "parameters", "size", "mse", "copy-last", "folder")


def add_parser(commands: Any) -> None:
    """Add the command."""
    summary = "list the weights at hand"
    parser = add_command(commands, "models", run, summary=summary, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--json", action="store_true", help="print a JSON object on standard output")


def run(arguments: argparse.Namespace) -> None:
    """Print the list."""
    entries = [_describe(model) for model in hub.list_models()]
    if arguments.json:
        print_json({"models": entries})
        return
    if not entries:
        print("no weights at hand; `pcvideo train` makes some, and every command takes their folder as --model")
        return
    rows = [_COLUMNS, *(_row(entry) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _describe(model: hub.PublishedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "task": model.task,
        "architecture": model.model,
        "parameters": model.parameters,
        "bytes": model.size,
        "folder": str(model.folder),
        "config": model.config,
        **model.facts,
    }


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    mse, copy_last = _figures(entry.get("metrics"))
    size = f"{entry['bytes'] / 2**20:.1f} MiB"
    return (entry["name"], entry["task"], f"{entry['parameters']:,}", size, mse, copy_last, entry["folder"])


def _figures(metrics: Any) -> tuple[str, str]:
    """The first protocol's MSE of the model and of copy-last, out of a report as `evaluate --json` writes it."""
    report = metrics.get("protocols", metrics) if isinstance(metrics, Mapping) else {}
    for entry in report.values():
        if isinstance(entry, Mapping) and isinstance(entry.get("metrics"), Mapping):
            pair = (entry["metrics"].get("mse"), (entry.get("copy_last") or {}).get("mse"))
            return tuple("-" if value is None else f"{value:.1f}" for value in pair)  # type: ignore[return-value]
    return "-", "-"

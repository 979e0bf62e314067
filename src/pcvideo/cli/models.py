# SPDX-License-Identifier: Apache-2.0
"""`pcvideo models`: the models that have a name: what they cost, where their weights are, how they score."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from pcvideo import hub
from pcvideo.cli._common import add_command, print_json

__all__ = ["add_parser", "run"]

_DESCRIPTION = """List the models that have a name: those with weights, with --all the papers' networks too.

GMAC are billions of multiplications for a step on one frame of the size that the model learned at. The figure is that
of the first protocol on the data that the weights' card names, the MSE (sum over a frame) or the Jaccard distance (of
volumes), beside what costs nothing: copy-last, the average of both neighbours, grey. Figures on other data don't
compare."""

_EPILOG = """examples:
  pcvideo models
  pcvideo models --all --json
"""

_COLUMNS = ("name", "task", "parameters", "size", "frame", "GMAC", "figure", "beside", "weights")
# In the order in which they are looked for.
_METRICS = {"mse": ".1f", "jaccard": ".3f"}
_BASELINES = ("copy_last", "average_frames", "blend", "grey")


def add_parser(commands: Any) -> None:
    """Add the command."""
    summary = "list the models that have a name"
    parser = add_command(commands, "models", run, summary=summary, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--all", action="store_true", help="networks without weights too, for pcvideo.create_model")
    parser.add_argument("--json", action="store_true", help="print a JSON object on standard output")


def run(arguments: argparse.Namespace) -> None:
    """Print the list."""
    entries = [_describe(model) for model in hub.list_models(fresh=arguments.all)]
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
        "frame": None if model.frame is None else list(model.frame),
        "gmac": model.gmac,
        "weights": model.where,
        "folder": None if model.folder is None else str(model.folder),
        "repository": model.repository,
        "revision": model.revision,
        "config": model.config,
        **model.facts,
    }


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    figure, beside = _figures(entry.get("metrics"))
    size = f"{entry['bytes'] / 2**20:.1f} MiB" if entry["bytes"] else "-"
    frame = "x".join(map(str, entry["frame"])) if entry["frame"] else "-"
    gmac = "-" if entry["gmac"] is None else f"{entry['gmac']:.2f}"
    count = f"{entry['parameters']:,}"
    return (entry["name"], entry["task"], count, size, frame, gmac, figure, beside, entry["weights"])


def _figures(metrics: Any) -> tuple[str, str]:
    """The first protocol's figure of the model and of a baseline, out of a report as `evaluate --json` writes it."""
    report = metrics.get("protocols", metrics) if isinstance(metrics, Mapping) else {}
    for protocol in filter(lambda each: isinstance(each, Mapping), report.values()):
        found = {name: figures for name, figures in protocol.items() if isinstance(figures, Mapping)}
        for metric, digits in _METRICS.items():
            values = {name: figures[metric] for name, figures in found.items() if figures.get(metric) is not None}
            if "metrics" in values:
                beside = next((name for name in _BASELINES if name in values), None)
                return (
                    f"{metric} {values['metrics']:{digits}}",
                    "-" if beside is None else f"{beside.replace('_', '-')} {values[beside]:{digits}}",
                )
    return "-", "-"

# SPDX-License-Identifier: Apache-2.0
"""`pcvideo export`: one step of a model as an ONNX or torch graph, to run without this package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from pcvideo.cli._common import add_command, load_model, print_json
from pcvideo.export import check_target, export_step

__all__ = ["add_parser", "run"]

_DESCRIPTION = """Write one step of a model as a graph that takes a frame and a state and gives the next frame and the
next state, for any batch and any size that fits; beside it a JSON file that says what the inputs and outputs are and
how to start. docs/deployment.md shows the loop around it."""

_EPILOG = """examples:
  pcvideo export mspn-moving-mnist step.onnx
  pcvideo export runs/mine/best step.pt2
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    summary = "write a model's step as an ONNX or torch graph"
    parser = add_command(commands, "export", run, summary=summary, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("model", help="name or folder of weights")
    parser.add_argument("out", type=Path, help="file to write, .onnx or .pt2")
    parser.add_argument("--format", choices=("onnx", "torch"), help="by default what the file's ending says")
    parser.add_argument("--json", action="store_true", help="print the description on standard output")


def run(arguments: argparse.Namespace) -> None:
    """Export, write, and tell what came of it."""
    check_target(arguments.out, arguments.format)
    exported = export_step(load_model(arguments.model, torch.device("cpu")))
    exported.save(arguments.out, format=arguments.format)
    if arguments.json:
        print_json(exported.description)
        return
    description, multiple = exported.description, exported.description["size_multiple"]
    size = arguments.out.stat().st_size / 2**20
    print(f"graph: {arguments.out} ({size:.1f} MiB), {description['model']}")
    print(f"frames: any number at once, height and width multiples of {multiple}")
    print(f"state: {len(description['state'])} tensors, which start as zeros", end="")
    print(", and then one black frame" if description["black_frames"] else "")
    print(f"description: {arguments.out}.json")

# SPDX-License-Identifier: Apache-2.0
"""`pcvideo convert`: a checkpoint of the published code to a folder that every command takes as --model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pcvideo.cli._common import add_command, print_json
from pcvideo.convert import SYSTEMS, Original, read_original, save_original
from pcvideo.models import Interpolator, Predictor

__all__ = ["add_parser", "run"]

_DESCRIPTION = """Convert a checkpoint of a published code to a folder of config.json and model.safetensors, with the
same outputs.

Whose it is and how large is seen from the names and shapes of its tensors. What the published code makes and never
uses is dropped; anything missing, unexpected or of another shape is refused. Nothing in the file is run: a pickle that
asks for more than tensors and numbers is refused."""

_EPILOG = """examples:
  pcvideo convert mspn_kth.pth mspn-kth
  pcvideo convert adversarial.pth critic --system mspn-discriminator
  pcvideo convert encoder.h5 gan --generator generator.h5
  pcvideo convert mspn_kth.pth mspn-kth --config '{"clamp": true}'
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    summary = "turn a checkpoint of a published code into a model's folder"
    parser = add_command(commands, "convert", run, summary=summary, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("checkpoint", type=Path, help="file of the published code: .pt, .pth, .safetensors, .h5")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--generator", type=Path, help="second file of AEncGAN3D, whose encoder's is the first")
    parser.add_argument("--system", choices=tuple(SYSTEMS), help="whose checkpoint it is, if it is not to be seen")
    parser.add_argument("--config", metavar="JSON", help="arguments of the model, in place of those that are seen")
    parser.add_argument("--json", action="store_true", help="print a JSON object on standard output")


def run(arguments: argparse.Namespace) -> None:
    """Convert, write, and tell what was seen."""
    config = None if arguments.config is None else _object(arguments.config)
    original = read_original(
        arguments.checkpoint, system=arguments.system, config=config, generator=arguments.generator
    )
    save_original(original, arguments.out)
    if arguments.json:
        print_json(_facts(original) | {"folder": str(arguments.out)})
        return
    _tell(original, arguments.out)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"--config must be a JSON object such as '{{\"clamp\": true}}', got {text!r} ({error})"
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"--config must be a JSON object such as '{{\"clamp\": true}}', got {text!r}")
    return value


def _facts(original: Original) -> dict[str, Any]:
    return {
        "system": original.system,
        "model": type(original.model).__name__,
        "config": original.config,
        "entry": original.part,
        "dropped": list(original.dropped),
        "others": [{"system": system, "entry": part} for system, part in original.others],
    }


def _tell(original: Original, folder: Path) -> None:
    model = original.model
    arguments = ", ".join(f"{name}={value!r}" for name, value in original.config.items())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"seen: {original.system}" + (f", in its entry {original.part!r}" if original.part else ""))
    print(f"model: {type(model).__name__}({arguments}), {parameters:,} parameters")
    if original.dropped:
        print(f"dropped, as the published code never uses them: {', '.join(original.dropped)}")
    for system, part in original.others:
        print(f"also in the file: {system} in its entry {part!r}; --system {system} converts it")
    print(f"written: {folder}")
    if isinstance(model, Predictor):
        print(f"next: pcvideo predict --model {folder}")
    if isinstance(model, Interpolator):
        print(f"next: pcvideo interpolate CLIP --model {folder}")

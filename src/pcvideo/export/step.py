# SPDX-License-Identifier: Apache-2.0
"""One step of a predictor as a graph, for any batch and any size that fits, and a description of how to run it.

The graph takes a frame and the state of the step before, and gives the prediction and the next state, as a flat list
of named tensors. What depends on the weights alone (the taps of filters) is in the graph. The state starts as zeros; a
model that anticipates its first frame (MSPN) is then shown one black frame, whose errors against zeros are none, so
that it anticipates just what `init_state` does.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from pcvideo import _files
from pcvideo._checks import check_choice, describe
from pcvideo._optional import require
from pcvideo.export._graph import Step
from pcvideo.export._one_form import in_one_form
from pcvideo.models import Predictor

__all__ = ["ExportedStep", "check_target", "export_step"]

_FORMATS = {".onnx": "onnx", ".pt2": "torch"}


@dataclass(frozen=True, eq=False)
class ExportedStep:
    """One step as a graph.

    Attributes:
        program: the graph, which takes the frame and then the state's tensors, and gives the prediction and then the
            next state's.
        description: how to run it, as JSON holds it; docs/deployment.md explains each key.
    """

    program: ExportedProgram
    description: dict[str, Any]

    def save(self, path: str | Path, *, format: str | None = None) -> None:
        """Write the graph, and beside it the description, under the same name with `.json` after it.

        Args:
            path: where to, such as `walk.onnx` or `walk.pt2`.
            format: "onnx", for onnxruntime and others, or "torch", for `torch.export.load` and AOTInductor; None goes
                by the path's ending.

        Raises:
            ImportError: onnx and onnxscript are not installed, for ONNX.
            ValueError: the format is unknown.
            OSError: the files can't be written.
        """
        path = Path(path)
        save = self._save_onnx if check_target(path, format) == "onnx" else self._save_torch

        def write(temporary: Path) -> None:
            save(temporary / path.name)
            _files.write_json(temporary / f"{path.name}.json", {**self.description, "file": path.name})

        _files.update_folder(path.absolute().parent, write)

    def _save_torch(self, path: Path) -> None:
        torch.export.save(self.program, path)

    def _save_onnx(self, path: Path) -> None:
        state = self.description["state"]
        with _quietly():
            program = torch.onnx.export(
                self.program,
                dynamo=True,
                verbose=False,
                input_names=[self.description["frame"]["input"], *(entry["input"] for entry in state)],
                output_names=[self.description["prediction"]["output"], *(entry["output"] for entry in state)],
            )
            program.save(str(path))  # type: ignore[union-attr]


def check_target(path: str | Path, format: str | None = None) -> str:
    """The format that `ExportedStep.save` would write, checked before the work of making a graph.

    Raises:
        ImportError, ValueError: as `ExportedStep.save`.
    """
    ending = Path(path).suffix
    if format is None and ending not in _FORMATS:
        raise ValueError(f"path must end in .onnx or .pt2, or format must be given, got {Path(path).name!r}")
    format = check_choice("format", _FORMATS.get(ending) if format is None else format, tuple(_FORMATS.values()))
    if format == "onnx":
        for package in ("onnx", "onnxscript"):
            require(package, extra="export", purpose="exporting to ONNX")
    return format


def export_step(model: Predictor) -> ExportedStep:
    """Make a graph of one step of a model, in float32, with its weights as they are now.

    The batch and the size of frames stay open: height and width are any multiples of the model's `size_multiple`.

    Raises:
        TypeError: `model` is no predictor, or its state changes its form from step to step, which a graph's can't.
        ValueError: its state can't be started from zeros.
    """
    if not isinstance(model, Predictor):
        raise TypeError(f"model must be a predictor, got {describe(model)}")
    own = copy.deepcopy(model).cpu().float().eval()
    # The channels-last filters that a loaded model has would only put copies into the graph.
    for parameter in own.parameters():
        parameter.data = parameter.data.contiguous()
    with torch.no_grad():
        step = Step(in_one_form(own), own)
        with _quietly():
            program = torch.export.export(step, step.example(), dynamic_shapes=step.dynamic_shapes(), strict=False)
        return ExportedStep(program, step.describe())


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporter warns of what its own libraries deprecate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

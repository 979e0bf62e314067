# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: folders of safetensors and JSON, written aside, flushed, renamed.

`checkpoints/step-00000400/` holds what the run needs to go on (`training.json`, `training.safetensors`) beside the
weights that one would use (`config.json`, `model.safetensors`), so it is a weights folder too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pcvideo import _files

__all__ = [
    "load_checkpoint",
    "load_module",
    "module_tensors",
    "newest_checkpoint",
    "optimizer_tensors",
    "restore_optimizer",
    "save_checkpoint",
]

STATE_NAME = "training.json"
TENSORS_NAME = "training.safetensors"


def save_checkpoint(
    folder: Path,
    step: int,
    *,
    state: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    save_weights: Callable[[Path], None],
    keep: int = 2,
) -> Path:
    """Write `folder/step-<step>` whole or not at all, and only then remove all but the newest `keep`."""
    path = folder / f"step-{step:08d}"

    def write(temporary: Path) -> None:
        _files.write_json(temporary / STATE_NAME, {"step": step, **state})
        _files.write_tensors(temporary / TENSORS_NAME, tensors)
        save_weights(temporary)

    _files.write_folder(path, write)
    for old in _checkpoints(folder)[:-keep]:
        # Renamed first: a kill in the middle must not leave what looks like a checkpoint.
        retired = old.rename(old.with_name(f"{_files.TEMPORARY_PREFIX}{old.name}-removed"))
        shutil.rmtree(retired, ignore_errors=True)
    return path


def load_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The state and the tensors of a checkpoint.

    Raises:
        FileNotFoundError: the folder is no checkpoint.
        WeightsCorruptError: one of its files can't be read.
    """
    if not (path / STATE_NAME).is_file():
        raise FileNotFoundError(f"{path} is no checkpoint: it has no {STATE_NAME}; give RUN_DIR/checkpoints/step-*")
    return _files.read_json(path / STATE_NAME), _files.read_tensors(path / TENSORS_NAME)


def newest_checkpoint(run_dir: str | Path) -> Path | None:
    """The newest checkpoint of a run folder, None where there is none yet."""
    found = _checkpoints(Path(run_dir) / "checkpoints")
    return found[-1] if found else None


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if (path / STATE_NAME).is_file())


def module_tensors(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """A module's state under a prefix, as `load_module` takes it back."""
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str, *, source: Path) -> None:
    """Load the tensors under a prefix into a module; where they don't all fit, nothing is loaded.

    Raises:
        ValueError: a tensor is missing, unexpected, or of another shape; the message names them.
    """
    own, saved = module.state_dict(), _under(tensors, prefix)
    differences = {
        "only the model that is trained has": sorted(own.keys() - saved.keys()),
        "only the checkpoint has": sorted(saved.keys() - own.keys()),
        "other shapes": [
            f"{name} {tuple(saved[name].shape)} in the checkpoint, {tuple(tensor.shape)} in the model"
            for name, tensor in own.items()
            if name in saved and saved[name].shape != tensor.shape
        ],
    }
    if any(differences.values()):
        told = "; ".join(f"{what}: {', '.join(names)}" for what, names in differences.items() if names)
        raise ValueError(f"the checkpoint {source} is of another model or strategy than is trained: {told}")
    module.load_state_dict(saved)


def optimizer_tensors(optimizer: Optimizer, prefix: str) -> dict[str, Tensor]:
    """An optimizer's state as named tensors; what is a number becomes a tensor of one."""
    return {
        f"{prefix}.{index}.{name}": torch.as_tensor(value)
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Put the state that `optimizer_tensors` took back into an optimizer of the same parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _under(tensors, prefix).items():
        index, name = key.split(".")
        # A file knows no memory formats; what goes with a parameter is laid out like it, or every step would be slower.
        parameter = parameters[int(index)]
        laid_out = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
        state.setdefault(int(index), {})[name] = laid_out
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")
    }

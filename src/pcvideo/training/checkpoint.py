# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: folders of safetensors and JSON, written aside, flushed, renamed, with a manifest of what is in them.

`checkpoints/step-00000400/` holds what the run needs to go on (`training.json`, `training.safetensors`) beside the
weights that one would use (`config.json`, `model.safetensors`), so it is a weights folder too, and `manifest.json` with
size and checksum of each. Nothing in it depends on how many ranks wrote it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pcvideo import _files

__all__ = [
    "all_checkpoints",
    "checkpoint_path",
    "load_checkpoint",
    "load_module",
    "module_tensors",
    "newest_checkpoint",
    "optimizer_tensors",
    "restore_optimizer",
    "save_checkpoint",
]

logger = logging.getLogger(__name__)

ShareOf = Callable[[Tensor, Tensor], Tensor]
"""`share_of(tensor, like)`: a complete tensor as `like` holds it, which may be the part of one rank."""

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
    keep_every: int = 0,
) -> Path:
    """Write `folder/step-<step>` whole or not at all, and only then remove older ones.

    The newest `keep` stay, and those whose step `keep_every` divides (0: no others).
    """
    path = checkpoint_path(folder, step)

    def write(temporary: Path) -> None:
        _files.write_json(temporary / STATE_NAME, {"step": step, **state})
        _files.write_tensors(temporary / TENSORS_NAME, tensors)
        save_weights(temporary)
        # In place of that of the weights alone, which lists some of these files.
        names = {file.name for file in temporary.iterdir()} - {_files.MANIFEST_NAME}
        _files.write_manifest(temporary, names)

    _files.write_folder(path, write)
    for old in all_checkpoints(folder)[:-keep]:
        if keep_every and _step_of(old) % keep_every == 0:
            continue
        # Renamed first: a kill in the middle must not leave what looks like a checkpoint.
        retired = old.rename(old.with_name(f"{_files.TEMPORARY_PREFIX}{old.name}-removed"))
        shutil.rmtree(retired, ignore_errors=True)
    return path


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}"


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
    """The newest checkpoint of a run folder that holds what its manifest says, None where there is none yet.

    A broken one is passed over, with a warning that names it.

    Raises:
        WeightsCorruptError: there are checkpoints, and every one is broken; of the newest.
    """
    failure: Exception | None = None
    for path in reversed(all_checkpoints(Path(run_dir) / "checkpoints")):
        try:
            _files.check_manifest(path)
        except (_files.WeightsCorruptError, OSError) as error:
            failure = failure or error
            logger.warning("the checkpoint %s is broken, the one before it counts: %s", path, error)
            continue
        return path
    if isinstance(failure, OSError):
        raise _files.WeightsCorruptError(Path(run_dir) / "checkpoints", str(failure)) from failure
    if failure is not None:
        raise failure
    return None


def all_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first, broken ones too."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit() and path.is_dir()]
    return sorted(found, key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def module_tensors(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """A module's state under a prefix, as `load_module` takes it back."""
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}


def load_module(
    module: nn.Module, tensors: Mapping[str, Tensor], prefix: str, *, source: Path, share_of: ShareOf
) -> None:
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
    module.load_state_dict({name: share_of(saved[name], tensor) for name, tensor in own.items()})


def optimizer_tensors(optimizer: Optimizer, prefix: str, names: Mapping[int, str]) -> dict[str, Tensor]:
    """An optimizer's state as `<prefix>.<parameter>.<what>`; what is a number becomes a tensor of one.

    Args:
        optimizer: whose state it is.
        prefix: of the names.
        names: of the parameters, by their `id`. So another grouping or another choice of what is trained finds its own.
    """
    return {
        f"{prefix}.{names[id(parameter)]}.{what}": torch.as_tensor(value)
        for parameter, values in optimizer.state.items()
        for what, value in values.items()
    }


def restore_optimizer(
    optimizer: Optimizer, tensors: Mapping[str, Tensor], prefix: str, names: Mapping[int, str], *, share_of: ShareOf
) -> None:
    """Put back what `optimizer_tensors` took; a parameter that has no state there begins without."""
    saved: dict[str, dict[str, Tensor]] = {}
    for key, value in _under(tensors, prefix).items():
        name, _, what = key.rpartition(".")
        saved.setdefault(name, {})[what] = value
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        index: {what: _laid_out(value, parameter, share_of) for what, value in saved[names[id(parameter)]].items()}
        for index, parameter in enumerate(parameters)
        if names[id(parameter)] in saved
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out(value: Tensor, parameter: Tensor, share_of: ShareOf) -> Tensor:
    """A file knows no memory formats; what goes with a parameter is laid out like it, or every step would be slower."""
    if value.shape != parameter.shape or parameter.ndim == 0:
        return value
    share = share_of(value, parameter)
    return torch.empty_like(parameter).copy_(share)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")
    }

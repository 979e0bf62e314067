# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the published code to models of this package: the system and its numbers are seen from the tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pcvideo import _files
from pcvideo._checks import check_choice
from pcvideo._memory_format import channels_last
from pcvideo._weights import CONFIG_NAME, OWNED, write_weights
from pcvideo.convert._system import Shapes, System, fit, unfit
from pcvideo.convert.checkpoints import read_checkpoint
from pcvideo.convert.discriminator import DISCRIMINATOR_SYSTEM
from pcvideo.convert.keras_3d import CONV_LSTM_3D_SYSTEM
from pcvideo.convert.keras_gan_3d import AENC_GAN_3D_SYSTEM, together
from pcvideo.convert.mspn import MSPN_SYSTEM
from pcvideo.convert.ppnv2 import PPNV2_SYSTEM
from pcvideo.convert.wavelet_vfi import WAVELET_VFI_SYSTEM
from pcvideo.models import Interpolator, Predictor
from pcvideo.models._pretrained import SHARD_SIZE, config_file

__all__ = ["SYSTEMS", "Original", "load_original", "read_original", "save_original", "to_original"]

# Where a file holds several, the first one is taken.
SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        MSPN_SYSTEM,
        PPNV2_SYSTEM,
        DISCRIMINATOR_SYSTEM,
        CONV_LSTM_3D_SYSTEM,
        AENC_GAN_3D_SYSTEM,
        WAVELET_VFI_SYSTEM,
    )
}


@dataclass(frozen=True, eq=False)
class Original:
    """A checkpoint of the published code as a model of this package.

    Attributes:
        system: whose checkpoint it is, a key of `SYSTEMS`.
        model: the model, in the dtype of the checkpoint and in evaluation mode.
        config: the model's arguments that were seen or given; the others have their defaults.
        part: the entry of the file that the tensors stand in; empty where it is the file itself.
        dropped: tensors that the published code makes and never uses.
        others: what else the file holds that can be converted, as (system, part).
    """

    system: str
    model: nn.Module
    config: dict[str, Any]
    part: str
    dropped: tuple[str, ...]
    others: tuple[tuple[str, str], ...]


def read_original(
    path: str | Path,
    *,
    system: str | None = None,
    config: Mapping[str, Any] | None = None,
    generator: str | Path | None = None,
) -> Original:
    """Convert a checkpoint of the published code.

    Args:
        path: a .pt, .pth or .safetensors file: a state dict, or what a training script saved around one; or a .h5 file
            of Keras. Nothing in it is ever run.
        system: whose it is, a key of `SYSTEMS`; None sees it from the names.
        config: arguments of the model to take instead of those seen from the shapes, such as `{"clamp": True}`.
        generator: the second file of AEncGAN3D, whose encoder's is `path`.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsCorruptError: it can't be read, or is a pickle that asks to run something.
        ValueError: it is of no known system, or its tensors are missing, unexpected or of another shape; the message
            names them.
    """
    names = list(SYSTEMS) if system is None else [check_choice("system", system, tuple(SYSTEMS))]
    parts = read_checkpoint(path) if generator is None else {"": together(_alone(path), _alone(generator))}
    found = [(name, part) for name in names for part, tensors in parts.items() if _has_mark(SYSTEMS[name], tensors)]
    if not found:
        shown = [name for tensors in parts.values() for name in tensors][:5]
        known = f"a checkpoint of {', '.join(names)}"
        raise ValueError(
            f"{path} is not {known}; its tensors begin with {', '.join(shown)}. AEncGAN3D is published in two files: "
            f"its generator's goes beside its encoder's, with --generator or generator="
        )
    (name, part), *others = found
    source = f"{path}[{part!r}]" if part else str(path)
    shapes = Shapes({key: tuple(tensor.shape) for key, tensor in parts[part].items()})
    try:
        seen = SYSTEMS[name].infer(shapes)
    except ValueError as error:
        raise ValueError(f"{source} looks like a checkpoint of {name}, but {error}") from error
    fitted = fit(SYSTEMS[name], parts[part], {**seen, **(config or {})}, source)
    return Original(name, fitted.model, fitted.config, part, fitted.dropped, tuple(others))


def load_original(
    path: str | Path,
    *,
    system: str | None = None,
    config: Mapping[str, Any] | None = None,
    generator: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """The model of a checkpoint of the published code, in evaluation mode: a `Predictor`, or a `FrameDiscriminator`.

    Args:
        path, system, config, generator: as in `read_original`.
        dtype: of the weights.
        device: of the weights.

    Raises:
        FileNotFoundError, WeightsCorruptError, ValueError: as in `read_original`.
    """
    model = read_original(path, system=system, config=config, generator=generator).model
    return channels_last(model.to(device, dtype))


def save_original(original: Original, folder: str | Path) -> None:
    """Write the model into a weights folder, in the dtype of the checkpoint.

    `from_pretrained` loads a predictor from it. A discriminator's folder is the same; its arguments and tensors are
    those of `FrameDiscriminator`.

    Raises:
        OSError: the folder can't be written.
    """
    model = original.model
    if isinstance(model, (Predictor, Interpolator)):
        model.save_pretrained(folder)
        return

    def write(temporary: Path) -> None:
        write_weights(temporary, model.state_dict(), None, SHARD_SIZE)
        _files.write_json(temporary / CONFIG_NAME, config_file(type(model).__name__, original.config))

    _files.update_folder(folder, write, OWNED)


def to_original(model: Predictor | Interpolator) -> dict[str, Tensor]:
    """The state dict that the published code would have of this model, for its `load_state_dict(..., strict=False)`.

    Not strict, since what the published code makes and never uses is not in it.

    Raises:
        TypeError: no published code is known for this class.
        ValueError: the model has an option that the published code lacks.
    """
    for system in SYSTEMS.values():
        if type(model) is system.model and isinstance(model, (Predictor, Interpolator)):
            return unfit(system, model)
    kinds = [system.model for system in SYSTEMS.values()]
    known = [kind.__name__ for kind in kinds if issubclass(kind, (Predictor, Interpolator))]
    raise TypeError(f"model must be one of {', '.join(known)}, got a {type(model).__name__}")


def _alone(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file that holds one network."""
    return next(iter(read_checkpoint(path).values()))


def _has_mark(system: System, tensors: Mapping[str, Tensor]) -> bool:
    return any(re.match(system.mark, name) for name in tensors)

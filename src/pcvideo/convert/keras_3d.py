# SPDX-License-Identifier: Apache-2.0
"""ConvLSTM3D weights of Keras, as published for the 4-D cavities, to `ConvLSTMPredictor(legacy=True)`.

    model = conv_lstm_from_keras(read_keras_weights("convlstm3d_16_T80_TINC4.h5"))

Keras keeps channels last and the kernels of inputs and hidden state apart, with the gates in the order input, forget,
candidate, output; here one kernel stands over both, with the candidate last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcvideo._optional import require
from pcvideo.models import ConvLSTMPredictor

__all__ = ["conv_lstm_from_keras", "read_keras_weights"]

_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def read_keras_weights(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a Keras 2 weights file (.h5) by layer and weight, such as `conv_lstm3d_1/recurrent_kernel`.

    Only arrays are read; what else the file holds is not looked at.

    Raises:
        ImportError: h5py is not installed.
        FileNotFoundError, ValueError: there is no such file, or it is none of Keras 2.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no Keras weights file at {path}")
    h5py = require("h5py", purpose="reading Keras weights")
    arrays: dict[str, np.ndarray] = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind == "f":
            layer, weight = name.split("/")[-2:]
            arrays[f"{layer}/{weight.split(':')[0]}"] = np.asarray(node)

    try:
        with h5py.File(path, "r") as file:
            (file["model_weights"] if "model_weights" in file else file).visititems(visit)
    except OSError as error:
        raise ValueError(f"{path} is no HDF5 file, as Keras 2 writes them: {error}") from error
    if not arrays:
        raise ValueError(f"{path} holds no weights; expected groups such as conv_lstm3d/kernel")
    return arrays


def conv_lstm_from_keras(arrays: Mapping[str, np.ndarray]) -> ConvLSTMPredictor:
    """The published network with these weights, in evaluation mode.

    Args:
        arrays: as `read_keras_weights` gives them. Numbered layers count from the one without a number.

    Raises:
        ValueError: a layer or weight is missing, one is left over, or the shapes are of no ConvLSTM3D.
    """
    left = {name: torch.as_tensor(np.asarray(array)) for name, array in arrays.items()}
    layers = _layers(left, "conv_lstm3d")
    if not layers or not _layers(left, "conv3d"):
        raise ValueError(f"expected the layers conv_lstm3d and conv3d, got {', '.join(sorted(left)) or 'nothing'}")
    tensors: dict[str, Tensor] = {}
    widths, sides = [], []
    for index, layer in enumerate(layers):
        kernel, recurrent, bias = (_take(left, f"{layer}/{name}") for name in ("kernel", "recurrent_kernel", "bias"))
        if kernel.ndim != 5 or recurrent.ndim != 5 or kernel.shape[-1] != 4 * recurrent.shape[-2]:
            raise ValueError(
                f"{layer}: a kernel {tuple(kernel.shape)} with the recurrent one {tuple(recurrent.shape)} is of no "
                f"ConvLSTM3D"
            )
        widths.append(recurrent.shape[-2])
        sides.append(kernel.shape[0])
        both = torch.cat([_first(kernel), _first(recurrent)], dim=1)
        tensors[f"cells.{index}.to_gates.weight"] = _candidate_last(both)
        tensors[f"cells.{index}.to_gates.bias"] = _candidate_last(bias)
    norms = _layers(left, "batch_normalization")
    for index, layer in enumerate(norms):
        for theirs, ours in _NORM.items():
            tensors[f"norms.{index}.{ours}"] = _take(left, f"{layer}/{theirs}")
        tensors[f"norms.{index}.num_batches_tracked"] = torch.tensor(0)
    (head,) = _layers(left, "conv3d")[:1]
    kernel = _take(left, f"{head}/kernel")
    tensors["head.weight"], tensors["head.bias"] = _first(kernel), _take(left, f"{head}/bias")
    if left:
        raise ValueError(f"the weights {', '.join(sorted(left))} are of no ConvLSTM3D next-volume network")
    model = ConvLSTMPredictor(
        in_channels=kernel.shape[-1],
        hidden_channels=widths,
        kernel_sizes=sides,
        head_kernel_size=kernel.shape[0],
        batch_norm=bool(norms),
        legacy=True,
    ).to(kernel.dtype)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"the weights fit no ConvLSTM3D next-volume network: {error}") from error
    return model.eval()


def _layers(arrays: Mapping[str, Tensor], kind: str) -> list[str]:
    """The layers of a kind in the order that they were made in."""
    found = {name.split("/")[0] for name in arrays}
    numbered = {layer: re.fullmatch(rf"{kind}(?:_(\d+))?", layer) for layer in found}
    return sorted(
        (name for name, match in numbered.items() if match), key=lambda name: int((numbered[name] or {1: 0})[1] or 0)
    )


def _take(arrays: dict[str, Tensor], name: str) -> Tensor:
    if name not in arrays:
        raise ValueError(f"the Keras weights lack {name}; known: {', '.join(sorted(arrays))}")
    return arrays.pop(name)


def _first(kernel: Tensor) -> Tensor:
    """(depth, height, width, in, out) to (out, in, depth, height, width)."""
    return kernel.permute(4, 3, 0, 1, 2)


def _candidate_last(gates: Tensor) -> Tensor:
    """The blocks input, forget, candidate, output along the first axis, with the candidate moved to the end."""
    enter, forget, candidate, leave = gates.chunk(4)
    return torch.cat([enter, forget, leave, candidate])

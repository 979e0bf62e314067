# SPDX-License-Identifier: Apache-2.0
"""ConvLSTM3D weights of Keras, as published for the 4-D cavities, to `ConvLSTMPredictor(legacy=True)`.

Keras keeps channels last and the kernels of inputs and hidden state apart, with the gates in the order input, forget,
candidate, output; here one kernel stands over both, with the candidate last. Its layers are numbered as they were made,
the first one without a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pcvideo._files import WeightsCorruptError
from pcvideo._optional import require
from pcvideo.convert._system import Entry, Shapes, System, fit, same
from pcvideo.models import ConvLSTMPredictor

__all__ = [
    "CONV_LSTM_3D_SYSTEM",
    "NORM",
    "conv_lstm_from_keras",
    "layer_of",
    "layers_of",
    "read_keras_weights",
    "to_first",
    "to_last",
]

# Our names of a batch normalisation's tensors, and Keras'.
NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def read_keras_weights(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a Keras 2 weights file (.h5) by layer and weight, such as `conv_lstm3d_1/recurrent_kernel`.

    Only arrays are read that lie in the file itself; what else it holds is not looked at.

    Raises:
        ImportError: h5py is not installed.
        FileNotFoundError: there is no such file.
        WeightsCorruptError: it is none of Keras 2, or an array lies elsewhere or claims more than the file has.
    """
    path = Path(path)
    size = path.stat().st_size
    h5py = require("h5py", extra="convert", purpose="reading Keras weights")
    arrays: dict[str, np.ndarray] = {}

    def visit(name: str, node: Any) -> None:
        if not isinstance(node, h5py.Dataset) or node.dtype.kind != "f" or "/" not in name:
            return
        if node.external or node.is_virtual or node.nbytes > size:
            raise WeightsCorruptError(path, f"its array {name} lies in another file, or claims more than this one has")
        layer, weight = name.split("/")[-2:]
        arrays[f"{layer}/{weight.split(':')[0]}"] = np.asarray(node)

    try:
        with h5py.File(path, "r") as file:
            file.get("model_weights", file).visititems(visit)
    except (OSError, RuntimeError, KeyError) as error:
        raise WeightsCorruptError(path, f"it is no HDF5 file as Keras 2 writes them ({error})") from error
    if not arrays:
        raise WeightsCorruptError(path, "it holds no weights of layers such as conv_lstm3d/kernel")
    return arrays


def conv_lstm_from_keras(arrays: Mapping[str, np.ndarray]) -> nn.Module:
    """The published network with these weights, in evaluation mode.

    Args:
        arrays: as `read_keras_weights` gives them.

    Raises:
        ValueError: a layer or weight is missing, one is left over, or the shapes are of no ConvLSTM3D.
    """
    tensors = {name: torch.as_tensor(np.asarray(array)) for name, array in arrays.items()}
    config = _infer(Shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}))
    return fit(CONV_LSTM_3D_SYSTEM, tensors, config, "what was given").model


def _infer(shapes: Shapes) -> dict[str, Any]:
    layers = layers_of(shapes, "conv_lstm3d")
    kernels = [shapes.of(f"{layer}/kernel", 5) for layer in layers]
    head = shapes.of(f"{layer_of(shapes, 'conv3d', 0)}/kernel", 5)
    return {
        "in_channels": head[-1],
        "hidden_channels": [kernel[-1] // 4 for kernel in kernels],
        "kernel_sizes": [kernel[0] for kernel in kernels],
        "head_kernel_size": head[0],
        "batch_norm": bool(layers_of(shapes, "batch_normalization")),
        "legacy": True,
    }


def _entry(name: str, config: Mapping[str, Any], shapes: Shapes) -> Entry:
    part, *place, weight = name.split(".")
    if part == "head":
        theirs = f"{layer_of(shapes, 'conv3d', 0)}/{'kernel' if weight == 'weight' else 'bias'}"
        return Entry((theirs,), to_first, to_last) if weight == "weight" else same(theirs)
    if part == "norms":
        layer = layer_of(shapes, "batch_normalization", int(place[0]))
        # Keras counts no batches.
        return same(f"{layer}/{NORM[weight]}") if weight in NORM else Entry((), _no_batches, lambda tensor: ())
    layer = layer_of(shapes, "conv_lstm3d", int(place[0]))
    if weight == "bias":
        return Entry((f"{layer}/bias",), _candidate_last, lambda tensor: (_candidate_third(tensor),))
    return Entry((f"{layer}/kernel", f"{layer}/recurrent_kernel"), _join_kernels, _split_kernels)


def layers_of(shapes: Mapping[str, Any], kind: str) -> list[str]:
    """The layers of a kind in the order that they were made in."""
    found = {name.split("/")[0] for name in shapes}
    numbers = {layer: re.fullmatch(rf"{kind}(?:_(\d+))?", layer) for layer in found}
    return sorted((layer for layer, match in numbers.items() if match), key=lambda layer: int(numbers[layer][1] or 0))  # type: ignore[index]


def layer_of(shapes: Mapping[str, Any], kind: str, index: int) -> str:
    """The layer of a kind by its place; by the number that it would have where the file has no such."""
    found = layers_of(shapes, kind)
    return found[index] if index < len(found) else f"{kind}_{index}" if index else kind


def to_first(kernel: Tensor) -> Tensor:
    """(depth, height, width, in, out) to (out, in, depth, height, width)."""
    return kernel.permute(4, 3, 0, 1, 2)


def to_last(kernel: Tensor) -> tuple[Tensor, ...]:
    """(out, in, depth, height, width) to (depth, height, width, in, out), as what an `Entry` splits into."""
    return (kernel.permute(2, 3, 4, 1, 0),)


def _join_kernels(kernel: Tensor, recurrent: Tensor) -> Tensor:
    return _candidate_last(torch.cat([to_first(kernel), to_first(recurrent)], dim=1))


def _split_kernels(both: Tensor) -> tuple[Tensor, ...]:
    hidden = both.shape[0] // 4
    parts = _candidate_third(both).split([both.shape[1] - hidden, hidden], dim=1)
    return tuple(part for kernel in parts for part in to_last(kernel))


def _candidate_last(gates: Tensor) -> Tensor:
    """The blocks input, forget, candidate, output along the first axis, with the candidate moved to the end."""
    enter, forget, candidate, leave = gates.chunk(4)
    return torch.cat([enter, forget, leave, candidate])


def _candidate_third(gates: Tensor) -> Tensor:
    enter, forget, leave, candidate = gates.chunk(4)
    return torch.cat([enter, forget, candidate, leave])


def _no_batches() -> Tensor:
    return torch.tensor(0)


def _dead(config: Mapping[str, Any]) -> str:
    return r"(?!)"


CONV_LSTM_3D_SYSTEM = System(
    name="conv-lstm-3d",
    model=ConvLSTMPredictor,
    mark=r"conv_lstm3d(?:_\d+)?/",
    infer=_infer,
    entry=_entry,
    dead=_dead,
    only={"legacy": True, "spatial_dims": 3, "patch": 1, "residual": False},
)

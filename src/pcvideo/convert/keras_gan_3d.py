# SPDX-License-Identifier: Apache-2.0
"""AEncGAN3D weights of Keras, as published for the 4-D cavities: two files, encoder and generator, to one `AEncGAN3D`.

Keras numbers layers of a kind as they were made, in one count over all networks of a session; so they are taken by
their order. In a residual block the shortcut was made first. Volumes are flattened with their channels last there and
here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pcvideo.convert._system import Entry, Shapes, System, fit, same
from pcvideo.convert.keras_3d import NORM, layer_of, layers_of, to_first, to_last
from pcvideo.models import AEncGAN3D

__all__ = ["AENC_GAN_3D_SYSTEM", "aenc_gan_from_keras", "together"]

# Of each of our layers, Keras' kind and its place among those of that kind.
Places = Mapping[str, tuple[str, int]]
_CONV, _TRANSPOSED, _NORM, _DENSE = "conv3d", "conv3d_transpose", "batch_normalization", "dense"
_PRERES_ENCODER: Places = {
    "features.0": (_CONV, 0),
    **{f"features.{block}.shortcut.1": (_CONV, 2 * block - 1) for block in (1, 2, 3)},
    **{f"features.{block}.main.0": (_NORM, block - 1) for block in (1, 2, 3)},
    **{f"features.{block}.main.3": (_CONV, 2 * block) for block in (1, 2, 3)},
    "features.4": (_NORM, 3),
    "to_code": (_DENSE, 0),
}
_CLASSIC_ENCODER: Places = {
    "features.0": (_CONV, 0),
    "features.1": (_NORM, 0),
    "features.4": (_CONV, 1),
    "features.5": (_NORM, 1),
    "features.8": (_CONV, 2),
    "to_code": (_DENSE, 0),
}
_PRERES_GENERATOR: Places = {
    "from_code": (_DENSE, 0),
    **{f"layers.{block}.shortcut.1": (_CONV, block) for block in (0, 1, 2)},
    **{f"layers.{block}.main.0": (_NORM, block) for block in (0, 1, 2)},
    **{f"layers.{block}.main.3": (_TRANSPOSED, block) for block in (0, 1, 2)},
    "layers.3": (_NORM, 3),
    "layers.5": (_TRANSPOSED, 3),
}
_CLASSIC_GENERATOR: Places = {
    "from_code": (_DENSE, 0),
    **{f"layers.{layer}": (_NORM, index) for index, layer in enumerate((0, 3, 7, 11))},
    **{f"layers.{layer}": (_TRANSPOSED, index) for index, layer in enumerate((2, 6, 10, 13))},
}
_PLACES: Mapping[tuple[str, str], Places] = {
    ("preres", "encoder"): _PRERES_ENCODER,
    ("preres", "generator"): _PRERES_GENERATOR,
    ("classic", "encoder"): _CLASSIC_ENCODER,
    ("classic", "generator"): _CLASSIC_GENERATOR,
}


def aenc_gan_from_keras(
    encoder: Mapping[str, np.ndarray], generator: Mapping[str, np.ndarray], *, config: Mapping[str, Any] | None = None
) -> nn.Module:
    """The published networks with these weights, in evaluation mode.

    Pre-residual or classic, of one volume or of three: all is seen from the shapes. What the critic was shown is not
    in these files; the model has `condition="target"`, as published.

    Args:
        encoder: of the network from a volume to its code, as `read_keras_weights` gives them.
        generator: of the network from codes to a volume.
        config: arguments of the model to take instead of those seen from the shapes: `{"size": [16, 16, 32]}` where
            volumes are no cubes.

    Raises:
        ValueError: a layer or weight is missing, one is left over, or the shapes are of no AEncGAN3D.
    """
    of_encoder, of_generator = (
        {name: torch.as_tensor(np.asarray(array)) for name, array in arrays.items()} for arrays in (encoder, generator)
    )
    tensors = together(of_encoder, of_generator)
    seen = _infer(Shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}))
    return fit(AENC_GAN_3D_SYSTEM, tensors, {**seen, **(config or {})}, "what was given").model


def together(encoder: Mapping[str, Tensor], generator: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Both networks' tensors, by names that begin with the network's."""
    networks = (("encoder", encoder), ("generator", generator))
    return {f"{network}/{name}": tensor for network, tensors in networks for name, tensor in tensors.items()}


def _infer(shapes: Shapes) -> dict[str, Any]:
    encoder = _of(shapes, "encoder")
    convolutions = [encoder.of(f"{layer}/kernel", 5) for layer in layers_of(encoder, _CONV)]
    if not convolutions:
        raise ValueError("the encoder has no conv3d layers; it is the first of the two files")
    flat, codes = encoder.of(f"{layer_of(encoder, _DENSE, 0)}/kernel", 2)
    generator = _of(shapes, "generator")
    given = generator.of(f"{layer_of(generator, _DENSE, 0)}/kernel", 2)[0]
    width = convolutions[-1][-1]
    # The networks halve twice; volumes are taken for cubes.
    side = 4 * round(math.cbrt(flat / width))
    return {
        "in_channels": convolutions[0][3],
        "size": [side, side, side],
        "context": given // codes,
        "architecture": "preres" if len(convolutions) > 3 else "classic",
        "condition": "target",
        "width": width,
        "code_channels": codes,
        "noise_channels": given % codes,
    }


def _entry(name: str, config: Mapping[str, Any], shapes: Shapes) -> Entry:
    network, rest = name.split(".", 1)
    layer, weight = rest.rsplit(".", 1)
    kind, index = _PLACES[config["architecture"], network][layer]
    theirs = f"{network}/{layer_of(_of(shapes, network), kind, index)}"
    if kind == _NORM:
        # Keras counts no batches.
        return same(f"{theirs}/{NORM[weight]}") if weight in NORM else Entry((), _no_batches, lambda tensor: ())
    if weight == "bias":
        return same(f"{theirs}/bias")
    if kind == _DENSE:
        return Entry((f"{theirs}/kernel",), torch.t, lambda tensor: (tensor.t(),))
    # A transposed convolution's kernel has its outputs before its inputs, there and here: the same turn fits both.
    return Entry((f"{theirs}/kernel",), to_first, to_last)


def _of(shapes: Shapes, network: str) -> Shapes:
    """The shapes of one network, without its name."""
    lead = f"{network}/"
    return Shapes({name.removeprefix(lead): shape for name, shape in shapes.items() if name.startswith(lead)})


def _no_batches() -> Tensor:
    return torch.tensor(0)


def _dead(config: Mapping[str, Any]) -> str:
    return r"(?!)"


AENC_GAN_3D_SYSTEM = System(
    name="aenc-gan-3d",
    model=AEncGAN3D,
    mark=r"(?:encoder|generator)/(?:conv3d|dense)",
    infer=_infer,
    entry=_entry,
    dead=_dead,
    only={"noise_channels": 0},
)

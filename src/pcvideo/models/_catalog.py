# SPDX-License-Identifier: Apache-2.0
"""Which class a config's model name stands for; explicit, so that nothing depends on what was imported before."""

from __future__ import annotations

from pcvideo._checks import did_you_mean
from pcvideo.models._base import Predictor
from pcvideo.models.aenc_gan3d import AEncGAN3D
from pcvideo.models.conv_lstm import ConvLSTMPredictor
from pcvideo.models.mspn import MSPN
from pcvideo.models.ppnv2 import PPNV2

__all__ = ["ARCHITECTURES", "architecture"]

ARCHITECTURES: dict[str, type[Predictor]] = {
    "MSPN": MSPN,
    "PPNV2": PPNV2,
    "ConvLSTMPredictor": ConvLSTMPredictor,
    "AEncGAN3D": AEncGAN3D,
}


def architecture(name: str) -> type[Predictor]:
    """The class of a model by the name in its config, or by that name in lower case.

    Raises:
        ValueError: it is none of this package's; the message gives the nearest one, and what to do for one's own.
    """
    for known, kind in ARCHITECTURES.items():
        if name in (known, known.lower()):
            return kind
    raise ValueError(
        f"no model here is called {name!r}{did_you_mean(name, ARCHITECTURES)} (known: {', '.join(ARCHITECTURES)}); "
        f"a class of your own loads with YourClass.from_pretrained(folder)"
    )

# SPDX-License-Identifier: Apache-2.0
"""Which class a config's model name stands for, and the networks that papers published, by name.

Explicit, so that nothing depends on what was imported before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pcvideo._checks import did_you_mean
from pcvideo.models.aenc_gan3d import AEncGAN3D
from pcvideo.models.conv_lstm import ConvLSTMPredictor
from pcvideo.models.frame_doubler import FrameDoubler
from pcvideo.models.grey2rgb import Grey2RGB
from pcvideo.models.mspn import MSPN
from pcvideo.models.ppnv2 import PPNV2
from pcvideo.models.wavelet_vfi import WaveletVFI

__all__ = ["ARCHITECTURES", "CONFIGURATIONS", "Configuration", "architecture"]

ARCHITECTURES: dict[str, Any] = {
    "WaveletVFI": WaveletVFI,
    "MSPN": MSPN,
    "PPNV2": PPNV2,
    "ConvLSTMPredictor": ConvLSTMPredictor,
    "AEncGAN3D": AEncGAN3D,
    "Grey2RGB": Grey2RGB,
    "FrameDoubler": FrameDoubler,
}


class Configuration(NamedTuple):
    """A named network, without weights.

    Attributes:
        model: name of the class.
        arguments: the constructor's.
        size: of the frames (height, width) that the paper trained it on.
        task: what it is, in a few words.
    """

    model: str
    arguments: Mapping[str, Any]
    size: tuple[int, ...]
    task: str


_MSPN = {"in_channels": 3, "levels": 4, "channels": (64, 128, 256, 512, 1024), "hidden_channels": 64}
_MSPN_DIGITS = {"in_channels": 1, "levels": 3, "channels": (64, 128, 256, 512), "hidden_channels": 32}
_PPNV2 = {"channels": (3, 64, 128, 256, 512, 512)}

# The pictures that spatio-temporal fusion was trained on.
_FUSION = (720, 1280)

# MSPN: arXiv 2212.11642, section IV, and its code; PPNV2: arXiv 2301.05421 and its code.
CONFIGURATIONS: dict[str, Configuration] = {
    "mspn-kth": Configuration("MSPN", _MSPN, (96, 128), "the published network for KTH"),
    "mspn-human36m": Configuration("MSPN", _MSPN, (128, 128), "the published network for Human3.6M"),
    "mspn-caltech": Configuration("MSPN", _MSPN, (128, 160), "the published network for Caltech Pedestrian"),
    "mspn-kitti": Configuration("MSPN", _MSPN, (128, 256), "the published network for KITTI"),
    "mspn-moving-mnist-published": Configuration(
        "MSPN", _MSPN_DIGITS, (64, 64), "the published network for Moving MNIST"
    ),
    "mspn-moving-mnist-unshared": Configuration(
        "MSPN", {**_MSPN_DIGITS, "latent_sharing": False}, (64, 64), "the paper's ablation without latent sharing"
    ),
    "mspn-moving-mnist-encoder-lstm-decoder": Configuration(
        "MSPN", {**_MSPN_DIGITS, "cell": "encoder_lstm_decoder"}, (64, 64), "the paper's ablation of the cell"
    ),
    "ppnv2-caltech": Configuration("PPNV2", _PPNV2, (128, 160), "the network for Caltech Pedestrian, corrected"),
    "ppnv2-kth": Configuration("PPNV2", _PPNV2, (128, 160), "the network for KTH, corrected"),
    "ppnv2-caltech-published": Configuration(
        "PPNV2", {**_PPNV2, "legacy": True}, (128, 160), "the published network for Caltech Pedestrian"
    ),
    "ppnv2-kth-published": Configuration(
        "PPNV2", {**_PPNV2, "legacy": True}, (128, 160), "the published network for KTH"
    ),
    "grey2rgb-published": Configuration("Grey2RGB", {}, _FUSION, "the published colouriser, its last version"),
    "grey2rgb-published-v3": Configuration(
        "Grey2RGB", {"channels": (3, 6, 12, 24), "batch_norm": True}, _FUSION, "the published colouriser, version 3"
    ),
    "grey2rgb-published-v2": Configuration(
        "Grey2RGB", {"channels": (8, 16, 32), "batch_norm": True}, _FUSION, "the published colouriser, version 2"
    ),
    "grey2rgb-published-v1": Configuration(
        "Grey2RGB", {"channels": (64, 128, 256), "batch_norm": True}, _FUSION, "the published colouriser, version 1"
    ),
    "frame-doubler-published": Configuration("FrameDoubler", {"legacy": True}, _FUSION, "the published frame doubler"),
}


def architecture(name: str) -> Any:
    """The class of a predictor or interpolator by the name in its config, or by that name in lower case.

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

# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of WaveletVFI's published code (arXiv 2309.03508) to `WaveletVFI`.

Its taps of the Haar transform are saved as buffers; here they are no tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pcvideo.convert._system import Entry, Shapes, System, rename, same
from pcvideo.models import WaveletVFI

__all__ = ["WAVELET_VFI_SYSTEM"]

# The published code counts from 1.
_RULES = (
    (r"^motion\.encoders\.(\d+)\.(\d+)\.", r"ifnet.pconv\1.\2."),
    (r"^motion\.decoders\.(\d+)\.body\.(\d+)\.", r"ifnet.decoder\1.conv\2."),
    (r"^motion\.decoders\.(\d+)\.head\.", r"ifnet.decoder\1.conv6."),
    (r"^motion\.classifier\.convolution\.", "ifnet.decoder4.classifier.0."),
    (r"^motion\.classifier\.inner\.", "ifnet.decoder4.classifier.3."),
    (r"^motion\.classifier\.logits\.", "ifnet.decoder4.classifier.5."),
    (r"^context\.frame_chain\.(\d+)\.", r"contextnet.pconv1_\1."),
    (r"^context\.merge_chain\.(\d+)\.", r"contextnet.pconv2_\1."),
    (r"^synthesis\.coarsest\.", "conv4."),
    (r"^synthesis\.to_low\.", "conv4_l."),
    (r"^synthesis\.to_high\.", "conv4_h."),
    (r"^synthesis\.levels\.(\d+)\.to_features\.", r"conv\1.0."),
    (r"^synthesis\.levels\.(\d+)\.to_outputs\.", r"conv\1_h."),
)
_COUNTED = re.compile(r"\b(encoders|decoders|body|frame_chain|merge_chain|levels)\.(\d+)\.")
# The second channels, of which a narrow network keeps more than its least.
_SECOND, _PUBLISHED = "ifnet.pconv2.0.0.weight", 64


def _infer(shapes: Shapes) -> dict[str, Any]:
    width = shapes.of(_SECOND, 4)[0] / _PUBLISHED
    return {} if width == 1 else {"width": width}


def _entry(name: str, config: Mapping[str, Any], shapes: Shapes) -> Entry:
    counted = _COUNTED.sub(lambda match: f"{match[1]}.{int(match[2]) + 1}.", name)
    return same(rename(counted, _RULES))


def _dead(config: Mapping[str, Any]) -> str:
    return r"(?:\w+\.)*i?dwt\.[gh][01]_(?:col|row)"


WAVELET_VFI_SYSTEM = System(
    name="wavelet_vfi",
    model=WaveletVFI,
    mark=r"(?:ifnet|contextnet)\.",
    infer=_infer,
    entry=_entry,
    dead=_dead,
    only={"residual": False},
)

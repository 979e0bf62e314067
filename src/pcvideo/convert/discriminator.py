# SPDX-License-Identifier: Apache-2.0
"""The frame discriminator of MSPN's published adversarial training (arXiv 2212.11642) to `FrameDiscriminator`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcvideo.convert._system import Entry, Shapes, System, rename, same
from pcvideo.models import FrameDiscriminator

__all__ = ["DISCRIMINATOR_SYSTEM"]

_RULES = (
    (r"^stem\.", "layer1."),
    (r"^stages\.", "conv."),
    (r"\.main\.", ".bottleneck."),
    (r"\.shortcut\.", ".res."),
    (r"^gather\.", "full_conv."),
    (r"^head\.", "linear."),
)


def _infer(shapes: Shapes) -> dict[str, Any]:
    first, in_channels, *_ = shapes.of("layer1.weight", 4)
    # Between two residual blocks stands a pooling, which has no tensors.
    stages = len({name.split(".")[1] for name in shapes if name.startswith("conv.")})
    channels = [first, *(shapes.of(f"conv.{2 * stage}.res.0.weight", 4)[0] for stage in range(stages))]
    left = shapes.of("full_conv.weight", 4)[2:]
    # The convolution covers what halving leaves of a frame; a few rows or columns more would leave the same.
    size = [side * 2**stages for side in left]
    return {"channels": channels, "in_channels": in_channels, "size": size, "normalize": "batch", "norm": "batch"}


def _entry(name: str, config: Mapping[str, Any], shapes: Shapes) -> Entry:
    return same(rename(name, _RULES))


def _dead(config: Mapping[str, Any]) -> str:
    return r"(?!)"


DISCRIMINATOR_SYSTEM = System(
    name="mspn-discriminator",
    model=FrameDiscriminator,
    mark=r"full_conv\.",
    infer=_infer,
    entry=_entry,
    dead=_dead,
)

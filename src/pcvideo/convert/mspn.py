# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of MSPN's published code (arXiv 2212.11642), its En-LSTM-De and other variants included, to `MSPN`.

Its cells are named by their place: `EHcell` the finest level, `ELHcell{l}` those between, `ELcell` the coarsest. Each
has a scalar and a last skip convolution that no forward pass uses, and En-LSTM-De a latent's convolution too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pcvideo.convert._system import Entry, Shapes, System, rename, same
from pcvideo.models import MSPN

__all__ = ["MSPN_SYSTEM"]

_RULES = (
    (r"\.to_image\.", ".out_conv.0."),
    (r"\.to_gates\.", ".lstm_conv.0."),
    (r"\.from_hidden\.", ".lstm_out_conv.0."),
    (r"\.codec\.", ".en_decoder."),
    (r"\.stem\.", ".in_conv.0."),
    (r"\.encoders\.(\d+)\.", r".encoder\1."),
    (r"\.decoders\.(\d+)\.", r".upsample\1."),
    (r"\.main\.", ".bottleneck."),
    (r"\.shortcut\.", ".res."),
    (r"\.merge_latent\.", ".Merge_Hidden.0."),
    (r"\.merge_skips\.(\d+)\.", r".merge_conv\1.0."),
    (r"\.head\.", ".out_conv.0."),
)


def _infer(shapes: Shapes) -> dict[str, Any]:
    ablation = "EHcell.lstm_conv.0.weight" in shapes
    codec = "EHcell." if ablation else "EHcell.en_decoder."
    image_channels, hidden, *_ = shapes.of("EHcell.out_conv.0.weight", 4)
    stages = shapes.count(re.escape(codec) + r"encoder(\d+)\.")
    channels = [shapes.of(f"{codec}in_conv.0.weight", 4)[0]]
    channels += [shapes.of(f"{codec}encoder{stage}.0.bottleneck.0.weight", 4)[0] for stage in range(stages)]
    # Those between are counted from 1.
    between = {name.split(".")[0] for name in shapes if name.startswith("ELHcell")}
    config: dict[str, Any] = {"in_channels": image_channels, "levels": 2 + len(between), "channels": channels}
    if ablation:
        config["cell"] = "encoder_lstm_decoder"
    else:
        config["hidden_channels"] = hidden
        if f"{codec}Merge_Hidden.0.weight" not in shapes:
            config["latent_sharing"] = False
    if f"{codec}encoder0.0.bottleneck.1.weight" in shapes:
        config["norm"] = "batch"
    return config


def _entry(name: str, config: Mapping[str, Any], shapes: Shapes) -> Entry:
    _, level, rest = name.split(".", maxsplit=2)
    theirs = rename(f"{_cell(int(level), config['levels'])}.{rest}", _RULES)
    if config.get("cell") == "encoder_lstm_decoder":
        theirs = theirs.replace(".en_decoder.", ".")
    if config.get("norm") is None:
        # Alone, the shortcut's convolution stands in no sequence.
        theirs = theirs.replace(".res.0.", ".res.")
    return same(theirs)


def _cell(level: int, levels: int) -> str:
    if level == 0:
        return "EHcell"
    return "ELcell" if level == levels - 1 else f"ELHcell{level}"


def _dead(config: Mapping[str, Any]) -> str:
    levels, stages = config["levels"], len(config["channels"]) - 1
    cells = [
        rf"{_cell(level, levels)}\.(?:en_decoder\.)?(?:scale|merge_conv{stages - level - 1}\.0\.(?:weight|bias))"
        for level in range(levels)
    ]
    # The coarsest level has none, and with latents shared it is used.
    merges = [r"E\w+\.Merge_Hidden\.0\.weight"] if config.get("cell") == "encoder_lstm_decoder" else []
    return "|".join(cells + merges)


MSPN_SYSTEM = System(
    name="mspn",
    model=MSPN,
    mark=r"(?:EHcell|ELHcell\d+|ELcell)\.",
    infer=_infer,
    entry=_entry,
    dead=_dead,
    only={"fusion": "concat", "resample": "nearest", "align_corners": True, "patch": 1, "residual": False},
)

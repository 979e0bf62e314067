# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of PPNV2's published code (arXiv 2301.05421; BDCC 2025, 9(4), 79) to `PPNV2(legacy=True)`.

The published code has a merge of predictions for the top level and a share of errors for the lowest, which no step
uses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pcvideo.convert._system import Entry, Shapes, System, rename, same
from pcvideo.models import PPNV2

__all__ = ["PPNV2_SYSTEM"]

_RULES = (
    (r"^cells\.(\d+)\.to_gates\.", r"rnncell\1.conv."),
    (r"^cells\.(\d+)\.to_output\.", r"rnncell\1.out_conv."),
    (r"^merge_errors\.(\d+)\.", r"MergeError\1."),
    (r"^merge_inputs\.(\d+)\.", r"MergeErrorInput\1."),
    (r"^merge_predictions\.(\d+)\.", r"MergePred\1."),
    (r"\.to_scale_shift\.", ".scale_shift."),
    (r"\.gain$", ".scale_factor"),
    (r"\.conv\.(weight|bias)$", r".DS.0.\1"),
    (r"\.convolutions\.", ".Conv."),
    (r"^up_inputs\.(\d+)\.", r"UpInput\1."),
    (r"^up_errors\.(\d+)\.", r"UpError\1."),
    (r"^down_predictions\.(\d+)\.", r"DownPred\1."),
    (r"^(Up\w+\.)before\.0\.", r"\1FE.0."),
    (r"^(Up\w+\.)after\.0\.", r"\1DS.0."),
    (r"\.filter\.cutoff_logit$", ".cutoff"),
    (r"\.kernel$", ".upsample.weight"),
)


def _infer(shapes: Shapes) -> dict[str, Any]:
    levels = shapes.count(r"rnncell(\d+)\.")
    gates = [shapes.of(f"rnncell{level}.conv.0.weight", 4) for level in range(levels)]
    hidden = [shapes.of(f"rnncell{level}.out_conv.0.weight", 4)[1] for level in range(levels)]
    channels = [gate[1] - width for gate, width in zip(gates, hidden, strict=True)]
    if "MergeErrorInput0.scale_shift.weight" in shapes:
        merge = "modulate"
    else:
        merge = "add" if "MergeErrorInput0.Conv.4.weight" in shapes else "concat"
    config: dict[str, Any] = {"channels": channels, "merge": merge, "legacy": True}
    return config if hidden == channels else config | {"hidden_channels": hidden}


def _entry(name: str, config: Mapping[str, Any], shapes: Shapes) -> Entry:
    theirs = rename(name, _RULES)
    if name == "error_mix":
        return Entry(("error_factor",), _without_lowest, _with_lowest)
    if theirs.endswith(".scale_factor"):
        return _reshaped(theirs, shapes, ())
    if theirs.endswith(".cutoff"):
        return Entry((theirs,), partial(torch.squeeze, dim=1), _with_second_axis)
    if theirs.endswith(".upsample.weight"):
        return Entry((theirs,), partial(torch.squeeze, dim=1), _with_second_axis)
    if theirs.startswith("DownPred"):
        before, after = _order_of_convolutions(shapes)
        theirs = re.sub(r"\.before\.0\.", f".{before}.0.", re.sub(r"\.after\.0\.", f".{after}.0.", theirs))
    # A convolution with its activation may or may not stand in a sequence.
    bare = re.sub(r"\.(FE|DS|CST)\.0\.", r".\1.", theirs)
    return same(bare if bare in shapes else theirs)


def _order_of_convolutions(shapes: Shapes) -> tuple[str, str]:
    """Which of a DownPred's two convolutions comes first: the one that keeps the width, by a level that has two."""
    for name, shape in shapes.items():
        if match := re.fullmatch(r"DownPred\d+\.(DS|CST)\.(?:0\.)?weight", name):
            keeps = shape[0] == shape[1]
            other = name.replace(match[1], "CST" if match[1] == "DS" else "DS")
            if other in shapes and keeps != (shapes[other][0] == shapes[other][1]):
                return ("DS", "CST") if keeps == (match[1] == "DS") else ("CST", "DS")
    return "DS", "CST"


def _reshaped(name: str, shapes: Shapes, shape: tuple[int, ...]) -> Entry:
    """A tensor of one number, whose axes the published code may count otherwise."""
    theirs = shapes.get(name, shape)
    theirs = theirs if all(side == 1 for side in theirs) else shape
    return Entry((name,), partial(torch.reshape, shape=shape), lambda tensor: (tensor.reshape(theirs),))


def _without_lowest(factors: Tensor) -> Tensor:
    return factors[1:]


def _with_lowest(factors: Tensor) -> tuple[Tensor, ...]:
    return (F.pad(factors, (1, 0), value=1.0),)


def _with_second_axis(tensor: Tensor) -> tuple[Tensor, ...]:
    return (tensor.unsqueeze(1),)


def _dead(config: Mapping[str, Any]) -> str:
    return rf"MergePred{len(config['channels']) - 1}\..*"


PPNV2_SYSTEM = System(
    name="ppnv2",
    model=PPNV2,
    mark=r"rnncell\d+\.",
    infer=_infer,
    entry=_entry,
    dead=_dead,
    only={"fir": "reshaped", "bound": "published", "border": "reflect", "patch": 1, "residual": False},
)

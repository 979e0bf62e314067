# SPDX-License-Identifier: Apache-2.0
"""How far colours are from the true ones, as people see them: CIEDE2000, beside a picture left grey."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcvideo._checks import describe
from pcvideo._optional import require
from pcvideo.metrics._pairs import working_pair
from pcvideo.metrics.per_step import PerStep
from pcvideo.metrics.protocols import get_protocol

__all__ = ["ciede2000", "score_colours"]


@torch.no_grad()
def ciede2000(prediction: Tensor, target: Tensor) -> Tensor:
    """The colour difference CIEDE2000 of each frame, averaged over its pixels; 0 is equal, about 1 just to be seen.

    scikit-image computes it (Sharma et al., Color Research & Application 30(1), 2005), from sRGB under D65. It has no
    gradient here.

    Args:
        prediction: (..., 3, H, W), float, RGB; values outside [0, 1] are clamped.
        target: the same shape.

    Returns:
        (...), float32 at least, on the target's device.

    Raises:
        TypeError: not tensors, or not floating point.
        ValueError: the shapes differ, or there are not three channels.
    """
    prediction, target = working_pair(prediction, target)
    if prediction.shape[-3] != 3:
        raise ValueError(f"prediction and target must be RGB (..., 3, H, W), got {describe(prediction)}")
    colour = require("skimage.color", purpose="colour differences")
    one, other = (
        colour.rgb2lab(np.moveaxis(frames.clamp(0, 1).double().cpu().numpy(), -3, -1))
        for frames in (prediction, target)
    )
    differences = torch.from_numpy(np.asarray(colour.deltaE_ciede2000(one, other)))
    return differences.mean((-2, -1)).to(device=target.device, dtype=target.dtype)


@torch.no_grad()
def score_colours(
    frames: Iterable[Tensor], colourise: Callable[[Tensor], Tensor], *, lpips: bool = False
) -> dict[str, Any]:
    """Score a colouriser on colour frames, whose luma it is given, beside the grey picture itself.

    Args:
        frames: batches (B, 3, H, W), float in [0, 1].
        colourise: `colourise(grey)`, (B, 1, H, W), gives (B, 3, H, W); a `Grey2RGB`, for one.
        lpips: compute LPIPS too, where its backbone is at hand.

    Returns:
        `{"samples", "colours": {"model" | "grey": {metric: mean or None}}, "unavailable": {metric: reason}}`, of
        CIEDE2000 and the metrics of the protocol `standard`.

    Raises:
        TypeError, ValueError: no frames, or as `PerStep.update`.
    """
    metrics = {"ciede2000": ciede2000, **get_protocol("standard").metrics}
    scores = {name: PerStep(metrics) for name in ("model", "grey")}
    for score in scores.values():
        if not lpips:
            score.unavailable["lpips"] = "left out"
    for batch in frames:
        if not isinstance(batch, Tensor) or batch.ndim != 4 or batch.shape[1] != 3:
            raise ValueError(f"frames must be batches (B, 3, H, W), got {describe(batch)}")
        red, green, blue = batch.split(1, dim=1)
        grey = (0.299 * red + 0.587 * green + 0.114 * blue).clamp(0, 1)
        scores["model"].update(colourise(grey)[:, None].float(), batch[:, None])
        scores["grey"].update(grey.expand_as(batch)[:, None], batch[:, None])
    if not scores["model"].samples:
        raise ValueError("frames must hold at least one batch, got none")
    return {
        "samples": scores["model"].samples,
        "colours": {name: _means(score) for name, score in scores.items()},
        "unavailable": dict(scores["model"].unavailable),
    }


def _means(score: PerStep) -> dict[str, float | None]:
    means = score.compute()
    return {name: None if figures is None else figures["mean"] for name, figures in means.items()}

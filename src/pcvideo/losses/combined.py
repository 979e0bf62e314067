# SPDX-License-Identifier: Apache-2.0
"""Sums of losses: of one's own choice, and the one that PPNV2 is trained with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pcvideo._checks import check_bool, describe
from pcvideo.losses.perceptual import FramePerceptualLoss
from pcvideo.losses.pyramid import PyramidLoss
from pcvideo.metrics.lpips import Network

__all__ = ["PPNV2Loss", "SumLoss"]


class SumLoss(nn.Module):
    """The sum of losses that are called alike, as `SumLoss(PyramidLoss(), FramePerceptualLoss())`.

    Args:
        losses: modules, each called with the predictions and the targets.

    Raises:
        TypeError: something else than a module.
        ValueError: no loss at all.
    """

    def __init__(self, *losses: nn.Module) -> None:
        super().__init__()
        for index, loss in enumerate(losses):
            if not isinstance(loss, nn.Module):
                raise TypeError(f"SumLoss takes losses that are modules, got {describe(loss)} as number {index}")
        if not losses:
            raise ValueError("SumLoss takes at least one loss, got none")
        self.losses = nn.ModuleList(losses)

    @property
    def reduction(self) -> str:
        """What all losses do over the batch, as far as they say: "mean", "sum", or "mixed"."""
        kinds = {getattr(loss, "reduction", "mean") for loss in self.losses}
        return kinds.pop() if len(kinds) == 1 else "mixed"

    def forward(
        self,
        predictions: Sequence[Sequence[Tensor]],
        targets: Sequence[Sequence[Tensor]],
        *,
        first: int = 0,
        steps: int | None = None,
    ) -> Tensor:
        """The sum, a scalar; what the arguments hold, and what is raised, is as each of the losses has it."""
        # Losses of one's own needn't know of pieces unless they are given some.
        piece = {} if first == 0 and steps is None else {"first": first, "steps": steps}
        return torch.stack([loss(predictions, targets, **piece) for loss in self.losses]).sum()


class PPNV2Loss(SumLoss):
    """What PPNV2 is trained with on its predictions: squared errors of all levels, and squared LPIPS of the frame.

    `PyramidLoss(level_weights="shared_above", step_weights="damp_first", batch_mean=True)` plus
    `FramePerceptualLoss(step_weights="damp_first")`, the numbers of the published code (arXiv 2301.05421). Its third
    term, on the features of fed-back predictions, is [`EncodingLoss`][pcvideo.losses.EncodingLoss], which the strategy
    takes beside this: `SelfFeeding(..., loss=PPNV2Loss(), encoding_loss=EncodingLoss())`.

    Args:
        perceptual: False leaves the LPIPS term out, for want of its backbone or of time.
        network: in place of the packaged LPIPS network; see `metrics.LPIPS`.

    Raises:
        TypeError: `perceptual` is neither True nor False, or `network` cannot be called.
    """

    def __init__(self, *, perceptual: bool = True, network: Network | None = None) -> None:
        terms: list[nn.Module] = [PyramidLoss(level_weights="shared_above", step_weights="damp_first", batch_mean=True)]
        if check_bool("perceptual", perceptual):
            terms.append(FramePerceptualLoss(step_weights="damp_first", network=network))
        super().__init__(*terms)

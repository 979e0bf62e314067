# SPDX-License-Identifier: Apache-2.0
"""WaveletVFI: the frame between two frames, by motion and wavelets, with detail only where it shows.

Kong et al., "Dynamic Frame Interpolation in Wavelet Domain", IEEE TIP 2023, arXiv 2309.03508.

One network finds two flows from the middle to either frame, how to mix what they bring, and which of a few thresholds
the picture needs; a second sees both frames and their mix; a decoder gives the wavelet coefficients of the middle frame
from coarse to fine. The numbers are those of the published code, with these differences:

- What the mask leaves out is not computed (layers/masked_level.py); there, all was computed and multiplied by zero.
- The convolution over doubled coarser features is done as one transposed convolution (layers/doubled_conv.py).
- Flows are kept in float32 when the weights are in 16 bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pcvideo._checks import check_bool, check_number, describe
from pcvideo.layers.masked_level import dilate
from pcvideo.models._interpolator import Interpolator
from pcvideo.models.wavelet_vfi.context import ContextNetwork, merge
from pcvideo.models.wavelet_vfi.motion import Motion, MotionNetwork
from pcvideo.models.wavelet_vfi.synthesis import Bands, Synthesis, WaveletSynthesis, analyse
from pcvideo.video_io.cuts import CUT

__all__ = ["Macs", "Middle", "WaveletVFI"]

# The published network's channels, fine to coarse.
_MOTION = (32, 64, 96, 128)
_MOTION_DECODERS = (64, 128, 160, 192)
_CONTEXT = (48, 96, 144, 192)
_SYNTHESIS = (216, 432, 648, 576)


class Middle(NamedTuple):
    """A middle frame and how it came about.

    Attributes:
        frame: (B, 3, H, W) in [0, 1].
        motion: flows, mask and the classifier's logits.
        threshold: (B,), what was used.
        synthesis: the frame before the clamp, its bands, masks and cost.
    """

    frame: Tensor
    motion: Motion
    threshold: Tensor
    synthesis: Synthesis


class Macs(NamedTuple):
    """Multiplications with addition for one call.

    Attributes:
        exact: those that were made, the tiles' halos included.
        paper: those of the published network if masked convolutions cost as much as their mask is full.
    """

    exact: int
    paper: float


class WaveletVFI(Interpolator):
    """The published network with `width=1` (19,411,151 parameters); narrower and wider ones by the same plan.

    Args:
        width: all channels are the published ones times this, rounded to multiples of 8.
        residual: the decoder gives a correction to the coefficients of the mixed frames, which count where no detail is
            wanted, too; a fresh network gives the mean of both frames. Not in the paper: it learns in a fraction of the
            steps.
        thresholds: what the classifier chooses from: beyond which share of the picture's range a band asks for finer
            detail, rising.

    Raises:
        TypeError, ValueError: an argument outside what is stated.
    """

    motion: MotionNetwork
    context: ContextNetwork
    synthesis: WaveletSynthesis
    size_multiple = 16
    in_channels = 3

    def __init__(
        self,
        *,
        width: float = 1.0,
        residual: bool = False,
        thresholds: Sequence[float] = (0.0, 0.005, 0.01, 0.015),
    ) -> None:
        super().__init__()
        self.residual = check_bool("residual", residual)
        self.width = check_number("width", width, minimum=0.05, maximum=4)
        self.thresholds = tuple(check_number("thresholds", value, minimum=0) for value in thresholds)
        if not self.thresholds or list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError(f"thresholds must be one number or more, each above the one before, got {thresholds}")
        context = self._scaled(_CONTEXT)
        self.motion = MotionNetwork(
            channels=self._scaled(_MOTION),
            decoder_channels=self._scaled(_MOTION_DECODERS),
            thresholds=len(self.thresholds),
        )
        self.context = ContextNetwork(channels=context)
        self.synthesis = WaveletSynthesis(
            context_channels=[3 * channels for channels in context], channels=self._scaled(_SYNTHESIS)
        )
        if residual:
            self._start_from_the_mean()

    def forward(self, before: Tensor, after: Tensor, threshold: float | Tensor | None = None) -> Tensor:
        """The frame in the middle of the time between two frames.

        Args:
            before, after: (B, 3, H, W) float in [0, 1], RGB, of one size that 16 divides.
            threshold: a number of at least 0, or one for each sample, (B,): 0 computes all detail, a higher one saves
                time. None lets the classifier choose among `thresholds` for each sample.

        Returns:
            (B, 3, H, W) in the dtype of `before`, clamped to [0, 1]; differentiable.

        Raises:
            TypeError, ValueError: arguments other than that; the message says which, and the nearest size that fits.
        """
        return self.explain(before, after, threshold).frame

    def explain(self, before: Tensor, after: Tensor, threshold: float | Tensor | None = None) -> Middle:
        """What `forward` gives, with the flows, masks and bands behind it. Arguments and errors as there."""
        self._check_pair(before, after)
        one, other = before.to(self.dtype), after.to(self.dtype)
        motion = self.motion(one, other)
        ratio = self._threshold(threshold, motion.logits)
        synthesis = self.synthesis(self.context(one, other, motion), ratio, self._base(one, other, motion))
        return Middle(synthesis.frame.clamp(0, 1).to(before.dtype), motion, ratio, synthesis)

    def explain_each(self, before: Tensor, after: Tensor, thresholds: Sequence[float]) -> list[Middle]:
        """`explain` for several thresholds from one dense pass, for training: the same frames for the cost of one.

        Args:
            before, after: as in `forward`.
            thresholds: numbers of at least 0.

        Raises:
            TypeError, ValueError: as in `forward`.
        """
        self._check_pair(before, after)
        one, other = before.to(self.dtype), after.to(self.dtype)
        motion = self.motion(one, other)
        bands, base = self.synthesis.dense(self.context(one, other, motion)), self._base(one, other, motion)
        middles = []
        for threshold in thresholds:
            ratio = self._threshold(threshold, motion.logits)
            synthesis = self.synthesis.compose(bands, ratio, base)
            middles.append(Middle(synthesis.frame.clamp(0, 1).to(before.dtype), motion, ratio, synthesis))
        return middles

    @torch.no_grad()
    def count_macs(self, before: Tensor, after: Tensor, threshold: float | Tensor | None = None) -> Macs:
        """How many multiplications `forward` makes without gradients, counted while it does; arguments as there."""
        # It imports Triton where there is one.
        from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415

        with FlopCounterMode(display=False) as counter:
            middle = self.explain(before, after, threshold)
        masks = middle.synthesis.masks
        shares = [float(mask.float().mean()) for mask in masks]
        paper = self.paper_macs(before, shares, [float(dilate(mask).float().mean()) for mask in masks])
        return Macs(exact=counter.get_total_flops() // 2, paper=paper)

    @torch.no_grad()
    def paper_macs(self, frames: Tensor, shares: Sequence[float], dilated: Sequence[float] | None = None) -> float:
        """The paper's count: a dense network's multiplications, those of masked layers times the mask's mean.

        The published counter also adds activations, and counts transposed convolutions four times; not so here.

        Args:
            frames: (B, 3, H, W), for their size alone; may be on the meta device, if the model is.
            shares: the mask's mean at each level, fine to coarse.
            dilated: the dilated mask's; None takes the mask's own.
        """
        from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415

        with FlopCounterMode(display=False) as counter:
            contexts = self.context(frames, frames, self.motion(frames, frames))
            self.synthesis.coarsest_bands(contexts)
        total = counter.get_total_flops() / 2
        for level, skip, share, wide in zip(
            self.synthesis.levels, contexts[:-1], shares, dilated or shares, strict=True
        ):
            pixels = 9 * skip.shape[0] * skip.shape[2] * skip.shape[3]
            total += pixels * (wide * level.features_cost + share * level.outputs_cost)
        return total

    def interpolate(  # noqa: D102 - the base class has the words
        self,
        clip: Any,
        factor: int = 2,
        *,
        threshold: float | None = None,
        cut: float | None = CUT,
        layout: str | None = None,
        value_range: tuple[float, float] | None = None,
        nan: str = "error",
    ) -> Tensor:
        middle = partial(self, threshold=threshold)
        with torch.no_grad():
            return self._interpolate(clip, factor, middle, cut=cut, layout=layout, value_range=value_range, nan=nan)

    def stream(  # noqa: D102 - the base class has the words
        self, frames: Iterable[Tensor], factor: int = 2, *, threshold: float | None = None, cut: float | None = CUT
    ) -> Iterator[Tensor]:
        return self._stream(frames, factor, partial(self, threshold=threshold), cut=cut)

    def _base(self, before: Tensor, after: Tensor, motion: Motion) -> Bands | None:
        """The coefficients that are corrected; None where they are predicted whole."""
        return analyse(merge(before, after, motion), len(_CONTEXT)) if self.residual else None

    def _start_from_the_mean(self) -> None:
        """No flow, equal shares, no correction."""
        synthesis = self.synthesis
        heads = [decoder.head for decoder in self.motion.decoders] + [level.to_outputs for level in synthesis.levels]
        for head in (*heads, synthesis.to_low, synthesis.to_high):
            torch.nn.init.zeros_(head.weight)
            torch.nn.init.zeros_(head.bias)

    def _threshold(self, threshold: float | Tensor | None, logits: Tensor) -> Tensor:
        """One threshold for each sample."""
        like = logits.detach().float()
        if threshold is None:
            return like.new_tensor(self.thresholds)[like.argmax(1)]
        if isinstance(threshold, Tensor):
            if threshold.shape != logits.shape[:1] or not threshold.is_floating_point():
                raise ValueError(
                    f"threshold must be a number, or a float tensor with one for each of the {len(logits)} samples, "
                    f"got {describe(threshold)}"
                )
            return threshold.to(like)
        return like.new_full((len(like),), check_number("threshold", threshold, minimum=0))

    def _scaled(self, channels: Sequence[int]) -> list[int]:
        return [max(8, 8 * round(count * self.width / 8)) for count in channels]

# SPDX-License-Identifier: Apache-2.0
"""MSPN, the multi-scale predictive-coding network with encoder-decoder LSTM (Ling et al., arXiv 2212.11642).

Every level predicts the frame at half the size of the level below it. Predictions and latents flow from the coarse
levels to the fine ones within a step; split errors flow from fine to coarse into the next step.

Where paper and code differ, the plain constructor follows the code, whose weights were published: all levels weigh the
same, the image head is a LeakyReLU whose output is fed back unclamped, frames and errors are halved by taking every
second pixel. `fusion`, `resample`, `align_corners`, `clamp`, `patch` and `residual` are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo._checks import check_bool, check_choice, check_int, describe
from pcvideo.layers import Downsample, EDLSTMCell, EncoderLSTMDecoderCell, FIRDownsample, FIRUpsample, Upsample
from pcvideo.layers.blocks import FUSIONS
from pcvideo.models._base import Predictor
from pcvideo.models._frame_axes import FrameAxis
from pcvideo.ops import split_error

__all__ = ["MSPN", "MultiScalePredictor", "MultiScaleState", "ResamplerTaps"]

# With `residual`, a fresh image head is this share of PyTorch's default, and errors are made so much larger.
_RESIDUAL_HEAD = 0.01
_RESIDUAL_GAIN = 8.0

_CELLS: dict[str, type[nn.Module]] = {"ed_lstm": EDLSTMCell, "encoder_lstm_decoder": EncoderLSTMDecoderCell}


class ResamplerTaps(NamedTuple):
    """The taps by which errors and predictions are filtered; None where a resampler makes none."""

    errors: Tensor | None = None
    predictions: Tensor | None = None


class MultiScaleState(NamedTuple):
    """What is carried from step to step: every level's anticipation of the next frame, and every cell's state.

    Also the resamplers' taps, which depend on the weights alone: so they are made once, not in every step.
    """

    predictions: tuple[Tensor, ...]
    cells: tuple[Any, ...]
    taps: ResamplerTaps = ResamplerTaps()


class MultiScalePredictor(Predictor):
    """A pyramid of predictive cells, from parts: the class to subclass, or to feed one's own cells.

    Level l is given, in this order: its own split error (2C channels), the halved split error of level l - 1 (2C, for
    l > 0), the doubled prediction of level l + 1 (C, for all but the coarsest), and with `residual` the frame itself at
    its size (C); `level_channels` counts them.

    Args:
        cells: one per level, finest first; see `pcvideo.layers.ed_lstm` for what a cell has.
        in_channels: channels C of a frame.
        downsample: halves frames, (B, C, H, W) -> (B, C, H / 2, W / 2); None is `Downsample("nearest")`.
        downsample_errors: halves errors, of 2C channels; None is `downsample`.
        upsample: doubles predictions; None is `Upsample(align_corners=True)`. Where this one or the one before has a
            `make_taps()`, as `FIRDownsample` has, it is called with these taps as its second argument.
        patch: each cell sees its level in patches of this side (space to depth before, depth to space after), so that
            `patch ** 2` times the channels stand at a `patch ** 2`-th of the places.
        residual: each cell is also given the frame that it was last corrected with, and predicts the change from it.
            Errors are then of the size of a change, so they are multiplied by 8 and cut at 1.
        clamp: `forward` clamps the frames it returns to [0, 1]; those fed back stay as they are.
    """

    def __init__(
        self,
        cells: Sequence[nn.Module],
        *,
        in_channels: int,
        downsample: nn.Module | None = None,
        downsample_errors: nn.Module | None = None,
        upsample: nn.Module | None = None,
        patch: int = 1,
        residual: bool = False,
        clamp: bool = False,
    ) -> None:
        super().__init__(in_channels=in_channels, clamp=clamp)
        if not cells:
            raise ValueError("cells must hold at least one cell, got none")
        self.cells = nn.ModuleList(cells)
        self.downsample = Downsample("nearest") if downsample is None else downsample
        self.downsample_errors = downsample_errors
        self.upsample = Upsample(align_corners=True) if upsample is None else upsample
        self.patch = check_int("patch", patch)
        self.residual = check_bool("residual", residual)
        wanted = in_channels * patch**2
        for level, cell in enumerate(cells):
            if getattr(cell, "image_channels", wanted) != wanted:
                raise ValueError(
                    f"cells[{level}] must have image_channels = in_channels * patch**2 = {wanted}, got "
                    f"{cell.image_channels}"
                )
        strides: Sequence[Any] = [cell.stride for cell in cells]
        self.size_multiple = math.lcm(*(patch * stride * 2**level for level, stride in enumerate(strides)))

    @staticmethod
    def level_channels(level: int, levels: int, in_channels: int, patch: int = 1, *, residual: bool = False) -> int:
        """Channels of what level `level` of `levels` is given."""
        below, above = level > 0, level < levels - 1
        return (2 + 2 * below + above + residual) * in_channels * patch**2

    def targets(self, frame: Tensor) -> list[Tensor]:
        """The frame (B, C, H, W) at every level's size, which is what the levels predict."""
        pyramid = [frame]
        for _ in range(len(self.cells) - 1):
            pyramid.append(self.downsample(pyramid[-1]))
        return pyramid

    def renew(self, state: MultiScaleState) -> MultiScaleState:
        """The state with the taps that the resamplers make of their present weights."""
        return state._replace(taps=self._make_taps())

    def init_state(self, like: Tensor) -> MultiScaleState:
        """The state before the first frame, holding its anticipation; `like` (B, C, H, W) gives size and dtype."""
        taps = self._make_taps()
        zeros = self.targets(torch.zeros_like(like))
        cells: Sequence[Any] = list(self.cells)
        states = tuple(cell.init_state(self._to_patches(zero)) for cell, zero in zip(cells, zeros, strict=True))
        return self._anticipate([split_error(zero, zero) for zero in zeros], states, zeros, taps)

    def step(self, frame: Tensor | None, state: MultiScaleState) -> tuple[tuple[Tensor, ...], MultiScaleState]:
        """Correct with `frame` (B, C, H, W), or with the own prediction if None, then anticipate the next frame.

        Returns:
            the pyramid of predictions, level l of shape (B, C, H / 2**l, W / 2**l), and the next state.
        """
        frame = state.predictions[0] if frame is None else frame
        targets = self.targets(frame)
        errors = [split_error(*pair) for pair in zip(targets, state.predictions, strict=True)]
        state = self._anticipate(errors, state.cells, targets, state.taps)
        return state.predictions, state

    def _anticipate(
        self, errors: Sequence[Tensor], states: Sequence[Any], current: Sequence[Tensor], taps: ResamplerTaps
    ) -> MultiScaleState:
        levels = len(self.cells)
        if self.residual:
            # They stand beside whole frames, of which the traces of motion are a small part.
            errors = [(_RESIDUAL_GAIN * error).clamp(max=1) for error in errors]
        predictions: list[Tensor] = [errors[0]] * levels
        next_states = list(states)
        latent: Tensor | None = None
        for level in reversed(range(levels)):
            inputs = [errors[level]]
            if level > 0:
                inputs.append(_resample(self._halve_errors, errors[level - 1], taps.errors))
            if level < levels - 1:
                inputs.append(_resample(self.upsample, predictions[level + 1], taps.predictions))
            if self.residual:
                # The errors alone would leave a cell to keep the whole picture in its hidden state.
                inputs.append(current[level])
            seen = self._to_patches(torch.cat(inputs, dim=1))
            image, latent, next_states[level] = self.cells[level](seen, states[level], latent)
            image = F.pixel_shuffle(image, self.patch) if self.patch > 1 else image
            predictions[level] = current[level] + image if self.residual else image
        return MultiScaleState(tuple(predictions), tuple(next_states), taps)

    def _make_taps(self) -> ResamplerTaps:
        return ResamplerTaps(_taps_of(self._halve_errors), _taps_of(self.upsample))

    @property
    def _halve_errors(self) -> nn.Module:
        return self.downsample if self.downsample_errors is None else self.downsample_errors

    def _to_patches(self, image: Tensor) -> Tensor:
        return F.pixel_unshuffle(image, self.patch) if self.patch > 1 else image


class MSPN(MultiScalePredictor):
    """The published network, from numbers; so it has a JSON config.

    Published configurations: KTH, Human3.6M, Caltech and KITTI `in_channels=3, levels=4, channels=(64, 128, 256, 512,
    1024), hidden_channels=64` (110,840,140 parameters); Moving MNIST `in_channels=1, levels=3, channels=(64, 128, 256,
    512), hidden_channels=32` (26,731,043). What the published code creates and never uses is left out of both.

    Args:
        in_channels: channels of a frame.
        levels: levels of the pyramid.
        channels: widths of the finest level's U-Net, finest stage first; level l has all but the last l of them, so
            there are at least `levels + 1`. Height and width must be divisible by `2 ** (len(channels) - 1) * patch`.
        hidden_channels: channels of each cell's hidden state.
        norm: None, or "batch" for the published variant with batch normalisation.
        cell: "ed_lstm", or "encoder_lstm_decoder" for the paper's ablation (no hidden_channels, no latent sharing).
        latent_sharing: each level's latent is merged into that of the next finer one; False is the paper's ablation.
        fusion: how a cell's U-Net takes in its skip features and the coarser level's latent: "concat" (published),
            "modulate" or "add"; see `pcvideo.layers.EncoderDecoder`.
        resample: how frames and errors are halved: "nearest" (published), "average", "binomial"; or "fir", by low-pass
            filters with 9 taps, which double predictions too. Those of errors and predictions are learnt.
        align_corners: of all bilinear doubling; True is published.
        patch, residual, clamp: as in `MultiScalePredictor`; with `residual` the image head has no activation, and a
            fresh network predicts nearly the last frame.

    Raises:
        ValueError, TypeError: an argument out of its range or of another type; the message names it.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        levels: int,
        channels: Sequence[int],
        hidden_channels: int = 32,
        norm: str | None = None,
        cell: str = "ed_lstm",
        latent_sharing: bool = True,
        fusion: str = "concat",
        resample: str = "nearest",
        align_corners: bool = True,
        patch: int = 1,
        residual: bool = False,
        clamp: bool = False,
    ) -> None:
        check_int("in_channels", in_channels)
        check_int("levels", levels)
        check_int("hidden_channels", hidden_channels)
        check_int("patch", patch)
        check_choice("norm", norm, (None, "batch"))
        check_choice("cell", cell, tuple(_CELLS))
        check_choice("fusion", fusion, FUSIONS)
        check_choice("resample", resample, ("nearest", "average", "binomial", "fir"))
        check_bool("residual", residual)
        check_bool("latent_sharing", latent_sharing)
        check_bool("align_corners", align_corners)
        widths = _check_widths(channels, levels)
        cells = []
        for level in range(levels):
            own = widths[: len(widths) - level]
            parts: dict[str, Any] = {
                "in_channels": self.level_channels(level, levels, in_channels, patch, residual=residual),
                "image_channels": in_channels * patch**2,
                "channels": own,
                "norm": norm,
                "align_corners": align_corners,
                "fusion": fusion,
            }
            if cell == "ed_lstm":
                parts["hidden_channels"] = hidden_channels
                parts["latent_channels"] = own[-2] if latent_sharing and level < levels - 1 else 0
                parts["activation"] = None if residual else "leaky_relu"
            cells.append(_CELLS[cell](**parts))
        super().__init__(
            cells,
            in_channels=in_channels,
            patch=patch,
            residual=residual,
            clamp=clamp,
            **_resamplers(resample, in_channels, levels, align_corners=align_corners),
        )
        if residual:
            self._begin_with_the_last_frame()
        self.levels, self.channels, self.hidden_channels = levels, widths, hidden_channels
        self.norm, self.cell, self.latent_sharing = norm, cell, latent_sharing
        self.fusion, self.resample, self.align_corners = fusion, resample, align_corners

    def frame_axes(self) -> dict[str, FrameAxis]:
        """Which entries of which tensors stand for the frame's channels; `adapt` carries weights over by it."""
        channels, places = self.in_channels, self.patch**2
        axes = {}
        for level in range(self.levels):
            # In the order in which `_anticipate` puts them side by side.
            images = ["error+", "error-"] + ["error+ below", "error- below"] * (level > 0)
            images += ["prediction above"] * (level < self.levels - 1) + ["frame"] * self.residual
            cell = f"cells.{level}"
            axes[f"{cell}.codec.stem.weight"] = FrameAxis(1, tuple(images), channels, places, reads=True)
            heads = ["to_image"] if self.cell == "ed_lstm" else ["codec.head", "codec.head.conv"]
            for name in (f"{cell}.{head}.{kind}" for head in heads for kind in ("weight", "bias")):
                axes[name] = FrameAxis(0, ("image",), channels, places)
        axes["downsample_errors.cutoff_logit"] = FrameAxis(0, ("error+", "error-"), channels)
        axes["upsample.cutoff_logit"] = FrameAxis(0, ("prediction",), channels)
        return axes

    @torch.no_grad()
    def _begin_with_the_last_frame(self) -> None:
        """Scale fresh image heads down: a change of random size would first have to be unlearnt."""
        cells: Sequence[Any] = list(self.cells)
        for cell in cells:
            head = cell.codec.head if isinstance(cell, EncoderLSTMDecoderCell) else cell.to_image
            # What a head does besides its last convolution is not of the size of the change.
            for parameter in getattr(head, "conv", head).parameters():
                parameter.mul_(_RESIDUAL_HEAD)


def _taps_of(resampler: nn.Module | None) -> Tensor | None:
    make_taps: Any = getattr(resampler, "make_taps", None)
    return None if make_taps is None else make_taps()


def _resample(resampler: nn.Module, inputs: Tensor, taps: Tensor | None) -> Tensor:
    return resampler(inputs) if taps is None else resampler(inputs, taps)


def _resamplers(kind: str, channels: int, levels: int, *, align_corners: bool) -> dict[str, nn.Module]:
    """The resamplers, which all levels share."""
    if kind != "fir":
        return {"downsample": Downsample(kind), "upsample": Upsample(align_corners=align_corners)}
    # With one level nothing is resampled, so nothing would be learnt.
    learnable = levels > 1
    return {
        # Not learnable: training would reward it for frames that are easy to predict, which is to say plain ones.
        "downsample": FIRDownsample(channels, learnable=False),
        "downsample_errors": FIRDownsample(2 * channels, learnable=learnable),
        "upsample": FIRUpsample(channels, learnable=learnable),
    }


def _check_widths(channels: Any, levels: int) -> tuple[int, ...]:
    if isinstance(channels, str) or not isinstance(channels, Sequence):
        raise TypeError(f"channels must be a sequence of whole numbers, got {describe(channels)}")
    widths = tuple(check_int(f"channels[{index}]", width) for index, width in enumerate(channels))
    if len(widths) < levels + 1:
        raise ValueError(
            f"channels must hold at least levels + 1 = {levels + 1} widths, one halving more than there are levels, "
            f"got {widths}"
        )
    return widths

# SPDX-License-Identifier: Apache-2.0
"""Colour for grey frames: the autoencoder of spatio-temporal fusion, and a form of it that keeps the luminance.

The published code has it in four sizes, all of 3x3 convolutions that neither shrink the frame nor skip a layer: the
last version's, and three with batch normalisation and leaky ReLU (`batch_norm=True`). It gives three colours of its
own; what is grey in the input is not kept. Ours, with `keep_luminance=True`, gives two chroma planes, from which and
the input a picture of exactly the input's luma is made; `chroma_stride` lets it see further at less cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo._checks import check_bool, check_frame, check_int, check_values, describe
from pcvideo.models._base import Predictor
from pcvideo.models._pretrained import Pretrained

__all__ = ["Grey2RGB"]

# Of the leaky ReLU where the luminance is kept.
_SLOPE = 0.1
# ITU-R BT.601, the library's grey: Y = 0.299 R + 0.587 G + 0.114 B, Cb = (B - Y) / 1.772, Cr = (R - Y) / 1.402.
_RED_OF_CR, _BLUE_OF_CB = 1.402, 1.772
_GREEN_OF_CB, _GREEN_OF_CR = -0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587


class Grey2RGB(Pretrained):
    """Convolutions from grey to a wide code, and transposed ones back to colour; a sigmoid at the end.

    The plain constructor builds the published network (12,331 parameters). Its earlier versions are
    `channels=(3, 6, 12, 24)` (7,029), `(8, 16, 32)` (12,057) and `(64, 128, 256)` (741,513), each with
    `batch_norm=True`.

    Args:
        channels: of the encoder's layers; the decoder's are the same backwards, and then the colours (no further layer
            where the first number is that of the colours already, as published).
        batch_norm: batch normalisation after each convolution, the last too, and leaky ReLU for ReLU.
        keep_luminance: predict the chroma alone (Cb and Cr of ITU-R BT.601 in full range). The luma
            0.299 R + 0.587 G + 0.114 B of the output is the input: where a colour would leave [0, 1], its chroma is
            scaled towards grey, which leaves the luma as it is, instead of being clipped. A fresh network gives nearly
            grey pictures, by He's initialisation, and its ReLU is leaky: with torch's, and ReLU, nearly all of its
            units died in training.
        chroma_stride: with `keep_luminance`, the network sees the frame made so many times smaller, and its chroma is
            enlarged bilinearly, as in a video file: so many times wider a view, at that squared less cost.

    Shape: (B, 1, H, W) to (B, 3, H, W); any size.

    Raises:
        TypeError, ValueError: an argument out of its range or of another type; the message names it.
    """

    in_channels = 1

    # What predictors have too, and means the same here.
    dtype: Any = Predictor.dtype
    device: Any = Predictor.device
    _evaluating: Any = Predictor._evaluating

    def __init__(
        self,
        *,
        channels: Sequence[int] = (4, 8, 16, 32),
        batch_norm: bool = False,
        keep_luminance: bool = False,
        chroma_stride: int = 1,
    ) -> None:
        super().__init__()
        if isinstance(channels, str) or not isinstance(channels, Sequence) or not channels:
            raise TypeError(f"channels must be a sequence of whole numbers, one per layer, got {describe(channels)}")
        self.channels = tuple(check_int(f"channels[{index}]", count) for index, count in enumerate(channels))
        self.batch_norm = check_bool("batch_norm", batch_norm)
        self.keep_luminance = check_bool("keep_luminance", keep_luminance)
        self.chroma_stride = check_int("chroma_stride", chroma_stride)
        if chroma_stride > 1 and not keep_luminance:
            raise ValueError(
                f"chroma_stride={chroma_stride} is for keep_luminance=True, as all detail would be lost without; "
                f"leave one of them out"
            )
        widths = (1, *self.channels)
        colours = 2 if keep_luminance else 3
        self.encoder = self._layers(nn.Conv2d, widths, self._activation())
        # A width that is the number of colours already is the last one, as in the published (3, 6, 12, 24).
        back = self.channels[1:] if len(self.channels) > 1 and self.channels[0] == colours else self.channels
        self.decoder = self._layers(nn.ConvTranspose2d, (*reversed(back), colours), nn.Sigmoid())
        if keep_luminance:
            self._initialise()

    def forward(self, grey: Tensor) -> Tensor:
        """The colours of grey frames.

        Args:
            grey: (B, 1, H, W) float in [0, 1].

        Returns:
            (B, 3, H, W) in the dtype of `grey`, RGB in [0, 1]; differentiable.

        Raises:
            TypeError, ValueError: frames other than that; the message says which.
        """
        check_frame("grey", grey, channels=self.in_channels)
        check_values("grey", grey, time_axis=0, unit="sample", door="colourise")
        inputs = grey.to(self.dtype)
        if not self.keep_luminance:
            return self.decoder(self.encoder(inputs)).to(grey.dtype)
        return colour_with_luma(grey, self._chroma(inputs)).to(grey.dtype)

    def to_grey(self, colour: Tensor) -> Tensor:
        """What the network is shown of a colour picture: its luma, (..., 3, H, W) to (..., 1, H, W)."""
        from pcvideo.video_io import to_grey  # noqa: PLC0415

        return to_grey(colour)

    @torch.no_grad()
    def colourise(
        self,
        clip: Any,
        *,
        layout: str | None = None,
        value_range: tuple[float, float] | None = None,
        nan: str = "error",
        to_grey: bool = False,
    ) -> Tensor:
        """Any grey clip in colour, one frame at a time: beside the clip, what one frame needs is held.

        Args:
            clip: a path (video file, GIF, folder of images, .npy, .npz, .pt), an array or tensor (T, 1, H, W),
                (T, H, W) or (B, T, 1, H, W), float in [0, 1] or uint8, or a list of pictures; any size.
            layout: the axes of an array where they are not (T, C, H, W), such as "THWC".
            value_range: (low, high) of float values outside [0, 1].
            nan: "error", or "repair" to take a NaN's value from the frame before.
            to_grey: make a colour clip grey first, instead of refusing it.

        Returns:
            (T, 3, H, W) float32 in [0, 1] on the model's device, with the batch axis in front if the clip had it. A
            clip that is too long for the memory goes through `stream`.

        Raises:
            TypeError, ValueError: the clip can't be read as grey frames; the message names the frame and the mend.
        """
        frames, batched = self._read(clip, layout=layout, value_range=value_range, nan=nan, to_grey=to_grey)
        flat = frames.flatten(0, 1)
        colour = torch.empty(len(flat), 3, *flat.shape[2:], device=self.device)
        for number, frame in enumerate(self.stream(flat)):
            colour[number] = frame
        colour = colour.view(*frames.shape[:2], *colour.shape[1:])
        return colour if batched else colour[0]

    # What `colourise` takes is what `predict` does.
    spatial_dims = 2
    _read: Any = Predictor._read

    def stream(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Grey frames in colour as they come, in constant memory; sizes may change.

        Args:
            frames: (1, H, W) float in [0, 1]; such as `pcvideo.video_io.iter_frames` gives them.

        Yields:
            (3, H, W) float32 in [0, 1], on the model's device.

        Raises:
            TypeError, ValueError: a frame other than that, by its number.
        """
        for index, frame in enumerate(frames):
            if not isinstance(frame, Tensor) or frame.ndim != 3 or not frame.is_floating_point():
                raise TypeError(f"frame {index} must be a float tensor (1, H, W), got {describe(frame)}")
            check_frame(f"frame {index}", frame[None], channels=self.in_channels)
            check_values("clip", frame[None], time_axis=0, first=index, door="colourise")
            # Not yielded inside: whoever takes the frame would be without gradients until the next one.
            with torch.no_grad(), self._evaluating():
                colour = self(frame[None].to(self.device, torch.float32))[0].clamp(0, 1)
            yield colour

    def _chroma(self, inputs: Tensor) -> Tensor:
        """Cb and Cr, (B, 2, H, W), in (-0.5, 0.5)."""
        stride = self.chroma_stride
        if stride == 1:
            return self.decoder(self.encoder(inputs)) - 0.5
        height, width = inputs.shape[-2:]
        padded = F.pad(inputs, (0, -width % stride, 0, -height % stride), mode="replicate")
        chroma = self.decoder(self.encoder(F.avg_pool2d(padded, stride))) - 0.5
        large = F.interpolate(chroma, scale_factor=stride, mode="bilinear", align_corners=False)
        return large[..., :height, :width]

    def _layers(self, kind: type[nn.Module], widths: Sequence[int], last: nn.Module) -> nn.Sequential:
        """Convolution, normalisation where there is one, activation, and so on; the names are the published ones."""
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers.append(kind(inputs, outputs, 3, padding=1))
            if self.batch_norm:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(self._activation())
        return nn.Sequential(*layers[:-1], last)

    def _activation(self) -> nn.Module:
        if self.keep_luminance:
            return nn.LeakyReLU(_SLOPE)
        return nn.LeakyReLU(0.01) if self.batch_norm else nn.ReLU()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Begin near grey, yet with signals that don't fade from layer to layer (He et al., ICCV 2015)."""
        layers = [layer for layer in self.modules() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))]
        for layer in layers:
            # What a pixel of the output sums up, a transposed convolution has on its first axis.
            summed = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
            nn.init.kaiming_normal_(summed, a=_SLOPE)
            nn.init.zeros_(cast(Tensor, layer.bias))
        layers[-1].weight.mul_(0.1)


def colour_with_luma(luma: Tensor, chroma: Tensor) -> Tensor:
    """RGB (B, 3, H, W) in [0, 1] of exactly this luma (B, 1, H, W), and of this chroma (B, 2, H, W) where it can be.

    Where a colour would leave [0, 1], both chroma are multiplied by the largest number at which none does. Computed in
    float32 at least, as the luma would be lost in 16 bit.
    """
    dtype = torch.promote_types(torch.promote_types(luma.dtype, chroma.dtype), torch.float32)
    luma, (cb, cr) = luma.to(dtype).clamp(0, 1), chroma.to(dtype).split(1, dim=1)
    away = torch.cat((_RED_OF_CR * cr, _GREEN_OF_CB * cb + _GREEN_OF_CR * cr, _BLUE_OF_CB * cb), dim=1)
    room = torch.where(away > 0, 1 - luma, luma)
    share = (room / away.abs().clamp(min=1e-6)).amin(dim=1, keepdim=True).clamp(max=1)
    # Rounding alone can leave the range.
    return (luma + share * away).clamp(0, 1)

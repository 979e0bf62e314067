# SPDX-License-Identifier: Apache-2.0
"""PPNV2, the anti-aliased pyramidal predictive network (Ling et al., arXiv 2301.05421; BDCC 2025, 9(4), 79).

Level l predicts its own features of the next frame, at half the size of level l - 1; those of level 0 are the frame
itself. Features and errors go up through low-pass filters with learnable cutoffs, predictions come down through an
interpolation with a learnable kernel. Levels begin one after another: level l has seen nothing before step l.

`legacy=True` is the published code. The plain constructor corrects four things, each an option of its own:

- `fir`: the published filter is no low-pass, see `pcvideo.ops.fir.reshaped_taps`; ours is a windowed sinc on each axis.
- `bound`: the published cutoff can only lie above the new Nyquist frequency; ours lies below.
- `interpolation`: two digits of the published kernel are swapped, which darkens a quarter of the pixels by 1 %.
- `border`: the published interpolation mirrors about inserted zeros; ours repeats the edge, as all its filters do.

The published code's merge for the top level and factor for the lowest, which no step uses, are left out here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo._checks import check_bool, check_choice, check_int, describe
from pcvideo.layers import FIRDownsample, LearnableFIR, LSTMState, ModulatedConv
from pcvideo.layers._lstm_state import zero_state
from pcvideo.models._base import Predictor
from pcvideo.ops import lstm_gates, split_error
from pcvideo.ops.fir import lowpass_taps, upfirdn2d

__all__ = ["PPNV2", "PPNV2State"]

# With `residual`: what the head gives is so much smaller, a fresh head is this share of PyTorch's default, and errors
# of the frame are made so much larger. A change that is a little off adds up over all frames that are fed back, and one
# step of Adam moves every one of the head's many weights.
_RESIDUAL_SHARE = 0.1
_RESIDUAL_HEAD = 0.1
_RESIDUAL_GAIN = 8.0

_INTERPOLATION_SIZE = 7


class PPNV2State(NamedTuple):
    """What is carried from step to step; `predictions` and `features` have an entry for each level that has begun."""

    predictions: tuple[Tensor, ...]
    """What each level anticipates."""
    features: tuple[Tensor, ...]
    """Each level's features of the frame that was seen last."""
    cells: tuple[LSTMState, ...]
    """The state of every level's cell."""
    taps: tuple[tuple[Tensor, ...], ...]
    """The filters of features, errors and predictions between levels; they depend on the weights alone."""


class _Cell(nn.Module):
    """A ConvLSTM whose gates are three convolutions deep, the latter two gate by gate."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden_channels = hidden
        self.to_gates = nn.Sequential(
            nn.Conv2d(channels + hidden, 4 * hidden, 3, padding=1),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Conv2d(4 * hidden, 4 * hidden, 3, padding=1, groups=4),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Conv2d(4 * hidden, 4 * hidden, 3, padding=1, groups=4),
        )
        self.to_output = nn.Sequential(
            nn.Conv2d(hidden, hidden, 1),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Conv2d(hidden, channels, 3, padding=1),
            nn.LeakyReLU(0.01, inplace=True),
        )

    def init_state(self, like: Tensor) -> LSTMState:
        return zero_state(like, (like.shape[0], self.hidden_channels, *like.shape[2:]))

    def forward(self, inputs: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        state = LSTMState(*lstm_gates(self.to_gates(torch.cat([inputs, state.hidden], dim=1)), state.cell))
        return self.to_output(state.hidden), state


class _ConcatMerge(nn.Module):
    """Two feature maps side by side through two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*_convolution(2 * channels, channels), *_convolution(channels, channels))

    def forward(self, inputs: Tensor, other: Tensor) -> Tensor:
        return self.convolutions(torch.cat([inputs, other], dim=1))


class _AddMerge(nn.Module):
    """The sum of two feature maps through three convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = [layer for _ in range(3) for layer in _convolution(channels, channels)]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, inputs: Tensor, other: Tensor) -> Tensor:
        return self.convolutions(inputs + other)


_MERGES: dict[str, type[nn.Module]] = {"modulate": ModulatedConv, "concat": _ConcatMerge, "add": _AddMerge}


class _GoUp(nn.Module):
    """Features or errors to the next coarser level: convolution, low-pass filter with decimation, convolution."""

    def __init__(self, in_channels: int, out_channels: int, **filter_options: Any) -> None:
        super().__init__()
        self.before = nn.Sequential(*_convolution(in_channels, out_channels))
        self.filter = FIRDownsample(out_channels, **filter_options)
        self.after = nn.Sequential(*_convolution(out_channels, out_channels))

    def forward(self, inputs: Tensor, taps: Tensor | None = None) -> Tensor:
        return self.after(self.filter(self.before(inputs), taps))


class _GoDown(nn.Module):
    """A prediction to the next finer level: convolution, learnt interpolation, low-pass filter, convolution."""

    def __init__(
        self, in_channels: int, out_channels: int, *, interpolation: str, border: str, **filter_options: Any
    ) -> None:
        super().__init__()
        self.before = nn.Sequential(*_convolution(in_channels, in_channels))
        self.kernel = nn.Parameter(_interpolation_kernel(interpolation).repeat(in_channels, 1, 1))
        self.border = border
        self.filter = LearnableFIR(in_channels, max_cutoff=0.5, **filter_options)
        self.after = nn.Sequential(*_convolution(in_channels, out_channels))

    def forward(self, inputs: Tensor, taps: Tensor | None = None) -> Tensor:
        return self.after(self.enlarge(self.before(inputs), taps))

    def enlarge(self, image: Tensor, taps: Tensor | None = None) -> Tensor:
        return self.filter(F.leaky_relu(self.interpolate(image), 0.01), taps)

    def interpolate(self, image: Tensor) -> Tensor:
        if self.border == "reflect":
            return upfirdn2d(_mirrored_about_inserted_zeros(image), self.kernel, up=2, border="valid")
        return upfirdn2d(image, self.kernel, up=2, border=self.border)


class PPNV2(Predictor):
    """The pyramidal predictor with low-pass filters between its levels; `legacy=True` is the published network.

    The published configuration is `channels=(3, 64, 128, 256, 512, 512), legacy=True` (163,082,628 parameters: those
    published, less the 7,079,426 that no step uses). Height and width must be divisible by `2 ** (levels - 1)`.

    The state's `predictions`, and so the pyramid that `step` returns, hold as many levels as have begun: one more with
    every step, until all have. Predictions of the frame are those that the loss is taken of; `forward` returns what is
    fed back, their non-negative part (with `residual`, what lies in [0, 1]).

    Args:
        channels: channels of every level's features, finest first; those of the first are the frame's.
        hidden_channels: channels of every level's hidden state; None is `channels`, as published, which leaves level 0
            three of them to remember the frame by.
        merge: how a level takes in its errors, and the coarser level's prediction: "modulate", "concat" or "add".
        legacy: the published network: what the four options below are where they are None.
        fir: the low-pass filters' design: "separable", "radial", or "reshaped" as published.
        bound: of their cutoffs: "max_cutoff", half the Nyquist frequency, or "published".
        interpolation: the kernel that doubles predictions begins as "inverse_distance", as "sinc", or as "published".
        border: what an interpolated image is extended by: "replicate", or "reflect" as published.
        taps: length of the filters; "reshaped" has 5.
        window: of the filters: "kaiser" or "hamming".
        patch: level 0 sees the frame in patches of this side, so it has `patch ** 2` times the channels at a
            `patch ** 2`-th of the places; height and width must be divisible by `patch` times as much.
        residual: level 0 predicts the change from the frame. Its head has no activation then, counts a tenth and begins
            small; errors of the frame are multiplied by 8 and cut at 1, and frames are fed back clamped to [0, 1].
        clamp: `forward` clamps the frames it returns to [0, 1]; those fed back stay as they are.

    Raises:
        TypeError, ValueError: an argument out of its range or of another type; the message names it.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        hidden_channels: Sequence[int] | None = None,
        merge: str = "modulate",
        legacy: bool = False,
        fir: str | None = None,
        bound: str | None = None,
        interpolation: str | None = None,
        border: str | None = None,
        taps: int = 9,
        window: str = "kaiser",
        patch: int = 1,
        residual: bool = False,
        clamp: bool = False,
    ) -> None:
        of_levels = _check_widths("channels", channels)
        super().__init__(in_channels=of_levels[0], clamp=clamp)
        self.channels, self.patch, levels = of_levels, check_int("patch", patch), len(of_levels)
        widths = (self.in_channels * patch**2, *self.channels[1:])
        self.hidden_channels = (
            widths if hidden_channels is None else _check_widths("hidden_channels", hidden_channels, levels)
        )
        self.merge, self.legacy = check_choice("merge", merge, tuple(_MERGES)), check_bool("legacy", legacy)
        self.fir = _option("fir", fir, ("separable", "radial"), "reshaped", legacy)
        self.bound = _option("bound", bound, ("max_cutoff",), "published", legacy)
        self.interpolation = _option("interpolation", interpolation, ("inverse_distance", "sinc"), "published", legacy)
        self.border = _option("border", border, ("replicate",), "reflect", legacy)
        self.taps, self.window = taps, window
        self.residual = check_bool("residual", residual)
        self.size_multiple = patch * 2 ** (levels - 1)

        filters: dict[str, Any] = {"taps": taps, "design": self.fir, "window": window, "bound": self.bound}
        down = {"interpolation": self.interpolation, "border": self.border} | filters
        new_merge: Callable[[int], nn.Module] = _MERGES[merge]
        steps = list(pairwise(widths))
        self.cells = nn.ModuleList(map(_Cell, widths, self.hidden_channels))
        self.merge_errors = nn.ModuleList(nn.Sequential(*_convolution(2 * width, width)) for width in widths)
        self.merge_inputs = nn.ModuleList(map(new_merge, widths))
        self.merge_predictions = nn.ModuleList(map(new_merge, widths[:-1]))
        self.up_inputs = nn.ModuleList(_GoUp(fine, coarse, **filters) for fine, coarse in steps)
        self.up_errors = nn.ModuleList(_GoUp(2 * fine, coarse, **filters) for fine, coarse in steps)
        self.down_predictions = nn.ModuleList(_GoDown(coarse, fine, **down) for fine, coarse in steps)
        # The share of a level's own error is the sigmoid of this, for all levels but the lowest.
        self.error_mix = nn.Parameter(torch.ones(levels - 1)) if levels > 1 else None
        if self.residual:
            self._begin_with_the_last_frame()

    @property
    def levels(self) -> int:
        """How many levels there are."""
        return len(self.channels)

    def targets(self, frame: Tensor) -> list[Tensor]:
        """Every level's features of the frame (B, C, H, W), finest first; those of level 0 are the frame.

        Level l has channels[l] of them at `patch * 2**l` times fewer rows and columns. They are learnt, and a gradient
        flows through them.
        """
        pyramid = [self._to_patches(frame)]
        for go_up in self.up_inputs:
            pyramid.append(go_up(pyramid[-1]))
        return [frame, *pyramid[1:]]

    def seen(self, state: PPNV2State) -> list[Tensor]:
        """The features of the frame that the last step was corrected with, of the levels that have begun."""
        return list(state.features)

    def to_frames(self, predictions: Tensor) -> Tensor:
        """The non-negative part of predictions (..., C, H, W) of level 0; within [0, 1] with `clamp` or `residual`."""
        return super().to_frames(self._as_frame(predictions))

    def _as_frame(self, prediction: Tensor) -> Tensor:
        # Changes add up over the frames that are fed back, beyond all bounds if nothing holds them.
        return prediction.clamp(0, 1) if self.residual else torch.relu(prediction)

    def init_state(self, like: Tensor) -> PPNV2State:
        """The state before the first frame: nothing is anticipated; `like` (B, C, H, W) gives size and dtype."""
        sizes = (like[..., :: self.patch * 2**level, :: self.patch * 2**level] for level in range(self.levels))
        cells: Sequence[Any] = list(self.cells)
        states = tuple(cell.init_state(size) for cell, size in zip(cells, sizes, strict=True))
        return PPNV2State((), (), states, self._make_taps())

    def renew(self, state: PPNV2State) -> PPNV2State:
        """The state with the taps of the weights as they are now."""
        return state._replace(taps=self._make_taps())

    def step(self, frame: Tensor | None, state: PPNV2State) -> tuple[tuple[Tensor, ...], PPNV2State]:
        """Correct with `frame` (B, C, H, W), or with the own prediction if None, then anticipate the next frame.

        Returns:
            the predictions of the levels that have begun, of the shapes of their `targets`, and the next state.

        Raises:
            ValueError: there is neither a frame nor a prediction, in the first step.
        """
        if frame is None:
            if not state.predictions:
                raise ValueError("the first step needs a frame, as nothing is anticipated before it; got frame=None")
            frame = state.predictions[0]
        # A prediction may be negative, or above 1; what is fed back is the frame that it stands for. True ones stay.
        frame = self._as_frame(frame)
        features, errors = self._correct(frame, state)
        predictions, cells = self._anticipate(features, errors, state)
        if self.patch > 1:
            features[0], predictions[0] = frame, F.pixel_shuffle(predictions[0], self.patch)
        state = PPNV2State(tuple(predictions), tuple(features), tuple(cells), state.taps)
        return state.predictions, state

    def _correct(self, frame: Tensor, state: PPNV2State) -> tuple[list[Tensor], list[Tensor]]:
        """From the bottom up: features of the frame, and their errors, of the levels that have begun and the next."""
        features, errors = [self._to_patches(frame)], []
        for level, prediction in enumerate(state.predictions):
            # Where too much was predicted comes first here, unlike in MSPN.
            error = split_error(self._to_patches(prediction) if level == 0 else prediction, features[level])
            if self.residual and level == 0:
                error = (_RESIDUAL_GAIN * error).clamp(max=1)
            errors.append(error)
            if level < self.levels - 1:
                features.append(self.up_inputs[level](features[level], state.taps[0][level]))
        if len(errors) < len(features):
            errors.append(torch.zeros_like(features[-1]).repeat(1, 2, 1, 1))
        return features, errors

    def _anticipate(
        self, features: Sequence[Tensor], errors: Sequence[Tensor], state: PPNV2State
    ) -> tuple[list[Tensor], list[LSTMState]]:
        """From the top down: every level's prediction, from its features, its errors and the coarser prediction."""
        predictions, cells = list(features), list(state.cells)
        coarser: Tensor | None = None
        for level in reversed(range(len(features))):
            error = self.merge_errors[level](errors[level])
            if level > 0 and self.error_mix is not None:
                lower = self.up_errors[level - 1](errors[level - 1], state.taps[1][level - 1])
                error = torch.lerp(lower, error, torch.sigmoid(self.error_mix[level - 1]).to(error.dtype))
            prediction, cells[level] = self.cells[level](self.merge_inputs[level](features[level], error), cells[level])
            if coarser is not None:
                coarser = self.down_predictions[level](coarser, state.taps[2][level])
                prediction = self.merge_predictions[level](coarser, prediction)
            if self.residual and level == 0:
                prediction = features[0] + _RESIDUAL_SHARE * prediction
            predictions[level] = coarser = prediction
        return predictions, cells

    def _to_patches(self, image: Tensor) -> Tensor:
        return F.pixel_unshuffle(image, self.patch) if self.patch > 1 else image

    def _make_taps(self) -> tuple[tuple[Tensor, ...], ...]:
        groups: Sequence[Any] = (self.up_inputs, self.up_errors, self.down_predictions)
        return tuple(tuple(block.filter.make_taps() for block in group) for group in groups)

    @torch.no_grad()
    def _begin_with_the_last_frame(self) -> None:
        """Let level 0 end in a small convolution: a change of random size would first have to be unlearnt."""
        head: Any = self.merge_predictions[0] if self.levels > 1 else self.cells[0]
        if isinstance(head, ModulatedConv):
            head.activation, last = nn.Identity(), head.conv
        else:
            layers = head.to_output if self.levels == 1 else head.convolutions
            layers[-1], last = nn.Identity(), layers[-2]
        for parameter in last.parameters():
            parameter.mul_(_RESIDUAL_HEAD)


def _convolution(in_channels: int, out_channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.LeakyReLU(0.01, inplace=True)


def _interpolation_kernel(kind: str) -> Tensor:
    """A kernel (7, 7) that doubles an image after zeros were inserted; each of its four phases sums to 1."""
    if kind == "sinc":
        taps = lowpass_taps(torch.tensor([0.5], dtype=torch.float64), _INTERPOLATION_SIZE)[0]
        return (4 * taps[:, None] * taps).float()
    half = _INTERPOLATION_SIZE // 2
    offset = torch.arange(-half, half + 1, dtype=torch.float64)
    distance = (offset[:, None] ** 2 + offset**2).sqrt()
    kernel = torch.zeros_like(distance)
    kernel[half, half] = 1
    for row, column in ((0, 1), (1, 0), (1, 1)):
        # From the samples at even places to a pixel between them, the first offset is odd.
        phase = (slice(1 - row, None, 2), slice(1 - column, None, 2))
        weights = 1 / distance[phase]
        kernel[phase] = weights / weights.sum()
    if kind == "published":
        kernel = torch.round(kernel, decimals=4)
        kernel[::6, ::6] = 0.0347
    return kernel.float()


def _mirrored_about_inserted_zeros(image: Tensor) -> Tensor:
    """Extend by what mirroring about the edge would show, had zeros been inserted first: 1 sample before, 2 after.

    The last place then is a zero, so the samples after it are the last two in turn. An image of one row or column
    repeats it, where the published code fails.
    """
    for axis in (2, 3):
        last = image.shape[axis] - 1
        before, *after = (image.narrow(axis, place, 1) for place in (min(1, last), last, max(last - 1, 0)))
        image = torch.cat([before, image, *after], dim=axis)
    return image


def _option(name: str, value: Any, choices: tuple[str, ...], published: str, legacy: bool) -> str:
    """The option that was given; where none was, the published one, or the first of ours."""
    if value is None:
        return published if legacy else choices[0]
    return check_choice(name, value, (*choices, published))


def _check_widths(name: str, widths: Any, count: int | None = None) -> tuple[int, ...]:
    if isinstance(widths, str) or not isinstance(widths, Sequence):
        raise TypeError(f"{name} must be a sequence of whole numbers, got {describe(widths)}")
    if len(widths) != (count or len(widths)) or not widths:
        wanted = "at least one width" if count is None else f"one width for each of the {count} levels"
        raise ValueError(f"{name} must hold {wanted}, got {describe(widths)}")
    return tuple(check_int(f"{name}[{level}]", width) for level, width in enumerate(widths))

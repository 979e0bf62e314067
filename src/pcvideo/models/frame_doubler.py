# SPDX-License-Identifier: Apache-2.0
"""Twice the frames: the convolutional LSTM of spatio-temporal fusion, as published and put right.

The published network, with `legacy=True`, has three faults, all kept there. Its layers don't feed each other, so that
only the last one counts, and two thirds of its parameters get no gradient. It gives the frame after x[t] before it has
seen x[t + 1], which is half a step of extrapolation. Its output is a hidden state of one channel, in (-1, 1).

Ours, without: each layer sees the one before, at half its size; both frames are seen before the one between is given,
and each layer is told how well they match along motions through its middle; a head says what lies between as a
correction to a blend of both frames, each moved along a flow. Fresh, it gives the blend itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby, pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo._checks import check_bool, check_clip, check_int, check_number, check_values, describe
from pcvideo.layers import ConvLSTMCell, LSTMState
from pcvideo.layers.patches import from_patches, to_patches
from pcvideo.models._interpolator import Interpolator
from pcvideo.ops import backward_warp
from pcvideo.video_io.cuts import CUT

__all__ = ["FrameDoubler", "FrameDoublerState"]


class FrameDoublerState(NamedTuple):
    """What is carried: the layers' states; with `legacy` that of the last one, and the frame that came before.

    Published, the blend of two frames is seen only if another frame follows the second, so it has to wait.
    """

    cells: tuple[LSTMState, ...]
    before: Tensor | None = None


class FrameDoubler(Interpolator):
    """Stacked ConvLSTM layers that go through a clip, and give for every frame the one after it, at half its time.

    Args:
        in_channels: channels C of a frame.
        hidden_channels: of each layer, fine to coarse; None is (16, 32, 64), with `legacy` three times `in_channels`.
        alpha: the blend that the output corrects is (1 - alpha) times the frame before plus alpha times the one after.
            The published code trains with 0.5 and is run with 0.6; here one number serves for both.
        patch: the first layer sees frames in patches of this side; None is 4, with `legacy` 1.
        motion: the head gives flows along which both frames are moved, and their shares in the blend, before it is
            corrected; None is True, with `legacy` False.
        reach: how many patches far, to each side, a place is looked for in both frames; layers see patches of a frame
            made smaller with them, and so look as many times further. 0 doesn't look; None is 2, with `legacy` 0.
        legacy: the published network in every respect.

    Shape: `model(frames)` takes (B, T, C, H, W) to (B, T, C, H, W), the frames after each; H and W divisible by
    `size_multiple`, which is `patch * 2 ** (layers - 1)`, with `legacy` 1.

    Raises:
        TypeError, ValueError: an argument out of its range or of another type; the message names it.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        hidden_channels: Sequence[int] | None = None,
        alpha: float = 0.5,
        patch: int | None = None,
        motion: bool | None = None,
        reach: int | None = None,
        legacy: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.legacy = check_int("in_channels", in_channels), check_bool("legacy", legacy)
        fresh = (self.in_channels,) * 3 if legacy else (16, 32, 64)
        self.hidden_channels = fresh if hidden_channels is None else _numbers("hidden_channels", hidden_channels)
        self.alpha = check_number("alpha", alpha, minimum=0, maximum=1)
        self.patch = check_int("patch", (1 if legacy else 4) if patch is None else patch)
        self.motion = check_bool("motion", (not legacy) if motion is None else motion)
        self.reach = check_int("reach", (0 if legacy else 2) if reach is None else reach, minimum=0)
        if legacy:
            self._check_legacy()
            self.cells = _cells([self.in_channels] * len(self.hidden_channels), self.hidden_channels)
            # Engines for many devices wait for a gradient of every parameter that wants one, and these get none.
            self.cells[:-1].requires_grad_(False)
            return
        if self.motion and not 0 < self.alpha < 1:
            raise ValueError(f"alpha must be above 0 and below 1 with motion=True, got {alpha}; or take motion=False")
        self.size_multiple = self.patch * 2 ** (len(self.hidden_channels) - 1)
        # Both frames in patches, and whether there is one after at all.
        first = 2 * self.in_channels * self.patch**2 + 1
        features = [first, *(4 * hidden for hidden in self.hidden_channels[:-1])]
        matches = (2 * self.reach + 1) ** 2 if self.reach else 0
        self.cells = _cells([count + matches for count in features], self.hidden_channels)
        self.merges = nn.ModuleList(
            nn.Conv2d(fine + coarse, fine, 3, padding=1) for fine, coarse in pairwise(self.hidden_channels)
        )
        outputs = self.in_channels * self.patch**2 + (5 if self.motion else 0)
        self.head = nn.Conv2d(self.hidden_channels[0], outputs, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(cast(Tensor, self.head.bias))

    def init_state(self, like: Tensor) -> FrameDoublerState:
        """The state before the first frame: zeros for frames of the size, dtype and device of `like` (B, C, H, W)."""
        if self.legacy:
            return FrameDoublerState((_cell(self.cells[-1]).init_state(like),))
        sides = [self.patch * 2**level for level in range(len(self.cells))]
        return FrameDoublerState(
            tuple(
                _cell(cell).init_state(like[..., ::side, ::side]) for cell, side in zip(self.cells, sides, strict=True)
            )
        )

    def step(self, before: Tensor, after: Tensor | None, state: FrameDoublerState) -> tuple[Tensor, FrameDoublerState]:
        """The frame between two, in the order of time: the next step's `before` is this one's `after`.

        Args:
            before, after: (B, C, H, W) float in [0, 1]; None for `after`: there is none, and what comes half a step
                later is a guess.
            state: as `init_state` or the last `step` gave it.

        Returns:
            (B, C, H, W) in [0, 1], with `legacy` in (-1, 1), and the next state.
        """
        return self._legacy_step(before, after, state) if self.legacy else self._step(before, after, state)

    def forward(self, frames: Tensor, last: bool = True) -> Tensor:  # type: ignore[override]
        """The frame after each frame of a clip, half a step later.

        Args:
            frames: (B, T, C, H, W) float in [0, 1]; H and W divisible by `size_multiple`.
            last: give the frame after the last one too, which is extrapolated.

        Returns:
            (B, T, C, H, W), or T - 1 frames without the last, in the dtype of `frames`; differentiable.

        Raises:
            TypeError, ValueError: the frames are not as above, or there is one alone and no last is wanted; the message
                says which frame or size, and the nearest one that fits.
        """
        check_bool("last", last)
        check_clip("frames", frames, channels=self.in_channels, multiple=self.size_multiple)
        check_values("frames", frames, door="interpolate")
        if frames.shape[1] == 1 and not last:
            raise ValueError("frames must be two at least, for something to lie between them, got one; or take last")
        inputs = list(frames.to(self.dtype).unbind(1))
        state, middles = self.init_state(inputs[0]), []
        for before, after in pairwise([*inputs, None]):
            if after is None and not last:
                break
            middle, state = self.step(cast(Tensor, before), after, state)
            middles.append(middle.to(frames.dtype))
        return torch.stack(middles, dim=1)

    def middle(self, before: Tensor, after: Tensor) -> Tensor:
        """The frame in the middle of two that nothing is known to have come before; arguments as in the base class."""
        self._check_pair(before, after)
        pair = before.to(self.dtype), after.to(self.dtype)
        return self.step(*pair, self.init_state(pair[0]))[0].to(before.dtype)

    def interpolate(
        self,
        clip: Any,
        factor: int = 2,
        *,
        cut: float | None = CUT,
        layout: str | None = None,
        value_range: tuple[float, float] | None = None,
        nan: str = "error",
        to_grey: bool = False,
    ) -> Tensor:
        """A clip with `factor` times as many frames a second, each frame of it unchanged.

        As [`Interpolator.interpolate`][pcvideo.models.Interpolator.interpolate], and `to_grey` makes a colour clip grey
        for a model with one channel. A factor of 4 is 2 twice: the second time, the state goes through twice the
        frames. A change of scene begins with a new state.
        """
        with torch.no_grad():
            return self._interpolate(
                clip, factor, self.middle, cut=cut, layout=layout, value_range=value_range, nan=nan, to_grey=to_grey
            )

    def _between_all(
        self,
        frames: Iterable[Tensor],
        factor: int,
        middle: Callable[[Tensor, Tensor], Tensor],
        cut: float | None,
    ) -> Iterator[Tensor]:
        """Each scene by itself, as the state of one means nothing in the next."""
        count, last = 0, None
        for _, numbered in groupby(self._scenes(frames, cut), key=lambda item: item[0]):
            scene = (frame for _, frame in numbered)
            first = next(scene)
            if last is not None:
                for step in range(1, factor):
                    yield last if 2 * step <= factor else first
            doubled: Iterator[Tensor] = chain((first,), scene)
            for _ in range(int(math.log2(factor))):
                doubled = self._doubled(doubled)
            for last in doubled:
                count += 1
                yield last
        if count < 2:
            raise ValueError("clip must have at least two frames, for something to lie between them; got fewer")

    def _scenes(self, frames: Iterable[Tensor], cut: float | None) -> Iterator[tuple[int, Tensor]]:
        """Every frame with the number of its scene."""
        from pcvideo.video_io import frame_change  # noqa: PLC0415

        scene, before = 0, None
        for frame in self._checked(frames):
            if before is not None and cut is not None and frame_change(before, frame) > cut:
                scene += 1
            yield scene, frame
            before = frame

    def _doubled(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        before, state = None, None
        for frame in frames:
            if before is not None:
                yield before
                height, width = frame.shape[-2:]
                with torch.no_grad(), self._evaluating():
                    pair = [self.pad(each[None].to(self.dtype)) for each in (before, frame)]
                    state = self.init_state(pair[0]) if state is None else state
                    middle, state = self.step(pair[0], pair[1], state)
                yield middle[0, :, :height, :width].float().clamp(0, 1)
            before = frame
        if before is not None:
            yield before

    def _step(self, before: Tensor, after: Tensor | None, state: FrameDoublerState) -> tuple[Tensor, FrameDoublerState]:
        """Down through the layers, each at half the size of the one before, and up again to the head."""
        other = before if after is None else after
        features = to_patches(torch.cat((before, other), dim=1) - 0.5, self.patch)
        known = features.new_full((features.shape[0], 1, *features.shape[2:]), float(after is not None))
        features = torch.cat((features, known), dim=1)
        hidden, cells = [], []
        for level, (cell, carried) in enumerate(zip(self.cells, state.cells, strict=True)):
            features = features if level == 0 else to_patches(features, 2)
            if self.reach:
                features = torch.cat((features, self._matches(before, other, 2**level)), dim=1)
            features, new = cell(features, carried)
            hidden.append(features)
            cells.append(new)
        for merge, skip in zip(reversed(self.merges), reversed(hidden[:-1]), strict=True):
            large = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
            features = F.leaky_relu(merge(torch.cat((skip, large), dim=1)), 0.1)
        middle = self._compose(before, other, self.head(features))
        return middle.clamp(0, 1), FrameDoublerState(tuple(cells))

    def _matches(self, before: Tensor, after: Tensor, smaller: int) -> Tensor:
        """How alike the patches are that a motion through each place leads from and to: 1 if equal, 0 if as the others.

        One channel for each motion: d patches back in the frame before, and d on in the one after.
        """
        reach = self.reach
        one, other = (to_patches(F.avg_pool2d(frame, smaller), self.patch) for frame in (before, after))
        height, width = one.shape[-2:]
        one, other = (F.pad(patches, (reach,) * 4, mode="replicate") for patches in (one, other))
        distances = []
        for y in range(-reach, reach + 1):
            for x in range(-reach, reach + 1):
                back = one[..., reach - y : reach - y + height, reach - x : reach - x + width]
                on = other[..., reach + y : reach + y + height, reach + x : reach + x + width]
                distances.append((back - on).abs().mean(1))
        distance = torch.stack(distances, dim=1)
        # Where nothing is to be seen but noise, nothing should stand out.
        return 1 - distance / (distance.mean(1, keepdim=True) + 0.02)

    def _compose(self, before: Tensor, after: Tensor, outputs: Tensor) -> Tensor:
        """The frame from what the head gave: the blend, of moved frames where there is motion, and its correction."""
        pixels = self.in_channels * self.patch**2
        correction = from_patches(outputs[:, :pixels], self.patch)
        share: Tensor | float = self.alpha
        if self.motion:
            scale = float(self.patch)
            wide = F.interpolate(outputs[:, pixels:], scale_factor=scale, mode="bilinear", align_corners=False)
            # In pixels a patch is the unit: one step of the optimizer then moves by what can be seen.
            before = backward_warp(before, scale * wide[:, :2])
            after = backward_warp(after, scale * wide[:, 2:4])
            share = torch.sigmoid(wide[:, 4:] + math.log(self.alpha / (1 - self.alpha)))
        return (1 - share) * before + share * after + correction

    def _legacy_step(
        self, before: Tensor, after: Tensor | None, state: FrameDoublerState
    ) -> tuple[Tensor, FrameDoublerState]:
        """As published. No layer sees another, and only the last one's output is looked at: the others aren't run."""
        (carried,) = state.cells
        if after is not None and state.before is not None:
            blend = (1 - self.alpha) * state.before + self.alpha * before
            _, carried = _cell(self.cells[-1])(blend, carried)
        middle, carried = _cell(self.cells[-1])(before, carried)
        return middle, FrameDoublerState((carried,), before)

    def _check_legacy(self) -> None:
        if self.hidden_channels[-1] != self.in_channels:
            raise ValueError(
                f"hidden_channels must end with in_channels={self.in_channels} with legacy=True, whose last hidden "
                f"state is the frame, got {self.hidden_channels}"
            )
        if self.patch != 1 or self.motion or self.reach:
            raise ValueError(
                f"legacy=True has neither patches nor motion, got patch={self.patch}, motion={self.motion}, "
                f"reach={self.reach}"
            )


def _cells(inputs: Sequence[int], hidden: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(ConvLSTMCell(*channels) for channels in zip(inputs, hidden, strict=True))


def _cell(module: nn.Module) -> ConvLSTMCell:
    return cast(ConvLSTMCell, module)


def _numbers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise TypeError(f"{name} must be a sequence of whole numbers, one per layer, got {describe(values)}")
    return tuple(check_int(f"{name}[{index}]", value) for index, value in enumerate(values))

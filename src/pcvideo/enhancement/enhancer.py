# SPDX-License-Identifier: Apache-2.0
"""Both halves as one stream, from the top or from any frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import Tensor

from pcvideo._checks import check_bool
from pcvideo.enhancement.doubling import carries_state, check_cut, check_doubler, double_frames, new_scene
from pcvideo.models import Grey2RGB, Interpolator
from pcvideo.video_io import CUT, OpenedFrames, to_grey
from pcvideo.video_io.convert import add_note

__all__ = ["Enhancer"]


@dataclass(frozen=True, eq=False)
class Enhancer:
    """What is done to a sequence: twice the frames, colour, or both.

    Attributes:
        doubler: a `FrameDoubler`, an interpolator such as `WaveletVFI`, or None to keep the frames that there are.
        colouriser: a `Grey2RGB`, or None to leave the colours as they are.
        extrapolate: also give the frame half a step after the last one, so that T frames become 2T.
        cut: the change between two frames that is one of scene, see `double_frames`; None looks for none.

    Raises:
        TypeError, ValueError: another kind of model, or `extrapolate` with a doubler that can't.
    """

    doubler: Interpolator | None = None
    colouriser: Grey2RGB | None = None
    extrapolate: bool = False
    cut: float | None = CUT

    def __post_init__(self) -> None:
        check_cut(self.cut)
        if self.doubler is not None:
            check_doubler(self.doubler, self.extrapolate)
        elif check_bool("extrapolate", self.extrapolate):
            raise ValueError("extrapolate=True needs a doubler, got None")
        if not isinstance(self.colouriser, Grey2RGB | None):
            raise TypeError(f"colouriser must be a Grey2RGB or None, got {type(self.colouriser).__name__}")

    @property
    def factor(self) -> int:
        """How many times the frames a second."""
        return 1 if self.doubler is None else 2

    def total(self, count: int) -> int:
        """How many frames come of `count` frames."""
        return self.factor * count - (self.factor - 1) * (not self.extrapolate)

    def stream(self, frames: Iterable[Tensor], *, notes: list[str] | None = None) -> Iterator[Tensor]:
        """Frames as they come, and the ones between them, in colour; in constant memory.

        Args:
            frames: (C, H, W) float in [0, 1], C 1 or 3, of one size. Of colour frames a colouriser takes the luma.
            notes: takes, in words, what was done to the input.

        Yields:
            (3, H, W) with a colouriser, otherwise (C, H, W); float32 in [0, 1].

        Raises:
            TypeError, ValueError: frames other than that; the message says which.
        """
        for frame in self._doubled(frames, [] if notes is None else notes):
            yield self.colour(frame)

    def colour(self, frame: Tensor) -> Tensor:
        """One frame in colour, (1, H, W) to (3, H, W); unchanged where there is no colouriser."""
        return frame if self.colouriser is None else next(self.colouriser.stream((frame,)))

    def uncoloured(self, opened: OpenedFrames, span: range, notes: list[str]) -> Iterator[tuple[int, Tensor]]:
        """The frames of `stream` whose number is in `span`, with that number, before they are coloured.

        A frame is the same in every span that holds it. A doubler without a state begins at the first frame that it
        needs. One with a state begins where the scene does, since there the state does: what lies between is gone
        through to find it again, but not coloured.
        """
        if not span:
            return
        first = self._beginning(opened, span.start // self.factor) if self.doubler is not None else span.start
        doubled = self._doubled(opened.frames(first), notes)
        skipped = first * self.factor
        yield from enumerate(islice(doubled, span.start - skipped, span.stop - skipped), start=span.start)

    def _beginning(self, opened: OpenedFrames, wanted: int) -> int:
        """The frame to begin with so as to give frame `wanted` and those after it as the whole sequence gives them."""
        # The last frame alone has nothing beside it.
        last = wanted if opened.count is None else max(0, min(wanted, opened.count - 2))
        if not last or self.doubler is None or not carries_state(self.doubler):
            return last
        if self.cut is None:
            return 0
        scene, before = 0, None
        for number, taken in enumerate(islice(self._taken(opened.frames(), []), last + 1)):
            # Where they are compared when they are doubled: another device rounds in another way.
            frame = taken.to(self.doubler.device)
            if before is not None and new_scene(before, frame, self.cut):
                scene = number
            before = frame
        return scene

    def _doubled(self, frames: Iterable[Tensor], notes: list[str]) -> Iterator[Tensor]:
        taken = self._taken(frames, notes)
        if self.doubler is None:
            return taken
        return double_frames(taken, self.doubler, extrapolate=self.extrapolate, cut=self.cut)

    def _taken(self, frames: Iterable[Any], notes: list[str]) -> Iterator[Tensor]:
        """The frames as they are, or their grey where they are to be coloured."""
        for frame in frames:
            if self.colouriser is None or not isinstance(frame, Tensor) or frame.shape[:1] != (3,):
                yield frame
            elif bool((frame == frame[:1]).all()):
                # Most grey clips lie in colour formats.
                yield frame[:1]
            else:
                add_note(notes, "the input has colour; its grey was taken (ITU-R BT.601), to be coloured anew")
                yield to_grey(frame)

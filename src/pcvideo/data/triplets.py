# SPDX-License-Identifier: Apache-2.0
"""Triplets to train and judge frame interpolation on: cut from videos, or the test sets of the field by their layouts.

A triplet is a clip of three frames; the outer two are given, the middle one is to be found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self, cast

import torch
from torch import Tensor

from pcvideo._checks import check_choice, check_int, check_number
from pcvideo.data.clips import ClipDataset, Transform, Window
from pcvideo.data.frame_folders import visible_below
from pcvideo.data.video_files import VideoFolder
from pcvideo.video_io import CUT, VideoError, frame_change, iter_frames, read_clip
from pcvideo.video_io.convert import check_frame_size
from pcvideo.video_io.pictures import list_pictures

__all__ = ["LAYOUTS", "TripletFolder", "VideoTriplets"]


class VideoTriplets(VideoFolder):
    """Triplets out of video files, without those across a change of scene or where nothing moves.

    `dataset[i]` is (3, C, H, W) float32 in [0, 1]. Every file is decoded once at the start, to look for both.

    Args:
        root, size, channels, transform, seed, on_error, max_errors, exclude, include, cache: as for `VideoFolder`.
        stride: frames from one triplet's start to the next one's.
        interval: step between the frames of a triplet: larger motion, from a higher frame rate.
        cut: how different neighbouring frames must be for a change of scene, see `video_io.frame_change`.
        least_motion: triplets whose outer frames differ by less on average are left out; 0 keeps all.

    Raises:
        FileNotFoundError, TypeError, ValueError: as `VideoFolder`.
        VideoError: as `VideoFolder`, or no triplet is left.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        stride: int = 1,
        interval: int = 1,
        size: tuple[int, int] | None = None,
        channels: int | None = 3,
        cut: float = CUT,
        least_motion: float = 0.0,
        transform: Transform | None = None,
        seed: int = 0,
        on_error: str = "error",
        max_errors: int = 10,
        exclude: Sequence[str] = (),
        include: Sequence[str] = (),
        cache: bool = False,
    ) -> None:
        super().__init__(
            root,
            length=3,
            stride=stride,
            interval=interval,
            size=size,
            channels=channels,
            transform=transform,
            seed=seed,
            on_error=on_error,
            max_errors=max_errors,
            exclude=exclude,
            include=include,
            cache=cache,
        )
        self.cut = check_number("cut", cut, minimum=0)
        self.least_motion = check_number("least_motion", least_motion, minimum=0, maximum=1)
        found = len(self.windows)
        self.windows = [window for path in self._sources for window in self._usable(path)]
        if not self.windows:
            raise VideoError(
                f"none of the {found} triplets is left: all lie across changes of scene (cut={cut}) or hold less "
                f"motion than least_motion={least_motion}"
            )

    def _usable(self, path: Path) -> Iterator[Window]:
        windows = [window for window in self.windows if window.path == path]
        cuts, moved = self._look_through(path)
        for window in windows:
            inside = range(window.start + 1, window.start + 2 * self.interval + 1)
            if not any(index in cuts for index in inside) and moved[window.start] >= self.least_motion:
                yield window

    def _look_through(self, path: Path) -> tuple[set[int], dict[int, float]]:
        """The frames that begin a scene, and how much each one differs from the one that ends a triplet begun there."""
        cuts: set[int] = set()
        moved: dict[int, float] = {}
        held: list[Tensor] = []
        for index, (before, frame) in enumerate(pairwise(self._frames(path)), start=1):
            if frame_change(before, frame) > self.cut:
                cuts.add(index)
            held = [*(held or [before]), frame][-2 * self.interval - 1 :]
            if len(held) == 2 * self.interval + 1:
                moved[index - 2 * self.interval] = float((frame - held[0]).abs().mean())
        return cuts, moved

    def _frames(self, path: Path) -> Iterator[Tensor]:
        if path in self._cached:
            return (frame.to(torch.float32) / 255 for frame in self._cached[path])
        return iter_frames(
            self._sources[path],
            channels=self.channels,
            size=self.size,
            to_grey=self.channels == 1,
            on_error="repeat" if self.on_error == "skip" else "error",
        )


class TripletFolder(ClipDataset):
    """Triplets of pictures, in the layout of one of the field's data sets.

    - `"vimeo90k"`: `sequences/00001/0001/im1.png`, `im2.png`, `im3.png`, listed in `tri_trainlist.txt` and
      `tri_testlist.txt`.
    - `"ucf101"`: `1/frame_00.png`, `frame_01_gt.png`, `frame_02.png`.
    - `"atd12k"`: `test_2k_540p/Disney_.../frame1.jpg`, `frame2.jpg`, `frame3.jpg`.
    - `"middlebury"`: `other-data/Walking/frame10.png`, `other-gt-interp/Walking/frame10i11.png` and
      `other-data/Walking/frame11.png`.
    - `"xiph"`: a folder of numbered frames for each clip, of which every second one is to be found.

    Args:
        root: the data set's folder.
        layout: one of the above.
        split: `"train"` or `"test"`, where the layout has lists; None takes all that is there.
        size: (height, width) to resize to; None keeps their own.
        transform: `transform(clip, generator)`.
        seed, on_error, max_errors: as for `VideoFolder`.

    Raises:
        FileNotFoundError: there is no such folder, or no such list in it.
        VideoError: no triplets.
        ValueError: an unknown layout or split.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        layout: str,
        split: str | None = None,
        size: tuple[int, int] | None = None,
        transform: Transform | None = None,
        seed: int = 0,
        on_error: str = "error",
        max_errors: int = 10,
    ) -> None:
        super().__init__(transform=transform, seed=seed, on_error=on_error, max_errors=max_errors)
        self.layout, self.size = check_choice("layout", layout, tuple(LAYOUTS)), check_frame_size("size", size)
        self.split = None if split is None else check_choice("split", split, ("train", "test"))
        root = Path(root)
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is no folder (looked for it in {root.absolute().parent})")
        self.triplets = list(LAYOUTS[layout](root, split))
        if not self.triplets:
            raise VideoError(f"{root} holds no triplets in the layout of {layout!r}")
        self.windows = [Window(index, 0, 3) for index in range(len(self.triplets))]

    def load(self, window: Window) -> Tensor:
        """The three pictures of one triplet; window.path is its number."""
        paths = self.triplets[cast(int, window.path)]
        return read_clip([str(path) for path in paths], channels=3, size=self.size).frames.to(torch.float32)

    def first(self, count: int) -> Self:
        """Keep the first `count` triplets alone, and return the data set."""
        self.windows = self.windows[: check_int("count", count)]
        return self


Triplet = tuple[Path, Path, Path]


def _vimeo90k(root: Path, split: str | None) -> Iterator[Triplet]:
    lists = [root / f"tri_{name}list.txt" for name in (("train", "test") if split is None else (split,))]
    for path in lists:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; Vimeo-90K's triplets are listed there")
        for line in path.read_text(encoding="utf-8").split():
            folder = root / "sequences" / line
            yield folder / "im1.png", folder / "im2.png", folder / "im3.png"


def _by_names(*names: str) -> Callable[[Path, str | None], Iterator[Triplet]]:
    def find(root: Path, split: str | None) -> Iterator[Triplet]:
        _without_lists(split)
        for folder in visible_below(root, Path.is_dir):
            paths = [next((p for p in list_pictures(folder) if p.stem == name), None) for name in names]
            if all(paths):
                yield cast(Triplet, tuple(paths))

    return find


def _middlebury(root: Path, split: str | None) -> Iterator[Triplet]:
    _without_lists(split)
    for between in sorted((root / "other-gt-interp").glob("*/frame10i11.png")):
        folder = root / "other-data" / between.parent.name
        yield folder / "frame10.png", between, folder / "frame11.png"


def _xiph(root: Path, split: str | None) -> Iterator[Triplet]:
    _without_lists(split)
    for folder in [root, *visible_below(root, Path.is_dir)]:
        frames = list_pictures(folder)
        yield from zip(frames[::2], frames[1::2], frames[2::2], strict=False)


def _without_lists(split: str | None) -> None:
    if split is not None:
        raise ValueError(f"split must be None for a layout without lists, got {split!r}; name the part's own folder")


LAYOUTS: dict[str, Callable[[Path, str | None], Iterator[Triplet]]] = {
    "vimeo90k": _vimeo90k,
    "ucf101": _by_names("frame_00", "frame_01_gt", "frame_02"),
    "atd12k": _by_names("frame1", "frame2", "frame3"),
    "middlebury": _middlebury,
    "xiph": _xiph,
}
"""How the triplets of each layout are found: `find(root, split)` gives their paths."""

# SPDX-License-Identifier: Apache-2.0
"""Generated motion over photographs: triplets without end whose flows are known exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from pcvideo._checks import check_bool, check_int, check_number, describe
from pcvideo._optional import require
from pcvideo.video_io import to_clip_tensor
from pcvideo.video_io.convert import check_frame_size

__all__ = ["MovingPhotographs", "UnknownFlows", "photographs"]

# Those of scikit-image's pictures that come in its package and show things: in the public domain or CC0.
_NAMES = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "brick", "grass", "gravel")


class _Layer(NamedTuple):
    """A photograph that moves; places are (x, y) from the middle of the frame, in pixels.

    Attributes:
        photograph: its number.
        place: where its own middle is at time 0.
        velocity: in pixels per step of time.
        turn, zoom: per step of time: an angle, and the logarithm of a factor.
        origin: the place in the photograph, in [-1, 1], that lies at the layer's middle.
        angle, scale: how the photograph lies in the layer: turned, and pixels of it per pixel of the frame.
        radii: of the ellipse that it is cut to; None for the background.
    """

    photograph: int
    place: Tensor
    velocity: Tensor
    turn: float
    zoom: float
    origin: Tensor
    angle: float
    scale: float
    radii: Tensor | None


class MovingPhotographs(Dataset[Tensor]):
    """Triplets of a photograph that moves, turns and grows, with pieces of others moving over it.

    `dataset[i]` is (3, 3, H, W) float32 in [0, 1]: at the times -1, 0 and 1 of motions that are steady. `flows(i)` are
    the flows from the middle frame, as `WaveletVFI` is to find them. A triplet depends on the seed, the epoch and its
    index alone.

    Args:
        pictures: (C, H, W) each, float in [0, 1] or uint8, grey or colour, at least 16x16; None takes `photographs()`.
        clips: how many triplets an epoch has.
        size: (height, width) of the frames.
        speed: the most that the middle of a layer moves per step of time, in pixels.
        turn: the most that it turns, in degrees per step of time.
        zoom: the most that it grows or shrinks, as a share per step of time.
        pieces: the most pieces over the background.
        with_flows: add two frames, so that the clip is (5, 3, H, W): the flows to the frame before and to the one
            after, as x, y, and a 1 that says that they are known.
        transform: `transform(clip, generator)`; the flows don't follow it, so it can't be had together with them.
        seed: of all random draws.

    Raises:
        TypeError, ValueError: an argument outside what is stated.
    """

    def __init__(
        self,
        pictures: Sequence[Tensor | np.ndarray] | None = None,
        *,
        clips: int = 1000,
        size: tuple[int, int] = (128, 128),
        speed: float = 8.0,
        turn: float = 4.0,
        zoom: float = 0.03,
        pieces: int = 3,
        with_flows: bool = False,
        transform: object = None,
        seed: int = 0,
    ) -> None:
        self.pictures = [_colour(picture) for picture in (photographs() if pictures is None else pictures)]
        if not self.pictures:
            raise ValueError("pictures must hold at least one, got none; None takes scikit-image's own")
        self.clips, self.pieces = check_int("clips", clips), check_int("pieces", pieces, minimum=0)
        self.size = check_frame_size("size", size) or size
        self.speed = check_number("speed", speed, minimum=0)
        self.turn = check_number("turn", turn, minimum=0, maximum=45)
        self.zoom = check_number("zoom", zoom, minimum=0, maximum=0.5)
        if transform is not None and not callable(transform):
            raise TypeError(f"transform must be callable as transform(clip, generator), got {describe(transform)}")
        self.with_flows = check_bool("with_flows", with_flows)
        if with_flows and transform is not None:
            raise ValueError("transform must be None with with_flows=True, which would not follow it")
        self.transform, self.seed = transform, check_int("seed", seed, minimum=0)
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Give other triplets, the same again for the same epoch; reaches running workers."""
        self._epoch.fill_(check_int("epoch", epoch, minimum=0))

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, index: int) -> Tensor:
        generator, layers = self._layers(index)
        frames = torch.stack([self._frame(layers, time)[0] for time in (-1.0, 0.0, 1.0)])
        if self.with_flows:
            known = torch.ones(1, *self.size)
            return torch.cat((frames, torch.stack([torch.cat((flow.float(), known)) for flow in self.flows(index)])))
        return frames if self.transform is None else self.transform(frames, generator)

    def flows(self, index: int) -> tuple[Tensor, Tensor]:
        """The flows from the middle frame to the one before and to the one after, (2, H, W) each, in pixels, as (x, y).

        Those of what is seen in the middle, hidden in the other frame or not.
        """
        _, layers = self._layers(index)
        _, seen = self._frame(layers, 0.0)
        pixels = self._pixels()
        flows = []
        for time in (-1.0, 1.0):
            moved = torch.stack([_at(layer, pixels, time) - pixels for layer in layers])
            flows.append(moved.gather(0, seen[None, ..., None].expand(1, *pixels.shape))[0].permute(2, 0, 1))
        return flows[0], flows[1]

    def _layers(self, index: int) -> tuple[torch.Generator, list[_Layer]]:
        """The generator after the draws, and the layers, from back to front."""
        index = check_int("index", index, minimum=-len(self))
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} triplets")
        state = np.random.SeedSequence([self.seed, int(self._epoch), index % len(self)]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
        count = int(torch.randint(self.pieces + 1, (), generator=generator))
        return generator, [self._layer(generator, number > 0) for number in range(count + 1)]

    def _layer(self, generator: torch.Generator, is_piece: bool) -> _Layer:
        draw = torch.rand(12, generator=generator, dtype=torch.float64)
        half = torch.tensor([self.size[1], self.size[0]], dtype=torch.float64) / 2
        direction = 2 * math.pi * float(draw[0])
        speed = self.speed * float(draw[1])
        return _Layer(
            photograph=int(torch.randint(len(self.pictures), (), generator=generator)),
            place=(2 * draw[2:4] - 1) * half if is_piece else torch.zeros(2, dtype=torch.float64),
            velocity=speed * torch.tensor([math.cos(direction), math.sin(direction)], dtype=torch.float64),
            turn=math.radians(self.turn) * float(2 * draw[4] - 1),
            zoom=math.log1p(self.zoom) * float(2 * draw[5] - 1),
            origin=draw[6:8] - 0.5,
            angle=math.radians(30) * float(2 * draw[8] - 1),
            scale=0.5 + 0.5 * float(draw[9]),
            radii=(0.15 + 0.3 * draw[10:12]) * half.min() * 2 if is_piece else None,
        )

    def _frame(self, layers: Sequence[_Layer], time: float) -> tuple[Tensor, Tensor]:
        """The frame (3, H, W) at a time, and the number of the layer seen at each pixel, (H, W)."""
        pixels = self._pixels()
        frame = torch.zeros(3, *self.size)
        seen = torch.zeros(self.size, dtype=torch.int64)
        for number, layer in enumerate(layers):
            own = _own(layer, pixels, time)
            colours = _sample(self.pictures[layer.photograph], layer, own)
            share = _share(layer, own)
            frame = share * colours + (1 - share) * frame
            seen = torch.where(share[0] > 0.5, number, seen)
        return frame.clamp(0, 1), seen

    def _pixels(self) -> Tensor:
        """The places of all pixels, (H, W, 2)."""
        rows, columns = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in self.size)
        return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)


class UnknownFlows:
    """A transform that adds two frames of zeros to a triplet, to batch it with those that come with their flows."""

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the clip (T, C, H, W) as (T + 2, C, H, W)."""
        return torch.cat((clip, clip.new_zeros(2, *clip.shape[1:])))


def photographs() -> list[Tensor]:
    """The photographs that come with scikit-image, (3, H, W) float32 in [0, 1]; astronaut, cat, coffee and others.

    Raises:
        ImportError: scikit-image is missing.
    """
    pictures = require("skimage.data", purpose="photographs to move")
    return [_colour(np.asarray(getattr(pictures, name)())) for name in _NAMES]


def _colour(picture: Tensor | np.ndarray) -> Tensor:
    """A picture as (3, H, W) float32; (H, W) and (H, W, 3) are taken, too."""
    if not isinstance(picture, (Tensor, np.ndarray)) or picture.ndim not in (2, 3):
        raise TypeError(f"pictures must be (C, H, W), (H, W) or (H, W, 3), got {describe(picture)}")
    layout = "HW" if picture.ndim == 2 else "CHW" if picture.shape[0] in (1, 3) else "HWC"
    frame = to_clip_tensor(picture, layout=layout)[0].float()
    if min(frame.shape[-2:]) < 16:
        raise ValueError(f"pictures must be at least 16x16, got {describe(picture)}")
    return frame.expand(3, -1, -1) if frame.shape[0] == 1 else frame


def _rotation(angle: float) -> Tensor:
    cosine, sine = math.cos(angle), math.sin(angle)
    return torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)


def _own(layer: _Layer, places: Tensor, time: float) -> Tensor:
    """Where on the layer, as it lies at time 0 about its middle, one sees at these places at a time."""
    moved = places - layer.place - time * layer.velocity
    return math.exp(-time * layer.zoom) * moved @ _rotation(-time * layer.turn).T


def _at(layer: _Layer, places: Tensor, time: float) -> Tensor:
    """Where what is at these places at time 0 is at another time."""
    turned = math.exp(time * layer.zoom) * (places - layer.place) @ _rotation(time * layer.turn).T
    return turned + layer.place + time * layer.velocity


def _sample(photograph: Tensor, layer: _Layer, own: Tensor) -> Tensor:
    """The colours (3, H, W) of the photograph, which is mirrored at its border."""
    height, width = photograph.shape[-2:]
    inside = layer.scale * own @ _rotation(layer.angle).T
    grid = inside * torch.tensor([2 / (width - 1), 2 / (height - 1)], dtype=torch.float64) + layer.origin
    return F.grid_sample(photograph[None], grid[None].float(), padding_mode="reflection", align_corners=True)[0]


def _share(layer: _Layer, own: Tensor) -> Tensor:
    """How much of a pixel the layer covers, (1, H, W): an ellipse with an edge of about a pixel."""
    if layer.radii is None:
        return torch.ones(1, *own.shape[:2])
    distance = (own / layer.radii).norm(dim=-1)
    return ((1 - distance) * float(layer.radii.min()) + 0.5).clamp(0, 1)[None].float()

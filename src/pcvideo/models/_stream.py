# SPDX-License-Identifier: Apache-2.0
"""Live use: one frame in, one prediction out, in constant memory and time."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pcvideo import _files
from pcvideo._checks import check_channels, check_frame, check_int, check_values, describe
from pcvideo.rollout import flatten_state, map_state, unflatten_state

if TYPE_CHECKING:
    from pcvideo.models._base import Predictor

__all__ = ["Stream"]


class Stream:
    """A predictor that is pushed frames as they come; made by `model.stream()`.

    Any size: frames are padded and predictions cropped. The model is put into evaluation mode while it steps. The
    stream holds the model, not a copy, and follows it to another device at the next `push` after `to`.
    """

    def __init__(self, model: Predictor) -> None:
        self.model = model
        self._state: Any = None
        self._next: Tensor | None = None
        self._shape: tuple[int, ...] | None = None

    @torch.no_grad()
    def push(self, frame: Tensor) -> Tensor:
        """Take in the newest frame and predict the next one.

        Args:
            frame: (C, H, W) or (B, C, H, W), with D before H for a model of volumes; float in [0, 1] or uint8.

        Returns:
            the next frame, of the same shape, float in [0, 1].

        Raises:
            TypeError, ValueError: a frame of another shape than those before, with NaN, or out of range. The stream
                has not moved then.
        """
        batch = self._as_batch(frame)
        if self._state is not None and frame.shape != self._shape:
            raise ValueError(f"frame must keep the stream's shape {self._shape}, got {describe(frame)}; reset() first")
        state = self._fresh_state(batch) if self._state is None else self._state
        pyramid, self._state = self._step(batch, state)
        self._shape, self._next = tuple(frame.shape), pyramid
        return self._crop(pyramid)

    @torch.no_grad()
    def forecast(self, horizon: int) -> Tensor:
        """The next `horizon` frames, (horizon, C, H, W) or (B, horizon, C, H, W), without moving the stream.

        The first of them is what the last `push` gave.

        Raises:
            RuntimeError: nothing was pushed yet.
        """
        horizon = check_int("horizon", horizon)
        if self._next is None or self._shape is None:
            raise RuntimeError("forecast needs at least one frame; push() one first")
        state, frames = self._state, [self._next]
        for _ in range(horizon - 1):
            prediction, state = self._step(None, state)
            frames.append(prediction)
        batched = len(self._shape) == self.model.spatial_dims + 2
        return torch.stack([self._crop(frame) for frame in frames], dim=int(batched))

    def reset(self) -> None:
        """Forget everything that was pushed."""
        self._state = self._next = self._shape = None

    def to(self, device: str | torch.device) -> Stream:
        """Move the stream's state to a device; move the model there as well."""
        self._state = map_state(lambda tensor: tensor.to(device), self._state)
        self._next = None if self._next is None else self._next.to(device)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """The stream's state as named tensors; empty before the first push."""
        if self._next is None or self._shape is None:
            return {}
        return {"next": self._next, "shape": torch.tensor(self._shape), **flatten_state(self._state)}

    @torch.no_grad()
    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Go on where `state_dict` was taken, also in another process; the state takes the model's device and dtype.

        Raises:
            ValueError: the tensors are of a stream of another model.
        """
        if not tensors:
            self.reset()
            return
        if not {"next", "shape"} <= tensors.keys():
            raise ValueError(f"a stream's state has 'next' and 'shape', got {sorted(tensors)}")
        upcoming = tensors["next"].to(self.model.device, self.model.dtype, copy=True)
        check_frame(
            "next",
            upcoming,
            channels=self.model.in_channels,
            multiple=self.model.size_multiple,
            spatial_dims=self.model.spatial_dims,
        )
        states = {name: value for name, value in tensors.items() if name not in ("next", "shape")}
        self._state = self.model.renew(unflatten_state(self._state_like(upcoming, states.keys()), states))
        self._next, self._shape = upcoming, tuple(int(side) for side in tensors["shape"])

    def save(self, path: str | Path) -> None:
        """Write the stream's state into a safetensors file; one that was there before is replaced in one move."""
        with _files.written_aside(path) as temporary:
            _files.write_tensors(temporary, self.state_dict())

    def load(self, path: str | Path) -> None:
        """Go on from a file that `save` wrote.

        Raises:
            WeightsCorruptError: the file can't be read.
            ValueError: it is of a stream of another model.
        """
        self.load_state_dict(_files.read_tensors(path))

    def _state_like(self, frame: Tensor, names: Collection[str]) -> Any:
        """A state that holds tensors of these names if any does: it may hold more from step to step at first."""
        state = self._fresh_state(frame)
        before: Collection[str] = ()
        while (own := flatten_state(state).keys()) != names and own != before:
            before = own
            _, state = self._step(frame, state)
        return state

    def _fresh_state(self, like: Tensor) -> Any:
        with self.model._evaluating():
            return self.model.init_state(like)

    def _step(self, frame: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        with self.model._evaluating():
            pyramid, state = self.model.step(frame, state)
        return pyramid[0], state

    def _as_batch(self, frame: Tensor) -> Tensor:
        dims = self.model.spatial_dims
        if not isinstance(frame, Tensor) or frame.ndim not in (dims + 1, dims + 2):
            axes = "C, H, W" if dims == 2 else "C, D, H, W"
            raise TypeError(f"frame must be a tensor ({axes}) or (B, {axes}), got {describe(frame)}")
        if not frame.is_floating_point() and frame.dtype != torch.uint8:
            raise TypeError(f"frame must be float in [0, 1] or uint8, got {describe(frame)}")
        check_channels("frame", frame.shape[-dims - 1], self.model.in_channels)
        if frame.numel() == 0:
            raise ValueError(f"frame must hold at least one pixel, got {describe(frame)}")
        batch = frame if frame.ndim == dims + 2 else frame[None]
        batch = batch.to(self.model.device, self.model.dtype)
        batch = batch / 255 if frame.dtype == torch.uint8 else batch
        check_values("frame", batch[:, None])
        return self.model.pad(batch)

    def _crop(self, prediction: Tensor) -> Tensor:
        shape = self._shape or tuple(prediction.shape)
        dims = self.model.spatial_dims
        cropped = prediction[(..., *(slice(side) for side in shape[-dims:]))].clamp(0, 1)
        return cropped if len(shape) == dims + 2 else cropped[0]

# SPDX-License-Identifier: Apache-2.0
"""What every predictor has: the contract, one-call prediction, a live stream; `_pretrained` adds saving and loading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pcvideo._checks import check_bool, check_clip, check_int, check_values
from pcvideo.models._frames import FrameNetwork
from pcvideo.rollout import unroll

if TYPE_CHECKING:
    from pcvideo.models._stream import Stream

__all__ = ["Predictor"]


class Predictor(FrameNetwork):
    """A network that predicts the next frame from the frames so far; subclass it and give `init_state` and `step`.

    A subclass that keeps every constructor argument as an attribute of the same name (as `MSPN` does) has a `config`,
    and so saves and loads like the models here.

    Args:
        in_channels: channels C of a frame.
        clamp: `forward` clamps the frames that it returns to [0, 1].

    Attributes:
        size_multiple: what divides a frame's height and width, and a volume's depth.
        spatial_dims: 2 where frames are images (B, C, H, W), 3 where they are volumes (B, C, D, H, W); all that is
            said of frames below holds for both.
    """

    def __init__(self, *, in_channels: int, clamp: bool = False) -> None:
        super().__init__()
        self.in_channels = check_int("in_channels", in_channels)
        self.clamp = check_bool("clamp", clamp)

    def init_state(self, like: Tensor) -> Any:
        """The state before the first frame.

        Args:
            like: (B, C, H, W), gives batch, size, device and dtype; its values are not read.
        """
        raise NotImplementedError(f"{type(self).__name__} has no init_state")

    def step(self, frame: Tensor | None, state: Any) -> tuple[Sequence[Tensor], Any]:
        """Correct with a frame, then anticipate the next one.

        Args:
            frame: (B, C, H, W) float in [0, 1], the frame that came; None feeds the prediction itself.
            state: as `init_state` or the last `step` gave it.

        Returns:
            the pyramid, whose entry 0 (B, C, H, W) predicts the next frame, and the next state.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def targets(self, frame: Tensor) -> list[Tensor]:
        """What each entry of the pyramid should have been, once the frame (B, C, H, W) it predicts has come."""
        return [frame]

    def seen(self, state: Any) -> list[Tensor] | None:
        """What `targets` gives for the frame that the last `step` corrected with, where the state holds it anyway.

        None where it doesn't; it may be shorter than `targets`, as a pyramid may be in the first steps.
        """
        return None

    def renew(self, state: Any) -> Any:
        """The state with what was computed from the weights alone computed again, for when they have changed since."""
        return state

    def to_frames(self, predictions: Tensor) -> Tensor:
        """The frames that predictions (..., C, H, W), entry 0 of a pyramid, stand for: clamped ones with `clamp`."""
        return predictions.clamp(0, 1) if self.clamp else predictions

    def forward(self, frames: Tensor, horizon: int) -> Tensor:
        """The frames that follow a clip, each predicted from the true frames and the predictions before it.

        Args:
            frames: (B, T, C, H, W) float in [0, 1], T >= 1; H and W divisible by `size_multiple`.
            horizon: how many frames to predict, at least 1; the first ones don't depend on how many.

        Returns:
            (B, horizon, C, H, W) in the dtype of `frames`; differentiable.

        Raises:
            TypeError, ValueError: the frames or the horizon are not as above; the message says which frame or size,
                and the nearest one that fits.
        """
        horizon = check_int("horizon", horizon)
        check_clip(
            "frames",
            frames,
            channels=self.in_channels,
            multiple=self.size_multiple,
            spatial_dims=self.spatial_dims,
        )
        check_values("frames", frames)
        length = frames.shape[1]
        steps = enumerate(unroll(self, frames.to(self.dtype), horizon))
        # One at a time, as a long forecast would otherwise be copied whole.
        future = [self.to_frames(pyramid[0]).to(frames.dtype) for time, (pyramid, _) in steps if time >= length - 1]
        return torch.stack(future, dim=1)

    @torch.no_grad()
    def predict(
        self,
        clip: Any,
        horizon: int,
        *,
        context: int | None = None,
        layout: str | None = None,
        value_range: tuple[float, float] | None = None,
        nan: str = "error",
        to_grey: bool = False,
    ) -> Tensor:
        """Predict how any clip goes on: read it, pad it, run, crop, clamp.

        Args:
            clip: a path (video file, GIF, folder of images, .npy, .npz, .pt), an array or tensor (T, C, H, W),
                (T, H, W) or (B, T, C, H, W), float in [0, 1] or uint8, or a list of pictures; any size.
            horizon: how many frames to predict, at least 1.
            context: only the last so many frames are looked at; None looks at all of them.
            layout: the axes of an array where they are not (T, C, H, W), such as "THWC".
            value_range: (low, high) of float values outside [0, 1].
            nan: "error", or "repair" to take a NaN's value from the frame before.
            to_grey: make a colour clip grey, for a model with one channel.

        A model of volumes takes what [`read_volumes`][pcvideo.video_io.read_volumes] does instead: a .npy, .npz or
        TFRecord file, an array or tensor (T, C, D, H, W), (T, D, H, W) or (B, T, C, D, H, W).

        Returns:
            (horizon, C, H, W) float32 in [0, 1] on the model's device, with the batch axis in front if the clip had it.

        Raises:
            TypeError, ValueError: the clip can't be read as frames; the message names the frame and the mend.
        """
        horizon = check_int("horizon", horizon)
        frames, batched = self._read(clip, layout=layout, value_range=value_range, nan=nan, to_grey=to_grey)
        if context is not None:
            frames = frames[:, -check_int("context", context) :]
        space = tuple(slice(side) for side in frames.shape[3:])
        frames = self.pad(frames.to(self.device, torch.float32))
        with self._evaluating():
            future = self(frames, horizon)[(..., *space)].clamp(0, 1)
        return future if batched else future[0]

    def _read(
        self, clip: Any, *, layout: str | None, value_range: tuple[float, float] | None, nan: str, to_grey: bool
    ) -> tuple[Tensor, bool]:
        """A batch of clips from what `predict` takes, and whether it was one."""
        # Reading a file is not the business of a model that is only trained or exported.
        from pcvideo.video_io import read_clip, read_volumes, to_clip_tensor  # noqa: PLC0415
        from pcvideo.video_io.convert import fit_channels  # noqa: PLC0415

        if self.spatial_dims == 3:
            frames = read_volumes(clip, channels=self.in_channels, layout=layout, value_range=value_range, nan=nan)
            return (frames, True) if frames.ndim == 6 else (frames[None], False)
        axes = getattr(clip, "ndim", 0)
        if axes == 5 or (axes > 0 and "B" in str(layout or "").upper()):
            frames = to_clip_tensor(clip, layout=layout, value_range=value_range, nan=nan)
            return fit_channels(frames, self.in_channels, grey=to_grey, notes=[]), True
        read = read_clip(
            clip, channels=self.in_channels, layout=layout, value_range=value_range, nan=nan, to_grey=to_grey
        )
        return read.frames[None], False

    def stream(self) -> Stream:
        """A live stream: push frames as they come, in constant memory and time; see `Stream`."""
        from pcvideo.models._stream import Stream  # noqa: PLC0415

        return Stream(self)

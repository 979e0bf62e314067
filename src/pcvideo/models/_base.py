# SPDX-License-Identifier: Apache-2.0
"""What every predictor has: the contract, one-call prediction, a live stream, saving and loading."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo import _files
from pcvideo._checks import check_bool, check_clip, check_int, check_keys, check_values, describe
from pcvideo._memory_format import channels_last
from pcvideo.rollout import unroll

if TYPE_CHECKING:
    from pcvideo.models._stream import Stream

__all__ = ["CONFIG_NAME", "FORMAT", "WEIGHTS_NAME", "Predictor", "read_config"]

FORMAT = 1
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


class Predictor(nn.Module):
    """A network that predicts the next frame from the frames so far; subclass it and give `init_state` and `step`.

    A subclass that keeps every constructor argument as an attribute of the same name (as `MSPN` does) has a `config`,
    and so saves and loads like the models here.

    Args:
        in_channels: channels C of a frame.
        clamp: `forward` clamps the frames that it returns to [0, 1].

    Attributes:
        size_multiple: what divides a frame's height and width, and a volume's depth.
        spatial_dims: 2 where frames are images (B, C, H, W), 3 where they are volumes (B, C, D, H, W); all that is said of
            frames below holds for both.
    """

    size_multiple: int = 1
    spatial_dims: int = 2

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

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

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

    def pad(self, frames: Tensor) -> Tensor:
        """Repeat the last row and column (and slice of a volume) of (..., C, *space) up to the next size that fits."""
        sides = frames.shape[-self.spatial_dims :]
        # In the order of torch's padding: from the last axis to the first, before and after.
        pad = [amount for side in reversed(sides) for amount in (0, -side % self.size_multiple)]
        if not any(pad):
            return frames
        lead = frames.shape[: -self.spatial_dims - 1]
        padded = F.pad(frames.flatten(0, len(lead) - 1) if lead else frames[None], pad, mode="replicate")
        return padded.reshape(*lead, *padded.shape[1:])

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluation mode inside a `with`; afterwards every part is in the mode that it was in (some may be frozen)."""
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True

    def stream(self) -> Stream:
        """A live stream: push frames as they come, in constant memory and time; see `Stream`."""
        from pcvideo.models._stream import Stream  # noqa: PLC0415

        return Stream(self)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON holds them.

        Raises:
            TypeError: the model was put together from modules, or does not keep an argument as an attribute.
        """
        return {name: self._config_value(name) for name in _arguments(type(self))}

    def _config_value(self, name: str) -> Any:
        kind = type(self).__name__
        if not hasattr(self, name):
            raise TypeError(f"{kind} does not keep its argument {name!r} as an attribute, so it has no config")
        value = getattr(self, name)
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{kind} has no config, because its argument {name!r} is {describe(value)}, which JSON can't hold; "
                f"subclass it with a constructor that takes numbers and builds the parts from them"
            ) from error
        return value

    def save_pretrained(self, folder: str | Path, *, metadata: Mapping[str, str] | None = None) -> None:
        """Write `config.json` and `model.safetensors` into a folder, which is made where there is none.

        Both are written aside and then moved over: a full disk or a kill leaves the old ones as they were.

        Args:
            folder: where to; other files in it stay.
            metadata: strings to put into the weights file's header.

        Raises:
            TypeError: the model has no config.
            OSError: the folder can't be written.
        """
        config = {"format": FORMAT, "model": type(self).__name__, "config": self.config}

        def write(temporary: Path) -> None:
            _files.write_json(temporary / CONFIG_NAME, config)
            _files.write_tensors(temporary / WEIGHTS_NAME, self.state_dict(), metadata)

        _files.update_folder(folder, write)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A model with fresh weights from a config, as `config` gives it.

        Raises:
            ValueError, TypeError: a key is unknown (the message has the nearest one), missing, or out of its range.
        """
        known = _arguments(cls)
        check_keys(f"the config of {cls.__name__}", config, list(known))
        missing = [name for name, has_default in known.items() if not has_default and name not in config]
        if missing:
            raise ValueError(f"the config of {cls.__name__} lacks {', '.join(missing)}")
        return cls(**{name: _tuples(value) for name, value in config.items()})

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        strict: bool = True,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> Self:
        """A model from a folder that `save_pretrained` wrote, in evaluation mode.

        Args:
            folder: holds `config.json` and `model.safetensors`.
            strict: refuse missing and unexpected tensors; False keeps the fresh ones for the missing, and leaves the
                names in the model's `missing_tensors` and `unexpected_tensors`.
            dtype: of the weights; published ones are stored in 16 bit and computed in float32.
            device: of the weights.

        Raises:
            FileNotFoundError: the folder lacks one of the files.
            WeightsCorruptError: one of them can't be read.
            ValueError: the config or the tensors don't fit this class; the message names keys, tensors and shapes.
        """
        folder = Path(folder)
        kind, config = read_config(folder)
        if kind != cls.__name__:
            raise ValueError(f"{folder} holds a {kind}, not a {cls.__name__}; load it with that class")
        model = cls.from_config(config).to(dtype)
        model._load(_files.read_tensors(folder / WEIGHTS_NAME), str(folder / WEIGHTS_NAME), strict=strict)
        return channels_last(model.to(device)).eval()

    def _load(self, tensors: Mapping[str, Tensor], source: str, *, strict: bool) -> None:
        own = self.state_dict()
        wrong = [
            f"{name}: the file has {tuple(tensors[name].shape)}, the model {tuple(tensor.shape)}"
            for name, tensor in own.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ]
        # Between floats the weights are cast; whole numbers in their place would be another network.
        kinds = [
            f"{name}: the file has {tensors[name].dtype}, the model {tensor.dtype}"
            for name, tensor in own.items()
            if name in tensors and tensors[name].is_floating_point() != tensor.is_floating_point()
        ]
        self.missing_tensors = sorted(own.keys() - tensors.keys())
        self.unexpected_tensors = sorted(tensors.keys() - own.keys())
        faults = [f"wrong shapes: {'; '.join(wrong)}"] if wrong else []
        faults += [f"wrong dtypes: {'; '.join(kinds)}"] if kinds else []
        if strict:
            faults += [f"missing: {', '.join(self.missing_tensors)}"] if self.missing_tensors else []
            faults += [f"unexpected: {', '.join(self.unexpected_tensors)}"] if self.unexpected_tensors else []
        if faults:
            raise ValueError(f"{source} does not fit {type(self).__name__}: {'. '.join(faults)}")
        self.load_state_dict(dict(tensors), strict=False)


def read_config(folder: str | Path) -> tuple[str, dict[str, Any]]:
    """The model's class name and constructor arguments from a folder's `config.json`.

    Raises:
        FileNotFoundError: there is none.
        WeightsCorruptError: it can't be read.
        ValueError: it has unknown keys, or was written by a newer format.
    """
    path = Path(folder) / CONFIG_NAME
    content = _files.read_json(path)
    check_keys(str(path), content, ["format", "model", "config"])
    if content.get("format") != FORMAT:
        raise ValueError(f"{path} has format {content.get('format')!r}, this version reads {FORMAT}; upgrade pcvideo")
    if not isinstance(content.get("model"), str) or not isinstance(content.get("config"), dict):
        raise ValueError(f"{path} must give 'model' as a name and 'config' as an object")
    return content["model"], content["config"]


def _arguments(kind: type) -> dict[str, bool]:
    """The constructor's arguments in order; True where one has a default."""
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]  # type: ignore[misc]
    return {parameter.name: parameter.default is not parameter.empty for parameter in parameters}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value

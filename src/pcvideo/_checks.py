# SPDX-License-Identifier: Apache-2.0
"""Checks for the public doors: each error names the argument, what was expected, what came, and the mend."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "check_bool",
    "check_channels",
    "check_choice",
    "check_clip",
    "check_frame",
    "check_int",
    "check_keys",
    "check_number",
    "check_sides",
    "check_size",
    "check_values",
    "describe",
    "did_you_mean",
]

# The axes of space by their number: images, and volumes.
_SPACE = {2: "H, W", 3: "D, H, W"}


def describe(value: Any) -> str:
    """What `value` is, in a few words for an error message."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"an array of shape {tuple(shape)} and dtype {getattr(value, 'dtype', '?')}"
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:77] + '...'}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or an empty string where none is near."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_bool(name: str, value: Any) -> bool:
    """`value` if it is True or False; a number or a word that merely counts as one of them is refused."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {describe(value)}")
    return value


def check_int(name: str, value: Any, *, minimum: int = 1) -> int:
    """`value` as a whole number of at least `minimum`; a bool or a float with no fraction is refused too."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number of at least {minimum}, got {describe(value)}")
    if value < minimum:
        raise ValueError(f"{name} must be a whole number of at least {minimum}, got {value}")
    return int(value)


def check_number(name: str, value: Any, *, minimum: float | None = None, maximum: float | None = None) -> float:
    """`value` as a finite number in [minimum, maximum]."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {describe(value)}")
    number = float(value)
    too_low = minimum is not None and not number >= minimum
    too_high = maximum is not None and not number <= maximum
    if not math.isfinite(number) or too_low or too_high:
        low = "-inf" if minimum is None else minimum
        high = "inf" if maximum is None else maximum
        raise ValueError(f"{name} must be a finite number in [{low}, {high}], got {number}")
    return number


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """`value` if it is one of `choices`."""
    if value not in choices:
        known = [choice for choice in choices if isinstance(choice, str)]
        hint = did_you_mean(value, known) if isinstance(value, str) else ""
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}{hint}")
    return value


def check_keys(what: str, keys: Iterable[str], known: Sequence[str]) -> None:
    """Refuse every key that is not known, with the nearest name."""
    for key in keys:
        if key not in known:
            raise ValueError(
                f"{what} has the unknown key {key!r}{did_you_mean(key, known)} (known: {', '.join(sorted(known))})"
            )


def check_size(name: str, height: int, width: int, multiple: int, *, door: str = "predict") -> None:
    """Refuse a frame size that `multiple` does not divide; name the nearest that fits, and the door that takes any."""
    check_sides(name, (height, width), multiple, door=door)


def check_sides(name: str, sides: Sequence[int], multiple: int, *, door: str = "predict") -> None:
    """Refuse (height, width), or (depth, height, width), that `multiple` does not divide; say the nearest that fits."""
    if any(side < 1 or side % multiple for side in sides):
        fit = "x".join(str(max(multiple, round(side / multiple) * multiple)) for side in sides)
        words = "a height and a width" if len(sides) == 2 else "a depth, a height and a width"
        raise ValueError(
            f"{name} must have {words} divisible by {multiple}, got {'x'.join(map(str, sides))}; "
            f"the nearest size that fits is {fit}, or use {door}(), which pads and crops"
        )


def check_clip(name: str, frames: Any, *, channels: int, multiple: int = 1, spatial_dims: int = 2) -> None:
    """Refuse anything but a float batch (B, T, C, H, W), or (B, T, C, D, H, W) of volumes, with a clip and a frame."""
    axes = f"(B, T, C, {_SPACE[spatial_dims]})"
    if not isinstance(frames, Tensor):
        raise TypeError(f"{name} must be a tensor {axes}, got {describe(frames)}; predict() takes other kinds")
    if frames.ndim != 3 + spatial_dims:
        hint = "; add the batch axis with frames[None]" if frames.ndim == 2 + spatial_dims else ""
        raise ValueError(f"{name} must be {axes}, got {describe(frames)}{hint}")
    if not frames.is_floating_point():
        raise TypeError(f"{name} must be float in [0, 1], got {describe(frames)}; predict() takes uint8 too")
    if frames.shape[0] == 0 or frames.shape[1] == 0:
        raise ValueError(f"{name} must hold at least one clip and one frame, got {describe(frames)}")
    check_channels(name, frames.shape[2], channels)
    check_sides(name, frames.shape[3:], multiple)


def check_frame(name: str, frame: Any, *, channels: int, multiple: int = 1, spatial_dims: int = 2) -> None:
    """Refuse anything but a float batch of frames (B, C, H, W), or of volumes (B, C, D, H, W)."""
    axes = f"(B, C, {_SPACE[spatial_dims]})"
    if not isinstance(frame, Tensor):
        raise TypeError(f"{name} must be a tensor {axes}, got {describe(frame)}")
    if frame.ndim != 2 + spatial_dims:
        raise ValueError(f"{name} must be {axes}, got {describe(frame)}")
    if not frame.is_floating_point():
        raise TypeError(f"{name} must be float in [0, 1], got {describe(frame)}")
    if frame.shape[0] == 0:
        raise ValueError(f"{name} must hold at least one sample, got {describe(frame)}")
    check_channels(name, frame.shape[1], channels)
    check_sides(name, frame.shape[2:], multiple)


def check_channels(name: str, got: int, expected: int) -> None:
    """Refuse a wrong number of channels; where grey and colour were mixed up, say how to mend it."""
    if got != expected:
        hint = ""
        if (got, expected) == (3, 1):
            hint = "; predict(..., to_grey=True) converts"
        elif (got, expected) == (1, 3):
            hint = "; repeat the grey channel three times, or use a grey model"
        raise ValueError(f"{name}: the model expects C={expected} channels, got {got}{hint}")


def check_values(
    name: str, frames: Tensor, *, time_axis: int = 1, first: int = 0, unit: str = "frame", door: str = "predict"
) -> None:
    """Refuse NaN, infinity and values outside [0, 1], and name the first frame that holds one.

    Values are let through by 1e-3 of rounding. Costs one reduction; skipped under `torch.compile`.

    Args:
        name: of the argument, for the message.
        frames: the frames.
        time_axis: the axis that they are counted along.
        first: the number of the first one.
        unit: what is counted.
        door: the call that mends or rescales.
    """
    if torch.compiler.is_compiling() or frames.is_meta:
        return
    low, high = torch.aminmax(frames.detach())
    # NaN fails both comparisons, so one test serves all three faults.
    if bool((low >= -1e-3) & (high <= 1 + 1e-3)):
        return
    for index, frame in enumerate(frames.detach().unbind(time_axis), start=first):
        if not bool(torch.isfinite(frame).all()):
            raise ValueError(
                f"{name}: {unit} {index} holds NaN or infinity; mend the source, or use {door}(..., nan='repair')"
            )
        low, high = torch.aminmax(frame)
        if not bool((low >= -1e-3) & (high <= 1 + 1e-3)):
            raise ValueError(
                f"{name}: {unit} {index} ranges over [{float(low):.4g}, {float(high):.4g}], expected [0, 1]; "
                f"{door}(..., value_range=(low, high)) rescales, and uint8 is taken as it is"
            )

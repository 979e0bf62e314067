# SPDX-License-Identifier: Apache-2.0
"""A folder of pictures that several processes fill, that survives an interruption, and that never mixes two makings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcvideo._files import read_json, remove_orphans, write_json
from pcvideo.video_io.pictures import list_pictures

__all__ = ["RECORD_NAME", "FrameFolder", "checksum", "fingerprint", "recorded_rate"]

RECORD_NAME = "enhance.json"


def checksum(*tensors: Tensor, of: str = "") -> str:
    """A checksum of the values of tensors, and of a text."""
    content = hashlib.sha256(of.encode())
    for tensor in tensors:
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()[:16]


def fingerprint(model: Any) -> str | None:
    """The class of a model and a checksum of its config and weights; None of None."""
    if model is None:
        return None
    weights = dict(sorted(model.state_dict().items()))
    return f"{type(model).__name__} {checksum(*weights.values(), of=json.dumps([model.config, *weights]))}"


def recorded_rate(folder: str | Path) -> float | None:
    """The frames per second of a folder that was made here; None of any other source."""
    record = Path(folder) / RECORD_NAME
    rate = read_json(record).get("rate") if record.is_file() else None
    return float(rate) if isinstance(rate, int | float) else None


class FrameFolder:
    """Pictures named by their number in the whole, and a record of what they are.

    Args:
        path: of the folder; made where there is none.
        total: how many pictures the whole has; None where that is not known.
        suffix: of the pictures.
        record: what tells this making from another; compared with that of an earlier call.
    """

    def __init__(self, path: Path, total: int | None, suffix: str, record: Mapping[str, Any]) -> None:
        self.path, self.total, self.suffix, self.record = path, total, suffix, dict(record)
        # Names of one length stand in order for every program.
        self.digits = 8 if total is None else max(5, len(str(total - 1)))

    def picture(self, number: int) -> Path:
        """Where the picture of that number is."""
        return self.path / f"{number:0{self.digits}d}{self.suffix}"

    def prepare(self, span: range, *, resume: bool) -> None:
        """Refuse a folder that holds anything else, and, without `resume`, pictures of this span; then make it ready.

        Raises:
            NotADirectoryError: there is a file of that name.
            ValueError: the folder holds pictures already that are not of this making, or that would be written over.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"{self.path} is a file; name a folder, or a video by its ending (.mp4, .mkv)")
        # In this order: another part writes the record before its first picture.
        mixed = self.path.is_dir() and bool(list_pictures(self.path))
        recorded = self.path / RECORD_NAME
        if recorded.is_file():
            self._compare(read_json(recorded))
        elif mixed:
            raise ValueError(
                f"{self.path} holds pictures already, they would mix with the new ones; name an empty folder"
            )
        held = self.held(span)
        if held and not resume:
            raise ValueError(
                f"{self.path} holds {len(held)} of these frames already; resume=True makes those that are missing, "
                f"another folder takes all anew"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        # Another process of the same making is left alone.
        remove_orphans(self.path, of=lambda name: self._number(name) in span)
        if not recorded.is_file():
            write_json(recorded, self.record)

    def held(self, span: range) -> set[int]:
        """The numbers in `span` whose pictures are there; what is there is complete."""
        if not self.path.is_dir():
            return set()
        numbers = {self._number(path.name) for path in self.path.iterdir()}
        return {number for number in numbers if number is not None and number in span}

    def _number(self, name: str) -> int | None:
        """The number of the picture of that name; None where it is none of these."""
        number = name.removesuffix(self.suffix)
        if number == name or len(number) < self.digits or not (number.isascii() and number.isdigit()):
            return None
        return int(number)

    def _compare(self, earlier: Mapping[str, Any]) -> None:
        for key in {**self.record, **earlier}:
            if self.record.get(key) != earlier.get(key):
                raise ValueError(
                    f"{self.path} was begun with {key} {json.dumps(earlier.get(key))}, now it is "
                    f"{json.dumps(self.record.get(key))}; go on as it was begun, or name another folder"
                )

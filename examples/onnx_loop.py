# SPDX-License-Identifier: Apache-2.0
"""Predict with an exported step, by numpy and onnxruntime alone: neither torch nor pcvideo is imported.

    pcvideo export mspn-moving-mnist walk.onnx
    python examples/onnx_loop.py walk.onnx clip.npy 10 future.npy

The clip is (T, C, H, W) float32 in [0, 1], or uint8; so are the frames that follow.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


class Step:
    """The exported graph and its state."""

    def __init__(self, path: str | Path) -> None:
        description = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.multiple, self.black_frames = description["size_multiple"], description["black_frames"]
        self.frame, self.prediction = description["frame"], description["prediction"]["output"]
        self.feed_back, self.entries = description["feed_back"], description["state"]
        self.state: dict[str, np.ndarray] = {}
        self.fed_back: np.ndarray | None = None

    def start(self, batch: int, size: tuple[int, ...]) -> None:
        """A state for frames of this size (height, width), or volumes (depth, height, width), before the first one."""
        if any(side % self.multiple or side < 1 for side in size):
            fit = [max(1, -(-side // self.multiple)) * self.multiple for side in size]
            raise ValueError(
                f"height and width must be multiples of {self.multiple}, got {'x'.join(map(str, size))}; "
                f"pad the frames to {'x'.join(map(str, fit))} and crop what is predicted"
            )
        sizes = {"batch": batch} | dict(zip(self.frame["shape"][2:], size, strict=True))
        self.state = {entry["input"]: np.zeros(shape_of(entry, sizes), entry["dtype"]) for entry in self.entries}
        for _ in range(self.black_frames):
            self.run(np.zeros(shape_of(self.frame, sizes), self.frame["dtype"]))

    def run(self, frame: np.ndarray | None) -> np.ndarray:
        """See a frame (B, C, H, W), or the own prediction in its place if None; the next frame."""
        frame = self.fed_back if frame is None else frame
        outputs = [self.prediction, *(entry["output"] for entry in self.entries)]
        values = dict(zip(outputs, self.session.run(outputs, {self.frame["input"]: frame, **self.state}), strict=True))
        self.state = {entry["input"]: values[entry["output"]] for entry in self.entries}
        self.fed_back = values[self.feed_back]
        return values[self.prediction]


def shape_of(entry: dict, sizes: dict[str, int]) -> list[int]:
    """A shape such as ["batch", 32, "height / 4", "width / 4"] in numbers."""
    shape = []
    for axis in entry["shape"]:
        name, _, share = str(axis).partition(" / ")
        shape.append(sizes[name] // int(share or 1) if name in sizes else int(axis))
    return shape


def predict(path: str | Path, clip: np.ndarray, horizon: int) -> np.ndarray:
    """The frames (B, horizon, C, H, W) that follow a clip (B, T, C, H, W) in [0, 1]."""
    step = Step(path)
    step.start(len(clip), clip.shape[3:])
    for time in range(clip.shape[1]):
        prediction = step.run(np.ascontiguousarray(clip[:, time], step.frame["dtype"]))
    future = [prediction]
    while len(future) < horizon:
        future.append(step.run(None))
    return np.stack(future, axis=1)


if __name__ == "__main__":
    model, source, length, target = sys.argv[1:]
    frames = np.load(source)
    frames = frames / np.float32(255) if frames.dtype == np.uint8 else frames
    np.save(target, predict(model, frames[None], int(length))[0].clip(0, 1))

# SPDX-License-Identifier: Apache-2.0
"""Small things to train, and readers of what a run leaves."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import pcvideo
from pcvideo.training import SelfFeeding, Trainer

CONTEXT, HORIZON = 2, 2


def tiny_model(seed: int = 0, **options: Any) -> pcvideo.MSPN:
    """An MSPN for grey frames of an even size."""
    torch.manual_seed(seed)
    settings = {"in_channels": 1, "levels": 1, "channels": (4, 8), "hidden_channels": 4} | options
    return pcvideo.MSPN(**settings)


class Clips(Dataset[Tensor]):
    """Gratings that move, mirrored or not by a draw from (epoch, index); `wait` seconds pass before clip `slow`."""

    def __init__(self, count: int = 10, *, frames: int = CONTEXT + HORIZON, channels: int = 1, size: int = 16) -> None:
        self.count, self.frames, self.channels, self.size = count, frames, channels, size
        self.epoch = 0

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> Tensor:
        time_axis = torch.arange(self.frames)[:, None, None, None]
        place = torch.arange(self.size)
        wave = torch.sin(0.7 * place + 0.9 * time_axis + index) * torch.cos(0.3 * place[:, None] - index)
        clip = (0.5 + 0.5 * wave).expand(self.frames, self.channels, self.size, self.size).contiguous()
        generator = torch.Generator().manual_seed(1000 * self.epoch + index)
        return clip.flip(-1) if torch.rand((), generator=generator) < 0.5 else clip


class BatchClips(Clips):
    """The same clips, made batch by batch."""

    def batch(self, indices: Any, device: Any = None) -> Tensor:
        return torch.stack([self[int(index)] for index in indices]).to(device)


class SlowClips(Clips):
    """Clip `slow` keeps its reader waiting, and says so by making the file `told`."""

    def __init__(self, told: Path, *, slow: int = 0, wait: float = 60.0, **options: Any) -> None:
        super().__init__(**options)
        self.told, self.slow, self.wait = told, slow, wait
        self.loads = 0

    def __getitem__(self, index: int) -> Tensor:
        self.loads += 1
        # The first load is the look at the data before the first step.
        if index == self.slow and self.loads > 1:
            self.told.touch()
            time.sleep(self.wait)
        return super().__getitem__(index)


class SignalAt(SelfFeeding):
    """Self-feeding that is sent a signal within its `call`-th step."""

    def __init__(self, call: int, number: int = signal.SIGTERM) -> None:
        super().__init__(context=CONTEXT, horizon=HORIZON)
        self.call, self.number, self.calls = call, number, 0

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += 1
        if self.calls == self.call:
            os.kill(os.getpid(), self.number)
        return super().forward(batch)


class Noisy(nn.Module):
    """A loss with random numbers of its own, as dropout or scheduled sampling would draw them."""

    def forward(self, predictions: Any, targets: Any) -> Tensor:
        total = torch.zeros(())
        for prediction, target in zip(predictions, targets, strict=True):
            weight = torch.rand(prediction[0].shape)
            total = total + (weight * (prediction[0] - target[0]) ** 2).mean()
        return total


def self_feeding(**options: Any) -> SelfFeeding:
    return SelfFeeding(context=CONTEXT, horizon=HORIZON, **options)


def tiny_trainer(run_dir: Path, strategy: Any = None, *, model: Any = None, **options: Any) -> Trainer:
    """Eight steps of three clips: ten clips make three steps an epoch, and the fourth begins the next one."""
    settings = {"steps": 8, "batch_size": 3, "device": "cpu"} | options
    return Trainer(model or tiny_model(), strategy or self_feeding(), run_dir=run_dir, **settings)


def read_log(run_dir: Path) -> list[tuple[int, str, str]]:
    """All rows but the times, as they stand in the file."""
    with (run_dir / "log.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "name", "value"]
    return [(int(step), name, value) for step, name, value in rows[1:] if name != "seconds"]


def assert_same_tensors(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


def start_fork(work: Callable[..., None], *arguments: Any) -> Any:
    """A process of its own on the interpreter that is warm already."""

    def run() -> None:
        # Threads don't survive a fork.
        torch.set_num_threads(1)
        work(*arguments)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def wait_for(path: Path, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)

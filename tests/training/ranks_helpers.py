# SPDX-License-Identifier: Apache-2.0
"""Processes that train together, forked off an interpreter that is warm already, and things for them to train."""

from __future__ import annotations

import os
import signal
import socket
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.fsdp  # here, so that no forked process has to
import torch.distributed.tensor
from torch import Tensor, nn
from training_helpers import CONTEXT, HORIZON, start_fork

from pcvideo.training import SelfFeeding, Strategy


def start_ranks(count: int, work: Callable[..., None], *arguments: Any, told: Path) -> list[Any]:
    """Start `work(*arguments)` in so many processes; what one of them raises stands in `told/rank-<number>.txt`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told.mkdir(parents=True, exist_ok=True)

    def run(number: int) -> None:
        os.environ |= {
            "RANK": str(number),
            "LOCAL_RANK": str(number),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        try:
            work(*arguments)
        except BaseException:
            (told / f"rank-{number}.txt").write_text(traceback.format_exc())
            raise

    return [start_fork(run, number) for number in range(count)]


def join_all(processes: list[Any], told: Path, *, seconds: float = 120.0) -> None:
    """Wait for all, and fail with what they raised if one did not end well."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.exitcode is None:
            process.kill()
    text = "\n".join(path.read_text() for path in sorted(told.glob("rank-*.txt")))
    assert codes == [0] * len(codes), f"{codes}\n{text}"


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


class InTurn(Strategy):
    """A model, and a critic of its frames that is trained in every second step, with a balance in a buffer."""

    rates: Mapping[str, float] = {"critic.*": 0.5}

    def __init__(self) -> None:
        super().__init__(context=CONTEXT, horizon=HORIZON)
        torch.manual_seed(5)
        self.critic = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))
        self.register_buffer("balance", torch.zeros(()))

    def begin(self, step: int) -> None:
        self.judging = step % 2 == 1
        self.model.requires_grad_(not self.judging)
        self.critic.requires_grad_(self.judging)

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        truth = batch[:, CONTEXT:].flatten(0, 1)
        with torch.set_grad_enabled(not self.judging):
            prediction = self.model(batch[:, :CONTEXT], HORIZON).flatten(0, 1)
        fake, real = self.critic(prediction).mean(), self.critic(truth).mean()
        if self.judging:
            return (fake + 1) ** 2 + (real - 1) ** 2, {"gap": (real - fake).detach()}
        return ((prediction - truth) ** 2).mean() + 0.1 * (fake - 1) ** 2, {"gap": (real - fake).detach()}

    def update(self, logs: Mapping[str, float]) -> None:
        self.balance += logs["gap"]


class Added(SelfFeeding):
    """A loss that is a sum over the clips."""

    reduction = "sum"


class StoppedOnOneRank(SelfFeeding):
    """Self-feeding in which one rank is sent SIGTERM within its third step."""

    def __init__(self) -> None:
        super().__init__(context=CONTEXT, horizon=HORIZON)
        self.calls = 0

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += 1
        if self.calls == 3 and rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(batch)

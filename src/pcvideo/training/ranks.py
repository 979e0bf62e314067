# SPDX-License-Identifier: Apache-2.0
"""The processes that train together, called ranks: how they meet, agree and hand over, on PyTorch's process groups.

A process that no launcher started is alone, and none of this does anything there.
"""

from __future__ import annotations

import atexit
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import distributed as dist
from torch import nn

__all__ = ["RankLostError", "Ranks", "join_ranks", "reported", "split_evenly"]

T = TypeVar("T")

# What gloo and NCCL say when the process at the other end is gone.
_LOST = re.compile(r"gloo[/\\]|Connection (closed|reset)|Broken pipe|NCCL|ProcessGroup|Socket Timeout|recvValue", re.I)

# Seconds that the launcher is given to see the rank that ended first.
_PATIENCE = 5.0


class RankLostError(RuntimeError):
    """Another rank is gone: this is a consequence, and the error of the rank that ended first is the cause."""


class Ranks:
    """One of the processes that train together.

    Attributes:
        number: of this process, from 0.
        count: how many there are.
    """

    def __init__(self, number: int = 0, count: int = 1) -> None:
        self.number, self.count = number, count

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes, logs and draws."""
        return self.number == 0

    @property
    def are_many(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def highest(self, number: int) -> int:
        """The highest of all ranks' whole numbers, the same on each."""
        if not self.are_many:
            return number
        told = torch.tensor([number])
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return int(told)

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in their order, the same list on each."""
        if not self.are_many:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns on rank 0, on every rank; where it raises there, every rank raises.

        Raises:
            RuntimeError: on the other ranks, with the text of rank 0's error.
        """
        if not self.are_many:
            return make()
        told: list[Any] = [None, None]
        failure: Exception | None = None
        if self.is_first:
            try:
                told[0] = make()
            except Exception as error:  # noqa: BLE001
                failure, told[1] = error, f"{type(error).__name__}: {error}"
        dist.broadcast_object_list(told, src=0)
        if failure is not None:
            raise failure
        if told[1] is not None:
            raise RuntimeError(f"rank 0 failed: {told[1]}")
        result: T = told[0]
        return result

    @torch.no_grad()
    def copy_from_first(self, module: nn.Module) -> None:
        """Give every rank the parameters and buffers that the module has on rank 0."""
        for tensor in [*module.parameters(), *module.buffers()] if self.are_many else ():
            plain = tensor.detach().contiguous()
            dist.broadcast(plain, src=0)
            tensor.copy_(plain)

    def wait(self) -> None:
        """Go on when all ranks are here."""
        self.highest(0)


def join_ranks(device: torch.device, *, timeout: float) -> tuple[Ranks, torch.device]:
    """This process's place among those that a launcher such as `torchrun` started, and its device.

    A process group that there is already is taken as it is. Otherwise one is made where the launcher's variables are
    set (RANK, WORLD_SIZE, ...): gloo for the CPU, and NCCL for tensors on a GPU.

    Args:
        device: "cuda" without a number becomes the GPU of the local rank.
        timeout: seconds after which a rank that waits for the others in vain raises an error.

    Raises:
        ValueError: more processes on this machine than it has GPUs.
    """
    if not dist.is_available() or not (dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) > 1):
        return Ranks(), device
    if device.type == "cuda" and device.index is None:
        device = _own_gpu()
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout), **_own_store(timeout))
        atexit.register(_leave_group)
    return Ranks(dist.get_rank(), dist.get_world_size()), device


def split_evenly(items: Sequence[T], parts: int) -> list[list[T]]:
    """The items in order, in so many parts whose lengths differ by one at most."""
    size, longer = divmod(len(items), parts)
    starts = [part * size + min(part, longer) for part in range(parts + 1)]
    return [list(items[start:end]) for start, end in pairwise(starts)]


@contextmanager
def reported(ranks: Ranks) -> Iterator[None]:
    """Within, an error reaches the launcher with its traceback, the cause before its consequences.

    Raises:
        RankLostError: in place of what gloo and NCCL say when another rank is gone.
    """
    if not ranks.are_many:
        yield
        return
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler  # noqa: PLC0415

    handler = get_error_handler()
    handler.initialize()
    try:
        yield
    except Exception as error:
        if not _is_lost_rank(error):
            handler.record_exception(error)
            raise
        # The launcher takes the first that it hears of for the cause, and then ends this process.
        time.sleep(_PATIENCE)
        raise RankLostError(
            f"rank {ranks.number} stops, because another rank is gone; the error of the one that ended first is the "
            f"cause ({error})"
        ) from error


def _is_lost_rank(error: BaseException) -> bool:
    if isinstance(error, dist.DistBackendError | dist.DistNetworkError):
        return True
    return isinstance(error, RuntimeError) and bool(_LOST.search(str(error)))


def _own_gpu() -> torch.device:
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= count:
        raise ValueError(
            f"local rank {local} has no GPU of its own: this machine has {count}; start at most {count} processes here "
            f"(torchrun --nproc-per-node {count}), or train with device='cpu'"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _own_store(timeout: float) -> dict[str, Any]:
    """Arguments for a process group that meets in the launcher's store, each attempt under names of its own.

    When `torchrun` starts processes again, its store still holds the addresses of those that died, which the new ones
    would try to reach. TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 avoids that too, but only if the launcher is given it.
    """
    environment = os.environ
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    store = dist.TCPStore(
        environment["MASTER_ADDR"],
        int(environment["MASTER_PORT"]),
        is_master=False,
        timeout=timedelta(seconds=timeout),
    )
    attempt, count = environment.get("TORCHELASTIC_RESTART_COUNT", "0"), environment["WORLD_SIZE"]
    return {
        "store": dist.PrefixStore(f"pcvideo/attempt-{attempt}-of-{count}", store),
        "rank": int(environment["RANK"]),
        "world_size": int(count),
    }


def _leave_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()

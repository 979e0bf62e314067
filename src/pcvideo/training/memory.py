# SPDX-License-Identifier: Apache-2.0
"""When memory runs out: what to turn down, and how large a batch fits."""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pcvideo._checks import check_int
from pcvideo.training.batches import check_clips, load_batches

if TYPE_CHECKING:
    from pcvideo.training.trainer import Trainer

__all__ = ["explained_memory", "is_out_of_memory", "largest_batch"]

logger = logging.getLogger(__name__)

# What PyTorch's allocator on a CPU and oneDNN say; neither has a class of its own.
_CPU_MESSAGES = ("can't allocate memory", "could not create a memory", "std::bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_MESSAGES)


@contextlib.contextmanager
def explained_memory(shape: Callable[[], str]) -> Iterator[None]:
    """Within, an error that memory ran out comes as `torch.OutOfMemoryError` that says what to turn down."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise torch.OutOfMemoryError(
            f"out of memory with {shape()}: {error}\nIn the order of what it costs: turn accumulate up (parts of a "
            f"batch one after another, the same numbers), give the strategy checkpoint=True (activations computed "
            f"twice), take precision='bfloat16', a smaller batch_size, a shorter horizon or context, smaller frames; "
            f"pcvideo.training.largest_batch finds the batch that fits"
        ) from error


def largest_batch(trainer: Trainer, clips: Any, *, maximum: int = 1024, memory_limit: int | None = None) -> int:
    """The most clips whose loss and gradients fit into memory at once, found by doubling and bisecting.

    It is what one process can take in one part of a batch: `batch_size` may be this, times `accumulate`, times the
    number of processes. The trainer is left as it was; its precision, strategy and model are those that count. Room
    is kept for the optimizer's state and for the gradients.

    Args:
        trainer: that would train; of any `batch_size`.
        clips: the data set; its first clip is tried, repeated.
        maximum: no more than so many are tried.
        memory_limit: bytes that the tensors of a step may take, beside the weights. Needed on a CPU, where what is
            beyond the memory would go to the disk or end the process; on a GPU None is all that is there.

    Returns:
        The number of clips, at least 1.

    Raises:
        ValueError: no limit is given on a CPU.
        torch.OutOfMemoryError: not even one clip fits; the message says what to turn down.
    """
    check_int("maximum", maximum)
    if memory_limit is not None:
        check_int("memory_limit", memory_limit)
    elif trainer.device.type == "cpu":
        raise ValueError(
            "memory_limit must be given on a CPU: the bytes that the tensors of a step may take, such as 8 * 2**30"
        )
    if trainer.ranks.are_many:
        raise ValueError("largest_batch works in a single process; call it before torchrun, in a script of its own")
    strategy = trainer.strategy
    check_clips("clips", clips, length=strategy.length, model=trainer.model, channels=strategy.clip_channels)
    clip = next(load_batches(clips, [[0]], device=trainer.device))[1]

    def fits(count: int) -> bool:
        try:
            _try_batch(trainer, clip.expand(count, *clip.shape[1:]), memory_limit)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            logger.info("a batch of %d clips does not fit", count)
            return False
        finally:
            if trainer.device.type == "cuda":
                torch.cuda.empty_cache()
        logger.info("a batch of %d clips fits", count)
        return True

    with explained_memory(lambda: "a single clip"):
        _try_batch(trainer, clip, memory_limit)
    fitting, beyond = 1, maximum + 1
    while fitting < maximum and fits(min(2 * fitting, maximum)):
        fitting = min(2 * fitting, maximum)
    beyond = min(2 * fitting, maximum + 1)
    while beyond - fitting > 1:
        middle = (fitting + beyond) // 2
        fitting, beyond = (middle, beyond) if fits(middle) else (fitting, middle)
    return fitting


def _try_batch(trainer: Trainer, batch: Tensor, limit: int | None) -> None:
    """The work of a step on these clips, and nothing of it kept."""
    strategy = trainer.strategy
    modes = [(module, module.training) for module in strategy.modules()]
    buffers = [buffer.clone() for buffer in strategy.buffers()]
    counted = contextlib.nullcontext() if limit is None else _Counted(limit)
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), counted:
            # Adam's two moments, which are made in the first step only.
            reserved = [torch.zeros_like(each) for each in strategy.parameters() if each.requires_grad for _ in "mv"]
            strategy.train()
            trainer.try_batch(batch)
            del reserved
    finally:
        for module, was_training in modes:
            module.training = was_training
        for buffer, before in zip(strategy.buffers(), buffers, strict=True):
            buffer.copy_(before)
        for parameter in strategy.parameters():
            parameter.grad = None


class _Counted(TorchDispatchMode):
    """Counts the bytes of the tensors that live which were made within, and refuses to go beyond a limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.bytes = limit, 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self._add(result.untyped_storage())
        if self.bytes > self.limit:
            raise torch.OutOfMemoryError(f"{self.bytes:,} bytes of tensors are more than memory_limit={self.limit:,}")
        return results

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def forget(_: Any) -> None:
            self.bytes -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, forget)
        self.bytes += size

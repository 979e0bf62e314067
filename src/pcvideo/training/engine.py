# SPDX-License-Identifier: Apache-2.0
"""How a strategy is spread over ranks: not at all, by DistributedDataParallel, or sharded by FSDP2's `fully_shard`.

The strategy is what is wrapped, since its forward is what is called; a model's `step` is called in a loop below it. All
three give the same gradients, those of the whole batch. Sharded, the strategy is one group: its parameters are gathered
once for a piece, not in every step over time, and lie in shards otherwise, as their gradients, the optimizer's state
and the moving average do.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _NormBase

from pcvideo._memory_format import channels_last
from pcvideo.training.ranks import Ranks

__all__ = ["ENGINES", "DataParallel", "Engine", "Sharded", "choose_engine"]

ENGINES = ("auto", "ddp", "fsdp")


def choose_engine(name: str, ranks: Ranks) -> type[Engine]:
    """The engine of a name in `ENGINES`; "auto" is "ddp". With one rank there is nothing to spread."""
    if not ranks.are_many:
        return Engine
    return Sharded if name == "fsdp" else DataParallel


class Engine:
    """Everything in one process; what the others do more is below.

    Args:
        strategy: with its model, on its device.
        averaged: the model whose parameters follow the model's on a moving average, if there is one.
        ranks: that train together.
    """

    def __init__(self, strategy: Any, averaged: nn.Module | None, ranks: Ranks) -> None:
        self.strategy, self.averaged, self.ranks = strategy, averaged, ranks

    @staticmethod
    def lay_out(model: Any) -> Any:
        """The model with its filters in the order in memory that the engine can take."""
        return channels_last(model)

    def __call__(self, piece: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The strategy's loss and logs of a piece of this rank's share."""
        return self.strategy(piece)

    def synchronised(self, now: bool) -> AbstractContextManager[Any]:
        """Within, a piece's backward pass brings the gradients of all ranks together only if `now`."""
        return nullcontext()

    @property
    def loss_scale(self) -> float:
        """What a loss is multiplied by, so that the gradients which the engine averages over ranks are added up."""
        return self.ranks.count

    def is_sharded(self, tensor: Tensor) -> bool:
        """Whether each rank holds a part of it only."""
        return False

    def finish_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Bring together what the backward pass did not."""

    def gradient_norm(self, parameters: Iterable[Tensor]) -> Tensor:
        """The norm of all gradients together, the same on every rank."""
        return nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])

    def average_statistics(self) -> None:
        """Make the running statistics of batch normalisation, which see a rank's own clips, those of all."""
        norms = [module for module in self.strategy.modules() if isinstance(module, _NormBase) and module.training]
        buffers = [buffer for norm in norms for buffer in norm.buffers() if buffer.is_floating_point()]
        for buffer in buffers if self.ranks.are_many else ():
            dist.all_reduce(buffer)
            buffer.div_(self.ranks.count)

    @contextmanager
    def whole(self, module: nn.Module) -> Iterator[None]:
        """Within, a module's parameters are complete on this rank, and it may be called without the others."""
        yield

    def local(self, tensor: Tensor) -> Tensor:
        """What this rank holds of a tensor; shares its memory."""
        return tensor

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors, complete; every rank has to call it."""
        return dict(tensors)

    def share_of(self, tensor: Tensor, like: Tensor) -> Tensor:
        """A complete tensor as `like` holds it: the part of this rank where that one is sharded."""
        return tensor

    def weights_writer(self, module: Any) -> Callable[[Path], None]:
        """What writes a model's weights folder; every rank has to ask for it, and rank 0 alone may call it."""

        def write(folder: Path) -> None:
            module.save_pretrained(folder)

        return write


class DataParallel(Engine):
    """Every rank has all parameters, and gradients are averaged while the backward pass runs."""

    def __init__(self, strategy: Any, averaged: nn.Module | None, ranks: Ranks) -> None:
        super().__init__(strategy, averaged, ranks)
        device = next(strategy.parameters()).device
        options: dict[str, Any] = {_broadcast_option(): False}
        self._wrapped = nn.parallel.DistributedDataParallel(
            strategy,
            device_ids=None if device.type == "cpu" else [device],
            # Networks that are trained in turn, and parts that a clip doesn't reach, get none.
            find_unused_parameters=True,
            # What is remembered about the run is the same everywhere, and statistics are averaged after the step.
            **options,
        )

    def __call__(self, piece: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Through the wrapper, which watches the backward pass."""
        return self._wrapped(piece)

    def synchronised(self, now: bool) -> AbstractContextManager[Any]:
        """Without it gradients only add up here."""
        return nullcontext() if now else self._wrapped.no_sync()


def _broadcast_option() -> str:
    """What DistributedDataParallel calls its broadcasting of buffers; the older name warns in newer versions."""
    known = inspect.signature(nn.parallel.DistributedDataParallel.__init__).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"


class Sharded(Engine):
    """Every rank has a part of each parameter, and all of them only while a piece is worked on."""

    def __init__(self, strategy: Any, averaged: nn.Module | None, ranks: Ranks) -> None:
        from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415
        from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

        super().__init__(strategy, averaged, ranks)
        self._blanks: dict[int, Any] = {}
        device = next(strategy.parameters()).device
        self._loss_scale = ranks.count / _mean_of_ones(ranks.count, device)
        mesh = init_device_mesh(device.type, (ranks.count,))
        roots: list[tuple[Any, Any]] = [(strategy, strategy.model), (averaged, averaged)]
        for root, model in roots:
            if root is None:
                continue
            # FSDP changes a module's class, and can't be copied: this is the form that weights are saved in.
            self._blanks[id(model)] = copy.deepcopy(model).to("meta")
            # A single number can't be cut.
            numbers = {parameter for parameter in root.parameters() if parameter.ndim == 0}
            fully_shard(root, mesh=mesh, reshard_after_forward=False, ignored_params=numbers)

    @staticmethod
    def lay_out(model: Any) -> Any:
        """Only plainly laid out filters can be cut."""
        for parameter in model.parameters():
            parameter.data = parameter.data.contiguous()
        return model

    @contextmanager
    def synchronised(self, now: bool) -> Iterator[None]:
        """Without it gradients stay whole here, and add up."""
        self.strategy.set_requires_gradient_sync(now)
        yield

    @property
    def loss_scale(self) -> float:
        """As measured, since not every backend averages when FSDP asks it to."""
        return self._loss_scale

    def is_sharded(self, tensor: Tensor) -> bool:
        """All parameters but single numbers are, and what is made of them."""
        from torch.distributed.tensor import DTensor  # noqa: PLC0415

        return isinstance(tensor, DTensor)

    def finish_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Those of single numbers, which FSDP leaves alone."""
        for parameter in parameters:
            if not self.is_sharded(parameter) and parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad.div_(self.loss_scale)

    def gradient_norm(self, parameters: Iterable[Tensor]) -> Tensor:
        """Each rank knows the squares of its shards."""
        given = [each.grad for each in parameters if each.grad is not None]
        shards = [self.local(gradient) for gradient in given if self.is_sharded(gradient)]
        squares = nn.utils.get_total_norm(shards).square()
        dist.all_reduce(squares)
        rest = nn.utils.get_total_norm([gradient for gradient in given if not self.is_sharded(gradient)])
        return (squares + rest.to(squares.device).square()).sqrt()

    @contextmanager
    def whole(self, module: nn.Module) -> Iterator[None]:
        """The whole strategy, or the whole average."""
        root: Any = self.averaged if module is self.averaged else self.strategy
        root.unshard()
        try:
            yield
        finally:
            root.reshard()

    def local(self, tensor: Tensor) -> Tensor:
        """The shard."""
        return tensor.to_local() if self.is_sharded(tensor) else tensor  # type: ignore[attr-defined]

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """On rank 0; nothing on the others."""
        complete = {}
        for name, tensor in tensors.items():
            whole: Any = tensor
            gathered = whole.full_tensor() if self.is_sharded(tensor) else tensor
            # One at a time, and off the device at once: together they may be more than fits.
            if self.ranks.is_first:
                complete[name] = gathered.cpu()
        return complete

    def share_of(self, tensor: Tensor, like: Tensor) -> Tensor:
        """The shard that this rank has of `like`."""
        from torch.distributed.tensor import DTensor, Replicate  # noqa: PLC0415

        if not isinstance(like, DTensor):
            return tensor
        everywhere = DTensor.from_local(
            tensor.to(like.device), like.device_mesh, [Replicate()] * like.device_mesh.ndim, run_check=False
        )
        return everywhere.redistribute(placements=like.placements)

    def weights_writer(self, module: Any) -> Callable[[Path], None]:
        """Gathers the weights, and writes them by an unsharded copy of the model."""
        state = self.gather(module.state_dict())
        blank = self._blanks[id(module)]

        def write(folder: Path) -> None:
            blank.load_state_dict(state, assign=True)
            try:
                blank.save_pretrained(folder)
            finally:
                blank.to("meta")

        return write


def _mean_of_ones(count: int, device: torch.device) -> float:
    """1, or `count` where the backend adds up instead of averaging, as gloo in torch 2.7 does without a word."""
    mean = torch.empty(1, device=device)
    dist.reduce_scatter_tensor(mean, torch.ones(count, device=device), op=dist.ReduceOp.AVG)
    return float(mean)

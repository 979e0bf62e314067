# SPDX-License-Identifier: Apache-2.0
"""One step of training: gradients of a batch's parts, the same decision on all ranks, optimizer and moving average."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pcvideo.training.checkpoint import load_module, module_tensors, optimizer_tensors, restore_optimizer
from pcvideo.training.engine import choose_engine
from pcvideo.training.parameters import Frozen, check_patterns, check_rates, parameter_groups
from pcvideo.training.ranks import Ranks, split_evenly
from pcvideo.training.strategies import Strategy

__all__ = ["OPTIMIZERS", "PRECISIONS", "LossScale", "Outcome", "Stepper"]

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
_MODEL = "model."


@dataclass
class LossScale:
    """What a loss is multiplied by in float16, so that small gradients don't vanish.

    `torch.amp.GradScaler`'s rule: halved when a gradient overflows, doubled after 2000 steps without. Its class decides
    by each rank's own gradients; here the decision is that of all ranks, sharded ones too.
    """

    scale: float = 2.0**16
    good_steps: int = 0

    def update(self, overflowed: bool) -> None:
        """Told after each step."""
        self.good_steps = 0 if overflowed else self.good_steps + 1
        if overflowed:
            self.scale /= 2
        elif self.good_steps == 2000:
            self.scale, self.good_steps = self.scale * 2, 0


@dataclass(frozen=True)
class Outcome:
    """What a step came to, the same on all ranks.

    Attributes:
        scalars: what to log: the strategy's logs (means over the clips), "loss", "gradient_norm".
        is_good: loss and gradient were finite, and the optimizer moved.
        overflowed: only the float16 gradient was not finite; a smaller loss scale mends that.
    """

    scalars: dict[str, float]
    is_good: bool
    overflowed: bool = False

    def told(self, step: str, clips: Sequence[int]) -> str:
        """The step, its loss and its clips in words."""
        loss, norm = self.scalars["loss"], self.scalars["gradient_norm"]
        return f"{step}: loss {loss:g}, gradient norm {norm:g} on the training clips {list(clips)}"


class Stepper:
    """Model, strategy, optimizer and moving average, spread over ranks; called with a batch, it makes a step.

    Args:
        model: what is trained, on its device.
        strategy: turns batches into losses.
        ranks: that train together.
        settings: those of `Trainer` by name, checked.
    """

    def __init__(self, model: Any, strategy: Strategy, ranks: Ranks, settings: Mapping[str, Any]) -> None:
        self.settings, self.ranks = settings, ranks
        kind = choose_engine(settings["engine"], ranks)
        names = [name for name, _ in model.named_parameters()]
        self.frozen = Frozen(model, check_patterns("freeze", settings["freeze"], names))
        rates = {_MODEL + pattern: factor for pattern, factor in check_rates(settings["rates"], names).items()}
        self.device = next(iter(model.parameters())).device if names else torch.device("cpu")
        self.strategy: Any = strategy.attach(kind.lay_out(model)).to(self.device)
        self.model = model
        ranks.copy_from_first(self.strategy)
        self.average: Any = None
        if settings["ema"] is not None:
            self.average = AveragedModel(model, multi_avg_fn=self._move_average, use_buffers=True)
        self.engine = kind(self.strategy, None if self.average is None else self.average.module, ranks)
        rates |= check_rates(self.strategy.rates, [name for name, _ in self.strategy.named_parameters()])
        self.optimizer = OPTIMIZERS[settings["optimizer"]](
            parameter_groups(self._trained(), rates, apart=self.engine.is_sharded),
            lr=settings["lr"],
            weight_decay=settings["weight_decay"],
        )
        self.loss_scale = LossScale() if settings["precision"] == "float16" else None
        self._compiled_step = torch.compile(model.step) if settings["compile"] else None

    def __call__(self, step: int, batch: Tensor, rate: float) -> Outcome:
        """Make step number `step` (from 0) of a batch, of which this rank is given its share (B, T, C, H, W)."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.strategy.train()
        self.strategy.begin(step)
        self.frozen.hold()
        buffers = [buffer.clone() for buffer in self.strategy.buffers()]
        self.optimizer.zero_grad(set_to_none=True)
        sums = self.accumulate(batch, total=self.settings["batch_size"], parts=self.settings["accumulate"])
        outcome = self._judge(sums, self._finish_gradients())
        if outcome.is_good:
            self.optimizer.step()
            self.engine.average_statistics()
            if self.average is not None:
                self.average.update_parameters(self.model)
        else:
            # Running statistics have seen the bad batch, and would never forget a NaN.
            for buffer, before in zip(self.strategy.buffers(), buffers, strict=True):
                buffer.copy_(before)
        if self.loss_scale is not None:
            self.loss_scale.update(outcome.overflowed)
        return outcome

    def accumulate(self, batch: Tensor, *, total: int, parts: int) -> dict[str, float]:
        """Add up the gradients of a batch, of `total` clips on all ranks together, in so many parts.

        Returns:
            this rank's contribution to each scalar to log.
        """
        counts = [len(part) for part in split_evenly(range(len(batch)), parts)]
        logged: list[tuple[float, dict[str, Tensor]]] = []
        with self._with_compiled_step():
            for place, part in enumerate(batch.split(counts), start=1):
                share = len(part) / total
                weight = share if self.strategy.reduction == "mean" else 1.0
                pieces = list(self.strategy.pieces(part))
                for number, piece in enumerate(pieces, start=1):
                    with self.engine.synchronised(place == len(counts) and number == len(pieces)):
                        with self.autocast():
                            loss, logs = self.engine(piece)
                        self._scaled(loss, weight * self.engine.loss_scale).backward()
                    logged += [(share, logs), (weight, {"loss": loss.detach()})]
        sums: Counter[str] = Counter()
        for weight, scalars in logged:
            sums.update({name: weight * float(value) for name, value in scalars.items()})
        return dict(sums)

    def autocast(self) -> AbstractContextManager[Any]:
        """Within, what gains by it is computed in the precision of the settings."""
        dtype = PRECISIONS[self.settings["precision"]]
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    @property
    def weights(self) -> Any:
        """The model that one would use: the averaged one where there is averaging."""
        return self.model if self.average is None else self.average.module

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of a checkpoint, complete, on rank 0; every rank has to call it."""
        tensors = module_tensors(self.strategy, "strategy")
        tensors |= optimizer_tensors(self.optimizer, "optimizer", self._names())
        if self.average is not None:
            tensors |= module_tensors(self.average, "average")
        return self.engine.gather(tensors)

    def load(self, tensors: Mapping[str, Tensor], *, averaged: bool, source: Path) -> None:
        """Take up what `tensors` gave; without `averaged`, the average starts from the plain weights.

        Raises:
            ValueError: they are of another model or strategy; then nothing is changed.
        """
        load_module(self.strategy, tensors, "strategy", source=source, share_of=self.engine.share_of)
        if self.average is not None and averaged:
            load_module(self.average, tensors, "average", source=source, share_of=self.engine.share_of)
        elif self.average is not None:
            self._restart_average()
        restore_optimizer(self.optimizer, tensors, "optimizer", self._names(), share_of=self.engine.share_of)

    def wake(self) -> None:
        """Let all that is trained take gradients again, or what a strategy has resting would count as frozen later."""
        for _, parameter in self._trained():
            parameter.requires_grad_(True)

    def _trained(self) -> list[tuple[str, Any]]:
        """Parameters that the optimizer moves, by their names in the strategy."""
        frozen = {_MODEL + name for name in self.frozen.names}
        return [(name, each) for name, each in self.strategy.named_parameters() if name not in frozen]

    def _names(self) -> dict[int, str]:
        return {id(parameter): name for name, parameter in self.strategy.named_parameters()}

    def _scaled(self, loss: Tensor, weight: float) -> Tensor:
        weight *= 1.0 if self.loss_scale is None else self.loss_scale.scale
        return loss if weight == 1 else loss * weight

    def _finish_gradients(self) -> float:
        """Unscale and clip the gradients; gives the norm that they had before."""
        parameters = [parameter for _, parameter in self._trained()]
        self.engine.finish_gradients(parameters)
        gradients = [self.engine.local(each.grad) for each in parameters if each.grad is not None]
        if self.loss_scale is not None:
            for gradient in gradients:
                gradient.div_(self.loss_scale.scale)
        norm = self.engine.gradient_norm(parameters)
        if self.settings["clip_norm"] is not None:
            factor = (self.settings["clip_norm"] / (norm + 1e-6)).clamp(max=1.0)
            for gradient in gradients:
                gradient.mul_(factor)
        return float(norm)

    def _judge(self, sums: dict[str, float], norm: float) -> Outcome:
        total: Counter[str] = Counter()
        gathered = self.ranks.gather((sums, norm))
        for contribution, _ in gathered:
            total.update(contribution)
        norm = max((each for _, each in gathered), key=_badness)
        scalars = {**total, "gradient_norm": norm}
        has_loss, has_gradient = math.isfinite(scalars["loss"]), math.isfinite(norm)
        overflowed = self.loss_scale is not None and has_loss and not has_gradient and self.loss_scale.scale > 1
        if self.loss_scale is not None:
            scalars["loss_scale"] = self.loss_scale.scale
        return Outcome(scalars, has_loss and has_gradient, overflowed)

    def _move_average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], count: Any) -> None:
        move = get_ema_multi_avg_fn(self.settings["ema"])
        move([self.engine.local(each) for each in averaged], [self.engine.local(each) for each in current], count)

    @torch.no_grad()
    def _restart_average(self) -> None:
        for averaged, current in zip(self.average.module.parameters(), self.model.parameters(), strict=True):
            self.engine.local(averaged).copy_(self.engine.local(current))
        for averaged, current in zip(self.average.module.buffers(), self.model.buffers(), strict=True):
            averaged.copy_(current)
        self.average.n_averaged.zero_()

    @contextmanager
    def _with_compiled_step(self) -> Iterator[None]:
        # In place for these calls only: an attribute that stays would go along into copies of the model.
        before = vars(self.model).get("step")
        if self._compiled_step is not None:
            self.model.step = self._compiled_step
        try:
            yield
        finally:
            if self._compiled_step is not None:
                del self.model.step
                if before is not None:
                    self.model.step = before


def _badness(norm: float) -> tuple[bool, float]:
    return not math.isfinite(norm), 0.0 if math.isnan(norm) else norm

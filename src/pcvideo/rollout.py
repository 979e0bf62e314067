# SPDX-License-Identifier: Apache-2.0
"""The one time loop: teacher forcing, self-feeding, long horizons and inference differ only in what is fed.

A predictor anticipates, then corrects: `step(frame, state)` corrects with the frame that came (or, where none came,
with the prediction itself) and anticipates the next one. So the prediction made at step t is of frame t + 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as checkpoint_step

from pcvideo._checks import check_int

__all__ = [
    "Feed",
    "Rollout",
    "Steps",
    "feed_context",
    "feed_frames",
    "flatten_state",
    "map_state",
    "rollout",
    "unflatten_state",
    "unroll",
]

Feed = Callable[[int, Tensor | None, Tensor | None], Tensor | None]
"""`feed(time, frame, prediction)`: what the model is corrected with at `time`.

`frame` (B, C, H, W) is the true frame, None past the end of the clip; `prediction` is the model's prediction of it,
None at time 0. Returning None feeds the model's own prediction.
"""


class Steps(Protocol):
    """What the time loop asks of a model."""

    def init_state(self, like: Tensor) -> Any:
        """The state before the first frame."""

    def step(self, frame: Tensor | None, state: Any) -> tuple[Sequence[Tensor], Any]:
        """Correct with a frame, anticipate the next one."""


class Rollout(NamedTuple):
    """What a rollout gives: `pyramids[t][0]` predicts frame t + 1, `pyramids[t][l]` what level l stands for."""

    pyramids: list[Sequence[Tensor]]
    state: Any


def feed_frames(time: int, frame: Tensor | None, prediction: Tensor | None) -> Tensor | None:
    """Feed the true frames while there are any, then the model's own predictions."""
    return frame


def feed_context(context: int) -> Feed:
    """Feed the first `context` true frames only, at least one, then the model's own predictions."""
    check_int("context", context)

    def feed(time: int, frame: Tensor | None, prediction: Tensor | None) -> Tensor | None:
        return frame if time < context else None

    return feed


def unroll(
    model: Steps,
    frames: Tensor,
    horizon: int = 1,
    *,
    feed: Feed = feed_frames,
    state: Any = None,
    checkpoint: bool = False,
) -> Iterator[tuple[Sequence[Tensor], Any]]:
    """Step through a clip and beyond it, one (pyramid, state) at a time, so that nothing is kept that isn't needed.

    Args:
        model: anything with `init_state` and `step`, and with `renew(state)` where a state holds what depends on the
            weights alone.
        frames: (B, T, C, H, W), T >= 1.
        horizon: how many frames beyond the clip are predicted, at least 1; T + horizon - 1 steps are made.
        feed: what the model is corrected with, see `Feed`.
        state: the state to go on from; None starts afresh.
        checkpoint: recompute each step's activations in the backward pass instead of keeping them.

    Raises:
        TypeError, ValueError: the horizon is no whole number of at least 1; raised when the first step is asked for.
    """
    check_int("horizon", horizon)
    length = frames.shape[1]
    state = model.init_state(frames[:, 0]) if state is None else getattr(model, "renew", _as_it_is)(state)
    prediction: Tensor | None = None
    for time in range(length + horizon - 1):
        frame = frames[:, time] if time < length else None
        fed = feed(time, frame, prediction)
        if checkpoint:
            twice = partial(_checkpoint_contexts, model)
            pyramid, state = checkpoint_step(model.step, fed, state, use_reentrant=False, context_fn=twice)
        else:
            pyramid, state = model.step(fed, state)
        prediction = pyramid[0]
        yield pyramid, state


def rollout(
    model: Steps,
    frames: Tensor,
    horizon: int = 1,
    *,
    feed: Feed = feed_frames,
    state: Any = None,
    checkpoint: bool = False,
) -> Rollout:
    """All pyramids of `unroll`, and the last state; the arguments are those of `unroll`."""
    pyramids = []
    for pyramid, last in unroll(model, frames, horizon, feed=feed, state=state, checkpoint=checkpoint):
        pyramids.append(pyramid)
        state = last
    return Rollout(pyramids, state)


def _as_it_is(state: Any) -> Any:
    return state


def _checkpoint_contexts(model: Any) -> tuple[Any, Any]:
    return contextlib.nullcontext(), _running_statistics_held(model)


@contextlib.contextmanager
def _running_statistics_held(model: Any) -> Iterator[None]:
    # Batch normalisation counts a step once, though its activations are computed twice.
    modules: Any = model.modules() if isinstance(model, nn.Module) else ()
    counting = [module for module in modules if getattr(module, "track_running_stats", False) and module.training]
    before = [(module.momentum, module.num_batches_tracked.clone()) for module in counting]
    for module in counting:
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, (momentum, count) in zip(counting, before, strict=True):
            module.momentum = momentum
            module.num_batches_tracked.copy_(count)


def map_state(change: Callable[[Tensor], Tensor], state: Any) -> Any:
    """The same nested tuples, with every tensor changed; None stays."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return change(state)
    parts = [map_state(change, part) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)


def flatten_state(state: Any, prefix: str = "state") -> dict[str, Tensor]:
    """The tensors of a state by name, as a safetensors file takes them."""
    if state is None:
        return {}
    if isinstance(state, Tensor):
        return {prefix: state}
    names = getattr(state, "_fields", range(len(state)))
    flat: dict[str, Tensor] = {}
    for name, part in zip(names, state, strict=True):
        flat |= flatten_state(part, f"{prefix}.{name}")
    return flat


def unflatten_state(template: Any, tensors: dict[str, Tensor], prefix: str = "state") -> Any:
    """A state of the template's form, dtypes and device from copies of named tensors.

    Raises:
        ValueError: a tensor is missing or of another shape, or the names belong to a state of another form.
    """
    expected = flatten_state(template, prefix)
    if expected.keys() != tensors.keys():
        missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
        raise ValueError(
            f"the saved state is of another model: missing {missing or 'nothing'}, unexpected {unexpected or 'nothing'}"
        )
    wrong = [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own.shape)}"
        for name, own in expected.items()
        if tensors[name].shape != own.shape
    ]
    if wrong:
        raise ValueError(f"the saved state is of another model or frame size: {'; '.join(wrong)}")
    # Copies, as the tensors of a file that was read are views of it. flatten_state and map_state visit the tensors in
    # the same order.
    values = iter([tensors[name].to(own.device, own.dtype, copy=True) for name, own in expected.items()])
    return map_state(lambda _: next(values), template)

# SPDX-License-Identifier: Apache-2.0
"""Metrics for each step of the horizon, exact over batches and ranks: sums and counts in float64, never mean of means.

How values that are no numbers are reported: a frame predicted exactly has an infinite PSNR, and then the mean is
infinite, which JSON has no word for. Such a mean is None here, never the mean over the other frames in its place; that
one stands beside it under its own name, `finite_mean`, with the count of frames it leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from pcvideo._checks import check_keys, check_values, describe
from pcvideo.metrics._errors import MetricUnavailable
from pcvideo.metrics.protocols import Metric, Protocol, get_protocol

__all__ = ["PerStep", "evaluate_frames"]

# What is kept for each metric and step: the sum over finite values, and how many values were of which kind.
_SUM, _FINITE, _INFINITE, _NAN = range(4)


class PerStep:
    """Accumulates the metrics of a protocol over any number of batches.

    A metric that cannot be computed here (LPIPS without its backbone, SSIM on frames smaller than its window) is asked
    once, then stays None with its reason in `unavailable`.

    Args:
        protocol: a `Protocol` or the name of one, for frames in [0, 1]; or metric functions by name, each mapping a
            pair of clips (B, T, C, H, W) to (B, T) values, for frames of any range.

    Raises:
        ValueError: no protocol has that name, or there is no metric in it.
    """

    def __init__(self, protocol: str | Protocol | Mapping[str, Metric] = "standard") -> None:
        self._checks_range = not isinstance(protocol, Mapping)
        if isinstance(protocol, Mapping):
            protocol = Protocol("custom", dict(protocol), "metric functions handed in")
        self.protocol = get_protocol(protocol)
        if not self.protocol.metrics:
            raise ValueError("protocol must hold at least one metric, got none")
        self.reset()

    def reset(self) -> None:
        """Forget everything that was accumulated."""
        self.samples = 0
        self.unavailable: dict[str, str] = {}
        self._totals: dict[str, Tensor] = {}  # metric -> (4, T) float64
        self._horizon: int | None = None
        self._is_reduced = False

    @torch.no_grad()
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: (B, T, C, H, W) or (B, T, C, D, H, W), float; NaN is counted, not refused.
            target: the same shape; in [0, 1] where the metrics are a protocol's. T is the same in every batch.

        Raises:
            TypeError: not float tensors.
            ValueError: the shapes do not fit each other or earlier batches, or the target's values are out of range.
            RuntimeError: the sums already run over all ranks; `reset` begins anew.
        """
        self._check_open("update")
        self._check_batch(prediction, target)
        # All metrics first, then the sums: one that raises leaves nothing half added.
        values = {name: self._score(name, prediction, target) for name in self._available()}
        for name, scores in values.items():
            if scores is not None:
                self._add(name, _count(scores.to("cpu", torch.float64)))
        self.samples += prediction.shape[0]
        self._horizon = prediction.shape[1]

    def merge(self, other: PerStep) -> None:
        """Add what another accumulator of the same metrics holds.

        Raises:
            ValueError: its metrics or its horizon differ.
            RuntimeError: the sums already run over all ranks.
        """
        self._check_open("merge")
        self._merge_state(other.state_dict())

    def all_reduce(self) -> PerStep:
        """Add up over all ranks of the default process group, in place; every rank then holds the same totals.

        Ranks may have seen any number of samples, none too. Without a process group nothing changes. To be called
        once, after the last batch: `update`, `merge` and a second `all_reduce` are then refused until `reset`.

        Returns:
            This accumulator.
        """
        self._check_open("all_reduce")
        if dist.is_available() and dist.is_initialized():
            states: list[Any] = [None] * dist.get_world_size()
            # A few hundred numbers and the reasons: objects, so that ranks may differ in what they could compute.
            dist.all_gather_object(states, self.state_dict())
            self.reset()
            for state in states:
                self._merge_state(state)
            self._is_reduced = True
        return self

    def state_dict(self) -> dict[str, Any]:
        """All that was accumulated, as JSON-able numbers and strings; `load_state_dict` takes it back, exactly."""
        return {
            "protocol": self.protocol.name,
            "samples": self.samples,
            "horizon": self._horizon,
            "unavailable": dict(self.unavailable),
            "totals": {name: total.tolist() for name, total in self._totals.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace what was accumulated by `state`.

        Raises:
            ValueError: it belongs to another protocol or to other metrics; nothing is changed then.
        """
        self._check_state(state)
        self.reset()
        self._merge_state(state)

    def compute(self) -> dict[str, dict[str, Any] | None]:
        """The means so far, JSON-able.

        Returns:
            For each metric `{"mean": float, "per_step": [float, ...]}`: over samples for each step, then over steps.
            None for a metric in `unavailable`. Where values were infinite or NaN, the means they enter are None, and
            the entry also holds `"finite_mean"`, `"infinite"` and `"nan"` (numbers of frames) and `"reason"`.

        Raises:
            ValueError: nothing was added yet.
        """
        if self.samples == 0:
            raise ValueError("PerStep holds no samples yet; call update(prediction, target) before compute()")
        return {name: _figures(self._totals[name]) if name in self._totals else None for name in self.protocol.metrics}

    def report(self) -> dict[str, Any]:
        """`compute()` with what must stand beside it: the protocol, the sample count, why a metric is None."""
        return {
            "protocol": self.protocol.name,
            "samples": self.samples,
            "metrics": self.compute(),
            "unavailable": dict(self.unavailable),
        }

    def _available(self) -> list[str]:
        return [name for name in self.protocol.metrics if name not in self.unavailable]

    def _score(self, name: str, prediction: Tensor, target: Tensor) -> Tensor | None:
        """The metric's values (B, T), or None where it turns out to be unavailable."""
        try:
            values = self.protocol.metrics[name](prediction, target)
        except (MetricUnavailable, ImportError) as error:
            self._drop(name, str(error))
            return None
        if not isinstance(values, Tensor) or values.shape != prediction.shape[:2]:
            raise ValueError(
                f"the metric {name!r} must return one value per frame, shape {tuple(prediction.shape[:2])}, "
                f"got {describe(values)}"
            )
        return values

    def _drop(self, name: str, reason: str) -> None:
        """Give a metric up: a mean over a part of the batches would not be the mean."""
        self.unavailable.setdefault(name, reason)
        self._totals.pop(name, None)

    def _add(self, name: str, total: Tensor) -> None:
        self._totals[name] = self._totals[name] + total if name in self._totals else total

    def _merge_state(self, state: Mapping[str, Any]) -> None:
        self._check_state(state)
        horizon = state["horizon"]
        if None not in (self._horizon, horizon) and self._horizon != horizon:
            raise ValueError(f"the horizons to merge must be equal, got {self._horizon} and {horizon}")
        self._horizon = self._horizon or horizon
        self.samples += state["samples"]
        for name, total in state["totals"].items():
            if name not in self.unavailable:
                self._add(name, torch.tensor(total, dtype=torch.float64))
        for name, reason in state["unavailable"].items():
            self._drop(name, reason)

    def _check_state(self, state: Mapping[str, Any]) -> None:
        check_keys("the state of PerStep", state, ("protocol", "samples", "horizon", "unavailable", "totals"))
        if state["protocol"] != self.protocol.name:
            raise ValueError(
                f"the state belongs to the protocol {state['protocol']!r}, this PerStep to {self.protocol.name!r}"
            )
        check_keys("the state of PerStep", [*state["totals"], *state["unavailable"]], tuple(self.protocol.metrics))

    def _check_open(self, action: str) -> None:
        if self._is_reduced:
            raise RuntimeError(
                f"{action}() after all_reduce() would count samples twice; call reset() first, or all_reduce() last"
            )

    def _check_batch(self, prediction: Tensor, target: Tensor) -> None:
        for name, frames in (("prediction", prediction), ("target", target)):
            if not isinstance(frames, Tensor) or not frames.is_floating_point():
                raise TypeError(f"{name} must be a float tensor (B, T, C, H, W), got {describe(frames)}")
        if prediction.shape != target.shape or prediction.ndim not in (5, 6) or 0 in prediction.shape:
            raise ValueError(
                f"prediction and target must both be (B, T, C, H, W), or volumes (B, T, C, D, H, W), and not empty, "
                f"got {tuple(prediction.shape)} and {tuple(target.shape)}"
            )
        if self._horizon not in (None, prediction.shape[1]):
            raise ValueError(f"every batch must have the same horizon T={self._horizon}, got {prediction.shape[1]}")
        if self._checks_range:
            check_values("target", target)


def evaluate_frames(
    prediction: Tensor, target: Tensor, protocol: str | Protocol | Mapping[str, Metric] = "standard"
) -> dict[str, Any]:
    """Score one batch of clips: `PerStep(protocol)`, one `update`, its `report`.

    Args:
        prediction: (B, T, C, H, W), float.
        target: the same shape, in [0, 1].
        protocol: see `PerStep`.

    Returns:
        `{"protocol", "samples", "metrics": {name: {"mean", "per_step"} or None}, "unavailable": {name: reason}}`.

    Raises:
        TypeError, ValueError: as `PerStep` and `PerStep.update`.
    """
    scores = PerStep(protocol)
    scores.update(prediction, target)
    return scores.report()


def _count(values: Tensor) -> Tensor:
    """(B, T) values to (4, T): their finite sum, and the numbers of finite, infinite and NaN ones."""
    finite = values.isfinite()
    parts = (values.where(finite, 0).sum(0), finite.sum(0), values.isinf().sum(0), values.isnan().sum(0))
    return torch.stack([part.double() for part in parts])


def _figures(total: Tensor) -> dict[str, Any]:
    """One metric's entry of `PerStep.compute` from its (4, T) totals."""
    odd = total[_INFINITE] + total[_NAN]
    means = zip(total[_SUM].tolist(), total[_FINITE].tolist(), odd.tolist(), strict=True)
    per_step = [value / count if not others else None for value, count, others in means]
    infinite, nan = int(total[_INFINITE].sum()), int(total[_NAN].sum())
    if not infinite + nan:
        return {
            "mean": math.fsum(value for value in per_step if value is not None) / len(per_step),
            "per_step": per_step,
        }
    finite = int(total[_FINITE].sum())
    return {
        "mean": None,
        "per_step": per_step,
        "finite_mean": float(total[_SUM].sum()) / finite if finite else None,
        "infinite": infinite,
        "nan": nan,
        "reason": f"{infinite} frames scored infinity (as PSNR does where frames are identical), {nan} scored NaN",
    }

# SPDX-License-Identifier: Apache-2.0
"""Figures of a model beside copy-last and black frames, by protocol, as JSON and as a table."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from pcvideo.metrics import (
    BASELINES,
    PROTOCOLS,
    Metric,
    MetricUnavailable,
    PerStep,
    Protocol,
    get_protocol,
)

__all__ = ["LPIPS_CHOICES", "Scores", "add_metric_flags", "nothing_to_compare", "table"]

LPIPS_CHOICES = ("auto", "download", "off")
MODEL = "metrics"
_OFFLINE = "PCVIDEO_OFFLINE"
_COLUMN = 12


def add_metric_flags(parser: argparse.ArgumentParser, *, protocols: Sequence[str]) -> None:
    """Add `--protocol` and `--lpips`."""
    parser.add_argument(
        "--protocol",
        action="append",
        choices=tuple(PROTOCOLS),
        help=f"how the metrics are computed; may be given several times (default: {', '.join(protocols)})",
    )
    parser.add_argument(
        "--lpips",
        choices=LPIPS_CHOICES,
        default="auto",
        help="auto: where its backbone is on this machine already; download: fetch that (233 MB); off: leave it out",
    )


class Scores:
    """Accumulates the metrics of a model and of the baselines over batches.

    Args:
        protocols: names out of `pcvideo.metrics.PROTOCOLS`.
        lpips: one of `LPIPS_CHOICES`; what can't be had is null with the reason.
        others: names of further predictions to score beside the model's.
    """

    def __init__(self, protocols: Sequence[str], *, lpips: str = "auto", others: Sequence[str] = ()) -> None:
        series = (MODEL, *others, *BASELINES)
        chosen = [_with_lpips(get_protocol(name), lpips) for name in dict.fromkeys(protocols)]
        self._scores = {protocol.name: {name: PerStep(protocol) for name in series} for protocol in chosen}

    def update(self, context: Tensor, truth: Tensor, predictions: Mapping[str, Tensor]) -> None:
        """Add a batch: context (B, T, C, H, W), truth and predictions (B, horizon, C, H, W), by name, on one device.

        The model's own predictions are called "metrics".
        """
        horizon = truth.shape[1]
        everything = dict(predictions) | {name: make(context, horizon) for name, make in BASELINES.items()}
        for scores in self._scores.values():
            for name, per_step in scores.items():
                per_step.update(everything[name], truth)

    def report(self) -> dict[str, Any]:
        """By protocol: the means `{"metrics", "copy_last", "black"}`, the same `per_step`, why a value is null."""
        return {name: _protocol_report(scores) for name, scores in self._scores.items()}


def nothing_to_compare(protocols: Sequence[str], reason: str) -> dict[str, Any]:
    """A report of the same form where there is no truth."""
    series = (MODEL, *BASELINES)
    empty = dict.fromkeys(series) | {"per_step": dict.fromkeys(series), "unavailable": {"metrics": reason}}
    return {name: dict(empty) for name in dict.fromkeys(protocols)}


def table(report: Mapping[str, Any], *, model: str = "model") -> str:
    """A report as lines of text: a block per protocol, a line per metric, a column for each of model and baselines."""
    blocks = []
    for name, entry in report.items():
        columns = [key for key in entry if key not in ("per_step", "unavailable")]
        titles = [model if key == MODEL else key.replace("_", "-") for key in columns]
        metrics = list(entry[MODEL] or {})
        width = max([len(name), *(len(metric) + 2 for metric in metrics)])
        lines = [name.ljust(width) + "".join(title.rjust(max(_COLUMN, len(title) + 2)) for title in titles)]
        for metric in metrics:
            values = [_number(entry[key][metric]).rjust(max(_COLUMN, len(title) + 2)) for key, title in zip(
                columns, titles, strict=True
            )]  # fmt: skip
            lines.append(f"  {metric}".ljust(width) + "".join(values))
        lines += [f"  {metric}: {reason}" for metric, reason in entry["unavailable"].items()]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) >= 100 else f"{value:.4g}"


def _protocol_report(scores: Mapping[str, PerStep]) -> dict[str, Any]:
    means: dict[str, Any] = {}
    per_step: dict[str, Any] = {}
    unavailable: dict[str, str] = {}
    for series, accumulated in scores.items():
        report = accumulated.report()
        figures = report["metrics"]
        means[series] = {name: figure and figure["mean"] for name, figure in figures.items()}
        per_step[series] = {name: figure and figure["per_step"] for name, figure in figures.items()}
        odd = {name: figure["reason"] for name, figure in figures.items() if figure and "reason" in figure}
        for name, reason in (report["unavailable"] | odd).items():
            # A metric that nobody can have is told once.
            if unavailable.get(name) != reason:
                unavailable[name if series == MODEL else f"{series}/{name}"] = reason
    return {**means, "per_step": per_step, "unavailable": unavailable}


def _with_lpips(protocol: Protocol, lpips: str) -> Protocol:
    """The protocol, with LPIPS left out, or kept from the network."""
    if lpips == "download":
        return protocol
    change: Callable[[Metric], Metric] = _left_out if lpips == "off" else _from_this_machine
    metrics = {name: change(metric) if "lpips" in name else metric for name, metric in protocol.metrics.items()}
    return Protocol(protocol.name, metrics, protocol.description)


def _left_out(metric: Metric) -> Metric:
    def refuse(prediction: Tensor, target: Tensor) -> Tensor:
        raise MetricUnavailable("left out by --lpips off")

    return refuse


def _from_this_machine(metric: Metric) -> Metric:
    """LPIPS downloads its backbone on first use; a command that was not asked to must not reach for the network."""

    def score(prediction: Tensor, target: Tensor) -> Tensor:
        try:
            with _offline():
                return metric(prediction, target)
        except MetricUnavailable as error:
            if _OFFLINE not in str(error):
                raise
            raise MetricUnavailable("its backbone is not on this machine; --lpips download fetches it") from error

    return score


@contextmanager
def _offline() -> Iterator[None]:
    previous = os.environ.get(_OFFLINE)
    os.environ[_OFFLINE] = "1"
    try:
        yield
    finally:
        if previous is None:
            del os.environ[_OFFLINE]
        else:
            os.environ[_OFFLINE] = previous

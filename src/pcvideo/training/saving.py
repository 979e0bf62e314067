# SPDX-License-Identifier: Apache-2.0
"""What of a run goes to the disk and comes back: checkpoints and weights, written by rank 0 for all ranks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pcvideo.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from pcvideo.training.ranks import Ranks
from pcvideo.training.stepper import LossScale, Stepper

__all__ = ["Saver", "from_json_number", "to_json_number"]

logger = logging.getLogger(__name__)


class Saver:
    """Saves and loads a stepper's networks, optimizer and average; all ranks have to call each method together.

    Args:
        stepper: whose state it is.
        ranks: that train together.
        on_error: "raise", or "warn" to go on where something can't be written.
    """

    def __init__(self, stepper: Stepper, ranks: Ranks, *, on_error: str) -> None:
        self._stepper, self._ranks, self._on_error = stepper, ranks, on_error

    def save(self, folder: Path, step: int, state: Mapping[str, Any], *, keep: int, keep_every: int) -> Path | None:
        """Write a checkpoint into a folder of checkpoints, and return where; None where only a warning came of it."""
        tensors = self._stepper.tensors()
        write_weights = self._stepper.engine.weights_writer(self._stepper.weights)
        scale = self._stepper.loss_scale
        state = {**state, "loss_scale": None if scale is None else vars(scale)}

        def write() -> None:
            save_checkpoint(
                folder,
                step,
                state=state,
                tensors=tensors,
                save_weights=write_weights,
                keep=keep,
                keep_every=keep_every,
            )

        path = checkpoint_path(folder, step)
        return path if self._write(path, write) else None

    def save_weights(self, folder: Path) -> None:
        """Write the weights that one would use as a folder for `from_pretrained`."""
        write = self._stepper.engine.weights_writer(self._stepper.weights)
        self._write(folder, lambda: write(folder))

    def load(self, path: Path) -> dict[str, Any]:
        """Take up a checkpoint, and return its state.

        Raises:
            FileNotFoundError, WeightsCorruptError, ValueError: it is none, is broken, or is of another model.
        """
        state, tensors = self._ranks.from_first(lambda: load_checkpoint(path))
        averaged = state["settings"]["ema"] is not None
        self._stepper.load(tensors, averaged=averaged, source=path)
        if self._stepper.average is not None and not averaged:
            logger.warning("%s holds no averaged weights; averaging starts from its plain ones", path)
        if self._stepper.loss_scale is not None and state.get("loss_scale"):
            self._stepper.loss_scale = LossScale(**state["loss_scale"])
        return state

    def _write(self, path: Path, write: Callable[[], None]) -> bool:
        """Whether it was written; the same on all ranks."""

        def attempt() -> bool:
            try:
                write()
            except OSError as error:
                if self._on_error == "raise":
                    raise
                logger.warning("%s could not be written, what was there before stays: %s", path, error)
                return False
            return True

        return self._ranks.from_first(attempt)


def to_json_number(value: float) -> float | None:
    """JSON has no infinity, and gets None for it."""
    return None if value == float("inf") else value


def from_json_number(value: float | None) -> float:
    """What `to_json_number` was given."""
    return float("inf") if value is None else float(value)

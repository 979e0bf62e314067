# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and Ctrl-C ask the loop to save and stop; a second Ctrl-C stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["StopRequest", "TrainingStopped"]


class TrainingStopped(SystemExit):
    """A signal stopped the training after a checkpoint was saved; uncaught, the process exits with 128 + signal."""

    def __init__(self, number: int, checkpoint: str) -> None:
        super().__init__(128 + number)
        self.signal, self.checkpoint = signal.Signals(number), checkpoint

    def __str__(self) -> str:
        return f"stopped by {self.signal.name}; resume from {self.checkpoint}"


class StopRequest:
    """While entered, `number` is None until SIGTERM or SIGINT comes, and then the signal's number.

    Signals reach the main thread only: elsewhere this watches nothing.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.number = number

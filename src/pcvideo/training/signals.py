# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and Ctrl-C ask the loop to save and stop; a second Ctrl-C stops at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

__all__ = ["Interrupted", "StopRequest", "TrainingStopped"]

T = TypeVar("T")


class TrainingStopped(SystemExit):
    """A signal stopped the training after a checkpoint was saved; uncaught, the process exits with 128 + signal."""

    def __init__(self, number: int, checkpoint: str) -> None:
        super().__init__(128 + number)
        self.signal, self.checkpoint = signal.Signals(number), checkpoint

    def __str__(self) -> str:
        return f"stopped by {self.signal.name}; resume from {self.checkpoint}"


class Interrupted(BaseException):
    """A signal came, and what runs may be left as it is; no `Exception`, so that a data set's own handler lets it by.

    Attributes:
        number: the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class StopRequest:
    """While entered, a first SIGTERM or SIGINT raises `Interrupted`, but only where that loses nothing.

    It is raised within `interruptible()` and while `each()` waits, at once, also in the middle of a sleep; a signal
    that comes elsewhere (in a step, in a save) waits for the next such place. Signals reach the main thread only:
    elsewhere this watches nothing.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._may_raise = False
        self._process = os.getpid()
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
            # None stands for a handler that was not set from Python, and can't be put back from there.
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
        self._previous.clear()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within, a signal raises `Interrupted`; so does one that came before."""
        # The flag first: a signal between the two lines would be heard by neither the other way round.
        self._may_raise = True
        try:
            if self._number is not None:
                raise Interrupted(self._number)
            yield
        finally:
            self._may_raise = False

    def each(self, items: Iterator[T]) -> Iterator[T]:
        """The items, interruptible while the next one is waited for and not while one is worked on."""
        while True:
            with self.interruptible():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A forked data worker inherits this handler, and leaves what to do to its parent.
        if os.getpid() != self._process:
            return
        if number == signal.SIGINT and self._number is not None:
            raise KeyboardInterrupt
        self._number = number if self._number is None else self._number
        if self._may_raise:
            self._may_raise = False
            raise Interrupted(self._number)

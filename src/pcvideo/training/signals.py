# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and Ctrl-C ask the loop to save and stop, all ranks at the same step; a second Ctrl-C stops at once."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from pcvideo.training.ranks import Ranks

__all__ = ["Interrupted", "StopRequest", "TrainingStopped"]

logger = logging.getLogger(__name__)

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

    That is within `interruptible()` and while `each()` waits: there it comes at once, also in the middle of a sleep,
    and a signal that comes elsewhere (in a step, in a save) waits for the next such place. With many ranks all leave
    together, whichever the signal came to. Signals reach the main thread only: elsewhere this watches nothing.

    Args:
        ranks: that train together.
        grace: seconds after which a process that was told to stop, and still hangs (a save to a dead file server, a
            rank that waits for a dead one), is ended without a checkpoint; its exit status is the signal's all the
            same.

    Attributes:
        number: of the signal that came, None while none has.
    """

    def __init__(self, ranks: Ranks | None = None, *, grace: float = 25.0) -> None:
        self._ranks, self._grace = ranks or Ranks(), grace
        self.number: int | None = None
        self._may_raise = False
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}
        self._watch: _Watch | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
            self._watch = _Watch(self._grace)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            # None stands for a handler that was not set from Python, and can't be put back from there.
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
        self._previous.clear()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within, a signal ends the work; afterwards every rank raises `Interrupted` if one came to any of them.

        All ranks have to come here. A signal that came before is heard too.
        """
        try:
            # The flag first: a signal between the two lines would be heard by neither the other way round.
            self._may_raise = True
            if self.number is not None:
                raise Interrupted(self.number)
            yield
        except Interrupted:
            # The others may be at work still, and have to be told first.
            pass
        finally:
            self._may_raise = False
        self._agree()

    def each(self, items: Iterator[T]) -> Iterator[T]:
        """The items, interruptible while the next one is waited for and not while one is worked on.

        All ranks have to be given the same number of them.
        """
        while True:
            found: list[T] = []
            with self.interruptible():
                found.extend(item for item in (next(items, None),) if item is not None)
            if not found:
                return
            yield found[0]

    def _agree(self) -> None:
        number = self._ranks.highest(self.number or 0)
        if number:
            raise Interrupted(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A forked data worker inherits this handler, and leaves what to do to its parent.
        if os.getpid() != self._process:
            return
        if number == signal.SIGINT and self.number is not None:
            raise KeyboardInterrupt
        self.number = number if self.number is None else self.number
        if self._may_raise:
            self._may_raise = False
            raise Interrupted(self.number)


class _Watch:
    """Ends a process that a signal has told to stop and that still goes on after the grace time.

    A handler in Python waits until a call into compiled code returns, which may be never; what wakes this thread is
    written by the handler below it.
    """

    def __init__(self, grace: float) -> None:
        self._grace, self._done = grace, threading.Event()
        self._told, self._tell = socket.socketpair()
        self._tell.setblocking(False)
        self._previous = signal.set_wakeup_fd(self._tell.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._wait, name="pcvideo-grace", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no longer."""
        signal.set_wakeup_fd(self._previous)
        self._done.set()
        # Not only closed: a forked worker may hold the other copy.
        self._tell.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._tell.close()
        self._told.close()

    def _wait(self) -> None:
        while told := self._told.recv(1):
            number = told[0]
            if number not in (signal.SIGTERM, signal.SIGINT):
                continue
            if not self._done.wait(self._grace):
                logger.critical(
                    "still busy %g s after %s: stopping without a checkpoint of this step",
                    self._grace,
                    signal.Signals(number).name,
                )
                os._exit(128 + number)
            return

# SPDX-License-Identifier: Apache-2.0
"""What a run leaves to read: a CSV of every scalar, always; and whatever loggers there are are told the same."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from pcvideo import _files
from pcvideo.training.loggers import Logger

__all__ = ["RunLog"]

VALIDATION = "validation/"
_COLUMNS = ("step", "name", "value")


class RunLog:
    """Appends (step, name, value) rows to `log.csv`; rows after `step`, of a run that went further, are dropped.

    Args:
        folder: the run folder.
        step: the step that the run goes on from.
        validated: the last step whose validation counts; later ones are made and written again.
        loggers: opened here, and closed with it.
    """

    def __init__(self, folder: Path, *, step: int = 0, validated: int = 0, loggers: Sequence[Logger] = ()) -> None:
        self.path = folder / "log.csv"
        kept = [
            row
            for row in _complete_rows(self.path)
            if int(row[0]) <= (validated if row[1].startswith(VALIDATION) else step)
        ]
        # Aside and then moved over: a kill in between must not cost the rows of the run so far.
        with _files.written_aside(self.path) as temporary:
            _write_rows(temporary, [list(_COLUMNS), *kept])
        self._file = self.path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._loggers = tuple(loggers)
        for logger in self._loggers:
            logger.open(folder, step)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log scalars of a step, there to be read at once; floats are written so that they read back the same."""
        self._writer.writerows([step, name, repr(float(value))] for name, value in scalars.items())
        self._file.flush()
        for logger in self._loggers:
            logger.scalars(step, scalars)

    def close(self) -> None:
        """Close the file, and every logger, also where one of them fails."""
        with ExitStack() as stack:
            for logger in self._loggers:
                stack.callback(logger.close)
            self._file.close()


def _write_rows(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _complete_rows(path: Path) -> list[list[str]]:
    """The rows of a log, if there is one; what a killed run left half written is passed over."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    rows = csv.reader(line for line in lines if line.endswith("\n") and "\0" not in line)
    return [row for row in rows if len(row) == len(_COLUMNS) and row[0].isdigit()]

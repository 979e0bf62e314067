# SPDX-License-Identifier: Apache-2.0
"""What a run leaves to read: a CSV of every scalar, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from pcvideo import _files

__all__ = ["RunLog"]

VALIDATION = "validation/"
_COLUMNS = ("step", "name", "value")


class RunLog:
    """Appends (step, name, value) rows to `log.csv`; rows after `step`, of a run that went further, are dropped.

    Args:
        folder: the run folder.
        step: the step that the run goes on from.
        validated: the last step whose validation counts; later ones are made and written again.
        tensorboard: write event files too where tensorboard is installed.
    """

    def __init__(self, folder: Path, *, step: int = 0, validated: int = 0, tensorboard: bool = True) -> None:
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
        self._events = None
        if tensorboard and find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log scalars of a step, there to be read at once; floats are written so that they read back the same."""
        self._writer.writerows([step, name, repr(float(value))] for name, value in scalars.items())
        self._file.flush()
        if self._events is not None:
            for name, value in scalars.items():
                self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._events is not None:
            self._events.close()


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

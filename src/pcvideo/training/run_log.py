# SPDX-License-Identifier: Apache-2.0
"""What a run leaves to read: a CSV of every scalar, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

__all__ = ["RunLog"]

_COLUMNS = ("step", "name", "value")


class RunLog:
    """Appends (step, name, value) rows to `log.csv`; rows after `step`, of a run that went further, are dropped.

    Args:
        folder: the run folder.
        step: the step that the run goes on from.
        tensorboard: write event files too where tensorboard is installed.
    """

    def __init__(self, folder: Path, *, step: int = 0, tensorboard: bool = True) -> None:
        self.path = folder / "log.csv"
        rows = [row for row in _read(self.path) if int(row["step"]) <= step] if self.path.exists() and step else []
        self._file = self.path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(_COLUMNS)
        self._writer.writerows([row[column] for column in _COLUMNS] for row in rows)
        self._events = None
        if tensorboard and find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step or None)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log scalars of a step; floats are written so that they read back the same."""
        for name, value in scalars.items():
            self._writer.writerow([step, name, repr(float(value))])
            if self._events is not None:
                self._events.add_scalar(name, value, step)

    def flush(self) -> None:
        """Bring what was written to the disk."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._events is not None:
            self._events.close()


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        # A killed run may have left half a row.
        return [row for row in csv.DictReader(file) if all(row.get(column) for column in _COLUMNS)]

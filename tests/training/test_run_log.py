# SPDX-License-Identifier: Apache-2.0
"""The log of a run: readable at once, whole after a kill, without doubles after a resume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from training_helpers import read_log

from pcvideo import _files
from pcvideo.training import Logger, run_log
from pcvideo.training.run_log import RunLog


def make_log(folder: Path, text: str) -> None:
    (folder / "log.csv").write_text("step,name,value\r\n" + text, newline="")


def test_rows_are_on_the_disk_while_the_run_goes_on(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.write(1, {"loss": 0.1 + 0.2})
    [(step, name, value)] = read_log(tmp_path)
    assert (step, name, float(value)) == (1, "loss", 0.1 + 0.2)
    log.close()


def test_rows_after_the_step_that_a_run_goes_on_from_are_dropped(tmp_path: Path) -> None:
    make_log(tmp_path, "1,loss,0.5\r\n2,loss,0.4\r\n2,validation/mse,9.0\r\n3,loss,0.3\r\n10,loss,0.2\r\n")
    log = RunLog(tmp_path, step=2, validated=2)
    log.write(3, {"loss": 0.25})
    log.close()
    assert read_log(tmp_path) == [
        (1, "loss", "0.5"),
        (2, "loss", "0.4"),
        (2, "validation/mse", "9.0"),
        (3, "loss", "0.25"),
    ]


def test_a_validation_that_will_be_made_again_is_dropped(tmp_path: Path) -> None:
    make_log(tmp_path, "1,validation/mse,8.0\r\n2,loss,0.4\r\n2,validation/mse,9.0\r\n")
    RunLog(tmp_path, step=2, validated=1).close()
    assert read_log(tmp_path) == [(1, "validation/mse", "8.0"), (2, "loss", "0.4")]


@pytest.mark.parametrize("rest", ["2", "2,lo", "2,loss,0.12", "2,loss,\0\0\0\r\n", "\0\0\0\0"])
def test_what_a_kill_left_half_written_is_dropped(rest: str, tmp_path: Path) -> None:
    make_log(tmp_path, "1,loss,0.5\r\n" + rest)
    log = RunLog(tmp_path, step=2, validated=2)
    log.write(3, {"loss": 0.1})
    log.close()
    assert read_log(tmp_path) == [(1, "loss", "0.5"), (3, "loss", "0.1")]


def test_a_failure_while_the_log_is_rewritten_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_log(tmp_path, "1,loss,0.5\r\n")

    def full(path: Path, rows: object) -> None:
        path.write_text("ste")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_log, "_write_rows", full)
    with pytest.raises(OSError, match="No space"):
        RunLog(tmp_path, step=1)
    assert read_log(tmp_path) == [(1, "loss", "0.5")]
    assert not _files.remove_orphans(tmp_path)


def test_a_run_from_the_start_begins_a_new_log(tmp_path: Path) -> None:
    make_log(tmp_path, "1,loss,0.5\r\n")
    RunLog(tmp_path).close()
    assert read_log(tmp_path) == []


class Diary(Logger):
    """Writes down what it is told."""

    def __init__(self, *, fails: bool = False) -> None:
        self.told: list[Any] = []
        self.fails = fails

    def open(self, run_dir: Path, step: int) -> None:
        self.told.append(("open", run_dir, step))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.told.append((step, dict(values)))

    def close(self) -> None:
        self.told.append("close")
        if self.fails:
            raise RuntimeError("no network")


def test_every_logger_is_told_what_the_csv_holds(tmp_path: Path) -> None:
    diaries = Diary(), Diary()
    log = RunLog(tmp_path, step=2, validated=2, loggers=diaries)
    log.write(3, {"loss": 0.25, "rate": 1.0})
    log.close()
    assert read_log(tmp_path) == [(3, "loss", "0.25"), (3, "rate", "1.0")]
    for diary in diaries:
        assert diary.told == [("open", tmp_path, 2), (3, {"loss": 0.25, "rate": 1.0}), "close"]


def test_a_logger_that_fails_to_close_keeps_no_other_from_closing(tmp_path: Path) -> None:
    diaries = Diary(fails=True), Diary(), Diary(fails=True)
    log = RunLog(tmp_path, loggers=diaries)
    log.write(1, {"loss": 0.25})
    with pytest.raises(RuntimeError, match="no network"):
        log.close()
    assert [diary.told[-1] for diary in diaries] == ["close"] * 3
    assert read_log(tmp_path) == [(1, "loss", "0.25")]

# SPDX-License-Identifier: Apache-2.0
"""Whom `pcvideo train` tells as it goes: TensorBoard, Weights & Biases, and whoever looks at its pictures."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pcvideo._files import read_json, write_json
from pcvideo._optional import require
from pcvideo.training import Logger, TensorBoardLogger, Validation, WandbLogger
from pcvideo.training.loggers import default_loggers
from pcvideo.viz import ValidationPictures

__all__ = ["loggers_of", "pictures_of"]

_RUN_ID = "wandb.json"


@contextmanager
def loggers_of(settings: Mapping[str, Any], *, is_first: bool, resume: str | None) -> Iterator[list[Logger]]:
    """The loggers; what they log to is finished at the end.

    Args:
        settings: those of the command.
        is_first: of several processes, the first one alone logs.
        resume: what --resume says.

    Raises:
        ImportError: a package is missing that was asked for, with the command that installs it.
    """
    if not is_first:
        yield []
        return
    asked = settings["tensorboard"]
    loggers: list[Logger] = [*default_loggers()] if asked is None else [TensorBoardLogger()] if asked else []
    if settings["wandb"] is None:
        yield loggers
        return
    wandb = require("wandb", purpose="--wandb")
    run = wandb.init(
        project=settings["wandb"],
        id=_run_id(Path(settings["run_dir"]), resume),
        resume="allow",
        dir=settings["run_dir"],
        config=dict(settings),
    )

    def picture(path: Path) -> Any:
        return wandb.Video(str(path), format="gif") if path.suffix == ".gif" else wandb.Image(str(path))

    try:
        yield [*loggers, WandbLogger(run, picture=picture)]
    finally:
        run.finish()


def pictures_of(settings: Mapping[str, Any], channels: int) -> list[Callable[[Validation], None]]:
    """Callbacks that draw; none for frames that can't be drawn."""
    count = settings["pictures"]
    return [ValidationPictures(clips=count)] if count and channels in (1, 3) else []


def _run_id(run_dir: Path, resume: str | None) -> str:
    """The name by which W&B knows the run, the same when it goes on."""
    path = run_dir / _RUN_ID
    if resume is not None and path.is_file():
        return str(read_json(path)["id"])
    name = uuid.uuid4().hex[:12]
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(path, {"id": name})
    return name

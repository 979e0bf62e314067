# SPDX-License-Identifier: Apache-2.0
"""Loggers beside the CSV: TensorBoard's own reader finds every scalar and picture; W&B is told by its own signature."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from training_helpers import Clips, read_log, tiny_trainer

from pcvideo import training
from pcvideo.training import Logger, TensorBoardLogger, WandbLogger, loggers
from pcvideo.viz import ValidationPictures

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)


class RunObject:
    """Has the signature of a W&B run's `log`, and nothing else of it."""

    def __init__(self) -> None:
        self.rows: list[tuple[int | None, dict[str, Any]]] = []

    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        self.rows.append((step, data))


def events_of(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


@needs_tensorboard
def test_tensorboard_shows_each_step_of_a_resumed_run_once(tmp_path: Path) -> None:
    for start, steps, factor in ((0, (1, 2, 3), 1), (2, (3, 4), 10)):
        logger = TensorBoardLogger()
        logger.open(tmp_path, start)
        for step in steps:
            logger.scalars(step, {"loss": float(factor * step)})
        logger.close()
    events = events_of(tmp_path / "tensorboard")
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1), (2, 2), (3, 30), (4, 40)]


@needs_tensorboard
def test_tensorboard_gets_strips_and_animations_of_the_same_clip_at_each_validation(tmp_path: Path) -> None:
    pictures = ValidationPictures(clips=2)
    trainer = tiny_trainer(tmp_path, validate_every=4, callbacks=[pictures], loggers=[TensorBoardLogger()])
    trainer.fit(Clips(), Clips(4))
    events = events_of(tmp_path / "tensorboard")
    names = [f"forecast/{kind}-{clip}" for kind in ("animation", "strip") for clip in (0, 1)]
    assert sorted(events.Tags()["images"]) == names
    for name in names:
        shown = events.Images(name)
        assert [image.step for image in shown] == [4, 8]
        picture = Image.open(io.BytesIO(shown[0].encoded_image_string))
        assert (picture.width, picture.height) == (shown[0].width, shown[0].height)
        # Two frames of context and two of forecast.
        assert getattr(picture, "n_frames", 1) == (4 if "animation" in name else 1)
    assert {event.step for event in events.Scalars("validation/mse")} == {4, 8}


def test_a_run_object_is_told_every_scalar_by_step_and_the_pictures_that_it_can_take(tmp_path: Path) -> None:
    plain, with_pictures = RunObject(), RunObject()
    trainer = tiny_trainer(
        tmp_path,
        steps=2,
        validate_every=1,
        callbacks=[ValidationPictures(gif=False)],
        loggers=[WandbLogger(plain), WandbLogger(with_pictures, picture=lambda path: path.name)],
    )
    trainer.fit(Clips(), Clips(4))
    told = [(step, name, repr(value)) for step, data in plain.rows for name, value in data.items()]
    assert [row for row in told if row[1] != "seconds"] == read_log(tmp_path)
    # W&B drops what comes with a lower step than before.
    steps = [step for step, _ in with_pictures.rows]
    assert steps == sorted(steps)
    shown = [(step, data) for step, data in with_pictures.rows if "forecast/strip-0" in data]
    assert shown == [
        (1, {"forecast/strip-0": "step-00000001.png"}),
        (2, {"forecast/strip-0": "step-00000002.png"}),
    ]


def test_what_cannot_log_is_refused() -> None:
    with pytest.raises(TypeError, match=r"log\(values, step=\.\.\.\)"):
        WandbLogger(object())


def test_tensorboard_that_is_missing_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r'pip install "pcvideo\[train\]"'):
        TensorBoardLogger()
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    assert loggers.default_loggers() == ()


def test_without_loggers_the_csv_is_written_alone(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, steps=1, loggers=()).fit(Clips())
    assert not (tmp_path / "tensorboard").exists()
    assert read_log(tmp_path)


def test_a_logger_of_ones_own_needs_one_method(tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []

    class Losses(Logger):
        def scalars(self, step: int, values: Any) -> None:
            seen.extend((step, value) for name, value in values.items() if name == "loss")

    tiny_trainer(tmp_path, steps=3, loggers=[Losses()]).fit(Clips())
    assert [(step, repr(value)) for step, value in seen] == [
        (step, value) for step, name, value in read_log(tmp_path) if name == "loss"
    ]


def test_a_validation_outside_of_a_run_draws_without_loggers(tmp_path: Path) -> None:
    frames = torch.rand(1, 2, 1, 16, 16)
    validation = training.Validation(tmp_path, 3, {}, frames, frames, frames)
    ValidationPictures(gif=False)(validation)
    assert (tmp_path / "pictures" / "step-00000003.png").is_file()

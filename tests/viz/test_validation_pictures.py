# SPDX-License-Identifier: Apache-2.0
"""Pictures drawn at each validation: the right clips, under names that tell step and clip."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pcvideo.viz import ValidationPictures, strip


@dataclass
class Validated:
    """Has what `pcvideo.training.Validation` has."""

    run_dir: Path
    step: int = 40
    context: torch.Tensor = field(default_factory=lambda: torch.rand(3, 4, 1, 16, 16))
    prediction: torch.Tensor = field(default_factory=lambda: torch.rand(3, 2, 1, 16, 16))
    truth: torch.Tensor = field(default_factory=lambda: torch.rand(3, 2, 1, 16, 16))
    logged: list[tuple[str, str]] = field(default_factory=list)

    def log_picture(self, name: str, path: Path) -> None:
        assert path.is_file()
        self.logged.append((name, path.name))


def test_strips_and_animations_of_the_first_clips_are_drawn_and_logged(tmp_path: Path) -> None:
    validation = Validated(tmp_path)
    ValidationPictures(clips=2)(validation)
    assert validation.logged == [
        ("forecast/strip-0", "step-00000040.png"),
        ("forecast/animation-0", "step-00000040.gif"),
        ("forecast/strip-1", "step-00000040-1.png"),
        ("forecast/animation-1", "step-00000040-1.gif"),
    ]
    drawn = Image.open(tmp_path / "pictures" / "step-00000040-1.png")
    copied = validation.context[1, -1:].repeat(2, 1, 1, 1)
    expected = strip(validation.context[1], validation.prediction[1], truth=validation.truth[1], baseline=copied)
    assert np.array_equal(np.asarray(drawn), np.asarray(expected))


def test_a_forecast_beyond_the_range_of_frames_is_clamped(tmp_path: Path) -> None:
    validation = Validated(tmp_path, prediction=3 * torch.randn(3, 2, 1, 16, 16, dtype=torch.bfloat16))
    ValidationPictures(gif=False)(validation)
    assert [name for name, _ in validation.logged] == ["forecast/strip-0"]


def test_no_more_clips_are_drawn_than_there_are(tmp_path: Path) -> None:
    validation = Validated(tmp_path)
    ValidationPictures(clips=9, gif=False)(validation)
    assert len(validation.logged) == 3


@pytest.mark.parametrize(("options", "name"), [({"clips": 0}, "clips"), ({"gif": 1}, "gif"), ({"rate": 99}, "rate")])
def test_impossible_options_are_refused_by_name(options: dict[str, float], name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        ValidationPictures(**options)  # type: ignore[arg-type]

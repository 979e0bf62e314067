# SPDX-License-Identifier: Apache-2.0
"""Pictures of the same few validation clips again and again while a model is trained: how it gets better, to see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pcvideo._checks import check_bool, check_int, check_number
from pcvideo.viz.animate import save_comparison_gif
from pcvideo.viz.strips import save_strip

__all__ = ["ValidationPictures"]


class ValidationPictures:
    """A callback for `Trainer(callbacks=[...])`: strips and GIFs of the first validation clips, beside copy-last.

    They go to `pictures/` in the run folder, as `step-00000500.png` and `.gif`, with `-1`, `-2`, ... for further clips,
    and to the run's loggers (TensorBoard shows both) under a name that stays the same from step to step.

    Args:
        clips: how many, of the first batch that is validated on.
        gif: draw animations too.
        rate: their frames per second, up to 50.

    Raises:
        TypeError, ValueError: an argument out of its range or of another type.
    """

    def __init__(self, *, clips: int = 1, gif: bool = True, rate: float = 5) -> None:
        self.clips, self.gif = check_int("clips", clips), check_bool("gif", gif)
        self.rate = check_number("rate", rate, minimum=0.01, maximum=50)

    def __call__(self, validation: Any) -> None:
        """Draw a `pcvideo.training.Validation`.

        Raises:
            ValueError: frames with neither one nor three channels.
            OSError: the pictures can't be written.
        """
        stem = validation.run_dir / "pictures" / f"step-{validation.step:08d}"
        for index in range(min(self.clips, len(validation.prediction))):
            self._draw(validation, index, stem.with_name(stem.name + (f"-{index}" if index else "")))

    def _draw(self, validation: Any, index: int, stem: Path) -> None:
        context, truth = (frames[index].detach().float().cpu() for frames in (validation.context, validation.truth))
        prediction = validation.prediction[index].detach().float().cpu().clamp(0, 1)
        copy_last = context[-1:].expand_as(prediction)
        strip, animation = stem.with_suffix(".png"), stem.with_suffix(".gif")
        save_strip(strip, context, prediction, truth=truth, baseline=copy_last)
        validation.log_picture(f"forecast/strip-{index}", strip)
        if self.gif:
            save_comparison_gif(animation, context, prediction, truth, copy_last, rate=self.rate)
            validation.log_picture(f"forecast/animation-{index}", animation)

# SPDX-License-Identifier: Apache-2.0
"""Where a run can be followed beside its `log.csv`: TensorBoard, Weights & Biases, or a class of one method.

A logger of one's own is a subclass of `Logger` with one method:

    class Printed(Logger):
        def scalars(self, step, values):
            print(step, values)

    Trainer(..., loggers=[Printed()])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pcvideo._checks import describe
from pcvideo._optional import require

__all__ = ["Logger", "TensorBoardLogger", "WandbLogger", "default_loggers"]


class Logger:
    """What the trainer tells as it goes; a subclass overrides what it cares for.

    Of several processes, the first one alone calls its loggers. An error in one ends the run, as any other does.
    """

    def open(self, run_dir: Path, step: int) -> None:
        """The run begins, or goes on from `step`: what was logged of later ones will come again."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name, such as "loss" and "validation/mse"; a step may come more than once, with other names."""

    def picture(self, step: int, name: str, path: Path) -> None:
        """A picture (PNG) or animation (GIF) that was written into the run folder."""

    def close(self) -> None:
        """The run ends, or is stopped."""


class TensorBoardLogger(Logger):
    """Scalars, pictures and animations as TensorBoard shows them: `tensorboard --logdir RUN_DIR`.

    Event files go to `tensorboard/` in the run folder. An animation is an image summary with the GIF as it is, which
    the browser plays; so no video codec is needed.

    Raises:
        ImportError: tensorboard is missing, with the command that installs it.
    """

    def __init__(self) -> None:
        require("tensorboard", extra="train", purpose="TensorBoardLogger")
        self._events: Any = None

    def open(self, run_dir: Path, step: int) -> None:
        """Begin a new event file; TensorBoard forgets what older ones hold beyond `step`."""
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        self._events = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1 if step else None)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One curve for each name."""
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def picture(self, step: int, name: str, path: Path) -> None:
        """The file's own bytes; nothing where no run is open."""
        if self._events is None:
            return
        from PIL import Image  # noqa: PLC0415
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415

        with Image.open(path) as image:
            width, height = image.size
        encoded = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
        self._events.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=encoded)]), step)

    def close(self) -> None:
        """Write what is left."""
        if self._events is not None:
            self._events.close()
            self._events = None


class WandbLogger(Logger):
    """Passes everything on to a run of Weights & Biases, or to any object with its `log(values, step=...)`.

    The object is made and finished by whoever made it; this package never imports wandb by itself.

    Args:
        run: what `wandb.init(...)` returns.
        picture: makes of a PNG's or GIF's path what `log` takes, such as `lambda path: wandb.Image(str(path))`; None
            leaves pictures in the run folder.

    Raises:
        TypeError: `run` has no method `log`.
    """

    def __init__(self, run: Any, *, picture: Callable[[Path], Any] | None = None) -> None:
        if not callable(getattr(run, "log", None)):
            raise TypeError(f"run must have a method log(values, step=...), as wandb.init() gives, got {describe(run)}")
        self.run, self._picture = run, picture

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """All of a step at once."""
        self.run.log(dict(values), step=step)

    def picture(self, step: int, name: str, path: Path) -> None:
        """What `picture` makes of the file."""
        if self._picture is not None:
            self.run.log({name: self._picture(path)}, step=step)


def default_loggers() -> tuple[Logger, ...]:
    """TensorBoard where it is installed."""
    return (TensorBoardLogger(),) if find_spec("tensorboard") else ()

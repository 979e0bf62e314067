# SPDX-License-Identifier: Apache-2.0
"""What the commands share: the parser, the log, devices, models, forecasts with a progress bar, results as JSON."""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from pcvideo import hub
from pcvideo.models import Grey2RGB, Interpolator, Predictor
from pcvideo.rollout import unroll

__all__ = [
    "CommandParser",
    "add_command",
    "add_reading",
    "device_of",
    "forecast",
    "in_flags",
    "load_model",
    "logging_to_stderr",
    "one_line",
    "print_json",
    "set_threads",
    "size_note",
    "what_it_does",
]

# The library's errors say the mend in Python's words; these are the flags' words for it.
_IN_FLAGS = (
    (r"predict\(\.\.\., (\w+)=", r"\1="),
    (r"\bto_grey=True", "--to-grey"),
    (r"\bvalue_range=\(low, high\)", "--value-range LOW HIGH"),
    (r"""\b(on_error|layout|nan|resume|norm)=["']([\w-]+)["']""", r"--\1 \2"),
    (r"\bbatch_size=", "--batch "),
    (r"\baccumulate=", "--accumulate "),
    (r"\bcheckpoint=True\b", "--recompute"),
    (r"\bbatch_mean=True\b", "--batch-mean"),
    (r"\bfreeze=", "--freeze "),
    (r"\bextrapolate=True\b", "--extrapolate"),
    (r"\bresume=True\b", "--resume"),
    (r"^(part|resume) (is|and)\b", r"--\1 \2"),
    (r"^bit_depth\b", "--bit-depth"),
    (r"^out\b", "OUT"),
    (r"enhance\(folder, video\), without a doubler and a colouriser", "IN that folder, --no-double --no-colour"),
    (r"\brates has\b", "--rate has"),
    (r"\bfreeze has\b", "--freeze has"),
)


class CommandParser(argparse.ArgumentParser):
    """argparse's, with errors of one line that name the help, and no abbreviated flags."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.allow_abbrev = False

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], *, summary: str, description: str, epilog: str
) -> CommandParser:
    """Add a command and the flags that every command has."""
    parser: CommandParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("--verbose", action="store_true", help="say more on standard error")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    return parser


def add_reading(parser: argparse.ArgumentParser, title: str) -> Any:
    """Add the flags by which a clip is read, as a group that more can be added to."""
    group = parser.add_argument_group(title)
    group.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="resize to (default: its own size)")
    group.add_argument("--start", type=int, default=0, help="first frame (default: %(default)s)")
    group.add_argument("--stop", type=int, help="frame to stop before (default: the end)")
    group.add_argument(
        "--on-error", default="error", choices=("error", "skip", "repeat"), help="what to do with a broken frame"
    )
    group.add_argument("--layout", help="axes of an array, such as THWC")
    group.add_argument("--value-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="what becomes 0 and 1")
    return group


@contextmanager
def logging_to_stderr(*, verbose: bool) -> Iterator[None]:
    """Show the library's log on standard error: warnings, with `verbose` what it does as well."""
    logger = logging.getLogger("pcvideo")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogFormatter())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _LogFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        return message if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {message}"


def one_line(message: str) -> str:
    """A message without its line breaks."""
    return " ".join(message.split())


def in_flags(message: str) -> str:
    """A message of the library in the command line's words: `to_grey=True` is `--to-grey`."""
    for pattern, flag in _IN_FLAGS:
        message = re.sub(pattern, flag, message)
    return message.replace("--on_error", "--on-error")


def device_of(name: str | None) -> torch.device:
    """The device of that name; None takes a GPU if there is one.

    Raises:
        ValueError: there is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device must be cpu, cuda, cuda:1, mps or the like, got {name!r}") from error
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= counts.get(device.type, 1):
        raise ValueError(f"--device {name}: torch finds no such device here; take --device cpu")
    return device


def set_threads(threads: int | None) -> None:
    """Let torch compute with that many threads; None leaves its own choice."""
    if threads is not None:
        if threads < 1:
            raise ValueError(f"--threads must be at least 1, got {threads}")
        torch.set_num_threads(threads)


def load_model(name: str | Path, device: torch.device) -> Predictor:
    """The model of a weights' name or folder, on the device.

    Raises:
        FileNotFoundError, ValueError: see `pcvideo.hub.from_pretrained`.
    """
    model = hub.from_pretrained(name, device=device)
    if not isinstance(model, Predictor):
        raise ValueError(f"{name} is a {type(model).__name__}, which {what_it_does(model)}")
    return model


def size_note(model: str | Path, size: Sequence[int]) -> list[str]:
    """That published weights learned at another size, where they did: motion then has another scale."""
    for published in hub.list_models():
        learned = published.facts.get("recipe", {}).get("size")
        if published.name == model and learned and list(learned) != list(size):
            height, width = learned
            return [f"{model} learned at {height}x{width}; --size {height} {width} asks it for what it knows best"]
    return []


def what_it_does(model: Any) -> str:
    """What a kind of model does, and the command for it: the end of "which ..."."""
    if isinstance(model, Interpolator):
        return "finds frames between frames; take pcvideo interpolate"
    if isinstance(model, Grey2RGB):
        return "colours grey frames; take pcvideo enhance"
    return "predicts what comes next; take pcvideo predict"


@torch.no_grad()
def forecast(model: Predictor, context: Tensor, horizon: int, *, progress: bool = False) -> Tensor:
    """The frames that follow, of any size, as the model gives them: padded and cropped, but not clamped.

    `model.predict` gives the same frames clamped to [0, 1]; protocols without a clamp need them as they are.

    Args:
        model: in evaluation mode.
        context: (B, T, C, H, W) float in [0, 1].
        horizon: how many frames, at least 1.
        progress: show a bar where standard error is a terminal.

    Returns:
        (B, horizon, C, H, W) float32, on the model's device.
    """
    from tqdm import tqdm  # noqa: PLC0415

    length, (height, width) = context.shape[1], context.shape[-2:]
    steps = unroll(model, model.pad(context.to(model.device, model.dtype)), horizon)
    total = length + horizon - 1
    hidden = not (progress and sys.stderr.isatty())
    predictions = []
    for time, (pyramid, _) in enumerate(tqdm(steps, total=total, unit="frame", leave=False, disable=hidden)):
        if time >= length - 1:
            predictions.append(pyramid[0][..., :height, :width])
    future = torch.stack(predictions, dim=1).float()
    return future.clamp(0, 1) if model.clamp else future


def print_json(value: Mapping[str, Any]) -> None:
    """Print a JSON object, and nothing else, on standard output."""
    print(json.dumps(value, indent=2, allow_nan=False))

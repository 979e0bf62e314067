# SPDX-License-Identifier: Apache-2.0
"""`pcvideo COMMAND ...`: parse, run, and turn errors into one line and an exit status.

Exit status: 0 done; 2 something given was wrong (one line on standard error, no traceback unless `--traceback` or
PCVIDEO_TRACEBACK=1 asks for it); 130 and 143 stopped by Ctrl-C and SIGTERM. Results go to standard output, everything
else (log, progress, errors) to standard error.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

import torch

from pcvideo._checks import did_you_mean
from pcvideo._version import __version__
from pcvideo.cli import convert, enhance, evaluate, export, filter, interpolate, models, predict, train
from pcvideo.cli._common import CommandParser, in_flags, logging_to_stderr, one_line
from pcvideo.training import RankLostError, TrainingStopped

__all__ = ["build_parser", "main"]

# What a user can mend: bad values, files that are not there, packages that are missing, a run that diverged, and what
# another process of it has told already.
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError, RankLostError)

_EXAMPLES = """examples:
  pcvideo predict                                     the built-in clip and weights; no network, no GPU, no data
  pcvideo predict walk.mkv --model mspn-natural       how a video of one's own goes on
  pcvideo interpolate walk.mkv --out smooth.mp4       twice as many frames a second
  pcvideo enhance film.mkv colour.mp4                 a grey one in colour, with twice the frames
  pcvideo train --data videos/ --size 128 160         a model for one's own videos
  pcvideo train --init mspn-natural --data videos/    weights that there are, trained further on them
  pcvideo evaluate --model mspn-moving-mnist          its figures beside copy-last's
  pcvideo models                                      which weights there are
  pcvideo filter --out response.png                   what a low-pass filter passes and aliases
  pcvideo convert mspn_kth.pth mspn-kth               a checkpoint of the published code as a model here
  pcvideo export mspn-moving-mnist step.onnx          one step as a graph, to run without this package
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments after the program's name; None takes the process's own.

    Returns:
        the exit status.

    Raises:
        SystemExit: for `--help`, `--version` and arguments that can't be parsed, as argparse does.
    """
    arguments = _parse(argv)
    try:
        with logging_to_stderr(verbose=arguments.verbose):
            arguments.run(arguments)
    except TrainingStopped as stopped:
        print(f"pcvideo {arguments.command}: {stopped} (--resume auto)", file=sys.stderr)
        return int(stopped.code or 0)
    except KeyboardInterrupt:
        print(f"pcvideo {arguments.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; without this, Python complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except torch.OutOfMemoryError as error:
        mend = "turn --batch, --size or --horizon down; train has --accumulate, --recompute and --find-batch, too"
        return _report(arguments, error, f"out of memory; {mend} ({str(error).partition(chr(10))[0]})")
    except USER_ERRORS as error:
        return _report(arguments, error, str(error) or type(error).__name__)
    return 0


def build_parser() -> CommandParser:
    """The parser of the whole command line."""
    parser = CommandParser(
        prog="pcvideo",
        description="Predict what a video shows next.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pcvideo {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (predict, interpolate, enhance, train, evaluate, models, filter, convert, export):
        command.add_parser(commands)
    return parser


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = set(re.findall(r"--[\w-]+", arguments.parser.format_help()))
        hint = did_you_mean(unknown[0].partition("=")[0], sorted(flags)) if unknown[0].startswith("-") else ""
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return arguments


def _report(arguments: argparse.Namespace, error: BaseException, message: str) -> int:
    if arguments.traceback or os.environ.get("PCVIDEO_TRACEBACK", "") not in ("", "0"):
        raise error
    print(f"pcvideo {arguments.command}: error: {in_flags(one_line(message))}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

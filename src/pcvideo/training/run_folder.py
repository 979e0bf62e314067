# SPDX-License-Identifier: Apache-2.0
"""The run folder: locked, made, tried out and tidied before the first step, so that a run fails early or not at all."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from pcvideo import _files
from pcvideo.training.checkpoint import all_checkpoints, newest_checkpoint

__all__ = ["lock_run_folder", "open_run_folder"]

logger = logging.getLogger(__name__)

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = ".lock"
_BROKEN = "broken-"


@contextlib.contextmanager
def lock_run_folder(run_dir: Path) -> Iterator[None]:
    """Hold the folder, which is made where there is none, against other runs; a killed process lets go of it.

    Raises:
        BlockingIOError: a run that is still going holds it; the message says which process.
        OSError: nothing can be written there.
    """
    with _told_as_run_dir(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        file = (run_dir / LOCK_NAME).open("a+", encoding="utf-8")
    with file:
        # Record locks belong to one process: workers that outlive a killed run don't hold them.
        if fcntl is not None and not _take(file.fileno()):
            file.seek(0)
            raise BlockingIOError(
                errno.EWOULDBLOCK,
                f"run_dir {run_dir} is in use by a run that is still going ({file.read().strip() or 'unknown'}); wait "
                f"for its end, stop it, or choose another folder",
            )
        with _told_as_run_dir(run_dir):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield


def open_run_folder(run_dir: Path, resume: str | Path | None, *, needed: int = 0) -> Path | None:
    """Make `checkpoints/`, remove what a killed run left half written, and say where to go on from.

    Args:
        run_dir: the run folder.
        resume: None, "auto" or a checkpoint, see `Trainer.fit`.
        needed: bytes of a checkpoint.

    Returns:
        The checkpoint to load; None for a fresh start.

    Raises:
        FileExistsError: the folder holds checkpoints that the run would mix with its own.
        WeightsCorruptError: it holds checkpoints, and none of them is whole.
        OSError: nothing can be written there, or there is no room for a checkpoint.
    """
    # First of all: tidying up must not touch a folder that is not gone on with.
    newest = _checked_newest(run_dir, resume)
    with _told_as_run_dir(run_dir):
        for folder in (run_dir, run_dir / "checkpoints"):
            folder.mkdir(parents=True, exist_ok=True)
            _files.remove_orphans(folder)
            probe = folder / f"{_files.TEMPORARY_PREFIX}probe"
            probe.write_bytes(b"tried out")
            probe.unlink()
    free = shutil.disk_usage(run_dir).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"run_dir {run_dir} has {free / 2**20:.0f} MiB of free space, and a checkpoint needs {needed / 2**20:.0f}; "
            f"make room, or choose another folder",
        )
    if resume is None:
        return None
    for path in all_checkpoints(run_dir / "checkpoints"):
        if newest is not None and path > newest:
            # Out of the way, or it would count among the newest to keep, and push out one that is whole.
            path.rename(path.with_name(_BROKEN + path.name))
    return newest if resume == "auto" else Path(resume)


def _checked_newest(run_dir: Path, resume: str | Path | None) -> Path | None:
    """The newest whole checkpoint, if the run may go on in this folder."""
    if resume is None:
        found = all_checkpoints(run_dir / "checkpoints")
        if found:
            raise FileExistsError(
                f"run_dir {run_dir} holds the checkpoint {found[-1].name}; resume='auto' goes on from it, or choose "
                f"another folder"
            )
        return None
    newest = newest_checkpoint(run_dir)
    if newest is None or resume == "auto":
        return newest
    if Path(resume).exists() and Path(resume).resolve() != newest.resolve():
        raise FileExistsError(
            f"run_dir {run_dir} holds {newest.name}, and a run that goes on from {resume} would mix its checkpoints "
            f"with those; remove the newer ones, or choose another folder"
        )
    return newest


def _take(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        # Some network file systems have no locks; there two runs at once are the user's to keep apart.
        logger.debug("no lock on the run folder: %s", error)
    return True


@contextlib.contextmanager
def _told_as_run_dir(run_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno, f"run_dir {run_dir} can't be written ({error}); choose another folder, or make it writable"
        ) from error

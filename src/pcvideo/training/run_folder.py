# SPDX-License-Identifier: Apache-2.0
"""The run folder: made, tried out and tidied before the first step, so that a run fails early or not at all."""

from __future__ import annotations

from pathlib import Path

from pcvideo import _files
from pcvideo.training.checkpoint import newest_checkpoint

__all__ = ["open_run_folder"]


def open_run_folder(run_dir: Path, resume: str | Path | None) -> Path | None:
    """Make the folder and its `checkpoints/`, remove what a killed run left half written, and say where to go on from.

    Args:
        run_dir: the run folder.
        resume: None, "auto" or a checkpoint, see `Trainer.fit`.

    Returns:
        The checkpoint to load; None for a fresh start.

    Raises:
        FileExistsError: the folder holds checkpoints that the run would mix with its own.
        OSError: nothing can be written there.
    """
    # First of all: tidying up would take the save of a run that is still going from under its feet.
    _refuse_mixing(run_dir, resume)
    try:
        for folder in (run_dir, run_dir / "checkpoints"):
            folder.mkdir(parents=True, exist_ok=True)
            _files.remove_orphans(folder)
            probe = folder / f"{_files.TEMPORARY_PREFIX}probe"
            probe.write_bytes(b"tried out")
            probe.unlink()
    except OSError as error:
        raise OSError(
            error.errno, f"run_dir {run_dir} can't be written ({error}); choose another folder, or make it writable"
        ) from error
    if resume == "auto":
        return newest_checkpoint(run_dir)
    return None if resume is None else Path(resume)


def _refuse_mixing(run_dir: Path, resume: str | Path | None) -> None:
    newest = newest_checkpoint(run_dir)
    if newest is None or resume == "auto":
        return
    if resume is None:
        raise FileExistsError(
            f"run_dir {run_dir} holds the checkpoint {newest.name}; resume='auto' goes on from it, or choose another "
            f"folder"
        )
    if Path(resume).exists() and Path(resume).resolve() != newest.resolve():
        raise FileExistsError(
            f"run_dir {run_dir} holds {newest.name}, and a run that goes on from {resume} would mix its checkpoints "
            f"with those; remove the newer ones, or choose another folder"
        )

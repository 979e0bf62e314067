# SPDX-License-Identifier: Apache-2.0
"""What a run was made of, for `run.json`: command, versions, revision of the code, machine and time of each start."""

from __future__ import annotations

import platform
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pcvideo import _files
from pcvideo._version import __version__

__all__ = ["starts_of_run"]

_PACKAGES = ("numpy", "safetensors", "einops", "av")
_SECONDS = 5.0


def starts_of_run(run_dir: Path, device: torch.device, *, step: int) -> list[dict[str, Any]]:
    """The starts that the folder's `run.json` tells of, if the run goes on from a step, and this one."""
    return [*(_earlier_starts(run_dir / "run.json") if step else []), _this_start(device, step)]


def _this_start(device: torch.device, step: int) -> dict[str, Any]:
    package = Path(__file__).resolve().parents[1]
    return {
        "step": step,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "directory": str(Path.cwd()),
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        },
        "versions": {
            "pcvideo": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        # Of this package, where it is used from a checkout; and of whatever the command was given in.
        "git": {"pcvideo": _revision(package, Path(__file__)), "directory": _revision(Path.cwd(), None)},
    }


def _earlier_starts(path: Path) -> list[dict[str, Any]]:
    try:
        starts = _files.read_json(path).get("starts", [])
    except (OSError, ValueError):
        # A run is worth more than the record of how it began.
        return []
    return starts if isinstance(starts, list) else []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _revision(folder: Path, tracked: Path | None) -> dict[str, Any] | None:
    """Commit of the checkout that a folder lies in, and whether it was changed since; None where there is none.

    With `tracked`, only of a checkout that this file belongs to: an environment may lie in somebody else's.
    """
    if tracked is not None and _git(folder, "ls-files", "--error-unmatch", str(tracked)) is None:
        return None
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "-uno")
    return None if commit is None else {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run(
            [git, "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

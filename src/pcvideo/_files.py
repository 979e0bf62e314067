# SPDX-License-Identifier: Apache-2.0
"""Plain files, safely: JSON and safetensors read with errors that teach, and written aside, flushed, renamed.

What was there before a failed or killed write is there after it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = [
    "MANIFEST_NAME",
    "TEMPORARY_PREFIX",
    "WeightsCorruptError",
    "check_kind",
    "check_manifest",
    "read_json",
    "read_tensors",
    "remove_orphans",
    "size_and_sha256",
    "update_folder",
    "write_folder",
    "write_json",
    "write_manifest",
    "write_tensors",
    "written_aside",
]

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

MANIFEST_NAME = "manifest.json"
TEMPORARY_PREFIX = ".writing-"
_RETIRED = "-old"
_LFS_POINTER = b"version https://git-lfs"
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


class WeightsCorruptError(ValueError):
    """A weights or configuration file can't be what it claims to be; nothing was loaded from it."""

    def __init__(self, path: str | Path, why: str, mend: str = "download or copy it again") -> None:
        super().__init__(f"{path} can't be read: {why}; {mend}")
        self.path, self.why, self.mend = str(path), why, mend


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsCorruptError: the file is truncated, is no JSON, or holds something other than an object.
    """
    path = Path(path)
    _check_no_pointer(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsCorruptError(path, f"it is no complete JSON ({error})") from error
    if not isinstance(value, dict):
        raise WeightsCorruptError(path, f"it holds a {type(value).__name__}, expected an object {{...}}")
    return value


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsCorruptError: the file is empty, truncated, has a wrong header, or is another kind of file (a pickle, a
            Git LFS pointer); a pickle is never opened.
    """
    path = Path(path)
    check_kind(path)
    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise WeightsCorruptError(path, f"it is no complete safetensors file ({error})") from error


def check_kind(path: str | Path) -> None:
    """Refuse a weights file that is of another kind: empty, a Git LFS pointer, or a pickle, which is never opened.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsCorruptError: it is one of these.
    """
    path = Path(path)
    _check_no_pointer(path)
    with path.open("rb") as file:
        start = file.read(32)
    if not start:
        raise WeightsCorruptError(path, "it is empty, and so no complete safetensors file")
    # A header of 640 bytes has a length that begins like a pickle; what follows its eight bytes tells the two apart.
    if start.startswith(_PICKLE_STARTS) and start[4:9] != b"\0\0\0\0{":
        raise WeightsCorruptError(
            path, "it is a pickle or a zip archive, which is never opened", "ask for a safetensors file"
        )


def write_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object in one move, flushed to the disk; NaN and infinity are refused."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with written_aside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file and flush it to the disk; views and channels-last tensors are stored plainly.

    Raises:
        OSError: it can't be written; the disk is full, for one.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, metadata={"format": "pt", **(metadata or {})})
    except SafetensorError as error:
        # safetensors reports a full disk as an error of its own kind.
        raise OSError(f"{path} can't be written: {error}") from error
    # safetensors makes files that their owner alone can read.
    Path(path).chmod(_by_umask(0o666))
    _flush(Path(path))


def size_and_sha256(path: str | Path) -> dict[str, Any]:
    """What a manifest keeps of a file: `{"bytes": ..., "sha256": ...}`."""
    with Path(path).open("rb") as file:
        return {"bytes": Path(path).stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write_manifest(folder: str | Path, names: Iterable[str]) -> None:
    """Write `manifest.json` into a folder: size and sha256 of the files of these names, for `check_manifest`."""
    folder = Path(folder)
    write_json(folder / MANIFEST_NAME, {name: size_and_sha256(folder / name) for name in sorted(names)})


def check_manifest(folder: str | Path, names: Iterable[str] | None = None) -> None:
    """Hold a folder's files to its `manifest.json`; files that are not listed are not looked at.

    Args:
        folder: holds the manifest.
        names: look at these alone, where they are listed; None looks at all that are.

    Raises:
        FileNotFoundError: there is no manifest.
        WeightsCorruptError: the manifest can't be read, or a file is missing, of another size or other content.
    """
    folder = Path(folder)
    wanted = None if names is None else set(names)
    for name, expected in read_json(folder / MANIFEST_NAME).items():
        if wanted is not None and name not in wanted:
            continue
        path = folder / name
        if not isinstance(expected, dict) or Path(name).name != name:
            raise WeightsCorruptError(folder / MANIFEST_NAME, f"its entry {name!r} is no file of this folder")
        if not path.is_file():
            raise WeightsCorruptError(path, f"it is missing, but {MANIFEST_NAME} lists it")
        if path.stat().st_size != expected.get("bytes"):
            raise WeightsCorruptError(path, f"it has {path.stat().st_size} bytes, expected {expected.get('bytes')}")
        if size_and_sha256(path) != expected:
            raise WeightsCorruptError(path, f"its sha256 is another than {MANIFEST_NAME} says")


@contextlib.contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """Make one file in one move: write the path that is given, and it takes the name of `path` if all went well.

    The folder is made where there is none. The temporary file has the same name, so that its ending tells the format.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = _temporary_in(path.parent, path.name)
    try:
        yield folder / path.name
        _flush(folder / path.name)
        (folder / path.name).replace(path)
        _flush(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_folder(folder: str | Path, write: Callable[[Path], None]) -> None:
    """Make `folder` in one move: `write(temporary)` fills a folder beside it, which then takes its name.

    An existing folder of that name is replaced whole. A failure in `write` leaves everything as it was.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_in(folder.parent, folder.name)
    try:
        write(temporary)
        _flush(temporary)
        retired = temporary.with_name(temporary.name + _RETIRED)
        with _alone_in(folder.parent):
            _replace_folder(folder, temporary, retired)
        shutil.rmtree(retired, ignore_errors=True)
        _flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def update_folder(folder: str | Path, write: Callable[[Path], None], owned: Iterable[str] = ()) -> None:
    """Replace some files of `folder`: `write(temporary)` makes them aside, then each one is moved over.

    The other files of the folder stay, but for those that match a pattern in `owned` and were not made again. A failure
    in `write` (a full disk) leaves the old files as they were.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_in(_room_beside(folder), folder.name)
    try:
        write(temporary)
        _flush(temporary)
        with _alone_in(temporary.parent):
            # Another process may have made the folder in the meantime.
            if not folder.exists():
                temporary.rename(folder)
            else:
                made = sorted(temporary.iterdir(), key=_in_order_of_moves)
                for path in made:
                    path.replace(folder / path.name)
                outdated = {path for pattern in owned for path in folder.glob(pattern)}
                for path in outdated - {folder / path.name for path in made}:
                    path.unlink(missing_ok=True)
        _flush(folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_orphans(folder: str | Path, of: Callable[[str], bool] = lambda name: True) -> list[str]:
    """Remove what killed writes left below `folder`, and return the names; a kill amid a replacement is undone.

    Left alone is what was to get a name that `of` says False to: others may be writing it.
    """
    names = []
    for path in sorted(Path(folder).glob(f"{TEMPORARY_PREFIX}*")):
        # A kill between the two moves of a replacement leaves the old folder under this name alone.
        original = path.name.removeprefix(TEMPORARY_PREFIX).removesuffix(_RETIRED).rpartition("-")[0]
        if not of(original):
            continue
        if path.name.endswith(_RETIRED) and not path.with_name(original).exists():
            path.rename(path.with_name(original))
            continue
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        names.append(path.name)
    return names


def _check_no_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise WeightsCorruptError(path, "it is a Git LFS pointer, not the file itself", "run `git lfs pull`")


def _in_order_of_moves(path: Path) -> tuple[bool, bool, str]:
    """The manifest first and tensors last: a kill between two moves leaves tensors that are not the manifest's."""
    return path.name != MANIFEST_NAME, path.suffix == ".safetensors", path.name


def _replace_folder(folder: Path, new: Path, retired: Path) -> None:
    if folder.exists():
        folder.rename(retired)
    try:
        new.rename(folder)
    except OSError:
        if retired.exists():
            retired.rename(folder)
        raise


def _room_beside(folder: Path) -> Path:
    """Where to write what is then moved into `folder`: beside it, or inside where that is another file system."""
    if not folder.exists():
        return folder.parent
    # A mounted folder is a file system of its own, and no move crosses the two.
    beside = os.access(folder.parent, os.W_OK) and folder.stat().st_dev == folder.parent.stat().st_dev
    return folder.parent if beside else folder


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold off other processes that move files into the same folder; a killed one lets go of itself."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems have no locks; there two writers at once are the user's to keep apart.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _temporary_in(parent: Path, name: str) -> Path:
    temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{name}-", dir=parent))
    # mkdtemp makes the folder private; ours is as any other folder.
    temporary.chmod(_by_umask(0o777))
    return temporary


def _by_umask(mode: int) -> int:
    """The mode that a new file or folder gets here."""
    mask = os.umask(0)
    os.umask(mask)
    return mode & ~mask


def _flush(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

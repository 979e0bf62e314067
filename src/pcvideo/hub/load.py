# SPDX-License-Identifier: Apache-2.0
"""From a name to a model: a local folder, the package, a checkout's `weights/`, the cache, the Hub, in that order.

Names that are published stand in the catalog with their repository, commit and checksums. Where the setting
PCVIDEO_HUB_ORGANISATION names an organisation, every other plain name is looked for there too.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pcvideo import _files
from pcvideo._checks import did_you_mean
from pcvideo._hub_client import download_weights, is_repository_name
from pcvideo._weights import CONFIG_NAME, INDEX_NAME, missing_files, no_weights
from pcvideo.hub import known as _known
from pcvideo.hub.known import list_models, published, tensor_files
from pcvideo.models._catalog import CONFIGURATIONS, architecture
from pcvideo.models._pretrained import read_config, refuse_revision, weights_folder

__all__ = ["ORGANISATION_VARIABLE", "create_model", "find_weights", "from_pretrained"]

ORGANISATION_VARIABLE = "PCVIDEO_HUB_ORGANISATION"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


class _Source(NamedTuple):
    """A weights folder, and the repository that it was downloaded from."""

    folder: Path
    repository: str | None = None


def from_pretrained(
    name: str | Path,
    *,
    strict: bool = True,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Any:
    """A model with its weights, in evaluation mode: a `Predictor`, an `Interpolator` or a `Grey2RGB`.

    Args:
        name: the name of published weights (see `list_models`), a folder that `save_pretrained` or a training run
            wrote, or a repository on the Hugging Face Hub, `owner/name`.
        strict, dtype, device: as in `Predictor.from_pretrained`.
        revision: a branch, a tag or a commit of the repository; None takes the commit that the catalog pins, or `main`.
            One commit gives config and weights, even if the branch moves meanwhile.
        token: of the Hub; None takes the one that one has logged in with (`hf auth login`, HF_TOKEN), False sends none.
        cache_dir: where to keep downloads; None is the Hub's usual cache (HF_HOME, HF_HUB_CACHE).
        local_files_only: take what is cached, and ask no server; HF_HUB_OFFLINE=1 does so for everything.

    Raises:
        FileNotFoundError: there are no such weights; the message says where was looked, and the nearest name.
        PermissionError, ConnectionError: the Hub refuses, or can't be reached and the weights are not cached.
        WeightsCorruptError, ValueError, TypeError: the folder's files are broken or don't fit.
    """
    source = _find(name, revision, token, cache_dir, local_files_only)
    kind: Any = architecture(read_config(source.folder)[0])
    return kind._from_folder(*source, strict=strict, dtype=dtype, device=device)


def create_model(name: str) -> Any:
    """A network with fresh weights: one that a paper published, or that of published weights, by name.

    For a variation take an entry of `list_models(fresh=True)`: `MSPN.from_config({**entry.config, "in_channels": 1})`.

    Args:
        name: as `list_models(fresh=True)` gives it.

    Raises:
        ValueError: there is no such name; the message has the nearest one.
    """
    if name in CONFIGURATIONS:
        kind, arguments = CONFIGURATIONS[name].model, dict(CONFIGURATIONS[name].arguments)
        return architecture(kind).from_config(arguments)
    known = {entry.name: entry for entry in list_models(fresh=True)}
    if name not in known:
        raise ValueError(f"no network is called {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
    return architecture(known[name].model).from_config(known[name].config)


def find_weights(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder that a name stands for, downloaded if need be; arguments and errors are those of `from_pretrained`."""
    return _find(name, revision, token, cache_dir, local_files_only).folder


def _find(
    name: str | Path, revision: str | None, token: str | bool | None, cache_dir: str | Path | None, local: bool
) -> _Source:
    path, text = Path(name).expanduser(), str(name)
    is_plain = _PLAIN_NAME.fullmatch(text) is not None
    on_shelf = [shelf / text for shelf in _known.shelves()] if is_plain else []
    for place in [path, *on_shelf] if text else ():
        if (place / CONFIG_NAME).is_file() and not missing_files(place):
            refuse_revision(revision, place)
            return _Source(place)
    if path.is_dir() and text:
        if (path / INDEX_NAME).is_file():
            # Which shards it lacks is said where they are read.
            return _Source(path)
        raise FileNotFoundError(no_weights(str(path), [entry.name for entry in path.iterdir()]))
    hub: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local}
    if is_plain:
        return _find_by_name(text, revision, hub)
    if not is_repository_name(text):
        raise FileNotFoundError(_not_found(text, []))
    return _Source(*weights_folder(text, revision=revision, **hub))


def _find_by_name(name: str, revision: str | None, hub: dict[str, Any]) -> _Source:
    """Weights that are not at hand, from the repository that the catalog or the setting names."""
    entry = published().get(name, {})
    organisation = os.environ.get(ORGANISATION_VARIABLE)
    repository = f"{organisation}/{name}" if organisation else entry.get("repository")
    if repository is None:
        raise FileNotFoundError(_not_found(name, []))
    pinned = entry.get("revision") if repository == entry.get("repository") else None
    try:
        folder = download_weights(repository, revision=revision or pinned, **hub)
    except FileNotFoundError as error:
        raise FileNotFoundError(_not_found(name, [f"the Hub ({error})"])) from error
    if pinned is not None and revision in (None, pinned):
        _check_pinned(folder, entry["sha256"])
    return _Source(folder, repository)


def _check_pinned(folder: Path, sums: dict[str, str]) -> None:
    for name in tensor_files(folder):
        if _files.size_and_sha256(folder / name)["sha256"] != sums.get(name):
            raise _files.WeightsCorruptError(
                folder / name,
                "its sha256 is another than this version of pcvideo pins",
                f"remove {folder.parents[1]} and load it again; if it stays so, the publisher's copy was changed",
            )


def _not_found(name: str, also: list[str]) -> str:
    models = list_models(fresh=True)
    known = [entry.name for entry in models if entry.size]
    fresh = [entry.name for entry in models if not entry.size]
    if name in fresh:
        return f"{name!r} has no published weights yet; pcvideo.create_model({name!r}) builds it with fresh ones"
    places = ["a folder of that path", *map(str, _known.shelves()), *also]
    unpublished = " It is not published yet, and so in a source checkout alone." if name in known else ""
    if not also:
        places.append(f"no Hub, as {ORGANISATION_VARIABLE} names no organisation there")
    return (
        f"no weights called {name!r}{did_you_mean(name, [*known, *fresh])}; looked for {places[0]}, in "
        f"{', '.join(places[1:])}; known: {', '.join(known) or 'none'}.{unpublished}"
    )

# SPDX-License-Identifier: Apache-2.0
"""Transport from and to the Hugging Face Hub: the one file that imports `huggingface_hub`.

A revision is turned into one commit first, and every file is then asked for by that commit, so that a branch that moves
in between can't pair one commit's config with another's weights. What is downloaded lies in the Hub's own cache, where
other programs find it too. Errors are Python's own (FileNotFoundError, PermissionError, ConnectionError) and never hold
a token.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pcvideo._checks import check_bool, describe
from pcvideo._files import MANIFEST_NAME, written_aside
from pcvideo._optional import require
from pcvideo._version import __version__
from pcvideo._weights import CONFIG_NAME, INDEX_NAME, OWNED, WEIGHTS_NAME, missing_files, no_weights, shard_names

__all__ = ["card_metadata", "download_weights", "is_repository_name", "upload_folder"]

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][\w./+-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TOKEN = re.compile(r"[!-~]+")
_CARD_FILES = ("card.json", "README.md")
# Seconds until a server that does not answer counts as dead; the client's own retries would take 23.
_PATIENCE = 6.0
_TRIES = 3
_LOG_IN = "log in with `hf auth login`, set HF_TOKEN, or pass token=..."
_IDENTITY = {"library_name": "pcvideo", "library_version": __version__}
_log = logging.getLogger(__name__)


def is_repository_name(name: str) -> bool:
    """Whether `name` has the form of a repository's, `owner/name`; it may be a relative path all the same."""
    return _REPOSITORY.fullmatch(name) is not None and ".." not in name


def download_weights(
    repository: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a repository's weights at one commit, in the Hub's cache: config, manifest, card and tensors.

    Args:
        repository: `owner/name`.
        revision: a branch, a tag or a commit; None is `main`. A full commit that is cached needs no network.
        token: of the Hub; None takes the one that one has logged in with, False none.
        cache_dir: where to keep files; None is the Hub's usual cache (HF_HOME, HF_HUB_CACHE).
        local_files_only: take what is cached, and ask no server.

    Raises:
        FileNotFoundError: there is no such repository, revision or file, or it holds only pickles.
        PermissionError: the repository is gated, or the token is refused.
        ConnectionError: the Hub can't be reached, and the weights are not cached.
        WeightsCorruptError: the index can't be read, or names a file outside the folder.
    """
    revision = _checked(repository, revision, token)
    check_bool("local_files_only", local_files_only)
    hub = _client()
    cached = _cached_folder(hub, repository, revision, cache_dir)
    offline = "HF_HUB_OFFLINE is set" if hub.constants.HF_HUB_OFFLINE else ""
    if cached is not None and (local_files_only or _COMMIT.fullmatch(revision)):
        return cached
    if local_files_only or offline:
        why = offline or "local_files_only=True was given"
        return _fall_back(hub, repository, revision, cached, cache_dir, why)
    try:
        with _told_plainly(hub, repository, revision):
            info = hub.HfApi(**_IDENTITY).model_info(repository, revision=revision, timeout=_PATIENCE, token=token)
    except ConnectionError as error:
        return _fall_back(hub, repository, revision, cached, cache_dir, str(error), error)
    if not isinstance(info.sha, str) or not _COMMIT.fullmatch(info.sha):
        # It becomes the name of a folder.
        raise OSError(
            f"the Hub at {hub.constants.ENDPOINT} gave {info.sha!r} as the commit of {repository}; is it one?"
        )
    with _told_plainly(hub, repository, revision):
        options = {"revision": info.sha, "token": token, "cache_dir": cache_dir, "etag_timeout": _PATIENCE}
        folder = _download(hub, repository, {entry.rfilename for entry in info.siblings or ()}, options)
    _remember(folder, revision, info.sha)
    return folder


def upload_folder(
    folder: str | Path, repository: str, *, private: bool = False, token: str | bool | None = None, message: str
) -> str:
    """Put a weights folder into a repository, in one commit; the repository is made where there is none.

    Tensor files of an earlier commit that are not in the folder are removed.

    Returns:
        the commit.

    Raises:
        PermissionError: the token is missing or refused, or `private` was asked for and the repository is public.
        ConnectionError: the Hub can't be reached.
    """
    _checked(repository, None, token)
    check_bool("private", private)
    hub = _client()
    if hub.constants.HF_HUB_OFFLINE:
        raise ConnectionError(f"{repository} can't be written to while HF_HUB_OFFLINE is set; unset it")
    api = hub.HfApi(token=token, **_IDENTITY)
    with _told_plainly(hub, repository, "main"):
        # The client would try again for half a minute where no server is.
        with contextlib.suppress(hub.errors.RepositoryNotFoundError):
            if not api.model_info(repository, timeout=_PATIENCE).private and private:
                raise PermissionError(
                    f"{repository} is public already, and pushing does not hide it; make it private on "
                    f"{hub.constants.ENDPOINT}/{repository}/settings, or push to another name"
                )
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=str(folder), commit_message=message, delete_patterns=list(OWNED)
        )
    return str(commit.oid)


def card_metadata(
    *,
    name: str,
    tags: Sequence[str],
    pipeline: str,
    licence: str | None,
    datasets: Sequence[str],
    figures: Sequence[Mapping[str, Any]],
) -> str:
    """The head of a model card, which the Hub indexes, as YAML between its two lines of dashes.

    Args:
        name: of the model.
        tags, pipeline: what the Hub files it under.
        licence: as the Hub names it, in lower case; None where none is stated.
        datasets: of the Hub, `owner/name`, that it learned from.
        figures: each with `metric`, `value`, `protocol` and `data`.
    """
    hub = _client()
    results = [
        hub.EvalResult(
            task_type=pipeline,
            dataset_type="video",
            dataset_name=figure["data"],
            metric_type=figure["metric"],
            metric_name=f"{figure['metric']}, protocol {figure['protocol']}",
            metric_value=figure["value"],
        )
        for figure in figures
    ]
    data = hub.ModelCardData(
        library_name="pcvideo",
        pipeline_tag=pipeline,
        tags=list(tags),
        license=licence,
        datasets=list(datasets) or None,
        model_name=name,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml().strip()}\n---"


def _client() -> ModuleType:
    purpose = "weights on the Hugging Face Hub and their cards"
    for part in ("errors", "constants"):
        require(f"huggingface_hub.{part}", purpose=purpose)
    return require("huggingface_hub", purpose=purpose)


def _checked(repository: str, revision: Any, token: Any) -> str:
    if not isinstance(repository, str) or not is_repository_name(repository):
        raise ValueError(f"a repository on the Hub is called owner/name, got {describe(repository)}")
    if revision is not None and not (isinstance(revision, str) and _REVISION.fullmatch(revision)):
        raise ValueError(f"revision must be the name of a branch or tag, or a commit, got {describe(revision)}")
    # The message must not show what may be a token with something wrong about it.
    if token is not None and not isinstance(token, bool) and not (isinstance(token, str) and _TOKEN.fullmatch(token)):
        raise ValueError(
            f"token must be a string without spaces and line breaks, True, False or None, got a {type(token).__name__} "
            f"that is none of these"
        )
    return revision or "main"


def _cached_folder(hub: ModuleType, repository: str, revision: str, cache_dir: str | Path | None) -> Path | None:
    found = hub.try_to_load_from_cache(repository, CONFIG_NAME, cache_dir=cache_dir, revision=revision)
    folder = Path(found).parent if isinstance(found, str) else None
    return folder if folder is not None and not missing_files(folder) else None


def _fall_back(
    hub: ModuleType,
    repository: str,
    revision: str,
    cached: Path | None,
    cache_dir: str | Path | None,
    why: str,
    cause: Exception | None = None,
) -> Path:
    if cached is not None:
        _log.warning("%s: %s; using commit %s from the cache", repository, why, cached.name[:12])
        return cached
    place = cache_dir or hub.constants.HF_HUB_CACHE
    mend = "unset it, or load the weights once with a network"
    if cause is not None:
        mend = f"check the network and HF_ENDPOINT ({hub.constants.ENDPOINT}), or load them from a local folder"
    raise ConnectionError(
        f"{repository} at {revision} is not (or not wholly) in the cache {place}, and {why}; {mend}"
    ) from cause


def _download(hub: ModuleType, repository: str, names: Collection[str], options: Mapping[str, Any]) -> Path:
    """Tensors last, so that a folder that has them has all the rest."""
    if WEIGHTS_NAME not in names and INDEX_NAME not in names:
        raise FileNotFoundError(no_weights(repository, names))
    # Without a config the Hub's own words would be of a file; ours are of what the repository is.
    if CONFIG_NAME not in names:
        raise FileNotFoundError(f"{repository} has no {CONFIG_NAME}, so it holds no weights of pcvideo")
    config = _fetch(hub, repository, CONFIG_NAME, options)
    tensors = [WEIGHTS_NAME] if WEIGHTS_NAME in names else [INDEX_NAME]
    for name in [*(name for name in (MANIFEST_NAME, *_CARD_FILES) if name in names), *tensors]:
        _fetch(hub, repository, name, options)
    if tensors == [INDEX_NAME]:
        for name in shard_names(config.parent):
            _fetch(hub, repository, name, options)
    return config.parent


def _fetch(hub: ModuleType, repository: str, name: str, options: Mapping[str, Any]) -> Path:
    """One file. Where it was cut off, the next try goes on after what came; where that failed, it begins again.

    Newer clients do both themselves. Older ones add the whole file to what came where a server sends no parts, at every
    try anew.
    """
    begin_again, tries = False, 0
    network = _network_errors()
    interrupted: tuple[type[Exception], ...] = (OSError, *network)
    while True:
        try:
            return Path(hub.hf_hub_download(repository, name, force_download=begin_again, **options))
        except (hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError):
            raise
        except interrupted as error:
            tries += 1
            begin_again = "onsistency check" in str(error)
            # A full disk, for one, does not get better by trying.
            if tries == _TRIES or not (begin_again or isinstance(error, network)):
                raise
            _log.info("%s of %s was cut off (%s); trying again", name, repository, type(error).__name__)


def _remember(folder: Path, revision: str, commit: str) -> None:
    """Note which commit a branch was at, where the client looks for it when it is offline.

    It does so itself only for files that it is asked for by the branch's name.
    """
    path = folder.parents[1] / "refs" / revision
    if revision == commit or (path.is_file() and path.read_text(encoding="utf-8") == commit):
        return
    # A cache that can't be written to serves all the same.
    with contextlib.suppress(OSError), written_aside(path) as temporary:
        temporary.write_text(commit, encoding="utf-8")


@contextlib.contextmanager
def _told_plainly(hub: ModuleType, repository: str, revision: str) -> Iterator[None]:
    """Raise the client's many errors as Python's own, with the mend."""
    errors, place = hub.errors, f"{repository} on {hub.constants.ENDPOINT}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise PermissionError(f"{place} is gated: ask for access on its page, then {_LOG_IN}") from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no repository {place}, or it is private: check the name, or {_LOG_IN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{place} has no branch, tag or commit {revision!r}") from error
    except errors.LocalEntryNotFoundError as error:
        raise ConnectionError(f"the Hub stopped answering while {place} was loaded; run it again") from error
    except errors.EntryNotFoundError as error:
        raise FileNotFoundError(f"{place} lacks a file that its own list names ({_first_line(error)})") from error
    except errors.HfHubHTTPError as error:
        raise _of_status(error, place) from error
    except _network_errors() as error:
        raise ConnectionError(
            f"the Hub at {hub.constants.ENDPOINT} can't be reached ({type(error).__name__})"
        ) from error


def _of_status(error: Any, place: str) -> OSError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return PermissionError(f"{place} refused the token, or it may not do this ({status}): {_LOG_IN}")
    if status == 429 or (status or 0) >= 500:
        return ConnectionError(f"the Hub can't serve {place} now (status {status}); try again later")
    return OSError(f"the Hub refused a request for {place} (status {status}: {_first_line(error)})")


def _first_line(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return re.sub(r"hf_\w+", "hf_...", line)


def _network_errors() -> tuple[type[Exception], ...]:
    """What the HTTP library below the client raises; which one it is depends on the client's version."""
    named = (("requests", "RequestException"), ("httpx", "HTTPError"), ("httpx2", "HTTPError"))
    found = [getattr(sys.modules[module], name) for module, name in named if module in sys.modules]
    return (ConnectionError, TimeoutError, *found)

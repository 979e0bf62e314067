# SPDX-License-Identifier: Apache-2.0
"""Saving and loading of models: a config made of the constructor's arguments, and weights that must fit it.

A weights folder is `config.json` (format, model, arguments), `model.safetensors` or its shards, and `manifest.json`,
their checksums. The config may be edited by hand.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from pcvideo import _files
from pcvideo._checks import check_int, check_keys, describe
from pcvideo._hub_client import download_weights, is_repository_name
from pcvideo._memory_format import channels_last
from pcvideo._version import __version__
from pcvideo._weights import CONFIG_NAME, OWNED, read_weights, write_weights

__all__ = ["FORMAT", "SHARD_SIZE", "Pretrained", "config_file", "read_config", "refuse_revision", "weights_folder"]

FORMAT = 1
SHARD_SIZE = 5_000_000_000
# How the content of a config file of format n becomes one of format n + 1.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
_KEYS = ("format", "model", "config", "version")


class Pretrained(nn.Module):
    """A module that is rebuilt from its constructor's arguments, each kept as an attribute of the same name."""

    missing_tensors: list[str]
    unexpected_tensors: list[str]

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON holds them.

        Raises:
            TypeError: the model was put together from modules, or does not keep an argument as an attribute.
        """
        return {name: self._config_value(name) for name in _arguments(type(self))}

    def _config_value(self, name: str) -> Any:
        kind = type(self).__name__
        if not hasattr(self, name):
            raise TypeError(f"{kind} does not keep its argument {name!r} as an attribute, so it has no config")
        value = getattr(self, name)
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{kind} has no config, because its argument {name!r} is {describe(value)}, which JSON can't hold; "
                f"subclass it with a constructor that takes numbers and builds the parts from them"
            ) from error
        return value

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        metadata: Mapping[str, str] | None = None,
        max_shard_size: int = SHARD_SIZE,
    ) -> None:
        """Write `config.json`, `model.safetensors` and `manifest.json` into a folder; it is made where there is none.

        They are written aside and then moved over: a full disk or a kill leaves the old ones as they were. A kill amid
        the moves leaves a folder that is told when it is loaded, never one save's config with another's weights.

        Args:
            folder: where to; other files in it stay.
            metadata: strings to put into the weights file's header.
            max_shard_size: bytes; larger weights are written in several files with an index, as on the Hub.

        Raises:
            TypeError: the model has no config.
            OSError: the folder can't be written.
        """
        check_int("max_shard_size", max_shard_size)
        model, arguments, tensors = type(self).__name__, self.config, self.state_dict()

        def write(temporary: Path) -> None:
            write_weights(temporary, tensors, metadata, max_shard_size)
            _files.write_json(temporary / CONFIG_NAME, config_file(model, arguments))

        _files.update_folder(folder, write, OWNED)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A model with fresh weights from a config, as `config` gives it.

        Raises:
            ValueError, TypeError: a key is unknown (the message has the nearest one), missing, or out of its range.
        """
        known = _arguments(cls)
        check_keys(f"the config of {cls.__name__}", config, list(known))
        missing = [name for name, has_default in known.items() if not has_default and name not in config]
        if missing:
            raise ValueError(f"the config of {cls.__name__} lacks {', '.join(missing)}")
        return cls(**{name: _tuples(value) for name, value in config.items()})

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        strict: bool = True,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """A model from a folder that `save_pretrained` wrote, or from the Hub, in evaluation mode.

        Args:
            folder: holds `config.json` and `model.safetensors`; or a repository on the Hub, `owner/name`. Names of
                published weights are for `pcvideo.from_pretrained`.
            strict: refuse missing and unexpected tensors; False keeps the fresh ones for the missing, and leaves the
                names in the model's `missing_tensors` and `unexpected_tensors`.
            dtype: of the weights; published ones are stored in 16 bit and computed in float32.
            device: of the weights.
            revision, token, cache_dir, local_files_only: of the Hub; see `pcvideo.from_pretrained`.

        Raises:
            FileNotFoundError: the folder lacks one of the files, or there is no such folder or repository.
            WeightsCorruptError: one of them can't be read.
            PermissionError, ConnectionError: the Hub refuses, or can't be reached and the weights are not cached.
            ValueError, TypeError: the config or the tensors don't fit this class; the message names keys, tensors and
                shapes.
        """
        path, repository = weights_folder(
            folder, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        return cls._from_folder(path, repository, strict=strict, dtype=dtype, device=device)

    @classmethod
    def _from_folder(
        cls, folder: Path, repository: str | None, *, strict: bool, dtype: torch.dtype, device: str | torch.device
    ) -> Self:
        """A model from a folder at hand, which was downloaded from `repository` if that is given."""
        kind, arguments = read_config(folder)
        if kind != cls.__name__:
            raise ValueError(f"{folder} holds a {kind}, not a {cls.__name__}; load it with that class")
        try:
            tensors = read_weights(folder)
        except _files.WeightsCorruptError as error:
            if repository is None:
                raise
            again = f"remove {folder.parents[1]} and load {repository} again: it then comes anew from the Hub"
            raise _files.WeightsCorruptError(error.path, error.why, again) from error
        model = _build(cls, arguments, folder / CONFIG_NAME).to(dtype)
        model._load(tensors, str(folder), strict=strict)
        return channels_last(model.to(device)).eval()

    def _load(self, tensors: Mapping[str, Tensor], source: str, *, strict: bool) -> None:
        own = self.state_dict()
        wrong = [
            f"{name}: the file has {tuple(tensors[name].shape)}, the model {tuple(tensor.shape)}"
            for name, tensor in own.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ]
        # Between floats the weights are cast; whole numbers in their place would be another network.
        kinds = [
            f"{name}: the file has {tensors[name].dtype}, the model {tensor.dtype}"
            for name, tensor in own.items()
            if name in tensors and tensors[name].is_floating_point() != tensor.is_floating_point()
        ]
        self.missing_tensors = sorted(own.keys() - tensors.keys())
        self.unexpected_tensors = sorted(tensors.keys() - own.keys())
        faults = [f"wrong shapes: {'; '.join(wrong)}"] if wrong else []
        faults += [f"wrong dtypes: {'; '.join(kinds)}"] if kinds else []
        if strict:
            faults += [f"missing: {', '.join(self.missing_tensors)}"] if self.missing_tensors else []
            faults += [f"unexpected: {', '.join(self.unexpected_tensors)}"] if self.unexpected_tensors else []
        if faults:
            raise ValueError(f"{source} does not fit {type(self).__name__}: {'. '.join(faults)}")
        self.load_state_dict(dict(tensors), strict=False)


def weights_folder(
    source: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> tuple[Path, str | None]:
    """The folder that holds some weights, and the repository that it was downloaded from, None for a local one.

    Raises:
        FileNotFoundError: there is neither a folder nor a repository of that name.
        PermissionError, ConnectionError: see `pcvideo.from_pretrained`.
    """
    path, name = Path(source).expanduser(), str(source)
    if path.is_dir() or not is_repository_name(name):
        if not path.is_dir():
            raise FileNotFoundError(
                f"there is no folder {name!r}; a repository on the Hub is called owner/name, and names of published "
                f"weights are for pcvideo.from_pretrained"
            )
        refuse_revision(revision, path)
        return path, None
    try:
        folder = download_weights(
            name, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
    except (FileNotFoundError, ConnectionError) as error:
        # What was meant may be a path.
        told = FileNotFoundError if isinstance(error, FileNotFoundError) else ConnectionError
        raise told(f"there is no folder {name!r} here, and of the repository: {error}") from error
    return folder, name


def refuse_revision(revision: str | None, folder: Path) -> None:
    """Refuse a revision of a folder at hand, which would be left out of account.

    Raises:
        ValueError: one was given.
    """
    if revision is not None:
        raise ValueError(
            f"revision={revision!r} is of a repository on the Hub, and {folder} is at hand; leave it out, or name the "
            f"repository as owner/name"
        )


def config_file(model: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `config.json`: the class's name, its constructor's arguments, and the version that wrote it."""
    return {"format": FORMAT, "model": model, "config": dict(arguments), "version": __version__}


def read_config(folder: str | Path) -> tuple[str, dict[str, Any]]:
    """The model's class name and constructor arguments from a folder's `config.json`, of this format or an older one.

    Raises:
        FileNotFoundError: there is none.
        WeightsCorruptError: it can't be read.
        ValueError: it has unknown keys, or was written by a newer format; the message says which version reads it.
    """
    path = Path(folder) / CONFIG_NAME
    content = _upgraded(path, _files.read_json(path))
    check_keys(str(path), content, _KEYS)
    if not isinstance(content.get("model"), str) or not isinstance(content.get("config"), dict):
        raise ValueError(f"{path} must give 'model' as a name and 'config' as an object")
    return content["model"], content["config"]


def _upgraded(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    number = content.get("format")
    if isinstance(number, bool) or not isinstance(number, int):
        near = next((key for key in content if key not in _KEYS), None)
        also = "" if near is None else f", and it has the unknown key {near!r}"
        raise ValueError(f"{path} must give 'format' as a whole number, got format {number!r}{also}")
    if number > FORMAT:
        wrote = content.get("version")
        needs = f"pcvideo {wrote} or newer, which wrote it" if isinstance(wrote, str) else "a newer pcvideo"
        raise ValueError(
            f"{path} has format {number}, this version ({__version__}) reads up to {FORMAT}; it needs {needs}: "
            f"pip install --upgrade pcvideo"
        )
    for step in range(number, FORMAT):
        if step not in UPGRADES:
            raise ValueError(f"{path} has format {number}, which no released version of pcvideo wrote")
        content = {**UPGRADES[step](content), "format": step + 1}
    return content


def _build(kind: type[Any], arguments: Mapping[str, Any], path: Path) -> Any:
    """A model from the config in a file, whose name and key the errors give."""
    try:
        return kind.from_config(arguments)
    except (ValueError, TypeError) as error:
        told = TypeError if isinstance(error, TypeError) else ValueError
        raise told(f"{path}, under 'config': {error}") from error
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise ValueError(
            f"{path}, under 'config': no network of these sizes can be built here "
            f"({next(iter(str(error).splitlines()), type(error).__name__)})"
        ) from error


def _arguments(kind: type) -> dict[str, bool]:
    """The constructor's arguments in order; True where one has a default."""
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]  # type: ignore[misc]
    return {parameter.name: parameter.default is not parameter.empty for parameter in parameters}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value

# SPDX-License-Identifier: Apache-2.0
"""The files of a weights folder: tensors in one safetensors file or in shards, and the manifest of their checksums.

A large model's tensors lie in several files in the form of the Hugging Face Hub: `model-00001-of-00003.safetensors` and
so on, and `model.safetensors.index.json` says which tensor is where. What kind of file it is comes before its checksum,
and that before its content. Names that an index or a manifest gives are taken for this folder alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pcvideo._files import (
    MANIFEST_NAME,
    WeightsCorruptError,
    check_kind,
    check_manifest,
    read_json,
    read_tensors,
    write_json,
    write_manifest,
    write_tensors,
)

__all__ = [
    "CONFIG_NAME",
    "INDEX_NAME",
    "OWNED",
    "PICKLES",
    "WEIGHTS_NAME",
    "missing_files",
    "no_weights",
    "read_weights",
    "shard_names",
    "write_weights",
]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
# What a save replaces: a file of an older one that the newer doesn't make again would be taken for its own.
OWNED = (CONFIG_NAME, WEIGHTS_NAME, INDEX_NAME, "model-*-of-*.safetensors", MANIFEST_NAME)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_SHARD = "model-{:05d}-of-{:05d}.safetensors"
# No separators, no drive, no NUL, nothing hidden: such a name can't lead out of its folder on any system.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")


def write_weights(
    folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None, max_shard_size: int
) -> None:
    """Write tensors and their manifest into a folder, in shards if they take more than `max_shard_size` bytes."""
    groups = _split(tensors, max_shard_size)
    names = [WEIGHTS_NAME] if len(groups) == 1 else [_SHARD.format(n, len(groups)) for n in range(1, len(groups) + 1)]
    for name, group in zip(names, groups, strict=True):
        write_tensors(folder / name, group, metadata)
    if len(groups) > 1:
        places = {tensor: name for name, group in zip(names, groups, strict=True) for tensor in group}
        size = sum(map(_bytes, tensors.values()))
        write_json(folder / INDEX_NAME, {"metadata": {"total_size": size}, "weight_map": places})
        names.append(INDEX_NAME)
    write_manifest(folder, names)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a weights folder, on the CPU: of `model.safetensors`, or of its index and the shards.

    Raises:
        FileNotFoundError: there are no weights, or only pickles, which are never opened.
        WeightsCorruptError: a file is missing or another than the manifest or the index says, as where a save was
            killed half way, or can't be read.
    """
    manifest = read_json(folder / MANIFEST_NAME) if (folder / MANIFEST_NAME).is_file() else None
    sharded = _is_sharded(folder, manifest)
    names = shard_names(folder) if sharded else [WEIGHTS_NAME]
    for name in names:
        if not (folder / name).is_file():
            if sharded or (manifest is not None and name in manifest):
                by = INDEX_NAME if sharded else MANIFEST_NAME
                raise WeightsCorruptError(folder / name, f"it is missing, but {by} names it")
            raise FileNotFoundError(no_weights(str(folder), _names_in(folder)))
        check_kind(folder / name)
    if manifest is not None:
        _check_sums(folder, [*names, INDEX_NAME])
    if not sharded:
        return read_tensors(folder / WEIGHTS_NAME)
    return _read_shards(folder, names)


def shard_names(folder: Path) -> list[str]:
    """The files that a folder's index names, each once.

    Raises:
        WeightsCorruptError: the index can't be read, or gives a name that is no plain file name.
    """
    return sorted(set(_weight_map(folder).values()))


def missing_files(folder: Path) -> list[str]:
    """What a folder lacks to be loaded; empty where config and tensors are there."""
    lacks = [] if (folder / CONFIG_NAME).is_file() else [CONFIG_NAME]
    if (folder / INDEX_NAME).is_file() and not (folder / WEIGHTS_NAME).is_file():
        return lacks + [name for name in shard_names(folder) if not (folder / name).is_file()]
    return lacks if (folder / WEIGHTS_NAME).is_file() else [*lacks, WEIGHTS_NAME]


def no_weights(place: str, names: Iterable[str]) -> str:
    """What to say of a place without weights whose files have these names; the first pickle is named."""
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if pickles:
        return (
            f"{place} holds its weights as {pickles[0]!r}, a pickle, which can run code when it is opened and never is "
            f"here; ask for {WEIGHTS_NAME}, or make it with `pcvideo convert`"
        )
    return (
        f"{place} holds no weights: it needs {CONFIG_NAME} and {WEIGHTS_NAME} (or {INDEX_NAME} and its shards), as "
        f"save_pretrained and a training run's best/ have them"
    )


def _names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _split(tensors: Mapping[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    """In order, as many to a group as fit; a tensor larger than the limit is a group of its own."""
    groups: list[dict[str, Tensor]] = [{}]
    room = limit
    for name, tensor in tensors.items():
        if groups[-1] and _bytes(tensor) > room:
            groups.append({})
            room = limit
        groups[-1][name] = tensor
        room -= _bytes(tensor)
    return groups


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _is_sharded(folder: Path, manifest: Mapping[str, Any] | None) -> bool:
    # Files of an older save may lie beside those that the manifest lists.
    if manifest is not None and (WEIGHTS_NAME in manifest or INDEX_NAME in manifest):
        return WEIGHTS_NAME not in manifest
    return (folder / INDEX_NAME).is_file() and not (folder / WEIGHTS_NAME).is_file()


def _weight_map(folder: Path) -> dict[str, str]:
    path = folder / INDEX_NAME
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise WeightsCorruptError(path, "it has no 'weight_map' from tensors to files")
    for name in places.values():
        if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name):
            raise WeightsCorruptError(
                path,
                f"it names the file {name!r}, expected a plain name in this folder that ends in .safetensors",
                "take weights from someone else, as no program writes such an index",
            )
    return places


def _check_sums(folder: Path, names: Iterable[str]) -> None:
    try:
        check_manifest(folder, names)
    except WeightsCorruptError as error:
        mend = f"copy or save the folder again, or remove {MANIFEST_NAME} if you changed the file yourself"
        raise WeightsCorruptError(error.path, error.why, mend) from error


def _read_shards(folder: Path, names: Iterable[str]) -> dict[str, Tensor]:
    places, tensors = _weight_map(folder), {}
    for name in names:
        found = read_tensors(folder / name)
        listed = {tensor for tensor, place in places.items() if place == name}
        if found.keys() != listed:
            other = sorted(found.keys() ^ listed)[0]
            fault = "lacks" if other in listed else "holds"
            raise WeightsCorruptError(folder / name, f"it {fault} the tensor {other!r}, unlike {INDEX_NAME} says")
        tensors.update(found)
    return tensors

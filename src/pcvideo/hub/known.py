# SPDX-License-Identifier: Apache-2.0
"""The weights that have a name: built into the package, in a source checkout's `weights/`, or published on the Hub.

A weights folder holds `config.json`, `model.safetensors` (16 bit), `manifest.json`, `card.json` with the facts of its
making, and the same facts for people in `README.md`: the very layout of a repository on the Hub. `published.json` says
in which repository, at which commit and with which checksums each name was published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from pcvideo import _files
from pcvideo._checks import check_bool, check_keys
from pcvideo._weights import INDEX_NAME, WEIGHTS_NAME, missing_files, shard_names
from pcvideo.models import FrameDoubler, Grey2RGB, Predictor
from pcvideo.models._catalog import CONFIGURATIONS, architecture
from pcvideo.models._pretrained import read_config

__all__ = [
    "CARD_KEYS",
    "CARD_NAME",
    "PUBLISHED_NAME",
    "PublishedModel",
    "describe_folder",
    "list_models",
    "published",
    "shelves",
    "tensor_files",
]

CARD_NAME = "card.json"
PUBLISHED_NAME = "published.json"
CARD_KEYS = ("task", "data", "datasets", "recipe", "licence", "metrics", "picture", "sha256")
PUBLISHED_KEYS = ("task", "model", "config", "size", "bytes", "gmac", "repository", "revision", "sha256")
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class PublishedModel:
    """What is known of a name.

    Attributes:
        name: what `from_pretrained` takes, or `create_model` where there are no weights.
        task: what the model does, in a few words.
        folder: where the weights lie; None where they are not at hand.
        size: bytes of the weights' files; 0 where there are none.
        model: name of the class.
        config: the constructor's arguments.
        facts: data, recipe, licence and figures, as the folder's `card.json` has them.
        frame: the frame size (height, width) that it learned at; None where no one said.
        repository, revision: where on the Hub it is published, and at which commit; None where it is not.
        recorded_gmac: `gmac` as it was counted when the weights were recorded, which saves counting it again.
    """

    name: str
    task: str
    folder: Path | None
    size: int
    model: str
    config: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    frame: tuple[int, ...] | None = None
    repository: str | None = None
    revision: str | None = None
    recorded_gmac: float | None = None

    @property
    def where(self) -> str:
        """Where its weights are, in a few words: nearest place first."""
        if self.folder is not None:
            return "built in" if self.folder.parent == shelves()[0] else str(self.folder)
        if self.repository is not None:
            return f"on the Hub, {self.repository}"
        return "not published yet" if self.size else "no weights"

    @property
    def parameters(self) -> int:
        """The number of parameters, counted without allocating them."""
        return sum(parameter.numel() for parameter in self._outline().parameters())

    @property
    def gmac(self) -> float | None:
        """Billions of multiplications that a step on one frame of size `frame` takes, once all levels are at work.

        Of a doubler that is one frame between, of a colouriser one frame in colour.

        Those of convolutions and matrix products, as `torch.utils.flop_counter` counts them, without computing them.
        None where no frame size is known.
        """
        if self.frame is None or self.recorded_gmac is not None:
            return self.recorded_gmac
        from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415

        model = self._outline()
        if isinstance(model, (FrameDoubler, Grey2RGB)):
            with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
                frame = torch.empty(1, model.in_channels, *self.frame)
                if isinstance(model, Grey2RGB):
                    model(frame)
                else:
                    model.step(frame, frame, model.init_state(frame))
            return counter.get_total_flops() / 2e9
        if not isinstance(model, Predictor):
            # A middle frame costs what its picture asks for; see `WaveletVFI.count_macs`.
            return None
        with torch.device("meta"), torch.no_grad():
            frame = torch.empty(1, model.in_channels, *self.frame)
            state, levels = model.init_state(frame), len(model.targets(frame))
            # Where levels begin one after another, or some frames must be seen first, the first steps cost less.
            context = getattr(model, "context", 1)
            for step in range(1, max(levels, context) + 1):
                with FlopCounterMode(display=False) as counter:
                    pyramid, state = model.step(frame, state)
                if len(pyramid) == levels and step >= context:
                    break
        return counter.get_total_flops() / 2e9

    def _outline(self) -> Any:
        """The model without memory for its weights."""
        with torch.device("meta"):
            return architecture(self.model).from_config(self.config).eval()


def list_models(*, fresh: bool = False) -> list[PublishedModel]:
    """The models that have a name: those with weights, the built-in ones first.

    Args:
        fresh: list the networks without weights as well, which `create_model` builds.
    """
    check_bool("fresh", fresh)
    registry = published()
    found: dict[str, PublishedModel] = {}
    for shelf in shelves():
        for folder in sorted(path.parent for path in shelf.glob(f"*/{CARD_NAME}")):
            if folder.name not in found and not missing_files(folder):
                found[folder.name] = describe_folder(folder, registry.get(folder.name, {}))
    for name, entry in registry.items():
        if name not in found:
            found[name] = _elsewhere(name, entry)
    if fresh:
        for name, (model, arguments, size, task) in CONFIGURATIONS.items():
            found.setdefault(name, PublishedModel(name, task, None, 0, model, dict(arguments), {}, size))
    return list(found.values())


def published() -> dict[str, dict[str, Any]]:
    """The entries of `published.json` by name; empty where there is none.

    Raises:
        WeightsCorruptError, ValueError: the file can't be read, or has unknown keys.
    """
    path = shelves()[0] / PUBLISHED_NAME
    entries = _files.read_json(path) if path.is_file() else {}
    for name, entry in entries.items():
        check_keys(f"{path}, {name!r}", entry, PUBLISHED_KEYS)
    return entries


def shelves() -> list[Path]:
    """Folders that hold weights by name; the second one is there in a source checkout alone."""
    checkout = _PACKAGE.parent.parent / "weights"
    return [_PACKAGE / "weights", *([checkout] if (checkout.parent / "pyproject.toml").is_file() else [])]


def tensor_files(folder: Path) -> list[str]:
    """The files of a folder that hold its tensors."""
    sharded = (folder / INDEX_NAME).is_file() and not (folder / WEIGHTS_NAME).is_file()
    return shard_names(folder) if sharded else [WEIGHTS_NAME]


def describe_folder(folder: Path, entry: Mapping[str, Any] = MappingProxyType({})) -> PublishedModel:
    """What a folder with a `card.json` says of its weights, and where its entry in `published.json` has them."""
    facts = _files.read_json(folder / CARD_NAME)
    check_keys(str(folder / CARD_NAME), facts, CARD_KEYS)
    model, config = read_config(folder)
    size = sum((folder / name).stat().st_size for name in tensor_files(folder))
    return PublishedModel(
        folder.name,
        str(facts.get("task", "")),
        folder,
        size,
        model,
        config,
        facts,
        _frame(facts.get("recipe", {})),
        entry.get("repository"),
        entry.get("revision"),
        # Another network may lie under the name of one that was recorded.
        entry.get("gmac") if entry.get("config") == config else None,
    )


def _elsewhere(name: str, entry: dict[str, Any]) -> PublishedModel:
    """What is known of weights that are not at hand."""
    return PublishedModel(
        name,
        entry["task"],
        None,
        entry["bytes"],
        entry["model"],
        entry["config"],
        {},
        _frame(entry),
        entry["repository"],
        entry["revision"],
        entry["gmac"],
    )


def _frame(entry: dict[str, Any]) -> tuple[int, ...] | None:
    size = entry.get("size")
    return tuple(size) if size else None

# SPDX-License-Identifier: Apache-2.0
"""Weights by name: a local folder, those built into the package, and those in a source checkout's `weights/`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pcvideo import _files
from pcvideo._checks import check_keys, did_you_mean
from pcvideo.models import Predictor
from pcvideo.models._base import CONFIG_NAME, WEIGHTS_NAME, read_config
from pcvideo.models._catalog import architecture

__all__ = ["PublishedModel", "find_weights", "from_pretrained", "list_models"]

CARD_NAME = "card.json"
_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class PublishedModel:
    """What is known of published weights.

    Attributes:
        name: what `from_pretrained` takes.
        task: what the model does, in a few words.
        folder: where the weights lie.
        size: bytes of the weights file.
        model: name of the class.
        config: the constructor's arguments.
        facts: data, recipe, licence and figures, as the folder's `card.json` has them.
    """

    name: str
    task: str
    folder: Path
    size: int
    model: str
    config: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """The number of parameters, counted without allocating them."""
        with torch.device("meta"):
            return sum(
                parameter.numel() for parameter in architecture(self.model).from_config(self.config).parameters()
            )


def from_pretrained(
    name: str | Path,
    *,
    strict: bool = True,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Predictor:
    """A model with its weights, in evaluation mode.

    Args:
        name: the name of published weights (see `list_models`), or a folder that `save_pretrained` or a training run
            wrote.
        strict, dtype, device: as in `Predictor.from_pretrained`.

    Raises:
        FileNotFoundError: there are no such weights; the message says where was looked, and the nearest name.
        WeightsCorruptError, ValueError: the folder's files are broken or don't fit.
    """
    folder = find_weights(name)
    kind, _ = read_config(folder)
    return architecture(kind).from_pretrained(folder, strict=strict, dtype=dtype, device=device)


def list_models() -> list[PublishedModel]:
    """All published weights at hand: the built-ins, then those of a source checkout."""
    found: dict[str, PublishedModel] = {}
    for shelf in _shelves():
        for folder in sorted(path.parent for path in shelf.glob(f"*/{CARD_NAME}")):
            if folder.name not in found:
                found[folder.name] = _describe(folder)
    return list(found.values())


def find_weights(name: str | Path) -> Path:
    """The folder that a name stands for.

    Raises:
        FileNotFoundError: as in `from_pretrained`.
    """
    as_path = Path(name).expanduser()
    places = [as_path, *(shelf / str(name) for shelf in _shelves())]
    for place in places if str(name) else ():
        if (place / CONFIG_NAME).is_file() and (place / WEIGHTS_NAME).is_file():
            return place
    if as_path.is_dir():
        raise FileNotFoundError(
            f"{as_path} holds no weights: it needs {CONFIG_NAME} and {WEIGHTS_NAME}, as save_pretrained and a training "
            f"run's best/ have them"
        )
    known = [model.name for model in list_models()]
    raise FileNotFoundError(
        f"no weights called {str(name)!r}{did_you_mean(str(name), known)}; looked for a folder of that path and in "
        f"{', '.join(str(shelf) for shelf in _shelves())}; known: {', '.join(known) or 'none'}"
    )


def _shelves() -> list[Path]:
    """Folders that hold weights by name; the second one is there in a source checkout alone."""
    checkout = _PACKAGE.parent.parent / "weights"
    return [_PACKAGE / "weights", *([checkout] if (checkout.parent / "pyproject.toml").is_file() else [])]


def _describe(folder: Path) -> PublishedModel:
    facts = _files.read_json(folder / CARD_NAME)
    check_keys(str(folder / CARD_NAME), facts, ["task", "data", "recipe", "licence", "metrics", "sha256"])
    kind, config = read_config(folder)
    size = (folder / WEIGHTS_NAME).stat().st_size
    return PublishedModel(folder.name, str(facts.get("task", "")), folder, size, kind, config, facts)

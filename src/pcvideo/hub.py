# SPDX-License-Identifier: Apache-2.0
"""Weights by name: a local folder, those built into the package, and those in a source checkout's `weights/`.

A weights folder holds `config.json`, `model.safetensors` (16 bit), `card.json` with the facts of its making, and the
same facts for people in `README.md`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pcvideo import _files
from pcvideo._checks import check_keys, did_you_mean
from pcvideo.models import Predictor
from pcvideo.models._base import CONFIG_NAME, FORMAT, WEIGHTS_NAME, read_config
from pcvideo.models._catalog import architecture

__all__ = ["PublishedModel", "find_weights", "from_pretrained", "list_models", "write_weights_folder"]

CARD_NAME = "card.json"
CARD_KEYS = ("task", "data", "recipe", "licence", "metrics", "sha256")
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


def write_weights_folder(
    model: Predictor,
    folder: str | Path,
    *,
    task: str,
    data: str,
    recipe: Mapping[str, Any],
    licence: str,
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Write a model's weights as they are published: in 16 bit, with the facts of their making beside them.

    Args:
        model: the trained model; it is not changed.
        folder: where to; its name is the weights' name.
        task: what the model does, in a few words.
        data: what it was trained on, and by whose leave.
        recipe: the training's command and settings.
        licence: of the weights.
        metrics: as `pcvideo evaluate --json` writes it: for each protocol the model's figures and the baselines'. They
            are to be those of the 16-bit weights.

    Raises:
        TypeError: the model has no config.
        OSError: the folder can't be written.
    """
    folder = Path(folder)

    def write(temporary: Path) -> None:
        config = {"format": FORMAT, "model": type(model).__name__, "config": model.config}
        _files.write_json(temporary / CONFIG_NAME, config)
        halves = {
            name: tensor.to(torch.float16) if tensor.is_floating_point() else tensor
            for name, tensor in model.state_dict().items()
        }
        _files.write_tensors(temporary / WEIGHTS_NAME, halves)
        facts = {
            "task": task,
            "data": data,
            "recipe": dict(recipe),
            "licence": licence,
            "metrics": dict(metrics or {}),
            "sha256": hashlib.sha256((temporary / WEIGHTS_NAME).read_bytes()).hexdigest(),
        }
        _files.write_json(temporary / CARD_NAME, facts)
        (temporary / "README.md").write_text(_card(folder.name, model, facts), encoding="utf-8")

    _files.update_folder(folder, write)


def _card(name: str, model: Predictor, facts: Mapping[str, Any]) -> str:
    """The facts for people, with what the Hub indexes on top."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        "---",
        "library_name: pcvideo",
        "tags: [video-prediction, predictive-coding]",
        f"license: {str(facts['licence']).split(maxsplit=1)[0].lower()}",
        "---",
        "",
        f"# {name}",
        "",
        f"{facts['task']}. {type(model).__name__}, {parameters:,} parameters, stored in 16 bit.",
        "",
        "```python",
        "import pcvideo",
        "",
        f'model = pcvideo.from_pretrained("{name}")',
        "```",
        "",
        f"**Data.** {facts['data']}",
        "",
        f"**Licence.** {facts['licence']}",
        "",
        f"**Checksum** of `{WEIGHTS_NAME}` (sha256): `{facts['sha256']}`",
        "",
        "**Recipe.**",
        "",
        *(f"- {key}: {value}" for key, value in facts["recipe"].items()),
    ]
    for protocol, results in facts["metrics"].items():
        lines += ["", f"**Protocol `{protocol}`**", "", *_metrics_table(results)]
    return "\n".join(lines) + "\n"


def _metrics_table(results: Mapping[str, Any]) -> list[str]:
    """A Markdown table: a row for the model, one for each baseline."""
    rows = {name: figures for name, figures in results.items() if name in ("metrics", "copy_last", "black")}
    columns = list(results["metrics"])
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, figures in rows.items():
        cells = ["-" if figures.get(column) is None else f"{figures[column]:.4g}" for column in columns]
        lines.append(f"| {'this model' if name == 'metrics' else name} | {' | '.join(cells)} |")
    return lines


def _shelves() -> list[Path]:
    """Folders that hold weights by name; the second one is there in a source checkout alone."""
    checkout = _PACKAGE.parent.parent / "weights"
    return [_PACKAGE / "weights", *([checkout] if (checkout.parent / "pyproject.toml").is_file() else [])]


def _describe(folder: Path) -> PublishedModel:
    facts = _files.read_json(folder / CARD_NAME)
    check_keys(str(folder / CARD_NAME), facts, CARD_KEYS)
    kind, config = read_config(folder)
    size = (folder / WEIGHTS_NAME).stat().st_size
    return PublishedModel(folder.name, str(facts.get("task", "")), folder, size, kind, config, facts)

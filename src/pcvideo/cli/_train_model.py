# SPDX-License-Identifier: Apache-2.0
"""The model that `pcvideo train` trains: a new one from numbers, weights to go on from, or these with other numbers."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pcvideo import hub
from pcvideo._checks import check_keys
from pcvideo.cli._clips import GENERATED
from pcvideo.cli._common import load_model
from pcvideo.cli._settings import read_config_file
from pcvideo.cli._train_settings import MODEL_SETTINGS
from pcvideo.models import PPNV2, Predictor, adapt
from pcvideo.models._catalog import architecture

__all__ = ["read_model_config", "size_learnt_at", "trained_model", "with_published_loss"]

logger = logging.getLogger(__name__)

# A model that nothing is said about has the published numbers, and is trained by its published loss.
_PUBLISHED: dict[str, dict[str, Any]] = {
    "MSPN": {"levels": 3, "channels": (64, 128, 256, 512), "hidden_channels": 32},
    "PPNV2": {"channels": (3, 64, 128, 256, 512, 512)},
}
_TRAINABLE = ", ".join(name.lower() for name in _PUBLISHED)
_IN_PYTHON = "pcvideo.Trainer trains every model, see examples/training"
_PUBLISHED_LOSS: dict[str, dict[str, Any]] = {
    "MSPN": {"level_weights": "equal", "step_weights": None, "encoding_loss": False},
    "PPNV2": {"level_weights": "shared_above", "step_weights": "damp_first", "encoding_loss": True},
}


def trained_model(settings: Mapping[str, Any], *, tell: bool = True) -> tuple[Predictor, dict[str, Any]]:
    """The model before its first step, and the settings with all of a new one's numbers.

    The same settings give the same weights, fresh ones too.

    Args:
        settings: those of the command.
        tell: log what became of the tensors of weights whose numbers are changed.

    Raises:
        FileNotFoundError, TypeError, ValueError: there are no such weights, or no such model.
    """
    torch.manual_seed(settings["seed"])
    names = [setting.name for setting in MODEL_SETTINGS]
    given = {name: settings[name] for name in names if settings[name] is not None}
    if settings["init"] is not None:
        return _from_weights(settings, given, tell=tell), dict(settings)
    name = settings["model"] or "mspn"
    known = [model.name for model in hub.list_models()]
    if name in known or Path(name).is_dir():
        raise ValueError(f"--model {name} are weights; --init {name} trains them further (--model: {_TRAINABLE})")
    kind = architecture(name)
    if kind.__name__ not in _PUBLISHED:
        raise ValueError(f"--model must be one of {_TRAINABLE}, which learn from videos here, got {name}; {_IN_PYTHON}")
    own = list(inspect.signature(kind).parameters)
    check_keys(f"--model {name}", given, own)
    given = read_model_config(settings["model_config"], own) | _in_own_form(kind, given)
    colours = 1 if settings["data"] == GENERATED else 3
    defaults = dict(_PUBLISHED[kind.__name__])
    if "in_channels" in own:
        defaults["in_channels"] = colours
    else:
        defaults["channels"] = (colours, *defaults["channels"][1:])
    model = kind.from_config(defaults | given)
    return model, {**settings, "model": name, "model_config": None, **model.config}


def size_learnt_at(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """The frame size that the weights of `--init` learnt at, as their card has it; None where none tells."""
    for published in hub.list_models():
        size = published.facts.get("recipe", {}).get("size")
        if settings["init"] in (published.name, str(published.folder)) and size and len(size) == 2:
            return int(size[0]), int(size[1])
    return None


def with_published_loss(settings: Mapping[str, Any], model: Predictor) -> dict[str, Any]:
    """The settings with the model's published loss where nothing else is said."""
    published = dict(_PUBLISHED_LOSS.get(type(model).__name__, _PUBLISHED_LOSS["MSPN"]))
    # A single level is the frame itself, and has no features.
    published["encoding_loss"] &= settings["strategy"] != "teacher-forced" and getattr(model, "levels", 1) > 1
    chosen = {name: value if settings[name] is None else settings[name] for name, value in published.items()}
    return {**settings, **chosen}


def _from_weights(settings: Mapping[str, Any], given: Mapping[str, Any], *, tell: bool) -> Predictor:
    name = settings["init"]
    if settings["model"] is not None:
        raise ValueError(f"--init {name} says which model it is; leave out --model")
    model = load_model(name, torch.device("cpu"))
    if model.spatial_dims != 2:
        raise ValueError(f"--init {name} are weights for volumes, and this command trains on videos; {_IN_PYTHON}")
    own = list(model.config)
    check_keys(f"--init {name}, a {type(model).__name__},", given, own)
    wanted = read_model_config(settings["model_config"], own) | _in_own_form(type(model), given)
    before = model.config
    changes = {name: value for name, value in wanted.items() if _plain(value) != _plain(before[name])}
    if not changes:
        return model
    adaptation = adapt(model, changes)
    if tell:
        logger.info("--init %s: %s", name, adaptation)
    return adaptation.model


def _in_own_form(kind: type[Predictor], given: Mapping[str, Any]) -> dict[str, Any]:
    """One number of hidden channels is a list of one where a model has as many as levels."""
    if kind is PPNV2 and isinstance(given.get("hidden_channels"), int):
        return {**given, "hidden_channels": (given["hidden_channels"],)}
    return dict(given)


def _plain(value: Any) -> Any:
    """As JSON has it: a list in a file is a tuple in a model."""
    return list(value) if isinstance(value, tuple) else value


def read_model_config(text: str | None, names: list[str]) -> dict[str, Any]:
    """The object in a JSON file, or in the text itself; a weights folder's `config.json` is taken too."""
    if text is None:
        return {}
    try:
        content = json.loads(text) if text.lstrip().startswith("{") else read_config_file(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--model-config is no complete JSON ({error})") from error
    if {"format", "model", "config"} <= set(content):
        content = content["config"]
    check_keys("--model-config", content, names)
    return dict(content)

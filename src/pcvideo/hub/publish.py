# SPDX-License-Identifier: Apache-2.0
"""Weights as they are published: one folder with its card, the same on a shelf and on the Hub."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcvideo import _files
from pcvideo._checks import check_clip, check_int, check_keys, describe
from pcvideo._hub_client import upload_folder
from pcvideo._weights import CONFIG_NAME, INDEX_NAME, OWNED, WEIGHTS_NAME, read_weights, write_weights
from pcvideo.hub import known as _known
from pcvideo.hub.card import model_card, refuse_tokens
from pcvideo.hub.known import CARD_KEYS, CARD_NAME, PUBLISHED_NAME, describe_folder, tensor_files
from pcvideo.metrics import copy_last
from pcvideo.models import Grey2RGB, Interpolator, Predictor
from pcvideo.models._catalog import ARCHITECTURES
from pcvideo.models._pretrained import SHARD_SIZE, config_file, read_config
from pcvideo.viz import save_middles, save_strip

__all__ = ["publish_folder", "push_to_hub", "record", "renew_card", "write_card", "write_weights_folder"]

README_NAME = "README.md"
PICTURE_NAME = "prediction"
# What a report holds of a protocol besides the means of model and baselines.
_BESIDE_THE_MEANS = ("per_step", "unavailable")
_PICTURE_KINDS = (".png", ".jpg", ".jpeg", ".gif", ".webp")
_SHORT = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}


def write_weights_folder(
    model: Predictor | Interpolator | Grey2RGB,
    folder: str | Path,
    *,
    task: str | None = None,
    data: str | None = None,
    datasets: Sequence[str] = (),
    recipe: Mapping[str, Any] | None = None,
    licence: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    picture: Tensor | str | Path | None = None,
    dtype: torch.dtype = torch.float16,
    max_shard_size: int = SHARD_SIZE,
) -> None:
    """Write a model's weights as they are published: in 16 bit, with the facts of their making beside them.

    Args:
        model: the trained model; it is not changed.
        folder: where to; its name is the weights' name.
        task: what the model does, in a few words.
        data: what it was trained on, and by whose leave; the words up to the first comma name it in the Hub's index.
        datasets: those of the Hub that it learned from, `owner/name`.
        recipe: the training's command and settings; `size` is the frame's (height, width).
        licence: of the weights, its SPDX name first.
        metrics: as `pcvideo evaluate --json` writes it: for each protocol the model's figures and the baselines'. They
            are to be those of the weights as they are stored.
        picture: a clip (T, C, H, W) float in [0, 1]; or the path of a picture. For a predictor T is at least 2, and the
            second half is predicted from the first and drawn beside the truth and copy-last. For an interpolator T is
            a multiple of 3: triplets, whose middle frames are found and drawn beside the truth and the average.
        dtype: that floating-point tensors are stored in.
        max_shard_size: bytes of a file; larger weights are written in several.

    Raises:
        TypeError, ValueError: the model has no config, a fact is of a wrong kind or holds an access token.
        OSError: the folder can't be written.
    """
    folder = Path(folder)
    facts = {
        "task": task,
        "data": data,
        "datasets": list(datasets),
        "recipe": dict(recipe or {}),
        "licence": licence,
        "metrics": _check_metrics(metrics),
    }
    facts = {key: value for key, value in facts.items() if value or key in ("recipe", "metrics")}
    refuse_tokens(facts)
    if dtype not in _SHORT:
        raise ValueError(f"dtype must be one of {', '.join(_SHORT.values())}, got {describe(dtype)}")
    check_int("max_shard_size", max_shard_size)
    kind, arguments = type(model).__name__, model.config
    stored = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
    }

    def write(temporary: Path) -> None:
        write_weights(temporary, stored, None, max_shard_size)
        _files.write_json(temporary / CONFIG_NAME, config_file(kind, arguments))
        if picture is not None:
            facts["picture"] = _write_picture(model, picture, temporary)
        if (temporary / WEIGHTS_NAME).is_file():
            facts["sha256"] = _files.size_and_sha256(temporary / WEIGHTS_NAME)["sha256"]
        _files.write_json(temporary / CARD_NAME, facts)
        write_card(temporary, folder.name)

    pictures = [f"{PICTURE_NAME}{ending}" for ending in _PICTURE_KINDS]
    _files.update_folder(folder, write, [*OWNED, CARD_NAME, README_NAME, *pictures])


def renew_card(folder: str | Path, *, datasets: Sequence[str] = (), picture: Tensor | None = None) -> None:
    """Write the card and the manifest of a weights folder again, with what is given added; tensors and config stay.

    Args:
        folder: of weights with a `card.json`.
        datasets, picture: as in `write_weights_folder`; what is left out stays as it was.

    Raises:
        WeightsCorruptError, ValueError: the folder would not load, or its card has unknown keys.
    """
    folder = Path(folder)
    facts, (kind, _) = _files.read_json(folder / CARD_NAME), read_config(folder)
    read_weights(folder)
    names = tensor_files(folder)
    _files.write_manifest(folder, [*names, *([INDEX_NAME] if names != [WEIGHTS_NAME] else [])])
    if picture is not None:
        model = ARCHITECTURES[kind]._from_folder(folder, None, strict=True, dtype=torch.float32, device="cpu")
        facts["picture"] = _write_picture(model, picture, folder)
    if datasets:
        facts["datasets"] = list(datasets)
    _files.write_json(folder / CARD_NAME, facts)
    write_card(folder)


def write_card(folder: str | Path, name: str | None = None) -> None:
    """Write `README.md` from the facts in a weights folder; nothing else is changed.

    Args:
        folder: of weights, with or without a `card.json`.
        name: what the card says `from_pretrained` takes; None is the folder's.
    """
    folder = Path(folder)
    facts = _files.read_json(folder / CARD_NAME) if (folder / CARD_NAME).is_file() else {}
    check_keys(str(folder / CARD_NAME), facts, CARD_KEYS)
    refuse_tokens(facts)
    kind, arguments = read_config(folder)
    tensors = read_weights(folder)
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    words = " and ".join(sorted(_SHORT.get(dtype, str(dtype)) for dtype in dtypes))
    count = _parameters(kind, arguments, tensors)
    own = kind not in ARCHITECTURES
    interpolates = not own and issubclass(ARCHITECTURES[kind], Interpolator)
    text = model_card(name or folder.name, kind, count, words, facts, own=own, interpolates=interpolates)
    (folder / README_NAME).write_text(text, encoding="utf-8")


def push_to_hub(
    model: Predictor | Interpolator | Grey2RGB,
    repository: str,
    *,
    private: bool = False,
    token: str | bool | None = None,
    task: str | None = None,
    data: str | None = None,
    datasets: Sequence[str] = (),
    recipe: Mapping[str, Any] | None = None,
    licence: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    picture: Tensor | str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    max_shard_size: int = SHARD_SIZE,
) -> str:
    """Publish a model on the Hugging Face Hub, with a card, in one commit.

    Args:
        model: the trained model; it is not changed.
        repository: `owner/name`; it is made where there is none.
        private: make it private. A public repository is refused then, as pushing does not hide it.
        token: of the Hub; None takes the one that one has logged in with (`hf auth login`, HF_TOKEN).
        task, data, datasets, recipe, licence, metrics, picture, dtype, max_shard_size: as in `write_weights_folder`;
            what is left out, the card says was not stated.

    Returns:
        the commit, for `from_pretrained(repository, revision=commit)`.

    Raises:
        TypeError, ValueError: as in `write_weights_folder`, or `repository` is no `owner/name`.
        PermissionError: the token is missing or refused, or the repository is public and should be private.
        ConnectionError: the Hub can't be reached.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "weights"
        refuse_tokens({"data": data, "task": task, "licence": licence, "recipe": recipe, "metrics": metrics}, token)
        write_weights_folder(
            model,
            folder,
            task=task,
            data=data,
            datasets=datasets,
            recipe=recipe,
            licence=licence,
            metrics=metrics,
            picture=picture,
            dtype=dtype,
            max_shard_size=max_shard_size,
        )
        write_card(folder, repository)
        return _push(folder, repository, private=private, token=token)


def publish_folder(
    folder: str | Path, repository: str, *, private: bool = False, token: str | bool | None = None
) -> str:
    """Put a weights folder on the Hub as it is, with a card that names the repository.

    Only the files of a weights folder go: config, tensors, manifest, card and its picture.

    Returns:
        the commit.

    Raises:
        WeightsCorruptError, ValueError: the folder would not load.
        PermissionError, ConnectionError: as in `push_to_hub`.
    """
    folder = Path(folder)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        facts = _files.read_json(folder / CARD_NAME) if (folder / CARD_NAME).is_file() else {}
        patterns = [*OWNED, CARD_NAME, *([Path(facts["picture"]).name] if facts.get("picture") else [])]
        for path in {path for pattern in patterns for path in folder.glob(pattern)}:
            shutil.copyfile(path, copy / path.name)
        write_card(copy, repository)
        return _push(copy, repository, private=private, token=token)


def record(folder: str | Path, repository: str | None = None, revision: str | None = None) -> None:
    """Note in `published.json` what a weights folder holds, and where it was published; without a place, keep that.

    Raises:
        OSError: the package's folder can't be written to, as where it is installed for everyone.
    """
    folder = Path(folder)
    path = _known.shelves()[0] / PUBLISHED_NAME
    entries = _files.read_json(path) if path.is_file() else {}
    found = describe_folder(folder)
    sums = {name: _files.size_and_sha256(folder / name) for name in tensor_files(folder)}
    entry = {
        "task": found.task,
        "model": found.model,
        "config": found.config,
        "size": None if found.frame is None else list(found.frame),
        "bytes": found.size,
        "gmac": None if found.gmac is None else round(found.gmac, 6),
        "repository": repository,
        "revision": revision,
        "sha256": {name: each["sha256"] for name, each in sums.items()},
    }
    before = entries.get(folder.name, {})
    # Other weights than those that were published are not there yet.
    if repository is None and before.get("sha256") == entry["sha256"]:
        entry |= {"repository": before["repository"], "revision": before["revision"]}
    _files.write_json(path, dict(sorted({**entries, folder.name: entry}.items())))


def _push(folder: Path, repository: str, *, private: bool, token: str | bool | None) -> str:
    message = f"Publish {read_config(folder)[0]} weights"
    return upload_folder(folder, repository, private=private, token=token, message=message)


def _write_picture(model: Any, picture: Tensor | str | Path, folder: Path) -> str:
    """Put the picture into the folder, and return its name."""
    if not isinstance(picture, Tensor):
        source = Path(picture)
        if source.suffix.lower() not in _PICTURE_KINDS:
            raise ValueError(f"picture must be a clip, or a file of one of {', '.join(_PICTURE_KINDS)}, got {source}")
        name = PICTURE_NAME + source.suffix.lower()
        shutil.copyfile(source, folder / name)
        return name
    check_clip("picture", picture[None], channels=model.in_channels)
    # What is shown is what the weights give as they are stored.
    stored = type(model)._from_folder(folder, None, strict=True, dtype=torch.float32, device="cpu")
    path = folder / f"{PICTURE_NAME}.png"
    (_draw_middles if isinstance(stored, Interpolator) else _draw_forecast)(stored, picture, path)
    return path.name


def _draw_middles(stored: Interpolator, picture: Tensor, path: Path) -> None:
    if picture.shape[0] % 3:
        raise ValueError(f"picture must be triplets one after the other, 3, 6, ... frames, got {describe(picture)}")
    before, truth, after = picture[::3], picture[1::3], picture[2::3]
    pairs = zip(before, after, strict=True)
    # A triplet has been chosen for what moves in it, so that none is across a change of scene.
    found = [stored.interpolate(torch.stack(pair), cut=None)[1].cpu() for pair in pairs]
    save_middles(path, before, truth, after, torch.stack(found))


def _draw_forecast(stored: Predictor, picture: Tensor, path: Path) -> None:
    if picture.shape[0] < 2:
        raise ValueError(f"picture must have at least two frames, to be cut in half, got {describe(picture)}")
    half = picture.shape[0] // 2
    context, truth = picture[:half], picture[half:]
    future = stored.predict(context, len(truth)).cpu()
    save_strip(path, context, future, truth=truth, baseline=copy_last(context[None], len(truth))[0])


def _check_metrics(metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """The figures of each protocol, the model's and the baselines'."""
    if metrics is None:
        return {}
    # A whole report of `pcvideo evaluate --json` has more beside them.
    protocols = metrics.get("protocols", metrics)
    for name, report in protocols.items():
        if not isinstance(report, Mapping) or not isinstance(report.get("metrics"), Mapping):
            raise ValueError(
                f"metrics[{name!r}] must be an object with 'metrics' and the baselines' beside them, as "
                f"`pcvideo evaluate --json` writes it, got {describe(report)}"
            )
    return {
        name: {
            part: dict(figures)
            for part, figures in report.items()
            if part not in _BESIDE_THE_MEANS and isinstance(figures, Mapping)
        }
        for name, report in protocols.items()
    }


def _parameters(kind: str, arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> int:
    """The number of parameters; of a class elsewhere, that of all values stored."""
    if kind not in ARCHITECTURES:
        return sum(tensor.numel() for tensor in tensors.values())
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in ARCHITECTURES[kind].from_config(arguments).parameters())

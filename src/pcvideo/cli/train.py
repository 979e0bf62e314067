# SPDX-License-Identifier: Apache-2.0
"""`pcvideo train`: a model for one's own clips, from a run folder that can always be gone on with."""

from __future__ import annotations

import argparse
import inspect
import json
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pcvideo import hub
from pcvideo._checks import check_int, check_keys
from pcvideo._files import write_json
from pcvideo.cli import _voxels
from pcvideo.cli._clips import batches, generated_clips, own_clips
from pcvideo.cli._common import (
    add_command,
    device_of,
    forecast,
    load_model,
    print_json,
    set_threads,
)
from pcvideo.cli._scores import MODEL, Scores, table
from pcvideo.cli._settings import add_settings, read_config_file, resolve
from pcvideo.cli._train_settings import MODEL_SETTINGS, SETTINGS
from pcvideo.losses import EncodingLoss, FramePerceptualLoss, PyramidLoss, SumLoss
from pcvideo.metrics import copy_last
from pcvideo.models import PPNV2, Predictor
from pcvideo.models._catalog import ARCHITECTURES, architecture
from pcvideo.training import SelfFeeding, Strategy, TeacherForced, Trainer, Validation, newest_checkpoint
from pcvideo.viz import loss_curve, save_strip

__all__ = ["add_parser", "run"]

logger = logging.getLogger(__name__)

CONFIG_NAME = "config-resolved.json"
GENERATED = "moving-mnist"
# A model that nothing is said about has the published numbers, and is trained by its published loss.
_PUBLISHED: dict[str, dict[str, Any]] = {
    "MSPN": {"levels": 3, "channels": (64, 128, 256, 512), "hidden_channels": 32},
    "PPNV2": {"channels": (3, 64, 128, 256, 512, 512)},
}
_PUBLISHED_LOSS: dict[str, dict[str, Any]] = {
    "MSPN": {"level_weights": "equal", "step_weights": None, "encoding_loss": False},
    "PPNV2": {"level_weights": "shared_above", "step_weights": "damp_first", "encoding_loss": True},
}
# What the trainer calls by the same name.
_TRAINER_SETTINGS = (
    "run_dir",
    "steps",
    "lr",
    "optimizer",
    "weight_decay",
    "schedule",
    "warmup",
    "clip_norm",
    "ema",
    "precision",
    "seed",
    "num_workers",
    "validate_every",
    "checkpoint_every",
    "validation_clips",
    "keep",
    "max_bad_steps",
)

_DESCRIPTION = """Train a model on clips, in a run folder:
  config-resolved.json  every setting; --config takes it again
  log.csv, loss.png     the losses
  checkpoints/          the newest ones; --resume auto goes on from the last, with the run's own settings
  best/                 the weights with the lowest validation MSE: --model takes this folder
  pictures/             a forecast at each validation
  metrics.json          the best weights' figures beside copy-last's, and beside those of --init

SIGTERM and Ctrl-C save a checkpoint, then stop (exit status 143 and 130).
Every flag but --config, --resume and --json may stand in the file of --config, with dashes or underscores."""

_EPILOG = """examples:
  pcvideo train --data videos/ --exclude walk want --size 128 160 --run-dir runs/mine
  pcvideo train --data videos/ --val-include 'help*' --init mspn-natural --lr 1e-4 --steps 2000
  pcvideo train --data videos/ --model ppnv2 --channels 3 16 32 64 --residual --size 64 80
  pcvideo train --data moving-mnist --digits mnist/ --patch 4 --levels 2 --channels 16 32 64 --clip-norm 10
  pcvideo train --dataset voxel4d --data train.npz --val-data val.npz --format 80/4 --model convlstmpredictor
  pcvideo train --config runs/mine/config-resolved.json --run-dir runs/again --seed 1
  pcvideo train --run-dir runs/mine --resume auto
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    summary = "train a model on clips of one's own"
    parser = add_command(commands, "train", run, summary=summary, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--config", metavar="FILE", help="JSON or TOML file of these names; flags count more")
    parser.add_argument("--resume", metavar="auto|PATH", help="go on from the newest checkpoint, or from that one")
    parser.add_argument("--json", action="store_true", help="print metrics.json on standard output, and nothing else")
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> None:
    """Train, then score the best weights."""
    logging.getLogger("pcvideo").setLevel(logging.INFO)
    with _sigterm_exits():
        settings = _settings(arguments)
        if settings["dataset"] == _voxels.DATASET:
            set_threads(settings["threads"])
            _voxels.train(arguments, settings)
            return
        run_dir = Path(settings["run_dir"])
        newest = newest_checkpoint(run_dir)
        if arguments.resume is None and newest is not None:
            raise FileExistsError(
                f"--run-dir {run_dir} holds the checkpoint {newest.name}; --resume auto goes on from it, or name "
                f"another --run-dir"
            )
        device = device_of(settings["device"])
        set_threads(settings["threads"])
        torch.manual_seed(settings["seed"])
        model, settings = _model(settings)
        settings = _with_published_loss(settings, model)
        train_clips, val_clips = _open(settings, model.in_channels)
        trainer = _trainer(model, settings, device)
        write_json(run_dir / CONFIG_NAME, settings)
        logger.info("%s parameters, %d clips to train on", f"{_count(model):,}", len(train_clips))
        with _log_above_the_bar():
            trainer.fit(train_clips, val_clips, resume=arguments.resume)
        _finish(arguments, settings, trainer, val_clips)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """All settings; a resumed run's own where neither a flag nor a file gives one."""
    files = []
    if arguments.config is not None:
        files.append((f"the file {arguments.config}", read_config_file(arguments.config)))
    elif arguments.resume == "auto":
        saved = Path(arguments.run_dir) / CONFIG_NAME
        if saved.is_file():
            files.append((f"the file {saved}", {**read_config_file(saved), "run_dir": arguments.run_dir}))
    return resolve(SETTINGS, arguments, files)


def _model(settings: Mapping[str, Any]) -> tuple[Predictor, dict[str, Any]]:
    """The model, and the settings with all of its numbers."""
    names = [setting.name for setting in MODEL_SETTINGS]
    given = {name: settings[name] for name in names if settings[name] is not None}
    if settings["init"] is not None:
        extra = [*given, *(name for name in ("model", "model_config") if settings[name] is not None)]
        if extra:
            flags = ", ".join("--" + name.replace("_", "-") for name in extra)
            raise ValueError(f"--init takes the model as it is; leave out {flags}")
        return load_model(settings["init"], torch.device("cpu")), dict(settings)
    name = settings["model"] or "mspn"
    known = [model.name for model in hub.list_models()]
    if name in known or Path(name).is_dir():
        raise ValueError(
            f"--model {name} are weights; --init {name} trains them further (--model: {', '.join(_names())})"
        )
    kind = architecture(name)
    own = list(inspect.signature(kind).parameters)
    check_keys(f"--model {name}", given, own)
    given = _model_config(settings["model_config"], own) | given
    colours = 1 if settings["data"] == GENERATED else 3
    defaults = dict(_PUBLISHED[kind.__name__])
    if "in_channels" in own:
        defaults["in_channels"] = colours
    else:
        defaults["channels"] = (colours, *defaults["channels"][1:])
    if kind is PPNV2 and isinstance(given.get("hidden_channels"), int):
        given["hidden_channels"] = (given["hidden_channels"],)
    model = kind.from_config(defaults | given)
    return model, {**settings, "model": name, "model_config": None, **model.config}


def _names() -> list[str]:
    return [name.lower() for name in ARCHITECTURES]


def _model_config(text: str | None, names: list[str]) -> dict[str, Any]:
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


def _open(settings: Mapping[str, Any], channels: int) -> tuple[Any, Any]:
    """The clips to train and to validate on; None where there are none of the latter."""
    same = settings["val_data"] in (None, settings["data"])
    val_data = settings["val_data"]
    if val_data is None and (settings["data"] == GENERATED or settings["val_include"]):
        val_data = settings["data"]
    # What is validated on is never trained on.
    held_out = settings["val_include"] if same else ()
    train_clips = _clips(
        settings, settings["data"], channels, settings["include"], settings["exclude"] + held_out, training=True
    )
    if val_data is None:
        logger.warning(
            "nothing to validate on (--val-data, or --val-include for a part of --data): best/ will hold the last "
            "weights"
        )
        return train_clips, None
    names = settings["val_include"], settings["val_exclude"]
    return train_clips, _clips(settings, val_data, channels, *names, training=False)


def _clips(
    settings: Mapping[str, Any],
    data: str,
    channels: int,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    *,
    training: bool,
) -> Any:
    length = check_int("context", settings["context"]) + check_int("horizon", settings["horizon"])
    if data != GENERATED:
        return own_clips(
            data,
            length=length,
            channels=channels,
            include=include,
            exclude=exclude,
            flip=settings["flip"] and training,
            **{name: settings[name] for name in ("size", "stride", "interval", "cache", "on_error", "seed")},
        )
    if include or exclude:
        raise ValueError(f"--include and --exclude are for videos, not for {GENERATED}")
    clips = generated_clips(
        settings["digits"],
        clips=settings["clips" if training else "validation_clips"],
        length=length,
        # Other clips than those that `pcvideo evaluate --seed` of the same number scores.
        seed=settings["seed"] + (not training),
        split="train" if training else "test",
        **{name: settings[name] for name in ("size", "num_digits", "speed")},
    )
    logger.info("%s on moving digits: %s", "train" if training else "validate", clips.source)
    return clips


def _with_published_loss(settings: Mapping[str, Any], model: Predictor) -> dict[str, Any]:
    """The settings with the model's published loss where nothing else is said."""
    if settings["strategy"] == "teacher-forced":
        for name in ("detach", "encoding_loss"):
            if settings[name]:
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"{flag} is for --strategy self-feeding; nothing is fed back in teacher-forced")
    published = dict(_PUBLISHED_LOSS.get(type(model).__name__, _PUBLISHED_LOSS["MSPN"]))
    # A single level is the frame itself, and has no features.
    published["encoding_loss"] &= settings["strategy"] == "self-feeding" and getattr(model, "levels", 1) > 1
    chosen = {name: value if settings[name] is None else settings[name] for name, value in published.items()}
    return {**settings, **chosen}


def _strategy(settings: Mapping[str, Any]) -> Strategy:
    norm = {"norm": settings["loss_norm"], "batch_mean": settings["loss_norm"] != "mean"}
    weights = {name: settings[name] for name in ("level_weights", "step_weights")}
    loss: nn.Module = PyramidLoss(**norm, **weights)
    if settings["perceptual"]:
        loss = SumLoss(loss, FramePerceptualLoss(step_weights=settings["step_weights"]))
    common = {"context": settings["context"], "horizon": settings["horizon"], "loss": loss}
    common |= {"checkpoint": settings["recompute"], "detach_targets": settings["detach_targets"]}
    if settings["strategy"] == "teacher-forced":
        return TeacherForced(**common)
    encoding = EncodingLoss(**norm, level_weights=settings["level_weights"]) if settings["encoding_loss"] else None
    return SelfFeeding(**common, detach=settings["detach"], encoding_loss=encoding)


def _trainer(model: Predictor, settings: Mapping[str, Any], device: torch.device) -> Trainer:
    return Trainer(
        model,
        _strategy(settings),
        batch_size=settings["batch"],
        device=device,
        callbacks=[_draw] if model.in_channels in (1, 3) else [],
        notes={"configuration": dict(settings)},
        **{name: settings[name] for name in _TRAINER_SETTINGS},
    )


def _draw(validation: Validation) -> None:
    """A strip of the first validation clip."""
    context, prediction = validation.context[:1], validation.prediction[0].clamp(0, 1)
    path = validation.run_dir / "pictures" / f"step-{validation.step:08d}.png"
    baseline = copy_last(context, len(prediction))[0]
    save_strip(path, context[0], prediction, truth=validation.truth[0], baseline=baseline)


def _finish(arguments: argparse.Namespace, settings: Mapping[str, Any], trainer: Trainer, val_clips: Any) -> None:
    """Draw the curve, score the best weights, and say where they are."""
    run_dir, best = trainer.run_dir, trainer.run_dir / "best"
    if val_clips is None:
        trainer.weights.save_pretrained(best)
    if find_spec("matplotlib"):
        loss_curve(run_dir / "log.csv", run_dir / "loss.png")
    result = {
        "model": str(best),
        "horizon": settings["horizon"],
        "protocols": {} if val_clips is None else _score(settings, best, val_clips, trainer.device),
        "context": settings["context"],
        "steps": trainer.step,
        "init": settings["init"],
    }
    write_json(run_dir / "metrics.json", result)
    if arguments.json:
        print_json(result)
        return
    if val_clips is not None:
        print(f"{best} on the validation clips, {settings['context']} frames to {settings['horizon']}\n")
        print(table(result["protocols"], model="trained") + "\n")
    print(f"weights: {best}\npredict with them: pcvideo predict CLIP --model {best}")


def _score(settings: Mapping[str, Any], best: Path, clips: Any, device: torch.device) -> dict[str, Any]:
    """The best weights' figures beside the baselines', and beside those of the weights that were started from."""
    models = {MODEL: load_model(best, device)}
    if settings["init"] is not None:
        models["start"] = load_model(settings["init"], device)
    context, horizon = settings["context"], settings["horizon"]
    scores = Scores(["standard"], lpips="auto", others=[name for name in models if name != MODEL])
    indices = range(min(len(clips), settings["validation_clips"]))
    for batch in batches(clips, indices, settings["batch"], device):
        seen, truth = batch[:, :context], batch[:, context : context + horizon]
        scores.update(seen, truth, {name: forecast(model, seen, horizon) for name, model in models.items()})
    return scores.report()


def _count(model: Predictor) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Exit with 143 also where the trainer is not yet, or no longer, there to save a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _log_above_the_bar() -> Any:
    """Keep log lines and the progress bar apart, where there is a bar."""
    if not sys.stderr.isatty():
        return nullcontext()
    from tqdm.contrib.logging import logging_redirect_tqdm  # noqa: PLC0415

    return logging_redirect_tqdm(loggers=[logging.getLogger("pcvideo")])

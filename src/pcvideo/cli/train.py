# SPDX-License-Identifier: Apache-2.0
"""`pcvideo train`: a model for one's own clips, from a run folder that can always be gone on with."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from pcvideo._files import write_json
from pcvideo.cli import _voxels
from pcvideo.cli._clips import GENERATED, batches
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
from pcvideo.cli._train_data import training_clips
from pcvideo.cli._train_loggers import loggers_of, pictures_of
from pcvideo.cli._train_model import size_learnt_at, trained_model, with_published_loss
from pcvideo.cli._train_settings import SETTINGS
from pcvideo.cli._train_strategy import strategy_of
from pcvideo.models import Predictor
from pcvideo.training import Trainer, largest_batch, newest_checkpoint
from pcvideo.viz import loss_curve

__all__ = ["add_parser", "run"]

logger = logging.getLogger(__name__)

CONFIG_NAME = "config-resolved.json"
# What the trainer calls by the same name.
_TRAINER_SETTINGS = (
    "run_dir",
    "steps",
    "accumulate",
    "lr",
    "freeze",
    "optimizer",
    "weight_decay",
    "schedule",
    "warmup",
    "clip_norm",
    "ema",
    "precision",
    "compile",
    "engine",
    "seed",
    "num_workers",
    "data_timeout",
    "rank_timeout",
    "grace",
    "validate_every",
    "checkpoint_every",
    "validation_clips",
    "keep",
    "keep_every",
    "on_save_error",
    "max_bad_steps",
)

_DESCRIPTION = """Train a model on clips, in a run folder:
  config-resolved.json  every setting; --config takes it again
  run.json              command, versions, revision of the code and machine of each start
  log.csv, loss.png     the losses; tensorboard/ the same with pictures
  checkpoints/          the newest ones; --resume auto goes on from the last, with the run's own settings
  best/                 the weights with the lowest validation MSE: --model takes this folder
  pictures/             forecasts of the same clips at each validation, as strip and GIF
  metrics.json          the best weights' figures beside copy-last's, and beside those of --init

With --init, numbers of the model may be changed (--in-channels 3 and the like): what fits is kept, the rest is told.
Where nothing is named to validate on, a tenth of the videos is held out.
SIGTERM and Ctrl-C save a checkpoint, then stop (exit status 143 and 130).
Every flag but --config, --resume, --find-batch, --memory-limit and --json may stand in the file of --config, with
dashes or underscores. Under `torchrun --nproc-per-node N -m pcvideo train ...` N processes share each batch."""

_EPILOG = """examples:
  pcvideo train --init mspn-moving-mnist --data videos/
  pcvideo train --data videos/ --exclude walk want --size 128 160 --run-dir runs/mine
  pcvideo train --data videos/ --val-include 'help*' --init mspn-natural --lr 1e-4 --steps 2000
  pcvideo train --data videos/ --init mspn-natural --freeze cells.1 --rate 'cells.0.codec.encoders=0.1'
  pcvideo train --data videos/ --model ppnv2 --channels 3 16 32 64 --residual --size 64 80
  pcvideo train --data videos/ --size 128 128 --strategy adversarial --pixel-steps 5000 --wandb my-project
  pcvideo train --data moving-mnist --digits mnist/ --patch 4 --levels 2 --channels 16 32 64 --clip-norm 10
  pcvideo train --dataset voxel4d --data train.npz --val-data val.npz --format 80/4 --model convlstmpredictor
  pcvideo train --config runs/mine/config-resolved.json --run-dir runs/again --seed 1
  pcvideo train --run-dir runs/mine --resume auto
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    summary = "train a model on clips of one's own"
    parser = add_command(commands, "train", run, summary=summary, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "--config",
        nargs="+",
        metavar="FILE",
        help="JSON or TOML files of these names, later ones count more, flags most",
    )
    parser.add_argument("--resume", metavar="auto|PATH", help="go on from the newest checkpoint, or from that one")
    parser.add_argument("--find-batch", action="store_true", help="print how many clips fit at once, and don't train")
    parser.add_argument("--memory-limit", type=float, metavar="GIB", help="for --find-batch: needed on a CPU")
    parser.add_argument("--json", action="store_true", help="print metrics.json on standard output, and nothing else")
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> None:
    """Train, then score the best weights."""
    is_first = _is_first_process()
    logging.getLogger("pcvideo").setLevel(logging.INFO if is_first else logging.ERROR)
    with _sigterm_exits():
        settings = _settings(arguments)
        if settings["dataset"] == _voxels.DATASET:
            set_threads(settings["threads"])
            _voxels.train(arguments, settings)
            return
        run_dir = Path(settings["run_dir"])
        newest = None if arguments.find_batch else newest_checkpoint(run_dir)
        if arguments.resume is None and newest is not None:
            raise FileExistsError(
                f"--run-dir {run_dir} holds the checkpoint {newest.name}; --resume auto goes on from it, or name "
                f"another --run-dir"
            )
        device = device_of(settings["device"])
        set_threads(settings["threads"])
        model, settings = trained_model(settings)
        settings = _with_size(with_published_loss(settings, model))
        train_clips, val_clips = training_clips(settings, model.in_channels)
        settings = _with_steps(settings, len(train_clips))
        if arguments.find_batch:
            _find_batch(arguments, _trainer(model, settings, device, []), train_clips)
            return
        with loggers_of(settings, is_first=is_first, resume=arguments.resume) as loggers:
            trainer = _trainer(model, settings, device, loggers)
            if is_first:
                write_json(run_dir / CONFIG_NAME, settings)
            logger.info("%s parameters, %d clips to train on", f"{_count(model):,}", len(train_clips))
            with _log_above_the_bar():
                trainer.fit(train_clips, val_clips, resume=arguments.resume)
            if val_clips is None:
                trainer.save_weights(run_dir / "best")
        if is_first:
            _finish(arguments, settings, trainer, val_clips)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """All settings; a resumed run's own where neither a flag nor a file gives one."""
    files = []
    if arguments.config is not None:
        files += [(f"the file {path}", read_config_file(path)) for path in arguments.config]
    elif arguments.resume == "auto":
        saved = Path(arguments.run_dir) / CONFIG_NAME
        if saved.is_file():
            files.append((f"the file {saved}", {**read_config_file(saved), "run_dir": arguments.run_dir}))
    return resolve(SETTINGS, arguments, files)


def _with_size(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the size that the weights of --init learnt at, where none is given."""
    if settings["init"] is None or settings["size"] is not None or settings["data"] == GENERATED:
        return settings
    size = size_learnt_at(settings)
    if size is not None:
        logger.info("frames are resized to %dx%d, which %s learnt at (--size)", *size, settings["init"])
    return {**settings, "size": size}


def _with_steps(settings: dict[str, Any], clips: int) -> dict[str, Any]:
    """The settings with the steps that --epochs comes to; what fills no last batch is left out of an epoch."""
    epochs, batch = settings["epochs"], settings["batch"]
    if epochs is None:
        return settings
    steps = epochs * (clips // max(1, batch))
    logger.info("%d epochs of %d clips, %d at a time, are %d steps", epochs, clips, batch, steps)
    return {**settings, "steps": steps, "epochs": None}


def _trainer(model: Predictor, settings: Mapping[str, Any], device: torch.device, loggers: Any) -> Trainer:
    return Trainer(
        model,
        strategy_of(settings, model),
        batch_size=settings["batch"],
        rates=settings["rate"],
        device=device,
        callbacks=pictures_of(settings, model.in_channels),
        loggers=loggers,
        notes={"configuration": dict(settings)},
        **{name: settings[name] for name in _TRAINER_SETTINGS},
    )


def _find_batch(arguments: argparse.Namespace, trainer: Trainer, clips: Any) -> None:
    limit = arguments.memory_limit
    if limit is None and trainer.device.type == "cpu":
        raise ValueError(
            "--find-batch needs --memory-limit GIB on a CPU: what the tensors of a step may take, such as 8"
        )
    count = largest_batch(trainer, clips, memory_limit=None if limit is None else int(limit * 2**30))
    if arguments.json:
        print_json({"largest_batch": count, "memory_limit_gib": limit})
    else:
        print(f"{count} clips fit at once: --batch {count}, times --accumulate, times the processes of torchrun")


def _finish(arguments: argparse.Namespace, settings: Mapping[str, Any], trainer: Trainer, val_clips: Any) -> None:
    """Draw the curve, score the best weights, and say where they are."""
    run_dir, best = trainer.run_dir, trainer.run_dir / "best"
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
        models["start"] = trained_model(settings, tell=False)[0].to(device).eval()
    context, horizon = settings["context"], settings["horizon"]
    scores = Scores(["standard"], lpips="auto", others=[name for name in models if name != MODEL])
    indices = range(min(len(clips), settings["validation_clips"]))
    for batch in batches(clips, indices, settings["batch"], device):
        seen, truth = batch[:, :context], batch[:, context : context + horizon]
        scores.update(seen, truth, {name: forecast(model, seen, horizon) for name, model in models.items()})
    return scores.report()


def _count(model: Predictor) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _is_first_process() -> bool:
    """Whether this is the one of torchrun's processes that speaks; the only one where there are no others."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1 or os.environ.get("RANK", "0") == "0"


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

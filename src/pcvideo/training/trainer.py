# SPDX-License-Identifier: Apache-2.0
"""The training loop, to read from the top: it owns devices, steps, checkpoints and logs, the strategy the loss."""

from __future__ import annotations

import logging
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pcvideo import _files
from pcvideo._checks import check_choice, check_int, check_number
from pcvideo._version import __version__
from pcvideo.metrics import PerStep, copy_last, get_protocol
from pcvideo.training.batches import load_batches, train_batches
from pcvideo.training.checkpoint import (
    load_checkpoint,
    newest_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from pcvideo.training.run_log import RunLog
from pcvideo.training.schedules import SCHEDULES, learning_rate_factor
from pcvideo.training.signals import StopRequest, TrainingStopped
from pcvideo.training.strategies import Strategy

__all__ = ["Trainer", "Validation"]

logger = logging.getLogger(__name__)

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
VALIDATION_METRICS = ("mse", "mse_mean", "mae", "psnr", "ssim")


@dataclass(frozen=True)
class Validation:
    """What a callback is handed after each validation: pictures are drawn from the first batch's clips."""

    run_dir: Path
    step: int
    metrics: Mapping[str, float]
    context: Tensor
    prediction: Tensor
    truth: Tensor


class Trainer:
    """Train a model by a strategy, step by step, in a run folder from which it can always go on.

    The folder holds `run.json` (all settings and versions), `log.csv`, `checkpoints/step-*` (the newest `keep`) and
    `best/` (the weights with the lowest validation `mse`). Every checkpoint, and `best/`, is a folder that
    `from_pretrained` loads: the averaged weights where there is averaging.

    Args:
        model: what is trained; moved to the device.
        strategy: turns batches into losses.
        run_dir: the run folder, made where there is none.
        steps: optimizer steps of the whole run.
        batch_size: clips per step.
        lr: peak learning rate.
        optimizer: "adam" or "adamw".
        weight_decay: of the optimizer.
        schedule: "constant", "cosine" or "one_cycle"; see `learning_rate_factor`.
        warmup: steps of linear rise.
        clip_norm: the gradient's norm is clipped to this; None doesn't clip.
        ema: decay per step of the exponential moving average of the weights; None keeps none.
        precision: "float32", or "bfloat16" for autocast (weights, cell states and losses stay float32).
        seed: of the order of clips and of all random numbers.
        device: where to train; None takes a GPU if there is one.
        num_workers: processes that load clips; 0 loads them in this one.
        validate_every, checkpoint_every: steps between two; 0 only at the end.
        validation_clips: at most so many clips are validated on.
        keep: checkpoints to keep.
        max_bad_steps: that many steps in a row with a loss or gradient of NaN or infinity are left out, then it stops.
        callbacks: called with a `Validation` after each.
        notes: JSON-able facts to keep in `run.json` (the data, the command).
    """

    def __init__(
        self,
        model: Any,
        strategy: Strategy,
        *,
        run_dir: str | Path,
        steps: int,
        batch_size: int = 8,
        lr: float = 1e-3,
        optimizer: str = "adam",
        weight_decay: float = 0.0,
        schedule: str = "cosine",
        warmup: int = 0,
        clip_norm: float | None = None,
        ema: float | None = None,
        precision: str = "float32",
        seed: int = 0,
        device: str | torch.device | None = None,
        num_workers: int = 0,
        validate_every: int = 0,
        checkpoint_every: int = 0,
        validation_clips: int = 256,
        keep: int = 2,
        max_bad_steps: int = 5,
        callbacks: Sequence[Callable[[Validation], None]] = (),
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = {
            "steps": check_int("steps", steps),
            "batch_size": check_int("batch_size", batch_size),
            "lr": check_number("lr", lr, minimum=0),
            "optimizer": check_choice("optimizer", optimizer, tuple(OPTIMIZERS)),
            "weight_decay": check_number("weight_decay", weight_decay, minimum=0),
            "schedule": check_choice("schedule", schedule, SCHEDULES),
            "warmup": check_int("warmup", warmup, minimum=0),
            "clip_norm": None if clip_norm is None else check_number("clip_norm", clip_norm, minimum=0),
            "ema": None if ema is None else check_number("ema", ema, minimum=0, maximum=1),
            "precision": check_choice("precision", precision, tuple(PRECISIONS)),
            "seed": check_int("seed", seed, minimum=0),
            "validate_every": check_int("validate_every", validate_every, minimum=0),
            "checkpoint_every": check_int("checkpoint_every", checkpoint_every, minimum=0),
            "validation_clips": check_int("validation_clips", validation_clips),
        }
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.run_dir, self.notes = Path(run_dir), dict(notes or {})
        self.num_workers = check_int("num_workers", num_workers, minimum=0)
        self.keep, self.max_bad_steps = check_int("keep", keep), check_int("max_bad_steps", max_bad_steps, minimum=0)
        self.callbacks = tuple(callbacks)
        # Convolutions are faster with the channels last, on CPU and GPU alike.
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.strategy = strategy.attach(self.model).to(self.device)
        self.optimizer = OPTIMIZERS[optimizer](self.strategy.parameters(), lr=lr, weight_decay=weight_decay)
        self.average = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=True) if ema else None
        )
        self.step, self.best, self._bad_steps = 0, float("inf"), 0

    @property
    def weights(self) -> Any:
        """The model that one would use: the averaged one where there is averaging."""
        return self.model if self.average is None else self.average.module

    def fit(self, train_clips: Any, val_clips: Any = None, *, resume: str | Path | None = None) -> dict[str, float]:
        """Train to the last step, and return the last validation's metrics.

        Args:
            train_clips: a data set of clips (T, C, H, W), T at least `strategy.length`; or one that makes whole
                batches by `batch(indices, device)`.
            val_clips: the same, to validate on; None doesn't validate.
            resume: "auto" goes on from the run folder's newest checkpoint if there is one; a path from that one; None
                starts at step 0 and refuses a run folder that has checkpoints.

        Raises:
            TrainingStopped: SIGTERM or Ctrl-C came; a checkpoint was saved. Uncaught, the process exits with
                143 or 130.
            FloatingPointError: too many losses in a row were NaN or infinite; the last good checkpoint stays.
            FileExistsError: the run folder holds checkpoints and `resume` is None.
            OSError: the run folder can't be written; told before the first step.
        """
        self._open_run(resume)
        metrics: dict[str, float] = {}
        log = RunLog(self.run_dir, step=self.step)
        with StopRequest() as stop, self._progress() as bar:
            try:
                for batch in self._batches(train_clips):
                    loss = self._train_step(batch, log)
                    bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
                    bar.update()
                    last = self.step == self.settings["steps"]
                    if stop.number is None and val_clips is not None and self._is_due("validate_every", last):
                        metrics = self.validate(val_clips, stop)
                        log.write(self.step, {f"validation/{name}": value for name, value in metrics.items()})
                    if stop.number is not None or self._is_due("checkpoint_every", last):
                        log.flush()
                        path = self.save()
                        if stop.number is not None:
                            raise TrainingStopped(stop.number, str(path))
            finally:
                log.close()
        return metrics

    @torch.no_grad()
    def validate(self, clips: Any, stop: StopRequest | None = None) -> dict[str, float]:
        """The forecast's metrics on validation clips, with copy-last's as `copy_last/...`; keeps the best weights.

        Metrics follow the `standard` protocol, LPIPS left out. A stop request ends it early, and nothing is kept.
        """
        model, per_step, baseline = self.weights.eval(), *(_standard_metrics() for _ in range(2))
        count = min(len(clips), self.settings["validation_clips"])
        size = self.settings["batch_size"]
        indices = [list(range(start, min(start + size, count))) for start in range(0, count, size)]
        shown: Validation | None = None
        for batch in load_batches(clips, indices, device=self.device, num_workers=self.num_workers):
            if stop is not None and stop.number is not None:
                return {}
            with self._autocast():
                prediction, truth = self.strategy.forecast(batch, model)
            prediction, context = prediction.float(), batch[:, : self.strategy.context]
            per_step.update(prediction, truth)
            baseline.update(copy_last(context, truth.shape[1]), truth)
            shown = shown or Validation(self.run_dir, self.step, {}, context, prediction, truth)
        metrics = _means(per_step) | {f"copy_last/{name}": value for name, value in _means(baseline).items()}
        logger.info("step %d: %s", self.step, ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
        if metrics["mse"] < self.best:
            self.best = metrics["mse"]
            self.weights.save_pretrained(self.run_dir / "best")
        if shown is not None:
            for callback in self.callbacks:
                callback(replace(shown, metrics=metrics))
        self.model.train()
        return metrics

    def save(self) -> Path:
        """Write a checkpoint of this step, and return its folder."""
        tensors = {f"strategy.{name}": tensor for name, tensor in self.strategy.state_dict().items()}
        tensors |= optimizer_tensors(self.optimizer, "optimizer")
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        best = None if self.best == float("inf") else self.best
        return save_checkpoint(
            self.run_dir / "checkpoints",
            self.step,
            state={"best": best, "settings": self.settings},
            tensors=tensors,
            save_weights=self.weights.save_pretrained,
            keep=self.keep,
        )

    def load(self, path: str | Path) -> None:
        """Take up the state of a checkpoint.

        Raises:
            FileNotFoundError, WeightsCorruptError, ValueError: it is none, is broken, or is of another model.
        """
        state, tensors = load_checkpoint(Path(path))
        changed = [name for name, value in self.settings.items() if state["settings"].get(name) != value]
        if changed:
            logger.warning("resumed with other settings than saved: %s", ", ".join(changed))
        parts = {prefix: _part(tensors, f"{prefix}.") for prefix in ("strategy", "average")}
        _load_matching(self.strategy, parts["strategy"], f"{path}: the model")
        if self.average is not None:
            _load_matching(self.average, parts["average"] or self._fresh_average(), f"{path}: the averaged model")
        restore_optimizer(self.optimizer, tensors, "optimizer")
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        self.step = int(state["step"])
        self.best = float("inf") if state["best"] is None else float(state["best"])

    def _open_run(self, resume: str | Path | None) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        for folder in (self.run_dir, self.run_dir / "checkpoints"):
            _files.remove_orphans(folder)
        newest = newest_checkpoint(self.run_dir)
        if resume is None and newest is not None:
            raise FileExistsError(
                f"run_dir {self.run_dir} holds the checkpoint {newest.name}; resume='auto' goes on from it, or choose "
                f"another folder"
            )
        torch.manual_seed(self.settings["seed"])
        path = newest if resume == "auto" else resume
        if path is not None:
            self.load(path)
            logger.info("resumed from %s", path)
        facts = {
            "settings": self.settings,
            "strategy": {"kind": type(self.strategy).__name__, "context": self.strategy.context}
            | {"horizon": self.strategy.horizon},
            "model": type(self.model).__name__,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "device": str(self.device),
            "versions": {"pcvideo": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "notes": self.notes,
        }
        _files.write_json(self.run_dir / "run.json", facts)

    def _batches(self, clips: Any) -> Iterator[Tensor]:
        batches = train_batches(
            clips,
            self.settings["batch_size"],
            seed=self.settings["seed"],
            step=self.step,
            device=self.device,
            num_workers=self.num_workers,
        )
        for _ in range(self.step, self.settings["steps"]):
            yield next(batches)

    def _train_step(self, batch: Tensor, log: RunLog) -> float:
        started = time.perf_counter()
        settings = self.settings
        factor = learning_rate_factor(
            settings["schedule"], self.step, steps=settings["steps"], warmup=settings["warmup"]
        )
        for group in self.optimizer.param_groups:
            group["lr"] = settings["lr"] * factor
        self.strategy.train()
        with self._autocast():
            loss, logs = self.strategy(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        limit = float("inf") if settings["clip_norm"] is None else settings["clip_norm"]
        norm = nn.utils.clip_grad_norm_(self.strategy.parameters(), limit)
        self.step += 1
        if self._is_good(loss, norm):
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
        scalars = {name: float(value) for name, value in logs.items()}
        scalars |= {
            "loss": float(loss.detach()),
            "gradient_norm": float(norm),
            "learning_rate": settings["lr"] * factor,
        }
        log.write(self.step, scalars | {"seconds": time.perf_counter() - started})
        return scalars["loss"]

    def _is_good(self, loss: Tensor, norm: Tensor) -> bool:
        if bool(torch.isfinite(loss)) and bool(torch.isfinite(norm)):
            self._bad_steps = 0
            return True
        self._bad_steps += 1
        logger.warning("step %d: loss %g, gradient norm %g; the step is left out", self.step, float(loss), float(norm))
        if self._bad_steps > self.max_bad_steps:
            raise FloatingPointError(
                f"step {self.step}: the loss was NaN or infinite {self._bad_steps} times in a row; the last good "
                f"checkpoint is kept; turn lr (now {self.settings['lr']}) or clip_norm down"
            )
        return False

    def _is_due(self, every: str, last: bool) -> bool:
        interval = self.settings[every]
        return last or bool(interval and self.step % interval == 0)

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = PRECISIONS[self.settings["precision"]]
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def _fresh_average(self) -> dict[str, Tensor]:
        logger.warning("the checkpoint holds no averaged weights; averaging starts from its own")
        average = AveragedModel(self.model)
        return average.state_dict()

    def _progress(self) -> Any:
        from tqdm import tqdm  # noqa: PLC0415

        # Silent where standard error is no terminal.
        return tqdm(total=self.settings["steps"], initial=self.step, unit="step", disable=not sys.stderr.isatty())


def _standard_metrics() -> PerStep:
    standard = get_protocol("standard").metrics
    return PerStep({name: standard[name] for name in VALIDATION_METRICS})


def _means(per_step: PerStep) -> dict[str, float]:
    means = {name: figures["mean"] for name, figures in per_step.compute().items() if figures is not None}
    return {name: float("inf") if mean is None else float(mean) for name, mean in means.items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _load_matching(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ValueError(f"{what} of the checkpoint is not the one that is trained: {error}") from error

# SPDX-License-Identifier: Apache-2.0
"""The training loop, to read from the top: it owns devices, steps, checkpoints and logs, the strategy the loss."""

from __future__ import annotations

import logging
import math
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pcvideo import _files
from pcvideo._checks import check_choice, check_int, check_number
from pcvideo._memory_format import channels_last
from pcvideo._version import __version__
from pcvideo.training.batches import check_clips, load_batches, train_batches
from pcvideo.training.checkpoint import (
    load_checkpoint,
    load_module,
    module_tensors,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from pcvideo.training.run_folder import open_run_folder
from pcvideo.training.run_log import RunLog
from pcvideo.training.schedules import SCHEDULES, learning_rate_factor
from pcvideo.training.signals import Interrupted, StopRequest, TrainingStopped
from pcvideo.training.strategies import Strategy
from pcvideo.training.validation import Validation, score_forecasts

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


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
        ema: decay per step of the exponential moving average of the weights, below 1; None keeps none.
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
            "clip_norm": None if clip_norm is None else check_number("clip_norm", clip_norm, minimum=1e-8),
            "ema": None if ema is None else check_number("ema", ema, minimum=0, maximum=0.999999),
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
        self.model = channels_last(model.to(self.device))
        self.strategy = strategy.attach(self.model).to(self.device)
        self.optimizer = OPTIMIZERS[optimizer](self.strategy.parameters(), lr=lr, weight_decay=weight_decay)
        self.average = self._new_average()
        self.step, self.best = 0, float("inf")
        self.metrics: dict[str, float] = {}
        # The checkpoint of this very step, if there is one already.
        self._checkpoint: Path | None = None
        self._validated, self._bad_steps = 0, 0

    @property
    def weights(self) -> Any:
        """The model that one would use: the averaged one where there is averaging."""
        return self.model if self.average is None else self.average.module

    def fit(self, train_clips: Any, val_clips: Any = None, *, resume: str | Path | None = None) -> dict[str, float]:
        """Train to the last step, and return the last validation's metrics.

        Args:
            train_clips: a data set of clips (T, C, H, W), T at least `strategy.length`; or one that makes whole
                batches by `batch(indices, device)`. Random draws that depend on the clip's index and on
                `set_epoch(epoch)` alone, as those of `pcvideo.data`, survive a resume.
            val_clips: the same, to validate on; None doesn't validate.
            resume: "auto" goes on from the run folder's newest checkpoint if there is one; a path from that one; None
                starts at step 0.

        Raises:
            TrainingStopped: SIGTERM or Ctrl-C came; a checkpoint was saved. Uncaught, the process exits with
                143 or 130. A step, and a data set's call into compiled code, are finished before.
            FloatingPointError: too many losses in a row were NaN or infinite; the last good checkpoint stays.
            FileExistsError: the run folder holds checkpoints other than the one to go on from.
            TypeError, ValueError: the data sets don't fit the model or the strategy; told before the first step.
            OSError: the run folder can't be written; told before the first step.
        """
        needs = {"length": self.strategy.length, "model": self.model}
        check_clips("train_clips", train_clips, minimum=self.settings["batch_size"], **needs)
        if val_clips is not None:
            check_clips("val_clips", val_clips, **needs)
        self._open_run(resume)
        log = RunLog(self.run_dir, step=self.step, validated=self._validated)
        with closing(log), StopRequest() as stop, self._progress() as bar:
            try:
                # A run that was stopped before or in a validation still owes it.
                self._validate_if_due(val_clips, log, stop)
                for indices, batch in stop.each(self._batches(train_clips)):
                    loss = self._train_step(indices, batch, log)
                    bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
                    bar.update()
                    try:
                        self._validate_if_due(val_clips, log, stop)
                    finally:
                        # A validation or a callback that fails must not cost the steps made so far.
                        if self._is_due("checkpoint_every"):
                            self.save()
            except Interrupted as signal:
                # A step that is saved already is not written again: for a moment there would be none of it.
                raise TrainingStopped(signal.number, str(self._checkpoint or self.save())) from None
        return self.metrics

    def validate(self, clips: Any) -> dict[str, float]:
        """The forecast's metrics on validation clips, with copy-last's as `copy_last/...`; keeps the best weights.

        Metrics follow the `standard` protocol, LPIPS left out.
        """
        model = self.weights.eval()
        count, size = min(len(clips), self.settings["validation_clips"]), self.settings["batch_size"]
        indices = [list(range(start, min(start + size, count))) for start in range(0, count, size)]
        batches = load_batches(clips, indices, device=self.device, num_workers=self.num_workers)

        def forecast(batch: Tensor) -> tuple[Tensor, Tensor]:
            with self._autocast():
                return self.strategy.forecast(batch, model)

        scores = score_forecasts((batch for _, batch in batches), forecast, context=self.strategy.context)
        told = ", ".join(f"{name} {value:.4g}" for name, value in scores.metrics.items())
        logger.info("step %d: %s", self.step, told)
        if scores.metrics["mse"] < self.best:
            model.save_pretrained(self.run_dir / "best")
            self.best = scores.metrics["mse"]
        for callback in self.callbacks:
            callback(Validation(self.run_dir, self.step, scores.metrics, *scores.shown))
        return scores.metrics

    def save(self) -> Path:
        """Write a checkpoint of this step, and return its folder."""
        tensors = module_tensors(self.strategy, "strategy") | optimizer_tensors(self.optimizer, "optimizer")
        if self.average is not None:
            tensors |= module_tensors(self.average, "average")
        state = {
            "settings": self.settings,
            "strategy": self._about_strategy(),
            "validated": self._validated,
            # JSON has no infinity.
            "best": None if self.best == float("inf") else self.best,
            "metrics": {name: None if value == float("inf") else value for name, value in self.metrics.items()},
        }
        self._checkpoint = save_checkpoint(
            self.run_dir / "checkpoints",
            self.step,
            state=state,
            tensors=tensors,
            save_weights=self.weights.save_pretrained,
            keep=self.keep,
        )
        return self._checkpoint

    def load(self, path: str | Path) -> None:
        """Take up the state of a checkpoint; settings and strategy may differ from the saved ones, with a warning.

        Raises:
            FileNotFoundError, WeightsCorruptError, ValueError: it is none, is broken, or is of another model; nothing
                is changed.
        """
        path = Path(path)
        state, tensors = load_checkpoint(path)
        load_module(self.strategy, tensors, "strategy", source=path)
        if self.average is not None and state["settings"]["ema"] is None:
            logger.warning("%s holds no averaged weights; averaging starts from its plain ones", path)
            self.average = self._new_average()
        elif self.average is not None:
            load_module(self.average, tensors, "average", source=path)
        restore_optimizer(self.optimizer, tensors, "optimizer")
        self._tell_changes(state)
        self.step, self._checkpoint = int(state["step"]), path
        self._validated = int(state.get("validated", self.step))
        self.best = float("inf") if state["best"] is None else float(state["best"])
        saved = state.get("metrics", {})
        self.metrics = {name: float("inf") if value is None else float(value) for name, value in saved.items()}

    def _tell_changes(self, state: Mapping[str, Any]) -> None:
        for about, now in (("settings", self.settings), ("strategy", self._about_strategy())):
            before = state.get(about, now)
            changes = [f"{name} {before.get(name)} -> {now[name]}" for name in now if before.get(name) != now[name]]
            if changes:
                logger.warning("resumed with other %s than saved: %s", about, ", ".join(changes))

    def _open_run(self, resume: str | Path | None) -> None:
        path = open_run_folder(self.run_dir, resume)
        if path is not None:
            self.load(path)
            logger.info("resumed from %s", path)
        facts = {
            "settings": self.settings,
            "strategy": self._about_strategy(),
            "model": type(self.model).__name__,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "device": str(self.device),
            "versions": {"pcvideo": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "notes": self.notes,
        }
        _files.write_json(self.run_dir / "run.json", facts)

    def _about_strategy(self) -> dict[str, Any]:
        return {
            "kind": type(self.strategy).__name__,
            "context": self.strategy.context,
            "horizon": self.strategy.horizon,
        }

    def _batches(self, clips: Any) -> Iterator[tuple[list[int], Tensor]]:
        settings = self.settings
        batches = train_batches(
            clips,
            settings["batch_size"],
            seed=settings["seed"],
            step=self.step,
            device=self.device,
            num_workers=self.num_workers,
        )
        for step in range(self.step, settings["steps"]):
            # Random numbers are a function of seed and step, like the batches: there is no state to save or to lose.
            torch.manual_seed(_seed_of(settings["seed"], step))
            yield next(batches)

    def _train_step(self, indices: Sequence[int], batch: Tensor, log: RunLog) -> float:
        started = time.perf_counter()
        rate = self._set_learning_rate()
        self.strategy.train()
        self.strategy.begin(self.step)
        buffers = [buffer.clone() for buffer in self.strategy.buffers()]
        self.optimizer.zero_grad(set_to_none=True)
        scalars: Counter[str] = Counter()
        for piece in self.strategy.pieces(batch):
            with self._autocast():
                loss, logs = self.strategy(piece)
            loss.backward()
            scalars.update({name: float(value) for name, value in {**logs, "loss": loss.detach()}.items()})
        limit = float("inf") if self.settings["clip_norm"] is None else self.settings["clip_norm"]
        norm = nn.utils.clip_grad_norm_(self.strategy.parameters(), limit)
        self.step, self._checkpoint = self.step + 1, None
        scalars.update({"gradient_norm": float(norm), "learning_rate": rate})
        is_good = math.isfinite(scalars["loss"]) and math.isfinite(scalars["gradient_norm"])
        if is_good:
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
        else:
            # Running statistics have seen the bad batch, and would never forget a NaN.
            for buffer, before in zip(self.strategy.buffers(), buffers, strict=True):
                buffer.copy_(before)
        log.write(self.step, {**scalars, "seconds": time.perf_counter() - started})
        if is_good:
            self.strategy.update(scalars)
        self._count_bad_step(is_good, indices, scalars)
        return scalars["loss"]

    def _set_learning_rate(self) -> float:
        settings = self.settings
        rate = settings["lr"] * learning_rate_factor(
            settings["schedule"], self.step, steps=settings["steps"], warmup=settings["warmup"]
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _count_bad_step(self, is_good: bool, indices: Sequence[int], scalars: Mapping[str, float]) -> None:
        self._bad_steps = 0 if is_good else self._bad_steps + 1
        if is_good:
            return
        what = (
            f"step {self.step}: loss {scalars['loss']:g}, gradient norm {scalars['gradient_norm']:g} on the training "
            f"clips {list(indices)}"
        )
        logger.warning("%s; the step is left out", what)
        if self._bad_steps > self.max_bad_steps:
            raise FloatingPointError(
                f"{what}; {self._bad_steps} such steps in a row were left out, so the training stops, and the last "
                f"good checkpoint is kept; look at these clips, or turn lr (now {self.settings['lr']}) or clip_norm "
                f"(now {self.settings['clip_norm']}) down"
            )

    def _validate_if_due(self, clips: Any, log: RunLog, stop: StopRequest) -> None:
        if clips is None or self._validated == self.step or not self._is_due("validate_every"):
            return
        with stop.interruptible():
            metrics = self.validate(clips)
        log.write(self.step, {f"validation/{name}": value for name, value in metrics.items()})
        self.metrics, self._validated = metrics, self.step

    def _is_due(self, every: str) -> bool:
        interval = self.settings[every]
        return self.step == self.settings["steps"] or bool(interval and self.step % interval == 0)

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = PRECISIONS[self.settings["precision"]]
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def _new_average(self) -> AveragedModel | None:
        decay = self.settings["ema"]
        if decay is None:
            return None
        return AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

    def _progress(self) -> Any:
        from tqdm import tqdm  # noqa: PLC0415

        # None: silent where standard error is no terminal.
        return tqdm(total=self.settings["steps"], initial=self.step, unit="step", disable=None)


def _seed_of(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))

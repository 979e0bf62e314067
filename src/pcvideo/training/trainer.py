# SPDX-License-Identifier: Apache-2.0
"""The training loop, to read from the top: it owns devices, steps, checkpoints and logs, the strategy the loss."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcvideo import _files
from pcvideo._checks import check_choice, check_int, check_number
from pcvideo.training.batches import check_clips, load_batches, train_batches
from pcvideo.training.loggers import Logger, default_loggers
from pcvideo.training.memory import explained_memory
from pcvideo.training.ranks import join_ranks, reported
from pcvideo.training.run_facts import starts_of_run
from pcvideo.training.run_folder import lock_run_folder, open_run_folder
from pcvideo.training.run_log import RunLog
from pcvideo.training.saving import Saver, from_json_number, to_json_number
from pcvideo.training.schedules import learning_rate_factor
from pcvideo.training.settings import check_parts, check_settings, tell_changes
from pcvideo.training.signals import Interrupted, StopRequest, TrainingStopped
from pcvideo.training.stepper import OPTIMIZERS, PRECISIONS, Stepper
from pcvideo.training.strategies import Strategy
from pcvideo.training.validation import Scores, Validation, split_validation

__all__ = ["OPTIMIZERS", "PRECISIONS", "Trainer"]

logger = logging.getLogger(__name__)


class Trainer:
    """Train a model by a strategy, step by step, in a run folder from which it can always go on.

    The folder holds `run.json` (all settings and versions), `log.csv`, `checkpoints/step-*` (the newest `keep`) and
    `best/` (the weights with the lowest validation `mse`). Every checkpoint, and `best/`, is a folder that
    `from_pretrained` loads: the averaged weights where there is averaging.

    The same script runs in one process, and in many under `torchrun --nproc-per-node N script.py`: the clips of each
    batch are then shared among them, and the losses and gradients are those of the whole batch.

    Args:
        model: what is trained; moved to the device.
        strategy: turns batches into losses.
        run_dir: the run folder, made where there is none.
        steps: optimizer steps of the whole run.
        batch_size: clips per step, of all processes together.
        accumulate: parts into which each process cuts its share of a batch, worked on one after another.
        lr: peak learning rate.
        rates: learning rates of parts as factors of `lr`, by a pattern over the model's parameter names, such as
            {"cells.0.*": 0.1}; the first that fits counts, and goes before those of the strategy.
        freeze: patterns of parts that are not trained; their batch normalisation keeps its statistics, too.
        optimizer: "adam" or "adamw".
        weight_decay: of the optimizer.
        schedule: "constant", "cosine" or "one_cycle"; see `learning_rate_factor`.
        warmup: steps of linear rise.
        clip_norm: the gradient's norm is clipped to this; None doesn't clip.
        ema: decay per step of the exponential moving average of the weights, below 1; None keeps none.
        precision: "float32"; or "bfloat16" or "float16" for autocast (weights, cell states and losses stay float32;
            "float16" scales the loss).
        compile: compile the model's `step`.
        engine: how many processes share the model: "ddp", a whole one in each, or "fsdp", cut among them, for what
            doesn't fit one device; "auto" is "ddp". A process that is alone has the whole.
        seed: of the order of clips and of all random numbers.
        device: where to train; None takes a GPU if there is one, and each process its own.
        num_workers: processes that load clips; 0 loads them in this one.
        data_timeout: seconds after which a worker that gives no clips is an error; 0 waits for ever.
        rank_timeout: seconds after which waiting for another process is an error.
        grace: seconds from a SIGTERM or Ctrl-C to the end of the process, whatever hangs.
        validate_every, checkpoint_every: steps between two; 0 only at the end.
        validation_clips: at most so many clips are validated on.
        keep: checkpoints to keep.
        keep_every: besides, those whose step it divides are kept; 0 keeps no others.
        on_save_error: "raise", or "warn" to go on where a checkpoint can't be written (a full disk); the one before it
            stays either way.
        max_bad_steps: that many steps in a row with a loss or gradient of NaN or infinity are left out, then it stops.
        callbacks: called with a `Validation` after each, in the first process.
        loggers: told all scalars, beside `log.csv`, and of pictures; None is TensorBoard where it is installed.
        notes: JSON-able facts to keep in `run.json` (the data, the command).

    Attributes:
        ranks: this process's number, and how many there are.

    Raises:
        TypeError, ValueError: an argument out of its range; a pattern that no parameter fits; fewer clips in a batch
            than there are parts of it.
    """

    def __init__(
        self,
        model: Any,
        strategy: Strategy,
        *,
        run_dir: str | Path,
        steps: int,
        batch_size: int = 8,
        accumulate: int = 1,
        lr: float = 1e-3,
        rates: Mapping[str, float] | None = None,
        freeze: Sequence[str] = (),
        optimizer: str = "adam",
        weight_decay: float = 0.0,
        schedule: str = "cosine",
        warmup: int = 0,
        clip_norm: float | None = None,
        ema: float | None = None,
        precision: str = "float32",
        compile: bool = False,
        engine: str = "auto",
        seed: int = 0,
        device: str | torch.device | None = None,
        num_workers: int = 0,
        data_timeout: float = 300.0,
        rank_timeout: float = 600.0,
        grace: float = 25.0,
        validate_every: int = 0,
        checkpoint_every: int = 0,
        validation_clips: int = 256,
        keep: int = 2,
        keep_every: int = 0,
        on_save_error: str = "raise",
        max_bad_steps: int = 5,
        callbacks: Sequence[Callable[[Validation], None]] = (),
        loggers: Sequence[Logger] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        # By name out of the arguments above, of which most are settings.
        self.settings = check_settings(locals())
        self.run_dir, self.notes = Path(run_dir), dict(notes or {})
        self.num_workers = check_int("num_workers", num_workers, minimum=0)
        self.data_timeout = check_number("data_timeout", data_timeout, minimum=0)
        self.grace = check_number("grace", grace, minimum=0)
        self.keep, self.keep_every = check_int("keep", keep), check_int("keep_every", keep_every, minimum=0)
        self.max_bad_steps = check_int("max_bad_steps", max_bad_steps, minimum=0)
        self.callbacks, self.loggers = tuple(callbacks), default_loggers() if loggers is None else tuple(loggers)
        wanted = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.ranks, self.device = join_ranks(wanted, timeout=check_number("rank_timeout", rank_timeout, minimum=1))
        check_parts(self.settings, self.ranks.count)
        self._kind = type(strategy).__name__
        self.model = model.to(self.device)
        self._stepper = Stepper(self.model, strategy, self.ranks, self.settings)
        on_error = check_choice("on_save_error", on_save_error, ("raise", "warn"))
        self._saver = Saver(self._stepper, self.ranks, on_error=on_error)
        self.strategy, self.optimizer, self.average = strategy, self._stepper.optimizer, self._stepper.average
        self.step, self.best = 0, float("inf")
        self.metrics: dict[str, float] = {}
        # The checkpoint of this very step, if there is one already.
        self._checkpoint: Path | None = None
        self._validated, self._bad_steps = 0, 0
        self._stop = StopRequest(self.ranks, grace=self.grace)
        self._log: RunLog | None = None

    @property
    def weights(self) -> Any:
        """The model that one would use: the averaged one where there is averaging.

        With engine="fsdp" this process has a part of it only; `save_weights` writes the whole.
        """
        return self._stepper.weights

    def fit(self, train_clips: Any, val_clips: Any = None, *, resume: str | Path | None = None) -> dict[str, float]:
        """Train to the last step, and return the last validation's metrics.

        Args:
            train_clips: a data set of clips (T, C, H, W), T at least `strategy.length`; or one that makes whole
                batches by `batch(indices, device)`. Random draws that depend on the clip's index and on
                `set_epoch(epoch)` alone, as those of `pcvideo.data`, survive a resume.
            val_clips: the same, to validate on; None doesn't validate.
            resume: "auto" goes on from the run folder's newest whole checkpoint if there is one; a path from that one;
                None starts at step 0.

        Raises:
            TrainingStopped: SIGTERM or Ctrl-C came, to any process; a checkpoint was saved. Uncaught, the process
                exits with 143 or 130. A step, and a data set's call into compiled code, are finished before.
            FloatingPointError: too many losses in a row were NaN or infinite; the last good checkpoint stays.
            FileExistsError: the run folder holds checkpoints other than the one to go on from.
            BlockingIOError: a run that is still going has the run folder.
            TypeError, ValueError: the data sets don't fit the model or the strategy; told before the first step.
            WeightsCorruptError: every checkpoint of the run folder is broken.
            OSError: the run folder can't be written, or has no room; told before the first step.
            torch.OutOfMemoryError: a step or a forecast doesn't fit; the message says what to turn down.
            RankLostError: another process is gone.
        """
        self._stop = StopRequest(self.ranks, grace=self.grace)
        with reported(self.ranks), ExitStack() as stack:
            needs = {"length": self.strategy.length, "model": self.model, "channels": self.strategy.clip_channels}
            check_clips("train_clips", train_clips, minimum=self.settings["batch_size"], **needs)
            if val_clips is not None:
                check_clips("val_clips", val_clips, **needs)
            self.ranks.from_first(lambda: stack.enter_context(lock_run_folder(self.run_dir)))
            self._open_run(resume)
            if self.ranks.is_first:
                self._log = stack.enter_context(
                    closing(RunLog(self.run_dir, step=self.step, validated=self._validated, loggers=self.loggers))
                )
            stack.enter_context(self._stop)
            bar = stack.enter_context(self._progress())
            try:
                self._loop(train_clips, val_clips, bar)
            except Interrupted as signal:
                # A step that is saved already is not written again: for a moment there would be none of it.
                raise TrainingStopped(signal.number, str(self._checkpoint or self.save())) from None
            finally:
                self._log = None
                self._stepper.wake()
        return self.metrics

    def _loop(self, train_clips: Any, val_clips: Any, bar: Any) -> None:
        # A run that was stopped before or in a validation still owes it.
        self._validate_if_due(val_clips)
        for indices, batch in self._stop.each(self._batches(train_clips)):
            bar.set_postfix(loss=f"{self._train_step(indices, batch):.4g}", refresh=False)
            bar.update()
            try:
                self._validate_if_due(val_clips)
            except Exception:
                # A validation or a callback that fails must not cost the steps made so far. Other ranks, which are
                # not here, would be waited for in vain.
                if self._is_due("checkpoint_every") and not self.ranks.are_many:
                    self.save()
                raise
            if self._is_due("checkpoint_every"):
                self.save()

    def validate(self, clips: Any) -> dict[str, float]:
        """The forecast's metrics on validation clips, with copy-last's as `copy_last/...`; keeps the best weights.

        Metrics follow the `standard` protocol, LPIPS left out. All processes share the clips, and have to call this.
        """
        ranks, settings, model = self.ranks, self.settings, self.weights.eval()
        # No more at once than in training.
        size = -(-settings["batch_size"] // (ranks.count * settings["accumulate"]))
        indices = split_validation(min(len(clips), settings["validation_clips"]), size, ranks)
        batches = load_batches(
            clips, indices, device=self.device, num_workers=self.num_workers, timeout=self.data_timeout
        )

        def forecast(batch: Tensor) -> tuple[Tensor, Tensor]:
            with self._stepper.autocast():
                return self.strategy.forecast(batch, model)

        volumes = getattr(self.model, "spatial_dims", 2) == 3
        scores = Scores(seen=self.strategy.seen, volumes=volumes)
        hint = explained_memory(lambda: f"the forecasts of {size} clips")
        with self._stepper.engine.whole(model), hint, self._stop.interruptible():
            scores.add((batch for _, batch in batches), forecast)
        metrics = scores.metrics()
        if ranks.is_first:
            logger.info("step %d: %s", self.step, ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
        if metrics["mse"] < self.best:
            self.save_weights(self.run_dir / "best")
            self.best = metrics["mse"]
        with self._stop.interruptible():
            for callback in self.callbacks if ranks.is_first else ():
                callback(Validation(self.run_dir, self.step, metrics, *scores.frames(), self.loggers))
        return metrics

    def save_weights(self, folder: str | Path) -> None:
        """Write `weights` as a folder for `from_pretrained`; all processes have to call this, the first one writes."""
        self._saver.save_weights(Path(folder))

    def save(self) -> Path | None:
        """Write a checkpoint of this step; all processes have to call this.

        Returns:
            its folder; None where it can't be written and `on_save_error` is "warn".
        """
        state = {
            **self._about(),
            "validated": self._validated,
            "bad_steps": self._bad_steps,
            "best": to_json_number(self.best),
            "metrics": {name: to_json_number(value) for name, value in self.metrics.items()},
        }
        self._checkpoint = self._saver.save(
            self.run_dir / "checkpoints", self.step, state, keep=self.keep, keep_every=self.keep_every
        )
        return self._checkpoint

    def load(self, path: str | Path) -> None:
        """Take up the state of a checkpoint; settings, strategy and processes may differ, which is warned of.

        All processes have to call this; the first one reads.

        Raises:
            FileNotFoundError, WeightsCorruptError, ValueError: it is none, is broken, or is of another model; nothing
                is changed.
        """
        path = Path(path)
        state = self._saver.load(path)
        if self.ranks.is_first:
            tell_changes(state, self._about())
        self.step, self._checkpoint = int(state["step"]), path
        self._validated, self._bad_steps = int(state.get("validated", self.step)), int(state.get("bad_steps", 0))
        self.best = from_json_number(state["best"])
        self.metrics = {name: from_json_number(value) for name, value in state.get("metrics", {}).items()}

    def try_batch(self, batch: Tensor) -> None:
        """The loss of a batch (B, T, C, H, W) and its gradients, at once, and no step; for `largest_batch`."""
        self._stepper.accumulate(batch, total=len(batch), parts=1)

    def _about(self) -> dict[str, dict[str, Any]]:
        """What makes a resumed run another one where it differs."""
        strategy = {"kind": self._kind, "context": self.strategy.context, "horizon": self.strategy.horizon}
        return {"settings": self.settings, "strategy": strategy, "ranks": {"processes": self.ranks.count}}

    def _open_run(self, resume: str | Path | None) -> None:
        tensors = [*self.strategy.parameters(), *self.strategy.buffers()]
        # Weights, two moments, an average; and the weights to use.
        needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors) * (4 if self.average is None else 5)
        path = self.ranks.from_first(lambda: open_run_folder(self.run_dir, resume, needed=needed))
        if path is not None:
            self.load(path)
            logger.info("resumed from %s", path)
        facts = {
            **self._about(),
            "model": type(self.model).__name__,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "device": str(self.device),
            "notes": self.notes,
            "starts": starts_of_run(self.run_dir, self.device, step=self.step),
        }
        if self.ranks.is_first:
            _files.write_json(self.run_dir / "run.json", facts)

    def _batches(self, clips: Any) -> Iterator[tuple[list[int], Tensor]]:
        settings = self.settings
        batches = train_batches(
            clips,
            settings["batch_size"],
            seed=settings["seed"],
            step=self.step,
            device=self.device,
            num_workers=self.num_workers,
            timeout=self.data_timeout,
            ranks=self.ranks,
        )
        for step in range(self.step, settings["steps"]):
            # Random numbers are a function of seed and step, like the batches: there is no state to save or to lose.
            torch.manual_seed(_seed_of(settings["seed"], step, self.ranks.number))
            yield next(batches)

    def _train_step(self, indices: Sequence[int], batch: Tensor) -> float:
        started, settings = time.perf_counter(), self.settings
        factor = learning_rate_factor(
            settings["schedule"], self.step, steps=settings["steps"], warmup=settings["warmup"]
        )
        rate = settings["lr"] * factor
        with explained_memory(lambda: f"a step on {tuple(batch.shape)} in {settings['accumulate']} parts"):
            outcome = self._stepper(self.step, batch, rate)
        self.step, self._checkpoint = self.step + 1, None
        scalars = {**outcome.scalars, "learning_rate": rate}
        self._write_log({**scalars, "seconds": time.perf_counter() - started})
        if outcome.is_good:
            self.strategy.update(scalars)
        self._bad_steps = 0 if outcome.is_good else self._bad_steps + (not outcome.overflowed)
        if not outcome.is_good and self.ranks.is_first:
            log = logger.info if outcome.overflowed else logger.warning
            log("%s; the step is left out", outcome.told(f"step {self.step}", indices))
        if self._bad_steps > self.max_bad_steps:
            raise FloatingPointError(
                f"{outcome.told(f'step {self.step}', indices)}; {self._bad_steps} such steps in a row were left out, "
                f"so the training stops, and the last good checkpoint is kept; look at these clips, or turn lr (now "
                f"{settings['lr']}) or clip_norm (now {settings['clip_norm']}) down"
            )
        return scalars["loss"]

    def _validate_if_due(self, clips: Any) -> None:
        if clips is None or self._validated == self.step or not self._is_due("validate_every"):
            return
        metrics = self.validate(clips)
        self._write_log({f"validation/{name}": value for name, value in metrics.items()})
        self.metrics, self._validated = metrics, self.step

    def _write_log(self, scalars: Mapping[str, float]) -> None:
        if self._log is not None:
            self._log.write(self.step, scalars)

    def _is_due(self, every: str) -> bool:
        interval = self.settings[every]
        return self.step == self.settings["steps"] or bool(interval and self.step % interval == 0)

    def _progress(self) -> Any:
        from tqdm import tqdm  # noqa: PLC0415

        # None: silent where standard error is no terminal.
        silent = None if self.ranks.is_first else True
        return tqdm(total=self.settings["steps"], initial=self.step, unit="step", disable=silent)


def _seed_of(seed: int, step: int, rank: int) -> int:
    words = [seed, step, rank] if rank else [seed, step]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))

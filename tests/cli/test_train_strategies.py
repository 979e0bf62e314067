# SPDX-License-Identifier: Apache-2.0
"""Strategies, schedules, engines and loggers as `pcvideo train` names them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from small_clips import moving_square

import pcvideo
from pcvideo import hub
from pcvideo.cli import train as command
from pcvideo.cli._train_model import trained_model, with_published_loss
from pcvideo.cli._train_strategy import strategy_of
from pcvideo.cli.main import build_parser, main
from pcvideo.losses import HingeScoreLoss
from pcvideo.training import Adversarial, Alternating, Linear, SelfFeeding, TeacherForced
from pcvideo.training.schedules import InverseSigmoid
from pcvideo.video_io import write_video

SMALL = ["--levels", "2", "--channels", "4", "6", "6", "--hidden-channels", "3", "--threads", "1"]
SHORT = ["--context", "2", "--horizon", "2", "--batch", "2", "--steps", "2", "--pictures", "0"]
DISCRIMINATOR = ["--discriminator-channels", "2", "3", "4"]


def strategy(*arguments: Any) -> Any:
    parsed = build_parser().parse_args(["train", *map(str, arguments), *SMALL])
    model, settings = trained_model(command._settings(parsed))
    return strategy_of(with_published_loss(settings, model), model)


def train(*arguments: Any) -> int:
    with mock.patch("pcvideo.cli.train.loss_curve"):
        return main(["train", *map(str, arguments)])


def logged(run: Path, name: str) -> list[float]:
    with (run / "log.csv").open(newline="") as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == name]


def test_schedules_are_numbers_lines_or_named_curves() -> None:
    assert strategy("--true-frames", "0.25").true_frames == 0.25
    assert strategy("--true-frames", "1", "0", "1000").true_frames == Linear(1, 0, steps=1000)
    assert strategy("--true-frames", "1", "0", "1000", "50").true_frames == Linear(1, 0, steps=1000, after=50)
    assert strategy("--true-frames", "inverse_sigmoid", "30").true_frames == InverseSigmoid(30)
    chosen = strategy("--growth", "1", "10", "90", "--truncate", "5", "--recompute")
    assert (chosen.growth, chosen.truncate, chosen.checkpoint) == (Linear(1, 10, steps=90), 5, True)
    assert isinstance(chosen, SelfFeeding)
    assert strategy("--no-batch-mean").reduction == "sum"
    assert strategy("--strategy", "teacher-forced", "--truncate", "3").truncate == 3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--true-frames", "1", "0"], "START END STEPS"),
        (["--true-frames", "sigmoid", "3"], "START END STEPS"),
        (["--true-frames", "1.5"], "true_frames"),
        (["--growth", "1", "10", "2.5"], "steps"),
        (["--strategy", "teacher-forced", "--true-frames", "0.5"], "--true-frames is for --strategy self-feeding"),
        (["--pixel-steps", "5"], "--pixel-steps is for --strategy adversarial"),
        (["--strategy", "adversarial", "--truncate", "2"], "truncate"),
        (["--strategy", "adversarial", "--published-discriminator"], "--size"),
    ],
)
def test_settings_that_make_no_strategy_are_refused(flags: Sequence[str], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        strategy(*flags)


def test_an_adversarial_strategy_takes_its_numbers() -> None:
    assert isinstance(strategy("--strategy", "teacher-forced"), TeacherForced)
    chosen = strategy(
        *("--strategy", "adversarial", "--score", "hinge", "--adversarial-weight", "3", "--pixel-weight", "2"),
        *("--pixel-steps", "7", "--gradient-penalty", "10", "--discriminator-steps", "4", "--judge-from", "3"),
        *("--discriminator-rate", "0.5", *DISCRIMINATOR),
    )
    assert isinstance(chosen, Adversarial)
    assert isinstance(chosen.score, HingeScoreLoss)
    assert isinstance(chosen.turns, Alternating)
    assert chosen.turns.discriminator_steps == 4
    assert (chosen.adversarial_weight, chosen.pixel_weight, chosen.gradient_penalty) == (3, 2, 10)
    assert (chosen.pixel_steps, chosen.judge_from, chosen.rates) == (7, 3, {"discriminator.*": 0.5})
    # A penalty on the slope of single scores, so none may depend on the others.
    assert chosen.discriminator.norm is None
    assert chosen.discriminator.channels == (2, 3, 4)
    balanced = strategy("--strategy", "adversarial", "--balance-window", 5, "--max-phase-steps", 0).turns
    assert (balanced.window, balanced.max_phase_steps) == (5, None)
    assert strategy("--strategy", "adversarial").discriminator.norm == "batch"
    assert strategy("--strategy", "adversarial", "--discriminator-norm", "none").discriminator.norm is None


def test_an_adversarial_run_with_scheduled_sampling_goes_on_from_its_checkpoint(tmp_path: Path, videos: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    flags = [*SMALL, *SHORT, "--data", videos, "--strategy", "adversarial", *DISCRIMINATOR, "--pixel-steps", 1]
    flags += ["--true-frames", 1, 0, 4, "--schedule", "constant"]
    assert train(*flags, "--run-dir", run) == 0
    assert train("--run-dir", run, "--resume", "auto", "--steps", 5) == 0
    assert train(*flags, "--steps", 5, "--run-dir", whole) == 0
    assert logged(run, "phase")[:2] == [0, 1]
    assert len(logged(run, "loss")) == 5
    assert logged(run, "loss") == logged(whole, "loss")


def test_epochs_are_counted_in_steps_of_whole_batches(tmp_path: Path, videos: Path) -> None:
    run = tmp_path / "run"
    # Twelve windows, five at a time.
    flags = [*SMALL, *SHORT, "--data", videos, "--epochs", 3, "--batch", 5, "--accumulate", 2, "--keep-every", 4]
    assert train(*flags, "--checkpoint-every", 2, "--keep", 1, "--run-dir", run) == 0
    assert len(logged(run, "loss")) == 6
    kept = sorted(path.name for path in (run / "checkpoints").glob("step-*"))
    assert kept == ["step-00000004", "step-00000006"]


def test_what_is_logged_to_weights_and_biases_is_what_stands_in_the_csv(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Any] = []

    class Run:
        def __init__(self, **options: Any) -> None:
            self.options, self.rows, self.finished = options, [], False
            runs.append(self)

        def log(self, data: dict[str, Any], step: int | None = None) -> None:
            self.rows.append((step, data))

        def finish(self) -> None:
            self.finished = True

    stand_in = types.ModuleType("wandb")
    stand_in.init, stand_in.Image, stand_in.Video = Run, ("image {}".format), None  # type: ignore[attr-defined]
    stand_in.Video = lambda path, format: f"video {path}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    run = tmp_path / "run"
    flags = [*SMALL, *SHORT, "--data", videos, "--wandb", "mine", "--pictures", 1, "--no-tensorboard"]
    assert train(*flags, "--run-dir", run) == 0
    assert train("--run-dir", run, "--resume", "auto", "--steps", 3) == 0
    first, second = runs
    assert first.options["project"] == "mine"
    assert first.options["config"]["channels"] == (4, 6, 6)
    assert (first.options["id"], first.finished, second.finished) == (second.options["id"], True, True)
    values = [data["loss"] for each in runs for _, data in each.rows if "loss" in data]
    assert values == logged(run, "loss")
    pictures = [value for _, data in first.rows for name, value in data.items() if name.startswith("forecast/")]
    assert [value.split()[0] for value in pictures] == ["image", "video"]
    assert not (run / "tensorboard").exists()


def test_wandb_that_is_missing_is_told_with_what_to_install(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert train(*SMALL, *SHORT, "--data", videos, "--wandb", "mine", "--run-dir", tmp_path / "run") == 2
    assert "pip install wandb" in capsys.readouterr().err


def test_the_largest_batch_is_found_without_a_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, videos: Path
) -> None:
    run = tmp_path / "run"
    flags = [*SMALL, *SHORT, "--data", videos, "--run-dir", run, "--find-batch"]
    assert train(*flags) == 2
    assert "--memory-limit" in capsys.readouterr().err
    counts = []
    for limit in ("0.005", "0.02"):
        assert train(*flags, "--memory-limit", limit, "--json") == 0
        counts.append(json.loads(capsys.readouterr().out)["largest_batch"])
    assert 1 <= counts[0] < counts[1]
    assert not run.exists()


@pytest.mark.slow
def test_two_processes_train_one_run_of_which_the_first_alone_speaks(tmp_path: Path) -> None:
    for seed in range(2):
        write_video(tmp_path / "videos" / f"{seed}.mp4", moving_square(seed, 24, 16, 16), 12)
    flags = [*SMALL, *SHORT, "--data", tmp_path / "videos", "--engine", "ddp", "--device", "cpu", "--pictures", "1"]
    pair, alone = tmp_path / "pair", tmp_path / "alone"
    source = str(Path(pcvideo.__file__).parents[1])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "pcvideo", "train", *map(str, flags), "--run-dir", str(pair)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("predict with them") == 1
    assert done.stderr.count("clips to train on") == 1
    assert sorted(path.name for path in (pair / "pictures").iterdir()) == ["step-00000002.gif", "step-00000002.png"]
    assert train(*flags[:-4], "--device", "cpu", "--run-dir", alone) == 0
    assert logged(pair, "loss") == pytest.approx(logged(alone, "loss"), rel=1e-5)
    one, other = hub.from_pretrained(pair / "best").state_dict(), hub.from_pretrained(alone / "best").state_dict()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-3, atol=1e-5)
